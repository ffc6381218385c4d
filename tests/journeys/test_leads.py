"""What ClickHouse says of those who are inside, and of the arms of splits that learn, is told to partitions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Settings
from processors.fold import Fold
from processors.journeys import JourneyRow
from processors.journeys import Journeys as Processor
from schemas.internal import HEADERS
from schemas.journeys import Led, LedJourney
from schemas.rows import LedgerLine, encode_json, row_once
from schemas.segments import Told
from schemas.times import to_ms
from sinks.analytics import Analytics
from sinks.clickhouse import ClickHouseSink
from sinks.migrate import migrate
from streams import leads as module
from streams.embedded import EmbeddedLog
from streams.journeys import Journeys
from streams.lag import STAGE_GROUP
from streams.leads import Leads
from streams.log import TP, Outgoing
from streams.templates import Templates
from streams.topics import create_topics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAID = {
    "enter": {"joined": "loyal"},
    "goal": {"did": "Order Completed", "within": "7 days"},
    "steps": [
        {"step": "pick", "learns": True, "split": [{"then": "long"}, {"then": "short"}]},
        {"step": "set", "split": [{"then": "long"}, {"then": "short"}]},
        {"step": "long", "exit": "", "then": "end"},
        {"step": "short", "exit": ""},
    ],
}


def a_row(number: int, *, has_goal: bool, days: float = 8, version: int = 3, state: str = "ended") -> Outgoing:
    entered_at = NOW - timedelta(days=days)
    row = JourneyRow(
        run=f"{number:016x}", journey="greet", definition=version, is_control=False, state=state, step="pick",
        entered_at=entered_at, entered_by="joined", entry_key="", due_at=None, left_at=None, left_by="",
        goal_at=entered_at if has_goal else None, goal_value=0.0, sent=0,
    )  # fmt: skip
    person = f"shop/u:{number}"
    return Outgoing(person.encode(), encode_json(row_once("journey_runs", person, row)))


def a_draw(number: int, arm: int, *, target: str = "", times: int = 0) -> Outgoing:
    line = LedgerLine(
        id=f"{number}-{times}", workspace="shop", person=f"shop/u:{number}", at=NOW, processor="journeys", kind="split",
        about="greet", cause="events-0@1",
        facts={"run": f"{number:016x}", "version": 3, "step": "pick", "to": target or ("long", "short")[arm - 1],
               "arm": arm, "share": 0.5},
    )  # fmt: skip
    return Outgoing(line.person.encode(), encode_json(line))


def led(*versions: int) -> Told:
    journeys = [LedJourney(name="greet", version=each, said=SAID, is_newest=each == max(versions)) for each in versions]
    return Told(led=Led(journeys=journeys, workspace="shop"), zone="UTC", at_ms=1, is_settled=True)


async def test_versions_that_nobody_is_inside_by_go_and_arms_weigh_what_they_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    settings = Settings(data=tmp_path, config=tmp_path / "config", sink_wait_ms=20)
    log, analytics = EmbeddedLog(tmp_path / "log.db", fsync=False), Analytics(f"chdb:{tmp_path / 'clickhouse'}")
    await log.start()
    await create_topics(log, settings)
    rows, draws = [], []
    for number in range(200):  # of arm 1 every tenth, of arm 2 every second reached the goal
        arm = 1 + number % 2
        rows.append(a_row(number, has_goal=number % (20 if arm == 1 else 4) < 2))
        draws += [a_draw(number, arm), a_draw(number, arm, times=1)]
    for number in range(1_000, 1_200):  # whose time is not over, and who drew from another split of that name
        rows.append(a_row(number, has_goal=True, days=6))
        draws.append(a_draw(number, 1))
        rows.append(a_row(number + 1_000, has_goal=True))
        draws.append(a_draw(number + 1_000, 1, target="other"))
    rows += [a_row(9_001, has_goal=False, version=1, state="after"),
             a_row(9_002, has_goal=False, version=2)]  # fmt: skip
    tables = Fold([Processor()]).tables
    await analytics.start()
    await migrate(analytics, tables)
    sink = ClickHouseSink(log, analytics, tables, settings)
    sinking = asyncio.create_task(sink.run())
    templates = Templates(log, settings)
    journeys = Journeys(log, settings, templates, _no_segments)
    leads = Leads(log, analytics, journeys, templates, workspace="shop")
    try:
        await log.append("rows", rows)
        await log.append("decisions", draws)
        await log.append("events", [Outgoing(b"segments", b"{}", 0, HEADERS)])

        await _until_stored(analytics)
        await leads.look_up(led(1, 2, 3), to_ms(NOW))
        assert leads._unused == set(), "the stage has not handled everything yet"
        await log.commit(STAGE_GROUP, {TP("events", 0): 1})
        monkeypatch.setattr(module, "PATIENCE_S", 30.0)
        leads._look_up_at_s = 0.0
        await leads.look_up(led(1, 2, 3), to_ms(NOW))
    finally:
        await sink.stop()
        await sinking
        await analytics.close()
        await log.stop()

    assert leads._unused == {("greet", 2)}
    (((name, step), weights),) = leads._weights.items()
    assert (name, step) == ("greet", "pick") and weights[0] < 0.05 and weights[1] > 0.95
    assert sum(weights) == pytest.approx(1)


async def _no_segments() -> set[str]:
    return set()


async def _until_stored(analytics: Analytics) -> None:
    stored = "SELECT (SELECT count() FROM journey_runs) AS runs, (SELECT uniqExact(id) FROM decisions) AS lines"
    async with asyncio.timeout(60):
        while await analytics.query(stored) != [{"runs": 602, "lines": 800}]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
