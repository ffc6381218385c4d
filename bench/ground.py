"""The Kafka of a contest: topics made, filled and removed, and what a group has committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from bench.measure import LeftOut
from streams.kafka import KafkaLog
from streams.log import Outgoing
from tests.kafka_broker import Kafka, missing

PARTITIONS = 4
TOGETHER = 20_000  # of one append
GONE_WITHIN_S = 30.0

Found = TypeVar("Found")


class Ground:
    """One broker, and the topics on it."""

    def __init__(self, kafka: Kafka) -> None:
        self.address = kafka.bootstrap
        self.url = kafka.url
        self._admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)

    def make(self, topics: Iterable[str], partitions: int = PARTITIONS, retention_ms: int | None = 86_400_000) -> None:
        """Make the topics, anew where they exist. Without a retention they are compacted."""

        async def work(log: KafkaLog) -> None:
            for topic in topics:
                await log.create_topic(topic, partitions, retention_ms, 1)

        self.remove(topics)
        self._with_log(work)

    def remove(self, topics: Iterable[str]) -> None:
        there = sorted(set(topics) & set(self.topics()))
        if not there:
            return
        self._admin.delete_topics(there)
        until = time.monotonic() + GONE_WITHIN_S
        while set(there) & set(self.topics()):
            if time.monotonic() > until:
                raise RuntimeError(f"Kafka did not remove {', '.join(there)} within {GONE_WITHIN_S:.0f} s")
            time.sleep(0.05)

    def topics(self) -> list[str]:
        return list(self._admin.list_topics())

    def forget(self, group: str) -> None:
        """Remove what a group has committed, once all its members have left."""
        until = time.monotonic() + GONE_WITHIN_S
        while (error := self._delete_group(group)) not in ("OK", "GroupIdNotFoundError"):
            if time.monotonic() > until:
                raise RuntimeError(f"Kafka did not remove group {group} within {GONE_WITHIN_S:.0f} s: {error}")
            time.sleep(0.1)

    def _delete_group(self, group: str) -> str:
        try:
            return str(self._admin.delete_groups([group])[group])
        except KafkaError as error:  # its coordinator is not known yet
            return repr(error)

    def fill(self, topic: str, records: Iterator[tuple[bytes, bytes]]) -> tuple[int, int]:
        """Append keys with their values, each to the partition of its key; their count, and the bytes of the values."""

        async def work(log: KafkaLog) -> tuple[int, int]:
            count = size = 0
            while some := [Outgoing(key, value) for key, value in islice(records, TOGETHER)]:
                await log.append(topic, some)
                count += len(some)
                size += sum(len(each.value or b"") for each in some)
            return count, size

        return self._with_log(work)

    def committed(self, group: str, topic: str) -> int:
        """How many records of the topic the group has done, and said so."""

        async def work(log: KafkaLog) -> int:
            first = {partition: bounds[0] for partition, bounds in (await log.bounds(topic)).items()}
            return sum(offset - first[partition] for partition, offset in (await log.committed(group, topic)).items())

        return self._with_log(work)

    def length(self, topic: str) -> int:
        """How many records were ever appended to the topic."""

        async def work(log: KafkaLog) -> int:
            return sum(end for _, end in (await log.bounds(topic)).values())

        return self._with_log(work)

    def _with_log(self, work: Callable[[KafkaLog], Awaitable[Found]]) -> Found:
        async def whole() -> Found:
            log = KafkaLog(self.url)
            await log.start()
            try:
                return await work(log)
            finally:
                await log.stop()

        return asyncio.run(whole())

    def close(self) -> None:
        self._admin.close()


@contextmanager
def kafka_ground() -> Iterator[Ground]:
    """A broker of its own, gone afterwards.

    Raises:
        LeftOut: this machine has no Kafka.
    """
    if lacking := missing():
        raise LeftOut(f"Kafka needs {lacking} on this machine")
    with Kafka(java=()) as kafka:
        ground = Ground(kafka)
        try:
            yield ground
        finally:
            ground.close()
