"""What is looked at while a fault lasts: whether the customer stage gets on."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType

from schemas.errors import TidewireError
from streams.lag import STAGE_GROUP, STAGE_TOPICS
from streams.log import Log
from tests.faults.cluster import Cluster

LOOK_EVERY_S = 0.25


class Progress:
    """Looks at what the customer stage has committed, as a context manager. On the Kafka ground.

    Attributes:
        done: records committed since it began.
        longest_stall_s: the longest time without any more.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._first: int | None = None
        self._before = 0
        self._moved_at = time.monotonic()
        self.done = 0
        self.longest_stall_s = 0.0

    def __enter__(self) -> Progress:
        self._moved_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._note(self._before)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            with suppress(TidewireError):
                self._note(self._cluster.ask_log(_committed))

    def _note(self, committed: int) -> None:
        now = time.monotonic()
        self.longest_stall_s = max(self.longest_stall_s, now - self._moved_at)
        if self._first is None:
            self._first = self._before = committed
        if committed > self._before:
            self._before, self._moved_at = committed, now
            self.done = committed - self._first


async def _committed(log: Log) -> int:
    return sum([sum((await log.committed(STAGE_GROUP, topic)).values()) for topic in STAGE_TOPICS])
