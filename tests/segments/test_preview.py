"""Who would be in a segment, asked of ClickHouse before it is saved: how many, and some of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from processors.segments import Segments
from processors.values import zone_named
from schemas.conditions import read_condition
from schemas.times import from_ms, to_ms
from sinks.analytics import Analytics
from sinks.conditions import compared_sql, listed_sql, people_sql, preview_sql
from sinks.events import event_columns
from sinks.migrate import migrate
from tests.streams.world import START, an_event

NOW_MS = to_ms(START) + 3_600_000


async def previews(folder: Path, condition: Any, *, most: int = 2) -> tuple[int, list[str], list[dict[str, Any]]]:
    """Five people, of whom three have a portrait."""
    analytics = Analytics(f"chdb:{folder / 'clickhouse'}")
    try:
        await migrate(analytics, Segments.tables)
        events = [an_event(number, user=f"u{number}") for number in range(5)]
        await analytics.insert("events", event_columns(events))
        people = [f"w/u:u{number}" for number in range(3)]
        await analytics.insert("people", {
            "workspace": ["w"] * 3, "key": people, "name": ["Ann", "Bo", "Cy"], "orders": [0, 2, 4],
            "sections": [json.dumps({"orders": {"orders": count}}) for count in (0, 2, 4)],
            "merged_into": [""] * 3, "revision": [1] * 3,
        })  # fmt: skip
        query = people_sql(read_condition(condition), {}, workspace="w", now_ms=NOW_MS, zone=zone_named("UTC"))
        (found,) = await analytics.query(*preview_sql(query, most=most))
        (proof,) = await analytics.query(*compared_sql(query, workspace="w", name="tried"))
        assert proof["sql_members"] == found["people"]
        return found["people"], found["sample"], await analytics.query(*listed_sql(found["sample"], workspace="w"))
    finally:
        await analytics.close()


def test_the_sample_is_of_those_counted_the_same_each_time_with_what_is_known_of_them(tmp_path: Path):
    count, sample, listed = asyncio.run(previews(tmp_path / "one", {"did": "Seen"}))
    again = asyncio.run(previews(tmp_path / "two", {"did": "Seen"}))

    assert count == 5
    assert len(sample) == 2
    assert (count, sample, listed) == again
    assert [row["person"] for row in listed] == sample


def test_an_attribute_is_asked_of_the_portraits(tmp_path: Path):
    count, sample, listed = asyncio.run(previews(tmp_path, {"attribute": "orders.orders", "at_least": 2}))

    assert count == 2
    assert {(row["person"], row["name"], row["orders"]) for row in listed} == {("w/u:u1", "Bo", 2), ("w/u:u2", "Cy", 4)}
    assert sorted(sample) == ["w/u:u1", "w/u:u2"]


def test_who_has_no_portrait_has_no_attribute(tmp_path: Path):
    count, _, _ = asyncio.run(previews(tmp_path, {"not": {"attribute": "orders.orders", "at_least": 2}}))

    assert count == 3


def test_nobody_is_a_preview_too(tmp_path: Path):
    assert asyncio.run(previews(tmp_path, {"did": "Never"})) == (0, [], [])


def test_the_times_are_those_of_the_events(tmp_path: Path):
    count, _, _ = asyncio.run(previews(tmp_path, {"did": "Seen", "since": from_ms(NOW_MS).date().isoformat()}))

    assert count == 5
