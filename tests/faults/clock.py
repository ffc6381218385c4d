"""`tidewire` on a machine whose clock is wrong, with a processor that sets a timer for every event named "Remind me".

    python -m tests.faults.clock SECONDS worker --data DIR

What is known of the time of day is so many seconds ahead; clocks that measure how long things take go right.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from processors.base import Person, Processor
from schemas.effects import Decision, Effect, Timer
from schemas.event import Event

REMIND_ME = "Remind me"
AFTER_MS = 6_000  # the timer is due so long after the event was received


class Reminders(msgspec.Struct, array_like=True):
    due: dict[str, int] = {}


class Reminder(Processor[Reminders]):
    """Decides once that a person was reminded."""

    name = "reminder"
    about = "Reminds."
    State = Reminders
    wants = frozenset({REMIND_ME})

    def apply(self, state: Reminders, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.due[event.message_id] = now_ms + AFTER_MS
        yield Timer(event.message_id, now_ms + AFTER_MS)

    def on_timer(self, state: Reminders, timer: str, person: Person, now_ms: int) -> Iterable[Effect]:
        yield Decision("reminded", timer, {"due_ms": state.due.pop(timer), "now_ms": now_ms})

    def merge(self, one: Reminders, other: Reminders) -> Reminders:
        return Reminders({**one.due, **other.due})


def program(ahead_s: int) -> tuple[str, ...]:
    """The command with this clock: for `Process`."""
    return (sys.executable, "-m", "tests.faults.clock", str(ahead_s))


def be_ahead(seconds: int) -> None:
    """Set the clock of this process; before anything takes the functions of `time` by name."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + seconds * 10**9


if __name__ == "__main__":
    be_ahead(int(sys.argv.pop(1)))
    from processors import registry
    from streams.cli import main

    known = registry.load_processors

    def with_reminder(*arguments: Any) -> list[Any]:
        return [*known(*arguments), Reminder()]

    registry.load_processors = with_reminder
    main()
