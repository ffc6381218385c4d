"""What the customer stage sends to itself: values of topic `internal`, keyed by the person they are for. MessagePack.

Each message names its `origin`, the input record that caused it, so that what it causes in turn has the same id
however often it is sent.
"""

from __future__ import annotations

import msgspec

from schemas.customer import Claim, Part


class Message(msgspec.Struct, tag_field="kind", kw_only=True):
    """What all of them carry.

    Attributes:
        to: the person key it is for.
        origin: `topic-partition@offset` of the input record that caused it, and the ordinal among its effects.
        at_ms: the time of that record, ms since 1970.
        path: the keys that passed it on, the first first.
    """

    to: str
    origin: str
    at_ms: int
    path: list[str] = []


class Forward(Message, tag="forward", kw_only=True):
    """An event for a key that was merged, or that stood in the wrong partition: apply it to part `part`."""

    part: str
    fence: str  # name of the partition it first stood in, such as `events-3`
    offset: int
    event: bytes  # the value of its record in `events`
    via: list[str] = []


class Merge(Message, tag="merge", kw_only=True):
    """`claim.holder` claims `to`."""

    claim: Claim


class Absorb(Message, tag="absorb", kw_only=True):
    """The parts of a key that was merged into `to`."""

    parts: dict[str, Part]
    claim: Claim | None = None


class Refuse(Message, tag="refuse", kw_only=True):
    """Answer to a merge: `key` is not `to`'s, because of `reason`."""

    key: str
    reason: str


class Release(Message, tag="release", kw_only=True):
    """Send the parts that came through `key` to `heir`."""

    key: str
    heir: str


class Unmerge(Message, tag="unmerge", kw_only=True):
    """A person undoes the merge of `to` into whatever holds it. `by` says who."""

    by: str


class Tick(Message, tag="tick", kw_only=True):
    """Fire the timers of `to` that are due at `at_ms`."""


Internal = Forward | Merge | Absorb | Refuse | Release | Unmerge | Tick

encode_internal = msgspec.msgpack.Encoder().encode
decode_internal = msgspec.msgpack.Decoder(Internal).decode
