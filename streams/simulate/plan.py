"""What is asked of the simulator, and what it makes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from hashlib import blake2b
from random import Random
from typing import NamedTuple

import msgspec

from schemas.times import to_ms


class Plan(msgspec.Struct, frozen=True, dict=True):
    """One run of the shop. Two equal plans give the same bytes; any difference gives other people with other ids.

    Attributes:
        people: how many human beings ever visit.
        days: how long the history is.
        seed: which history.
        end: the day after the last one (UTC).
        disorder: share of calls that arrive late, by minutes to a day, and so out of order.
        duplicates: share of calls that arrive twice.
    """

    people: int
    days: int
    seed: int
    end: date
    disorder: float = 0.0
    duplicates: float = 0.0

    @cached_property
    def start_ms(self) -> int:
        return self.end_ms - self.days * 24 * 3600 * 1000

    @cached_property
    def end_ms(self) -> int:
        return to_ms(datetime(self.end.year, self.end.month, self.end.day, tzinfo=UTC))

    @cached_property
    def first_day(self) -> date:
        return self.end - timedelta(days=self.days)

    @cached_property
    def name(self) -> str:
        """Of the history; how it is delivered is not part of it, so a disturbed delivery tells the same history."""
        return f"{self.seed}/{self.people}/{self.days}/{self.end.isoformat()}"

    def id(self, *parts: str | int, length: int = 16) -> str:
        """An id made of hexadecimal digits that depends on this plan and the parts alone."""
        text = "/".join((self.name, *map(str, parts)))
        return blake2b(text.encode(), digest_size=(length + 1) // 2).hexdigest()[:length]

    def random(self, *parts: str | int) -> Random:
        """Dice that depend on this plan and the parts alone."""
        return Random("/".join((self.name, *map(str, parts))))


class Made(NamedTuple):
    """One call: when it happened, whose it is (a number from 0), and its JSON."""

    at_ms: int
    person: int
    body: bytes
