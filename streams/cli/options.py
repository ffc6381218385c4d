"""Options that many commands share, and the settings made of them."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from config.settings import Settings

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data folder: the log, the tables and chDB. [default: data]"),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="DIR", help="Folder of the YAML files. [default: config]")
]
Log = Annotated[
    str | None,
    typer.Option("--log", metavar="URL", help="kafka://host:9092,… or embedded:PATH. [default: in the data folder]"),
]
Analytics = Annotated[
    str | None,
    typer.Option(
        "--analytics", metavar="URL", help="clickhouse://user@host:8123/db or chdb:PATH. [default: in the data folder]"
    ),
]
Port = Annotated[
    int | None, typer.Option("--port", metavar="N", help="Port to listen on; 0 takes a free one. [default: 8088]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one a row.")]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Send to this collector instead, such as http://127.0.0.1:8088."),
]
WriteKey = Annotated[
    str | None,
    typer.Option(
        "--write-key",
        metavar="KEY",
        help="Write key to send with. [default: the first of TIDEWIRE_WRITE_KEYS, else the data folder's own]",
    ),
]


def settings_of(**given: Any) -> Settings:
    """The settings, with those options that were given.

    Raises:
        ConfigError: with the place, the value and the mend.
    """
    return explained_settings_of(**given)[0]


def explained_settings_of(**given: Any) -> tuple[Settings, dict[str, str]]:
    """The settings, and where each that is not at its default came from."""
    from config.settings import explain_settings

    return explain_settings({name: _plain(value) for name, value in given.items()}, os.environ)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def who() -> str:
    """Who gives this command, for the records."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        return str(os.getuid())
