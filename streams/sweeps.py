"""When everybody is asked to enter a journey: each day where a date makes people enter, else by its schedule."""

from __future__ import annotations

from processors.moments import next_clock, next_of_cron
from schemas.internal import Sweep
from schemas.journeys import Enter
from schemas.times import to_iso
from streams.segments import RULES_KEY


def next_sweep(enter: Enter, after_ms: int, zone: str) -> int | None:
    """The first moment after `after_ms` at which everybody is asked; None: never.

    Args:
        zone: the time zone of the workspace.
    """
    if enter.date is not None:
        return next_clock(after_ms + 1, enter.date.at, (), zone)
    if enter.schedule is not None:
        return next_of_cron(enter.schedule.cron, zone, after_ms)
    return None


def sweep_of(journey: str, at_ms: int) -> Sweep:
    """What asks everybody: the same for the same moment, so that nobody is asked twice."""
    return Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=f"{journey}@{to_iso(at_ms)}", journey=journey)
