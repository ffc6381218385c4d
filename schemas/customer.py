"""The customer record: everything the customer stage knows of one person key. Value of changelog `customers`.

MessagePack, as arrays: fields are only ever added at the end, with a default. A person is made of *parts*, one for
each person key whose history belongs to her: her own and those merged into her. Parts are folded apart and viewed
together, so a merge can be undone (docs/decisions/0002-people-are-made-of-parts.md).
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.keyed import Keyed


class Claim(msgspec.Struct, array_like=True, frozen=True, order=True):
    """The evidence on which one key says that another belongs to it. The least claim wins, whatever comes first."""

    at_ms: int  # when the event that links the two happened
    holder: str  # the person key that claims
    message_id: str  # the event that says so


class Link(msgspec.Struct, array_like=True):
    """What a record knows of an id it has claimed."""

    claim: Claim
    state: str  # "claimed", "refused" (another has the better claim, or a limit) or "unmerged" (a person undid it)


class Via(msgspec.Struct, array_like=True, frozen=True):
    """One step of the way a part came: the key that handed it over, and how often that key had changed hands."""

    key: str
    turn: int


class Part(msgspec.Struct, array_like=True):
    """What is known from the history of one person key.

    Attributes:
        fence: for each partition the key's events came from, such as `events-3`, the offset of the last one applied.
        seen: recent message ids, see `schemas.recent`.
        applied: how many events were applied; grows with each, so rows of a part carry it as their version.
        sections: the state of each processor, by `name:version`; `Raw` as decoded, the live struct once
            `processors.fold` has opened it. The encoder takes both.
        timers: due time in ms since 1970 by `processor:name`.
        via: the way it came into the record that holds it, the last step first; empty where it is at home.
        moves: how often it was handed over; the newest row of `identities` is known by it.
    """

    fence: dict[str, int] = {}
    seen: bytes = b""
    applied: int = 0
    sections: dict[str, msgspec.Raw] = {}
    timers: dict[str, int] = {}
    via: list[Via] = []
    moves: int = 0


class Debt(msgspec.Struct, array_like=True, frozen=True):
    """What came this way, the last step first, belongs to `heir`, as from `key` in its turn `turn`."""

    way: list[Via]
    key: str
    turn: int
    heir: str


class Member(msgspec.Struct, array_like=True, frozen=True):
    """A segment she is in: by which version of its definition, and since when (ms since 1970)."""

    version: int
    since_ms: int


class Holding(msgspec.Struct, array_like=True, frozen=True):
    """What a person brings to her company: its key, her orders, and her revenue by currency in 1/10,000."""

    company: str
    orders: int
    revenue: dict[str, int]


class Company(msgspec.Struct, array_like=True):
    """The people of a company, by key, with their orders and their revenue by currency in 1/10,000."""

    people: dict[str, tuple[int, dict[str, int]]] = {}


class Customer(Keyed, array_like=True):
    """The record of one person key.

    Attributes:
        redirect: the key this one was merged into; empty where it stands for itself.
        claim: by which claim it was merged.
        turn: how often the key has changed hands.
        parts: by person key; where `redirect` is set, none.
        links: the ids this key has claimed, by person key.
        undone: keys this one must never again be merged into.
        passed: of the parts that were handed on from here, the way they had come.
        debts: what was asked back.
        refused: recent message ids that were refused, as `Part.seen`.
        heard: of every sender, the last of its messages that was handled (`schemas.internal.Message.seq`).
        held: messages (`schemas.internal`, encoded) for parts that are still on their way here: events, and memories.
        segments: those she is in, by name.
        judged_ms: as of when she was last judged; it never goes back.
        judged_due_ms: when time alone may change which segments she is in; 0: never.
        rfm: her scores for recency, frequency and monetary value; empty: she never bought.
        holding: what she last told her company.
        account: what her company last told her: `people`, `orders` and `revenue` of all of it.
        company: of the record of a company.
        definitions: of the record of a partition itself (`streams.segments.RULES_KEY`): by what its people are judged.
    """

    redirect: str = ""
    claim: Claim | None = None
    turn: int = 0
    parts: dict[str, Part] = msgspec.field(default_factory=dict)
    links: dict[str, Link] = msgspec.field(default_factory=dict)
    undone: list[str] = msgspec.field(default_factory=list)
    passed: dict[str, list[Via]] = msgspec.field(default_factory=dict)
    debts: list[Debt] = msgspec.field(default_factory=list)
    refused: bytes = b""
    heard: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    held: list[bytes] = msgspec.field(default_factory=list)
    segments: dict[str, Member] = msgspec.field(default_factory=dict)
    judged_ms: int = 0
    judged_due_ms: int = 0
    definitions: bytes = b""
    rfm: list[int] = msgspec.field(default_factory=list)
    holding: Holding | None = None
    account: dict[str, Any] = msgspec.field(default_factory=dict)
    company: Company | None = None


decode_customer = msgspec.msgpack.Decoder(Customer).decode
decode_part = msgspec.msgpack.Decoder(Part).decode

decode_parts = msgspec.msgpack.Decoder(dict[str, Part]).decode
