"""Sends what the customer stage produces, in order, until the log has it."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from streams.log import Log, LogBusy, Outgoing, Placed

log = structlog.get_logger(__name__)

LONGEST_PAUSE_S = 5.0


async def append_surely(log_: Log, topic: str, records: list[Outgoing]) -> list[Placed]:
    """Append, again and again while the log is busy or away. May store twice what the log left unanswered."""
    pause_s = 0.05
    while True:
        try:
            return await log_.append(topic, records)
        except LogBusy as error:
            log.warning("log_not_answering", topic=topic, records=len(records), error=str(error), again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


class Sender:
    """One queue and one task: what was handed over first is in the log first, also through an outage."""

    def __init__(self, log_: Log) -> None:
        self._log = log_
        self._queue: deque[tuple[str, list[Outgoing]]] = deque()
        self._handed_over = 0
        self._sent = 0
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End at once; what is not sent follows again from the records it came from."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def waiting(self) -> int:
        """Hand-overs not yet in the log."""
        return self._handed_over - self._sent

    def hand_over(self, messages: dict[str, list[Outgoing]]) -> int:
        """Queue records by topic; returns a mark for `sent`."""
        for topic, records in messages.items():
            self._queue.append((topic, records))
            self._handed_over += 1
        self._wake.set()
        return self._handed_over

    async def sent(self, mark: int) -> None:
        """Wait until everything handed over up to `mark` is acknowledged."""
        async with self._progress:
            await self._progress.wait_for(lambda: self._sent >= mark)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                count = len(self._queue)
                by_topic: dict[str, list[Outgoing]] = {}
                for _ in range(count):
                    topic, records = self._queue.popleft()
                    by_topic.setdefault(topic, []).extend(records)
                await asyncio.gather(*(append_surely(self._log, *one) for one in by_topic.items()))
                async with self._progress:
                    self._sent += count
                    self._progress.notify_all()
