"""Traits of a person, each with the time of its change and the values it had before.

Last write wins by event time. Of every trait the newest values are kept, by the last time each was said; so a late
identify finds its place among them, and the order of arrival does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from processors.bounded import admit, cut
from schemas.times import to_iso

MOST_TRAITS = 150  # of a part; well-known names first, the others by lot
MOST_VALUES = 5  # of a trait, the newest by the last time each was said
LARGEST_VALUE = 1_000  # bytes of JSON; a larger one is not kept, and counted
LARGEST_OLD_VALUE = 100  # characters; a larger one is kept as long as it is the newest
LONGEST_NAME = 100  # characters
ID_NAMES = frozenset({"id", "userId", "user_id", "anonymousId", "anonymous_id"})  # say who, not what she is like
# Names that Segment's specification of identify reserves, and those that Tidewire reads itself.
KNOWN_NAMES = frozenset({
    "address", "age", "avatar", "birthday", "company", "createdAt", "description", "email", "firstName", "gender",
    "lastName", "name", "phone", "title", "username", "website", "consent", "unsubscribed", "first_name", "last_name",
    "plan", "locale", "timezone", "language", "country", "city", "industry",
})  # fmt: skip
REMOVED = "null"

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class Value(msgspec.Struct, array_like=True, gc=False):
    """One value of a trait.

    Attributes:
        json: the value; `null` where the trait was removed.
        at_ms, message_id: the last time it was said.
        first_ms: the first time it was said.
    """

    json: str
    at_ms: int
    message_id: str
    first_ms: int


class Trait(msgspec.Struct, array_like=True, gc=False):
    """Attributes: `values`, the newest first; `writes`, how often it was said at all; `is_full`: it had more values."""

    values: list[Value] = []
    writes: int = 0
    is_full: bool = False


class Traits(msgspec.Struct, array_like=True, gc=False):
    """All traits of a part.

    Attributes:
        writes: how often any trait was said.
        too_large: how many of these were not kept for their size.
        is_cut: there were more than `MOST_TRAITS`.
    """

    traits: dict[str, Trait] = {}
    writes: int = 0
    too_large: int = 0
    is_cut: bool = False

    def hear(self, said: Mapping[str, Any], at_ms: int, message_id: str) -> None:
        """Take the traits of one identify call; null removes."""
        for name, value in said.items():
            if name in ID_NAMES or not name:
                continue
            self.writes += 1
            text = _text(value)
            if len(name) > LONGEST_NAME or not text:
                self.too_large += 1
                continue
            trait = self.traits.get(name)
            if trait is None:
                self.is_cut = self.is_cut or len(self.traits) == MOST_TRAITS
                if not admit(self.traits, name, MOST_TRAITS, KNOWN_NAMES):
                    continue
                trait = self.traits[name] = Trait()
            trait.writes += 1
            _add(trait, Value(text, at_ms, message_id, at_ms))
            _settle(trait)

    def merged(self, other: Traits) -> Traits:
        both = Traits(
            {name: _copy(trait) for name, trait in self.traits.items()}, self.writes + other.writes,
            self.too_large + other.too_large, self.is_cut or other.is_cut,
        )  # fmt: skip
        for name, theirs in other.traits.items():
            mine = both.traits.get(name)
            if mine is None:
                both.traits[name] = _copy(theirs)
                continue
            mine.writes += theirs.writes
            mine.is_full = mine.is_full or theirs.is_full
            for value in theirs.values:
                _add(mine, value)
            _settle(mine)
        if len(both.traits) > MOST_TRAITS:
            both.is_cut = True
            both.traits = {name: both.traits[name] for name in cut(both.traits, MOST_TRAITS, KNOWN_NAMES)}
        return both

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Names and newest values of the traits she has."""
        for name in sorted(self.traits):
            text = self.traits[name].values[0].json
            if text != REMOVED:
                yield name, _decode(text)

    def history(self) -> dict[str, dict[str, Any]]:
        """Of each trait since when it has stood as it is, and what it was before, newest first, until when."""
        return {
            name: {
                "since": to_iso(_since(trait)),
                "before": [{"value": _decode(old.json), "until": to_iso(old.at_ms)} for old in trait.values[1:]],
            }
            for name, trait in sorted(self.traits.items())
        }

    @property
    def unkept(self) -> int:
        """How many words were not kept: too large, or of too many traits."""
        return self.writes - sum(trait.writes for trait in self.traits.values())


def _since(trait: Trait) -> int:
    """From when on nothing else was said: the first time of this value, or the last of another, whichever is later.

    Of a trait that takes ever new values, where first times are lost: the last time it was said.
    """
    newest = trait.values[0]
    if trait.is_full or len(newest.json) > LARGEST_OLD_VALUE:
        return newest.at_ms
    return max(newest.first_ms, trait.values[1].at_ms) if len(trait.values) > 1 else newest.first_ms


def _text(value: object) -> str:
    """The value as JSON; empty where it is too large or cannot be written."""
    try:
        text = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):  # such as a lone surrogate
        return ""
    return text.decode() if len(text) <= LARGEST_VALUE else ""


def _copy(trait: Trait) -> Trait:
    return Trait([Value(value.json, value.at_ms, value.message_id, value.first_ms) for value in trait.values],
                 trait.writes, trait.is_full)  # fmt: skip


def _age(value: Value) -> tuple[int, str, str]:
    return value.at_ms, value.message_id, value.json


def _add(trait: Trait, said: Value) -> None:
    """One more word: a new value, or one said before, of which the last and the first time count."""
    for value in trait.values:
        if value.json == said.json:
            value.first_ms = min(value.first_ms, said.first_ms)
            if (said.at_ms, said.message_id) > (value.at_ms, value.message_id):
                value.at_ms, value.message_id = said.at_ms, said.message_id
            return
    trait.values.append(Value(said.json, said.at_ms, said.message_id, said.first_ms))


def _settle(trait: Trait) -> None:
    """Bring the values into order and within their bounds."""
    values = trait.values
    if len(values) > 1:
        values.sort(key=_age, reverse=True)
        newest = values[0]
        # Only small values take places, so that whether a large one was ever the newest leaves no trace.
        small = [value for value in values if len(value.json) <= LARGEST_OLD_VALUE]
        if len(small) > MOST_VALUES:
            trait.is_full = True
            del small[MOST_VALUES:]
        values[:] = small if len(newest.json) <= LARGEST_OLD_VALUE else [newest, *small]
    for value in values:
        if trait.is_full or len(value.json) > LARGEST_OLD_VALUE:
            value.first_ms = value.at_ms  # not to be relied on any more: what it was depends on the order
