"""Segments compiled: what an event has remembered, and who is in which segment, now and from when on by time alone.

    rules = Rules(definitions, zone)
    touched = rules.remember(memories, event)       # ids of the memories that changed
    judged = rules.judge(view, rules.needing(touched))

Cost grows with what an event is about: rules are found by the event's name, and where they ask for certain values of a
property, by the value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from processors.answers import Answer, InTime, Merged, Remembered, View, answer_of, in_time
from processors.memories import Memories, Memory, add, say
from processors.memories import token as token_of_event
from processors.selectors import LARGEST_AMOUNT, OF_PAGE, UNIT, Selector, selector_of
from processors.turns import NOBODY, Change, TrackedSection, Turn, tracked
from processors.values import Passes, Scalar, Zone, found, number_of, passes
from schemas.conditions import Attribute, InSegment, Op, Where, leaves_of
from schemas.conditions import Event as EventCondition
from schemas.event import Event
from schemas.segments import Definition


class _Tested(NamedTuple):
    path: tuple[str, ...]
    passes: Passes
    is_turned: bool

    def holds(self, values: Sequence[Scalar]) -> bool:
        return any(map(self.passes, values)) is not self.is_turned


Matches = Callable[[Event], bool]
Thing = TypeVar("Thing")


def matching(asked: EventCondition, zone: Zone) -> Matches:
    """Whether an event is one that a condition asks for: of its name, and with all of its tests passed."""
    tests = [_tested(where, zone) for where in asked.where]

    def matches(event: Event) -> bool:
        return event.label == asked.did and all(test.holds(values_of(event, test.path)) for test in tests)

    return matches


def _tested(where: Where, zone: Zone) -> _Tested:
    return _Tested(tuple(where.property.split(".")), passes(where, zone), where.asked[2])


class Asked(Generic[Thing]):
    """What events of one name are asked for: always, or where a property has a certain value, or after tests.

    Of many things that ask for certain values of the same property, those that an event means are found by its value.
    """

    def __init__(self) -> None:
        self._always: list[Thing] = []
        self._by_text: dict[tuple[str, ...], dict[str, list[Thing]]] = {}
        self._tested: list[tuple[tuple[_Tested, ...], Thing]] = []

    def add(self, thing: Thing, where: Sequence[Where], zone: Zone) -> None:
        if not where:
            self._always.append(thing)
            return
        op, value, is_turned = where[0].asked
        texts = {Op.IS: (value,), Op.ONE_OF: value}.get(op, ())
        if len(where) == 1 and not is_turned and texts and all(isinstance(text, str) for text in texts):
            by_text = self._by_text.setdefault(tuple(where[0].property.split(".")), {})
            for text in dict.fromkeys(texts):
                by_text.setdefault(text, []).append(thing)
        else:
            self._tested.append((tuple(_tested(test, zone) for test in where), thing))

    def of(self, event: Event) -> Sequence[Thing]:
        """What asks for an event; it may come twice."""
        if not self._by_text and not self._tested:
            return self._always
        asking = [*self._always]
        seen: dict[tuple[str, ...], list[Scalar]] = {}
        for path, by_text in self._by_text.items():
            values = seen[path] = values_of(event, path)
            for value in values:
                if value.__class__ is str and value in by_text:
                    asking += by_text[value]
        for tests, thing in self._tested:
            for test in tests:
                values = seen.get(test.path, _UNSEEN)
                if values is _UNSEEN:
                    values = seen[test.path] = values_of(event, test.path)
                if not test.holds(values):
                    break
            else:
                asking.append(thing)
        return asking


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
        self._asked: dict[str, Asked[tuple[Selector, int]]] = defaultdict(Asked)  # memories, and as which kind
        self._words: dict[str, list[Selector]] = {"trait": [], "context": []}
        for definition in definitions:
            for leaf in leaves_of(definition.when):
                selector = selector_of(leaf, self.zone.name)
                if selector is not None and selector.id not in self.selectors:
                    self._remember(selector)
        self._context = _Some({selector.word[1] for selector in self._words["context"]})
        live = {definition.name: definition for definition in definitions if definition.is_live}
        self.segments = {
            name: _Segment(live[name], answer_of(live[name].when, zone)) for name in in_order(live.values())
        }
        leaves = {name: tuple(leaves_of(live[name].when)) for name in self.segments}
        self._rank = {name: rank for rank, name in enumerate(self.segments)}
        self._askers = _askers(leaves)
        self._needing = self._index(leaves)
        self._turns = self._turns_of(leaves)
        self._tracked = tracked(leaves, zone)
        self._timely = self._timely_of(leaves)

    def _remember(self, selector: Selector) -> None:
        self.selectors[selector.id] = selector
        if selector.word:
            self._words[selector.word[0]].append(selector)
        for kind, event in enumerate(selector.kinds):
            self._asked[event.did].add((selector, kind), event.where, self.zone)

    def _index(self, leaves: Mapping[str, Sequence[Any]]) -> dict[str, frozenset[str]]:
        """Which segments need judging when a memory or an attribute changed: by its id, or the processor's name."""
        needing: dict[str, set[str]] = defaultdict(set)
        for name, asked in leaves.items():
            for leaf in asked:
                selector = selector_of(leaf, self.zone.name)
                if selector is not None:
                    needing[selector.id].add(name)
                elif isinstance(leaf, Attribute):
                    needing[leaf.attribute.partition(".")[0]].add(name)
        for name in self.segments:  # who asks for a segment is asked again when that one is
            for names in needing.values():
                if name in names:
                    names |= self._askers.get(name, NOBODY)
        return {cause: frozenset(names) for cause, names in needing.items()}

    def _turns_of(self, leaves: Mapping[str, Sequence[Any]]) -> dict[str, Turn]:
        turns: dict[str, Turn] = defaultdict(Turn)
        for name, asked in leaves.items():
            for leaf in asked:
                selector = selector_of(leaf, self.zone.name)
                if selector is not None:
                    turns[selector.id].add(leaf, self.zone, name)
        return dict(turns)

    def _timely_of(self, leaves: Mapping[str, Sequence[Any]]) -> dict[str, frozenset[str]]:
        """Which segments time alone may change, by the memory that it needs; those that need none under no name."""
        timely: dict[str, set[str]] = defaultdict(set)
        for name, asked in leaves.items():
            for leaf in asked:
                if getattr(leaf, "within", None) is not None or getattr(leaf, "longer_ago", None) is not None:
                    selector = selector_of(leaf, self.zone.name)
                    timely[selector.id if selector is not None else ""].add(name)
        return {id: frozenset(names) for id, names in timely.items()}

    # --- remembering

    def remember(self, memories: Memories, event: Event) -> list[Change]:
        """Have an event remembered. Returns which memories changed, and how."""
        changes: list[Change] = []
        asked = self._asked.get(event.label)
        token = 0
        if asked is not None and (fed := asked.of(event)):
            token, at_ms, of = token_of_event(event), event.at_ms, memories.of
            for selector, kind in fed:
                amount = _amount(event, selector.amount) if selector.amount else 0
                memory = of.get(selector.id)
                if memory is None:
                    memory = of[selector.id] = Memory()
                known = at_ms, token + kind, amount
                events = memory.known
                full = len(events) >= selector.most
                before = (events[-1] if selector.keeps_first else events[0]) if full else None
                if add(memory, known, selector.most, keeps_first=selector.keeps_first):
                    changes.append(Change(selector.id, known, before))
        if self._words["context"]:
            self._hear(memories, event, self._context.of(event), self._words["context"], token, changes)
        if self._words["trait"] and event.type == "identify":
            self._hear(memories, event, event.traits, self._words["trait"], token, changes)
        return changes

    def _hear(
        self, memories: Memories, event: Event, said: Mapping[str, Any], selectors: Sequence[Selector], token: int,
        changes: list[Change],
    ) -> None:  # fmt: skip
        for selector in selectors:
            path = selector.word[1:]
            if path[0] in said:
                token = token or token_of_event(event)
                memory = _open(memories, selector)
                before = memory.known, memory.said, memory
                if say(memory, (event.at_ms, token, 0), found(said, path)):
                    changes.append(Change(selector.id, None, before))

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

    def attributes_of(self, processors: Iterable[str]) -> list[TrackedSection]:
        """The attributes of these processors that some segment asks for."""
        return [self._tracked[name] for name in processors if name in self._tracked]

    def view_of(self, parts: Sequence[Mapping[str, Memory]]) -> Remembered:
        """The memories of all parts of a person together."""
        return parts[0] if len(parts) == 1 else Merged(parts, self._merge)

    def _merge(self, id: str, one: Memory, other: Memory) -> Memory:
        selector = self.selectors.get(id)
        return selector.merged(one, other) if selector is not None else one

    def needing(self, causes: Iterable[str]) -> Sequence[str]:
        """The segments that may be changed by memories or processors that changed, in the order to judge them."""
        names: set[str] = set()
        for cause in causes:
            names |= self._needing.get(cause, NOBODY)
        return self.in_order(names)

    def turned(self, changes: Iterable[Change], parts: Sequence[Mapping[str, Memory]], now_ms: int) -> set[str]:
        """The segments that may be changed by an event, of a person of whom time alone has changed none up to now.

        Args:
            parts: the memories of all parts of her.
        """
        names: set[str] = set()
        for change in changes:
            id = change.id
            turn = self._turns.get(id)
            if turn is not None:
                memories = [parts[0][id]] if len(parts) == 1 else [part[id] for part in parts if id in part]
                names.update(turn.names(change, memories, now_ms))
        return names

    def timely(self, parts: Iterable[Mapping[str, Memory]]) -> list[str]:
        """The segments that time alone may change, of a person with these memories, in the order to judge them."""
        names = set(self._timely.get("", NOBODY))
        for id in {id for part in parts for id in part}:
            names |= self._timely.get(id, NOBODY)
        return self.in_order(names)

    def in_order(self, names: Collection[str]) -> list[str]:
        """Each after those it asks for."""
        return sorted(names, key=self._rank.__getitem__) if len(names) > 1 else [*names]

    def judge(self, view: View, names: Iterable[str]) -> list[tuple[str, bool]]:
        """Whether she is in each of the segments, and in those that ask for one that she joined or left.

        `names` are in order. `view.members` is brought up to date. The changes alone come back.
        """
        members, changes, segments, due_ms = view.members, list[tuple[str, bool]](), self.segments, view.due_ms
        waiting = list(names)
        for place, name in enumerate(waiting, 1):
            until = segments[name].answer(view)
            is_in = until > 0
            if (until if is_in else -until) < due_ms:
                due_ms = abs(until)
            if is_in is not (name in members):
                changes.append((name, is_in))
                (members.add if is_in else members.discard)(name)
                askers = self._askers.get(name)
                if askers:
                    waiting[place:] = self.in_order({*waiting[place:], *askers})
        view.due_ms = due_ms
        return changes

    # --- parts of conditions

    def answer_of(self, node: Any) -> Answer:
        """A condition of these definitions, or a part of one, compiled."""
        return answer_of(node, self.zone)

    def in_time(self, leaf: Any) -> InTime:
        """Whether a moment counts for a leaf."""
        return in_time(leaf, self.zone)


class _Some:
    """Some of the keys of an event's context: decoding only these costs a third."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._fields = [(f"f{number}", key) for number, key in enumerate(sorted(keys))]
        fields: list[tuple[str, Any, Any]] = [(field, Any, _ABSENT) for field, _ in self._fields]
        some = msgspec.defstruct("Some", fields, rename=dict(self._fields), gc=False)
        self._decode = msgspec.json.Decoder(some).decode

    def of(self, event: Event) -> Mapping[str, Any]:
        try:
            some = self._decode(event.raw_context)
        except msgspec.ValidationError:  # no object
            return event.context
        return {key: value for field, key in self._fields if (value := getattr(some, field)) is not _ABSENT}


_ABSENT: Any = msgspec.UNSET


def _askers(leaves: Mapping[str, Sequence[Any]]) -> dict[str, frozenset[str]]:
    """Who asks for each segment."""
    askers: dict[str, set[str]] = defaultdict(set)
    for name, asked in leaves.items():
        for leaf in asked:
            if isinstance(leaf, InSegment):
                askers[leaf.segment].add(name)
    return {name: frozenset(asking) for name, asking in askers.items()}


def _open(memories: Memories, selector: Selector) -> Memory:
    memory = memories.of.get(selector.id)
    if memory is None:
        memory = memories.of[selector.id] = Memory()
    return memory


def _amount(event: Event, path: Sequence[str]) -> int:
    """What the numbers at a path come to, in ten-thousandths."""
    numbers = (number_of(value) for value in values_of(event, path))
    return sum(round(number * UNIT) for number in numbers if number is not None and abs(number) <= LARGEST_AMOUNT)


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
