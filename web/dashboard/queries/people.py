"""The list of people: searched, sorted, and turned page by page without counting what lies before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from sinks.analytics import Analytics

PAGE = 50
MOST_EXPORTED = 100_000
LONGEST_SEARCH = 200
KINDS = ("all", "identified", "anonymous")


class Sort(NamedTuple):
    """An order of the list. `value` is SQL that is never NULL, `type` its ClickHouse type."""

    value: str
    type: str
    is_descending: bool = True


_TIME = "toUnixTimestamp64Milli(ifNull({}, toDateTime64(0, 3, 'UTC')))"
SORTS: dict[str, Sort] = {
    "last_seen": Sort(_TIME.format("last_seen"), "Int64"),
    "first_seen": Sort(_TIME.format("first_seen"), "Int64"),
    "name": Sort("lowerUTF8(multiIf(name != '', name, email != '', email, person))", "String", is_descending=False),
    "events": Sort("events", "UInt64"),
    "visits": Sort("visits", "UInt64"),
    "orders": Sort("orders", "UInt64"),
    "revenue": Sort("revenue[{currency:String}]", "Decimal(18, 4)"),
}
COLUMNS = ("events", "visits", "orders", "revenue", "first_seen", "last_seen", "company", "locale", "timezone")
SHOWN_AT_FIRST = ("events", "orders", "revenue", "first_seen", "last_seen")

MATCH = """
workspace = {workspace:String}
    AND multiIf({kind:String} = 'identified', user_id != '', {kind:String} = 'anonymous', user_id = '', true)
    AND ({search:String} = ''
        OR ({trait:String} != '' AND lowerUTF8(trim(BOTH '"' FROM
                JSONExtractRaw(toJSONString(traits), {trait:String}))) = lowerUTF8({trait_value:String}))
        OR positionCaseInsensitiveUTF8(concat(person, '\\n', name, '\\n', email, '\\n', phone, '\\n', company),
                                       {search:String}) > 0
        OR arrayExists(key -> positionCaseInsensitiveUTF8(key, {search:String}) > 0, identities)
        OR positionCaseInsensitiveUTF8(toJSONString(traits), {search:String}) > 0)
"""

COUNT = f"SELECT count() AS people FROM person_list WHERE {MATCH}"  # noqa: S608 - no value is part of the text

LIST = """
SELECT person, user_id, name, email, phone, company, locale, timezone, first_seen, last_seen, events, visits, orders,
    revenue, traits, {value} AS sorted_by
FROM person_list
WHERE {match} {after}
ORDER BY sorted_by {direction}, person {direction}
LIMIT {{most:UInt32}}
"""

TRAITS = """
SELECT arrayJoin(JSONAllPaths(traits)) AS name, count() AS people
FROM person_list WHERE workspace = {workspace:String}
GROUP BY name ORDER BY people DESC, name LIMIT 40
"""

MAIN_CURRENCY = """
SELECT arrayJoin(mapKeys(revenue)) AS currency, count() AS people
FROM person_list WHERE workspace = {workspace:String}
GROUP BY currency ORDER BY people DESC, currency LIMIT 1
"""


NEWEST = """
SELECT person, name, email FROM person_list WHERE workspace = {workspace:String} AND user_id != ''
ORDER BY last_seen DESC, person LIMIT 5
"""

BY_EMAIL = """
SELECT person FROM person_list WHERE workspace = {workspace:String} AND lower(email) = lower({email:String})
ORDER BY person LIMIT 10
"""


async def newest(analytics: Analytics, workspace: str) -> list[dict[str, Any]]:
    """Some of those who did something last, whose user ids are known."""
    return await analytics.query(NEWEST, {"workspace": workspace})


# By the primary key alone, and without what she is shown with: this is asked for every message that is ordered.
KNOWN = """
SELECT key FROM people FINAL
WHERE workspace = {workspace:String} AND key = {key:String} AND merged_into = ''
"""


async def is_known(analytics: Analytics, workspace: str, key: str) -> bool:
    """Whether this key stands for somebody, and not for one that it was merged into."""
    return bool(await analytics.query(KNOWN, {"workspace": workspace, "key": key}))


async def by_email(analytics: Analytics, workspace: str, email: str) -> list[str]:
    """The keys of those who have this address."""
    return [row["person"] for row in await analytics.query(BY_EMAIL, {"workspace": workspace, "email": email})]


class Wanted(NamedTuple):
    """What of the list is asked for."""

    search: str = ""
    kind: str = "all"
    sort: str = "last_seen"
    is_reversed: bool = False
    after: str = ""

    @staticmethod
    def of(query: Mapping[str, str]) -> Wanted:
        kind, sort = query.get("kind", ""), query.get("sort", "")
        return Wanted(
            query.get("q", "").strip()[:LONGEST_SEARCH],
            kind if kind in KINDS else "all",
            sort if sort in SORTS else "last_seen",
            query.get("reversed", "") == "1",
            query.get("after", "")[:2_000],
        )


class PeoplePage(NamedTuple):
    """One page of the list; `next` is the place to go on from, empty at the end."""

    rows: list[dict[str, Any]]
    next: str


def cursor(value: object, person: str) -> str:
    """The place behind a row, as text for an address."""
    text = str(value) if isinstance(value, Decimal) else value
    return base64.urlsafe_b64encode(msgspec.json.encode([text, person])).decode().rstrip("=")


def read_cursor(text: str) -> tuple[str | int, str] | None:
    """What `cursor` wrote; None for anything else."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=tuple[str | int, str])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return None


async def main_currency(analytics: Analytics, workspace: str) -> str:
    """The currency most people paid in; empty where nobody did."""
    rows = await analytics.query(MAIN_CURRENCY, {"workspace": workspace})
    return str(rows[0]["currency"]) if rows else ""


async def trait_names(analytics: Analytics, workspace: str) -> list[str]:
    """The traits that most people have."""
    return [str(row["name"]) for row in await analytics.query(TRAITS, {"workspace": workspace})]


async def count_people(analytics: Analytics, workspace: str, wanted: Wanted) -> int:
    return int((await analytics.query(COUNT, _parameters(workspace, wanted)))[0]["people"])


async def list_people(analytics: Analytics, workspace: str, wanted: Wanted, currency: str, most: int) -> PeoplePage:
    """The people from the cursor on."""
    sort = SORTS[wanted.sort]
    is_descending = sort.is_descending != wanted.is_reversed
    parameters = {**_parameters(workspace, wanted), "currency": currency, "most": most + 1}
    after = ""
    place = read_cursor(wanted.after) if wanted.after else None
    if place is not None:
        after = f"AND (sorted_by, person) {'<' if is_descending else '>'} ({{value:{sort.type}}}, {{place:String}})"
        parameters |= {"value": place[0], "place": place[1]}
    sql = LIST.format(value=sort.value, match=MATCH, after=after, direction="DESC" if is_descending else "ASC")
    rows = await analytics.query(sql, parameters)
    has_more = len(rows) > most
    rows = rows[:most]
    return PeoplePage(rows, cursor(rows[-1]["sorted_by"], rows[-1]["person"]) if has_more else "")


def _parameters(workspace: str, wanted: Wanted) -> dict[str, Any]:
    return match_parameters(workspace, wanted.search, wanted.kind)


def match_parameters(workspace: str, search: str, kind: str = "all") -> dict[str, Any]:
    """The values that `MATCH` takes."""
    trait, sign, value = search.partition("=")
    return {
        "workspace": workspace, "kind": kind, "search": search, "trait": trait.strip() if sign else "",
        "trait_value": value.strip(),
    }  # fmt: skip
