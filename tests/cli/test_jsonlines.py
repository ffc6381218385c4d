"""Files of events: what a line may be, and ids that stay the same when a file is sent again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Refused, TidewireError
from schemas.event import LARGEST_EVENT_BYTES, LONGEST_MESSAGE_ID
from streams.jsonlines import Call, CallReader, Line, read_lines

names = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
bodies = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page"]), "userId": st.text("abc", min_size=1, max_size=3)},
    optional={"messageId": st.none() | st.text("0123", max_size=3), "properties": values,
              "sentAt": st.just("2020-01-01"), "writeKey": st.just("secret"),
              "context": st.dictionaries(names, values, max_size=3)},
)  # fmt: skip


def read(*lines: object) -> list[Call]:
    reader = CallReader()
    return [
        call
        for number, line in enumerate(lines, start=1)
        for call in reader.calls_of(Line(number, line if isinstance(line, bytes) else json.dumps(line).encode()))
    ]


def sent(*lines: object) -> list[dict]:
    return [json.loads(call.body) for call in read(*lines)]


def test_a_call_goes_as_it_is():
    call = {"type": "track", "event": "x", "userId": "u", "messageId": "m", "properties": {"total": 1.5}}

    assert sent(call) == [call]


def test_digits_are_not_touched():
    line = b'{"type":"track","messageId":"m","userId":"u","properties":{"total":12.50,"n":12345678901234567890123}}'

    assert read(line)[0].body == line


def test_a_batch_is_its_calls_each_with_what_the_batch_says_for_all():
    batch = {
        "batch": [
            {"type": "page", "anonymousId": "a", "messageId": "1", "context": {"ip": "own"}},
            {"type": "page", "anonymousId": "a", "messageId": "2"},
        ],
        "context": {"ip": "all", "locale": "en"},
        "sentAt": "2020-01-01T00:00:00Z",
    }

    one, two = sent(batch)

    assert one["context"] == {"ip": "own", "locale": "en"}
    assert two["context"] == {"ip": "all", "locale": "en"}
    assert "sentAt" not in one | two


def test_the_time_a_file_was_sent_before_and_the_key_it_was_sent_with_are_left_out():
    (call,) = sent({"type": "page", "userId": "u", "messageId": "m", "sentAt": "2020-01-01", "writeKey": "secret"})

    assert call == {"type": "page", "userId": "u", "messageId": "m"}


@pytest.mark.parametrize("missing", [{}, {"messageId": None}, {"messageId": ""}])
def test_a_call_without_an_id_gets_one_of_its_content(missing):
    call = {"type": "page", "userId": "u"} | missing

    ids = [each["messageId"] for each in sent(call, call, {"type": "page", "userId": "v"})]

    assert len(set(ids)) == 3
    assert ids == [each["messageId"] for each in sent(call, call, {"type": "page", "userId": "v"})]
    assert all(0 < len(each) <= LONGEST_MESSAGE_ID for each in ids)


@given(st.lists(bodies, max_size=12), st.randoms(use_true_random=False))
def test_a_file_read_again_in_whatever_order_gives_the_same_calls(lines, random):
    shuffled = list(lines)
    random.shuffle(shuffled)

    assert sorted(read(*lines)) == sorted(read(*shuffled))


@given(st.lists(bodies, max_size=12))
def test_lines_and_one_batch_of_them_are_the_same_calls(lines):
    assert read(*lines) == read({"batch": lines})


@given(bodies)
def test_nothing_else_of_a_call_is_changed(body):
    (call,) = sent(body)

    for name, value in body.items():
        if name not in ("sentAt", "writeKey", "messageId"):
            assert call[name] == value


@given(st.binary(max_size=60))
def test_whatever_a_line_holds_it_is_calls_or_refused(line):
    try:
        found = CallReader().calls_of(Line(1, line))
    except Refused:
        return
    assert all(isinstance(json.loads(call.body), dict) for call in found)


@pytest.mark.parametrize(
    ("line", "says"),
    [(b"nonsense", "one JSON object"), (b"[1]", "one JSON object"), (b'"x"', "one JSON object"), (b"{}{}", "one JSON"),
     (b'{"batch":1}', "batch must be a list"), (b'{"batch":[1]}', "batch must be a list"),
     (b"[" * 100_000, "one JSON"), (b'{"a":"\xff"}', "one JSON")],
)  # fmt: skip
def test_a_line_that_is_no_call_is_refused(line, says):
    with pytest.raises(Refused, match=says):
        CallReader().calls_of(Line(1, line))


def test_a_call_that_is_too_large_is_refused():
    with pytest.raises(Refused, match="at most 32768 bytes"):
        read({"type": "page", "userId": "u", "properties": {"x": "y" * LARGEST_EVENT_BYTES}})


async def lines_of(file: Path) -> list[Line]:
    return [line async for line in read_lines(file)]


async def test_lines_come_with_their_numbers_however_the_file_ends(tmp_path):
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'{"a":1}\r\n\n  \n{"b":2}\n{"c":3}')

    assert await lines_of(file) == [Line(1, b'{"a":1}\r'), Line(4, b'{"b":2}'), Line(5, b'{"c":3}')]


async def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"type":"page","userId":"u"}\n')

    (line,) = await lines_of(file)

    assert json.loads(CallReader().calls_of(line)[0].body)["type"] == "page"


@pytest.mark.parametrize("lines", [1, 1_000, 30_000])
async def test_a_long_file_is_read_whole(tmp_path, lines):
    file = tmp_path / "f.jsonl"
    file.write_bytes(b"".join(b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * (n % 50)) for n in range(lines)))

    found = await lines_of(file)

    assert [json.loads(line.text)["n"] for line in found] == list(range(lines))
    assert found[-1].number == lines


@pytest.mark.parametrize("name", ["people.csv", "events.json.gz", "none.jsonl"])
async def test_a_file_that_is_no_file_of_lines_is_named(tmp_path, name):
    with pytest.raises(TidewireError, match=name.replace(".", r"\.")):
        await lines_of(tmp_path / name)
