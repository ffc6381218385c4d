"""A dry run in a process of its own, so that the pages it is asked for on answer meanwhile, and live events wait for
nothing: it reads what is to be rehearsed and then the past, a row a line, and writes the report."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from schemas.errors import TidewireError
from schemas.event import Event
from streams.dry_run import DryRun, Period, Report
from streams.past import event_of_row, events_sql, hours_sql, ranges_of
from streams.rehearsal import Rehearsal, decode_rehearsal, encode_rehearsal

if TYPE_CHECKING:
    from sinks.analytics import Analytics

LONGEST_S = 280.0
ROWS_OF_WRITE = 500


class Asked(msgspec.Struct):
    """The first line."""

    config: str
    rehearsal: msgspec.Raw
    name: str
    period: tuple[int, int, int]
    alone: bool


_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_row = msgspec.json.Decoder(dict[str, Any]).decode
_decode_report = msgspec.json.Decoder(Report).decode


async def dry_run_apart(
    analytics: Analytics, rehearsal: Rehearsal, name: str, period: Period, *, alone: bool = False
) -> Report:
    """A dry run over what ClickHouse knows.

    Raises:
        TidewireError: it failed, or took longer than `LONGEST_S` seconds.
    """
    asked = Asked(str(rehearsal.config), msgspec.Raw(encode_rehearsal(rehearsal)), name, (*period,), alone)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.dry_run_apart", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LONGEST_S):
            said, wrong, _ = await asyncio.gather(
                _whole(process.stdout), _whole(process.stderr),
                _tell(process.stdin, _encode(asked), _rows(analytics, rehearsal.workspace, period.to_ms)),
            )  # fmt: skip
            code = await process.wait()
    except TimeoutError:
        raise TidewireError(f"The dry run took longer than {LONGEST_S:.0f} seconds. Name a shorter period, or run "
                            "`tidewire journeys dry-run`, which may take as long as it likes.") from None  # fmt: skip
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code:
        raise TidewireError(wrong.decode("utf-8", "replace").strip().rpartition("\n")[2]
                            or f"The dry run ended with code {code}.")  # fmt: skip
    return _decode_report(said)


async def _whole(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None
    return await stream.read()


async def _tell(stream: asyncio.StreamWriter | None, asked: bytes, rows: AsyncIterator[list[Any]]) -> None:
    assert stream is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, and said why
        stream.write(asked + b"\n")
        async for some in rows:
            stream.write(b"".join(_encode(row) + b"\n" for row in some))
            await stream.drain()
    stream.close()


async def _rows(analytics: Analytics, workspace: str, until_ms: int) -> AsyncIterator[list[Any]]:
    """The past, few rows at a time."""
    for first, last in ranges_of(await analytics.query(hours_sql(workspace, until_ms))):
        rows = await analytics.query(events_sql(workspace, first, last))
        for begin in range(0, len(rows), ROWS_OF_WRITE):
            yield rows[begin : begin + ROWS_OF_WRITE]
            await asyncio.sleep(0)


# --- in the process


def main() -> None:
    try:
        sys.stdout.buffer.write(_encode(_run(sys.stdin.buffer)))
    except TidewireError as error:
        sys.exit(str(error))


def _run(lines: BinaryIO) -> Report:
    asked = msgspec.json.decode(lines.readline(), type=Asked)
    rehearsal = decode_rehearsal(bytes(asked.rehearsal), Path(asked.config))
    began = time.monotonic()
    run = DryRun(rehearsal, asked.name, Period(*asked.period), alone=asked.alone)
    run.run(_past(lines, rehearsal.workspace))
    return run.report(time.monotonic() - began)


def _past(lines: BinaryIO, workspace: str) -> Iterator[Event]:
    for line in lines:
        yield event_of_row(workspace, _decode_row(line))


if __name__ == "__main__":
    main()
