"""Orders: what a person bought, what she sent back, how much that is by currency, and in which rhythm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any

import msgspec
from pydantic import BaseModel, Field

from processors.amounts import MOST_AMOUNT, MOST_LINES, UNIT, Lines, Stated, decimal_of, stated_of
from processors.base import Person, Processor, Table
from processors.bounded import admit, cut
from schemas.effects import Effect, Row
from schemas.errors import Refused
from schemas.event import Event
from schemas.times import DAY_MS, from_ms, to_iso

COMPLETED, UPDATED, REFUNDED, CANCELLED = "Order Completed", "Order Updated", "Order Refunded", "Order Cancelled"
MOST_PRODUCTS = 100  # counted by themselves; by lot, the rest together
MOST_REFUNDS = 50  # of one order; with more it counts as refunded in full
LONGEST_ID = 100
LONGEST_TEXT = 200
MOST_CURRENCIES = 30  # summed by themselves; these first, the others by lot
KNOWN_CURRENCIES = frozenset({
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "INR", "JPY", "KRW", "MXN", "NOK",
    "NZD", "PLN", "SEK", "SGD", "TRY", "TWD", "USD", "ZAR",
})  # fmt: skip
SHOWN_ORDERS = 20
SHOWN_PRODUCTS = 10
_EVER = -(2**62)
_FEW = 10  # orders, which never have more lines than are kept


class OrdersSettings(BaseModel, extra="forbid", frozen=True):
    """How orders are read. File: config/processors/orders.yaml"""

    currency: str = Field("USD", pattern="^[A-Z]{3}$", description="Currency of amounts that name none.")
    keep_orders: int = Field(500, ge=20, le=2000, description="Orders kept one by one, at most; older ones as totals.")
    keep_lines: int = Field(1000, ge=1000, le=5000, description="Products kept in these orders, at most.")


class Order(msgspec.Struct, array_like=True, gc=False):
    """What is known of one order id. Every field by itself is the same whatever came first.

    Attributes:
        completed_ms: the earliest Order Completed; None while none was seen, then it does not count as an order.
        known_ms: the earliest event about it.
        priced: when and by which event its amount was said last: `revenue`, `currency`, `coupon`.
        listed: when and by which event its products were said last: `lines`, by product, in 1/10000 pieces;
            `rows` is how many lines that event had.
        refunds: by refund id, the amount; None means the whole.
        is_refunded: in full, whatever the refunds sum up to.
        cancelled_ms: the earliest Order Cancelled.
    """

    completed_ms: int | None
    known_ms: int
    priced: tuple[int, str] | None = None
    revenue: int = 0
    currency: str = ""
    coupon: str = ""
    listed: tuple[int, str] | None = None
    lines: Lines = []
    rows: int = 0
    refunds: dict[str, tuple[int, str, int | None]] = {}
    is_refunded: bool = False
    cancelled_ms: int | None = None

    @property
    def placed_ms(self) -> int:
        return self.known_ms if self.completed_ms is None else self.completed_ms

    @property
    def refunded(self) -> int:
        """The amount given back, never more than the revenue."""
        if not self.refunds and not self.is_refunded:  # most of them; segments ask at every order
            return min(self.revenue, 0)
        if self.is_refunded or any(amount is None for _, _, amount in self.refunds.values()):
            return self.revenue
        return min(self.revenue, sum(amount or 0 for _, _, amount in self.refunds.values()))

    @property
    def status(self) -> str:
        if self.completed_ms is None:
            return "not completed"
        if self.cancelled_ms is not None:
            return "cancelled"
        if not self.refunds and not self.is_refunded:
            return "completed"
        return "refunded" if self.refunded >= self.revenue else "partly refunded"


class Totals(msgspec.Struct, array_like=True, gc=False):
    """What orders come to. Amounts in 1/10000 of their currency."""

    orders: int = 0
    cancelled: int = 0
    open: int = 0  # never completed, as far as is known
    revenue: dict[str, int] = {}
    refunded: dict[str, int] = {}
    first_ms: int | None = None
    last_ms: int | None = None
    pieces: int = 0
    products: dict[str, int] = {}

    def add(self, order: Order) -> None:
        if order.completed_ms is None:
            self.open += 1
        elif order.cancelled_ms is not None:
            self.cancelled += 1
        else:
            self.orders += 1
            self.earn(order)
            self.first_ms = min(at for at in (self.first_ms, order.completed_ms) if at is not None)
            self.last_ms = max(at for at in (self.last_ms, order.completed_ms) if at is not None)
            for product, pieces in order.lines:
                self.pieces = _sum(self.pieces, pieces)
                if product in self.products or admit(self.products, product, MOST_PRODUCTS):
                    self.products[product] = _sum(self.products.get(product, 0), pieces)

    def earn(self, order: Order) -> None:
        """Add what a counted order comes to."""
        currency = order.currency
        if currency in self.revenue or admit(self.revenue, currency, MOST_CURRENCIES, KNOWN_CURRENCIES):
            self.revenue[currency] = _sum(self.revenue.get(currency, 0), order.revenue)
            self.refunded[currency] = _sum(self.refunded.get(currency, 0), order.refunded)
        for gone in [one for one in self.refunded if one not in self.revenue]:
            del self.refunded[gone]

    @property
    def net(self) -> dict[str, int]:
        """Revenue after refunds."""
        return {currency: revenue - self.refunded.get(currency, 0) for currency, revenue in self.revenue.items()}

    def merged(self, other: Totals) -> Totals:
        firsts = [at for at in (self.first_ms, other.first_ms) if at is not None]
        lasts = [at for at in (self.last_ms, other.last_ms) if at is not None]
        products = _sums(self.products, other.products)
        revenue, refunded = _sums(self.revenue, other.revenue), _sums(self.refunded, other.refunded)
        currencies = cut(revenue, MOST_CURRENCIES, KNOWN_CURRENCIES)
        return Totals(
            self.orders + other.orders, self.cancelled + other.cancelled, self.open + other.open,
            {currency: revenue[currency] for currency in currencies},
            {currency: refunded[currency] for currency in currencies},
            min(firsts, default=None), max(lasts, default=None), _sum(self.pieces, other.pieces),
            {product: products[product] for product in cut(products, MOST_PRODUCTS)},
        )  # fmt: skip


class OrdersState(msgspec.Struct, array_like=True, gc=False):
    """All orders of a part.

    Attributes:
        orders: by order id.
        older: totals of those that are not kept one by one any more.
        floor_ms: an order that was completed at or before this time, and is not kept, may be one of them.
        late: how many events were about such orders, and were not counted.
    """

    orders: dict[str, Order] = {}
    older: Totals = msgspec.field(default_factory=Totals)
    floor_ms: int | None = None
    late: int = 0


class OrderRow(msgspec.Struct):
    """One row of table `orders`.

    Attributes:
        order_id: the shop's own; the message id where it sent none.
        ordered_at: time of the first Order Completed.
        revenue: what the newest event said that named an amount.
        currency: of revenue and refunded.
        refunded: the sum of its refunds, at most the revenue.
        status: completed, partly refunded, refunded or cancelled.
        products: how many lines it has in order_items.
        coupon: the coupon that was used.
    """

    order_id: str
    ordered_at: datetime
    revenue: Decimal
    currency: str
    refunded: Decimal
    status: str
    products: int
    coupon: str


class ItemRow(msgspec.Struct):
    """One row of table `order_items`.

    Attributes:
        order_id: of table orders.
        line: its place in the order, from 0.
        product_id, sku, name, category: as they were sent.
        price: of one piece; null where none was sent that can be read.
        quantity: pieces; 1 where none was sent that can be read.
        currency: of the price.
        stated_at: time of the event that listed it.
    """

    order_id: str
    line: int
    product_id: str = ""
    sku: str = ""
    name: str = ""
    category: str = ""
    price: Decimal | None = None
    quantity: Decimal = Decimal(1)
    currency: str = ""
    stated_at: datetime | None = None


class Orders(Processor[OrdersState]):
    """An order is known by its order id: sent again, under whatever message id, it counts once.

    Amount and products are each what the newest Order Completed or Order Updated says that names them. Refunds add
    up, each once by its refund id (else by its message id), and may come before their order. A cancelled order stays
    cancelled. Names and properties: Segment's specification for e-commerce.
    """

    name = "orders"
    version = 1
    about = "Orders, refunds and revenue by currency, products bought, first and last order, the time between them."
    wants = frozenset({COMPLETED, UPDATED, REFUNDED, CANCELLED})
    after = ("visits",)
    State = OrdersState
    Settings = OrdersSettings
    limits = {  # noqa: RUF012
        "`keep_orders` orders": "the newest; older ones are kept as totals. An event about an order that is not kept, "
        "and not after the newest of these, is counted in `late` and changes nothing",
        "`keep_lines` products": "in the orders that are kept; with more, fewer orders are kept",
        f"{MOST_LINES} lines an order": "further ones count for the amount, and have no rows",
        f"{MOST_REFUNDS} refunds an order": "with more it counts as refunded in full",
        f"{MOST_PRODUCTS} products": "a fixed lot decides; the rest is in `pieces` only",
        f"{MOST_CURRENCIES} currencies": "common ones first; orders in others count, their amounts do not",
        "99,999,999,999,999.9999 of a currency": "a sum stops there",
    }
    tables = (
        Table("orders", OrderRow, ("order_id",), "One row per order of a person key, as it stands."),
        Table("order_items", ItemRow, ("order_id", "line"), "One row per line of an order, as last stated."),
    )
    cases = (
        {
            "case": "an order that is sent twice under two message ids counts once",
            "events": [
                {"at": "2024-03-01", "event": COMPLETED, "properties": {"order_id": "1", "revenue": 11.77}},
                {"at": "2024-03-01", "event": COMPLETED, "properties": {"order_id": "1", "revenue": 11.77}},
            ],
            "shows": {"orders": 1, "revenue": {"USD": "11.7700"}},
        },
        {
            "case": "a refund may come before its order, and is counted when the order comes",
            "events": [
                {"at": "2024-03-05", "event": REFUNDED, "properties": {"order_id": "1", "total": "5"}},
                {"at": "2024-03-01", "event": COMPLETED,
                 "properties": {"order_id": "1", "total": "20.00", "currency": "eur"}},
            ],
            "shows": {"orders": 1, "revenue": {"EUR": "15.0000"}, "refunded": {"EUR": "5.0000"}},
            "rows": {"orders": [{"order_id": "1", "status": "partly refunded", "refunded": "5.0000"}]},
        },
        {
            "case": "a refund without an amount is a refund of the whole; a cancelled order is none",
            "events": [
                {"at": "2024-03-01", "event": COMPLETED, "properties": {"order_id": "1", "revenue": 20}},
                {"at": "2024-03-02", "event": REFUNDED, "properties": {"order_id": "1"}},
                {"at": "2024-03-03", "event": CANCELLED, "properties": {"order_id": "2"}},
                {"at": "2024-03-02", "event": COMPLETED, "properties": {"order_id": "2", "revenue": 7}},
            ],
            "shows": {"orders": 1, "cancelled": 1, "revenue": {"USD": "0.0000"}, "gross": {"USD": "20.0000"}},
        },
        {
            "case": "an update replaces amount and products, and the lines that are no more are deleted",
            "events": [
                {"at": "2024-03-01", "event": COMPLETED, "properties": {"order_id": "1", "products": [
                    {"product_id": "a", "price": 2, "quantity": 2}, {"product_id": "b", "price": "0.5"}]}},
                {"at": "2024-03-02", "event": UPDATED,
                 "properties": {"order_id": "1", "products": [{"product_id": "a", "price": 2}]}},
            ],
            "shows": {"revenue": {"USD": "2.0000"}, "products": [{"product": "a", "pieces": 1}]},
            "rows": {"order_items": [{"line": 0, "product_id": "a", "quantity": "1.0000"}]},
        },
        {
            "case": "a negative amount is refused",
            "events": [{"at": "2024-03-01", "event": COMPLETED, "properties": {"order_id": "1", "total": -3}}],
            "refuses": "an amount must not be negative",
        },
    )  # fmt: skip

    def check(self, event: Event) -> None:
        """Refuses amounts, currencies and ids that cannot be read: such an order can never be counted.

        An Order Completed without an order id is known by its message id; the other three must say which they mean.
        """
        if event.type != "track":
            return
        properties = event.properties
        order_id = _order_id(properties)
        if order_id is None and event.event != COMPLETED:
            raise Refused(f"{event.event} needs an order id", field="properties.order_id",
                          value=properties.get("order_id"), mend="Send order_id as text or a number.")  # fmt: skip
        if event.event != CANCELLED:
            stated_of(event)

    def apply(self, state: OrdersState, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        if event.type != "track":
            return ()
        at_ms, label = event.at_ms, event.event
        order_id = _order_id(event.properties) or event.message_id
        order = state.orders.get(order_id)
        if order is None:
            if state.floor_ms is not None and at_ms <= state.floor_ms:
                state.late += 1
                return ()
            order = state.orders[order_id] = Order(None, at_ms)
        order.known_ms = min(order.known_ms, at_ms)
        effects: list[Effect] = []
        if label == CANCELLED:
            order.cancelled_ms = at_ms if order.cancelled_ms is None else min(order.cancelled_ms, at_ms)
        elif label == REFUNDED:
            _refund(order, stated_of(event), event)
        else:
            if label == COMPLETED:
                order.completed_ms = at_ms if order.completed_ms is None else min(order.completed_ms, at_ms)
            effects += self._state(order_id, order, stated_of(event), event)
        if order.completed_ms is not None:
            effects.append(Row(_row(order_id, order)))
        if len(state.orders) > self.settings.keep_orders or (
            len(state.orders) > _FEW and sum(len(one.lines) for one in state.orders.values()) > self.settings.keep_lines
        ):
            self._settle(state)
        return effects

    def _state(self, order_id: str, order: Order, stated: Stated, event: Event) -> Iterable[Effect]:
        """Amount and products, each where the event names it and nothing newer did."""
        stamp = (event.at_ms, event.message_id)
        currency = stated.currency or self.settings.currency
        if stated.amount is not None and (order.priced is None or stamp >= order.priced):
            order.priced, order.revenue, order.currency = stamp, stated.amount, currency
            order.coupon = _text(event.properties.get("coupon"), LONGEST_TEXT)
        elif order.priced is None:  # an order of nothing, until an event names an amount
            order.currency = self.settings.currency
        if stated.listed is None or (order.listed is not None and stamp < order.listed):
            return
        items, order.lines = stated.listed
        rows_before, order.rows, order.listed = order.rows, len(items), stamp
        for line, item in enumerate(items):
            yield Row(ItemRow(order_id, line, item.product_id, item.sku, item.name, item.category, item.price,
                              item.quantity, currency, from_ms(event.at_ms)))  # fmt: skip
        for line in range(len(items), rows_before):
            yield Row(ItemRow(order_id, line), is_deleted=True)

    def _settle(self, state: OrdersState) -> None:
        """Add the earliest orders to the totals until the rest is within bounds."""
        lines = sum(len(order.lines) for order in state.orders.values())
        for order_id in sorted(state.orders, key=lambda one: (state.orders[one].placed_ms, one)):
            if len(state.orders) <= self.settings.keep_orders and lines <= self.settings.keep_lines:
                break
            order = state.orders.pop(order_id)
            lines -= len(order.lines)
            state.older.add(order)
            state.floor_ms = max(order.placed_ms, _EVER if state.floor_ms is None else state.floor_ms)

    def merge(self, one: OrdersState, other: OrdersState) -> OrdersState:
        # Nothing is added to the totals here: so three parts give the same whichever two are merged first.
        orders = dict(one.orders)
        for order_id, theirs in other.orders.items():
            mine = orders.get(order_id)
            orders[order_id] = theirs if mine is None else _merged(mine, theirs)
        floors = [floor for floor in (one.floor_ms, other.floor_ms) if floor is not None]
        return OrdersState(orders, one.older.merged(other.older), max(floors, default=None), one.late + other.late)

    def attribute(self, name: str, states: Sequence[OrdersState]) -> Any:
        if name not in ("orders", "first_at", "last_at", "revenue"):
            return super().attribute(name, states)
        known = [state for state in states if state.orders or state.older.orders]
        if not known:
            return {"orders": 0, "revenue": {}}.get(name)
        state = reduce(self.merge, known)
        if name == "revenue":
            return _shown(_net(state))
        counted = [order.completed_ms for order in state.orders.values()
                   if order.completed_ms is not None and order.cancelled_ms is None]  # fmt: skip
        if name == "orders":
            return state.older.orders + len(counted)
        is_first = name == "first_at"
        at_ms = (min if is_first else max)(
            (at for at in (state.older.first_ms if is_first else state.older.last_ms, *counted) if at is not None),
            default=None,
        )
        return None if at_ms is None else to_iso(at_ms)

    def show(self, state: OrdersState) -> dict[str, Any]:
        totals = state.older.merged(Totals())
        for order in state.orders.values():
            totals.add(order)
        counted = {order_id: order for order_id, order in state.orders.items() if order.completed_ms is not None}
        newest = sorted(counted, key=lambda one: (counted[one].placed_ms, one), reverse=True)
        products = sorted(totals.products.items(), key=lambda item: (-item[1], item[0]))
        return {
            "orders": totals.orders,
            "revenue": _shown(totals.net),
            "gross": _shown(totals.revenue),
            "refunded": _shown({currency: amount for currency, amount in totals.refunded.items() if amount}),
            "cancelled": totals.cancelled,
            "not_completed": totals.open,
            "first_at": None if totals.first_ms is None else to_iso(totals.first_ms),
            "last_at": None if totals.last_ms is None else to_iso(totals.last_ms),
            **_rhythm(totals, [order for order in counted.values() if order.cancelled_ms is None]),
            "pieces": _pieces(totals.pieces),
            "products": [{"product": product, "pieces": _pieces(pieces)}
                         for product, pieces in products[:SHOWN_PRODUCTS]],
            "recent": [{"order_id": order_id, "at": to_iso(order.placed_ms), "status": order.status,
                        "revenue": str(decimal_of(order.revenue)), "refunded": str(decimal_of(order.refunded)),
                        "currency": order.currency, "coupon": order.coupon}
                       for order_id in newest[:SHOWN_ORDERS] for order in (counted[order_id],)],
            "late": state.late,
        }  # fmt: skip


def _net(state: OrdersState) -> dict[str, int]:
    """What all orders come to after refunds, as `show` says it."""
    totals = Totals(revenue=dict(state.older.revenue), refunded=dict(state.older.refunded))
    for order in state.orders.values():
        if order.completed_ms is not None and order.cancelled_ms is None:
            totals.earn(order)
    return totals.net


def _order_id(properties: Mapping[str, Any]) -> str | None:
    for name in ("order_id", "orderId", "transaction_id"):
        value = properties.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()[:LONGEST_ID]
    return None


def _refund(order: Order, stated: Stated, event: Event) -> None:
    if order.is_refunded:
        return
    refund_id = _text(event.properties.get("refund_id"), LONGEST_ID) or event.message_id
    amount = stated.amount
    if amount is None and stated.listed is not None and stated.listed.items:
        amount = 0  # a part of the order, at a price that nobody says
    found = (event.at_ms, event.message_id, amount)
    known = order.refunds.get(refund_id)
    if known is None or found[:2] > known[:2]:
        order.refunds[refund_id] = found
    _bound(order)


def _bound(order: Order) -> None:
    if len(order.refunds) > MOST_REFUNDS:
        order.is_refunded = True
    if order.is_refunded:
        order.refunds = {}


def _merged(one: Order, other: Order) -> Order:
    """One order of what two parts know of it."""
    priced = max(one, other, key=lambda order: (order.priced is not None, order.priced or (0, ""), order.currency))
    listed = max(one, other, key=lambda order: (order.listed is not None, order.listed or (0, "")))
    refunds = dict(one.refunds)
    for refund_id, found in other.refunds.items():
        known = refunds.get(refund_id)
        refunds[refund_id] = found if known is None or found[:2] > known[:2] else known
    completed = [at for at in (one.completed_ms, other.completed_ms) if at is not None]
    cancelled = [at for at in (one.cancelled_ms, other.cancelled_ms) if at is not None]
    both = Order(
        min(completed, default=None), min(one.known_ms, other.known_ms), priced.priced, priced.revenue, priced.currency,
        priced.coupon, listed.listed, listed.lines, listed.rows, refunds, one.is_refunded or other.is_refunded,
        min(cancelled, default=None),
    )  # fmt: skip
    _bound(both)
    return both


def _row(order_id: str, order: Order) -> OrderRow:
    return OrderRow(
        order_id, from_ms(order.placed_ms), decimal_of(order.revenue), order.currency, decimal_of(order.refunded),
        order.status, order.rows, order.coupon,
    )  # fmt: skip


def _rhythm(totals: Totals, orders: list[Order]) -> dict[str, Any]:
    """The days between orders: on average from the first to the last, and between the last two."""
    if totals.orders < 2 or totals.first_ms is None or totals.last_ms is None:
        return {"mean_gap_days": None, "last_gap_days": None}
    mean = (totals.last_ms - totals.first_ms) / (totals.orders - 1) / DAY_MS
    newest = sorted(order.placed_ms for order in orders)[-2:]
    last = (newest[1] - newest[0]) / DAY_MS if len(newest) == 2 else None
    return {"mean_gap_days": round(mean, 3), "last_gap_days": None if last is None else round(last, 3)}


def _shown(amounts: Mapping[str, int]) -> dict[str, str]:
    return {currency: str(decimal_of(amounts[currency])) for currency in sorted(amounts)}


def _pieces(pieces: int) -> int | float:
    return pieces // UNIT if pieces % UNIT == 0 else pieces / UNIT


def _text(value: object, longest: int) -> str:
    return str(value)[:longest] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _sum(one: int, other: int) -> int:
    return min(one + other, MOST_AMOUNT)


def _sums(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: _sum(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}
