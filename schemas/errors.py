"""Errors say what happened, which value, and how to mend it.

    TidewireError          anything a person can act on; printed as one line, never as a traceback
    ├── Refused            one event, row or form was refused: reason, field, value
    ├── ConfigError        a setting or a YAML file is wrong: place, what, mend
    └── Unreachable        what is needed does not answer, or another process holds it (LogBusy, LogInUse …)
"""

from __future__ import annotations

LONGEST_SHOWN_VALUE = 200  # characters of a refused value kept in a message; the dead letter keeps all of it


class TidewireError(Exception):
    """What happened, as one line a person can act on."""


class Refused(TidewireError):
    """An input that will never fit, with the place and the mend.

    Attributes:
        reason: a short fixed text, the same for all inputs refused for this cause; counted and grouped by.
        field: dotted path of the offending value, such as `properties.total`; empty for the whole input.
        value: the offending value as text, shortened.
        mend: what to change.
        processor: name of the processor that refused it; empty where it was none.
    """

    processor = ""

    def __init__(self, reason: str, *, field: str = "", value: object = None, mend: str = "") -> None:
        self.reason = reason
        self.field = field
        self.value = shown(value)
        self.mend = mend
        parts = [f"{field}: {reason}" if field else reason]
        if value is not None:
            parts.append(f"got {self.value}")
        if mend:
            parts.append(mend)
        super().__init__("; ".join(parts))


class ConfigError(TidewireError):
    """A setting is wrong. `place` is a file with line, or the name of an environment variable."""

    def __init__(self, place: str, what: str, mend: str = "") -> None:
        self.place = place
        self.what = what
        self.mend = mend
        super().__init__(f"{place}: {what}" + (f" {mend}" if mend else ""))


class Unreachable(TidewireError):
    """What is needed does not answer or is held by another process: a broker, ClickHouse, a port, the data folder.

    The same command may work later, unchanged. The command line ends with exit code 3.
    """


def shown(value: object) -> str:
    """The value as one short line of text: for messages, never for storage."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_SHOWN_VALUE else text[: LONGEST_SHOWN_VALUE - 1] + "…"
