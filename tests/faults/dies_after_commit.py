"""`tidewire`, but the process kills itself the moment a slow broker has answered its Nth commit: the worst moment there
is for a program that commits before everything behind the commit is safe.

    python -m tests.faults.dies_after_commit N worker --data DIR
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from aiokafka import AIOKafkaConsumer

from streams.cli import main

SLOW_S = 0.5  # commits that are answered sooner do not count: the broker is not slow yet


def die_after(commits: int) -> None:
    commit, left = AIOKafkaConsumer.commit, commits

    async def commit_and_count(self: Any, *arguments: Any) -> None:
        nonlocal left
        began = time.monotonic()
        await commit(self, *arguments)
        left -= time.monotonic() - began > SLOW_S
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    AIOKafkaConsumer.commit = commit_and_count


if __name__ == "__main__":
    die_after(int(sys.argv.pop(1)))
    main()
