"""Orders, revenue, products and visits: what the tables of processors `orders` and `visits` say.

An installation may run without these processors; then there are no such tables, and nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from sinks.analytics import ClickHouseError
from web.dashboard.queries.overview import Overview, Rank, Series, Total

if TYPE_CHECKING:
    from web.dashboard.queries.person import Person

UNKNOWN_TABLE = 60  # ClickHouse's code

# Orders that count: completed, and not cancelled since. Revenue is what remains after refunds.
_ORDERS = """
FROM orders_list
WHERE workspace = {workspace:String} AND status NOT IN ('not completed', 'cancelled')
    AND ordered_at >= fromUnixTimestamp64Milli({before:Int64}) AND ordered_at < fromUnixTimestamp64Milli({end:Int64})
    AND (ordered_at >= fromUnixTimestamp64Milli({start:Int64})
         OR ordered_at < fromUnixTimestamp64Milli({before_end:Int64}))
"""

CURRENCIES = f"""
SELECT currency, count() AS orders, sum(revenue - refunded) AS revenue {_ORDERS}
GROUP BY currency ORDER BY orders DESC, currency
"""

ORDER_STEPS = f"""
SELECT roundDown(toUnixTimestamp64Milli(ordered_at), {{steps:Array(Int64)}}) AS step,
    count() AS orders, countIf(currency = {{currency:String}}) AS paid,
    sumIf(revenue - refunded, currency = {{currency:String}}) AS revenue
{_ORDERS}
GROUP BY step
"""

PRODUCTS = f"""
SELECT product_id, any(name) AS name, sum(units) AS units, sum(orders) AS orders, sum(before) AS before,
    mapFromArrays(groupArray(currency), groupArray(revenue)) AS revenue
FROM (
    SELECT i.product_id AS product_id, any(i.name) AS name, i.currency AS currency,
        sumIf(i.quantity, o.is_now) AS units, uniqExactIf((i.key, i.order_id), o.is_now) AS orders,
        sumIf(i.quantity * ifNull(i.price, 0), o.is_now) AS revenue, sumIf(i.quantity, NOT o.is_now) AS before
    FROM order_items_list AS i
    INNER JOIN (
        SELECT key, order_id, ordered_at >= fromUnixTimestamp64Milli({{start:Int64}}) AS is_now {_ORDERS}
    ) AS o ON i.key = o.key AND i.order_id = o.order_id
    WHERE i.workspace = {{workspace:String}}
    GROUP BY product_id, currency
)
GROUP BY product_id HAVING units > 0
ORDER BY units DESC, orders DESC, product_id LIMIT {{most:UInt32}}
"""  # noqa: S608

VISITS = """
SELECT {name} AS name,
    countIf(started_at >= fromUnixTimestamp64Milli({{start:Int64}})) AS times,
    uniqExactIf(person, started_at >= fromUnixTimestamp64Milli({{start:Int64}})) AS people,
    countIf(started_at < fromUnixTimestamp64Milli({{start:Int64}})) AS before
FROM visits_list
WHERE workspace = {{workspace:String}}
    AND started_at >= fromUnixTimestamp64Milli({{before:Int64}})
    AND started_at < fromUnixTimestamp64Milli({{end:Int64}})
    AND (started_at >= fromUnixTimestamp64Milli({{start:Int64}})
         OR started_at < fromUnixTimestamp64Milli({{before_end:Int64}}))
GROUP BY name HAVING times > 0
ORDER BY times DESC, name LIMIT {{most:UInt32}}
"""
# How the medium of a visit is counted as a channel; after GA4's default channel group, shortened.
_CHANNEL = """multiIf(
    source = '(direct)' OR (source = '' AND medium = ''), 'direct',
    medium IN ('organic'), 'organic',
    match(medium, '^(.*cp.*|ppc|retargeting|paid.*)$'), 'paid',
    medium IN ('social', 'social-network', 'social-media', 'sm', 'social network', 'social media'), 'social',
    medium IN ('email', 'e-mail', 'e_mail', 'e mail', 'newsletter'), 'email',
    medium IN ('display', 'banner', 'expandable', 'interstitial'), 'display',
    medium IN ('affiliate', 'affiliates'), 'affiliate',
    medium = 'sms', 'sms', medium IN ('push', 'notification', 'mobile'), 'push',
    medium IN ('referral', 'app', 'link'), 'referral', 'other')"""
VISIT_NAMES = {"channel": _CHANNEL, "source": "source", "campaign": "campaign"}

ORDERS_OF_PERSON = """
SELECT order_id, ordered_at, revenue, currency, refunded, status, products, coupon
FROM orders_list WHERE workspace = {workspace:String} AND key IN {keys:Array(String)}
ORDER BY ordered_at DESC, order_id LIMIT {most:UInt32}
"""
MOST_ORDERS = 200


class Product(NamedTuple):
    """What was sold of a product, its revenue by currency, and how many in the stretch before."""

    product_id: str
    name: str
    units: Decimal
    orders: int
    revenue: dict[str, Decimal]
    before: Decimal | None


async def _or_nothing(asked: Any) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = await asked
    except ClickHouseError as error:
        if error.code == UNKNOWN_TABLE:
            return []
        raise
    return rows


async def currencies(numbers: Overview) -> list[str]:
    """The currencies of the range, the one with most orders first."""
    return [str(row["currency"]) for row in await _or_nothing(numbers.ask(CURRENCIES))]


async def order_series(numbers: Overview, currency: str) -> dict[str, Series]:
    """`orders` of all currencies; `paid`, how many of them in this one; and their `revenue`."""
    rows = await _or_nothing(numbers.ask(ORDER_STEPS, steps=numbers.points, currency=currency))
    found = {int(row["step"]): row for row in rows}
    return {name: numbers.series(found, name) for name in ("orders", "paid", "revenue")}


async def products(numbers: Overview) -> list[Product]:
    """What was sold, the most pieces first. Discounts and refunds of an order are not shared out to its products."""
    has_before = numbers.span.before is not None
    return [
        Product(row["product_id"], row["name"], row["units"], int(row["orders"]), row["revenue"],
                row["before"] if has_before else None)
        for row in await _or_nothing(numbers.ask(PRODUCTS))
    ]  # fmt: skip


async def visit_sources(numbers: Overview, by: str) -> list[Rank]:
    """Visits by `channel`, `source` or `campaign`."""
    return numbers.ranks(await _or_nothing(numbers.ask(VISITS.format(name=VISIT_NAMES[by]))))


async def orders_of(someone: Person) -> list[dict[str, Any]]:
    """Her orders, the newest first."""
    return await _or_nothing(someone.ask(ORDERS_OF_PERSON, most=MOST_ORDERS))


def mean_order(series: Mapping[str, Series], revenue: Total) -> Decimal | None:
    """Revenue by order, in one currency."""
    paid = sum(series["paid"].now)
    return Decimal(revenue.now) / Decimal(paid) if paid and revenue.now else None
