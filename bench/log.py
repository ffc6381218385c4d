"""Records per second into the log and out of it, on both grounds.

Records of 1,000 bytes under keys of persons, in four partitions. Kafka is one broker of this machine, so it shares the
cores with what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.child import run
from bench.ground import Ground, kafka_ground
from bench.measure import LEFT_OUT, Figure, LeftOut, Options, Report, interleaved, rounded
from tests.kafka_broker import missing

RECORDS, QUICK_RECORDS = 400_000, 16_000
SECONDS, QUICK_SECONDS = 3.0, 0.2
VALUE_BYTES = 1_000
Sample = dict[str, dict[str, float]]


def measure(options: Options) -> Report:
    records, seconds = (QUICK_RECORDS, QUICK_SECONDS) if options.is_quick else (RECORDS, SECONDS)
    with ExitStack() as stack:
        contest: dict[str, Callable[[], Sample]] = {}
        if options.wants("embedded"):
            contest["embedded"] = partial(_one, None, records, seconds)
        if options.wants("kafka") and not missing():
            contest["kafka"] = partial(_one, stack.enter_context(kafka_ground()), records, seconds)
        if not contest:
            raise LeftOut(f"Kafka needs {missing()} on this machine")
        samples = interleaved(contest, options.runs, lambda sample: _rate(sample["append in bulk"]), options)
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    for ground, done in samples.items():
        for work in done[0]:
            rate = Figure(f"{ground} {work}", "records/s", [_rate(sample[work]) for sample in done])
            figures.append(rate)
            found.setdefault(ground, {})[work] = rounded(rate.median)
            if "p99_ms" in done[0][work]:
                figures.append(Figure(f"{ground} {work} p99", "ms", [sample[work]["p99_ms"] for sample in done]))
            else:
                runs = [sample[work]["records"] / sample[work]["cpu_s"] for sample in done]
                figures.append(Figure(f"{ground} {work} cpu", "records/CPU-s", runs))
    notes = [f"Kafka is {LEFT_OUT}it needs {missing()}"] if missing() else []
    return Report(input={"records": records, "value_bytes": VALUE_BYTES}, figures=figures,
                  found={"records_per_s": found}, notes=notes)  # fmt: skip


def _one(ground: Ground | None, records: int, seconds: float) -> Sample:
    if ground is not None:
        ground.remove(["bulk", "single"])
    kafka = ground.url if ground is not None else ""
    job = {"kafka": kafka, "records": records, "value_bytes": VALUE_BYTES, "seconds": seconds}
    return run("bench.contestants.records", job)


def _rate(work: dict[str, float]) -> float:
    return work["records"] / work["wall_s"]
