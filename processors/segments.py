"""Processor `segments`: what the conditions of segments need to know of a person's events, remembered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from pydantic import BaseModel

from processors.base import EVERY_EVENT, Person, Processor, Table
from processors.memories import MOST_KNOWN, MOST_OF_SEQUENCE, Memories
from processors.rules import Rules
from processors.turns import Change
from processors.values import LONGEST_TEXT, MOST_IN_LIST, zone_named
from schemas.effects import Effect
from schemas.event import Event


class MembershipRow(msgspec.Struct):
    """One segment that a person is in.

    Attributes:
        segment: its name.
        definition: the version of its definition by which she was judged.
        since: when she joined.
    """

    segment: str
    definition: int = 0
    since: datetime | None = None


class CompanyRow(msgspec.Struct):
    """What the people of a company come to.

    Attributes:
        company: the group id.
        people: how many there are.
        orders: of all of them, as processor `orders` counts.
        revenue: after refunds, by currency.
    """

    company: str
    people: int = 0
    orders: int = 0
    revenue: dict[str, Decimal] = {}


class Segments(Processor[Memories]):
    """Remembers, for each thing that some segment asks about, the events of a person that it asks about.

    Who is in which segment is judged by the customer stage, over all parts of a person (`streams.segments`); the stage
    says before each batch by which rules. An event is known by its source and message id, so one that is told twice,
    live and by a backfill from ClickHouse, counts once.
    """

    name = "segments"
    version = 1
    about = "What segments ask about a person's events, and who is in which segment."
    wants = frozenset({EVERY_EVENT})
    State = Memories
    limits = {  # noqa: RUF012
        "as many events as are asked for": "of `at_least: 3` the newest few, of `which: first` the first; so counts "
        "stay exact for ever",
        f"{MOST_KNOWN} events of a `total`": "the newest; older ones do not count",
        f"{MOST_OF_SEQUENCE} events of a sequence": "the newest of all its steps; what came before does not count",
        f"{LONGEST_TEXT} characters of a text, {MOST_IN_LIST} values of a list": "what comes after is not looked at",
    }
    tables = (
        Table("companies", CompanyRow, ("company",), "What the people of a company come to, by its group id."),
        Table("memberships", MembershipRow, ("segment",), "Who is in which segment now."),
    )
    cases = (  # those with rules: tests/segments/test_processor.py
        {"case": "what no segment asks about is not remembered, nor shown",
         "events": [{"at": "2024-03-01", "event": "Order Completed", "properties": {"total": 12}},
                    {"at": "2024-03-02", "type": "identify", "traits": {"plan": "pro"}}],
         "shows": {}, "rows": {"memberships": [], "companies": []}},
    )  # fmt: skip

    def __init__(self, settings: BaseModel | None = None) -> None:
        super().__init__(settings)
        self.rules = Rules([], zone_named("UTC"))
        self.changed: list[Change] = []
        """Which memories the last event changed, and how."""

    def apply(self, state: Memories, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        self.changed = self.rules.remember(state, event)
        return ()

    def merge(self, one: Memories, other: Memories) -> Memories:
        return self.rules.merged(one, other)

    def show(self, state: Memories) -> dict[str, Any]:
        return {}
