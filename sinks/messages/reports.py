"""What comes back of mails: reports of delivery (RFC 3464) and of complaints (RFC 5965), read as stored mails.

Anybody may write to the address that reports go to, so a report is a claim. It counts only for a message whose id it
names, which nobody knows but who was sent the mail and the servers on its way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from itertools import chain, islice
from typing import Literal, NamedTuple

from schemas.errors import Refused
from sinks.messages.address import check_address
from sinks.messages.mail import ID, OUR_HEADER
from sinks.messages.smtp_answers import is_of_address, one_line, status_in

MOST_READ = 250_000  # octets; a report stands before the mail that it is about, whose rest nobody asks for
MOST_BOUNDARIES = 20  # of parts within parts; Python's parser takes as many times longer
MOST_REPORTS = 100  # of one mail; ours have one recipient
DEEPEST = 3  # parts within parts around a report: mailing lists and filters wrap it

Kind = Literal["bounced", "delayed", "complained", "delivered", "other"]


class Report(NamedTuple):
    """What one report says of one recipient.

    Attributes:
        kind: `bounced`: given up; `delayed`: it is tried on; `complained`: she called it spam; `delivered`: it lies in
            her mailbox; `other`: none of these, such as that it was passed on to a system that sends no reports.
        message_id: of our message; 32 hexadecimal digits, or empty where it names none.
        address: whom it was for, as `check_address` writes it; empty where it names none.
        status: enhanced status code, such as `5.1.1`; empty where there is none.
        why: one line for a person.
        is_address: nothing at all can reach this address.
    """

    kind: Kind
    message_id: str
    address: str
    status: str
    why: str
    is_address: bool


_KINDS: dict[str, Kind] = {"failed": "bounced", "delayed": "delayed", "delivered": "delivered"}  # by Action
_COMPLAINTS = frozenset({"abuse", "fraud", "virus", "other"})  # by Feedback-Type; `not-spam` is the contrary of one
_BOUNDARY = re.compile(rb"boundary[\s*0-9]*=", re.IGNORECASE)
_GLOBAL = re.compile(rb"message/global-(delivery-status)", re.IGNORECASE)  # RFC 6533: the same fields, in UTF-8


def read_report(raw: bytes) -> list[Report]:
    """The reports that a mail holds; none where it is another mail, such as an automatic reply.

    Raises:
        Refused: it is no mail, or one made to be hard to read.
    """
    start = raw[:MOST_READ]
    if len(_BOUNDARY.findall(start)) > MOST_BOUNDARIES:
        raise Refused(f"a report has at most {MOST_BOUNDARIES} parts within parts", mend="Look at it by hand.")
    try:
        mail = message_from_bytes(_GLOBAL.sub(rb"message/\1", start), policy=compat32)
        if not mail.keys():
            raise Refused("it is no mail: it begins with no header", value=start[:100],
                          mend="Give the mail as the server stored it, headers first.")  # fmt: skip
        parts = list(_parts(mail, 0))
        returned = next(filter(None, map(_returned, parts)), None)
        found = chain.from_iterable(
            _READERS[part.get_content_type()](part, returned) for part in parts if part.get_content_type() in _READERS
        )
        return list(islice(found, MOST_REPORTS))
    except Refused:
        raise
    except Exception as error:  # the parser promises to take everything, and does not: RecursionError, LookupError …
        raise Refused(f"it cannot be read as a mail: {error!r}", mend="Look at it by hand.") from error


def _parts(mail: Message, depth: int) -> Iterator[Message]:
    """The parts that are no multiparts, but nothing of the mails that are attached."""
    if mail.get_content_maintype() != "multipart":
        yield mail
    elif depth < DEEPEST:
        for part in _within(mail):
            yield from _parts(part, depth + 1)


def _within(part: Message) -> list[Message]:
    """What the parser found in a part: other parts, blocks of fields, or a mail."""
    found = part.get_payload()
    return [each for each in found if isinstance(each, Message)] if isinstance(found, list) else []


def _returned(part: Message) -> Message | None:
    """The headers of our mail, which a report brings back."""
    kind = part.get_content_type()
    if kind in ("message/rfc822", "message/global", "message/global-headers"):
        return next(iter(_within(part)), None)
    octets = part.get_payload(decode=True) if kind == "text/rfc822-headers" else None
    return message_from_bytes(octets, policy=compat32) if isinstance(octets, bytes) else None


def _deliveries(part: Message, returned: Message | None) -> Iterator[Report]:
    """One for each recipient of a delivery-status: fields of the mail first, then of each recipient (RFC 3464, 2.1)."""
    blocks = _within(part)
    id_ = _id_of(returned, _field(blocks[0], "Original-Envelope-Id") if blocks else "")
    for block in blocks[1:]:
        said = _field(block, "Diagnostic-Code").partition(";")[2].strip()
        status = _status(_field(block, "Status"), said)
        action = _field(block, "Action").lower()
        if not action and not status:  # an empty block, or none of RFC 3464
            continue
        kind = _KINDS.get(action, "other")
        why = one_line(" ".join(filter(None, (action, status if status not in said else "", said))))
        yield Report(kind, id_, _address(block, "Original-Recipient", "Final-Recipient"), status, why,
                     kind == "bounced" and is_of_address(status))  # fmt: skip


def _complaints(part: Message, returned: Message | None) -> Iterator[Report]:
    block = next(iter(_within(part)), part)
    type_ = _field(block, "Feedback-Type").lower()
    if not type_:
        return
    id_ = _id_of(returned, _field(block, "Original-Envelope-Id"))
    address = _address(block, "Original-Rcpt-To") or (_address(returned, "To") if returned is not None else "")
    why = one_line(" ".join(filter(None, ("feedback:", type_, _field(block, "User-Agent")))))
    yield Report("complained" if type_ in _COMPLAINTS else "other", id_, address, "", why, False)


_READERS = {"message/delivery-status": _deliveries, "message/feedback-report": _complaints}


def _field(block: Message, name: str) -> str:
    """A field as one line, read as UTF-8; `get` would put U+FFFD for all that is not ASCII."""
    raw = next((str(value) for own, value in block.raw_items() if own.lower() == name.lower()), "")
    return one_line(raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _status(status: str, said: str) -> str:
    """The status; where it says no more than yes or no, that of the server's own words."""
    own = re.sub(r"\A\d{3}[ -]?", "", said)
    status = status_in(status)
    return (status_in(own) or status) if status[1:] in ("", ".0.0") else status


def _address(block: Message, *names: str) -> str:
    """The first address of these fields that is one; they may name its type first: `rfc822; ada@example.com`."""
    for name in names:
        try:
            return check_address(_field(block, name).rpartition(";")[2].strip(" <>"))
        except Refused:
            continue
    return ""


def _id_of(returned: Message | None, envelope_id: str) -> str:
    """The id of our message: as the envelope named it, as our own header does, or as its Message-ID does."""
    said: Iterable[str] = [envelope_id]
    if returned is not None:
        said = [envelope_id, _field(returned, OUR_HEADER).partition(";")[0],
                _field(returned, "Message-ID").strip("<>").partition("@")[0]]  # fmt: skip
    return next((each for each in said if ID.fullmatch(each)), "")
