"""The newest records of the embedded log are read from memory, the others from the disk, and nobody can tell."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from config.settings import Settings
from streams import embedded
from streams.embedded import EmbeddedLog
from streams.log import TP, Outgoing, Record
from streams.topics import create_topics

EVENTS = TP("events", 0)


async def _open(folder: Path) -> EmbeddedLog:
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(partitions=1))
    return log


def a_record(number: int, size: int = 100) -> Outgoing:
    headers = (("tidewire", b"internal"),) if number % 7 == 0 else ()
    return Outgoing(f"k{number}".encode(), bytes([number % 256]) * size, 0, headers)


def _from_disk(log: EmbeddedLog, offset: int, most: int) -> list[Record]:
    return log._read(log._topic("events"), 0, offset, most)


async def test_what_is_read_from_memory_is_what_stands_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "TAIL_BYTES", 50_000)
    dice = random.Random(1)
    log = await _open(tmp_path)
    await log.read(EVENTS, 0, 1)  # somebody reads: from now on the end is kept
    count = 0
    for _ in range(60):
        some = [a_record(count + i, dice.randrange(2_000)) for i in range(dice.randrange(1, 20))]
        await log.append("events", some)
        count += len(some)

        assert log._tail_bytes == sum(t.size for each in log._topics.values() for t in each.tails) <= 50_000
        for _ in range(5):
            offset, most = dice.randrange(count), dice.randrange(1, 50)
            found = await log.read(EVENTS, offset, most)
            assert found == _from_disk(log, offset, most)[: len(found)]
            assert found[0].offset == offset

    tail = log._topic("events").tails[0]
    assert tail.records[0].offset > 0  # the older half was let go of, more than once
    assert tail.records[-1].offset == count - 1
    await log.stop()


async def test_records_just_appended_are_not_looked_for_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = await _open(tmp_path)
    await log.read(EVENTS, 0, 1)
    await log.append("events", [a_record(0), a_record(1)])

    def fails(*_: object) -> list[Record]:
        raise AssertionError("read from disk")

    monkeypatch.setattr(log, "_read", fails)
    assert [record.offset for record in await log.read(EVENTS, 0, 10)] == [0, 1]
    await log.stop()


async def test_what_nobody_reads_is_not_kept(tmp_path: Path):
    log = await _open(tmp_path)
    await log.append("customers", [Outgoing(b"k", b"v", 0)])

    assert log._tail_bytes == 0
    await log.stop()


async def test_after_a_restart_the_log_is_read_from_the_disk(tmp_path: Path):
    log = await _open(tmp_path)
    await log.read(EVENTS, 0, 1)
    await log.append("events", [a_record(0), a_record(1)])
    await log.stop()

    log = await _open(tmp_path)
    await log.append("events", [a_record(2)])
    assert [record.offset for record in await log.read(EVENTS, 0, 10)] == [0, 1, 2]
    await log.append("events", [a_record(3)])
    assert [record.offset for record in await log.read(EVENTS, 3, 10)] == [3]
    assert [record.offset for record in await log.read(EVENTS, 1, 10)] == [1, 2, 3]
    await log.stop()
