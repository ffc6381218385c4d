"""The CDNOW purchase history as Segment calls: real customers of a CD shop, January 1997 to June 1998.

The file comes with the PyPI package `lifetimes` (MIT), of which nothing is imported. Each line is one order: customer,
day, number of CDs, dollars. Source: P. Fader and B. Hardie, "Forecasting Repeat Sales at CDNOW", 2001.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.errors import TidewireError, shown

PACKAGE, FILE = "lifetimes", "CDNOW_master.txt"
ORDERS, CUSTOMERS = 69_659, 23_570  # of that file
HEADER = "customer_id"

_encode = msgspec.json.Encoder().encode
_CONTEXT = {"library": {"name": "tidewire-demo", "version": "1"}}


class Purchase(NamedTuple):
    """One line of the file.

    Attributes:
        line: its number in the file, from 1; part of the order id and of the message id, so it is always the same.
        usd: the value as the file writes it, such as `11.77`; never a float.
    """

    line: int
    customer: str
    day: date
    cds: int
    usd: str


class Call(NamedTuple):
    """One Segment call as JSON, and whose it is."""

    person: str
    body: bytes


def find_file() -> Path:
    """Where the installed package keeps the file.

    Raises:
        TidewireError: it is not installed; with the command that installs it.
    """
    try:
        files = metadata.files(PACKAGE) or ()
    except metadata.PackageNotFoundError:
        files = ()
    for file in files:
        if file.name == FILE and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise TidewireError(f"The demo replays a purchase history that comes with the package {PACKAGE!r}, which is not "
                        "installed. Install it with: pip install 'tidewire[demo]'")  # fmt: skip


def read_purchases(file: Path) -> Iterator[Purchase]:
    """The purchases in the order of the file.

    Raises:
        TidewireError: the file cannot be read, or a line is no purchase; with its number.
    """
    try:
        with file.open(encoding="ascii") as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.split()
                if fields and fields[0] != HEADER:
                    yield _purchase(file, number, fields)
    except OSError as error:
        raise TidewireError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise TidewireError(f"{file} is not a purchase history: it holds more than plain ASCII text.") from None


def _purchase(file: Path, number: int, fields: list[str]) -> Purchase:
    try:
        customer, day, cds, usd = fields
        whole, point, cents = usd.partition(".")
        if not (len(day) == 8 and day.isascii() and day.isdigit()):
            raise ValueError
        if not (whole.isdigit() and point and len(cents) == 2 and cents.isdigit()):
            raise ValueError
        return Purchase(number, customer, date(int(day[:4]), int(day[4:6]), int(day[6:])), int(cds), usd)
    except ValueError:
        raise TidewireError(f"{file}, line {number}: expected a customer, a day as YYYYMMDD, a number of CDs and "
                            f"dollars as 0.00; got {shown(' '.join(fields))}") from None  # fmt: skip


def calls(purchases: Iterable[Purchase]) -> Iterator[Call]:
    """The purchases as calls in event-time order: each customer's `identify`, then her orders.

    Everything about a call depends on its line alone, so a second replay sends the same bytes.
    """
    known: set[str] = set()
    for purchase in sorted(purchases, key=lambda purchase: (purchase.day, purchase.line)):
        if purchase.customer not in known:
            known.add(purchase.customer)
            yield Call(purchase.customer, _identify(purchase))
        yield Call(purchase.customer, _order(purchase))


def _identify(first: Purchase) -> bytes:
    return _encode(
        {
            "type": "identify",
            "messageId": f"cdnow-customer-{first.customer}",
            "userId": first.customer,
            "timestamp": _noon(first.day),
            "traits": {"first_order": first.day.isoformat()},
            "context": _CONTEXT,
        }
    )


def _order(purchase: Purchase) -> bytes:
    return _encode(
        {
            "type": "track",
            "event": "Order Completed",
            "messageId": f"cdnow-order-{purchase.line}",
            "userId": purchase.customer,
            "timestamp": _noon(purchase.day),
            "properties": {
                "order_id": f"cdnow-{purchase.line}",
                "total": msgspec.Raw(purchase.usd.encode()),  # the digits of the file, never a float
                "revenue": msgspec.Raw(purchase.usd.encode()),
                "currency": "USD",
                "products": [{"product_id": "cd", "name": "CD", "category": "Music", "quantity": purchase.cds}],
            },
            "context": _CONTEXT,
        }
    )


def _noon(day: date) -> str:
    # The file knows days only. At noon a day is the same day in nearly every time zone.
    return f"{day.isoformat()}T12:00:00.000Z"
