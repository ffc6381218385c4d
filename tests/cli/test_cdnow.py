"""The demo's purchase history: read exactly, told in order, the same at every replay."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import TidewireError
from schemas.event import LARGEST_EVENT_BYTES
from schemas.keys import is_blocked
from streams import cdnow
from streams.cdnow import Purchase, calls, find_file, read_purchases

HEADER = "customer_id       date number_of_cds dollar_value\r\n"


def history(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "history.txt"
    file.write_text(HEADER + "".join(f"{line}\r\n" for line in lines))
    return file


purchases = st.lists(
    st.builds(
        Purchase,
        line=st.integers(2, 10_000),
        customer=st.integers(1, 20).map("{:05d}".format),
        day=st.dates(date(1997, 1, 1), date(1998, 6, 30)),
        cds=st.integers(1, 99),
        usd=st.decimals(0, 2_000, places=2).map(str),
    ),
    unique_by=lambda purchase: purchase.line,
    max_size=60,
)


def test_a_line_is_read_with_its_number_and_its_very_digits(tmp_path):
    file = history(tmp_path, " 00001 19970101  1   11.77", " 00002 19970112  5   77.00")

    assert list(read_purchases(file)) == [
        Purchase(2, "00001", date(1997, 1, 1), 1, "11.77"),
        Purchase(3, "00002", date(1997, 1, 12), 5, "77.00"),
    ]


@pytest.mark.parametrize(
    "line",
    ["00001 19970101 1", "00001 19970231 1 1.00", "00001 1997-1-1 1 1.00", "00001 19970101 one 1.00",
     "00001 19970101 1 1.0", "00001 19970101 1 nan", "00001 19970101 1 -1.00", "00001 19970101 1 1.00 x"],
)  # fmt: skip
def test_a_line_that_is_no_purchase_is_named(tmp_path, line):
    file = history(tmp_path, "00001 19970101 1 11.77", line)

    with pytest.raises(TidewireError, match=r"history\.txt, line 3: expected .*; got "):
        list(read_purchases(file))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TidewireError, match=r"none\.txt cannot be read: No such file"):
        list(read_purchases(tmp_path / "none.txt"))


def test_a_package_that_is_not_installed_is_named_with_the_mend(monkeypatch):
    monkeypatch.setattr(cdnow, "PACKAGE", "no-such-package")

    with pytest.raises(TidewireError, match=r"pip install 'tidewire\[demo\]'"):
        find_file()


def test_an_order_carries_what_the_file_says(tmp_path):
    file = history(tmp_path, "00007 19970131 2 20.76")

    identify, order = (json.loads(call.body, parse_float=Decimal) for call in calls(read_purchases(file)))

    assert identify["type"] == "identify"
    assert identify["traits"] == {"first_order": "1997-01-31"}
    assert (order["type"], order["event"], order["userId"]) == ("track", "Order Completed", "00007")
    assert order["timestamp"] == "1997-01-31T12:00:00.000Z"
    assert order["properties"]["revenue"] == order["properties"]["total"] == Decimal("20.76")
    assert order["properties"]["currency"] == "USD"
    assert order["properties"]["products"][0]["quantity"] == 2
    assert "sentAt" not in order  # it would move the time of the event


@given(purchases)
def test_no_order_is_lost_and_no_cent(history):
    bodies = [json.loads(call.body, parse_float=Decimal) for call in calls(history)]

    orders = [body["properties"] for body in bodies if body["type"] == "track"]
    assert len({order["order_id"] for order in orders}) == len(orders) == len(history)
    assert sum(order["revenue"] for order in orders) == sum(Decimal(purchase.usd) for purchase in history)
    identified = [body["userId"] for body in bodies if body["type"] == "identify"]
    assert sorted(identified) == sorted({purchase.customer for purchase in history})


@given(purchases)
def test_calls_stand_in_event_time_order_and_an_identify_comes_before_the_orders(history):
    bodies = [json.loads(call.body) for call in calls(history)]

    assert [body["timestamp"] for body in bodies] == sorted(body["timestamp"] for body in bodies)
    known = set()
    for body in bodies:
        if body["type"] == "identify":
            known.add(body["userId"])
        assert body["userId"] in known


@given(purchases, st.randoms(use_true_random=False))
def test_a_replay_sends_the_same_bytes_whatever_the_order_of_the_lines(history, random):
    shuffled = list(history)
    random.shuffle(shuffled)

    assert list(calls(shuffled)) == list(calls(history))


@given(purchases)
def test_message_ids_are_unique_and_ids_are_ids(history):
    sent = list(calls(history))

    ids = [json.loads(call.body)["messageId"] for call in sent]
    assert len(set(ids)) == len(ids)
    assert all(len(call.body) < LARGEST_EVENT_BYTES and not is_blocked(call.person) for call in sent)


def test_the_installed_file_is_the_published_one():
    try:
        file = find_file()
    except TidewireError:
        pytest.skip("the extra `demo` is not installed")

    history = list(read_purchases(file))

    assert len(history) == cdnow.ORDERS
    assert len({purchase.customer for purchase in history}) == cdnow.CUSTOMERS
    assert sum(Decimal(purchase.usd) for purchase in history) == Decimal("2500315.63")
    assert min(purchase.day for purchase in history) == date(1997, 1, 1)
    assert max(purchase.day for purchase in history) - date(1997, 1, 1) == timedelta(days=545)
