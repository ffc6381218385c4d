"""The tables of messages: what became of each, what those said that stayed here, and where nothing is sent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from processors.base import Table

Few = Annotated[str, "LowCardinality(String)"]


class MessageRow(msgspec.Struct, frozen=True):
    """What became of a message.

    Attributes:
        id: of the message; a second order of the same id is none.
        template: name of its template.
        template_version: of what the template said; empty before it was filled in.
        channel: email or sms; via: what it left through, such as outbox.
        kind: marketing or transactional; topic: what she must have consented to.
        state: waiting, sending, unknown, sent, failed or withheld.
        why: what was said last, where it is not sent.
        attempts: how often it was handed over.
        address: hers, on the channel.
        reference: its name on the other side.
        ordered_by: who wanted it; ordered_at: when.
        changed_at: when it came to this state.
        due_at: when it is looked at again.
    """

    id: str
    template: Few
    template_version: Few
    channel: Few
    via: Few
    kind: Few
    topic: Few
    state: Few
    why: str
    attempts: int
    address: str
    reference: str
    ordered_by: Few
    ordered_at: datetime
    changed_at: datetime
    due_at: datetime | None


class KeptRow(msgspec.Struct, frozen=True):
    """A message that stayed here instead of leaving, as she would read it.

    Attributes:
        id: of the message.
        kept_at: when it came.
        address: where it would have gone.
        language: in which it is.
        subject, preheader, text, html: its parts; those that its channel has not are empty.
    """

    id: str
    kept_at: datetime
    address: str
    language: Few
    subject: str
    preheader: str
    text: str
    html: str


class SuppressionRow(msgspec.Struct, frozen=True):
    """An address to which nothing is sent.

    Attributes:
        channel: email or sms.
        address: in small letters.
        reason: bounced, complained or blocked.
        why: what was said, in one line.
        message: id of the message that it came of; empty: of none.
        said_by: who put it there.
        since: since when.
    """

    channel: Few
    address: str
    reason: Few
    why: str
    message: str
    said_by: Few
    since: datetime


MESSAGES = Table("messages", MessageRow, ("id",), "What became of each message, the newest state of it.")
KEPT = Table("outbox", KeptRow, ("id",), "What messages said that stayed here instead of leaving.")
SUPPRESSIONS = Table("suppressions", SuppressionRow, ("channel", "address"),
                     "Addresses to which nothing is sent. They belong to nobody: `key` is empty.")  # fmt: skip
TABLES = (MESSAGES, KEPT, SUPPRESSIONS)
