"""Channels whose messages stay in Tidewire: the outbox, to be looked at, and the inbox, where she reads them herself.

The outbox is what an installation has until it names another way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from processors.base import Table
from schemas.errors import Unreachable
from sinks.messages.channel import Accepted, Later, Message, Outcome
from sinks.messages.tables import INBOX, KEPT, InboxRow, KeptRow

Row = KeptRow | InboxRow
Keep = Callable[[Table, str, Row], Awaitable[None]]


class KeepingChannel:
    """Keeps what it is given in one table.

    Args:
        row_of: the row of a message that came at a time.
        keep: stores a row of a person key durably; of the same message it is the same row.
    """

    def __init__(self, table: Table, row_of: Callable[[Message, datetime], Row], keep: Keep) -> None:
        self._table, self._row_of, self._keep = table, row_of, keep

    async def send(self, message: Message) -> Outcome:
        try:
            await self._keep(self._table, message.person, self._row_of(message, datetime.now(UTC)))
        except Unreachable as error:
            return Later(str(error), is_down=True)
        return Accepted()

    async def close(self) -> None:
        """There is nothing to close."""


def outbox(keep: Keep) -> KeepingChannel:
    """Keeps messages instead of letting them leave."""
    return KeepingChannel(KEPT, _outbox_row, keep)


def inbox(keep: Keep) -> KeepingChannel:
    """Keeps messages for whom they are for; `web/inbox` gives them to her."""
    return KeepingChannel(INBOX, _inbox_row, keep)


def _outbox_row(message: Message, at: datetime) -> KeptRow:
    content = message.content
    return KeptRow(id=message.id, kept_at=at, address=message.to, language=content.language, subject=content.subject,
                   preheader=content.preheader, text=content.text, html=content.html, link=content.link)  # fmt: skip


def _inbox_row(message: Message, at: datetime) -> InboxRow:
    content = message.content
    return InboxRow(id=message.id, kept_at=at, template=message.template, topic=message.topic,
                    language=content.language, subject=content.subject, text=content.text, html=content.html,
                    link=content.link)  # fmt: skip
