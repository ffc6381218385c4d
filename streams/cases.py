"""Cases of journeys, run: somebody lives through one under virtual time, and what journeys did is held against it.

Everything is the real thing but its surroundings (`streams.virtual`). What a case makes certain is made so by what the
stage is told, never by what it does: nobody is held out, a draw has one outcome, a segment that is named is true of
everybody or of nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

import msgspec

from config.journey_cases import CasesRead
from processors.fold import Fold
from processors.histories import event_of
from schemas.errors import ConfigError
from schemas.event import Event
from schemas.internal import Sweep
from schemas.journey_cases import KINDS, MUST, TIMES, Case, CaseEvent, Line, Moment
from schemas.journeys import JourneyFile, LedJourney, Status
from schemas.messages import SOURCE, Order
from schemas.segments import Said
from schemas.times import DAY_MS, MINUTE_MS, SECOND_MS, from_ms, to_iso, to_ms
from streams.rehearsal import Rehearsal
from streams.segments import RULES_KEY
from streams.sweeps import next_sweep, sweep_of
from streams.virtual import ANSWER_AFTER_MS, Told, VirtualStage, sent

BEFORE_MS = MINUTE_MS  # so long before a case begins it is said who she is
LONGEST_MS = 400 * DAY_MS  # after the last that a case names, unless it says how long
_ALWAYS = {"trait": "nobody_has_this", "exists": False}
_NEVER = {"trait": "nobody_has_this", "exists": True}


class Got(NamedTuple):
    """What a journey did, in the words of cases.

    Attributes:
        kind: one of `KINDS`.
        value: of a time, in ms since 1970.
    """

    at_ms: int
    kind: str
    step: str
    value: Any
    held_out: bool = False


class Row(NamedTuple):
    """A line of a comparison: what was expected, what was got, or both where they agree."""

    expected: Line | None
    got: Got | None

    @property
    def differs(self) -> bool:
        return self.expected is None or self.got is None


class Ran(NamedTuple):
    """A case that was run.

    Attributes:
        place: file and line.
        rows: what is worth showing, in order.
    """

    journey: str
    case: Case
    place: str
    start_ms: int
    rows: Sequence[Row]

    @property
    def passed(self) -> bool:
        return not any(row.differs for row in self.rows)


def run_cases(cases: CasesRead, rehearsal: Rehearsal) -> Iterable[Ran]:
    """Run the cases of a journey, one after the other.

    Raises:
        ConfigError: a case asks for what is not there.
    """
    fold = rehearsal.fold()
    for number, case in enumerate(cases.said):
        yield _Play(cases, number, case, rehearsal, fold).run()


class _Play:
    """One case."""

    def __init__(self, cases: CasesRead, number: int, case: Case, rehearsal: Rehearsal, fold: Fold) -> None:
        self._cases, self._number, self._case = cases, number, case
        self._name, self._tz = cases.journey, cases.said.tz
        self._rehearsal = _certain(rehearsal, cases, case)
        self._start_ms = case.start.ms(0, self._tz)
        self._forced = dict.fromkeys(self._named_segments(), False) | dict.fromkeys(case.person.segments, True)
        self._status: Status = "live"
        self._stage = VirtualStage(fold, answer=self._answer)
        self._check_known()

    def run(self) -> Ran:
        case, stage = self._case, self._stage
        stage.now_ms = self._start_ms - BEFORE_MS
        self._define(are_led=False)
        stage.event(self._introduction())
        stage.advance(self._start_ms - 1)
        self._define()
        end_ms = self._end_ms()
        for number, event in enumerate(case.events):
            stage.at(self._ms(event.at), self._happens(event, number))
        for name in self._journeys:
            self._sweep_from(name, self._start_ms - 1, end_ms)
        stage.advance(end_ms)
        got = [each for told in stage.told if told.about == self._name for each in _got(told)]
        return Ran(self._name, case, self._cases.place(self._number), self._start_ms,
                   compared(case, got, self._start_ms, self._tz))  # fmt: skip

    # --- before it begins

    @property
    def _journeys(self) -> list[str]:
        return [self._name, *self._case.with_]

    def _named_segments(self) -> list[str]:
        return [name for event in self._case.events for name in (event.joined, event.left) if name is not None]

    def _check_known(self) -> None:
        for name in self._forced:
            if name not in self._rehearsal.segments:
                raise self._error((), f'there is no segment "{name}"')
        for place, name in enumerate(self._case.with_):
            if name not in self._rehearsal.journeys:
                raise self._error(("with", place), f'there is no journey "{name}"')

    def _error(self, path: Sequence[str | int], what: str) -> ConfigError:
        return ConfigError(self._cases.place(self._number, *path), f'case "{self._case.case}": {what}.')

    def _define(self, *, are_led: bool = True) -> None:
        rehearsal = self._rehearsal
        forced = {name: Said(name=name, version=1, when=_ALWAYS if is_in else _NEVER, is_live=True)
                  for name, is_in in self._forced.items()}  # fmt: skip
        journey = msgspec.structs.replace(rehearsal.journeys[self._name], status=self._status)
        definitions = rehearsal.with_journey(journey).definitions(self._journeys, are_led=are_led, segments=forced)
        known = {each.name for each in definitions.definitions}
        definitions.definitions += [said for name, said in forced.items() if name not in known]
        self._stage.define(definitions)

    def _introduction(self) -> Event:
        """An identify call that says who she is."""
        person = self._case.person
        topics = sorted({mail.topic for mail in self._rehearsal.mails.values() if mail.topic})
        traits = {"email": f"{person.id}@example.com", "phone": "+4915112345678",
                  "consent": dict.fromkeys(topics, True) | (person.traits.get("consent") or {})}  # fmt: skip
        said = {**traits, **{name: value for name, value in person.traits.items() if name != "consent"}}
        body = {"type": "identify", "userId": person.id, "messageId": "who-she-is", "traits": said}
        return self._event(body, self._start_ms - BEFORE_MS, 0)

    def _event(self, body: Mapping[str, Any], at_ms: int, number: int) -> Event:
        whole = {"workspace": self._rehearsal.workspace, "at": to_iso(at_ms), **body}
        return event_of(whole, number)

    # --- what happens

    def _ms(self, moment: Moment) -> int:
        return moment.ms(self._start_ms, self._tz)

    def _end_ms(self) -> int:
        case = self._case
        if case.until is not None:
            return self._ms(case.until)
        named = [event.at for event in case.events] + [line.at for line in case.expect if line.at is not None]
        last_ms = max((self._ms(moment) for moment in named), default=self._start_ms)
        files = [JourneyFile.model_validate(self._rehearsal.journeys[name].said) for name in self._journeys]
        goes_on = any(each.enter.date is not None or each.enter.schedule is not None for each in files)
        return last_ms + (0 if goes_on else LONGEST_MS)  # people would enter for ever

    def _happens(self, event: CaseEvent, number: int) -> Any:
        def happen() -> None:
            if event.joined is not None or event.left is not None:
                self._forced[event.joined or event.left or ""] = event.joined is not None
                self._judge(number)
            elif event.status is not None:
                self._status = event.status
                self._judge(number)
            elif event.broadcast:
                self._stage.sweep(sweep_of(self._name, self._stage.now_ms))
            else:
                self._stage.happen(self._event(self._body(event, number), self._stage.now_ms, number + 1))

        return happen

    def _body(self, event: CaseEvent, number: int) -> dict[str, Any]:
        """The call, as the API takes it."""
        body = event.model_dump(exclude_none=True, exclude={"at", "of"})
        if event.userId is None and event.anonymousId is None:
            body["userId"] = self._case.person.id
        elif event.userId is None:
            body["userId"] = ""
        if event.of is not None:
            body["source"] = SOURCE
            body["properties"] = {**self._message_of(event.of, number), **(event.properties or {})}
        return body

    def _message_of(self, step: str, number: int) -> dict[str, Any]:
        """What events say of the last message that a step sent."""
        for told in reversed(self._stage.told):
            if told.about == self._name and told.facts.get("step") == step and "message" in told.facts:
                return {"message_id": told.facts["message"], "template": told.facts.get("template")}
        raise self._error(("events", number, "of"), f'step "{step}" had sent no message by then')

    def _judge(self, number: int) -> None:
        """Tell what is so now, and judge her by it."""
        self._define()
        self._stage.sweep(Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=f"event {number + 1}"))

    def _sweep_from(self, name: str, after_ms: int, end_ms: int) -> None:
        """Ask everybody to enter a journey, as often as its date or its schedule says."""
        enter = JourneyFile.model_validate(self._rehearsal.journeys[name].said).enter
        at_ms = next_sweep(enter, after_ms, self._rehearsal.zone)
        if at_ms is not None and at_ms <= end_ms:

            def ask() -> None:
                self._stage.sweep(sweep_of(name, at_ms))
                self._sweep_from(name, at_ms, end_ms)

            self._stage.at(at_ms, ask)

    def _answer(self, order: Order, now_ms: int) -> Iterable[Event]:
        """Messages are sent a moment later, but for those that the case says fail."""
        steps = [told.facts.get("step") for told in self._stage.told if told.facts.get("message") == order.id]
        fails = any(step in self._case.fails for step in steps)
        yield sent(order, "Message Failed" if fails else "Message Sent", now_ms + ANSWER_AFTER_MS)


def _certain(rehearsal: Rehearsal, cases: CasesRead, case: Case) -> Rehearsal:
    """The same, where nothing is left to lot, in the zone of the cases."""
    journeys: dict[str, LedJourney] = {}
    for name, each in rehearsal.journeys.items():
        said = {**each.said, "holdout": 100 if case.held_out and name == cases.journey else 0}
        if name == cases.journey:
            said["steps"] = [_drawn(step, case.draws) for step in said["steps"]]
        journeys[name] = msgspec.structs.replace(each, said=said, weights={})
    return replace(rehearsal, zone=cases.said.zone, journeys=journeys,
                   limits={**rehearsal.limits, "holdout": 0})  # fmt: skip


def _drawn(step: Mapping[str, Any], draws: Mapping[str, str]) -> Mapping[str, Any]:
    drawn = draws.get(step.get("step", ""))
    return {**step, "split": [{"then": drawn}] * len(step["split"])} if drawn is not None else step


def _got(told: Told) -> Iterable[Got]:
    kind = "send" if told.kind == "proposed" else told.kind
    if kind not in KINDS:
        return
    facts = told.facts
    value = facts.get(KINDS[kind])
    if kind in TIMES and isinstance(value, str):
        value = to_ms(datetime.fromisoformat(value))
    yield Got(told.at_ms, kind, str(facts.get("step") or ""), value, bool(facts.get("control")))


# --- comparing


def compared(case: Case, got: Sequence[Got], start_ms: int, tz: tzinfo) -> list[Row]:
    """What was expected beside what was got, in order, so that as much as can be agrees. What may be left out, and was,
    is not among it."""
    expected = case.expect
    fits = [[_fits(line, each, start_ms, tz) for each in got] for line in expected]
    best = [[0] * (len(got) + 1) for _ in range(len(expected) + 1)]  # of what comes from there on: how much agrees
    for i in range(len(expected) - 1, -1, -1):
        for j in range(len(got) - 1, -1, -1):
            both = best[i + 1][j + 1] + 1 + _matters(got[j], case) if fits[i][j] else 0
            best[i][j] = max(both, best[i + 1][j], best[i][j + 1])
    rows: list[Row] = []
    i = j = 0
    while i < len(expected) or j < len(got):
        rest = best[i][j]
        if i < len(expected) and j < len(got) and fits[i][j] and (
            rest == best[i + 1][j + 1] + 1 + _matters(got[j], case)
        ):  # fmt: skip
            rows.append(Row(expected[i], got[j]))
            i, j = i + 1, j + 1
        elif i < len(expected) and (j == len(got) or rest == best[i + 1][j]):
            rows.append(Row(expected[i], None))
            i += 1
        else:
            if _matters(got[j], case):
                rows.append(Row(None, got[j]))
            j += 1
    return rows


def _matters(got: Got, case: Case) -> bool:
    """Whether it must be expected."""
    return case.exactly or got.kind in MUST


def _fits(line: Line, got: Got, start_ms: int, tz: tzinfo) -> bool:
    if line.kind != got.kind or (line.step is not None and line.step != got.step):
        return False
    if line.at is not None and not _is_at(line.at, got.at_ms, start_ms, tz):
        return False
    if line.held_out is not None and line.held_out != got.held_out:
        return False
    value = line.value
    if isinstance(value, Moment):
        return isinstance(got.value, int) and _is_at(value, got.value, start_ms, tz)
    return value is True or value == got.value


def _is_at(moment: Moment, at_ms: int, start_ms: int, tz: tzinfo) -> bool:
    return moment.ms(start_ms, tz) // SECOND_MS == at_ms // SECOND_MS


# --- showing


def line_text(line: Line) -> str:
    """A line as it may stand in a file.

    >>> line_text(Line.model_validate({"at": "+1 hour", "step": "remind", "send": "basket"}))
    '{at: +1 hour, step: remind, send: basket}'
    """
    said = {name: getattr(line, name) for name in ("at", "step", line.kind, "held_out")}
    return _flow({name: value for name, value in said.items() if value is not None})


def got_text(got: Got, start_ms: int) -> str:
    """What was got, as a line that may stand in a file."""
    value = got.value if got.value is not None else True
    said: dict[str, Any] = {"at": later(got.at_ms - start_ms)}
    if got.step:
        said["step"] = got.step
    said[got.kind] = later(value - start_ms) if got.kind in TIMES and not isinstance(value, bool) else value
    if got.kind == "entered" and got.held_out:
        said["held_out"] = True
    return _flow(said)


def _flow(said: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{name}: {_yaml(value)}' for name, value in said.items())}}}"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f'"{text}"' if not text or any(sign in text for sign in ',:{}[]#"') else text


def later(after_ms: int) -> str:
    """How long after the start, as cases say it.

    >>> later(93_600_000), later(0)
    ('+1 day 2 hours', '+0 minutes')
    """
    parts, rest = [], max(after_ms, 0) // SECOND_MS
    for unit, seconds in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count} {unit}{'s' * (count != 1)}")
    return f"+{' '.join(parts) or '0 minutes'}"


def clock(at_ms: int, tz: tzinfo) -> str:
    """A time as people read it: `Mon 2026-01-05 09:00`."""
    at = from_ms(at_ms).astimezone(tz)
    return f"{at:%a %Y-%m-%d %H:%M}" + (f":{at:%S}" if at.second else "")
