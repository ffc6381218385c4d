"""The processors alone, all together and each by itself, over the same events: what of a contestant's time is theirs.

The events are decoded beforehand, and the states stay live, so that nothing else is in the figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import process_time

import structlog

from bench.contestants.contest import Job, Meter, job
from bench.contestants.folding import fold_of
from processors.base import Person
from processors.fold import Fold
from schemas.customer import Part
from schemas.event import Event, decode_event
from streams.kafka import KafkaLog
from streams.log import TP

TOGETHER = 2_000


async def contend(given: Job) -> None:
    log, fold, meter = KafkaLog(f"kafka://{given.kafka}"), fold_of(given.work), Meter()
    await log.start()
    folds = {"": fold, **{processor.name: Fold([processor]) for processor in fold.processors}}
    parts: dict[str, dict[str, Part]] = {name: {} for name in folds}
    own_s, done = dict.fromkeys(folds, 0.0), 0
    meter.begin()
    for partition in range(given.partitions):
        offset = 0
        while records := await log.read(TP(given.topic, partition), offset, TOGETHER):
            offset = records[-1].offset + 1
            events = [decode_event(record.value) for record in records]
            for event in events:  # asked for by the wiring before any processor
                _ = event.at_ms, event.key, event.received_ms, event.label
            for name, each in folds.items():
                own_s[name] += _seconds(each, parts[name], events)
            done += len(events)
    meter.done(done, own_s=own_s.pop(""), each_s=own_s)
    await log.stop()


def _seconds(fold: Fold, parts: dict[str, Part], events: Sequence[Event]) -> float:
    """What it takes to fold the events into the parts of their keys."""
    began = process_time()
    for event in events:
        key = event.key
        part = parts.get(key)
        if part is None:
            part = parts[key] = Part()
        fold.check(event)
        fold.apply(part, event, Person(key, key, part.applied), event.received_ms)
        part.applied += 1
    return process_time() - began


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    asyncio.run(contend(job()))


if __name__ == "__main__":
    main()
