"""When everybody is asked to enter a journey: each day where a date makes people enter, else by its schedule."""

from __future__ import annotations

from processors.moments import next_of_cron
from schemas.internal import Sweep
from schemas.journeys import Enter
from schemas.times import to_iso
from streams.segments import RULES_KEY


def cron_of(enter: Enter) -> str:
    """The moments at which people are asked, as a cron line; empty: no clock asks them."""
    if enter.schedule is not None:
        return enter.schedule.cron
    if enter.date is not None:
        hour, _, minute = enter.date.at.partition(":")
        return f"{int(minute)} {int(hour)} * * *"
    return ""


def next_sweep(enter: Enter, after_ms: int, zone: str) -> int | None:
    """The first moment after `after_ms` at which everybody is asked; None: never.

    Args:
        zone: the time zone of the workspace.
    """
    cron = cron_of(enter)
    return next_of_cron(cron, zone, after_ms) if cron else None


def sweep_id(journey: str, at_ms: int) -> str:
    """By which everybody is asked at a moment: whoever asks a second time asks nobody anew."""
    return f"{journey}@{to_iso(at_ms)}"


def sweep_of(journey: str, at_ms: int) -> Sweep:
    """What asks everybody."""
    return Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=sweep_id(journey, at_ms), journey=journey)
