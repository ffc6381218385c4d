"""RFM: how recently, how often and for how much somebody bought, each in fifths of all customers of the workspace.

The cut points between the fifths are looked up now and then (`streams.rfm`) and hold until then; docs/segments.md
shows the groups.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from processors.values import number_of
from schemas.segments import Cuts
from schemas.times import to_ms

RFM = "rfm"  # the section of a portrait that scores stand in


GROUPS = {  # by recency; then by value, 1 to 5: the mean of frequency and monetary, rounded up
    5: ("new", "potential_loyalist", "potential_loyalist", "champions", "champions"),
    4: ("promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"),
    3: ("about_to_sleep", "about_to_sleep", "needs_attention", "loyal", "loyal"),
    2: ("hibernating", "hibernating", "at_risk", "at_risk", "cannot_lose"),
    1: ("lost", "hibernating", "at_risk", "at_risk", "cannot_lose"),
}


def scores_of(orders: Mapping[str, Any], cuts: Cuts) -> list[int]:
    """Recency, frequency and monetary score, 1 to 5 each, by what processor `orders` shows; empty: no order yet."""
    last = orders.get("last_at")
    if not orders.get("orders") or not isinstance(last, str):
        return []
    revenue = number_of(orders.get("revenue", {}).get(cuts.currency, 0)) or 0.0
    return [
        1 + bisect_left(cuts.last_ms, to_ms(datetime.fromisoformat(last))),
        1 + bisect_left(cuts.orders, orders["orders"]),
        1 + bisect_left(cuts.revenue, revenue),
    ]


def rfm_of(scores: list[int]) -> dict[str, Any]:
    """What conditions and people see of the scores.

    >>> rfm_of([5, 4, 5])
    {'recency': 5, 'frequency': 4, 'monetary': 5, 'value': 5, 'group': 'champions'}
    """
    if not scores:
        return {}
    recency, frequency, monetary = scores
    value = (frequency + monetary + 1) // 2
    return {"recency": recency, "frequency": frequency, "monetary": monetary, "value": value,
            "group": GROUPS[recency][value - 1]}  # fmt: skip
