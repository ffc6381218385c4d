"""`tidewire`, but the process kills itself the moment ClickHouse has answered its Nth insert: the rows are stored, and
nothing is committed.

    python -m tests.faults.dies_after_insert N sink --data DIR
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sinks.analytics import Analytics
from streams.cli import main


def die_after(inserts: int) -> None:
    insert, left = Analytics.insert, inserts

    async def insert_and_count(self: Analytics, *arguments: Any, **named: Any) -> None:
        nonlocal left
        await insert(self, *arguments, **named)
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Analytics.insert = insert_and_count  # type: ignore[method-assign]


if __name__ == "__main__":
    die_after(int(sys.argv.pop(1)))
    main()
