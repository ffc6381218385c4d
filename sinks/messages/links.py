"""Tokens of the links in messages: what a link is for, signed, so that nobody else can make or change one.

    PAYLOAD.TIME.SIGNATURE

MessagePack in Base64, when it was made, and an HMAC-SHA256 over both whose key is derived for each kind of link, so
that one kind is never taken for another. It is signed and not encrypted: who has the link can read it.
Source: itsdangerous.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Generic, NamedTuple, TypeVar

import msgspec
from itsdangerous import BadSignature, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode

from schemas.errors import TidewireError
from schemas.times import DAY_MS

LIFE_S = 400 * DAY_MS // 1000  # mails are read late; a link to unsubscribe must work for at least 60 days
LONGEST_TOKEN = 4_000  # characters; more than the longest ids and topic need

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{1,12}\.([A-Za-z0-9_-]{43})")
_encode = msgspec.msgpack.Encoder().encode


class UnknownLink(TidewireError):
    """No link of ours: it was changed, cut off, is of another kind, or its key is gone."""

    def __init__(self, what: str = "this link is not known here.") -> None:
        super().__init__(what)


class ExpiredLink(UnknownLink):
    """It was a link of ours, and is too old."""

    def __init__(self) -> None:
        super().__init__("this link is too old.")


class Mailed(msgspec.Struct, array_like=True, frozen=True):
    """The message that a link stands in.

    Attributes:
        message: its id.
        person: the person key it was sent to.
        topic: what she consented to; empty where it needed no consent.
        channel: `email` or `sms`.
    """

    message: str
    person: str
    template: str
    topic: str
    channel: str


class Click(Mailed, array_like=True, frozen=True):
    """A link to `url`, the `number`th of its message; 0, without a url, is one that no person sees."""

    number: int
    url: str


Said = TypeVar("Said", bound=Mailed)


class Kind(NamedTuple, Generic[Said]):
    """What a link is for: `letter` stands in its address, `said` is what its token holds."""

    letter: str
    said: type[Said]

    def path(self, token: str) -> str:
        return f"/l/{self.letter}/{token}"


CLICK = Kind("c", Click)
OPEN = Kind("o", Mailed)
UNSUBSCRIBE = Kind("u", Mailed)
PREFERENCES = Kind("p", Mailed)


class Tokens:
    """Makes and reads tokens.

    Args:
        secrets: the newest first, which signs; all are good for reading. Without any, none can be read.
        clock: seconds since 1970.
    """

    def __init__(self, secrets: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        oldest_first = list(reversed(secrets))
        self._clock = clock
        self._signers = {kind.letter: _Signer(oldest_first, kind.letter, clock)
                         for kind in (CLICK, OPEN, UNSUBSCRIBE, PREFERENCES)}  # fmt: skip

    def sign(self, kind: Kind[Said], said: Said) -> str:
        return self._signers[kind.letter].sign(base64_encode(_encode(said))).decode()

    def read(self, kind: Kind[Said], token: str) -> Said:
        """What a token of this kind says.

        Raises:
            UnknownLink: it is none of ours.
            ExpiredLink: it is older than `LIFE_S`.
        """
        form = _FORM.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
        # The last digit of Base64 has bits that mean nothing: of those that mean the same only one is taken.
        if form is None or base64_encode(base64_decode(form[1])) != form[1].encode():
            raise UnknownLink
        try:
            payload, made_at = self._signers[kind.letter].unsign(token, return_timestamp=True)
            said = msgspec.msgpack.decode(base64_decode(payload), type=kind.said)
        except (BadSignature, msgspec.DecodeError):
            raise UnknownLink from None
        if self._clock() - made_at.timestamp() > LIFE_S:
            raise ExpiredLink
        return said


class _Signer(TimestampSigner):
    def __init__(self, secrets: list[bytes], letter: str, clock: Callable[[], float]) -> None:
        super().__init__(secrets, salt=f"tidewire link {letter}", key_derivation="hmac", digest_method=sha256)
        self._clock = clock

    def get_timestamp(self) -> int:
        return int(self._clock())
