"""Send a file of events, or the simulated shop, with a progress bar and a report."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from schemas.errors import Refused, TidewireError
from streams.cli.progress import progress
from streams.client import Sender, Sent
from streams.jsonlines import CallReader, check_file, read_lines
from streams.simulate import Plan, Shop, deliveries
from streams.target import open_target, wait_until_through

if TYPE_CHECKING:
    from config.settings import Settings

MOST_NAMED = 10  # bad lines that are named; the others are counted
YIELD_EVERY = 100


class Report(NamedTuple):
    """What was sent. Sent is what the collector answered 200; whether it refused events stands in `rejected`."""

    sent: int
    bad: int
    requests: int
    repeated: int
    seconds: float

    def as_json(self) -> str:
        return json.dumps(self._asdict())

    def told(self) -> str:
        line = (
            f"{self.sent:,} events sent in {self.seconds:.1f} s ({self.sent / max(self.seconds, 1e-9):,.0f} a second)"
        )
        if self.repeated:
            line += f", {self.repeated:,} requests repeated"
        return line + (f"; {self.bad:,} lines are no calls" if self.bad else "")


def _warn(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


@asynccontextmanager
async def _sender(
    what: str, total: int | None, settings: Settings, url: str | None, write_key: str | None
) -> AsyncIterator[Sender]:
    """A sender with a progress bar. Where a Tidewire had to be started, it goes on until everything is through."""
    async with open_target(settings, url=url, write_key=write_key, reads=False) as target:
        with progress(what, total) as bar:
            async with Sender(
                target.url, target.write_key, compress=url is not None, on_sent=bar.advance, on_trouble=_warn
            ) as sender:
                yield sender
        if target.is_own:
            await wait_until_through(target)


def _report(sent: Sent, bad: int, began: float) -> Report:
    return Report(sent.calls, bad, sent.requests, sent.repeated, round(time.monotonic() - began, 3))


async def send_file(file: Path, settings: Settings, *, url: str | None, write_key: str | None) -> Report:
    """Send every call of the file; name lines that are none.

    Raises:
        TidewireError: the file cannot be read, or the collector does not take it.
    """
    await asyncio.to_thread(check_file, file)
    bad = 0
    calls = CallReader()
    async with _sender("Sending", None, settings, url, write_key) as sender:
        began = time.monotonic()
        async for line in read_lines(file):
            try:
                found = calls.calls_of(line)
            except Refused as refused:
                bad += 1
                if bad <= MOST_NAMED:
                    print(f"tidewire: {file}, line {line.number}: {refused}", file=sys.stderr)
                continue
            for call in found:
                await sender.send(call.person, call.body)
        await sender.flush()
        return _report(sender.sent, bad, began)


async def simulate_to_collector(
    plan: Plan, settings: Settings, *, rate: float | None, facts: Path | None, url: str | None, write_key: str | None
) -> Report:
    """Send the shop's calls as they are delivered; at `rate` a second, else as fast as they are taken."""
    shop = Shop(plan)
    async with _sender("Simulating", None, settings, url, write_key) as sender:
        began = time.monotonic()
        for number, call in enumerate(deliveries(plan, shop.calls())):
            if rate is not None:
                await _keep_pace(sender, began, number, rate)
            elif number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            await sender.send(str(call.person), call.body)
        await sender.flush()
        report = _report(sender.sent, 0, began)
    if facts is not None:
        write_facts(shop, facts)
    return report


async def _keep_pace(sender: Sender, began: float, number: int, rate: float) -> None:
    """Wait until call `number` is due; what was given before does not wait for a full batch."""
    due = began + number / rate
    if due - time.monotonic() > 0.01:
        await sender.flush()
        await asyncio.sleep(max(0.0, due - time.monotonic()))


def simulate_to_file(plan: Plan, out: Path, facts: Path | None) -> None:
    """Write the shop's calls as JSON lines, in the order of delivery."""
    shop = Shop(plan)
    lines = (call.body + b"\n" for call in deliveries(plan, shop.calls()))
    if str(out) == "-":
        _write(sys.stdout.buffer, lines)
    else:
        try:
            with out.open("wb") as file:
                _write(file, lines)
        except OSError as error:
            raise TidewireError(f"{out} cannot be written: {error.strerror}.") from None
    if facts is not None:
        write_facts(shop, facts)


def _write(file: BinaryIO, lines: Iterable[bytes]) -> None:
    for line in lines:
        file.write(line)
    file.flush()


def write_facts(shop: Shop, file: Path) -> None:
    """What is true of each person and no event says, as JSON lines."""
    try:
        with file.open("w", encoding="utf-8") as out:
            for fact in shop.facts():
                out.write(json.dumps(fact, ensure_ascii=False) + "\n")
    except OSError as error:
        raise TidewireError(f"{file} cannot be written: {error.strerror}.") from None
