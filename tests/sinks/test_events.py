"""Events as columns: the typed ones, the keys, the versions."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Refused
from schemas.event import decode_event
from schemas.times import DAY_MS, to_ms
from sinks.events import MOST_ATTEMPTS, event_columns, key_day_of, tombstone_columns, tombstone_version_of, version_of
from tests.sinks.feed import NOON, event, event_json, iso, with_raw

CONTEXT = {
    "ip": "1.2.3.4", "userAgent": "Mozilla", "locale": "de-AT", "timezone": "Europe/Vienna", "sessionId": 17,
    "library": {"name": "analytics.js", "version": "1"}, "device": {"type": "mobile"},
    "page": {"url": "https://s/p?x", "path": "/p", "title": "P", "referrer": "https://g"},
    "campaign": {"source": "news", "medium": "email", "name": "spring", "term": "t", "content": "c"},
    "traits": {"plan": "pro"},
}  # fmt: skip
FROM_CONTEXT = {
    "ip": "1.2.3.4", "user_agent": "Mozilla", "locale": "de-AT", "timezone": "Europe/Vienna", "session_id": "17",
    "library": "analytics.js", "device_type": "mobile", "url": "https://s/p?x", "path": "/p", "title": "P",
    "referrer": "https://g", "utm_source": "news", "utm_medium": "email", "utm_campaign": "spring", "utm_term": "t",
    "utm_content": "c",
}  # fmt: skip


def row(**other: Any) -> dict[str, Any]:
    return {name: values[0] for name, values in event_columns([event(**other)]).items()}


def test_what_is_asked_often_has_columns() -> None:
    found = row(context=CONTEXT)

    order = {"event": "Order Completed", "currency": "EUR", "revenue": Decimal("1.2500"), "order_id": "o-1"}
    assert {name: found[name] for name in FROM_CONTEXT} == FROM_CONTEXT
    assert {name: found[name] for name in order} == order
    assert (found["key"], found["traits"]) == ("shop/u:u-1", '{"plan": "pro"}')


def test_one_odd_value_costs_only_itself() -> None:
    odd = CONTEXT | {"locale": ["de"], "device": "phone"}

    found = row(context=odd, properties={"total": "cheap", "revenue": " 12.5 ", "currency": 7, "orderId": 12})

    assert {name: found[name] for name in FROM_CONTEXT} == FROM_CONTEXT | {"locale": "", "device_type": ""}
    assert (found["revenue"], found["currency"], found["order_id"]) == (Decimal("12.5000"), "7", "12")


def test_properties_of_a_page_come_before_its_context() -> None:
    page = {"url": "https://s/new", "title": "New"}

    found = row(type="page", event=None, name="Home", properties=page, context=CONTEXT)

    assert (found["url"], found["title"], found["path"]) == ("https://s/new", "New", "/p")
    assert (found["event"], found["name"]) == ("Page", "Home")


@pytest.mark.parametrize(("properties", "revenue"), [
    ({"revenue": 0.1, "total": 5}, Decimal("0.1000")), ({"revenue": None, "total": 5}, Decimal("5.0000")),
    ({"total": "19.99"}, Decimal("19.9900")), ({"total": 0.1 + 0.2}, Decimal("0.3000")),
    ({"total": -3}, Decimal("-3.0000")), ({"total": True}, None), ({"total": "NaN"}, None), ({"total": 1e15}, None),
    ({"total": "Infinity"}, None), ({"total": [1]}, None), ({"total": "1e5000"}, None), ({}, None),
])  # fmt: skip
def test_money_is_exact_or_not_there(properties: dict[str, Any], revenue: Decimal | None) -> None:
    assert row(properties=properties)["revenue"] == revenue


ODD = [b"1e999", b"[1]", b"null", b'"x"', b'{"a":1,"a":2}', b" { } ", b"[" * 900 + b"]" * 900]


@given(st.binary(max_size=30) | st.sampled_from(ODD))
def test_no_properties_and_no_context_stop_the_others(raw: bytes) -> None:
    text = raw.decode("utf-8", "replace")
    try:
        odd = decode_event(with_raw(event_json(1, properties=None), properties=text, context=text))
    except (Refused, RecursionError):
        return  # then it is no event at all

    columns = event_columns([odd, event(2)])

    assert columns["message_id"] == ["m-1", "m-2"]
    assert columns["properties"][0].lstrip().startswith("{")


def test_what_is_no_object_stands_under_value() -> None:
    odd = decode_event(with_raw(event_json(properties=None), properties="[1, 2]"))

    assert event_columns([odd])["properties"] == ['{"value":[1, 2]}']


def test_an_event_sent_again_has_the_same_key_and_the_first_arrival_wins() -> None:
    first = row(receivedAt=iso(NOON), timestamp=iso(NOON))
    later = NOON + timedelta(hours=3)
    again = row(receivedAt=iso(later), timestamp=iso(later))

    key = ("workspace", "key_day", "message_id", "source")
    assert [first[name] for name in key] == [again[name] for name in key]
    assert first["version"] > again["version"]


@pytest.mark.parametrize(("original_ms", "day"), [
    (None, 0), (-1, 0), (0, 0), (to_ms(NOON), to_ms(NOON) // DAY_MS),
    (to_ms(NOON) + DAY_MS, to_ms(NOON) // DAY_MS + 1), (to_ms(NOON) + DAY_MS + 1, 0),
])  # fmt: skip
def test_a_day_that_cannot_be_true_is_none(original_ms: int | None, day: int) -> None:
    assert key_day_of(original_ms, to_ms(NOON)) == day


MOMENTS = st.integers(1, 2**45 - 3)


@given(attempt=st.integers(0, MOST_ATTEMPTS - 1), one_ms=MOMENTS, other_ms=MOMENTS)
def test_a_tombstone_beats_its_attempt_and_is_beaten_by_the_next(attempt: int, one_ms: int, other_ms: int) -> None:
    one, other = version_of(attempt, one_ms), version_of(attempt, other_ms)
    mended = version_of(attempt + 1, other_ms)

    assert max(one, other) < tombstone_version_of(attempt) < mended < 2**64
    assert (one > other) == (one_ms < other_ms)


def test_a_tombstone_has_the_key_of_its_event() -> None:
    body = event(3)

    alive, gone = event_columns([body]), tombstone_columns([body])

    for name in ("workspace", "key_day", "message_id", "source"):
        assert alive[name] == gone[name]
    assert gone["is_deleted"] == [1]


def test_times_that_clickhouse_cannot_hold_are_the_nearest_it_can() -> None:
    found = row(originalTimestamp="0001-01-01T00:00:00Z", sentAt="9999-12-31T00:00:00Z")

    assert found["key_day"] == 0
    assert found["original_timestamp"] < 0 < found["sent_at"] < 2**44
