"""What a backfill reads of the past while events go on coming, and are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from config.settings import Settings
from processors.fold import Fold
from processors.orders import Orders
from processors.profile import Profile
from processors.segments import Segments
from processors.selectors import Selector, selector_of
from schemas.conditions import read_condition
from schemas.event import Event, encode_event
from sinks import memories
from sinks.analytics import Analytics
from sinks.clickhouse import ClickHouseSink
from streams.app import StageApp
from streams.definitions import Coordinator
from streams.embedded import EmbeddedLog
from streams.log import Outgoing
from streams.metrics import StageMetrics
from streams.stage import CustomerStage
from streams.topics import create_topics
from tests.streams.world import START, an_event


def an_order(number: int, user: str, total: float) -> Event:
    event = an_event(number, user=user, event="Order Completed")
    event.raw_properties = msgspec.Raw(msgspec.json.encode({"order_id": str(number), "total": total}))
    return event


async def test_what_is_refused_a_moment_later_is_not_remembered(tmp_path: Path, monkeypatch) -> None:
    """ClickHouse has an event before it hears that a processor refused it. Of the newest one that is asked for the one
    before it counts then."""
    settings = Settings(data=tmp_path, sink_wait_ms=50, checkpoint_ms=20)
    log, analytics = EmbeddedLog(tmp_path / "log.db", fsync=False), Analytics(f"chdb:{tmp_path / 'clickhouse'}")
    await log.start()
    await create_topics(log, settings)
    fold = Fold([Profile(), Orders(), Segments()])
    sink = ClickHouseSink(log, analytics, fold.tables, settings)
    sinking = asyncio.create_task(sink.run())
    stage = CustomerStage(fold, partitions=log.partitions("events"), most_links=100)
    customers = StageApp(log, stage, settings, StageMetrics(CollectorRegistry()))
    events = [an_order(1, "ann", 5.0), an_order(2, "ann", -1.0), an_order(3, "bob", -1.0), an_order(4, "cy", 7.0)]
    await log.append("events", [Outgoing(event.key.encode(), encode_event(event)) for event in events])
    async with asyncio.timeout(60):
        while len(await _stored(analytics)) < len(events):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    selector = selector_of(read_condition({"did": "Order Completed"}), "UTC")
    assert selector is not None
    seen_at_first: list[Any] = []
    read = memories.read_memories

    async def reading(*arguments: Any) -> AsyncIterator[dict[str, Any]]:
        async for people in read(*arguments):
            seen_at_first.append({key: list(each[selector.id].known) for key, each in people.items()})
            await customers.start()  # only now the stage refuses what it must
            yield people

    monkeypatch.setattr(memories, "read_memories", reading)

    try:
        known = await _past(Coordinator(log, analytics, zone="UTC", rfm_minutes=60), selector)
    finally:
        await customers.stop()
        await sink.stop()
        await sinking
        await analytics.close()
        await log.stop()

    minute_ms = 60_000
    start_ms = int(START.timestamp() * 1000)
    assert {key: at_ms for key, ((at_ms, _, _),) in seen_at_first[0].items()} == {
        "w/u:ann": start_ms + 2 * minute_ms, "w/u:bob": start_ms + 3 * minute_ms, "w/u:cy": start_ms + 4 * minute_ms,
    }  # fmt: skip
    assert known == {"w/u:ann": start_ms + minute_ms, "w/u:cy": start_ms + 4 * minute_ms}


async def _stored(analytics: Analytics) -> list[dict[str, Any]]:
    try:
        return await analytics.query("SELECT message_id FROM events FINAL")
    except Exception:  # it makes its tables first
        return []


async def _past(coordinator: Coordinator, selector: Selector) -> dict[str, int]:
    """When each did last what is asked for, as everybody is to be told."""
    found = {}
    async with asyncio.timeout(60):
        async for people in coordinator._past([selector]):
            for key, each in people.items():
                ((at_ms, _, _),) = each[selector.id].known
                found[key] = at_ms
    return found
