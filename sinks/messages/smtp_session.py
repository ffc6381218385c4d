"""One connection to an SMTP server, by aiosmtplib: opened, used for mails one after the other, and left."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from typing import NamedTuple, TypeVar, cast

from aiosmtplib import SMTP, SMTPException, SMTPResponse, SMTPResponseException, SMTPServerDisconnected

from sinks.messages.channel import Declined, Outcome
from sinks.messages.smtp_answers import Stage, answered, broken
from sinks.messages.smtp_settings import CHECK_S, SmtpSettings

T = TypeVar("T")
_DOT = re.compile(rb"^\.", re.MULTILINE)


class Envelope(NamedTuple):
    """What the server is told of a mail: its id, which bounces name, and the addresses as `check_address` writes them.

    `wire` is the mail; each of its lines ends with CRLF.
    """

    id: str
    sender: str
    to: str
    wire: bytes


class NotTaken(Exception):
    """The server did not take what it was told, and the mail has come to an end."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(str(outcome))


class Session:
    """A connection. Who opened it cuts or leaves it, whatever happened.

    Attributes:
        is_fit: whether another mail may go through it: both sides know where they are.
        mails: how many went through.
    """

    def __init__(self, settings: SmtpSettings, context: ssl.SSLContext | None) -> None:
        self._settings = settings
        # Its own timeouts are for one answer each; ours, below, are for all answers of a phase together.
        self._smtp = SMTP(hostname=settings.host, port=settings.port, timeout=None, use_tls=settings.security == "tls",
                          start_tls=False, tls_context=context,
                          local_hostname=settings.helo or settings.sender.domain)  # fmt: skip
        self._writer: asyncio.StreamWriter | None = None
        self._stage: Stage = "connect"
        self._is_in_step = False
        self.mails = 0

    @property
    def is_fit(self) -> bool:
        return self._is_in_step and self._smtp.is_connected

    # --- opening

    async def open(self, password: str) -> None:
        """Connect, encrypt as the settings want it, and log in.

        Raises:
            NotTaken: it cannot be done; the channel is down.
        """
        await self._within(self._settings.connect_timeout_s, self._open(password))
        self._is_in_step = True

    async def _open(self, password: str) -> None:
        await self._ask("connect", self._smtp.connect(), 220)
        await self._ask("EHLO", self._smtp.ehlo())
        if self._settings.security == "starttls":
            if not self._smtp.supports_extension("starttls"):  # or somebody on the way has taken that out
                raise NotTaken(broken("STARTTLS", f"{self._name} does not offer STARTTLS; nothing was sent to it"))
            await self._ask("STARTTLS", self._smtp.starttls(), 220)
            await self._ask("EHLO", self._smtp.ehlo())  # what it offered in the clear does not count: RFC 3207, 4.2
        if self._settings.user:
            await self._log_in(self._settings.user, password)

    async def _log_in(self, user: str, password: str) -> None:
        offered = self._smtp.server_auth_methods
        if "plain" in offered:
            await self._ask("AUTH", self._smtp.auth_plain(user, password), 235)
        elif "login" in offered:
            await self._ask("AUTH", self._smtp.auth_login(user, password), 235)
        else:
            said = ", ".join(offered) or "none"
            raise NotTaken(broken("AUTH", f"{self._name} offers no way to log in that we know, PLAIN or LOGIN: {said}"))

    async def is_there(self) -> bool:
        """Whether a connection that was kept can still be used. The server forgets the mail before."""
        self._is_in_step = False
        try:
            await self._within(min(CHECK_S, self._settings.connect_timeout_s), self._ask("RSET", self._smtp.rset()))
        except NotTaken:
            return False
        self._is_in_step = True
        return True

    # --- a mail

    async def hand_over(self, mail: Envelope) -> Outcome:
        """Hand a mail over, and say what came of it."""
        self._is_in_step = False
        self.mails += 1
        options = self._options(mail)
        if isinstance(options, Declined):
            self._is_in_step = True  # nothing was said
            return options
        try:
            await self._within(self._settings.answer_timeout_s, self._begin(mail, options))
            return await self._within(self._settings.end_timeout_s, self._end())
        except NotTaken as not_taken:
            return not_taken.outcome

    def _options(self, mail: Envelope) -> list[str] | Declined:
        """What MAIL is told beside the sender, or why this server cannot take the mail at all."""
        offered = self._smtp.esmtp_extensions
        options = []
        if not mail.to.isascii():
            if "smtputf8" not in offered:
                return Declined(f"{self._name} takes no address that is not ASCII (SMTPUTF8): {mail.to}")
            options.append("SMTPUTF8")
        if "8bitmime" in offered and not mail.wire.isascii():
            options.append("BODY=8BITMIME")
        if "size" in offered:
            options.append(f"SIZE={len(mail.wire)}")
            most = int(offered["size"][:20]) if offered["size"].isdecimal() else 0  # 0: it names no limit
            if 0 < most < len(mail.wire):
                return Declined(f"{self._name} takes mails of at most {most:,} octets; this has {len(mail.wire):,}")
        if "dsn" in offered:  # a bounce then names the message, and returns its headers only: RFC 3461
            options += ["RET=HDRS", f"ENVID={mail.id}"]
        return options

    async def _begin(self, mail: Envelope, options: list[str]) -> None:
        """All of the mail but the dot that makes it one."""
        encoding = "ascii" if mail.to.isascii() else "utf-8"
        await self._ask("MAIL", self._smtp.mail(mail.sender, options=options))
        await self._ask("RCPT", self._smtp.rcpt(mail.to, encoding=encoding), 250, 251)  # 251: it forwards there
        await self._ask("DATA", self._smtp.execute_command(b"DATA"), 354)
        self._stage = "text"
        try:
            writer = self._open_writer()
            writer.write(_DOT.sub(b"..", mail.wire))
            await writer.drain()  # until the system has all of it: the dot must not leave before what it ends
        except (SMTPException, OSError) as error:
            raise self._lost(str(error)) from None

    async def _end(self) -> Outcome:
        """The dot, and what the server says to it. aiosmtplib sends text and dot as one, and cannot tell whether a mail
        that failed had its dot."""
        protocol = self._smtp.protocol
        if protocol is None or not protocol.is_connected:
            raise self._lost("Connection lost")
        self._stage = "end"
        self._open_writer().write(b".\r\n")
        code, text = await self._answer(protocol.read_response())
        self._is_in_step = code != 421
        return answered("end", code, text, self._name)

    def _open_writer(self) -> asyncio.StreamWriter:
        """Writes as asyncio's streams do: `drain` is what aiosmtplib lacks."""
        if self._writer is None:
            protocol, transport = self._smtp.protocol, self._smtp.transport
            if protocol is None or transport is None:
                raise SMTPServerDisconnected("Connection lost")
            writing = cast(asyncio.WriteTransport, transport)
            # So `drain` waits until nothing is left. A high of 0 would pause asyncio's TLS though nothing is.
            writing.set_write_buffer_limits(high=1, low=0)
            self._writer = asyncio.StreamWriter(writing, protocol, None, asyncio.get_running_loop())
        return self._writer

    # --- leaving

    def leave(self) -> None:
        """Say goodbye and go. The answer is not waited for, as Postfix does not wait either: nothing depends on it."""
        if self.is_fit and self._smtp.protocol is not None:
            with suppress(SMTPException, OSError):
                self._smtp.protocol.write(b"QUIT\r\n")
        self.cut()

    def cut(self) -> None:
        """Close the socket at once: TLS would wait for the other side to close, too."""
        self._is_in_step = False
        if self._smtp.transport is not None:
            cast(asyncio.WriteTransport, self._smtp.transport).abort()
        self._smtp.close()

    # --- answers

    @property
    def _name(self) -> str:
        return self._settings.host

    async def _ask(self, stage: Stage, command: Awaitable[SMTPResponse], *wanted: int) -> None:
        """Have a command answered.

        Args:
            wanted: the answers that let us go on; without any it is 250.

        Raises:
            NotTaken: by another answer, or by none.
        """
        self._stage = stage
        code, text = await self._answer(command)
        if code in (wanted or (250,)):
            return
        # After a refusal of a mail the next one may be tried; RSET shows whether we still understand each other.
        self._is_in_step = code >= 400 and code != 421 and stage in ("MAIL", "RCPT", "DATA")
        raise NotTaken(answered(stage, code, text, self._name))

    async def _answer(self, command: Awaitable[SMTPResponse]) -> tuple[int, str]:
        """Code and text of an answer, be it what aiosmtplib expects or not.

        Raises:
            NotTaken: there came none, or none of SMTP.
        """
        try:
            code, text = await command
        except SMTPResponseException as other:
            code, text = other.code, other.message
        except (SMTPException, OSError) as error:
            raise self._lost(str(error)) from None
        if not 200 <= code < 600:
            raise self._lost(f"what came is no answer of SMTP: {text}")
        return code, text

    async def _within(self, limit_s: float, phase: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(limit_s):
                return await phase
        except TimeoutError:
            why = f"{self._name}: no answer to {self._stage} within {limit_s:g} s"
            raise NotTaken(broken(self._stage, why)) from None

    def _lost(self, why: str) -> NotTaken:
        return NotTaken(broken(self._stage, f"{self._name}, at {self._stage}: {why}"))
