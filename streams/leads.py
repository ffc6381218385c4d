"""What partitions are to be told of journeys: `schemas.journeys.Led`, put together from what stands in the log of
journeys, templates and limits, and from what ClickHouse knows of those who are inside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from config.journeys import JourneyRead, conditions_of, templates_of
from processors.selectors import selector_of
from schemas.conditions import canonical, leaves_of
from schemas.errors import ConfigError
from schemas.journeys import JourneyFile, Led, LedJourney, Mail, SavedJourney, SplitStep, decode_led, encode_led
from schemas.segments import Said, Told
from streams.journeys import Journeys
from streams.lag import until_past
from streams.lines import EVENTS
from streams.log import Log
from streams.templates import Templates

if TYPE_CHECKING:
    from sinks.analytics import Analytics

log = structlog.get_logger(__name__)

KEPT = 2  # versions beside the newest: by one that was the newest just now somebody may enter until all are told
LOOK_UP_EVERY_S = 600.0
PATIENCE_S = 5.0
LEAST_CHANGE = 0.01  # of the share of an arm; less is not told
END = "end"

_INSIDE = """
SELECT DISTINCT journey, definition FROM journey_runs FINAL
WHERE workspace = {workspace:String} AND state != 'ended'
"""
# Who entered lately had less time to reach the goal, and more of them drew the arm that is drawn more often by now: so
# only those count whose time is over. Of whom several lines tell, as she came by twice, each draw was the same.
_ARMS = """
SELECT step, arm, target, count() AS people, sum(has_goal) AS goals
FROM (
    SELECT DISTINCT facts.step::String AS step, facts.arm::Int64 AS arm, facts.to::String AS target,
        facts.run::String AS run
    FROM decisions
    WHERE workspace = {workspace:String} AND processor = 'journeys' AND kind = 'split' AND about = {journey:String}
) AS drawn
INNER JOIN (
    SELECT run, goal_at IS NOT NULL AS has_goal FROM journey_runs FINAL
    WHERE workspace = {workspace:String} AND journey = {journey:String}
        AND entered_at <= fromUnixTimestamp64Milli({until_ms:Int64})
) AS runs ON drawn.run = runs.run
GROUP BY step, arm, target
"""


class _Version(NamedTuple):
    """A version as it was written, as plain values, and read."""

    plain: Any
    said: JourneyFile


class Leads:
    """Says what is to be told.

    Attributes:
        problems: what is missing of what journeys ask for; they go on without.
    """

    def __init__(self, log_: Log, analytics: Analytics, journeys: Journeys, templates: Templates, *,
                 workspace: str) -> None:  # fmt: skip
        self._log = log_
        self._analytics = analytics
        self._journeys, self._templates = journeys, templates
        self._workspace = workspace
        self._read: dict[str, _Version | None] = {}  # versions, by id
        self._unused: set[tuple[str, int]] = set()
        self._weights: dict[tuple[str, str], list[float]] = {}
        self._look_up_at_s = 0.0
        self._looked_up = 0
        self._seen: tuple[Any, ...] = ()
        self._news: Led | None = None
        self.problems: tuple[str, ...] = ()

    async def look(self) -> None:
        """Read on in the topics of journeys and templates."""
        await self._templates.look()
        await self._journeys.look()

    def steered(self, led: Led, limits: Any) -> Led:
        """The same with what is wanted of journeys by now, as of the last look: paused, gone, under other limits."""
        journeys = []
        for each in led.journeys:
            if self._journeys.saved(each.name) is not None:
                steering = self._journeys.steering(each.name)
                there = any((other.name, other.version) == (each.name, steering.migrate_to) for other in led.journeys)
                journeys.append(msgspec.structs.replace(
                    each, status=steering.status, migrate_to=steering.migrate_to if there else each.migrate_to
                ))  # fmt: skip
        mails = led.mails
        if len(journeys) < len(led.journeys):
            sent = {name for each in journeys for _, name in templates_of(JourneyFile.model_validate(each.said))}
            mails = {name: mail for name, mail in mails.items() if name in sent}
        return msgspec.structs.replace(led, journeys=journeys, mails=mails, limits=limits)

    async def news(self, told: Told | None, limits: Any, zone: str) -> Led | None:
        """What is to be told; None: nothing else than what was. While there never was a journey nobody is told."""
        await self.look()
        seen = (self._journeys.changes, self._templates.changes, self._looked_up, told, limits, zone)
        if seen != self._seen:
            led = await self._wanted(told, limits)
            is_new = bool(led.journeys) if told is None else (led, zone) != (told.led, told.zone)
            self._seen, self._news = seen, led if is_new else None
        return self._news

    async def _wanted(self, told: Told | None, limits: Any) -> Led:
        before = told.led if told is not None else Led()
        known: dict[str, dict[int, LedJourney]] = {}
        for each in before.journeys:
            known.setdefault(each.name, {})[each.version] = each
        led: list[LedJourney] = []
        reads: dict[tuple[str, int], JourneyFile] = {}
        for name in self._journeys.newest:
            if self._journeys.saved(name) is not None:
                for each, said in await self._versions(name, known.get(name, {})):
                    led.append(each)
                    reads[name, each.version] = said
        mails, problems = self._mails({sent for said in reads.values() for _, sent in templates_of(said)}, before.mails)
        self._tell_problems([*problems, *self._unreadable()])
        wanted = Led(journeys=led, mails=mails, limits=limits, workspace=self._workspace)
        return decode_led(encode_led(wanted))  # as it will be read, so that both can be compared

    async def _versions(self, name: str, told: Mapping[int, LedJourney]) -> list[tuple[LedJourney, JourneyFile]]:
        """The versions of a journey that matter, the newest first; none while its newest cannot be read and nobody
        was told of any other."""
        steering = self._journeys.steering(name)
        numbers: dict[int, SavedJourney] = {}
        for head in self._journeys.versions(name):
            if head.is_gone:  # who was inside by an older one left
                break
            numbers[head.version] = head
        wanted = {*list(numbers)[: KEPT + 1], *told, steering.migrate_to}
        wanted -= {number for number in told if (name, number) in self._unused and number != steering.migrate_to
                   and number not in list(numbers)[: KEPT + 1]}  # fmt: skip
        found: list[tuple[LedJourney, JourneyFile]] = []
        for number in sorted(wanted & ({*numbers} | {*told}), reverse=True):
            version = await self._version(name, numbers.get(number), told.get(number))
            if version is None:
                continue
            weights = self._weights_of(name, version.said, told.get(number))
            each = LedJourney(name=name, version=number, said=version.plain, is_newest=not found,
                              status=steering.status, migrate_to=steering.migrate_to, weights=weights)  # fmt: skip
            found.append((each, version.said))
        return found

    async def _version(self, name: str, head: SavedJourney | None, told: LedJourney | None) -> _Version | None:
        """A version as it can be read now, else as it was told; None: neither."""
        if head is not None and head.id not in self._read:
            saved = await self._journeys.version(name, head.version)
            read = self._journeys.compile(saved) if saved is not None else None
            self._read[head.id] = _Version(read.plain, read.said) if isinstance(read, JourneyRead) else None
        version = self._read[head.id] if head is not None else None
        if version is None and told is not None:
            version = _Version(told.said, JourneyFile.model_validate(told.said))
        return version

    def _unreadable(self) -> Iterable[str]:
        for name in self._journeys.newest:
            if isinstance(wrong := self._journeys.read(name), ConfigError):
                yield f'journey "{name}": {wrong}'

    def _mails(self, names: Collection[str], before: Mapping[str, Mail]) -> tuple[dict[str, Mail], list[str]]:
        """What orders must say of templates. One that is gone is what it was: its messages are withheld by the sender,
        with why, and not here without a word."""
        there = self._journeys.mails(names)
        found, problems = {}, []
        for name in sorted(names):
            mail = there.get(name) or before.get(name)
            if mail is not None:
                found[name] = mail
            if name not in there:
                problems.append(f'there is no template "{name}" that can be read')
        return found, problems

    def _tell_problems(self, problems: Iterable[str]) -> None:
        found = tuple(problems)
        if found and found != self.problems:
            log.warning("journeys_lack", problems=found)
        self.problems = found

    def _weights_of(self, name: str, said: JourneyFile, told: LedJourney | None) -> dict[str, list[float]]:
        weights = {}
        for step in _learning(said):
            known = self._weights.get((name, step.step)) or (told.weights.get(step.step) if told is not None else None)
            if known is not None and len(known) == len(step.split):
                weights[step.step] = known
        return weights

    # --- what ClickHouse knows

    async def look_up(self, told: Told | None, now_ms: int) -> None:
        """Ask from time to time which older versions nobody is inside by any more, and how the arms of splits do.

        Raises:
            ClickHouseError: no answer; what was known before stays known.
        """
        if told is None or not told.is_settled or time.monotonic() < self._look_up_at_s:
            return
        older = {(each.name, each.version) for each in told.led.journeys if not each.is_newest}
        # Only what nobody can enter by any more, and only once all that was entered by it is there to be seen.
        if older and await self._is_stored():
            rows = await self._analytics.query(_INSIDE, {"workspace": self._workspace})
            self._unused = older - {(row["journey"], row["definition"]) for row in rows}
        for each in told.led.journeys:
            if each.is_newest:
                await self._learn(each, now_ms)
        self._look_up_at_s = time.monotonic() + LOOK_UP_EVERY_S
        self._looked_up += 1

    async def _is_stored(self) -> bool:
        """Whether ClickHouse holds all that follows from the events there are now; it may take a moment."""
        ends = {partition: end - 1 for partition, (_, end) in (await self._log.bounds(EVENTS)).items()}
        try:
            async with asyncio.timeout(PATIENCE_S):
                await until_past(self._log, ends)
        except TimeoutError:
            return False
        return True

    async def _learn(self, journey: LedJourney, now_ms: int) -> None:
        """Weigh the arms of splits by how many of those who drew them reached the goal."""
        said = JourneyFile.model_validate(journey.said)
        steps = list(_learning(said))
        if not steps or said.goal is None:
            return
        from sinks.lift import propensities

        rows = await self._analytics.query(_ARMS, {
            "workspace": self._workspace, "journey": journey.name,
            "until_ms": now_ms - said.goal.within.ms,
        })  # fmt: skip
        found = {(row["step"], row["arm"], row["target"]): (row["people"], row["goals"]) for row in rows}
        names = {step.step for step in said.steps}
        for step in steps:
            arms = [(step.step, number, arm.then if arm.then in names else END)
                    for number, arm in enumerate(step.split, 1)]  # fmt: skip
            counts = [found.get(arm, (0, 0)) for arm in arms]
            if not any(people for people, _ in counts):
                continue  # it begins by the weights that were written
            weights, whole = propensities(counts), sum(arm.weight for arm in step.split)
            before = journey.weights.get(step.step) or [arm.weight / whole for arm in step.split]
            if max(abs(one - other) for one, other in zip(weights, before, strict=True)) > LEAST_CHANGE:
                self._weights[journey.name, step.step] = weights


def _learning(said: JourneyFile) -> Iterable[SplitStep]:
    return (step for step in said.steps if isinstance(step, SplitStep) and step.learns)


# --- what follows from what is told


def conditions_told(led: Led, zone: str) -> list[Said]:
    """The conditions of all journeys that need memory, as definitions that are only to be remembered for."""
    return [
        Said(name=f"journey.{each.name}.{each.version}.{number}", version=each.version, zone=zone,
             when=msgspec.json.decode(canonical(condition)))
        for each in led.journeys
        for number, (_, condition) in enumerate(conditions_of(JourneyFile.model_validate(each.said)))
        if any(selector_of(leaf, zone) is not None for leaf in leaves_of(condition))
    ]  # fmt: skip


def asks_everybody(before: Led, after: Led) -> bool:
    """Whether everybody is to be looked at when this is told after that: some leave, go on or move by it."""
    now = {each.name: (each.status, each.migrate_to) for each in after.journeys if each.is_newest}
    was = {each.name: (each.status, each.migrate_to) for each in before.journeys if each.is_newest}
    return before.limits != after.limits or any(now.get(name) != steering for name, steering in was.items())
