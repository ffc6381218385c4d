"""When everybody is asked to enter a journey: each day where a date makes people enter, else by its schedule."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from processors.moments import next_clock
from schemas.internal import Sweep
from schemas.journeys import Enter
from schemas.times import MINUTE_MS, from_ms, to_iso, to_ms
from streams.segments import RULES_KEY

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


def next_sweep(enter: Enter, after_ms: int, zone: ZoneInfo) -> int | None:
    """The first moment after `after_ms` at which everybody is asked; None: never."""
    if enter.date is not None:
        return next_clock(after_ms + 1, enter.date.at, (), zone.key)
    if enter.schedule is not None:
        from cronsim import CronSim  # only who schedules needs it

        try:
            found: datetime = next(CronSim(enter.schedule.cron, from_ms(after_ms - after_ms % MINUTE_MS).astimezone(zone)))
        except StopIteration:
            return None
        return to_ms(found)
    return None


def sweep_of(journey: str, at_ms: int) -> Sweep:
    """What asks everybody: the same for the same moment, so that nobody is asked twice."""
    return Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=f"{journey}@{to_iso(at_ms)}", journey=journey)
