"""The suppression list, as ClickHouse has it: a second or two behind the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from web.dashboard.queries.people import cursor, read_cursor

if TYPE_CHECKING:
    from sinks.analytics import Analytics

PAGE = 50
LATEST_MS = 2**62

LIST = """
SELECT channel, address, reason, why, message, said_by, since, toUnixTimestamp64Milli(since) AS since_ms
FROM suppressions_list
WHERE workspace = {workspace:String}
    AND ({channel:String} = '' OR channel = {channel:String})
    AND position(address, {part:String}) > 0
    AND (since_ms, channel || '/' || address) < ({before:Int64}, {before_address:String})
ORDER BY since_ms DESC, channel || '/' || address DESC
LIMIT {most:UInt32}
"""
COUNT = "SELECT count() AS addresses FROM suppressions_list WHERE workspace = {workspace:String}"


class SuppressionPage(NamedTuple):
    rows: list[dict[str, Any]]
    next: str


async def suppressions(
    analytics: Analytics, workspace: str, *, channel: str = "", part: str = "", before: str = "", most: int = PAGE
) -> SuppressionPage:
    """The newest first; `part` of the address, in small letters; `before` is the `next` of the page before."""
    place = read_cursor(before) if before else None
    before_ms, before_address = place if place is not None and isinstance(place[0], int) else (LATEST_MS, "")
    rows = await analytics.query(LIST, {
        "workspace": workspace, "channel": channel, "part": part, "before": before_ms,
        "before_address": before_address, "most": most + 1})  # fmt: skip
    shown = rows[:most]
    more = f"{shown[-1]['channel']}/{shown[-1]['address']}" if len(rows) > most else ""
    return SuppressionPage(shown, cursor(shown[-1]["since_ms"], more) if more else "")


async def count(analytics: Analytics, workspace: str) -> int:
    (row,) = await analytics.query(COUNT, {"workspace": workspace})
    return int(row["addresses"])
