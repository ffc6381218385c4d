"""The outbox: messages stay here, to be looked at. What an installation has until it names another way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from schemas.errors import Unreachable
from sinks.messages.channel import Accepted, Later, Message, Outcome
from sinks.messages.tables import KeptRow

Keep = Callable[[str, KeptRow], Awaitable[None]]


class OutboxChannel:
    """Keeps what it is given. `keep` stores a row of a person key durably; kept again it is the same row."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    async def send(self, message: Message) -> Outcome:
        content = message.content
        row = KeptRow(id=message.id, kept_at=datetime.now(UTC), address=message.to, language=content.language,
                      subject=content.subject, preheader=content.preheader, text=content.text,
                      html=content.html)  # fmt: skip
        try:
            await self._keep(message.person, row)
        except Unreachable as error:
            return Later(str(error), is_down=True)
        return Accepted()

    async def close(self) -> None:
        """There is nothing to close."""
