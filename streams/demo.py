"""The demo: a real purchase history goes through the collector, and what came out is read back from ClickHouse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import TidewireError
from schemas.keys import WORKSPACE_PATTERN
from streams.cdnow import Call, calls, find_file, read_purchases
from streams.client import Sender
from streams.target import Target, wait_until_through

YIELD_EVERY = 100  # calls made between two turns of the event loop, so that requests are answered meanwhile
_CENT = Decimal("0.01")


class Counts(msgspec.Struct, frozen=True):
    """What ClickHouse holds after the demo.

    Attributes:
        events: accepted events, each once.
        people: persons, each once.
        orders: orders, each once; `revenue` is theirs, to the cent, without refunds.
        rows: rows of all tables, each once.
        rejected: dead letters.
        seconds: from the first request to the last row, on the clock of this machine.
    """

    events: int
    people: int
    orders: int
    revenue: Decimal
    rows: int
    rejected: int
    seconds: float


_encode = msgspec.json.Encoder(decimal_format="number").encode  # the digits as they are, never a float


def as_json(counts: Counts) -> str:
    return _encode(counts).decode()


def prepare(file: Path | None) -> list[Call]:
    """The calls of the purchase history; in `file`, else in the installed package.

    Raises:
        TidewireError: the file is not there, or not what it should be.
    """
    return list(calls(read_purchases(file or find_file())))


async def replay(
    target: Target,
    history: Sequence[Call],
    on_sent: Callable[[int], None] | None = None,
    on_trouble: Callable[[str], None] | None = None,
) -> None:
    """Send the history; returns when every call was answered 200."""
    async with Sender(target.url, target.write_key, on_sent=on_sent, on_trouble=on_trouble) as sender:
        for number, call in enumerate(history):
            await sender.send(call.person, call.body)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)


async def read_back(target: Target, workspace: str, seconds: float) -> Counts:
    """Count what is in ClickHouse, by SQL."""
    if not WORKSPACE_PATTERN.match(workspace):
        raise TidewireError(f"{workspace!r} is no workspace")
    row = (await target.query(COUNTS.replace("$workspace", workspace)))[0]
    rows = (await target.query(await _count_rows(target)))[0]
    return Counts(
        events=int(row["events"]), people=int(row["people"]), orders=int(row["orders"]),
        revenue=_exact(row["revenue"]), rows=int(rows["rows"]), rejected=int(row["rejected"]),
        seconds=round(seconds, 2),
    )  # fmt: skip


async def run_once(
    target: Target,
    history: Sequence[Call],
    workspace: str,
    on_sent: Callable[[int], None] | None = None,
    on_trouble: Callable[[str], None] | None = None,
) -> Counts:
    """Replay, wait until all of it is in ClickHouse, and count."""
    began = time.monotonic()
    await replay(target, history, on_sent, on_trouble)
    await wait_until_through(target)
    return await read_back(target, workspace, time.monotonic() - began)


COUNTS = """
SELECT
    (SELECT count() FROM event_log WHERE workspace = '$workspace') AS events,
    (SELECT count() FROM person_list WHERE workspace = '$workspace') AS people,
    (SELECT count() FROM orders FINAL WHERE workspace = '$workspace') AS orders,
    (SELECT toString(sum(revenue)) FROM orders FINAL WHERE workspace = '$workspace') AS revenue,
    (SELECT count() FROM rejected_list WHERE workspace IN ('$workspace', '')) AS rejected
"""

TABLES = """
SELECT name FROM system.tables
WHERE database = currentDatabase() AND engine LIKE '%ReplacingMergeTree' ORDER BY name
"""


async def _count_rows(target: Target) -> str:
    """A query that counts the rows of every table."""
    names = [str(row["name"]) for row in await target.query(TABLES)]
    counts = [f"(SELECT count() FROM `{name}` FINAL)" for name in names]  # noqa: S608 - names of ClickHouse itself
    return f"SELECT {' + '.join(counts)} AS rows"


def _exact(value: Any) -> Decimal:
    """The amount with two decimals, or with more where it has more."""
    amount = Decimal(str(value))
    cents = amount.quantize(_CENT)
    return cents if cents == amount else amount.normalize()
