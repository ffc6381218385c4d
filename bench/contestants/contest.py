"""What every contestant is told, and how each is measured."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from typing import Any

import msgspec

from bench.child import rss_mb


class Job(msgspec.Struct, frozen=True):
    """What a contestant is to do.

    Attributes:
        kafka: address of the broker.
        topic: with `events` events, all there before it starts.
        partitions: of the topic.
        group: its consumer group, new.
        folder: for what it keeps on disk, new.
        state_bytes: of the state of one person.
        interval_s: how often what was done is made durable.
        work: what it does with an event: `count`, or through how many processors it folds it (`folding.py`);
            `restore`: nothing, it only gets its state back from the changelog.
        began: when its process was started, in seconds since 1970.
    """

    kafka: str
    topic: str
    events: int
    partitions: int
    group: str
    folder: str
    state_bytes: int = 1_000
    interval_s: float = 1.0
    work: str = "count"
    began: float = 0.0


class Meter:
    """From the first event handled to the moment when all is done, and, where it is promised, durable."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        """The first event is about to be handled; later calls change nothing."""
        if self._began is None:
            self._began = time.perf_counter(), time.process_time()

    def done(self, events: int, **more: Any) -> None:
        """All is done: say what it took."""
        assert self._began is not None, "done before it began"
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        said = {"events": events, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb, "rss_mb": rss_mb(os.getpid()),
                **more}  # fmt: skip
        # Faust takes sys.stdout for its log, and shows a spinner on the other without ending its line.
        print("\n" + json.dumps(said), file=sys.__stdout__, flush=True)


def job() -> Job:
    """The job this process was started with. All contestants spare Python's cycle collector alike."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    return msgspec.json.decode(sys.argv[1], type=Job)
