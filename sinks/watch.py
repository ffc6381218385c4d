"""What ClickHouse says of its tables, asked now and then, for the metrics."""

from __future__ import annotations

import asyncio

import structlog

from schemas.errors import TidewireError
from sinks.analytics import Analytics
from streams.metrics import SinkMetrics

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 15.0

_TABLES = """
SELECT table, max(parts) AS most_parts, sum(rows) AS rows, sum(bytes) AS bytes
FROM (
    SELECT table, count() AS parts, sum(p.rows) AS rows, sum(bytes_on_disk) AS bytes
    FROM system.parts AS p WHERE active AND database = currentDatabase() GROUP BY table, partition_id
)
GROUP BY table
"""
_DISKS = "SELECT min(free_space) AS free FROM system.disks WHERE type = 'Local'"


async def watch(analytics: Analytics, metrics: SinkMetrics) -> None:
    """Look until cancelled. While ClickHouse is away the numbers stay as they were; the sink says that it is away."""
    while True:
        try:
            await look(analytics, metrics)
        except TidewireError as error:
            log.info("tables_not_looked_at", error=str(error))
        await asyncio.sleep(LOOK_EVERY_S)


async def look(analytics: Analytics, metrics: SinkMetrics) -> None:
    """Set the metrics of tables and disks.

    Raises:
        ClickHouseError: it cannot be asked, or does not let this user ask.
    """
    for row in await analytics.query(_TABLES):
        metrics.parts.labels(row["table"]).set(row["most_parts"])
        metrics.table_rows.labels(row["table"]).set(row["rows"])
        metrics.table_bytes.labels(row["table"]).set(row["bytes"])
    disks = await analytics.query(_DISKS)
    if disks and disks[0]["free"]:  # chDB knows of none
        metrics.disk_free.set(disks[0]["free"])
