"""Segments as those who run a shop write them, as many as are asked for, over the traffic of `shop.py`.

A mix in fixed turns: counts and amounts in windows, absence, values of properties, attributes, traits, context,
sequences, and segments of segments. The same every time, and the first ten are the first of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from random import Random
from typing import Any

from schemas.conditions import read_condition
from schemas.segments import Definition, Definitions, Said, encode_definitions
from streams.simulate.catalogue import CAMPAIGNS, MARKETS, PRODUCTS

SEED = 11
CATEGORIES = tuple(sorted({product.category for product in PRODUCTS}))
_WINDOWS = ("1 day", "3 days", "7 days", "14 days", "30 days", "60 days", "90 days", "180 days", "365 days")
_EVENTS = (
    "Product Viewed", "Product Added", "Cart Viewed", "Checkout Started", "Order Completed", "Email Opened",
    "Email Link Clicked", "Products Searched", "Ticket Created", "Signed In",
)  # fmt: skip

Condition = dict[str, Any]


def segments(count: int) -> dict[str, Condition]:
    """So many segments by name."""
    dice, made = Random(SEED), dict[str, Condition]()
    for number, make in enumerate(islice(cycle(_KINDS), count)):
        made[f"{make.__name__.strip('_')}_{number}"] = make(dice, [*made])
    return made


def definitions(count: int) -> list[Definition]:
    return [Definition(name, read_condition(when)) for name, when in segments(count).items()]


def encoded(segments: dict[str, Condition]) -> bytes:
    """As a partition is told them."""
    said = [Said(name=name, version=1, when=when, is_live=True) for name, when in segments.items()]
    return encode_definitions(Definitions(zone="UTC", definitions=said))


def _buyers(dice: Random, others: list[str]) -> Condition:
    return {"did": "Order Completed", "at_least": dice.choice((1, 2, 3, 5)), "within": dice.choice(_WINDOWS[4:])}


def _browsers(dice: Random, others: list[str]) -> Condition:
    return {"did": "Product Viewed", "where": {"category": dice.choice(CATEGORIES)},
            "at_least": dice.choice((1, 2, 3, 5)), "within": dice.choice(_WINDOWS)}  # fmt: skip


def _spenders(dice: Random, others: list[str]) -> Condition:
    return {"did": "Order Completed", "total": {"of": "total", "at_least": dice.choice((50, 100, 300, 1_000))},
            "within": dice.choice(_WINDOWS[4:])}  # fmt: skip


def _silent(dice: Random, others: list[str]) -> Condition:
    return {"all": [
        {"did": "Email Delivered", "at_least": dice.choice((1, 2, 4)), "within": dice.choice(_WINDOWS[3:])},
        {"not": {"did": "Email Opened", "within": dice.choice(_WINDOWS[3:])}},
    ]}  # fmt: skip


def _people_from(dice: Random, others: list[str]) -> Condition:
    market = dice.choice(MARKETS)
    return {"all": [
        dice.choice(({"trait": "address.country", "is": market.country}, {"context": "locale", "is": market.locale},
                     {"trait": "address.city", "one_of": list(market.cities)})),
        {"did": dice.choice(_EVENTS), "within": dice.choice(_WINDOWS)},
    ]}  # fmt: skip


def _left_in_the_cart(dice: Random, others: list[str]) -> Condition:
    return {"all": [
        {"sequence": [{"did": "Product Added", "where": {"category": dice.choice(CATEGORIES)}},
                      {"did": dice.choice(("Cart Viewed", "Checkout Started")), "within": "2 hours",
                       "without": {"did": "Order Completed"}}], "within": dice.choice(_WINDOWS[:5])},
        {"not": {"did": "Order Completed", "within": dice.choice(_WINDOWS[:5])}},
    ]}  # fmt: skip


def _worth_keeping(dice: Random, others: list[str]) -> Condition:
    return {"all": [
        {"attribute": "orders.orders", "at_least": dice.choice((1, 2, 3, 4))},
        dice.choice(({"attribute": "visits.last_at", "longer_ago": dice.choice(_WINDOWS[2:6])},
                     {"attribute": "orders.last_at", "longer_ago": dice.choice(_WINDOWS[3:7])},
                     {"attribute": "visits.visits", "at_least": dice.choice((3, 5, 10))},
                     {"attribute": "profile.first_seen", "longer_ago": dice.choice(_WINDOWS[4:7])})),
    ]}  # fmt: skip


def _interested(dice: Random, others: list[str]) -> Condition:
    return {"all": [
        {"did": "Product Viewed", "where": {"product_id": dice.choice(PRODUCTS).sku}, "at_least": dice.choice((1, 2)),
         "within": dice.choice(_WINDOWS[:6])},
        {"not": {"did": "Product Added", "where": [
            {"property": "price", "at_least": dice.choice((10, 20, 40))}], "within": dice.choice(_WINDOWS[:6])}},
    ]}  # fmt: skip


def _came_by(dice: Random, others: list[str]) -> Condition:
    return {"any": [
        {"context": "campaign.name", "is": dice.choice(CAMPAIGNS[2:]).name},
        {"all": [{"context": "device.type", "is": dice.choice(("mobile", "desktop"))},
                 {"did": dice.choice(("Page", "Screen")), "at_least": dice.choice((3, 10)),
                  "within": dice.choice(_WINDOWS)}]},
    ]}  # fmt: skip


def _of_others(dice: Random, others: list[str]) -> Condition:
    one, other = dice.choice(others), dice.choice(others)
    return {"all": [{"segment": one}, {"not": {"segment": other}},
                    {"did": dice.choice(_EVENTS), "exactly": dice.choice((0, 1, 2)),
                     "within": dice.choice(_WINDOWS)}]}  # fmt: skip


_KINDS: tuple[Callable[[Random, list[str]], Condition], ...] = (
    _buyers, _browsers, _spenders, _silent, _people_from, _left_in_the_cart, _worth_keeping, _interested, _came_by,
    _of_others,
)  # fmt: skip
