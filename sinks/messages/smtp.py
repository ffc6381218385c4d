"""E-mail by SMTP: messages leave through a server that is asked to deliver them."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

from schemas.errors import ConfigError, Refused
from sinks.messages.address import check_address
from sinks.messages.channel import Declined, Message, Outcome
from sinks.messages.mail import mail_of, wire_of
from sinks.messages.smtp_session import Envelope, NotTaken, Session
from sinks.messages.smtp_settings import SmtpSettings


class SmtpChannel:
    """Hands mails to one server, over connections that are kept for the next mail.

    There are as many connections as there were messages under way together; one that nothing goes through is left after
    `idle_s`, and one on which anything went wrong is never used again.

    Args:
        password: of `settings.user`.
        context: how the certificate of the server is checked; default: against the authorities of the system.

    Raises:
        ConfigError: a user without a password, or a password without a user.
    """

    def __init__(self, settings: SmtpSettings, password: str = "", context: ssl.SSLContext | None = None) -> None:
        if bool(settings.user) != bool(password):
            lacks, mend = ("password", "Set TIDEWIRE_SMTP_PASSWORD, or TIDEWIRE_SMTP_PASSWORD_FILE.")
            if password:
                lacks, mend = ("user", "Name it, or take the password out.")
            raise ConfigError("smtp", f"there is no {lacks} to log in to {settings.host} with.", mend)
        self._settings = settings
        self._password = password
        self._context = context
        if context is None and settings.security != "none":
            self._context = ssl.create_default_context()
        self._idle: dict[Session, asyncio.TimerHandle] = {}  # the one used last stands last
        self._is_closed = False

    async def send(self, message: Message) -> Outcome:
        try:
            to = check_address(message.to)
        except Refused as refused:
            return Declined(str(refused), is_address=True)
        try:
            # A long text takes longer to encode than others should wait.
            wire = await asyncio.to_thread(self._wire, message)
        except Refused as refused:
            return Declined(str(refused))
        return await self._hand_over(
            Envelope(message.id, self._settings.bounces_to or self._settings.sender.address, to, wire)
        )

    def _wire(self, message: Message) -> bytes:
        return wire_of(mail_of(message, self._settings, datetime.now(UTC)))

    async def _hand_over(self, mail: Envelope) -> Outcome:
        session = self._take() or self._new()
        try:
            if session.mails and not await session.is_there():
                session.cut()
                session = self._new()  # and no other that was kept: what ended one ended them all, perhaps
            if not session.is_fit:
                await session.open(self._password)
            return await session.hand_over(mail)
        except NotTaken as not_taken:
            return not_taken.outcome
        finally:
            self._keep(session)

    async def close(self) -> None:
        """Leave all connections."""
        self._is_closed = True
        for session in list(self._idle):
            self._leave(session)

    # --- connections

    def _new(self) -> Session:
        return Session(self._settings, self._context)

    def _take(self) -> Session | None:
        """The connection that was used last, of those that the server has not closed meanwhile."""
        while self._idle:
            session, timer = self._idle.popitem()
            timer.cancel()
            if session.is_fit:
                return session
            session.cut()
        return None

    def _keep(self, session: Session) -> None:
        """Keep it for the next mail, if it is fit for one."""
        if not session.is_fit:
            session.cut()
        elif self._is_closed or session.mails >= self._settings.messages_per_connection:
            session.leave()
        else:
            loop = asyncio.get_running_loop()
            self._idle[session] = loop.call_later(self._settings.idle_s, self._leave, session)

    def _leave(self, session: Session) -> None:
        self._idle.pop(session).cancel()
        session.leave()
