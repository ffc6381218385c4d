"""What partitions are told of journeys, when, and that a restart tells nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from config.settings import Settings
from schemas.errors import TidewireError
from schemas.internal import Define, Sweep, decode_internal, is_internal
from schemas.journeys import Cap, JourneyFile, Led, LedJourney, Limits, Mail
from schemas.segments import Read, Told, encode_said, read_definitions
from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS, to_iso
from sinks.analytics import Analytics
from streams.definitions import TOPIC, Coordinator, take_over_limits
from streams.embedded import EmbeddedLog
from streams.journeys import Journeys
from streams.leads import Leads, asks_everybody, conditions_told
from streams.log import TP, Outgoing
from streams.schedules import Schedules, due
from streams.templates import Templates
from streams.topics import create_topics

TEMPLATE = "channel: sms\nkind: marketing\ntopic: offers\ncontent:\n  en:\n    text: Hello\n"
TEXT = "enter: {joined: loyal}\nsteps:\n- {step: hello, send: hello}\n"
DAILY = "enter: {date: {trait: birthday, at: '09:00'}}\nsteps:\n- {step: hello, send: hello}\n"
MEMORY = "enter: {joined: loyal}\nwhen: {did: Order Completed}\nsteps:\n- {step: hello, exit: x}\n"


class World:
    """The topics, and who tells partitions of what stands in them."""

    def __init__(self, log: EmbeddedLog, settings: Settings) -> None:
        self.log, self.settings = log, settings
        self.templates = Templates(log, settings)
        self.journeys = Journeys(log, settings, self.templates, self.names)
        self.coordinator = self.started()
        self._read: dict[int, int] = {}

    async def names(self) -> set[str]:
        return {"loyal"}

    def schedules(
        self, coordinator: Coordinator | None = None, now_ms: Callable[[], int] = lambda: AT_NINE
    ) -> Schedules:
        return Schedules(self.log, coordinator or self.coordinator, self.journeys, "UTC", now_ms)

    def started(self) -> Coordinator:
        """One that knows nothing but what stands in the log."""
        templates = Templates(self.log, self.settings)
        journeys = Journeys(self.log, self.settings, templates, self.names)
        analytics = Analytics(f"chdb:{self.settings.data / 'clickhouse'}")  # is not asked
        leads = Leads(self.log, analytics, journeys, templates, workspace="shop")
        return Coordinator(self.log, analytics, zone="UTC", rfm_minutes=60, leads=leads)

    async def save(self, text: str = TEXT, name: str = "greet") -> None:
        await self.journeys.save(name, text, by="ann", now_ms=1)

    async def steer(self, status: str, name: str = "greet") -> None:
        await self.journeys.steer(name, status, by="ann", now_ms=1)

    async def told(self, partition: int = 0) -> list[Read | Sweep]:
        """What a partition was told since this was last called."""
        end = (await self.log.bounds("events"))[partition][1]
        records = await self.log.read(TP("events", partition), self._read.get(partition, 0), 1_000)
        self._read[partition] = end
        told: list[Read | Sweep] = []
        for record in records:
            assert record.value is not None and is_internal(record.headers)
            message = decode_internal(record.value)
            if isinstance(message, Define):
                told.append(read_definitions(bytes(message.definitions)))
            elif isinstance(message, Sweep):
                told.append(message)
        return told

    async def led(self) -> Led:
        """What a partition was told of journeys now, and nothing else."""
        (read,) = await self.told()
        assert isinstance(read, Read)
        return read.led


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    settings = Settings(data=tmp_path, config=tmp_path / "config")
    await log.start()
    await create_topics(log, settings)
    world = World(log, settings)
    await world.templates.save("hello", TEMPLATE, by="ann", now_ms=1)
    yield world
    await log.stop()


async def test_while_there_never_was_a_journey_nobody_is_told_anything(world: World) -> None:
    await take_over_limits(world.log, Limits.model_validate({"holdout": 5}), by="files", now_ms=1)

    await world.coordinator.go_on()

    assert await world.told() == [] and world.coordinator.known.told is None


async def test_every_partition_is_told_once_and_not_again_after_a_restart(world: World) -> None:
    await take_over_limits(world.log, Limits.model_validate({"holdout": 5}), by="files", now_ms=1)
    await world.save()

    await world.coordinator.go_on()
    await world.coordinator.go_on()

    led = await world.led()
    (journey,) = led.journeys
    assert (journey.name, journey.version, journey.is_newest, journey.status) == ("greet", 1, True, "live")
    assert JourneyFile.model_validate(journey.said).enter.joined == "loyal"
    assert (led.mails, led.limits, led.workspace) == ({"hello": Mail("sms", "marketing", "offers")},
                                                     {"holdout": 5.0}, "shop")  # fmt: skip
    others = [await world.told(partition) for partition in range(1, world.log.partitions("events"))]
    assert all(len(told) == 1 for told in others)
    again = world.started()
    await again.go_on()
    assert await world.told() == [] and again.in_force == led


async def test_older_versions_stay_as_long_as_somebody_may_be_inside(world: World) -> None:
    for number in range(5):
        await world.save(TEXT.replace("hello, send", f"step_{number}, send"))
        await world.coordinator.go_on()
        await world.told()
    leads = world.coordinator._leads
    assert leads is not None

    assert [each.version for each in world.coordinator.in_force.journeys] == [5, 4, 3, 2, 1]
    assert [each.is_newest for each in world.coordinator.in_force.journeys] == [True, False, False, False, False]
    leads._unused, leads._looked_up = {("greet", 1), ("greet", 2), ("greet", 4)}, 1  # as ClickHouse would say
    await world.coordinator.go_on()
    assert [each.version for each in (await world.led()).journeys] == [5, 4, 3]
    await world.journeys.migrate("greet", 2, by="ann", now_ms=2)
    await world.coordinator.go_on()
    read, sweep = await world.told()
    assert isinstance(read, Read) and [(each.version, each.migrate_to) for each in read.led.journeys] == [
        (5, 2), (4, 2), (3, 2), (2, 2)]  # fmt: skip
    assert isinstance(sweep, Sweep) and sweep.sweep and not sweep.journey


@pytest.mark.parametrize("status", ["paused", "draining", "stopped"])
async def test_how_it_is_steered_is_told_and_everybody_looked_at(world: World, status: str) -> None:
    await world.save()
    await world.coordinator.go_on()
    await world.told()

    await world.steer(status)
    await world.coordinator.go_on()

    read, sweep = await world.told()
    assert isinstance(read, Read) and [each.status for each in read.led.journeys] == [status]
    assert isinstance(sweep, Sweep) and sweep.sweep and not sweep.journey
    await world.coordinator.go_on()
    assert await world.told() == []


async def test_one_that_went_is_told_and_everybody_looked_at(world: World) -> None:
    await world.save()
    await world.coordinator.go_on()
    await world.told()

    await world.journeys.remove("greet", by="ann", now_ms=2)
    await world.coordinator.go_on()

    read, sweep = await world.told()
    assert isinstance(read, Read) and read.led.journeys == [] and isinstance(sweep, Sweep)


async def test_other_limits_are_told_and_everybody_looked_at(world: World) -> None:
    await world.save()
    await world.coordinator.go_on()
    await world.told()

    limits = Limits(caps=(Cap(at_most=2, within="1 day"),))
    await take_over_limits(world.log, limits, by="files", now_ms=2)
    await take_over_limits(world.log, limits, by="files", now_ms=3)
    await world.coordinator.go_on()

    read, sweep = await world.told()
    assert isinstance(read, Read) and isinstance(sweep, Sweep)
    assert Limits.model_validate(read.led.limits) == limits
    assert sum(end for _, end in (await world.log.bounds(TOPIC)).values()) == 5  # of limits one, of what was told four


async def test_a_process_that_dies_before_partitions_were_told_begins_there_again(world: World) -> None:
    await world.save()
    await world.coordinator.go_on()
    led = await world.led()
    stopped = Led(journeys=[], mails=led.mails, limits=led.limits, workspace="shop")
    note = Told(led=stopped, zone="UTC", at_ms=9, asks_everybody=True)
    await world.journeys.remove("greet", by="ann", now_ms=2)
    await world.log.append(TOPIC, [Outgoing(b"led", encode_said(note))])  # and then it died

    await world.started().go_on()

    read, sweep = await world.told()
    assert isinstance(read, Read) and read.led.journeys == [] and isinstance(sweep, Sweep)
    again = world.started()
    await again.go_on()
    assert await world.told() == [] and again.known.told is not None and again.known.told.is_settled


async def test_a_template_that_goes_leaves_what_orders_say_of_it(world: World) -> None:
    await world.save()
    await world.coordinator.go_on()
    await world.told()
    await world.templates.save("hello", TEMPLATE.replace("offers", "news"), by="ann", now_ms=2)
    await world.coordinator.go_on()
    assert (await world.led()).mails["hello"].topic == "news"

    await world.templates.remove("hello", by="ann", now_ms=3)
    await world.coordinator.go_on()

    leads = world.coordinator._leads
    assert leads is not None and leads.problems == ('there is no template "hello" that can be read',)
    assert await world.told() == [] and world.coordinator.in_force.mails["hello"].topic == "news"


async def test_weights_of_splits_that_learn_are_told_without_looking_at_everybody(world: World) -> None:
    await world.save("enter: {joined: loyal}\nsteps:\n- {step: pick, learns: true, split: [{then: a}, {then: b}]}\n"
                     "- {step: a, send: hello, then: end}\n- {step: b, send: hello}\n"
                     "goal: {did: Order Completed, within: 1 day}\n")  # fmt: skip
    await world.coordinator.go_on()
    assert (await world.led()).journeys[0].weights == {}
    leads = world.coordinator._leads
    assert leads is not None

    leads._weights["greet", "pick"], leads._looked_up = [0.25, 0.75], 1
    await world.coordinator.go_on()

    assert (await world.led()).journeys[0].weights == {"pick": [0.25, 0.75]}
    again = world.started()
    await again.go_on()
    assert await world.told() == []  # it learned nothing yet, and forgets nothing


def test_only_what_makes_somebody_leave_go_on_or_move_asks_everybody() -> None:
    def led(status: str = "live", version: int = 1, migrate_to: int = 0, name: str = "a") -> Led:
        return Led(journeys=[LedJourney(name=name, version=version, said={}, status=status, migrate_to=migrate_to)])

    assert not asks_everybody(Led(), led())
    assert not asks_everybody(led(), led(version=2))
    assert asks_everybody(led(), led("paused")) and asks_everybody(led("paused"), led())
    assert asks_everybody(led(), led(version=2, migrate_to=2))
    assert asks_everybody(led(), led(name="b")) and asks_everybody(led(), Led())


async def test_conditions_are_to_be_remembered_for_by_name_and_version(world: World) -> None:
    await world.save()
    await world.coordinator.go_on()
    led = await world.led()
    text = (
        "enter: {joined: loyal}\nwhen: {did: Order Completed}\nsteps:\n- step: which\n  branch:\n"
        "  - {when: {segment: loyal}, then: end}\n  - {when: {did: Product Viewed}, then: end}\n"
    )
    other = world.journeys.check("other", text.replace("when: {did: Order Completed}\n", ""))

    said = conditions_told(Led(journeys=[*led.journeys, world_led("both", world.journeys.check("both", text).plain),
                                         world_led("other", other.plain)]), "UTC")  # fmt: skip

    assert [(each.name, each.version, each.is_live) for each in said] == [
        ("journey.both.1.0", 1, False), ("journey.both.1.2", 1, False), ("journey.other.1.1", 1, False)]  # fmt: skip


def world_led(name: str, plain: object) -> LedJourney:
    return LedJourney(name=name, version=1, said=plain)


async def test_what_is_being_prepared_keeps_nobody_from_stopping_a_journey(world: World) -> None:
    """Here no stage runs, so it is waited for without end."""
    await world.save()
    await world.coordinator.go_on()
    await world.told()
    await world.save(MEMORY, "other")
    going_on = asyncio.create_task(world.coordinator.go_on())
    try:
        async with asyncio.timeout(10):
            while not (told := await world.told()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (remembering,) = told
        await world.steer("stopped")
        async with asyncio.timeout(10):
            while len(told) < 3:
                told += await world.told()
                await asyncio.sleep(0.01)
    finally:
        going_on.cancel()

    _, read, sweep = told
    assert isinstance(remembering, Read) and isinstance(read, Read) and isinstance(sweep, Sweep)
    assert [(each.name, each.status) for each in remembering.led.journeys] == [("greet", "live")]
    assert [(each.name, each.status) for each in read.led.journeys] == [("greet", "stopped")]
    for each in (remembering, read):  # it goes on being remembered for
        assert [(one.name, one.is_live) for one in each.definitions] == [("journey.other.1.0", False)]


# --- those that a clock lets people enter


class Clock:
    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def swept(told: list[Read | Sweep]) -> list[tuple[str, str]]:
    return [(each.journey, each.sweep) for each in told if isinstance(each, Sweep) and each.journey]


AT_NINE = 20_000 * DAY_MS + 9 * HOUR_MS


async def test_everybody_is_asked_when_it_is_due_and_once(world: World) -> None:
    await world.save(DAILY)
    await world.coordinator.go_on()
    clock = Clock(AT_NINE - MINUTE_MS)
    schedules = world.schedules(now_ms=clock)
    await schedules.fire()
    assert swept(await world.told()) == []

    for clock.now_ms in (AT_NINE - 1, AT_NINE, AT_NINE + 1, AT_NINE + HOUR_MS):
        await schedules.fire()

    assert swept(await world.told()) == [("greet", f"greet@{to_iso(AT_NINE)}")]
    assert swept(await world.told(world.log.partitions("events") - 1)) == [("greet", f"greet@{to_iso(AT_NINE)}")]
    clock.now_ms += DAY_MS
    await schedules.fire()
    assert swept(await world.told()) == [("greet", f"greet@{to_iso(AT_NINE + DAY_MS)}")]


@pytest.mark.parametrize(
    ("away_ms", "missed"),
    [(HOUR_MS, [AT_NINE]), (20 * HOUR_MS, [AT_NINE]), (50 * HOUR_MS, [AT_NINE + 2 * DAY_MS])],
)
async def test_what_was_missed_is_made_up_for_once_the_newest_of_it(
    world: World, away_ms: int, missed: list[int]
) -> None:
    await world.save(DAILY)
    await world.coordinator.go_on()
    await world.schedules(now_ms=Clock(AT_NINE - MINUTE_MS)).fire()
    await world.told()

    for _ in range(2):
        coordinator = world.started()
        await coordinator.go_on()
        await world.schedules(coordinator, Clock(AT_NINE + away_ms)).fire()

    assert swept(await world.told()) == [("greet", f"greet@{to_iso(at_ms)}") for at_ms in missed]


def test_what_was_due_more_than_a_day_ago_is_nobodys() -> None:
    weekly = "0 9 * * mon"
    monday = AT_NINE + next(days * DAY_MS for days in range(7) if (20_000 + days) % 7 == 4)  # 1970 began on a Thursday

    assert due(weekly, "UTC", 0, monday + 23 * HOUR_MS) == (monday, monday + 7 * DAY_MS)
    assert due(weekly, "UTC", 0, monday + 25 * HOUR_MS) == (0, monday + 7 * DAY_MS)
    assert due(weekly, "UTC", monday, monday + 23 * HOUR_MS) == (0, monday + 7 * DAY_MS)


async def test_one_that_is_paused_asks_nobody_and_makes_up_for_nothing_later(world: World) -> None:
    await world.save(DAILY)
    await world.steer("paused")
    await world.coordinator.go_on()
    clock = Clock(AT_NINE - MINUTE_MS)
    schedules = world.schedules(now_ms=clock)
    for clock.now_ms in (AT_NINE - MINUTE_MS, AT_NINE, AT_NINE + MINUTE_MS):
        await schedules.fire()

    await world.steer("live")
    await world.coordinator.go_on()
    await world.schedules(now_ms=Clock(AT_NINE + HOUR_MS)).fire()

    assert swept(await world.told()) == []


async def test_another_time_of_day_asks_nobody_for_what_was_due_before_it_was_said(world: World) -> None:
    await world.save(DAILY)
    await world.coordinator.go_on()
    clock = Clock(AT_NINE - HOUR_MS)
    schedules = world.schedules(now_ms=clock)
    await schedules.fire()
    await world.save(DAILY.replace("09:00", "08:30"))
    await world.coordinator.go_on()

    for clock.now_ms in (AT_NINE, AT_NINE + HOUR_MS, AT_NINE + DAY_MS):
        await schedules.fire()

    assert swept(await world.told()) == [("greet", f"greet@{to_iso(AT_NINE + DAY_MS - HOUR_MS // 2)}")]


async def test_a_broadcast_asks_everybody_once_under_a_name_of_its_own_or_the_one_given(world: World) -> None:
    await world.save(TEXT.replace("joined", "broadcast"))
    await world.coordinator.go_on()
    await world.told()

    own = await world.journeys.broadcast("greet", by="ann", now_ms=1)
    await world.journeys.broadcast("greet", by="ann", now_ms=2, id_="spring")

    for _ in range(2):
        await world.coordinator.go_on()
        await world.schedules().fire()
    assert swept(await world.told()) == [("greet", f"greet@broadcast-{own.id}"), ("greet", "greet@broadcast-spring")]
    coordinator = world.started()
    await coordinator.go_on()
    await world.schedules(coordinator).fire()
    assert swept(await world.told()) == []


async def test_what_is_being_prepared_is_broadcast_once_it_is_in_force(world: World) -> None:
    await world.save(TEXT.replace("joined", "broadcast"))
    await world.journeys.broadcast("greet", by="ann", now_ms=1, id_="spring")

    await world.schedules().fire()
    assert await world.told() == []
    await world.coordinator.go_on()
    await world.schedules().fire()

    read, sweep = await world.told()
    assert isinstance(read, Read) and isinstance(sweep, Sweep)
    assert (sweep.journey, sweep.sweep) == ("greet", "greet@broadcast-spring")


async def test_what_was_stopped_after_somebody_said_so_is_not_broadcast_then_or_later(world: World) -> None:
    await world.save(TEXT.replace("joined", "broadcast"))
    await world.journeys.broadcast("greet", by="ann", now_ms=1)
    await world.steer("stopped")
    await world.coordinator.go_on()
    await world.schedules().fire()

    await world.steer("live")
    await world.coordinator.go_on()
    await world.schedules().fire()

    assert swept(await world.told()) == []


@pytest.mark.parametrize(
    ("text", "status", "id_", "why"),
    [(None, "live", "", 'There is no journey "greet"'), (TEXT, "live", "", "its enter is joined, not broadcast"),
     (TEXT.replace("joined", "broadcast"), "paused", "", "is paused. Let it go on first: `tidewire journeys resume"),
     (TEXT.replace("joined", "broadcast"), "live", "a/b", '"a/b" cannot be the id of a broadcast')],
)  # fmt: skip
async def test_nobody_is_asked_where_nobody_can_enter(
    world: World, text: str | None, status: str, id_: str, why: str
) -> None:
    if text is not None:
        await world.save(text)
        await world.steer(status)

    with pytest.raises(TidewireError, match=why):
        await world.journeys.broadcast("greet", by="ann", now_ms=1, id_=id_)

    assert world.journeys.broadcasts == []
