"""A partition stops rather than empty itself into dead letters, and goes on when a person says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processors.fold import Fold
from schemas.errors import Refused, TidewireError
from schemas.event import Event, encode_event
from schemas.keyed import encode_state
from schemas.rows import decode_ledger_line
from streams.dead_letters import MOST_IN_A_ROW, DeadLetterLimit
from streams.lines import EVENTS
from streams.log import Outgoing, partition_of
from streams.outbox import Outbox
from streams.partitions import let_go_on
from streams.stage import MOST_HELD_BYTES, Arrival, CustomerStage
from streams.worker import LARGEST_STATE_BYTES
from tests.streams.test_worker import Shop
from tests.streams.world import TallyProcessor, World, an_event

JUNK = b"no event"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path)
    await shop.open()
    yield shop
    await shop.log.stop()


async def put(shop: Shop, *values: bytes | Event, partition: int = 0) -> None:
    await shop.log.append(EVENTS, [
        Outgoing(value.key.encode(), encode_event(value), partition) if isinstance(value, Event)
        else Outgoing(b"w/u:x", value, partition) for value in values])  # fmt: skip


def of_partition(partition: int, number: int) -> Event:
    """An event whose person lives in the partition."""
    user = next(f"u{i}" for i in range(100) if partition_of(f"w/u:u{i}".encode(), 2) == partition)
    return an_event(number, user=user)


async def kinds(shop: Shop) -> list[str]:
    return [decode_ledger_line(record.value or b"").kind for record in await shop.all("decisions")]


async def test_a_hundred_unreadable_records_in_a_row_stop_their_partition_and_no_other(shop: Shop):
    await put(shop, of_partition(0, 1), *[JUNK] * 150, of_partition(0, 2))
    await put(shop, of_partition(1, 3), partition=1)

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

        assert len(await shop.all("rejected")) == MOST_IN_A_ROW
        assert shop.marks == {0: 1 + MOST_IN_A_ROW, 1: 1}
        assert shop.reading.paused == {0}
        assert worker.behind == 0  # what stands still must not look like a worker that hangs
        assert await kinds(shop) == ["partition_stopped"]


async def test_a_stopped_partition_stays_so_through_a_restart_and_on_another_disk(shop: Shop):
    await put(shop, *[JUNK] * 150)
    async with shop.worker() as worker:
        await shop.feed(worker)

    for state in ("state", "another"):
        async with shop.worker(state=state) as worker:
            await shop.feed(worker)

            assert shop.reading.paused == {0}
    assert len(await shop.all("rejected")) == MOST_IN_A_ROW


async def test_it_goes_on_where_it_stopped_when_a_person_says_so(shop: Shop):
    await put(shop, *[JUNK] * 150, of_partition(0, 1))
    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

        await let_go_on(shop.log, 0, by="anna")
        await worker._look_whether_to_go_on()
        await worker.checkpoint()

        assert shop.reading.paused == set()
        assert len(await shop.all("rejected")) == 150
        assert [set(sections["tally"]["messages"]) for sections in (await shop.portraits()).values()] == [{"m1"}]  # type: ignore[index]
        assert await kinds(shop) == ["partition_stopped", "partition_goes_on"]


async def test_it_stops_again_at_the_next_hundred_unless_they_are_let_through(shop: Shop):
    await put(shop, *[JUNK] * 450)
    async with shop.worker() as worker:
        await shop.feed(worker)

        await let_go_on(shop.log, 0, by="anna")
        await worker._look_whether_to_go_on()
        await worker.checkpoint()
        assert len(await shop.all("rejected")) == 2 * MOST_IN_A_ROW

        await let_go_on(shop.log, 0, by="anna", let_through=True)
        await worker._look_whether_to_go_on()
        await worker.checkpoint()
        assert len(await shop.all("rejected")) == 450


async def test_a_processor_that_always_fails_stops_the_partition(shop: Shop):
    class Broken(TallyProcessor):
        def apply(self, state, event, person, now_ms):  # type: ignore[no-untyped-def]
            raise RuntimeError("a bug")

    await put(shop, *(of_partition(0, number) for number in range(300)))
    async with shop.worker(Fold([Broken()])) as worker:
        await shop.feed(worker)
        assert shop.reading.paused == {0}
        assert len(await shop.all("rejected")) == MOST_IN_A_ROW

    async with shop.worker() as worker:  # the processor was mended
        await let_go_on(shop.log, 0, by="anna")
        await shop.feed(worker)
        await worker._look_whether_to_go_on()
        await worker.checkpoint()

    (sections,) = (await shop.portraits()).values()
    assert len(sections["tally"]["messages"]) == 300 - MOST_IN_A_ROW  # type: ignore[index]


async def test_what_senders_get_refused_for_stops_nothing(shop: Shop):
    class Strict(TallyProcessor):
        def check(self, event: Event) -> None:
            raise Refused("not like this")

    await put(shop, *(of_partition(0, number) for number in range(300)))
    async with shop.worker(Fold([Strict()])) as worker:
        await shop.feed(worker)

    assert shop.reading.paused == set()
    assert len(await shop.all("rejected")) == 300


async def test_there_is_no_letting_go_on_of_a_partition_that_is_not(shop: Shop):
    with pytest.raises(TidewireError, match="there is no partition 7: topic `events` has 0 to 1"):
        await let_go_on(shop.log, 7, by="anna")


def test_more_than_a_tenth_of_a_thousand_records_is_too_many():
    limit = DeadLetterLimit()
    for offset in range(0, 1_000, 10):
        limit.count(offset)
    assert not limit.why  # exactly a tenth

    limit.count(999)

    assert "more than 100 of 1000" in limit.why


def test_what_is_handled_once_more_is_not_counted_twice():
    limit = DeadLetterLimit()
    for offset in range(60):
        limit.count(offset)

    limit.back_to(0)
    for offset in range(60):
        limit.count(offset)

    assert not limit.why


def test_a_person_of_very_many_large_histories_is_cut_to_what_the_log_takes():
    world = World(most_links=10_000)
    for i in range(600):
        world.send(an_event(i, anonymous=f"a{i % 60}", message_id=f"{i}-" + "x" * 90))
    for i in range(60):
        world.send(an_event(1_000 + i, user="u", anonymous=f"a{i}"))
    world.settle()
    customer = next(owner.records["w/u:u"] for owner in world.owners if "w/u:u" in owner.records)
    size = len(encode_state(customer))
    out = Outbox({})
    world.stage.shrink("w/u:u", customer, size // 2, out)

    assert len(encode_state(customer)) < size // 2
    assert customer.parts["w/u:u"].sections  # her own history stays
    (line,) = (decode_ledger_line(each.value or b"") for each in out.messages["decisions"])
    assert line.kind == "history_left_out"


async def test_a_checkpoint_shrinks_what_outgrew_the_limit(shop: Shop, monkeypatch):
    monkeypatch.setattr("streams.worker.LARGEST_STATE_BYTES", 2_000)
    await put(shop, *(of_partition(0, number) for number in range(400)))

    async with shop.worker() as worker:
        await shop.feed(worker)
        await worker.checkpoint()

    (changed,) = (record for record in await shop.all("customers") if record.key and record.key[0])
    assert len(changed.value or b"") < 2_000
    assert await kinds(shop) == ["history_left_out"]


def test_what_waits_for_history_is_bounded_by_its_size():
    stage = CustomerStage(Fold([TallyProcessor()]), partitions=1, most_links=10)
    customer = stage.State(held=[b"x" * (MOST_HELD_BYTES + 1)])
    event = an_event(1, user="u")
    out = Outbox({})
    out.begin("events-0@1", 0)
    stage._hold("w/u:u", customer, Arrival("w/u:u", "events-0", 1, event, encode_event(event)), out)

    assert len(customer.held) == 1
    assert len(out.messages["rejected"]) == 1
    assert LARGEST_STATE_BYTES > 2 * MOST_HELD_BYTES


async def test_an_order_that_comes_before_the_note_of_the_stop_is_heard_and_holds(shop: Shop):
    await put(shop, *[JUNK] * 150)
    async with shop.worker() as worker:
        await shop.feed(worker)  # stopped, and not yet checkpointed
        await let_go_on(shop.log, 0, by="anna")
        await worker.checkpoint()
        await worker._look_whether_to_go_on()
        await worker.checkpoint()
        assert len(await shop.all("rejected")) == 150

    async with shop.worker(state="another"):
        assert shop.reading.paused == set()
