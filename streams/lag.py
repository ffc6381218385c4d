"""How far behind the customer stage and the ClickHouse sink are: records in the log that their groups have not done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sinks.batch import TOPICS as SINK_TOPICS
from sinks.clickhouse import GROUP as SINK_GROUP
from streams.lines import COUPONS, CUSTOMERS, MESSAGES
from streams.log import Log

STAGE_GROUP = CUSTOMERS.group
STAGE_TOPICS = (CUSTOMERS.topic,)
LOOK_EVERY_S = 0.5
SOON_S = 0.1


class Lag(NamedTuple):
    """Records not done yet, by the customer stage and by the sink."""

    stage: int
    sink: int

    @property
    def is_none(self) -> bool:
        return not self.stage and not self.sink


async def measure_lag(log: Log) -> Lag:
    """Count what is left. None left means: all that stood in `events` when this was called is in ClickHouse.

    Each reader appends what follows from a record before it commits, so its outputs are counted if they are looked for
    after its offsets: first the stage, then the sink, and of each the offsets before the ends.
    """
    return Lag(await _behind(log, STAGE_GROUP, STAGE_TOPICS), await _behind(log, SINK_GROUP, SINK_TOPICS))


class Progress(NamedTuple):
    """How a group is getting on: records it has not committed, and the sum of the offsets it has."""

    behind: int
    committed: int


GROUPS: Mapping[str, tuple[str, ...]] = {
    STAGE_GROUP: STAGE_TOPICS, MESSAGES.group: (MESSAGES.topic,), COUPONS.group: (COUPONS.topic,),
    SINK_GROUP: SINK_TOPICS,
}  # fmt: skip


async def measure_groups(log: Log) -> dict[str, Progress]:
    """Of each group of ours; in their order what is left is what `measure_lag` finds."""
    return {group: await _progress(log, group, topics) for group, topics in GROUPS.items()}


async def has_caught_up(log: Log) -> bool:
    """Whether the customer stage and the sink have nothing left to do."""
    return (await measure_lag(log)).is_none


async def until_past(log: Log, places: Mapping[int, int]) -> None:
    """Wait until ClickHouse holds what follows from the records of `events` at these offsets, by partition."""
    await until_handled(log, places)
    for topic in SINK_TOPICS:  # the stage commits after what follows is appended, so now it is there
        ends = {partition: end - 1 for partition, (_, end) in (await log.bounds(topic)).items()}
        await _until_past(log, SINK_GROUP, topic, places if topic == "events" else ends)


async def until_handled(log: Log, places: Mapping[int, int]) -> None:
    """Wait until the stage has handled the records of `events` at these offsets, by partition."""
    await _until_past(log, STAGE_GROUP, "events", places, SOON_S)


async def until_stored(log: Log, topic: str, places: Mapping[int, int]) -> None:
    """Wait until ClickHouse holds the records of a topic up to these offsets, by partition."""
    await _until_past(log, SINK_GROUP, topic, places, SOON_S)


async def _until_past(
    log: Log, group: str, topic: str, places: Mapping[int, int], every_s: float = LOOK_EVERY_S
) -> None:  # fmt: skip
    while True:
        committed = await log.committed(group, topic)
        if all(committed.get(partition, 0) > offset for partition, offset in places.items()):
            return
        await asyncio.sleep(every_s)


async def _behind(log: Log, group: str, topics: Iterable[str]) -> int:
    return (await _progress(log, group, topics)).behind


async def _progress(log: Log, group: str, topics: Iterable[str]) -> Progress:
    behind = done = 0
    for topic in topics:
        committed = await log.committed(group, topic)
        done += sum(committed.values())
        for partition, (first, end) in (await log.bounds(topic)).items():
            behind += max(0, end - max(first, committed.get(partition, first)))
    return Progress(behind, done)
