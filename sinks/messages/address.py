"""E-mail addresses, as they may stand on an SMTP command line and in a header."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import idna

from schemas.errors import Refused

LONGEST_LOCAL, LONGEST_ADDRESS = 64, 254  # octets: RFC 5321, 4.5.3.1.1 and 4.5.3.1.3 less the angle brackets
LONGEST_SENDER_NAME = 100  # characters
NO_HEADER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|=\?")  # what no header may hold: it ends a line
# somewhere, or is decoded once more by who reads it (CVE-2024-6923: a line break written as =?utf-8?q?=0A?=)

_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")
_MEND = "Write it as ada@example.com."


class Sender(NamedTuple):
    """Who a mail is from: the name that people see, which may be empty, and the address."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def check_address(text: str) -> str:
    """One mailbox, as it is written on the wire: the domain in lower case and A-labels, the rest as it was.

    Names before it, comments, quoted local parts and addresses of machines (`ada@[127.0.0.1]`) are refused: nobody
    whom a message is for has one, and they are what injections are made of. A local part that is not ASCII stays, in
    NFC; only a server with SMTPUTF8 takes it.

    Raises:
        Refused: with the value and the mend.

    Sources: RFC 5321, 4.1.2 and 4.5.3.1; RFC 6531; RFC 5891.

    >>> check_address("Ada@Bücher.Example")
    'Ada@xn--bcher-kva.example'
    """
    said = text.strip(" ")
    if len(said) > LONGEST_ADDRESS:  # before anything looks closer: a domain only grows
        raise Refused(f"an address has at most {LONGEST_ADDRESS} octets", value=text, mend=_MEND)
    if found := NO_HEADER.search(said):
        raise Refused(f"an address has no {found[0]!r}", value=text, mend=_MEND)
    if said.count("@") != 1:
        raise Refused('an address has one "@"', value=text, mend=_MEND)
    local, _, domain = said.partition("@")
    local = unicodedata.normalize("NFC", local)
    for atom in local.split("."):
        if not (_ATOM.fullmatch(atom) if atom.isascii() else _is_word(atom)):
            raise Refused('what stands before "@" is no name of a mailbox', value=text, mend=_MEND)
    address = f"{local}@{_a_labels(domain, text)}"
    if len(local.encode()) > LONGEST_LOCAL or len(address.encode()) > LONGEST_ADDRESS:
        raise Refused(f'an address has at most {LONGEST_LOCAL} octets before "@", and {LONGEST_ADDRESS} in all',
                      value=text, mend=_MEND)  # fmt: skip
    return address


def _is_word(atom: str) -> bool:
    """Whether it can be part of a local part that is not ASCII: nothing in it is unseen, a space or unassigned, and
    nothing was lost when it was decoded (U+FFFD)."""
    return "\ufffd" not in atom and all(
        _ATOM.fullmatch(each) if each.isascii() else unicodedata.category(each)[0] not in "CZ" for each in atom
    )


def _a_labels(domain: str, text: str) -> str:
    try:
        found = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode("ascii")
        for label in found.split("."):
            if label.startswith("xn--"):
                idna.ulabel(label)
    except (idna.IDNAError, UnicodeError):
        found = ""
    labels = found.split(".")
    if len(labels) < 2 or labels[-1].isdecimal() or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused('what stands behind "@" is no domain', value=text, mend=_MEND)
    return found


def check_header(text: str, field: str) -> str:
    """A text that can be the value of one header and nothing else.

    Raises:
        Refused: it holds a line break, a control character or the beginning of an encoded word.
    """
    if found := NO_HEADER.search(text):
        raise Refused(f"it holds {found[0]!r}, which a header of a mail may not", field=field, value=text)
    return text


def read_sender(text: str) -> Sender:
    """A sender: `Shop <news@shop.example>`, or the address alone.

    Raises:
        Refused: with the value and the mend.

    >>> read_sender("Shop, and more <news@shop.example>")
    Sender(name='Shop, and more', address='news@shop.example')
    """
    check_header(text, "")
    named = _NAMED.fullmatch(text.strip(" "))
    if named is None:
        sender = Sender("", check_address(text))
    else:
        name = " ".join(named["name"].split()).removeprefix('"').removesuffix('"').strip()
        sender = Sender(name, check_address(named["address"]))
    if len(sender.name) > LONGEST_SENDER_NAME or '"' in sender.name or "\\" in sender.name:
        raise Refused(f'a name has at most {LONGEST_SENDER_NAME} characters, without " and \\', value=text,
                      mend="Write it as Shop <news@shop.example>.")  # fmt: skip
    if not sender.address.isascii():
        raise Refused('a sender is ASCII before "@", or few servers take its mails', value=text)
    return sender
