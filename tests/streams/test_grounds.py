"""The same people on every ground: a shop's history, straight through the pure stage, and disturbed through real logs.

Disturbed means late, doubled, shuffled, in small batches, with the worker killed in the middle and started on another
disk. What every processor shows of every person must be the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from config.settings import Settings
from processors.fold import Fold
from processors.registry import load_processors
from schemas.event import Event, encode_event
from schemas.intake import Arrival, read_event
from schemas.rows import decode_portrait, encode_json
from schemas.times import DAY_MS
from streams.app import StageApp
from streams.grounds import open_log
from streams.lines import EVENTS
from streams.log import TP, Log, Outgoing
from streams.metrics import StageMetrics
from streams.simulate import Plan, Shop, deliveries
from streams.stage import CustomerStage
from streams.topics import create_topics
from tests.streams.test_worker import crash
from tests.streams.world import IGNORE_WHAT_FAUST_LEFT, World, collect_what_faust_left

PLAN = Plan(people=40, days=45, seed=7, end=date(2026, 3, 1))
DISTURBED = msgspec.structs.replace(PLAN, disorder=0.3, duplicates=0.2)
RECEIVED = datetime(2026, 3, 2, tzinfo=UTC)


def events_of(plan: Plan) -> list[Event]:
    arrival = Arrival(workspace="w", source="shop", received_at=RECEIVED)
    return [read_event(made.body, msgspec.json.decode(made.body)["type"], arrival)
            for made in deliveries(plan, Shop(plan).calls())]  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_waits_for_a_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a company comes to is told to its people seconds later. No time passes for those who are expected, so none
    may pass for the others, however slow the machine is."""
    monkeypatch.setattr("streams.companies.TELL_AFTER_MS", 100 * 365 * DAY_MS)


def fold_of_all() -> Fold:
    return Fold(load_processors(Path("config")))


def plain(people: dict[str, object]) -> Any:
    """As JSON has it, so that both sides are of the same types."""
    return msgspec.json.decode(encode_json(people))


def first_difference(found: Any, expected: Any, path: str = "") -> str:
    """Where two people, or two of anything plain, differ; pytest's own comparison of so much takes minutes."""
    if type(found) is not type(expected):
        return f"{path}: {found!r} and not {expected!r}"
    if isinstance(found, dict):
        for name in sorted({*found, *expected}):
            if name not in found or name not in expected:
                return f"{path}.{name} only {'expected' if name in expected else 'found'}"
            if difference := first_difference(found[name], expected[name], f"{path}.{name}"):
                return difference
        return ""
    if isinstance(found, list) and len(found) == len(expected):
        differences = (first_difference(*pair, f"{path}[]") for pair in zip(found, expected, strict=True))
        return next(filter(None, differences), "")
    return "" if found == expected else f"{path}: {found!r} and not {expected!r}"


@pytest.fixture(scope="module")
def expected() -> Any:
    world = World(fold=fold_of_all(), partitions=4)
    for event in events_of(PLAN):
        world.send(event)
    world.settle(checkpoint=0.0)
    return plain({key: {"keys": sorted(keys), **shown} for key, (keys, shown) in world.people().items()})


async def people_in(log: Log) -> Any:
    newest = {}
    for partition, (first, end) in (await log.bounds("profiles")).items():
        for record in await log.read(TP("profiles", partition), first, end - first):
            portrait = decode_portrait(record.value or b"")
            if portrait.key not in newest or newest[portrait.key].revision <= portrait.revision:
                newest[portrait.key] = portrait
    return plain({
        key: {"keys": sorted(identity.key for identity in portrait.identities), **portrait.sections}
        for key, portrait in newest.items() if not portrait.merged_into
    })  # fmt: skip


def fatal(what: str, error: BaseException | None) -> None:
    raise AssertionError(what) from error


async def run(log: Log, settings: Settings, events: Iterable[Event], state: Path, *, is_killed: bool) -> None:
    """A worker that handles the events until nothing is left, or until it is killed somewhere in the middle."""
    own = settings.model_copy(update={"data": state})
    stage = CustomerStage(fold_of_all(), partitions=log.partitions(EVENTS), most_links=100)
    app = StageApp(log, stage, own, StageMetrics(CollectorRegistry()), fatal=fatal)
    await app.start()
    batch = [Outgoing(event.key.encode(), encode_event(event)) for event in events]
    for i in range(0, len(batch), 100):
        await log.append(EVENTS, batch[i : i + 100])
        await asyncio.sleep(0.002)
    if is_killed:
        await crash(app.worker)
        app.worker._owned.clear()
        app.faust.consumer._marked.clear()
    else:
        async with asyncio.timeout(90):
            while not sum(app.worker.progress()) or any(app.worker.behind_of(await log.bounds(EVENTS)).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    await app.stop()


async def check(settings: Settings, expected: Any, folder: Path) -> None:
    events = events_of(DISTURBED)
    # Beyond what the plan does: neighbours swapped, so that even what follows closely comes in no order.
    rng = random.Random(11)
    keyed = sorted(enumerate(events), key=lambda numbered: numbered[0] + rng.uniform(0, 30))
    events = [event for _, event in keyed]
    middle = len(events) // 2
    log = open_log(settings)
    await log.start()
    try:
        await create_topics(log, settings)
        await run(log, settings, events[:middle], folder / "one", is_killed=True)
        await run(log, settings, events[middle:], folder / "two", is_killed=False)
        assert first_difference(await people_in(log), expected) == ""
    finally:
        await log.stop()
        collect_what_faust_left()


async def test_disturbed_on_the_embedded_ground_they_are_the_same_people(tmp_path: Path, expected):
    await check(Settings(data=tmp_path, fsync=False, checkpoint_ms=40), expected, tmp_path)


@IGNORE_WHAT_FAUST_LEFT
@pytest.mark.kafka
async def test_disturbed_on_kafka_they_are_the_same_people(tmp_path: Path, own_kafka, expected):
    await check(Settings(data=tmp_path, log=own_kafka.url, checkpoint_ms=40), expected, tmp_path)


def test_the_history_is_worth_it(expected):
    """Merges, orders and visits, or the tests above prove little."""
    people = list(expected.values())

    assert sum(len(person["keys"]) > 1 for person in people) > 10
    assert sum("orders" in person for person in people) > 10
    assert any(person["keys"][0].startswith("w/a:") and len(person["keys"]) == 1 for person in people)
