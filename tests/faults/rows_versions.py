"""Row 28: events and states of other versions than the program's, and back again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from streams.log import Outgoing
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import COMMAND, Process
from tests.faults.rows import Outcome, Scene, row
from tests.faults.stories import iso
from tests.faults.traffic import Json, shop_story
from tests.faults.version import as_version, program

LEAVES_WITHIN_S = 30.0
REFUSES_WITHIN_S = 40.0
EXIT_FAILED = 1


@row("28", "events of a newer collector", limit_s=30)
def newer_events(scene: Scene) -> Outcome:
    """Clients send fields that nobody knows, and a collector that is newer than worker and sink writes fields of its
    own. Everything is done as without them; what clients sent is kept as sent."""
    cluster = scene.cluster
    count = scene.size(200, 2_000)
    with scene.traffic(rate=400, story=_with_unknown_fields) as traffic:
        for start in range(0, count, 50):
            records = [_of_newer_collector(n) for n in range(start, start + 50)]
            cluster.ask_log(lambda log, records=records: log.append("events", records))  # type: ignore[misc]
        traffic.wait_for(1_000)
        scene.fault_over()
    recovery_s = scene.settle()
    (stored,) = cluster.query("SELECT message_id, extra FROM event_log")
    extras = {each["message_id"]: each["extra"] for each in stored}
    missing = [n for n in range(count) if f"newer-{n}" not in extras]
    not_kept = [message_id for message_id, sent in scene.ledger.taken.items() if "weather" in sent
                and json.loads(extras.get(message_id) or "{}").get("weather") != sent["weather"]]  # fmt: skip
    return scene.outcome(
        recovery_s, f"{len(missing)} events of the newer collector are not in ClickHouse" if missing else "",
        f"{len(not_kept)} events lost their unknown field: {not_kept[:3]}" if not_kept else "",
    )  # fmt: skip


def _with_unknown_fields(rng: random.Random, number: int) -> Iterator[Json]:
    for n, event in enumerate(shop_story(rng, number)):
        yield {**event, "weather": {"sky": "clear", "n": n}} if n % 2 else event


def _of_newer_collector(n: int) -> Outgoing:
    now = iso(datetime.now(UTC))
    event = {"messageId": f"newer-{n}", "type": "track", "event": "Product Viewed", "workspace": "default",
             "source": "newer", "timestamp": now, "receivedAt": now, "userId": f"newer-{n % 7}",
             "properties": {"product_id": f"p{n % 40}"}, "region": "eu", "consentedTo": ["mail"]}  # fmt: skip
    return Outgoing(f"default/u:newer-{n % 7}".encode(), json.dumps(event).encode())


@row("28", "a wider state, and back", limit_s=30)
def wider_state(scene: Scene) -> Outcome:
    """Workers are replaced one after another, under load, by those of a version whose state has one more field, and
    those by the old ones again. Both versions work side by side for a while, and each reads what the other wrote."""
    cluster = scene.cluster
    with scene.traffic(rate=400) as traffic:
        for turn, command in enumerate([program("wider"), COMMAND] * scene.size(1, 3)):
            traffic.wait_for(800)
            _replace(cluster, command, f"turn-{turn}")
            scene.fault_over()
        traffic.wait_for(800)
    return scene.outcome(scene.settle())


@row("28", "the next version of a state, and no way back", limit_s=30, long_only=True)
def next_state(scene: Scene) -> Outcome:
    """All workers are stopped, and started in a version that raised the version of a state, which is upgraded person by
    person. An old worker that comes back says in one line that it cannot, and ends; the new ones lose nothing by it."""
    cluster = scene.cluster
    with scene.traffic(rate=400) as traffic:
        traffic.wait_for(1_000)
        for worker in (old_ones := cluster.workers):
            worker.ask_to_stop()
        for worker in old_ones:
            assert worker.wait(LEAVES_WITHIN_S) == 0, worker.told()
        newer = [cluster.role("worker", f"next-{number}", program=program("next")) for number in (1, 2)]
        cluster.wait_until_owned()
        traffic.wait_for(1_000)
        old = cluster.role("worker", "old", is_awaited=False)
        wait_for(lambda: not old.is_running, REFUSES_WITHIN_S, "the old worker goes on", old.told)
        scene.fault_over()
        wrong = [_is_refusal(old)]
        wrong += [f"{each.data.name} ended: {each.told()[-300:]}" for each in newer if not each.is_running]
        cluster.wait_until_owned()
        traffic.wait_for(500)
    recovery_s = scene.settle()
    cluster.program = program("next")
    with as_version("next"):
        return scene.outcome(recovery_s, *wrong)


def _replace(cluster: Cluster, command: Sequence[str], name: str) -> None:
    """Put a worker that runs `command` in the place of each, one after another."""
    for number, worker in enumerate(cluster.workers, 1):
        cluster.role("worker", f"{name}-{number}", program=command)
        worker.ask_to_stop()
        assert worker.wait(LEAVES_WITHIN_S) == 0, worker.told()
    cluster.wait_until_owned()


def _is_refusal(old: Process) -> str:
    said = [line for line in old.told().splitlines() if line.startswith("tidewire: ")]
    if old.exit_code == EXIT_FAILED and len(said) == 1 and "start the newer program again" in said[0]:
        return "" if "Traceback" not in old.told() else f"a traceback: {old.told()[-500:]}"
    return f"the old worker ended with {old.exit_code}: {old.told()[-500:]}"
