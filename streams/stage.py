"""The customer stage: what one record of topic `events` does to one person. Pure: no clock, no log, no disk.

For every record, in order: who is it about, was it applied before, is the person merged into another, is it a
duplicate, may it be used, and only then the processors. What follows goes to the outbox.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

import msgspec
import structlog

from processors.base import Person
from processors.fold import Done, Fold, ProcessorFailed, Spent
from processors.journeys import JOURNEYS
from processors.profile import PROFILE, consent_of
from schemas.customer import Customer, Part, Via, decode_part
from schemas.effects import Decision, Row
from schemas.errors import Refused
from schemas.event import Event, decode_event
from schemas.internal import (
    HEADERS,
    Absorb,
    Account,
    Backfill,
    Belongs,
    Coupon,
    Define,
    Forward,
    Internal,
    Merge,
    Prepare,
    Refuse,
    Release,
    Sweep,
    Tick,
    Unmerge,
    Vouch,
    decode_internal,
    encode_internal,
    is_internal,
)
from schemas.keyed import encode_state
from schemas.messages import Ready, Withheld, address_of, encode_of_message
from schemas.recent import has_seen, remember, token
from schemas.rows import Portrait, encode_json
from schemas.times import from_ms, to_iso
from streams.companies import Companies
from streams.dead_letters import DeadLetterLimit
from streams.giving import Giving, on_coupon
from streams.identity import (
    claim_key,
    claim_keys,
    hand_over,
    identities_of,
    on_absorb,
    on_merge,
    on_refuse,
    on_release,
    on_unmerge,
    pay_debts,
    since_here,
)
from streams.leading import leading_for
from streams.lines import CUSTOMERS, MESSAGES
from streams.log import Outgoing, Record, partition_of
from streams.metrics import TIMED_ONE_OF
from streams.outbox import Outbox
from streams.segments import RULES_KEY, judging_for
from streams.worker import States

log = structlog.get_logger(__name__)

MOST_HELD = 1_000  # events of one person that wait for history on its way; usually it is there in milliseconds
MOST_HELD_BYTES = 2 * 1024 * 1024
MOST_TICKS = 100  # timers of one partition under way, so that live events wait behind no more
MOST_SWEPT = 50  # people judged by one Sweep, so that what comes meanwhile need not wait long
MOST_EMPTY_PARTS = 10_000  # so many parts of an outgrown record are kept empty; of more, nothing is kept


class Arrival:
    """An event on its way to the part it belongs to. `fence` and `offset` say where it first stood in the log."""

    __slots__ = ("event", "fence", "offset", "part", "path", "raw")

    def __init__(
        self, part: str, fence: str, offset: int, event: Event, raw: bytes, path: Sequence[Via] = ()
    ) -> None:  # fmt: skip
        self.part, self.fence, self.offset, self.event, self.raw, self.path = part, fence, offset, event, raw, path

    def way_to(self, key: str) -> list[Via]:
        """The way it came to the record of `key`, the last step first: as in `Part.via`."""
        return since_here(key, [*reversed(self.path)]) if self.path else []

    @staticmethod
    def of(message: Forward) -> Arrival:
        raw = bytes(message.event)
        event = decode_event(raw)
        return Arrival(message.part, message.fence, message.offset, event, raw, message.path)

    def forward(self, to: str, out: Outbox, *steps: Via) -> Forward:
        return Forward(to=to, origin=out.origin, at_ms=out.at_ms, path=[*self.path, *steps], part=self.part,
                       fence=self.fence, offset=self.offset, event=msgspec.Raw(self.raw))  # fmt: skip


class CustomerStage:
    """The stage (`streams.worker.Stage`) that keeps people."""

    State = Customer
    line = CUSTOMERS
    room = MOST_TICKS

    def __init__(self, fold: Fold, *, partitions: int, most_links: int, giving: Giving | None = None) -> None:
        """`giving`: when coupons are given by themselves; None: never."""
        self.fold = fold
        self.table_of = fold.table_of
        self.partitions = partitions
        self.most_links = most_links
        self.counts: Counter[str] = Counter()
        self.leader = RULES_KEY
        self.is_careful = False
        """While set, a processor that raises costs only its record: what it had changed is put back."""
        self._limit = DeadLetterLimit()
        self.spent: Spent = {}
        self._turn = 0
        self._companies = Companies(fold)
        self._giving = giving or Giving()
        self._judging = judging_for(fold, self._giving)
        self._leading = leading_for(fold, self._judging)

    def handle(
        self, records: Sequence[Record], customers: States[Customer], out: Outbox, limit: DeadLetterLimit
    ) -> int:  # fmt: skip
        """Apply records of a partition to the persons of that partition, until `limit` says to stop.

        Raises:
            ProcessorFailed: unless `is_careful`.
        """
        self._turn = (self._turn + 1) % TIMED_ONE_OF
        if self._turn == 1:
            with self.fold.timed(perf_counter, self.spent):
                return self._handle(records, customers, out, limit)
        return self._handle(records, customers, out, limit)

    def _handle(
        self, records: Sequence[Record], customers: States[Customer], out: Outbox, limit: DeadLetterLimit
    ) -> int:  # fmt: skip
        self._limit = limit
        if self._judging is not None:
            self._use(customers.get(RULES_KEY).definitions)
        for handled, record in enumerate(records, 1):
            try:
                if record.headers and is_internal(record.headers):
                    self._internal(record, customers, out)
                else:
                    self._event(record, customers, out)
            except Refused as refused:
                self.counts["rejected"] += 1
                out.begin(record, record.timestamp_ms)
                out.reject(refused, record)
                limit.count(record.offset)
            if limit.why:
                return handled
        return len(records)

    def _use(self, definitions: bytes) -> None:
        if self._judging is not None:
            self._judging.use(definitions)
            self._judging.take_changes()  # of a record on which a processor failed
        if self._leading is not None:
            self._leading.use(definitions)

    def next_due_ms(self, customer: Customer) -> int:
        """When the earliest timer of a person is due; 0 where there is none."""
        due_ms = min((due for part in customer.parts.values() for due in part.timers.values()), default=0)
        judged_due_ms = customer.judged_due_ms
        return min(due_ms, judged_due_ms) if due_ms and judged_due_ms else due_ms or judged_due_ms

    def tick(self, key: str, at_ms: int, partition: int) -> Outgoing:
        return Outgoing(key.encode(), encode_internal(Tick(to=key, origin="", at_ms=at_ms)), partition, HEADERS)

    def portrait(self, key: str, customer: Customer, at_ms: int) -> Outgoing:
        """What is known of a person."""
        portrait = Portrait(key=key, workspace=key.partition("/")[0], revision=customer.revision, at=from_ms(at_ms))
        if customer.redirect:
            portrait.merged_into = customer.redirect
        else:
            portrait.identities = identities_of(key, customer)
            portrait.sections = self._sections(customer)
        return Outgoing(key.encode(), encode_json(portrait))

    def _sections(self, customer: Customer) -> dict[str, Any]:
        """What processors and segments show of somebody."""
        sections, failures = self.fold.portrait_without_failures(customer.parts)
        for failed in failures:
            self.counts["not_shown"] += 1
            log.error("processor_failed_to_show", processor=failed.processor, error=str(failed),
                      exc_info=failed.__cause__)  # fmt: skip
        if self._judging is not None:
            sections |= self._judging.sections(customer)
        return sections

    def shrink(self, key: str, customer: Customer, limit_bytes: int, out: Outbox) -> None:
        """Leave what is known of the largest parts out of an outgrown record, her own key's last. Their events stand in
        ClickHouse. A person grows like that only when somebody means her to: each part is bounded."""
        sizes = {part_key: len(encode_state(part)) for part_key, part in customer.parts.items()}
        size = sum(sizes.values())
        left_out = 0
        for part_key in sorted(sizes, key=lambda part_key: (part_key == key, -sizes[part_key])):
            if size <= limit_bytes // 2:
                break
            if left_out < MOST_EMPTY_PARTS:
                part = customer.parts[part_key]
                part.sections, part.timers, part.seen = {}, {}, b""
                size -= sizes[part_key] - len(encode_state(part))
            else:
                del customer.parts[part_key]
                size -= sizes[part_key]
            left_out += 1
        out.decide(key, "identity", Decision("history_left_out", key, {
            "why": f"the record outgrew {limit_bytes} bytes", "keys": left_out}))  # fmt: skip

    # --- events

    def _event(self, record: Record, customers: States[Customer], out: Outbox) -> None:
        event = decode_event(record.value)
        key = event.key
        customer = customers.get(key)
        arrival = Arrival(key, _place(record.topic, record.partition), record.offset, event, record.value or b"")
        if customer.revision == 0 and self._is_misplaced(key, record):
            self.counts["misplaced"] += 1
            out.begin(record, event.received_ms)
            out.speak(arrival.fence, record.offset)
            out.send(arrival.forward(key, out))
            return
        if record.offset <= customer.offset:
            self.counts["replayed"] += 1
            return
        out.begin(record, event.received_ms)
        out.speak(key, record.offset)
        self._step(key, customer, record.offset, customers)
        self._arrive(key, customer, arrival, customers, out)

    def _is_misplaced(self, key: str, record: Record) -> bool:
        # Asked only where the partition has no record of the key: a misplaced key never gets one.
        return partition_of(key.encode(), self.partitions) != record.partition

    def _step(self, key: str, customer: Customer, offset: int, customers: States[Customer]) -> None:
        customer.offset = offset
        customer.revision += 1
        customers.touch(key, customer)

    def _arrive(
        self, key: str, customer: Customer, arrival: Arrival, customers: States[Customer], out: Outbox
    ) -> None:
        """An event at its own key: if it can be used it may claim other keys, and goes where its part is."""
        event = arrival.event
        if self._was_refused(customer, event):
            return
        try:
            self.fold.check(event)
        except Refused as refused:
            self._refuse(customer, refused, arrival, out)
            return
        except ProcessorFailed as failed:
            if not self.is_careful:
                raise
            self._limit.count(customer.offset)
            self._refuse(customer, _bug(failed), arrival, out)
            return
        claim_keys(key, customer, event, self.most_links, out)
        self._follow(key, customer, arrival, customers, out)

    def _follow(self, key: str, customer: Customer, arrival: Arrival, customers: States[Customer], out: Outbox) -> None:
        """An event follows its part: on to where it was handed, else it is applied here, at once or when it is here."""
        if customer.redirect and customer.passed.get(arrival.part) == arrival.way_to(key):
            self.counts["forwarded"] += 1
            out.send(arrival.forward(customer.redirect, out, Via(key, customer.turn)))
        else:
            customers.show(key)
            self._apply(key, customer, arrival, out)

    def _apply(self, key: str, customer: Customer, arrival: Arrival, out: Outbox) -> None:
        part_key, fence, offset, event = arrival.part, arrival.fence, arrival.offset, arrival.event
        part = customer.parts.get(part_key)
        if part is None and part_key == key and customer.turn == 0:
            part = customer.parts[part_key] = Part()
        if part is None or ((part.via or arrival.path) and part.via != arrival.way_to(key)):
            self._hold(key, customer, arrival, out)
            return
        if offset <= part.fence.get(fence, -1):
            self.counts["replayed"] += 1
            return
        part.fence[fence] = offset
        seen_token = _token(event)
        if has_seen(part.seen, seen_token) or (event.attempt and self._was_applied_before(part, event)):
            self.counts["duplicates"] += 1
            return
        if self._was_refused(customer, event):
            return
        before = encode_state(part) if self.is_careful else b""
        asked = self._judging.before_event(customer, event) if self._judging is not None else None
        try:
            done = self.fold.apply(part, event, Person(key, part_key, part.applied), event.received_ms)
        except ProcessorFailed as failed:
            if not self.is_careful:
                raise
            customer.parts[part_key] = decode_part(before)
            self._limit.count(customer.offset)
            self._refuse(customer, _bug(failed), arrival, out)
            return
        part.seen = remember(part.seen, seen_token, event.received_ms)
        part.applied += 1
        self.counts["applied"] += 1
        _put(done, key, part_key, part.applied, out)
        if self._companies.matter(customer, event.label):
            self._companies.look(key, customer, out)
        if self._judging is not None:
            self._judging.after_event(key, customer, event, asked, out)
        self._lead(key, customer, event.received_ms, out)
        if self._leading is not None:
            self._leading.after_event(key, customer, part_key, event, out)
        self._giving.after_event(key, customer, event, out)

    def _lead(self, key: str, customer: Customer, now_ms: int, out: Outbox) -> bool:
        """Tell journeys which segments she joined or left. Returns whether anything of hers changed."""
        changes = self._judging.take_changes() if self._judging is not None else []
        if not changes or self._leading is None:
            return False
        return self._leading.after_segments(key, customer, changes, now_ms, out)

    def _was_applied_before(self, part: Part, event: Event) -> bool:
        """Whether an earlier attempt of a re-driven event was applied after all: its client had mended it too."""
        earlier = (token(event.source, event.message_id, attempt) for attempt in range(min(event.attempt, 100)))
        return any(has_seen(part.seen, each) for each in earlier)

    def _was_refused(self, customer: Customer, event: Event) -> bool:
        if customer.refused and has_seen(customer.refused, _token(event)):
            self.counts["duplicates"] += 1
            return True
        return False

    def _refuse(self, customer: Customer, refused: Refused, arrival: Arrival, out: Outbox) -> None:
        """Reject an event and remember that: what is sent again under the same id, even corrected, is covered in
        ClickHouse by the refusal. A mended event that is re-driven has another attempt."""
        event = arrival.event
        customer.refused = remember(customer.refused, _token(event), event.received_ms)
        self._reject(refused, arrival, out)

    def _hold(self, key: str, customer: Customer, arrival: Arrival, out: Outbox) -> None:
        """Keep an event until the part it belongs to is here, having come the same way."""
        if len(customer.held) >= MOST_HELD or sum(map(len, customer.held)) > MOST_HELD_BYTES:
            late = Refused("the history of its key is still on its way to the person it was merged into",
                           value=arrival.part, mend="Re-drive it in a minute.")  # fmt: skip
            self._reject(late, arrival, out)
            return
        self.counts["held"] += 1
        customer.held.append(encode_internal(arrival.forward(key, out)))

    def _reject(self, refused: Refused, arrival: Arrival, out: Outbox) -> None:
        self.counts["rejected"] += 1
        event = arrival.event
        topic, _, partition = arrival.fence.rpartition("-")
        record = Record(topic, int(partition), arrival.offset, event.received_ms, event.key.encode(), arrival.raw)
        out.reject(refused, record, workspace=event.workspace, source=event.source, message_id=event.message_id,
                   key=event.key)  # fmt: skip

    # --- the stage's own messages

    def _internal(self, record: Record, customers: States[Customer], out: Outbox) -> None:
        try:
            message: Internal = decode_internal(record.value or b"")
        except msgspec.DecodeError as error:
            reason = "the record is marked as the stage's own message and cannot be read"
            raise Refused(reason, value=str(error)) from error
        key = message.to
        customer = customers.get(key)
        if record.offset <= customer.offset:
            self.counts["replayed"] += 1
            return
        self._step(key, customer, record.offset, customers)
        if message.by:
            if message.seq <= customer.heard.get(message.by, (-1, 0)):
                self.counts["replayed"] += 1
                return
            customer.heard[message.by] = message.seq
        out.begin(message.origin or record, message.at_ms or record.timestamp_ms, _way(message))
        out.speak(key, record.offset)
        is_shown = True  # a portrait says nothing of segments
        match message:
            case Forward():
                self._forward(key, customer, message, customers, out)
                return
            case Merge():
                on_merge(key, customer, message, out)
            case Vouch():
                claim_key(key, customer, message.key, message.claim, self.most_links, out)
            case Absorb():
                self._absorb(key, customer, message, out)
            case Release():
                on_release(key, customer, message, out)
            case Refuse():
                on_refuse(customer, message)
            case Unmerge():
                on_unmerge(key, customer, message, out)
            case Tick():
                is_shown = self._tick(key, customer, message, record, out)
            case Backfill():
                is_shown = self._backfill(key, customer, message, out)
            case Belongs():
                self._companies.on_belongs(key, customer, message, out)
                return
            case Account():
                if self._companies.on_account(customer, message):
                    if self._judging is not None:
                        self._judging.after_account(key, customer, out)
                        self._lead(key, customer, out.at_ms, out)
                    customers.show(key)
                return
            case Prepare():
                self._prepare(key, customer, message, out)
                return
            case Coupon():
                on_coupon(key, customer, message, out)
                return
            case Define():
                customer.definitions = bytes(message.definitions)
                self._use(customer.definitions)
                return
            case Sweep():
                self._sweep(message, record, customers, out)
                return
        scores = customer.rfm
        if not isinstance(message, Tick | Vouch | Refuse):
            self._companies.look(key, customer, out)
            if self._judging is not None:
                self._judging.everything(key, customer, out.at_ms, {"why": str(message.__struct_config__.tag)}, out)
                is_shown |= self._lead(key, customer, out.at_ms, out)
            if self._leading is not None:
                is_shown |= self._leading.after_merge(key, customer, out)
        if (is_shown and customer.company is None) or customer.rfm != scores:
            customers.show(key)

    def _forward(
        self, key: str, customer: Customer, message: Forward, customers: States[Customer], out: Outbox
    ) -> None:
        if key == message.part and not message.path:  # it had stood in the wrong partition
            self._arrive(key, customer, Arrival.of(message), customers, out)
        else:
            self._follow(key, customer, Arrival.of(message), customers, out)

    def _absorb(self, key: str, customer: Customer, message: Absorb, out: Outbox) -> None:
        on_absorb(key, customer, message)
        waiting, customer.held = customer.held, []
        for held in waiting:  # what is still on its way is held again
            late = decode_internal(held)
            out.begin(late.origin, late.at_ms)
            if isinstance(late, Backfill):
                self._backfill(key, customer, late, out)
            else:
                assert isinstance(late, Forward)
                self._apply(key, customer, Arrival.of(late), out)
        out.begin(message.origin, message.at_ms, _way(message))
        pay_debts(customer, out)
        if customer.redirect:
            hand_over(key, customer, customer.redirect, out)

    def _tick(self, key: str, customer: Customer, message: Tick, record: Record, out: Outbox) -> bool:
        """Fire what is due. Returns whether what is shown of her may have changed."""
        is_told = is_led = False
        due_ms, at_ms = self.next_due_ms(customer), message.at_ms
        if 0 < record.timestamp_ms < at_ms:  # the worker's clock is ahead of the log's: it sends the tick again later
            at_ms = record.timestamp_ms
        out.begin(record, at_ms)
        if customer.company is not None:
            self._companies.tell(key, customer, out)
            return False
        for part_key, part in list(customer.parts.items()):
            if not part.timers or min(part.timers.values()) > at_ms:
                continue
            fired = {name.partition(":")[0] for name, timer_ms in part.timers.items() if timer_ms <= at_ms}
            before = encode_state(part) if self.is_careful else b""
            try:
                done = self.fold.on_timers(part, at_ms, Person(key, part_key, part.applied))
            except ProcessorFailed as failed:
                if not self.is_careful:
                    raise
                part = customer.parts[part_key] = decode_part(before)
                own = f"{failed.processor}:"
                part.timers = {name: due for name, due in part.timers.items() if not name.startswith(own)}
                self.counts["rejected"] += 1
                self._limit.count(record.offset)
                out.reject(_bug(failed), record, workspace=key.partition("/")[0], key=key)
                continue
            part.applied += 1  # the versions of its rows must grow
            is_told |= fired != {JOURNEYS}  # which tell nothing that segments or companies ask for
            is_led |= JOURNEYS in fired
            _put(done, key, part_key, part.applied, out)
        if is_told:
            self._companies.look(key, customer, out)
        if self._judging is not None:
            if is_told:
                self._judging.everything(key, customer, at_ms, {"why": "time", "due": to_iso(due_ms)}, out)
            elif 0 < customer.judged_due_ms <= at_ms:
                self._judging.on_time(key, customer, at_ms, out)
            is_led |= self._lead(key, customer, at_ms, out)
            if self._leading is not None:
                self._leading.on_due(key, customer, at_ms, out)
        return is_told or is_led

    # --- messages

    def _prepare(self, key: str, customer: Customer, message: Prepare, out: Outbox) -> None:
        """Say whether a message may be sent to her now, and with what it is to be filled in."""
        if customer.redirect:
            out.send(Prepare(to=customer.redirect, origin=out.origin, at_ms=message.at_ms, mailbox=message.mailbox,
                             id=message.id, attempt=message.attempt, channel=message.channel,
                             topic=message.topic))  # fmt: skip
            return
        sections = self._sections(customer)
        why = self._why_not(key, customer, sections, message)
        to, id_, attempt = message.mailbox, message.id, message.attempt
        if why:
            answer: Ready | Withheld = Withheld(to=to, id=id_, attempt=attempt, person=key, why=why)
        else:
            answer = Ready(to=to, id=id_, attempt=attempt, person=key, sections=msgspec.Raw(encode_json(sections)))
        out.say(MESSAGES.topic, to, encode_of_message(answer))

    def _why_not(self, key: str, customer: Customer, sections: Mapping[str, Any], message: Prepare) -> str:
        """Why she is not to be sent it; empty where she is."""
        if not customer.parts:
            return "nobody"
        if not address_of(message.channel, key, sections.get(PROFILE)):
            return "no_address"
        consent = consent_of(self.fold.states(customer.parts, PROFILE))
        return "no_consent" if message.topic and not consent.allows(message.topic, message.channel) else ""

    # --- segments

    def _backfill(self, key: str, customer: Customer, message: Backfill, out: Outbox) -> bool:
        """What ClickHouse knows goes where its part is. Returns whether there was no such part."""
        is_new = False
        part = customer.parts.get(message.part)
        if part is None and customer.redirect:
            out.send(Backfill(to=customer.redirect, origin=out.origin, at_ms=message.at_ms, part=message.part,
                              memories=message.memories))  # fmt: skip
        elif part is not None or (message.part == key and customer.turn == 0):
            if part is None:
                part, is_new = customer.parts.setdefault(key, Part()), True
            if self._judging is not None:
                self._judging.learn(part, message.memories)
        elif len(customer.held) < MOST_HELD:
            customer.held.append(encode_internal(message))
        else:
            raise Refused("the history of its key is still on its way to the person it was merged into",
                          value=message.part, mend="Backfill the segment again.")  # fmt: skip
        return is_new

    def _sweep(self, message: Sweep, record: Record, customers: States[Customer], out: Outbox) -> None:
        """Judge some people by all segments, whether or not anything happened to them, and say who comes next."""
        swept, behind = self._swept(message, customers)
        self._judge(swept, message, record, customers, out)
        out.speak(RULES_KEY, record.offset)
        out.begin(message.origin or record, record.timestamp_ms)
        if behind:
            out.send(Sweep(to=RULES_KEY, origin=out.origin, at_ms=message.at_ms, sweep=message.sweep,
                           journey=message.journey, after=max(message.after, message.until),
                           until=behind[-1]), record.partition)  # fmt: skip
        else:
            out.decide(RULES_KEY, "segments", Decision("swept", message.sweep, {"partition": record.partition}))

    def _swept(self, message: Sweep, customers: States[Customer]) -> tuple[list[str], list[str]]:
        """Whom a sweep is about, and some of those behind."""
        swept: list[str] = []
        keys = customers.keys_after(message.after, 2 * MOST_SWEPT)
        while keys and keys[-1] <= message.until:  # many were born since it was sent
            swept += keys
            keys = customers.keys_after(keys[-1], 2 * MOST_SWEPT)
        swept += [key for key in keys if key <= message.until]
        return swept, [key for key in keys if key > message.until][:MOST_SWEPT]

    def _judge(
        self, keys: Sequence[str], message: Sweep, record: Record, customers: States[Customer], out: Outbox
    ) -> None:
        customers.fetch(keys)
        for key in keys:
            customer = customers.get(key)
            if self._judging is None or key == RULES_KEY or customer.company or record.offset <= customer.offset:
                continue
            out.speak(key, record.offset)
            out.begin(message.origin or record, record.timestamp_ms)
            scores, is_changed, is_led = customer.rfm, False, False
            if not message.journey:
                is_changed = self._judging.forget_others(customer)
                is_changed |= self._judging.everything(key, customer, record.timestamp_ms, {"why": "definition"}, out)
                is_led = self._lead(key, customer, record.timestamp_ms, out)
            if self._leading is not None:
                is_led |= self._leading.swept(key, customer, message, record.timestamp_ms, out)
            if is_changed or is_led:
                self._step(key, customer, record.offset, customers)
            if customer.rfm != scores or is_led:
                customers.show(key)


def _put(done: Done, key: str, part_key: str, version: int, out: Outbox) -> None:
    for processor, effect in done:
        if isinstance(effect, Row):
            out.row(part_key, version, effect)
        else:
            out.decide(key, processor.name, effect)


def _way(message: Internal) -> str:
    """Which message it was, of those that follow from one record. A forwarded event is the record itself."""
    if isinstance(message, Forward):
        return ""
    return f"{message.__struct_config__.tag} {message.by} {message.seq[1]}"


@lru_cache(maxsize=4096)
def _place(topic: str, partition: int) -> str:
    return f"{topic}-{partition}"


def _bug(failed: ProcessorFailed) -> Refused:
    refused = Refused(f"processor {failed.processor} failed", value=str(failed),
                      mend="It is a bug in that processor: mend it, then re-drive.")  # fmt: skip
    refused.processor = failed.processor
    return refused


def _token(event: Event) -> bytes:
    return token(event.source, event.message_id, event.attempt)
