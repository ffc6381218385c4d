"""A worker that leaves in good order: who goes on after it handles no record again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from config.settings import Settings
from processors.fold import Fold
from schemas.event import encode_event
from streams.app import SESSION_TIMEOUT_S, StageApp
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.lines import CUSTOMERS, EVENTS
from streams.log import TP, Log, Outgoing, Record
from streams.metrics import StageMetrics
from streams.stage import CustomerStage
from streams.topics import create_topics
from tests.kafka_broker import Kafka
from tests.streams.world import IGNORE_WHAT_FAUST_LEFT, TallyProcessor, an_event, collect_what_faust_left

pytestmark = IGNORE_WHAT_FAUST_LEFT


class SlowToCommit(EmbeddedLog):
    """A log in which a commit is always under way, as it is where the broker is far."""

    async def commit(self, group: str, offsets: Mapping[TP, int], notes: Mapping[TP, str] | None = None) -> None:
        await asyncio.sleep(0.4)
        await super().commit(group, offsets, notes)


def fatal(what: str, error: BaseException | None) -> None:
    raise AssertionError(what) from error


def app_of(log: Log, settings: Settings, registry: CollectorRegistry) -> StageApp:
    stage = CustomerStage(Fold([TallyProcessor()]), partitions=log.partitions(EVENTS), most_links=100)
    return StageApp(log, stage, settings, StageMetrics(registry), fatal=fatal)


def handled(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("tidewire_stage_records_total", {"outcome": outcome}) or 0.0


async def feed(log: Log, first: int, count: int) -> None:
    for number in range(first, first + count):
        event = an_event(number, user=f"u{number % 7}", minute=number)
        await log.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event))])


async def until(registry: CollectorRegistry, count: int) -> None:
    async with asyncio.timeout(60):
        while sum(handled(registry, outcome) for outcome in ("applied", "replayed", "duplicates")) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_was_handled_until_the_stop_is_not_handled_again_even_if_a_commit_was_under_way(tmp_path: Path):
    settings = Settings(data=tmp_path, checkpoint_ms=10, fsync=False)
    first, second = CollectorRegistry(), CollectorRegistry()
    log = SlowToCommit(tmp_path / "log.db", fsync=False)
    await log.start()
    try:
        await create_topics(log, settings)
        app = app_of(log, settings, first)
        await app.start()
        feeding = asyncio.create_task(feed(log, 0, 400))
        await until(first, 200)
        await app.stop()
        await feeding

        app = app_of(log, settings, second)
        await app.start()
        await until(second, 400 - int(handled(first, "applied")))
        await app.stop()
    finally:
        await log.stop()
        collect_what_faust_left()

    assert handled(second, "replayed") == 0
    assert handled(first, "applied") + handled(second, "applied") == 400


class CommitsWait(EmbeddedLog):
    """A log whose commits wait until they may go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, fsync=False)
        self.commits = 0
        self.may_go_on = asyncio.Event()

    async def commit(self, group: str, offsets: Mapping[TP, int], notes: Mapping[TP, str] | None = None) -> None:
        self.commits += 1
        await self.may_go_on.wait()
        await super().commit(group, offsets, notes)


async def test_what_was_checkpointed_before_a_rebalance_is_committed_in_it_though_nothing_new_came(tmp_path: Path):
    settings = Settings(data=tmp_path, checkpoint_ms=10, fsync=False)
    registry = CollectorRegistry()
    log = CommitsWait(tmp_path / "log.db")
    await log.start()
    try:
        await create_topics(log, settings)
        app = app_of(log, settings, registry)
        await app.start()
        await feed(log, 0, 10)
        await until(registry, 10)
        async with asyncio.timeout(30):
            while not log.commits:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await feed(log, 10, 10)  # while that commit is under way
            while sum(app.worker.behind_of(await log.bounds(EVENTS)).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            revoking = asyncio.create_task(app.faust.consumer.on_partitions_revoked(app.faust.consumer.assignment()))
            await asyncio.sleep(0.1)
            log.may_go_on.set()
            await revoking
        committed, bounds = await log.committed(CUSTOMERS.group, EVENTS), await log.bounds(EVENTS)
        await app.stop()
    finally:
        await log.stop()
        collect_what_faust_left()

    assert committed == {partition: end for partition, (_, end) in bounds.items()}


class SlowToRestore(KafkaLog):
    """A log whose changelog takes longer to read than the group waits for a sign of life."""

    async def read(self, tp: TP, offset: int, most: int) -> list[Record]:
        if tp.topic == CUSTOMERS.changelog:
            await asyncio.sleep(SESSION_TIMEOUT_S * 1.5)
        return await super().read(tp, offset, most)


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_restore_that_takes_longer_than_a_session_costs_no_partition(tmp_path: Path, own_kafka: Kafka):
    settings = Settings(data=tmp_path / "first", log=own_kafka.url, partitions=1, checkpoint_ms=10)
    first, second = CollectorRegistry(), CollectorRegistry()
    log, slow = KafkaLog(own_kafka.url), SlowToRestore(own_kafka.url)
    await log.start()
    try:
        await create_topics(log, settings)
        await slow.start()
        app = app_of(log, settings, first)
        await app.start()
        await feed(log, 0, 20)
        await until(first, 20)
        await app.stop()

        app = app_of(slow, settings.model_copy(update={"data": tmp_path / "second"}), second)
        await app.start()
        await feed(log, 20, 20)
        await until(second, 20)
        generation = app.faust.consumer_generation_id
        await app.stop()
    finally:
        await slow.stop()
        await log.stop()
        collect_what_faust_left()

    assert handled(second, "applied") == 20
    assert second.get_sample_value("tidewire_stage_restored_records_total") > 0
    assert generation == 3  # of the group: the first worker came, and was gone, and the second came, once
