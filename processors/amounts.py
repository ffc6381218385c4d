"""Amounts of money and products in the properties of an order, read exactly: whole numbers of 1/10000, never floats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, NamedTuple, cast

from schemas.errors import Refused
from schemas.event import Event

UNIT = 10_000
LARGEST_AMOUNT = 10**12  # of one order; above it nobody sells anything, in any currency
MOST_AMOUNT = 10**18 - 1  # in 1/10000, of any sum: what ClickHouse's Decimal(18, 4) holds
LARGEST_QUANTITY = 10**6
MOST_LINES = 100  # of one order
LONGEST_TEXT = 200
LONGEST_PRODUCT = 64

Lines = list[tuple[str, int]]
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?\Z")
_CURRENCY = re.compile(r"[A-Z]{3}\Z")
_PLACES = Decimal("0.0001")


class Item(NamedTuple):
    """One line of an order. `price` is None where it says none that can be read."""

    product_id: str
    sku: str
    name: str
    category: str
    price: Decimal | None
    quantity: Decimal


class Listed(NamedTuple):
    """The lines as they were sent, and the pieces by product, in 1/10000, by the name that is counted by."""

    items: list[Item]
    lines: Lines


class Stated(NamedTuple):
    """What an event says of an order. `amount` in 1/10000; it and `currency` are None where it says nothing."""

    amount: int | None
    currency: str | None
    listed: Listed | None


def stated_of(event: Event) -> Stated:
    """What an event says of an order; asked for again, the same object.

    Raises:
        Refused: an amount or the currency cannot be read; with the field and the mend.
    """
    known = event.__dict__
    if "_stated" not in known:
        properties = event.properties
        known["_stated"] = Stated(read_amount(properties), read_currency(properties), read_lines(properties))
    return cast(Stated, known["_stated"])


def decimal_of(amount: int) -> Decimal:
    """The amount with its four places.

    >>> decimal_of(117700)
    Decimal('11.7700')
    """
    return Decimal(amount).scaleb(-4)


def read_amount(properties: Mapping[str, Any]) -> int | None:
    """What an order or a refund comes to: `revenue`, else `total`, else the sum of its products; None where none says.

    Raises:
        Refused: it is no number, negative, or absurd; with the field and the mend.
    """
    for name in ("revenue", "total"):
        if properties.get(name) not in (None, ""):
            return _amount(properties[name], f"properties.{name}")
    products = properties.get("products")
    if not isinstance(products, list):
        return None
    amount, is_priced = 0, False
    for line, product in enumerate(products):
        if isinstance(product, dict) and product.get("price") not in (None, ""):
            price = _amount(product["price"], f"properties.products[{line}].price")
            amount += int((price * _quantity(product)).to_integral_value(ROUND_HALF_EVEN))
            is_priced = True
    if amount > LARGEST_AMOUNT * UNIT:
        raise Refused("an amount must be at most 1e12", field="properties.products", mend="Check the quantities.")
    return amount if is_priced else None


def read_currency(properties: Mapping[str, Any]) -> str | None:
    """The currency as three capital letters; None where none is named.

    Raises:
        Refused: it is something else.
    """
    value = properties.get("currency")
    if value in (None, ""):
        return None
    text = value.strip().upper() if isinstance(value, str) else ""
    if not _CURRENCY.match(text):
        raise Refused("a currency is three letters", field="properties.currency", value=value,
                      mend="Send the code of ISO 4217, such as EUR.")  # fmt: skip
    return text


def read_lines(properties: Mapping[str, Any]) -> Listed | None:
    """The products, at most `MOST_LINES`; None where none are listed. What cannot be read of a line is left out."""
    products = properties.get("products")
    if not isinstance(products, list):
        return None
    items = [_item(product) for product in products[:MOST_LINES] if isinstance(product, dict)]
    pieces: dict[str, int] = {}
    for item in items:
        name = (item.product_id or item.sku or item.name)[:LONGEST_PRODUCT]
        if name:
            pieces[name] = pieces.get(name, 0) + int(item.quantity * UNIT)
    return Listed(items, list(pieces.items()))


def _item(product: Mapping[str, Any]) -> Item:
    try:
        price = None if product.get("price") in (None, "") else decimal_of(_amount(product["price"], "price"))
    except Refused:
        price = None
    return Item(
        _text(product.get("product_id", product.get("id"))), _text(product.get("sku")), _text(product.get("name")),
        _text(product.get("category")), price, _quantity(product),
    )  # fmt: skip


def _amount(value: object, field: str) -> int:
    number = _number(value)
    if number is None:
        raise Refused("an amount must be a number", field=field, value=value,
                      mend="Send it as a number, or as text such as 1234.50.")  # fmt: skip
    if number < 0:
        raise Refused("an amount must not be negative", field=field, value=value,
                      mend="Send what was given back as Order Refunded, with a positive amount.")  # fmt: skip
    if number > LARGEST_AMOUNT:
        raise Refused("an amount must be at most 1e12", field=field, value=value, mend="Check the unit.")
    return int(number.quantize(_PLACES, ROUND_HALF_EVEN).scaleb(4))


def _quantity(product: Mapping[str, Any]) -> Decimal:
    number = _number(product.get("quantity", 1))
    if number is None or number < 0 or number > LARGEST_QUANTITY:
        return Decimal(1)
    return number.quantize(_PLACES, ROUND_HALF_EVEN)


def _number(value: object) -> Decimal | None:
    """The number exactly as it was written; None where it is none, or not finite."""
    if type(value) is int and -(10**20) < value < 10**20:
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    if len(text) > 60 or not _NUMBER.match(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _text(value: object) -> str:
    return str(value)[:LONGEST_TEXT] if isinstance(value, str | int) and not isinstance(value, bool) else ""
