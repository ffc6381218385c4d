"""`tidewire`, but the process kills itself the moment the broker has answered its Nth commit: the worst moment there is
for a program that commits before everything behind the commit is safe.

    python -m tests.faults.dies_after_commit N worker --data DIR
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from aiokafka import AIOKafkaConsumer

from streams.cli import main


def die_after(commits: int) -> None:
    commit, left = AIOKafkaConsumer.commit, commits

    async def commit_and_count(self: Any, *arguments: Any) -> None:
        nonlocal left
        await commit(self, *arguments)
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    AIOKafkaConsumer.commit = commit_and_count


if __name__ == "__main__":
    die_after(int(sys.argv.pop(1)))
    main()
