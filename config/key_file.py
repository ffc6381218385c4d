"""Files of keys that sign: one key a line, the newest first, its name and its secret as the last two words.

    2026-11-21 1c6e…64 hexadecimal digits

Only the owner may read them. What is said of a wrong one never shows a secret.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from schemas.errors import ConfigError, shown

SECRET_BYTES = 32
MOST_KEYS = 10  # each is tried on what none has signed
NEW_KEY = 'echo "$(date +%F) $(openssl rand -hex 32)"'

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
_SECRET = re.compile(rf"[0-9a-fA-F]{{{2 * SECRET_BYTES}}}\Z")


@dataclass(frozen=True)
class Key:
    """One key: `name` is for people, such as the day it was made."""

    name: str
    secret: bytes = field(repr=False)


class Line(NamedTuple):
    """A line with a key: where it stands, and its words."""

    place: str
    words: list[str]


def new_key() -> str:
    """What a key is written as: made today."""
    return f"{datetime.now(UTC):%Y-%m-%d} {secrets.token_hex(SECRET_BYTES)}"


def read_lines(file: Path, largest_bytes: int) -> Iterator[Line]:
    """The lines of a file, without empty ones and those that begin with `#`.

    Raises:
        ConfigError: it cannot be read, or others can read it.
    """
    for number, line in enumerate(_text_of(file, largest_bytes).splitlines(), 1):
        if (words := line.split()) and not line.startswith("#"):
            yield Line(f"{file}, line {number}", words)


def read_key(place: str, name: str, secret: str, *, others: Collection[Key], new: str = NEW_KEY) -> Key:
    """The key of a line.

    Args:
        others: those above it that it must not be mistaken for.
        new: the command that prints a right line.

    Raises:
        ConfigError: with the place, what is wrong, and the mend.
    """
    if not _NAME.match(name):
        what = "the name is as long as a secret" if _SECRET.match(name) else f"{shown(name[:10])} is no name"
        raise ConfigError(place, f"{what}.", "Use letters, digits, `.`, `_` and `-`, at most 40.")
    if not _SECRET.match(secret):
        raise ConfigError(place, f'the secret of "{name}" has {len(secret)} characters; it must be '
                          f"{2 * SECRET_BYTES} hexadecimal digits.", f"Write what {new} prints.")  # fmt: skip
    key = Key(name, bytes.fromhex(secret))
    if any(key.name == other.name or key.secret == other.secret for other in others):
        raise ConfigError(place, f'"{name}" or its secret stands above, too.', "Take one of the two lines out.")
    return key


def check_count(file: Path, keys: Collection[Key], new: str = NEW_KEY, *, of: str = "") -> None:
    """Refuse a file without a key, or with too many; `of`: of whom.

    Raises:
        ConfigError: with the mend.
    """
    if not keys:
        raise ConfigError(str(file), "holds no key.", f"Write what {new} prints.")
    if len(keys) > MOST_KEYS:
        raise ConfigError(str(file), f"holds {len(keys)} keys{of}; at most {MOST_KEYS}.", "Take the oldest out.")


def _text_of(file: Path, largest_bytes: int) -> str:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            content = opened.read(largest_bytes + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "is not UTF-8 text.") from None
    if mode & 0o077:
        raise ConfigError(str(file), f"can be read or written by others (mode {mode:04o}).", f"chmod 600 {file}")
    if len(content) > largest_bytes:
        raise ConfigError(str(file), f"is larger than {largest_bytes:,} bytes.", "Is it the file of the keys?")
    return text
