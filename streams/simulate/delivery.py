"""How the shop's calls arrive: in order and once, or late and twice as the plan says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS
from streams.simulate.plan import Made, Plan

LATEST_MS = DAY_MS
LATE_BY_MS = 2 * HOUR_MS  # on average
AGAIN_AFTER_MS = 10 * MINUTE_MS  # on average


def deliveries(plan: Plan, calls: Iterable[Made]) -> Iterator[Made]:
    """The calls in the order in which they arrive.

    Every call arrives at least once, with the same bytes; `plan.disorder` of them later than they should, by at most a
    day, and `plan.duplicates` of them a second time.
    """
    if not plan.disorder and not plan.duplicates:
        yield from calls
        return
    dice = plan.random("delivery")
    under_way: list[tuple[int, int, Made]] = []
    for number, call in enumerate(calls):
        while under_way and under_way[0][0] <= call.at_ms:
            yield heappop(under_way)[2]
        late_ms = again_ms = 0
        if dice.random() < plan.disorder:
            late_ms = min(LATEST_MS, int(dice.expovariate(1 / LATE_BY_MS)))
        if dice.random() < plan.duplicates:
            again_ms = 1 + min(LATEST_MS, int(dice.expovariate(1 / AGAIN_AFTER_MS)))
        heappush(under_way, (call.at_ms + late_ms, 2 * number, call))
        if again_ms:
            heappush(under_way, (call.at_ms + late_ms + again_ms, 2 * number + 1, call))
    while under_way:
        yield heappop(under_way)[2]
