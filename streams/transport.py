"""Faust's transports for both grounds, with one reading loop: one message per partition and poll.

Faust pays for tasks, queues and acks once per message. Here a message is all the records a poll brought of one
partition, so that is paid once per batch; and what may be committed is not what was acked but what the worker marked
after its checkpoint. Everything else of Faust stays: app, agent, group membership, rebalancing, commits.

The overridden hooks of Faust are private in part; `tests/test_transport.py` guards each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple

import aiokafka
import faust
import structlog
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.transport import base
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP
from faust.types import ConsumerMessage, RecordMetadata

from streams.embedded import EmbeddedLog
from streams.log import TP, Outgoing, Record

log = structlog.get_logger(__name__)

MOST_RECORDS = 2_000  # of one partition in one batch on the embedded ground
FETCH_WAIT_MS = 500  # the broker answers at once when there is anything; else it waits so long
LARGEST_FETCH_BYTES = 2 * 1024 * 1024  # of one partition


class Batch(NamedTuple):
    """What one poll brought of one partition, in order."""

    partition: int
    records: list[Record]


class BatchSchema(faust.Schema):  # type: ignore[misc]
    """Hands a batch through as it is; the records are decoded by the stage, which rejects what it cannot read."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, message.headers, message)

        return decode


class BatchReading:
    """The reading loop, for a Faust consumer. All its topics are read in batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._marked: dict[Any, int] = {}
        super().__init__(*args, **kwargs)

    def mark(self, tp: TP, offset: int) -> None:
        """Everything before `offset` is durable: it may be committed."""
        self._marked[FaustTP(*tp)] = offset

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109
        fetched, active = await self._wait_next_records(timeout)  # type: ignore[attr-defined]
        generation = self.app.consumer_generation_id  # type: ignore[attr-defined]
        if fetched is None or self.should_stop:  # type: ignore[attr-defined]
            return
        if not self.flow_active:  # type: ignore[attr-defined]
            try:
                await self.perform_seek()  # type: ignore[attr-defined]
            except Exception as error:  # a rebalance took the partitions meanwhile; those assigned next are sought anew
                log.info("not_sought_while_rebalancing", error=repr(error))
            return
        for tp, records in fetched.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:  # type: ignore[attr-defined]
                return
            if active is None or tp in active or tp in self._buffered_partitions:  # type: ignore[attr-defined]
                last = records[-1]
                yield tp, ConsumerMessage(
                    topic=tp.topic, partition=tp.partition, offset=last.offset, timestamp=last.timestamp_ms / 1000,
                    timestamp_type=0, headers=(), key=None, value=Batch(tp.partition, records), checksum=None,
                    serialized_key_size=0, serialized_value_size=0, tp=tp, generation_id=generation,
                )  # fmt: skip

    def ack(self, message: Any) -> bool:
        message.acked = True
        self._unacked_messages.discard(message)  # type: ignore[attr-defined]
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[Any]:
        """What may have something to commit. Faust's own list is empty in a rebalance, when it matters most."""
        return [tp for tp in self._marked if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: Any) -> int | None:
        # Faust's streams note each batch that went through, past `ack`, and only Faust's own `_new_offset` takes the
        # notes away again: they would stay for ever.
        self._acked[tp].clear()  # type: ignore[attr-defined]
        self._acked_index[tp].clear()  # type: ignore[attr-defined]
        return self._marked.get(tp)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Gaps in the offsets mean nothing where a mark says what is done."""

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await super().on_partitions_revoked(revoked)  # type: ignore[misc]
        for tp in revoked:
            self._marked.pop(tp, None)


# --- Kafka


class KafkaThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread with aiokafka's consumer."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        return aiokafka.AIOKafkaConsumer(
            **self.app.kafka_options,
            group_id=conf.id,
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=LARGEST_FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
        )


class KafkaConsumer(BatchReading, driver.Consumer):  # type: ignore[misc]
    """Reads from Apache Kafka."""

    def _new_consumer_thread(self) -> KafkaThread:
        return KafkaThread(self, loop=self.loop, beacon=self.beacon)


class KafkaProducer(driver.Producer):  # type: ignore[misc]
    """Faust's producer, idempotent. The stage appends by itself; this is for Faust code that data engineers bring."""

    def _new_producer(self, transactional_id: str | None = None) -> aiokafka.AIOKafkaProducer:
        return aiokafka.AIOKafkaProducer(**self.app.kafka_options, acks="all", enable_idempotence=True)


class KafkaTransport(driver.Transport):  # type: ignore[misc]
    Consumer = KafkaConsumer
    Producer = KafkaProducer


# --- embedded


class EmbeddedProducer(base.Producer):  # type: ignore[misc]
    """Appends to the embedded log. The stage appends by itself; this is for Faust code that data engineers bring."""

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        await self.app.ground.create_topic(topic, partitions, None if kwargs.get("compacting") else 7 * 86_400_000, 1)

    def key_partition(self, topic: str, key: bytes) -> Any:
        raise NotImplementedError("the log places records by itself")

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None, timestamp: float | None,
        headers: Any, *, transactional_id: str | None = None,
    ) -> asyncio.Future[Any]:  # fmt: skip
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        record = Outgoing(key, value, partition, tuple(pairs))
        return asyncio.ensure_future(self._send(topic, record))

    async def _send(self, topic: str, record: Outgoing) -> Any:
        placed = (await self.app.ground.append(topic, [record]))[0]
        tp = FaustTP(topic, placed.partition)
        return RecordMetadata(topic=topic, partition=placed.partition, topic_partition=tp, offset=placed.first)

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> Any:
        return await (await self.send(*args, **kwargs))

    async def flush(self) -> None:
        await self.buffer.flush()

    def supports_headers(self) -> bool:
        return True


class EmbeddedConsumer(BatchReading, FaustConsumer):  # type: ignore[misc]
    """Reads from the embedded log. One process owns it, so all partitions are assigned at once."""

    consumer_stopped_errors = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._assigned: set[Any] = set()
        self._positions: dict[Any, int] = {}

    @property
    def ground(self) -> EmbeddedLog:
        ground = self.app.ground
        assert isinstance(ground, EmbeddedLog)
        return ground

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("topics are made by `tidewire topics create`")

    async def subscribe(self, topics: Iterable[str]) -> None:
        assigned = {FaustTP(topic, p) for topic in topics for p in range(self.ground.partitions(topic))}
        if assigned == self._assigned:
            return
        self.app.on_rebalance_start()
        self._assigned = assigned
        self._positions = {tp: self.ground.position(self.app.conf.id, TP(*tp)) for tp in assigned}
        self.add_future(self._assign(assigned))

    async def _assign(self, assigned: set[Any]) -> None:
        self.app.consumer_generation_id = 1
        await self.on_partitions_revoked(set())
        await self.on_partitions_assigned(assigned, 1)

    async def _getmany(self, active_partitions: set[Any] | None, timeout: float) -> dict[Any, list[Record]]:  # noqa: ASYNC109
        fetched = await self._poll(active_partitions)
        if not fetched:
            await self.ground.grown(timeout)
            fetched = await self._poll(active_partitions)
        return fetched

    async def _poll(self, active: set[Any] | None) -> dict[Any, list[Record]]:
        fetched: dict[Any, list[Record]] = {}
        for tp in list(self._assigned if active is None else active):  # a full buffer takes partitions out meanwhile
            at = self._positions.get(tp, 0)
            if at < self.ground.end(TP(*tp)):
                records = await self.ground.read(TP(*tp), at, MOST_RECORDS)
                if records:
                    fetched[tp] = records
                    self._positions[tp] = records[-1].offset + 1
        return fetched

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        await self.ground.commit(self.app.conf.id, {TP(*tp): offset for tp, offset in offsets.items()})
        return True

    async def seek_to_committed(self) -> dict[Any, int]:
        self._positions = {tp: self.ground.position(self.app.conf.id, TP(*tp)) for tp in self._assigned}
        return dict(self._positions)

    async def _seek(self, partition: Any, offset: int) -> None:
        self._positions[partition] = offset

    async def seek_wait(self, partitions: Mapping[Any, int]) -> None:
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    async def position(self, tp: Any) -> int | None:
        return self._positions.get(tp)

    def assignment(self) -> set[Any]:
        return set(self._assigned)

    def highwater(self, tp: Any) -> int:
        return self.ground.end(TP(*tp))

    async def highwaters(self, *partitions: Any) -> dict[Any, int]:
        return {tp: self.highwater(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: Any) -> dict[Any, int]:
        return {tp: (await self.ground.bounds(tp.topic))[tp.partition][0] for tp in partitions}

    def topic_partitions(self, topic: str) -> int | None:
        return self.ground.partitions(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        raise NotImplementedError("the log places records by itself")

    def _new_topicpartition(self, topic: str, partition: int) -> Any:
        return FaustTP(topic, partition)

    def _to_message(self, tp: Any, record: Any) -> Any:
        raise NotImplementedError("read in batches only")


class EmbeddedTransport(base.Transport):  # type: ignore[misc]
    Consumer = EmbeddedConsumer
    Producer = EmbeddedProducer

    default_port = 0
    driver_version = "tidewire"


def register() -> None:
    """Make Faust use these transports for the schemes `embedded` and `kafka`."""
    TRANSPORTS.aliases["embedded"] = "streams.transport:EmbeddedTransport"
    TRANSPORTS.aliases["kafka"] = "streams.transport:KafkaTransport"
