"""Rows 9a, 9b, 10: a broker of Kafka dies or stands still."""

from __future__ import annotations

import time
from collections import Counter

from kafka.admin import KafkaAdminClient

from tests.faults.cluster import Cluster
from tests.faults.rows import Outcome, Scene, row
from tests.faults.watch import Progress
from tests.kafka_broker import Broker

DOWN_S = 20.0
UNDER_WAY_S = 1.0  # an answer that was on its way when the broker went may come so much later


@row("9a", "broker kill -9, the only one", limit_s=60)
def only_broker_killed(scene: Scene) -> Outcome:
    """The only broker is killed and comes back after 20 s. Collectors take nothing meanwhile and say so with 503;
    everything else waits, and goes on."""
    cluster = scene.begin()
    assert cluster.kafka is not None
    (broker,) = cluster.kafka.brokers
    wrong = []
    with scene.traffic(rate=300) as traffic:
        for _ in range(scene.size(1, 3)):
            traffic.wait_for(500)
            refused = scene.ledger.answers["503"]
            broker.kill()
            began = time.monotonic()
            time.sleep(DOWN_S)
            wrong += _taken_without_a_broker(scene, began, time.monotonic())
            if scene.ledger.answers["503"] == refused:
                wrong.append(f"no collector said 503: {dict(scene.ledger.answers)}")
            broker.start()
            scene.fault_over()
            cluster.kafka.wait_until_ready()
    return scene.outcome(scene.settle(), *wrong, *never_taken(scene), still_running(cluster))


@row("9b", "broker kill -9, the leader of three", limit_s=15, brokers=3)
def leader_killed(scene: Scene) -> Outcome:
    """Of three brokers the one that leads most partitions of `events` is killed, and comes back after 20 s. No client
    hears an error that a retry does not mend. Recovery is the longest time in which nothing was taken, or nothing done
    by the customer stage, while the broker was away; or what was left to do when it was back and clients had ended."""
    cluster = scene.begin()
    assert cluster.kafka is not None
    silence_s = 0.0
    with scene.traffic(rate=300) as traffic:
        for _ in range(scene.size(1, 3)):
            traffic.wait_for(500)
            leader = leader_of(cluster)
            with Progress(cluster) as progress:
                leader.kill()
                killed = time.monotonic()
                time.sleep(DOWN_S)
            silence_s = max(silence_s, scene.ledger.longest_silence_s(killed, time.monotonic()))
            silence_s = max(silence_s, progress.longest_stall_s)
            leader.start()
            cluster.kafka.wait_until_ready()
    scene.fault_over()
    recovery_s = max(scene.settle(), silence_s)
    return scene.outcome(recovery_s, *never_taken(scene), still_running(cluster))


@row("10", "broker frozen", limit_s=60)
def broker_frozen(scene: Scene) -> Outcome:
    """The only broker stands still for 20 s (LONG=1: 45 s), longer than every session, and wakes: what was under way is
    taken or not, and no commit is ahead of what it stands for. A worker that comes with an empty disk then finds
    everything in the changelog."""
    cluster = scene.begin()
    assert cluster.kafka is not None
    (broker,) = cluster.kafka.brokers
    wrong = []
    with scene.traffic(rate=300) as traffic:
        traffic.wait_for(500)
        broker.pause()
        began = time.monotonic()
        try:
            time.sleep(scene.size(20, 45))
            wrong += _taken_without_a_broker(scene, began, time.monotonic())
        finally:
            broker.resume()
        scene.fault_over()
        traffic.wait_for(500)
    return scene.outcome(scene.settle(), *wrong, *never_taken(scene), still_running(cluster))


def leader_of(cluster: Cluster, topic: str = "events") -> Broker:
    """The broker that leads most partitions of the topic."""
    assert cluster.kafka is not None
    admin = KafkaAdminClient(bootstrap_servers=cluster.kafka.bootstrap)
    try:
        (described,) = admin.describe_topics([topic])
    finally:
        admin.close()
    led = Counter(partition["leader_id"] for partition in described["partitions"])
    number = led.most_common(1)[0][0]
    return next(broker for broker in cluster.kafka.brokers if broker.number == number)


def _taken_without_a_broker(scene: Scene, began: float, ended: float) -> list[str]:
    """No request may have been answered with 2xx while there was nobody to store it."""
    taken = [each for each in scene.ledger.requests if began + UNDER_WAY_S < each.ended_s < ended]
    return [f"{len(taken)} requests were answered with 2xx while no broker ran"] if taken else []


def never_taken(scene: Scene) -> list[str]:
    wrong = [f"{len(scene.ledger.open)} events were never taken: {dict(scene.ledger.answers)}"]
    return (wrong if scene.ledger.open else []) + scene.ledger.refused[:3]


def still_running(cluster: Cluster) -> str:
    ended = [f"{each.data.name} ended with {each.exit_code}: {each.told()[-500:]}"
             for each in cluster.roles if not each.is_running]  # fmt: skip
    return "; ".join(ended)
