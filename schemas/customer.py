"""The customer record: everything the customer stage knows of one person key. Value of changelog `customers`.

MessagePack, as arrays: fields are only ever added at the end, with a default. A person is made of *parts*, one for
each person key whose history belongs to her: her own and those merged into her. Parts are folded apart and viewed
together, so a merge can be undone (docs/decisions/0003-people-are-made-of-parts.md).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw


class Claim(msgspec.Struct, array_like=True, frozen=True, order=True):
    """The evidence on which one key says that another belongs to it. The least claim wins, whatever comes first."""

    at_ms: int  # when the event that links the two happened
    holder: str  # the person key that claims
    message_id: str  # the event that says so


class Link(msgspec.Struct, array_like=True):
    """What a record knows of an id it has claimed."""

    claim: Claim
    state: str  # "claimed", "refused" (another has the better claim, or a limit) or "unmerged" (a person undid it)


class Part(msgspec.Struct, array_like=True):
    """What is known from the history of one person key.

    Attributes:
        fence: for each partition the key's events came from, such as `events-3`, the offset of the last one applied.
        seen: recent message ids, see `schemas.recent`.
        applied: how many events were applied; grows with each, so rows of a part carry it as their version.
        sections: the state of each processor, by `name:version`; encoded until somebody asks.
        timers: due time in ms since 1970 by `processor:name`.
        via: the keys it came through into the record that holds it, the nearest first; empty where it is at home.
        moves: how often it changed hands; the newest row of `identities` is known by it.
    """

    fence: dict[str, int] = {}
    seen: bytes = b""
    applied: int = 0
    sections: dict[str, Any] = {}
    timers: dict[str, int] = {}
    via: list[str] = []
    moves: int = 0


class Customer(msgspec.Struct, array_like=True):
    """The record of one person key. The first five fields are its head (`Head`), readable without the rest.

    Attributes:
        next_due_ms: of its earliest timer; 0 where there is none.
        epoch: the highest epoch of an owner that wrote it; see `streams.store`.
        events_offset, internal_offset: of the last record of this partition that was applied to it.
        revision: grows by one with every record applied.
        redirect: the key this one was merged into; empty where it stands for itself.
        claim: by which claim `redirect` was set.
        parts: by person key; where `redirect` is set, none.
        links: the ids this key has claimed, by person key.
    """

    next_due_ms: int = 0
    epoch: int = 0
    events_offset: int = -1
    internal_offset: int = -1
    revision: int = 0
    redirect: str = ""
    claim: Claim | None = None
    parts: dict[str, Part] = {}
    links: dict[str, Link] = {}
    undone: list[str] = []  # keys this one must never again be merged into


class Head(msgspec.Struct, array_like=True):
    """The first fields of a `Customer`, for those who only compare or look for timers."""

    next_due_ms: int
    epoch: int
    events_offset: int
    internal_offset: int
    revision: int


encode_state = msgspec.msgpack.Encoder().encode
decode_customer = msgspec.msgpack.Decoder(Customer).decode
decode_head = msgspec.msgpack.Decoder(Head).decode
decode_part = msgspec.msgpack.Decoder(Part).decode

__all__ = ["Claim", "Customer", "Head", "Link", "Part", "Raw", "decode_customer", "decode_head", "decode_part",
           "encode_state"]  # fmt: skip
