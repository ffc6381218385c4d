"""How many events a second the ClickHouse sink stores, on one core and as it runs.

    python -m bench.sink [--events 20000] [--rounds 8]

Prints one JSON object: the machine, the input, and for each part the best of the rounds, in microseconds of CPU time an
event (`read`: records of the log to columns; `insert`: encoding, and chDB's own work), and `rows_per_core_second` from
both. `whole_rows_per_second` is the sink from the embedded log to committed offsets, by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from schemas.topics import TOPICS
from sinks.analytics import Analytics
from sinks.batch import Reader
from sinks.clickhouse import ClickHouseSink, behind
from sinks.migrate import migrate
from streams.embedded import EmbeddedLog
from streams.log import Outgoing, Record

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"


class Settings(msgspec.Struct):
    sink_batch: int = 20_000
    sink_wait_ms: int = 1_000


def event(number: int, dice: random.Random, *, is_browser: bool) -> bytes:
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


async def parts(folder: Path, values: list[bytes], rounds: int) -> dict[str, float]:
    analytics = Analytics(f"chdb:{folder / 'parts'}")
    await migrate(analytics)
    records = [Record("events", 0, i, 0, b"k", value) for i, value in enumerate(values)]
    reader, read_s, insert_s = Reader(()), float("inf"), float("inf")
    for _ in range(rounds):
        started = time.process_time()
        rows = reader.read(records).rows[0]
        between = time.process_time()
        await analytics.insert(rows.table, rows.columns)
        read_s, insert_s = min(read_s, between - started), min(insert_s, time.process_time() - between)
    await analytics.close()
    count = len(values)
    return {
        "bytes": round(sum(map(len, values)) / count),
        "read_us": round(read_s / count * 1e6, 1),
        "insert_us": round(insert_s / count * 1e6, 1),
        "rows_per_core_second": round(count / (read_s + insert_s)),
    }


async def whole(folder: Path, values: list[bytes]) -> dict[str, float]:
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    for topic in TOPICS.values():
        await log.create_topic(topic.name, 4, topic.retention_ms)
    for i in range(0, len(values), 1_000):
        await log.append("events", [Outgoing(str(i).encode(), value) for value in values[i : i + 1_000]])
    analytics = Analytics(f"chdb:{folder / 'whole'}")
    await migrate(analytics)
    sink = ClickHouseSink(log, analytics, (), Settings())
    started = time.perf_counter()
    task = asyncio.create_task(sink.run())
    while await behind(log):
        await log.grown(0.01)
    took = time.perf_counter() - started
    await sink.stop()
    await task
    await analytics.close()
    await log.stop()
    return {"whole_rows_per_second": round(len(values) / took)}


async def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=8)
    given = arguments.parse_args()
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "events": given.events,
    }
    for name, is_browser in (("orders", False), ("browser", True)):
        dice = random.Random(1)
        values = [event(number, dice, is_browser=is_browser) for number in range(given.events)]
        with tempfile.TemporaryDirectory() as folder:
            found[name] = await parts(Path(folder), values, given.rounds) | await whole(Path(folder), values * 5)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
