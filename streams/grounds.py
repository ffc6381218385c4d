"""The two grounds: which log a URL means."""

from __future__ import annotations

from config.settings import Settings
from schemas.errors import ConfigError, shown
from streams.log import Log


def open_log(settings: Settings) -> Log:
    """The log of the settings, not started yet.

    Raises:
        ConfigError: the URL names no ground.
    """
    url = settings.log_url
    if url.startswith("embedded:"):
        from streams.embedded import EmbeddedLog

        return EmbeddedLog(url.removeprefix("embedded:").removeprefix("//"), fsync=settings.fsync)
    if url.startswith("kafka:"):
        from streams.kafka import KafkaLog

        return KafkaLog(url, password=settings.log_password)
    raise ConfigError("log", f"{shown(url)} names no log.", "Write embedded:PATH or kafka://HOST:PORT.")
