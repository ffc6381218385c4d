"""Rows 3 to 8: workers die, stand still, come and go, and lose their disk."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from schemas.internal import HEADERS, Unmerge, encode_internal
from schemas.keys import anonymous_key
from streams.log import Log, Outgoing
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import Process
from tests.faults.proxy import Delay, Pass, Proxy
from tests.faults.rows import Outcome, Scene, row
from tests.faults.stories import PAIR, in_pairs
from tests.faults.traffic import shop_story
from tests.faults.watch import Progress

FROZEN_S = 30.0
ENDS_ITSELF_WITHIN_S = 20.0
EXIT_LEASE_LOST = 70
STOPS_WITHIN_S = 10.0
LONGEST_STALL_S = 30.0
SLOW_WAY_S = 0.5  # each way, so that a request takes a second


@row("3", "worker kill -9", limit_s=20, short=True)
def workers_killed(scene: Scene) -> Outcome:
    """Workers are killed in turn under load and come back at once; the last one stays dead: the other takes over."""
    workers = scene.cluster.workers
    kills = scene.size(2, 10)
    with scene.traffic(rate=scene.size(300, 600), batch=20):
        for kill in range(1, kills + 1):
            time.sleep(scene.rng.uniform(2, scene.size(5, 10)))
            worker = workers[kill % 2]
            worker.kill()
            scene.fault_over()
            if kill < kills:
                worker.start()
                worker.ready()
    return scene.outcome(scene.settle())


@row("3", "tidewire up kill -9", limit_s=20, ground="embedded")
def everything_killed(scene: Scene) -> Outcome:
    """The one process of the embedded ground is killed at random moments: collector, stage and sink at once."""
    up = scene.cluster.up
    with scene.traffic(rate=600, batch=20):
        for _ in range(scene.size(3, 20)):
            time.sleep(scene.rng.uniform(0.1, 3.0))
            up.kill()
            up.start()
            scene.fault_over()
            up.ready()
    return scene.outcome(scene.settle())


@row("3", "worker kill -9 while people are parted", limit_s=20)
def killed_while_parting(scene: Scene) -> Outcome:
    """Users are parted from devices that they were merged with, and workers are killed before, while and after the
    parts travel back. Both go on; the user says again and again that the device is hers, and never gets it back."""
    cluster = scene.cluster
    asked: set[str] = set()
    with scene.traffic(rate=600, batch=20, story=in_pairs(shop_story)) as traffic:
        for kill in range(scene.size(2, 8)):
            traffic.wait_for(1_500)
            with scene.ledger.lock:
                pairs = [each for each in scene.ledger.taken if each.startswith(PAIR) and each.count("-") == 1]
            some = scene.rng.sample(sorted(set(pairs) - asked), len(set(pairs) - asked) // 2)
            asked.update(some)
            cluster.ask_log(partial(_part, some))
            time.sleep(scene.rng.uniform(0, 0.5))
            worker = cluster.workers[kill % 2]
            worker.kill()
            scene.fault_over()
            worker.start()
            worker.ready()
    recovery_s = scene.settle()
    (parted,) = cluster.query("SELECT uniq(about) AS keys FROM decision_log WHERE kind = 'unmerged'")[0]
    few = f"only {parted['keys']} of {len(asked)} were parted" if parted["keys"] < len(asked) / 2 else ""
    return scene.outcome(recovery_s, few)


async def _part(pairs: Sequence[str], log: Log) -> None:
    """Ask, as the page does, that devices stand for themselves again."""
    orders = [Unmerge(to=anonymous_key("default", pair), origin=pair, at_ms=time.time_ns() // 1_000_000, asked_by="row")
              for pair in pairs]  # fmt: skip
    await log.append("events", [Outgoing(each.to.encode(), encode_internal(each), headers=HEADERS) for each in orders])


@row("4", "worker frozen for 30 s, then awake", limit_s=20)
def worker_frozen(scene: Scene) -> Outcome:
    """A worker stands still in the middle of its work until others own its partitions, and wakes. It must end itself
    before it does any harm: what it had begun is done by the new owner, and stays as that one left it."""
    cluster = scene.cluster
    wrong = []
    with scene.traffic(rate=600, batch=20) as traffic:
        for turn in range(scene.size(1, 3)):
            traffic.wait_for(1_000 + scene.rng.randrange(1_000))
            zombie = cluster.workers[turn % 2]
            other = cluster.workers[1 - turn % 2]
            zombie.freeze()
            began = time.monotonic()
            try:
                _wait_until_it_owns_all(cluster, other)
                time.sleep(max(0.0, FROZEN_S - (time.monotonic() - began)))
            finally:
                zombie.thaw()
                scene.fault_over()
            wait_for(lambda zombie=zombie: not zombie.is_running, ENDS_ITSELF_WITHIN_S,
                     f"{zombie.data.name} goes on after it stood still for {FROZEN_S:.0f} s", zombie.told)  # type: ignore[misc]
            if zombie.exit_code != EXIT_LEASE_LOST:
                wrong.append(f"{zombie.data.name} ended with {zombie.exit_code}: {zombie.told()[-300:]}")
            zombie.start()
            zombie.ready()
    return scene.outcome(scene.settle(), *wrong)


def _wait_until_it_owns_all(cluster: Cluster, worker: Process) -> None:
    wait_for(lambda: worker.metric("tidewire_stage_owned_partitions") == cluster.partitions, FROZEN_S,
             f"{worker.data.name} did not take over", worker.told)  # fmt: skip


@row("5", "worker SIGTERM", limit_s=10)
def worker_stopped(scene: Scene) -> Outcome:
    """Workers are stopped and started in turn under load. Each leaves after a checkpoint, so no record is handled
    twice: those who go on skip none as applied before."""
    cluster = scene.cluster
    first, second = cluster.workers
    wrong, again = [], 0.0
    with scene.traffic(rate=600, batch=20) as traffic:
        for leaving, staying in [(first, second), (second, first)] * scene.size(1, 4):
            cluster.wait_until_owned()
            traffic.wait_for(1_000 + scene.rng.randrange(500))
            again += _replayed(leaving)
            asked = time.monotonic()
            code = leaving.stop()
            took_s = time.monotonic() - asked
            if code != 0 or took_s > STOPS_WITHIN_S:
                wrong.append(f"{leaving.data.name} took {took_s:.1f} s to stop, with {code}")
            if "released_without_checkpoint" in leaving.said.read_text(errors="replace"):
                wrong.append(f"{leaving.data.name} left without a checkpoint")
            _wait_until_it_owns_all(cluster, staying)
            traffic.wait_for(500)
            leaving.start()
            scene.fault_over()
    recovery_s = scene.settle()
    cluster.wait_until_owned()
    again += _replayed(first) + _replayed(second)
    if again:
        wrong.append(f"{again:.0f} records were handled again")
    return scene.outcome(recovery_s, *wrong)


def _replayed(worker: Process) -> float:
    return worker.metric('tidewire_stage_records_total{outcome="replayed"}')


@row("6", "rebalance storm", limit_s=20)
def rebalance_storm(scene: Scene) -> Outcome:
    """A second worker joins and leaves every five seconds, now and then without a word; work gets on all the same."""
    cluster = scene.begin(workers=1)
    guest: Process | None = None
    with scene.traffic(rate=600, batch=20) as traffic:
        traffic.wait_for(200)
        with Progress(cluster) as progress:
            for change in range(scene.size(5, 20)):
                if guest is None:
                    guest = cluster.role("worker", f"guest-{change}", is_awaited=False)
                elif scene.rng.random() < 0.25:
                    guest.kill()
                    guest = None
                else:
                    guest.stop()
                    guest = None
                time.sleep(5)
        scene.fault_over()
    recovery_s = scene.settle()
    stalled = progress.longest_stall_s > LONGEST_STALL_S
    return scene.outcome(
        recovery_s, f"nothing was done for {progress.longest_stall_s:.0f} s" if stalled else "",
        "" if progress.done else "nothing was done at all",
    )  # fmt: skip


@row("7", "state disk lost", limit_s=60)
def state_disk_lost(scene: Scene) -> Outcome:
    """Both workers are killed at once and their folders deleted (LONG=1: one of them, too): the changelog has
    everything."""
    workers = scene.cluster.workers
    with scene.traffic(rate=600, batch=20) as traffic:
        for lost in [[workers[0]], workers] * 3 if scene.is_long else [workers]:
            traffic.wait_for(1_500)
            for worker in lost:
                worker.kill()
                shutil.rmtree(worker.data)
                worker.data.mkdir()
            scene.fault_over()
            for worker in lost:
                worker.start()
            for worker in lost:
                worker.ready()
    return scene.outcome(scene.settle())


@row("7", "state disk lost, tidewire up", limit_s=20, ground="embedded", short=True)
def embedded_state_lost(scene: Scene) -> Outcome:
    """The customers' folder is gone after a kill; log and ClickHouse are there."""
    up = scene.cluster.up
    with scene.traffic(rate=600, batch=20) as traffic:
        for _ in range(scene.size(1, 4)):
            traffic.wait_for(1_500)
            up.kill()
            shutil.rmtree(up.data / "customers")
            up.start()
            scene.fault_over()
            up.ready()
    return scene.outcome(scene.settle())


@row("8", "killed just after a commit, slow broker", limit_s=30)
def killed_after_commit(scene: Scene) -> Outcome:
    """Every answer of the broker takes a second, once the worker is at work; and it dies in the moment in which it
    learns that a commit is done. Its disk is lost, too. What the commit says is done must stand in the changelog."""
    cluster = scene.begin(workers=0, doors=1)
    assert cluster.kafka is not None
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(door.port, port=door.advertised))
                   for broker in cluster.kafka.brokers for door in broker.doors]  # fmt: skip
        slowly = {"TIDEWIRE_LOG": cluster.kafka.url_by(0)}
        with scene.traffic(rate=600, batch=20):
            for kill in range(scene.size(2, 8)):
                for proxy in proxies:
                    proxy.be(Pass())
                commits = scene.rng.randrange(1, 6)
                program = (sys.executable, "-m", "tests.faults.dies_after_commit", str(commits))
                doomed = cluster.role("worker", f"doomed-{kill}", settings=slowly, program=program)
                cluster.wait_until_owned()
                for proxy in proxies:
                    proxy.be(Delay(SLOW_WAY_S))
                wait_for(lambda doomed=doomed: not doomed.is_running, 90.0,
                         "the worker did not come to its last commit", doomed.told)  # type: ignore[misc]  # fmt: skip
                if doomed.exit_code != -9:
                    raise AssertionError(f"{doomed.data.name} ended with {doomed.exit_code}: {doomed.told()}")
                shutil.rmtree(doomed.data / "customers")
            cluster.role("worker", "survivor", is_awaited=False)
            scene.fault_over()
    return scene.outcome(scene.settle())
