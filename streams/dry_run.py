"""Dry runs of journeys: what one would have done, or did, in a past period.

The real stage goes through the history under virtual time (`streams.virtual`), all that ever happened, so that
segments know the past; people enter from a day on, and what happens to them in the period is told. Nothing leaves, and
nothing is written. The journeys beside it are led as well, since they share its caps.

An event counts from when it came. What came later than `HISTORY_MS` after it happened was brought in: it counts from
when it happened. What the log holds of messages that were sent then is told of those that are ordered now.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from processors.answers import at_path
from processors.moments import day_at, is_day, next_clock
from processors.profile import PROFILE
from schemas.coupons import HISTORY_MS
from schemas.errors import ConfigError
from schemas.event import Event
from schemas.internal import Sweep
from schemas.journeys import Dated, Enter, JourneyFile
from schemas.messages import SOURCE, Order
from schemas.segments import Cuts, Definitions
from schemas.times import to_iso, to_ms
from streams.outbox import effect_id
from streams.rehearsal import Rehearsal
from streams.segments import RULES_KEY
from streams.sweeps import next_sweep, sweep_of
from streams.virtual import ANSWER_AFTER_MS, Told, VirtualStage, sent

EXAMPLES = 10
MOST_OF_EXAMPLE = 50  # lines of one
MIDNIGHT = "00:00"
_DAY = len("2026-01-31")
_HISTORY = timedelta(milliseconds=HISTORY_MS)


class Period(NamedTuple):
    """What is told of, in ms since 1970: from the first moment on, and before the second. People enter from `since_ms`
    on: who entered before the period is inside when it begins, and is not told of."""

    from_ms: int
    to_ms: int
    since_ms: int


def period_of(from_: str, to: str, since: str, zone: str) -> Period:
    """From the beginning of one day to the end of another; a text with a time of day is that moment.

    Raises:
        ConfigError: one is no day, or they are in the wrong order.
    """
    from_ms, to_ms_ = _day("from", from_, zone), _day("to", to, zone, is_last=True)
    since_ms = _day("since", since, zone) if since else from_ms
    if to_ms_ <= from_ms:
        raise ConfigError("to", f"{to} is before {from_}.", "Name a later day.")
    if since_ms > from_ms:
        raise ConfigError("since", f"{since} is after {from_}.", "Name the day itself, or one before it.")
    return Period(from_ms, to_ms_, since_ms)


def _day(name: str, text: str, zone: str, *, is_last: bool = False) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(name, f'"{text}" is no day.', "Write it as 2026-01-31.") from None
    if is_last and len(text) <= _DAY:
        at += timedelta(days=1)
    return to_ms(at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(zone)))


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened to somebody at a moment, in the words of the ledger, with its facts."""

    at: str
    what: str
    step: str = ""
    why: str = ""


class Example(msgspec.Struct, frozen=True):
    """Somebody's way through the journey."""

    person: str
    run: str
    lines: list[Line]


class Report(msgspec.Struct, kw_only=True):
    """What a dry run comes to.

    Attributes:
        from_, to: the period.
        events: of the whole history, as many as were looked at.
        people: how many entered; entered: how often; held_out: how many of these times they were held out.
        not_entered: how often somebody did not enter, by the reason.
        sends: messages by step; refused: those that were not sent, by step and reason; caps: by cap, how often it
            was hit, or lost against another journey.
        steps: how often each step was come to, as far as the ledger says so.
        left: how often they left, by the reason; inside: how many runs are at a step when the period ends.
        goals: how often the goal was reached, and what that was worth (`value`); by those held out, goals_of_held_out.
        seconds: how long it took.
    """

    journey: str
    from_: str = msgspec.field(name="from")
    to: str
    since: str
    beside: list[str]
    events: int = 0
    people: int = 0
    entered: int = 0
    held_out: int = 0
    not_entered: dict[str, int] = {}
    sends: dict[str, int] = {}
    calls: dict[str, int] = {}
    refused: dict[str, dict[str, int]] = {}
    delayed: dict[str, int] = {}
    caps: dict[str, int] = {}
    steps: dict[str, int] = {}
    left: dict[str, int] = {}
    exits: dict[str, int] = {}
    inside: int = 0
    goals: int = 0
    goals_of_held_out: int = 0
    value: float = 0.0
    examples: list[Example] = []
    seconds: float = 0.0


class DryRun:
    """One dry run.

    Args:
        name: of the journey; it and all others are those of `rehearsal`.
        alone: the others are left out; else those that are not live.

    Attributes:
        told: what happened in all journeys from `since_ms` on.
        orders: the messages that they ordered.
    """

    def __init__(self, rehearsal: Rehearsal, name: str, period: Period, *, alone: bool = False) -> None:
        self._rehearsal, self.name, self.period = rehearsal, name, period
        self._end_ms = period.to_ms - 1
        beside = [each.name for each in rehearsal.journeys.values() if each.status == "live" and not alone]
        self.names = sorted({name, *beside})
        self._enters: dict[str, Enter] = {
            each: JourneyFile.model_validate(rehearsal.journeys[each].said).enter for each in self.names
        }
        self._fold = rehearsal.fold()
        self._stage = VirtualStage(self._fold, answer=self._answer)
        self._led = rehearsal.definitions(self.names)
        self._messages = _Messages()
        self._dates = {each: _Dates(enter.date) for each, enter in self._enters.items() if enter.date is not None}
        self._cuts: Cuts | None = None
        self._is_led = False
        self._fifths: Any = None
        if rehearsal.uses_rfm(self.names):
            from streams.fifths import Fifths  # it needs numpy

            self._fifths = Fifths(self._fold, rehearsal.workspace)
        self.events = 0

    @property
    def told(self) -> list[Told]:
        return self._stage.told

    @property
    def orders(self) -> list[Order]:
        return self._stage.orders

    def run(self, history: Iterable[Event], on_event: Callable[[int], None] | None = None) -> None:
        """Go through a history: its events in the order of `moment_of`. `on_event` is told how many more were."""
        stage, period = self._stage, self.period
        self._define()
        stage.at(period.since_ms, self._begin)
        is_begun = False
        for event in history:
            event = as_it_came(event)
            if event.received_ms > self._end_ms:
                break
            if not is_begun:
                is_begun = True
                stage.now_ms = event.received_ms
                if self._fifths is not None:
                    self._look_up_from(event.received_ms)
            self.events += 1
            stage.advance(event.received_ms)
            found = self._messages.translated(event) if event.source == SOURCE and self._is_led else event
            if found is not None:
                stage.happen(found)
            if on_event is not None:
                on_event(1)
        stage.advance(self._end_ms)

    def _begin(self) -> None:
        """From here on people enter."""
        self._is_led = True
        self._define()
        for name, enter in self._enters.items():
            self._sweep_from(name, enter, self.period.since_ms - 1)
            if enter.broadcast is not None and name == self.name:
                self._stage.at(self.period.from_ms, self._broadcast)

    def _define(self) -> None:
        led = self._led.journeys if self._is_led else msgspec.structs.replace(self._led.journeys, journeys=[])
        cuts = [self._cuts] if self._cuts is not None else []
        self._stage.define(Definitions(zone=self._led.zone, definitions=self._led.definitions, cuts=cuts, journeys=led))

    def _answer(self, order: Order, now_ms: int) -> Iterable[Event]:
        """A message is sent a moment later; the history may say more of it."""
        self._messages.order(order)
        return (sent(order, "Message Sent", now_ms + ANSWER_AFTER_MS),)

    # --- what the coordinator does

    def _hear(self) -> None:
        """Look at those whose records changed."""
        stage = self._stage
        for key in stage.touched:
            customer = stage.people.records[key]
            if self._fifths is not None:
                self._fifths.hear(key, customer)
            if self._dates:
                (traits,) = self._fold.attributes(customer.parts, PROFILE, ("traits",)) if customer.parts else (None,)
                for dates in self._dates.values():
                    dates.hear(key, traits)
        stage.touched.clear()

    def _look_up_from(self, after_ms: int) -> None:
        """Look up the fifths of RFM every midnight."""
        at_ms = next_clock(after_ms + 1, MIDNIGHT, (), self._rehearsal.zone)

        def look_up() -> None:
            self._look_up(at_ms)
            self._look_up_from(at_ms)

        if at_ms <= self._end_ms:
            self._stage.at(at_ms, look_up)

    def _look_up(self, now_ms: int) -> None:
        self._hear()
        cuts = self._fifths.look_up(now_ms)
        if cuts is None or cuts.says_the_same(self._cuts):
            return
        self._cuts = cuts
        self._define()
        concerned = self._fifths.concerned(cuts)
        if concerned:
            self._stage.sweep(Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=f"rfm@{to_iso(now_ms)}"), concerned)

    def _sweep_from(self, name: str, enter: Enter, after_ms: int) -> None:
        """Ask everybody to enter a journey, as often as its date or its schedule says."""
        at_ms = next_sweep(enter, after_ms, self._rehearsal.zone)
        if at_ms is None or at_ms > self._end_ms:
            return

        def ask() -> None:
            self._hear()
            if enter.date is not None:
                concerned = self._dates[name].due(at_ms, self._rehearsal.zone)
            else:
                assert enter.schedule is not None
                concerned = self._members(enter.schedule.segment)
            if concerned:
                self._stage.sweep(sweep_of(name, at_ms), concerned)
            self._sweep_from(name, enter, at_ms)

        self._stage.at(at_ms, ask)

    def _broadcast(self) -> None:
        enter = self._enters[self.name]
        assert enter.broadcast is not None
        concerned = self._members(enter.broadcast)
        if concerned:
            self._stage.sweep(sweep_of(self.name, self.period.from_ms), concerned)

    def _members(self, segment: str) -> list[str]:
        return sorted(key for key, customer in self._stage.people.records.items() if segment in customer.segments)

    # --- what came of it

    def report(self, seconds: float = 0.0) -> Report:
        """What happened in the journey in the period."""
        period = self.period
        report = Report(
            journey=self.name, from_=to_iso(period.from_ms), to=to_iso(period.to_ms), since=to_iso(period.since_ms),
            beside=[name for name in self.names if name != self.name], events=self.events, seconds=round(seconds, 2),
        )  # fmt: skip
        own = [told for told in self.told if told.about == self.name]
        _count(report, [told for told in own if told.at_ms >= period.from_ms])
        inside: set[Any] = set()
        for told in own:
            if told.kind == "entered" and not told.facts.get("control"):
                inside.add(told.facts["run"])
            elif told.kind == "left":
                inside.discard(told.facts["run"])
        report.inside = len(inside)
        report.examples = _examples([told for told in own if told.at_ms >= period.from_ms])
        return report


def as_it_came(event: Event) -> Event:
    """The event as if it had come when it counts."""
    if event.received_at - event.timestamp <= _HISTORY:
        return event
    return msgspec.structs.replace(event, received_at=event.timestamp)


def moment_of(event: Event) -> tuple[int, str]:
    """The order of events in a history."""
    return as_it_came(event).received_ms, event.message_id


class _Messages:
    """What the history says of messages that were sent then, told of those that are ordered now: of one person and
    template, the first of then is the first of now that nothing was heard of."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._known: dict[str, str] = {}

    def order(self, order: Order) -> None:
        self._open[order.to, order.template].append(order.id)

    def translated(self, event: Event) -> Event | None:
        """What it says of a message of now; None: it was told already, or is what a journey did then."""
        properties = event.properties
        if event.type == "identify" or "journey" in properties:
            return None
        then = properties.get("message_id")
        if not isinstance(then, str):
            return event
        now = self._known.get(then)
        if now is None:
            waiting = self._open.get((event.key, str(properties.get("template"))))
            if not waiting:
                return event  # a message that somebody else sent
            now = self._known[then] = waiting.pop(0)
        if event.event == "Message Sent":
            return None
        said = msgspec.json.encode({**properties, "message_id": now})
        return msgspec.structs.replace(event, raw_properties=msgspec.Raw(said))


class _Dates:
    """Whose day comes when, of a journey that a date makes people enter."""

    def __init__(self, date: Dated) -> None:
        self._date = date
        self._path = date.trait.split(".")
        self._said: dict[str, str] = {}

    def hear(self, key: str, traits: Any) -> None:
        value = at_path(traits, self._path)
        if isinstance(value, str):
            self._said[key] = value
        else:
            self._said.pop(key, None)

    def due(self, at_ms: int, zone: str) -> list[str]:
        """Whose day it is."""
        date, day = self._date, day_at(at_ms, zone)
        return sorted(
            key for key, value in self._said.items()
            if is_day(value, day, calendar=date.calendar, yearly=date.yearly, days_before=date.days_before, zone=zone)
        )  # fmt: skip


# --- reports


def _count(report: Report, told: Sequence[Told]) -> None:
    people: set[str] = set()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    at_step: dict[str, str] = {}
    for each in told:
        facts = each.facts
        step, why = str(facts.get("step") or ""), str(facts.get("why") or "")
        run = str(facts.get("run") or "")
        if step and each.kind != "left" and at_step.get(run) != step:
            at_step[run] = step
            counts["steps"][step] += 1
        match each.kind:
            case "entered":
                report.entered += 1
                report.held_out += bool(facts.get("control"))
                people.add(each.person)
            case "not_entered":
                counts["not_entered"][why] += 1
            case "proposed":
                counts["sends"][step] += 1
            case "called":
                counts["calls"][step] += 1
            case "delayed":
                counts["delayed"][step] += 1
            case "refused":
                refused[step][why] += 1
                if facts.get("cap"):
                    counts["caps"][str(facts["cap"])] += 1
            case "left":
                counts["left"][why] += 1
                if why == "exit":
                    counts["exits"][str(facts.get("exit") or "")] += 1
            case "goal":
                report.goals += not facts.get("control")
                report.goals_of_held_out += bool(facts.get("control"))
                value = facts.get("value")
                if isinstance(value, int | float) and not facts.get("control"):
                    report.value = round(report.value + value, 4)
    report.people = len(people)
    for name in ("not_entered", "sends", "calls", "delayed", "caps", "left", "exits", "steps"):
        setattr(report, name, dict(counts[name].most_common()))
    report.refused = {step: dict(whys.most_common()) for step, whys in refused.items()}


def _examples(told: Sequence[Told]) -> list[Example]:
    """Some of those who entered; the same each time, whoever else entered."""
    lots: list[tuple[str, str, str]] = []
    for each in told:
        if each.kind == "entered":
            run = str(each.facts["run"])
            insort(lots, (effect_id("example", each.person), run, each.person))
            del lots[EXAMPLES:]
    lines: dict[str, list[Line]] = {run: [] for _, run, _ in lots}
    for each in told:
        found = lines.get(str(each.facts.get("run")))
        if found is not None and len(found) < MOST_OF_EXAMPLE:
            found.append(_line(each))
    return [Example(person, run, lines[run]) for _, run, person in lots]


_SAID = ("why", "by", "template", "event", "what", "to", "due", "until", "subject", "cap", "winner", "exit")


def _line(told: Told) -> Line:
    facts: Mapping[str, Any] = told.facts
    said = [f"{name}: {facts[name]}" for name in _SAID if facts.get(name)]
    if facts.get("control"):
        said.append("held out")
    return Line(to_iso(told.at_ms), told.kind, str(facts.get("step") or ""), ", ".join(said))
