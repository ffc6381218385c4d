"""The ClickHouse sink: what the topics say, stored and read once.

One insert for each table and batch, and only after all of them returned are the offsets committed. What is repeated,
within this process or after a crash of it, is the same batch under the same tokens, and stored once (`sinks.repeats`).
Where that cannot be, the rows come again in other batches; every table knows a row by its key and keeps one
(ReplacingMergeTree, read with FINAL), so they are read once.

While ClickHouse stores a batch, the next is read; it is written down, stored and committed when its turn comes.

ClickHouse away or busy: the batch waits and is offered again, for as long as it takes; nothing else stops meanwhile.
A row that ClickHouse will never take goes to topic `rejected`, alone; all others of its batch are stored.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from processors.base import Table
from schemas.errors import Refused
from schemas.event import Event, decode_event
from schemas.rejected import Rejected, encode_rejected
from schemas.times import from_ms
from sinks.analytics import Analytics, ClickHouseAway, ClickHouseError, RowsRefused
from sinks.batch import PACKED, STORED, TOPICS, BadRow, Batch, Reader, Rows
from sinks.migrate import migrate
from sinks.repeats import Plan, has_been_seen, open_plans, plan_of, records_of
from sinks.watch import watch
from streams.log import TP, Log, LogBusy, Outgoing, Record, Subscription
from streams.metrics import SinkMetrics

log = structlog.get_logger(__name__)

GROUP = "tidewire-clickhouse"
MOST_BYTES = 64 * 1024 * 1024  # of a batch, as the records stand in the log
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0  # between two tries
POLL_S = 0.5
OTHERS_WITHIN_S = 30.0  # a member that died is told dead by then
FEW_ROWS = 1_000  # fewer are not halved for want of memory

_PASSING = (ClickHouseError, LogBusy)  # whose end is waited for
_MEMORY = 241  # code of ClickHouse: this query needs too much of it
_MEND = "Mend the event and send it again, or leave it out of ClickHouse."
Result = TypeVar("Result")

_decode_any = msgspec.json.Decoder().decode
_JSON_COLUMNS = {"events": ("properties",), "people": ("traits",), "decisions": ("facts",)}


class SinkSettings(Protocol):
    """What of the settings the sink looks at."""

    @property
    def sink_batch(self) -> int: ...

    @property
    def sink_wait_ms(self) -> int: ...


class _Stopped(Exception):
    """The sink was told to stop while it waited; what it held comes again."""


class _TooLarge(Exception):
    """ClickHouse has not the memory for so many rows at once."""


class _Attempts:
    """The attempts at one insert.

    Attributes:
        is_repeat: an attempt before may have stored the rows.
        refusals: how often ClickHouse answered that it did not; it may remember the token all the same.
    """

    def __init__(self, name: str, is_repeat: bool) -> None:
        self.name = name
        self.is_repeat = is_repeat
        self.refusals = 0

    def token(self, life: str) -> str:
        return f"{self.name}:{life}:{self.refusals}" if self.name else ""


class _AtHand(NamedTuple):
    """Records that were read, what to commit when they are stored, by which assignment they came, and their rows."""

    records: list[Record]
    offsets: dict[TP, int]
    assignments: int
    batch: Batch


class ClickHouseSink:
    """Stores what the topics say. `tables` are those of processors."""

    def __init__(self, log: Log, analytics: Analytics, tables: Iterable[Table], settings: SinkSettings,
                 registry: CollectorRegistry | None = None, *, first_wait_s: float = FIRST_WAIT_S) -> None:  # fmt: skip
        self._log = log
        self._analytics = analytics
        self._tables = tuple(tables)
        self._most = settings.sink_batch
        self._wait_s = settings.sink_wait_ms / 1000
        self._first_wait_s = first_wait_s
        self._writes_plans = analytics.place.path is None  # chDB dies with us, and its tokens are not trusted then
        self._assignments = 0
        self._life = ""
        self._reader = Reader(self._tables)
        names = [*STORED, *(table.name for table in self._tables)]
        self.metrics = SinkMetrics(registry if registry is not None else CollectorRegistry(), names)
        self._next: asyncio.Task[_AtHand] | None = None  # while a batch is stored, the next is read
        self._oldest_ms = self._next_oldest_ms = 0
        self.metrics.behind_seconds.set_function(self._waited_s)
        self._stopping = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    async def run(self) -> None:
        """Migrate, then store until `stop`.

        Raises:
            TidewireError: a table cannot become what it must be; see `sinks.migrate.migrate`.
        """
        self._done.clear()
        watching = asyncio.create_task(watch(self._analytics, self.metrics))
        try:
            await self._patiently(lambda: migrate(self._analytics, self._tables), (ClickHouseAway,))
            self._reader.packers = {
                table: await self._patiently(partial(self._analytics.packer, table, names))
                for table, names in PACKED.items()
            }
            subscription = await self._patiently(lambda: self._log.subscribe(GROUP, TOPICS))
            try:
                while not self._stopping.is_set():
                    await self._turn(subscription)
                    self._oldest_ms = 0
            finally:
                await self._drop_next()
                await subscription.close()
        except _Stopped:
            pass
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._done.set()

    async def stop(self) -> None:
        """Finish the batch at hand; return when `run` has. What is not committed comes again."""
        self._stopping.set()
        await self._done.wait()

    def _waited_s(self) -> float:
        oldest_ms = self._oldest_ms or self._next_oldest_ms
        return max(0.0, time.time() - oldest_ms / 1000) if oldest_ms else 0.0

    # --- one batch

    async def _turn(self, subscription: Subscription) -> None:
        reading, self._next = self._next or asyncio.ensure_future(self._read(subscription)), None
        at_hand = await reading
        self._oldest_ms, self._next_oldest_ms = self._next_oldest_ms, 0
        if not at_hand.records:
            return
        if self._assignments != at_hand.assignments and self._writes_plans:
            at_hand = await self._carry_out_plans(subscription, at_hand)
            self._assignments = at_hand.assignments
        # Else some came twice, and others belong to others now.
        is_ours = subscription.assignments == at_hand.assignments
        if not is_ours or (at_hand.records and not await self._store_as_planned(subscription, at_hand)):
            self._assignments = -1
            await self._patiently(subscription.rewind)

    async def _read(self, subscription: Subscription) -> _AtHand:
        assignments = subscription.assignments
        records, offsets = await self._collect(subscription)
        batch = await asyncio.to_thread(self._reader.read, records) if records else Batch()
        return _AtHand(records, offsets, assignments, batch)

    async def _drop_next(self) -> None:
        """Forget what was read ahead; as it is not committed, it comes again."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
            self._next = None

    async def _store_as_planned(self, subscription: Subscription, at_hand: _AtHand) -> bool:
        """Store the records and commit; False if nothing was done, as some are no longer ours to store."""
        plan = plan_of(at_hand.records)
        if self._writes_plans and not await self._patiently(lambda: subscription.commit(plan.starts, plan.notes)):
            return False
        self.metrics.batch_records.observe(len(at_hand.records))
        if not self._stopping.is_set():
            self._next = asyncio.ensure_future(self._read(subscription))
        await self.store(at_hand.batch, plan.name)
        await self._patiently(lambda: subscription.commit(at_hand.offsets))
        return True

    async def _carry_out_plans(self, subscription: Subscription, at_hand: _AtHand) -> _AtHand:
        """Store what was written down and not committed, of the partitions we were given, exactly as it was. Returns
        which of the records at hand, and of those that came meanwhile, are still to be stored."""
        records, offsets, assignments, _ = at_hand
        stored: dict[TP, int] = {}
        for plan in await self._patiently(lambda: open_plans(self._log, GROUP, TOPICS)):
            if subscription.assigned & plan.ranges.keys() and await self._carry_out(plan):
                stored |= plan.ends
                await self._tell_others(subscription, plan._replace(is_stored=True))
        # It is committed for all our partitions at once, or whoever repeats it would repeat another batch.
        while any(offsets.get(tp, 0) < after for tp, after in stored.items() if tp in subscription.assigned):
            if self._stopping.is_set():
                raise _Stopped
            more, further = await self._collect(subscription)
            records = records + more
            offsets.update(further)
        ours = {tp: after for tp, after in stored.items() if tp in offsets}
        if ours:
            await self._patiently(lambda: subscription.commit(ours))
        records = [each for each in records if each.offset >= stored.get(TP(each.topic, each.partition), 0)]
        return _AtHand(records, offsets, assignments, await asyncio.to_thread(self._reader.read, records))

    async def _carry_out(self, plan: Plan) -> bool:
        """Store all of the plan; False if its records are no longer what they were."""
        if not plan.is_stored:
            planned = await self._patiently(partial(records_of, self._log, plan))
            log.info("plan_carried_out", plan=plan.name, records=len(planned))
            if not planned:
                return False
            batch = await asyncio.to_thread(self._reader.read, planned)
            await self.store(batch, plan.name, is_repeat=True)
        return True

    async def _tell_others(self, subscription: Subscription, plan: Plan) -> None:
        """A plan of which others own a part stays written down until they have seen it, or are known to be dead."""
        assignments = subscription.assignments
        ours, theirs = plan.ranges.keys() & subscription.assigned, plan.ranges.keys() - subscription.assigned
        if not theirs:
            return
        starts = {tp: plan.starts[tp] for tp in ours}
        await self._patiently(lambda: subscription.commit(starts, plan.notes))
        until = time.monotonic() + OTHERS_WITHIN_S
        while subscription.assignments == assignments and time.monotonic() < until and not self._stopping.is_set():
            if await self._patiently(lambda: has_been_seen(self._log, GROUP, plan, theirs)):
                return
            await asyncio.sleep(POLL_S)

    async def _collect(self, subscription: Subscription) -> tuple[list[Record], dict[TP, int]]:
        """Records for one batch: as many as it takes, or those that come within the wait after the first."""
        records: list[Record] = []
        offsets: dict[TP, int] = {}
        size = 0
        due = 0.0
        while len(records) < self._most and size < MOST_BYTES:
            now = time.monotonic()
            if records and (now >= due or self._stopping.is_set()):
                break
            wait_s = min(POLL_S, due - now) if records else POLL_S
            polled = await self._patiently(partial(self._poll, subscription, self._most - len(records), wait_s))
            for tp, of_partition in polled.items():
                offsets[tp] = of_partition[-1].offset + 1
                records += of_partition
                first_ms = of_partition[0].timestamp_ms
                self._next_oldest_ms = min(self._next_oldest_ms or first_ms, first_ms)
                size += sum(len(record.value or b"") for record in of_partition)
            if records and not due:
                due = time.monotonic() + self._wait_s
            if not records and self._stopping.is_set():
                break
        return records, offsets

    async def _poll(self, subscription: Subscription, most: int, wait_s: float) -> dict[TP, list[Record]]:
        """As `Subscription.poll`, but over at once when the sink is to stop."""
        polling = asyncio.ensure_future(subscription.poll(most, wait_s))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((polling, stopping), return_when=asyncio.FIRST_COMPLETED)
            return await polling if polling.done() else {}
        finally:
            for task in (polling, stopping):
                task.cancel()
            await asyncio.gather(polling, stopping, return_exceptions=True)

    async def store(self, batch: Batch, name: str = "", *, is_repeat: bool = False) -> None:
        """Return when every row is stored, or stands in topic `rejected`.

        A batch with a name is the same whenever it has that name. `is_repeat`: some of it may be stored already.
        """
        if batch.skipped:
            self.metrics.skipped.inc(batch.skipped)
        bad = list(batch.bad)
        told: Counts[str] = Counts()
        for rows in batch.rows:
            told[rows.table] += 1
            await self._store(rows, bad, name and f"{name}:{rows.table}:{told[rows.table]}", is_repeat)
        self._tell(bad)
        # A dead letter that no row can be made of stands in topic `rejected` already.
        letters = [_letter(row) for row in bad if row.origin.topic != "rejected"]
        if letters:
            await self._patiently(lambda: self._log.append("rejected", letters))

    async def _store(self, rows: Rows, bad: list[BadRow], name: str, is_repeat: bool) -> None:
        """Store the rows; those that will never fit are added to `bad`."""
        waiting = [(rows, name)]
        while waiting:
            part, name = waiting.pop()
            try:
                await self._patiently(partial(self._insert, part, _Attempts(name, is_repeat)))
            except _TooLarge:
                waiting += _halves(part, name)
            except RowsRefused as refused:
                readable = _without_unreadable(part, bad) if part is rows else part
                if len(readable.origins) < len(part.origins):
                    waiting += [(readable, name and f"{name}r")] if readable.origins else []
                elif len(part.origins) > 1:
                    waiting += _halves(part, name)
                else:
                    why = Refused("ClickHouse refused the row", value=str(refused), mend=_MEND)
                    bad.append(BadRow(part.table, part.origins[0], why))

    async def _insert(self, rows: Rows, attempts: _Attempts) -> None:
        if attempts.is_repeat or not self._life:
            self._life = await self._analytics.life()
        life = self._life
        started = time.perf_counter()
        try:
            await self._analytics.insert(rows.table, rows.packed or rows.columns, attempts.token(life))
            if attempts.is_repeat and await self._analytics.life() != life:
                raise ClickHouseAway(f"{self._analytics.place} began anew while rows were repeated.")
        except ClickHouseError as error:
            attempts.is_repeat = True
            attempts.refusals += error.code is not None
            if error.code == _MEMORY and len(rows.origins) > FEW_ROWS:
                raise _TooLarge from error
            raise
        self.metrics.insert_seconds.labels(rows.table).observe(time.perf_counter() - started)
        self.metrics.inserts.labels(rows.table).inc()
        self.metrics.rows.labels(rows.table).inc(len(rows.origins))

    def _tell(self, bad: list[BadRow]) -> None:
        for table, count in Counts(row.table for row in bad).items():
            first = next(row for row in bad if row.table == table)
            log.warning("rows_refused", table=table, rows=count, first=_place(first.origin), why=str(first.refused))
            self.metrics.refused.labels(table).inc(count)

    # --- patience

    async def _patiently(
        self, attempt: Callable[[], Awaitable[Result]], passing: tuple[type[Exception], ...] = _PASSING
    ) -> Result:
        """Try until it works, for as long as ClickHouse or the log is away or busy.

        Raises:
            RowsRefused, _TooLarge: trying the same again will not help.
            _Stopped: the sink is to stop.
        """
        tries = 0
        while True:
            try:
                result = await attempt()
            except (RowsRefused, _TooLarge):
                if tries:
                    self._answers_again()
                raise
            except passing as error:
                await self._pause(error, tries)
                tries += 1
            else:
                if tries:
                    self._answers_again()
                return result

    async def _pause(self, error: Exception, tries: int) -> None:
        self.metrics.retries.inc()
        self.metrics.is_up.set(0)
        if tries == 0:
            log.warning("sink_waits", why=str(error))
        longest_s = min(LONGEST_WAIT_S, self._first_wait_s * 2**min(tries, 10))
        try:
            async with asyncio.timeout(max(self._first_wait_s, longest_s * random.uniform(0.5, 1.0))):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise _Stopped

    def _answers_again(self) -> None:
        self.metrics.is_up.set(1)
        log.info("sink_goes_on")


def _halves(rows: Rows, name: str) -> list[tuple[Rows, str]]:
    """The same rows as two, each with a name of its own, the second half first."""
    return [(half, name and f"{name}{which}") for half, which in zip(rows.halves(), "ba", strict=True)]


def _without_unreadable(rows: Rows, bad: list[BadRow]) -> Rows:
    """The rows whose JSON can be read. The others are found here, at once: halving would cost an insert for each."""
    fine = []
    for i, origin in enumerate(rows.origins):
        for name in _JSON_COLUMNS.get(rows.table, ()):
            if name in rows.columns:
                try:
                    _decode_any(rows.columns[name][i])
                except (msgspec.DecodeError, RecursionError) as error:
                    bad.append(BadRow(rows.table, origin, Refused("ClickHouse cannot store its JSON", field=name,
                                                                  value=str(error), mend=_MEND)))  # fmt: skip
                    break
        else:
            fine.append(i)
    return rows if len(fine) == len(rows.origins) else rows.only(fine)


def _place(record: Record) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"


def _letter(row: BadRow) -> Outgoing:
    """The dead letter of a row, with the same id whenever it is written."""
    origin = row.origin
    event = _event_of(origin)
    known = {} if event is None else {"workspace": event.workspace, "source": event.source,
                                      "message_id": event.message_id, "key": event.key}  # fmt: skip
    letter = Rejected.of(
        row.refused, id=blake2b(f"clickhouse\0{row.table}\0{_place(origin)}".encode(), digest_size=16).hexdigest(),
        at=from_ms(origin.timestamp_ms), by="clickhouse", record=origin.value or b"", record_key=origin.key or b"",
        topic=origin.topic, partition=origin.partition, offset=origin.offset, **known,
    )  # fmt: skip
    return Outgoing(origin.key, encode_rejected(letter))


def _event_of(record: Record) -> Event | None:
    try:
        return decode_event(record.value) if record.topic == "events" else None
    except (Refused, RecursionError):
        return None


async def behind(log_: Log) -> int:
    """How many records the sink has not committed yet."""
    waiting = 0
    for topic in TOPICS:
        committed = await log_.committed(GROUP, topic)
        for partition, (first, after) in (await log_.bounds(topic)).items():
            waiting += after - min(max(committed.get(partition, first), first), after)
    return waiting
