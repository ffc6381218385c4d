"""Events per second of the customer stage while a worker is added under load, and taken away again.

A backlog of track calls by 20,000 people stands in topic `events` of real Kafka. One worker does it, with all
processors; a second joins, and each owns half of the partitions; the second is stopped in order, and the first has all
of them again. `pause` is the longest time in which nothing was committed, over both workers, while they changed; at
full load commits come about once a second. A machine of two cores has no whole core left for a second worker beside
the broker.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import Figure, LeftOut, Options, Report, interleaved, rounded
from bench.traffic import track_events
from schemas.errors import Unreachable
from streams.log import Log, Outgoing
from streams.worker import EVENTS, GROUP
from tests.faults.cluster import Cluster, wait_for
from tests.kafka_broker import Kafka, missing

BACKLOG, QUICK_BACKLOG = 1_200_000, 500_000
PERSONS = 20_000
SECONDS, QUICK_SECONDS = 15.0, 1.0
SETTLING = 0.2  # of these seconds pass after a change, before the clock runs
MOVED_WITHIN_S = 60.0
LOOK_EVERY_S = 0.2
TOGETHER = 20_000  # events of one append


class Sample(NamedTuple):
    """One run: records of topic `events` per second, and seconds."""

    one: float
    two: float
    one_again: float
    pause_joining: float
    pause_leaving: float


class _Watch:
    """How many records the group has committed, over time, whichever worker did them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._moves: list[tuple[float, int]] = []
        self._is_over = threading.Event()

    @contextmanager
    def open(self) -> Iterator[None]:
        looking = threading.Thread(target=self._look, daemon=True)
        looking.start()
        try:
            yield
        finally:
            self._is_over.set()
            looking.join()

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            try:
                committed = self._cluster.ask_log(lambda log: log.committed(GROUP, EVENTS))
            except Unreachable:  # nothing can be known while a coordinator is busy; the next look says more
                continue
            done = sum(committed.values())
            if not self._moves or done > self._moves[-1][1]:
                self._moves.append((time.monotonic(), done))

    def rate(self, seconds: float) -> float:
        """Records per second, from one commit to another that comes at least `seconds` later.

        Raises:
            TimeoutError: nothing moves; perhaps the backlog is done, and should be larger.
        """
        first = len(self._moves)
        wait_for(lambda: len(self._moves) > first + 1 and self._moves[-1][0] - self._moves[first][0] >= seconds,
                 seconds + MOVED_WITHIN_S, "nothing was committed")  # fmt: skip
        (began, before), (ended, after) = self._moves[first], self._moves[-1]
        return (after - before) / (ended - began)

    def pause(self, since: float) -> float:
        """The longest time without progress from `since` on."""
        return max(after - before for before, after in
                   pairwise([since, *(at for at, _ in self._moves if at > since), time.monotonic()]))  # fmt: skip


def measure(options: Options) -> Report:
    if lacking := missing():
        raise LeftOut(f"Kafka needs {lacking} on this machine")
    events, seconds = (QUICK_BACKLOG, QUICK_SECONDS) if options.is_quick else (BACKLOG, SECONDS)
    contest: dict[str, Callable[[], Sample]] = {"workers": partial(run_once, events, seconds)}
    done = interleaved(contest, options.runs, lambda sample: sample.one, options)["workers"]
    figures = [
        Figure("one worker", "records/s", [sample.one for sample in done]),
        Figure("two workers", "records/s", [sample.two for sample in done]),
        Figure("one worker again", "records/s", [sample.one_again for sample in done]),
        Figure("two of one", "×", [sample.two / sample.one for sample in done]),
        Figure("pause while one joins", "s", [sample.pause_joining for sample in done]),
        Figure("pause while one leaves", "s", [sample.pause_leaving for sample in done]),
    ]
    found: dict[str, Any] = {"workers": {figure.what: rounded(figure.median) for figure in figures},
                             "runs": [sample._asdict() for sample in done]}  # fmt: skip
    return Report(input={"events": events, "seconds": seconds}, figures=figures, found=found)


def run_once(events: int, seconds: float) -> Sample:
    with tempfile.TemporaryDirectory() as folder, closing(Cluster(Path(folder), Kafka(), {})) as cluster:
        cluster.ask_log(partial(_fill, events=events))
        first = cluster.role("worker")
        cluster.wait_until_owned()
        watch = _Watch(cluster)
        with watch.open():
            time.sleep(seconds * SETTLING)
            one = watch.rate(seconds)
            began = time.monotonic()
            second = cluster.role("worker")
            half = cluster.partitions / 2
            wait_for(lambda: _owned(first) == _owned(second) == half, MOVED_WITHIN_S,
                     "the second worker got no partitions", cluster.told)  # fmt: skip
            time.sleep(seconds * SETTLING)
            pause_joining = watch.pause(began)
            two = watch.rate(seconds)
            began = time.monotonic()
            second.stop()
            cluster.wait_until_owned()
            time.sleep(seconds * SETTLING)
            pause_leaving = watch.pause(began)
            one_again = watch.rate(seconds)
    return Sample(one, two, one_again, pause_joining, pause_leaving)


def _owned(worker: Any) -> float:
    return float(worker.metric("tidewire_stage_owned_partitions"))


async def _fill(log: Log, events: int) -> None:
    records = track_events([turn * 7_919 % PERSONS for turn in range(events)])
    while some := [Outgoing(key, value) for key, value in islice(records, TOGETHER)]:
        await log.append(EVENTS, some)
