"""Histories for property tests: few names, few values, times that crowd and tie, so that all meet all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from processors.histories import BEGIN_MS, event_of
from schemas.event import Event
from schemas.times import MINUTE_MS, to_iso

VALUES = st.sampled_from(["a", "b", "c", None, 1, 1.5, True, ["x"], "long " * 40, {"k": "v"}])

moments = st.one_of(st.integers(0, 40), st.integers(0, 6 * 24 * 60)).map(lambda minute: BEGIN_MS + minute * MINUTE_MS)

anybody = st.sampled_from([{}, {"anonymousId": "phone"}, {"userId": "", "anonymousId": "phone"},
                           {"userId": "", "anonymousId": "laptop"}])  # fmt: skip

contexts = st.fixed_dictionaries({}, optional={
    "locale": st.sampled_from(["de-AT", "en", 5]),
    "timezone": st.sampled_from(["Europe/Vienna", "UTC+8", "nowhere"]),
    "userAgent": st.sampled_from(["Mozilla/5.0 (Windows NT 10.0) Chrome/1", "Mozilla/5.0 (iPhone) Safari/1", ""]),
    "page": st.sampled_from([
        {"url": "https://shop.test/", "referrer": "https://www.google.com/search"},
        {"url": "https://shop.test/sale?utm_source=news&utm_campaign=may"}, {"url": 7}, "page",
    ]),
    "library": st.sampled_from([{"name": "analytics-python"}, {"name": "analytics.js"}]),
})  # fmt: skip

identifies = st.fixed_dictionaries({
    "type": st.just("identify"),
    "traits": st.dictionaries(st.sampled_from(["plan", "city", "email", "phone", "name"]), VALUES, max_size=3),
})  # fmt: skip
groups = st.fixed_dictionaries({"type": st.just("group"), "groupId": st.sampled_from(["g-1", "g-2"]),
                                "traits": st.fixed_dictionaries({}, optional={"name": st.sampled_from(["A", "B"])})})
pages = st.just({"type": "page"})
tracks = st.sampled_from(["Product Viewed", "Product Added"]).map(lambda name: {"event": name})
consents = st.fixed_dictionaries({
    "event": st.sampled_from(["Subscribed", "Unsubscribed"]),
    "properties": st.fixed_dictionaries({}, optional={"topic": st.sampled_from(["news", "offers"]),
                                                      "channel": st.sampled_from(["email", "sms"])}),
})  # fmt: skip

amounts = st.one_of(
    st.integers(0, 50), st.decimals(0, 50, places=2).map(str), st.floats(0, 50).map(lambda amount: round(amount, 4))
)
products = st.lists(st.fixed_dictionaries({
    "product_id": st.sampled_from(["p-1", "p-2", "p-3"]), "price": amounts, "quantity": st.integers(1, 3)}), max_size=3)
orders = st.fixed_dictionaries({
    "event": st.sampled_from(
        ["Order Completed", "Order Completed", "Order Updated", "Order Refunded", "Order Cancelled"]
    ),
    "properties": st.fixed_dictionaries(
        {"order_id": st.sampled_from(["1", "2", "3"])},
        optional={"revenue": amounts, "total": amounts, "currency": st.sampled_from(["EUR", "usd"]),
                  "products": products, "refund_id": st.sampled_from(["r-1", "r-2"]), "coupon": st.just("c-1")}),
})  # fmt: skip


def histories(*kinds: st.SearchStrategy[dict[str, Any]], most: int = 14) -> st.SearchStrategy[list[Event]]:
    """Lists of events in the order of their time and message id."""
    bodies = st.tuples(st.one_of(*kinds), moments, anybody, contexts)
    return st.lists(bodies, min_size=1, max_size=most).map(_events)


def _events(made: list[tuple[dict[str, Any], int, dict[str, str], dict[str, Any]]]) -> list[Event]:
    events = [event_of({**kind, **who, "at": to_iso(at_ms), "context": context}, number)
              for number, (kind, at_ms, who, context) in enumerate(made)]  # fmt: skip
    return sorted(events, key=lambda event: (event.at_ms, event.message_id))


everything = histories(identifies, groups, pages, tracks, consents, orders)
