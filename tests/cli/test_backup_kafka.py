"""Backup and restore where the log is Kafka: ClickHouse is lost, the topics are not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from config.settings import Settings
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from sinks.analytics import Analytics
from sinks.clickhouse import ClickHouseSink
from streams.kafka import KafkaLog
from streams.lag import measure_lag
from streams.log import Log, Outgoing
from streams.topics import create_topics
from tests.cli.command import Done, is_one_line, tidewire
from tests.kafka_broker import Kafka
from tests.sinks.server import Bridge
from web.collector.ingest import now

pytestmark = pytest.mark.kafka


async def send(log: Log, first: int, last: int) -> None:
    records = []
    for n in range(first, last):
        raw = b'{"type": "track", "event": "Viewed", "userId": "u%d", "messageId": "m%d"}' % (n % 7, n)
        event = read_event(raw, "", Arrival("default", "web", now()))
        records.append(Outgoing(event.key.encode(), encode_event(event)))
    await log.append("events", records)


class Sinking:
    """A sink that runs until it has nothing left to do, or for as long as the body does."""

    def __init__(self, log: Log, bridge: Bridge) -> None:
        self._log = log
        self._analytics = Analytics(bridge.url)
        self._sink = ClickHouseSink(log, self._analytics, (), Settings(sink_wait_ms=50))

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._sink.run())
        async with asyncio.timeout(60):
            while (await measure_lag(self._log)).sink:  # noqa: ASYNC110 - of the log, which tells nobody
                await asyncio.sleep(0.1)

    async def __aexit__(self, *error: object) -> None:
        await self._sink.stop()
        await self._running
        await self._analytics.close()


async def ask(kafka: Kafka, bridge: Bridge, cwd: Path, *arguments: str) -> Done:
    return await asyncio.to_thread(tidewire, *arguments, "--log", kafka.url, "--analytics", bridge.url, cwd=cwd)


async def stored(bridge: Bridge) -> list[int]:
    analytics = Analytics(bridge.url)
    try:
        rows = await analytics.query("SELECT message_id FROM event_log")
    finally:
        await analytics.close()
    return sorted(int(row["message_id"][1:]) for row in rows)


async def test_a_lost_clickhouse_is_filled_and_the_sink_goes_on_from_there(own_kafka: Kafka, tmp_path: Path) -> None:
    log = KafkaLog(own_kafka.url)
    await log.start()
    await create_topics(log, Settings(partitions=3, log=own_kafka.url))
    first, second, third = (Bridge(tmp_path / name) for name in ("first", "second", "third"))
    try:
        first.start()
        await send(log, 0, 300)
        async with Sinking(log, first):
            await send(log, 300, 350)
            made = await ask(own_kafka, first, tmp_path, "backup", "kept", "--json")
            await send(log, 350, 500)
        async with Sinking(log, first):
            pass
        assert await stored(first) == list(range(500))
        first.kill()

        second.start()
        async with Sinking(log, second):  # somebody forgot to stop it: it has made the tables, and runs
            while_it_runs = await ask(own_kafka, second, tmp_path, "restore", "kept")
        third.start()
        restored = await ask(own_kafka, third, tmp_path, "restore", "kept")
        at_once = await stored(third)
        twice = await ask(own_kafka, third, tmp_path, "restore", "kept")
        async with Sinking(log, third):
            pass

        assert made.json["ground"] == "kafka", made.err
        assert while_it_runs.code == 3
        assert "group 'tidewire-clickhouse' has a member: stop it first" in while_it_runs.err
        assert restored.code == 0, restored.err
        assert set(range(300)) <= set(at_once) <= set(range(350))
        assert twice.code == 2
        assert is_one_line(twice.err)
        assert "already" in twice.err
        assert await stored(third) == list(range(500))
    finally:
        for bridge in (first, second, third):
            bridge.kill()
        await log.stop()


async def test_topics_that_were_made_anew_or_forgot_are_told_apart(own_kafka: Kafka, tmp_path: Path) -> None:
    log = KafkaLog(own_kafka.url)
    await log.start()
    await create_topics(log, Settings(partitions=1, log=own_kafka.url))
    first, second = Bridge(tmp_path / "first"), Bridge(tmp_path / "second")
    try:
        first.start()
        second.start()
        await send(log, 0, 20)
        async with Sinking(log, first):
            pass
        assert (await ask(own_kafka, first, tmp_path, "backup", "kept")).code == 0
        await send(log, 20, 40)
        await forget(log, "events", 30)

        gap = await ask(own_kafka, second, tmp_path, "restore", "kept")
        all_the_same = await ask(own_kafka, second, tmp_path, "restore", "kept", "--with-gaps", "--json")
        await make_anew(log, "events")
        anew = await ask(own_kafka, second, tmp_path, "restore", "kept")

        assert gap.code == 1
        assert "the log no longer holds what the sink needs to go on" in gap.err
        assert "10 records of events-0" in gap.err
        assert all_the_same.code == 0, all_the_same.err
        assert all_the_same.json["gaps"] == ["10 records of events-0"]
        assert anew.code == 1
        assert "topic 'events' was made anew since the backup was taken" in anew.err
    finally:
        first.kill()
        second.kill()
        await log.stop()


async def forget(log: KafkaLog, topic: str, before: int) -> None:
    """As retention does."""
    from kafka.structs import TopicPartition

    await log._as_admin(lambda admin: admin.delete_records({TopicPartition(topic, 0): before}))


async def make_anew(log: KafkaLog, topic: str) -> None:
    def work(admin: object) -> None:
        admin.delete_topics([topic])  # type: ignore[attr-defined]

    await log._as_admin(work)
    async with asyncio.timeout(30):
        while topic in await log.topics():  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(0.2)
        while True:
            await log.create_topic(topic, 1, 365 * 86_400_000, 1)
            if topic in await log.topics():
                return
            await asyncio.sleep(0.2)
