"""Journeys as ClickHouse knows them: who is inside, who went which way, what was sent and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from config.journey_graph import Way
from schemas.journeys import CallStep, ExitStep, GoStep, JourneyFile, SendStep, WaitUntilStep
from sinks.lift import Group
from web.dashboard.journey_graph import ENTER, HELD_OUT, ways_from_entry

if TYPE_CHECKING:
    from sinks.analytics import Analytics

DAYS = 30
MOST_RUNS = 20
MOST_OF_PERSON = 50
ORDERED_BY = "journey "  # and its name: who ordered a message, in messages_list

# Somebody who entered twice counts once where groups are held against each other: what she does is no news twice.
_SIZES = """
SELECT journey, is_control, count() AS people, countIf(goals > 0) AS reached, sum(value) AS worth,
    sum(value * value) AS squares, sum(runs) AS entered, sum(inside) AS inside_now, sum(ordered) AS messages
FROM (
    SELECT journey, person, is_control, count() AS runs, countIf(goal_at IS NOT NULL) AS goals,
        sum(goal_value) AS value, countIf(state IN ('waits', 'quiet', 'slowed', 'held')) AS inside,
        sum(sent) AS ordered
    FROM journey_runs_list
    WHERE workspace = {workspace:String} AND ({name:String} = '' OR journey = {name:String})
    GROUP BY journey, person, is_control
)
GROUP BY journey, is_control
"""
_INSIDE = """
SELECT definition, step, state, count() AS people
FROM journey_runs FINAL
WHERE workspace = {workspace:String} AND journey = {name:String} AND state IN ('waits', 'quiet', 'slowed', 'held')
GROUP BY definition, step, state
"""
# A decision that is stored twice has one id; see queries.segments.
_LINES = """
SELECT kind, facts.step::String AS step, facts.number::Int64 AS number, facts.arm::Int64 AS arm,
    facts.why::String AS why, facts.control::Bool AS is_control, uniqExact(cityHash64(id)) AS times
FROM decisions
WHERE workspace = {workspace:String} AND processor = 'journeys' AND about = {name:String}
    AND facts.version::Int64 = {version:Int64}
    AND kind IN ('entered', 'woke', 'happened', 'timed_out', 'branched', 'split', 'updated', 'called', 'opened',
        'proposed', 'refused', 'left')
GROUP BY kind, step, number, arm, why, is_control
"""
_REFUSED = """
SELECT kind, facts.template::String AS template, facts.why::String AS why, uniqExact(cityHash64(id)) AS times
FROM decisions
WHERE workspace = {workspace:String} AND processor = 'journeys' AND about = {name:String}
    AND kind IN ('not_entered', 'refused', 'delayed')
GROUP BY kind, template, why ORDER BY times DESC, kind, template, why
"""
_DAYS = """
SELECT toDate(entered_at, {zone:String}) AS day, countIf(NOT is_control) AS entered, countIf(is_control) AS held_out,
    countIf(NOT is_control AND goal_at IS NOT NULL) AS converted,
    countIf(is_control AND goal_at IS NOT NULL) AS control_converted
FROM journey_runs FINAL
WHERE workspace = {workspace:String} AND journey = {name:String} AND left_by != 'merged'
    AND entered_at >= toDateTime({since:String}, {zone:String})
GROUP BY day ORDER BY day
"""
_RESULTS = """
SELECT template, channel, count() AS ordered, countIf(state = 'sent') AS sent, countIf(state = 'failed') AS failed,
    countIf(state = 'withheld') AS withheld, countIf(state IN ('waiting', 'sending', 'unknown')) AS open,
    countIf(id IN (%(read)s ('Message Opened', 'Message Read', 'Message Clicked'))) AS opened,
    countIf(id IN (%(read)s ('Message Clicked'))) AS clicked
FROM messages_list AS m
WHERE workspace = {workspace:String} AND ordered_by = {by:String}
GROUP BY template, channel ORDER BY template, channel
""" % {  # noqa: UP031 - braces are for the parameters
    "read": "SELECT properties.message_id::String FROM event_log WHERE workspace = {workspace:String} "
            "AND source = 'tidewire' AND properties.machine::String = '' AND event IN"
}  # fmt: skip
_WITHHELD = """
SELECT template, why, count() AS times FROM messages_list
WHERE workspace = {workspace:String} AND ordered_by = {by:String} AND state IN ('withheld', 'failed')
GROUP BY template, why ORDER BY times DESC, template, why LIMIT 50
"""
_RUN = """
    run, journey, definition, is_control, state, step, entered_at, entered_by, entry_key, due_at, left_at, left_by,
    goal_at, goal_value, sent
"""
_NEWEST = f"""
SELECT person, {_RUN} FROM journey_runs_list
WHERE workspace = {{workspace:String}} AND journey = {{name:String}}
    AND ({{step:String}} = '' OR step = {{step:String}} AND state IN ('waits', 'quiet', 'slowed', 'held'))
ORDER BY entered_at DESC, run DESC LIMIT {{most:UInt32}}
"""  # noqa: S608 - no value is part of the text
_OF_PERSON = f"""
SELECT {_RUN} FROM journey_runs FINAL
WHERE workspace = {{workspace:String}} AND key IN {{keys:Array(String)}}
ORDER BY entered_at DESC, run DESC LIMIT {{most:UInt32}}
"""  # noqa: S608 - as above
_NAMES = """
SELECT person, user_id, name, email FROM person_list
WHERE workspace = {workspace:String} AND person IN {keys:Array(String)}
"""


class Standing(NamedTuple):
    """How a journey stands.

    Attributes:
        entered, held_out: how often somebody entered, or was held out.
        inside: how many are at a step now.
        sent: messages that it was allowed to send.
        treated, control: the people who went through it, and those held out; each counts once.
    """

    entered: int = 0
    held_out: int = 0
    inside: int = 0
    sent: int = 0
    treated: Group = Group(0, 0)
    control: Group = Group(0, 0)


NOTHING = Standing()


async def standings(analytics: Analytics, workspace: str, name: str = "") -> dict[str, Standing]:
    """How journeys stand, by name; those that nobody ever entered are not among them."""
    found: dict[str, Standing] = {}
    for row in await analytics.query(_SIZES, {"workspace": workspace, "name": name}):
        so_far = found.get(row["journey"], NOTHING)
        group = Group(row["people"], row["reached"], row["worth"], row["squares"])
        if row["is_control"]:
            so_far = so_far._replace(held_out=row["entered"], control=group)
        else:
            so_far = so_far._replace(entered=row["entered"], treated=group)
        found[row["journey"]] = so_far._replace(inside=so_far.inside + row["inside_now"],
                                                sent=so_far.sent + row["messages"])  # fmt: skip
    return found


# --- the graph


class Stop(NamedTuple):
    """A step as people passed it.

    Attributes:
        here: how many are there now; waiting: of these, by state, such as `held`.
        came: how often somebody came to it; None: it cannot be told.
        left: who left at it, by why.
    """

    here: int
    waiting: Mapping[str, int]
    came: int | None
    left: Mapping[str, int]

    @property
    def lost(self) -> int:
        """How many left here before the end."""
        return sum(self.left.values())


class Flow(NamedTuple):
    """How people of one version went.

    Attributes:
        went: how many went each way; None: it cannot be told.
    """

    stops: dict[str, Stop]
    went: dict[Way, int | None]

    @property
    def most(self) -> int:
        return max((count or 0 for count in self.went.values()), default=0)


async def inside(analytics: Analytics, workspace: str, name: str) -> list[dict[str, Any]]:
    """Who is inside now: how many by version, step and state."""
    return await analytics.query(_INSIDE, {"workspace": workspace, "name": name})


async def flow(
    analytics: Analytics, workspace: str, name: str, version: int, said: JourneyFile, now: Sequence[Mapping[str, Any]]
) -> Flow:
    """How people went through a version; `now` is what `inside` found."""
    lines = await analytics.query(_LINES, {"workspace": workspace, "name": name, "version": version})
    here: dict[str, dict[str, int]] = defaultdict(dict)
    for row in now:
        if row["definition"] == version:
            here[row["step"]][row["state"]] = row["people"]
    return flow_of(said, lines, here)


def flow_of(said: JourneyFile, lines: Sequence[Mapping[str, Any]], here: Mapping[str, Mapping[str, int]]) -> Flow:
    """Lines of the ledger, counted, as ways that people went.

    A `go` writes no line. Somebody came to it as often as the ways to it were gone; where it has a bound, how often it
    led back is what is missing at the step it leads to, and the rest went on.
    """
    ways = ways_from_entry(said)
    went: dict[Way, int | None] = {way: _times(said, way, lines) for way in ways}
    left: dict[str, dict[str, int]] = defaultdict(dict)
    exits = {step.step for step in said.steps if isinstance(step, ExitStep)}
    for line in lines:
        if line["kind"] == "left" and line["why"] != "done" and line["step"] not in exits:
            left[line["step"]][line["why"]] = left[line["step"]].get(line["why"], 0) + line["times"]
    came: dict[str, int | None] = {ENTER: _sum(went[way] for way in ways if way.step == ENTER)}
    for step in said.steps:
        if not isinstance(step, GoStep):
            out = _sum(went[way] for way in ways if way.step == step.step)
            stays = sum(here.get(step.step, {}).values()) + sum(left[step.step].values())
            came[step.step] = None if out is None else out + stays
    for step in said.steps:
        if isinstance(step, GoStep):
            _go(step, ways, went, came)
    stops = {name: Stop(sum(here.get(name, {}).values()), here.get(name, {}), came[name], left[name])
             for name in (ENTER, *(step.step for step in said.steps))}  # fmt: skip
    return Flow(stops, went)


def unknown_flow(said: JourneyFile) -> Flow:
    """Of a journey that was not saved, nobody went any way yet."""
    names = (ENTER, *(step.step for step in said.steps))
    return Flow({name: Stop(0, {}, None, {}) for name in names}, dict.fromkeys(ways_from_entry(said)))


def _go(step: GoStep, ways: Sequence[Way], went: dict[Way, int | None], came: dict[str, int | None]) -> None:
    came[step.step] = entered = _sum(went[way] for way in ways if way.to == step.step)
    jump, *rest = [way for way in ways if way.step == step.step]
    if not rest:
        went[jump] = entered
        return
    others = _sum(went[way] for way in ways if way.to == jump.to and way != jump)
    there = came.get(jump.to)
    if entered is not None and others is not None and there is not None:
        went[jump] = min(max(there - others, 0), entered)
        went[rest[0]] = entered - (went[jump] or 0)


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one of them cannot be told."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _times(said: JourneyFile, way: Way, lines: Sequence[Mapping[str, Any]]) -> int | None:
    """How often a way was gone; None: the ledger does not say."""
    if way.step == ENTER:
        is_control = way.path == HELD_OUT
        return _of(lines, "entered", is_control=is_control)
    step = next(step for step in said.steps if step.step == way.step)
    if isinstance(step, GoStep):
        return None
    of = [line for line in lines if line["step"] == way.step]
    match way.path:
        case ("branch", int(number), _):
            return _of(of, "branched", number=number + 1)
        case ("split", int(number), _):
            return _of(of, "split", arm=number + 1)
        case ("exit",):
            return _of(of, "left", why="exit")
        case ("refused",):
            return _of(of, "refused")
        case ("otherwise",):
            return _of(of, "timed_out")
    # `then`: all that has no other way.
    kinds = ["woke", "happened", "updated", "called", "opened", "proposed"]
    if isinstance(step, WaitUntilStep) and step.otherwise in (None, way.to):
        kinds.append("timed_out")
    if isinstance(step, CallStep) or (isinstance(step, SendStep) and step.refused in (None, way.to)):
        kinds.append("refused")
    return sum(_of(of, kind) for kind in kinds) + _of(of, "branched", number=0)


def _of(lines: Sequence[Mapping[str, Any]], kind: str, **asked: Any) -> int:
    fitting = (line for line in lines if line["kind"] == kind and all(line[key] == asked[key] for key in asked))
    return sum(int(line["times"]) for line in fitting)


# --- what came of it


class Day(NamedTuple):
    """Who entered on a day, and how many of them reached the goal since; the same of those who were held out."""

    day: date
    entered: int
    converted: int
    held_out: int
    control_converted: int


async def days(
    analytics: Analytics, workspace: str, name: str, *, today: date, zone: str, days: int = DAYS
) -> list[Day]:
    """The last days, today as the last; they begin in the time zone."""
    first = today - timedelta(days=days - 1)
    asked = {"workspace": workspace, "name": name, "zone": zone, "since": f"{first} 00:00:00"}
    found = {row["day"]: Day(**row) for row in await analytics.query(_DAYS, asked)}
    return [found.get(day, Day(day, 0, 0, 0, 0)) for day in (first + timedelta(days=number) for number in range(days))]


async def results(analytics: Analytics, workspace: str, name: str) -> list[dict[str, Any]]:
    """Messages by template and channel: what became of them, and how many were opened and clicked by people."""
    return await analytics.query(_RESULTS, {"workspace": workspace, "by": ORDERED_BY + name})


async def withheld(analytics: Analytics, workspace: str, name: str) -> list[dict[str, Any]]:
    """Why messages that it sent did not arrive."""
    return await analytics.query(_WITHHELD, {"workspace": workspace, "by": ORDERED_BY + name})


async def refusals(analytics: Analytics, workspace: str, name: str) -> dict[str, list[dict[str, Any]]]:
    """Under `not_entered`, `refused` and `delayed`: who did not enter and which messages were not sent, by why."""
    found: dict[str, list[dict[str, Any]]] = {"not_entered": [], "refused": [], "delayed": []}
    for row in await analytics.query(_REFUSED, {"workspace": workspace, "name": name}):
        found[row["kind"]].append(row)
    return found


async def newest(
    analytics: Analytics, workspace: str, name: str, step: str = "", most: int = MOST_RUNS
) -> list[dict[str, Any]]:
    """Who entered last, or who of those that are at a step; each with what she is called."""
    rows = await analytics.query(_NEWEST, {"workspace": workspace, "name": name, "step": step, "most": most})
    asked = {"workspace": workspace, "keys": sorted({row["person"] for row in rows})}
    named = {row["person"]: row for row in await analytics.query(_NAMES, asked)} if rows else {}
    nobody = {"user_id": "", "name": "", "email": ""}
    return [{**row, **named.get(row["person"], nobody), "person": row["person"]} for row in rows]


async def of_person(analytics: Analytics, workspace: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The journeys of somebody, by all her keys, the newest first."""
    return await analytics.query(_OF_PERSON, {"workspace": workspace, "keys": list(keys), "most": MOST_OF_PERSON})
