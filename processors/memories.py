"""What segments remember of a person's events, for each thing that some condition asks about.

A memory is a set of events known by their tokens, cut to the newest (or the first) few. So it is the same whatever
came first; an event that is told twice, live and from ClickHouse, counts once; and two memories make one.
"""

from __future__ import annotations

from bisect import insort
from hashlib import md5
from typing import Any

import msgspec

from schemas.event import Event

Known = tuple[int, int, int]
"""One event: when it happened (ms since 1970), its token and kind, and what it counts for, in 1/10,000."""

MOST_KNOWN = 1_000  # events of one memory
MOST_OF_SEQUENCE = 200  # events of all steps of a sequence together
KINDS = 8  # of events in one memory: the steps of a sequence, and what must not stand between them


class Memory(msgspec.Struct, array_like=True, gc=False):
    """Events, the earliest first; or of a word, what was last said: `said` by `known[0]`."""

    known: list[Known] = []
    said: list[bool | int | float | str] = []


class Memories(msgspec.Struct, array_like=True):
    """State of processor `segments`: memories by the id of what they remember."""

    of: dict[str, Memory] = {}


def token_of(source: str, message_id: str) -> int:
    """What an event is known by, in 60 bits; ClickHouse can work it out too. Room is left for the kind."""
    digest = md5(f"{source}\0{message_id}".encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) >> 4 << 3  # below 2**63, as MessagePack and ClickHouse like it


def token(event: Event) -> int:
    return token_of(event.source, event.message_id)


def add(memory: Memory, known: Known, most: int, *, keeps_first: bool = False) -> bool:
    """One more event; the first to tell of it is believed. Returns whether the memory changed."""
    events = memory.known
    if not events:
        events.append(known)
        return True
    if len(events) >= most and (known > events[-1] if keeps_first else known < events[0]):
        return False
    token = known[1]
    if token in [each[1] for each in events]:
        return False
    insort(events, known)
    if len(events) > most:
        del events[-1 if keeps_first else 0]
    return True


def say(memory: Memory, known: Known, said: list[Any]) -> bool:
    """One more word; the newest stands."""
    if memory.known and known[:2] <= memory.known[0][:2]:
        return False
    memory.known, memory.said = [known], said
    return True


def merged(one: Memory, other: Memory, most: int, *, keeps_first: bool = False, is_word: bool = False) -> Memory:
    """One memory of two. Both stay as they are."""
    if is_word:
        return max(one, other, key=lambda memory: memory.known[:1])
    tokens = {known[1] for known in one.known}
    both = sorted([*one.known, *(known for known in other.known if known[1] not in tokens)])
    return Memory(both[:most] if keeps_first else both[-most:])
