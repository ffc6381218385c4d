"""Cut points of RFM, looked up in ClickHouse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.segments import Cuts

if TYPE_CHECKING:
    from sinks.analytics import Analytics

FEWEST_CUSTOMERS = 5  # of fewer there are no fifths
GROWN_BY = 1.2  # so many times the customers are worth new cut points before their time

_CURRENCIES = """
SELECT workspace, argMax(currency, (people, currency)) AS currency FROM (
    SELECT workspace, arrayJoin(mapKeys(revenue)) AS currency, count() AS people
    FROM person_list WHERE orders > 0 GROUP BY workspace, currency
) GROUP BY workspace
"""
_CUSTOMERS = "SELECT workspace, count() AS customers FROM person_list WHERE orders > 0 GROUP BY workspace"
_CUTS = """
SELECT length(of_last) AS customers, arrayMap(k -> of_last[intDiv(customers * k + 4, 5)], [1, 2, 3, 4]) AS of_last_ms,
    arrayMap(k -> of_count[intDiv(customers * k + 4, 5)], [1, 2, 3, 4]) AS of_orders,
    arrayMap(k -> of_amount[intDiv(customers * k + 4, 5)], [1, 2, 3, 4]) AS of_revenue
FROM (
    SELECT arraySort(groupArray(toUnixTimestamp64Milli(assumeNotNull(last_order_at)))) AS of_last,
        arraySort(groupArray(toFloat64(orders))) AS of_count,
        arraySort(groupArray(toFloat64(revenue[{currency:String}]))) AS of_amount
    FROM person_list WHERE workspace = {workspace:String} AND orders > 0 AND last_order_at IS NOT NULL
)
"""


async def look_up(analytics: Analytics, known: Mapping[str, Cuts], *, now_ms: int, every_ms: int) -> dict[str, Cuts]:
    """New cut points of the workspaces whose old ones are so old, or of much fewer customers; most times none.

    Raises:
        ClickHouseError: it cannot be asked.
    """
    due = []
    for row in await analytics.query(_CUSTOMERS):
        before = known.get(row["workspace"])
        if row["customers"] >= FEWEST_CUSTOMERS and (
            before is None or now_ms - before.at_ms >= every_ms or row["customers"] >= GROWN_BY * before.customers
        ):  # fmt: skip
            due.append(row["workspace"])
    if not due:
        return {}
    currencies = {row["workspace"]: row["currency"] for row in await analytics.query(_CURRENCIES)}
    return {workspace: await _cuts(analytics, workspace, currencies.get(workspace, ""), now_ms) for workspace in due}


async def _cuts(analytics: Analytics, workspace: str, currency: str, now_ms: int) -> Cuts:
    (found,) = await analytics.query(_CUTS, {"workspace": workspace, "currency": currency})
    return Cuts(
        workspace=workspace, currency=currency, customers=found["customers"], at_ms=now_ms,
        last_ms=tuple(found["of_last_ms"]), orders=tuple(found["of_orders"]), revenue=tuple(found["of_revenue"]),
    )  # fmt: skip
