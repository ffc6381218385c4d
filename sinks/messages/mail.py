"""A message as a mail: headers and body, as they stand on the wire.

Nothing that a stranger said becomes a header but by `check_header`, and each header is written as one, by us: the
header classes of Python's e-mail package decode, fold and encode values anew, and what comes out of that has been
another header more than once (CVE-2024-6923, CVE-2026-1299). `wire_of` looks at the result once more.
"""

from __future__ import annotations

import re
from datetime import datetime
from email.header import Header
from email.headerregistry import BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime
from typing import Any

from schemas.errors import Refused
from sinks.messages.address import Sender, check_address, check_header
from sinks.messages.channel import Message
from sinks.messages.smtp_settings import SmtpSettings

LARGEST_MAIL = 5_000_000  # octets on the wire; what a template may say, twice over in base64, is less
LONGEST_LINE = 998  # octets, without the line break: RFC 5322, 2.1.1
ID = re.compile(r"[0-9a-f]{32}")  # of a message
OUR_HEADER = "X-Tidewire-Message"  # names the message where a relay gives it a Message-ID of its own

_OURS = frozenset({"from", "to", "reply-to", "subject", "date", "message-id", "mime-version", "content-type",
                   "content-transfer-encoding", "content-language", "auto-submitted", "list-unsubscribe",
                   "list-unsubscribe-post", OUR_HEADER.lower()})  # fmt: skip
_UNSEEN = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])  # controls, but tab and line breaks: RFC 5322, 2.2


class _AsWritten(BaseHeader):
    """A header that stands on the wire as it was given, with a line to each of its encoded words."""

    max_count = 1

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        kwds.update(decoded=value, parse_tree=None)

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self.replace('?= ', f'?={policy.linesep} ')}{policy.linesep}"


def _registry() -> HeaderRegistry:
    registry = HeaderRegistry()
    for name in _OURS - {"mime-version", "content-type", "content-transfer-encoding"}:
        registry.map_to_type(name, _AsWritten)
    return registry


# 7bit: a body that is not ASCII is encoded here, and needs nothing of the server.
_POLICY = SMTP.clone(header_factory=_registry(), cte_type="7bit")
_POLICY_UTF8 = _POLICY.clone(utf8=True)


def mail_of(message: Message, settings: SmtpSettings, now: datetime) -> EmailMessage:
    """The mail of a message: text, HTML, or both as alternatives.

    Its Message-ID is made of the id of the message, so that a mail which is sent twice can be known to be the same.
    The preheader stands in the HTML already (`sinks/messages/rendering.py`).

    Args:
        now: for the header Date; aware.

    Raises:
        Refused: a part of it cannot stand in a mail; with the value and the mend.

    Sources: RFC 5322; RFC 8058 (one-click); RFC 3834, 5 (Auto-Submitted).
    """
    if not ID.fullmatch(message.id):
        raise Refused("the id of a message has 32 hexadecimal digits", field="id", value=message.id)
    to, sender, content = check_address(message.to), settings.sender, message.content
    mail = EmailMessage(_POLICY if to.isascii() else _POLICY_UTF8)
    _fill(mail, message)
    mail["From"] = _named(sender)
    mail["To"] = to
    if settings.reply_to:
        mail["Reply-To"] = settings.reply_to
    mail["Subject"] = _encoded("Subject", check_header(content.subject, "subject"))
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{message.id}@{sender.domain}>"
    mail["Content-Language"] = _word(content.language.replace("_", "-"), "language")
    if message.kind == "transactional":
        mail["Auto-Submitted"] = "auto-generated"
    if message.unsubscribe:
        mail["List-Unsubscribe"] = f"<{_https(message.unsubscribe)}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail[OUR_HEADER] = f"{message.id}; template={_word(message.template, 'template')}"
    return mail


def wire_of(mail: EmailMessage) -> bytes:
    """The mail as octets, each line ended by CRLF.

    Raises:
        Refused: it is too large, has a line that is too long, or a header that is none of ours.
    """
    wire = mail.as_bytes()
    if len(wire) > LARGEST_MAIL:
        raise Refused(f"the mail has {len(wire):,} octets; at most {LARGEST_MAIL:,}", mend="Shorten its template.")
    lines = wire.split(b"\r\n")
    longest = max(lines, key=len)
    if len(longest) > LONGEST_LINE:
        raise Refused(f"a line of the mail has {len(longest):,} octets; at most {LONGEST_LINE}",
                      value=longest.decode("utf-8", "replace"))  # fmt: skip
    for line in lines[: lines.index(b"")]:
        if line[:1] not in (b" ", b"\t") and line.partition(b":")[0].decode("utf-8", "replace").lower() not in _OURS:
            raise Refused("a header came out that is none of ours", value=line.decode("utf-8", "replace"))
    return wire


def _fill(mail: EmailMessage, message: Message) -> None:
    """Text and HTML, whichever there is."""
    both = (("plain", message.content.text), ("html", message.content.html))
    bodies = [(subtype, body.translate(_UNSEEN)) for subtype, body in both if body]
    if not bodies:
        raise Refused("there is neither text nor HTML", field="content", mend="Write a text in its template.")
    try:
        for place, (subtype, body) in enumerate(bodies):
            add = mail.add_alternative if place else mail.set_content
            add(body, subtype=subtype)
    except UnicodeEncodeError as error:
        raise Refused("it holds half of a character, which cannot be written", field=bodies[-1][0],
                      value=error.object[error.start : error.end]) from None  # fmt: skip


def _named(sender: Sender) -> str:
    if not sender.name:
        return sender.address
    name = f'"{sender.name}"' if sender.name.isascii() else _encoded("From", sender.name)  # it has neither " nor \\
    return f"{name} <{sender.address}>"


def _encoded(name: str, text: str) -> str:
    """In encoded words (RFC 2047) where it is not ASCII, or has spaces at its ends, which no reader would keep."""
    if text.isascii() and text == text.strip():
        return text
    # 76 is what a line may have (RFC 2047, 2); Header takes a few more than it is told.
    return Header(text, "utf-8", header_name=name, maxlinelen=72).encode(linesep="")


def _word(text: str, field: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", text):
        raise Refused("it has other characters than letters, digits, _ . and -", field=field, value=text)
    return text


def _https(url: str) -> str:
    """An address that can stand within angle brackets.

    Raises:
        Refused: it is none of https, or holds what an address may not: RFC 3986, 2.
    """
    if not re.fullmatch(r"https://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,900}", url) or "=?" in url:
        raise Refused("it is no address of https", field="unsubscribe", value=url)
    return url
