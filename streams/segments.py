"""Who is in which segment: judged by the customer stage, for one person at a time.

The definitions in force stand in the log, as all does that a person's state follows from: a `Define` in each
partition of `events` puts them into the partition's own record (`RULES_KEY`), so a replay judges by the same ones.
A person is judged

- by the segments an event may have changed, when it was applied;
- by all of them, when she is new, when her parts come or go, when time alone may have changed an answer, and when they
  were defined anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from processors.fold import Fold
from processors.memories import Memories
from processors.rfm import RFM, rfm_of, scores_of
from processors.rules import Rules, View, at_path
from processors.segments import MembershipRow, Segments
from processors.values import NEVER_MS, zone_named
from schemas.customer import Customer, Member, Part
from schemas.effects import Decision, Row
from schemas.event import Event
from schemas.segments import Cuts, read_definitions
from schemas.times import from_ms, to_iso
from streams.companies import COMPANY, section_of
from streams.outbox import Outbox

ORDERS = "orders"  # the processor that scores are made of
RULES_KEY = "segments"  # the record of a partition itself; the keys of persons have a slash in them


class Judging:
    """The segments of one partition's people.

    Args:
        processor: of the fold, which remembers.
    """

    def __init__(self, fold: Fold, processor: Segments) -> None:
        self._fold = fold
        self._processor = processor
        self._compiled: dict[bytes, tuple[Rules, Mapping[str, Cuts]]] = {b"": (processor.rules, {})}
        self.rules = processor.rules
        self.cuts: Mapping[str, Cuts] = {}

    def use(self, definitions: bytes) -> None:
        """From here on judge by these definitions."""
        compiled = self._compiled.get(definitions)
        if compiled is None:
            read = read_definitions(definitions)
            compiled = Rules(read.definitions, zone_named(read.zone)), read.cuts
            if len(self._compiled) > 8:  # partitions may have different ones only while new ones are on their way
                self._compiled.clear()
            self._compiled[definitions] = compiled
        self.rules, self.cuts = compiled
        self._processor.rules = self.rules

    def learn(self, part: Part, memories: bytes) -> None:
        """Add what ClickHouse knows of the events of a part."""
        processor = self._processor
        state = self._fold.open(part, processor.name)
        state.of = processor.merge(state, _decode_memories(memories)).of

    def forget_others(self, customer: Customer) -> bool:
        """Forget what no definition asks for any more. Returns whether there was any."""
        states = (self._fold.open(part, self._processor.name) for part in customer.parts.values())
        return sum(self.rules.forget_others(state) for state in states) > 0

    def after_event(self, key: str, customer: Customer, event: Event, out: Outbox) -> None:
        """Judge what the event that was just applied may have changed."""
        rules, changed = self.rules, self._processor.changed
        if self.cuts and self._fold.wants(ORDERS, event.label) and self._score(key, customer):
            changed = [*changed, RFM]
        if not rules.segments:
            return
        if customer.judged_ms:
            names = rules.needing([*changed, *rules.asked_of(self._fold.wanting(event.label))])
        else:
            names = list(rules.segments)  # she is new: of who did nothing yet something may be true as well
        if names:
            why = {"why": "event", "event": event.label, "message_id": event.message_id}
            self._judge_some(key, customer, names, event.received_ms, why, out)

    def after_account(self, key: str, customer: Customer, out: Outbox) -> None:
        """Judge what her company's news may have changed."""
        names = self.rules.needing([COMPANY])
        if names and customer.judged_ms:
            self._judge_some(key, customer, names, out.at_ms, {"why": "company"}, out)

    def _judge_some(
        self, key: str, customer: Customer, names: Sequence[str], now_ms: int, why: Mapping[str, Any], out: Outbox
    ) -> None:
        due_ms = self._judge(key, customer, names, max(now_ms, customer.judged_ms), why, out)
        if due_ms < (customer.judged_due_ms or NEVER_MS):
            customer.judged_due_ms = due_ms

    def everything(self, key: str, customer: Customer, now_ms: int, why: Mapping[str, Any], out: Outbox) -> bool:
        """Judge a person by all segments. Returns whether anything of her record changed."""
        before = customer.judged_due_ms, dict(customer.segments), list(customer.rfm)
        self._score(key, customer)
        if customer.redirect or not customer.parts:
            self._settle(key, customer, [(name, False) for name in customer.segments], now_ms, why, out)
            customer.judged_due_ms = 0
        else:
            gone = [(name, False) for name in customer.segments if name not in self.rules.segments]
            self._settle(key, customer, gone, now_ms, why, out)
            due_ms = self._judge(key, customer, list(self.rules.segments), max(now_ms, customer.judged_ms), why, out)
            customer.judged_due_ms = due_ms if due_ms < NEVER_MS else 0
        return before != (customer.judged_due_ms, customer.segments, customer.rfm)

    def _score(self, key: str, customer: Customer) -> bool:
        """Bring her RFM scores up to date. Returns whether they changed."""
        cuts = self.cuts.get(key.partition("/")[0])
        before = customer.rfm
        customer.rfm = scores_of(self._fold.shown(customer.parts, ORDERS), cuts) if cuts is not None else []
        return customer.rfm != before

    def sections(self, customer: Customer) -> dict[str, Any]:
        """What stands in her portrait beside what the processors show."""
        shown = {"segments": {"in": sorted(customer.segments)} if customer.segments else {}, RFM: rfm_of(customer.rfm),
                 COMPANY: section_of(customer)}  # fmt: skip
        return {name: section for name, section in shown.items() if section}

    def _judge(
        self, key: str, customer: Customer, names: Sequence[str], now_ms: int, why: Mapping[str, Any], out: Outbox
    ) -> int:
        customer.judged_ms = now_ms
        parts, fold = customer.parts, self._fold
        shown: dict[str, Any] = {RFM: rfm_of(customer.rfm), COMPANY: section_of(customer)}

        def attribute(name: str) -> Any:
            processor, *path = name.split(".")
            if processor not in shown:
                shown[processor] = fold.shown(parts, processor)
            return at_path(shown[processor], path)

        memories = fold.view(parts, self._processor.name)
        known = memories.of if isinstance(memories, Memories) else {}
        view = View(known, attribute, set(customer.segments), now_ms)
        self._settle(key, customer, self.rules.judge(view, names), now_ms, why, out)
        return view.due_ms

    def _settle(
        self, key: str, customer: Customer, changes: Sequence[tuple[str, bool]], now_ms: int, why: Mapping[str, Any],
        out: Outbox,
    ) -> None:  # fmt: skip
        """Write down who joined and who left."""
        for name, is_in in changes:
            version = self.rules.version_of(name)
            if is_in:
                member = customer.segments[name] = Member(version, now_ms)
                row = MembershipRow(name, version, from_ms(now_ms))
            else:
                member = customer.segments.pop(name)
                row = MembershipRow(name)
            facts = {"version": version, **why}
            if not is_in:
                facts["since"] = to_iso(member.since_ms)
            out.decide(key, "segments", Decision("joined" if is_in else "left", name, facts))
            out.row(key, customer.revision, Row(row, is_deleted=not is_in))


_decode_memories = msgspec.msgpack.Decoder(Memories).decode


def judging_for(fold: Fold) -> Judging | None:
    """Judging for a fold that remembers for segments; None: it does not."""
    for processor in fold.processors:
        if isinstance(processor, Segments):
            return Judging(fold, processor)
    return None
