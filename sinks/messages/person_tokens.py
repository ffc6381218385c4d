"""Tokens by which somebody reads her own inbox: made by the backend of the shop, without a call to us.

    WORKSPACE.USER.ENDS.SIGNATURE

USER is her userId, and SIGNATURE the HMAC-SHA256 of all that stands before the last dot; both in the Base64 of
addresses (`-` and `_`, without `=`). ENDS is when the token ends, in seconds since 1970. The key are the 32 bytes that
the hexadecimal digits of the secret stand for. docs/inbox.md makes one in Python and in JavaScript.
Source: itsdangerous, `Signer` with `key_derivation="none"`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from schemas.errors import TidewireError
from schemas.keys import LONGEST_ID, is_blocked, user_key

LONGEST_LIFE_S = 30 * 86_400  # of a token, from now on: who found one must not read with it for ever
LONGEST_TOKEN = 1_600  # characters; more than the longest workspace and userId need

_FORM = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})\.([A-Za-z0-9_-]+)\.([0-9]{1,15})\.([A-Za-z0-9_-]{43})")


class WrongToken(TidewireError):
    """A token that opens no inbox: what is wrong, and the mend. It never shows the token."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what} {mend}")


class PersonTokens:
    """Makes and reads tokens.

    Args:
        secrets: by workspace, the newest first, which signs; all are good for reading.
        clock: seconds since 1970.
    """

    def __init__(self, secrets: Mapping[str, Sequence[bytes]], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._signers = {
            workspace: Signer(list(reversed(own)), sep=".", key_derivation="none", digest_method=sha256)
            for workspace, own in secrets.items()
        }

    def sign(self, workspace: str, user_id: str, life_s: int) -> str:
        """A token for one person that is good for `life_s` seconds.

        Raises:
            TidewireError: the workspace has no key, or the person or the life is none that `read` takes.
        """
        if workspace not in self._signers:
            known = ", ".join(sorted(self._signers)) or "none"
            raise TidewireError(f'There is no key of workspace "{workspace}"; those with one: {known}. '
                                "See docs/inbox.md.")  # fmt: skip
        user = base64_encode(user_id).decode()
        token = self._signers[workspace].sign(f"{workspace}.{user}.{int(self._clock()) + life_s}").decode()
        self.read(token)
        return token

    def read(self, token: str) -> str:
        """The person key that a token is for.

        Raises:
            WrongToken: it is none of ours, has ended, or is good for too long.
        """
        form = _FORM.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
        signer = self._signers.get(form[1]) if form is not None else None
        # The last digit of Base64 has bits that mean nothing: of those that mean the same only one is taken.
        if form is None or signer is None or base64_encode(base64_decode(form[4])) != form[4].encode():
            raise _unknown()
        try:
            signer.unsign(token)  # in constant time
            user_id = base64_decode(form[2]).decode()
        except (BadData, UnicodeDecodeError):
            raise _unknown() from None
        left_s = int(form[3]) - self._clock()
        if left_s <= 0:
            raise WrongToken("This token has ended.", "Ask your backend for a new one.")
        if left_s > LONGEST_LIFE_S:
            raise WrongToken(f"This token is good for more than {LONGEST_LIFE_S // 86_400} days.",
                             "Let it end sooner, in seconds since 1970 and not in milliseconds.")  # fmt: skip
        if is_blocked(user_id) or len(user_id) > LONGEST_ID:
            raise WrongToken("The userId of this token stands for nobody, or is too long.",
                             "Sign the id that your identify calls have.")  # fmt: skip
        return user_key(form[1], user_id)


def _unknown() -> WrongToken:
    return WrongToken("This token is not known here.",
                      "It is WORKSPACE.USER.ENDS.SIGNATURE, signed with a key of the workspace; see "
                      "docs/inbox.md.")  # fmt: skip
