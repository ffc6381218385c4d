"""Messages: what became of each, and what those said that stayed here, or are in an inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from web.dashboard.queries.people import cursor, read_cursor

if TYPE_CHECKING:
    from sinks.analytics import Analytics

PAGE = 50
STATES = ("waiting", "sending", "unknown", "sent", "failed", "withheld")
LATEST_MS = 2**62

# The address of somebody is not where she is looked for by others: only by the whole of it.
LIST = """
SELECT id, person, key, template, channel, via, kind, topic, state, why, attempts, address, ordered_by, ordered_at,
    changed_at, due_at, toUnixTimestamp64Milli(ordered_at) AS ordered_ms
FROM messages_list
WHERE workspace = {workspace:String}
    AND ({state:String} = '' OR state = {state:String})
    AND ({template:String} = '' OR template = {template:String})
    AND ({person:String} = '' OR person = {person:String})
    AND (ordered_ms, id) < ({before:Int64}, {before_id:String})
ORDER BY ordered_ms DESC, id DESC
LIMIT {most:UInt32}
"""

ONE = """
SELECT id, person, key, template, template_version, channel, via, kind, topic, state, why, attempts, address, reference,
    ordered_by, ordered_at, changed_at, due_at
FROM messages_list WHERE workspace = {workspace:String} AND id = {id:String}
"""

KEPT = """
SELECT language, subject, preheader, text, html, link, address, kept_at, 'outbox' AS via, NULL AS read_at
FROM outbox_list WHERE workspace = {workspace:String} AND id = {id:String} LIMIT 1
UNION ALL
SELECT language, subject, '' AS preheader, text, html, link, '' AS address, kept_at, 'inbox' AS via,
    (SELECT max(read_at) FROM inbox_reads FINAL WHERE workspace = {workspace:String} AND id = {id:String}
     HAVING count() > 0) AS read_at
FROM inbox_list WHERE workspace = {workspace:String} AND id = {id:String} LIMIT 1
"""

COUNTS = """
SELECT channel, state, count() AS messages, quantileIf(0.5)(took_s, state = 'sent') AS p50_s,
    quantileIf(0.99)(took_s, state = 'sent') AS p99_s
FROM (SELECT channel, state, dateDiff('millisecond', ordered_at, changed_at) / 1000 AS took_s
      FROM messages_list WHERE workspace = {workspace:String})
GROUP BY channel, state
"""


class MessagePage(NamedTuple):
    rows: list[dict[str, Any]]
    next: str


class ChannelCounts(NamedTuple):
    """Of one channel: its messages by state, and how long those that were sent took, in seconds; None: none was."""

    channel: str
    states: dict[str, int]
    p50_s: float | None
    p99_s: float | None


async def messages(
    analytics: Analytics, workspace: str, *, state: str = "", template: str = "", person: str = "", before: str = "",
    most: int = PAGE,
) -> MessagePage:  # fmt: skip
    """The newest first; `before` is the `next` of the page before."""
    place = read_cursor(before) if before else None
    before_ms, before_id = place if place is not None and isinstance(place[0], int) else (LATEST_MS, "")
    rows = await analytics.query(LIST, {
        "workspace": workspace, "state": state, "template": template, "person": person, "before": before_ms,
        "before_id": before_id, "most": most + 1})  # fmt: skip
    shown = rows[:most]
    return MessagePage(shown, cursor(shown[-1]["ordered_ms"], shown[-1]["id"]) if len(rows) > most else "")


async def message(analytics: Analytics, workspace: str, id_: str) -> dict[str, Any] | None:
    rows = await analytics.query(ONE, {"workspace": workspace, "id": id_})
    return rows[0] if rows else None


async def kept(analytics: Analytics, workspace: str, id_: str) -> dict[str, Any] | None:
    """What a message said that stayed here, or is in her inbox."""
    rows = await analytics.query(KEPT, {"workspace": workspace, "id": id_})
    return rows[0] if rows else None


async def counts(analytics: Analytics, workspace: str) -> list[ChannelCounts]:
    rows = await analytics.query(COUNTS, {"workspace": workspace})
    found = []
    for channel in sorted({row["channel"] for row in rows}):
        of = {row["state"]: row for row in rows if row["channel"] == channel}
        sent = of.get("sent")
        found.append(ChannelCounts(channel, {state: int(row["messages"]) for state, row in of.items()},
                                   float(sent["p50_s"]) if sent else None,
                                   float(sent["p99_s"]) if sent else None))  # fmt: skip
    return found
