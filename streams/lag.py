"""How far behind the customer stage and the ClickHouse sink are: records in the log that their groups have not done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sinks.batch import TOPICS as SINK_TOPICS
from sinks.clickhouse import GROUP as SINK_GROUP
from streams.log import Log

STAGE_GROUP = "tidewire-customers"
STAGE_TOPICS = ("events",)


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


async def has_caught_up(log: Log) -> bool:
    """Whether the customer stage and the sink have nothing left to do."""
    return (await measure_lag(log)).is_none


async def _behind(log: Log, group: str, topics: Iterable[str]) -> int:
    behind = 0
    for topic in topics:
        committed = await log.committed(group, topic)
        for partition, (first, end) in (await log.bounds(topic)).items():
            behind += max(0, end - max(first, committed.get(partition, first)))
    return behind
