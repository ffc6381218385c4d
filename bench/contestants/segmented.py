"""The customer stage with the real processors and so many segments, over the traffic of a shop as it happened.

One partition in memory: the stage decides everything, this only delivers. Every event arrives at its own time; what the
stage sends to itself comes next, and timers fire when they are due. Every `ENCODED_EVERY` events portraits are made and
the states that changed are encoded, as a checkpoint does. Counted is the CPU time of events and of timers, apart, each
with the portraits and the encoding of what it changed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from heapq import heappop, heappush
from pathlib import Path
from time import process_time

import msgspec
import structlog

from bench import shop
from bench.audiences import encoded, segments
from bench.child import rss_mb
from processors.fold import Fold
from processors.registry import load_processors
from schemas.customer import Customer
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from schemas.internal import HEADERS, Define, Tick, encode_internal
from schemas.keyed import encode_state
from streams.dead_letters import DeadLetterLimit
from streams.log import Record
from streams.outbox import Outbox
from streams.segments import RULES_KEY
from streams.stage import CustomerStage

SLICE = 100
ENCODED_EVERY = 2_000


class Job(msgspec.Struct, frozen=True):
    """What to do.

    Attributes:
        events: of the shop.
        segments: so many.
        profile: a file for what cProfile saw; none: it does not look.
    """

    events: int
    segments: int
    profile: str = ""


class Held:
    """The states of the partition. See `streams.worker.States`."""

    def __init__(self) -> None:
        self.records: dict[str, Customer] = {}
        self.dirty: dict[str, Customer] = {}
        self.touch = self.dirty.__setitem__
        self.shown: set[str] = set()
        self.show = self.shown.add

    def get(self, key: str) -> Customer:
        customer = self.records.get(key)
        if customer is None:
            customer = self.records[key] = Customer()
        return customer

    def fetch(self, keys: Iterable[str]) -> None:
        pass

    def keys_after(self, after: str, most: int) -> list[str]:
        return sorted(key for key in self.records if key > after)[:most]


class Delivery:
    """Brings records to the stage, and what follows from them; `spent` is the CPU time of `events` and `timers`."""

    def __init__(self, stage: CustomerStage) -> None:
        self.stage = stage
        self.held = Held()
        self.out = Outbox(stage.table_of)
        self.spent = {"events": 0.0, "timers": 0.0}
        self.timers = self.decisions = self.orders = self.rows = 0
        self._offset = 0
        self._dues: list[tuple[int, str]] = []
        self._limit = DeadLetterLimit()

    def record(self, key: bytes, value: bytes, at_ms: int, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
        self._offset += 1
        return Record("events", 0, self._offset, at_ms, key, value, headers)

    def bring(self, records: list[Record], why: str) -> None:
        began = process_time()
        while records:
            self.stage.handle(records, self.held, self.out, self._limit)
            sent = self.out.take_messages()
            self.decisions += len(sent.get("decisions", ()))
            self.orders += len(sent.get("messages", ()))
            at_ms = records[-1].timestamp_ms
            records = [self.record(each.key or b"", each.value or b"", at_ms, each.headers)
                       for each in sent.get("events", ())]  # fmt: skip
        self.spent[why] += process_time() - began

    def checkpoint(self, why: str) -> None:
        """Make portraits of who changed, and encode what did."""
        began = process_time()
        for key, customer in self.held.dirty.items():
            encode_state(customer)
            if key in self.held.shown:
                self.stage.portrait(key, customer, 0)
        self.held.shown.clear()
        self.rows += len(self.out.take_rows())
        self.held.dirty.clear()
        self.spent[why] += process_time() - began

    def look_for_timers(self) -> None:
        """As the store knows them after a checkpoint."""
        for key, customer in self.held.dirty.items():
            due_ms = self.stage.next_due_ms(customer)
            if due_ms and due_ms != customer.next_due_ms:
                heappush(self._dues, (due_ms, key))
            customer.next_due_ms = due_ms

    def fire(self, now_ms: int) -> None:
        """Tell everybody whose timer is due."""
        self.look_for_timers()
        changed, shown = dict(self.held.dirty), set(self.held.shown)
        self.held.dirty.clear()
        self.held.shown.clear()
        while self._dues and self._dues[0][0] <= now_ms:
            ticks = []
            while self._dues and self._dues[0][0] <= now_ms and len(ticks) < SLICE:
                due_ms, key = heappop(self._dues)
                if self.held.records[key].next_due_ms == due_ms:
                    tick = Tick(to=key, origin="", at_ms=due_ms)
                    ticks.append(self.record(key.encode(), encode_internal(tick), due_ms, HEADERS))
            self.timers += len(ticks)
            self.bring(ticks, "timers")
            self.look_for_timers()
            self.checkpoint("timers")
        self.held.dirty.update(changed)
        self.held.shown.update(shown)


def arrivals(events: int) -> Iterator[tuple[int, bytes, bytes]]:
    """When each event arrives, its key, and itself."""
    return arriving(body for _, body in shop.calls(events))


def arriving(bodies: Iterable[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    for body in bodies:
        at = msgspec.json.decode(body, type=_Timed).timestamp
        event = read_event(body, "", Arrival("default", "shop", at))
        yield event.received_ms, event.key.encode(), encode_event(event)


class _Timed(msgspec.Struct):
    timestamp: datetime


def delivery_of(definitions: bytes) -> Delivery:
    """A stage whose partition was told these definitions; empty: none."""
    delivery = Delivery(CustomerStage(Fold(load_processors(Path("config"))), partitions=1, most_links=100))
    if definitions:
        define = Define(to=RULES_KEY, origin="", at_ms=0, definitions=msgspec.Raw(definitions))
        delivery.bring([delivery.record(RULES_KEY.encode(), encode_internal(define), 0, HEADERS)], "events")
    return delivery


def happen(delivery: Delivery, waiting: Sequence[tuple[int, bytes, bytes]], profile: str) -> dict[str, float]:
    """Let these events arrive, with the timers between them; what it took, and what is known of whom then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    before_mb = rss_mb(os.getpid())
    delivery.spent["events"] = 0.0
    profiler = None
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    done: list[Record] = []
    for number, (at_ms, key, value) in enumerate(waiting, 1):
        done.append(delivery.record(key, value, at_ms))
        if len(done) == SLICE or number == len(waiting):
            delivery.bring(done, "events")
            delivery.fire(at_ms)
            done = []
        if number % ENCODED_EVERY == 0:
            delivery.checkpoint("events")
    if profiler is not None:
        profiler.disable()
        profiler.dump_stats(profile)
    delivery.checkpoint("events")
    gc.collect()
    return {
        "events": len(waiting), "people": (people := _people(delivery.held)), "timers": delivery.timers,
        "events_s": delivery.spent["events"], "timers_s": delivery.spent["timers"],
        "decisions": delivery.decisions, "rows": delivery.rows, "members": _members(delivery.held),
        "state_bytes": _state_bytes(delivery.held) / people, "rss_mb": rss_mb(os.getpid()) - before_mb,
    }  # fmt: skip


def contend(given: Job) -> dict[str, float]:
    delivery = delivery_of(encoded(segments(given.segments)) if given.segments else b"")
    return happen(delivery, list(arrivals(given.events)), given.profile)


def _people(held: Held) -> int:
    return sum(bool(customer.parts) for customer in held.records.values())


def _members(held: Held) -> float:
    return sum(len(customer.segments) for customer in held.records.values())


def _state_bytes(held: Held) -> float:
    return sum(len(encode_state(customer)) for key, customer in held.records.items() if key != RULES_KEY)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(contend(msgspec.json.decode(sys.argv[1], type=Job))), flush=True)


if __name__ == "__main__":
    main()
