"""The worker, the engine of a stage: owns partitions, feeds their records to the stage, and makes what follows durable,
in this order:

    1. messages, decisions and dead letters leave after each batch; rows and portraits with the checkpoint
    2. the log acknowledged all of it
    3. the changed states go to the changelog, which acknowledges them
    4. they go to disk
    5. the partition is marked: its offset may be committed

A crash before 5 means the records come again. Those whose effects reached 3 are behind the fence; the others happen
again with the same ids.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from processors.base import Table
from processors.fold import ProcessorFailed, Spent
from schemas.effects import Decision
from schemas.keyed import Keyed
from schemas.times import to_iso
from streams.dead_letters import DeadLetterLimit, Stopped
from streams.lines import Line
from streams.log import Log, LogBusy, Outgoing, Record
from streams.metrics import TIMED_ONE_OF, StageMetrics
from streams.outbox import Outbox
from streams.sender import Sender, append_surely
from streams.states import Encoded, PartitionStates
from streams.store import StateStore

log = structlog.get_logger(__name__)

SLICE = 100  # records handled between two turns of the event loop, so that requests are answered meanwhile
ENCODE_SLICE = 100  # states encoded between two turns
PORTRAIT_SLICE = 15  # likewise portraits
TICK_EVERY_S = 1.0
TICK_AGAIN_S = 30.0  # a timer that is still there then is told again: the clock of the log may have been behind
LIVE_EVERY_S = 0.5
TICK_AGAIN_EVERY_S = 0.02  # while more are due than may be under way
LONGEST_CHECKPOINT_S = 20.0  # that somebody waits for who leaves
PATIENCE = 4  # a checkpoint that took long makes the next wait so many times as long…
LONGEST_INTERVAL_S = 1.0  # …but no longer than this: who changes often is then written once
MOST_DIRTY_CHECKPOINTS = 4  # how far processing may run ahead of a slow checkpoint

_NOT_TICKING = (0, 0.0)
LARGEST_STATE_BYTES = 8 * 1024 * 1024  # the log takes records of twice that

S = TypeVar("S", bound=Keyed)


Then = Callable[[Sequence[Any]], None]
Owns = Callable[[Collection[int]], None]


def do_nothing(given: Collection[Any]) -> None:
    """For who wants nothing done."""


class States(Protocol[S]):
    """The states of one partition, as a stage sees and changes them."""

    def get(self, key: str) -> S:
        """The state of a key, a new one where there is none."""

    def fetch(self, keys: Iterable[str]) -> None:
        """These will be asked for: bring them into memory together."""

    def keys_after(self, after: str, most: int) -> Sequence[str]:
        """The next keys there are, in order."""

    def touch(self, key: str, state: S) -> None:
        """The state was changed."""

    def show(self, key: str) -> None:
        """What is shown of it was changed: its portrait leaves with the next checkpoint."""


class Stage(Protocol[S]):
    """What records do to states. Pure: no clock, no log, no disk.

    A stage skips a record whose offset is not beyond `state.offset`, which it moves on: the record was applied before.

    Attributes:
        counts: how many records went which way, since the worker last took them.
        spent: of one call of `handle` in `TIMED_ONE_OF`, what processors took, since the worker last took it.
        is_careful: while set, a processor that raises costs only its record.
        leader: key of the state by which all others of its partition are handled; empty where there is none. It is
            stored behind them: should storing end half-way, nobody is handled anew by what she was not handled by.
    """

    counts: Counter[str]
    spent: Spent
    is_careful: bool
    leader: str

    @property
    def State(self) -> type[S]:
        """The type of its states."""

    @property
    def line(self) -> Line:
        """What it reads, and where its states are kept."""

    @property
    def room(self) -> int:
        """Of each partition, how many timers it takes at a time."""

    @property
    def table_of(self) -> Mapping[type[msgspec.Struct], Table]:
        """The tables of the rows it puts into the outbox."""

    def handle(self, records: Sequence[Record], states: States[S], out: Outbox, limit: DeadLetterLimit) -> int:
        """Apply records of one partition, in order. Returns how many: all, unless the limit says to stop.

        Raises:
            ProcessorFailed: a processor raised. States may be half changed; the worker goes back and is careful.
        """

    def next_due_ms(self, state: S) -> int:
        """When the earliest timer of a state is due; 0 where there is none."""

    def tick(self, key: str, at_ms: int, partition: int) -> Outgoing:
        """What to tell a key of the partition that has a timer due."""

    def portrait(self, key: str, state: S, at_ms: int) -> Outgoing | None:
        """What topic `profiles` is to say of a state, for keys that were shown."""

    def shrink(self, key: str, state: S, limit_bytes: int, out: Outbox) -> None:
        """The state has outgrown `limit_bytes`: leave out of it what is largest, and say so."""


class Reading(Protocol):
    """What the worker tells those who read for it."""

    def mark(self, partition: int, offset: int) -> None:
        """Everything before `offset` is durable: it may be committed."""

    def pause(self, partition: int) -> None:
        """Bring no more records of a partition, until `resume`."""

    def resume(self, partition: int) -> None: ...


class _Owned(Generic[S]):
    """A partition this worker owns.

    Attributes:
        next: the offset after the last record handled.
        marked: the offset that may be committed.
        since: batches handled since the last checkpoint, to be handled again when one of them fails.
        is_standing: it stopped, and was not let go on yet.
        waiting: batches that came meanwhile.
        notes: for the changelog, with the next checkpoint.
        is_leaving: it is given up; nothing more of it is handled here.
        ticking: by key, the timers that were sent and not handled yet, and until when that is believed.
        ticked: where those that are due go on; None: begin with the earliest.
    """

    def __init__(self, states: PartitionStates[S], marked: int) -> None:
        self.states = states
        self.next = self.marked = marked
        self.since: list[Sequence[Record]] = []
        self.is_standing = states.stopped is not None
        self.waiting: list[Sequence[Record]] = []
        self.notes: list[Outgoing] = []
        self.is_leaving = False
        self.limit = DeadLetterLimit()
        self.limit.go_on(states.free_until)
        self.last_ms = 0
        self.ticking: dict[str, tuple[int, float]] = {}
        self.ticked: tuple[int, str] | None = None

    @property
    def oldest_ms(self) -> int:
        """When the oldest record was written that is not checkpointed, as far as it is known; 0: not at all."""
        waiting = self.since or self.waiting
        return waiting[0][0].timestamp_ms if waiting else self.last_ms  # those that come are newer than the last


class _Taken(NamedTuple, Generic[S]):
    """What a checkpoint makes durable: the batches it stands for and the offsets they end at; states, those whose
    portraits changed, rows, notes of partitions, and what is to be done then."""

    since: list[tuple[_Owned[S], list[Sequence[Record]]]]
    marks: list[tuple[int, int]]
    encoded: list[tuple[_Owned[S], Encoded]]
    shown: list[tuple[str, S]]
    rows: list[Outgoing]
    notes: list[Outgoing]
    then: list[Any]


class Worker(Generic[S]):
    """Runs a stage over the partitions it is given."""

    def __init__(
        self, log_: Log, stage: Stage[S], *, folder: Path, reading: Reading, metrics: StageMetrics,
        checkpoint_records: int, checkpoint_ms: int, hot_states: int, lease_s: float | None = None,
        then: Then = do_nothing, owns: Owns = do_nothing,
    ) -> None:  # fmt: skip
        """
        Args:
            lease_s: a worker that stood still for longer may have lost its partitions, and writes nothing more.
            then: is given what the stage said is to be done (`Outbox.then`), once the states that say so are durable.
            owns: is given the partitions that are owned, all of them, when some were taken over.
        """
        self._log = log_
        self._stage = stage
        self._line = stage.line
        self._folder = folder
        self._reading = reading
        self._metrics = metrics
        self._checkpoint_records = checkpoint_records
        self._checkpoint_s = self._interval_s = checkpoint_ms / 1000
        self._most_hot = max(100, hot_states // log_.partitions(self._line.topic))
        self._lease_s = lease_s
        self._then = then
        self._owns = owns
        self._outbox = Outbox(stage.table_of)
        self._sender = Sender(log_)
        self._owned: dict[int, _Owned[S]] = {}
        self._lock = asyncio.Lock()  # one at a time: a batch, the taking of changes, the coming and going of partitions
        self._checkpointing = asyncio.Lock()
        self._records_since = 0
        self._due_at = 0.0  # when the next checkpoint is due; 0: nothing changed
        self._must_repeat = False  # what was handled since the last checkpoint is not whole
        self._alive_at = time.monotonic()
        self._latest_ms = 0
        self.behind = 0
        """Records of the owned partitions not yet marked, as of the last second; without those that stand still."""
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
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_CHECKPOINT_S), self._checkpointing:  # broken off, it would be repeated
                self._cancel_tasks()
        self._cancel_tasks()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.release(list(self._owned))
        await self._sender.stop()

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

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
            committed = await self._log.committed(self._line.group, self._line.topic)
            bounds = await self._log.bounds(self._line.topic)
            for partition in partitions:
                if partition in self._owned:
                    continue
                began = time.monotonic()
                states = PartitionStates(
                    self._line, partition, StateStore(self._folder / f"{self._line.changelog}-{partition}"), self._log,
                    state=self._stage.State, next_due_ms=self._stage.next_due_ms, most_hot=self._most_hot,
                )  # fmt: skip
                try:
                    restored = await states.restore(generation)
                except BaseException:
                    states.close()
                    raise
                self._owned[partition] = _Owned(states, committed.get(partition, bounds[partition][0]))
                seconds = time.monotonic() - began
                self._metrics.restored.inc(restored)
                self._metrics.restore_seconds.observe(seconds)
                log.info("partition_owned", partition=partition, restored=restored, seconds=round(seconds, 3),
                         epoch=states.epoch)  # fmt: skip
                if states.stopped is not None:
                    self._stand_still(partition, states.stopped)
            self._count_partitions()
            self._owns(frozenset(self._owned))

    async def release(self, partitions: Iterable[int], timeout_s: float = LONGEST_CHECKPOINT_S) -> None:
        """Give partitions up, after a checkpoint. Without it, in time, the next owner does some records again."""
        leaving = [partition for partition in partitions if partition in self._owned]
        if not leaving:
            return
        for partition in leaving:  # batches that still wait are for the next owner
            self._owned[partition].is_leaving = True
        try:
            async with asyncio.timeout(timeout_s):
                if self._must_repeat:
                    await self._repeat()
                await self.checkpoint()
        except TimeoutError:
            log.warning("released_without_checkpoint", partitions=leaving)
        async with self._checkpointing, self._lock:
            for partition in leaving:
                self._owned.pop(partition).states.close()
                self._metrics.forget(partition)
            self._count_partitions()
        log.info("partitions_released", partitions=leaving)

    # --- records

    async def process(self, partition: int, records: Sequence[Record]) -> None:
        """Handle one batch of a partition. Returns before it is durable; see `Reading.mark`."""
        async with self._lock:
            owned = self._owned.get(partition)
            if owned is None or owned.is_leaving:  # it was revoked while the batch waited
                return
            await self._process(partition, owned, records)
        if self._must_repeat:
            await self._repeat()
        if self._records_since >= self._checkpoint_records * MOST_DIRTY_CHECKPOINTS:
            await self.checkpoint()  # it is not keeping up: wait for it

    async def _process(self, partition: int, owned: _Owned[S], records: Sequence[Record]) -> None:
        if owned.is_standing:
            owned.waiting.append(records)
            return
        if not self._due_at:
            self._due_at = time.monotonic() + self._interval_s
        if records[0].offset > owned.next:  # markers of transactions make such gaps; nothing else should
            log.warning("offsets_skipped", partition=partition, expected=owned.next, found=records[0].offset)
        try:
            handled = len(records) if self._must_repeat else await self._handle(owned, records)
        except ProcessorFailed as failed:
            log.error("processor_failed", processor=failed.processor, error=str(failed), partition=partition,
                      exc_info=failed.__cause__)  # fmt: skip
            self._must_repeat = True
            handled = len(records)
        else:
            self._send_messages()
            self._count()
        self._has_handled(partition, owned, records, handled)
        self._records_since += handled
        self._metrics.batch_records.observe(len(records))

    def _has_handled(self, partition: int, owned: _Owned[S], records: Sequence[Record], handled: int) -> None:
        if owned.ticking:
            _tell_again(owned, records[:handled])
        owned.since.append(records[:handled])
        owned.next = records[handled - 1].offset + 1
        owned.last_ms = records[handled - 1].timestamp_ms
        if handled < len(records):
            owned.waiting.append(records[handled:])
        if owned.limit.why and not owned.is_standing:
            self._stop_partition(partition, owned)

    async def _handle(self, owned: _Owned[S], records: Sequence[Record]) -> int:
        """Hand records to the stage. Returns how many it took: all, unless the partition must stop."""
        handle, states, out, limit = self._stage.handle, owned.states, self._outbox, owned.limit
        for start in range(0, len(records), SLICE):
            part = records[start : start + SLICE]
            states.fetch(_keys_of(part))
            handled = handle(part, states, out, limit)
            if limit.why:
                return start + handled
            await asyncio.sleep(0)
        return len(records)

    # --- a partition stops

    def _stop_partition(self, partition: int, owned: _Owned[S]) -> None:
        """Handle no more of it until a person says so: see `streams.dead_letters`."""
        stopped = Stopped(owned.next, owned.limit.why, to_iso(owned.last_ms))
        owned.is_standing = True
        owned.notes.append(owned.states.stop(stopped))
        self._outbox.begin(f"{self._line.topic}-{partition}@{owned.next - 1}", owned.last_ms)
        self._outbox.decide("", "worker", Decision("partition_stopped", f"{self._line.topic}-{partition}", {
            "offset": stopped.offset, "why": stopped.why}))  # fmt: skip
        self._send_messages()
        self._stand_still(partition, stopped)

    def _stand_still(self, partition: int, stopped: Stopped) -> None:
        log.critical("partition_stopped", partition=partition, offset=stopped.offset, why=stopped.why,
                     mend="see `tidewire rejected`, mend the cause, then let it go on")  # fmt: skip
        self._reading.pause(partition)
        self._count_partitions()

    async def _look_whether_to_go_on(self) -> None:
        for partition, owned in list(self._owned.items()):
            if not owned.is_standing:
                continue
            async with self._checkpointing:
                await owned.states.look_for_notes()
            if owned.states.stopped is None:
                await self._go_on(partition, owned)

    async def _go_on(self, partition: int, owned: _Owned[S]) -> None:
        log.warning("partition_goes_on", partition=partition, offset=owned.next)
        async with self._lock:
            owned.is_standing = False
            owned.notes = owned.states.go_on_notes()  # again: the order may have come before our note that it stopped
            owned.limit.go_on(owned.states.free_until)
            self._due_at = self._due_at or time.monotonic()
            self._outbox.begin(f"{self._line.topic}-{partition}@{owned.next}", time.time_ns() // 1_000_000)
            self._outbox.decide("", "worker", Decision("partition_goes_on", f"{self._line.topic}-{partition}", {
                "offset": owned.next}))  # fmt: skip
            self._send_messages()
            waiting, owned.waiting = owned.waiting, []
            for records in waiting:
                await self._process(partition, owned, records)
            if not owned.is_standing:
                self._reading.resume(partition)
            self._count_partitions()
        if self._must_repeat:
            await self._repeat()

    def _count_partitions(self) -> None:
        self._metrics.owned_partitions.set(len(self._owned))
        self._metrics.stopped_partitions.set(
            sum(owned.is_standing for owned in self._owned.values()))  # fmt: skip

    # --- going back

    async def _repeat(self) -> None:
        """Go back to the last checkpoint and handle what came since once more, carefully: a processor that fails
        then costs the record it fails on, and nothing half done is left.

        What had been sent already is sent again with the same ids.
        """
        async with self._checkpointing, self._lock:
            self._outbox.clear()
            self._stage.is_careful = True
            try:
                for partition, owned in self._owned.items():
                    owned.states.forget()
                    await self._handle_again(partition, owned)
            finally:
                self._stage.is_careful = False
            self._must_repeat = False
            self._send_messages()
            self._count()

    async def _handle_again(self, partition: int, owned: _Owned[S]) -> None:
        again, owned.since = owned.since, []
        if again:
            owned.limit.back_to(again[0][0].offset)
        for i, records in enumerate(again):
            self._has_handled(partition, owned, records, await self._handle(owned, records))
            if owned.limit.why:
                owned.waiting += again[i + 1 :]
                return

    def _count(self) -> None:
        for outcome, count in self._stage.counts.items():
            self._metrics.records.labels(outcome).inc(count)
        self._stage.counts.clear()
        for (processor, reason), count in self._outbox.rejected.items():
            self._metrics.rejected.labels(processor, reason).inc(count)
        self._outbox.rejected.clear()
        for processor, (times, seconds) in self._stage.spent.items():
            self._metrics.processor_events.labels(processor).inc(times * TIMED_ONE_OF)
            self._metrics.processor_seconds.labels(processor).inc(seconds * TIMED_ONE_OF)
        self._stage.spent.clear()

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
            took_s = time.monotonic() - began
            self._interval_s = max(self._checkpoint_s, min(PATIENCE * took_s, LONGEST_INTERVAL_S))
            self._metrics.checkpoint_seconds.observe(took_s)
            self._metrics.checkpoint_customers.inc(sum(len(encoded.states) for _, encoded in taken.encoded))

    async def _take(self) -> _Taken[S]:
        """Take what changed out of the way of what comes next."""
        taken: _Taken[S] = _Taken([], [], [], [], self._outbox.take_rows(), [], self._outbox.take_then())
        for partition, owned in self._owned.items():
            taken.since.append((owned, owned.since))
            taken.marks.append((partition, owned.next))
            taken.notes.extend(owned.notes)
            owned.since, owned.notes = [], []
            changed, shown = owned.states.take_changes()
            if changed:
                taken.encoded.append((owned, await self._encode(owned.states, changed)))
                taken.shown.extend(shown)
        self._due_at, self._records_since = 0.0, 0
        self._send_messages()
        return taken

    async def _land(self, taken: _Taken[S]) -> None:
        # Events go on meanwhile: a portrait may already show what comes after this checkpoint, and is the newer for it.
        portraits = await self._portraits(taken.shown)
        rows = {"rows": taken.rows, "profiles": portraits}
        self._metrics.rows.inc(len(taken.rows) + len(portraits))
        await self._sender.sent(self._sender.hand_over({topic: each for topic, each in rows.items() if each}))
        self._check_lease()
        outgoing = taken.notes
        for _, encoded in taken.encoded:
            outgoing.extend(encoded.states)
        if outgoing:
            placed = await append_surely(self._log, self._line.changelog, outgoing)
            for partition, owned in self._owned.items():
                await owned.states.changelog_has(place for place in placed if place.partition == partition)
            for owned, encoded in taken.encoded:
                states = owned.states
                await asyncio.to_thread(states.store, encoded)
                states.landed()
                if states.has_changes and not self._due_at:  # a repair made changes of its own
                    self._due_at = time.monotonic()
        for partition, after in taken.marks:
            if partition in self._owned:
                self._owned[partition].marked = after
                self._reading.mark(partition, after)
        if taken.then:
            self._then(taken.then)

    async def _encode(self, states: PartitionStates[S], changed: dict[str, S]) -> Encoded:
        encoded = Encoded([], [])
        leader = self._stage.leader
        waiting = iter(sorted(changed.items(), key=lambda item: item[0] == leader))
        while some := list(islice(waiting, ENCODE_SLICE)):
            states.encode(some, encoded, LARGEST_STATE_BYTES, partial(self._shrink, states.partition))
            await asyncio.sleep(0)
        return encoded

    def _shrink(self, partition: int, key: str, state: S) -> None:
        log.error("state_too_large", partition=partition, limit_bytes=LARGEST_STATE_BYTES)
        self._outbox.begin(f"{self._line.changelog}-{partition}@{state.revision}", time.time_ns() // 1_000_000)
        self._stage.shrink(key, state, LARGEST_STATE_BYTES, self._outbox)

    async def _portraits(self, shown: list[tuple[str, S]]) -> list[Outgoing]:
        portraits = []
        portrait, at_ms = self._stage.portrait, time.time_ns() // 1_000_000
        for i, (key, state) in enumerate(shown):
            if i % PORTRAIT_SLICE == PORTRAIT_SLICE - 1:
                await asyncio.sleep(0)
            outgoing = portrait(key, state, at_ms)
            if outgoing is not None:
                portraits.append(outgoing)
        return portraits

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
        wait_s = TICK_EVERY_S
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(wait_s)
            are_more = await self._send_ticks(time.time_ns() // 1_000_000)
            wait_s = TICK_AGAIN_EVERY_S if are_more else TICK_EVERY_S
            if not are_more or time.monotonic() >= looked_at + TICK_EVERY_S:
                looked_at = time.monotonic()
                await self._measure()
                await self._look_whether_to_go_on()

    async def _measure(self) -> None:
        try:
            bounds = await self._log.bounds(self._line.topic)
        except LogBusy as error:
            log.warning("lag_not_known", error=str(error))
            return
        behind = self.behind_of(bounds)
        self.behind = sum(count for partition, count in behind.items() if not self._owned[partition].is_standing)
        now_ms = time.time_ns() // 1_000_000
        for partition, owned in self._owned.items():
            number = str(partition)
            oldest_ms = owned.oldest_ms if behind[partition] else 0
            self._metrics.behind_records.labels(number).set(behind[partition])
            self._metrics.behind_seconds.labels(number).set(max(0, now_ms - oldest_ms) / 1000 if oldest_ms else 0)
            self._metrics.hot_customers.labels(number).set(owned.states.hot_count)
            records, size_bytes = owned.states.size
            self._metrics.store_records.labels(number).set(records)
            self._metrics.store_bytes.labels(number).set(size_bytes)

    async def _send_ticks(self, clock_ms: int) -> bool:
        """Send timers that are due to their persons, few at a time. Returns whether there are more.

        The only clock of the stage; it never goes back. Where it is ahead of the log's, the stage goes by the log's: a
        timer may be late, and is never early.
        """
        now_ms = self._latest_ms = max(self._latest_ms, clock_ms)
        are_more = False
        async with self._lock:
            ticks: list[Outgoing] = []
            for partition, owned in self._owned.items():
                if not owned.is_standing:
                    are_more |= self._ticks_of(partition, owned, now_ms, ticks)
        if ticks:
            self._sender.hand_over({self._line.topic: ticks})
        return are_more

    def _ticks_of(self, partition: int, owned: _Owned[S], now_ms: int, ticks: list[Outgoing]) -> bool:
        states, clock = owned.states, time.monotonic()
        ticking = owned.ticking = {
            key: (due_ms, again_at) for key, (due_ms, again_at) in owned.ticking.items()
            if clock < again_at and states.is_due(key, due_ms)
        }  # fmt: skip
        room = self._stage.room - len(ticking)
        if room <= 0:
            return True
        due = states.due(now_ms, room, owned.ticked)
        owned.ticked = due[-1] if len(due) == room else None
        for due_ms, key in due:
            # What is not due any more was handled, and the disk will know of it with the next checkpoint.
            if ticking.get(key, _NOT_TICKING)[0] == due_ms or not states.is_due(key, due_ms):
                continue
            ticking[key] = due_ms, clock + TICK_AGAIN_S
            self._metrics.timers_late_seconds.observe((now_ms - due_ms) / 1000)
            ticks.append(self._stage.tick(key, now_ms, partition))
        return owned.ticked is not None

    def progress(self) -> tuple[int, ...]:
        """Changes while anything moves: the offsets handled and marked."""
        return tuple(offset for owned in self._owned.values() for offset in (owned.next, owned.marked))

    def behind_of(self, bounds: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Records not yet marked of each owned partition, given where the partitions end."""
        return {
            partition: bounds[partition][1] - max(owned.marked, bounds[partition][0])
            for partition, owned in self._owned.items()
        }


class LeaseLost(RuntimeError):
    """The worker may have lost its partitions and must write nothing more."""


def _keys_of(records: Sequence[Record]) -> set[str]:
    try:
        return {record.key.decode() for record in records}  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):  # no key, or none of ours
        return {record.key.decode("utf-8", "replace") for record in records if record.key}


def _tell_again(owned: _Owned[S], records: Sequence[Record]) -> None:
    """A timer that still stands where one was told of, once a message to its person was handled, may be another one:
    a part of hers came behind the tick, and brought one that is due at the same moment. By the clock of the log it is
    not due yet where the record is older: then that is waited for."""
    for record in records:
        if record.headers and record.key:
            key = record.key.decode("utf-8", "replace")
            due_ms = owned.ticking.get(key, _NOT_TICKING)[0]
            is_early = 0 < record.timestamp_ms < due_ms
            if due_ms and not is_early and owned.states.is_due_still(key, due_ms):
                del owned.ticking[key]


def _raise(error: BaseException) -> None:
    raise error
