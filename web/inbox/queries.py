"""What ClickHouse has of somebody's inbox: her messages, whatever key they were sent to, and which were read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from schemas.times import to_ms
from sinks.analytics import Analytics
from web.dashboard.queries.people import cursor, read_cursor

LONGEST_QUERY_S = 5.0
LAST_MS = 2**62

# By the primary keys alone: of her key, and of whoever it belongs to today.
KEYS = """
SELECT identities FROM people FINAL
WHERE workspace = {workspace:String} AND merged_into = ''
    AND (key = {person:String} OR key IN (
        SELECT person FROM identities FINAL WHERE workspace = {workspace:String} AND key = {person:String}))
"""
_READ = """
id IN (SELECT id FROM inbox_reads FINAL WHERE workspace = {workspace:String} AND key IN {keys:Array(String)})
"""
_HERS = """
FROM inbox FINAL
WHERE workspace = {workspace:String} AND key IN {keys:Array(String)}
    AND kept_at >= fromUnixTimestamp64Milli({since:Int64})
"""
LIST = f"""
SELECT id, kept_at, toUnixTimestamp64Milli(kept_at) AS at_ms, subject, text, html, link, {_READ} AS is_read
{_HERS} AND (at_ms, id) < ({{before:Int64}}, {{before_id:String}}) AND NOT ({{unread:Bool}} AND is_read)
ORDER BY at_ms DESC, id DESC LIMIT {{most:UInt32}}
"""
UNREAD = f"SELECT count() AS unread {_HERS} AND NOT {_READ}"
NAMED = f"""
SELECT id, key, template, topic {_HERS} AND NOT {_READ}
    AND ({{all:Bool}} OR id IN {{ids:Array(String)}})
ORDER BY kept_at DESC, id DESC LIMIT {{most:UInt32}}
"""


class Place(NamedTuple):
    """Where a page of messages begins: behind the message of this time and id."""

    at_ms: int = LAST_MS
    id: str = ""


class InboxPage(NamedTuple):
    """Messages, the newest first, as rows of LIST; `next` is the cursor of the page behind, empty at the end."""

    rows: list[dict[str, Any]]
    unread: int
    next: str


class Unread(NamedTuple):
    """A message that she has not read, and the person key that it was sent to."""

    id: str
    key: str
    template: str
    topic: str


class Inbox:
    """One person's inbox.

    Args:
        person: any person key of hers.
        since: messages that came before are gone, whether ClickHouse has deleted them yet or not.
    """

    def __init__(self, analytics: Analytics, person: str, since: datetime) -> None:
        self._analytics = analytics
        self._parameters: dict[str, Any] = {"workspace": person.partition("/")[0], "person": person,
                                            "since": to_ms(since)}  # fmt: skip
        self._person = person

    async def page(self, place: Place, *, most: int, is_unread: bool) -> InboxPage:
        keys = await self._keys()
        rows = await self._ask(LIST, keys=keys, before=place.at_ms, before_id=place.id, unread=is_unread, most=most + 1)
        unread = int((await self._ask(UNREAD, keys=keys))[0]["unread"])
        shown = rows[:most]
        return InboxPage(shown, unread, cursor(shown[-1]["at_ms"], shown[-1]["id"]) if len(rows) > most else "")

    async def unread(self, ids: Sequence[str] | None, most: int) -> list[Unread]:
        """Of these messages, or of all, those that are hers and that she has not read; the newest first."""
        rows = await self._ask(NAMED, keys=await self._keys(), all=ids is None, ids=list(ids or ()), most=most)
        return [Unread(**row) for row in rows]

    async def _keys(self) -> list[str]:
        """Every person key whose messages are hers."""
        rows = await self._ask(KEYS)
        return sorted({self._person, *(key for row in rows for key in row["identities"])})

    async def _ask(self, sql: str, **more: object) -> list[dict[str, Any]]:
        return await self._analytics.query(sql, {**self._parameters, **more}, longest_s=LONGEST_QUERY_S)


def place_of(text: str) -> Place | None:
    """The place that a cursor names; None where it names none."""
    found = read_cursor(text)
    if found is None or not isinstance(found[0], int) or not 0 <= found[0] < LAST_MS or len(found[1]) > 100:
        return None
    return Place(found[0], found[1])
