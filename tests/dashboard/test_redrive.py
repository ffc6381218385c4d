"""Sending refused events again: what is sent, what is written down, and what is not done."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.settings import Settings
from schemas.errors import Refused
from schemas.event import PUBLIC_ALIAS, Event, decode_event, encode_event
from schemas.intake import Arrival, read_event
from schemas.rejected import Rejected
from schemas.rows import decode_ledger_line
from streams.embedded import EmbeddedLog
from streams.log import TP, Log
from streams.redrive import SENT_AT_ONCE, Redriven, body_of, mended_event, redrive, redrive_all
from streams.topics import create_topics

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
REFUSED_AT = NOW - timedelta(days=3)


def takes_all(event: Event) -> None:
    """A check that refuses nothing."""


def of_collector(body: dict[str, Any] | bytes, **known: Any) -> Rejected:
    record = body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = {"id": "letter-1", "at": REFUSED_AT, "by": "collector", "reason": "it was wrong", "record": record,
              "workspace": "shop", "source": "web"}  # fmt: skip
    return Rejected(**{**fields, **known})


def an_event(**fields: Any) -> Event:
    body = {"type": "track", "event": "Signed Up", "userId": "u-1", "messageId": "m-1", **fields}
    return read_event(msgspec.json.encode(body), "", Arrival("shop", "web", REFUSED_AT))


def of_stage(event: Event) -> Rejected:
    return of_collector(encode_event(event), by="stage", topic="events", partition=1, offset=17, processor="orders")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=tmp_path, partitions=2))
    yield log
    await log.stop()


async def values(log: Log, topic: str) -> list[bytes]:
    return [record.value or b"" for partition in await log.bounds(topic)
            for record in await log.read(TP(topic, partition), 0, 100)]  # fmt: skip


async def test_an_alias_that_the_collector_refused_joins_no_two_users_when_it_is_sent_again(log: Log) -> None:
    letter = of_collector({"type": "alias", "userId": "u-1", "previousId": "u-2", "messageId": "m-9"})

    await redrive(log, letter, None, takes_all, "default", NOW)

    (event,) = map(decode_event, await values(log, "events"))
    assert event.flags == (PUBLIC_ALIAS,)  # by whose key it came is not known any more


async def test_a_mended_event_goes_back_into_the_log_as_if_it_had_come_right(log: Log) -> None:
    letter = of_collector({"type": "track", "userId": "u-1", "messageId": "m-9", "timestamp": "2026-04-28T10:00:00Z"})
    mended = msgspec.json.encode({**msgspec.json.decode(letter.record), "event": "Signed Up"})

    await redrive(log, letter, mended, takes_all, "default", NOW)

    (event,) = map(decode_event, await values(log, "events"))
    assert (event.event, event.message_id, event.key) == ("Signed Up", "m-9", "shop/u:u-1")
    assert event.received_at == REFUSED_AT  # so its time is corrected as it would have been then
    assert event.timestamp == datetime(2026, 4, 28, 10, tzinfo=UTC)
    assert (event.source, event.attempt) == ("web", 1)


async def test_the_ledger_says_what_was_sent_again_and_where_it_stands(log: Log) -> None:
    await redrive(log, of_stage(an_event()), None, takes_all, "default", NOW)

    (line,) = map(decode_ledger_line, await values(log, "decisions"))
    partition, offset = line.cause.removeprefix("events-").split("@")
    (record,) = await log.read(TP("events", int(partition)), int(offset), 10)
    assert decode_event(record.value).message_id == "m-1"
    assert (line.processor, line.kind, line.about, line.at) == ("redrive", "redriven", "letter-1", NOW)
    assert line.facts == {"reason": "it was wrong", "message_id": "m-1", "attempt": 1, "changed": False}


async def test_each_try_counts_one_attempt_more(log: Log) -> None:
    again = msgspec.structs.replace(an_event(), attempt=4)

    event = await redrive(log, of_stage(again), None, takes_all, "default", NOW)

    assert event.attempt == 5


async def test_what_the_stage_has_applied_comes_again_as_the_same_event(log: Log) -> None:
    letter = msgspec.structs.replace(of_stage(an_event()), by="clickhouse")

    event = await redrive(log, letter, None, takes_all, "default", NOW)

    assert event.attempt == 0


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (b"{", ""),
        (b"[]", ""),
        (b'{"type":"track","userId":"u-1"}', "event"),
        (b'{"type":"track","event":"x","userId":"undefined"}', "userId"),
        (b'{"type":"dance","userId":"u-1"}', "type"),
    ],
)
async def test_what_would_be_refused_again_changes_nothing(log: Log, record: bytes, field: str) -> None:
    with pytest.raises(Refused) as refused:
        await redrive(log, of_collector({"type": "track"}), record, takes_all, "default", NOW)

    assert refused.value.field == field
    assert await values(log, "events") == await values(log, "decisions") == []


async def test_a_processor_that_would_refuse_it_is_asked_first(log: Log) -> None:
    def refuses(event: Event) -> None:
        raise Refused("the total is no amount", field="properties.total", value="many")

    with pytest.raises(Refused, match="the total is no amount"):
        await redrive(log, of_stage(an_event()), None, refuses, "default", NOW)

    assert await values(log, "events") == []


def test_an_event_cannot_be_moved_into_another_workspace() -> None:
    event = an_event()
    elsewhere = encode_event(msgspec.structs.replace(event, workspace="other"))

    with pytest.raises(Refused, match="stays in its workspace"):
        mended_event(of_stage(event), elsewhere, takes_all, "default")


def test_rows_that_clickhouse_refused_are_not_events() -> None:
    letter = of_collector({}, by="clickhouse", topic="rows", partition=0, offset=3)

    with pytest.raises(Refused, match="cannot be sent again"):
        mended_event(letter, None, takes_all, "default")


def test_an_event_without_an_id_of_its_own_is_the_same_one_each_time() -> None:
    letter = of_collector({"type": "page", "userId": "u-1"})

    ids = {mended_event(letter, None, takes_all, "default").message_id for _ in range(3)}

    assert ids == {"redriven-letter-1"}


@pytest.mark.parametrize("record", [b"\xff\xfe not text", b"", b"{" * 5000, b'"\\ud800"', b'{"a":1e999}'])
def test_what_is_not_json_is_shown_as_it_came_and_refused(record: bytes) -> None:
    letter = of_collector(record)

    assert isinstance(body_of(letter), str)
    with pytest.raises(Refused):
        mended_event(letter, None, takes_all, "default")


# --- several at once


def numbered(n: int, person: str = "u-1", **known: Any) -> Rejected:
    body = {"type": "track", "event": f"E{n}", "userId": person, "messageId": f"m{n}"}
    return of_collector(body, id=f"letter-{n}", key=f"shop/u:{person}", **known)


async def names(log: Log) -> list[str]:
    """The events of the log, in its order: of each person that is the order she had."""
    return [decode_event(value).event for value in await values(log, "events")]


async def test_letters_of_one_request_are_sent_again_in_the_order_they_had_in_it(log: Log) -> None:
    letters = [numbered(n, offset=n) for n in range(1, 41)]

    done = await redrive_all(log, random.Random(1).sample(letters, 40), takes_all, "default", NOW)

    assert done == Redriven(40, 0, 0, "")
    assert await names(log) == [f"E{n}" for n in range(1, 41)]


async def test_letters_of_a_partition_are_sent_again_as_they_stood_in_it_whatever_the_clocks_said(log: Log) -> None:
    letters = [
        msgspec.structs.replace(of_stage(an_event(event=f"E{n}", messageId=f"m{n}")), id=f"letter-{n}", offset=n,
                                at=REFUSED_AT - timedelta(milliseconds=n % 3), key="shop/u:u-1")
        for n in range(30)
    ]  # fmt: skip

    await redrive_all(log, random.Random(2).sample(letters, 30), takes_all, "default", NOW)

    assert await names(log) == [f"E{n}" for n in range(30)]


async def test_more_than_one_append_takes_keeps_the_order_and_each_line_names_its_place(log: Log) -> None:
    people = ("ann", "bob", "eve")
    letters = [numbered(n, people[n % 3], offset=n) for n in range(SENT_AT_ONCE * 2 + 7)]

    done = await redrive_all(log, reversed(letters), takes_all, "default", NOW)

    assert done.sent == len(letters)
    for person in people:
        of_person = [event.message_id for event in map(decode_event, await everything(log, "events"))
                     if event.user_id == person]  # fmt: skip
        assert of_person == [f"m{n}" for n in range(len(letters)) if people[n % 3] == person]
    lines = [decode_ledger_line(value) for value in await everything(log, "decisions")]
    assert len({line.id for line in lines}) == len(letters)
    for line in random.Random(3).sample(lines, 50):
        partition, offset = line.cause.removeprefix("events-").split("@")
        (record, *_) = await log.read(TP("events", int(partition)), int(offset), 1)
        assert decode_event(record.value).message_id == line.facts["message_id"]
        assert line.about == f"letter-{line.facts['message_id'][1:]}"


async def test_what_comes_after_one_that_is_refused_again_waits_for_it_and_others_do_not(log: Log) -> None:
    def not_the_second(event: Event) -> None:
        if event.event == "E2":
            raise Refused("not yet", field="event")

    letters = [numbered(n, "ann" if n < 5 else "bob", offset=n) for n in range(1, 8)]

    done = await redrive_all(log, letters, not_the_second, "default", NOW)
    after_the_mend = await redrive_all(log, letters[1:4], takes_all, "default", NOW)

    assert done == Redriven(4, 1, 2, "event: not yet")
    assert after_the_mend == Redriven(3, 0, 0, "")
    ann = [event.event for event in map(decode_event, await values(log, "events")) if event.user_id == "ann"]
    assert ann == ["E1", "E2", "E3", "E4"]


async def test_rows_among_the_letters_hold_nothing_back(log: Log) -> None:
    row = of_collector({}, id="row", by="clickhouse", topic="rows", partition=0, offset=3, key="shop/u:u-1",
                       at=REFUSED_AT - timedelta(days=1))  # fmt: skip

    done = await redrive_all(log, [row, numbered(1, offset=1)], takes_all, "default", NOW)

    assert (done.sent, done.refused, done.held) == (1, 1, 0)


async def everything(log: Log, topic: str) -> list[bytes]:
    return [record.value or b"" for partition in await log.bounds(topic)
            for record in await log.read(TP(topic, partition), 0, 10_000)]  # fmt: skip
