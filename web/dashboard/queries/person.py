"""Everything about one person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from schemas.times import to_ms
from web.dashboard.queries.people import cursor, read_cursor

if TYPE_CHECKING:
    from sinks.analytics import Analytics

TIMELINE_PAGE = 40
MOST_ORDERS = 200
COURSE_POINTS = 60

PORTRAIT = "SELECT * FROM person_list WHERE workspace = {workspace:String} AND person = {person:String}"
HOLDER = "SELECT person FROM identity_list WHERE workspace = {workspace:String} AND key = {person:String}"
IDENTITIES = """
SELECT key, person, moves, evidence, linked_at
FROM identity_list WHERE workspace = {workspace:String} AND person = {person:String}
ORDER BY key = person DESC, linked_at, key
"""
EVIDENCE = """
SELECT message_id, event, timestamp, source, key
FROM event_log WHERE workspace = {workspace:String} AND key IN {keys:Array(String)}
    AND message_id IN {evidence:Array(String)}
"""
TIMELINE = """
SELECT timestamp, toUnixTimestamp64Milli(timestamp) AS at_ms, message_id, source, type, event, name, key, path, title,
    url, revenue, currency, order_id, received_at, sent_at, original_timestamp, flags, attempt, utm_source,
    utm_medium, utm_campaign, referrer, properties, context, traits, integrations, extra, user_id, anonymous_id,
    group_id, previous_id, category
FROM event_log
WHERE workspace = {workspace:String} AND key IN {keys:Array(String)}
    AND ({event:String} = '' OR event = {event:String})
    AND (at_ms, message_id) < ({before:Int64}, {before_id:String})
ORDER BY at_ms DESC, message_id DESC
LIMIT {most:UInt32}
"""
COUNTS = """
SELECT event, count() AS count, min(timestamp) AS first, max(timestamp) AS last
FROM event_log WHERE workspace = {workspace:String} AND key IN {keys:Array(String)}
GROUP BY event ORDER BY count DESC, event
"""
COURSE = """
SELECT roundDown(toUnixTimestamp64Milli(timestamp), {steps:Array(Int64)}) AS step, count() AS count
FROM event_log WHERE workspace = {workspace:String} AND key IN {keys:Array(String)}
GROUP BY step
"""
DECISIONS = """
SELECT at, kind, about, processor, cause, facts
FROM decision_log WHERE workspace = {workspace:String} AND recorded_for IN {keys:Array(String)}
ORDER BY at DESC, id LIMIT 100
"""

LATEST_MS = 2**62


class TimelinePage(NamedTuple):
    """A stretch of the timeline, the newest first; `next` is the place to go on from, empty at the end."""

    rows: list[dict[str, Any]]
    next: str


class Person:
    """What ClickHouse knows of one person, by her key and all keys whose history is hers."""

    def __init__(self, analytics: Analytics, workspace: str, key: str) -> None:
        self._analytics = analytics
        self._parameters: dict[str, Any] = {"workspace": workspace, "person": key}
        self.key = key
        self.keys: list[str] = [key]

    async def ask(self, sql: str, **more: object) -> list[dict[str, Any]]:
        """The rows of a query over her keys."""
        return await self._analytics.query(sql, {**self._parameters, "keys": self.keys, **more})

    async def portrait(self) -> dict[str, Any] | None:
        """Her row of `person_list`, with `sections` decoded; None where there is none yet."""
        rows = await self.ask(PORTRAIT)
        if not rows:
            return None
        row = rows[0]
        row["sections"] = msgspec.json.decode(row["sections"] or "{}")
        self.keys = sorted({self.key, *row["identities"]})
        return row

    async def holder(self) -> str:
        """The person this key belongs to today; itself where nothing else is known."""
        rows = await self.ask(HOLDER)
        return str(rows[0]["person"]) if rows else self.key

    async def identities(self) -> list[dict[str, Any]]:
        """Her keys, her own first, each with the event that linked it."""
        rows = await self.ask(IDENTITIES)
        self.keys = sorted({*self.keys, *(row["key"] for row in rows)})
        if all(row["key"] != self.key for row in rows):
            rows.insert(0, {"key": self.key, "person": self.key, "moves": 0, "evidence": "", "linked_at": None})
        wanted = [row["evidence"] for row in rows if row["evidence"]]
        found = {row["message_id"]: row for row in await self.ask(EVIDENCE, evidence=wanted)} if wanted else {}
        for row in rows:
            row["event"] = found.get(row["evidence"])
        return rows

    async def timeline(self, event: str, before: str, most: int = TIMELINE_PAGE) -> TimelinePage:
        place = read_cursor(before) if before else None
        at, message_id = place if place is not None and isinstance(place[0], int) else (LATEST_MS, "")
        rows = await self.ask(TIMELINE, event=event, before=at, before_id=message_id, most=most + 1)
        has_more = len(rows) > most
        rows = rows[:most]
        return TimelinePage(rows, cursor(rows[-1]["at_ms"], rows[-1]["message_id"]) if has_more else "")

    async def counts(self) -> list[dict[str, Any]]:
        """How often she did what, the most frequent first."""
        return await self.ask(COUNTS)

    async def course(self, first: datetime, last: datetime) -> list[int]:
        """Her activity from the first event to the last, in equal steps."""
        start, end = to_ms(first), to_ms(last)
        width = max((end - start) // COURSE_POINTS + 1, 1)
        steps = [start + i * width for i in range(COURSE_POINTS)]
        found = {int(row["step"]): int(row["count"]) for row in await self.ask(COURSE, steps=steps)}
        return [found.get(step, 0) for step in steps]

    async def decisions(self) -> list[dict[str, Any]]:
        return await self.ask(DECISIONS)


def body_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the timeline as the event it was, for people to read: without what is empty."""
    names: Sequence[tuple[str, str]] = (
        ("messageId", "message_id"), ("type", "type"), ("event", "event"), ("name", "name"), ("category", "category"),
        ("userId", "user_id"), ("anonymousId", "anonymous_id"), ("groupId", "group_id"), ("previousId", "previous_id"),
        ("timestamp", "timestamp"), ("originalTimestamp", "original_timestamp"), ("sentAt", "sent_at"),
        ("receivedAt", "received_at"), ("source", "source"), ("properties", "properties"), ("traits", "traits"),
        ("context", "context"), ("flags", "flags"), ("attempt", "attempt"),
    )  # fmt: skip
    body: dict[str, Any] = {}
    for name, column in names:
        value = row.get(column)
        if value not in (None, "", [], {}, 0):
            body[name] = value.isoformat() if isinstance(value, datetime) else value
    for name in ("integrations", "extra"):
        if row.get(name) not in (None, "", "{}"):
            body[name] = _decoded(row[name])
    if body.get("event") and body.get("type") != "track":
        del body["event"]  # the label of a page or identify call is ours, not the sender's
    return body


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
