"""How fast a log takes records and gives them back.

Appended in bulk as a checkpoint does; singly by 1, 64 and 256 callers at once, as the collector does; then read back as
recovery does, and by a group as a sink does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from bench.measure import percentile
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.log import TP, Log, Outgoing

PARTITIONS = 4
TOGETHER = 1_000  # of one append in bulk
LANES = 8  # appends in bulk at once
CALLERS = (1, 64, 256)
DAY_MS = 86_400_000


class Job(msgspec.Struct, frozen=True):
    """`kafka` is the URL of the broker; without one, the embedded log. Values of `value_bytes`, random."""

    kafka: str
    records: int
    value_bytes: int
    seconds: float


async def contend(given: Job, folder: Path) -> dict[str, dict[str, float]]:
    log: Log = KafkaLog(given.kafka) if given.kafka else EmbeddedLog(folder / "log.db")
    await log.start()
    for topic in ("bulk", "single"):
        await log.create_topic(topic, PARTITIONS, DAY_MS, 1)
    value = os.urandom(given.value_bytes // 2).hex().encode()
    count = given.records - given.records % (TOGETHER * LANES)
    found: dict[str, dict[str, float]] = {}

    async def append_in_bulk(lane: int) -> None:
        for turn in range(lane, count // TOGETHER, LANES):
            await log.append("bulk", [Outgoing(b"default/u:%d-%d" % (turn, i), value) for i in range(TOGETHER)])

    found["append in bulk"] = await _timed(count, asyncio.gather(*map(append_in_bulk, range(LANES))))
    for callers in CALLERS:
        found[f"append singly, {callers} callers"] = await _append_singly(log, callers, value, given.seconds)

    async def restore(partition: int) -> None:
        offset = 0
        while records := await log.read(TP("bulk", partition), offset, 20_000):
            offset = records[-1].offset + 1

    found["restore"] = await _timed(count, asyncio.gather(*map(restore, range(PARTITIONS))))

    async def follow() -> None:
        member = await log.subscribe("bench", ["bulk"])
        read = 0
        while read < count:
            read += sum(map(len, (await member.poll(20_000, 1)).values()))
        await member.close()

    found["read as a group"] = await _timed(count, follow())
    await log.stop()
    return found


async def _append_singly(log: Log, callers: int, value: bytes, seconds: float) -> dict[str, float]:
    took: list[float] = []
    began_all, cpu = time.perf_counter(), time.process_time()
    over = began_all + seconds

    async def call(caller: int) -> None:
        began = time.perf_counter()
        while began < over:
            await log.append("single", [Outgoing(b"default/u:%d" % caller, value)])
            ended = time.perf_counter()
            took.append(ended - began)
            began = ended

    await asyncio.gather(*map(call, range(callers)))
    took.sort()
    return {"records": len(took), "wall_s": time.perf_counter() - began_all, "cpu_s": time.process_time() - cpu,
            "p50_ms": percentile(took, 0.5) * 1000, "p99_ms": percentile(took, 0.99) * 1000}  # fmt: skip


async def _timed(records: int, work: Awaitable[object]) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    await work
    return {"records": records, "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    given = msgspec.json.decode(sys.argv[1], type=Job)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found: dict[str, Any] = runner.run(contend(given, Path(folder)))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
