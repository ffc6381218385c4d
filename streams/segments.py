"""Who is in which segment: judged by the customer stage, for one person at a time.

The definitions in force stand in the log, as all does that a person's state follows from: a `Define` in each
partition of `events` puts them into the partition's own record (`RULES_KEY`), so a replay judges by the same ones.
A person is judged

- by the segments whose answer an event may have turned, when it was applied;
- by those that time alone may change, of what is remembered of her, when it may have turned one;
- by all of them, when she is new, when her parts come or go, and when they were defined anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from processors.answers import View, at_path
from processors.fold import Fold
from processors.memories import Memories, Memory
from processors.rfm import RFM, rfm_of, scores_of
from processors.rules import Rules
from processors.segments import MembershipRow, Segments
from processors.turns import TrackedSection
from processors.values import NEVER_MS, zone_named
from schemas.customer import Customer, Member, Part
from schemas.effects import Decision, Row
from schemas.event import Event
from schemas.segments import Cuts, read_definitions
from schemas.times import from_ms, to_iso
from streams.companies import COMPANY, GROUP, section_of
from streams.giving import Giving
from streams.outbox import Outbox

ORDERS = "orders"  # the processor that scores are made of
SCORED = ("orders", "last_at", "revenue")  # of what it shows
MOST_LABELS = 10_000  # of events for which it is kept which attributes they may change
Asked = list[tuple[TrackedSection, list[Any]]]
RULES_KEY = "segments"  # the record of a partition itself; the keys of persons have a slash in them


class Judging:
    """The segments of one partition's people.

    Args:
        processor: of the fold, which remembers.
        giving: is told who joins.
    """

    def __init__(self, fold: Fold, processor: Segments, giving: Giving) -> None:
        self._fold = fold
        self._giving = giving
        self._processor = processor
        self._compiled: dict[bytes, tuple[Rules, Mapping[str, Cuts]]] = {b"": (processor.rules, {})}
        self.rules = processor.rules
        self.cuts: Mapping[str, Cuts] = {}
        self._asked: dict[str, list[TrackedSection]] = {}
        self._changes: list[tuple[str, bool]] = []

    def use(self, definitions: bytes) -> None:
        """From here on judge by these definitions."""
        compiled = self._compiled.get(definitions)
        if compiled is None:
            read = read_definitions(definitions)
            compiled = Rules(read.definitions, zone_named(read.zone)), read.cuts
            if len(self._compiled) > 8:  # partitions may have different ones only while new ones are on their way
                self._compiled.clear()
            self._compiled[definitions] = compiled
        if self.rules is not compiled[0]:
            self._asked.clear()
        self.rules, self.cuts = compiled
        self._processor.rules = self.rules

    def take_changes(self) -> list[tuple[str, bool]]:
        """The segments that somebody joined (True) or left since this was last asked."""
        if not self._changes:
            return []
        taken, self._changes = self._changes, []
        return taken

    def learn(self, part: Part, memories: bytes) -> None:
        """Add what ClickHouse knows of the events of a part."""
        processor = self._processor
        state = self._fold.open(part, processor.name)
        state.of = processor.merge(state, _decode_memories(memories)).of

    def forget_others(self, customer: Customer) -> bool:
        """Forget what no definition asks for any more. Returns whether there was any."""
        states = (self._fold.open(part, self._processor.name) for part in customer.parts.values())
        return sum(self.rules.forget_others(state) for state in states) > 0

    def before_event(self, customer: Customer, event: Event) -> Asked | None:
        """What segments ask of her that the event may change, as it is before; None: nothing, or all is asked anew."""
        sections = self._asked.get(event.label)
        if sections is None:
            sections = self._asked[event.label] = self.rules.attributes_of(self._fold.wanting(event.label))
            if len(self._asked) > MOST_LABELS:
                self._asked.clear()
        if not sections or not self._is_settled(customer, event):
            return None
        values, parts = self._fold.attributes, customer.parts
        return [(section, values(parts, section.processor, section.fields)) for section in sections]

    def after_event(self, key: str, customer: Customer, event: Event, asked: Asked | None, out: Outbox) -> None:
        """Judge what the event that was just applied may have changed; `asked` before it was."""
        rules, changes, others = self.rules, self._processor.changed, list[str]()
        if self.cuts and self._fold.wants(ORDERS, event.label) and self._score(key, customer):
            others.append(RFM)
        if event.label == GROUP:
            others.append(COMPANY)
        if not rules.segments:
            return
        now_ms, due_ms = max(event.received_ms, customer.judged_ms), NEVER_MS
        names: Sequence[str]
        if self._is_settled(customer, event):
            if not changes and not asked and not others:
                return
            turned = rules.turned(changes, self._memories(customer), now_ms) if changes else set()
            turned.update(rules.needing(others))
            for section, before in asked or ():
                after = self._fold.attributes(customer.parts, section.processor, section.fields)
                if after != before:
                    for attribute, was, is_now in zip(section.attributes, before, after, strict=True):
                        due_ms = min(due_ms, attribute.turned(was, is_now, now_ms, turned))
            customer.judged_ms = now_ms
            names = rules.in_order(turned)
        elif customer.judged_ms:  # a timer is late
            others += [section.processor for section in rules.attributes_of(self._fold.wanting(event.label))]
            names = rules.needing([*(change.id for change in changes), *others])
        else:  # she is new: of who did nothing yet something may be true as well
            names = list(rules.segments)
        if names:
            why = {"why": "event", "event": event.label, "message_id": event.message_id}
            due_ms = min(due_ms, self._judge(key, customer, names, now_ms, why, out))
        _hasten(customer, due_ms)

    def after_account(self, key: str, customer: Customer, out: Outbox) -> None:
        """Judge what her company's news may have changed."""
        names = self.rules.needing([COMPANY])
        if names and customer.judged_ms:
            now_ms = max(out.at_ms, customer.judged_ms)
            _hasten(customer, self._judge(key, customer, names, now_ms, {"why": "company"}, out))

    def _is_settled(self, customer: Customer, event: Event) -> bool:
        """Whether time alone has changed nothing since she was judged."""
        due_ms = customer.judged_due_ms
        return customer.judged_ms > 0 and (not due_ms or due_ms > max(event.received_ms, customer.judged_ms))

    def _memories(self, customer: Customer) -> list[Mapping[str, Memory]]:
        return [state.of for state in self._fold.states(customer.parts, self._processor.name)]

    def on_time(self, key: str, customer: Customer, now_ms: int, out: Outbox) -> None:
        """Judge what time alone may have changed."""
        why = {"why": "time", "due": to_iso(customer.judged_due_ms)}
        if customer.redirect or not customer.parts:
            self.everything(key, customer, now_ms, why, out)
            return
        names = self.rules.timely(self._memories(customer))
        due_ms = self._judge(key, customer, names, max(now_ms, customer.judged_ms), why, out)
        customer.judged_due_ms = due_ms if due_ms < NEVER_MS else 0

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
        before, customer.rfm = customer.rfm, []
        if cuts is not None:
            shown = self._fold.attributes(customer.parts, ORDERS, SCORED)
            customer.rfm = scores_of(dict(zip(SCORED, shown, strict=True)), cuts)
        return customer.rfm != before

    def sections(self, customer: Customer) -> dict[str, Any]:
        """What stands in her portrait beside what the processors show."""
        shown = {RFM: rfm_of(customer.rfm), COMPANY: section_of(customer)}
        return {name: section for name, section in shown.items() if section}

    def _judge(
        self, key: str, customer: Customer, names: Sequence[str], now_ms: int, why: Mapping[str, Any], out: Outbox
    ) -> int:
        customer.judged_ms = now_ms
        view = self.view(customer, now_ms)
        self._settle(key, customer, self.rules.judge(view, names), now_ms, why, out)
        return view.due_ms

    def view(self, customer: Customer, now_ms: int) -> View:
        """Somebody as conditions see her now."""
        known: dict[str, Any] = {}

        def attribute(name: str) -> Any:
            if name not in known:
                processor, field, *path = name.split(".")
                known[name] = at_path(self._shown(customer, processor, field), path)
            return known[name]

        return View(self.rules.view_of(self._memories(customer)), attribute, set(customer.segments), now_ms)

    def _shown(self, customer: Customer, processor: str, field: str) -> Any:
        """What a processor, or the stage itself, shows of a person under a name; None: nothing."""
        if processor == RFM:
            return rfm_of(customer.rfm).get(field)
        if processor == COMPANY:
            return section_of(customer).get(field)
        (value,) = self._fold.attributes(customer.parts, processor, (field,))
        return value

    def _settle(
        self, key: str, customer: Customer, changes: Sequence[tuple[str, bool]], now_ms: int, why: Mapping[str, Any],
        out: Outbox,
    ) -> None:  # fmt: skip
        """Write down who joined and who left."""
        self._changes += changes
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
            if is_in:
                self._giving.joined(key, customer, name, out)


def _hasten(customer: Customer, due_ms: int) -> None:
    """Judge her at a moment, if not earlier."""
    if due_ms < (customer.judged_due_ms or NEVER_MS):
        customer.judged_due_ms = due_ms


_decode_memories = msgspec.msgpack.Decoder(Memories).decode


def judging_for(fold: Fold, giving: Giving) -> Judging | None:
    """Judging for a fold that remembers for segments; None: it does not."""
    for processor in fold.processors:
        if isinstance(processor, Segments):
            return Judging(fold, processor, giving)
    return None
