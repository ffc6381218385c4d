"""The customer stage: what one record of topic `events` does to one person. Pure: no clock, no log, no disk.

For every record, in order: who is it about, was it applied before, is the person merged into another, is it a
duplicate, may it be used, and only then the processors. What follows goes to the outbox.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import msgspec

from processors.base import Person
from processors.fold import Done, Fold, ProcessorFailed
from schemas.customer import Customer, Part, decode_part, encode_state
from schemas.effects import Row
from schemas.errors import Refused
from schemas.event import Event, decode_event
from schemas.internal import (
    Absorb,
    Forward,
    Internal,
    Merge,
    Refuse,
    Release,
    Tick,
    Unmerge,
    decode_internal,
    is_internal,
)  # fmt: skip
from schemas.recent import has_seen, remember, token
from streams.identity import claim_keys, on_absorb, on_merge, on_refuse, on_release, on_unmerge, pass_on
from streams.log import Record, partition_of
from streams.outbox import Outbox


class Customers(Protocol):
    """The records of one partition, as the stage changes them."""

    def get(self, key: str) -> Customer:
        """The record of a key, a new one where there is none."""

    def touch(self, key: str, customer: Customer) -> None:
        """The record was changed."""

    def show(self, key: str) -> None:
        """What is known of the person was changed."""


class Stage:
    """Handles records. `counts` says how many went which way."""

    def __init__(self, fold: Fold, *, partitions: int, most_links: int) -> None:
        self.fold = fold
        self.partitions = partitions
        self.most_links = most_links
        self.counts: Counter[str] = Counter()
        self.is_careful = False
        """While set, a processor that raises costs only its record: what it had changed is put back."""

    def handle(self, record: Record, customers: Customers, out: Outbox) -> None:
        """Apply one record of a partition to the persons of that partition.

        Raises:
            ProcessorFailed: unless `is_careful`.
        """
        try:
            if record.headers and is_internal(record.headers):
                self._internal(record, customers, out)
            else:
                self._event(record, customers, out)
        except Refused as refused:
            self.counts["rejected"] += 1
            out.begin(_origin(record), record.timestamp_ms)
            out.reject(refused, record)

    # --- events

    def _event(self, record: Record, customers: Customers, out: Outbox) -> None:
        event = decode_event(record.value)
        key = event.key
        customer = customers.get(key)
        if customer.revision == 0 and self._is_misplaced(key, record):
            self.counts["misplaced"] += 1
            out.begin(_origin(record), event.received_ms)
            out.send(Forward(
                to=key, origin=out.origin, at_ms=out.at_ms, part=key, fence=_fence(record), offset=record.offset,
                event=msgspec.Raw(record.value or b""),
            ))  # fmt: skip
            return
        if record.offset <= customer.offset:
            self.counts["replayed"] += 1
            return
        out.begin(_origin(record), event.received_ms)
        self._step(key, customer, record.offset, customers)
        self._arrive(key, customer, event, record, _fence(record), record.offset, customers, out)

    def _is_misplaced(self, key: str, record: Record) -> bool:
        # Asked only where the partition has no record of the key: a misplaced key never gets one.
        return partition_of(key.encode(), self.partitions) != record.partition

    def _step(self, key: str, customer: Customer, offset: int, customers: Customers) -> None:
        customer.offset = offset
        customer.revision += 1
        customers.touch(key, customer)

    def _arrive(
        self, key: str, customer: Customer, event: Event, record: Record, fence: str, offset: int,
        customers: Customers, out: Outbox,
    ) -> None:  # fmt: skip
        """An event at its own key: it may claim others, and goes where the key was merged into."""
        claim_keys(key, customer, event, self.most_links, out)
        if customer.redirect:
            self.counts["forwarded"] += 1
            out.send(Forward(
                to=customer.redirect, origin=out.origin, at_ms=out.at_ms, path=[key], part=key, fence=fence,
                offset=offset, event=msgspec.Raw(_event_of(record)),
            ))  # fmt: skip
        else:
            customers.show(key)
            self._apply(key, customer, key, event, record, fence, offset, out)

    def _apply(
        self, key: str, customer: Customer, part_key: str, event: Event, record: Record, fence: str, offset: int,
        out: Outbox,
    ) -> None:  # fmt: skip
        part = customer.parts.get(part_key)
        if part is None:
            part = customer.parts[part_key] = Part()
        if offset <= part.fence.get(fence, -1):
            self.counts["replayed"] += 1
            return
        part.fence[fence] = offset
        seen_token = token(event.source, event.message_id)
        if has_seen(part.seen, seen_token):
            self.counts["duplicates"] += 1
            return
        person = Person(key, part_key, part.applied)
        before = encode_state(part) if self.is_careful else b""
        try:
            self.fold.check(event)
            done = self.fold.apply(part, event, person, event.received_ms)
        except Refused as refused:
            self._reject(refused, event, record, out)
            return
        except ProcessorFailed as failed:
            if not self.is_careful:
                raise
            customer.parts[part_key] = decode_part(before)
            self._reject(_bug(failed), event, record, out)
            return
        part.seen = remember(part.seen, seen_token, event.received_ms)
        part.applied += 1
        self.counts["applied"] += 1
        _put(done, key, part_key, part.applied, out)

    def _reject(self, refused: Refused, event: Event, record: Record, out: Outbox) -> None:
        self.counts["rejected"] += 1
        out.reject(refused, record._replace(value=_event_of(record)), workspace=event.workspace,
                   source=event.source, message_id=event.message_id, key=event.key)  # fmt: skip

    # --- the stage's own messages

    def _internal(self, record: Record, customers: Customers, out: Outbox) -> None:
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
        out.begin(message.origin, message.at_ms)
        self._step(key, customer, record.offset, customers)
        match message:
            case Forward():
                self._forward(key, customer, message, record, customers, out)
                return
            case Merge():
                on_merge(key, customer, message, out)
            case Absorb():
                if not pass_on(key, customer, message, out):
                    on_absorb(key, customer, message, self.fold.merge_parts)
            case Release():
                if not pass_on(key, customer, message, out):
                    on_release(customer, message, out)
            case Refuse():
                on_refuse(customer, message)
            case Unmerge():
                on_unmerge(key, customer, message, out)
            case Tick():
                self._tick(key, customer, message, record, out)
        customers.show(key)

    def _forward(
        self, key: str, customer: Customer, message: Forward, record: Record, customers: Customers, out: Outbox
    ) -> None:
        event = decode_event(bytes(message.event))
        if key == message.part and not message.path:  # it had stood in the wrong partition
            self._arrive(key, customer, event, record, message.fence, message.offset, customers, out)
        elif not pass_on(key, customer, message, out):
            customers.show(key)
            self._apply(key, customer, message.part, event, record, message.fence, message.offset, out)

    def _tick(self, key: str, customer: Customer, message: Tick, record: Record, out: Outbox) -> None:
        out.begin(_origin(record), message.at_ms)
        for part_key, part in list(customer.parts.items()):
            if not part.timers or min(part.timers.values()) > message.at_ms:
                continue
            before = encode_state(part) if self.is_careful else b""
            try:
                done = self.fold.on_timers(part, message.at_ms, Person(key, part_key, part.applied))
            except ProcessorFailed as failed:
                if not self.is_careful:
                    raise
                part = customer.parts[part_key] = decode_part(before)
                own = f"{failed.processor}:"
                part.timers = {name: due for name, due in part.timers.items() if not name.startswith(own)}
                self.counts["rejected"] += 1
                out.reject(_bug(failed), record, workspace=key.partition("/")[0], key=key)
                continue
            part.applied += 1  # the versions of its rows must grow
            _put(done, key, part_key, part.applied, out)


def _put(done: Done, key: str, part_key: str, version: int, out: Outbox) -> None:
    for processor, effect in done:
        if isinstance(effect, Row):
            out.row(part_key, version, effect)
        else:
            out.decide(key, processor.name, effect)


def _bug(failed: ProcessorFailed) -> Refused:
    refused = Refused(f"processor {failed.processor} failed", value=str(failed),
                      mend="It is a bug in that processor: mend it, then re-drive.")  # fmt: skip
    refused.processor = failed.processor
    return refused


def next_due_ms(customer: Customer) -> int:
    """When the earliest timer of a person is due; 0 where there is none."""
    return min((due for part in customer.parts.values() for due in part.timers.values()), default=0)


def _origin(record: Record) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"


def _fence(record: Record) -> str:
    return f"{record.topic}-{record.partition}"


def _event_of(record: Record) -> bytes:
    """The event of a record, also where it was forwarded."""
    if record.headers and is_internal(record.headers):
        message = decode_internal(record.value or b"")
        assert isinstance(message, Forward)
        return bytes(message.event)
    return record.value or b""
