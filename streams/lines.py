"""The lines along which stages work: what each reads, in which group, and where its states are kept."""

from __future__ import annotations

from typing import NamedTuple

EVENTS = "events"


class Line(NamedTuple):
    """One line. `changelog` is the topic of the states, with as many partitions as `topic`, and the name of their
    folder on disk."""

    group: str
    topic: str
    changelog: str


CUSTOMERS = Line("tidewire-customers", EVENTS, "customers")
MESSAGES = Line("tidewire-messages", "messages", "sends")
COUPONS = Line("tidewire-coupons", "coupon_requests", "coupons")
