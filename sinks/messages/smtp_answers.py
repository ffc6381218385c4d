"""What an answer of an SMTP server means for the message: pure, from codes to outcomes.

Until the server has taken MAIL, nothing was said of the message: what fails there fails for every message, so the
channel is *down*. From RCPT on an answer is about this message and its one recipient. The dot that ends a mail decides:
before it has left no server may deliver the mail; after it only an answer can tell.

Sources: RFC 5321, 4.2 (codes) and 6.1 (who is responsible after the dot); RFC 3463 (enhanced status codes).
"""

from __future__ import annotations

import re
from typing import Literal

from schemas.errors import LONGEST_SHOWN_VALUE
from sinks.messages.channel import Accepted, Declined, Later, Outcome, Unknown

Stage = Literal["connect", "EHLO", "STARTTLS", "AUTH", "RSET", "MAIL", "RCPT", "DATA", "text", "end"]
"""`connect` ends with the greeting, `text` is the mail up to the dot, `end` the dot itself."""

LONGEST_REFERENCE = 100  # characters

_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?!\S)")
_QUEUED = (
    re.compile(r"\bqueued as <?([^\s<>]+)"),  # Postfix, and many who say it likewise
    re.compile(r"\bid=([^\s<>]+)"),  # Exim
    re.compile(r"\[InternalId=(\d+)"),  # Exchange
    re.compile(r"^(?:2\.\d\.\d )?ok:? ([\w.@-]{12,})$", re.IGNORECASE),  # Amazon SES
    re.compile(r"^(?:2\.\d\.\d )?([\w-]{8,}) Message accepted for delivery"),  # Sendmail
)
_GREYLISTED = re.compile(r"gr[ae]y-?list", re.IGNORECASE)
_OF_MESSAGE = ("RCPT", "DATA", "text", "end")  # stages at which it is about the message, and not about us
# What some servers keep until RCPT though it is about us: log in first, no such command, no such name to greet with.
_ABOUT_US = frozenset({500, 502, 503, 504, 530, 534, 535, 538})
_NO_RELAY = re.compile(
    r"\bunable to relay\b|\brelay(ing)?\b.{0,20}\b(denied|not permitted|not allowed|prohibited)\b", re.IGNORECASE
)
_ABOUT_SENDER = frozenset({"5.1.7", "5.1.8"})
_FULL, _TOO_LARGE = "5.2.2", frozenset({"5.2.3", "5.3.4"})


def one_line(text: str) -> str:
    """What a server said, as one line without control characters, of at most 200."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= LONGEST_SHOWN_VALUE else line[: LONGEST_SHOWN_VALUE - 1] + "…"


def status_in(text: str) -> str:
    """The enhanced status code that a text begins with; empty where there is none.

    >>> status_in("5.1.1 no such user"), status_in("550 or so")
    ('5.1.1', '')
    """
    found = _STATUS.match(text)
    return found[1] if found else ""


def is_of_address(status: str) -> bool:
    """Whether a status says that nothing at all can reach the address: there is none such, or it was shut.

    >>> [is_of_address(status) for status in ("5.1.1", "5.1.10", "5.2.1", "5.1.8", "5.7.1", "4.1.1", "")]
    [True, True, True, False, False, False, False]
    """
    return (status.startswith("5.1.") and status not in _ABOUT_SENDER) or status == "5.2.1"


def answered(stage: Stage, code: int, text: str, server: str) -> Outcome:
    """What an answer means.

    Args:
        stage: what it is an answer to. For a stage that goes on an answer that lets it go on is no outcome: only
            others come here, and all that come at `end`.
        code, text: as the server sent them, of several lines perhaps.
        server: its name, for people.
    """
    if stage == "end" and 200 <= code < 300:
        return Accepted(_reference(text))
    why = one_line(f"{server} answered {_named(stage)} with {code} {text}")
    if not 400 <= code < 600:  # neither yes nor no: we do not understand each other
        return broken(stage, why)
    status = status_in(text)
    if stage not in _OF_MESSAGE:
        is_unfit = status in _TOO_LARGE or status.startswith("5.6.") or (code == 552 and not status)
        return Declined(why) if stage == "MAIL" and is_unfit else Later(why, is_down=True)  # MAIL names the size, too
    if code < 500:
        is_rate = stage != "end" and status.startswith("4.7.") and not _GREYLISTED.search(text)
        return Later(why, is_down=code == 421 or is_rate)
    if stage in ("RCPT", "DATA") and (code in _ABOUT_US or status in _ABOUT_SENDER or _NO_RELAY.search(text)):
        return Later(why, is_down=True)
    if status == _FULL or (stage == "RCPT" and code == 552 and not status):
        return Later(why)
    is_unknown = stage == "RCPT" and code in (550, 551, 553) and not status
    return Declined(why, is_address=is_unknown or is_of_address(status))


def broken(stage: Stage, why: str) -> Outcome:
    """What it means that no answer came, or none that can be understood. `why` says what happened, for people."""
    if stage == "end":
        return Unknown(one_line(why))
    return Later(one_line(why), is_down=stage not in _OF_MESSAGE)


def _named(stage: Stage) -> str:
    return {"connect": "the connection", "text": "the mail", "end": "the mail"}.get(stage, stage)


def _reference(text: str) -> str:
    """The name of a mail in the server's queue, else all that it said."""
    line = one_line(text)
    for pattern in _QUEUED:
        if found := pattern.search(line):
            return found[1].rstrip(".,;)")[:LONGEST_REFERENCE]
    return line[:LONGEST_REFERENCE]
