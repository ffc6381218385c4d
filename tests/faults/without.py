"""`tidewire` with one guard taken away, to show that the rows of the fault matrix notice; and with a moment to die at.

    python -m tests.faults.without GUARD worker --data DIR

Without `nothing` it is `tidewire` as it is. TIDEWIRE_TEST_MOMENT names a file that says when the process is to die or
to stand still, see `Moment`; it is read at the start, and removed. TIDEWIRE_TEST_MINUTE_MS says how long a minute of a
journey takes, see `tests.faults.hurried`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from sinks.analytics import Analytics
from streams import journey_turn, leading, stage, worker
from streams.cli import main
from streams.lines import CUSTOMERS
from streams.states import PartitionStates
from streams.worker import Worker
from tests.faults.hurried import hurry_minutes

VARIABLE = "TIDEWIRE_TEST_MOMENT"
STEPS = ("taken", "sent", "in the changelog", "on disk", "marked")
"""Of a checkpoint, what was done last when the process dies: the changes were taken out of the way; messages, rows and
portraits are in the log; the changelog has the states; the disk has them; their offsets are marked, and committed."""
COMMIT_S = 1.0  # what was marked is committed within a quarter of a second


# --- guards


def nothing() -> None:
    """Every guard stays."""


def fence() -> None:
    """A record that was applied before is not known by its offset, neither at the person nor at her part."""
    step, apply = stage.CustomerStage._step, stage.CustomerStage._apply

    def forgetful_step(self: Any, key: str, customer: Any, *more: Any) -> None:
        step(self, key, customer, *more)
        customer.offset = -1

    def forgetful_apply(self: Any, key: str, customer: Any, arrival: Any, *more: Any) -> None:
        part = customer.parts.get(arrival.part)
        if part is not None:
            part.fence = {}
        apply(self, key, customer, arrival, *more)

    stage.CustomerStage._step = forgetful_step  # type: ignore[method-assign]
    stage.CustomerStage._apply = forgetful_apply  # type: ignore[method-assign]


def message_ids() -> None:
    """Nobody remembers which messages a person was sent."""
    assert stage.has_seen
    stage.has_seen = lambda seen, token: False  # type: ignore[assignment]


def flush() -> None:
    """Offsets are marked before the changelog has what stands behind them."""
    land = Worker._land

    async def mark_first(self: Any, taken: Any) -> None:
        for partition, after in taken.marks:
            if partition in self._owned:
                self._reading.mark(partition, after)
        await land(self, taken)

    Worker._land = mark_first  # type: ignore[method-assign]


def outputs_first() -> None:
    """Messages, rows and portraits leave when the states are on disk, and not before."""
    land, send = Worker._land, Worker._send_messages

    async def send_last(self: Any, taken: Any) -> None:
        await land(self, taken._replace(rows=[], shown=[]))
        send(self)
        outputs = {"rows": taken.rows, "profiles": await self._portraits(taken.shown)}
        self._sender.hand_over({topic: each for topic, each in outputs.items() if each})

    Worker._send_messages = lambda self: None  # type: ignore[method-assign]
    Worker._land = send_last  # type: ignore[method-assign]


def lease() -> None:
    """A worker that stood still for long does not ask itself whether others own its partitions by now."""
    assert Worker._check_lease
    Worker._check_lease = lambda self: None  # type: ignore[method-assign]


def ownership() -> None:
    """No lease, and what a former owner wrote late counts as well as what the owner wrote: nobody compares, nobody
    repairs."""
    lease()

    async def no_repair(self: Any, *ignored: Any) -> None:
        pass

    assert PartitionStates._repair
    assert PartitionStates._is_older
    PartitionStates._repair = no_repair  # type: ignore[method-assign]
    PartitionStates._is_older = lambda self, *ignored: False  # type: ignore[method-assign]


def tokens() -> None:
    """ClickHouse is not told which inserts are repetitions."""
    insert = Analytics.insert

    async def nameless(self: Any, table: str, columns: Any, token: str = "") -> None:
        await insert(self, table, columns)

    Analytics.insert = nameless  # type: ignore[method-assign]


def run_ids() -> None:
    """Somebody's way through a journey has an id that chance made: the same record done again makes another."""
    effect_id = journey_turn.effect_id

    def by_chance(*parts: object) -> str:
        return uuid4().hex if parts[0] == "run" else effect_id(*parts)

    journey_turn.effect_id = by_chance


def due() -> None:
    """When a timer of hers fires, nobody looks which one it was: whatever she waits for has come."""

    def everything(self: Any, key: str, customer: Any, now_ms: int, out: Any) -> None:
        if self._processor.due:
            self._processor.due = []
            turn = journey_turn.Turn(self, key, customer, now_ms, out)
            for way in turn.ways():
                if way.run.due_ms:
                    turn.due(way)
            turn.close()

    assert leading.Leading.on_due
    leading.Leading.on_due = everything  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (
        nothing, fence, message_ids, flush, outputs_first, lease, ownership, tokens, run_ids, due
    )
}  # fmt: skip


def program(guard: str = "nothing") -> tuple[str, ...]:
    """The command without a guard: for `Process`."""
    assert guard in GUARDS, guard
    return (sys.executable, "-m", "tests.faults.without", guard)


# --- moments


class Moment:
    """A step of the Nth checkpoint of a process, and what happens there: it is killed, or stops until it is woken.

    Steps of checkpoints that change no state do not count.
    """

    def __init__(self, step: str, checkpoint: int, action: str = "kill") -> None:
        assert step in STEPS, step
        assert action in ("kill", "stop"), action
        self.step, self.checkpoint, self.action = step, checkpoint, action
        self._left = checkpoint

    def write(self, file: Path) -> None:
        """For the next start of a process that has `settings_for(file)`."""
        file.write_text(f"{self.step}:{self.checkpoint}:{self.action}")

    @staticmethod
    def read(file: Path) -> Moment | None:
        if not file.exists():
            return None
        step, checkpoint, action = file.read_text().split(":")
        file.unlink()
        return Moment(step, int(checkpoint), action)

    def is_at(self, step: str) -> bool:
        if step != self.step:
            return False
        self._left -= 1
        return self._left == 0

    async def come(self) -> None:
        if self.action == "kill":
            await asyncio.sleep(COMMIT_S)  # so that what is marked by now is committed
        self.come_at_once()

    def come_at_once(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)
        while self.action == "kill":  # a signal takes a moment
            time.sleep(1)


def settings_for(file: Path) -> dict[str, str]:
    """The variable of the environment that names the file of the moment."""
    return {VARIABLE: str(file)}


def wait_for(moment: Moment) -> None:
    """Change the steps of a checkpoint so that the moment is noticed."""
    land, append, store, landed = Worker._land, worker.append_surely, PartitionStates.store, PartitionStates.landed

    async def watched_land(self: Any, taken: Any) -> None:
        if taken.encoded and moment.is_at("taken"):
            await moment.come()
        await land(self, taken)
        if taken.encoded and moment.is_at("marked"):
            await moment.come()

    async def watched_append(log: Any, topic: str, *more: Any) -> Any:
        if topic == CUSTOMERS.changelog and moment.is_at("sent"):
            await moment.come()
        return await append(log, topic, *more)

    def watched_store(self: Any, *more: Any) -> None:
        if moment.is_at("in the changelog"):
            moment.come_at_once()
        store(self, *more)

    def watched_landed(self: Any, *more: Any) -> None:
        landed(self, *more)
        if moment.is_at("on disk"):
            moment.come_at_once()

    Worker._land = watched_land  # type: ignore[method-assign]
    worker.append_surely = watched_append  # type: ignore[assignment]
    PartitionStates.store = watched_store  # type: ignore[method-assign]
    PartitionStates.landed = watched_landed  # type: ignore[method-assign]


if __name__ == "__main__":
    moment = Moment.read(Path(os.environ[VARIABLE])) if VARIABLE in os.environ else None
    if moment is not None:
        wait_for(moment)
    GUARDS[sys.argv.pop(1)]()
    hurry_minutes()
    main()
