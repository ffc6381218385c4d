"""The short way from a record to a row says what the long way says, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import Refused
from schemas.event import EVENT_TYPES, decode_event
from sinks.events import MOST_ATTEMPTS, NAMES, row_of
from sinks.plain_events import plain_row
from tests.collector.test_intake import json_values
from tests.sinks.feed import NOON, event_json, iso, with_raw
from tests.sinks.test_events import CONTEXT


def long_way(value: bytes) -> tuple[Any, ...] | None:
    try:
        return row_of(decode_event(value))
    except (Refused, UnicodeDecodeError, RecursionError):
        return None


def agrees(value: bytes) -> bool:
    """Whether the record went the short way; it must then be the row that the long way makes."""
    row = plain_row(value)
    if row is not None:
        assert dict(zip(NAMES, row, strict=True)) == dict(zip(NAMES, long_way(value) or (), strict=True))
    return row is not None


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"context": CONTEXT}, {"type": "identify", "event": None, "traits": {"plan": "pro"}}, {"sentAt": iso(NOON)},
        {"type": "page", "event": None, "name": "Home", "category": "Shop", "userId": None, "anonymousId": "a1"},
        {"type": "screen", "context": CONTEXT, "traits": {}, "properties": None}, {"originalTimestamp": None},
        {"attempt": 3, "flags": ["text_mended"], "integrations": {"All": True}, "extra": {"channel": "web"}},
        {"context": {"sessionId": 0, "locale": ["de"], "traits": [1]}, "properties": {"total": "cheap", "orderId": 12}},
        {"properties": {"名": "数据 😀", "revenue": "19.99", "total": 1, "transaction_id": "t"}, "anonymousId": "a1"},
        {"receivedAt": "2026-03-01T13:00:00.123456+01:00", "timestamp": "2026-03-01T12:00:00.999999Z"},
        {"originalTimestamp": "2030-01-01T00:00:00Z"}, {"attempt": MOST_ATTEMPTS},
    ],
)  # fmt: skip
def test_what_the_collector_writes_goes_the_short_way(fields: dict[str, Any]) -> None:
    assert agrees(event_json(**fields))


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{}", b"null", b"\xff", event_json()[:-1], event_json(workspace="No"), event_json(workspace=""),
        event_json(messageId=""), event_json(messageId="x" * 101), event_json(userId="null"), event_json(userId=None),
        event_json(userId="x" * 257), event_json(anonymousId=" NaN "), event_json(event=None),
        event_json(type="charge"), event_json(type="group", groupId="g1"),
        event_json(type="alias", previousId="a1"), event_json(groupId="g1"),
        event_json(event="x" * 201),
        event_json(timestamp="2026-03-01T12:00:00"), event_json(sentAt="2026-03-01T12:00:00"),
        event_json(receivedAt="1969-01-01T00:00:00Z"), event_json(originalTimestamp="0001-01-01T00:00:00Z"),
        event_json(sentAt="9999-12-31T23:59:59Z"), event_json(attempt=-1), event_json(attempt=MOST_ATTEMPTS + 1),
        event_json(attempt=2**70), event_json(properties=[1]), event_json(properties="x"),
        event_json().replace(b"o-1", b"\xff"), with_raw(event_json(), context="\udcff"),
    ],
)  # fmt: skip
def test_what_is_odd_goes_the_long_way(value: bytes) -> None:
    assert plain_row(value) is None


texts = st.text(max_size=6) | st.sampled_from(["u1", "null", " NONE", "", "shop"])
times = st.sampled_from(
    ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.123999Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.9Z",
     "2026-03-01T12:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2148-12-31T23:59:59.999999Z"]
) | st.datetimes().map(lambda at: f"{at.isoformat()}Z")  # fmt: skip
contexts = st.fixed_dictionaries(
    {}, optional={name: json_values | st.just(value) | texts for name, value in {**CONTEXT, "referrer": {}}.items()}
)
amounts = st.decimals(allow_nan=False, allow_infinity=False, places=6).map(float)
properties = st.dictionaries(
    st.sampled_from(["revenue", "total", "currency", "order_id", "orderId", "transaction_id", "referrer", "url"]),
    json_values | texts | amounts,
)
optional = {
    "anonymousId": texts, "event": texts, "name": texts, "category": texts, "originalTimestamp": times, "sentAt": times,
    "context": contexts | json_values, "traits": json_values, "properties": properties | json_values,
    "integrations": json_values, "extra": json_values, "flags": st.lists(texts, max_size=2), "more": json_values,
    "attempt": st.integers() | st.integers(0, 3), "groupId": texts, "previousId": texts,
}  # fmt: skip
usual = st.fixed_dictionaries(
    {"messageId": st.just("m"), "type": st.sampled_from(["track", "page", "identify"]), "workspace": st.just("shop"),
     "source": texts, "timestamp": st.just(iso(NOON)), "receivedAt": st.just(iso(NOON)), "userId": st.just("u1"),
     "event": st.just("A")},
    optional={name: optional[name] for name in ("context", "properties", "traits", "extra", "integrations", "name")},
)  # fmt: skip
odd = st.fixed_dictionaries(
    {"messageId": texts, "type": st.sampled_from(EVENT_TYPES), "workspace": st.sampled_from(["shop", "a_b-1", "No"]),
     "source": texts, "timestamp": times, "receivedAt": times, "userId": texts},
    optional=optional,
)  # fmt: skip
events = usual | odd


@given(events, st.booleans())
@example(json.loads(event_json(context=CONTEXT)), True)
def test_the_short_way_makes_the_row_of_the_long_way(event: dict[str, Any], is_ascii: bool) -> None:
    agrees(json.dumps(event, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))


@given(events, st.data())
def test_damage_of_any_byte_changes_nothing_of_that(event: dict[str, Any], data: st.DataObject) -> None:
    value = json.dumps(event).encode()
    place = data.draw(st.integers(0, len(value) - 1))
    hostile = st.sampled_from([b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"]", b"null", b"1e999", b"1.0"])
    other = data.draw(st.binary(max_size=3) | hostile)

    agrees(value[:place] + other + value[place + data.draw(st.integers(0, 3)) :])
