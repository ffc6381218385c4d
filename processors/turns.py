"""Which answers an event may have turned: found by thresholds, not by asking every segment.

A count in a window turns only where the event makes it reach the number asked for: where the n-th newest event is in
the window now and was not before. The windows between the two are found by bisection, whatever their number. All else
(amounts, sequences, words, attributes) is asked again whenever what it looks at has changed.

It holds while time alone has turned nothing: up to the moment when it may (`Customer.judged_due_ms`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from processors.answers import InTime, in_time, scalars_of, test_of
from processors.memories import Known, Memory
from processors.selectors import times_of
from processors.values import NEVER_MS, Scalar, Window, Zone
from schemas.conditions import Attribute, Did

Names = frozenset[str]
NOBODY: Names = frozenset()


class Change(NamedTuple):
    """What an event did to one memory of the part that it belongs to.

    Attributes:
        id: of the selector.
        known: the event, as it is remembered; None: a word was heard.
        before: of an event, the one that had to go for it; of a word, what was known and said, and the memory.
    """

    id: str
    known: Known | None
    before: Any


class _Gauge:
    """The leaves that ask for the same number of events, by their windows."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.names: dict[int, set[str]] = {}
        self.forever: set[str] = set()
        self.others: list[tuple[InTime, set[str]]] = []
        self.windows: list[int] = []
        self.by_window: list[Names] = []

    def add(self, leaf: Did, zone: Zone, name: str) -> None:
        window_ms = 0 if leaf.within is None else Window(leaf.within, zone).ms
        if window_ms:
            self.names.setdefault(window_ms, set()).add(name)
            self.windows = sorted(self.names)
            self.by_window = [frozenset(self.names[window]) for window in self.windows]
        elif leaf.within is None and leaf.since is None:
            self.forever.add(name)
        else:
            self.others.append((in_time(leaf, zone), {name}))

    def turned(self, at_ms: int, before_ms: int | None, now_ms: int, names: set[str]) -> None:
        """Add who may be turned where the n-th newest was at `before_ms`, None: nowhere, and now is at `at_ms`."""
        windows = self.windows
        if windows:
            first = bisect_right(windows, now_ms - at_ms)
            end = len(windows) if before_ms is None else bisect_right(windows, now_ms - before_ms)
            for place in range(first, end):
                names |= self.by_window[place]
        if before_ms is None:
            names |= self.forever
        for counts, asking in self.others:
            if (counts(at_ms, now_ms) > 0) is not (before_ms is not None and counts(before_ms, now_ms) > 0):
                names |= asking


class Turn:
    """What one memory may turn.

    Attributes:
        always: segments to be asked again whenever it changed.
        all: these, and those that only ask for a number of events.
    """

    def __init__(self) -> None:
        self.always: set[str] = set()
        self.all: set[str] = set()
        self._gauges: dict[int, _Gauge] = {}

    def add(self, leaf: Any, zone: Zone, name: str) -> None:
        self.all.add(name)
        if not isinstance(leaf, Did) or leaf.total is not None or leaf.which == "first" or leaf.longer_ago is not None:
            self.always.add(name)
            return
        for times in {1} if leaf.which is not None else set(times_of(leaf)) - {0}:
            self._gauges.setdefault(times, _Gauge(times)).add(leaf, zone, name)

    def names(self, change: Change, memories: Sequence[Memory], now_ms: int) -> Iterable[str]:
        """Who may be turned. `memories`: of all parts of the person that have one."""
        if change.known is None:
            return self.always if _is_said_anew(change.before, memories) else NOBODY
        if not self._gauges:
            return self.always
        if len(memories) == 1:
            known, dropped = memories[0].known, change.before
        else:
            pool = {known[1]: known for memory in memories for known in memory.known}
            if len(pool) < sum(len(memory.known) for memory in memories):
                return self.all  # an event that two parts know of
            known, dropped = sorted(pool.values()), None
            if change.before is not None:
                if change.before[1] in pool:
                    return self.all
                known = sorted([*known, change.before])
        return self._turned(known, dropped, change.known, now_ms)

    def _turned(self, known: Sequence[Known], dropped: Known | None, event: Known, now_ms: int) -> set[str]:
        names = set(self.always)
        size = len(known)
        place = 1 if known[-1] == event else size - known.index(event)  # counted from the newest
        for times, gauge in self._gauges.items():
            if place <= times <= size:
                before = known[-times - 1] if times < size else dropped
                gauge.turned(known[-times][0], None if before is None else before[0], now_ms, names)
        return names


def _is_said_anew(
    before: tuple[list[Known], Sequence[Scalar], Memory], memories: Sequence[Memory]
) -> bool:  # fmt: skip
    """Whether the newest word of all parts says something else than before one of them heard another."""
    known, said, changed = before
    newest = changed
    for memory in memories:
        if memory is not changed:
            if memory.known > known:
                known, said = memory.known, memory.said
            if memory.known > newest.known:
                newest = memory
    return not known or not _is_same(said, newest.said)


def _is_same(said: Sequence[Any], other: Sequence[Any]) -> bool:
    return said == other and all(type(one) is type(two) for one, two in zip(said, other, strict=True))


class Tracked:
    """One attribute that is asked for, and who asks it for what."""

    def __init__(self, name: str, zone: Zone) -> None:
        self.name = name
        self.processor, _, self.field = name.partition(".")
        self._zone = zone
        self._tests: dict[Any, tuple[Callable[[Sequence[Scalar], int], int], set[str]]] = {}

    def add(self, leaf: Attribute, name: str) -> None:
        if leaf not in self._tests:
            self._tests[leaf] = test_of(leaf, self._zone), set()
        self._tests[leaf][1].add(name)

    def turned(self, before: Any, after: Any, now_ms: int, names: set[str]) -> int:
        """Add who may be turned. Returns when time alone may turn another, 2**62: never."""
        if before is after or (type(before) is type(after) and not isinstance(after, list) and before == after):
            return NEVER_MS
        due_ms, old, new = NEVER_MS, scalars_of(before), scalars_of(after)
        for test, asking in self._tests.values():
            was, until = test(old, now_ms), test(new, now_ms)
            if (was > 0) is not (until > 0):
                names |= asking
            due_ms = min(due_ms, abs(until))
        return due_ms


class TrackedSection(NamedTuple):
    """The attributes of one processor that are asked for."""

    processor: str
    fields: tuple[str, ...]
    attributes: tuple[Tracked, ...]


def tracked(leaves: Mapping[str, Iterable[Any]], zone: Zone) -> dict[str, TrackedSection]:
    """The attributes that the leaves of segments ask for, by processor."""
    found: dict[str, Tracked] = {}
    for name, asked in leaves.items():
        for leaf in asked:
            if isinstance(leaf, Attribute):
                found.setdefault(leaf.attribute, Tracked(leaf.attribute, zone)).add(leaf, name)
    sections: dict[str, list[Tracked]] = {}
    for each in found.values():
        sections.setdefault(each.processor, []).append(each)
    return {processor: TrackedSection(processor, tuple(each.field for each in attributes), tuple(attributes))
            for processor, attributes in sections.items()}  # fmt: skip
