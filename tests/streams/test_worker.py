"""The worker: checkpoints in strict order, recovery, timers, and bugs that cost one record."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from config.settings import Settings
from processors.base import Person, Processor, Table
from processors.fold import Fold
from schemas.customer import Customer, Part, decode_customer
from schemas.effects import Effect, Row, Timer
from schemas.errors import TidewireError
from schemas.event import Event, encode_event
from schemas.internal import HEADERS, Define, encode_internal
from schemas.keyed import encode_state
from schemas.rejected import decode_rejected
from schemas.rows import decode_portrait, decode_table_row
from schemas.segments import Definitions, encode_definitions
from streams.embedded import EmbeddedLog
from streams.lines import CUSTOMERS, EVENTS
from streams.log import TP, LogUnavailable, Outgoing, Record, partition_of
from streams.metrics import StageMetrics
from streams.segments import RULES_KEY
from streams.stage import CustomerStage
from streams.topics import create_topics
from streams.worker import Worker
from tests.streams.world import TallyProcessor, an_event

PARTITIONS = 2


class ReminderRow(msgspec.Struct):
    message: str
    fired: int


class Reminders(msgspec.Struct, array_like=True):
    fired: dict[str, int] = {}


class ReminderProcessor(Processor[Reminders]):
    """Wakes a minute after each event, by the time it was received."""

    name = "reminders"
    about = "Reminds."
    State = Reminders
    tables = (Table("reminders", ReminderRow, ("message",), "One row a reminder."),)

    def apply(self, state: Reminders, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        yield Timer(event.message_id, now_ms + 60_000)

    def on_timer(self, state: Reminders, timer: str, person: Person, now_ms: int) -> Iterable[Effect]:
        state.fired[timer] = state.fired.get(timer, 0) + 1
        yield Row(ReminderRow(timer, state.fired[timer]))

    def merge(self, one: Reminders, other: Reminders) -> Reminders:
        return Reminders({**one.fired, **other.fired})

    def show(self, state: Reminders) -> dict[str, object]:
        return {"fired": dict(sorted(state.fired.items()))}


class Reader:
    """Remembers what the worker said of its partitions."""

    def __init__(self, marks: dict[int, int]) -> None:
        self.marks = marks
        self.paused: set[int] = set()

    def mark(self, partition: int, offset: int) -> None:
        self.marks[partition] = offset

    def pause(self, partition: int) -> None:
        self.paused.add(partition)

    def resume(self, partition: int) -> None:
        self.paused.discard(partition)


class Shop:
    """A log and the workers that come and go."""

    newest: Worker[Customer]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = EmbeddedLog(folder / "log.db", fsync=False)
        self.marks: dict[int, int] = {}
        self.reading = Reader(self.marks)
        self.generation = 0

    async def open(self) -> None:
        await self.log.start()
        await create_topics(self.log, Settings(partitions=PARTITIONS))

    async def send(self, *events: Event) -> None:
        await self.log.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event)) for event in events])

    @asynccontextmanager
    async def worker(
        self, fold: Fold | None = None, state: str = "state", stops: bool = True, hot_states: int = 100
    ) -> AsyncIterator[Worker]:
        worker = Worker(
            self.log, CustomerStage(fold or Fold([TallyProcessor()]), partitions=PARTITIONS, most_links=100),
            folder=self.folder / state, reading=self.reading, metrics=StageMetrics(CollectorRegistry()),
            checkpoint_records=1_000_000, checkpoint_ms=3_600_000, hot_states=hot_states,
        )  # fmt: skip
        self.generation += 1
        self.newest = worker
        await worker.start(fail)
        try:
            await worker.own(range(PARTITIONS), self.generation)
            yield worker
        finally:
            if stops:
                await worker.stop()
            else:
                await crash(worker)

    async def feed(self, worker: Worker, batch: int = 1_000) -> None:
        """Everything in `events` from what is marked on, and what follows from it, until nothing is left."""
        at = dict(self.marks)
        while True:
            found = False
            for partition in range(PARTITIONS):
                records = await self.log.read(TP(EVENTS, partition), at.get(partition, 0), batch)
                if records:
                    found = True
                    await worker.process(partition, records)
                    at[partition] = records[-1].offset + 1
            await worker._sender.sent(worker._sender._handed_over)
            if not found:
                return

    async def all(self, topic: str) -> list[Record]:
        records: list[Record] = []
        for partition, (first, end) in (await self.log.bounds(topic)).items():
            records += await self.log.read(TP(topic, partition), first, end - first)
        return records

    async def portraits(self) -> dict[str, dict[str, object]]:
        newest = {}
        for record in await self.all("profiles"):
            portrait = decode_portrait(record.value or b"")
            if newest.get(portrait.key) is None or newest[portrait.key].revision <= portrait.revision:
                newest[portrait.key] = portrait
        return {key: portrait.sections for key, portrait in newest.items() if not portrait.merged_into}


def fail(error: BaseException) -> None:
    raise error


async def crash(worker: Worker) -> None:
    """End without a checkpoint; only the disk is let go, so that the next may have it."""
    for task in worker._tasks:
        task.cancel()
    await worker._sender.stop()
    for owned in worker._owned.values():
        owned.states._store._db.close()


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr("streams.worker.TICK_EVERY_S", 3_600.0)  # the tests are the clock
    shop = Shop(tmp_path)
    await shop.open()
    yield shop
    await shop.log.stop()


def messages(sections: dict[str, object]) -> dict[str, int]:
    return sections["tally"]["messages"]  # type: ignore[index,return-value,call-overload]


async def test_a_checkpoint_writes_one_changelog_record_a_person_and_then_marks(shop: Shop):
    await shop.send(*(an_event(i, user=f"u{i % 3}") for i in range(30)))

    async with shop.worker() as worker:
        await shop.feed(worker)
        assert shop.marks == {}
        await worker.checkpoint()
        bounds = await shop.log.bounds(EVENTS)
        assert shop.marks == {partition: end for partition, (_, end) in bounds.items()}

    written = [record for record in await shop.all(CUSTOMERS.changelog) if (record.key or b"")[0]]
    assert sorted(record.key or b"" for record in written) == [b"w/u:u0", b"w/u:u1", b"w/u:u2"]
    assert sum(len(messages(sections)) for sections in (await shop.portraits()).values()) == 30


async def test_what_all_are_judged_by_is_stored_behind_them(shop: Shop):
    """A checkpoint that ends half-way may not leave new definitions beside people who were not judged by them."""
    definitions = msgspec.Raw(encode_definitions(Definitions(zone="UTC", definitions=[])))
    define = encode_internal(Define(to=RULES_KEY, origin="", at_ms=0, definitions=definitions))
    for partition in range(shop.log.partitions(EVENTS)):
        await shop.log.append(EVENTS, [Outgoing(RULES_KEY.encode(), define, partition, HEADERS)])
    await shop.send(*(an_event(i, user=f"u{i}") for i in range(30)))

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

    written: dict[int, list[bytes]] = {}
    for record in await shop.all(CUSTOMERS.changelog):
        if (record.key or b"")[0]:
            written.setdefault(record.partition, []).append(record.key or b"")
    assert all(len(keys) > 1 and keys.index(RULES_KEY.encode()) == len(keys) - 1 for keys in written.values())


async def test_records_that_come_again_after_a_crash_change_nothing(shop: Shop):
    await shop.send(*(an_event(i, user=f"u{i % 3}") for i in range(30)))
    async with shop.worker(stops=False) as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        await shop.send(*(an_event(i, user=f"u{i % 3}") for i in range(30, 40)))
        await shop.feed(worker)  # handled, not checkpointed
    marks = dict(shop.marks)
    shop.marks.clear()  # the commit was lost too: everything comes again

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

    assert marks
    for sections in (await shop.portraits()).values():
        assert set(messages(sections).values()) == {1}
    assert sum(len(messages(sections)) for sections in (await shop.portraits()).values()) == 40


async def test_a_checkpoint_that_breaks_off_is_made_up_for_by_the_next(shop: Shop, monkeypatch):
    await shop.send(*(an_event(i, user=f"u{i % 3}") for i in range(12)))
    append = shop.log.append

    async def broken(topic: str, records):  # type: ignore[no-untyped-def]
        if topic == CUSTOMERS.changelog:
            raise OSError("the disk is gone")
        return await append(topic, records)

    async with shop.worker() as worker:
        await shop.feed(worker)
        monkeypatch.setattr(shop.log, "append", broken)
        with pytest.raises(OSError, match="the disk is gone"):
            await worker.checkpoint()
        assert shop.marks == {}
        monkeypatch.setattr(shop.log, "append", append)
        await shop.send(an_event(99, user="u0"))
        records = await shop.all(EVENTS)
        last = next(record for record in records if b'"m99"' in (record.value or b""))
        await worker.process(last.partition, [last])
        await worker.checkpoint()

    assert sum(len(messages(sections)) for sections in (await shop.portraits()).values()) == 13


async def test_an_outage_of_the_log_holds_the_checkpoint_up_and_loses_nothing(shop: Shop, monkeypatch):
    await shop.send(*(an_event(i, user="u") for i in range(5)))
    append, refusals = shop.log.append, [3]

    async def away(topic: str, records):  # type: ignore[no-untyped-def]
        if refusals[0]:
            refusals[0] -= 1
            raise LogUnavailable("no answer")
        return await append(topic, records)

    async with shop.worker() as worker:
        await shop.feed(worker)
        monkeypatch.setattr(shop.log, "append", away)
        await worker.checkpoint()

    assert refusals == [0]
    assert messages((await shop.portraits())["w/u:u"]) == {f"m{i}": 1 for i in range(5)}


async def test_a_processor_that_raises_costs_that_record_and_leaves_nothing_half_done(shop: Shop):
    bomb = an_event(3, user="u", event="Boom")
    bomb.raw_properties = msgspec.Raw(b'{"boom":true}')
    await shop.send(an_event(1, user="u"), an_event(2, user="v"), bomb, an_event(4, user="u"))

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

    portraits = await shop.portraits()
    assert messages(portraits["w/u:u"]) == {"m1": 1, "m4": 1}
    assert messages(portraits["w/u:v"]) == {"m2": 1}
    letters = [decode_rejected(record.value or b"") for record in await shop.all("rejected")]
    (letter,) = {letter.id: letter for letter in letters}.values()
    assert (letter.processor, letter.reason, letter.value) == ("tally", "processor tally failed", "ValueError: boom")
    assert msgspec.json.decode(letter.record)["messageId"] == "m3"


async def test_what_is_no_event_goes_to_rejected_and_on(shop: Shop):
    strange = [Outgoing(b"w/u:u", b"{not json", 0), Outgoing(b"w/u:u", None, 0), Outgoing(None, b"{}", 0)]
    await shop.log.append(EVENTS, strange)
    await shop.send(an_event(1, user="u"))

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

    assert messages((await shop.portraits())["w/u:u"]) == {"m1": 1}
    letters = [decode_rejected(record.value or b"") for record in await shop.all("rejected")]
    assert sorted(letter.offset for letter in letters) == [0, 1, 2]
    assert all(letter.topic == EVENTS and letter.reason for letter in letters)


async def test_state_is_restored_from_the_changelog_alone(shop: Shop):
    await shop.send(*(an_event(i, user=f"u{i}") for i in range(20)))
    async with shop.worker() as worker:
        await shop.feed(worker)

    await shop.send(an_event(50, user="u7"))
    async with shop.worker(state="another disk") as worker:
        await shop.feed(worker)

    assert messages((await shop.portraits())["w/u:u7"]) == {"m7": 1, "m50": 1}


async def test_of_two_records_of_a_person_the_one_with_the_higher_fence_is_restored(shop: Shop):
    await shop.send(an_event(1, user="u"))
    async with shop.worker() as worker:
        await shop.feed(worker)
    newest = next(record for record in await shop.all(CUSTOMERS.changelog) if record.key == b"w/u:u")
    late = decode_customer(newest.value or b"")
    late.epoch -= 1
    late.parts["w/u:u"] = Part()  # what an owner would write that was replaced and does not know it yet
    await shop.log.append(CUSTOMERS.changelog, [Outgoing(b"w/u:u", encode_state(late), newest.partition)])

    await shop.send(an_event(2, user="u"))
    async with shop.worker(state="another disk") as worker:
        await shop.feed(worker)

    assert messages((await shop.portraits())["w/u:u"]) == {"m1": 1, "m2": 1}


async def test_a_late_writer_is_noticed_and_its_record_written_over(shop: Shop):
    await shop.send(an_event(1, user="u"), an_event(2, user="v"))
    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        partition = next(record.partition for record in await shop.all(CUSTOMERS.changelog) if record.key == b"w/u:u")
        late = Outgoing(b"w/u:u", encode_state(Customer(epoch=0, offset=0, revision=1)), partition)
        await shop.log.append(CUSTOMERS.changelog, [late])
        await shop.send(*(an_event(i, user="u") for i in range(3, 5)))
        await shop.send(*(an_event(i, user="v") for i in range(5, 7)))
        records = [r for r in await shop.all(EVENTS) if r.offset >= shop.marks.get(r.partition, 0)]
        for record in records:
            await worker.process(record.partition, [record])
        await worker.checkpoint()
        await worker.checkpoint()  # the repair is due at once

    last = [record for record in await shop.all(CUSTOMERS.changelog) if record.key == b"w/u:u"][-1]
    assert decode_customer(last.value or b"").parts["w/u:u"].applied == 3


async def test_topic_events_made_anew_is_refused_with_the_mend(shop: Shop):
    await shop.send(an_event(1, user="u"))
    async with shop.worker() as worker:
        await shop.feed(worker)
    shop.log._topics[EVENTS].id = "another"

    with pytest.raises(TidewireError, match="made anew"):
        async with shop.worker(state="another disk"):
            pass


async def test_a_timer_fires_once_after_it_is_due_and_not_before(shop: Shop):
    fold = Fold([ReminderProcessor()])
    event = an_event(1, user="u", message_id="tea")
    due_ms = event.received_ms + 60_000
    await shop.send(event)
    async with shop.worker(fold, stops=False) as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        await worker._send_ticks(due_ms - 1)
        await shop.feed(worker)
        await worker.checkpoint()
        assert (await shop.portraits())["w/u:u"]["reminders"] == {"fired": {}}

    async with shop.worker(fold, state="another disk") as worker:  # it is in the changelog, not in memory
        worker._latest_ms = 0
        for _ in range(2):  # the clock may strike twice before the first is handled
            await worker._send_ticks(due_ms)
            await worker._send_ticks(due_ms + 1)
        await worker._sender.sent(worker._sender._handed_over)
        await shop.feed(worker)
        await worker.checkpoint()
        await worker._send_ticks(due_ms + 5_000)
        await shop.feed(worker)
        await worker.checkpoint()

    assert (await shop.portraits())["w/u:u"]["reminders"] == {"fired": {"tea": 1}}
    (row,) = {(r := decode_table_row(record.value or b"")).version: r for record in await shop.all("rows")}.values()
    assert row.values == {"message": "tea", "fired": 1}


async def test_a_partition_that_is_given_up_is_out_of_memory_at_once(shop: Shop):
    """A worker that sees many owners come and go looks for garbage once in hours, if ever."""
    await shop.send(*(an_event(number, user=f"u{number}") for number in range(50)))
    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        states = [weakref.ref(owned.states) for owned in worker._owned.values()]
        stores = [weakref.ref(owned.states._store) for owned in worker._owned.values()]
        gc.collect()
        gc.disable()
        try:
            await worker.release(range(PARTITIONS))
            gone = [each() is None for each in (*states, *stores)]
        finally:
            gc.enable()

    assert gone == [True] * 2 * PARTITIONS


@pytest.mark.parametrize("hot", [1_000, 5])
async def test_of_many_timers_few_are_under_way_and_each_fires_once(shop: Shop, monkeypatch, hot: int):
    """Whether or not the people are in memory, and however seldom the disk hears of what was handled."""
    monkeypatch.setattr(CustomerStage, "room", 20)
    fold, people = Fold([ReminderProcessor()]), 150
    events = [an_event(1, user=f"u{number}", message_id=f"tea{number}") for number in range(people)]
    await shop.send(*events)
    due_ms = events[0].received_ms + 60_000

    async def ticks() -> Counter[str]:
        return Counter(record.key.decode() for record in await shop.all(EVENTS) if record.headers and record.key)

    async with shop.worker(fold, hot_states=hot) as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        rounds, are_more = 0, True
        while are_more:
            before = await ticks()
            for _ in range(2):  # what is under way makes no room
                are_more = await worker._send_ticks(due_ms)
                await worker._sender.sent(worker._sender._handed_over)
            sent = Counter(partition_of(key.encode(), PARTITIONS) for key in (await ticks() - before))
            assert max(sent.values(), default=0) <= 20
            await shop.feed(worker)
            rounds += 1
            if rounds % 3 == 0:
                await worker.checkpoint()
            assert rounds < 50
        await worker.checkpoint()
        assert not await worker._send_ticks(due_ms)

    assert rounds > 2
    fired = [shown["reminders"]["fired"] for shown in (await shop.portraits()).values()]
    assert sorted(name for each in fired for name in each) == sorted(f"tea{number}" for number in range(people))
    assert {count for each in fired for count in each.values()} == {1}
    if hot > people:
        assert set((await ticks()).values()) == {1}


async def test_a_timer_is_not_early_by_the_clock_of_the_log_when_that_of_the_worker_is_ahead(shop: Shop, monkeypatch):
    monkeypatch.setattr("streams.worker.TICK_AGAIN_S", 0.0)
    fold = Fold([ReminderProcessor()])
    almost_a_minute_ago = datetime.now(UTC) - timedelta(seconds=58)
    event = msgspec.structs.replace(an_event(1, user="u", message_id="tea"), received_at=almost_a_minute_ago)
    hour_ms = 3_600_000
    await shop.send(event)
    async with shop.worker(fold) as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        while not (await shop.portraits())["w/u:u"]["reminders"]["fired"]:
            await worker._send_ticks(time.time_ns() // 1_000_000 + hour_ms)
            await worker._sender.sent(worker._sender._handed_over)
            await shop.feed(worker)
            await worker.checkpoint()
            await asyncio.sleep(0.1)

    fired = await shop.all("rows")
    ticks = [record for record in await shop.all(EVENTS) if record.headers]
    assert len(ticks) > 1
    assert min(record.timestamp_ms for record in fired) >= event.received_ms + 60_000


async def test_a_timer_that_a_part_brings_behind_the_tick_of_another_that_was_due_then_is_told(shop: Shop):
    tea, coffee = an_event(1, user="u", message_id="tea"), an_event(1, anonymous="a", message_id="coffee")
    due_ms = tea.received_ms + 60_000
    async with shop.worker(Fold([ReminderProcessor()])) as worker:

        async def tick(now_ms: int) -> None:
            await worker._send_ticks(now_ms)
            await worker._sender.sent(worker._sender._handed_over)

        await shop.send(tea, coffee)
        await shop.feed(worker)
        await worker.checkpoint()
        await shop.send(an_event(2, user="u", anonymous="a"))
        (claim,) = [record for record in await shop.all(EVENTS) if record.offset >= shop.marks[record.partition]]
        await worker.process(claim.partition, [claim])
        await worker._sender.sent(worker._sender._handed_over)
        await tick(due_ms)  # hers stands before the part that comes, and that of the part behind its leaving
        await shop.feed(worker)
        await worker.checkpoint()
        before = (await shop.portraits())["w/u:u"]["reminders"]
        await tick(due_ms + 1)
        await shop.feed(worker)
        await worker.checkpoint()

    assert before == {"fired": {"tea": 1}}
    assert (await shop.portraits())["w/u:u"]["reminders"] == {"fired": {"coffee": 1, "tea": 1}}


async def test_a_worker_that_stood_still_writes_nothing_more(shop: Shop):
    failures: list[BaseException] = []
    await shop.send(an_event(1, user="u"))
    async with shop.worker(stops=False) as worker:
        worker._lease_s = 5.0
        worker._on_failure = failures.append
        await shop.feed(worker)
        worker._alive_at = time.monotonic() - 6.0

        with pytest.raises(RuntimeError, match="stood still"):
            await worker.checkpoint()

    assert [record for record in await shop.all(CUSTOMERS.changelog) if record.key == b"w/u:u"] == []


async def test_people_leave_memory_and_come_back_from_the_disk(shop: Shop):
    people = 300  # more than the worker keeps in memory
    await shop.send(*(an_event(i, user=f"u{i}") for i in range(people)))

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()
        in_memory = sum(owned.states.hot_count for owned in worker._owned.values())
        await shop.send(*(an_event(people + i, user=f"u{i}") for i in range(people)))
        await shop.feed(worker)

    assert in_memory == PARTITIONS * 100
    portraits = await shop.portraits()
    assert all(messages(portraits[f"w/u:u{i}"]) == {f"m{i}": 1, f"m{people + i}": 1} for i in range(people))


async def test_checkpoints_that_take_long_come_less_often_but_never_seldom(shop: Shop, monkeypatch):
    append, clock, delay_s = shop.log.append, [1_000.0], [0.05]

    async def slow(topic: str, records):  # type: ignore[no-untyped-def]
        clock[0] += delay_s[0] if topic == CUSTOMERS.changelog else 0.0
        return await append(topic, records)

    async with shop.worker() as worker:
        worker._checkpoint_s = 0.01
        monkeypatch.setattr(shop.log, "append", slow)
        monkeypatch.setattr("streams.worker.time", SimpleNamespace(monotonic=lambda: clock[0], time_ns=time.time_ns))
        intervals = []
        for delay_s[0] in (0.05, 0.5, 0.0):
            await shop.send(an_event(len(intervals), user="u"))
            await shop.feed(worker)
            await worker.checkpoint()
            intervals.append(worker._interval_s)
        monkeypatch.undo()

    assert intervals == [pytest.approx(0.2), 1.0, 0.01]  # four times as long, at most a second, and again as it was
