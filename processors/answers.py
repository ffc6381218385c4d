"""Conditions compiled: what they say of a person at one moment, and until when that holds.

An answer is one number: true until then where it is positive, false until then where it is negative. So `not` turns the
sign, `all` is the least of its parts and `any` the greatest: of parts that are false the one that stays so longest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from processors.memories import KINDS, Known, Memory
from processors.selectors import UNIT, selector_of, times_of
from processors.values import NEVER_MS, Scalar, Window, Zone, found, passes
from schemas.conditions import All, Any_, Attribute, Did, InSegment, Not, Op, Test
from schemas.conditions import Sequence as Steps

YES, NO = NEVER_MS, -NEVER_MS  # whatever time it is


class Remembered(Protocol):
    """Memories by the id of their selector."""

    def get(self, id: str, /) -> Memory | None: ...


class View:
    """A person, as conditions see her at one moment.

    Attributes:
        memories: what is remembered of her.
        attribute: value of an attribute of a processor; None: it has none.
        members: the segments she is in, as far as they are judged.
        now_ms: the moment.
        due_ms: when time alone may change an answer given so far.
    """

    __slots__ = ("attribute", "due_ms", "members", "memories", "now_ms")

    def __init__(
        self, memories: Remembered, attribute: Callable[[str], Any], members: set[str], now_ms: int
    ) -> None:  # fmt: skip
        self.memories = memories
        self.attribute = attribute
        self.members = members
        self.now_ms = now_ms
        self.due_ms = NEVER_MS


Answer = Callable[[View], int]
InTime = Callable[[int, int], int]
"""Of a moment and of now: whether the moment counts, and until when."""


def answer_of(node: Any, zone: Zone) -> Answer:
    """A condition, compiled."""
    match node:
        case All():
            return _all([answer_of(child, zone) for child in node.all])
        case Any_():
            return _any([answer_of(child, zone) for child in node.any])
        case Not():
            answer = answer_of(node.not_, zone)
            return lambda view: -answer(view)
        case InSegment():
            name = node.segment
            return lambda view: YES if name in view.members else NO
        case Did():
            return _did(node, zone)
        case Steps():
            return _steps(node, zone)
        case Attribute():
            return _attribute(node, zone)
    return _word(node, zone)


def _all(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    first, *others = answers
    if len(others) == 1:
        other = others[0]

        def both(view: View) -> int:
            until = first(view)
            if until == NO:
                return NO
            also = other(view)
            return also if also < until else until

        return both

    def every(view: View) -> int:
        least = YES
        for answer in answers:
            until = answer(view)
            if until < least:
                if until == NO:
                    return NO
                least = until
        return least

    return every


def _any(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]

    def some(view: View) -> int:
        most = NO
        for answer in answers:
            until = answer(view)
            if until > most:
                if until == YES:
                    return YES
                most = until
        return most

    return some


# --- moments


def in_time(leaf: Any, zone: Zone) -> InTime:
    """Whether a moment counts for a leaf, at another, and until when."""
    if leaf.within is not None:
        return _within(Window(leaf.within, zone))
    if getattr(leaf, "longer_ago", None) is not None:
        within = _within(Window(leaf.longer_ago, zone))
        return lambda at_ms, now_ms: -within(at_ms, now_ms)
    if leaf.since is not None:
        limit_ms = zone.midnight_ms(leaf.since)
        return lambda at_ms, now_ms: YES if at_ms >= limit_ms else NO
    return lambda at_ms, now_ms: YES


def _within(window: Window) -> InTime:
    ms = window.ms
    if not ms:
        return lambda at_ms, now_ms: window.leaves_ms(at_ms) if window.holds(at_ms, now_ms) else NO

    def within(at_ms: int, now_ms: int) -> int:
        leaves_ms = at_ms + ms
        return leaves_ms if leaves_ms > now_ms else NO

    return within


def test_of(test: Test, zone: Zone) -> Callable[[Sequence[Scalar], int], int]:
    """What a test says of values at a moment, and until when."""
    op, value, is_turned = test.asked
    if not test.takes_time:
        holds = passes(test, zone)
        hit, miss = (NO, YES) if is_turned else (YES, NO)
        return lambda values, now_ms: hit if any(map(holds, values)) else miss
    within = _within(Window(value, zone))
    is_recent = op is Op.WITHIN

    def passes_in_time(values: Sequence[Scalar], now_ms: int) -> int:
        most = NO
        for each in values:
            at_ms = zone.read_ms(each)
            if at_ms is None:
                continue
            until = within(at_ms, now_ms)
            until = (-at_ms if at_ms > now_ms else until) if is_recent else -until
            if until > most:
                most = until
        return most

    return passes_in_time


# --- leaves


def _did(leaf: Did, zone: Zone) -> Answer:
    selector = selector_of(leaf, zone.name)
    assert selector is not None
    id, counts = selector.id, in_time(leaf, zone)
    if leaf.total is not None:
        return _total(leaf, id, zone)
    if leaf.which is not None:

        def of_one(view: View) -> int:
            memory = view.memories.get(id)
            return NO if memory is None else counts(memory.known[0][0], view.now_ms)

        return of_one
    times = times_of(leaf)
    if leaf.at_most is not None:
        too_often = _so_often(id, times[0], leaf, zone)
        return lambda view: -too_often(view)
    if leaf.exactly is not None:
        more = _so_often(id, times[1], leaf, zone)
        if not leaf.exactly:
            return lambda view: -more(view)
        enough = _so_often(id, times[0], leaf, zone)
        return _all((enough, lambda view: -more(view)))
    return _so_often(id, times[0], leaf, zone)


def _so_often(id: str, times: int, leaf: Did, zone: Zone) -> Answer:
    """At least so many times in the leaf's window."""
    counts = in_time(leaf, zone)
    window_ms = 0 if leaf.within is None else Window(leaf.within, zone).ms
    if not window_ms:

        def so_often(view: View) -> int:
            memory = view.memories.get(id)
            if memory is None:
                return NO
            known = memory.known
            return counts(known[-times][0], view.now_ms) if len(known) >= times else NO

        return so_often

    def so_often_lately(view: View) -> int:  # nearly every leaf: no call within
        memory = view.memories.get(id)
        if memory is None:
            return NO
        known = memory.known
        if len(known) < times:
            return NO
        leaves_ms = known[-times][0] + window_ms
        return leaves_ms if leaves_ms > view.now_ms else NO

    return so_often_lately


def _total(leaf: Did, id: str, zone: Zone) -> Answer:
    counts, total = in_time(leaf, zone), leaf.total
    assert total is not None
    limit = total.at_least if total.at_least is not None else total.less_than
    assert limit is not None
    wanted, is_least = round(limit * UNIT), total.at_least is not None
    nothing = YES if (wanted <= 0) is is_least else NO

    def comes_to(view: View) -> int:
        memory = view.memories.get(id)
        if memory is None:
            return nothing
        now_ms = view.now_ms
        counted = [(until, known[2]) for known in memory.known if (until := counts(known[0], now_ms)) > 0]
        amount = sum([each for _, each in counted])
        is_true = (amount >= wanted) is is_least
        for until, each in counted:  # they leave in this order
            amount -= each
            if ((amount >= wanted) is is_least) is not is_true:
                return until if is_true else -until
        return YES if is_true else NO

    return comes_to


def _steps(leaf: Steps, zone: Zone) -> Answer:
    selector = selector_of(leaf, zone.name)
    assert selector is not None
    id, counts, last = selector.id, in_time(leaf, zone), len(leaf.sequence) - 1
    ends_in = _ends_in(leaf)

    def went(view: View) -> int:
        memory = view.memories.get(id)
        if memory is None or last not in [known[1] % KINDS for known in memory.known]:
            return NO
        ends = ends_in(memory.known)
        return counts(max(ends)[0], view.now_ms) if ends else NO

    return went


def ends_of(leaf: Steps, known: Sequence[Known]) -> list[int]:
    """When the sequence came to its end, each time that it did: the times of its last step, the earliest first."""
    return [at_ms for at_ms, _ in sorted(_ends_in(leaf)(known))]


def _ends_in(leaf: Steps) -> Callable[[Sequence[Known]], set[tuple[int, int]]]:
    """The events of the last step at which the sequence came to its end."""
    steps, middles = leaf.sequence, 0
    later: list[tuple[int, int, int]] = []  # the kind that must not stand before it, or 0; how long it may take; place
    for step in steps[1:]:
        middle = len(steps) + middles if step.without is not None else 0
        middles += step.without is not None
        later.append((middle, step.within.ms if step.within is not None else NEVER_MS, len(later) + 1))

    def ends_in(known: Sequence[Known]) -> set[tuple[int, int]]:
        of_kind: list[list[tuple[int, int]]] = [[], [], [], [], [], [], [], []]
        for at_ms, token, _ in known:
            of_kind[token % KINDS].append((at_ms, token // KINDS))
        good = set(of_kind[0])
        for middle, most_ms, place in later:
            earlier, reached = of_kind[place - 1], set()
            between = of_kind[middle] if middle else ()
            for event in of_kind[place]:
                found_before = bisect_left(earlier, event)
                if not found_before or (before := earlier[found_before - 1]) not in good:
                    continue
                if event[0] - before[0] > most_ms:
                    continue
                after = bisect_right(between, before)
                if after == len(between) or between[after] >= event:
                    reached.add(event)
            good = reached
        return good

    return ends_in


def _attribute(leaf: Attribute, zone: Zone) -> Answer:
    name, test = leaf.attribute, test_of(leaf, zone)
    return lambda view: test(scalars_of(view.attribute(name)), view.now_ms)


def _word(leaf: Any, zone: Zone) -> Answer:
    selector = selector_of(leaf, zone.name)
    assert selector is not None
    id, test = selector.id, test_of(leaf, zone)

    def said(view: View) -> int:
        memory = view.memories.get(id)
        return test(memory.said if memory is not None else (), view.now_ms)

    return said


def scalars_of(value: Any) -> Sequence[Scalar]:
    """The texts, numbers and truths of an attribute."""
    if isinstance(value, str | int | float):
        return (value,)
    return found(value, ()) if isinstance(value, list) else ()


def at_path(value: Any, path: Sequence[str]) -> Any:
    """What stands at a path of a processor's section; None where there is nothing."""
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


class Merged:
    """The memories of several parts of a person, each merged when it is asked for."""

    __slots__ = ("_known", "_merge", "_states")

    def __init__(
        self, states: Sequence[Mapping[str, Memory]], merge: Callable[[str, Memory, Memory], Memory]
    ) -> None:  # fmt: skip
        self._states = states
        self._merge = merge
        self._known: dict[str, Memory | None] = {}

    def get(self, id: str, /) -> Memory | None:
        if id in self._known:
            return self._known[id]
        merged = None
        for state in self._states:
            memory = state.get(id)
            if memory is not None:
                merged = memory if merged is None else self._merge(id, merged, memory)
        self._known[id] = merged
        return merged
