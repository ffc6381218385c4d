"""How fast the log takes and gives records: `python -m bench.log [embedded|kafka]`, both without a word.

Input: records of 1,000 bytes under keys of persons, four partitions. Appended in bulk as a checkpoint does; singly by
1, 64 and 256 callers at once, as the collector does; then read back as recovery does, and by a group as a sink does.
Kafka is one broker of this machine (tests/kafka_broker.py), so it shares the processors with this program.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import structlog

from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.log import TP, Log, Outgoing
from tests.kafka_broker import Kafka, missing

PARTITIONS = 4
RECORDS = 1_000_000
TOGETHER = 5_000  # of one append in bulk
SINGLY_S = 4.0
VALUE = os.urandom(500).hex().encode()
DAY_MS = 86_400_000


async def measure(ground: str, log: Log) -> None:
    await log.start()
    await log.create_topic("bulk", PARTITIONS, DAY_MS, 1)
    await log.create_topic("single", PARTITIONS, DAY_MS, 1)

    async def append_in_bulk(caller: int) -> None:
        for turn in range(caller, RECORDS // TOGETHER, 8):
            await log.append("bulk", [Outgoing(b"default/u:%d-%d" % (turn, i), VALUE) for i in range(TOGETHER)])

    await timed(f"{ground}: append in bulk", RECORDS, asyncio.gather(*map(append_in_bulk, range(8))))
    for callers in (1, 64, 256):
        await append_singly(ground, log, callers)

    async def restore(partition: int) -> int:
        offset = count = 0
        while records := await log.read(TP("bulk", partition), offset, 20_000):
            count += len(records)
            offset = records[-1].offset + 1
        return count

    one = (await log.bounds("bulk"))[0][1]
    await timed(f"{ground}: restore one partition", one, restore(0))
    await timed(f"{ground}: restore all partitions", RECORDS, asyncio.gather(*map(restore, range(PARTITIONS))))

    async def follow() -> None:
        member = await log.subscribe("bench", ["bulk"])
        count = 0
        while count < RECORDS:
            count += sum(map(len, (await member.poll(20_000, 1)).values()))
        await member.close()

    await timed(f"{ground}: read as a group", RECORDS, follow())
    await log.stop()


async def append_singly(ground: str, log: Log, callers: int) -> None:
    took: list[float] = []
    over = time.perf_counter() + SINGLY_S

    async def call(caller: int) -> None:
        began = time.perf_counter()
        while began < over:
            await log.append("single", [Outgoing(b"default/u:%d" % caller, VALUE)])
            ended = time.perf_counter()
            took.append(ended - began)
            began = ended

    await asyncio.gather(*map(call, range(callers)))
    took.sort()
    half, most = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{ground}: {callers:3} callers, one record each  {len(took) / SINGLY_S:9,.0f}/s  "
          f"p50 {half:5.1f} ms  p99 {most:5.1f} ms", flush=True)  # fmt: skip


async def timed(what: str, records: int, work: Awaitable[object]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    await work
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what:40} {records / took:9,.0f}/s  {records / cpu:9,.0f} per CPU second", flush=True)


def main(grounds: list[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, "
          f"Python {platform.python_version()}; values of {len(VALUE)} bytes")  # fmt: skip
    if "embedded" in grounds:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure("embedded", EmbeddedLog(Path(folder) / "log.db")))
    if "kafka" in grounds:
        if lacking := missing():
            print(f"kafka: left out, it needs {lacking}")
            return
        with Kafka() as cluster:
            asyncio.run(measure("kafka", KafkaLog(cluster.url)))


if __name__ == "__main__":
    main(sys.argv[1:] or ["embedded", "kafka"])
