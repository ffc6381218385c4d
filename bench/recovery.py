"""How long it takes to get the state of a million people back, and how much memory that needs.

`cold`: a worker with an empty folder reads the changelog on real Kafka. `warm`: its folder is intact. The clock runs
from the assignment of the partitions until their state is there; beside it, from the start of the process, which has to
load its code and join the group as well. Quix Streams and plain Faust restore fewer people, as it takes them longer;
their figures are scaled to a million. States of 1 kB; each process is new.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

from bench.contestants.contest import Job
from bench.contestants.tidewire import known_states
from bench.engine import CHANGELOG, INTERVAL_S, TOPIC, make_topics, new_group, start
from bench.ground import PARTITIONS, Ground, kafka_ground
from bench.measure import Figure, Options, Report, interleaved, rounded
from bench.peers import versions_of_peers
from bench.traffic import track_events
from streams.lines import CUSTOMERS
from streams.store import StateStore

STATE_BYTES = 1_000
MILLION = 1_000_000
PERSONS = {"tidewire": MILLION, "quix": 200_000, "faust": 30_000}
QUICK_PERSONS = {"tidewire": 4_000, "quix": 500, "faust": 200}
MOST_COLD_S, MOST_WARM_S, MOST_MB = 10.0, 2.0, 500.0


class Sample(NamedTuple):
    """One restore, or of Tidewire two: the second with its folder intact."""

    persons: int
    cold: dict[str, Any]
    warm: dict[str, Any]

    @property
    def s_per_million(self) -> float:
        return float(self.cold["wall_s"]) * MILLION / self.persons


def measure(options: Options) -> Report:
    persons = QUICK_PERSONS if options.is_quick else PERSONS
    names = [name for name in persons if options.wants(name)]
    with kafka_ground() as ground, tempfile.TemporaryDirectory() as folder:
        contest: dict[str, Callable[[], Sample]] = {}
        for name in names:
            options.say(f" {name}: {persons[name]} people into the changelog")
            prepare = _prepare_tidewire if name == "tidewire" else _prepare_peer
            contest[name] = partial(_restore, prepare(ground, name, persons[name], Path(folder)), name, persons[name])
        samples = interleaved(contest, options.runs, lambda sample: sample.s_per_million, options)
    figures: list[Figure] = []
    found: dict[str, Any] = {"persons": {name: persons[name] for name in names}}
    for name, done in samples.items():
        per_million = Figure(f"{name} cold per million", "s", [sample.s_per_million for sample in done],
                             at_most=MOST_COLD_S if name == "tidewire" else None)  # fmt: skip
        figures.append(per_million)
        found[name] = {"cold_s_per_million": rounded(per_million.median), "runs": [sample._asdict() for sample in done]}
        if name == "tidewire":
            figures += _of_tidewire(done)
        else:
            figures.append(Figure(f"{name} memory after", "MB", [sample.cold["rss_mb"] for sample in done]))
    if "tidewire" in samples:
        ours = median(sample.s_per_million for sample in samples["tidewire"])
        for name in names[1:]:
            ratio = median(sample.s_per_million for sample in samples[name]) / ours
            figures.append(Figure(f"ratio_{name}", "×", [ratio]))
            found[f"ratio_{name}"] = rounded(ratio)
    return Report(
        input={**{f"persons_{name}": persons[name] for name in names}, "state_bytes": STATE_BYTES,
               "partitions": PARTITIONS, **versions_of_peers()},
        figures=figures, found=found,
    )  # fmt: skip


def _of_tidewire(done: list[Sample]) -> list[Figure]:
    return [
        Figure("tidewire warm", "s", [sample.warm["wall_s"] for sample in done], at_most=MOST_WARM_S),
        Figure("tidewire cold, from process start", "s", [sample.cold["start_s"] for sample in done]),
        Figure("tidewire warm, from process start", "s", [sample.warm["start_s"] for sample in done]),
        Figure("tidewire memory after cold", "MB", [sample.cold["rss_mb"] for sample in done], at_most=MOST_MB),
        Figure("tidewire peak memory of cold", "MB", [sample.cold["peak_mb"] for sample in done]),
        Figure("tidewire memory after warm", "MB", [sample.warm["rss_mb"] for sample in done]),
    ]


def _prepare_tidewire(ground: Ground, name: str, persons: int, folder: Path) -> Job:
    ground.make([TOPIC])
    make_topics(ground)
    ground.fill(CHANGELOG, known_states(persons, STATE_BYTES))
    return _job(ground, TOPIC, CUSTOMERS.group, folder / name)


def _prepare_peer(ground: Ground, name: str, persons: int, folder: Path) -> Job:
    """Let it count one event of each person, so that its changelog is as it writes it."""
    topic, group = f"{TOPIC}-{name}", new_group(name)
    ground.make([topic])
    ground.fill(topic, track_events(list(range(persons))))
    job = _job(ground, topic, group, folder / name, events=persons)
    start(name, job)
    return job


def _job(ground: Ground, topic: str, group: str, folder: Path, *, events: int = 0) -> Job:
    folder.mkdir()
    return Job(kafka=ground.address, topic=topic, events=events, partitions=PARTITIONS, group=group,
               folder=str(folder), state_bytes=STATE_BYTES, interval_s=INTERVAL_S)  # fmt: skip


def _restore(job: Job, name: str, persons: int) -> Sample:
    """Restore with an empty folder; Tidewire once more with what that left.

    Raises:
        RuntimeError: not everybody is there.
    """
    folder = Path(job.folder)
    shutil.rmtree(folder)
    folder.mkdir()
    job = msgspec.structs.replace(job, work="restore", events=0)
    cold = start(name, job)
    warm = start(name, job) if name == "tidewire" else {}
    if name == "tidewire" and (there := _people_in(folder / "customers")) != persons:
        raise RuntimeError(f"{there} of {persons} people were restored")
    return Sample(persons, cold, warm)


def _people_in(folder: Path) -> int:
    count = 0
    for partition in folder.iterdir():
        store = StateStore(partition)
        count += sum(1 for _ in store.keys())  # noqa: SIM118 - a store is no dict
        store.close()
    return count
