"""Topics are made as stated, and wrong ones are refused with the mend."""

from __future__ import annotations

import re

import pytest

from config.settings import Settings
from schemas.errors import ConfigError
from schemas.times import DAY_MS
from schemas.topics import TOPICS
from streams.embedded import EmbeddedLog
from streams.topics import check_topics, create_topics, find_faults


@pytest.fixture
async def log(tmp_path):
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    yield log
    await log.stop()


async def test_made_topics_are_right_and_made_once(log):
    settings = Settings(partitions=3)

    made = await create_topics(log, settings)
    again = await create_topics(log, settings)

    assert made == list(TOPICS)
    assert again == []
    await check_topics(log, settings)
    states = await log.topics()
    assert {name: (state.partitions, state.is_compacted, state.retention_ms) for name, state in states.items()} == {
        name: (3, topic.is_compacted, topic.retention_ms) for name, topic in TOPICS.items()
    }


async def test_a_topic_added_later_gets_the_partitions_of_events_and_not_those_of_the_settings(log):
    await log.create_topic("events", 6, 365 * DAY_MS, 1)

    await create_topics(log, Settings(partitions=2))

    states = await log.topics()
    assert {states[name].partitions for name in ("events", "customers")} == {6}
    assert states["rejected"].partitions == 2
    assert find_faults(states) == {}


async def test_an_empty_log_is_refused_with_every_missing_topic(log):
    with pytest.raises(ConfigError) as caught:
        await check_topics(log, Settings(log="embedded:x"))

    message = str(caught.value)
    assert message.startswith("embedded:x: Topic 'events' does not exist.")
    assert all(f"{name!r} does not exist" in message for name in TOPICS)
    assert "tidewire topics create" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("topic", "change", "says"),
    [
        ("customers", {"partitions": 1}, r"'customers' has 1 partitions, but 'events' has 4"),
        ("customers", {"is_compacted": False, "retention_ms": DAY_MS}, r"cleanup\.policy=compact"),
        ("profiles", {"is_compacted": False, "retention_ms": None}, r"forget people"),
        ("events", {"is_compacted": True, "retention_ms": None}, r"cleanup\.policy=delete"),
        ("rejected", {"retention_ms": 7 * DAY_MS}, r"7 days, less than 90 days. Set retention\.ms=7776000000"),
        ("rows", {"retention_ms": DAY_MS // 2}, r"0\.5 days"),
        ("customers", {"retention_ms": DAY_MS}, r"would forget people\. Set cleanup\.policy=compact alone"),
        ("customers", {"most_bytes": 10**9}, r"would forget people\. Set cleanup\.policy=compact alone"),
        ("events", {"most_bytes": 10**9}, r"beyond 1000000000 bytes.*retention\.bytes=-1"),
        ("events", {"copies": 3, "in_sync": 1}, r"min\.insync\.replicas=2"),
        ("events", {"copies": 1, "in_sync": 2}, r"nothing can be written. Set min\.insync\.replicas=1"),
        ("customers", {"is_unclean": True}, r"unclean\.leader\.election\.enable=false"),
        ("events", {"largest_bytes": 1_048_588}, r"max\.message\.bytes=9437184 or more"),
    ],
)
async def test_a_wrong_topic_is_refused_with_the_mend(log, topic, change, says):
    await create_topics(log, Settings())
    states = await log.topics()

    states[topic] = states[topic]._replace(**change)
    faults = find_faults(states)

    assert list(faults) == [topic]
    assert re.search(says, faults[topic]), faults[topic]


async def test_other_partitions_than_the_settings_say_are_refused(log):
    await create_topics(log, Settings(partitions=4))

    with pytest.raises(ConfigError, match=r"partitions: it is 6, but topic .events. has 4.*Set it to 4"):
        await check_topics(log, Settings(partitions=6))
    await check_topics(log, Settings())


@pytest.mark.parametrize("change", [{"retention_ms": 900 * DAY_MS}, {"retention_ms": None}])
async def test_a_topic_that_keeps_its_records_longer_is_right(log, change):
    await create_topics(log, Settings())
    states = await log.topics()

    states["events"] = states["events"]._replace(**change)

    assert find_faults(states) == {}
