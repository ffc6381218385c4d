"""JSON from outside, decoded so that what is written of it anew breaks no later reader.

ClickHouse's JSON refuses half surrogate pairs, repeated keys and numbers beyond a double; a Python float refuses an
integer of 400 digits; every recursive reader refuses some depth. Such are mended with a flag, or refused, here.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from schemas.errors import Refused
from schemas.event import LARGEST_EVENT_BYTES

DEEPEST_NESTING = 16  # objects and lists inside one another, the event itself being the first
MOST_KEYS = 1_000  # of all objects of one event


class Unreadable(Refused):
    """What came is not JSON of the shape this API takes, or is too large: the request as a whole fails."""


NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError)
_decode = msgspec.json.Decoder().decode
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"{[]}:"))
_FOLDED = bytes.maketrans(b"[]", b"{}")
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # digits of the largest 64-bit integer
_ESCAPE = re.compile(  # a surrogate pair, half a pair, any other escape
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def decode_guarded(raw: bytes | Raw, flags: list[str]) -> Any:
    """Decode one JSON document of at most an event's size, mending what can be mended; flags say what was.

    Cheap counts over the bytes find the few documents that may break a limit; only those are walked.

    Raises:
        Unreadable: not JSON, too large, or with a number that no reader could read.
        Refused: nested too deeply, or with too many keys.
    """
    data = raw if type(raw) is bytes else bytes(raw)
    if len(data) > LARGEST_EVENT_BYTES:
        raise Unreadable(f"an event has at most {LARGEST_EVENT_BYTES} bytes", value=len(data),
                         mend="Send less with each event.")  # fmt: skip
    try:
        document = _decode(data)
    except NOT_JSON as error:
        document = _without_lone_surrogates(data, error, flags)
    except RecursionError:
        raise Unreadable("the event is nested too deeply") from None
    structure = data.translate(_FOLDED, _NOT_STRUCTURE)
    colons = structure.count(b":")
    if (
        colons > MOST_KEYS
        or (len(structure) - colons > 2 * DEEPEST_NESTING and _may_be_deep(structure))
        or _LONG_NUMBER in data.translate(_DIGITS)
        or (b"\\" in data and b"\\u0000" in data)
    ):
        return _Walk(flags).mended(document, 1)
    return document


def _may_be_deep(structure: bytes) -> bool:
    """Whether brackets, taken away pair by pair from within, outlast the deepest nesting; those in strings count."""
    brackets = structure.replace(b":", b"")
    for _ in range(DEEPEST_NESTING):
        brackets = brackets.replace(b"{}", b"")
        if not brackets:
            return False
    return True


def _without_lone_surrogates(data: bytes, error: Exception, flags: list[str]) -> Any:
    """Decode again with U+FFFD for half surrogate pairs, which JavaScript writes when it cuts a text inside one."""
    mended = _ESCAPE.sub(lambda match: b"\\ufffd" if match[1] else match[0], data)
    if mended != data:
        try:
            document = _decode(mended)
        except (*NOT_JSON, RecursionError):
            pass
        else:
            flags.append("text_mended")
            return document
    if "out of range" in str(error):
        raise Unreadable("a number is too large for any reader", value=str(error), mend="Send it as text.") from None
    if isinstance(error, UnicodeDecodeError):
        raise Unreadable("the text is not UTF-8", value=str(error)) from None
    raise Unreadable("the event is not JSON", value=str(error)) from None


class _Walk:
    """A walk through a document: limits are kept, texts and integers mended."""

    def __init__(self, flags: list[str]) -> None:
        self.flags = flags
        self.keys = 0

    def mended(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is int and not -(2**63) <= value < 2**64:
            self._flag("integer_as_text")
            return str(value)
        if kind is dict or kind is list:
            if depth > DEEPEST_NESTING:
                raise Refused(f"objects and lists nest at most {DEEPEST_NESTING} deep", mend="Send flatter data.")
            if kind is list:
                return [self.mended(item, depth + 1) for item in value]
            self.keys += len(value)
            if self.keys > MOST_KEYS:
                raise Refused(f"an event has at most {MOST_KEYS} keys", mend="Send less with each event.")
            return {self._text(key): self.mended(item, depth + 1) for key, item in value.items()}
        return value

    def _text(self, value: str) -> str:
        if "\0" not in value:
            return value
        self._flag("text_mended")
        return value.replace("\0", "\ufffd")

    def _flag(self, flag: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)
