"""Row 33: hours of ordinary work with processes that die now and then, and nothing that grows."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path
from statistics import median

from tests.faults.machine import Process
from tests.faults.rows import Outcome, Scene, row

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
RATE = float(os.environ.get("SOAK_RATE", "600"))  # events a second; all of them are held for the oracle
KILL_EVERY_S = (20.0, 60.0)
LOOK_EVERY_S = 2.0
MOST_GROWTH = 1.10  # of the resident memory, from the second quarter to the last
MOST_FILES_MORE = 16
MOST_BEHIND_S = 30.0  # of the customer stage, whatever died meanwhile


class _Watched:
    """A process that nobody kills: what it needs, second by second."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.rss_mb: list[float] = []
        self.files: list[int] = []

    def look(self) -> None:
        proc = Path(f"/proc/{self.process.pid}")
        self.rss_mb.append(int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.files.append(sum(1 for _ in (proc / "fd").iterdir()))

    def grown(self) -> str:
        """What grew more than it may, in words."""
        quarter = len(self.rss_mb) // 4
        early, late = median(self.rss_mb[quarter : 2 * quarter]), median(self.rss_mb[-quarter:])
        files = median(self.files[-quarter:]) - median(self.files[quarter : 2 * quarter])
        name = self.process.data.name
        eighth = max(1, len(self.rss_mb) // 8)
        course = " ".join(f"{median(self.rss_mb[i : i + eighth]):.0f}" for i in range(0, 8 * eighth, eighth))
        print(f"    {name}: {course} MB, eighth by eighth; {self.files[-1]} open files, {files:+.0f}", flush=True)
        wrong = []
        if late > early * MOST_GROWTH:
            wrong.append(f"the memory of {name} grew from {early:.0f} to {late:.0f} MB")
        if files > MOST_FILES_MORE:
            wrong.append(f"the open files of {name} grew by {files:.0f}")
        return "; ".join(wrong)


@row("33", "soak with kills", limit_s=30, long_only=True, alone=True)
def soak(scene: Scene) -> Outcome:
    """Clients send for half an hour (SOAK_MINUTES) while a worker, a collector and a sink die in turn and come
    back. One of each is left alone: its memory and its open files stay flat, and the stage is never far behind."""
    few = {"TIDEWIRE_HOT_CUSTOMERS": "2000"}  # so that what is kept in memory on purpose is full within a minute
    cluster = scene.begin(collectors=2, workers=2, sinks=2, settings=few)
    mortal = [cluster.workers[0], cluster.collectors[0], cluster.sinks[0]]
    watched = [_Watched(each[1]) for each in (cluster.workers, cluster.collectors, cluster.sinks)]
    until = time.monotonic() + MINUTES * 60
    kills, behind_s = 0, 0.0
    with scene.traffic(rate=RATE, batch=20):
        for turn in count():
            pause_until = min(until, time.monotonic() + scene.rng.uniform(*KILL_EVERY_S))
            while time.monotonic() < pause_until:
                time.sleep(LOOK_EVERY_S)
                for each in watched:
                    each.look()
                behind_s = max(behind_s, *_behind_s(cluster.workers[-1]))
            if time.monotonic() >= until:
                break
            victim = mortal[turn % len(mortal)]
            victim.kill()
            victim.start()
            victim.ready()
            kills += 1
            scene.fault_over()
        scene.fault_over()
    recovery_s = scene.settle(timeout_s=300)
    print(f"    {MINUTES:g} minutes, {len(scene.ledger.taken)} events, {kills} kills, "
          f"at most {behind_s:.1f} s behind", flush=True)  # fmt: skip
    wrong = [each.grown() for each in watched]
    if behind_s > MOST_BEHIND_S:
        wrong.append(f"the customer stage was {behind_s:.0f} s behind")
    return scene.outcome(recovery_s, *wrong)


def _behind_s(worker: Process) -> list[float]:
    found = [value for name, value in worker.metrics().items() if name.startswith("tidewire_stage_behind_seconds")]
    return found or [0.0]
