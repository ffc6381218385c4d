"""Sending refused events again: what is sent, what is written down, and what is not done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.settings import Settings
from schemas.errors import Refused
from schemas.event import Event, decode_event, encode_event
from schemas.intake import Arrival, read_event
from schemas.rejected import Rejected
from schemas.rows import decode_ledger_line
from streams.embedded import EmbeddedLog
from streams.log import TP, Log
from streams.redrive import body_of, mended_event, redrive
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
