"""Partitions that stand still rather than become dead letters, as the ledger tells of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from streams.lag import STAGE_GROUP
from streams.log import Log

if TYPE_CHECKING:
    from sinks.analytics import Analytics

# Offsets say what came last: a partition may stop at a record that is older than the moment it was last let go on.
_STOPPED = """
SELECT about, stops.1 AS offset, stops.2 AS why, stops.3 AS at
FROM (
    SELECT about, maxIf((facts.offset::Nullable(Int64), facts.why::String, at), kind = 'partition_stopped') AS stops,
        maxIf(facts.offset::Nullable(Int64), kind = 'partition_goes_on') AS goes_on
    FROM decision_log WHERE processor = 'worker' AND kind IN ('partition_stopped', 'partition_goes_on')
    GROUP BY about
)
WHERE stops.1 > ifNull(goes_on, -1)
"""


class StoppedPartition(NamedTuple):
    """A partition of topic `events` that stands still.

    Attributes:
        offset: of the first record that is not handled.
        waiting: how many records wait.
    """

    partition: int
    offset: int
    why: str
    at: datetime
    waiting: int


async def stopped_partitions(analytics: Analytics, log: Log) -> list[StoppedPartition]:
    """Those that stand still, as far as ClickHouse knows by now."""
    rows = await analytics.query(_STOPPED)
    if not rows:
        return []
    bounds = await log.bounds("events")
    committed = await log.committed(STAGE_GROUP, "events")
    found = []
    for row in rows:
        partition = int(row["about"].rpartition("-")[2])
        if partition in bounds:
            first, end = bounds[partition]
            waiting = end - max(first, committed.get(partition, first))
            found.append(StoppedPartition(partition, int(row["offset"]), row["why"], row["at"], waiting))
    return sorted(found)
