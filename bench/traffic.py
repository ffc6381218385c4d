"""The input of the contests: who acts, in which order, and the events as they stand in topic `events`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple

SEED = 3
NAMES = ("Product Viewed", "Product Added", "Cart Viewed", "Product List Viewed", "Order Completed")
_BEGIN_S = 1_767_225_600  # 2026-01-01


class Workload(NamedTuple):
    """Who acts, and how much is known of each.

    Attributes:
        zipf: exponent of the law by which some act more often than others; 0: all alike.
        state_bytes: of the state of one person, encoded.
    """

    name: str
    persons: int
    zipf: float
    state_bytes: int

    def actors(self, events: int) -> list[int]:
        """Who acts, event after event; the same every time."""
        dice = Random(SEED)
        if not self.zipf:
            return [dice.randrange(self.persons) for _ in range(events)]
        weights = list(accumulate((rank + 1) ** -self.zipf for rank in range(self.persons)))
        numbers = list(range(self.persons))
        dice.shuffle(numbers)  # so that the busiest do not share a partition by their number
        return dice.choices(numbers, cum_weights=weights, k=events)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("hot", 5_000, 0.0, 1_000),
        Workload("uniform", 200_000, 0.0, 1_000),
        Workload("zipf", 200_000, 1.1, 1_000),
        Workload("hot_4kb", 5_000, 0.0, 4_000),
        Workload("uniform_4kb", 200_000, 0.0, 4_000),
    )
}


def track_events(actors: Iterable[int]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of one track event for each actor: valid events of Tidewire, of about 600 bytes."""
    for number, actor in enumerate(actors):
        name = NAMES[number % len(NAMES)]
        clock = _BEGIN_S + number // 200  # 200 events a second, so that a session of one person has several
        minutes, second = divmod(clock % 86_400, 60)
        day = 1 + (clock - _BEGIN_S) // 86_400
        at = f"2026-01-{day:02}T{minutes // 60:02}:{minutes % 60:02}:{second:02}.{number % 200 * 5:03}Z"
        value = (
            f'{{"messageId":"{number:032x}","type":"track","workspace":"default","source":"web","timestamp":"{at}",'
            f'"receivedAt":"{at}","originalTimestamp":"{at}","userId":"{actor:08}","event":"{name}",'
            f'"properties":{{"product_id":"sku-{number % 500}","name":"Red shoe of the summer","category":"shoes",'
            f'"price":49.9,"currency":"EUR","quantity":1,"url":"https://shop.example/products/sku-{number % 500}",'
            f'"image_url":"https://cdn.shop.example/images/sku-{number % 500}.webp"}},'
            f'"context":{{"library":{{"name":"analytics.js","version":"4.1.0"}},"locale":"de-AT","ip":"203.0.113.7"}}}}'
        )
        yield person_key(actor), value.encode()


def person_key(actor: int) -> bytes:
    return b"default/u:%08d" % actor
