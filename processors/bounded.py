"""What a processor may keep of what may be endless, so that neither order nor merging matters.

Three ways, each a semilattice: it is the same set whatever comes first, and however it is split and merged again.

- `Span`s in a `Recent`: the newest few, by the last time each was seen.
- names cut by `rank`: a fixed lot decides who stays, well-known names first, so a name once out is out for good and
  its share is in the rest.
- `Said`: of what was said about one thing, the newest word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, MutableMapping
from functools import lru_cache
from typing import TypeVar
from zlib import crc32

import msgspec

V = TypeVar("V")
NOBODY: frozenset[str] = frozenset()


class Said(msgspec.Struct, array_like=True, gc=False):
    """The newest word on one thing. Of two of the same instant the greater message id wins, then the greater text."""

    at_ms: int = 0
    message_id: str = ""
    text: str = ""

    def hear(self, at_ms: int, message_id: str, text: str) -> None:
        if at_ms > self.at_ms or not self.message_id or (
            at_ms == self.at_ms and (message_id, text) > (self.message_id, self.text)
        ):  # fmt: skip
            self.at_ms = at_ms
            self.message_id = message_id
            self.text = text

    def or_newer(self, other: Said) -> Said:
        return max(self, other, key=lambda said: (bool(said.message_id), said.at_ms, said.message_id, said.text))


class Span(msgspec.Struct, array_like=True, gc=False):
    first_ms: int
    last_ms: int


class Recent(msgspec.Struct, array_like=True, gc=False):
    """The `most` names that were seen last. `first_ms` of each is true as long as no name had to go."""

    spans: dict[str, Span] = {}
    is_full: bool = False

    def see(self, name: str, at_ms: int, most: int) -> None:
        span = self.spans.get(name)
        if span is None:
            self.spans[name] = Span(at_ms, at_ms)
            self._cut(most)
        elif at_ms > span.last_ms:
            span.last_ms = at_ms
            if self.is_full:
                span.first_ms = at_ms
        elif at_ms < span.first_ms and not self.is_full:
            span.first_ms = at_ms

    def merged(self, other: Recent, most: int) -> Recent:
        both = Recent({}, self.is_full or other.is_full)
        for name, span in (*self.spans.items(), *other.spans.items()):
            mine = both.spans.get(name, span)
            both.spans[name] = Span(min(mine.first_ms, span.first_ms), max(mine.last_ms, span.last_ms))
        both._cut(most)
        return both

    def _cut(self, most: int) -> None:
        if len(self.spans) > most:
            self.is_full = True
            for name in sorted(self.spans, key=lambda name: (self.spans[name].last_ms, name))[:-most]:
                del self.spans[name]
        if self.is_full:
            # A name that went and came back has lost its first time; which did depends on the order. So none has one.
            for span in self.spans.values():
                span.first_ms = span.last_ms

    def newest_first(self) -> list[tuple[str, Span]]:
        return sorted(self.spans.items(), key=lambda item: (-item[1].last_ms, item[0]))


@lru_cache(maxsize=8_192)
def _lot(name: str) -> tuple[int, str]:
    return crc32(name.encode("utf-8", "surrogatepass")), name


def rank(name: str, known: Collection[str] = NOBODY) -> tuple[bool, int, str]:
    """Who stays when there are too many: the lowest. Well-known names come first, the others by a fixed lot."""
    return (name not in known, *_lot(name))


def admit(kept: MutableMapping[str, V], name: str, most: int, known: Collection[str] = NOBODY) -> bool:
    """Make place for a name that is not in `kept`: whether it may stand there. Who had to go for it is taken out."""
    if len(kept) < most:
        return True
    worst = max(kept, key=lambda one: rank(one, known))
    if rank(name, known) > rank(worst, known):
        return False
    del kept[worst]
    return True


def cut(names: Iterable[str], most: int, known: Collection[str] = NOBODY) -> list[str]:
    """Those of the names that stay."""
    found = list(names)
    return found if len(found) <= most else sorted(found, key=lambda name: rank(name, known))[:most]
