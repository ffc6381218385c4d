"""What an event costs when there is ten times as much of something: people, processors, partitions, state.

`persons`: everybody stands in the changelog and on disk beforehand, and events come for all of them alike, so most of
them meet a state that has left the memory. `hot` and `uniform`: states of 4 kB instead of 1 kB, for the two workloads
of `engine`. `processors`: ten of them instead of one. `partitions`: forty instead of four. Tidewire alone, in turn with
itself; the cost is CPU time per event. Memory is what a worker holds at its end, per 100,000 people more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from bench import shop
from bench.engine import TOPIC, contend, cpu_rate, load
from bench.ground import PARTITIONS, Ground, kafka_ground
from bench.measure import Figure, Options, Report, interleaved, rounded
from bench.traffic import WORKLOADS, Workload

EVENTS, QUICK_EVENTS = 300_000, 2_000
SHOP_EVENTS, QUICK_SHOP_EVENTS = 100_000, 1_000
PERSONS, QUICK_PERSONS = 100_000, 500
STATE_BYTES = 1_000

Run = Callable[[], dict[str, Any]]


class Growth(NamedTuple):
    """Two runs to compare, what grows between them, and how many times the cost may be."""

    grows: str
    small: Run
    large: Run
    at_most: float | None


def measure(options: Options) -> Report:
    is_quick = options.is_quick
    events, persons = (QUICK_EVENTS, QUICK_PERSONS) if is_quick else (EVENTS, PERSONS)
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    with kafka_ground() as ground:
        count = partial(_count, ground, events)
        few, many = Workload("few", persons, 0.0, STATE_BYTES), Workload("many", persons * 10, 0.0, STATE_BYTES)
        cells = {
            "persons": Growth(f"{persons:,} to {10 * persons:,}", partial(count, few, known=True),
                              partial(count, many, known=True), 1.5),
            "hot": Growth("1 kB to 4 kB", partial(count, WORKLOADS["hot"]), partial(count, WORKLOADS["hot_4kb"]), 1.2),
            "uniform": Growth("1 kB to 4 kB", partial(count, WORKLOADS["uniform"]),
                              partial(count, WORKLOADS["uniform_4kb"]), 2.5),
            "processors": Growth("1 to 10", partial(_fold, ground, is_quick, "1"),
                                 partial(_fold, ground, is_quick, "10"), None),
            "partitions": Growth("4 to 40", partial(count, WORKLOADS["hot"]),
                                 partial(count, WORKLOADS["hot"], partitions=10 * PARTITIONS), None),
        }  # fmt: skip
        for name, growth in cells.items():
            if options.wants(name):
                options.say(f" {name}: {growth.grows}")
                samples = interleaved({"small": growth.small, "large": growth.large}, options.runs, cpu_rate, options)
                small, large = (median(map(_cost_us, samples[size])) for size in ("small", "large"))
                figures += [
                    *(Figure(f"{name} {size}", "µs/event", list(map(_cost_us, samples[size]))) for size in samples),
                    Figure(f"{name} {growth.grows}", "× cost", [large / small], at_most=growth.at_most),
                ]
                found[name] = {"grows": growth.grows, "ratio": rounded(large / small),
                               "cost_us": {"small": rounded(small), "large": rounded(large)}}  # fmt: skip
                if name == "persons":
                    figures.append(_memory(samples, persons, found[name]))
    return Report(input={"events": events, "partitions": PARTITIONS}, figures=figures, found={"growth": found})


def _cost_us(sample: dict[str, Any]) -> float:
    return 1e6 / cpu_rate(sample)


def _memory(samples: dict[str, list[dict[str, Any]]], persons: int, found: dict[str, Any]) -> Figure:
    """How much more a worker holds for 100,000 people more."""
    more = 9 * persons / 100_000
    per = [(large["rss_mb"] - small["rss_mb"]) / more
           for small, large in zip(samples["small"], samples["large"], strict=True)]  # fmt: skip
    figure = Figure("memory per 100,000 persons", "MB", per)
    found["memory_mb_per_100k"] = rounded(figure.median)
    return figure


def _count(
    ground: Ground, events: int, workload: Workload, *, partitions: int = PARTITIONS, known: bool = False
) -> dict[str, Any]:
    load(ground, workload, events, partitions)
    return contend(ground, "tidewire", events=events, state_bytes=workload.state_bytes, partitions=partitions,
                   known=workload.persons if known else 0)  # fmt: skip


def _fold(ground: Ground, is_quick: bool, processors: str) -> dict[str, Any]:
    events = QUICK_SHOP_EVENTS if is_quick else SHOP_EVENTS
    ground.make([TOPIC])
    ground.fill(TOPIC, shop.events(events))
    return contend(ground, "tidewire", events=events, state_bytes=0, work=processors)
