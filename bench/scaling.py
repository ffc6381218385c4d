"""Events per second of the customer stage while a worker is added under load, and taken away again.

A backlog of track calls by 20,000 people stands in topic `events` of real Kafka. One worker does it, with all
processors; a second joins, and each owns half of the partitions; the second is stopped in order, and the first has all
of them again. `pause` is the longest time in which nothing was committed, over both workers, while they changed; at
full load commits come about once a second. A machine of two cores has no whole core left for a second worker beside
the broker.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import Figure, LeftOut, Options, Report, interleaved, rounded
from bench.traffic import track_events
from streams.lines import EVENTS
from streams.log import Log, Outgoing
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import Process
from tests.faults.watch import Progress, Watch
from tests.kafka_broker import Kafka, missing

BACKLOG, QUICK_BACKLOG = 2_500_000, 5_000
QUICK_COMING = 60  # each time that `Trickle` looks; a quick run has no backlog that lasts
PERSONS = 20_000
SECONDS, QUICK_SECONDS = 15.0, 1.0
SETTLING = 0.2  # of these seconds pass after a change, before the clock runs
MOVED_WITHIN_S = 60.0
TOGETHER = 20_000  # events of one append


class Sample(NamedTuple):
    """One run: records of topic `events` per second, and seconds."""

    one: float
    two: float
    one_again: float
    pause_joining: float
    pause_leaving: float


def measure(options: Options) -> Report:
    if lacking := missing():
        raise LeftOut(f"Kafka needs {lacking} on this machine")
    events, seconds = (QUICK_BACKLOG, QUICK_SECONDS) if options.is_quick else (BACKLOG, SECONDS)
    contest: dict[str, Callable[[], Sample]] = {"workers": partial(run_once, events, seconds, options.is_quick)}
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


class Trickle(Watch):
    """Events that come while somebody looks, so that there is always something to do."""

    def __init__(self, cluster: Cluster, records: Iterator[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self._cluster = cluster
        self._records = records

    def look(self) -> None:
        self._cluster.ask_log(partial(_append, records=islice(self._records, QUICK_COMING)))


def run_once(events: int, seconds: float, is_quick: bool) -> Sample:
    records = track_events(turn * 7_919 % PERSONS for turn in count())
    with tempfile.TemporaryDirectory() as folder, closing(Cluster(Path(folder), Kafka(java=()), {})) as cluster:
        cluster.ask_log(partial(_append, records=islice(records, events)))
        with Trickle(cluster, records) if is_quick else nullcontext():
            return _changed(cluster, seconds)


def _changed(cluster: Cluster, seconds: float) -> Sample:
    first = cluster.role("worker")
    cluster.wait_until_owned()
    time.sleep(seconds * SETTLING)
    one = _rate(cluster, seconds)
    with Progress(cluster) as joining:
        second = cluster.role("worker")
        half = cluster.partitions / 2
        wait_for(lambda: _owned(first) == _owned(second) == half, MOVED_WITHIN_S,
                 "the second worker got no partitions", cluster.told)  # fmt: skip
        time.sleep(seconds * SETTLING)
    two = _rate(cluster, seconds)
    with Progress(cluster) as leaving:
        second.stop()
        cluster.wait_until_owned()
        time.sleep(seconds * SETTLING)
    one_again = _rate(cluster, seconds)
    return Sample(one, two, one_again, joining.longest_stall_s, leaving.longest_stall_s)


def _rate(cluster: Cluster, seconds: float) -> float:
    """Records per second, from one commit to another that comes at least `seconds` later.

    Raises:
        TimeoutError: nothing moves; perhaps the backlog is done, and should be larger.
    """
    with Progress(cluster) as progress:
        wait_for(lambda: len(progress.moves) > 2 and progress.moves[-1][0] - progress.moves[1][0] >= seconds,
                 seconds + MOVED_WITHIN_S, "nothing moved; the backlog may be done", cluster.told)  # fmt: skip
    (began, before), (ended, after) = progress.moves[1], progress.moves[-1]
    return (after - before) / (ended - began)


def _owned(worker: Process) -> float:
    return worker.metric("tidewire_stage_owned_partitions")


async def _append(log: Log, records: Iterator[tuple[bytes, bytes]]) -> None:
    while some := [Outgoing(key, value) for key, value in islice(records, TOGETHER)]:
        await log.append(EVENTS, some)
