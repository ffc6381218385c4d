"""What the leaves of conditions need remembered of a person's events."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from processors.memories import MOST_KNOWN, MOST_OF_SEQUENCE, Memory, merged
from schemas.conditions import Context, Did, Trait, canonical
from schemas.conditions import Event as Selected
from schemas.conditions import Sequence as Steps

UNIT = 10_000  # amounts are kept in whole ten-thousandths
LARGEST_AMOUNT = 10**10  # of one value; larger ones do not count
OF_PAGE = frozenset({"name", "category"})  # properties of a page or screen that stand beside its properties


class Selector(NamedTuple):
    """What a memory remembers.

    Attributes:
        id: known by what it remembers, so that conditions that ask for the same share it, and an edit that leaves it
            alone keeps it.
        kinds: which events, each kind of them apart.
        most: how many are kept: the newest, or the first.
        amount: the property that is added up.
        word: where the value stands that is remembered: `trait` or `context`, and the path in it.
    """

    id: str
    kinds: tuple[Selected, ...] = ()
    most: int = 1
    keeps_first: bool = False
    amount: tuple[str, ...] = ()
    word: tuple[str, ...] = ()

    def merged(self, one: Memory, other: Memory) -> Memory:
        return merged(one, other, self.most, keeps_first=self.keeps_first, is_word=bool(self.word))


@lru_cache(8192)
def selector_of(leaf: Any, zone: str) -> Selector | None:
    """What a leaf needs remembered, where days begin in a time zone; None: nothing."""
    match leaf:
        case Did():
            kind = Selected(did=leaf.did, where=leaf.where)
            if leaf.total is not None:
                return _selector(zone, (kind,), MOST_KNOWN, amount=tuple(leaf.total.of.split(".")))
            if leaf.which is not None:
                return _selector(zone, (kind,), 1, keeps_first=leaf.which == "first")
            return _selector(zone, (kind,), _room(max(times_of(leaf))))
        case Steps():
            kinds = [Selected(did=step.did, where=step.where) for step in leaf.sequence]
            kinds += [step.without for step in leaf.sequence if step.without is not None]
            return _selector(zone, tuple(kinds), MOST_OF_SEQUENCE)
        case Trait():
            return _selector(zone, (), 1, word=("trait", *leaf.trait.split(".")))
        case Context():
            return _selector(zone, (), 1, word=("context", *leaf.context.split(".")))
    return None


def _selector(zone: str, kinds: tuple[Selected, ...], most: int, **more: Any) -> Selector:
    asks_for_days = any(where.before or where.since for kind in kinds for where in kind.where)
    rest = (most, sorted(more.items()), zone if asks_for_days else "")
    said = b"\0".join([*map(canonical, kinds), repr(rest).encode()])
    return Selector(blake2b(said, digest_size=6).hexdigest(), kinds, most, **more)


def times_of(leaf: Did) -> tuple[int, ...]:
    """So many events must be told from one less: of `exactly 3`, three and four."""
    if leaf.at_least is not None:
        return (leaf.at_least,)
    if leaf.at_most is not None:
        return (leaf.at_most + 1,)
    if leaf.exactly is not None:
        return (leaf.exactly, leaf.exactly + 1)
    return (1,)


def _room(times: int) -> int:
    """A few sizes only, so that conditions that ask for nearly the same share a memory."""
    return next(room for room in (1, 2, 4, 8, 16, 64, 256, MOST_KNOWN + 1) if room >= times)
