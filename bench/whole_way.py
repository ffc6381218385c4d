"""Events per second of the whole way: from HTTP batches to rows that can be read in ClickHouse.

The traffic of a shop, a million events in batches of 100, as fast as they are taken; client and everything else on this
machine. On `embedded` one process does it all. On `kafka` the roles are processes of their own (collector, worker,
sink) beside a broker and chDB behind ClickHouse's HTTP interface. The clock runs from the first request until the last
row can be read; then the rows are counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench import shop
from bench.child import Child, cpu_seconds, peak_mb, rss_mb
from bench.measure import Figure, Options, Report, interleaved, rounded
from schemas.errors import Unreachable
from tests.faults.cluster import Cluster
from tests.faults.machine import WRITE_KEY
from tests.kafka_broker import Kafka, missing

EVENTS, QUICK_EVENTS = 1_000_000, 3_000
BATCH = 100
AT_LEAST_EVENTS_PER_S = 20_000
MOST_GROWTH = 1.1  # of the resident memory, from the middle fifth of the run to its last
LOOK_EVERY_S = 0.1
RSS_EVERY_S = 1.0
ROLES = {"embedded": ("up",), "kafka": ("sink", "worker", "collector")}


class Sample(NamedTuple):
    """One run. `rss_mb` is of all of Tidewire's processes together, second by second."""

    events: int
    wall_s: float
    sent_s: float
    cpu_s: float
    peak_mb: float
    rss_mb: list[float]
    repeated: int

    @property
    def growth(self) -> float:
        """How much the memory grew in the second half of the run; 1 where the run is too short to say."""
        fifth = len(self.rss_mb) // 5
        if not fifth:
            return 1.0
        return median(self.rss_mb[-fifth:]) / median(self.rss_mb[2 * fifth : 3 * fifth])


def measure(options: Options) -> Report:
    events = QUICK_EVENTS if options.is_quick else EVENTS
    grounds = [ground for ground in ROLES if options.wants(ground)]
    notes = []
    if "kafka" in grounds and missing():
        grounds.remove("kafka")
        notes.append(f"the Kafka ground is left out: it needs {missing()}")
    for _ in shop.calls(events):  # made before the clock runs
        pass
    contest: dict[str, Callable[[], Sample]] = {ground: partial(run_once, ground, events) for ground in grounds}
    samples = interleaved(contest, options.runs, lambda sample: sample.events / sample.wall_s, options)
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    for ground, done in samples.items():
        is_judged = ground == "embedded"
        figures += [
            Figure(f"{ground} sustained", "events/s", [sample.events / sample.wall_s for sample in done],
                   at_least=AT_LEAST_EVENTS_PER_S if is_judged else None),
            Figure(f"{ground} taken by the collector", "events/s", [sample.events / sample.sent_s for sample in done]),
            Figure(f"{ground} cpu", "events/CPU-s", [sample.events / sample.cpu_s for sample in done]),
            Figure(f"{ground} peak memory", "MB", [sample.peak_mb for sample in done]),
            Figure(f"{ground} memory in the second half", "×", [sample.growth for sample in done],
                   at_most=MOST_GROWTH if is_judged else None),
        ]  # fmt: skip
        found[ground] = {"events_per_s": rounded(figures[-5].median), "peak_mb": rounded(figures[-2].median),
                         "runs": [sample._asdict() for sample in done]}  # fmt: skip
    return Report(input={"events": events, "batch": BATCH, "people": shop.plan_for(events).people}, figures=figures,
                  found={"grounds": found}, notes=notes)  # fmt: skip


def run_once(ground: str, events: int) -> Sample:
    """Send all of it, wait until all of it can be read, and count it.

    Raises:
        RuntimeError: ClickHouse does not hold each event once.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Cluster(Path(folder), Kafka(java=()) if ground == "kafka" else None, {})) as cluster,
    ):
        for role in ROLES[ground]:
            cluster.role(role)
        cluster.wait_until_owned()
        pids = [process.pid for process in cluster.roles]
        before = sum(map(cpu_seconds, pids))
        job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": events, "calls": events, "batch": BATCH}
        with Child("bench.contestants.client", job) as client:
            began = client.line()["began"]
            rss: list[float] = []
            sent = follow(cluster, client, lambda: rss.append(sum(map(rss_mb, pids))))
            ended = time.time()
        cpu_s, most_mb = sum(map(cpu_seconds, pids)) - before, sum(map(peak_mb, pids))
        if ground == "embedded":
            cluster.up.stop()
        ((counted,),) = cluster.query("SELECT count() AS events FROM event_log")
    if int(counted["events"]) != events:
        raise RuntimeError(f"ClickHouse holds {counted['events']} of {events} events")
    return Sample(events, ended - began, sent["ended"] - began, cpu_s, most_mb, rss, sent["repeated"])


def follow(cluster: Cluster, client: Child, each_second: Callable[[], None]) -> dict[str, Any]:
    """Wait until the client has sent everything and all of it is in ClickHouse; what the client says of it.

    Raises:
        RuntimeError: a process of the cluster ended.
    """
    next_look = 0.0
    with ThreadPoolExecutor(1) as listening:
        sent: Future[dict[str, Any]] = listening.submit(client.line)
        while not (sent.done() and _is_through(cluster)):
            if not all(process.is_running for process in cluster.roles):
                client.stop()
                raise RuntimeError(f"a process ended while it was measured:\n{cluster.told()}")
            if time.monotonic() >= next_look:
                each_second()
                next_look = time.monotonic() + RSS_EVERY_S
            time.sleep(LOOK_EVERY_S)
        return sent.result()


def _is_through(cluster: Cluster) -> bool:
    try:
        return bool(cluster.behind().is_none)
    except Unreachable:
        return False
