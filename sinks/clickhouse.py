"""The ClickHouse sink: what the topics say, stored and read once.

Records are stored at least once: one insert for each table and batch, and only after all of them returned are the
offsets committed. After a crash the same records come again, in whatever batches; every table knows a row by its key
and keeps one (ReplacingMergeTree, read with FINAL), so they are read once.

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
from typing import Protocol, TypeVar

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from processors.base import Table
from schemas.errors import Refused
from schemas.event import Event, decode_event
from schemas.rejected import Rejected, encode_rejected
from schemas.times import from_ms
from sinks.analytics import Analytics, ClickHouseAway, ClickHouseError, RowsRefused
from sinks.batch import TOPICS, BadRow, Batch, Reader, Rows
from sinks.migrate import migrate
from streams.log import TP, Log, LogBusy, Outgoing, Record, Subscription

log = structlog.get_logger(__name__)

GROUP = "tidewire-clickhouse"
MOST_BYTES = 64 * 1024 * 1024  # of a batch, as the records stand in the log
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0  # between two tries
POLL_S = 0.5
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


class SinkMetrics:
    """What the sink counts and times."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rows = Counter("tidewire_sink_rows", "Rows that ClickHouse stored, repeated ones among them.", ["table"],
                            registry=registry)  # fmt: skip
        self.inserts = Counter("tidewire_sink_inserts", "Inserts that returned.", ["table"], registry=registry)
        self.refused = Counter("tidewire_sink_refused_rows", "Rows that went to topic `rejected`.", ["table"],
                               registry=registry)  # fmt: skip
        self.skipped = Counter("tidewire_sink_skipped_records",
                               "Records of topic `events` that are no events; the customer stage rejects them.",
                               registry=registry)  # fmt: skip
        self.retries = Counter("tidewire_sink_retries", "Tries that failed and were repeated.", registry=registry)
        self.is_up = Gauge("tidewire_sink_up", "1 while what it needs answers, 0 while it waits for it.",
                           registry=registry)  # fmt: skip
        self.insert_seconds = Histogram("tidewire_sink_insert_seconds", "One insert, from call to answer.", ["table"],
                                        registry=registry)  # fmt: skip
        self.behind_seconds = Gauge("tidewire_sink_behind_seconds",
                                    "Age of the oldest record of the batch stored last, when it was stored.",
                                    registry=registry)  # fmt: skip
        self.is_up.set(1)


class _Stopped(Exception):
    """The sink was told to stop while it waited; what it held comes again."""


class _TooLarge(Exception):
    """ClickHouse has not the memory for so many rows at once."""


class ClickHouseSink:
    """Stores what the topics say. `tables` are those of processors."""

    def __init__(self, log: Log, analytics: Analytics, tables: Iterable[Table], settings: SinkSettings,
                 registry: CollectorRegistry | None = None) -> None:  # fmt: skip
        self._log = log
        self._analytics = analytics
        self._tables = tuple(tables)
        self._most = settings.sink_batch
        self._wait_s = settings.sink_wait_ms / 1000
        self._reader = Reader(self._tables)
        self.metrics = SinkMetrics(registry if registry is not None else CollectorRegistry())
        self._stopping = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    async def run(self) -> None:
        """Migrate, then store until `stop`.

        Raises:
            TidewireError: a table cannot become what it must be; see `sinks.migrate.migrate`.
        """
        self._done.clear()
        try:
            await self._patiently(lambda: migrate(self._analytics, self._tables), (ClickHouseAway,))
            subscription = await self._patiently(lambda: self._log.subscribe(GROUP, TOPICS))
            try:
                while not self._stopping.is_set():
                    await self._turn(subscription)
            finally:
                await subscription.close()
        except _Stopped:
            pass
        finally:
            self._done.set()

    async def stop(self) -> None:
        """Finish the batch at hand; return when `run` has. What is not committed comes again."""
        self._stopping.set()
        await self._done.wait()

    # --- one batch

    async def _turn(self, subscription: Subscription) -> None:
        records, offsets = await self._collect(subscription)
        if not records:
            return
        batch = await asyncio.to_thread(self._reader.read, records)
        await self.store(batch)
        await self._patiently(lambda: subscription.commit(offsets))
        oldest_ms = min(record.timestamp_ms for record in records)
        self.metrics.behind_seconds.set(max(0.0, time.time() - oldest_ms / 1000))

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

    async def store(self, batch: Batch) -> None:
        """Return when every row is stored, or stands in topic `rejected`."""
        if batch.skipped:
            self.metrics.skipped.inc(batch.skipped)
        bad = list(batch.bad)
        for rows in batch.rows:
            await self._store(rows, bad)
        self._tell(bad)
        # A dead letter that no row can be made of stands in topic `rejected` already.
        letters = [_letter(row) for row in bad if row.origin.topic != "rejected"]
        if letters:
            await self._patiently(lambda: self._log.append("rejected", letters))

    async def _store(self, rows: Rows, bad: list[BadRow]) -> None:
        """Store the rows; those that will never fit are added to `bad`."""
        waiting = [rows]
        while waiting:
            part = waiting.pop()
            try:
                await self._patiently(partial(self._insert, part))
            except _TooLarge:
                waiting += part.halves()
            except RowsRefused as refused:
                readable = _without_unreadable(part, bad) if part is rows else part
                if len(readable.origins) < len(part.origins):
                    waiting += [readable] if readable.origins else []
                elif len(part.origins) > 1:
                    waiting += part.halves()
                else:
                    why = Refused("ClickHouse refused the row", value=str(refused), mend=_MEND)
                    bad.append(BadRow(part.table, part.origins[0], why))

    async def _insert(self, rows: Rows) -> None:
        started = time.perf_counter()
        try:
            await self._analytics.insert(rows.table, rows.columns)
        except ClickHouseAway as error:
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
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**min(tries, 10))
        try:
            async with asyncio.timeout(longest_s * random.uniform(0.5, 1.0)):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise _Stopped

    def _answers_again(self) -> None:
        self.metrics.is_up.set(1)
        log.info("sink_goes_on")


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
