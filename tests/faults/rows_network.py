"""Rows 11 to 13: the network is cut, slow, narrow, or resets connections."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from schemas.internal import is_internal
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import COMMAND, Process
from tests.faults.netns import Host, Net
from tests.faults.proxy import Delay, Mode, Pass, Proxy, Throttle
from tests.faults.rows import Outcome, Scene, row
from tests.faults.rows_broker import leader_of, never_taken, still_running
from tests.faults.watch import Memory, Progress

SESSION_S = 10.0  # after which others get the partitions of one who is not heard of
STOPS_AFTER_S = SESSION_S + 5.0
UNDER_WAY_S = 1.0
SLOW_S = 0.5
NARROW_BYTES_PER_S = 64 * 1024
MOST_GROWTH = 1.10
MOST_WAITING_BYTES = 64 * 1024 * 1024
RESET_EVERY_S = 2.0


# --- cut


@row("11", "partition: worker from broker", limit_s=30)
def worker_cut_off(scene: Scene) -> Outcome:
    """The cable of one of two workers is pulled for 25 s (LONG=1: 40 s). The other takes its partitions over when its
    session has ended. What the old owner had begun may still leave when the cable is back, and counts for nothing."""
    with Net() as net:
        host = net.host("worker")
        cluster = scene.begin(workers=1, hosts=[net.address])
        lonely = on_host(cluster, "worker", host)
        cluster.wait_until_owned()
        wrong = []
        with scene.traffic(rate=600, batch=20) as traffic:
            traffic.wait_for(1_500)
            (other,) = [worker for worker in cluster.workers if worker is not lonely]
            host.cut()
            began = time.monotonic()
            try:
                took_s = wait_for(lambda: other.metric("tidewire_stage_owned_partitions") == cluster.partitions, 60,
                                  "nobody took over", cluster.told)  # fmt: skip
                time.sleep(max(0.0, began + scene.size(25, 40) - time.monotonic()))
            finally:
                host.mend()
            scene.fault_over()
            _supervise(lonely, 5.0)
        recovery_s = scene.settle()
        if took_s > STOPS_AFTER_S:
            wrong.append(f"the other worker took over after {took_s:.1f} s")
        _supervise(lonely, 0.0)
        outcome = scene.outcome(recovery_s, *wrong)
        scene.close()
    return outcome


@row("11", "partition: collector from broker", limit_s=30, long_only=True)
def collector_cut_off(scene: Scene) -> Outcome:
    """The cable between the only collector and Kafka is pulled for 25 s (LONG=1: 40 s); clients still reach it, and
    hear 503."""
    with Net() as net, Net() as of_clients:
        host = net.host("collector")
        address = of_clients.plug(host)
        cluster = scene.begin(workers=1, collectors=0, hosts=[net.address])
        collector = on_host(cluster, "collector", host, address)
        wrong = []
        with scene.traffic(rate=300, urls=[collector.url]) as traffic:
            traffic.wait_for(500)
            refused = scene.ledger.answers["503"]
            host.cut()
            began = time.monotonic()
            try:
                time.sleep(scene.size(25, 40))
                ended = time.monotonic()
                taken = [each for each in scene.ledger.requests if began + UNDER_WAY_S < each.ended_s < ended]
            finally:
                host.mend()
            scene.fault_over()
            traffic.wait_for(300)
        if taken:
            wrong.append(f"{len(taken)} requests were answered with 2xx without a broker")
        if scene.ledger.answers["503"] == refused:
            wrong.append(f"the collector never said 503: {dict(scene.ledger.answers)}")
        outcome = scene.outcome(scene.settle(), *wrong, *never_taken(scene))
        scene.close()
    return outcome


@row("11", "partition: brokers from each other", limit_s=30, brokers=3, long_only=True)
def brokers_cut_off(scene: Scene) -> Outcome:
    """The broker that leads most partitions of `events` and the two others do not hear of each other for 25 s (LONG=1:
    40 s), while clients reach all three. The two go on without it; what it cannot replicate it must not acknowledge."""
    with Net() as net:
        hosts = [net.host(f"kafka{i}") for i in (1, 2, 3)]
        cluster = scene.begin(hosts=[each.address for each in hosts], run_in=[each.run_in for each in hosts])
        with scene.traffic(rate=300) as traffic:
            traffic.wait_for(500)
            leader = leader_of(cluster)
            alone = hosts[leader.number - 1]
            others = [each.address for each in hosts if each is not alone]
            alone.deafen(*others)
            began = time.monotonic()
            try:
                with Progress(cluster):
                    time.sleep(scene.size(25, 40))
            finally:
                alone.undeafen(*others)
            scene.fault_over()
            silence_s = scene.ledger.longest_silence_s(began, time.monotonic())
            traffic.wait_for(300)
        wrong = [] if silence_s < 30 else [f"nothing was taken for {silence_s:.0f} s, though two of three were there"]
        outcome = scene.outcome(scene.settle(), *wrong, *never_taken(scene))
        scene.close()
    return outcome


def on_host(cluster: Cluster, role: str, host: Host, address: str = "") -> Process:
    """Start a role on a host of its own; `address` is where we reach it, if not by its first net."""
    address = address or host.address
    process = cluster.role(role, f"{role}-far", program=(*host.run_in, *COMMAND), is_awaited=False,
                           settings={"TIDEWIRE_HOST": address})  # fmt: skip
    process.url = f"http://{address}:{process.port}"
    process.ready()
    return process


def _supervise(worker: Process, within_s: float) -> None:
    """Start it again if it has ended itself, or does within this time: as its supervisor would."""
    until = time.monotonic() + within_s
    while worker.is_running and time.monotonic() < until:
        time.sleep(0.1)
    if not worker.is_running:
        worker.start()
        worker.ready()


# --- slow, narrow, reset


@contextmanager
def behind_proxies(scene: Scene, **begin: int) -> Iterator[tuple[Cluster, list[Proxy]]]:
    """A cluster whose roles all come to Kafka through proxies; the harness itself does not."""
    cluster = scene.begin(workers=0, collectors=0, sinks=0, doors=1)
    assert cluster.kafka is not None
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(door.port, port=door.advertised))
                   for broker in cluster.kafka.brokers for door in broker.doors]  # fmt: skip
        through = {"TIDEWIRE_LOG": cluster.kafka.url_by(0)}
        for role, count in {"sink": 1, "collector": 1, "worker": 2, **begin}.items():
            for _ in range(count):
                cluster.role(role, settings=through)
        cluster.wait_until_owned()
        yield cluster, proxies


def _all_be(proxies: Sequence[Proxy], mode: Mode) -> None:
    for proxy in proxies:
        proxy.be(mode)


@row("12", "slow net: half a second each way", limit_s=30, long_only=True)
def slow_net(scene: Scene) -> Outcome:
    """Everything between the roles and Kafka takes half a second longer, each way. Memory stays as it was."""
    with behind_proxies(scene) as (cluster, proxies):
        wrong = []
        with scene.traffic(rate=300, clients=8) as traffic:
            with Memory(cluster.roles) as before:
                traffic.wait_for(3_000)
            _all_be(proxies, Delay(SLOW_S))
            with Memory(cluster.roles) as during:
                time.sleep(scene.size(20, 60))
            _all_be(proxies, Pass())
            scene.fault_over()
            wrong += _grown(before, during)
        return scene.outcome(scene.settle(), *wrong, *never_taken(scene))


@row("12", "narrow net: 64 KB/s", limit_s=30)
def narrow_net(scene: Scene) -> Outcome:
    """The way to Kafka takes 64 KB/s and clients send more than that: the collector says 503 or 429 in time. Collector
    and sink hold no more in memory than before (a tenth is noise), a worker 64 MB more at most."""
    with behind_proxies(scene) as (cluster, proxies):
        with scene.traffic(rate=300, clients=8) as traffic:
            traffic.wait_for(1_000)
            with Memory(cluster.roles) as before, scene.traffic(rate=None, clients=16, batch=50):
                time.sleep(8)
            refused = _refusals(scene)
            _all_be(proxies, Throttle(NARROW_BYTES_PER_S))
            with Memory(cluster.roles) as during, scene.traffic(rate=None, clients=16, batch=50) as pressing:
                time.sleep(scene.size(25, 60))
                pushed_back = _refusals(scene) - refused
                _all_be(proxies, Pass())
                scene.fault_over()
                pressing.stop()
        wrong = _grown(before, during)
        if not pushed_back:
            wrong.append(f"the collector never said 503 or 429: {dict(scene.ledger.answers)}")
        return scene.outcome(scene.settle(), *wrong, *never_taken(scene))


def _refusals(scene: Scene) -> int:
    return scene.ledger.answers["503"] + scene.ledger.answers["429"]


def _grown(before: Memory, during: Memory) -> list[str]:
    """Processes that took more memory during the fault than before it under load. A worker may hold so many checkpoints
    as are allowed to wait for the log, and people who are new."""
    wrong = []
    for name, held in during.held_bytes.items():
        had, most = max(before.held_bytes[name]), max(held)
        if most > (had + MOST_WAITING_BYTES if name.startswith("worker") else had * MOST_GROWTH):
            wrong.append(f"{name} grew from {had >> 20} to {most >> 20} MB")
    return wrong


@row("13", "connections reset", limit_s=10)
def connections_reset(scene: Scene) -> Outcome:
    """Every two seconds for 20 s (LONG=1: 60 s) all connections between the roles and Kafka end with a RST. The events
    of a person stay in the order in which they were sent."""
    with behind_proxies(scene) as (cluster, proxies):
        resets = 0
        with scene.traffic(rate=400, clients=4) as traffic:
            traffic.wait_for(500)
            until = time.monotonic() + scene.size(20, 60)
            while time.monotonic() < until:
                resets += sum(proxy.reset() for proxy in proxies)
                time.sleep(RESET_EVERY_S)
            scene.fault_over()
        wrong = [] if resets else ["nothing was reset"]
        recovery_s, ended = scene.settle(), still_running(cluster)
        return scene.outcome(recovery_s, *wrong, ended, *never_taken(scene), *_out_of_order(cluster))


def _out_of_order(cluster: Cluster) -> list[str]:
    """Persons whose events stand in the log in another order than their client sent them."""
    seen: set[str] = set()
    last: dict[bytes | None, int] = {}
    wrong = []
    for record in cluster.read("events"):
        found = re.search(rb'"messageId":"(m\d+-(\d+))"', record.value or b"")
        if is_internal(record.headers) or found is None or found[1].decode() in seen:
            continue
        seen.add(found[1].decode())
        number = int(found[2])
        if number < last.get(record.key, -1):
            wrong.append(f"{(record.key or b'').decode()}: event {number} after {last[record.key]}")
        last[record.key] = number
    return wrong[:3]
