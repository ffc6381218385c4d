"""The two grounds: which log a URL means."""

from __future__ import annotations

from pathlib import Path

from config.settings import Settings
from schemas.errors import ConfigError, TidewireError, shown
from streams.log import Log

RESTORING = ".restoring"  # beside the embedded log, from the first to the last step of a restore


def open_log(settings: Settings) -> Log:
    """The log of the settings, not started yet.

    Raises:
        ConfigError: the URL names no ground.
        TidewireError: a restore was broken off here.
    """
    url = settings.log_url
    if settings.is_embedded:
        from streams.embedded import EmbeddedLog

        refuse_half_restored(settings)
        return EmbeddedLog(embedded_file(settings), fsync=settings.fsync)
    if url.startswith("kafka:"):
        from streams.kafka import KafkaLog

        return KafkaLog(url, password=settings.log_password)
    raise ConfigError("log", f"{shown(url)} names no log.", "Write embedded:PATH or kafka://HOST:PORT.")


def embedded_file(settings: Settings) -> Path:
    """The file of the embedded log."""
    return Path(settings.log_url.removeprefix("embedded:").removeprefix("//"))


def restoring_mark(settings: Settings) -> Path:
    """The file that is there while a restore into these settings' folders is not finished."""
    file = embedded_file(settings)
    return file.with_name(file.name + RESTORING)


def refuse_half_restored(settings: Settings) -> None:
    """A log without its ClickHouse, or the other way round, would go on as if the rest had never been.

    Raises:
        TidewireError: a restore was broken off.
    """
    if settings.is_embedded and restoring_mark(settings).exists():
        raise TidewireError(f"the restore into {settings.data} was broken off. Run the same `tidewire restore` again.")
