"""A worker with many people who wait in a journey, or the same people without one: what they take, and what it costs
when nothing is due. Once when all have just entered, and once when it was started anew.

As `tidewire up` runs it, on the embedded log, without collector and ClickHouse.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from bench.child import rss_mb
from config.settings import Settings, load_settings
from processors.fold import Fold
from processors.registry import load_processors
from schemas.event import Event, encode_event
from schemas.internal import HEADERS, Define, encode_internal
from schemas.journeys import Led, LedJourney
from schemas.segments import Definitions, encode_definitions
from streams.app import StageApp
from streams.embedded import EmbeddedLog
from streams.lines import EVENTS
from streams.log import Outgoing
from streams.metrics import StageMetrics
from streams.segments import RULES_KEY
from streams.stage import CustomerStage
from streams.store import StateStore
from streams.topics import create_topics

TOGETHER = 5_000
LOOK_EVERY_S = 0.005
SETTLED_S = 1.0
JOURNEY = {
    "enter": {"event": {"did": "Signed Up"}}, "holdout": 0,
    "steps": [{"step": "a_month", "wait": "30 days"}, {"step": "then", "exit": ""}],
}  # fmt: skip


class Job(msgspec.Struct, frozen=True):
    """What to do.

    Attributes:
        people: how many sign up; 0: nobody, it is started anew with what is there.
        is_led: by which they enter a journey, and wait for thirty days.
        folder: for log and states.
        seconds: how long nothing happens.
    """

    people: int
    is_led: bool
    folder: str
    seconds: float


async def contend(given: Job) -> dict[str, float]:
    settings = load_settings({"data": given.folder}, {})
    log = EmbeddedLog(Path(given.folder) / "log.db", fsync=False)
    await log.start()
    await create_topics(log, settings)
    stage = CustomerStage(Fold(load_processors(Path("config"))), partitions=log.partitions(EVENTS), most_links=100)
    app = StageApp(log, stage, settings, StageMetrics(CollectorRegistry()))
    await app.start()
    if given.people and given.is_led:
        await log.append(EVENTS, _define(log.partitions(EVENTS)))
    signing_up = _sign_up(given.people)
    while some := list(islice(signing_up, TOGETHER)):
        await log.append(EVENTS, some)
        await _until_done(app, log)
    await _until_done(app, log)
    await app.worker.checkpoint()
    gc.collect()
    await asyncio.sleep(SETTLED_S)
    found = {"rss_mb": rss_mb(os.getpid()), **await _idle(given.seconds)}
    await app.stop()
    await log.stop()
    return found | _stored(settings)


async def _idle(seconds: float) -> dict[str, float]:
    """CPU of the process while nothing happens."""
    began, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return {"idle_cpu": (time.process_time() - cpu_s) / max(seconds, time.perf_counter() - began)}


async def _until_done(app: StageApp, log: EmbeddedLog) -> None:
    bounds = await log.bounds(EVENTS)
    end = sum(after for _, after in bounds.values())
    while sum(app.worker.progress()[::2]) < end:  # noqa: ASYNC110 - offsets handled; the worker tells nobody
        await asyncio.sleep(LOOK_EVERY_S)


def _define(partitions: int) -> Iterable[Outgoing]:
    led = Led(journeys=[LedJourney(name="welcome", version=1, said=JOURNEY)])
    definitions = encode_definitions(Definitions(zone="UTC", definitions=[], journeys=led))
    define = encode_internal(Define(to=RULES_KEY, origin="", at_ms=0, definitions=msgspec.Raw(definitions)))
    return [Outgoing(RULES_KEY.encode(), define, partition, HEADERS) for partition in range(partitions)]


def _sign_up(people: int) -> Iterator[Outgoing]:
    for number in range(people):
        now = datetime.now(UTC)
        event = Event(message_id=f"m{number}", type="track", event="Signed Up", workspace="default", source="shop",
                      timestamp=now, received_at=now, user_id=f"p{number:06}")  # fmt: skip
        yield Outgoing(event.key.encode(), encode_event(event))


def _stored(settings: Settings) -> dict[str, float]:
    """What the stores hold: bytes of states, timers and their bytes, and bytes of files."""
    states = timers = timer_bytes = files = 0
    for folder in sorted((settings.data / "customers").iterdir()):
        store = StateStore(folder)
        for key in store.keys():  # noqa: SIM118 - a store is no dict
            (value,) = store.get([key])
            states += len(key) + len(value or b"") if key != RULES_KEY.encode() else 0
        for entry in store._db.keys(from_key=b"t"):
            timers += 1
            timer_bytes += len(entry)
        store._db.flush()
        store._db.compact_range(None, None)  # so that what was written over is gone
        store.close()
        files += sum(file.stat().st_size for file in folder.glob("*.sst"))
    return {"state_bytes": states, "timers": timers, "timer_bytes": timer_bytes, "file_bytes": files}


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(contend(msgspec.json.decode(sys.argv[1], type=Job)))), flush=True)


if __name__ == "__main__":
    main()
