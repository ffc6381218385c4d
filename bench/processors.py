"""The customer stage with real processors, beside Quix Streams calling the very same ones, and their own share.

Input: the traffic of a shop, on real Kafka. One, three (profile, visits, orders) and ten processors (copies of the
three). Both write rows, and both keep their state durably once a second. Tidewire does more for each event: it knows
people by several ids and merges them, drops duplicates, makes portraits. `share` is the time of the processors alone,
over the same events, of all the CPU time of Tidewire's worker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from bench import shop
from bench.engine import INTERVAL_S, TOPIC, contend, cpu_rate, rates_of, ratios, wall_rate
from bench.ground import PARTITIONS, Ground, kafka_ground
from bench.measure import Figure, Options, Report, interleaved, rounded
from bench.peers import versions_of_peers

EVENTS, QUICK_EVENTS = 200_000, 2_000
COUNTS = ("1", "3", "10")
AT_LEAST_OF_QUIX, AT_LEAST_SHARE = 2.0, 0.5
JUDGED = "3"  # the real ones, all of them and nothing else


def measure(options: Options) -> Report:
    events = QUICK_EVENTS if options.is_quick else EVENTS
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    with kafka_ground() as ground:
        for count in filter(options.wants, COUNTS):
            options.say(f" {count} processors, {events} events of the shop")
            contest = {name: _contestant(ground, name, count, events) for name in ("tidewire", "quix", "fold_alone")}
            samples = interleaved(contest, options.runs, cpu_rate, options)
            folded = samples.pop("fold_alone")
            alone = [sample["own_s"] / sample["events"] for sample in folded]
            each = {name: [sample["each_s"][name] / sample["events"] * 1e6 for sample in folded]
                    for name in folded[0]["each_s"]}  # fmt: skip
            cell = f"{count} processors"
            ratio = ratios(samples, cpu_rate)["ratio_quix"]
            share = median(alone) * median(map(cpu_rate, samples["tidewire"]))
            is_judged = count == JUDGED
            figures += [
                *rates_of(cell, samples),
                Figure(f"{cell} alone", "µs/event", [seconds * 1e6 for seconds in alone]),
                *(Figure(f"{cell} {name} alone", "µs/event", runs) for name, runs in each.items() if is_judged),
                Figure(f"{cell} ratio_quix", "×", [ratio], at_least=AT_LEAST_OF_QUIX if is_judged else None),
                Figure(f"{cell} share", "of CPU", [share], at_least=AT_LEAST_SHARE if is_judged else None),
            ]
            found[count] = {
                "medians": {name: rounded(median(map(cpu_rate, done))) for name, done in samples.items()},
                "medians_wall": {name: rounded(median(map(wall_rate, done))) for name, done in samples.items()},
                "ratio_quix": rounded(ratio), "share": rounded(share), "own_us": rounded(median(alone) * 1e6),
            }  # fmt: skip
    return Report(
        input={"events": events, "partitions": PARTITIONS, "durable_every_s": INTERVAL_S, **versions_of_peers()},
        figures=figures, found={"processors": found},
    )  # fmt: skip


def _contestant(ground: Ground, name: str, count: str, events: int) -> Callable[[], dict[str, Any]]:
    return partial(_contend, ground, name, count, events)


def _contend(ground: Ground, name: str, count: str, events: int) -> dict[str, Any]:
    ground.make([TOPIC])  # anew: the customer stage writes messages of its own into it
    ground.fill(TOPIC, shop.events(events))
    return contend(ground, name, events=events, state_bytes=0, work=count)
