"""Row 34: workers that lead people through journeys die while people enter, wait and leave."""

from __future__ import annotations

import random
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.cluster import wait_for
from tests.faults.journeys_model import (
    ADDED,
    EMPTIED,
    FILES,
    LONGEST_MS,
    MINUTE_MS,
    ORDERED,
    SEEN,
    SIGNED_UP,
    differences,
    truth_of,
)
from tests.faults.machine import Process
from tests.faults.rows import Outcome, Scene, row
from tests.faults.stories import iso
from tests.faults.traffic import Json

LATE_MS = 2_000  # that a timer may fire after it was due, and after the worker is back
LIVE_WITHIN_S = 30.0
BACK_WITHIN_S = 60.0
FEW = 20  # records that may be left to do when a worker is back at work
LATELY = 12  # people whom something more happens to


@row("34", "tidewire up kill -9 while people are led", limit_s=20, ground="embedded", alone=True)
def killed_while_leading(scene: Scene) -> Outcome:
    """People enter three journeys whose waits last two seconds, order, change their minds and log in on other devices,
    while the one process is killed again and again. What must come of each of them a second model works out from the
    log alone: each step is taken once and nothing is ordered twice; no timer fires early, and at most two seconds late
    after it was due, or after the process is back."""
    cluster = scene.begin(minute_ms=MINUTE_MS, settings=_settings(scene))
    return _run(scene, cluster.up, [cluster.up], scene.size(2, 15))


@row("34", "worker kill -9 while people are led", limit_s=30, alone=True)
def worker_killed_while_leading(scene: Scene) -> Outcome:
    """The same with two workers on Kafka: what one had begun the other goes on with."""
    cluster = scene.begin(minute_ms=MINUTE_MS, settings=_settings(scene), dashboards=1)
    (dashboard,) = (process for process in cluster.roles if process.role == "dashboard")
    return _run(scene, dashboard, cluster.workers, scene.size(3, 15))


def _settings(scene: Scene) -> dict[str, str]:
    """A config folder with nothing but these journeys."""
    folder = scene.folder / "config"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(Path("config/write_keys.yaml"), folder)
    return {"TIDEWIRE_CONFIG": str(folder), "TIDEWIRE_LOG_LEVEL": "info"}


class _Outages:
    """When nobody led people."""

    def __init__(self) -> None:
        self._began_ms: list[int] = []
        self._ended_ms: list[int] = []

    def begin(self) -> None:
        self._began_ms.append(_now_ms())

    def end(self) -> None:
        self._ended_ms.append(_now_ms())

    def could_fire(self, due_ms: int) -> int:
        """From when on a timer that was due then could fire: it may be late when its worker dies."""
        place = bisect_right(self._began_ms, due_ms + LATE_MS) - 1
        return max(due_ms, self._ended_ms[place] if place >= 0 else 0)


def _run(scene: Scene, coordinator: Process, leaders: list[Process], kills: int) -> Outcome:
    cluster, outages = scene.cluster, _Outages()
    wait_for(lambda: "journeys_live" in coordinator.said.read_text(errors="replace"), LIVE_WITHIN_S,
             "the journeys do not become live", coordinator.told)  # fmt: skip
    with scene.traffic(rate=scene.size(40, 80), batch=4, story=shoppers, mistakes=0.0, duplicates=0.03):
        for kill in range(kills):
            time.sleep(scene.rng.uniform(1.5, 4.0))
            leader = leaders[kill % len(leaders)]
            outages.begin()
            leader.kill()
            leader.start()
            scene.fault_over()
            leader.ready()
            cluster.wait_until_owned()
            wait_for(lambda: cluster.behind().stage < FEW, BACK_WITHIN_S, "it does not catch up", cluster.told)
            outages.end()
    recovery_s = scene.settle()
    time.sleep((LONGEST_MS + LATE_MS) / 1000)
    scene.settle()
    outcome = scene.outcome(recovery_s, is_over=True)
    events = cluster.read("events")
    truth = truth_of(events)
    found = differences(
        truth, events=events, decisions=cluster.read("decisions"), messages=cluster.read("messages"),
        rows=cluster.query("SELECT * FROM journey_runs FINAL")[0], could_fire=outages.could_fire,
    )  # fmt: skip
    wrong = [outcome.wrong, *found.wrong]
    if found.latest_ms > LATE_MS:
        wrong.append(f"a timer fired {found.latest_ms / 1000:.1f} s late")
    if not truth.fired:
        wrong.append("no timer was due")
    return Outcome(outcome.lost + found.lost, outcome.doubled + found.doubled, recovery_s,
                   "; ".join(each for each in wrong if each))  # fmt: skip


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- the story


def shoppers(rng: random.Random, number: int) -> Iterator[Json]:
    """People who sign up, and visitors who fill baskets, order, empty or look at them, and log in; all of it now."""
    users, devices, said = 0, 0, 0
    baskets: list[tuple[Json, str]] = []  # whose, and its id
    unknown: list[Json] = []  # devices that nobody logged in on yet

    def told(type_: str, ids: Json, **more: object) -> Json:
        nonlocal said
        said += 1
        return {"messageId": f"m{number}-{said}", "type": type_, "timestamp": iso(datetime.now(UTC)), **ids, **more}

    def track(ids: Json, name: str, **properties: object) -> Json:
        return told("track", ids, event=name, properties=properties)

    while True:
        dice = rng.random()
        if users == 0 or dice < 0.15:
            users += 1
            ids = {"userId": f"u{number}-{users}"}
            yield told("identify", ids, traits={"consent": {"offers": True}})
            yield track(ids, SIGNED_UP)
        elif dice < 0.2:
            yield track({"userId": f"u{number}-{rng.randint(max(1, users - LATELY), users)}"}, SIGNED_UP)
        elif dice < 0.45 or not baskets:
            if rng.random() < 0.5:
                devices += 1
                ids = {"anonymousId": f"d{number}-{devices}"}
                unknown.append(ids)
            else:
                ids = {"userId": f"u{number}-{rng.randint(max(1, users - LATELY), users)}"}
            baskets.append((ids, f"b{number}-{len(baskets)}"))
            yield track(ids, ADDED, cart_id=baskets[-1][1])
        elif dice < 0.6 and unknown:  # she logs in, on a device that did something lately
            ids = unknown.pop(-rng.randint(1, min(len(unknown), LATELY)))
            yield told("identify", {"userId": f"u{number}-{rng.randint(max(1, users - LATELY), users)}", **ids})
        else:
            ids, basket = rng.choice(baskets[-LATELY:])
            name = rng.choices((ADDED, ORDERED, EMPTIED, SEEN), (3, 2, 1, 3))[0]
            more = {"order_id": f"o-{basket}", "total": 9} if name == ORDERED else {}
            yield track(ids, name, cart_id=basket, **more)
