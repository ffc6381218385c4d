"""Why somebody is in a segment, or is not: each part of its condition, whether it is true of her, and by which facts.

Worked out from the events at rest, by the same code that judges live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from processors.answers import View, at_path, ends_of
from processors.memories import Memories, Memory
from processors.rules import Rules
from processors.selectors import UNIT, selector_of
from processors.values import NEVER_MS, Zone
from schemas.conditions import Attribute, Did, InSegment, children_of, leaves_of
from schemas.conditions import Sequence as Steps
from schemas.segments import Definition
from schemas.times import from_ms
from sinks.analytics import Analytics
from sinks.memories import memories_of

SHOWN_TIMES = 5


class Reason(NamedTuple):
    """One part of a condition.

    Attributes:
        node: of the tree; `schemas.sentences.sentence_of` says it in words.
        is_true: of her, now.
        until: when time alone changes that; None: only an event does.
        events: of those asked for, how many in the time asked for; as far as is remembered.
        total: what the amounts asked for come to.
        times: of the newest of these events.
        values: what a trait, an attribute or the context says.
        reasons: of its parts; of another segment, those of its condition.
    """

    node: Any
    is_true: bool
    until: datetime | None
    events: int | None = None
    total: float | None = None
    times: tuple[datetime, ...] = ()
    values: tuple[Any, ...] = ()
    reasons: tuple[Reason, ...] = ()


async def explain(
    analytics: Analytics, definitions: Mapping[str, Definition], name: str, *, keys: Sequence[str],
    sections: Mapping[str, Any], now_ms: int, zone: Zone,
) -> Reason:  # fmt: skip
    """Why, or why not, the person with these keys is in a segment.

    Args:
        sections: of her portrait, for attributes.

    Raises:
        ClickHouseError: her events could not be read.
    """
    rules = Rules(list(_asked_for(definitions, name)), zone)
    memories = Memories()
    for each in (await memories_of(analytics, list(rules.selectors.values()), zone, keys)).values():
        memories = rules.merged(memories, Memories(each))
    view = View(memories.of, lambda path: at_path(sections, path.split(".")), set(), now_ms)
    rules.judge(view, list(rules.segments))
    return _Explainer(rules, definitions, view).explain(definitions[name].when)


def _asked_for(definitions: Mapping[str, Definition], name: str) -> Iterable[Definition]:
    """A segment, and those that it asks for, by whatever way."""
    wanted = [name]
    for each in wanted:
        if each in definitions:
            yield definitions[each]
            wanted += (leaf.segment for leaf in leaves_of(definitions[each].when)
                       if isinstance(leaf, InSegment) and leaf.segment not in wanted)  # fmt: skip


class _Explainer:
    def __init__(self, rules: Rules, definitions: Mapping[str, Definition], view: View) -> None:
        self._rules = rules
        self._definitions = definitions
        self._view = view

    def explain(self, node: Any) -> Reason:
        view = self._view
        until_ms = self._rules.answer_of(node)(view)
        until = from_ms(abs(until_ms)) if abs(until_ms) < NEVER_MS else None
        reason = Reason(node, until_ms > 0, until)
        match node:
            case Did() | Steps():
                return self._told(node, reason)
            case Attribute():
                return reason._replace(values=_listed(view.attribute(node.attribute)))
            case InSegment():
                other = self._definitions.get(node.segment)
                return reason._replace(reasons=(self.explain(other.when),)) if other is not None else reason
        selector = selector_of(node, self._rules.zone.name)
        if selector is not None:
            memory = view.memories.get(selector.id) or Memory()
            times = tuple(from_ms(known[0]) for known in memory.known)
            return reason._replace(values=tuple(memory.said), times=times)
        return reason._replace(reasons=tuple(self.explain(child) for child in children_of(node)))

    def _told(self, leaf: Any, reason: Reason) -> Reason:
        selector = selector_of(leaf, self._rules.zone.name)
        assert selector is not None
        known = (self._view.memories.get(selector.id) or Memory()).known
        in_time = self._rules.in_time(leaf)
        if isinstance(leaf, Steps):
            times = [at_ms for at_ms in ends_of(leaf, known) if in_time(at_ms, self._view.now_ms) > 0]
        elif leaf.which is not None:
            times = [at_ms for at_ms, _, _ in known]
        else:
            known = [each for each in known if in_time(each[0], self._view.now_ms) > 0]
            times = [at_ms for at_ms, _, _ in known]
        total = None
        if isinstance(leaf, Did) and leaf.total is not None:
            total = sum(amount for _, _, amount in known) / UNIT
        newest = tuple(map(from_ms, reversed(times[-SHOWN_TIMES:])))
        return reason._replace(events=len(times), total=total, times=newest)


def _listed(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)
