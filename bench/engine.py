"""The engine alone: one counter per person, durable, beside Quix Streams, plain Faust and the floor.

Every contestant is a process of its own, reads the same topic of the same Kafka, counts by the same pure function into
a state of the same bytes, and makes it durable once a second. They run in turn. What is compared is events per
CPU-second of the process, all its threads; the wall stands beside it.

Faust works through the first events of the topic only: its cost per event does not depend on how many there are, and
all of them would take it minutes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import msgspec

from bench.child import run
from bench.contestants.contest import Job
from bench.contestants.tidewire import known_states
from bench.ground import PARTITIONS, Ground, kafka_ground
from bench.measure import Figure, Options, Report, interleaved, rounded
from bench.peers import python_of_peers, versions_of_peers
from bench.traffic import WORKLOADS, Workload, track_events
from schemas.topics import TOPICS

TOPIC, CHANGELOG = "events", "customers"
EVENTS, FAUST_EVENTS = 500_000, 40_000
QUICK_EVENTS, QUICK_FAUST_EVENTS = 4_000, 500
INTERVAL_S = 1.0

AT_LEAST = {  # events per CPU-second of Tidewire, as a multiple
    "quix": dict.fromkeys(("hot", "uniform", "zipf"), 4.0),
    "faust": dict.fromkeys(("hot", "uniform", "zipf"), 40.0),
    "floor": {"hot": 0.45, "uniform": 0.40, "zipf": 0.45},
}


class Contestant(NamedTuple):
    """Who runs, in which environment, and whether it says what it has done to Kafka."""

    module: str
    is_peer: bool
    is_durable: bool


CONTESTANTS = {
    "tidewire": Contestant("bench.contestants.tidewire", False, True),
    "quix": Contestant("bench.contestants.quix", True, True),
    "faust": Contestant("bench.contestants.plain_faust", False, True),
    "floor": Contestant("bench.contestants.floor", True, False),
    "fold_alone": Contestant("bench.contestants.fold_alone", False, False),
}


def measure(options: Options) -> Report:
    wanted = [workload for name, workload in WORKLOADS.items() if options.wants(name)]
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    with kafka_ground() as ground:
        for workload in wanted:
            events = QUICK_EVENTS if options.is_quick else EVENTS
            size = load(ground, workload, events)
            options.say(f" {workload.name}: {events} events of {workload.persons} persons, states of "
                        f"{workload.state_bytes} bytes")  # fmt: skip
            samples = interleaved(_contest(ground, workload, options), options.runs, cpu_rate, options)
            figures += [*rates_of(workload.name, samples), *_ratios(workload.name, samples)]
            found[workload.name] = summary(samples) | {"event_bytes": round(size / events)}
    return Report(
        input={"events": QUICK_EVENTS if options.is_quick else EVENTS,
               "events_faust": QUICK_FAUST_EVENTS if options.is_quick else FAUST_EVENTS,
               "partitions": PARTITIONS, "durable_every_s": INTERVAL_S, **versions_of_peers()},
        figures=figures, found={"workloads": found},
    )  # fmt: skip


def load(ground: Ground, workload: Workload, events: int, partitions: int = PARTITIONS) -> int:
    """Make the topic of a workload anew; the bytes of its values."""
    ground.make([TOPIC], partitions)
    return ground.fill(TOPIC, track_events(workload.actors(events)))[1]


def _contest(ground: Ground, workload: Workload, options: Options) -> Mapping[str, Callable[[], dict[str, Any]]]:
    def job(name: str) -> Callable[[], dict[str, Any]]:
        is_faust, events = name == "faust", QUICK_EVENTS if options.is_quick else EVENTS
        if is_faust:
            events = QUICK_FAUST_EVENTS if options.is_quick else FAUST_EVENTS
        return partial(contend, ground, name, events=events, state_bytes=workload.state_bytes)

    return {name: job(name) for name in ("tidewire", "quix", "faust", "floor")}


def contend(
    ground: Ground, name: str, *, events: int, state_bytes: int, work: str = "count", partitions: int = PARTITIONS,
    known: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """One run of one contestant, with a group, a changelog and a folder that are new.

    `known` people stand in the changelog beforehand, and are restored before the clock runs; of Tidewire only.

    Raises:
        RuntimeError: it did not do, or did not commit, what it was told to.
    """
    contestant = CONTESTANTS[name]
    before = set(ground.topics())
    if name == "tidewire":
        make_topics(ground, partitions)
        ground.fill(CHANGELOG, known_states(known, state_bytes))
    group = new_group(name)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(kafka=ground.address, topic=TOPIC, events=events, partitions=partitions, group=group, folder=folder,
                  state_bytes=state_bytes, interval_s=INTERVAL_S, work=work)  # fmt: skip
        sample = start(name, job)
    committed = ground.committed(sample.get("group", group), TOPIC) if contestant.is_durable else events
    if sample["events"] != events or committed < events:
        raise RuntimeError(f"{name} handled {sample['events']} of {events} events and committed {committed}")
    if work == "count" and sample.get("applied", events) != events:
        raise RuntimeError(f"{name} counted {sample['applied']} of {events} events")
    ground.remove(set(ground.topics()) - before)
    if "group" in sample:  # it has the same one every time
        ground.forget(sample["group"])
    return sample


def start(name: str, job: Job) -> dict[str, Any]:
    """Run a contestant to its end, in the environment it needs."""
    contestant = CONTESTANTS[name]
    python = {"python": python_of_peers()} if contestant.is_peer else {}
    return run(contestant.module, msgspec.to_builtins(msgspec.structs.replace(job, began=time.time())), **python)


def make_topics(ground: Ground, partitions: int = PARTITIONS) -> None:
    """The topics that Tidewire needs beside `events`, new and empty."""
    for topic in TOPICS.values():
        if topic.name != TOPIC:
            ground.make([topic.name], partitions, topic.retention_ms)


_groups = iter(range(1_000_000))


def new_group(name: str) -> str:
    return f"bench-{name}-{next(_groups)}"


# --- what came out


def cpu_rate(sample: Mapping[str, Any]) -> float:
    return float(sample["events"] / sample["cpu_s"])


def wall_rate(sample: Mapping[str, Any]) -> float:
    return float(sample["events"] / sample["wall_s"])


def rates_of(cell: str, samples: Mapping[str, list[dict[str, Any]]]) -> list[Figure]:
    figures = []
    for name, done in samples.items():
        figures.append(Figure(f"{cell} {name}", "events/CPU-s", [cpu_rate(sample) for sample in done]))
        figures.append(Figure(f"{cell} {name} wall", "events/s", [wall_rate(sample) for sample in done]))
    return figures


def ratios(samples: Mapping[str, list[dict[str, Any]]], rate: Callable[[Mapping[str, Any]], float]) -> dict[str, float]:
    """Tidewire's median rate as a multiple of each other's."""
    medians = {name: median(map(rate, done)) for name, done in samples.items()}
    return {f"ratio_{name}": medians["tidewire"] / each for name, each in medians.items() if name != "tidewire"}


def _ratios(workload: str, samples: Mapping[str, list[dict[str, Any]]]) -> list[Figure]:
    return [
        Figure(f"{workload} {name}", "×", [value], at_least=AT_LEAST[name.removeprefix("ratio_")].get(workload))
        for name, value in ratios(samples, cpu_rate).items()
    ]


def summary(samples: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The cell for programs: medians by contestant, the ratios, all runs."""
    return {
        "medians": {name: rounded(median(map(cpu_rate, done))) for name, done in samples.items()},
        "medians_wall": {name: rounded(median(map(wall_rate, done))) for name, done in samples.items()},
        **{name: rounded(value) for name, value in ratios(samples, cpu_rate).items()},
        **{f"{name}_wall": rounded(value) for name, value in ratios(samples, wall_rate).items()},
        "runs": {name: list(done) for name, done in samples.items()},
    }
