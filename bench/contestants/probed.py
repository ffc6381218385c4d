"""`tidewire`, with a look at the clock where an event changed a state, and where its row can be read in ClickHouse.

The events carry in their messageIds when they were due (`client.py`). What was seen goes to a file in the folder that
BENCH_PROBES names, when the process ends: for each event when it was due and how long it took, in nanoseconds.
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
from streams.cli import main

STAMP = "due-"  # begins the messageId of an event that says when it was due
PROBES = "BENCH_PROBES"
Seen = array  # pairs: when it was due, and how long it took


def look() -> dict[str, Seen[int]]:
    """Put the probes in place; what they see stands in the arrays, by their names."""
    seen: dict[str, Seen[int]] = {"state": array("q"), "row": array("q")}
    in_state, in_row = seen["state"].append, seen["row"].append
    clock, stamped = time.time_ns, re.compile(b'"messageId":"%s([0-9]+)-' % STAMP.encode()).search
    apply, insert = Fold.apply, ClickHouseSink._insert

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

    Fold.apply = apply_and_look  # type: ignore[method-assign, assignment]
    ClickHouseSink._insert = insert_and_look  # type: ignore[method-assign, assignment]
    return seen


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
    try:
        main()
    finally:
        keep(probes)
