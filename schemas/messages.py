"""Messages to people on their way: topic `messages`, and what is remembered of those that are open.

All that happens to a message stands in topic `messages`, in order, keyed by the person it was ordered for:

    Order     somebody wants it sent
    Ready     the customer stage allows it now, with what is known of her      (asked by `internal.Prepare`)
    Withheld  the customer stage does not allow it
    Outcome   what the channel said to an attempt
    Settle    a person decides about one of which nobody knows whether it arrived
    Wake      something of hers is due

The stage of messages (`streams/messages.py`) folds them into her `Mailbox`. A network call stands between a Ready and
its Outcome, and only after the Mailbox that says so is durable. So what a crash can leave is an attempt without an
outcome: a marketing message is then *unknown* and not sent again by itself, a transactional one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from schemas.coupons import TOLD
from schemas.event import Event
from schemas.keyed import Keyed
from schemas.keys import split_key
from schemas.templates import Channel, Class

SOURCE = "tidewire"  # of the events that say what became of a message
# Those that tell of no deed of hers.
OURS = frozenset({"Message Sent", "Message Failed", "Message Bounced", "Message Delivered", "Message Complained"})
OPENED, CLICKED = "Message Opened", "Message Clicked"
READ = "Message Read"  # she, or the page that shows it to her, marked a message of her inbox
MACHINE = "machine"  # property of these two, where not she but a program did it: one of `MACHINES`
MACHINES: Mapping[str, str] = {
    "head": "asked with HEAD, as programs do that look whether an address answers",
    "trap": "the link was followed that no person sees; so is all that the same address does with this message from "
            "then on",
    "swift": "a second link of the message was followed within a second, from the same address; so are all after it",
    "prefetch": "the request says itself that it fetches ahead of a person",
    "proxy": "the pictures of her mails are fetched by her provider (Gmail, Yahoo, Apple): she may have opened it, or "
             "not, and at another time",
    "agent": "the user agent names a program, or there is none",
}  # fmt: skip


WORK = frozenset({"Ticket Created", "Task Created"})  # that a journey opened


def is_no_deed(event: Event) -> bool:
    """Whether an event tells what was done to her, or of her, or by a machine: no sign of life, and no visit."""
    if event.source != SOURCE:
        return False
    if event.type == "identify" or event.event in OURS or event.event in TOLD or event.event in WORK:
        return True
    return event.event in (OPENED, CLICKED) and bool(event.properties.get(MACHINE))


State = Literal["waiting", "sending", "unknown", "sent", "failed", "withheld"]
"""`waiting` for its turn, or to be tried again; `sending`: an attempt is under way; the others are final, but that
somebody may settle what is `unknown`."""
Result = Literal["accepted", "later", "declined", "unknown", "withheld"]
"""What the channel said; `withheld`: it was not asked, since nothing is to be sent there."""
SettleAs = Literal["sent", "failed", "again"]


class OfMessage(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True):
    """What all records of topic `messages` carry: the person key it was ordered for, and the message's id."""

    to: str
    id: str = ""


class Order(OfMessage, tag="order", kw_only=True):
    """Somebody wants a message sent. A second order of the same id changes nothing.

    Attributes:
        template: its name; `channel`, `kind` and `topic` are the template's when it was ordered.
        given: values for the template, as `given.NAME`.
        by: who ordered it, such as `cli` or `page`.
        at_ms: when, in ms since 1970; expires_ms: it is not begun after that.
    """

    template: str
    channel: Channel
    kind: Class
    topic: str = ""
    given: dict[str, Any] = {}
    by: str = ""
    at_ms: int
    expires_ms: int


class Ready(OfMessage, tag="ready", kw_only=True):
    """It may be sent now, as attempt `attempt`: the person she is today, and what processors show of her."""

    attempt: int
    person: str
    sections: msgspec.Raw


class Withheld(OfMessage, tag="withheld", kw_only=True):
    """It may not be sent: why, as one of `WHY_WITHHELD`."""

    attempt: int
    person: str
    why: str


WHY_WITHHELD = ("nobody", "no_address", "no_consent", "bounced", "complained", "blocked")
ADDRESSES: Mapping[Channel, str] = {"email": "email", "sms": "phone"}  # where in the profile her address stands


def address_of(channel: Channel, person: str, profile: object) -> str:
    """Where a message reaches her on a channel; empty where nowhere. Her inbox is known by her id, and so
    is she to another program.

    Args:
        person: her person key.
        profile: what the profile shows of her.

    >>> address_of("inbox", "shop/u:u-17", None), address_of("email", "shop/u:u-17", {"email": "ada@example.com"})
    ('u-17', 'ada@example.com')
    """
    if channel not in ADDRESSES:
        return split_key(person)[2]
    return str(profile.get(ADDRESSES[channel]) or "") if isinstance(profile, Mapping) else ""


class Outcome(OfMessage, tag="outcome", kw_only=True):
    """What became of an attempt.

    Attributes:
        why: one line for a person.
        address: hers, on the channel; empty where it came to none.
        via: what it went through, such as `smtp`.
        version: of the template that was filled in.
        reference: its name on the other side.
        after_ms: try again not before so long; 0: as usual.
        counts: whether it counts as a try; not where the channel as a whole was down.
        is_address: nothing at all can reach this address.
    """

    attempt: int
    result: Result
    why: str = ""
    address: str = ""
    via: str = ""
    version: str = ""
    reference: str = ""
    after_ms: int = 0
    counts: bool = True
    is_address: bool = False


class Settle(OfMessage, tag="settle", kw_only=True):
    """A person decides what becomes of an unknown message, or stops a waiting one (`failed`)."""

    as_: SettleAs = msgspec.field(name="as")
    by: str = ""


class Wake(OfMessage, tag="wake", kw_only=True):
    """Something of hers is due at `at_ms`."""

    at_ms: int


OfMessages = Order | Ready | Withheld | Outcome | Settle | Wake
encode_of_message = msgspec.json.Encoder().encode
decode_of_message = msgspec.json.Decoder(OfMessages).decode


class Send(msgspec.Struct, array_like=True):
    """A message that is open.

    Attributes:
        attempt: of the last attempt; 0 before the first.
        tries: how many attempts counted.
        due_ms: when to look at it again.
        why: what was said last.
        person: who she was when it was last asked.
        address, via, version, reference: as of the last outcome, see there.
    """

    order: Order
    state: State = "waiting"
    attempt: int = 0
    tries: int = 0
    due_ms: int = 0
    why: str = ""
    person: str = ""
    address: str = ""
    via: str = ""
    version: str = ""
    reference: str = ""


class Mailbox(Keyed, array_like=True):
    """What is open of the messages ordered for one person key. Value of changelog `sends`. MessagePack, as arrays.

    Attributes:
        open: by message id, in the order in which they were ordered.
        seen: recent message ids, as `schemas.recent` keeps them.
    """

    open: dict[str, Send] = msgspec.field(default_factory=dict)
    seen: bytes = b""


decode_mailbox = msgspec.msgpack.Decoder(Mailbox).decode
