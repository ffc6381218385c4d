"""The keys that the links of messages are signed with. File: setting `link_keys`

    2026-11-21 1c6e…64 hexadecimal digits
    2025-10-02 93aa…

One key a line, its name and its secret, the newest first: that one signs. With the others, links that were sent before
are still read. A key may be taken out 400 days after the next one was put in.
"""

from __future__ import annotations

from pathlib import Path

from config.key_file import NEW_KEY, Key, check_count, new_key, read_key, read_lines
from config.secret_file import make_secret_file
from config.settings import Settings
from schemas.errors import ConfigError

FILE_NAME = "link_keys"  # in the data folder
LARGEST_FILE_BYTES = 10_000


def load_link_keys(settings: Settings) -> tuple[Key, ...]:
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
                          f"Make a file by (umask 077; {NEW_KEY} > {FILE_NAME}), give it to all of them, and name "
                          "it with TIDEWIRE_LINK_KEYS.")  # fmt: skip
    if not file.exists():
        if settings.link_keys:
            raise ConfigError("link_keys", f"{file} is not there.", f"Make it by (umask 077; {NEW_KEY} > {file}).")
        if not settings.public_url:
            return ()
        make_secret_file(file, f"{new_key()}\n")
    return read_link_keys(file)


def read_link_keys(file: Path) -> tuple[Key, ...]:
    """The keys of a file, newest first.

    Raises:
        ConfigError: with file, line, what is wrong, and the mend.
    """
    keys: list[Key] = []
    for place, words in read_lines(file, LARGEST_FILE_BYTES):
        if len(words) != 2:
            raise ConfigError(place, f"has {len(words)} words; a key has two, its name and its secret.",
                              f"Write what {NEW_KEY} prints.")  # fmt: skip
        keys.append(read_key(place, *words, others=keys))
    check_count(file, keys)
    return tuple(keys)
