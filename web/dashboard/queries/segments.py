"""Segments as ClickHouse knows them: how many are in each, who came and went, and how they were proven."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from web.dashboard.queries.people import LONGEST_SEARCH, MATCH, cursor, match_parameters, read_cursor

if TYPE_CHECKING:
    from sinks.analytics import Analytics

DAYS = 30
PAGE = 25
EXPORTED_AT_ONCE = 5_000
MOST_CAUSES = 100

_SIZES = """
SELECT segment, count() AS members FROM memberships FINAL
WHERE workspace = {workspace:String} AND ({name:String} = '' OR segment = {name:String}) GROUP BY segment
"""
# A decision that is stored twice has one id. Counting ids reads a part of the ledger; FINAL would read all of it, and a
# hash of 64 bits, in a million once in ten million times the same, takes a fifth of the time of the texts.
_FLOW = """
SELECT about AS segment, toDate(at, {zone:String}) AS day, uniqExactIf(cityHash64(id), kind = 'joined') AS joined,
    uniqExactIf(cityHash64(id), kind = 'left') AS left
FROM decisions
WHERE workspace = {workspace:String} AND processor = 'segments' AND kind IN ('joined', 'left')
    AND ({name:String} = '' OR about = {name:String}) AND at >= toDateTime({since:String}, {zone:String})
GROUP BY segment, day
"""
_PROOFS = """
SELECT segment, max(at) AS compared_at, argMax(version, at) AS version, argMax(members, at) AS members,
    argMax(sql_members, at) AS sql_members, argMax(differences, at) AS differences, argMax(missing, at) AS missing,
    argMax(surplus, at) AS surplus, argMax(seconds, at) AS seconds
FROM segment_proofs WHERE workspace = {workspace:String} AND ({name:String} = '' OR segment = {name:String})
GROUP BY segment
"""
# A change that an event caused is there when ClickHouse took it; one that time caused was due before.
_FRESHNESS = """
SELECT count() AS changes, quantiles(0.5, 0.99)(dateDiff('millisecond', began, stored_at)) AS took_ms
FROM (
    SELECT min(d.stored_at) AS stored_at,
        any(if(facts.why::String = 'time', parseDateTime64BestEffortOrZero(facts.due::String, 3), at)) AS began
    FROM decisions AS d
    WHERE workspace = {workspace:String} AND processor = 'segments' AND kind IN ('joined', 'left')
        AND facts.why::String IN ('event', 'time') AND about = {name:String} AND at >= now() - INTERVAL 1 DAY
    GROUP BY id
)
"""


class Flow(NamedTuple):
    """One day: how many there were at its end, and how many joined and left on it."""

    day: date
    members: int
    joined: int
    left: int


class Standing(NamedTuple):
    """How a segment stands: members now, day by day with today as the last, and its newest proof."""

    members: int
    days: list[Flow]
    proof: dict[str, Any] | None

    @property
    def today(self) -> Flow:
        return self.days[-1]


async def standings(
    analytics: Analytics, workspace: str, names: Sequence[str], *, today: date, zone: str, days: int = DAYS
) -> dict[str, Standing]:
    """How the segments stand, by name. Days begin in the time zone."""
    asked = {"workspace": workspace, "name": names[0] if len(names) == 1 else ""}
    first = today - timedelta(days=days - 1)
    sizes = {row["segment"]: row["members"] for row in await analytics.query(_SIZES, asked)}
    flows: dict[str, dict[date, dict[str, Any]]] = defaultdict(dict)
    for row in await analytics.query(_FLOW, {**asked, "zone": zone, "since": f"{first} 00:00:00"}):
        flows[row["segment"]][row["day"]] = row
    proofs = {row["segment"]: row for row in await analytics.query(_PROOFS, asked)}
    return {name: Standing(sizes.get(name, 0), _days(sizes.get(name, 0), flows[name], first, days), proofs.get(name))
            for name in names}  # fmt: skip


def _days(members: int, flow: dict[date, dict[str, Any]], first: date, days: int) -> list[Flow]:
    """Backwards from what is so now."""
    found = []
    for day in (first + timedelta(days=number) for number in reversed(range(days))):
        row = flow.get(day, {"joined": 0, "left": 0})
        found.append(Flow(day, members, row["joined"], row["left"]))
        members = max(0, members - row["joined"] + row["left"])
    return found[::-1]


async def freshness(analytics: Analytics, workspace: str, name: str) -> dict[str, Any]:
    """Of the changes of the last day: how many, and from their cause to ClickHouse, half and 99 % of them, in ms."""
    (found,) = await analytics.query(_FRESHNESS, {"workspace": workspace, "name": name})
    half, most = found["took_ms"]
    return {"changes": found["changes"], "p50_ms": half if found["changes"] else None,
            "p99_ms": most if found["changes"] else None}  # fmt: skip


# --- one segment

_CAUSES = """
SELECT kind, facts.why::String AS why, facts.event::String AS event, uniqExact(cityHash64(id)) AS times, max(at) AS last
FROM decisions
WHERE workspace = {workspace:String} AND processor = 'segments' AND kind IN ('joined', 'left') AND about = {name:String}
    AND at >= toDateTime({since:String}, {zone:String})
GROUP BY kind, why, event ORDER BY times DESC, kind, why, event LIMIT {most:UInt32}
"""
_OVERLAP = """
SELECT segment, count() AS both FROM memberships FINAL
WHERE workspace = {workspace:String} AND segment != {name:String}
    AND key IN (SELECT key FROM memberships FINAL WHERE workspace = {workspace:String} AND segment = {name:String})
GROUP BY segment ORDER BY both DESC, segment
"""
_SINCE = "toUnixTimestamp64Milli(ifNull(since, toDateTime64(0, 3, 'UTC')))"
_MEMBERS = f"""
SELECT key AS person, since, definition, {_SINCE} AS sorted_by
FROM memberships FINAL
WHERE workspace = {{workspace:String}} AND segment = {{name:String}}
    AND (sorted_by, person) < ({{before:Int64}}, {{place:String}})
    %s
ORDER BY sorted_by DESC, person DESC LIMIT {{most:UInt32}}
"""  # noqa: S608 - no value is part of the text
_FOUND = f"""
AND (positionCaseInsensitiveUTF8(key, {{search:String}}) > 0
    OR key IN (SELECT person FROM person_list WHERE {MATCH}))
"""  # noqa: S608 - as above
_COUNT = """
SELECT count() AS people FROM memberships FINAL
WHERE workspace = {workspace:String} AND segment = {name:String} %s
"""
_PORTRAITS = """
SELECT person, user_id, name, email, phone, company, first_seen, last_seen, events, visits, orders, revenue
FROM person_list WHERE workspace = {workspace:String} AND person IN {keys:Array(String)}
"""
_JOINED = """
SELECT recorded_for AS person, argMax(facts.why::String, at) AS why, argMax(facts.event::String, at) AS event
FROM decisions
WHERE workspace = {workspace:String} AND recorded_for IN {keys:Array(String)} AND processor = 'segments'
    AND kind = 'joined' AND about = {name:String}
GROUP BY person
"""
_CURRENCIES = """
SELECT arraySort(groupUniqArrayArray(mapKeys(revenue))) AS codes FROM person_list WHERE workspace = {workspace:String}
"""
_OF_PERSON = """
SELECT segment, since FROM memberships FINAL
WHERE workspace = {workspace:String} AND key = {person:String} ORDER BY since DESC, segment
"""
_NOBODY: dict[str, Any] = {
    "user_id": "", "name": "", "email": "", "phone": "", "company": "", "first_seen": None, "last_seen": None,
    "events": None, "visits": None, "orders": None, "revenue": {}, "why": "", "event": "",
}  # fmt: skip
_LATEST_MS = 2**62


class MembersPage(NamedTuple):
    """Some members, who joined last first; `next` is the place to go on from, empty at the end."""

    rows: list[dict[str, Any]]
    next: str


class Members:
    """Who is in one segment. A person without a portrait yet is among them, with nothing but her key."""

    def __init__(self, analytics: Analytics, workspace: str, name: str, search: str = "") -> None:
        self._analytics = analytics
        self.search = search.strip()[:LONGEST_SEARCH]
        self._asked = {**match_parameters(workspace, self.search), "name": name}
        self._found = _FOUND if self.search else ""  # without a search nobody's portrait needs to be read

    async def count(self) -> int:
        """How many the search finds."""
        return int((await self._analytics.query(_COUNT % self._found, self._asked))[0]["people"])

    async def page(self, after: str = "", most: int = PAGE) -> MembersPage:
        """The members from a place on, each with her portrait and what made her one."""
        place = read_cursor(after) if after else None
        before, person = place if place is not None and isinstance(place[0], int) else (_LATEST_MS, "")
        asked = {**self._asked, "before": before, "place": person, "most": most + 1}
        rows = await self._analytics.query(_MEMBERS % self._found, asked)
        has_more, rows = len(rows) > most, rows[:most]
        asked["keys"] = [row["person"] for row in rows]
        known = {row["person"]: row for row in await self._analytics.query(_PORTRAITS, asked)}
        joined = {row["person"]: row for row in await self._analytics.query(_JOINED, asked)}
        found = [{**_NOBODY, **row, **known.get(row["person"], {}), **joined.get(row["person"], {})} for row in rows]
        return MembersPage(found, cursor(rows[-1]["sorted_by"], rows[-1]["person"]) if has_more else "")

    async def all(self, first: MembersPage) -> AsyncIterator[dict[str, Any]]:
        """All that come from a page on, page by page."""
        page = first
        while True:
            for row in page.rows:
                yield row
            if not page.next:
                return
            page = await self.page(page.next, EXPORTED_AT_ONCE)


async def causes(
    analytics: Analytics, workspace: str, name: str, *, today: date, zone: str, days: int = DAYS
) -> list[dict[str, Any]]:
    """What made people join and leave in the last days, the most frequent first."""
    asked = {"workspace": workspace, "name": name, "zone": zone, "most": MOST_CAUSES,
             "since": f"{today - timedelta(days=days - 1)} 00:00:00"}  # fmt: skip
    return await analytics.query(_CAUSES, asked)


async def overlap(analytics: Analytics, workspace: str, name: str) -> list[dict[str, Any]]:
    """How many of its members are in each other segment."""
    return await analytics.query(_OVERLAP, {"workspace": workspace, "name": name})


async def segments_of(analytics: Analytics, workspace: str, person: str) -> list[dict[str, Any]]:
    """The segments that a person is in, each with since when."""
    return await analytics.query(_OF_PERSON, {"workspace": workspace, "person": person})


async def currencies(analytics: Analytics, workspace: str) -> list[str]:
    """The currencies in which anybody paid."""
    return [str(code) for code in (await analytics.query(_CURRENCIES, {"workspace": workspace}))[0]["codes"]]
