"""The numbers of the Overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.coupons import TOLD
from schemas.messages import CLICKED, MACHINE, OPENED, OURS, SOURCE, WORK
from schemas.times import to_ms
from web.dashboard.ranges import RANGES, Range, RangeName, between, span_of, steps_of, whole

if TYPE_CHECKING:
    from sinks.analytics import Analytics

METRICS = ("people", "new_people", "events", "orders", "revenue")
MOST_RANKS = 10
MOST_ROWS = 1_000  # of a list, in its table and CSV

EXTENT = """
SELECT count() AS events, min(timestamp) AS first, max(timestamp) AS last
FROM events FINAL WHERE workspace = {workspace:String}
"""

# As `schemas.messages.is_no_deed`: what was said to her or of her, and what a machine did with it.
_TOLD = ", ".join(repr(name) for name in sorted(OURS | TOLD | WORK))
DEED = (f"NOT (source = '{SOURCE}' AND (type = 'identify' OR event IN ({_TOLD}) "
        f"OR (event IN ('{OPENED}', '{CLICKED}') AND toString(properties.{MACHINE}) != '')))")  # fmt: skip

# One pass over both stretches. `period` is 1 for this one, 0 for the one before.
EVENTS = f"""
SELECT
    timestamp >= fromUnixTimestamp64Milli({{start:Int64}}) AS period,
    count() AS events,
    uniqExactIf(person, {DEED}) AS people,
    uniqExactIf(person, position(person, '/u:') > 0 AND {DEED}) AS identified
FROM event_log
WHERE workspace = {{workspace:String}}
    AND timestamp >= fromUnixTimestamp64Milli({{before:Int64}}) AND timestamp < fromUnixTimestamp64Milli({{end:Int64}})
    AND (timestamp >= fromUnixTimestamp64Milli({{start:Int64}})
         OR timestamp < fromUnixTimestamp64Milli({{before_end:Int64}}))
GROUP BY period
"""  # noqa: S608

EVENT_STEPS = f"""
SELECT
    roundDown(toUnixTimestamp64Milli(timestamp), {{steps:Array(Int64)}}) AS step,
    count() AS events,
    uniqExactIf(person, {DEED}) AS people
FROM event_log
WHERE workspace = {{workspace:String}}
    AND timestamp >= fromUnixTimestamp64Milli({{before:Int64}}) AND timestamp < fromUnixTimestamp64Milli({{end:Int64}})
    AND (timestamp >= fromUnixTimestamp64Milli({{start:Int64}})
         OR timestamp < fromUnixTimestamp64Milli({{before_end:Int64}}))
GROUP BY step
"""  # noqa: S608

NEW_PEOPLE = """
SELECT
    roundDown(toUnixTimestamp64Milli(assumeNotNull(first_seen)), {steps:Array(Int64)}) AS step,
    count() AS new_people,
    countIf(user_id != '') AS identified
FROM person_list
WHERE workspace = {workspace:String} AND isNotNull(first_seen)
    AND first_seen >= fromUnixTimestamp64Milli({before:Int64}) AND first_seen < fromUnixTimestamp64Milli({end:Int64})
    AND (first_seen >= fromUnixTimestamp64Milli({start:Int64})
         OR first_seen < fromUnixTimestamp64Milli({before_end:Int64}))
GROUP BY step
"""

TOP_EVENTS = """
SELECT
    event AS name,
    countIf(timestamp >= fromUnixTimestamp64Milli({start:Int64})) AS times,
    uniqExactIf(person, timestamp >= fromUnixTimestamp64Milli({start:Int64})) AS people,
    countIf(timestamp < fromUnixTimestamp64Milli({start:Int64})) AS before
FROM event_log
WHERE workspace = {workspace:String}
    AND timestamp >= fromUnixTimestamp64Milli({before:Int64}) AND timestamp < fromUnixTimestamp64Milli({end:Int64})
    AND (timestamp >= fromUnixTimestamp64Milli({start:Int64})
         OR timestamp < fromUnixTimestamp64Milli({before_end:Int64}))
GROUP BY name HAVING times > 0
ORDER BY times DESC, name
LIMIT {most:UInt32}
"""

# What we say ourselves came by no write key.
WRITE_KEYS = TOP_EVENTS.replace("event AS name", "source AS name").replace("WHERE ", f"WHERE source != '{SOURCE}' AND ")


class Series(NamedTuple):
    """One number over time: a value for each step, and for the same step of the stretch before."""

    steps: list[datetime]
    now: list[int | Decimal]
    before: list[int | Decimal] | None


class Total(NamedTuple):
    now: int | Decimal
    before: int | Decimal | None


class Rank(NamedTuple):
    """One row of a list: how often, by how many people, and how often in the stretch before."""

    name: str
    times: int
    people: int
    before: int | None


class Extent(NamedTuple):
    """What there is at all."""

    events: int
    first: datetime
    last: datetime


def moment(value: Any) -> datetime | None:
    """A time as the query returned it, aware and in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


async def extent(analytics: Analytics, workspace: str) -> Extent | None:
    """How much there is and from when to when; None where there is nothing."""
    row = (await analytics.query(EXTENT, {"workspace": workspace}))[0]
    first, last = moment(row["first"]), moment(row["last"])
    if not row["events"] or first is None or last is None:
        return None
    return Extent(int(row["events"]), first, last)


def choose_range(query: Mapping[str, str], known: Extent, now: datetime, zone: str) -> Range:
    """The range that is asked for; without one the shortest that is not empty.

    `from` and `to` are days (2024-01-31), and come before `range`.
    """
    days = [_day(query.get(name, "")) for name in ("from", "to")]
    if days[0] or days[1]:
        first = days[0] or days[1]
        last = days[1] or now
        assert first is not None
        return between(first.date(), last.date(), zone)
    wanted = query.get("range", "auto")
    if wanted in RANGES:
        return _named(wanted, known, now, zone)
    for name in RANGES:
        span = _named(name, known, now, zone)
        if known.last >= span.start:
            return span
    return _named("all", known, now, zone)


def _named(name: RangeName, known: Extent, now: datetime, zone: str) -> Range:
    return whole(known.first, known.last, zone) if name == "all" else span_of(name, now, zone)


def _day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        return None
    return day if 1900 <= day.year <= 2200 else None


class Overview:
    """The numbers of one workspace over one range."""

    def __init__(self, analytics: Analytics, workspace: str, span: Range) -> None:
        self._analytics = analytics
        self.span = span
        before = span.start if span.before is None else span.before
        before_end = span.start if span.before_end is None else span.before_end
        self._parameters = {
            "workspace": workspace, "start": to_ms(span.start), "end": to_ms(span.end), "before": to_ms(before),
            "before_end": to_ms(min(before_end, span.start)), "most": MOST_ROWS,
        }  # fmt: skip
        self._steps = steps_of(span, span.start, span.end)
        # The first step may begin before the range does; counted is what lies inside.
        self._points = [max(to_ms(step), to_ms(span.start)) for step in self._steps]
        steps_before = [] if span.before is None else steps_of(span, before, min(before_end, span.start))
        self._points_before = [max(to_ms(step), to_ms(before)) for step in steps_before]
        self.points = [*self._points_before, *self._points]

    async def ask(self, sql: str, **more: object) -> list[dict[str, Any]]:
        """The rows of a query over the range."""
        return await self._analytics.query(sql, {**self._parameters, **more})

    async def people_and_events(self) -> dict[str, Total]:
        """People who did something (`people`, of them `identified`), and `events`."""
        rows = {int(row["period"]): row for row in await self.ask(EVENTS)}
        return {name: self._total(rows, name) for name in ("people", "identified", "events")}

    def _total(self, rows: Mapping[int, Mapping[str, Any]], name: str) -> Total:
        before = None if self.span.before is None else rows.get(0, {}).get(name, 0)
        return Total(rows.get(1, {}).get(name, 0), before)

    async def event_series(self) -> dict[str, Series]:
        """`events` and `people` by step."""
        rows = await self._in_steps(EVENT_STEPS)
        return {name: self.series(rows, name) for name in ("events", "people")}

    async def new_people(self) -> dict[str, Series]:
        """`new_people` by step, and how many of them are `identified` by now."""
        rows = await self._in_steps(NEW_PEOPLE)
        return {name: self.series(rows, name) for name in ("new_people", "identified")}

    async def _in_steps(self, sql: str, **more: object) -> dict[int, dict[str, Any]]:
        rows = await self.ask(sql, steps=self.points, **more)
        return {int(row["step"]): row for row in rows}

    def series(self, rows: Mapping[int, Mapping[str, Any]], name: str) -> Series:
        now = [rows.get(point, {}).get(name, 0) for point in self._points]
        if self.span.before is None:
            return Series(self._steps, now, None)
        before = [rows.get(point, {}).get(name, 0) for point in self._points_before[: len(now)]]
        return Series(self._steps, now, before + [0] * (len(now) - len(before)))

    async def top_events(self) -> list[Rank]:
        return self.ranks(await self.ask(TOP_EVENTS))

    async def write_keys(self) -> list[Rank]:
        """By which write key the events came."""
        return self.ranks(await self.ask(WRITE_KEYS))

    def ranks(self, rows: Sequence[Mapping[str, Any]]) -> list[Rank]:
        has_before = self.span.before is not None
        return [
            Rank(row["name"], int(row["times"]), int(row["people"]), int(row["before"]) if has_before else None)
            for row in rows
        ]

