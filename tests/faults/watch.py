"""What is looked at while a fault lasts: whether the customer stage gets on, and how much memory is held."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import TidewireError
from streams.lag import STAGE_GROUP, STAGE_TOPICS
from streams.log import Log
from tests.faults.cluster import Cluster
from tests.faults.machine import Process

LOOK_EVERY_S = 0.25


class Watch:
    """Looks at something four times a second, from a thread of its own, as a context manager."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on_looking, name=type(self).__name__, daemon=True)

    def look(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _go_on_looking(self) -> None:
        self.look()
        while not self._is_over.wait(LOOK_EVERY_S):
            self.look()


class Progress(Watch):
    """Looks at what the customer stage has committed, whichever worker did it. On the Kafka ground.

    Attributes:
        moves: what was committed when it began, and then each time that it was more: when (monotonic), and how much.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster
        self._began = time.monotonic()
        self._ended: float | None = None
        self.moves: list[tuple[float, int]] = []

    def look(self) -> None:
        with suppress(TidewireError):  # while it cannot be known
            committed = self._cluster.ask_log(_committed)
            if not self.moves or committed > self.moves[-1][1]:
                self.moves.append((time.monotonic(), committed))

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._ended = time.monotonic()

    @property
    def done(self) -> int:
        """Records committed since it began."""
        return self.moves[-1][1] - self.moves[0][1] if self.moves else 0

    @property
    def longest_stall_s(self) -> float:
        """The longest time in which nothing was committed."""
        ended = time.monotonic() if self._ended is None else self._ended
        times = [self._began, *(at for at, _ in self.moves[1:]), ended]
        return max(after - before for before, after in pairwise(times))


class Memory(Watch):
    """Looks at the resident memory of processes.

    Attributes:
        held_bytes: of each, by the name of its data folder, look after look.
    """

    def __init__(self, processes: Iterable[Process]) -> None:
        super().__init__()
        self._processes = list(processes)
        self.held_bytes: dict[str, list[int]] = defaultdict(list)

    def look(self) -> None:
        for process in self._processes:
            with suppress(OSError):  # it has ended
                self.held_bytes[process.data.name].append(status_kb(process.pid)["VmRSS"] * 1024)


def status_kb(pid: int) -> Mapping[str, int]:
    """What the system says of a process, of all that it says in kB."""
    pairs = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in pairs if value.strip().endswith("kB")}


async def _committed(log: Log) -> int:
    return sum([sum((await log.committed(STAGE_GROUP, topic)).values()) for topic in STAGE_TOPICS])
