"""The customer stage with the real processors, ten segments, and so many journeys, as `segmented.py` has it.

Counted besides: how many entered, how many lines of the ledger journeys wrote, how many messages they ordered.
"""

from __future__ import annotations

import json
import sys

import msgspec
import structlog

from bench import shop, shop_journeys
from bench.audiences import segments
from bench.contestants.segmented import arriving, delivery_of, happen
from processors.journeys import JOURNEYS, Inside

SEGMENTS = 10


class Job(msgspec.Struct, frozen=True):
    """What to do.

    Attributes:
        events: of the shop.
        journeys: so many.
        profile: as for `segmented.py`.
    """

    events: int
    journeys: int
    profile: str = ""


def contend(given: Job) -> dict[str, float]:
    delivery = delivery_of(shop_journeys.encoded(given.journeys, segments(SEGMENTS)))
    waiting = list(arriving(shop_journeys.marked(body for _, body in shop.calls(given.events))))
    found = happen(delivery, waiting, given.profile)
    states: list[Inside] = [
        delivery.stage.fold.open(part, JOURNEYS) for customer in delivery.held.records.values()
        for part in customer.parts.values() if f"{JOURNEYS}:1" in part.sections
    ]  # fmt: skip
    return found | {
        "entered": sum(each.times for state in states for each in state.entered.values()),
        "inside": sum(len(state.runs) for state in states), "orders": delivery.orders,
    }  # fmt: skip


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(contend(msgspec.json.decode(sys.argv[1], type=Job))), flush=True)


if __name__ == "__main__":
    main()
