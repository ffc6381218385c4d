"""The keys that the links of messages are signed with. File: setting `link_keys`

    2026-11-21 1c6e…64 hexadecimal digits
    2025-10-02 93aa…

One key a line, its name and its secret, the newest first: that one signs. With the others, links that were sent before
are still read. A key may be taken out 400 days after the next one was put in.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from config.secret_file import make_secret_file
from config.settings import Settings
from schemas.errors import ConfigError, shown

FILE_NAME = "link_keys"  # in the data folder
SECRET_BYTES = 32
MOST_KEYS = 10  # each is tried on a link that none has signed
LARGEST_FILE_BYTES = 10_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
_SECRET = re.compile(rf"[0-9a-fA-F]{{{2 * SECRET_BYTES}}}\Z")
_NEW_LINE = 'echo "$(date +%F) $(openssl rand -hex 32)"'


@dataclass(frozen=True)
class LinkKey:
    """One key: `name` is for people, such as the day it was made."""

    name: str
    secret: bytes = field(repr=False)


def load_link_keys(settings: Settings) -> tuple[LinkKey, ...]:
    """The keys of this Tidewire, newest first; none where no link was ever to be made.

    With the embedded log the file is made when it is first needed. On Kafka collectors and senders must have the same
    keys, so there it must be given.

    Raises:
        ConfigError: there must be keys and are none, or the file is not as it must be.
        TidewireError: the data folder cannot be written.
    """
    file = Path(settings.link_keys) if settings.link_keys else settings.data / FILE_NAME
    if settings.public_url and not settings.link_keys and not settings.is_embedded:
        raise ConfigError("link_keys", "is not set, and collectors and senders must sign with the same keys.",
                          f"Make a file by (umask 077; {_NEW_LINE} > {FILE_NAME}), give it to all of them, and name "
                          "it with TIDEWIRE_LINK_KEYS.")  # fmt: skip
    if not file.exists():
        if settings.link_keys:
            raise ConfigError("link_keys", f"{file} is not there.", f"Make it by (umask 077; {_NEW_LINE} > {file}).")
        if not settings.public_url:
            return ()
        make_secret_file(file, f"{datetime.now(UTC):%Y-%m-%d} {secrets.token_hex(SECRET_BYTES)}\n")
    return read_link_keys(file)


def read_link_keys(file: Path) -> tuple[LinkKey, ...]:
    """The keys of a file, newest first. What is said of a wrong one never shows a secret.

    Raises:
        ConfigError: with file, line, what is wrong, and the mend.
    """
    keys: list[LinkKey] = []
    for number, line in enumerate(_text_of(file).splitlines(), 1):
        place = f"{file}, line {number}"
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2:
            raise ConfigError(place, f"has {len(words)} words; a key has two, its name and its secret.",
                              f"Write what {_NEW_LINE} prints.")  # fmt: skip
        name, secret = words
        if not _NAME.match(name):
            what = "the name is as long as a secret" if _SECRET.match(name) else f"{shown(name[:10])} is no name"
            raise ConfigError(place, f"{what}.", "Use letters, digits, `.`, `_` and `-`, at most 40.")
        if not _SECRET.match(secret):
            raise ConfigError(place, f'the secret of "{name}" has {len(secret)} characters; it must be '
                              f"{2 * SECRET_BYTES} hexadecimal digits.",
                              f"Write what {_NEW_LINE} prints.")  # fmt: skip
        key = LinkKey(name, bytes.fromhex(secret))
        if any(key.name == other.name or key.secret == other.secret for other in keys):
            raise ConfigError(place, f'"{name}" or its secret stands above, too.', "Take one of the two lines out.")
        keys.append(key)
    if not keys:
        raise ConfigError(str(file), "holds no key.", f"Write what {_NEW_LINE} prints.")
    if len(keys) > MOST_KEYS:
        raise ConfigError(str(file), f"holds {len(keys)} keys; at most {MOST_KEYS}.", "Take the oldest out.")
    return tuple(keys)


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            content = opened.read(LARGEST_FILE_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "is not UTF-8 text.") from None
    if mode & 0o077:
        raise ConfigError(str(file), f"can be read or written by others (mode {mode:04o}).", f"chmod 600 {file}")
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError(str(file), f"is larger than {LARGEST_FILE_BYTES:,} bytes.", "Is it the file of the keys?")
    return text
