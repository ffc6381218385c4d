"""Processor `segments` keeps the laws of every processor, with rules that ask for each kind of memory there is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from processors.acceptance import LAWS
from processors.memories import Memories
from processors.rules import Rules
from processors.segments import Segments
from processors.values import zone_named
from schemas.conditions import read_condition
from schemas.segments import Definition

ORDER, PAGE, IDENTIFY = "Order Completed", "Page", "Identify"
ASKED: dict[str, Any] = {
    "twice": {"did": ORDER, "at_least": 2, "within": "30 days"},
    "dear": {"did": ORDER, "total": {"of": "total", "at_least": 100}},
    "first": {"did": PAGE, "which": "first", "longer_ago": "30 days"},
    "last": {"did": PAGE, "which": "last", "within": "30 days"},
    "often": {"did": PAGE, "at_most": 900},
    "skin": {"did": ORDER, "where": {"products.category": "Skin care"}, "exactly": 1},
    "went": {"sequence": [{"did": PAGE}, {"did": ORDER, "within": "2 hours", "without": {"did": IDENTIFY}}]},
    "pro": {"trait": "plan", "is": "pro"},
    "named": {"trait": "name", "exists": True},
    "abroad": {"context": "locale", "is_not": "en-GB"},
    "campaign": {"context": "campaign.source", "contains": "mail"},
    "mailed": {"trait": "email", "ends_with": "example.com"},
}


class Asked(Segments):
    """The processor by the rules above; it shows what it remembers."""

    cases = (
        {"case": "of two orders the memory of each thing asked about", "events": [
            {"at": "2024-03-01 10:00", "type": "page", "context": {"locale": "en-GB"}},
            {"at": "2024-03-01 11:00", "event": ORDER, "properties": {"total": "60", "products": [{"category": "a"}]}},
            {"at": "2024-03-01 12:00", "event": ORDER, "properties": {
                "total": 40.5, "products": [{"category": "Skin care"}]}, "context": {"campaign": {"source": "mail"}}},
            {"at": "2024-03-02", "type": "identify", "traits": {"plan": "pro", "email": "ann@example.com"}},
        ], "shows": {"twice": 2, "dear": 100.5, "first": 1, "last": 1, "often": 1, "skin": 1, "went": 4,
                     "pro": ["pro"], "named": [], "abroad": ["en-GB"], "campaign": ["mail"],
                     "mailed": ["ann@example.com"]}},
        {"case": "null and false are words too", "events": [
            {"at": "2024-03-01", "type": "identify", "traits": {"plan": "pro", "name": False}},
            {"at": "2024-03-02", "type": "identify", "traits": {"plan": None}},
        ], "shows": {"pro": [], "named": [False]}},
    )  # fmt: skip

    def __init__(self, settings: BaseModel | None = None) -> None:
        super().__init__(settings)
        definitions = [Definition(name, read_condition(when)) for name, when in ASKED.items()]
        self.rules = Rules(definitions, zone_named("Europe/Berlin"))

    def show(self, state: Memories) -> dict[str, Any]:
        return {name: self._shown(state, name) for name in ASKED}

    def _shown(self, state: Memories, name: str) -> Any:
        (id,) = Rules([Definition(name, read_condition(ASKED[name]))], self.rules.zone).selectors
        memory, selector = state.of.get(id), self.rules.selectors[id]
        if selector.word:
            return memory.said if memory else []
        if selector.amount:
            return sum(known[2] for known in memory.known) / 10_000 if memory else 0
        return len(memory.known) if memory else 0


@pytest.mark.parametrize("law", LAWS)
def test_with_rules_it_keeps_every_law(law: str) -> None:
    LAWS[law](Asked(), 4, 12)


def test_the_memory_of_everything_asked_for_has_its_size() -> None:
    """So many bytes docs/segments.md says: of one memory that is full."""
    full = [(1_700_000_000_000 + number, (number + 2) << 40, 123_456) for number in range(1_000)]

    assert len(msgspec.msgpack.encode(full)) < 25_000
