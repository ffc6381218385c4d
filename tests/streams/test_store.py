"""The store of a partition: what a crash in the middle of a write leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.keyed import Keyed, encode_state
from streams.log import Outgoing
from streams.store import WRITE_CHUNK, StateStore, TimerMove

PEOPLE = 2 * WRITE_CHUNK + 1


def people(revision: int, due_ms: int = 0) -> list[Outgoing]:
    value = encode_state(Keyed(revision=revision, next_due_ms=due_ms))
    return [Outgoing(b"w/u:%d" % number, value) for number in range(PEOPLE)]


def breaks_off(states: list[Outgoing], after: int) -> Iterator[Outgoing]:
    yield from states[:after]
    raise OSError("the power went")


def test_a_write_that_breaks_off_never_says_that_it_is_complete(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "store")
    store.write(people(1), [], 100, 1)
    with pytest.raises(OSError, match="power"):
        store.write(breaks_off(people(2, due_ms=5_000), after=WRITE_CHUNK + 1), [], 200, 2)
    store.close()

    store = StateStore(tmp_path / "store")
    assert (store.changelog_next, store.epoch) == (100, 1)
    first, last = store.get([b"w/u:0", b"w/u:%d" % (PEOPLE - 1)])
    assert first == people(2, due_ms=5_000)[0].value  # some of it is there
    assert last == people(1)[0].value

    # The changelog says all of it again.
    moves = [TimerMove(state.key or b"", 0, 5_000) for state in people(2)]
    store.write(people(2, due_ms=5_000), moves, 200, 2)

    assert store.changelog_next == 200
    assert len(store.due(5_000, 2 * PEOPLE)) == PEOPLE
    assert {*store.get([state.key or b"" for state in people(2)])} == {people(2, due_ms=5_000)[0].value}
    store.close()
