"""The settings: one declaration gives the default, the check and the reference page (docs/settings.md).

Order: command line, then environment (`TIDEWIRE_…`, or `TIDEWIRE_…_FILE` naming a file with the value), then
`tidewire.yaml` in the config folder, then the default. Read once, at an entry point, and handed down.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.errors import ConfigError, shown
from schemas.keys import WORKSPACE_PATTERN

PREFIX = "TIDEWIRE_"
FILES = ("tidewire.yaml", "write_keys.yaml")  # of the config folder itself
# Variables that are no settings: of tests and of debugging, and those by which Kubernetes tells a pod of services.
_NO_SETTINGS = re.compile(r"DEBUG|TEST_\w+|(\w+_)?SERVICE_(HOST|PORT\w*)|(\w+_)?PORT_\d+_(TCP|UDP)\w*")
_ADDRESS = re.compile(r"(tcp|udp)://")  # … of which one is named like a setting of the port might be
_PUBLIC = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9-]+(\.[a-z0-9-]+)*)(:[0-9]{1,5})?/?")


class Settings(BaseModel):
    """How this Tidewire runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(Path("data"), description="Folder of log, tables and chDB; one process owns it.")
    config: Path = Field(Path("config"), description="Folder of the YAML files, such as the write keys.")
    log: str = Field("", description="`embedded:PATH` or `kafka://host:9092,…`. Default: embedded, in the data folder.")
    log_password: str = Field("", repr=False, description="Password for Kafka, of the user that `log` names.")
    analytics: str = Field("", description="`chdb:PATH` or `clickhouse://user@host:8123/db`. Default: chDB, in "
                                           "the data folder. Its password: `analytics_password`.")  # fmt: skip
    analytics_password: str = Field("", repr=False, description="Password for ClickHouse.")
    host: str = Field("127.0.0.1", description="Address to listen on. Pages answer loopback only all the same.")
    port: int = Field(8088, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workspace: str = Field("default", description="Workspace of plain write keys and of commands that name none.")
    timezone: str = Field("UTC", description="Time zone in which days of segments begin, such as Europe/Berlin.")
    rfm_minutes: int = Field(60, ge=1, description="How long the fifths of RFM hold before they are looked up anew.")
    write_keys: str = Field("", repr=False, description="Plain write keys for trials, separated by commas.")
    public_url: str = Field("", description="Address at which people reach the collector, such as "
                                            "`https://go.shop.example`: links of messages lead there. Empty: nothing "
                                            "is tracked, and no mail has a link to unsubscribe.")  # fmt: skip
    link_keys: str = Field("", description="File of the keys that links are signed with, see docs/links.md. Default: "
                                           "`link_keys` in the data folder, made when needed; on Kafka it must be "
                                           "given, the same for collectors and senders.")  # fmt: skip
    inbox_keys: str = Field("", description="File of the keys that tokens of the inbox are signed with, see "
                                            "docs/inbox.md. Default: `inbox_keys` in the data folder, made where "
                                            "`channels.yaml` has an inbox; on Kafka it must be given to the "
                                            "collectors, and these then ask ClickHouse (`analytics`). Without a key "
                                            "there is no `/inbox`.")  # fmt: skip
    inbox_days: int = Field(90, ge=1, le=3_650, description="Days that a message stays in the inbox; it is then "
                                                            "deleted. The same for all processes.")  # fmt: skip
    outbox_days: int = Field(400, ge=1, le=3_650, description="Days that what messages said is kept that stayed in "
                                                              "the outbox; it is then deleted.")  # fmt: skip
    smtp_password: str = Field("", repr=False, description="Password of `smtp.user` in `channels.yaml`.")
    webhook_secrets: str = Field("", repr=False, description="Secrets that sign webhooks, `whsec_…`, the newest first, "
                                                            "with spaces between.")  # fmt: skip
    sms_secret: str = Field("", repr=False, description="Secret of the provider of SMS: of Twilio, Aliyun or Tencent.")
    partitions: int = Field(4, ge=1, le=512, description="Partitions of the topics keyed by person, when created. "
                                                         "Cannot be changed later.")  # fmt: skip
    replication: int = Field(1, ge=1, le=7, description="Copies of each Kafka partition, when created; 3 with "
                                                        "three brokers or more.")  # fmt: skip
    fsync: bool = Field(True, description="Embedded log: wait for the disk before answering, so that power loss costs "
                                          "nothing that was answered.")  # fmt: skip
    checkpoint_records: int = Field(20_000, ge=1, description="A checkpoint is due after this many records…")
    checkpoint_ms: int = Field(250, ge=1, description="…or this many milliseconds, whichever is first; "
                                                   "up to 1,000 while checkpoints take long.")  # fmt: skip
    hot_customers: int = Field(20_000, ge=100, description="Customer records kept decoded in memory, per worker.")
    sink_batch: int = Field(20_000, ge=1, description="Rows of one ClickHouse insert, at most.")
    sink_wait_ms: int = Field(1_000, ge=1, description="A smaller insert waits this long for more rows.")
    most_lag: int = Field(1_000_000, ge=1, description="Collector answers 503 while the customer stage is this many "
                                                       "records behind.")  # fmt: skip
    most_links: int = Field(100, ge=1, description="Ids that one person may claim; more are refused, and said.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level of log lines.")

    @field_validator("workspace")
    @classmethod
    def _is_workspace(cls, value: str) -> str:
        if not WORKSPACE_PATTERN.match(value):
            raise ValueError("use lower case letters, digits, - and _, at most 63")
        return value

    @field_validator("public_url")
    @classmethod
    def _is_public(cls, value: str) -> str:
        found = _PUBLIC.fullmatch(value)
        if value and found is None:
            raise ValueError("write it as https://go.shop.example, without a path")
        if found is not None and found["scheme"] == "http" and found["host"] not in ("localhost", "127.0.0.1"):
            raise ValueError("must be https; http is for localhost and 127.0.0.1 alone")
        return value.rstrip("/")

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("name one of the tz database, such as Europe/Berlin or Asia/Shanghai")
        return value

    @field_validator("log")
    @classmethod
    def _names_a_file(cls, value: str) -> str:
        if value.startswith("embedded:") and not Path(value.removeprefix("embedded:").removeprefix("//")).name:
            raise ValueError("names no file; write embedded:PATH")
        return value

    @property
    def log_url(self) -> str:
        return self.log or f"embedded:{self.data / 'log.db'}"

    @property
    def analytics_url(self) -> str:
        return self.analytics or f"chdb:{self.data / 'clickhouse'}"

    @property
    def is_embedded(self) -> bool:
        return self.log_url.startswith("embedded:")


def load_settings(overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; `overrides` are those of the command line that were given.

    Raises:
        ConfigError: with the place (file or variable), the value and the mend.
    """
    return explain_settings(overrides, environ)[0]


def explain_settings(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each that is not at its default the place it came from; raises like `load_settings`."""
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    places: dict[str, str] = {name: f"--{name.replace('_', '-')}" for name in given}
    values: dict[str, Any] = dict(given)
    for name, value in _from_environment(environ).items():
        variable = f"{PREFIX}{name.upper()}"
        places.setdefault(name, variable if variable in environ else f"{variable}_FILE")
        values.setdefault(name, value)
    folder = Path(values.get("config", Settings.model_fields["config"].default))
    _check_folder(folder, places.get("config"))
    file = folder / FILES[0]
    for name, (value, line) in _from_file(file).items():
        place = f'{file}, line {line}, "{name}"'
        if name == "config":
            raise ConfigError(place, "is where this file was found.", "Take it out.")
        places.setdefault(name, place)
        values.setdefault(name, value)
    try:
        return Settings(**values), places
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if name not in Settings.model_fields:
            raise _unknown(places.get(name, name), name) from None
        got = shown(first["input"]) if Settings.model_fields[name].repr else "what is not shown, a secret"
        what = f"{first['msg'].removeprefix('Value error, ')}; got {got}."
        raise ConfigError(places.get(name, name), what) from None


def _unknown(place: str, name: str) -> ConfigError:
    return ConfigError(place, "is no setting.", f"{_meant(name, Settings.model_fields)}"
                                                f"Settings are: {', '.join(Settings.model_fields)}.")  # fmt: skip


def _meant(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f'Did you mean "{near[0]}"? ' if near else ""


def _check_folder(folder: Path, place: str | None) -> None:
    """A config folder that was named must be there, and what is nearly called like a file of ours is a mistake."""
    if place is not None and not folder.is_dir():
        raise ConfigError(place, f"{folder} is no folder.", "Name the folder of the YAML files.")
    for file in sorted(folder.glob("*.y*ml")):
        near = get_close_matches(file.name, FILES, 1, cutoff=0.8)
        if near and file.name not in FILES:
            raise ConfigError(str(file), "is not read.", f'Did you mean "{near[0]}"?')


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    known = set()
    for name in Settings.model_fields:
        variable, file = PREFIX + name.upper(), f"{PREFIX}{name.upper()}_FILE"
        known |= {variable, file}
        if variable in environ and file in environ:
            raise ConfigError(file, f"{variable} is set, too.", "Take one of them out.")
        if variable in environ:
            found[name] = environ[variable]
        elif file in environ:
            found[name] = _from_secret(file, Path(environ[file]))
    for variable in sorted(environ.keys() - known):
        name = variable.removeprefix(PREFIX)
        if name != variable and not _NO_SETTINGS.fullmatch(name) and not _ADDRESS.match(environ[variable]):
            raise _unknown(variable, name.lower())
    return found


def _from_secret(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(variable, f"cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(variable, f"{path} is not UTF-8 text.") from None


def _from_file(file: Path) -> dict[str, tuple[Any, int]]:
    """The settings of a YAML file, each with its line."""
    try:
        text = file.read_text()
        document = yaml.safe_load(text)
        node = yaml.compose(text, yaml.SafeLoader)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ConfigError(str(file), "is not UTF-8 text.") from None
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = str(file) if mark is None else f"{file}, line {mark.line + 1}, column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(place, f"this is not YAML: {problem}.") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}, line 1", "must hold settings as `name: value`.")
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if lines.setdefault(str(key.value), line) != line:
            raise ConfigError(f'{file}, line {line}, "{key.value}"', "is set twice.", "Take one of the two lines out.")
    return {str(name): (value, lines.get(str(name), 1)) for name, value in document.items()}
