"""A seeded shop: people who visit, buy, complain and leave, told as Segment calls, with truths planted in it.

The same plan gives the same bytes, so what is learned or measured from them can be checked against what is known to be
true (`streams/simulate/truths.py`).
"""

from __future__ import annotations

from streams.simulate.delivery import deliveries
from streams.simulate.plan import Made, Plan
from streams.simulate.shop import Shop
from streams.simulate.truths import TRUTHS, Truth

__all__ = ["TRUTHS", "Made", "Plan", "Shop", "Truth", "deliveries"]
