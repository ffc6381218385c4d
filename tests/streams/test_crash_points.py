"""A worker dies at every point there is: before and after each thing it tells the log, and each write to its disk.
Whatever the point, the next one makes the same of the same events.

The log is the embedded one, the worker and its stage are the real ones, and nothing depends on luck or time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors.base import Person, Table
from processors.fold import Fold
from schemas.effects import Effect, Row
from schemas.event import Event
from schemas.rows import decode_ledger_line, decode_table_row
from streams.lines import EVENTS
from streams.log import TP
from streams.states import PartitionStates
from streams.worker import Worker
from tests.faults.without import GUARDS
from tests.streams.test_worker import PARTITIONS, Shop
from tests.streams.world import Tally, TallyProcessor, an_event

FEW = 7  # records of a batch; a checkpoint follows each
DEAD_WITHIN_S = 30.0


class Death(Exception):
    """The process is no more."""


class Told(msgspec.Struct):
    message: str
    times: int


class Teller(TallyProcessor):
    """Says in a row of each message how often it was applied."""

    name = "teller"
    tables = (Table("told", Told, ("message",), "One row a message."),)

    def apply(self, state: Tally, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:  # type: ignore[override]
        super().apply(state, event, person, now_ms)
        yield Row(Told(event.message_id, state.messages[event.message_id]))


class Mortal:
    """A log whose user dies at a point: the Nth time that it appends, or writes to its disk, before or after."""

    def __init__(self, log: Any, point: int) -> None:
        self._log = log
        self._point = point
        self.points = 0
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        self._live()
        return getattr(self._log, name)

    def _live(self) -> None:
        if self.died.is_set():
            raise Death

    def pass_by(self) -> None:
        """One more point."""
        self._live()
        self.points += 1
        if self.points == self._point:
            self.died.set()
            raise Death

    async def append(self, topic: str, records: Any) -> Any:
        self.pass_by()
        placed = await self._log.append(topic, records)
        self.pass_by()
        return placed


class MortalShop(Shop):
    """One life after another, on the same log and disk."""

    async def life(self, fold: Fold, point: int, state: str = "state") -> int:
        """Do what is left, and die at that point if there is one. Returns how many points were passed."""
        immortal, self.log = self.log, Mortal(self.log, point)  # type: ignore[assignment]
        mortal: Any = self.log
        store = PartitionStates.store

        def mortal_store(states: Any, *more: Any) -> None:
            mortal.pass_by()
            store(states, *more)
            mortal.pass_by()

        PartitionStates.store = mortal_store  # type: ignore[method-assign]
        try:
            living = asyncio.create_task(self._live(fold, state))
            dying = asyncio.create_task(mortal.died.wait())
            done, _ = await asyncio.wait((living, dying), timeout=DEAD_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            assert done, "it neither ended nor died"
            for task in (living, dying):
                task.cancel()
            (ended, _) = await asyncio.gather(living, dying, return_exceptions=True)
            for owned in self.newest._owned.values():
                with suppress(Exception):  # it was closed, if what died was not waiting for what never comes
                    owned.states._store._db.close()
            assert ended is None or isinstance(ended, Death | asyncio.CancelledError), ended
        finally:
            PartitionStates.store = store  # type: ignore[method-assign]
            self.log = immortal
        return int(mortal.points)

    async def _live(self, fold: Fold, state: str) -> None:
        async with self.worker(fold, state, stops=False) as worker:
            worker._on_failure = lambda error: None
            at = dict(self.marks)
            while True:
                found = False
                for partition in range(PARTITIONS):
                    records = await self.log.read(TP(EVENTS, partition), at.get(partition, 0), FEW)
                    if records:
                        found = True
                        await worker.process(partition, records)
                        at[partition] = records[-1].offset + 1
                await worker.checkpoint()
                await worker._sender.sent(worker._sender._handed_over)
                if not found:
                    return

    async def outcome(self) -> dict[str, Any]:
        """All that anybody can see."""
        rows: dict[object, tuple[int, object]] = {}
        for record in await self.all("rows"):
            row = decode_table_row(record.value or b"")
            of = (row.table, row.key, row.values["message"])
            if of not in rows or rows[of][0] <= row.version:
                rows[of] = row.version, row.values
        return {
            "people": await self.portraits(),
            "rows": {of: values for of, (_, values) in rows.items()},
            "decisions": {decode_ledger_line(record.value or b"").id for record in await self.all("decisions")},
        }


def story() -> list[Event]:
    """Two devices of one person, two of another, an alias, and duplicates."""
    events = [an_event(n, anonymous=f"a{n % 4}") for n in range(12)]
    events += [an_event(20 + n, user=f"u{n % 2}", anonymous=f"a{n}") for n in range(4)]
    events += [an_event(30 + n, anonymous=f"a{n % 4}") for n in range(8)]
    events += [an_event(40, user="u1", previous="u0"), an_event(5, anonymous="a1"), an_event(31, anonymous="a1")]
    return events + [an_event(50 + n, user=f"u{n % 3}") for n in range(9)]


async def a_shop(folder: Path) -> MortalShop:
    shop = MortalShop(folder)
    await shop.open()
    await shop.send(*story())
    return shop


@pytest.mark.slow
async def test_whatever_the_point_at_which_a_worker_dies_the_outcome_is_the_same(tmp_path: Path):
    assert await points_that_matter(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["flush", "outputs_first"])
async def test_without_a_guard_there_are_points_that_matter(guard: str, tmp_path: Path, monkeypatch):
    for name in ("_land", "_send_messages"):  # what the guards replace is put back when the test ends
        monkeypatch.setattr(Worker, name, getattr(Worker, name))
    GUARDS[guard]()

    assert await points_that_matter(tmp_path)


async def points_that_matter(folder: Path) -> list[int]:
    """The points at which a death changes the outcome."""
    fold = Fold([TallyProcessor(), Teller()])
    calm = await a_shop(folder / "calm")
    points = await calm.life(fold, 0)
    expected = await calm.outcome()
    await calm.log.stop()
    assert points > 40
    assert max(values["times"] for values in expected["rows"].values()) == 1

    found = []
    for point in range(1, points + 1):
        shop = await a_shop(folder / str(point))
        assert await shop.life(fold, point) == point
        await shop.life(fold, 0, "state" if point % 2 else "another disk")
        if await shop.outcome() != expected:
            found.append(point)
        await shop.log.stop()
    return found
