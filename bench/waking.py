"""Journeys in a running `tidewire up`: the time until a message is proposed, and many who are due in the same second.

Twelve journeys are in force: ten of a shop (`shop_journeys.py`), one that sends a notice at once to whoever the traffic
means to enter journeys, one event in twenty, and one in which people wait. Live events come at a pace; the probes of
`probed.py` say when one had changed a state, or when the message that was proposed on it stood in the log. The ledger
in ClickHouse says when those who waited had gone on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import shop_journeys
from bench.audiences import segments
from bench.child import Child
from bench.contestants.probed import MIDNIGHT
from bench.memberships import BATCH, LATE_S, Live, api_of, latencies, send, up
from bench.whole_way import follow
from tests.faults.cluster import Cluster
from tests.faults.machine import WRITE_KEY

SEGMENTS = JOURNEYS = 10
WAITED = "Waited"
LEAST_EVENTS = 1_200  # at half of capacity, so that some of them are for journeys
WARM_UP = 0.1  # of them is left out
LOOK_EVERY_S = 0.5
IN_FORCE_WITHIN_S = DONE_WITHIN_S = 60.0
SENT_WITHIN_S = 300.0

File = dict[str, Any]
CHANNELS: File = {"inbox": {"rate": 10_000}}  # letters leave as fast as is usual, 50 a second
LETTER: File = {"channel": "email", "kind": "marketing", "topic": "newsletter",
                "content": {"en": {"subject": "Hello", "text": "Hello.\n"}}}  # fmt: skip
TEMPLATES = {**dict.fromkeys(shop_journeys.MAILS, LETTER),
             "notice": {"channel": "inbox", "kind": "transactional", "content": LETTER["content"]}}  # fmt: skip
NOTICE: File = {
    "enter": {"event": {"did": "Product Viewed", "where": {"collection": {"exists": True}}}}, "again": "always",
    "holdout": 0, "steps": [{"step": "now", "send": "notice", "from_event": {"due": "due"}}],
}  # fmt: skip
WAITS: File = {"enter": {"event": {"did": WAITED}}, "holdout": 0, "steps": [
    {"step": "until_then", "wait": {"at": "00:00", "zone": "workspace"}}, {"step": "hello", "send": "letter"},
]}  # fmt: skip
_OURS = "processor = 'journeys' AND about = 'waits'"


class Size(NamedTuple):
    """How much of what.

    Attributes:
        flood: events, as fast as they are taken, by which the capacity is measured.
        seconds: at half of it.
        people: who wait for the same second.
        rate: of live events while they do.
        lead_s, after_s: so long before that second they begin to enter, and so long after it live events go on.
    """

    flood: int
    seconds: float
    people: int
    rate: float
    lead_s: float
    after_s: float


def live(size: Size) -> dict[str, Any]:
    journeys = shop_journeys.journeys(JOURNEYS) | {"notice": NOTICE, "waits": WAITS}
    files = {"channels.yaml": CHANNELS} | {f"journeys/{name}.yaml": said for name, said in journeys.items()}
    files |= {f"templates/{name}.yaml": said for name, said in TEMPLATES.items()}
    with tempfile.NamedTemporaryFile() as midnight, up(
        segments(SEGMENTS), files, {MIDNIGHT: midnight.name}
    ) as (cluster, probes):  # fmt: skip
        api = api_of(cluster)
        _until(lambda: sum(each["is_live"] for each in api.get("/api/journeys")["journeys"]) == len(journeys),
               IN_FORCE_WITHIN_S, "the journeys were not in force", cluster)  # fmt: skip
        capacity = _capacity(cluster, size.flood)
        _until(lambda: _waiting(cluster) == 0, SENT_WITHIN_S, "messages did not leave", cluster)
        rate = capacity / 2
        calm = Live(cluster, rate, max(size.seconds, LEAST_EVENTS / rate), is_marked=True)
        calm.wait()
        due_at = round(time.time() + size.lead_s)
        Path(midnight.name).write_text(str(due_at))
        busy, decided_s, done_s = _wait_and_go_on(cluster, size, due_at)
        cluster.up.stop()
        last = calm.began + calm.events / rate
        first = calm.began + (last - calm.began) * WARM_UP
        done_at, ended = due_at + done_s, busy.began + busy.events / size.rate
        return {
            "capacity": capacity, "proposed": latencies(probes, first, last, "proposed"),
            "state": latencies(probes, first, last),
            "before": latencies(probes, busy.began + LATE_S, due_at), "during": latencies(probes, due_at, done_at),
            "after": latencies(probes, done_at, ended) if done_at < ended - LATE_S else None,
            "decided_s": decided_s, "done_s": done_s,
        }  # fmt: skip


def _capacity(cluster: Cluster, events: int) -> float:
    job = {"url": cluster.urls[0], "write_key": WRITE_KEY, "made": events, "calls": events, "batch": BATCH,
           "is_marked": True}  # fmt: skip
    with Child("bench.contestants.client", job) as client:
        began = float(client.line()["began"])
        follow(cluster, client, lambda: None)
        return events / (time.time() - began)


def _waiting(cluster: Cluster) -> int:
    """How many messages have not left."""
    (row,) = _rows(cluster, "SELECT count() AS n FROM messages_list WHERE state IN ('waiting', 'sending')")
    return int(row["n"])


def _wait_and_go_on(cluster: Cluster, size: Size, due_at: int) -> tuple[Live, float, float]:
    """People enter, wait, and go on beside live events. Returns those; and so long after they were due the last of them
    was decided about, and could all of it be read in ClickHouse."""
    people = size.people
    send(cluster.urls[0], [call for number in range(people) for call in _comes(number)])
    beside = Live(cluster, size.rate, due_at - time.time() + size.after_s, is_marked=True)
    if beside.began > due_at:
        raise RuntimeError(f"it took more than {size.lead_s:.0f} s to let them enter")
    _until(lambda: _told(cluster, "waits") == people, due_at - time.time(), "they did not all wait", cluster)
    beside.wait()
    _until(lambda: _told(cluster, "proposed") == people, DONE_WITHIN_S, "they did not all go on", cluster)
    (told,) = _rows(cluster, f"SELECT countIf(at < fromUnixTimestamp({due_at})) AS early, count() AS lines, "
                    "toUnixTimestamp64Milli(max(at)) AS decided, toUnixTimestamp64Milli(max(stored_at)) AS stored "
                    f"FROM decisions FINAL WHERE {_OURS} AND kind IN ('woke', 'proposed')")  # fmt: skip
    if int(told["early"]) or int(told["lines"]) != 2 * people:
        raise RuntimeError(f"of {2 * people} steps {told['lines']} were taken, {told['early']} before their time")
    return beside, int(told["decided"]) / 1000 - due_at, int(told["stored"]) / 1000 - due_at


def _comes(number: int) -> tuple[str, str]:
    """Somebody who may be written to, and what lets her enter."""
    who = {"userId": f"waits-{number}"}
    traits = {"email": f"waits-{number}@example.com", "consent": {"newsletter": True}}
    return (json.dumps({"type": "identify", "messageId": f"is-{number}", "traits": traits, **who}),
            json.dumps({"type": "track", "event": WAITED, "messageId": f"waits-{number}", **who}))  # fmt: skip


def _told(cluster: Cluster, kind: str) -> int:
    (row,) = _rows(cluster, f"SELECT count() AS n FROM decisions FINAL WHERE {_OURS} AND kind = '{kind}'")
    return int(row["n"])


def _rows(cluster: Cluster, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = api_of(cluster).post("/api/sql", {"query": sql})["rows"]
    return rows


def _until(is_so: Callable[[], bool], within_s: float, otherwise: str, cluster: Cluster) -> None:
    """Wait for something that is asked for rarely, since asking costs what is measured."""
    until = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > until:
            raise RuntimeError(f"{otherwise} within {within_s:.0f} s:\n{cluster.told()}")
        time.sleep(LOOK_EVERY_S)
