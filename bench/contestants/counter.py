"""What the contestants of `engine` do with an event: one pure function over one small state."""

from __future__ import annotations

from random import Random

import msgspec


class Seen(msgspec.Struct, gc=False, rename="camel"):
    """What the counter looks at in an event; the rest of it is skipped."""

    event: str
    timestamp: str


class Counted(msgspec.Struct, array_like=True, gc=False):
    """What is kept of one person: three numbers that change, and traits that do not and that nobody reads here."""

    count: int
    last: str
    by_event: dict[str, int]
    traits: msgspec.Raw


decode_seen = msgspec.json.Decoder(Seen).decode
decode_counted = msgspec.msgpack.Decoder(Counted).decode
encode_counted = msgspec.msgpack.Encoder().encode


def count(state: Counted, event: Seen) -> None:
    """Count one event, in place.

    >>> state = Counted(0, "", {}, traits_of(0))
    >>> count(state, Seen("Order Completed", "2026-01-01T00:00:00Z"))
    >>> state.count, state.by_event
    (1, {'Order Completed': 1})
    """
    state.count += 1
    state.last = event.timestamp
    by_event = state.by_event
    by_event[event.event] = by_event.get(event.event, 0) + 1


def traits_of(state_bytes: int) -> msgspec.Raw:
    """Traits of as many strings as make a state of about so many bytes."""
    dice = Random(1)
    traits = {f"trait_{number:03}": f"{dice.getrandbits(96):024x}" for number in range((state_bytes - 80) // 36)}
    return msgspec.Raw(msgspec.msgpack.encode(traits))


def make_new(state_bytes: int) -> Counted:
    """The state of somebody who was never seen."""
    return Counted(0, "", {}, _traits(state_bytes))


_known: dict[int, msgspec.Raw] = {}


def _traits(state_bytes: int) -> msgspec.Raw:
    traits = _known.get(state_bytes)
    if traits is None:
        traits = _known[state_bytes] = traits_of(state_bytes)
    return traits
