"""Dead letters: by reason, one by one, and which of them were sent again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.rejected import Rejected
from schemas.times import to_ms
from web.dashboard.queries.people import cursor, read_cursor

if TYPE_CHECKING:
    from sinks.analytics import Analytics

PAGE = 50
COURSE_POINTS = 40
MOST_AT_ONCE = 10_000  # re-driven by one press of the button
STATES = ("open", "mended", "all")
LATEST_MS = 2**62

# A letter that was sent again has a line in the ledger; see streams/redrive.py. Letters that name no workspace belong
# to whoever looks.
_LETTERS = """
SELECT r.workspace AS workspace, r.id AS id, r.at AS at, toUnixTimestamp64Milli(r.at) AS at_ms,
    r.refused_by AS refused_by, r.processor AS processor, r.reason AS reason, r.field AS field, r.value AS value,
    r.mend AS mend, r.source AS source, r.message_id AS message_id, r.key AS key, r.topic AS topic,
    r.log_partition AS log_partition, r.log_offset AS log_offset, r.record AS record, r.record_key AS record_key,
    d.about != '' AS is_mended, d.mended_at AS mended_at, d.cause AS mended_as
FROM rejected_list AS r
LEFT JOIN (
    SELECT about, min(at) AS mended_at, argMin(cause, at) AS cause FROM decision_log
    WHERE processor = 'redrive' GROUP BY about
) AS d ON r.id = d.about
WHERE r.workspace IN ({workspace:String}, '')
"""

REASONS = f"""
SELECT reason, refused_by, processor, count() AS times, countIf(NOT is_mended) AS open, min(at) AS first,
    max(at) AS last, any(field) AS field, any(mend) AS mend
FROM ({_LETTERS})
GROUP BY reason, refused_by, processor
ORDER BY open DESC, times DESC, reason
"""  # noqa: S608 - no value is part of the text

LIST = f"""
SELECT * EXCEPT (record, record_key) FROM ({_LETTERS})
WHERE ({{reason:String}} = '' OR reason = {{reason:String}})
    AND multiIf({{state:String}} = 'open', NOT is_mended, {{state:String}} = 'mended', is_mended, true)
    AND (at_ms, id) < ({{before:Int64}}, {{before_id:String}})
ORDER BY at_ms DESC, id DESC
LIMIT {{most:UInt32}}
"""  # noqa: S608

ONE = f"SELECT * FROM ({_LETTERS}) WHERE id = {{id:String}}"  # noqa: S608

COURSE = """
SELECT reason, refused_by, processor, roundDown(toUnixTimestamp64Milli(at), {steps:Array(Int64)}) AS step,
    count() AS count
FROM rejected_list WHERE workspace IN ({workspace:String}, '')
GROUP BY reason, refused_by, processor, step
"""

OPEN_OF_REASON = f"""
SELECT * FROM ({_LETTERS})
WHERE NOT is_mended AND ({{reason:String}} = '' OR reason = {{reason:String}})
ORDER BY at_ms, topic, log_partition, log_offset, id LIMIT {{most:UInt32}}
"""  # noqa: S608


class Reason(NamedTuple):
    """All letters that were refused for one cause."""

    reason: str
    refused_by: str
    processor: str
    times: int
    open: int
    first: datetime
    last: datetime
    field: str
    mend: str
    course: list[int]


class LetterPage(NamedTuple):
    rows: list[dict[str, Any]]
    next: str


async def reasons(analytics: Analytics, workspace: str) -> list[Reason]:
    """The causes, the one with most open letters first, each with its course from the very first letter on."""
    rows = await analytics.query(REASONS, {"workspace": workspace})
    if not rows:
        return []
    start = to_ms(min(row["first"] for row in rows))
    width = max((to_ms(max(row["last"] for row in rows)) - start) // COURSE_POINTS + 1, 1)
    steps = [start + i * width for i in range(COURSE_POINTS)]
    course = {
        (row["reason"], row["refused_by"], row["processor"], int(row["step"])): int(row["count"])
        for row in await analytics.query(COURSE, {"workspace": workspace, "steps": steps})
    }
    return [
        Reason(
            row["reason"], row["refused_by"], row["processor"], int(row["times"]), int(row["open"]), row["first"],
            row["last"], row["field"], row["mend"],
            [course.get((row["reason"], row["refused_by"], row["processor"], step), 0) for step in steps],
        )
        for row in rows
    ]  # fmt: skip


async def letters(analytics: Analytics, workspace: str, reason: str = "", state: str = "open", before: str = "",
                  most: int = PAGE) -> LetterPage:  # fmt: skip
    """Letters without their records, the newest first."""
    place = read_cursor(before) if before else None
    at, last_id = place if place is not None and isinstance(place[0], int) else (LATEST_MS, "")
    rows = await analytics.query(
        LIST,
        {"workspace": workspace, "reason": reason, "state": state if state in STATES else "open", "before": at,
         "before_id": last_id, "most": most + 1},
    )  # fmt: skip
    has_more = len(rows) > most
    rows = rows[:most]
    return LetterPage(rows, cursor(rows[-1]["at_ms"], rows[-1]["id"]) if has_more else "")


async def letter(analytics: Analytics, workspace: str, letter_id: str) -> dict[str, Any] | None:
    rows = await analytics.query(ONE, {"workspace": workspace, "id": letter_id})
    return rows[0] if rows else None


async def open_letters(analytics: Analytics, workspace: str, reason: str, most: int = MOST_AT_ONCE) -> list[Rejected]:
    """Those of a reason (empty: of any) that were not sent again, the oldest first."""
    parameters = {"workspace": workspace, "reason": reason, "most": most}
    return [rejected_of(row) for row in await analytics.query(OPEN_OF_REASON, parameters)]


def rejected_of(row: Mapping[str, Any]) -> Rejected:
    """The dead letter that a row of the queries above stands for."""
    return Rejected(
        id=row["id"], at=row["at"], by=row["refused_by"], reason=row["reason"], field=row["field"], value=row["value"],
        mend=row["mend"], processor=row["processor"],
        record=_bytes(row["record"]), record_key=_bytes(row["record_key"]),
        topic=row["topic"], partition=int(row["log_partition"]), offset=int(row["log_offset"]),
        workspace=row["workspace"], source=row["source"], message_id=row["message_id"], key=row["key"],
    )  # fmt: skip


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


