"""The worker: owns partitions, feeds their records to the stage, and makes what follows durable, in this order:

    1. messages, decisions and dead letters leave after each batch; rows and portraits with the checkpoint
    2. the log acknowledged all of it
    3. the changed customer records go to the changelog, which acknowledges them
    4. they go to disk
    5. the partition is marked: its offset may be committed

A crash before 5 means the records come again. Those whose effects reached 3 are behind the fence; the others happen
again with the same ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from processors.fold import Fold, ProcessorFailed
from schemas.customer import Customer
from schemas.internal import HEADERS, Tick, encode_internal
from schemas.rows import Portrait, encode_json
from schemas.times import from_ms
from streams.customers import CHANGELOG, Encoded, PartitionCustomers
from streams.identity import identities_of
from streams.log import Log, LogBusy, Outgoing, Record
from streams.metrics import StageMetrics
from streams.outbox import Outbox
from streams.sender import Sender, append_surely
from streams.stage import Stage
from streams.store import CustomerStore

log = structlog.get_logger(__name__)

GROUP = "tidewire-customers"
EVENTS = "events"
SLICE = 250  # records handled between two turns of the event loop, so that requests are answered meanwhile
ENCODE_SLICE = 500  # customer records encoded between two turns
PORTRAIT_SLICE = 100  # likewise portraits
TICK_EVERY_S = 1.0
LIVE_EVERY_S = 0.5
MOST_TICKS = 2_000  # timers of one partition sent at once
MOST_DIRTY_CHECKPOINTS = 4  # how far processing may run ahead of a slow checkpoint

Mark = Callable[[int, int], None]


class _Owned:
    """A partition this worker owns.

    Attributes:
        next: the offset after the last record handled.
        marked: the offset that may be committed.
        since: batches handled since the last checkpoint, to be handled again when one of them fails.
    """

    def __init__(self, customers: PartitionCustomers, marked: int) -> None:
        self.customers = customers
        self.next = self.marked = marked
        self.since: list[Sequence[Record]] = []
        self.last_ms = 0
        self.ticking: dict[str, int] = {}


class _Taken(NamedTuple):
    """What a checkpoint makes durable: the batches it stands for and the offsets they end at; customer records, those
    whose portraits changed, and rows."""

    since: list[tuple[_Owned, list[Sequence[Record]]]]
    marks: list[tuple[int, int]]
    encoded: list[tuple[_Owned, list[Encoded]]]
    shown: list[tuple[str, Customer]]
    rows: list[Outgoing]


class Worker:
    """Handles the partitions it is given. `mark(partition, offset)` is called when an offset may be committed."""

    def __init__(
        self, log_: Log, fold: Fold, *, folder: Path, mark: Mark, metrics: StageMetrics, checkpoint_records: int,
        checkpoint_ms: int, hot_customers: int, most_links: int, lease_s: float | None = None,
    ) -> None:  # fmt: skip
        """`lease_s`: a worker that stood still for longer may have lost its partitions, and writes nothing more."""
        self._log = log_
        self._fold = fold
        self._folder = folder
        self._mark = mark
        self._metrics = metrics
        self._checkpoint_records = checkpoint_records
        self._checkpoint_s = checkpoint_ms / 1000
        self._hot_customers = hot_customers
        self._lease_s = lease_s
        self._stage = Stage(fold, partitions=log_.partitions(EVENTS), most_links=most_links)
        self._outbox = Outbox(fold.table_of)
        self._sender = Sender(log_)
        self._owned: dict[int, _Owned] = {}
        self._lock = asyncio.Lock()  # one at a time: a batch, the taking of changes, the coming and going of partitions
        self._checkpointing = asyncio.Lock()
        self._records_since = 0
        self._due_at = 0.0  # when the next checkpoint is due; 0: nothing changed
        self._must_repeat = False  # what was handled since the last checkpoint is not whole
        self._alive_at = time.monotonic()
        self._latest_ms = 0
        self.behind = 0
        """Records of the owned partitions not yet marked, as of the last second."""
        self._tasks: list[asyncio.Task[None]] = []
        self._on_failure: Callable[[BaseException], None] = _raise

    async def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Begin. `on_failure` is told of an error that nobody can mend here; it must end the process."""
        self._on_failure = on_failure
        self._sender.start()
        loops = (self._checkpoints, self._ticks, self._live)
        self._tasks = [asyncio.create_task(self._guarded(loop)) for loop in loops]

    async def stop(self) -> None:
        """Checkpoint what is done and close. After it, nothing is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.release(list(self._owned))
        await self._sender.stop()

    async def _guarded(self, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._on_failure(error)

    # --- partitions come and go

    async def own(self, partitions: Iterable[int], generation: int) -> None:
        """Take partitions over, with their state restored."""
        async with self._lock:
            committed = await self._log.committed(GROUP, EVENTS)
            bounds = await self._log.bounds(EVENTS)
            for partition in partitions:
                if partition in self._owned:
                    continue
                began = time.monotonic()
                store = CustomerStore(self._folder / f"customers-{partition}")
                customers = PartitionCustomers(
                    partition, store, self._log, max(100, self._hot_customers // self._stage.partitions)
                )
                try:
                    restored = await customers.restore(generation)
                except BaseException:
                    customers.close()
                    raise
                self._owned[partition] = _Owned(customers, committed.get(partition, bounds[partition][0]))
                seconds = time.monotonic() - began
                self._metrics.restored.inc(restored)
                self._metrics.restore_seconds.observe(seconds)
                log.info("partition_owned", partition=partition, restored=restored, seconds=round(seconds, 3),
                         epoch=customers.epoch)  # fmt: skip
            self._metrics.owned_partitions.set(len(self._owned))

    async def release(self, partitions: Iterable[int], timeout_s: float = 20.0) -> None:
        """Give partitions up, after a checkpoint. Without it, in time, the next owner does some records again."""
        leaving = [partition for partition in partitions if partition in self._owned]
        if not leaving:
            return
        try:
            async with asyncio.timeout(timeout_s):
                if self._must_repeat:
                    await self._repeat()
                await self.checkpoint()
        except TimeoutError:
            log.warning("released_without_checkpoint", partitions=leaving)
        async with self._checkpointing, self._lock:
            for partition in leaving:
                self._owned.pop(partition).customers.close()
            self._metrics.owned_partitions.set(len(self._owned))
        log.info("partitions_released", partitions=leaving)

    # --- records

    async def process(self, partition: int, records: Sequence[Record]) -> None:
        """Handle one batch of a partition. Returns before it is durable; see `mark`."""
        async with self._lock:
            owned = self._owned.get(partition)
            if owned is None:  # it was revoked while the batch waited
                return
            if not self._due_at:
                self._due_at = time.monotonic() + self._checkpoint_s
            if records[0].offset > owned.next:  # markers of transactions make such gaps; nothing else should
                log.warning("offsets_skipped", partition=partition, expected=owned.next, found=records[0].offset)
            owned.since.append(records)
            owned.next = max(owned.next, records[-1].offset + 1)
            owned.last_ms = records[-1].timestamp_ms
            try:
                if not self._must_repeat:
                    await self._handle(owned, records)
            except ProcessorFailed as failed:
                log.error("processor_failed", processor=failed.processor, error=str(failed), partition=partition,
                          exc_info=failed.__cause__)  # fmt: skip
                self._must_repeat = True
            else:
                self._send_messages()
                self._count()
            self._records_since += len(records)
            self._metrics.batch_records.observe(len(records))
        if self._must_repeat:
            await self._repeat()
        if self._records_since >= self._checkpoint_records * MOST_DIRTY_CHECKPOINTS:
            await self.checkpoint()  # it is not keeping up: wait for it

    async def _handle(self, owned: _Owned, records: Sequence[Record]) -> None:
        handle, customers, out = self._stage.handle, owned.customers, self._outbox
        for start in range(0, len(records), SLICE):
            part = records[start : start + SLICE]
            customers.fetch({record.key.decode("utf-8", "replace") for record in part if record.key})
            for record in part:
                handle(record, customers, out)
            await asyncio.sleep(0)

    async def _repeat(self) -> None:
        """Go back to the last checkpoint and handle what came since once more, carefully: a processor that fails
        then costs the record it fails on, and nothing half done is left.

        What had been sent already is sent again with the same ids.
        """
        async with self._checkpointing, self._lock:
            self._outbox.clear()
            self._stage.is_careful = True
            try:
                for owned in self._owned.values():
                    owned.customers.forget()
                    for records in owned.since:
                        await self._handle(owned, records)
            finally:
                self._stage.is_careful = False
            self._must_repeat = False
            self._send_messages()
            self._count()

    def _count(self) -> None:
        for outcome, count in self._stage.counts.items():
            self._metrics.records.labels(outcome).inc(count)
        self._stage.counts.clear()

    def _send_messages(self) -> None:
        messages = self._outbox.take_messages()
        if messages:
            self._sender.hand_over(messages)

    # --- checkpoint

    async def _checkpoints(self) -> None:
        while True:
            await asyncio.sleep(min(self._checkpoint_s, 0.02))
            if self._due_at and (
                time.monotonic() >= self._due_at or self._records_since >= self._checkpoint_records
            ):
                await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make durable everything handled so far, and mark it."""
        async with self._checkpointing:
            began = time.monotonic()
            async with self._lock:
                if not self._due_at or self._must_repeat:
                    return
                taken = await self._take()
            try:
                await self._land(taken)
            except BaseException:  # broken off: what it took is to be handled again, with what came since
                for owned, since in taken.since:
                    owned.since[:0] = since
                self._must_repeat, self._due_at = True, self._due_at or began
                raise
            self._metrics.checkpoint_seconds.observe(time.monotonic() - began)
            self._metrics.checkpoint_customers.inc(sum(len(encoded) for _, encoded in taken.encoded))
            self._metrics.hot_customers.set(sum(owned.customers.hot_count for owned in self._owned.values()))

    async def _take(self) -> _Taken:
        """Take what changed out of the way of what comes next."""
        taken = _Taken([], [], [], [], self._outbox.take_rows())
        for partition, owned in self._owned.items():
            taken.since.append((owned, owned.since))
            taken.marks.append((partition, owned.next))
            owned.since = []
            changed, shown = owned.customers.take_changes()
            if changed:
                taken.encoded.append((owned, await self._encode(owned.customers, changed)))
                taken.shown.extend(shown)
        self._due_at, self._records_since = 0.0, 0
        self._send_messages()
        return taken

    async def _land(self, taken: _Taken) -> None:
        # Events go on meanwhile: a portrait may already show what comes after this checkpoint, and is the newer for it.
        portraits = await self._portraits(taken.shown)
        states = {"rows": taken.rows, "profiles": portraits}
        self._metrics.rows.inc(len(taken.rows) + len(portraits))
        await self._sender.sent(self._sender.hand_over({topic: each for topic, each in states.items() if each}))
        self._check_lease()
        outgoing = [each.outgoing for _, encoded in taken.encoded for each in encoded]
        if outgoing:
            placed = await append_surely(self._log, CHANGELOG, outgoing)
            for owned, encoded in taken.encoded:
                customers = owned.customers
                await customers.changelog_has(place for place in placed if place.partition == customers.partition)
                await asyncio.to_thread(customers.store, encoded)
                customers.landed(each.key for each in encoded)
                if customers.has_changes and not self._due_at:  # a repair made changes of its own
                    self._due_at = time.monotonic()
        for partition, after in taken.marks:
            if partition in self._owned:
                self._owned[partition].marked = after
                self._mark(partition, after)

    async def _encode(self, customers: PartitionCustomers, changed: dict[str, Customer]) -> list[Encoded]:
        encoded: list[Encoded] = []
        for each in customers.encode(changed.items()):
            encoded.append(each)
            if len(encoded) % ENCODE_SLICE == 0:
                await asyncio.sleep(0)
        return encoded

    async def _portraits(self, shown: list[tuple[str, Customer]]) -> list[Outgoing]:
        portraits = []
        for i, (key, customer) in enumerate(shown):
            if i % PORTRAIT_SLICE == PORTRAIT_SLICE - 1:
                await asyncio.sleep(0)
            portraits.append(Outgoing(key.encode(), encode_json(self.portrait(key, customer))))
        return portraits

    def portrait(self, key: str, customer: Customer) -> Portrait:
        """What is known of a person now."""
        at = from_ms(time.time_ns() // 1_000_000)
        workspace = key.partition("/")[0]
        if customer.redirect:
            return Portrait(key=key, workspace=workspace, revision=customer.revision, at=at,
                            merged_into=customer.redirect)  # fmt: skip
        return Portrait(key=key, workspace=workspace, revision=customer.revision, at=at,
                        identities=identities_of(key, customer),
                        sections=self._fold.portrait(customer.parts))  # fmt: skip

    async def _live(self) -> None:
        """Notice when the whole process stood still."""
        while True:
            self._check_lease()
            self._alive_at = time.monotonic()
            await asyncio.sleep(LIVE_EVERY_S)

    def _check_lease(self) -> None:
        stood_still_s = time.monotonic() - self._alive_at
        if self._lease_s is not None and stood_still_s > self._lease_s:
            raise LeaseLost(f"this worker stood still for {stood_still_s:.1f} s; others may own its partitions by now")

    # --- timers

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_EVERY_S)
            await self._send_ticks(time.time_ns() // 1_000_000)
            await self._measure()

    async def _measure(self) -> None:
        try:
            bounds = await self._log.bounds(EVENTS)
        except LogBusy as error:
            log.warning("lag_not_known", error=str(error))
            return
        self.behind = self.behind_of(bounds)
        self._metrics.behind_records.set(self.behind)
        waiting = [owned.last_ms for partition, owned in self._owned.items() if bounds[partition][1] > owned.marked]
        self._metrics.behind_seconds.set(time.time() - min(filter(None, waiting)) / 1000 if any(waiting) else 0.0)

    async def _send_ticks(self, clock_ms: int) -> None:
        """Send the timers that are due to their persons. The only clock of the stage; it never goes back."""
        now_ms = self._latest_ms = max(self._latest_ms, clock_ms)
        async with self._lock:
            ticks = []
            for partition, owned in self._owned.items():
                due = owned.customers.due(now_ms, MOST_TICKS)
                ticking = {key: due_ms for due_ms, key in due}
                for key, due_ms in ticking.items():
                    if owned.ticking.get(key) != due_ms:
                        self._metrics.timers_late_seconds.observe((now_ms - due_ms) / 1000)
                        tick = Tick(to=key, origin="", at_ms=now_ms)
                        ticks.append(Outgoing(key.encode(), encode_internal(tick), partition, HEADERS))
                owned.ticking = ticking
        if ticks:
            self._sender.hand_over({EVENTS: ticks})

    def progress(self) -> tuple[int, ...]:
        """Changes while anything moves: the offsets handled and marked."""
        return tuple(offset for owned in self._owned.values() for offset in (owned.next, owned.marked))

    def behind_of(self, bounds: dict[int, tuple[int, int]]) -> int:
        """How many records of the owned partitions are not yet marked, given where the partitions end."""
        behind = 0
        for partition, owned in self._owned.items():
            first, end = bounds[partition]
            behind += end - max(owned.marked, first)
        return behind


class LeaseLost(RuntimeError):
    """The worker may have lost its partitions and must write nothing more."""


def _raise(error: BaseException) -> None:
    raise error
