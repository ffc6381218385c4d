"""The sink: what the log says is in ClickHouse, once, whatever happens between."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from processors.base import Table
from schemas.internal import HEADERS, Tick, encode_internal
from schemas.rejected import decode_rejected
from schemas.rows import LedgerLine, encode_json
from sinks.analytics import Analytics, ClickHouseAway
from sinks.batch import TOPICS
from sinks.clickhouse import GROUP, ClickHouseSink, behind
from streams.embedded import EmbeddedLog
from streams.log import TP, LogUnavailable, Outgoing, Subscription
from tests.sinks.conftest import Bridge
from tests.sinks.feed import NOON, embedded_log, event_json, iso, portrait, put, refusal, table_row, with_raw

COUNT = "SELECT count() AS events, uniqExact(message_id) AS ids, sum(revenue) AS revenue FROM event_log"


class Visit(msgspec.Struct):
    number: int
    source: str = ""
    tags: dict[str, str] = {}


class Basket(msgspec.Struct):
    number: int
    value: Decimal = Decimal(0)
    tree: Annotated[dict[str, Any], "JSON"] = {}


TABLES = (Table("visits", Visit, ("number",), "Visits."), Table("baskets", Basket, ("number",), "Baskets."))


class Settings(msgspec.Struct):
    sink_batch: int = 20_000
    sink_wait_ms: int = 20


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with embedded_log(tmp_path) as log:
        yield log


@asynccontextmanager
async def running(log: EmbeddedLog, analytics: Analytics, **settings: int) -> AsyncIterator[ClickHouseSink]:
    sink = ClickHouseSink(log, analytics, TABLES, Settings(**settings), first_wait_s=0.1)
    task = asyncio.create_task(sink.run())
    try:
        yield sink
    finally:
        await sink.stop()
        await task


async def caught_up(log: EmbeddedLog, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while await behind(log):
            await log.grown(0.02)


async def store(log: EmbeddedLog, analytics: Analytics, **settings: int) -> ClickHouseSink:
    """Run a sink until it has caught up."""
    async with running(log, analytics, **settings) as sink:
        await caught_up(log)
        await asyncio.sleep(0)
    return sink


def expected(numbers: Sequence[int]) -> dict[str, Any]:
    revenue = sum((Decimal(number % 50) + Decimal("0.25") for number in numbers), Decimal(0))
    return {"events": len(numbers), "ids": len(numbers), "revenue": revenue}


# --- what is stored


async def test_every_topic_is_stored_and_committed(log: EmbeddedLog, either: Analytics) -> None:
    line = LedgerLine(id="d1", workspace="shop", person="shop/a:1", at=NOON, processor="identity", kind="merged",
                      about="shop/a:1", cause="events-0@7", facts={"why": "seen together", "times": 2})  # fmt: skip
    sections = {
        "profile": {"user_id": "7", "email": "a@b.c", "name": "Ann", "first_seen": iso(NOON), "events": 3,
                    "traits": {"plan": "pro", "a.b": 1}, "trait_history": {}},
        "visits": {"visits": 2}, "orders": {"orders": 1, "revenue": {"EUR": "12.3400"}, "first_at": iso(NOON)},
    }  # fmt: skip
    await put(log, "events", [event_json(n) for n in range(50)])
    await put(log, "profiles", [portrait("shop/u:7", 3, ["shop/a:1"], moves=1, sections=sections)])
    await put(log, "rows", [table_row("visits", {"number": 4, "source": "news", "tags": {"a": "b"}}, key="shop/a:1"),
                            table_row("baskets", {"number": 1, "value": "2.50", "tree": {"x": [1]}})])  # fmt: skip
    await put(log, "decisions", [encode_json(line)])
    await put(log, "rejected", [refusal(b'{"total": "\xff"}', by="collector", topic="")])

    sink = await store(log, either)

    assert await either.query(COUNT) == [expected(range(50))]
    people = await either.query("SELECT * EXCEPT (sections, updated_at) FROM person_list")
    assert people == [{
        "workspace": "shop", "person": "shop/u:7", "user_id": "7", "name": "Ann", "email": "a@b.c", "phone": "",
        "company": "", "locale": "", "timezone": "", "first_seen": NOON, "last_seen": None, "events": 3, "visits": 2,
        "orders": 1, "revenue": {"EUR": Decimal("12.3400")}, "first_order_at": NOON, "last_order_at": None,
        "traits": {"plan": "pro", "a.b": 1}, "identities": ["shop/u:7", "shop/a:1"], "revision": 3,
    }]  # fmt: skip
    visits = await either.query("SELECT person, number, source, tags FROM visits_list")
    assert visits == [{"person": "shop/u:7", "number": 4, "source": "news", "tags": {"a": "b"}}]
    baskets = await either.query("SELECT number, value, tree FROM baskets_list")
    assert baskets == [{"number": 1, "value": Decimal("2.5"), "tree": {"x": [1]}}]
    decisions = await either.query("SELECT person, recorded_for, kind, facts FROM decision_log")
    assert decisions == [{"person": "shop/u:7", "recorded_for": "shop/a:1", "kind": "merged",
                          "facts": {"why": "seen together", "times": 2}}]  # fmt: skip
    rejected = await either.query("SELECT id, refused_by, reason, base64Encode(record) AS record FROM rejected_list")
    assert rejected == [{"id": "letter-1", "refused_by": "collector", "reason": "total is no number",
                         "record": "eyJ0b3RhbCI6ICL/In0="}]  # fmt: skip
    assert await behind(log) == 0
    assert sink.metrics.rows.labels("events")._value.get() == 50


async def test_small_batches_are_gathered_until_the_wait_is_over(log: EmbeddedLog, analytics: Analytics) -> None:
    async with running(log, analytics, sink_wait_ms=400) as sink:
        for number in range(20):
            await put(log, "events", [event_json(number)])
            await asyncio.sleep(0.005)
        await caught_up(log)

    assert sink.metrics.inserts.labels("events")._value.get() == 1


async def test_a_batch_is_no_larger_than_it_may_be(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [event_json(n) for n in range(100)])

    sink = await store(log, analytics, sink_batch=30)

    assert sink.metrics.inserts.labels("events")._value.get() >= 4
    assert await analytics.query(COUNT) == [expected(range(100))]


@asynccontextmanager
async def storing_forever(
    log: EmbeddedLog, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[ClickHouseSink, asyncio.Event]]:
    """A sink in the middle of its first insert, which goes on when the event is set."""
    begun, may_end, insert = asyncio.Event(), asyncio.Event(), analytics.insert

    async def slow(table: str, columns: Any, token: str = "") -> None:
        begun.set()
        await may_end.wait()
        await insert(table, columns, token)

    monkeypatch.setattr(analytics, "insert", slow)
    async with running(log, analytics, sink_batch=20) as sink:
        await begun.wait()
        yield sink, may_end


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


async def test_while_a_batch_is_stored_the_next_is_read_and_no_more(
    log: EmbeddedLog, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    await put(log, "events", [event_json(n) for n in range(100)])

    async with storing_forever(log, analytics, monkeypatch) as (sink, may_end):
        read_rows = sink._reader.read
        monkeypatch.setattr(sink._reader, "read", lambda records: (read.append(len(records)), read_rows(records))[1])
        await until(lambda: bool(read))
        await asyncio.sleep(0.2)
        read_meanwhile, not_committed = list(read), await behind(log)
        may_end.set()
        await caught_up(log)

    assert (read_meanwhile, not_committed) == ([20], 100)
    assert await analytics.query(COUNT) == [expected(range(100))]


async def test_what_was_read_ahead_when_it_is_stopped_comes_again(
    log: EmbeddedLog, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(log, "events", [event_json(n) for n in range(100)])

    async with storing_forever(log, analytics, monkeypatch) as (sink, may_end):
        await until(lambda: sink._next is not None and sink._next.done())
        stopping = asyncio.create_task(sink.stop())
        await asyncio.sleep(0)
        may_end.set()
        await stopping
    left, stored = await behind(log), await analytics.query("SELECT count() AS events FROM event_log")
    await store(log, analytics)

    assert (left, stored) == (80, [{"events": 20}])
    assert await analytics.query(COUNT) == [expected(range(100))]


# --- read once


async def forget(log: EmbeddedLog, random_: random.Random | None = None) -> None:
    """Set the group back, as after a crash between insert and commit: to the beginning, or to somewhere."""
    offsets = {}
    for topic in TOPICS:
        for partition, (first, after) in (await log.bounds(topic)).items():
            offsets[TP(topic, partition)] = random_.randint(first, after) if random_ else first
    await log.commit(GROUP, offsets)


async def test_rows_that_come_again_after_a_crash_are_read_once(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [event_json(n) for n in range(500)])
    await put(log, "rows", [table_row("visits", {"number": n}, version=n % 3 + 1) for n in range(30)])
    sink = await store(log, analytics)
    stored = sink.metrics.rows.labels("events")._value.get()
    dice = random.Random(5)

    for size in (500, 37, 130):  # the same records, cut into other batches
        await forget(log, None if size == 500 else dice)
        sink = await store(log, analytics, sink_batch=size)
        stored += sink.metrics.rows.labels("events")._value.get()

    assert stored > 1_000, "too little was repeated to show anything"
    assert await analytics.query(COUNT) == [expected(range(500))]
    assert await analytics.query("SELECT count() AS visits FROM visits_list") == [{"visits": 30}]


async def test_the_sink_is_killed_between_insert_and_commit(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [event_json(n) for n in range(300)])
    committing = asyncio.Event()

    class Hanging(ClickHouseSink):
        async def _turn(self, subscription: Subscription) -> None:
            async def hang(offsets: Mapping[TP, int]) -> None:
                committing.set()
                await asyncio.Event().wait()

            subscription.commit = hang  # type: ignore[method-assign]
            await super()._turn(subscription)

    killed = asyncio.create_task(Hanging(log, analytics, TABLES, Settings()).run())
    await committing.wait()
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    after_the_kill = await behind(log)
    await put(log, "events", [event_json(n) for n in range(300, 310)])
    await store(log, analytics, sink_batch=64)

    assert after_the_kill == 300
    assert await analytics.query(COUNT) == [expected(range(310))]


async def test_an_event_sent_again_later_keeps_its_first_time(log: EmbeddedLog, analytics: Analytics) -> None:
    first, later = NOON, NOON + timedelta(hours=5)
    await put(log, "events", [event_json(1, receivedAt=iso(later), timestamp=iso(later)),
                              event_json(1, receivedAt=iso(first), timestamp=iso(first))])  # fmt: skip

    await store(log, analytics, sink_batch=1)

    assert await analytics.query("SELECT received_at FROM event_log") == [{"received_at": first}]


async def test_two_sources_may_use_the_same_message_ids(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [event_json(1), event_json(1, source="app"), event_json(1, workspace="other")])

    await store(log, analytics)

    assert await analytics.query("SELECT count() AS events FROM event_log") == [{"events": 3}]


@pytest.mark.parametrize("letter_first", [False, True])
async def test_what_the_stage_refused_is_taken_back_until_it_is_mended(
    log: EmbeddedLog, analytics: Analytics, letter_first: bool
) -> None:
    body, again = event_json(1, properties={"total": "cheap"}), event_json(1, properties={"total": 9}, attempt=1)
    steps = [("events", body), ("rejected", refusal(body))]

    for topic, value in reversed(steps) if letter_first else steps:
        await put(log, topic, [value])
        await store(log, analytics)
    refused = await analytics.query("SELECT message_id FROM event_log")
    await put(log, "events", [again])
    await store(log, analytics)
    await forget(log)
    await store(log, analytics)

    assert refused == []
    assert await analytics.query("SELECT message_id, attempt, revenue FROM event_log") == [
        {"message_id": "m-1", "attempt": 1, "revenue": Decimal(9)}
    ]
    assert len(await analytics.query("SELECT id FROM rejected_list")) == 1


async def test_what_the_collector_refused_takes_nothing_back(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [event_json(1)])
    await put(log, "rejected", [refusal(event_json(1), by="collector", topic="")])

    await store(log, analytics)

    assert await analytics.query(COUNT) == [expected([1])]


async def test_history_joins_its_person_and_leaves_her_again(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [event_json(n, userId=None, anonymousId="phone") for n in range(3)])
    await put(log, "profiles", [portrait("shop/a:phone", 3), portrait("shop/u:7", 1)])
    await store(log, analytics)
    whose = "SELECT DISTINCT person FROM event_log"

    alone = await analytics.query(whose)
    await put(log, "profiles", [portrait("shop/u:7", 2, ["shop/a:phone"], moves=1),
                                portrait("shop/a:phone", 4, merged_into="shop/u:7")])  # fmt: skip
    await store(log, analytics)
    joined = await analytics.query(whose)
    people = await analytics.query("SELECT person FROM person_list")
    undone = encode_json(msgspec.structs.replace(
        msgspec.json.decode(portrait("shop/a:phone", 5), type=_Portrait),
        identities=[{"key": "shop/a:phone", "person": "shop/a:phone", "moves": 2}]))  # fmt: skip
    await put(log, "profiles", [undone])
    await store(log, analytics)

    assert alone == [{"person": "shop/a:phone"}]
    assert joined == people == [{"person": "shop/u:7"}]
    assert await analytics.query(whose) == alone
    assert len(await analytics.query("SELECT person FROM person_list")) == 2


class _Portrait(msgspec.Struct):
    key: str
    workspace: str
    revision: int
    at: str
    identities: list[dict[str, Any]] = []


# --- content


# name -> (JSON of the properties, whether ClickHouse takes it, what is read back where that is another value)
AWKWARD: dict[str, tuple[str, bool, Any]] = {
    "large_integer": ('{"a": %s}' % ("9" * 60), True, {"a": "9" * 60}),
    "past_64_bits": ('{"a": 18446744073709551616}', True, {"a": "18446744073709551616"}),
    "twice_the_key": ('{"a": 1, "a": 2}', True, {"a": 1}),
    "dot_in_key": ('{"a.b": 1, "a": {"b": 2}}', True, {"a.b": 1, "a": {"b": 2}}),
    "value_and_branch": ('{"a": 1, "a.b": 2}', True, {"a": 1, "a.b": 2}),
    "empty_key": ('{"": 1, "a": {"": 2}}', True, {"": 1, "a": {"": 2}}),
    "nul": ('{"a\\u0000b": "x\\u0000y"}', True, {"a\0b": "x\0y"}),
    "text_where_numbers_were": ('{"total": "1", "order_id": {"a": 1}}', True, {"total": "1", "order_id": {"a": 1}}),
    "dates_stay_text": ('{"a": "2026-01-01", "b": "2026-01-01T00:00:00Z"}', True,
                        {"a": "2026-01-01", "b": "2026-01-01T00:00:00Z"}),
    "very_wide": ("{" + ",".join(f'"k{i}": {i}' for i in range(3000)) + "}", True, {f"k{i}": i for i in range(3000)}),
    "nested_900": ('{"a": ' + "[" * 900 + "]" * 900 + "}", True, ...),
    "mixed_list": ('{"a": [1, "x", null, {"b": [2]}, [3]]}', True, {"a": [1, "x", None, {"b": [2]}, [3]]}),
    "past_a_double": ('{"a": 1e999}', False, None),
    "not_utf8": ('{"a": "\udcff"}', False, None),
}  # fmt: skip


async def test_awkward_json_is_kept_or_rejected_and_never_lost(log: EmbeddedLog, either: Analytics) -> None:
    bodies = [with_raw(event_json(n, messageId=name, properties=None), properties=text)
              for n, (name, (text, _, _)) in enumerate(AWKWARD.items())]  # fmt: skip
    await put(log, "events", [*bodies, *(event_json(n) for n in range(100))])

    await store(log, either)

    rows = await either.query("SELECT message_id, properties FROM event_log WHERE message_id NOT LIKE 'm-%'")
    back = {row["message_id"]: row["properties"] for row in rows}
    kept = {name: value for name, (_, is_kept, value) in AWKWARD.items() if is_kept}
    assert back.keys() == kept.keys()
    assert {name: value for name, value in back.items() if kept[name] is not ...} == {
        name: value for name, value in kept.items() if value is not ...
    }
    refused = {letter.message_id: letter for letter in await letters(log)}
    assert refused.keys() == AWKWARD.keys() - kept.keys()
    assert all(letter.by == "clickhouse" and letter.topic == "events" for letter in refused.values())
    assert "out of range" in refused["past_a_double"].value
    assert refused["past_a_double"].record == bodies[list(AWKWARD).index("past_a_double")]
    stored = await either.query_columns("SELECT message_id FROM rejected_list")
    assert set(stored["message_id"]) == refused.keys()
    assert (await either.query(f"{COUNT} WHERE message_id LIKE 'm-%'")) == [expected(range(100))]


async def test_only_refused_rows_go_to_rejected_with_the_reason(log: EmbeddedLog, either: Analytics) -> None:
    await either.start()
    rows = [table_row("baskets", {"number": n, "value": "1e20" if n in (17, 18, 30) else "1.5"}) for n in range(32)]
    await put(log, "rows", rows)

    sink = await store(log, either)

    kept = await either.query_columns("SELECT number FROM baskets_list ORDER BY number")
    assert kept["number"] == [n for n in range(32) if n not in (17, 18, 30)]
    found = await letters(log)
    assert sorted(letter.record for letter in found) == sorted(rows[n] for n in (17, 18, 30))
    assert {letter.reason for letter in found} == {"ClickHouse refused the row"}
    assert all(letter.value for letter in found)
    assert sink.metrics.refused.labels("baskets")._value.get() == 3


async def test_a_refused_row_that_comes_again_is_one_dead_letter(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [with_raw(event_json(1, properties=None), properties='{"a": 1e999}')])

    for _ in range(2):
        await store(log, analytics)
        await forget(log)
    await store(log, analytics)

    assert len(await letters(log)) >= 2
    assert len(await analytics.query("SELECT id FROM rejected_list")) == 1


async def test_records_no_row_can_be_made_of_are_told(log: EmbeddedLog, analytics: Analytics) -> None:
    await put(log, "events", [b"not an event", b"", event_json(1, userId=None), event_json(2)])
    await put(log, "rows", [table_row("unknown", {"a": 1}), table_row("visits", {"number": "x"}), b"{"])
    odd = portrait("shop/u:1", 1, sections={"profile": {"events": "many"}})
    await put(log, "profiles", [b"{}", odd, portrait("shop/u:2", 1)])
    await put(log, "decisions", [b"[]"])
    await put(log, "rejected", [b"nonsense"])

    sink = await store(log, analytics)

    assert sink.metrics.skipped._value.get() == 3
    assert await analytics.query(COUNT) == [expected([2])]
    assert await analytics.query("SELECT person FROM person_list") == [{"person": "shop/u:2"}]
    told = [letter for letter in await letters(log) if letter.by == "clickhouse"]
    assert sorted(letter.topic for letter in told) == ["decisions", "profiles", "profiles", "rows", "rows", "rows"]


async def test_the_stages_own_messages_among_the_events_are_no_events(log: EmbeddedLog, analytics: Analytics) -> None:
    tick = encode_internal(Tick(to="default/u:u", origin="", at_ms=0))
    await log.append("events", [Outgoing(b"default/u:u", tick, headers=HEADERS)])

    sink = await store(log, analytics)

    assert sink.metrics.skipped._value.get() == 0
    assert await analytics.query("SELECT count() AS n FROM events") == [{"n": 0}]


async def letters(log: EmbeddedLog) -> list[Any]:
    found = []
    for partition in range(log.partitions("rejected")):
        records = await log.read(TP("rejected", partition), 0, 100)
        found += [decode_rejected(record.value) for record in records if record.value and record.value != b"nonsense"]
    return found


# --- outages


async def test_the_sink_waits_for_a_server_that_dies_and_comes_back(log: EmbeddedLog, bridge: Bridge) -> None:
    analytics = Analytics(bridge.url)
    async with running(log, analytics) as sink:
        await put(log, "events", [event_json(n) for n in range(50)])
        await caught_up(log)
        bridge.kill()
        await put(log, "events", [event_json(n) for n in range(50, 120)])
        await asyncio.sleep(1.0)
        waiting = await behind(log)
        was_up = sink.metrics.is_up._value.get()
        bridge.start()
        await caught_up(log)
        is_up = sink.metrics.is_up._value.get()

    rows = await analytics.query(COUNT)
    await analytics.close()
    assert (waiting, was_up, is_up) == (70, 0, 1)
    assert rows == [expected(range(120))]


async def test_it_starts_before_its_server(log: EmbeddedLog, bridge: Bridge) -> None:
    analytics = Analytics(bridge.url)
    bridge.kill()
    await put(log, "events", [event_json(1)])

    async with running(log, analytics):
        await asyncio.sleep(0.5)
        bridge.start()
        await caught_up(log)

    rows = await analytics.query(COUNT)
    await analytics.close()
    assert rows == [expected([1])]


@pytest.mark.parametrize("trouble", [
    {"drop": 4}, {"fail": 4, "fail_code": 252}, {"fail": 4, "fail_code": 241}, {"fail": 3, "fail_code": 60},
    {"fail": 3, "fail_code": 999}, {"delay_s": 0.3},
])  # fmt: skip
async def test_trouble_that_passes_costs_no_row_and_doubles_none(
    log: EmbeddedLog, bridge: Bridge, trouble: dict[str, Any]
) -> None:
    analytics = Analytics(bridge.url)
    async with running(log, analytics):
        await put(log, "events", [event_json(0)])
        await caught_up(log)
        await asyncio.to_thread(bridge.make_trouble, **trouble)
        await put(log, "events", [event_json(n) for n in range(1, 2_500)])
        await caught_up(log)

    rows = await analytics.query(COUNT)
    await analytics.close()
    assert rows == [expected(range(2_500))]
    assert await letters(log) == []


async def test_a_sink_that_waits_can_be_stopped_and_loses_nothing(log: EmbeddedLog, bridge: Bridge) -> None:
    analytics = Analytics(bridge.url)
    async with running(log, analytics):
        await put(log, "events", [event_json(1)])
        await caught_up(log)
        bridge.kill()
        await put(log, "events", [event_json(2)])
        await asyncio.sleep(0.5)
        async with asyncio.timeout(2):
            await asyncio.sleep(0)
    assert await behind(log) == 1
    with pytest.raises(ClickHouseAway):
        await analytics.query("SELECT 1")

    bridge.start()
    await store(log, analytics)
    rows = await analytics.query(COUNT)
    await analytics.close()
    assert rows == [expected([1, 2])]


async def test_it_says_once_that_it_waits_and_once_that_it_goes_on(
    log: EmbeddedLog, bridge: Bridge, capsys: pytest.CaptureFixture[str]
) -> None:
    analytics = Analytics(bridge.url)
    async with running(log, analytics):
        await put(log, "events", [event_json(1)])
        await caught_up(log)
        await asyncio.to_thread(bridge.make_trouble, fail=4, fail_code=252)
        await put(log, "events", [event_json(2)])
        await caught_up(log)
    await analytics.close()

    said = capsys.readouterr().out
    assert said.count("sink_waits") == said.count("sink_goes_on") == 1
    assert "Traceback" not in said


async def test_a_log_that_fails_for_a_while_is_asked_again(log: EmbeddedLog, analytics: Analytics) -> None:
    failures = iter([LogUnavailable("away"), LogUnavailable("still away")])
    subscribe: Callable[..., Any] = log.subscribe

    async def subscribe_and_fail(group: str, topics: Sequence[str]) -> Subscription:
        subscription: Subscription = await subscribe(group, topics)
        for name in ("poll", "commit"):
            setattr(subscription, name, _failing_first(getattr(subscription, name), next(failures)))
        return subscription

    log.subscribe = subscribe_and_fail  # type: ignore[method-assign]
    await put(log, "events", [event_json(n) for n in range(20)])

    await store(log, analytics)

    assert await analytics.query(COUNT) == [expected(range(20))]


def _failing_first(work: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    errors = [error]

    async def call(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return await work(*args)

    return call


async def test_a_dot_in_a_key_is_asked_for_as_the_page_says(log: EmbeddedLog, analytics: Analytics) -> None:
    dotted = {"utm.source": "news", "utm": {"source": 3}}
    await put(log, "events", [event_json(1, properties=dotted, context=dotted)])

    await store(log, analytics)

    rows = await analytics.query("""
        SELECT properties.`utm%2Esource`::String AS dotted, properties.utm.source::Int64 AS nested,
            context.`utm%2Esource`::String AS of_context, context FROM event_log
    """)
    assert rows == [{"dotted": "news", "nested": 3, "of_context": "news", "context": dotted}]
