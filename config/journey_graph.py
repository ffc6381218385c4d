"""The graph of a journey: which step may lead to which, and what is wrong with it.

Steps follow each other as they are written, unless `then` and the like say otherwise. There is no way back but by a
`go` that says how often, so every journey comes to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from schemas.journeys import (
    END,
    AnyStep,
    BranchStep,
    ExitStep,
    GoStep,
    JourneyFile,
    SendStep,
    SplitStep,
    WaitUntilStep,
)

Path = tuple[str | int, ...]


class Way(NamedTuple):
    """From a step to one that may follow it.

    Attributes:
        to: the step that follows, or `end`.
        path: the key within the step that says so, such as `("then",)` or `("branch", 0, "then")`; `("then",)` also
            where the order of the steps alone says it.
        times: of a `go` that leads back: how often at most it is taken; 0: there is no such bound.
    """

    step: str
    to: str
    path: Path
    times: int = 0


class WrongGraph(ValueError):
    """Steps that cannot be gone through.

    Attributes:
        path: where in the journey.
        what, mend: what is wrong, and what to do.
    """

    def __init__(self, path: Path, what: str, mend: str = "") -> None:
        self.path, self.what, self.mend = path, what, mend
        super().__init__(f"{'.'.join(map(str, path))}: {what} {mend}")


def ways_of(journey: JourneyFile) -> list[Way]:
    """All of them, in the order of the steps; `otherwise` and `refused` are told apart where they lead elsewhere."""
    names = [step.step for step in journey.steps]
    return [way for place, step in enumerate(journey.steps) for way in _ways(step, names[: place + 1], [*names, END])]


def _ways(step: AnyStep, before: list[str], names: list[str]) -> Iterator[Way]:
    name, then = step.step, step.then or names[len(before)]
    if isinstance(step, ExitStep):
        yield Way(name, END, ("exit",))
    elif isinstance(step, SplitStep):
        for number, arm in enumerate(step.split):
            yield Way(name, arm.then, ("split", number, "then"))
    elif isinstance(step, GoStep):
        is_back = step.go in before and step.times is not None
        yield Way(name, step.go, ("go",), step.times or 0 if is_back else 0)
        if is_back:
            yield Way(name, then, ("then",))
    else:
        if isinstance(step, BranchStep):
            for number, case in enumerate(step.branch):
                yield Way(name, case.then, ("branch", number, "then"))
        yield Way(name, then, ("then",))
        if isinstance(step, SendStep) and step.refused not in (None, then):
            yield Way(name, step.refused or END, ("refused",))
        if isinstance(step, WaitUntilStep) and step.otherwise not in (None, then):
            yield Way(name, step.otherwise or END, ("otherwise",))


def check_graph(journey: JourneyFile) -> None:
    """Whether each step has a name of its own, leads to steps that there are, is reached, and the way has an end.

    Raises:
        WrongGraph: the first that is wrong.
    """
    places: dict[str, int] = {}
    for place, step in enumerate(journey.steps):
        if step.step == END:
            raise WrongGraph(("steps", place, "step"), f'no step is called "{END}": it is where a journey ends.')
        if step.step in places:
            raise WrongGraph(("steps", place, "step"), f'there are two steps "{step.step}".', "Rename one of them.")
        places[step.step] = place
        if step.then is not None and isinstance(step, ExitStep | SplitStep):
            kind = "exit" if isinstance(step, ExitStep) else "split"
            raise WrongGraph(("steps", place, "then"), f"nothing follows {'an' if kind == 'exit' else 'a'} {kind} "
                             "by then.", "Take it out.")  # fmt: skip
        if isinstance(step, GoStep) and (wrong := _wrong_go(step, places)):
            raise WrongGraph(("steps", place, wrong), "is for a go that leads back, and says how often.",
                             "Take it out.")  # fmt: skip
    ways = ways_of(journey)
    for way in ways:
        if way.to != END and way.to not in places:
            raise _no_such_step(("steps", places[way.step], *way.path), way, list(places))
    _refuse_circles(ways, places)
    _refuse_unreached(ways, places)


def _wrong_go(step: GoStep, before: Mapping[str, int]) -> str:
    """The key that says nothing, as this one always goes; empty where there is none."""
    if step.times is not None and step.go not in before:
        return "times"
    return "then" if step.then is not None and step.times is None else ""


def _no_such_step(path: Path, way: Way, names: list[str]) -> WrongGraph:
    near = get_close_matches(way.to, [*names, END], 1)
    known = ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
    return WrongGraph(path, f'is "{way.to}", which is not a step of this journey.',
                      f"Steps are: {known}; {END} ends it."
                      + (f' Did you mean "{near[0]}"?' if near else ""))  # fmt: skip


def _refuse_circles(ways: Iterable[Way], places: Mapping[str, int]) -> None:
    """Look for a way back that nothing bounds: from each step on, in depth, over all but a `go` with `times`."""
    onward: dict[str, list[Way]] = {name: [] for name in places}
    for way in ways:
        if not way.times and way.to != END:
            onward[way.step].append(way)
    done: set[str] = set()

    def go_on(name: str, trail: tuple[str, ...]) -> None:
        for way in onward[name]:
            if way.to in trail:
                circle = " → ".join((*trail[trail.index(way.to) :], way.to))
                raise WrongGraph(
                    ("steps", places[name], *way.path), f"goes round in a circle: {circle}.",
                    f"Go back by a step that says how often, such as {{step: once_more, go: {way.to}, times: 3}}.",
                )  # fmt: skip
            if way.to not in done:
                go_on(way.to, (*trail, way.to))
        done.add(name)

    for first in places:
        if first not in done:
            go_on(first, (first,))


def _refuse_unreached(ways: Iterable[Way], places: Mapping[str, int]) -> None:
    onward: dict[str, list[str]] = {}
    for way in ways:
        onward.setdefault(way.step, []).append(way.to)
    reached, waiting = set[str](), list(places)[:1]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [to for to in onward.get(name, ()) if to != END]
    for name, place in places.items():
        if name not in reached:
            raise WrongGraph(("steps", place), "is never reached.", "Let a step lead to it, or take it out.")
