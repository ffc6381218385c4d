"""Segments in a running `tidewire up`: when people leave together, how fresh memberships are, a backfill beside it all.

Live events come at a pace, each due at its time (`bench/contestants/client.py`); the probes of `probed.py` say when one
had changed a state. Decisions say in ClickHouse what became of memberships, and when they could be read (`stored_at`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.audiences import segments
from bench.child import Child
from bench.contestants.probed import PROBES, read
from bench.measure import percentile
from bench.whole_way import follow
from streams.access import Api, find_running
from tests.faults.cluster import Cluster
from tests.faults.machine import WRITE_KEY, tidewire

SEGMENTS = 100
BATCH = 20
LIVE_WITHIN_S = 120.0
WAITED, WAITING_MS = "Waited", 3_600_000
NONE: Mapping[str, Any] = {}
LATE_S = 0.25  # of a window, so that what was under way before it is not counted


@contextmanager
def up(wanted: Mapping[str, Any], more: Mapping[str, Any] = NONE, settings: Mapping[str, str] = NONE
       ) -> Iterator[tuple[Cluster, Path]]:  # fmt: skip
    """A `tidewire up` with these segments in force, and the folder of its probes. `more`: files of its config folder,
    by their path there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        probes = folder / "probes"
        probes.mkdir()
        write(folder, wanted)
        for path, said in more.items():
            file = folder / "config" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(said))
        settings = {PROBES: str(probes), "TIDEWIRE_CONFIG": str(folder / "config"), **settings}
        program = (sys.executable, "-m", "bench.contestants.probed")
        with closing(Cluster(folder, None, settings, program)) as cluster:
            cluster.role("up")
            cluster.wait_until_owned()
            wait_until_live(cluster, len(wanted))
            yield cluster, probes


def write(folder: Path, wanted: Mapping[str, Any]) -> None:
    files = folder / "config" / "segments"
    files.mkdir(parents=True, exist_ok=True)
    for name, when in wanted.items():
        (files / f"{name}.yaml").write_text(yaml.safe_dump({"when": when}))


def wait_until_live(cluster: Cluster, count: int) -> None:
    """Return when so many segments are in force. Asked without a command, which would take half a core of two."""
    api, until = api_of(cluster), time.monotonic() + LIVE_WITHIN_S
    while True:
        rows = api.get("/api/segments")["segments"]
        if len(rows) == count and all(row["is_live"] for row in rows):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"the segments were not in force within {LIVE_WITHIN_S:.0f} s:\n{cluster.told()}")
        time.sleep(0.5)


def api_of(cluster: Cluster) -> Api:
    running = find_running(cluster.up.data)
    assert running is not None
    return Api(running.url, running.token)


def ask(cluster: Cluster, sql: str) -> list[dict[str, Any]]:
    """The rows of a query to the running one."""
    return [json.loads(line) for line in _ask(cluster, "sql", sql).splitlines()]


def _ask(cluster: Cluster, *arguments: str) -> str:
    return tidewire(*arguments, "--json", "--data", str(cluster.up.data), settings=cluster.settings)


class Live:
    """Live traffic of the shop at a pace, until it ends by itself."""

    def __init__(
        self, cluster: Cluster, rate: float, seconds: float, skip: int = 0, *, is_marked: bool = False
    ) -> None:  # fmt: skip
        self._cluster = cluster
        events = max(8 * BATCH, round(rate * seconds))
        made = 10_000
        while made < skip + events:
            made *= 2
        job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": made, "calls": events, "skip": skip,
               "batch": BATCH, "rate": rate, "is_marked": is_marked}  # fmt: skip
        self._client = Child("bench.contestants.client", job)
        self.began = float(self._client.line()["began"])
        self.events = events

    def wait(self) -> None:
        """Return when all of it was sent and stored."""
        with self._client as client:
            follow(self._cluster, client, lambda: None)


def latencies(probes: Path, first: float, last: float, end: str = "state") -> dict[str, float]:
    """Of the live events that were due in a window, in ms."""
    took = sorted(took for due, took in read(probes, end) if first * 1e9 <= due <= last * 1e9)
    if not took:
        raise RuntimeError("the probes saw nothing in the window")
    return {"p50": percentile(took, 0.5) / 1e6, "p99": percentile(took, 0.99) / 1e6,
            "p99.9": percentile(took, 0.999) / 1e6, "max": took[-1] / 1e6, "events": len(took)}  # fmt: skip


# --- many leave in the same second


def leaving(people: int, rate: float, lead_s: float, after_s: float) -> dict[str, Any]:
    """So many people leave a segment in the same second, beside live events of others."""
    wanted = segments(SEGMENTS) | {"waiting": {"did": WAITED, "within": "60 minutes"}}
    with up(wanted) as (cluster, probes):
        leaves_at = time.time() + lead_s
        _let_wait(cluster.urls[0], people, leaves_at)
        live = Live(cluster, rate, max(4.0, leaves_at - time.time() + after_s))
        joined = _count(cluster, "joined")
        if joined < people:
            time.sleep(2)
            joined = _count(cluster, "joined")
        if time.time() > leaves_at:
            raise RuntimeError("it took too long to let them join")
        live.wait()
        (left,) = ask(cluster, "SELECT count() AS people, toUnixTimestamp64Milli(max(stored_at)) AS stored, "
                      "toUnixTimestamp64Milli(max(at)) AS at FROM decisions FINAL "
                      "WHERE kind = 'left' AND about = 'waiting'")  # fmt: skip
        cluster.up.stop()
        if joined != people or left["people"] != people:
            raise RuntimeError(f"of {people} people {joined} joined and {left['people']} left")
        gone_s = left["stored"] / 1000 - leaves_at
        return {
            "during": latencies(probes, leaves_at, leaves_at + gone_s),
            "before": latencies(probes, live.began + LATE_S, leaves_at),
            "all_left_s": gone_s,
        }


def _count(cluster: Cluster, kind: str) -> int:
    (row,) = ask(cluster, f"SELECT count() AS n FROM decisions FINAL WHERE kind = '{kind}' AND about = 'waiting'")
    return int(row["n"])


def _let_wait(url: str, people: int, leaves_at: float) -> None:
    """Everybody did it so long ago that all leave in the same second."""
    at_ms = round(leaves_at * 1000) - WAITING_MS
    send(url, [
        json.dumps({"type": "track", "event": WAITED, "userId": f"waits-{number}", "messageId": f"waits-{number}",
                    "timestamp": _iso(at_ms + number % 1000)})
        for number in range(people)
    ])  # fmt: skip


def send(url: str, bodies: Sequence[str]) -> None:
    """Send calls in batches, one after the other."""
    for start in range(0, len(bodies), 500):
        body = '{"batch":[' + ",".join(bodies[start : start + 500]) + "]}"
        key = b64encode(f"{WRITE_KEY}:".encode()).decode()
        request = urllib.request.Request(f"{url}/v1/batch", body.encode(), {
            "Authorization": f"Basic {key}", "Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=30):
            pass


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


# --- freshness, and a backfill


NEW = {
    "new_lookers": {"did": "Product Viewed", "where": {"category": "Tea"}, "at_least": 7, "within": "200 days"},
    "new_spenders": {"did": "Order Completed", "total": {"of": "revenue", "at_least": 20}, "within": "300 days"},
    "new_quitters": {"sequence": [{"did": "Cart Viewed"}, {"did": "Page", "within": "90 minutes"}]},
}


def fresh(flood: int, seconds: float, rate: float = 0.0) -> dict[str, Any]:
    """How long it takes from an event to the membership in ClickHouse, at a rate, without one at half of capacity; then
    a backfill of new segments beside the same traffic."""
    with up(segments(SEGMENTS)) as (cluster, probes):
        job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": flood, "calls": flood, "batch": BATCH}
        with Child("bench.contestants.client", job) as client:
            began = float(client.line()["began"])
            follow(cluster, client, lambda: None)
        capacity = flood / (time.time() - began)
        pace = rate or capacity / 2
        calm = Live(cluster, pace, seconds)
        calm.wait()
        calm_ended = calm.began + calm.events / pace
        (known,) = ask(cluster, "SELECT count() AS events FROM events")
        beside = Live(cluster, pace, 2 * seconds, skip=calm.events)
        time.sleep(1.0)
        write(cluster.folder, NEW)
        applied = time.time()
        api_of(cluster).post("/api/segments/apply", {"by": "bench"})
        wait_until_live(cluster, SEGMENTS + len(NEW))
        backfilled = time.time()
        beside.wait()
        rows = ask(cluster, "SELECT facts.message_id::String AS message, toUnixTimestamp64Milli(stored_at) AS stored "
                   "FROM decisions FINAL WHERE kind IN ('joined', 'left') AND facts.why::String = 'event' "
                   "LIMIT 1000000")  # fmt: skip
        cluster.up.stop()
        return {
            "capacity": capacity, "rate": pace,
            "fresh": _fresh(rows, calm.began + seconds / 10, calm_ended),
            "fresh_during": _fresh(rows, applied, min(backfilled, beside.began + beside.events / pace)),
            "calm": latencies(probes, calm.began + seconds / 10, calm_ended),
            "during": latencies(probes, applied, min(backfilled, beside.began + beside.events / pace)),
            "backfill_s": backfilled - applied, "backfilled_events": known["events"],
        }  # fmt: skip


def _fresh(rows: list[dict[str, Any]], first: float, last: float) -> dict[str, float]:
    """Of the changes that an event caused which was due in a window, in ms."""
    took = []
    for row in rows:
        if row["message"].startswith("due-"):
            due = int(row["message"].split("-")[1]) / 1e9
            if first <= due <= last:
                took.append(row["stored"] - due * 1000)
    took.sort()
    if not took:
        raise RuntimeError("no membership changed in the window")
    return {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "changes": len(took)}
