"""Orders against a plain sum over the whole history, and the corners: amounts, currencies, refunds, floods."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.acceptance import run, view
from processors.amounts import decimal_of, read_amount
from processors.histories import BEGIN_MS, event_of, events_of
from processors.orders import MOST_REFUNDS, Orders, OrdersSettings
from schemas.errors import Refused
from schemas.event import Event
from schemas.times import DAY_MS, to_iso
from tests.processors.generators import histories, orders

ORDERS = Orders()


def completed(
    order_id: object = "1", day: float = 0, name: str = "Order Completed", **properties: object
) -> dict[str, Any]:
    at = to_iso(BEGIN_MS + int(day * DAY_MS))
    return {"at": at, "event": name, "properties": {"order_id": order_id, **properties}}


def shown(*bodies: dict[str, Any], orders: Orders = ORDERS) -> dict[str, Any]:
    return dict(view(orders, run(orders, events_of(bodies)).parts))


@given(events=histories(orders, most=12))
@settings(max_examples=300, deadline=None)
def test_revenue_is_what_a_plain_look_over_the_whole_history_gives(events: list[Event]) -> None:
    found = view(ORDERS, run(ORDERS, events).parts)

    assert (found["orders"], found["cancelled"], found["not_completed"], found["revenue"]) == _looked_up(events)


def _looked_up(events: list[Event]) -> tuple[int, int, int, dict[str, str]]:
    """The same, by reading the sorted history once per order id, without any state."""
    counted, cancelled, not_completed, revenue = 0, 0, 0, {}
    for order_id in {event.properties["order_id"] for event in events}:
        mine = [event for event in events if event.properties["order_id"] == order_id]
        named = {event.event for event in mine}
        if "Order Completed" not in named:
            not_completed += 1
        elif "Order Cancelled" in named:
            cancelled += 1
        else:
            counted += 1
            said = [event for event in mine if event.event in ("Order Completed", "Order Updated")]
            priced = [event for event in said if read_amount(event.properties) is not None]
            amount = read_amount(priced[-1].properties) or 0 if priced else 0
            currency = str(priced[-1].properties.get("currency", "USD") if priced else "USD").upper()
            refunds: dict[str, int | None] = {}
            for event in mine:
                if event.event == "Order Refunded":
                    some = 0 if event.properties.get("products") else None
                    given_back = read_amount(event.properties)
                    refund_id = event.properties.get("refund_id", event.message_id)
                    refunds[refund_id] = some if given_back is None else given_back
            back = amount if None in refunds.values() else min(amount, sum(one or 0 for one in refunds.values()))
            revenue[currency] = revenue.get(currency, 0) + amount - back
    return counted, cancelled, not_completed, {name: str(decimal_of(revenue[name])) for name in sorted(revenue)}


@given(st.decimals(0, 10**9, places=4))
def test_amounts_are_read_to_the_last_place_as_number_and_as_text(amount: Decimal) -> None:
    assert read_amount({"total": str(amount)}) == int(amount * 10_000)
    if amount < 10**8:
        assert read_amount({"total": float(amount)}) == int(amount * 10_000)


def test_a_thousand_orders_of_a_tenth_are_exactly_a_hundred() -> None:
    found = shown(*(completed(number, number / 100, revenue=0.1) for number in range(1000)))

    assert (found["orders"], found["revenue"], found["late"]) == (1000, {"USD": "100.0000"}, 0)


@pytest.mark.parametrize(("properties", "reason", "field"), [
    ({"total": -0.01}, "an amount must not be negative", "properties.total"),
    ({"revenue": "-5"}, "an amount must not be negative", "properties.revenue"),
    ({"total": 1e13}, "an amount must be at most 1e12", "properties.total"),
    ({"total": 1e308}, "an amount must be at most 1e12", "properties.total"),
    ({"total": "1e999"}, "an amount must be at most 1e12", "properties.total"),
    ({"total": "1,234.50"}, "an amount must be a number", "properties.total"),
    ({"total": "inf"}, "an amount must be a number", "properties.total"),
    ({"total": "nan"}, "an amount must be a number", "properties.total"),
    ({"total": True}, "an amount must be a number", "properties.total"),
    ({"total": ["1"]}, "an amount must be a number", "properties.total"),
    ({"total": "9" * 500}, "an amount must be a number", "properties.total"),
    ({"products": [{"price": 1}, {"price": "x"}]}, "an amount must be a number", "properties.products[1].price"),
    ({"products": [{"price": 10**12, "quantity": 10}]}, "an amount must be at most 1e12", "properties.products"),
    ({"total": 1, "currency": "€"}, "a currency is three letters", "properties.currency"),
    ({"total": 1, "currency": 978}, "a currency is three letters", "properties.currency"),
])  # fmt: skip
def test_what_can_never_be_counted_is_refused_with_field_and_mend(
    properties: dict[str, object], reason: str, field: str
) -> None:
    with pytest.raises(Refused) as refused:
        ORDERS.check(event_of(completed(**properties)))

    assert (refused.value.reason, refused.value.field) == (reason, field)
    assert refused.value.mend


@pytest.mark.parametrize("properties", [{}, {"total": None}, {"total": ""}, {"total": 0}, {"products": []},
                                        {"products": "none"}, {"products": [None, 5]}, {"currency": None}])  # fmt: skip
def test_an_order_without_an_amount_is_an_order_of_nothing(properties: dict[str, object]) -> None:
    found = shown(completed(**properties))

    assert (found["orders"], found["revenue"]) == (1, {"USD": "0.0000"})


def test_an_order_without_an_id_is_known_by_its_message_id_but_a_refund_must_name_its_order() -> None:
    found = shown(completed(None, total=1), completed(None, total=2))

    assert (found["orders"], found["revenue"]) == (2, {"USD": "3.0000"})
    with pytest.raises(Refused, match="Order Refunded needs an order id"):
        ORDERS.check(event_of(completed(None, name="Order Refunded")))


def test_revenue_goes_before_total_and_both_before_products() -> None:
    products = [{"price": "1.25", "quantity": 3}]

    assert read_amount({"revenue": 1, "total": 2, "products": products}) == 10_000
    assert read_amount({"revenue": None, "total": 2, "products": products}) == 20_000
    assert read_amount({"products": products}) == 37_500


def test_an_update_without_an_amount_leaves_the_amount() -> None:
    found = shown(completed(total=5, currency="EUR"), completed(day=1, name="Order Updated", status="shipped"))

    assert found["revenue"] == {"EUR": "5.0000"}


def test_partial_refunds_add_up_and_never_to_more_than_the_order() -> None:
    refunds = [completed(day=day, name="Order Refunded", total=3) for day in (1, 2)]

    assert shown(completed(total=10), *refunds)["revenue"] == {"USD": "4.0000"}
    assert shown(completed(total=5), *refunds)["refunded"] == {"USD": "5.0000"}


def test_a_refund_sent_twice_under_one_refund_id_counts_once() -> None:
    refund = completed(day=1, name="Order Refunded", total=3, refund_id="r-1")

    assert shown(completed(total=10), refund, refund)["refunded"] == {"USD": "3.0000"}


def test_an_order_with_more_refunds_than_are_kept_counts_as_refunded() -> None:
    refunds = [completed(day=1, name="Order Refunded", total="0.01") for _ in range(MOST_REFUNDS + 1)]

    assert shown(completed(total=10), *refunds)["revenue"] == {"USD": "0.0000"}


def test_an_order_id_is_the_same_as_number_and_as_text() -> None:
    assert shown(completed(17, total=1), completed("17", total=1))["orders"] == 1


def test_the_time_between_orders() -> None:
    found = shown(*(completed(day, day, total=1) for day in (0, 10, 14)))

    assert (found["mean_gap_days"], found["last_gap_days"]) == (7.0, 4.0)
    assert (found["first_at"], found["last_at"]) == (to_iso(BEGIN_MS), to_iso(BEGIN_MS + 14 * DAY_MS))


def test_more_orders_than_are_kept_are_counted_all_the_same_and_a_late_one_is_counted_as_late() -> None:
    few = Orders(OrdersSettings(keep_orders=20))
    bodies = [completed(day, day, total=1, products=[{"sku": "s", "price": 1}]) for day in range(50)]

    found = shown(*bodies, completed("late", 1, total=99), completed(3, 3, total=1), orders=few)

    assert (found["orders"], found["revenue"], found["late"]) == (50, {"USD": "50.0000"}, 2)
    assert found["products"] == [{"product": "s", "pieces": 50}]
    assert (found["mean_gap_days"], found["last_gap_days"]) == (1.0, 1.0)


def test_sums_stop_at_what_clickhouse_holds() -> None:
    bodies = [completed(number, number, total=10**12) for number in range(600)]

    assert shown(*bodies)["revenue"] == {"USD": "99999999999999.9999"}


def test_an_order_row_says_how_the_order_stands() -> None:
    folded = run(ORDERS, events_of([
        completed("1", 0, total=20, currency="eur", coupon="MAY", products=[{"sku": "a"}, {"sku": "b"}]),
        completed("1", 3, "Order Refunded", total=5)]))  # fmt: skip

    (row,) = folded.rows["orders"]
    assert row == {"key": "shop/u:ann", "order_id": "1", "ordered_at": "2024-03-01T00:00:00Z", "revenue": "20.0000",
                   "currency": "EUR", "refunded": "5.0000", "status": "partly refunded", "products": 2,
                   "coupon": "MAY"}  # fmt: skip


def test_an_order_that_was_only_updated_has_no_row_yet() -> None:
    folded = run(ORDERS, events_of([completed("1", 0, "Order Updated", total=20)]))

    assert folded.rows["orders"] == []
    assert view(ORDERS, folded.parts)["not_completed"] == 1


def test_lines_that_cannot_be_read_are_kept_as_far_as_they_can() -> None:
    products = [{"product_id": 7, "price": "cheap", "quantity": -2}, {"sku": "s", "quantity": "2.5", "price": "1"}]

    folded = run(ORDERS, events_of([completed(total=1, products=products)]))

    assert [(row["product_id"], row["sku"], row["price"], row["quantity"]) for row in folded.rows["order_items"]] == [
        ("7", "", None, "1"), ("", "s", "1.0000", "2.5000")]  # fmt: skip
