"""Rows 14 and 15: the disk of a broker is full, and that of a worker.

Each disk is a small tmpfs of its own, which needs root; where it cannot be mounted the row fails and says so.
"""

from __future__ import annotations

import errno
import itertools
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.cluster import wait_for
from tests.faults.rows import Outcome, Scene, row
from tests.faults.traffic import Json

BROKER_MB = 256
WORKER_MB = 64
FULL_S = 15.0
ENDS_WITHIN_S = 60.0
NOTICES_WITHIN_S = 150.0
UNDER_WAY_S = 1.0


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """A disk of its own for this folder. What uses it is to be ended before."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tidewire-faults", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"NOT RUN: a disk that can be full needs the right to mount one: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the space there is, to the last page. The file returned gives it back."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as out:
        for size in (1024 * 1024, 4096, 1):
            try:
                while True:
                    out.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return filler


def talkative_story(rng: random.Random, number: int) -> Iterator[Json]:
    """A few people who say so much of themselves that their states are large."""
    for count in itertools.count(1):
        words = "".join(rng.choices("abcdefghij ", k=500))
        yield {
            "type": "identify", "messageId": f"m{number}-{count}", "userId": f"talks{number}-{rng.randrange(20)}",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "traits": {f"note{rng.randrange(40)}": words},
        }  # fmt: skip


@row("14", "broker disk full", limit_s=120)
def broker_disk_full(scene: Scene) -> Outcome:
    """The disk of the only broker becomes full; the broker stops hard. Collectors answer 503 and never 200 from then
    on, until the disk has been made larger and the broker started again."""
    with small_disk(scene.folder / "kafka" / "broker-1" / "data", BROKER_MB):
        cluster = scene.begin(workers=1)
        assert cluster.kafka is not None
        (broker,) = cluster.kafka.brokers
        wrong = []
        with scene.traffic(rate=300) as traffic:
            traffic.wait_for(600)
            fill(broker.data)
            wait_for(lambda: not broker.is_running, ENDS_WITHIN_S, "the broker goes on with a full disk",
                     broker.last_words)  # fmt: skip
            began, refused = time.monotonic(), scene.ledger.answers["503"]
            time.sleep(FULL_S)
            taken = [each for each in scene.ledger.requests if each.ended_s > began + UNDER_WAY_S]
            if taken:
                wrong.append(f"{len(taken)} requests were answered with 2xx while the disk was full")
            if scene.ledger.answers["503"] == refused:
                wrong.append(f"no collector said 503: {dict(scene.ledger.answers)}")
            subprocess.run(["mount", "-o", f"remount,size={2 * BROKER_MB}m", str(broker.data)], check=True)
            broker.start()
            scene.fault_over()
            cluster.kafka.wait_until_ready()
        outcome = scene.outcome(scene.settle(), *wrong)
        scene.close()
    return outcome


@row("15", "worker disk full", limit_s=30)
def worker_disk_full(scene: Scene) -> Outcome:
    """The disk of the only worker becomes full. The worker notices when it writes to it, ends itself, and commits
    nothing that it could not keep; its supervisor starts it again and again. When there is space it goes on."""
    folder = scene.folder / "worker-1"
    with small_disk(folder, WORKER_MB):
        cluster = scene.begin(workers=1, settings={"TIDEWIRE_PARTITIONS": "1", "TIDEWIRE_CHECKPOINT_MS": "50"})
        (worker,) = cluster.workers
        wrong = []
        with scene.traffic(rate=300) as traffic:
            traffic.wait_for(300)
            filler = fill(folder)
            # What is written stays in memory until there are 16 MB of it.
            with scene.traffic(rate=200, clients=1, batch=20, story=talkative_story):
                wait_for(lambda: not worker.is_running, NOTICES_WITHIN_S, "the worker goes on with a full disk",
                         worker.told)  # fmt: skip
            if not (worker.exit_code or 0) > 0:
                wrong.append(f"the worker ended with {worker.exit_code}: {worker.told()[-500:]}")
            left = cluster.behind().stage
            traffic.wait_for(300)
            if cluster.behind().stage < left + 300:
                wrong.append("something was committed while no worker ran")
            worker.start()  # a supervisor does not know that the disk is full
            time.sleep(FULL_S)
            filler.unlink()
            scene.fault_over()
            if not worker.is_running:
                worker.start()
            worker.ready()
        outcome = scene.outcome(scene.settle(), *wrong)
        scene.close()
    return outcome
