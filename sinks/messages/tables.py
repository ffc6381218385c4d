"""The tables of messages: what became of each, what those said that stayed here or came into an inbox, and where
nothing is sent."""

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
        channel: email, sms, inbox or call; via: what it left through, such as outbox.
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
        kept_at: when it came; `outbox_days` later it is deleted.
        address: where it would have gone.
        language: in which it is.
        subject, preheader, text, html, link: its parts; those that its channel has not are empty.
    """

    id: str
    kept_at: datetime
    address: str
    language: Few
    subject: str
    preheader: str
    text: str
    html: str
    link: str = ""


class InboxRow(msgspec.Struct, frozen=True):
    """A message in somebody's inbox, as she reads it.

    Attributes:
        id: of the message.
        kept_at: when it came; `inbox_days` later it is deleted.
        template: name of its template; topic: what she consented to.
        language: in which it is.
        subject: its title.
        text, html: what it says; html may be empty.
        link: the address that it leads to; may be empty.
    """

    id: str
    kept_at: datetime
    template: Few
    topic: Few
    language: Few
    subject: str
    text: str
    html: str
    link: str


class InboxReadRow(msgspec.Struct, frozen=True):
    """She has read a message of her inbox.

    Attributes:
        id: of the message.
        read_at: when she said so.
    """

    id: str
    read_at: datetime


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
KEPT = Table("outbox", KeptRow, ("id",), "What messages said that stayed here instead of leaving.", "kept_at")
# By id, not by time: one that comes a second time, as transactional messages may, is the same row.
INBOX = Table("inbox", InboxRow, ("id",), "The messages in people's inbox.", "kept_at")
INBOX_READS = Table("inbox_reads", InboxReadRow, ("id",), "Which messages of inboxes were read.", "read_at")
SUPPRESSIONS = Table("suppressions", SuppressionRow, ("channel", "address"),
                     "Addresses to which nothing is sent. They belong to nobody: `key` is empty.")  # fmt: skip
TABLES = (MESSAGES, KEPT, INBOX, INBOX_READS, SUPPRESSIONS)


def tables_kept(*, outbox_days: int, inbox_days: int) -> tuple[Table, ...]:
    """The tables, with how long rows stay in those that forget."""
    days = {KEPT.name: outbox_days, INBOX.name: inbox_days, INBOX_READS.name: inbox_days}
    return tuple(table._replace(days=days.get(table.name, 0)) for table in TABLES)
