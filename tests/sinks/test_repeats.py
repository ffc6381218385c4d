"""What the sink inserts again is stored once: told by tables as they are, without FINAL and with merging stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors.base import Table
from sinks.analytics import Analytics
from sinks.batch import TOPICS
from sinks.clickhouse import FIRST_WAIT_S, GROUP, ClickHouseSink, behind
from sinks.migrate import migrate
from sinks.repeats import has_been_seen, open_plans, plan_of, records_of
from streams.embedded import EmbeddedLog
from streams.log import TP, Record, Subscription
from tests.sinks.feed import embedded_log, event_json, portrait, put
from tests.sinks.server import Bridge

RAW = "SELECT count() AS rows, uniqExact(message_id) AS ids FROM events"
RAW_PEOPLE = "SELECT count() AS rows, uniqExact(key) AS ids FROM people"


class Settings(msgspec.Struct):
    sink_batch: int = 100
    sink_wait_ms: int = 20


class Killed(Exception):
    """The sink ends here, as if it were killed: it commits nothing and closes nothing in order."""


class KilledSink(ClickHouseSink):
    """Is killed at some moment of its second batch."""

    def __init__(self, *args: Any, at: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at = at
        self.batches = 0

    async def store(self, batch: Any, name: str = "", *, is_repeat: bool = False) -> None:
        self.batches += 1
        if self.batches == 2 and self.at == "before the inserts":
            raise Killed
        if self.batches == 2 and self.at == "between two inserts":
            del batch.rows[1:]
        await super().store(batch, name, is_repeat=is_repeat)
        if self.batches == 2:
            raise Killed


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with embedded_log(tmp_path) as log:
        yield log


@pytest.fixture
async def server(bridge: Bridge) -> AsyncIterator[Analytics]:
    """A server, migrated, that merges nothing."""
    analytics = Analytics(bridge.url)
    await migrate(analytics)
    await stop_merges(analytics)
    yield analytics
    await analytics.close()


async def stop_merges(analytics: Analytics) -> None:
    for table in ("events", "people", "identities", "decisions", "rejected"):
        await analytics.command(f"SYSTEM STOP MERGES {table}")


async def caught_up(log: EmbeddedLog, analytics: Analytics, tables: tuple[Table, ...] = ()) -> None:
    """Run a sink until it has nothing left."""
    sink = ClickHouseSink(log, analytics, tables, Settings(), first_wait_s=0.1)
    task = asyncio.create_task(sink.run())
    async with asyncio.timeout(30):
        while await behind(log):
            if task.done():
                break
            await log.grown(0.02)
    await sink.stop()
    await task


async def killed(log: EmbeddedLog, analytics: Analytics, at: str) -> None:
    sink = KilledSink(log, analytics, (), Settings(), first_wait_s=0.1, at=at)
    with pytest.raises(Killed):
        await sink.run()


async def some_of_everything(log: EmbeddedLog, numbers: range) -> None:
    await put(log, "events", [event_json(n) for n in numbers])
    await put(log, "profiles", [portrait(f"shop/u:{n}", 1) for n in numbers])


# --- plans


def record(offset: int, topic: str = "events", at_ms: int = 0) -> Record:
    return Record(topic, 0, offset, at_ms + offset, b"k", b"v")


def test_the_same_records_have_the_same_plan_and_no_others_have() -> None:
    records = [record(3), record(4), record(7), record(1, "rows")]

    plan = plan_of(records)

    assert plan.ranges == {TP("events", 0): (3, 8), TP("rows", 0): (1, 2)}
    assert plan == plan_of([records[3], *records[:3]])
    others = [records[1:], records[:3], [record(3), *records[2:]], [record(3, at_ms=5), *records[1:]]]
    assert len({plan.name, *(plan_of(each).name for each in others)}) == 5


async def test_a_plan_that_was_written_down_is_found_with_its_records(log: EmbeddedLog) -> None:
    await some_of_everything(log, range(20))
    member = await log.subscribe(GROUP, TOPICS)
    records = [each for of in (await member.poll(30, 1)).values() for each in of]
    plan = plan_of(records)

    await member.commit(plan.starts, plan.notes)
    (found,) = await open_plans(log, GROUP, TOPICS)
    again = await records_of(log, found)

    assert found == plan
    assert sorted(again) == sorted(records)


async def test_a_plan_that_was_committed_in_part_is_known_only_if_it_is_said_to_be_stored(log: EmbeddedLog) -> None:
    await some_of_everything(log, range(20))
    member = await log.subscribe(GROUP, TOPICS)
    plan = plan_of(each for of in (await member.poll(100, 1)).values() for each in of)
    await member.commit(plan.starts, plan.notes)
    first, *others = plan.ranges

    await member.commit({first: plan.ends[first]})
    in_part = await open_plans(log, GROUP, TOPICS)
    said = plan._replace(is_stored=True)
    await member.commit({others[0]: plan.starts[others[0]]}, said.notes)
    (stored,) = await open_plans(log, GROUP, TOPICS)

    assert in_part == []
    assert (stored.name, stored.is_stored, set(stored.ranges)) == (plan.name, True, set(others))
    assert await has_been_seen(log, GROUP, plan, [first, others[0]])
    assert not await has_been_seen(log, GROUP, plan, others)


# --- tokens


async def test_an_insert_with_a_known_token_stores_nothing_and_one_without_always_does(either: Analytics) -> None:
    await migrate(either)
    await stop_merges(either)
    columns: Mapping[str, list[Any]] = {"workspace": ["w"], "key": ["k"], "person": ["p"]}

    for token in ("a", "a", "b", "a"):
        await either.insert("identities", columns, token)
    with_tokens = await either.query("SELECT count() AS rows FROM identities")
    for _ in range(3):
        await either.insert("identities", columns)

    assert with_tokens == [{"rows": 2}]
    assert await either.query("SELECT count() AS rows FROM identities") == [{"rows": 5}]


async def test_every_table_remembers_tokens(either: Analytics) -> None:
    class Visit(msgspec.Struct):
        number: int

    table = Table("visits", Visit, ("number",), "Visits.")
    await migrate(either, [table])
    await either.command("ALTER TABLE visits RESET SETTING non_replicated_deduplication_window")  # as made before
    await migrate(either, [table])

    names = await either.query_columns(
        "SELECT name FROM system.tables WHERE engine = 'ReplacingMergeTree' AND name != 'migrations' "
        "AND database = currentDatabase() AND engine_full NOT LIKE '%non_replicated_deduplication_window = 1000%'"
    )

    assert names["name"] == []


async def test_a_life_ends_with_its_server(bridge: Bridge) -> None:
    analytics = Analytics(bridge.url)
    first, again = await analytics.life(), await analytics.life()
    other = Analytics(bridge.url)
    elsewhere = await other.life()
    bridge.kill()
    bridge.start()
    await analytics.close()
    await other.close()
    analytics = Analytics(bridge.url)
    after = await analytics.life()
    await analytics.close()

    assert first == again == elsewhere
    assert after != first


# --- the sink


async def test_answers_that_are_lost_double_no_row(log: EmbeddedLog, server: Analytics, bridge: Bridge) -> None:
    await some_of_everything(log, range(300))
    await asyncio.to_thread(bridge.make_trouble, drop=6)

    await caught_up(log, server)

    assert await server.query(RAW) == [{"rows": 300, "ids": 300}]
    assert await server.query(RAW_PEOPLE) == [{"rows": 300, "ids": 300}]


@pytest.mark.parametrize("at", ["before the inserts", "between two inserts", "before the commit"])
async def test_a_sink_that_was_killed_is_followed_by_one_that_stores_exactly_what_is_missing(
    log: EmbeddedLog, server: Analytics, at: str
) -> None:
    await some_of_everything(log, range(130))

    await killed(log, server, at)
    await some_of_everything(log, range(130, 500))  # so that batches would be cut elsewhere
    await caught_up(log, server)

    assert await server.query(RAW) == [{"rows": 500, "ids": 500}]
    assert await server.query(RAW_PEOPLE) == [{"rows": 500, "ids": 500}]


async def test_one_that_is_killed_while_it_carries_out_a_plan_is_no_worse(log: EmbeddedLog, server: Analytics) -> None:
    class KilledAgain(ClickHouseSink):
        async def store(self, batch: Any, name: str = "", *, is_repeat: bool = False) -> None:
            await super().store(batch, name, is_repeat=is_repeat)
            if is_repeat:
                raise Killed

    await some_of_everything(log, range(130))
    await killed(log, server, "before the commit")
    await some_of_everything(log, range(130, 500))

    for _ in range(2):
        with pytest.raises(Killed):
            await KilledAgain(log, server, (), Settings()).run()
    await caught_up(log, server)

    assert await server.query(RAW) == [{"rows": 500, "ids": 500}]


async def test_rows_are_inserted_again_after_clickhouse_died_for_its_tokens_may_be_of_rows_it_lost(
    log: EmbeddedLog, bridge: Bridge
) -> None:
    analytics = Analytics(bridge.url)
    await migrate(analytics)
    await put(log, "events", [event_json(n) for n in range(130)])
    await killed(log, analytics, "before the commit")
    await analytics.close()
    bridge.kill()
    bridge.start()

    analytics = Analytics(bridge.url)
    await stop_merges(analytics)
    await caught_up(log, analytics)

    stored, read = [(await analytics.query(f"SELECT count() AS n FROM {name}"))[0]["n"]
                    for name in ("events", "event_log")]  # fmt: skip
    await analytics.close()
    assert (stored, read) == (160, 130)  # the batch of 30 that was not committed, twice


async def test_a_life_that_ends_between_an_insert_and_its_check_is_noticed(
    log: EmbeddedLog, server: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = iter(["one", "two"])  # it answers, dies, and answers again
    life: Callable[[], Any] = server.life

    async def changing() -> str:
        return next(lives, "") or await life()

    await put(log, "events", [event_json(n) for n in range(130)])
    await killed(log, server, "before the inserts")
    tokens: list[str] = []
    insert: Callable[..., Any] = server.insert

    async def told(table: str, columns: Any, token: str = "") -> None:
        tokens.append(token)
        await insert(table, columns, token)

    monkeypatch.setattr(server, "life", changing)
    monkeypatch.setattr(server, "insert", told)

    await caught_up(log, server)

    first, second = [token.split(":")[-2] for token in tokens][:2]
    assert first == "one"
    assert second not in ("one", "two")


async def test_another_member_carries_out_the_plan_of_one_that_died(log: EmbeddedLog, server: Analytics) -> None:
    await some_of_everything(log, range(200))
    one: Subscription = await log.subscribe(GROUP, TOPICS)
    dying = KilledSink(log, server, (), Settings(), first_wait_s=0.1, at="before the commit")
    living = ClickHouseSink(log, server, (), Settings(), first_wait_s=0.1)
    await one.close()

    task = asyncio.create_task(living.run())
    with pytest.raises(Killed):
        async with asyncio.timeout(20):
            at = 200
            ending = asyncio.create_task(dying.run())
            while not ending.done():
                await some_of_everything(log, range(at, at + 50))
                at += 50
                await asyncio.sleep(0.05)
            await ending
    async with asyncio.timeout(30):
        while await behind(log):
            await log.grown(0.02)
    await living.stop()
    await task

    assert await server.query(RAW) == [{"rows": at, "ids": at}]


async def test_a_plan_whose_partitions_went_to_two_members_is_stored_once_by_both(
    log: EmbeddedLog, server: Analytics
) -> None:
    await some_of_everything(log, range(130))
    await killed(log, server, "before the inserts")
    await some_of_everything(log, range(130, 500))
    sinks = [ClickHouseSink(log, server, (), Settings(), first_wait_s=0.1) for _ in range(2)]
    subscribe: Callable[..., Any] = log.subscribe
    members = asyncio.Barrier(2)

    async def subscribe_together(group: str, topics: Any) -> Subscription:
        member: Subscription = await subscribe(group, topics)
        await members.wait()  # so that neither has all partitions when it looks for plans
        return member

    log.subscribe = subscribe_together  # type: ignore[method-assign]

    tasks = [asyncio.create_task(sink.run()) for sink in sinks]
    async with asyncio.timeout(30):
        while await behind(log):
            await log.grown(0.02)
    for sink in sinks:
        await sink.stop()
    await asyncio.gather(*tasks)

    assert all(sink.metrics.inserts.labels("events")._value.get() for sink in sinks)
    assert await server.query(RAW) == [{"rows": 500, "ids": 500}]
    assert await server.query(RAW_PEOPLE) == [{"rows": 500, "ids": 500}]


async def test_it_tries_at_most_once_a_second(log: EmbeddedLog, server: Analytics, bridge: Bridge) -> None:
    await put(log, "events", [event_json(1)])
    await asyncio.to_thread(bridge.make_trouble, fail=2, fail_code=252)
    sink = ClickHouseSink(log, server, (), Settings())

    began = time.monotonic()
    task = asyncio.create_task(sink.run())
    while await behind(log):
        await log.grown(0.02)
    took_s = time.monotonic() - began
    await sink.stop()
    await task

    assert sink.metrics.retries._value.get() == 2
    assert took_s >= 2 * FIRST_WAIT_S
