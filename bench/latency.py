"""How long an event takes from HTTP until it has changed a state, and until its row can be read in ClickHouse.

First the capacity is measured, with the same requests as fast as they are taken. Then the traffic comes at 10 %, 50 %
and 80 % of it, each request at its time whether or not the ones before it were answered. The clock begins when the
request is due; it ends where the processors have folded the event, and where its insert into ClickHouse returned
(from then on it can be read). The probes stand in the processes of Tidewire (`bench/contestants/probed.py`).
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.child import Child
from bench.contestants.probed import PROBES, read
from bench.measure import Figure, Options, Report, percentile, rounded
from bench.whole_way import ROLES, follow
from tests.faults.cluster import Cluster
from tests.faults.machine import WRITE_KEY
from tests.kafka_broker import Kafka, missing

BATCH = 20  # events of a request: what a busy page or a small server sends
FLOOD_EVENTS, QUICK_FLOOD_EVENTS = 150_000, 2_000
SECONDS, QUICK_SECONDS = 20.0, 1.0
LEVELS = (10, 50, 80)  # per cent of capacity
WARM_UP = 0.1  # of each level is left out
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
AT_MOST_MS = {("state", 50, "p99"): 100.0, ("state", 50, "p99.9"): 500.0, ("row", 50, "p99"): 2_000.0}
TO = {"state": "to state", "row": "to ClickHouse"}


def measure(options: Options) -> Report:
    flood, seconds = (QUICK_FLOOD_EVENTS, QUICK_SECONDS) if options.is_quick else (FLOOD_EVENTS, SECONDS)
    grounds = [ground for ground in ROLES if options.only and ground in options.only] or ["embedded"]
    notes = []
    if "kafka" in grounds and missing():
        grounds.remove("kafka")
        notes.append(f"the Kafka ground is left out: it needs {missing()}")
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    for ground in grounds:
        runs = []
        for turn in range(options.runs):
            options.say(f" {ground}, run {turn + 1}")
            runs.append(_run(ground, flood, seconds, options))
        found[ground] = {"runs": runs}
        figures.append(Figure(f"{ground} capacity", "events/s", [run["capacity"] for run in runs]))
        figures += [_figure(ground, level, end, name, runs) for level in LEVELS for end in TO for name in SHARES]
    return Report(input={"batch": BATCH, "seconds": seconds, "capacity_from_events": flood}, figures=figures,
                  found={"grounds": found}, notes=notes)  # fmt: skip


def _figure(ground: str, level: int, end: str, name: str, runs: list[dict[str, Any]]) -> Figure:
    limit = AT_MOST_MS.get((end, level, name)) if ground == "embedded" else None
    took = [run["levels"][str(level)][end][name] for run in runs]
    return Figure(f"{ground} {level} % {TO[end]} {name}", "ms", took, at_most=limit)


def _run(ground: str, flood: int, seconds: float, options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        probes = folder / "probes"
        probes.mkdir()
        program = (sys.executable, "-m", "bench.contestants.probed")
        kafka = Kafka(java=()) if ground == "kafka" else None
        with closing(Cluster(folder, kafka, {PROBES: str(probes)}, program)) as cluster:
            for role in ROLES[ground]:
                cluster.role(role)
            cluster.wait_until_owned()
            capacity = _flood(cluster, flood)
            options.say(f"  capacity {capacity:,.0f} events/s")
            spans = {level: _at(cluster, capacity * level / 100, seconds) for level in LEVELS}
            for process in cluster.roles:
                process.ask_to_stop()
            for process in cluster.roles:
                process.wait(60)
        seen = {end: read(probes, end) for end in TO}
    levels = {str(level): {end: _percentiles(seen[end], *spans[level]) for end in TO} for level in LEVELS}
    for level, ends in levels.items():
        said = ", ".join(f"{TO[end]} p99 {values['p99']:,.0f} ms" for end, values in ends.items())
        options.say(f"  {level} %: {said}")
    return {"capacity": rounded(capacity), "levels": levels}


def _flood(cluster: Cluster, events: int) -> float:
    job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": events, "calls": events, "batch": BATCH}
    with Child("bench.contestants.client", job) as client:
        began = float(client.line()["began"])
        follow(cluster, client, lambda: None)
        return events / (time.time() - began)


def _at(cluster: Cluster, rate: float, seconds: float) -> tuple[float, float]:
    """Send at a rate; from when to when, without the beginning."""
    events = max(BATCH * 8, round(rate * seconds))
    job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": _made(events), "calls": events, "batch": BATCH,
           "rate": rate}  # fmt: skip
    with Child("bench.contestants.client", job) as client:
        began = float(client.line()["began"])
        follow(cluster, client, lambda: None)
    took = events / rate
    return began + took * WARM_UP, began + took


def _made(events: int) -> int:
    """How many calls to make: a round number, so that they are found in the cache."""
    made = 10_000
    while made < events:
        made *= 2
    return made


def _percentiles(seen: list[tuple[int, int]], first: float, last: float) -> dict[str, float]:
    took = sorted(took for due, took in seen if first * 1e9 <= due <= last * 1e9)
    if not took:
        raise RuntimeError("the probes saw nothing: is the clock right?")
    return {name: rounded(percentile(took, share) / 1e6) for name, share in SHARES.items()} | {"events": len(took)}
