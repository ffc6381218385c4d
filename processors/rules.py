"""Segments compiled: what an event has remembered, and who is in which segment, now and from when on by time alone.

    rules = Rules(definitions, zone)
    touched = rules.remember(memories, event)       # ids of the memories that changed
    judged = rules.judge(view, rules.needing(touched))

Cost grows with what an event is about: rules are found by the event's name, and where they ask for certain values of a
property, by the value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from processors.memories import (
    KINDS,
    MOST_KNOWN,
    MOST_OF_SEQUENCE,
    Known,
    Memories,
    Memory,
    add,
    merged,
    say,
)
from processors.memories import (
    token as token_of_event,
)
from processors.values import NEVER_MS, Passes, Scalar, Window, Zone, found, number_of, passes
from schemas.conditions import (
    All,
    Any_,
    Attribute,
    Context,
    Did,
    InSegment,
    Not,
    Op,
    Test,
    Trait,
    Where,
    canonical,
    leaves_of,
)
from schemas.conditions import Event as Selected
from schemas.conditions import (
    Sequence as Steps,
)
from schemas.event import Event
from schemas.segments import Definition

UNIT = 10_000  # amounts are kept in whole ten-thousandths
LARGEST_AMOUNT = 10**10  # of one value; larger ones do not count
OF_PAGE = frozenset({"name", "category"})  # properties of a page or screen that stand beside its properties


class Selector(NamedTuple):
    """What a memory remembers.

    Attributes:
        id: known by what it remembers, so that conditions that ask for the same share it, and an edit that leaves it
            alone keeps it.
        kinds: which events, each kind of them apart.
        most: how many are kept: the newest, or the first.
        amount: the property that is added up.
        word: where the value stands that is remembered: `trait` or `context`, and the path in it.
    """

    id: str
    kinds: tuple[Selected, ...] = ()
    most: int = 1
    keeps_first: bool = False
    amount: tuple[str, ...] = ()
    word: tuple[str, ...] = ()

    def merged(self, one: Memory, other: Memory) -> Memory:
        return merged(one, other, self.most, keeps_first=self.keeps_first, is_word=bool(self.word))


@lru_cache(8192)
def selector_of(leaf: Any, zone: str) -> Selector | None:
    """What a leaf needs remembered, where days begin in a time zone; None: nothing."""
    match leaf:
        case Did():
            kind = Selected(did=leaf.did, where=leaf.where)
            if leaf.total is not None:
                return _selector(zone, (kind,), MOST_KNOWN, amount=tuple(leaf.total.of.split(".")))
            if leaf.which is not None:
                return _selector(zone, (kind,), 1, keeps_first=leaf.which == "first")
            return _selector(zone, (kind,), _room(max(_times(leaf))))
        case Steps():
            kinds = [Selected(did=step.did, where=step.where) for step in leaf.sequence]
            kinds += [step.without for step in leaf.sequence if step.without is not None]
            return _selector(zone, tuple(kinds), MOST_OF_SEQUENCE)
        case Trait():
            return _selector(zone, (), 1, word=("trait", *leaf.trait.split(".")))
        case Context():
            return _selector(zone, (), 1, word=("context", *leaf.context.split(".")))
    return None


def _selector(zone: str, kinds: tuple[Selected, ...], most: int, **more: Any) -> Selector:
    asks_for_days = any(where.before or where.since for kind in kinds for where in kind.where)
    rest = (most, sorted(more.items()), zone if asks_for_days else "")
    said = b"\0".join([*map(canonical, kinds), repr(rest).encode()])
    return Selector(blake2b(said, digest_size=6).hexdigest(), kinds, most, **more)


def _times(leaf: Did) -> tuple[int, ...]:
    """So many events must be told from one less: of `exactly 3`, three and four."""
    if leaf.at_least is not None:
        return (leaf.at_least,)
    if leaf.at_most is not None:
        return (leaf.at_most + 1,)
    if leaf.exactly is not None:
        return (leaf.exactly, leaf.exactly + 1)
    return (1,)


def _room(times: int) -> int:
    """A few sizes only, so that conditions that ask for nearly the same share a memory."""
    return next(room for room in (1, 2, 4, 8, 16, 64, 256, MOST_KNOWN + 1) if room >= times)


# --- what is looked at


class View:
    """A person, as conditions see her at one moment.

    Attributes:
        memories: by the id of their selector.
        attribute: value of an attribute of a processor; None: it has none.
        members: the segments she is in, as far as they are judged.
        now_ms: the moment.
        due_ms: when time alone may change an answer given so far.
    """

    __slots__ = ("attribute", "due_ms", "members", "memories", "now_ms")

    def __init__(
        self, memories: Mapping[str, Memory], attribute: Callable[[str], Any], members: set[str], now_ms: int
    ) -> None:  # fmt: skip
        self.memories = memories
        self.attribute = attribute
        self.members = members
        self.now_ms = now_ms
        self.due_ms = NEVER_MS


Answer = Callable[[View], bool]


class _Feed(NamedTuple):
    """Into which memory an event goes, as which kind."""

    selector: Selector
    kind: int
    tests: tuple[_Tested, ...]


class _Tested(NamedTuple):
    path: tuple[str, ...]
    passes: Passes
    is_turned: bool

    def holds(self, values: Sequence[Scalar]) -> bool:
        return any(self.passes(value) for value in values) is not self.is_turned


class _Plan:
    """What events of one name are remembered for: always, or where a property has a certain value, or after tests."""

    def __init__(self) -> None:
        self.always: list[_Feed] = []
        self.by_text: dict[tuple[str, ...], dict[str, list[_Feed]]] = {}
        self.tested: list[_Feed] = []

    def add(self, feed: _Feed, where: Sequence[Where]) -> None:
        if not where:
            self.always.append(feed)
            return
        op, value, is_turned = where[0].asked
        texts = {Op.IS: (value,), Op.ONE_OF: value}.get(op, ())
        if len(where) == 1 and not is_turned and texts and all(isinstance(text, str) for text in texts):
            by_text = self.by_text.setdefault(tuple(where[0].property.split(".")), {})
            for text in dict.fromkeys(texts):
                by_text.setdefault(text, []).append(feed)
        else:
            self.tested.append(feed)

    def fed(self, event: Event) -> Iterable[_Feed]:
        yield from self.always
        seen: dict[tuple[str, ...], list[Scalar]] = {}
        for path, by_text in self.by_text.items():
            values = seen[path] = values_of(event, path)
            for value in dict.fromkeys(values) if len(values) > 1 else values:
                if value.__class__ is str and value in by_text:
                    yield from by_text[value]
        for feed in self.tested:
            for test in feed.tests:
                values = seen.get(test.path, _UNSEEN)
                if values is _UNSEEN:
                    values = seen[test.path] = values_of(event, test.path)
                if not test.holds(values):
                    break
            else:
                yield feed


_UNSEEN: list[Scalar] = []


def values_of(event: Event, path: Sequence[str]) -> list[Scalar]:
    """The values of a property of an event; `name` and `category` of a page stand beside its properties."""
    if len(path) == 1 and path[0] in OF_PAGE and event.type in ("page", "screen"):
        value = event.name if path[0] == "name" else event.category
        return [value] if value else found(event.properties, path)
    return found(event.properties, path)


# --- the rules


class _Segment(NamedTuple):
    definition: Definition
    answer: Answer


class Rules:
    """Definitions, ready to remember and to judge by.

    Attributes:
        segments: those that are in force, each after those it asks for.
        selectors: what is remembered, by id; also for definitions that are only being prepared.
    """

    def __init__(self, definitions: Sequence[Definition], zone: Zone) -> None:
        self.zone = zone
        self.selectors: dict[str, Selector] = {}
        self._plans: dict[str, _Plan] = defaultdict(_Plan)
        self._words: dict[str, list[Selector]] = {"trait": [], "context": []}
        for definition in definitions:
            for leaf in leaves_of(definition.when):
                selector = selector_of(leaf, self.zone.name)
                if selector is not None and selector.id not in self.selectors:
                    self._remember(selector)
        live = {definition.name: definition for definition in definitions if definition.is_live}
        self.segments = {
            name: _Segment(live[name], self._compiled(live[name].when)) for name in in_order(live.values())
        }
        live_leaves = (leaf for segment in self.segments.values() for leaf in leaves_of(segment.definition.when))
        self.asks_processors = any(isinstance(leaf, Attribute) for leaf in live_leaves)
        self._rank = {name: rank for rank, name in enumerate(self.segments)}
        self._needing = self._index()

    def _remember(self, selector: Selector) -> None:
        self.selectors[selector.id] = selector
        if selector.word:
            self._words[selector.word[0]].append(selector)
        for kind, event in enumerate(selector.kinds):
            tests = tuple(_Tested(tuple(where.property.split(".")), passes(where, self.zone), where.asked[2])
                          for where in event.where)  # fmt: skip
            self._plans[event.did].add(_Feed(selector, kind, tests), event.where)

    def _index(self) -> dict[str, frozenset[str]]:
        """Which segments need judging when a memory, an attribute or a membership changed: by its id or name."""
        needing: dict[str, set[str]] = defaultdict(set)
        for name, segment in self.segments.items():
            for leaf in leaves_of(segment.definition.when):
                selector = selector_of(leaf, self.zone.name)
                if selector is not None:
                    needing[selector.id].add(name)
                elif isinstance(leaf, Attribute):
                    needing[leaf.attribute.partition(".")[0]].add(name)
                elif isinstance(leaf, InSegment):
                    needing[f"segment {leaf.segment}"].add(name)
        for name in self.segments:  # who asks for a segment is asked again when that one is
            for cause in list(needing):
                if name in needing[cause]:
                    needing[cause] |= needing.get(f"segment {name}", set())
        return {cause: frozenset(names) for cause, names in needing.items()}

    # --- remembering

    def remember(self, memories: Memories, event: Event) -> list[str]:
        """Have an event remembered. Returns the ids of the memories that changed."""
        changed: list[str] = []
        plan = self._plans.get(event.label)
        if plan is not None:
            known = 0
            for selector, kind, _ in plan.fed(event):
                known = known or token_of_event(event)
                amount = _amount(event, selector.amount) if selector.amount else 0
                memory = _open(memories, selector)
                if add(memory, (event.at_ms, known + kind, amount), selector.most, keeps_first=selector.keeps_first):
                    changed.append(selector.id)
        if self._words["context"] or (self._words["trait"] and event.type == "identify"):
            self._hear(memories, event, changed)
        return changed

    def _hear(self, memories: Memories, event: Event, changed: list[str]) -> None:
        for source, said in (("context", event.context), ("trait", event.traits if event.type == "identify" else {})):
            for selector in self._words[source]:
                if selector.word[1] in said:
                    values = found(said, selector.word[1:])
                    if say(_open(memories, selector), (event.at_ms, token_of_event(event), 0), values):
                        changed.append(selector.id)

    def forget_others(self, memories: Memories) -> bool:
        """Forget what nothing asks for any more. Returns whether there was any."""
        others = [id for id in memories.of if id not in self.selectors]
        for id in others:
            del memories.of[id]
        return bool(others)

    def merged(self, one: Memories, other: Memories) -> Memories:
        both = dict(one.of)
        for id, memory in other.of.items():
            selector = self.selectors.get(id)
            mine = both.get(id)
            if mine is None or selector is None:
                both[id] = mine or memory
            else:
                both[id] = selector.merged(mine, memory)
        return Memories(both)

    # --- judging

    def version_of(self, name: str) -> int:
        """Version of the definition by which people are judged; 0 where there is none any more."""
        segment = self.segments.get(name)
        return segment.definition.version if segment is not None else 0

    def asked_of(self, processors: Iterable[str]) -> list[str]:
        """Those of the processors whose attributes some segment asks for."""
        return [name for name in processors if name in self._needing] if self.asks_processors else []

    def needing(self, causes: Iterable[str]) -> Sequence[str]:
        """The segments that may be changed by memories or processors that changed, in the order to judge them."""
        names: set[str] = set()
        for cause in causes:
            names |= self._needing.get(cause, frozenset())
        return sorted(names, key=self._rank.__getitem__) if len(names) > 1 else list(names)

    def judge(self, view: View, names: Iterable[str]) -> list[tuple[str, bool]]:
        """Whether she is in each of the segments; `view.members` is brought up to date. The changes alone come back."""
        members, changes = view.members, []
        for name in names:
            is_in = self.segments[name].answer(view)
            if is_in is not (name in members):
                changes.append((name, is_in))
                (members.add if is_in else members.discard)(name)
        return changes

    # --- compiling

    def answer_of(self, node: Any) -> Answer:
        """A condition of these definitions, or a part of one, compiled."""
        return self._compiled(node)

    def _compiled(self, node: Any) -> Answer:
        match node:
            case All():
                answers = tuple(map(self._compiled, node.all))
                return lambda view: all(answer(view) for answer in answers)
            case Any_():
                answers = tuple(map(self._compiled, node.any))
                return lambda view: any(answer(view) for answer in answers)
            case Not():
                answer = self._compiled(node.not_)
                return lambda view: not answer(view)
            case InSegment():
                name = node.segment
                return lambda view: name in view.members
            case Did():
                return self._did(node)
            case Steps():
                return self._steps(node)
            case Attribute():
                name = node.attribute
                test = self._test(node)
                return lambda view: test(view, _scalars(view.attribute(name)))
            case _:
                selector = selector_of(node, self.zone.name)
                assert selector is not None
                id, test = selector.id, self._test(node)
                return lambda view: test(view, memory.said if (memory := view.memories.get(id)) else ())

    def _test(self, test: Test) -> Callable[[View, Sequence[Scalar]], bool]:
        op, value, is_turned = test.asked
        if not test.takes_time:
            holds = passes(test, self.zone)
            return lambda view, values: any(map(holds, values)) is not is_turned
        window, zone = Window(value, self.zone), self.zone

        def in_time(view: View, values: Sequence[Scalar]) -> bool:
            is_true = False
            for each in values:
                at_ms = zone.read_ms(each)
                if at_ms is None:
                    continue
                if at_ms > view.now_ms:
                    _due(view, at_ms if op is Op.WITHIN else window.leaves_ms(at_ms))
                elif window.holds(at_ms, view.now_ms):
                    _due(view, window.leaves_ms(at_ms))
                    is_true = is_true or op is Op.WITHIN
                else:
                    is_true = is_true or op is Op.LONGER_AGO
            return is_true

        return in_time

    def in_time(self, leaf: Any) -> Callable[[View, int], bool]:
        """Whether a moment counts for a leaf; where it does not always, the view is told until when."""
        if leaf.within is not None:
            window = Window(leaf.within, self.zone)

            def is_within(view: View, at_ms: int) -> bool:
                if not window.holds(at_ms, view.now_ms):
                    return False
                _due(view, window.leaves_ms(at_ms))
                return True

            return is_within
        if getattr(leaf, "longer_ago", None) is not None:
            ago = Window(leaf.longer_ago, self.zone)

            def is_longer_ago(view: View, at_ms: int) -> bool:
                if not ago.holds(at_ms, view.now_ms):
                    return True
                _due(view, ago.leaves_ms(at_ms))
                return False

            return is_longer_ago
        if leaf.since is not None:
            limit_ms = self.zone.midnight_ms(leaf.since)
            return lambda view, at_ms: at_ms >= limit_ms
        return lambda view, at_ms: True

    def _did(self, leaf: Did) -> Answer:
        selector = selector_of(leaf, self.zone.name)
        assert selector is not None
        id, in_time = selector.id, self.in_time(leaf)
        if leaf.total is not None:
            return self._total(leaf, id)
        if leaf.which is not None:
            return lambda view: (memory := view.memories.get(id)) is not None and in_time(view, memory.known[0][0])

        def did_so_often(view: View, times: int) -> bool:
            memory = view.memories.get(id)
            return memory is not None and len(memory.known) >= times and in_time(view, memory.known[-times][0])

        times = _times(leaf)
        if leaf.at_most is not None:
            return lambda view: not did_so_often(view, times[0])
        if leaf.exactly is not None:
            fewest = leaf.exactly
            return lambda view: (not fewest or did_so_often(view, fewest)) and not did_so_often(view, times[1])
        return lambda view: did_so_often(view, times[0])

    def _total(self, leaf: Did, id: str) -> Answer:
        in_time, total = self.in_time(leaf), leaf.total
        assert total is not None
        limit = total.at_least if total.at_least is not None else total.less_than
        assert limit is not None
        wanted, is_least = round(limit * UNIT), total.at_least is not None

        def comes_to(view: View) -> bool:
            memory = view.memories.get(id)
            amount = sum(known[2] for known in memory.known if in_time(view, known[0])) if memory is not None else 0
            return (amount >= wanted) is is_least

        return comes_to

    def _steps(self, leaf: Steps) -> Answer:
        selector = selector_of(leaf, self.zone.name)
        assert selector is not None
        id, in_time = selector.id, self.in_time(leaf)

        def went(view: View) -> bool:
            memory = view.memories.get(id)
            return memory is not None and any(in_time(view, at_ms) for at_ms in reversed(ends_of(leaf, memory.known)))

        return went


def ends_of(leaf: Steps, known: Sequence[Known]) -> list[int]:
    """When the sequence came to its end, each time that it did: the times of its last step, the earliest first."""
    steps = leaf.sequence
    middles = {place: len(steps) + number for number, place in
               enumerate(place for place, step in enumerate(steps) if step.without is not None)}  # fmt: skip
    events = [((at_ms, token // KINDS), token % KINDS) for at_ms, token, _ in known]
    good = {event for event, kind in events if kind == 0}
    for place in range(1, len(steps)):
        step, middle, reached = steps[place], middles.get(place), set()
        for event in (event for event, kind in events if kind == place):
            before = max((other for other, kind in events if kind == place - 1 and other < event), default=None)
            if before is None or before not in good or (step.within and event[0] - before[0] > step.within.ms):
                continue
            if middle is None or not any(before < other < event for other, kind in events if kind == middle):
                reached.add(event)
        good = reached
    return [at_ms for at_ms, _ in sorted(good)]


def _due(view: View, due_ms: int) -> None:
    if due_ms < view.due_ms:
        view.due_ms = due_ms


def _open(memories: Memories, selector: Selector) -> Memory:
    memory = memories.of.get(selector.id)
    if memory is None:
        memory = memories.of[selector.id] = Memory()
    return memory


def _amount(event: Event, path: Sequence[str]) -> int:
    """What the numbers at a path come to, in ten-thousandths."""
    numbers = (number_of(value) for value in values_of(event, path))
    return sum(round(number * UNIT) for number in numbers if number is not None and abs(number) <= LARGEST_AMOUNT)


def _scalars(value: Any) -> Sequence[Scalar]:
    if isinstance(value, str | int | float):
        return (value,)
    return found(value, ()) if isinstance(value, list) else ()


def at_path(value: Any, path: Sequence[str]) -> Any:
    """What stands at a path of a processor's section; None where there is nothing."""
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def in_order(definitions: Iterable[Definition]) -> list[str]:
    """Names of segments, each after those it asks for; those that are not there are passed over.

    Raises:
        ValueError: they ask for each other in a circle, which is named.
    """
    by_name = {definition.name: definition for definition in definitions}
    done: dict[str, None] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise ValueError(f"segments ask for each other in a circle: {' → '.join((*way[way.index(name):], name))}")
        if name in done or name not in by_name:
            return
        for leaf in leaves_of(by_name[name].when):
            if isinstance(leaf, InSegment):
                visit(leaf.segment, (*way, name))
        done[name] = None

    for name in sorted(by_name):
        visit(name, ())
    return list(done)
