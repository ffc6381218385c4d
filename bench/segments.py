"""Segments: what they cost an event, what is remembered, previews, many who leave at once, freshness, a backfill.

`cost`: the customer stage with the real processors and 0, 1, 10, 100 and 500 segments as a shop has them
(`bench/audiences.py`), over the shop's traffic as it happened, each event at its own time. CPU time of an event, and of
a timer that time alone set off, with the portraits and the encoding of the states they changed; without log and disk.
`preview`: counts with a sample, and the comparison of a proof, over a million events that went the whole way to chDB.
`leaving`: 10,000 people leave in the same second, beside live events of others in a running `up`.
`fresh`: from the moment an event is due until the membership it changed can be read in ClickHouse, at half of the
capacity measured just before; then a backfill of three new segments beside the same traffic.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench import memberships, shop
from bench.child import ROOT, Child, run
from bench.contestants.previews import CONDITIONS
from bench.measure import Figure, Options, Report, interleaved, rounded
from bench.whole_way import BATCH, follow
from tests.faults.cluster import Cluster
from tests.faults.machine import WRITE_KEY

COUNTS = (0, 1, 10, 100, 500)
QUICK_COUNTS = (0, 1, 10)
EVENTS, QUICK_EVENTS = 20_000, 2_000
MOST_GROWTH = 1.3  # of the cost of an event with ten times the segments
KNOWN, QUICK_KNOWN = 1_000_000, 3_000
LONGEST_PREVIEW_S = 1.0
JUDGED = ("5 leaves", "5 leaves, amounts")
PEOPLE, QUICK_PEOPLE = 10_000, 200
LIVE_RATE = 500.0  # events a second of others, while people leave
MOST_P99_MS = 200.0
FLOOD, QUICK_FLOOD = 30_000, 1_000
SECONDS, QUICK_SECONDS = 12.0, 2.0
MOST_LIVE_RUNS = 2
LATEST_MS = 2_000.0


def measure(options: Options) -> Report:
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    size: dict[str, Any] = {}
    for name, cell in (("cost", _cost), ("preview", _preview), ("leaving", _leaving), ("fresh", _fresh)):
        if options.wants(name):
            options.say(f" {name}")
            figures += cell(options, found, size)
    return Report(input=size, figures=figures, found=found)


# --- cost and memory


def _cost(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    events, counts = (QUICK_EVENTS, QUICK_COUNTS) if options.is_quick else (EVENTS, COUNTS)
    contest: dict[str, Callable[[], dict[str, Any]]] = {
        str(count): partial(run, "bench.contestants.segmented", {"events": events, "segments": count})
        for count in counts
    }
    for _ in shop.calls(events):  # made before the clock runs
        pass
    samples = interleaved(contest, options.runs, lambda sample: sample["events"] / sample["events_s"], options)
    figures, cost, whole = [], {}, {}
    for name, done in samples.items():
        event_us = [sample["events_s"] / sample["events"] * 1e6 for sample in done]
        whole_us = [(sample["events_s"] + sample["timers_s"]) / sample["events"] * 1e6 for sample in done]
        cost[int(name)], whole[int(name)] = median(event_us), median(whole_us)
        figures.append(Figure(f"{name} segments", "µs/event", event_us))
        if int(name):
            figures.append(Figure(f"{name} segments with timers", "µs/event", whole_us))
    for few, many in pairwise(counts[1:]):
        limit = MOST_GROWTH if many == 10 * few else None
        figures.append(Figure(f"{few} to {many} segments", "× cost", [cost[many] / cost[few]], at_most=limit))
    figures += [Figure(f"{count} segments of none", "× cost", [cost[count] / cost[0]]) for count in counts[1:]]
    none = samples["0"][0]
    for count in counts[2:]:
        sample = samples[str(count)][0]
        more = [(each["rss_mb"] - other["rss_mb"]) * 1024 / each["people"]
                for each, other in zip(samples[str(count)], samples["0"], strict=True)]  # fmt: skip
        figures += [
            Figure(f"{count} segments state memory", "bytes/person", [sample["state_bytes"] - none["state_bytes"]]),
            Figure(f"{count} segments hot memory", "kB/person", more),
            Figure(f"{count} segments timers", "/event", [sample["timers"] / sample["events"]]),
        ]
    size |= {"events": events, "people": none["people"]}
    found["cost_us"] = {str(count): rounded(each) for count, each in cost.items()}
    found["cost_with_timers_us"] = {str(count): rounded(each) for count, each in whole.items()}
    found["members"] = {name: done[0]["members"] / done[0]["people"] for name, done in samples.items()}
    return figures


# --- previews


def _preview(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    events = QUICK_KNOWN if options.is_quick else KNOWN
    folder = _known(events, options)
    said = run("bench.contestants.previews", {"folder": str(folder), "runs": options.runs})
    if said["events"] != events:
        raise RuntimeError(f"ClickHouse holds {said['events']} of {events} events")
    figures = []
    for name in CONDITIONS:
        took = said["conditions"][name]
        limit = LONGEST_PREVIEW_S if name in JUDGED else None
        figures += [Figure(f"preview, {name}", "s", took["preview_s"], at_most=limit),
                    Figure(f"preview, {name} cpu", "CPU-s", took["cpu_s"]),
                    Figure(f"compared, {name}", "s", took["compared_s"])]  # fmt: skip
    size |= {"preview_events": events, "preview_keys": said["keys"]}
    found["previews"] = said["conditions"]
    return figures


def _known(events: int, options: Options) -> Path:
    """A ClickHouse that so many events of the shop went into the whole way; made once."""
    kept = ROOT / ".cache" / "bench" / f"known-{shop.SEED}-{events}"
    if kept.exists():
        return kept / "clickhouse"
    options.say(f"  {events} events go the whole way, once")
    with tempfile.TemporaryDirectory() as name, closing(Cluster(Path(name), None, {})) as cluster:
        cluster.role("up")
        cluster.wait_until_owned()
        job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": events, "calls": events, "batch": BATCH}
        with Child("bench.contestants.client", job) as client:
            client.line()
            follow(cluster, client, lambda: None)
        cluster.up.stop()
        partial_ = kept.with_suffix(".partial")
        shutil.rmtree(partial_, ignore_errors=True)
        shutil.copytree(cluster.up.data / "clickhouse", partial_ / "clickhouse", symlinks=True)
        partial_.rename(kept)
    return kept / "clickhouse"


# --- in a running `up`


def _leaving(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    people = QUICK_PEOPLE if options.is_quick else PEOPLE
    lead_s, after_s = (12.0, 3.0) if options.is_quick else (20.0, 8.0)
    runs = [memberships.leaving(people, LIVE_RATE, lead_s, after_s) for _ in range(min(options.runs, MOST_LIVE_RUNS))]
    for each in runs:
        options.say(f"  others p99 {each['during']['p99']:,.0f} ms, all left after {each['all_left_s']:.1f} s")
    size |= {"leaving": people, "others_events_per_s": LIVE_RATE}
    found["leaving"] = runs
    return [
        Figure("others before, to state p50", "ms", [each["before"]["p50"] for each in runs]),
        Figure("others before, to state p99", "ms", [each["before"]["p99"] for each in runs]),
        Figure(f"others while {people:,} leave, to state p50", "ms", [each["during"]["p50"] for each in runs]),
        Figure(f"others while {people:,} leave, to state p99", "ms", [each["during"]["p99"] for each in runs],
               at_most=MOST_P99_MS),
        Figure(f"{people:,} left, in ClickHouse", "s", [each["all_left_s"] for each in runs]),
    ]  # fmt: skip


def _fresh(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    flood, seconds = (QUICK_FLOOD, QUICK_SECONDS) if options.is_quick else (FLOOD, SECONDS)
    runs = [memberships.fresh(flood, seconds) for _ in range(min(options.runs, MOST_LIVE_RUNS))]
    for each in runs:
        options.say(f"  half of {each['capacity']:,.0f} events/s: fresh p99 {each['fresh']['p99']:,.0f} ms; backfill "
                    f"{each['backfill_s']:.1f} s, others p99 {each['during']['p99']:,.0f} ms")  # fmt: skip
    size |= {"up_segments": memberships.SEGMENTS, "seconds": seconds}
    found["fresh"] = runs
    return [
        Figure("capacity with 100 segments", "events/s", [each["capacity"] for each in runs]),
        Figure("event to membership at half, p50", "ms", [each["fresh"]["p50"] for each in runs]),
        Figure("event to membership at half, p99", "ms", [each["fresh"]["p99"] for each in runs], at_most=LATEST_MS),
        Figure("event to state at half, p99", "ms", [each["calm"]["p99"] for each in runs]),
        Figure("backfill of 3 segments beside it", "s", [each["backfill_s"] for each in runs]),
        Figure("event to state during the backfill, p50", "ms", [each["during"]["p50"] for each in runs]),
        Figure("event to state during the backfill, p99", "ms", [each["during"]["p99"] for each in runs]),
        Figure("event to membership during the backfill, p99", "ms", [each["fresh_during"]["p99"] for each in runs]),
    ]  # fmt: skip
