"""What we override of Faust and aiokafka is there, and works as we think. A version that changes it turns this red."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from importlib import metadata
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers import aiokafka as driver
from prometheus_client import CollectorRegistry

from config.settings import Settings
from processors.fold import Fold
from schemas.event import encode_event
from streams import kafka_records
from streams.app import StageApp
from streams.grounds import open_log
from streams.lines import CUSTOMERS, EVENTS
from streams.log import Log, Outgoing
from streams.metrics import StageMetrics
from streams.partitions import let_go_on
from streams.stage import CustomerStage
from streams.topics import create_topics
from streams.transport import BatchReading, EmbeddedConsumer, KafkaConsumer, KafkaThread
from tests.streams.world import IGNORE_WHAT_FAUST_LEFT, TallyProcessor, an_event, collect_what_faust_left


def test_the_versions_that_were_read_are_pinned():
    requirements = metadata.requires("tidewire") or []

    for name in ("faust-streaming", "mode-streaming", "aiokafka"):
        assert f"{name}=={metadata.version(name)}" in requirements


def test_every_method_overridden_exists_in_faust():
    bases = {BatchReading: FaustConsumer, EmbeddedConsumer: FaustConsumer, KafkaConsumer: driver.Consumer,
             KafkaThread: driver.AIOKafkaConsumerThread}  # fmt: skip
    own = {"mark", "_records", "ground", "_assign", "_poll"}

    for ours, theirs in bases.items():
        for name, member in vars(ours).items():
            if inspect.isfunction(member) and name not in own and not name.startswith("__"):
                assert hasattr(theirs, name), f"{ours.__name__}.{name}"


def test_what_the_reading_loop_uses_of_fausts_consumer_is_there():
    source = inspect.getsource(FaustConsumer)

    for used in ("def _wait_next_records", "_buffered_partitions", "_unacked_messages", "offset = self._new_offset(tp)",
                 "self._filter_tps_with_pending_acks(topics)", "self._add_gap(", "self._acked_index[tp]",
                 "self._acked[tp]"):  # fmt: skip
        assert used in source


def test_what_the_records_use_of_aiokafkas_fetcher_is_there():
    source = inspect.getsource(fetcher)

    for used in ("partition_records = PartitionRecords(", "self._records_iterator = self._unpack_records()",
                 "for msg in self._partition_records:", "consumer_record = self._consumer_record(tp, record)",
                 "self._aborted_transactions = sorted("):  # fmt: skip
        assert used in source


@pytest.mark.parametrize("read", [0, 1, 3, 9])
def test_a_fetch_that_is_thrown_away_is_freed_at_once(read: int) -> None:
    builder = DefaultRecordBatchBuilder(magic=2, compression_type=0, is_transactional=0, producer_id=-1,
                                        producer_epoch=-1, base_sequence=0, batch_size=10_000)  # fmt: skip
    for number in range(5):
        builder.append(number, 1_000 + number, b"key", b"value %d" % number, [])
    fetched = kafka_records.Records(TopicPartition("t", 0), MemoryRecords(bytes(builder.build())), None, 2, None, None,
                                    True, READ_COMMITTED)  # fmt: skip
    taken = list(islice(fetched, read))
    assert [record.value for record in taken] == [b"value 2", b"value 3", b"value 4"][:read]
    assert fetched.next_fetch_offset == 2 + len(taken)
    seen = weakref.ref(fetched)
    gc.disable()
    try:
        del fetched
        assert seen() is None
    finally:
        gc.enable()


def test_what_the_appender_uses_of_aiokafkas_batches_is_there():
    source = inspect.getsource(BatchBuilder)

    for used in ("self._builder = DefaultRecordBatchBuilder(", "self._relative_offset = 0", "key=key_bytes"):
        assert used in source


async def _behind(log: Log, app: StageApp) -> int:
    return sum(app.worker.behind_of(await log.bounds(EVENTS)).values())


async def _run(settings: Settings, app_events: range, log: Log) -> dict[int, int]:
    """Start the stage, send events, and return what is committed when it has stopped."""
    stage = CustomerStage(Fold([TallyProcessor()]), partitions=log.partitions(EVENTS), most_links=100)
    app = StageApp(log, stage, settings, StageMetrics(CollectorRegistry()), fatal=_fatal)
    await app.start()
    events = [an_event(i, user=f"u{i % 7}") for i in app_events]
    await log.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event)) for event in events])
    async with asyncio.timeout(60):
        while sum(app.worker.progress()) == 0 or await _behind(log, app):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await app._commit()
    consumer = app.faust.consumer
    noted = consumer._n_acked, sum(map(len, [*consumer._acked.values(), *consumer._acked_index.values()]))
    await app.stop()
    assert noted[0] > 0 and noted[1] == 0  # Faust's streams note batches past `ack`, and nothing of it stays
    return await log.committed(CUSTOMERS.group, EVENTS)


def _fatal(what: str, error: BaseException | None) -> None:
    raise AssertionError(what) from error


async def _check_ground(settings: Settings) -> None:
    log = open_log(settings)
    await log.start()
    await create_topics(log, settings)
    try:
        committed = await _run(settings, range(500), log)
        assert sum(committed.values()) == 500
        committed = await _run(settings, range(500, 700), log)  # goes on where it stopped
        assert sum(committed.values()) == 700
        await _check_stop(settings, log)
    finally:
        await log.stop()
        collect_what_faust_left()


async def _check_stop(settings: Settings, log: Log) -> None:
    """A partition that stops is not read any further, goes on when it is let, and the others never notice."""
    stage = CustomerStage(Fold([TallyProcessor()]), partitions=log.partitions(EVENTS), most_links=100)
    app = StageApp(log, stage, settings, StageMetrics(CollectorRegistry()), fatal=_fatal)
    await app.start()
    good = [an_event(i, user=f"v{i}") for i in range(200)]
    await log.append(EVENTS, [Outgoing(b"w/u:x", b"junk", 0)] * 500)
    await log.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event)) for event in good])
    async with asyncio.timeout(60):
        while not (left := app.worker.behind_of(await log.bounds(EVENTS))) or any(  # noqa: ASYNC110
            count for partition, count in left.items() if partition
        ):  # fmt: skip
            await asyncio.sleep(0.05)
        assert left[0] >= 400
        await let_go_on(log, 0, by="anna", let_through=True)
        while await _behind(log, app):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await app.stop()
    rejected = sum(end for _, end in (await log.bounds("rejected")).values())
    assert rejected == 500


async def test_the_embedded_ground_reads_in_batches_and_commits_what_was_marked(tmp_path: Path):
    await _check_ground(Settings(data=tmp_path, fsync=False, checkpoint_ms=50))


async def test_a_buffer_that_fills_while_the_log_is_read_does_not_stop_the_reading(tmp_path: Path):
    settings = Settings(data=tmp_path, fsync=False, checkpoint_ms=50)
    log = open_log(settings)
    await log.start()
    await create_topics(log, settings)
    stage = CustomerStage(Fold([TallyProcessor()]), partitions=log.partitions(EVENTS), most_links=100)
    app = StageApp(log, stage, settings, StageMetrics(CollectorRegistry()), fatal=_fatal)
    await app.start()
    consumer, read = app.faust.consumer, log.read
    full = [True]

    async def read_and_fill(tp, offset, most):  # type: ignore[no-untyped-def]
        if full:
            full.clear()
            consumer.on_buffer_full(next(iter(consumer._get_active_partitions())))
        return await read(tp, offset, most)

    log.read = read_and_fill  # type: ignore[method-assign]
    events = [an_event(i, user=f"u{i}") for i in range(50)]
    await log.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event)) for event in events])
    async with asyncio.timeout(30):
        while full:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)

    assert not app.faust.crashed
    await app.stop()
    await log.stop()


@IGNORE_WHAT_FAUST_LEFT
@pytest.mark.kafka
async def test_the_kafka_ground_reads_in_batches_and_commits_what_was_marked(tmp_path: Path, own_kafka):
    await _check_ground(Settings(data=tmp_path, log=own_kafka.url, checkpoint_ms=50))
