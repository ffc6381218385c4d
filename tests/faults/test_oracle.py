"""The oracle itself: what it makes of events, and that it sees what is missing, doubled or wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from processors.fold import Fold
from processors.registry import load_processors
from processors.segments import Segments
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from schemas.times import from_ms
from sinks.analytics import Analytics
from sinks.migrate import migrate
from streams.log import Record, partition_of
from tests.faults import oracle
from tests.faults.machine import People
from tests.faults.oracle import Truth, truth_of
from tests.faults.traffic import Ledger, Request, shop_story
from tests.sinks.conftest import chdb  # noqa: F401 - a fixture

ARRIVAL = Arrival(workspace="w", source="shop", received_at=from_ms(1_800_000_000_000))


@pytest.fixture(scope="module")
def fold() -> Fold:
    return Fold(load_processors(Path("config")))


def call(number: int, type: str = "track", **other: Any) -> dict[str, Any]:
    at = from_ms(1_700_000_000_000 + number * 60_000).isoformat()
    event = {"event": "Seen"} if type == "track" else {}
    return {"messageId": f"m{number}", "type": type, "timestamp": at, **event, **other}


def log_of(calls: Iterable[dict[str, Any]]) -> list[Record]:
    ends = [0, 0, 0, 0]
    records = []
    for each in calls:
        event = read_event(json.dumps(each).encode(), "", ARRIVAL)
        partition = partition_of(event.key.encode(), len(ends))
        records.append(Record("events", partition, ends[partition], 0, event.key.encode(), encode_event(event)))
        ends[partition] += 1
    return records


def test_it_finds_out_who_is_who_from_the_events_alone(fold: Fold):
    calls = [call(1, anonymousId="a"), call(2, "identify", userId="u", anonymousId="a"),
             call(3, "identify", userId="v", anonymousId="a"),
             call(4, "alias", userId="v", previousId="t")]  # fmt: skip

    truth = truth_of(log_of(calls), fold)

    assert truth.person_of == {"w/a:a": "w/u:u", "w/u:u": "w/u:u",  # u was seen with the device first
                               "w/u:v": "w/u:t", "w/u:t": "w/u:t", "w/a:t": "w/u:t"}  # fmt: skip
    assert {person: sums.events for person, sums in truth.sums.items()} == {"w/u:u": 2, "w/u:t": 2}


def test_who_was_parted_stands_for_herself_whoever_claims_her(fold: Fold):
    calls = [call(1, anonymousId="a"), call(2, "identify", userId="u", anonymousId="a"),
             call(3, userId="u", anonymousId="a")]  # fmt: skip

    truth = truth_of(log_of(calls), fold, {"w/a:a": "w/u:u"})

    assert truth.person_of == {"w/a:a": "w/a:a", "w/u:u": "w/u:u"}
    assert {person: sums.events for person, sums in truth.sums.items()} == {"w/a:a": 1, "w/u:u": 2}


def test_it_counts_orders_without_a_processor(fold: Fold):
    orders = [("Order Completed", "1", 20), ("Order Completed", "1", 20), ("Order Completed", "2", "7.5"),
              ("Order Completed", "3", 5), ("Order Cancelled", "3", None), ("Order Refunded", "1", 4)]  # fmt: skip
    calls = [call(i, event=name, userId="u", properties={"order_id": order, "total": total})
             for i, (name, order, total) in enumerate(orders)]  # fmt: skip

    truth = truth_of(log_of([*calls, calls[0]]), fold)

    assert (truth.sums["w/u:u"].orders, truth.sums["w/u:u"].revenue) == (2, Decimal("23.5"))
    assert truth.people["w/u:u"]["orders"]["revenue"] == {"USD": "23.5000"}
    assert truth.repeated == 1


@pytest.mark.parametrize("seed", range(3))
def test_processors_and_arithmetic_agree_on_a_whole_shop(fold: Fold, seed: int):
    truth = truth_of(log_of(islice(shop_story(random.Random(seed), 0), 3_000)), fold)

    found = oracle._Findings()
    oracle._judge_arithmetic(found, truth)

    assert found.wrong == []
    assert sum(len(each["keys"]) > 1 for each in truth.people.values()) > 30
    assert sum(sums.revenue > 0 for sums in truth.sums.values()) > 50


class TestItSees:
    """One thing wrong at a time, in what was right."""

    @pytest.fixture
    def truth(self, fold: Fold) -> Truth:
        calls = [call(1, anonymousId="a"), call(2, "identify", userId="u", anonymousId="a"),
                 call(3, event="Order Completed", userId="u", properties={"order_id": "1", "total": 9})]  # fmt: skip
        return truth_of(log_of(calls), fold)

    @pytest.fixture
    def found(self) -> oracle._Findings:
        return oracle._Findings()

    def test_an_event_that_was_taken_and_is_not_in_the_log(self, truth: Truth, found: oracle._Findings):
        ledger = Ledger()
        ledger.took([call(1), call(77)], Request(0, 1, 2, 1))

        oracle._judge_log(found, ledger, [], truth, [])

        assert (found.lost, found.doubled) == (1, 0)
        assert "m77" in found.wrong[0]

    def test_an_event_that_says_something_else_than_was_sent(self, truth: Truth, found: oracle._Findings):
        ledger = Ledger()
        ledger.took([call(1, anonymousId="another")], Request(0, 1, 1, 1))

        oracle._judge_log(found, ledger, log_of([call(1, anonymousId="a")]), truth, [])

        assert found.wrong == ["1 events do not say what was sent: m1"]

    def test_an_event_that_was_counted_twice(self, truth: Truth, found: oracle._Findings):
        people, ann = People(), truth.people["w/u:u"]
        ann["profile"]["events"] += 1
        people["w/u:u"] = ann

        oracle._judge_people(found, truth, people, "")

        assert (found.lost, found.doubled) == (0, 1)

    def test_a_person_who_is_gone(self, truth: Truth, found: oracle._Findings):
        oracle._judge_people(found, truth, People(), "")

        assert (found.lost, found.doubled) == (3, 0)

    def test_an_event_that_stands_twice_or_with_another_person(self, truth: Truth, found: oracle._Findings):
        said = [(1, "u"), (2, "u"), (2, "u"), (3, "x")]
        rows = [{"message_id": f"m{number}", "person": f"w/u:{user}"} for number, user in said]

        oracle._judge_events(found, truth, rows, [])

        assert (found.lost, found.doubled) == (0, 1)
        assert any("another person" in wrong for wrong in found.wrong)

    def test_a_row_that_is_missing_and_one_that_is_wrong(self, fold: Fold, truth: Truth, found: oracle._Findings):
        table = next(table for table in fold.tables if table.name == "orders")
        (values,) = [values for (name, *_), values in truth.rows.items() if name == "orders"]
        row = {**values, "key": "w/u:u", "person": "w/u:u"}

        oracle._judge_rows(found, truth, table, [])
        assert (found.lost, found.doubled) == (1, 0)
        oracle._judge_rows(found, truth, table, [{**row, "revenue": Decimal(1)}, {**row, "order_id": "9"}])

        assert (found.lost, found.doubled) == (1, 1)
        assert any("say something else" in wrong for wrong in found.wrong)

    def test_a_decision_made_twice_under_two_ids(self, truth: Truth, found: oracle._Findings):
        line = {"id": "1", "recorded_for": "w/u:u", "kind": "merged", "about": "w/a:a", "evidence": "m2"}

        oracle._judge_decisions(found, truth, [line, {**line, "id": "2"}])

        assert (found.lost, found.doubled) == (0, 1)

    def test_ways_through_journeys_that_went_wrong(self, found: oracle._Findings):
        well = {"run": "1", "entered": 1, "left": 1, "early": 0, "fired": 2, "timers": 2}
        rows = [{"run": str(run), "state": "ended"} for run in range(1, 7)]
        oracle._judge_journeys(found, [{**well, "run": str(run)} for run in range(1, 7)], rows)
        assert found.wrong == []

        told = [{**well, "left": 2}, {**well, "run": "2", "timers": 1}, {**well, "run": "3", "early": 1},
                {**well, "run": "4", "entered": 0}, {**well, "run": "6"}, {**well, "run": "7"}]  # fmt: skip
        oracle._judge_journeys(found, told, [*rows[:5], {"run": "6", "state": "waits"}])

        assert (found.lost, found.doubled) == (2, 3)
        assert [wrong.rpartition(" ")[2] for wrong in found.wrong] == ["1", "2", "4", "3", "7", "5", "6"]


async def test_what_the_ledger_tells_of_ways_through_journeys(chdb: Analytics) -> None:  # noqa: F811
    await migrate(chdb, Segments.tables)
    due, later = "2026-01-01T09:00:00.000Z", "2026-01-01T09:00:01.000Z"
    told = [("a", "entered", {}, due), ("a", "waits", {"step": "one", "due": due}, due),
            ("a", "woke", {"step": "one", "due": due}, later), ("a", "woke", {"step": "gone", "due": None}, later),
            ("a", "left", {"why": "done"}, later), ("b", "timed_out", {"step": "one", "due": later}, due),
            ("b", "timed_out", {"step": "one", "due": later}, later)]  # fmt: skip
    for number, (run, kind, facts, at) in enumerate(told):
        await chdb.command(
            "INSERT INTO decisions (workspace, id, recorded_for, at, processor, kind, about, cause, facts) SELECT 'w', "
            "{id:String}, 'w/u:u', parseDateTime64BestEffort({at:String}, 3), 'journeys', {kind:String}, 'welcome', "
            "'events-0@1', {facts:String}",
            {"id": str(number), "kind": kind, "at": at, "facts": json.dumps({"run": run, **facts})},
        )

    assert sorted(await chdb.query(oracle._RUNS), key=lambda row: row["run"]) == [
        {"run": "a", "entered": 1, "left": 1, "early": 0, "fired": 1, "timers": 1},
        {"run": "b", "entered": 0, "left": 0, "early": 1, "fired": 2, "timers": 1},
    ]


async def test_a_decision_that_the_ledger_lacks_is_seen(chdb: Analytics) -> None:  # noqa: F811
    await migrate(chdb, Segments.tables)
    told = [("ann", "joined"), ("ann", "left"), ("ann", "joined"), ("bob", "joined"), ("bob", "left"), ("eve", "left")]
    for number, (person, kind) in enumerate(told):
        await chdb.command(
            "INSERT INTO decisions (workspace, id, recorded_for, at, processor, kind, about, cause, facts) SELECT 'w', "
            "{id:String}, {person:String}, now(), 'segments', {kind:String}, 'buyers', 'events-0@1', '{}'",
            {"id": str(number), "person": person, "kind": kind},
        )
    for person in ("ann", "kim"):
        await chdb.command(
            "INSERT INTO memberships (workspace, key, segment, definition, since, version) SELECT 'w', "
            "{person:String}, 'buyers', 1, now(), 1", {"person": person},
        )  # fmt: skip

    assert await chdb.query(oracle._UNEVEN) == [
        {"key": "eve", "segment": "buyers", "more": -1}, {"key": "kim", "segment": "buyers", "more": -1}
    ]  # fmt: skip
