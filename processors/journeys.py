"""Processor `journeys`: where somebody stands in journeys, and what she was sent by them.

What happens there is decided by the customer stage, over all parts of a person (`streams.leading`); this says what is
remembered of each part, and what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from processors.base import Person, Processor, Table
from schemas.effects import Effect
from schemas.event import Event
from schemas.journeys import Entered, Ordered, Run
from schemas.messages import SOURCE
from schemas.times import to_iso

JOURNEYS = "journeys"
MOST_RUNS = 50  # that somebody is in at a time, in one part
MOST_ENTERED = 500  # journeys of which it is remembered when she entered; those that she entered last
MOST_KEYS = 200  # values of `once_per` of one journey; the newest
MOST_ORDERED = 500  # marketing messages; the newest
MOST_TAGS = 100

Few = Annotated[str, "LowCardinality(String)"]


class JourneyRow(msgspec.Struct, frozen=True):
    """Somebody's way through a journey, from entry to exit.

    Attributes:
        run: id of this way; journey, definition: name and version of the journey.
        is_control: she was held out, and got nothing.
        state: waits, quiet, held, control, after (the steps are done, the goal is still looked for) or ended.
        step: at which she is, or was last.
        entered_at: when; entered_by: what made her: event, joined, left, date, schedule or broadcast.
        entry_key: value of `once_per`.
        due_at: when it goes on by itself.
        left_at: when the steps ended for her; left_by: why: done, goal, exit, stopped, merged, gone, too_many.
        goal_at: when she reached the goal; goal_value: the number that its event said.
        sent: how many messages it was allowed to send.
    """

    run: str
    journey: Few
    definition: int
    is_control: bool
    state: Few
    step: Few
    entered_at: datetime
    entered_by: Few
    entry_key: str
    due_at: datetime | None
    left_at: datetime | None
    left_by: Few
    goal_at: datetime | None
    goal_value: float
    sent: int


class Inside(msgspec.Struct, array_like=True):
    """State: of one part.

    Attributes:
        runs: by id.
        entered: by journey.
        ordered: marketing messages, the oldest first.
    """

    runs: dict[str, Run] = {}
    entered: dict[str, Entered] = {}
    ordered: list[Ordered] = []


class Journeys(Processor[Inside]):
    """Remembers where somebody stands in each journey. People enter, go on and leave in the customer stage, which knows
    all parts of them; what a part began moves with it when people are merged, or parted again.

    A message that failed does not count against how many she may get.
    """

    name = JOURNEYS
    version = 1
    about = "Which journeys somebody is in, at which step and since when, and how often she entered."
    wants = frozenset({"Message Failed"})
    State = Inside
    limits = {  # noqa: RUF012
        f"{MOST_RUNS} journeys at a time": "of more the entry is refused, and stands in the ledger as `too_many`",
        f"{MOST_ENTERED} journeys entered": "those that were entered last; others can be entered as if for the first "
        "time",
        f"{MOST_KEYS} values of `once_per`": "the newest; a value that comes back after so many others can enter again",
        f"{MOST_ORDERED} messages": "the newest; older ones do not count for caps",
    }
    tables = (Table("journey_runs", JourneyRow, ("run",), "Everybody's ways through journeys, from entry to exit."),)
    cases = (
        {"case": "who is in no journey shows none",
         "events": [{"at": "2024-03-01", "event": "Message Failed", "properties": {"message_id": "another's"}}],
         "shows": {}, "rows": {"journey_runs": []}},
    )  # fmt: skip

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.due: list[tuple[str, str]] = []
        """Parts and runs whose timers fired since somebody last took them."""

    def apply(self, state: Inside, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        if event.source == SOURCE and state.ordered:
            failed = event.properties.get("message_id")
            state.ordered = [each for each in state.ordered if each.id != failed]
        return ()

    def on_timer(self, state: Inside, timer: str, person: Person, now_ms: int) -> Iterable[Effect]:
        self.due.append((person.part, timer))
        return ()

    def merge(self, one: Inside, other: Inside) -> Inside:
        entered = dict(one.entered)
        for journey, theirs in other.entered.items():
            mine = entered.get(journey)
            entered[journey] = theirs if mine is None else both(mine, theirs)
        kept = sorted(entered, key=lambda name: (entered[name].last_ms, name))[-MOST_ENTERED:]
        ordered = sorted({*one.ordered, *other.ordered}, key=lambda each: (each.at_ms, each.id))[-MOST_ORDERED:]
        return Inside({**one.runs, **other.runs}, {name: entered[name] for name in kept}, ordered)

    def show(self, state: Inside) -> dict[str, Any]:
        inside = [
            {"journey": run.journey, "version": run.version, "run": id_, "step": run.step,
             "since": to_iso(run.entered_ms), "due": to_iso(run.due_ms) if run.due_ms else None}
            for id_, run in sorted(state.runs.items()) if run.state in ("waits", "quiet", "held")
        ]  # fmt: skip
        entered = {name: {"times": each.times, "last": to_iso(each.last_ms)}
                   for name, each in sorted(state.entered.items())}  # fmt: skip
        return {"inside": inside, "entered": entered} if inside or entered else {}


def both(one: Entered, other: Entered) -> Entered:
    newer, older = (one, other) if (one.last_ms, one.keys) >= (other.last_ms, other.keys) else (other, one)
    of_hour = newer.of_hour + older.in_hour(newer.last_ms)
    keys = [*(key for key in older.keys if key not in newer.keys), *newer.keys]
    return Entered(newer.last_ms, one.times + other.times, keys[-MOST_KEYS:], of_hour)
