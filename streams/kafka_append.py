"""Appending to Kafka by many callers at once: what they offer meanwhile goes out together, in one batch a partition.

A *lane* is the way into one partition. It has one batch under way at a time; what comes in the meantime waits, and
goes as the next batch when Kafka has acknowledged. So order is kept, and the more callers there are, the larger the
batches. A batch is retried by the idempotent producer until Kafka takes it or refuses it: it is stored once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownError,
)

from schemas.errors import TidewireError
from streams.log import TP, LogBusy, LogUnavailable, Outgoing, Placed

log = structlog.get_logger(__name__)

BATCH_BYTES = 1_000_000  # Kafka's default limit of a batch is 1,048,588
MOST_HELD_BYTES = 64 * 1024 * 1024  # of records not yet acknowledged; beyond it the log says it is busy
LINGER_S = 0.003  # what comes within it goes out together
OVERHEAD_BYTES = 80  # of a record: lengths, offset, timestamp, and its share of the objects that hold it
LOOK_EVERY_S = 0.25
_NO_HEADERS: list[tuple[str, bytes]] = []

# Answers of Kafka about the records, not about itself: sent again they would be refused again. UnknownError is what
# aiokafka makes of answers it has no name for, such as 87, a record without a key for a compacted topic.
REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError, UnknownError)


class _Ticket:
    """One call of append: who waits, until when, and how many records are not yet acknowledged."""

    __slots__ = ("deadline", "done", "is_sent", "left", "placed")

    def __init__(self, left: int, deadline: float, done: asyncio.Future[list[Placed]]) -> None:
        self.left, self.deadline, self.done = left, deadline, done
        self.is_sent = False
        self.placed: list[Placed] = []

    def fail(self, error: TidewireError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Piece:
    """Records of one ticket for one partition that are not yet sent, from `start` on; `size` is what they hold."""

    __slots__ = ("is_alone", "records", "size", "start", "ticket")

    def __init__(self, ticket: _Ticket, records: Sequence[Outgoing], size: int, is_alone: bool = False) -> None:
        self.ticket, self.records, self.size, self.is_alone = ticket, records, size, is_alone
        self.start = 0


class _Sent(NamedTuple):
    """Records of one ticket in a batch, and how many bytes they were counted for."""

    ticket: _Ticket
    records: Sequence[Outgoing]
    size: int


class Load(NamedTuple):
    """What one call appends to one partition, and the bytes it holds until it is acknowledged."""

    records: list[Outgoing]
    size: int


class _Lane:
    __slots__ = ("sent_at", "task", "tp", "waiting")

    def __init__(self, tp: TP) -> None:
        self.tp = tp
        self.waiting: deque[_Piece] = deque()
        self.task: asyncio.Task[None] | None = None
        self.sent_at: float | None = None  # when the batch under way left


class Appender:
    """Gathers appends into batches.

    Args:
        make_producer: a new idempotent producer, not started, with batches of BATCH_BYTES.
        timeout_s: how long a caller waits for Kafka.
    """

    def __init__(self, make_producer: Callable[[], Any], timeout_s: float) -> None:
        self._make_producer = make_producer
        self._timeout_s = timeout_s
        self._producer: Any = None
        self._renewal: asyncio.Task[None] | None = None
        self._lanes: dict[TP, _Lane] = {}
        self._fresh: list[_Lane] = []  # have records, and start when the linger is over
        self._tickets: deque[_Ticket] = deque()  # in order of their deadlines
        self._held_bytes = 0
        self._is_open = False
        self._watch: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises KafkaError or TimeoutError when no broker answers."""
        self._producer = await self._started()
        self._is_open = True
        self._watch = asyncio.create_task(self._expire())

    async def _started(self) -> AIOKafkaProducer:
        producer = self._make_producer()
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except BaseException:
            await _close(producer, self._timeout_s)
            raise
        return producer

    async def stop(self) -> None:
        """Wait until what is under way is acknowledged, at most `timeout_s`; what is not by then raises."""
        self._is_open = False
        self._start_lanes()
        running = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if running:
            await asyncio.wait(running, timeout=self._timeout_s)
        for ticket in self._tickets:
            ticket.fail(LogUnavailable("the log was closed before Kafka had acknowledged"))
        tasks = [task for task in (*running, self._watch, self._renewal) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._closing, return_exceptions=True)
        if self._producer is not None:
            await _close(self._producer, self._timeout_s)
            self._producer = None

    # --- callers

    async def append(self, topic: str, by_partition: dict[int, Load]) -> list[Placed]:
        """As `streams.log.Log.append`, with the partitions chosen."""
        if not self._is_open:
            raise LogUnavailable("the log is closed")
        now = time.monotonic()
        lanes = []
        for partition in by_partition:
            tp = TP(topic, partition)
            lane = self._lanes.get(tp)
            if lane is None:
                lane = self._lanes[tp] = _Lane(tp)
            if lane.sent_at is not None and now - lane.sent_at > self._timeout_s:
                raise LogBusy(f"Kafka has not answered for {now - lane.sent_at:.0f} s", retry_after_s=5)
            lanes.append(lane)
        size = sum(load.size for load in by_partition.values())
        if self._held_bytes and self._held_bytes + size > MOST_HELD_BYTES:
            raise LogBusy(f"{self._held_bytes} bytes already wait for Kafka")
        self._held_bytes += size
        count = sum(len(load.records) for load in by_partition.values())
        ticket = _Ticket(count, now + self._timeout_s, asyncio.get_running_loop().create_future())
        self._tickets.append(ticket)
        for lane, load in zip(lanes, by_partition.values(), strict=True):
            lane.waiting.append(_Piece(ticket, *load))
            if lane.task is None:
                self._start_soon(lane)
        try:
            return await ticket.done
        finally:
            del ticket  # else an error, by its traceback, would hold itself and the records until garbage is looked for

    async def _expire(self) -> None:
        """Tell those who waited too long. What is under way stays so: Kafka may yet take it."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._fail_late(time.monotonic())
            for lane in self._lanes.values():
                self._drop_dead(lane)

    def _fail_late(self, now: float) -> None:
        while self._tickets and (self._tickets[0].done.done() or self._tickets[0].deadline < now):
            ticket = self._tickets.popleft()
            if ticket.is_sent:
                ticket.fail(LogUnavailable(f"Kafka did not acknowledge within {self._timeout_s:g} s"))
            else:
                ticket.fail(LogBusy(f"Kafka took nothing for {self._timeout_s:g} s", retry_after_s=5))

    # --- lanes

    def _start_soon(self, lane: _Lane) -> None:
        if not self._fresh:
            asyncio.get_running_loop().call_later(LINGER_S, self._start_lanes)
        if lane not in self._fresh:
            self._fresh.append(lane)

    def _start_lanes(self) -> None:
        fresh, self._fresh = self._fresh, []
        for lane in fresh:
            if lane.task is None:
                lane.task = asyncio.create_task(self._drive(lane))

    async def _drive(self, lane: _Lane) -> None:
        """Send batch after batch until nothing waits."""
        try:
            while lane.waiting:
                if self._producer is None:
                    await self._renew(None)
                    self._drop_dead(lane)
                    continue
                await self._send_batch(lane, self._producer)
        except Exception:  # a bug: those who wait must hear of it
            log.exception("append_failed", topic=lane.tp.topic, partition=lane.tp.partition)
            while lane.waiting:
                self._forget(lane.waiting.popleft()).fail(LogUnavailable("appending to Kafka failed; see the log"))
        finally:
            lane.task = None

    async def _send_batch(self, lane: _Lane, producer: AIOKafkaProducer) -> None:
        batch = producer.create_batch()
        sent: list[_Sent] = []
        lane.sent_at = time.monotonic()
        try:
            self._fill(batch, lane, sent)
            if not sent:
                return
            placed = await (await producer.send_batch(batch, lane.tp.topic, partition=lane.tp.partition))
        except KafkaError as error:
            self._fail(lane, sent, error)
            # The batch that failed took a sequence number with it: with this producer all later ones would be refused.
            await self._renew(producer)
            return
        except Exception as error:
            self._fail(lane, sent, error)
            raise
        finally:
            lane.sent_at = None
        self._acknowledge(lane, sent, placed.offset)

    def _fill(self, batch: Any, lane: _Lane, sent: list[_Sent]) -> None:
        """Move records that wait into the batch, until it is full; `sent` says whose."""
        add, now_ms = batch._builder.append, time.time_ns() // 1_000_000
        count = 0
        while lane.waiting:
            piece = lane.waiting[0]
            if piece.ticket.done.done():  # it failed elsewhere, waited too long, or its caller went away
                self._forget(lane.waiting.popleft())
                continue
            if piece.is_alone and sent:
                break
            start = at = piece.start
            records = piece.records
            for key, value, _, headers in records[start:] if start else records:
                if add(count, now_ms, key, value, list(headers) if headers else _NO_HEADERS) is None:
                    break
                at += 1
                count += 1
            is_whole = at == len(records)
            if at > start:
                piece.ticket.is_sent = True
                size = piece.size if is_whole else piece.size * (at - start) // (len(records) - start)
                piece.size -= size
                sent.append(_Sent(piece.ticket, records[start:at] if start or not is_whole else records, size))
            if not is_whole:
                piece.start = at
                break
            lane.waiting.popleft()
            if piece.is_alone:
                break
        batch._relative_offset = count
        batch.close()

    def _acknowledge(self, lane: _Lane, sent: list[_Sent], first: int) -> None:
        for ticket, records, size in sent:
            count = len(records)
            self._held_bytes -= size
            if first < 0:  # Kafka knows that it has the batch, but no longer where
                ticket.fail(LogUnavailable("Kafka had stored the records already and does not say where"))
                continue
            ticket.placed.append(Placed(lane.tp.partition, first, count))
            first += count
            ticket.left -= count
            if not ticket.left and not ticket.done.done():
                ticket.done.set_result(_joined(ticket.placed))

    def _fail(self, lane: _Lane, sent: list[_Sent], error: Exception) -> None:
        about = f"topic {lane.tp.topic!r}, partition {lane.tp.partition}"
        if isinstance(error, REFUSALS) and len(sent) > 1:
            # One of several is to blame: each goes alone, before what waits.
            log.warning("append_divided", topic=lane.tp.topic, partition=lane.tp.partition, error=repr(error))
            lane.waiting.extendleft(_Piece(*each, is_alone=True) for each in reversed(sent))
            return
        for ticket, _, size in sent:
            self._held_bytes -= size
            if isinstance(error, REFUSALS):
                ticket.fail(TidewireError(f"Kafka refused the records for {about}: {_said(error)}"))
            elif isinstance(error, TopicAuthorizationFailedError):
                ticket.fail(TidewireError(f"Kafka does not let this user write to {about}"))
            else:
                ticket.fail(LogUnavailable(f"Kafka did not store the records for {about}: {_said(error)}"))

    def _drop_dead(self, lane: _Lane) -> None:
        while lane.waiting and lane.waiting[0].ticket.done.done():
            self._forget(lane.waiting.popleft())

    def _forget(self, piece: _Piece) -> _Ticket:
        self._held_bytes -= piece.size
        return piece.ticket

    # --- the producer

    async def _renew(self, failed: AIOKafkaProducer | None) -> None:
        """Put a new producer in the place of one that failed; lanes that ask at once share it."""
        if self._producer is not failed:
            return
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._replace(failed))
        await asyncio.shield(self._renewal)

    async def _replace(self, failed: AIOKafkaProducer | None) -> None:
        self._producer = None
        try:
            if failed is not None:  # batches of other lanes are still under way with it
                closing = asyncio.create_task(_close(failed, self._timeout_s))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            self._producer = await self._started()
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("kafka_not_reached", error=_said(error))
            await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._renewal = None


async def _close(producer: AIOKafkaProducer, timeout_s: float) -> None:
    """Close a producer even if Kafka is gone: `stop` alone would wait for ever for what was not acknowledged."""
    try:
        async with asyncio.timeout(timeout_s):
            await producer.stop()
    except (KafkaError, TimeoutError):
        await asyncio.gather(producer._sender.close(), return_exceptions=True)
        await asyncio.gather(producer.client.close(), return_exceptions=True)


def _joined(placed: list[Placed]) -> list[Placed]:
    """By partition, with neighbours made one."""
    if len(placed) == 1:
        return placed
    joined: list[Placed] = []
    for place in sorted(placed):
        if joined and joined[-1].partition == place.partition and joined[-1].first + joined[-1].count == place.first:
            place = Placed(place.partition, joined[-1].first, joined.pop().count + place.count)
        joined.append(place)
    return joined


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


