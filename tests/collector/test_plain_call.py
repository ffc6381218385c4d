"""The short way of a plain call writes what the long way writes, or nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import Refused
from schemas.event import EVENT_TYPES, LARGEST_EVENT_BYTES, encode_event
from schemas.intake import Arrival, read_event
from schemas.plain_call import plain_call
from schemas.safe_json import MOST_KEYS
from tests.collector.test_intake import calls, json_values

NOW = datetime(2026, 11, 21, 12, 0, 0, 5_000, tzinfo=UTC)
ARRIVAL = Arrival("shop", "web", NOW, ip="192.0.2.7")
OF_BATCH = Arrival(
    "shop", "web", NOW, sent_at=NOW - timedelta(seconds=1), context={"locale": "de", "app": {"a": 1}},
    integrations={"All": True},
)  # fmt: skip
ODD = Arrival("shop", "web", NOW, flags=("sent_at_unreadable",))
EVENT = {"type": "track", "userId": "u1", "anonymousId": "a1", "event": "Bought", "messageId": "m1"}


def long_way(raw: bytes, kind: str, arrival: Arrival) -> tuple[bytes, bytes] | None:
    try:
        event = read_event(raw, kind, arrival)
    except Refused:
        return None
    return event.key.encode(), encode_event(event)


def agrees(raw: bytes, kind: str = "", arrival: Arrival = ARRIVAL) -> bool:
    """Whether the call went the short way; it must then be as the long way says."""
    short = plain_call(raw, kind, arrival)
    if short is not None:
        assert short == long_way(raw, kind, arrival)
    return short is not None


def body(**fields: Any) -> bytes:
    return json.dumps({**EVENT, **fields}).encode()


@pytest.mark.parametrize("arrival", [ARRIVAL, OF_BATCH])
@pytest.mark.parametrize(
    "fields",
    [
        {}, {"type": "page", "name": "Home", "category": "Shop"}, {"type": "screen"}, {"userId": None},
        {"type": "page", "name": "Home", "category": "Shop", "properties": {"name": "Start", "category": 7}},
        {"userId": ""}, {"anonymousId": None}, {"anonymousId": ""}, {"writeKey": "secret"}, {"channel": "web"},
        {"type": "identify", "traits": {"plan": "pro", "n": [1, 2.5, None, {"a": True}]}},
        {"_metadata": {"bundled": []}},
        {"timestamp": "2026-11-21T11:59:00Z"}, {"timestamp": "2026-11-21T11:59:00.123456+00:00"},
        {"timestamp": "2026-11-21T11:59:00.123456789Z"}, {"originalTimestamp": "2026-11-21 11:59:00Z"},
        {"timestamp": "2026-11-21T11:00Z", "originalTimestamp": "2026-11-21T11:00Z", "sentAt": "2026-11-21T11:00:01Z"},
        {"timestamp": "2020-01-01T00:00:00Z", "sentAt": "2020-01-01T00:00:30Z"},
        {"context": {"locale": "fr"}, "integrations": {"All": False}, "properties": {"total": 19.9}},
        {"context": {}, "integrations": {}, "properties": {}, "traits": {}},
        {"context": None, "integrations": None, "properties": None, "traits": None},
        {"properties": {"名": "数据 😀", "quote": 'a"b\\c\n'}},
        {"properties": {"n": [2**63 - 1, -(2**63), 1e308, -0.0]}},
        {"properties": {"text": "[{" * 500}}, {"properties": {f"k{n}": "::" for n in range(300)}},
    ],
)  # fmt: skip
def test_what_well_behaved_clients_send_goes_the_short_way(fields: dict[str, Any], arrival: Arrival):
    assert agrees(body(**fields), arrival=arrival)


@pytest.mark.parametrize("name", ["workspace", "source", "receivedAt", "extra", "flags", "attempt"])
@pytest.mark.parametrize("value", ["", "x", None, 1, {}, {"a": 1}, []])
def test_what_only_we_say_of_an_event_no_client_says(name: str, value: object):
    assert not agrees(body(**{name: value}))


@pytest.mark.parametrize(
    "raw",
    [
        body(type="group", groupId="g1"), body(type="alias", previousId="a1"), body(type="charge"), body(type=None),
        body(event=""), body(event=None), body(event=7), body(event="x" * 201), body(userId="x" * 257),
        body(messageId=""), body(messageId=None), body(messageId="x" * 101), body(messageId=7),
        body(userId=" NULL "), body(anonymousId="undefined"), body(userId=None, anonymousId=None), body(userId=7),
        body(timestamp=None), body(timestamp=""), body(timestamp=1_700_000_000), body(timestamp="2026-11-21"),
        body(timestamp="20261121T000000Z"), body(timestamp="2026-11-21T11:00:00+02:00"),
        body(timestamp="2027-01-01T00:00:00Z"), body(timestamp="1970-01-01T00:00:00Z"), body(sentAt=""),
        body(timestamp="2199-12-31T00:00:00Z", sentAt="1971-01-01T00:00:00Z"),
        body(timestamp="2026-11-21T11:00:00Z", originalTimestamp=None), body(sentAt="soon"),
        body(context={"direct": True}), body(context=[]), body(context={"a": 2**64}), body(properties={"a": 2**63}),
        body(type="identify", context={"traits": {"plan": "pro"}}), body(type="page", properties={"name": "Home"}),
        body(type="page", name="Home", properties={"category": "Shop"}),
        body(properties={"a": "x\0"}), body(properties={f"k{n}": n for n in range(MOST_KEYS)}),
        body(properties={"a": "x" * LARGEST_EVENT_BYTES}), body(_metadata={}, channel="web"), body(unknown=1),
        body(properties={"a": [[[[[[[[1]]]]]]]]}), body(writeKey=[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]),
        b"", b"null", b"[]", b'"', b"{", b"\xff", body() + b"x", body()[:-1], b"[" * 100_000,
        body().replace(b"u1", b"\xff"), body().replace(b"u1", rb"\ud800"), body().replace(b'"u1"', b"1e999"),
        body().replace(b'"u1"', b"9" * 5_000),
        body(timestamp="0001-01-01T00:00:00Z"), body(timestamp="9999-12-31T23:59:59Z"),
    ],
)  # fmt: skip
def test_what_is_odd_goes_the_long_way(raw: bytes):
    assert plain_call(raw, "", ARRIVAL) is None


def test_the_oddities_of_a_request_are_told_by_the_long_way():
    assert plain_call(body(), "", ODD) is None


@pytest.mark.parametrize("kind", EVENT_TYPES)
@pytest.mark.parametrize("said", [*EVENT_TYPES, "other", None, 1])
def test_the_path_names_the_call_whatever_the_body_says(kind: str, said: object):
    agrees(body(type=said, groupId="g", previousId="p"), kind)
    agrees(body(type=said), kind)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"userId":"u1","userId":"u2","type":"track","event":"A","messageId":"m","properties":{"a":1,"\\u0061":2,"a":3}}',
        b'{"userId":"u1","\\u0075serId":"u2","type":"track","event":"A","messageId":"m"}',
        b'{"userId":"u1","type":"page","type":"track","event":"A","messageId":"m","context":{"a":1},"context":null}',
        b' {\n"userId" : "u1" ,\t"type":"track","event":"\\u00e9\\ud83d\\ude00\\/","messageId":"m"} ',
        b'{"userId":"u1","type":"track","event":"A","messageId":"m","properties":{"n":1.50,"e":1E5,"z":-0,"d":0.1234567890123456789}}',
    ],
)
def test_other_ways_to_write_the_same_are_understood_alike(raw: bytes):
    assert agrees(raw)


times = st.datetimes(datetime(1960, 1, 1), datetime(2030, 1, 1)).map(lambda at: f"{at.isoformat()}Z")
this_year = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda at: f"{at.isoformat()}Z")
members = st.dictionaries(st.text(max_size=6) | st.sampled_from(["traits", "direct", "name"]), json_values, max_size=3)
plain_calls = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "screen", "identify"]), "messageId": st.text(min_size=1, max_size=8),
     "event": st.text(min_size=1, max_size=8), "userId": st.sampled_from(["u1", "", None, "null", "u\u00e9"])},
    optional={
        "anonymousId": st.sampled_from(["a1", "", None, " NONE"]), "name": st.text(max_size=4),
        "category": st.text(max_size=4), "channel": json_values, "_metadata": json_values,
        "writeKey": st.text(max_size=4), "timestamp": times | this_year | st.just("2026-11-21T12:00:00.005Z"),
        "sentAt": this_year, "originalTimestamp": times, "context": members, "properties": members, "traits": members,
        "integrations": members,
    },
)  # fmt: skip
arrivals = st.sampled_from([ARRIVAL, OF_BATCH, ODD])
kinds = st.sampled_from(["", *EVENT_TYPES])


@given(plain_calls | calls, kinds, arrivals, st.booleans())
@example(EVENT, "", ARRIVAL, True)
def test_the_short_way_says_what_the_long_way_says(call: dict[str, Any], kind: str, arrival: Arrival, is_ascii: bool):
    agrees(json.dumps(call, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"), kind, arrival)


@given(plain_calls, arrivals, st.data())
def test_damage_of_any_byte_changes_nothing_of_that(call: dict[str, Any], arrival: Arrival, data: st.DataObject):
    raw = json.dumps(call).encode()
    place = data.draw(st.integers(0, len(raw) - 1))
    hostile = st.sampled_from([b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"]", b"null"])
    other = data.draw(st.binary(max_size=3) | hostile)

    agrees(raw[:place] + other + raw[place + data.draw(st.integers(0, 3)) :], "", arrival)
