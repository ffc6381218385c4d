"""What the customer stage sends to itself, in topic `events` among the events, keyed by the person it is for. JSON.

They stand in the same topic as the events so that everything that happens to a person is one ordered log, and a replay
decides everything again in the same order (docs/decisions/0003-one-ordered-log.md). Readers of `events` who want only
events skip the records that carry the header `tidewire`.

Each message names its `origin`, the input record that caused it, so that what it causes in turn has the same id
however often it is sent; and its sender with a sequence number, so that it is handled once however often it comes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.customer import Claim, Via
from schemas.templates import Channel

HEADER = "tidewire"
HEADERS = ((HEADER, b"internal"),)


class Message(msgspec.Struct, tag_field="kind", kw_only=True, omit_defaults=True):
    """What all of them carry.

    Attributes:
        to: the person key it is for.
        origin: `topic-partition@offset` of the input record that caused it.
        at_ms: the time of that record, ms since 1970.
        by: the key that sent it; empty where it did not come from the stage.
        seq: offset of the record on which `by` sent it, and which of its messages on that record it is: a sender's
            messages to one receiver come in this order, and after a crash the same ones again.
    """

    to: str
    origin: str
    at_ms: int
    by: str = ""
    seq: tuple[int, int] = (-1, 0)


class Forward(Message, tag="forward", kw_only=True):
    """An event of key `part` that was merged, or that stood in the wrong partition.

    `fence` and `offset` say where it first stood: name of the partition, such as `events-3`, and offset. `path` are the
    keys that passed it on, the first first, each with its turn then.
    """

    part: str
    fence: str
    offset: int
    event: msgspec.Raw
    path: list[Via] = []


class Merge(Message, tag="merge", kw_only=True):
    """`claim.holder` claims `to`."""

    claim: Claim


class Vouch(Message, tag="vouch", kw_only=True):
    """An event at `key` says that it belongs to `to`, on the evidence of `claim`: `to` is to claim it."""

    key: str
    claim: Claim


class Absorb(Message, tag="absorb", kw_only=True):
    """Parts that belong to `to` from now on: MessagePack of a map from person key to `schemas.customer.Part`."""

    parts: bytes


class Refuse(Message, tag="refuse", kw_only=True):
    """Answer to a merge: `key` is not `to`'s, on the evidence of `claim`, because of `reason`."""

    key: str
    claim: Claim
    reason: str


class Release(Message, tag="release", kw_only=True):
    """Send the parts that came the way of this message to `heir`, as from `key` in its turn `turn`.

    `path` begins with `key` and the turn before; then follow the keys that passed the message on.
    """

    key: str
    turn: int
    heir: str
    path: list[Via] = []


class Unmerge(Message, tag="unmerge", kw_only=True):
    """A person undoes the merge of `to` into whatever holds it."""

    asked_by: str


class Define(Message, tag="define", kw_only=True):
    """From here on the people of this partition are judged by these definitions (`schemas.segments.Definitions`).

    It stands in every partition, for the partition's own record.
    """

    definitions: msgspec.Raw


class Sweep(Message, tag="sweep", kw_only=True):
    """Judge everybody of this partition whose key comes after `after`, up to `until`; those behind by a further Sweep.

    Whom it is about is said before it is done, so it is the same people when it is done again after a crash, whoever
    was born meanwhile. The first is about nobody; after the last `swept` stands in the ledger, about `sweep`.

    `journey`: instead everybody is asked to enter the journey of this name, each of them once by this `sweep`.
    """

    sweep: str = ""
    journey: str = ""
    after: str = ""
    until: str = ""


class Backfill(Message, tag="backfill", kw_only=True):
    """What ClickHouse knows of the events of key `part`, from before anything was remembered for a segment.

    `memories`: MessagePack of `processors.memories.Memories`.
    """

    part: str
    memories: bytes


class Belongs(Message, tag="belongs", kw_only=True):
    """`person` brings so much to company `to`: orders, and revenue by currency in 1/10,000; or she is gone."""

    person: str
    orders: int = 0
    revenue: dict[str, int] = {}
    is_gone: bool = False


class Account(Message, tag="account", kw_only=True):
    """What all people of `company` come to."""

    company: str
    account: dict[str, Any]


class Prepare(Message, tag="prepare", kw_only=True):
    """May message `id` be sent to `to` now? The answer goes to topic `messages`, for `mailbox`.

    Attributes:
        mailbox: the person key that it was ordered for; `to` is whom she was merged into since.
        attempt: which attempt at sending it this is.
        channel, topic: by which channel, and what she must have consented to; empty: nothing.
    """

    mailbox: str
    id: str
    attempt: int
    channel: Channel
    topic: str = ""


class Coupon(Message, tag="coupon", kw_only=True):
    """`to` is to have a coupon of a campaign. What comes of it stands in topic `coupon_requests`.

    Attributes:
        request: id of the request; cause: what asks for it, or who.
    """

    campaign: str
    request: str
    cause: str = ""


class Tick(Message, tag="tick", kw_only=True):
    """Fire the timers of `to` that are due at `at_ms`."""


Internal = (
    Forward | Merge | Vouch | Absorb | Refuse | Release | Unmerge | Tick | Define | Sweep | Backfill | Belongs | Account
    | Prepare | Coupon
)

encode_internal = msgspec.json.Encoder().encode
decode_internal = msgspec.json.Decoder(Internal).decode


def is_internal(headers: tuple[tuple[str, bytes], ...]) -> bool:
    """Whether a record of topic `events` is the stage's own message, and no event."""
    return any(name == HEADER for name, _ in headers)
