"""The Kafka ground: a collector, two workers and a sink as processes of their own; workers are killed in turn."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.history import write_history
from tests.faults.machine import Process, counts_of, free_port, people_of, tidewire
from tests.faults.test_kill import CUSTOMERS, IS_LONG, KILLS, ORDERS, SEED, Client
from tests.kafka_broker import Kafka

PARTITIONS = 4


class Cluster:
    """Kafka, ClickHouse behind its HTTP interface, and the roles."""

    def __init__(self, folder: Path, kafka: Kafka, clickhouse: str, stack: ExitStack) -> None:
        self.folder = folder
        self.settings = {
            "TIDEWIRE_LOG": kafka.url, "TIDEWIRE_ANALYTICS": clickhouse, "TIDEWIRE_PARTITIONS": str(PARTITIONS),
        }  # fmt: skip
        self._stack = stack
        tidewire("topics", "create", settings=self.settings)
        self.sink = self.role("sink", "sink")
        self.collector = self.role("collector", "collector")

    def role(self, role: str, name: str) -> Process:
        process = Process(role, data=self.folder / name, port=free_port(), settings=self.settings)
        process.start()
        self._stack.callback(lambda: process.kill() if process.is_running else None)
        process.ready()
        return process

    def counts(self, *history: str) -> dict[str, object]:
        return counts_of("--url", self.collector.url, *history, settings=self.settings)

    def people(self) -> dict[str, dict[str, object]]:
        """Everybody, as a worker that starts with nothing reads them from the changelog; the others have stopped."""
        fresh = self.role("worker", "fresh")
        until = time.monotonic() + 60
        while owned_by(fresh) < PARTITIONS:
            assert time.monotonic() < until, fresh.told()
            time.sleep(0.2)
        assert fresh.stop() == 0, fresh.told()
        return people_of(fresh.data)


def owned_by(worker: Process) -> int:
    with urllib.request.urlopen(f"{worker.url}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("tidewire_stage_owned_partitions "):
                return int(float(line.split()[1]))
    return 0


@contextmanager
def clickhouse_in(folder: Path) -> Iterator[str]:
    """URL of ClickHouse's engine behind its HTTP interface, in a process of its own; see tests/sinks/bridge.py."""
    port = free_port()
    bridge = subprocess.Popen([sys.executable, "-m", "tests.sinks.bridge", "--path", str(folder), "--port", str(port)],
                              stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        yield f"clickhouse://tidewire@127.0.0.1:{port}/default"
    finally:
        bridge.kill()
        bridge.wait()


@pytest.fixture
def cluster(tmp_path: Path, own_kafka: Kafka) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, own_kafka, stack.enter_context(clickhouse_in(tmp_path / "clickhouse")), stack)


@pytest.mark.kafka
@pytest.mark.slow
def test_workers_killed_in_turn_and_one_without_its_state_lose_nothing_and_double_nothing(cluster, tmp_path: Path):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    history: tuple[str, ...] = ()
    if not IS_LONG:
        write_history(tmp_path / "history.txt", ORDERS, CUSTOMERS)
        history = ("--file", str(tmp_path / "history.txt"))
    undisturbed = counts_of("--data", str(tmp_path / "calm"), "--port", "0", *history)
    workers = [cluster.role("worker", "worker-1"), cluster.role("worker", "worker-2")]

    client = Client(cluster.collector.url, tmp_path / "client.log", *history)
    for kill in range(KILLS):
        time.sleep(rng.uniform(0.5, 3.0))
        worker = workers[kill % 2]
        worker.kill()
        if kill == 1:
            shutil.rmtree(worker.data / "customers", ignore_errors=True)
        worker.start()
        worker.ready()
        if not client.is_sending:
            client.done()
            client = Client(cluster.collector.url, tmp_path / "client.log", *history)
    client.done()

    disturbed = cluster.counts(*history)
    for worker in workers:
        assert worker.stop() == 0, worker.told()
    assert disturbed == undisturbed
    assert cluster.people() == people_of(tmp_path / "calm")
