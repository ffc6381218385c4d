"""Write keys: who may send events, and as which source. File: config/write_keys.yaml

A key is shown once, when it is made; the file keeps only its SHA-256. A public key stands in web pages for everybody to
read, so it may be bound to origins and is limited in rate; a server key is refused when a browser uses it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import ConfigError, shown
from schemas.keys import WORKSPACE_PATTERN

FILE_NAME = "write_keys.yaml"
LONGEST_WRITE_KEY = 200  # characters; longer ones are not looked up

Kind = Literal["public", "server", "any"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_ORIGIN = re.compile(r"(https?)://(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:\d{1,5})?\Z")


class WriteKey(BaseModel):
    """One write key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        description="Name of the source, as it stands in every event. Two keys may share one: for rotation."
    )
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="SHA-256 of the key in hexadecimal; `tidewire keys new` prints it."
    )
    workspace: str = Field(default="default", description="Whose data its events are.")
    kind: Kind = Field(
        description="`public` for browsers and apps, `server` for programs that can keep a secret, `any` for both."
    )
    origins: tuple[str, ...] = Field(
        default=(),
        description="Of a public key: origins whose pages may use it, such as `https://shop.example` or "
        "`https://*.shop.example`. None listed: every origin.",
    )
    events_per_s: int | None = Field(
        default=None,
        ge=1,
        description="Events per second, in the long run. A public key without one has 1000, other keys have no limit.",
    )
    burst: int | None = Field(
        default=None, ge=1, description="Events it may send at once after a pause; default: ten seconds' worth."
    )

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.match(value):
            raise ValueError("use lower case letters, digits, - and _, at most 63")
        if value == "kafka":
            raise ValueError("`kafka` names the events that producers write to the topic themselves")
        if value == "tidewire":
            raise ValueError("`tidewire` names the events that say what became of messages")
        return value

    @field_validator("workspace")
    @classmethod
    def _is_workspace(cls, value: str) -> str:
        if not WORKSPACE_PATTERN.match(value):
            raise ValueError("use lower case letters, digits, - and _, at most 63")
        return value

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.match(origin):
                raise ValueError(f"{origin!r} is not an origin; write it as https://shop.example, without a path")
        return value

    @model_validator(mode="after")
    def _origins_are_of_public_keys(self) -> WriteKey:
        if self.origins and self.kind != "public":
            raise ValueError("only a public key has origins")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst needs events_per_s")
        return self

    @property
    def rate(self) -> int | None:
        """Events per second, or None for no limit."""
        if self.events_per_s is None and self.kind == "public":
            return 1_000
        return self.events_per_s

    @property
    def most_at_once(self) -> int:
        return self.burst or 10 * (self.rate or 0)

    def allows(self, origin: str) -> bool:
        """Whether a browser may use it on a page of this origin; no origin is no browser.

        >>> key = WriteKey(name="web", sha256="0" * 64, kind="public", origins=("https://*.shop.example",))
        >>> key.allows("https://www.shop.example"), key.allows("https://shop.example.evil.example"), key.allows("")
        (True, False, True)
        """
        if not origin or (self.kind == "public" and not self.origins):
            return True
        if self.kind == "server":
            return False
        if self.kind == "any":
            return True
        return any(_matches(origin.lower(), pattern) for pattern in self.origins)


def _matches(origin: str, pattern: str) -> bool:
    if "*." not in pattern:
        return origin == pattern
    wanted = urlsplit(pattern.replace("*.", "", 1))
    try:
        given = urlsplit(origin)
        return (
            given.scheme == wanted.scheme
            and given.port == wanted.port
            and (given.hostname or "").endswith(f".{wanted.hostname}")
        )
    except ValueError:  # an address or port that is none
        return False


class WriteKeysFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[WriteKey, ...] = ()

    @model_validator(mode="after")
    def _one_source_one_workspace(self) -> WriteKeysFile:
        workspaces: dict[str, str] = {}
        hashes: set[str] = set()
        for key in self.keys:
            if workspaces.setdefault(key.name, key.workspace) != key.workspace:
                raise ValueError(f"{key.name!r} is the name of keys in two workspaces; a source belongs to one")
            if key.sha256 in hashes:
                raise ValueError(f"the key {key.sha256[:12]}… stands twice")
            hashes.add(key.sha256)
        return self


class WriteKeys:
    """All write keys there are, looked up by the key a client sends."""

    def __init__(self, keys: Iterable[WriteKey]) -> None:
        self._by_hash = {key.sha256: key for key in keys}

    def __len__(self) -> int:
        return len(self._by_hash)

    def __iter__(self) -> Iterator[WriteKey]:
        return iter(self._by_hash.values())

    def find(self, plain: str) -> WriteKey | None:
        """The write key whose plain text this is; None where there is none such."""
        if not plain or len(plain) > LONGEST_WRITE_KEY:
            return None
        return self._by_hash.get(hash_of(plain))


def hash_of(plain: str) -> str:
    return sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def trial_keys(plain: str, workspace: str) -> list[WriteKey]:
    """The write keys of setting `write_keys`: plain ones for trials, for browsers and servers alike.

    The source is named after the key's hash, so that it stays the same whatever keys stand beside it.

    Raises:
        ConfigError: one of them is too short or too long to be a key, or stands twice.
    """
    keys: list[WriteKey] = []
    for key in (part.strip() for part in plain.split(",") if part.strip()):
        if not 4 <= len(key) <= LONGEST_WRITE_KEY:
            raise ConfigError("TIDEWIRE_WRITE_KEYS", f"a write key has 4 to {LONGEST_WRITE_KEY} characters; "
                                                     f"one has {len(key)}.")  # fmt: skip
        digest = hash_of(key)
        if any(digest == other.sha256 for other in keys):
            raise _twice(digest)
        keys.append(WriteKey(name=f"trial-{digest[:6]}", sha256=digest, workspace=workspace, kind="any"))
    return keys


def _twice(digest: str, where: str = "") -> ConfigError:
    return ConfigError("TIDEWIRE_WRITE_KEYS", f"the key with SHA-256 {digest[:12]}… stands twice{where}.",
                       "Take one of them out.")  # fmt: skip


def load_write_keys(config: Path, plain: str = "", workspace: str = "default") -> WriteKeys:
    """The keys of the file in the config folder, which may be missing, and the plain ones of the settings.

    Raises:
        ConfigError: with file, line, what is wrong, and the mend.
    """
    of_file = read_write_keys(config / FILE_NAME)
    for_trials = trial_keys(plain, workspace)
    both = {key.sha256 for key in of_file} & {key.sha256 for key in for_trials}
    if both:  # which workspace its events belong to would be a matter of luck
        raise _twice(min(both), f" here and in {config / FILE_NAME}")
    return WriteKeys([*of_file, *for_trials])


def read_write_keys(file: Path) -> tuple[WriteKey, ...]:
    """The keys of one file.

    Raises:
        ConfigError: with file, line, what is wrong, and the mend.
    """
    try:
        text = file.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except FileNotFoundError:
        return ()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}", f"cannot be read as YAML: {error.problem}.") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"cannot be read: {error}.") from None
    if document is None:
        return ()
    try:
        return WriteKeysFile.model_validate(document).keys
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{file}, line {_line_of(tree, first['loc'])}"
        named = ".".join(str(part) for part in first["loc"])
        what = f"{named}: {first['msg']}" if named else first["msg"]
        got = f"; got {shown(first['input'])}" if not isinstance(first["input"], dict | WriteKeysFile) else ""
        mend = f"Fields are: {', '.join(WriteKey.model_fields)}." if first["type"] == "extra_forbidden" else ""
        raise ConfigError(place, f"{what}{got}.", mend) from None


def _line_of(node: yaml.Node | None, path: tuple[int | str, ...]) -> int:
    """The line of the value at a path, or of the nearest thing around it."""
    line = 1
    for part in path:
        if node is not None:
            line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def new_write_key(name: str, kind: Kind = "public", workspace: str = "default") -> tuple[str, str]:
    """A new key, and the lines for the file. The key itself is kept nowhere: show it once.

    Raises:
        ConfigError: the name or the workspace is not one.
    """
    plain = f"tw_{secrets.token_urlsafe(24)}"
    try:
        key = WriteKey(name=name, sha256=hash_of(plain), workspace=workspace, kind=kind)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"write key, {first['loc'][0]}", f"{first['msg']}; got {shown(first['input'])}.") from None
    fields = (("name", key.name), ("sha256", key.sha256), ("workspace", key.workspace), ("kind", key.kind))
    return plain, "".join(f"{'  - ' if field == 'name' else '    '}{field}: {value}\n" for field, value in fields)
