"""What the pages of segments ask the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from processors.segments import Segments
from sinks.analytics import Analytics
from sinks.migrate import migrate
from tests.sinks.conftest import chdb  # noqa: F401 - a fixture
from web.dashboard.queries.segments import causes, freshness, standings


async def test_a_decision_that_is_stored_twice_counts_once(chdb: Analytics) -> None:  # noqa: F811
    """As after a sink that died between an insert and its commit, when ClickHouse has forgotten the insert's token."""
    await migrate(chdb, Segments.tables)
    told = [("1", "ann", "joined"), ("1", "ann", "joined"), ("2", "bob", "joined"), ("3", "bob", "left")]
    for id, person, kind in told:  # each insert is a part of its own, and nothing has merged them yet
        await chdb.command(
            "INSERT INTO decisions (workspace, id, recorded_for, at, processor, kind, about, cause, facts) SELECT "
            "'default', {id:String}, {person:String}, now64(3) - INTERVAL 1 SECOND, 'segments', {kind:String}, "
            """'buyers', 'events-0@1', '{"why": "event", "event": "Order Completed"}'""",
            {"id": id, "person": person, "kind": kind},
        )
    today = datetime.now(UTC).date()

    found = await standings(chdb, "default", ["buyers"], today=today, zone="UTC")

    assert (found["buyers"].today.joined, found["buyers"].today.left) == (2, 1)
    assert (await freshness(chdb, "default", "buyers"))["changes"] == 3
    why = await causes(chdb, "default", "buyers", today=today, zone="UTC")
    assert [(row["kind"], row["times"]) for row in why] == [("joined", 2), ("left", 1)]
