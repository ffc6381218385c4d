"""What is known of why somebody is, or is not, where a journey could have brought her: the ledger, her ways, her
messages, and what she did since."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from schemas.times import EPOCH

if TYPE_CHECKING:
    from sinks.analytics import Analytics
    from web.dashboard.queries.person import Person

MOST_LINES = 1_000  # of the ledger, the newest
MOST_RUNS = 50
MOST_MESSAGES = 200
MOST_EVENTS = 500

_RUN = "run, journey, definition, is_control, state, step, entered_at, entered_by, entry_key, due_at, left_at, " \
       "left_by, goal_at, goal_value, sent"  # fmt: skip
_MESSAGE = "id, person, key, template, channel, via, state, why, attempts, address, ordered_by, ordered_at, " \
           "changed_at, due_at"  # fmt: skip

RUNS = f"""
SELECT {_RUN} FROM journey_runs_list
WHERE workspace = {{workspace:String}} AND key IN {{keys:Array(String)}} AND journey = {{journey:String}}
ORDER BY entered_at DESC, run LIMIT {MOST_RUNS}
"""  # noqa: S608
LINES = f"""
SELECT at, id, kind, about, cause, facts FROM decision_log
WHERE workspace = {{workspace:String}} AND recorded_for IN {{keys:Array(String)}} AND processor = 'journeys'
    AND about = {{journey:String}}
ORDER BY at DESC, id LIMIT {MOST_LINES}
"""  # noqa: S608
# `toString`: what a path of JSON holds is of any type.
LINES_NAMING = f"""
SELECT at, id, kind, about, cause, facts FROM decision_log
WHERE workspace = {{workspace:String}} AND recorded_for IN {{keys:Array(String)}} AND processor = 'journeys'
    AND ({{template:String}} = '' OR toString(facts.template) = {{template:String}})
    AND ({{message:String}} = '' OR toString(facts.message) = {{message:String}})
ORDER BY at DESC, id LIMIT {MOST_LINES}
"""  # noqa: S608
ENDS = """
SELECT at, id, kind, about, cause, facts FROM decision_log
WHERE workspace = {workspace:String} AND recorded_for IN {keys:Array(String)} AND processor = 'messages'
    AND toString(facts.message) = {message:String}
ORDER BY at, id LIMIT 100
"""
MESSAGES = f"""
SELECT {_MESSAGE} FROM messages_list
WHERE workspace = {{workspace:String}} AND key IN {{keys:Array(String)}}
    AND ({{template:String}} = '' OR template = {{template:String}})
    AND ({{by:String}} = '' OR ordered_by = {{by:String}})
ORDER BY ordered_at DESC, id LIMIT {MOST_MESSAGES}
"""  # noqa: S608
ONE_MESSAGE = f"SELECT {_MESSAGE} FROM messages_list WHERE workspace = {{workspace:String}} AND id = {{id:String}}"  # noqa: S608
HAS_RUNS = """
SELECT count() AS count FROM (SELECT 1 FROM journey_runs WHERE workspace = {workspace:String}
                              AND journey = {journey:String} LIMIT 1)
"""
EVENTS = f"""
SELECT timestamp, received_at, message_id, source, type, event, name, category, user_id, anonymous_id, group_id,
    previous_id, properties, context, traits
FROM event_log
WHERE workspace = {{workspace:String}} AND key IN {{keys:Array(String)}} AND event = {{event:String}}
    AND received_at >= fromUnixTimestamp64Milli({{since:Int64}})
ORDER BY received_at DESC, message_id LIMIT {MOST_EVENTS}
"""  # noqa: S608
CHANGES = """
SELECT at, kind FROM decision_log
WHERE workspace = {workspace:String} AND recorded_for IN {keys:Array(String)} AND processor = 'segments'
    AND about = {segment:String} AND kind IN ('joined', 'left')
ORDER BY at DESC LIMIT 100
"""


async def runs(person: Person, journey: str) -> list[dict[str, Any]]:
    """Her ways through a journey, the newest first."""
    return await person.ask(RUNS, journey=journey)


async def lines(person: Person, journey: str) -> list[dict[str, Any]]:
    """What the ledger says of her in a journey."""
    return await person.ask(LINES, journey=journey)


async def lines_naming(person: Person, *, template: str = "", message: str = "") -> list[dict[str, Any]]:
    """What the ledger says of journeys that wanted to send her a template, or sent a message."""
    return await person.ask(LINES_NAMING, template=template, message=message)


async def ends(person: Person, message: str) -> list[dict[str, Any]]:
    """What the ledger says of what became of a message; its row may be gone before."""
    return await person.ask(ENDS, message=message)


async def messages(person: Person, *, template: str = "", by: str = "") -> list[dict[str, Any]]:
    """What she was to be sent, the newest first."""
    return await person.ask(MESSAGES, template=template, by=by)


async def message(analytics: Analytics, workspace: str, id_: str) -> dict[str, Any] | None:
    """One message, whoever it was for."""
    rows = await analytics.query(ONE_MESSAGE, {"workspace": workspace, "id": id_})
    return rows[0] if rows else None


async def has_runs(analytics: Analytics, workspace: str, journey: str) -> bool:
    """Whether anybody was ever in a journey of this name."""
    rows = await analytics.query(HAS_RUNS, {"workspace": workspace, "journey": journey})
    return bool(rows[0]["count"])


async def events(person: Person, event: str, since: datetime) -> Sequence[dict[str, Any]]:
    """What she did of one name since a moment, the newest first."""
    return await person.ask(EVENTS, event=event, since=int((since - EPOCH).total_seconds() * 1_000))


async def changes(person: Person, segment: str) -> list[dict[str, Any]]:
    """When she joined and left a segment, the newest first."""
    return await person.ask(CHANGES, segment=segment)
