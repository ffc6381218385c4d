"""Journeys, as the customer stage leads people through them: one person at a time, without a clock.

What journeys there are stands in the log (`schemas.journeys.Led`, in each `Define`), so a replay leads by the same.
Somebody is looked at

- when an event was applied to her: it may make her enter, go on, leave, or reach a goal;
- when she joined or left segments;
- when a timer of hers is due (`TIMER` and the id of the run, in the part that the run stands in);
- when a sweep asks everybody: to enter, or after journeys were paused, stopped or changed.

Each time is a `streams.journey_turn.Turn`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from processors.answers import at_path
from processors.fold import Fold
from processors.journeys import JOURNEYS, Inside, Journeys, both
from processors.moments import day_at, is_day
from processors.profile import PROFILE
from processors.rules import Asked
from processors.values import Zone, zone_named
from schemas.coupons import HISTORY_MS
from schemas.customer import Customer, Part
from schemas.event import Event
from schemas.internal import Sweep
from schemas.journeys import Dated, Entered, Led, Limits, Ordered
from schemas.keys import split_key
from schemas.segments import read_definitions
from schemas.times import to_ms
from streams.arbiter import Arbiter
from streams.journey_turn import ACTIVE, Turn
from streams.outbox import Outbox
from streams.plans import Plan, Way
from streams.segments import Judging

_SECTION = f"{JOURNEYS}:{Journeys.version}"
_LIMITS: TypeAdapter[Limits] = TypeAdapter(Limits)

Changes = Sequence[tuple[str, bool]]


class Plans:
    """All journeys that people are led by, compiled.

    Attributes:
        of: by name and version.
        newest: by name.
        by_event: those that people enter by an event, by its name.
        by_joined, by_left: by joining a segment, or leaving it, by its name.
        labels: of events that mean something to anybody who is inside.
        segments: that do.
    """

    def __init__(self, led: Led, zone: str) -> None:
        self.workspace = led.workspace
        self.zone: Zone = zone_named(zone)
        self.mails = led.mails
        limits: Limits = _LIMITS.validate_python(led.limits or {})
        self.holdout = limits.holdout
        self.arbiter = Arbiter(limits, zone)
        self.of: dict[tuple[str, int], Plan] = {}
        self.newest: dict[str, Plan] = {}
        self.by_event: dict[str, Asked[Plan]] = {}
        self.by_joined: dict[str, list[Plan]] = {}
        self.by_left: dict[str, list[Plan]] = {}
        for each in led.journeys:
            plan = self.of[each.name, each.version] = Plan(each, self.zone)
            if each.is_newest:
                self.newest[each.name] = plan
                enter = plan.said.enter
                if enter.event is not None:
                    self.by_event.setdefault(enter.event.did, Asked()).add(plan, enter.event.where, self.zone)
                elif enter.joined is not None:
                    self.by_joined.setdefault(enter.joined, []).append(plan)
                elif enter.left is not None:
                    self.by_left.setdefault(enter.left, []).append(plan)
        self.labels = frozenset(label for plan in self.of.values() for label in plan.labels)
        self.segments = frozenset(segment for plan in self.of.values() for segment in plan.segments)

    def entered_by(self, event: Event) -> Iterable[Plan]:
        """The journeys that people enter by an event."""
        asked = self.by_event.get(event.label)
        if asked is None or event.workspace != self.workspace or event.received_ms - event.at_ms > HISTORY_MS:
            return ()
        return dict.fromkeys(asked.of(event))


class Leading:
    """Leads the people of one partition after the other.

    Args:
        processor: of the fold, which remembers.
        judging: answers conditions.
    """

    def __init__(self, fold: Fold, processor: Journeys, judging: Judging) -> None:
        self.fold = fold
        self.judging = judging
        self._processor = processor
        self._compiled: dict[bytes, Plans] = {}
        self.plans = Plans(Led(), "UTC")

    def use(self, definitions: bytes) -> None:
        """From here on lead by these definitions."""
        plans = self._compiled.get(definitions)
        if plans is None:
            read = read_definitions(definitions) if definitions else None
            plans = Plans(read.led, read.zone) if read is not None else Plans(Led(), "UTC")
            if len(self._compiled) > 8:  # partitions may have different ones only while new ones are on their way
                self._compiled.clear()
            self._compiled[definitions] = plans
        self.plans = plans

    # --- what the stage tells

    def after_event(self, key: str, customer: Customer, part_key: str, event: Event, out: Outbox) -> None:
        """An event was applied to a part of hers."""
        entering = self.plans.entered_by(event)
        asking = self._asking(customer, event.label) if event.label in self.plans.labels else ()
        if not entering and not asking:
            return
        turn = Turn(self, key, customer, event.received_ms, out)
        for way in asking:
            turn.met(way, event)
        for plan in entering:
            turn.enter(plan, part_key, "event", {"event": event.label, "message_id": event.message_id},
                       key=plan.key_of(event), event=event)  # fmt: skip
        turn.close()

    def _asking(self, customer: Customer, label: str) -> list[Way]:
        """The runs of hers to which events of that name mean something."""
        return [way for way in self.ways(customer) if way.plan is not None and label in way.plan.labels]

    def after_segments(self, key: str, customer: Customer, changes: Changes, now_ms: int, out: Outbox) -> bool:
        """She joined or left segments. Returns whether anything of hers changed."""
        plans = self.plans
        asked = [(name, is_in, (plans.by_joined if is_in else plans.by_left).get(name, ())) for name, is_in in changes]
        asked = [each for each in asked if each[2] or each[0] in plans.segments]
        if not asked or customer.redirect or not customer.parts:
            return False
        turn = Turn(self, key, customer, now_ms, out)
        for name, is_in, _ in asked:
            for way in turn.ways():
                if way.plan is not None and name in way.plan.segments:
                    turn.segment(way, name, is_in)
        if split_key(key)[0] == plans.workspace:
            for name, is_in, entering in asked:
                for plan in entering:
                    turn.enter(plan, turn.home, "joined" if is_in else "left", {"segment": name})
        return turn.close()

    def on_due(self, key: str, customer: Customer, now_ms: int, out: Outbox) -> None:
        """Timers fired: those that processor `journeys` was told of since it was last asked."""
        due, self._processor.due = self._processor.due, []
        if not due:
            return
        turn = Turn(self, key, customer, now_ms, out)
        fired = set(due)
        ways = [way for way in turn.ways() if (way.part_key, way.id) in fired and 0 < way.run.due_ms <= now_ms]
        for way in sorted(ways, key=lambda way: (way.run.due_ms, way.id)):
            turn.due(way)
        turn.close()

    def after_merge(self, key: str, customer: Customer, out: Outbox) -> bool:
        """Parts came or went. Of a journey that people are in once at a time, the earliest run goes on."""
        if customer.redirect or not self._states(customer):
            return False
        turn = Turn(self, key, customer, out.at_ms, out)
        kept: dict[tuple[str, str], Way] = {}
        for way in sorted(turn.ways(), key=lambda way: (way.run.entered_ms, way.id)):
            once = way.run.journey, way.run.key
            if way.run.state in (*ACTIVE, "control") and kept.setdefault(once, way) is not way:
                turn.leave(way, "merged", {}, is_over=True)
        return turn.close()

    def swept(self, key: str, customer: Customer, sweep: Sweep, now_ms: int, out: Outbox) -> bool:
        """A sweep came to her. Returns whether anything of hers changed."""
        if customer.redirect or not customer.parts:
            return False
        turn = Turn(self, key, customer, now_ms, out)
        if sweep.journey:
            plan = self.plans.newest.get(sweep.journey)
            if plan is not None and split_key(key)[0] == self.plans.workspace and self._is_asked(plan, customer, sweep):
                turn.enter(plan, turn.home, plan.said.enter.kind, {"sweep": sweep.sweep}, once=sweep.sweep)
        else:
            for way in turn.ways():
                turn.steer(way)
        return turn.close()

    def _is_asked(self, plan: Plan, customer: Customer, sweep: Sweep) -> bool:
        """Whether a sweep to enter a journey means her."""
        enter = plan.said.enter
        if enter.date is not None:
            value = self.trait(customer, enter.date.trait)
            at = sweep.sweep.partition("@")[2]
            return isinstance(value, str) and _is_due(enter.date, value, at, self.plans.zone.name)
        segment = enter.schedule.segment if enter.schedule is not None else enter.broadcast
        return segment is not None and segment in customer.segments

    # --- what turns ask for

    def _states(self, customer: Customer) -> list[tuple[str, Part, Inside]]:
        """The states of the parts that have any."""
        open_ = self.fold.open
        return [(part_key, part, open_(part, JOURNEYS)) for part_key, part in customer.parts.items()
                if _SECTION in part.sections]  # fmt: skip

    def ways(self, customer: Customer) -> list[Way]:
        """All runs of hers, in the order of their ids."""
        of, newest = self.plans.of, self.plans.newest
        found = [
            Way(part_key, part, state, id_, run, of.get((run.journey, run.version)) if run.journey in newest else None)
            for part_key, part, state in self._states(customer) for id_, run in state.runs.items()
        ]  # fmt: skip
        return sorted(found, key=lambda way: way.id) if len(found) > 1 else found

    def entered(self, customer: Customer, journey: str) -> Entered | None:
        """What is remembered of her entries into a journey, over all parts."""
        known: Entered | None = None
        for _, _, state in self._states(customer):
            each = state.entered.get(journey)
            if each is not None:
                known = each if known is None else both(known, each)
        return known

    def ordered(self, customer: Customer) -> list[Ordered]:
        """The marketing messages that she got of journeys, the oldest first."""
        found = [each for _, _, state in self._states(customer) for each in state.ordered]
        return sorted(found, key=lambda each: (each.at_ms, each.id))

    def trait(self, customer: Customer, path: str) -> Any:
        (traits,) = self.fold.attributes(customer.parts, PROFILE, ("traits",))
        return at_path(traits, path.split("."))


def _is_due(date: Dated, value: str, at: str, zone: str) -> bool:
    """Whether the day that a trait says is the one of a sweep."""
    try:
        at_ms = to_ms(datetime.fromisoformat(at))
    except ValueError:
        return False
    return is_day(value, day_at(at_ms, zone), calendar=date.calendar, yearly=date.yearly,
                  days_before=date.days_before, zone=zone)  # fmt: skip


def leading_for(fold: Fold, judging: Judging | None) -> Leading | None:
    """Leading for a fold that remembers journeys and segments; None: it does not."""
    for processor in fold.processors:
        if isinstance(processor, Journeys) and judging is not None:
            return Leading(fold, processor, judging)
    return None
