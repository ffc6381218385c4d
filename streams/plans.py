"""A version of a journey, compiled: what the customer stage looks up at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from processors.answers import Answer, answer_of
from processors.journeys import Inside
from processors.rules import matching, values_of
from processors.values import Zone, found
from schemas.conditions import Event as Asked
from schemas.customer import Part
from schemas.event import Event
from schemas.journeys import (
    LONGEST_FACT,
    MOST_FACTS,
    Again,
    AnyStep,
    BranchStep,
    CallStep,
    Goal,
    GoStep,
    Happening,
    Joined,
    JourneyFile,
    LedJourney,
    Left,
    Met,
    Run,
    SendStep,
    WaitUntilStep,
)
from schemas.keyed import encode_state

Happens = Callable[[Event, Run], bool]


class Plan:
    """A version of a journey.

    Attributes:
        led: as the stage is told of it.
        said: as it was written.
        steps: by name; first: the name of the first.
        next: the step after each, in the order of the file; empty after the last.
        when: of whom it must be true.
        branches: of each branch the answers, in order.
        labels: of events that mean something to those who are inside.
        segments: those that do.
        facts: which values of the event that somebody enters by are kept.
    """

    def __init__(self, led: LedJourney, zone: Zone) -> None:
        self.led = led
        self.name, self.version = led.name, led.version
        self.said = said = JourneyFile.model_validate(led.said)
        self.steps: dict[str, AnyStep] = {step.step: step for step in said.steps}
        names = list(self.steps)
        self.first = names[0]
        self.next = dict(zip(names, [*names[1:], ""], strict=True))
        self.rank = {name: rank for rank, name in enumerate(names)}
        self.when: Answer | None = answer_of(said.when, zone) if said.when is not None else None
        self.branches = {name: [answer_of(case.when, zone) for case in step.branch]
                         for name, step in self.steps.items() if isinstance(step, BranchStep)}  # fmt: skip
        self._happens = {id(each): _happens(each, zone) for each in self._met()}
        self.labels = frozenset(each.did for each in self._met())
        self.segments = frozenset(
            each.joined if isinstance(each, Joined) else each.left
            for each in self._happenings() if isinstance(each, Joined | Left)
        )  # fmt: skip
        self.facts = tuple(dict.fromkeys(self._facts()))[:MOST_FACTS]

    @property
    def goal(self) -> Goal | None:
        return self.said.goal

    def _happenings(self) -> Iterator[Happening]:
        yield from self.said.exits
        for step in self.said.steps:
            if isinstance(step, WaitUntilStep):
                yield step.wait_until

    def _met(self) -> Iterator[Met]:
        if self.said.goal is not None:
            yield self.said.goal
        for each in self._happenings():
            if isinstance(each, Met):
                yield each

    def _facts(self) -> Iterator[str]:
        again = self.said.again
        if isinstance(again, Again) and again.once_per is not None:
            yield again.once_per
        for each in self._met():
            if each.matching is not None:
                yield each.matching
        for step in self.said.steps:
            if isinstance(step, SendStep | CallStep):
                yield from step.from_event.values()

    def happens(self, met: Met, event: Event, run: Run) -> bool:
        """Whether an event is one that a goal, an exit or a step of this journey waits for."""
        return event.label == met.did and self._happens[id(met)](event, run)

    def target(self, step: AnyStep, to: str | None = None) -> str:
        """The name of the step that follows; empty: none does."""
        to = to or step.then or self.next[step.step]
        return to if to in self.steps else ""

    def facts_of(self, event: Event) -> dict[str, Any]:
        """What is kept of the event that somebody enters by; what is too large is not."""
        facts = {}
        for path in self.facts:
            value = _at(event, path.split("."))
            if value is not None and len(encode_state(value)) <= LONGEST_FACT:
                facts[path] = value
        return facts

    def key_of(self, event: Event) -> str | None:
        """The value for which somebody enters once; None: the event has none, or the journey asks for none."""
        again = self.said.again
        if not isinstance(again, Again) or again.once_per is None:
            return None
        values = values_of(event, again.once_per.split("."))
        return _text(values[0]) if values else None

    def is_back(self, step: GoStep) -> bool:
        """Whether it leads to a step that was before it, or to itself."""
        return self.rank.get(step.go, len(self.rank)) <= self.rank[step.step]


class Way:
    """Somebody's run, with the part that it stands in and the version that she goes by."""

    __slots__ = ("id", "part", "part_key", "plan", "run", "state")

    def __init__(self, part_key: str, part: Part, state: Inside, id: str, run: Run, plan: Plan | None) -> None:
        self.part_key, self.part, self.state, self.id, self.run, self.plan = part_key, part, state, id, run, plan


def _at(event: Event, path: list[str]) -> Any:
    value: Any = event.properties
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    if value is None:
        values = values_of(event, path)
        value = values if len(values) > 1 else values[0] if values else None
    return value


def _text(value: object) -> str:
    """Of what a run and an event are compared by: the number 17 and the text 17 are the same id."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _happens(met: Met, zone: Zone) -> Happens:
    passes = matching(Asked(did=met.did, where=met.where), zone)
    matching_path = met.matching

    def happens(event: Event, run: Run) -> bool:
        if not passes(event):
            return False
        if matching_path is not None:
            known = {_text(each) for each in found({"of": run.facts.get(matching_path)}, ("of",))}
            if known.isdisjoint(map(_text, values_of(event, matching_path.split(".")))):
                return False
        if met.message is not None:
            sent = run.sent.get(met.message)
            return sent is not None and event.properties.get("message_id") == sent
        return True

    return happens
