"""Effects: what a processor wants done, as values. The wiring in `streams/` does them, once."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One row for ClickHouse, in the table its type belongs to. Written again with the same key, the newest stays.

    `values` is an instance of the struct that the processor lists in `tables`.
    """

    values: msgspec.Struct
    is_deleted: bool = False


class Decision(msgspec.Struct, frozen=True):
    """One line of the ledger, with its cause: something was decided about a person.

    Attributes:
        kind: `merged`, `unmerged`, `merge_refused`, later also `entered`, `sent`, `skipped` …
        about: what it concerns: an id, a journey, a segment.
        facts: why, as short texts and numbers a person can read.
    """

    kind: str
    about: str
    facts: Mapping[str, str | int | float | bool | None] = {}


class Timer(msgspec.Struct, frozen=True):
    """Wake this processor for this person at `due_ms` (since 1970), not before. A timer of the same name is moved."""

    name: str
    due_ms: int


class CancelTimer(msgspec.Struct, frozen=True):
    name: str


Effect = Row | Decision | Timer | CancelTimer
