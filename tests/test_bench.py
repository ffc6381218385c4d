"""The benchmark suite, in its quick form: every part runs, and says what it promises. Its figures say nothing here."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import PARTS, _keep
from bench.document import PAGE, kept, with_figures
from bench.measure import Figure, Options, interleaved, lines_of, percentile, spread, table

ROOT = Path(__file__).parent.parent
MAY_BE_NONE = ("memory", "just entered", "idle")
LONGEST_S = 300  # of one part, on a machine that does much else


def quick(part: str, *only: str, data: Path | None = None) -> dict[str, Any]:
    """What a part says of a quick run, in JSON."""
    command = [sys.executable, "-m", "bench", part, "--quick", "--json", *(("--only", ",".join(only)) if only else ()),
               *(("--data", str(data)) if data else ())]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 0, done.stderr[-4_000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def assert_whole(said: dict[str, Any], part: str) -> None:
    assert said["part"] == part
    assert said["quick"] is True
    assert {"processor", "cores", "memory_gb", "python"} <= said["machine"].keys()
    assert {"faust-streaming", "msgspec", "rocksdict"} <= said["versions"].keys()
    assert len(said["load"]["before"]) == len(said["load"]["after"]) == 3
    assert said["input"] and said["figures"]
    for figure in said["figures"]:
        assert {"what", "unit", "median", "spread", "runs"} <= figure.keys()
        may_be_none = said["part"] == "lift" or any(word in figure["what"] for word in MAY_BE_NONE)
        assert figure["median"] > 0 or may_be_none, figure
        assert "met" not in figure, "a quick run judges no target"


def targets(said: dict[str, Any]) -> set[str]:
    return {figure["what"] for figure in said["figures"] if {"at_least", "at_most"} & figure.keys()}


@pytest.mark.kafka
@pytest.mark.slow
def test_the_engine_is_measured_beside_quix_faust_and_the_floor_on_the_same_input():
    said = quick("engine", "hot")

    assert_whole(said, "engine")
    hot = said["workloads"]["hot"]
    assert set(hot["medians"]) == {"tidewire", "quix", "faust", "floor"}
    for peer in ("quix", "faust", "floor"):
        assert hot[f"ratio_{peer}"] == pytest.approx(hot["medians"]["tidewire"] / hot["medians"][peer], rel=0.01)
    assert targets(said) == {"hot ratio_quix", "hot ratio_faust", "hot ratio_floor"}
    assert all(run["events"] for runs in hot["runs"].values() for run in runs)


@pytest.mark.kafka
@pytest.mark.slow
def test_real_processors_are_measured_beside_quix_calling_the_same_ones():
    said = quick("processors", "3")

    assert_whole(said, "processors")
    assert {"medians", "ratio_quix", "share", "own_us"} <= said["processors"]["3"].keys()
    assert targets(said) == {"3 processors ratio_quix", "3 processors share"}


@pytest.mark.slow
def test_the_collector_is_measured_beside_a_bare_callable():
    said = quick("collector", "single")

    assert_whole(said, "collector")
    assert set(said["single"]["requests_per_s"]) == {"bare", "memory", "embedded"}
    assert targets(said) == {"single before the log of bare", "single before the log of bare, cpu"}


def test_the_sink_is_measured_beside_a_raw_insert():
    said = quick("sink", "orders")

    assert_whole(said, "sink")
    assert set(said["orders"]["rows_per_s"]) == {"raw", "columns", "sink", "whole"}


@pytest.mark.kafka
@pytest.mark.slow
def test_scaling_is_measured_with_a_worker_added_and_taken_away():
    said = quick("scaling")

    assert_whole(said, "scaling")
    assert {"one worker", "two workers", "one worker again", "pause while one joins"} <= said["workers"].keys()


@pytest.mark.slow
def test_latency_is_measured_to_state_and_to_clickhouse_at_three_loads():
    said = quick("latency")

    assert_whole(said, "latency")
    (run,) = said["grounds"]["embedded"]["runs"]
    assert set(run["levels"]) == {"10", "50", "80"}
    for level in run["levels"].values():
        for end in ("state", "row"):
            assert level[end]["events"] > 0
            assert level[end]["p50"] <= level[end]["p99"] <= level[end]["p99.9"]
    assert len(targets(said)) == 3


@pytest.mark.kafka
@pytest.mark.slow
def test_recovery_brings_everybody_back_cold_and_warm():
    said = quick("recovery", "tidewire")

    assert_whole(said, "recovery")
    assert targets(said) == {"tidewire cold per million", "tidewire warm", "tidewire memory after cold"}
    (run,) = said["tidewire"]["runs"]
    assert run["cold"]["restored"] >= said["persons"]["tidewire"] > run["warm"]["restored"]


@pytest.mark.kafka
@pytest.mark.slow
def test_growth_compares_a_tenfold_with_what_it_grew_from():
    said = quick("growth", "persons")

    assert_whole(said, "growth")
    assert {"grows", "ratio", "cost_us", "memory_mb_per_100k"} <= said["growth"]["persons"].keys()
    assert len(targets(said)) == 1


def test_an_event_is_measured_with_more_and_more_segments():
    said = quick("segments", "cost")

    assert_whole(said, "segments")
    assert set(said["cost_us"]) == {"0", "1", "10"}
    assert said["members"]["10"] > 0
    assert targets(said) == {"1 to 10 segments"}


@pytest.mark.slow
def test_segments_are_previewed_left_and_backfilled_in_a_running_one():
    said = quick("segments", "preview", "leaving", "fresh")

    assert_whole(said, "segments")
    assert said["previews"]["5 leaves"]["people"] < said["previews"]["absence"]["people"]
    (left,), (fresh,) = said["leaving"], said["fresh"]
    assert left["during"]["events"] and fresh["during"]["events"] and fresh["fresh"]["changes"]
    assert {"preview, 5 leaves", "event to membership at half, p99"} < targets(said)


def test_an_event_is_measured_with_more_and_more_journeys():
    said = quick("journeys", "cost")

    assert_whole(said, "journeys")
    assert all(said["led"][count][what] for count in ("1", "10") for what in ("entered", "orders", "timers"))
    assert targets(said) == {"1 to 10 journeys"}


@pytest.mark.slow
def test_people_wait_are_due_together_and_are_proposed_messages_in_a_running_one():
    said = quick("journeys", "waiting", "live")

    assert_whole(said, "journeys")
    bytes_of = {figure["what"]: figure["median"] for figure in said["figures"] if figure["unit"] == "bytes"}
    assert 100 < bytes_of["a wait, in the state"] < bytes_of["a wait, in all"] <= 200
    (run,) = said["live"]
    assert run["proposed"]["events"] > 0 and run["during"]["events"] > 0
    assert 0 < run["decided_s"] <= run["done_s"]


@pytest.mark.slow
def test_messages_are_timed_from_their_order_to_their_arrival():
    said = quick("messages", "smtp")

    assert_whole(said, "messages")
    timed = [f"smtp order to arrival {share}" for share in ("p50", "p99")]
    assert [figure["what"] for figure in said["figures"]] == ["smtp", "smtp ordered over HTTP", *timed]


@pytest.mark.slow
def test_the_whole_way_ends_with_every_event_in_clickhouse():
    said = quick("whole_way", "embedded")

    assert_whole(said, "whole_way")
    assert said["grounds"]["embedded"]["events_per_s"] > 0
    assert targets(said) == {"embedded sustained", "embedded memory in the second half"}


def test_lift_is_looked_at_where_nothing_changes_and_where_something_does():
    said = quick("lift")

    assert_whole(said, "lift")
    assert len(targets(said)) == len(said["figures"])
    assert all(figure["median"] > 50 for figure in said["figures"] if "found" in figure["what"])


def test_the_log_is_measured_on_the_embedded_ground_without_kafka():
    said = quick("log", "embedded")

    assert_whole(said, "log")
    assert set(said["records_per_s"]) == {"embedded"}


def test_the_groups_of_rfm_are_those_of_pandas(tmp_path: Path):
    rng, lines = random.Random(4), ["InvoiceNo,InvoiceDate,CustomerID,Country,StockCode,Quantity,UnitPrice"]
    for invoice in range(200):
        customer, day = 100 + rng.randrange(1, 6) * rng.randrange(1, 9), rng.randrange(1, 29)
        at = f"2011-0{rng.randrange(1, 9)}-{day:02}T10:{invoice % 60:02}:00"
        lines += [f"{invoice},{at},{customer},France,1,{pieces},1.25" for pieces in range(1, rng.randrange(2, 5))]
    lines.append("C9,2011-12-01T10:00:00,101,France,1,-5,1.25")
    with gzip.open(tmp_path / "online_retail.csv.gz", "wt") as file:
        file.write("\n".join(lines))

    said = quick("rfm", data=tmp_path)

    assert_whole(said, "rfm")
    assert said["first"] == []
    assert sum(said["groups"].values()) == said["input"]["customers"] > 10


def test_a_part_that_needs_data_says_so():
    done = subprocess.run([sys.executable, "-m", "bench", "rfm"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "rfm needs --data DIR" in done.stderr


def test_every_part_has_a_module_and_a_test():
    tests = Path(__file__).read_text()

    for part in PARTS:
        assert (ROOT / "bench" / f"{part}.py").exists()
        assert f'quick("{part}"' in tests


# --- how figures are made


def test_a_figure_is_the_median_of_its_runs_and_keeps_all_of_them():
    figure = Figure("rate", "events/s", [10.0, 12.0, 90.0], at_least=11.0)

    said = figure.as_json(is_judged=True)

    assert (said["median"], said["runs"], said["met"]) == (12.0, [10.0, 12.0, 90.0], True)
    assert figure.spread == pytest.approx(80 / 12)


def test_a_missed_target_is_said_in_the_table():
    figures = [Figure("rate", "events/s", [10.0], at_least=11.0), Figure("took", "s", [1.0], at_most=2.0)]
    result = {"part": "engine", "figures": [figure.as_json(is_judged=True) for figure in figures]}

    text = table(lines_of(result))

    assert [line.split()[-1] for line in text.splitlines()[1:]] == ["MISSED", "met"]


def test_contestants_run_in_turn_and_again_while_the_runs_of_one_spread_too_far():
    order: list[str] = []
    rates = {"steady": iter([10.0] * 9), "wild": iter([10.0, 20.0, 10.0, 10.0, 10.0])}

    def run(name: str) -> float:
        order.append(name)
        return next(rates[name])

    options = Options(is_quick=False, runs=2, only=(), say=lambda what: None)
    samples = interleaved({name: lambda name=name: run(name) for name in rates}, 2, float, options)

    assert order == ["steady", "wild"] * 4, "two runs, and the most that are added: one of the wild ones stays far off"
    assert samples["wild"] == [10.0, 20.0, 10.0, 10.0]


def test_spread_and_percentiles_are_those_of_the_runs():
    assert spread([10.0, 10.0]) == 0.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.999) == 5.0


# --- the page


def test_the_page_shows_the_figures_that_were_measured_and_no_others():
    page, results = PAGE.read_text(), kept()

    assert with_figures(page, results) == page, "run: python -m bench.document"
    assert not any(result["quick"] for result in results)


def test_the_page_names_every_part():
    page = PAGE.read_text()

    assert [part for part in PARTS if f"| `{part}` |" not in page] == []


def test_a_part_that_is_measured_again_takes_the_place_of_its_earlier_run(tmp_path: Path):
    file = tmp_path / "kept.json"
    for result in ({"part": "sink", "seconds": 1}, {"part": "engine"}, {"part": "sink", "seconds": 2}):
        _keep(result, file)

    assert json.loads(file.read_text()) == [{"part": "engine"}, {"part": "sink", "seconds": 2}]
