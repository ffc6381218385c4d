"""How current the numbers are is said while ClickHouse is away, too: the log knows it."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from config.settings import Settings
from schemas.times import from_ms
from sinks.analytics import Analytics
from sinks.clickhouse import GROUP as SINK_GROUP
from streams.embedded import EmbeddedLog
from streams.lag import STAGE_GROUP
from streams.log import TP
from tests.sinks.feed import embedded_log, event_json, put
from web.dashboard.app import dashboard
from web.dashboard.freshness import freshness


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with embedded_log(tmp_path, partitions=1) as log:
        yield log


async def said(log: EmbeddedLog, waited: timedelta) -> str:
    away = Analytics("clickhouse://nobody@127.0.0.1:9/default")
    app = dashboard(log, away, Settings(), now=lambda: datetime.now(UTC) + waited)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        answer = await client.get("/freshness")
    await away.close()
    assert answer.status_code == 200
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", answer.text)).split())


async def test_it_says_until_when_there_are_data(log: EmbeddedLog) -> None:
    await put(log, "events", [event_json(n) for n in range(3)])
    await log.commit(SINK_GROUP, {TP("events", 0): 1})
    (oldest,) = await log.read(TP("events", 0), 1, 1)

    lag = (await freshness(log, datetime.now(UTC))).sink
    text = await said(log, timedelta(minutes=7, seconds=5))

    assert (lag.records, lag.since) == (2, from_ms(oldest.timestamp_ms))
    assert re.search(r"Data until \d+ \w+ \d{4}, \d\d:\d\d: ClickHouse is 2 records behind \(7 minutes\)", text)


async def test_where_only_the_customer_stage_is_behind_nothing_is_said_of_an_end(log: EmbeddedLog) -> None:
    await put(log, "events", [event_json(n) for n in range(3)])
    await log.commit(SINK_GROUP, {TP("events", 0): 3})

    text = await said(log, timedelta(0))

    assert "All that was written is in ClickHouse" in text
    assert "Data until" not in text


async def test_when_nothing_waits_all_is_current(log: EmbeddedLog) -> None:
    await put(log, "events", [event_json(1)])
    await log.commit(SINK_GROUP, {TP("events", 0): 1})
    await log.commit(STAGE_GROUP, {TP("events", 0): 1})

    assert await said(log, timedelta(0)) == "Everything received is in ClickHouse"
