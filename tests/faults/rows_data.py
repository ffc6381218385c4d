"""Rows 23 to 25: what is sent is repeated, dated wrongly, or poisoned."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import urlsplit

from sinks.batch import TOPICS as SINK_TOPICS
from streams.lag import SINK_GROUP, STAGE_GROUP, STAGE_TOPICS
from streams.log import TP, Log, LogBusy, Outgoing
from tests.faults.clock import REMIND_ME, program
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import tidewire
from tests.faults.rows import Outcome, Scene, row
from tests.faults.stories import CLOCKS, POISONED_BODIES, by_wrong_clocks, crowded, iso, poisoned, poisons, twice
from tests.faults.traffic import HEADERS, Json, shop_story

FASTER_THAN_LIVE = 5.0
LIVE_RATE = 300.0  # events a second
LEAVES_WITHIN_S = 30.0
ANSWERED_WITHIN_S = 1.0
CLOSE = timedelta(milliseconds=2)  # beside the time for which a request was on its way
STOPS_WITHIN_S = 20.0
FIRES_WITHIN_S = 60.0  # a timer that was told too early is told again after half a minute
MOST_DEAD_IN_A_ROW = 100


# --- 23


@row("23", "everything sent twice", limit_s=30, ground="embedded")
def sent_twice(scene: Scene) -> Outcome:
    """Each client sends every stretch of its story a second time."""
    with scene.traffic(rate=None, story=twice(shop_story), duplicates=0.0, batch=30) as traffic:
        traffic.wait_for(scene.size(2_000, 20_000))
        scene.fault_over()
    return scene.outcome(scene.settle())


@row("23", "offsets set back to the beginning", limit_s=30, ground="embedded", short=True)
def set_back(scene: Scene) -> Outcome:
    """The groups of stage and sink begin anew with everything that is kept. Two users have done more than anybody
    remembers by message ids."""
    up = scene.cluster.up
    with scene.traffic(rate=None, story=crowded(shop_story, 0.6), batch=50) as traffic:
        traffic.wait_for(scene.size(5_000, 50_000))
    scene.settle()
    assert up.stop() == 0, up.told()
    records = scene.cluster.ask_log(_set_back)
    up.start()
    up.ready()
    scene.fault_over()
    recovery_s = scene.settle()
    return scene.outcome(recovery_s, _too_slow(records, recovery_s), _was_set_back(records))


@row("23", "offsets set back under load", limit_s=60, long_only=True)
def set_back_on_kafka(scene: Scene) -> Outcome:
    """The same on Kafka, while events go on coming; catching up is at least five times as fast as they come."""
    cluster = scene.cluster
    with scene.traffic(rate=None, clients=4, story=crowded(shop_story, 0.6), batch=100) as traffic:
        traffic.wait_for(scene.size(20_000, 200_000))
    scene.settle()
    members = [*cluster.workers, *cluster.sinks]
    for member in members:
        member.ask_to_stop()
    for member in members:
        assert member.wait(LEAVES_WITHIN_S) == 0, member.told()
    records = _when_all_have_left(cluster)
    with scene.traffic(rate=LIVE_RATE):
        for member in members:
            member.start()
        for member in members:
            member.ready()
        scene.fault_over()
        took_s = wait_for(lambda: cluster.behind().stage < LIVE_RATE, 60, "it does not catch up", cluster.told)
    return scene.outcome(scene.settle(), _too_slow(records, took_s), _was_set_back(records))


def _when_all_have_left(cluster: Cluster) -> int:
    until = time.monotonic() + LEAVES_WITHIN_S
    while True:
        try:
            return cluster.ask_log(_set_back)
        except LogBusy:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


async def _set_back(log: Log) -> int:
    """Both groups go on from where the log begins. Returns how many records of `events` are there again."""
    again = 0
    for group, topics in ((STAGE_GROUP, STAGE_TOPICS), (SINK_GROUP, SINK_TOPICS)):
        for topic in topics:
            bounds = await log.bounds(topic)
            await log.go_on_from(group, {TP(topic, partition): first for partition, (first, _) in bounds.items()})
            if group == STAGE_GROUP:
                again += sum(end - first for first, end in bounds.values())
    return again


def _too_slow(records: int, seconds: float) -> str:
    rate = records / max(seconds, 0.001)
    if rate >= FASTER_THAN_LIVE * LIVE_RATE:
        return ""
    return f"{records} records again in {seconds:.1f} s, {rate:.0f} a second: less than {FASTER_THAN_LIVE:g}x live"


def _was_set_back(records: int) -> str:
    return "" if records else "the fault did not happen: there was nothing to do again"


# --- 24


@row("24", "late, out of order, and by wrong clocks", limit_s=30, ground="embedded")
def wrong_clocks(scene: Scene) -> Outcome:
    """Clients whose clocks are a day or ten years off, before or behind; some say when they send, so that it can be
    corrected. Events come in no order, and up to 30 days late."""
    story = by_wrong_clocks(shop_story)
    with scene.traffic(rate=None, story=story, batch=25, duplicates=0.05, mistakes=0.0) as traffic:
        traffic.wait_for(scene.size(3_000, 30_000))
        scene.fault_over()
    outcome = scene.outcome(scene.settle())
    stored = scene.cluster.query(
        "SELECT message_id, timestamp, received_at, original_timestamp, flags FROM event_log"
    )[0]
    wrong = [outcome.wrong, *_misdated(scene, stored)]
    return Outcome(outcome.lost, outcome.doubled, outcome.recovery_s, "; ".join(each for each in wrong if each))


def _misdated(scene: Scene, stored: Iterable[Json]) -> Iterable[str]:
    """What ClickHouse says of when events happened, where it is not what it must be."""
    seen: Counter[int] = Counter()
    wrong: Counter[str] = Counter()
    for each in stored:
        sent = scene.ledger.taken.get(each["message_id"]) or scene.ledger.open.get(each["message_id"])
        assert sent is not None, each
        true = sent["traits" if sent["type"] == "identify" else "properties"]
        seen[true["clock"]] += 1
        happened = datetime.fromisoformat(true["happened"])
        said = datetime.fromisoformat(sent["timestamp"])
        in_future = "timestamp_in_future" in each["flags"]
        if "sentAt" in sent:
            off = CLOCKS[true["clock"]].off if true["clock"] >= 0 else timedelta()
            on_its_way = each["received_at"] - (datetime.fromisoformat(sent["sentAt"]) - off)
            if not -CLOSE <= each["timestamp"] - happened <= on_its_way + CLOSE or in_future:
                wrong["a time that could be corrected was not"] += 1
        elif said > each["received_at"]:
            if not in_future or each["timestamp"] != each["received_at"]:
                wrong["a time in the future was taken, or not flagged"] += 1
        elif each["timestamp"] != said or in_future:
            wrong["a time that cannot be corrected was changed"] += 1
    missing = set(range(-1, len(CLOCKS))) - seen.keys()
    yield from (f"{what}, of {count} events" for what, count in wrong.items())
    if missing:
        yield f"the fault did not happen: no event by clocks {sorted(missing)}"


@row("24", "workers whose clocks are an hour off", limit_s=60, long_only=True)
def wrong_worker_clocks(scene: Scene) -> Outcome:
    """Of two workers one is an hour ahead and one an hour behind. No timer fires before it is due by the clock of
    the log; those of the worker that is behind are late, and fire once its partitions are the other's."""
    cluster = scene.begin(workers=0)
    ahead = cluster.role("worker", "ahead", program=program(3_600))
    behind = cluster.role("worker", "behind", program=program(-3_600))
    cluster.wait_until_owned()
    with scene.traffic(rate=200, story=_reminders, duplicates=0.02, mistakes=0.0) as traffic:
        traffic.wait_for(scene.size(400, 4_000))
    sent = len(scene.ledger.taken)
    wait_for(lambda: len(_fired(cluster)) > sent // 10, FIRES_WITHIN_S, "no timer fires", ahead.told)
    assert behind.stop() == 0, behind.told()
    scene.fault_over()
    wait_for(lambda: len(_fired(cluster)) >= sent, FIRES_WITHIN_S, "not every timer fires", ahead.told)
    recovery_s = scene.settle()
    fired = _fired(cluster)
    early = [about for about, decisions in fired.items() if min(decisions.values()) < 0]
    doubled = sum(len(decisions) - 1 for decisions in fired.values())
    wrong = f"{len(early)} timers fired early: {early[:3]}" if early else ""
    return Outcome(len(scene.ledger.taken.keys() - fired.keys()), doubled, recovery_s, wrong)


def _reminders(rng: random.Random, number: int) -> Iterator[Json]:
    for n in count():
        yield {"messageId": f"r{number}-{n}", "type": "track", "event": REMIND_ME, "userId": f"r{number}-{n % 97}",
               "timestamp": iso(datetime.now(UTC))}  # fmt: skip


def _fired(cluster: Cluster) -> dict[str, dict[str, float]]:
    """By timer the decisions that it fired, each with how late it was, in ms and by the clock of the log."""
    fired: dict[str, dict[str, float]] = defaultdict(dict)
    for record in cluster.read("decisions"):
        line = json.loads(record.value or b"{}")
        if line["kind"] == "reminded":
            fired[line["about"]].setdefault(line["id"], record.timestamp_ms - line["facts"]["due_ms"])
    return fired


# --- 25


@row("25", "poison, 1 % of all events", limit_s=30, ground="embedded", short=True)
def poison(scene: Scene) -> Outcome:
    """One event of a hundred is one of the bad inputs, in batches with good ones, and whole requests are bad, too. Each
    refused event stands in `rejected` with its reason, and the good ones are as without."""
    (url,) = scene.cluster.urls
    with scene.traffic(rate=None, story=poisoned(shop_story, 0.01), batch=20, mistakes=0.0) as traffic:
        wrong = [_of_body(url, body) for _ in range(scene.size(1, 5)) for body in POISONED_BODIES]
        traffic.wait_for(scene.size(6_000, 60_000))
        scene.fault_over()
    recovery_s = scene.settle()
    outcome = scene.outcome(recovery_s, *wrong)
    also = _letters(scene)
    return Outcome(outcome.lost, outcome.doubled, recovery_s, "; ".join(filter(None, (outcome.wrong, also))))


def _of_body(url: str, body: bytes) -> str:
    """Send a request that is none."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    began = time.monotonic()
    try:
        connection.request("POST", "/v1/batch", body, HEADERS)
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer to {body[:40]!r}: {error!r}"
    finally:
        connection.close()
    took_s = time.monotonic() - began
    if not 400 <= answer.status < 500 or b"Traceback" in said or took_s > ANSWERED_WITHIN_S:
        return f"{body[:40]!r} was answered with {answer.status} after {took_s:.1f} s"
    return ""


def _letters(scene: Scene) -> str:
    """What is wrong with the dead letters of the poisoned events."""
    (letters,) = scene.cluster.query("SELECT message_id, reason FROM rejected_list")
    reasons = {each["message_id"]: each["reason"] for each in letters}
    stored = {each["message_id"] for each in scene.cluster.query("SELECT message_id FROM event_log")[0]}
    sent = [message_id for message_id in scene.ledger.taken if message_id.startswith("poison-")]
    kinds = poisons(0)
    wrong = []
    for message_id in sent:
        can_be_stored = kinds[int(message_id.rpartition("-")[2])][1]
        if can_be_stored and message_id not in stored:
            wrong.append(f"{message_id} could have been stored: {reasons.get(message_id)}")
        if not can_be_stored and (message_id in stored or not reasons.get(message_id)):
            wrong.append(f"{message_id} has no dead letter with a reason")
    seen = {message_id.rpartition("-")[2] for message_id in sent}
    if len(seen) < len(kinds) // 2:
        wrong.append(f"the fault did not happen: only {len(seen)} of {len(kinds)} kinds were sent")
    return "; ".join(wrong[:5])


@row("25", "more poison than a partition may swallow", limit_s=30)
def too_much_poison(scene: Scene) -> Outcome:
    """A program that writes to the log itself writes what nobody can read, a hundred records in a row. The partition
    stops and says so; the process stays up and the other partitions go on. When a person lets it go on, it does."""
    cluster = scene.cluster
    stuck = scene.rng.randrange(cluster.partitions)
    with scene.traffic(rate=400) as traffic:
        traffic.wait_for(500)
        poison = [Outgoing(None, b"\x00this is no event %d" % n, stuck) for n in range(MOST_DEAD_IN_A_ROW + 50)]
        cluster.ask_log(lambda log: log.append("events", poison))
        wait_for(lambda: _stopped(cluster) == 1, STOPS_WITHIN_S, "the partition does not stop", cluster.told)
        traffic.wait_for(1_000)
        wrong = [_said_so(cluster), *_stands_alone(cluster, stuck)]
        tidewire("partitions", "go-on", str(stuck), "--let-through", settings=cluster.settings)
        scene.fault_over()
        wait_for(lambda: _stopped(cluster) == 0, STOPS_WITHIN_S, "the partition does not go on", cluster.told)
    return scene.outcome(scene.settle(), *wrong)


def _stopped(cluster: Cluster) -> float:
    return sum(worker.metric("tidewire_stage_stopped_partitions") for worker in cluster.workers)


def _said_so(cluster: Cluster) -> str:
    said = "".join(worker.said.read_text(errors="replace") for worker in cluster.workers)
    return "" if "partition_stopped" in said and "in a row became dead letters" in said else "no worker logged it"


def _stands_alone(cluster: Cluster, stuck: int) -> Iterable[str]:
    """Only this partition stands still, and no worker ended over it."""
    if len(cluster.workers) < 2:
        yield "a worker ended"
    until = time.monotonic() + STOPS_WITHIN_S
    while not cluster.ask_log(lambda log: _others_done(log, stuck)):
        if time.monotonic() > until:
            yield "other partitions stand still, too"
            return
        time.sleep(0.2)


async def _others_done(log: Log, stuck: int) -> bool:
    """Whether what stood in the other partitions a moment ago is done, and in this one it is not."""
    ends = await log.bounds("events")
    committed = await log.committed(STAGE_GROUP, "events")
    behind = {partition: end - committed.get(partition, first) for partition, (first, end) in ends.items()}
    return behind.pop(stuck) > MOST_DEAD_IN_A_ROW and all(left < 500 for left in behind.values())
