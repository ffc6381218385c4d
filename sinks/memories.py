"""What memories of segments would hold if they had been kept from the beginning: read from ClickHouse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from processors.memories import Memory
from processors.selectors import Selector
from processors.values import Zone, found
from sinks.analytics import LONGEST_QUERY_S, Analytics
from sinks.conditions import memories_sql

KEYS_OF_LOT = 20_000  # person keys of one query, about
LONGEST_S = 600.0
BETWEEN = 100  # rows read between two turns of the event loop

_decode = msgspec.json.Decoder().decode


async def read_memories(
    analytics: Analytics, selectors: Sequence[Selector], zone: Zone
) -> AsyncIterator[dict[str, dict[str, Memory]]]:
    """The memories of everybody who has any, by person key and selector: of about `KEYS_OF_LOT` keys at a time, read
    when they are asked for.

    Raises:
        ClickHouseError: the query failed.
    """
    sql, parameters = memories_sql(selectors, zone)
    (found,) = await analytics.query("SELECT uniq(key) AS keys FROM events")
    lots = found["keys"] // KEYS_OF_LOT + 1
    for lot in range(lots):
        rows = await analytics.query(sql, {**parameters, "lots": lots, "lot": lot}, longest_s=LONGEST_S)
        people: dict[str, dict[str, Memory]] = {}
        for number, row in enumerate(rows):
            if number % BETWEEN == BETWEEN - 1:
                await asyncio.sleep(0)
            memories = _memories(selectors, row)
            if memories:
                people[row["key"]] = memories
        yield people


async def memories_of(
    analytics: Analytics,
    selectors: Sequence[Selector],
    zone: Zone,
    keys: Sequence[str],
    *,
    longest_s: float = LONGEST_QUERY_S,
) -> dict[str, dict[str, Memory]]:
    """The memories of some keys, by key and selector."""
    if not selectors:
        return {}
    sql, parameters = memories_sql(selectors, zone, keys)
    rows = await analytics.query(sql, {**parameters, "lots": 1, "lot": 0}, longest_s=longest_s)
    return {row["key"]: _memories(selectors, row) for row in rows}


def _memories(selectors: Sequence[Selector], row: dict[str, Any]) -> dict[str, Memory]:
    found = {selector.id: _memory(selector, row[f"m{place}"]) for place, selector in enumerate(selectors)}
    return {id: memory for id, memory in found.items() if memory.known}


def _memory(selector: Selector, told: Any) -> Memory:
    if not selector.word:
        return Memory([tuple(known) for known in told])
    (at_ms, token, amount), values = told
    said = found([_decode(value) for value in values], ())  # cut as live ones are
    return Memory([(at_ms, token, amount)], said) if token else Memory()
