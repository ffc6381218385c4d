"""`tidewire`, with a look at the clock where an event changed a state, where its row can be read in ClickHouse, and
where the message that a journey proposed on it stands in the log.

The events carry in their messageIds when they were due (`client.py`); what a message is given says it, too. What was
seen goes to a file in the folder that BENCH_PROBES names, when the process ends: for each event when it was due and how
long it took, in nanoseconds.

BENCH_MIDNIGHT names a file that says when it is midnight (UTC) for journeys that wait for a time of day, in seconds
since 1970; so nobody has to wait for the real one.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from processors.fold import Fold
from sinks.batch import Rows
from sinks.clickhouse import ClickHouseSink
from streams import journey_turn
from streams.cli import main
from streams.embedded import EmbeddedLog
from streams.lines import MESSAGES

STAMP = "due-"  # begins the messageId of an event that says when it was due
PROBES = "BENCH_PROBES"
MIDNIGHT = "BENCH_MIDNIGHT"
DAY_MS = 86_400_000
Seen = array  # pairs: when it was due, and how long it took


def look() -> dict[str, Seen[int]]:
    """Put the probes in place; what they see stands in the arrays, by their names."""
    seen: dict[str, Seen[int]] = {"state": array("q"), "row": array("q"), "proposed": array("q")}
    in_state, in_row, in_log = seen["state"].append, seen["row"].append, seen["proposed"].append
    clock, stamped = time.time_ns, re.compile(b'"messageId":"%s([0-9]+)-' % STAMP.encode()).search
    ordered = re.compile(b'{"type":"order",.*"due":([0-9]+)').match
    apply, insert, append = Fold.apply, ClickHouseSink._insert, EmbeddedLog.append

    def apply_and_look(fold: Fold, part: Any, event: Any, person: Any, now_ms: int) -> Any:
        done = apply(fold, part, event, person, now_ms)
        if event.message_id.startswith(STAMP):
            due = int(event.message_id.split("-")[1])
            in_state(due)
            in_state(clock() - due)
        return done

    async def insert_and_look(sink: ClickHouseSink, rows: Rows, *args: Any) -> None:
        await insert(sink, rows, *args)  # when it returns, the rows are there
        if rows.table == "events":
            now = clock()
            for record in rows.origins:
                if stamp := stamped(record.value or b""):
                    due = int(stamp.group(1))
                    in_row(due)
                    in_row(now - due)

    async def append_and_look(log: EmbeddedLog, topic: str, records: Any) -> Any:
        placed = await append(log, topic, records)
        if topic == MESSAGES.topic:
            now = clock()
            for record in records:
                if due := ordered(record.value or b""):
                    in_log(int(due.group(1)))
                    in_log(now - int(due.group(1)))
        return placed

    EmbeddedLog.append = append_and_look  # type: ignore[method-assign]
    Fold.apply = apply_and_look  # type: ignore[method-assign, assignment]
    ClickHouseSink._insert = insert_and_look  # type: ignore[method-assign, assignment]
    return seen


def shift(file: Path) -> None:
    """Let it be midnight for journeys when the file says so; until it says anything it is as everywhere."""
    next_clock = journey_turn.next_clock

    def shifted(now_ms: int, *said: Any) -> int:
        shift_ms = int(file.read_text() or 0) * 1000 % DAY_MS
        return next_clock(now_ms - shift_ms, *said) + shift_ms

    journey_turn.next_clock = shifted  # type: ignore[attr-defined]


def keep(seen: Mapping[str, Seen[int]]) -> None:
    folder = Path(os.environ[PROBES])
    for name, values in seen.items():
        if values:
            (folder / f"{name}-{os.getpid()}").write_bytes(values.tobytes())


def read(folder: Path, name: str) -> list[tuple[int, int]]:
    """What the probes of this name saw, in whatever process: when an event was due, and how long it took, in ns."""
    pairs: list[tuple[int, int]] = []
    for file in sorted(folder.glob(f"{name}-*")):
        values: Seen[int] = array("q")
        values.frombytes(file.read_bytes())
        pairs += zip(values[::2], values[1::2], strict=True)
    return pairs


if __name__ == "__main__":
    probes = look()
    if MIDNIGHT in os.environ:
        shift(Path(os.environ[MIDNIGHT]))
    try:
        main()
    finally:
        keep(probes)
