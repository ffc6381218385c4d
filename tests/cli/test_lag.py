"""The lag counts what a group has not done, and nothing that retention has taken."""

from __future__ import annotations

import pytest

from config.settings import Settings
from streams.embedded import EmbeddedLog
from streams.lag import SINK_GROUP, STAGE_GROUP, Lag, has_caught_up, measure_lag
from streams.log import TP, Outgoing
from streams.topics import create_topics


@pytest.fixture
async def log(tmp_path):
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(partitions=2))
    yield log
    await log.stop()


async def commit(log: EmbeddedLog, group: str, topic: str, offsets: dict[int, int]) -> None:
    member = await log.subscribe(group, [topic])
    await member.commit({TP(topic, partition): offset for partition, offset in offsets.items()})
    await member.close()


async def test_an_empty_log_has_no_lag(log):
    assert await measure_lag(log) == Lag(0, 0)


async def test_an_event_counts_until_stage_and_sink_have_committed_it(log):
    await log.append("events", [Outgoing(b"k", b"v", 1), Outgoing(b"k", b"w", 1), Outgoing(b"k", b"x", 0)])

    lags = [await measure_lag(log)]
    await commit(log, STAGE_GROUP, "events", {0: 1, 1: 1})
    lags.append(await measure_lag(log))
    await commit(log, STAGE_GROUP, "events", {1: 2})
    lags.append(await measure_lag(log))
    await commit(log, SINK_GROUP, "events", {0: 1, 1: 2})
    lags.append(await measure_lag(log))

    assert lags == [Lag(3, 3), Lag(1, 3), Lag(0, 3), Lag(0, 0)]
    assert await has_caught_up(log)


@pytest.mark.parametrize(
    ("topic", "lag"),
    [("rows", Lag(0, 1)), ("profiles", Lag(0, 1)), ("decisions", Lag(0, 1)), ("rejected", Lag(0, 1)),
     ("customers", Lag(0, 0))],
)  # fmt: skip
async def test_what_follows_from_an_event_counts_too(log, topic, lag):
    await log.append(topic, [Outgoing(b"k", b"v")])

    assert await measure_lag(log) == lag
