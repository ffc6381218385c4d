"""From what an SDK sent to the event."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.client_time import read_time
from schemas.errors import Refused
from schemas.event import EVENT_TYPES, LARGEST_EVENT_BYTES, Event, check_event, decode_event, encode_event
from schemas.intake import FLAGS, Arrival, arrival_of_batch, read_batch, read_event, read_write_key
from schemas.keys import BLOCKED_IDS
from schemas.safe_json import DEEPEST_NESTING, MOST_KEYS, Unreadable

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ARRIVAL = Arrival("shop", "web", NOW, ip="192.0.2.7")


def taken(body: Any = None, call: str = "track", arrival: Arrival = ARRIVAL, **fields: Any) -> Event:
    """The event of a call, as a reader of the topic sees it."""
    if body is None:
        body = {"userId": "u1", "event": "Bought", "messageId": "m1", **fields}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_event(encode_event(read_event(raw, call, arrival)))


def refusal(body: Any = None, call: str = "track", **fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        taken(body, call, **fields)
    return caught.value


# ---- the envelope


def test_a_track_call_becomes_an_event_with_all_that_was_sent():
    event = taken(
        userId="u1", anonymousId="a1", properties={"total": 19.9, "products": [{"id": 1}]}, context={"locale": "zh-CN"},
        integrations={"All": False}, timestamp="2026-11-21T11:59:00Z", sentAt="2026-11-21T12:00:00Z",
    )  # fmt: skip

    assert (event.type, event.event, event.user_id, event.anonymous_id) == ("track", "Bought", "u1", "a1")
    assert (event.workspace, event.source, event.key) == ("shop", "web", "shop/u:u1")
    assert event.properties == {"total": 19.9, "products": [{"id": 1}]}
    assert event.context == {"locale": "zh-CN"}
    assert json.loads(bytes(event.raw_integrations)) == {"All": False}
    assert event.flags == ()


def test_the_path_names_the_call_whatever_the_body_says():
    assert taken(call="page", type="track").type == "page"


def test_an_event_of_a_batch_names_its_call_itself():
    assert taken(call="", type="screen").type == "screen"


@pytest.mark.parametrize("kind", ["charge", "", None, 1, ["track"], {"a": 1}])
def test_an_event_of_a_batch_with_another_type_is_refused(kind: object):
    assert refusal(call="", type=kind).field == "type"


def test_keys_the_specification_does_not_name_are_kept_and_the_write_key_is_not():
    event = taken(_metadata={"bundled": []}, channel="web", version=2, writeKey="secret")

    assert json.loads(bytes(event.raw_extra)) == {"_metadata": {"bundled": []}, "channel": "web", "version": 2}
    assert b"secret" not in encode_event(event)


def test_a_key_that_faust_would_obey_stays_inside_the_event():
    event = taken(__faust={"ns": "any.Model"}, properties={"__faust": {"ns": "any.Model"}})

    assert "__faust" not in json.loads(encode_event(event))
    assert json.loads(bytes(event.raw_extra)) == {"__faust": {"ns": "any.Model"}}


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_empty_ids_are_absent(absent: object):
    event = taken(anonymousId=absent, groupId=absent, previousId=absent)

    assert (event.anonymous_id, event.group_id, event.previous_id, event.flags) == ("", "", "", ())


@pytest.mark.parametrize(("sent", "kept"), [(42, "42"), (42.0, "42"), (4.5, "4.5"), (10**25, str(10**25))])
def test_numeric_ids_become_text(sent: object, kept: str):
    assert taken(userId=sent).user_id == kept


@pytest.mark.parametrize("wrong", [True, [1], {"id": 1}])
@pytest.mark.parametrize("field", ["userId", "anonymousId", "groupId", "previousId", "messageId", "event", "name"])
def test_ids_and_names_of_another_type_are_refused(field: str, wrong: object):
    assert refusal(**{field: wrong}).field == field


@pytest.mark.parametrize("placeholder", [*sorted(BLOCKED_IDS - {""}), "NULL", " undefined ", 0])
def test_a_placeholder_is_left_out_where_the_other_id_is_left_and_else_refused(placeholder: object):
    known = taken(userId=placeholder, anonymousId="a1")
    other = taken(userId="u1", anonymousId=placeholder)

    assert (known.key, known.flags) == ("shop/a:a1", ("user_id_placeholder",))
    assert (other.key, other.anonymous_id, other.flags) == ("shop/u:u1", "", ("anonymous_id_placeholder",))
    assert refusal(userId=placeholder).reason == "userId is a placeholder, not an id"
    assert refusal(userId=None, anonymousId=placeholder).reason == "anonymousId is a placeholder, not an id"
    assert refusal(userId=placeholder, anonymousId=placeholder).field == "userId"
    assert refusal(call="group", groupId=placeholder).field == "groupId"
    assert taken(groupId=placeholder).flags == ("group_id_placeholder",)


def test_an_event_without_a_message_id_is_given_one_and_says_so():
    first, second = taken(messageId=None), taken(messageId="")

    assert first.message_id != second.message_id
    assert first.flags == second.flags == ("message_id_made",)


@pytest.mark.parametrize(
    ("call", "missing", "field"),
    [
        ("track", {"event": None}, "event"),
        ("group", {"groupId": ""}, "groupId"),
        ("alias", {"previousId": None}, "previousId"),
        ("alias", {"userId": None, "anonymousId": "a1", "previousId": "a1"}, "previousId"),
        ("page", {"userId": None}, ""),
    ],
)
def test_what_a_call_requires_is_required(call: str, missing: dict[str, Any], field: str):
    assert refusal(call=call, **missing).field == field


@pytest.mark.parametrize(
    ("field", "length"), [("userId", 257), ("anonymousId", 257), ("messageId", 101), ("event", 201), ("name", 201)]
)
def test_ids_and_names_that_are_too_long_are_refused(field: str, length: int):
    assert refusal(**{field: "x" * length}).field == field
    taken(**{field: "x" * (length - 1)})


@pytest.mark.parametrize("field", ["context", "properties", "traits", "integrations"])
def test_what_must_be_an_object_is_one_or_nothing(field: str):
    assert json.loads(bytes(getattr(taken(**{field: None}), f"raw_{field}"))) == {}
    assert json.loads(bytes(getattr(taken(**{field: []}), f"raw_{field}"))) == {}  # PHP's empty object
    for wrong in ("x", 1, True, [1]):
        assert refusal(**{field: wrong}).field == field


@pytest.mark.parametrize("call", ["identify", "group"])
def test_traits_come_from_traits_or_from_the_context(call: str):
    nested = taken(call=call, groupId="g1", context={"traits": {"plan": "pro"}})
    own = taken(call=call, groupId="g1", traits={"plan": "free"}, context={"traits": {"plan": "pro"}})

    assert json.loads(bytes(nested.raw_traits)) == {"plan": "pro"}
    assert own.traits == {"plan": "free"}


def test_a_page_is_named_by_the_call_or_by_its_properties():
    assert taken(call="page", properties={"name": "Home", "category": "Shop"}).name == "Home"
    assert taken(call="page", name="Start", properties={"name": "Home"}).name == "Start"
    assert taken(call="track", properties={"name": "Shoes"}).name == ""


def test_the_senders_address_is_stored_only_where_the_event_asks_for_it():
    assert "ip" not in taken(context={"a": 1}).context
    assert taken(context={"direct": True}).context["ip"] == "192.0.2.7"
    assert taken(context={"direct": True, "ip": "0.0.0.0"}).context["ip"] == "0.0.0.0"


# ---- batches


def test_context_integrations_and_sent_at_of_a_batch_are_merged_into_each_event_whose_own_keys_win():
    body = {
        "batch": [{"type": "track", "event": "A", "userId": "u1", "timestamp": "2026-11-21T10:00:00Z",
                   "context": {"locale": "de"}, "integrations": {"X": True}}],
        "context": {"locale": "en", "ip": "198.51.100.1"}, "integrations": {"All": False, "X": False},
        "sentAt": "2026-11-21T10:01:00Z",
    }  # fmt: skip

    batch = read_batch(json.dumps(body).encode())
    event = read_event(batch.batch[0], "", arrival_of_batch(batch, ARRIVAL))

    assert event.context == {"locale": "de", "ip": "198.51.100.1"}
    assert json.loads(bytes(event.raw_integrations)) == {"All": False, "X": True}
    assert event.timestamp == NOW - timedelta(minutes=1)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"0", b'""', b"{}", b'{"batch":null}', b'{"batch":{}}', b'{"batch":[1}', b'{"batch":[]}x',
     b"\xff\xfe{", '{"batch":[]}'.encode("utf-16"), b"[" * 100_000, b'{"batch":[' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_batch_is_unreadable(body: bytes):
    with pytest.raises(Unreadable):
        read_batch(body)


def test_a_batch_with_too_many_events_or_bytes_is_unreadable():
    with pytest.raises(Unreadable, match="2500 events"):
        read_batch(b'{"batch":[' + b",".join([b"{}"] * 2_501) + b"]}")
    with pytest.raises(Unreadable, match="512000 bytes"):
        read_batch(b'{"batch":[' + b" " * 512_000 + b"]}")


@pytest.mark.parametrize("context", [b"[1]", b'"x"', b'{"a":1e999}', b'{"a":"\xff"}'])
def test_a_batch_whose_context_cannot_be_used_is_unreadable(context: bytes):
    batch = read_batch(b'{"batch":[],"context":' + context + b"}")

    with pytest.raises(Unreadable):
        arrival_of_batch(batch, ARRIVAL)


def test_the_write_key_is_found_inside_an_event():
    assert read_write_key(b'{"writeKey":"k","properties":{"writeKey":"no"}}') == "k"
    assert read_write_key(b'{"writeKey":1}') == ""


# ---- times


def test_the_clients_clock_is_corrected_by_when_it_sent():
    event = taken(timestamp="2020-01-01T00:00:00Z", sentAt="2020-01-01T00:00:30Z")

    assert event.timestamp == NOW - timedelta(seconds=30)
    assert event.original_timestamp == datetime(2020, 1, 1, tzinfo=UTC)
    assert event.sent_at == datetime(2020, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert event.received_at == NOW


def test_timestamp_goes_before_original_timestamp_which_is_then_kept_beside():
    event = taken(timestamp="2020-01-01T00:00:00Z", originalTimestamp="2026-11-21T11:00:00Z")

    assert event.timestamp == datetime(2020, 1, 1, tzinfo=UTC)
    assert json.loads(bytes(event.raw_extra)) == {"originalTimestamp": "2026-11-21T11:00:00Z"}


def test_original_timestamp_is_taken_where_there_is_no_timestamp():
    event = taken(originalTimestamp="2020-01-01T00:00:00Z", timestamp=None)

    assert (event.original_timestamp, bytes(event.raw_extra)) == (datetime(2020, 1, 1, tzinfo=UTC), b"{}")


@pytest.mark.parametrize(
    ("sent", "flag"),
    [
        ("yesterday", "timestamp_unreadable"), ("0000-01-01T00:00:00Z", "timestamp_unreadable"),
        ("2026-13-01T00:00:00Z", "timestamp_unreadable"), ("275760-09-13T00:00:00.000Z", "timestamp_unreadable"),
        ("2026-01-01T00:00:00+99:99", "timestamp_unreadable"), (True, "timestamp_unreadable"),
        ([], "timestamp_unreadable"), ({"a": 1}, "timestamp_unreadable"),
        (10**18, "timestamp_unreadable"), (1e300, "timestamp_unreadable"),
        (0, "timestamp_implausible"), (-5, "timestamp_implausible"), ("1969-12-31T23:59:59Z", "timestamp_implausible"),
        ("9999-12-31T23:59:59Z", "timestamp_implausible"), ("0001-01-01T00:00:00+14:00", "timestamp_implausible"),
        ("x" * 10_000, "timestamp_unreadable"), ("2026-01-01T00:00:00Z; DROP", "timestamp_unreadable"),
    ],
)  # fmt: skip
def test_a_time_that_cannot_be_used_costs_its_flag_and_not_the_event(sent: object, flag: str):
    event = taken(timestamp=sent)

    assert (event.timestamp, event.original_timestamp) == (NOW, None)
    assert flag in event.flags
    assert json.loads(bytes(event.raw_extra))["timestamp"] == sent


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2015-2-02T00:30:12Z", datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
        ("2015/02/02 00:30", datetime(2015, 2, 2, 0, 30, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("2015-02-02T08:30:12+08:00", datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
        ("2015-02-02T08:30:12.123456789+0800", datetime(2015, 2, 2, 0, 30, 12, 123456, tzinfo=UTC)),
        ("2015-02-02T00:30:12", datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
        ("2015-02-02", datetime(2015, 2, 2, tzinfo=UTC)),
        (1422837012, datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
        (1422837012000, datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
        ("1422837012", datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
        ("1422837012000", datetime(2015, 2, 2, 0, 30, 12, tzinfo=UTC)),
    ],
)
def test_near_misses_of_a_time_are_read(sent: object, read: datetime):
    assert taken(timestamp=sent).original_timestamp == read


def test_an_event_is_never_in_the_future():
    fast_clock = taken(timestamp="2027-01-01T00:00:00Z")
    sent_before = taken(timestamp="2020-01-02T00:00:00Z", sentAt="2020-01-01T00:00:00Z")

    assert fast_clock.timestamp == sent_before.timestamp == NOW
    assert fast_clock.flags == sent_before.flags == ("timestamp_in_future",)
    assert fast_clock.original_timestamp == datetime(2027, 1, 1, tzinfo=UTC)


def test_sent_at_that_cannot_be_read_leaves_the_clients_clock_as_it_is():
    event = taken(timestamp="2026-11-20T00:00:00Z", sentAt="soon")

    assert (event.timestamp, event.sent_at) == (datetime(2026, 11, 20, tzinfo=UTC), None)
    assert event.flags == ("sent_at_unreadable",)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.datetimes().map(str)))
def test_no_time_whatsoever_raises(value: object):
    moment = read_time(value, [])

    assert moment is None or moment.tzinfo is UTC


# ---- text that later readers would break on


def test_nul_in_texts_and_keys_is_mended_and_said():
    event = taken(properties={"a\0b": ["x\0y"]}, userId="u\0")

    assert event.properties == {"a\ufffdb": ["x\ufffdy"]}
    assert (event.user_id, event.flags) == ("u\ufffd", ("text_mended",))


def test_a_literal_backslash_before_u0000_is_text_and_stays():
    assert taken(properties={"a": "\\u0000"}).properties == {"a": "\\u0000"}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(rb"\ud83d", "\ufffd"), (rb"\uDE00", "\ufffd"), (rb"\ud83d\u0041", "\ufffdA"),
     (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
     (rb"\\ud83d \udc00", "\\ud83d \ufffd"), (rb"\ud83d\ude00 \ud83d", "😀 \ufffd")],
)  # fmt: skip
def test_half_a_surrogate_pair_is_mended_and_said(sent: bytes, kept: str):
    event = taken(b'{"userId":"u1","event":"A","messageId":"m","properties":{"text":"' + sent + b'"}}')

    assert (event.properties["text"], event.flags) == (kept, ("text_mended",))


@pytest.mark.parametrize("integer", [2**64, -(2**63) - 1, int("9" * 400)])
def test_an_integer_beyond_64_bits_is_kept_as_text_and_said(integer: int):
    event = taken(properties={"n": integer, "list": [integer]})

    assert event.properties == {"n": str(integer), "list": [str(integer)]}
    assert event.flags == ("integer_as_text",)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1e308, -0.0, 0.1234567890123456789, 5e-324])
def test_numbers_that_fit_stay_numbers(number: float):
    event = taken(properties={"n": number})

    assert (event.properties["n"], event.flags) == (number, ())


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 5_000])
def test_a_number_beyond_any_reader_is_unreadable(number: bytes):
    body = b'{"userId":"u1","event":"A","properties":{"n":' + number + b"}}"

    with pytest.raises(Unreadable, match="too large for any reader"):
        read_event(body, "track", ARRIVAL)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"undefined", b"01", b"+1", b"'x'", b'"\xff"'])
def test_what_json_does_not_know_is_unreadable(word: bytes):
    with pytest.raises(Unreadable):
        read_event(b'{"userId":"u1","event":"A","properties":{"n":' + word + b"}}", "track", ARRIVAL)


def test_of_a_repeated_key_the_last_counts_and_only_it_is_stored():
    event = taken(b'{"userId":"u1","userId":"u2","event":"A","properties":{"a":1,"\\u0061":2}}')

    assert (event.user_id, bytes(event.raw_properties)) == ("u2", b'{"a":2}')


def nested(levels: int) -> Any:
    """So many objects and lists inside one another."""
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_nesting_has_a_limit():
    deepest = DEEPEST_NESTING - 1  # the event itself is the first
    assert taken(properties={"a": nested(deepest - 1)}).properties["a"] == nested(deepest - 1)
    assert refusal(properties={"a": nested(deepest)}).reason.startswith("objects and lists nest")
    assert isinstance(refusal(properties={"a": nested(900)}), Refused)
    with pytest.raises(Unreadable):
        read_event(b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "track", ARRIVAL)


def test_many_brackets_that_nest_little_are_no_depth():
    products = [{"id": n, "tags": ["a", {"b": []}]} for n in range(100)]

    assert taken(properties={"products": products}).properties["products"] == products
    assert taken(properties={"text": "[" * 1_000}).properties["text"] == "[" * 1_000


def test_the_number_of_keys_has_a_limit():
    assert taken(properties={f"k{n}": "::" for n in range(MOST_KEYS - 10)}).flags == ()
    assert refusal(properties={f"k{n}": n for n in range(MOST_KEYS)}).reason.startswith("an event has at most")


def test_an_event_has_a_largest_size():
    fits = {"userId": "u1", "event": "A", "properties": {"text": ""}}
    fits["properties"]["text"] = "x" * (LARGEST_EVENT_BYTES - len(json.dumps(fits)))

    assert taken(fits).event == "A"
    fits["properties"]["text"] += "x"
    assert isinstance(refusal(fits), Unreadable)


# ---- whatever comes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ids = st.one_of(st.text(max_size=12), st.sampled_from(["u1", "null", "", "0"]), st.integers(), json_values)
calls = st.fixed_dictionaries(
    {"type": st.sampled_from(EVENT_TYPES), "userId": ids},
    optional={
        "anonymousId": ids, "messageId": ids, "groupId": ids, "previousId": ids, "event": ids, "name": ids,
        "category": ids, "timestamp": ids | st.datetimes().map(str), "sentAt": ids, "originalTimestamp": ids,
        "context": json_values, "properties": json_values, "traits": json_values, "integrations": json_values,
        "writeKey": ids, "x": json_values,
    },
)  # fmt: skip


@given(calls)
def test_any_json_is_an_event_that_every_reader_can_read_or_is_refused(call: dict[str, Any]):
    try:
        event = read_event(json.dumps(call).encode(), "", ARRIVAL)
    except Refused:
        return

    check_event(event)
    written = encode_event(event)
    assert encode_event(decode_event(written)) == written
    json.loads(written.decode("utf-8"))
    assert set(event.flags) <= set(FLAGS)
    assert event.timestamp <= event.received_at


@given(calls)
def test_what_is_stored_means_what_was_sent(call: dict[str, Any]):
    try:
        event = read_event(json.dumps(call).encode(), "", ARRIVAL)
    except Refused:
        return

    if {"text_mended", "integer_as_text"} & set(event.flags):
        return
    assert event.properties == (call.get("properties") or {})
    assert event.context == (call.get("context") or {})


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes):
    for read in (lambda: read_event(body, "track", ARRIVAL), lambda: read_batch(body), lambda: read_write_key(body)):
        try:
            read()
        except Refused as refused:
            str(refused).encode()


@given(st.sampled_from([b'{"userId":"u1","event":"A","properties":{"a":[1.5,"\\ud83d\\ude00",null]}}']), st.data())
def test_one_wrong_byte_never_raises_anything_but_a_refusal(body: bytes, data: st.DataObject):
    place = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:place] + bytes([data.draw(st.integers(0, 255))]) + body[place + 1 :]

    with suppress(Refused):
        decode_event(encode_event(read_event(damaged, "track", ARRIVAL)))


def test_every_flag_is_documented():
    documented = (Path(__file__).parents[2] / "docs" / "collecting.md").read_text()

    assert [flag for flag in FLAGS if f"`{flag}`" not in documented] == []


def test_stored_json_is_what_msgspec_and_json_agree_on():
    event = taken(properties={"名": "数据", "emoji": "😀", "n": [1, 2.5, None, True]})

    assert msgspec.json.decode(event.raw_properties) == json.loads(bytes(event.raw_properties))
