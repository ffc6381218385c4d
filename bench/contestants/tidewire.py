"""Tidewire: its engine with a stage that counts, or with the customer stage and the processors that are named.

As a worker runs it: a Faust app, states in RocksDB, every change in the changelog, offsets committed after both.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from bench.contestants.contest import Job, Meter, job
from bench.contestants.counter import Seen, count, decode_seen, traits_of
from bench.traffic import person_key
from config.settings import load_settings
from processors.base import Table
from schemas.keyed import Keyed, encode_state
from streams.app import StageApp
from streams.dead_letters import DeadLetterLimit
from streams.kafka import KafkaLog
from streams.lines import CUSTOMERS
from streams.log import Outgoing, Record
from streams.metrics import StageMetrics
from streams.outbox import Outbox
from streams.worker import Stage, States

LOOK_EVERY_S = 0.005


class Counting(Keyed, array_like=True, gc=False):
    """The state of the others (`counter.Counted`) behind what the engine keeps for itself."""

    count: int = 0
    last: str = ""
    by_event: dict[str, int] = msgspec.field(default_factory=dict)
    traits: msgspec.Raw = msgspec.Raw(b"\x80")


class CountingStage:
    """A stage that counts. See `streams.worker.Stage`."""

    State = Counting
    line = CUSTOMERS
    room = 0
    table_of: Mapping[type[msgspec.Struct], Table] = {}

    def __init__(self, state_bytes: int) -> None:
        self.counts: Counter[str] = Counter()
        self.spent: dict[str, tuple[int, float]] = {}
        self.is_careful = False
        self.leader = ""
        self._traits = traits_of(state_bytes)

    def handle(
        self, records: Sequence[Record], states: States[Counting], out: Outbox, limit: DeadLetterLimit
    ) -> int:
        get, touch, traits = states.get, states.touch, self._traits
        applied = 0
        for record in records:
            key = record.key.decode()  # type: ignore[union-attr]
            state = get(key)
            if record.offset <= state.offset:
                continue
            if state.revision == 0:
                state.traits = traits
            state.offset = record.offset
            state.revision += 1
            event: Seen = decode_seen(record.value)  # type: ignore[arg-type]
            count(state, event)  # type: ignore[arg-type]  # it has the fields of a Counted
            touch(key, state)
            applied += 1
        self.counts["applied"] += applied
        self.counts["replayed"] += len(records) - applied
        return len(records)

    def next_due_ms(self, state: Counting) -> int:
        return 0

    def tick(self, key: str, at_ms: int, partition: int) -> Outgoing:
        raise RuntimeError("it has no timers")

    def portrait(self, key: str, state: Counting, at_ms: int) -> Outgoing | None:
        return None

    def shrink(self, key: str, state: Counting, limit_bytes: int, out: Outbox) -> None:
        raise RuntimeError(f"the state of {key} is larger than {limit_bytes} bytes")


def known_states(persons: int, state_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """People as the changelog holds them: their keys, and states in which nothing of this topic was counted yet."""
    traits = traits_of(state_bytes)
    for number in range(persons):
        by_event = {"Product Viewed": number % 7, "Order Completed": 1, "Product Added": 2}
        state = Counting(revision=1, count=3, last="2026-01-01T00:00:00.000Z", by_event=by_event, traits=traits)
        yield person_key(number), encode_state(state)


def stage_of(given: Job, partitions: int) -> Stage[Any]:
    """The stage that does the work of the job."""
    if given.work in ("count", "restore"):
        return CountingStage(given.state_bytes)
    from bench.contestants.folding import fold_of
    from streams.stage import CustomerStage

    return CustomerStage(fold_of(given.work), partitions=partitions, most_links=100)


async def contend(given: Job) -> None:
    meter, registry = Meter(), CollectorRegistry()
    log = KafkaLog(f"kafka://{given.kafka}")
    await log.start()
    settings = load_settings({"data": given.folder, "checkpoint_ms": round(given.interval_s * 1000),
                              "checkpoint_records": 1_000_000_000}, {})  # fmt: skip
    app = StageApp(log, stage_of(given, log.partitions("events")), settings, StageMetrics(registry))
    if given.work == "restore":
        await _restore(app, given, meter)
        meter.done(0, group=CUSTOMERS.group, start_s=time.time() - given.began,
                   restored=int(registry.get_sample_value("tidewire_stage_restored_records_total") or 0))  # fmt: skip
    else:
        await _work(app, log, given, meter)
        meter.done(given.events, group=CUSTOMERS.group,
                   applied=int(registry.get_sample_value("tidewire_stage_records_total", {"outcome": "applied"}) or 0),
                   written=int(registry.get_sample_value("tidewire_checkpoint_customers_total") or 0))  # fmt: skip
    await app.stop()
    await log.stop()


async def _restore(app: StageApp, given: Job, meter: Meter) -> None:
    """Return when the worker owns its partitions, with their states."""
    own, is_owned = app.worker.own, asyncio.Event()

    async def own_and_look(partitions: Iterable[int], generation: int) -> None:
        meter.begin()
        await own(partitions, generation)
        is_owned.set()

    app.worker.own = own_and_look  # type: ignore[method-assign]
    await app.start()
    await is_owned.wait()


async def _work(app: StageApp, log: KafkaLog, given: Job, meter: Meter) -> None:
    """Return when every event was handled, is durable and committed."""
    worker = app.worker
    process = worker.process

    async def begin_and_process(partition: int, records: Sequence[Record]) -> None:
        meter.begin()
        worker.process = process  # type: ignore[method-assign]
        await process(partition, records)

    worker.process = begin_and_process  # type: ignore[method-assign]
    await app.start()
    end = given.events
    while sum(worker.progress()[::2]) < end:  # offsets handled
        await asyncio.sleep(LOOK_EVERY_S)
        if sum(worker.progress()[::2]) >= end:
            await worker.checkpoint()  # as the others do at the end, rather than wait for the next
            end = await _length(log)  # the customer stage writes messages to itself
    await app.faust.consumer.commit()


async def _length(log: KafkaLog) -> int:
    return sum(after for _, after in (await log.bounds("events")).values())


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(contend(job()))


if __name__ == "__main__":
    main()
