"""Rows 16 to 19: ClickHouse is away, slow, too full, or does not answer; and the sink dies over it.

Rows 17 and 19 count the tables as they are, without FINAL and with merging stopped: what is inserted again must not
even be stored twice.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import sys
import time
import urllib.request
from collections import Counter
from datetime import datetime

from schemas.internal import is_internal
from sinks.analytics import Analytics
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import Process
from tests.faults.proxy import DropAnswers, Pass, Proxy
from tests.faults.rows import Outcome, Scene, row
from tests.faults.watch import Progress

RETRIES = "tidewire_sink_retries_total"
LONGEST_STALL_S = 10.0
MOST_PARTS = 20
OFTEN = {"TIDEWIRE_SINK_WAIT_MS": "200"}  # small batches, so many inserts


@row("16", "ClickHouse down", limit_s=40)
def clickhouse_down(scene: Scene) -> Outcome:
    """ClickHouse is killed and stays away for 20 s (LONG=1: two minutes) instead of ten; the limit, two outages, is
    that of the short form in both. Meanwhile the sink's lag grows, the customer stage goes on, and the page says until
    when its numbers are."""
    cluster = scene.begin(workers=1)
    assert cluster.clickhouse is not None
    pages = cluster.role("dashboard")
    outage_s = scene.size(20, 120)
    wrong = []
    with scene.traffic(rate=300) as traffic:
        traffic.wait_for(600)
        cluster.clickhouse.kill()
        down = datetime.now().astimezone()
        began = time.monotonic()
        with Progress(cluster) as progress:
            lags = []
            for part in (0.3, 0.65, 0.95):
                time.sleep(max(0.0, began + outage_s * part - time.monotonic()))
                lags.append(cluster.behind().sink)
            said = _freshness(pages)
            time.sleep(max(0.0, began + outage_s - time.monotonic()))
        cluster.clickhouse.start()
        scene.fault_over()
    recovery_s = scene.settle()
    if not lags[0] < lags[1] < lags[2]:
        wrong.append(f"the lag of the sink did not grow while ClickHouse was away: {lags}")
    if progress.longest_stall_s > LONGEST_STALL_S:
        wrong.append(f"the customer stage stood still for {progress.longest_stall_s:.1f} s")
    until = re.search(r"Data until [^:]*, (\d\d:\d\d)", said)
    if until is None or until[1] not in _around(down):
        wrong.append(f"the page does not say that its data end at {down:%H:%M}: {said!r}")
    return scene.outcome(recovery_s, *wrong)


def _freshness(pages: Process) -> str:
    """What the pages say of how current they are, as text."""
    with urllib.request.urlopen(f"{pages.url}/freshness", timeout=30) as answer:
        text = answer.read().decode()
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", text)).split())


def _around(moment: datetime) -> set[str]:
    """The minute and its neighbours, in UTC and here: pages speak the time zone of their workspace."""
    seconds = moment.timestamp()
    moments = [datetime.fromtimestamp(seconds + off) for off in (-60, 0, 60)]
    return {f"{each.astimezone(zone):%H:%M}" for each in moments for zone in (None, _UTC)}


_UTC = datetime.fromisoformat("2000-01-01T00:00:00+00:00").tzinfo


@row("17", "answers of ClickHouse lost", limit_s=10, short=True)
def answers_lost(scene: Scene) -> Outcome:
    """Three of ten inserts are carried out, and their answers do not arrive. The sink inserts the same again, and no
    table holds a row twice."""
    cluster = scene.begin(workers=1, sinks=0)
    assert cluster.clickhouse is not None
    with Proxy(cluster.clickhouse.port) as proxy:
        cluster.role("sink", settings={"TIDEWIRE_ANALYTICS": cluster.clickhouse.url_at(proxy.port), **OFTEN})
        _merging(cluster, "STOP")
        with scene.traffic(rate=400):
            proxy.be(DropAnswers(share=0.3, of=_is_insert, seed=scene.seed))
            wait_for(lambda: proxy.dropped_answers >= scene.size(5, 50), 300, "too few answers were lost", cluster.told)
            proxy.be(Pass())
            scene.fault_over()
        return scene.outcome(scene.settle(), *_stored_twice(cluster))


def _is_insert(request: bytes) -> bool:
    return b"INSERT" in request


@row("18", "ClickHouse frozen", limit_s=120)
def clickhouse_frozen(scene: Scene) -> Outcome:
    """ClickHouse stands still for 20 s (LONG=1: a minute) and wakes. It is asked at most once a second."""
    cluster = scene.begin(workers=1)
    assert cluster.clickhouse is not None
    (sink,) = cluster.sinks
    with scene.traffic(rate=300) as traffic:
        traffic.wait_for(600)
        before, began = sink.metric(RETRIES), time.monotonic()
        cluster.clickhouse.freeze()
        try:
            time.sleep(scene.size(20, 60))
        finally:
            cluster.clickhouse.thaw()
        scene.fault_over()
        wrong = _too_many_tries(sink.metric(RETRIES) - before, time.monotonic() - began)
    return scene.outcome(scene.settle(), wrong)


@row("18", "too many parts", limit_s=120, long_only=True)
def too_many_parts(scene: Scene) -> Outcome:
    """Nothing is merged, and a table takes no more than twenty parts: the sink waits, tries at most once a second, and
    goes on when merging has made room."""
    cluster = scene.begin(workers=1, settings=OFTEN)
    (sink,) = cluster.sinks
    _merging(cluster, "STOP")
    _command(cluster, f"ALTER TABLE events MODIFY SETTING parts_to_throw_insert = {MOST_PARTS}")
    with scene.traffic(rate=300):
        wait_for(lambda: sink.metric("tidewire_sink_up") == 0, 120, "the sink was never refused", cluster.told)
        before, began = sink.metric(RETRIES), time.monotonic()
        time.sleep(scene.size(15, 60))
        wrong = _too_many_tries(sink.metric(RETRIES) - before, time.monotonic() - began)
        parts = _parts(cluster)
        _merging(cluster, "START")
        scene.fault_over()
    recovery_s = scene.settle()
    if "Too many parts" not in sink.told():
        wrong = wrong or f"it was not refused for its parts: {sink.told()}"
    wait_for(lambda: _parts(cluster) < parts, 60, "the parts did not become fewer", cluster.told)
    return scene.outcome(recovery_s, wrong)


def _parts(cluster: Cluster) -> int:
    ((row,),) = cluster.query("SELECT count() AS n FROM system.parts WHERE active AND table = 'events'")
    return int(row["n"])


def _too_many_tries(tries: float, seconds: float) -> str:
    if tries > seconds + 1:
        return f"the sink tried {tries:.0f} times in {seconds:.0f} s"
    return ""


@row("19", "sink kill -9 between insert and commit", limit_s=15)
def sink_killed(scene: Scene) -> Outcome:
    """The sink dies the moment an insert was answered, or at any other; the one after it stores exactly what is
    missing."""
    cluster = scene.begin(workers=1, settings=OFTEN)
    (first,) = cluster.sinks
    _merging(cluster, "STOP")
    with scene.traffic(rate=300) as traffic:
        traffic.wait_for(300)
        first.kill()
        for kill in range(scene.size(3, 20)):
            inserts = scene.rng.randrange(1, 12)
            program = (sys.executable, "-m", "tests.faults.dies_after_insert", str(inserts))
            doomed = cluster.role("sink", f"doomed-{kill}", program=program, is_awaited=False)
            if kill % 3 == 2:
                doomed.ready()
                time.sleep(scene.rng.uniform(0.0, 15.0))
                if doomed.is_running:
                    doomed.kill()
            wait_for(lambda doomed=doomed: not doomed.is_running, 90,  # type: ignore[misc]
                     "the sink did not come to its last insert", doomed.told)  # fmt: skip
            if doomed.exit_code != -9:
                raise AssertionError(f"{doomed.data.name} ended with {doomed.exit_code}: {doomed.told()}")
        scene.fault_over()
        cluster.role("sink", "survivor")
    return scene.outcome(scene.settle(), *_stored_twice(cluster))


# --- tables as they are


TABLES = ("events", "people", "identities", "decisions", "rejected")


def _command(cluster: Cluster, *statements: str) -> None:
    assert cluster.clickhouse is not None

    async def run(url: str) -> None:
        analytics = Analytics(url)
        await analytics.start()
        try:
            for statement in statements:
                await analytics.command(statement)
        finally:
            await analytics.close()

    asyncio.run(run(cluster.clickhouse.url))


def _merging(cluster: Cluster, what: str) -> None:
    """Stop or start the merging of parts, so that tables show what was stored. It lasts as long as ClickHouse lives."""
    ((tables),) = cluster.query("SELECT name FROM system.tables WHERE database = currentDatabase() "
                                "AND engine = 'ReplacingMergeTree'")  # fmt: skip
    assert {row["name"] for row in tables} > set(TABLES), "the sink has not made its tables yet"
    _command(cluster, *(f"SYSTEM {what} MERGES `{row['name']}`" for row in tables))


def _stored_twice(cluster: Cluster) -> list[str]:
    """Tables that hold more rows than there are records for them in the log, or fewer."""
    events = [record for record in cluster.read("events") if not is_internal(record.headers)]
    letters = [json.loads(record.value or b"{}") for record in cluster.read("rejected")]
    rows = Counter(json.loads(record.value or b"{}")["table"] for record in cluster.read("rows"))
    must = {
        "events": len(events) + sum(letter["by"] == "stage" for letter in letters),  # and one that takes it back
        "people": len(cluster.read("profiles")), "decisions": len(cluster.read("decisions")),
        "rejected": len(letters), **rows,
    }  # fmt: skip
    found = cluster.query(*(f"SELECT count() AS n FROM `{table}`" for table in must))
    counts = {table: int(answer[0]["n"]) for table, answer in zip(must, found, strict=True)}
    return [f"table {table} holds {counts[table]} rows without FINAL, of {must[table]} records"
            for table in must if counts[table] != must[table]]  # fmt: skip


