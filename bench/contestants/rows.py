"""Rows into ClickHouse (chDB), four ways in turn, by one process.

    raw       the block as ClickHouse itself would write it, encoded beforehand: what storing alone costs
    columns   columns that stand ready, encoded by the driver: a bare columnar insert from Python
    sink      records of the log, read into columns, then as above: what the sink does
    whole     the sink as it runs, from the embedded log to committed offsets
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import clickhouse_connect
import msgspec
import structlog
import uvloop

from schemas.topics import TOPICS
from sinks.analytics import Analytics
from sinks.batch import PACKED, Reader
from sinks.clickhouse import ClickHouseSink, behind
from sinks.migrate import migrate
from streams.embedded import EmbeddedLog
from streams.log import Outgoing, Record

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
TABLE = "events"
BLOCKS = 5  # of the whole way: so many times the rows of one insert


class Job(msgspec.Struct, frozen=True):
    """`rows` of one insert; `events` is `browser` (with page and campaign) or `orders` (from a server)."""

    events: str
    rows: int
    rounds: int


class Settings(msgspec.Struct):
    sink_batch: int
    sink_wait_ms: int = 1_000


def event(number: int, dice: random.Random, *, is_browser: bool) -> bytes:
    """An event as it stands in topic `events`."""
    month, day, hour, ms = dice.randint(1, 10), dice.randint(1, 28), dice.randint(0, 23), dice.randint(0, 999)
    at = f"2026-{month:02}-{day:02}T{hour:02}:00:07.{ms:03}Z"
    body: dict[str, Any] = {
        "messageId": f"{number:032x}", "type": "track", "workspace": "default", "source": "web", "timestamp": at,
        "receivedAt": at, "originalTimestamp": at, "userId": f"u-{dice.randint(1, 20_000)}",
        "event": dice.choice(["Order Completed", "Product Viewed", "Product Added"]),
        "properties": {"order_id": f"o-{number}", "total": dice.randint(1, 10_000) / 100, "currency": "USD"},
    }  # fmt: skip
    if is_browser:
        body["properties"] |= {"product_id": f"sku-{dice.randint(1, 500)}", "price": 19.99, "quantity": 2}
        body |= {"sentAt": at, "anonymousId": f"{dice.randint(1, 20_000):032x}", "context": {
            "ip": "192.0.2.4", "userAgent": AGENT, "locale": "en-GB", "timezone": "Europe/London",
            "library": {"name": "analytics.js", "version": "1.0"},
            "page": {"url": "https://shop.example/p/1", "path": "/p/1", "title": "P", "referrer": "https://g.example"},
            "campaign": {"source": "newsletter", "medium": "email", "name": "spring"}}}  # fmt: skip
    return json.dumps(body, separators=(",", ":")).encode()


async def contend(given: Job, folder: Path) -> dict[str, Any]:
    dice = random.Random(1)
    values = [event(number, dice, is_browser=given.events == "browser") for number in range(given.rows)]
    records = [Record("events", 0, i, 0, b"k", value) for i, value in enumerate(values)]
    analytics = Analytics(f"chdb:{folder / 'clickhouse'}")
    await migrate(analytics)
    reader, client = Reader(()), clickhouse_connect.get_client(interface="chdb", path=str(folder / "clickhouse"))
    read = reader.read(records).rows[0].columns
    ready = {name: list(read[name]) for name in read}
    await analytics.insert(TABLE, ready)
    reader.packers = {TABLE: await analytics.packer(TABLE, PACKED[TABLE])}  # as the sink does
    block = client.raw_query(f"SELECT * FROM {TABLE}", fmt="Native")

    async def raw() -> None:
        await asyncio.to_thread(client.raw_insert, TABLE, None, block, None, "Native")

    async def columns() -> None:
        await analytics.insert(TABLE, ready)

    async def sink() -> None:
        rows = reader.read(records).rows[0]
        await analytics.insert(TABLE, rows.packed or rows.columns)

    ways: dict[str, Callable[[], Awaitable[None]]] = {"raw": raw, "columns": columns, "sink": sink}
    took: dict[str, list[dict[str, float]]] = {name: [] for name in (*ways, "whole")}
    for turn in range(given.rounds + 1):
        for name, work in ways.items():
            await analytics.command(f"TRUNCATE TABLE {TABLE}")
            sample = await _timed(work(), given.rows)
            if turn:  # the first warms up
                took[name].append(sample)
            (stored,) = await analytics.query(f"SELECT count() AS rows FROM {TABLE}")
            if stored["rows"] != given.rows:
                raise RuntimeError(f"{name} stored {stored['rows']} of {given.rows} rows")
        if turn:
            await analytics.command(f"TRUNCATE TABLE {TABLE}")
            took["whole"].append(await _whole(analytics, folder / f"log-{turn}.db", values * BLOCKS, given.rows))
    client.close()
    await analytics.close()
    return {"ways": took, "event_bytes": round(sum(map(len, values)) / len(values)), "columns": len(ready)}


async def _timed(work: Awaitable[None], rows: int) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    await work
    return {"rows": rows, "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}


async def _whole(analytics: Analytics, file: Path, values: list[bytes], together: int) -> dict[str, float]:
    log = EmbeddedLog(file, fsync=False)
    await log.start()
    for topic in TOPICS.values():
        await log.create_topic(topic.name, 4, topic.retention_ms)
    for i in range(0, len(values), 1_000):
        await log.append("events", [Outgoing(str(i).encode(), value) for value in values[i : i + 1_000]])
    sink = ClickHouseSink(log, analytics, (), Settings(together))

    async def work() -> None:
        running = asyncio.create_task(sink.run())
        while await behind(log):
            await log.grown(0.01)
        await sink.stop()
        await running

    sample = await _timed(work(), len(values))
    await log.stop()
    return sample


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    given = msgspec.json.decode(sys.argv[1], type=Job)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(contend(given, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
