"""What the Person page knows how to draw of a portrait: the sections of the processors that come with Tidewire.

A section of another shape (an older portrait, a changed processor) is no error: it is shown as the plain facts it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

FROM_TABLES = ("coupon", "journeys")  # sections that the page has from tables


class Earlier(msgspec.Struct):
    value: Any
    until: datetime | None = None


class History(msgspec.Struct):
    """Since when a trait has its value, and what it was before, the newest first."""

    since: datetime | None = None
    before: list[Earlier] = []


class Consent(msgspec.Struct):
    topic: str = "*"
    channel: str = "*"
    granted: bool = False


class Device(msgspec.Struct):
    kind: str = ""
    name: str = ""
    last_seen: datetime | None = None


class FirstTouch(msgspec.Struct):
    at: datetime | None = None
    source: str = ""
    medium: str = ""
    campaign: str = ""


class Profile(msgspec.Struct):
    traits: dict[str, Any] = {}
    trait_history: dict[str, History] = {}
    consent: list[Consent] = []
    devices: list[Device] = []
    first_touch: FirstTouch | None = None


class Visit(msgspec.Struct):
    at: datetime
    until: datetime
    pages: int = 0
    events: int = 0
    landing: str = ""


class Touch(msgspec.Struct):
    visits: int
    source: str = ""
    medium: str = ""
    campaign: str = ""


class Visits(msgspec.Struct):
    visits: int = 0
    pages: int = 0
    seconds: int = 0
    recent: list[Visit] = []
    sources: list[Touch] = []
    late: int = 0


class Bought(msgspec.Struct):
    product: str
    pieces: float = 0


class Orders(msgspec.Struct):
    orders: int = 0
    refunded: dict[str, Decimal] = {}
    first_at: datetime | None = None
    last_at: datetime | None = None
    mean_gap_days: float | None = None
    products: list[Bought] = []


class Sections(NamedTuple):
    """The sections of a portrait; `others` are those that are shown as they are, by name."""

    profile: Profile
    visits: Visits
    orders: Orders
    others: dict[str, Any]


def read_sections(sections: Mapping[str, Any]) -> Sections:
    """The known ones typed, all others as they are."""
    others = {name: section for name, section in sections.items() if name not in FROM_TABLES}
    profile, visits, orders = (
        _known(others, name, kind) for name, kind in (("profile", Profile), ("visits", Visits), ("orders", Orders))
    )
    return Sections(profile, visits, orders, {name: section for name, section in others.items() if section})


def _known(sections: dict[str, Any], name: str, kind: Any) -> Any:
    try:
        found = msgspec.convert(sections.get(name) or {}, kind, strict=False)
    except msgspec.ValidationError:
        return kind()
    sections.pop(name, None)
    return found
