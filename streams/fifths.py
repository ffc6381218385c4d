"""Fifths of RFM, worked out in memory as a history goes by: the cut points that `streams.rfm` looks up in ClickHouse.

Only what changes is looked at: numbers of people whose records did, and people whose scores are others by new cut
points. A shop of 23,570 customers costs a millisecond or two each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors.fold import Fold
from processors.values import number_of
from schemas.customer import Customer
from schemas.segments import Cuts
from schemas.times import to_ms
from streams.rfm import FEWEST_CUSTOMERS
from streams.segments import ORDERS, SCORED

_FIRST = 1_024  # people that there is room for in the beginning


class Fifths:
    """What everybody of a workspace bought, and where the fifths meet."""

    def __init__(self, fold: Fold, workspace: str) -> None:
        self._fold = fold
        self._workspace = workspace
        self._places: dict[str, int] = {}
        self._keys: list[str] = []
        self._last: NDArray[np.int64] = np.zeros(_FIRST, np.int64)  # 0: no order
        self._orders: NDArray[np.float64] = np.zeros(_FIRST)
        self._revenue: NDArray[np.float64] = np.zeros(_FIRST)
        self._scores: NDArray[np.int8] = np.zeros((_FIRST, 3), np.int8)  # as they stand in her record; 0: none
        self._paid: list[Mapping[str, Any]] = []
        self._currencies: Counter[str] = Counter()
        self._currency = ""

    def hear(self, key: str, customer: Customer) -> None:
        """Somebody's record changed."""
        if key.partition("/")[0] != self._workspace:
            return
        place = self._places.get(key)
        is_here = bool(customer.parts) and not customer.redirect
        orders, last, revenue = self._fold.attributes(customer.parts, ORDERS, SCORED) if is_here else (0, None, None)
        last_ms = to_ms(datetime.fromisoformat(last)) if orders and isinstance(last, str) else 0
        is_customer = last_ms > 0
        if place is None:
            if not is_customer:
                return
            place = self._place(key)
        self._currencies.subtract(self._paid[place].keys())
        paid = self._paid[place] = dict(revenue) if is_customer and isinstance(revenue, Mapping) else {}
        self._currencies.update(paid.keys())
        self._last[place] = last_ms
        self._orders[place] = orders if is_customer else 0
        self._revenue[place] = number_of(paid.get(self._currency, 0)) or 0.0
        self._scores[place] = customer.rfm or 0

    def _place(self, key: str) -> int:
        place = self._places[key] = len(self._keys)
        self._keys.append(key)
        self._paid.append({})
        if place == len(self._last):
            self._last = np.concatenate([self._last, np.zeros_like(self._last)])
            self._orders = np.concatenate([self._orders, np.zeros_like(self._orders)])
            self._revenue = np.concatenate([self._revenue, np.zeros_like(self._revenue)])
            self._scores = np.concatenate([self._scores, np.zeros_like(self._scores)])
        return place

    def look_up(self, now_ms: int) -> Cuts | None:
        """Where the fifths meet now; None where there are too few customers."""
        count = len(self._keys)
        bought = self._last[:count] > 0
        customers = int(bought.sum())
        if customers < FEWEST_CUSTOMERS:
            return None
        currency = max(self._currencies, key=lambda each: (self._currencies[each], each), default="")
        if currency != self._currency:
            self._currency = currency
            self._revenue[:count] = [number_of(paid.get(currency, 0)) or 0.0 for paid in self._paid]
        places = [(customers * k + 4) // 5 - 1 for k in (1, 2, 3, 4)]
        last, orders, revenue = (np.partition(each[:count][bought], places)[places].tolist()
                                 for each in (self._last, self._orders, self._revenue))  # fmt: skip
        return Cuts(workspace=self._workspace, currency=currency, customers=customers, last_ms=tuple(last),
                    orders=tuple(orders), revenue=tuple(revenue), at_ms=now_ms)  # fmt: skip

    def concerned(self, cuts: Cuts) -> list[str]:
        """Whose scores are others by these cut points, in the order of their keys; from here on they have them."""
        count = len(self._keys)
        new = np.zeros((count, 3), np.int8)
        for column, (points, values) in enumerate((
            (cuts.last_ms, self._last), (cuts.orders, self._orders), (cuts.revenue, self._revenue)
        )):  # fmt: skip
            new[:, column] = 1 + np.searchsorted(np.asarray(points), values[:count], side="left")
        new[self._last[:count] == 0] = 0
        changed = np.flatnonzero((new != self._scores[:count]).any(axis=1))
        self._scores[:count] = new
        return sorted(self._keys[place] for place in changed)
