"""The keys that tokens of the inbox are signed with, each of one workspace. File: setting `inbox_keys`

    shop 2026-11-21 1c6e…64 hexadecimal digits
    shop 2026-05-02 93aa…

One key a line: its workspace, its name and its secret. The backend of the shop signs with one of them, and all of them
are read. A key may be taken out once the tokens that it signed have ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from config.channels import INBOX, read_channels
from config.key_file import NEW_KEY, Key, check_count, new_key, read_key, read_lines
from config.secret_file import make_secret_file
from config.settings import Settings
from schemas.errors import ConfigError
from schemas.keys import WORKSPACE_PATTERN

FILE_NAME = "inbox_keys"  # in the data folder
LARGEST_FILE_BYTES = 100_000


def load_inbox_keys(settings: Settings) -> Mapping[str, tuple[Key, ...]]:
    """The keys of this Tidewire by workspace, each newest first; none where there is no inbox.

    With the embedded log the file is made once `channels.yaml` has an inbox. On Kafka it must be given.

    Raises:
        ConfigError: the file that is named is not there, or not as it must be.
        TidewireError: the data folder cannot be written.
    """
    file = Path(settings.inbox_keys) if settings.inbox_keys else settings.data / FILE_NAME
    if not file.exists():
        if settings.inbox_keys:
            raise ConfigError("inbox_keys", f"{file} is not there.",
                              f"Make it by (umask 077; {_new(settings.workspace)} > {file}).")  # fmt: skip
        if not settings.is_embedded or read_channels(settings.config).inbox.via != INBOX:
            return {}
        make_secret_file(file, f"{settings.workspace} {new_key()}\n")
    return read_inbox_keys(file)


def read_inbox_keys(file: Path) -> Mapping[str, tuple[Key, ...]]:
    """The keys of a file by workspace, each newest first.

    Raises:
        ConfigError: with file, line, what is wrong, and the mend.
    """
    keys: dict[str, list[Key]] = {}
    for place, words in read_lines(file, LARGEST_FILE_BYTES):
        if len(words) != 3:
            raise ConfigError(place, f"has {len(words)} words; a key has three, its workspace, its name and its "
                              "secret.", f"Write what {_new('shop')} prints.")  # fmt: skip
        workspace, name, secret = words
        if not WORKSPACE_PATTERN.match(workspace):
            raise ConfigError(place, "its first word is no workspace.",
                              "Use lower case letters, digits, - and _, at most 63.")  # fmt: skip
        own = keys.setdefault(workspace, [])
        key = read_key(place, name, secret, others=own, new=_new(workspace))
        if any(key.secret == other.secret for others in keys.values() for other in others):
            raise ConfigError(place, "its secret stands above, for another workspace.",
                              f"Write what {_new(workspace)} prints: each signs for its own people alone.")  # fmt: skip
        own.append(key)
        check_count(file, own, of=f" of {workspace}")
    if not keys:
        check_count(file, (), _new("shop"))
    return {workspace: tuple(own) for workspace, own in keys.items()}


def _new(workspace: str) -> str:
    return NEW_KEY.replace('"$(date', f'"{workspace} $(date', 1)
