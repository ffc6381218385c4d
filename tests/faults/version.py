"""`tidewire` of another version: its processor `visits` keeps another state than the one beside it.

    python -m tests.faults.version wider worker --data DIR

`wider`: the state has one more field, at its end and with a default, as docs/adding-a-processor.md asks for; both
versions read what the other wrote. `next`: the version of the state is raised, and an `upgrade` makes it of the old
one; who does not know the new version must not touch it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from processors.visits import Visits, VisitsState
from streams.cli import main

MOOD = "noticed"


class WiderState(VisitsState, array_like=True, gc=False):
    """The state of visits, and something new."""

    mood: str = ""


def _wider() -> None:
    apply = Visits.apply

    def apply_and_note(self: Visits, state: Any, *more: Any) -> Iterable[Any]:
        state.mood = MOOD
        return apply(self, state, *more)

    Visits.State = WiderState
    Visits.apply = apply_and_note  # type: ignore[method-assign]


def _next() -> None:
    def upgrade(cls: type[Visits], version: int, old: Any) -> msgspec.Struct:
        assert version == Visits.version - 1, version
        return msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=VisitsState)

    Visits.version += 1
    Visits.upgrade = classmethod(upgrade)  # type: ignore[assignment]


VERSIONS: dict[str, Callable[[], None]] = {"wider": _wider, "next": _next}


def program(version: str) -> tuple[str, ...]:
    """The command of this version: for `Process`."""
    assert version in VERSIONS, version
    return (sys.executable, "-m", "tests.faults.version", version)


@contextmanager
def as_version(version: str) -> Iterator[None]:
    """This process is of that version: for whoever reads what it wrote."""
    before = {name: Visits.__dict__.get(name) for name in ("State", "version", "apply", "upgrade")}
    VERSIONS[version]()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                delattr(Visits, name) if name in Visits.__dict__ else None
            else:
                setattr(Visits, name, value)


if __name__ == "__main__":
    VERSIONS[sys.argv.pop(1)]()
    main()
