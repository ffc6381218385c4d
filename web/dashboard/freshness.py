"""How far behind the numbers are: records not yet read by the customer stage and by the ClickHouse sink."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from schemas.errors import TidewireError
from schemas.times import from_ms
from sinks.batch import TOPICS as SINK_TOPICS
from sinks.clickhouse import GROUP as SINK_GROUP
from streams.lag import STAGE_GROUP, STAGE_TOPICS
from streams.log import TP, Log


class Lag(NamedTuple):
    """How many records a group has not done yet, for how long the oldest of them has waited, and since when: what came
    before is done."""

    records: int = 0
    waited: timedelta = timedelta(0)
    since: datetime | None = None


class Freshness(NamedTuple):
    """Both lags. `trouble` says why they are not known, where they are not."""

    stage: Lag = Lag()
    sink: Lag = Lag()
    trouble: str = ""

    @property
    def is_current(self) -> bool:
        return not (self.trouble or self.stage.records or self.sink.records)


async def freshness(log: Log, now: datetime) -> Freshness:
    try:
        stage = await _lag(log, STAGE_GROUP, STAGE_TOPICS, now)
        return Freshness(stage, await _lag(log, SINK_GROUP, SINK_TOPICS, now))
    except TidewireError as error:
        return Freshness(trouble=str(error))


async def _lag(log: Log, group: str, topics: Iterable[str], now: datetime) -> Lag:
    behind, oldest = 0, now
    for topic in topics:
        committed = await log.committed(group, topic)
        for partition, (first, end) in (await log.bounds(topic)).items():
            at = max(committed.get(partition, first), first)
            if at >= end:
                continue
            behind += end - at
            waiting = await log.read(TP(topic, partition), at, 1)
            if waiting:
                oldest = min(oldest, from_ms(waiting[0].timestamp_ms))
    return Lag(behind, now - oldest, oldest if behind else None)
