"""What both logs promise (streams/log.py), held against both."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from schemas.errors import TidewireError
from streams import embedded
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.log import (
    TP,
    Log,
    LogBusy,
    LogUnavailable,
    Outgoing,
    Record,
    Subscription,
    TopicState,
    murmur2,
    partition_of,
)
from tests.freed import Records, is_freed_at_once

WEEK_MS = 7 * 86_400_000
LARGEST_RECORD_BYTES = 16 * 1024 * 1024


class Ground:
    """A log, and what a test does to it from outside."""

    log: Log

    def __init__(self) -> None:
        self._opened: list[Log] = []

    def make(self) -> Log:
        raise NotImplementedError

    async def open(self) -> Log:
        self.log = self.make()
        await self.log.start()
        self._opened.append(self.log)
        return self.log

    async def topic(self, partitions: int = 4, retention_ms: int | None = WEEK_MS) -> str:
        """A new topic with a name of its own."""
        name = f"topic-{uuid.uuid4().hex}"
        await self.log.create_topic(name, partitions, retention_ms, 1)
        return name

    async def forget(self, tp: TP, before: int) -> None:
        """Let retention drop the records before an offset."""
        raise NotImplementedError

    async def compact(self, topic: str) -> None:
        """Compact a topic soon; returns when it was."""
        raise NotImplementedError

    async def close(self) -> None:
        for log in self._opened:
            await log.stop()


class EmbeddedGround(Ground):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.url = f"embedded:{folder / 'log.db'}"

    def make(self) -> EmbeddedLog:
        return EmbeddedLog(self.url.partition(":")[2], fsync=False)

    async def forget(self, tp: TP, before: int) -> None:
        assert isinstance(self.log, EmbeddedLog)
        kept = (await self.log.read(tp, before, 1))[0].timestamp_ms
        await self.log.keep_house(now_ms=kept + WEEK_MS)

    async def compact(self, topic: str) -> None:
        assert isinstance(self.log, EmbeddedLog)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(embedded, "CLEAN_AFTER_RECORDS", 1)
            await self.log.keep_house()


class KafkaGround(Ground):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def make(self) -> KafkaLog:
        return KafkaLog(self.url)

    def admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.url.removeprefix("kafka://"))

    async def forget(self, tp: TP, before: int) -> None:
        with self.admin() as admin:
            await asyncio.to_thread(admin.delete_records, {tp: before})

    async def compact(self, topic: str) -> None:
        quick = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "max.compaction.lag.ms": "100"}
        with self.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=quick)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            # A record of its own key closes the segment before it, so that all but this one can be compacted.
            for partition in range(self.log.partitions(topic)):
                await self.log.append(topic, [Outgoing(b"closes the segment", b"", partition)])
            records = await everything(self.log, topic)
            keys = Counter((record.partition, record.key) for record in records if record.key != b"closes the segment")
            if max(keys.values()) == 1:
                return
        pytest.fail("Kafka did not compact within a minute")


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    is_kafka = request.param == "kafka"
    made = KafkaGround(request.getfixturevalue("kafka")) if is_kafka else EmbeddedGround(tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def log(ground: Ground) -> Log:
    return ground.log


async def everything(log: Log, topic: str, most: int = 1000) -> list[Record]:
    """All records of a topic, partition by partition."""
    found: list[Record] = []
    for partition in range(log.partitions(topic)):
        offset = 0
        while records := await log.read(TP(topic, partition), offset, most):
            found += records
            offset = records[-1].offset + 1
    return found


async def gather(member: Subscription, count: int, within_s: float = 30.0) -> list[Record]:
    """Poll until so many records came."""
    found: list[Record] = []
    deadline = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline:
        for records in (await member.poll(1000, 0.2)).values():
            found += records
    return found


def numbered(count: int, key: bytes | None = b"key") -> list[Outgoing]:
    return [Outgoing(key, b"%d" % i) for i in range(count)]


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


async def as_group(log: Log, group: str, topic: str, count: int) -> list[Record]:
    """What a new member of a group is given, and leaves uncommitted."""
    member = await log.subscribe(group, [topic])
    found = await gather(member, count, within_s=3.0)
    await member.close()
    return found


# --- append and read


async def test_records_of_one_key_stay_in_order_in_one_partition(ground: Ground, log: Log) -> None:
    topic = await ground.topic()

    for i in range(5):
        await log.append(topic, [Outgoing(b"ann", b"%d-%d" % (i, j)) for j in range(20)])
        await log.append(topic, [Outgoing(b"bob", b"other")])

    ann = [record for record in await everything(log, topic) if record.key == b"ann"]
    assert values(ann) == [b"%d-%d" % (i, j) for i in range(5) for j in range(20)]
    assert {record.partition for record in ann} == {partition_of(b"ann", 4)}


async def test_an_append_says_where_its_records_stand(ground: Ground, log: Log) -> None:
    topic = await ground.topic()
    await log.append(topic, numbered(3))
    outgoing = [Outgoing(b"key-%d" % i, b"%d" % i) for i in range(40)]

    placed = await log.append(topic, outgoing)

    assert sum(place.count for place in placed) == 40
    for place in placed:
        found = await log.read(TP(topic, place.partition), place.first, place.count)
        mine = [record for record in outgoing if partition_of(record.key or b"", 4) == place.partition]
        assert [(record.key, record.value) for record in found] == [(record.key, record.value) for record in mine]


async def test_every_kind_of_record_comes_back_as_it_went(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    junk = random.Random(7)
    outgoing = [
        Outgoing(None, None),
        Outgoing(None, b"value without key"),
        Outgoing(b"key without value", None),
        Outgoing(b"", b""),
        Outgoing(b"k", b"", None, (("name", b"value"), ("name", b"twice"), ("empty", b""), ("名", bytes(range(256))))),
        Outgoing(bytes(range(256)), bytes(range(255, -1, -1)) * 10),
        *(Outgoing(junk.randbytes(junk.randrange(40)), junk.randbytes(junk.randrange(3000))) for _ in range(200)),
    ]
    before_ms = time.time() * 1000

    await log.append(topic, outgoing)

    found = await log.read(TP(topic, 0), 0, 1000)
    assert [(r.key, r.value, r.headers) for r in found] == [(o.key, o.value, o.headers) for o in outgoing]
    assert [record.offset for record in found] == list(range(len(outgoing)))
    assert all(before_ms - 1000 < record.timestamp_ms < time.time() * 1000 + 1000 for record in found)


async def test_records_of_a_megabyte_and_more_fit(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    large = [random.Random(size).randbytes(size) for size in (1_000_000, 1 << 20, 5 << 20)]

    await log.append(topic, [Outgoing(b"small", b"before"), *(Outgoing(b"large", one) for one in large)])
    await log.append(topic, [Outgoing(b"small", b"after")])

    assert values(await everything(log, topic)) == [b"before", *large, b"after"]


async def test_a_record_that_is_too_large_is_refused_and_harms_no_other(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)

    refused, *stored = await asyncio.gather(
        log.append(topic, [Outgoing(b"key", bytes(LARGEST_RECORD_BYTES + 1))]),
        *(log.append(topic, [Outgoing(b"key", b"%d" % i)]) for i in range(5)),
        return_exceptions=True,
    )

    assert isinstance(refused, TidewireError)
    assert str(LARGEST_RECORD_BYTES) in str(refused)
    assert not any(isinstance(one, BaseException) for one in stored)
    assert len(await everything(log, topic)) == 5


async def test_many_callers_at_once_each_get_their_own_places(ground: Ground, log: Log) -> None:
    topic = await ground.topic()

    async def call(caller: int) -> None:
        for turn in range(5):
            outgoing = [Outgoing(b"key-%d" % (caller % 13), b"%d/%d/%d" % (caller, turn, i)) for i in range(3)]
            (place,) = await log.append(topic, outgoing)
            found = await log.read(TP(topic, place.partition), place.first, place.count)
            assert values(found) == [record.value for record in outgoing]

    await asyncio.gather(*(call(caller) for caller in range(60)))

    found = await everything(log, topic)
    assert Counter(values(found)).most_common(1)[0][1] == 1
    assert len(found) == 60 * 5 * 3
    of_caller = defaultdict(list)
    for record in found:
        caller, turn, i = (record.value or b"").split(b"/")
        of_caller[caller].append((turn, i))
    assert all(places == sorted(places) for places in of_caller.values())


async def test_an_append_larger_than_a_batch_keeps_its_order(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    outgoing = [Outgoing(b"key", b"%06d" % i + bytes(1000)) for i in range(5000)]

    placed, _ = await asyncio.gather(log.append(topic, outgoing), log.append(topic, numbered(5)))

    assert sum(place.count for place in placed) == 5000
    mine = [record.value for record in await everything(log, topic) if len(record.value or b"") > 1000]
    assert mine == [record.value for record in outgoing]


async def test_a_caller_that_goes_away_leaves_the_log_working(ground: Ground, log: Log) -> None:
    topic = await ground.topic()
    calls = [asyncio.create_task(log.append(topic, numbered(10, b"gone"))) for _ in range(20)]
    await asyncio.sleep(0.001)
    for call in calls[::2]:
        call.cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)

    await log.append(topic, numbered(3, b"after"))

    found = Counter(record.key for record in await everything(log, topic))
    assert found[b"after"] == 3
    answered = sum(1 for one in done if not isinstance(one, BaseException))
    assert found[b"gone"] >= 10 * answered
    assert answered >= 10


async def test_an_append_of_nothing_is_no_append(ground: Ground, log: Log) -> None:
    topic = await ground.topic()

    assert await log.append(topic, []) == []


# --- partitions


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_of_a_key_is_kafkas(key: bytes, signed: int) -> None:
    """The vectors are those of Kafka's own UtilsTest.testMurmur2."""
    assert murmur2(key) == signed & 0x7FFFFFFF


async def test_a_key_decides_the_partition(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=7)
    keys = [b"shop/u:%d" % i for i in range(100)]

    await log.append(topic, [Outgoing(key, b"") for key in keys])

    found = await everything(log, topic)
    assert {record.key: record.partition for record in found} == {key: partition_of(key, 7) for key in keys}
    assert {record.partition for record in found} == set(range(7))


@pytest.mark.kafka
async def test_other_peoples_producers_choose_the_same_partitions(kafka: str) -> None:
    ground = KafkaGround(kafka)
    log = await ground.open()
    topic = await ground.topic(partitions=5)
    keys = [b"shop/u:%d" % i for i in range(200)]

    async with AIOKafkaProducer(bootstrap_servers=kafka.removeprefix("kafka://")) as theirs:
        for key in keys:
            await theirs.send(topic, key=key, value=b"")
    await ground.close()

    log = await ground.open()
    found = await everything(log, topic)
    await ground.close()
    assert {record.key: record.partition for record in found} == {key: partition_of(key, 5) for key in keys}


async def test_without_a_key_the_partitions_take_turns(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=3)

    for _ in range(30):
        await log.append(topic, [Outgoing(None, b"")])

    assert {partition: after for partition, (_, after) in (await log.bounds(topic)).items()} == {0: 10, 1: 10, 2: 10}


async def test_a_named_partition_is_obeyed_and_one_that_is_not_there_refused(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=3)

    placed = await log.append(topic, [Outgoing(b"any", b"", 2)])

    assert [place.partition for place in placed] == [2]
    with pytest.raises(TidewireError, match="no partition 3"):
        await log.append(topic, [Outgoing(b"any", b"", 3)])


# --- windows and bounds


@pytest.mark.parametrize("most", [1, 7, 100, 5000])
async def test_reading_on_in_windows_gives_every_record_once(ground: Ground, log: Log, most: int) -> None:
    topic = await ground.topic(partitions=1)
    for i in range(0, 300, 20):
        await log.append(topic, [Outgoing(b"key", b"%d" % (i + j)) for j in range(20)])

    found, offset = [], 0
    while window := await log.read(TP(topic, 0), offset, most):
        assert len(window) <= most
        found += window
        offset = window[-1].offset + 1

    assert values(found) == [b"%d" % i for i in range(300)]
    assert values(await log.read(TP(topic, 0), 150, 2)) == [b"150", b"151"]  # back again, into the middle of a batch


async def test_reading_at_or_after_the_end_gives_nothing_at_once(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    await log.append(topic, [Outgoing(b"", b"", 0)] * 3)
    began = time.monotonic()

    assert await log.read(TP(topic, 0), 3, 10) == []
    assert await log.read(TP(topic, 0), 1_000_000, 10) == []
    assert await log.read(TP(topic, 1), 0, 10) == []
    assert time.monotonic() - began < 2


async def test_what_is_appended_later_is_read_on(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    await log.append(topic, numbered(2))
    assert len(await log.read(TP(topic, 0), 0, 10)) == 2
    assert await log.read(TP(topic, 0), 2, 10) == []

    await log.append(topic, [Outgoing(b"key", b"later")])

    assert values(await log.read(TP(topic, 0), 2, 10)) == [b"later"]


async def test_bounds_are_the_first_offset_and_the_one_after_the_last(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    assert await log.bounds(topic) == {0: (0, 0), 1: (0, 0)}

    await log.append(topic, [Outgoing(b"", b"", 1)] * 4)

    assert await log.bounds(topic) == {0: (0, 0), 1: (0, 4)}


async def test_reading_before_what_retention_dropped_starts_where_the_log_does(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    await log.append(topic, numbered(10))
    await asyncio.sleep(0.01)  # retention goes by age: the two halves have times of their own
    await log.append(topic, [Outgoing(b"key", b"kept-%d" % i) for i in range(10)])

    await ground.forget(TP(topic, 0), before=10)

    assert await log.bounds(topic) == {0: (10, 20)}
    assert values(await log.read(TP(topic, 0), 0, 3)) == [b"kept-0", b"kept-1", b"kept-2"]
    assert values(await as_group(log, f"late-{topic}", topic, 10)) == [b"kept-%d" % i for i in range(10)]


async def test_a_compacted_topic_keeps_the_newest_record_of_each_key(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1, retention_ms=None)
    for turn in range(30):
        await log.append(topic, [Outgoing(b"key-%d" % i, b"%d/%d" % (i, turn)) for i in range(20)])
    await log.append(topic, [Outgoing(b"key-3", b"3/newest")])

    await ground.compact(topic)

    found = [record for record in await everything(log, topic) if record.key != b"closes the segment"]
    newest = [b"%d/29" % i for i in range(20) if i != 3] + [b"3/newest"]
    assert values(found) == newest
    assert found[0].offset == 29 * 20  # offsets stay
    assert values(await log.read(TP(topic, 0), 5, 1)) == [b"0/29"]  # from within the gap


# --- groups


async def test_a_new_group_starts_at_the_beginning_and_goes_on_from_its_commit(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    await log.append(topic, numbered(10))
    member = await log.subscribe(f"group-{topic}", [topic])

    first = await gather(member, 10)
    await member.commit({TP(topic, 0): 6})
    await member.close()

    assert values(first) == [b"%d" % i for i in range(10)]
    assert await log.committed(f"group-{topic}", topic) == {0: 6}
    assert values(await as_group(log, f"group-{topic}", topic, 4)) == [b"6", b"7", b"8", b"9"]


async def test_a_note_stands_beside_its_commit_until_the_next(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    await log.append(topic, [Outgoing(b"a", b"1", p) for p in (0, 0, 0, 1, 1)])
    member = await log.subscribe(f"group-{topic}", [topic])
    await gather(member, 5)

    before = await log.notes(f"group-{topic}", topic)
    await member.commit({TP(topic, 0): 1, TP(topic, 1): 1}, {TP(topic, 0): "to 3", TP(topic, 1): "to 2, für immer"})
    noted = await log.notes(f"group-{topic}", topic)
    await member.commit({TP(topic, 0): 3})
    after = await log.notes(f"group-{topic}", topic)
    committed = await log.committed(f"group-{topic}", topic)
    await member.close()

    assert (before, noted, after) == ({}, {0: "to 3", 1: "to 2, für immer"}, {1: "to 2, für immer"})
    assert committed == {0: 3, 1: 1}


async def test_a_member_says_when_it_was_given_partitions(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    await log.append(topic, [Outgoing(b"a", b"1", p) for p in (0, 1)])
    one = await log.subscribe(f"group-{topic}", [topic])
    await gather(one, 2)
    alone = one.assignments

    other = await log.subscribe(f"group-{topic}", [topic])
    await log.append(topic, [Outgoing(b"a", b"2", p) for p in (0, 1)])
    async with asyncio.timeout(30):
        while one.assignments == alone:
            await one.poll(10, 0.1)
            await other.poll(10, 0.1)
    await one.close()
    await other.close()

    assert alone >= 1


async def test_groups_do_not_disturb_each_other(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    await log.append(topic, numbered(5))
    one = await log.subscribe(f"one-{topic}", [topic])
    await gather(one, 5)
    await one.commit({TP(topic, 0): 5})
    await one.close()

    assert await log.committed(f"two-{topic}", topic) == {}
    assert len(await as_group(log, f"two-{topic}", topic, 5)) == 5
    assert await log.committed(f"one-{topic}", topic) == {0: 5}


async def test_what_was_not_committed_comes_again(ground: Ground, log: Log) -> None:
    topic = await ground.topic()
    await log.append(topic, [Outgoing(b"key-%d" % i, b"%d" % i) for i in range(50)])

    once = await as_group(log, f"group-{topic}", topic, 50)
    again = await as_group(log, f"group-{topic}", topic, 50)

    assert sorted(once) == sorted(again)
    assert len(once) == 50


async def test_a_poll_gives_no_more_than_was_asked_for(ground: Ground, log: Log) -> None:
    topic = await ground.topic()
    await log.append(topic, [Outgoing(b"key-%d" % i, b"%d" % i) for i in range(100)])
    member = await log.subscribe(f"group-{topic}", [topic])

    sizes = []
    while sum(sizes) < 100:
        sizes.append(sum(map(len, (await member.poll(30, 5)).values())))
    await member.close()

    assert max(sizes) <= 30
    assert sum(sizes) == 100


async def test_an_idle_poll_returns_after_its_time(ground: Ground, log: Log) -> None:
    topic = await ground.topic()
    member = await log.subscribe(f"group-{topic}", [topic])
    began = time.monotonic()

    found = await member.poll(10, 0.5)

    assert found == {}
    assert 0.3 < time.monotonic() - began < 5
    await member.close()


async def test_a_poll_wakes_when_something_is_appended(ground: Ground, log: Log) -> None:
    topic = await ground.topic()
    member = await log.subscribe(f"group-{topic}", [topic])
    waiting = asyncio.create_task(member.poll(10, 30))
    await asyncio.sleep(0.3)
    began = time.monotonic()

    await log.append(topic, numbered(1))
    found = await waiting

    assert [values(records) for records in found.values()] == [[b"0"]]
    assert time.monotonic() - began < 2
    await member.close()


async def test_rewinding_reads_again_from_the_commit(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    await log.append(topic, [Outgoing(b"", b"a%d" % i, 0) for i in range(6)] + [Outgoing(b"", b"b", 1)])
    member = await log.subscribe(f"group-{topic}", [topic])
    assert len(await gather(member, 7)) == 7
    await member.commit({TP(topic, 0): 4})

    await member.rewind()
    again = await gather(member, 3)

    assert sorted(values(again), key=str) == [b"a4", b"a5", b"b"]  # of partition 1 nothing was committed
    await member.close()


async def test_two_members_share_the_partitions(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=4)
    one = await log.subscribe(f"group-{topic}", [topic])
    two = await log.subscribe(f"group-{topic}", [topic])
    await log.append(topic, [Outgoing(b"", b"%d" % i, i % 4) for i in range(40)])

    of_one, of_two = await asyncio.gather(gather(one, 40, within_s=5), gather(two, 40, within_s=5))

    assert sorted(values([*of_one, *of_two]), key=lambda v: int(v or b"")) == [b"%d" % i for i in range(40)]
    assert len({record.partition for record in of_one}) == 2
    assert len({record.partition for record in of_two}) == 2
    await one.close()
    await two.close()


async def test_a_member_that_leaves_hands_over_what_it_did_not_commit(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    await log.append(topic, [Outgoing(b"", b"%d" % i, i % 2) for i in range(20)])
    one = await log.subscribe(f"group-{topic}", [topic])
    assert len(await gather(one, 20)) == 20
    await one.commit({TP(topic, 0): 10})
    two = await log.subscribe(f"group-{topic}", [topic])

    await one.close()

    found = await gather(two, 10, within_s=15)
    assert {(record.partition, record.value) for record in found if record.partition == 1} == {
        (1, b"%d" % i) for i in range(1, 20, 2)
    }
    assert all(record.partition == 1 for record in found)
    await two.close()


async def test_a_group_without_members_can_be_put_back_and_no_other(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    await log.append(topic, numbered(6))
    member = await log.subscribe("g1", [topic])
    await gather(member, 6)
    await member.commit({TP(topic, 0): 6})

    with pytest.raises(LogBusy, match="'g1' has a member"):
        await log.go_on_from("g1", {TP(topic, 0): 2})
    await member.close()
    await log.go_on_from("g1", {TP(topic, 0): 2})

    assert await log.committed("g1", topic) == {0: 2}
    assert values(await as_group(log, "g1", topic, 4)) == [b"2", b"3", b"4", b"5"]


async def test_a_commit_for_a_partition_that_was_taken_is_let_go(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=2)
    await log.append(topic, [Outgoing(b"", b"%d" % i, i % 2) for i in range(20)])
    one = await log.subscribe(f"group-{topic}", [topic])
    assert len(await gather(one, 20)) == 20
    two = await log.subscribe(f"group-{topic}", [topic])
    taken = {record.partition for record in await gather(two, 10)}

    await one.commit({TP(topic, 0): 10, TP(topic, 1): 10})

    committed = await log.committed(f"group-{topic}", topic)
    assert len(taken) == 1
    assert not taken & committed.keys()
    await one.close()
    await two.close()


# --- topics


async def test_a_topic_says_how_it_is_kept(ground: Ground, log: Log) -> None:
    kept = await ground.topic(partitions=3, retention_ms=WEEK_MS)
    compacted = await ground.topic(partitions=2, retention_ms=None)

    topics = await log.topics()

    assert topics[kept]._replace(id="", largest_bytes=None) == TopicState(kept, "", 3, WEEK_MS, False)
    assert topics[compacted]._replace(id="", largest_bytes=None) == TopicState(compacted, "", 2, None, True)
    assert topics[kept].id != topics[compacted].id
    assert (log.partitions(kept), log.partitions(compacted)) == (3, 2)


async def test_making_a_topic_again_leaves_it_as_it_is(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=3)
    await log.append(topic, numbered(2))
    before = (await log.topics())[topic]

    await log.create_topic(topic, 8, None, 1)

    assert (await log.topics())[topic] == before
    assert len(await everything(log, topic)) == 2


async def test_a_topic_that_is_not_there_is_named_with_the_mend(log: Log) -> None:
    for ask in (
        lambda: log.append("nowhere", numbered(1)),
        lambda: log.read(TP("nowhere", 0), 0, 1),
        lambda: log.bounds("nowhere"),
        lambda: log.committed("group", "nowhere"),
        lambda: log.subscribe("group", ["nowhere"]),
    ):
        with pytest.raises(TidewireError, match=r"no topic 'nowhere'.*tidewire topics create"):
            await ask()


# --- life and death


async def test_what_was_appended_is_there_after_a_restart(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    await log.append(topic, numbered(10))
    member = await log.subscribe(f"group-{topic}", [topic])
    await gather(member, 10)
    await member.commit({TP(topic, 0): 7}, {TP(topic, 0): "noted"})
    await member.close()
    before = (await log.topics())[topic]

    await log.stop()
    log = await ground.open()

    assert (await log.topics())[topic] == before
    assert values(await everything(log, topic)) == [b"%d" % i for i in range(10)]
    assert await log.committed(f"group-{topic}", topic) == {0: 7}
    assert await log.notes(f"group-{topic}", topic) == {0: "noted"}
    placed = await log.append(topic, numbered(1))
    assert placed[0].first == 10


async def test_a_closed_log_takes_no_more(ground: Ground, log: Log) -> None:
    topic = await ground.topic()

    await log.stop()

    with pytest.raises(LogUnavailable, match="closed"):
        await log.append(topic, numbered(1))


async def test_appends_under_way_are_acknowledged_before_the_log_closes(ground: Ground, log: Log) -> None:
    topic = await ground.topic(partitions=1)
    calls = [asyncio.create_task(log.append(topic, [Outgoing(b"", b"%d" % i)])) for i in range(100)]
    await asyncio.sleep(0)

    await log.stop()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    log = await ground.open()

    found = set(values(await everything(log, topic)))
    acknowledged = {b"%d" % i for i, answer in enumerate(answers) if not isinstance(answer, BaseException)}
    assert acknowledged <= found
    assert acknowledged


_MEMBER = """
import asyncio, sys
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.log import Outgoing, TP

async def main(url, group, topic):
    log = EmbeddedLog(url.partition(":")[2]) if url.startswith("embedded:") else KafkaLog(url)
    await log.start()
    member = await log.subscribe(group, [topic])
    found = []
    while len(found) < 10:
        for records in (await member.poll(100, 1)).values():
            found += records
    await member.commit({TP(topic, 0): 4})
    await log.append(topic, [Outgoing(b"key", b"acknowledged")])
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_small_append_does_not_wait_for_a_large_one_to_another_topic(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    try:
        await log.create_topic("states", 2, None)
        await log.create_topic("events", 2, WEEK_MS)
        states = [Outgoing(b"%d" % number, bytes(10_000), number % 2) for number in range(1_000)]
        large = asyncio.create_task(log.append("states", states))
        await asyncio.sleep(0)  # it waits for its first commit

        await log.append("events", [Outgoing(b"k", b"v")])

        assert not large.done()
        placed = await large
        assert sum(place.count for place in placed) == len(states)
        for partition in (0, 1):
            kept = await log.read(TP("states", partition), 0, len(states))
            assert [record.key for record in kept] == [each.key for each in states if each.partition == partition]
    finally:
        await log.stop()


@pytest.mark.parametrize("count", [1, 100])
async def test_an_append_that_failed_holds_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    try:
        await log.create_topic("t", 1, WEEK_MS)
        monkeypatch.setattr(log, "_write", fail)

        assert await is_freed_at_once(
            lambda records: log.append("t", records), Records([Outgoing(b"k", bytes(10_000))] * count)
        )
    finally:
        monkeypatch.undo()
        await log.stop()


async def test_a_copy_is_the_log_at_one_moment_while_appends_go_on(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await log.create_topic("t", 2, None)
    await log.append("t", [Outgoing(b"k", b"%d" % i, 0) for i in range(2_000)])
    await log.commit("stage", {TP("t", 0): 1_500})
    await log.commit("sink", {TP("t", 0): 1_400, TP("t", 1): 0})

    async def append_on() -> None:
        for i in range(2_000, 2_200):
            await log.append("t", [Outgoing(b"k", b"%d" % i, 0)])

    appending = asyncio.create_task(append_on())
    await log.copy_to(tmp_path / "copy.db", {"sink": {TP("t", 0): 700}})
    await appending
    copy = EmbeddedLog(tmp_path / "copy.db")
    await copy.start()

    try:
        records = await copy.read(TP("t", 0), 0, 10_000)
        assert 2_000 <= len(records) <= 2_200
        assert values(records) == [b"%d" % i for i in range(len(records))]
        assert await copy.topics() == await log.topics()
        assert (await copy.bounds("t"))[0] == (0, len(records))
        assert await copy.committed("stage", "t") == {0: 1_500}
        assert await copy.committed("sink", "t") == {0: 700}
    finally:
        await copy.stop()
        await log.stop()


async def test_a_damaged_log_is_not_copied_as_if_it_were_whole(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await log.create_topic("t", 1, None)
    await log.append("t", [Outgoing(b"k%d" % i, b"v" * 500, 0) for i in range(2_000)])
    await log.stop()
    with (tmp_path / "log.db").open("r+b") as file:
        file.seek(20 * 8_192)
        file.write(b"\xff" * 8_192)
    await log.start()

    try:
        with pytest.raises(TidewireError, match=r"damaged|cannot be copied"):
            await log.copy_to(tmp_path / "copy.db", {})
    finally:
        await log.stop()


@pytest.mark.slow
async def test_kill_9_loses_nothing_that_was_acknowledged_and_frees_what_was_held(ground: Any) -> None:
    topic = await ground.topic(partitions=1)
    await ground.log.append(topic, numbered(10))
    await ground.log.stop()  # one process owns an embedded log
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _MEMBER, ground.url, f"group-{topic}", topic, stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert child.stdout is not None
    try:
        while (line := await asyncio.wait_for(child.stdout.readline(), 60)) != b"ready\n":
            assert line, "the member ended before it was ready"
    finally:
        if child.returncode is None:
            os.kill(child.pid, signal.SIGKILL)
        await child.wait()

    log = await ground.open()
    member = await log.subscribe(f"group-{topic}", [topic])
    found = await gather(member, 7, within_s=40)
    await member.close()

    assert values(found) == [b"4", b"5", b"6", b"7", b"8", b"9", b"acknowledged"]
