"""Journeys that a clock or somebody lets people enter: at each moment that is due, everybody is asked once.

A journey with a date asks every day at its time of day, for whose day it is, one with a schedule when its cron line
says. What everybody is asked by is a `Sweep` whose name is made of the moment: whoever asks a second time, after a
crash or from a second machine, asks nobody anew. Which moment was the last stands in topic `definitions`. What was
missed while nobody ran is made up for: the newest moment of it, unless it is a day ago.

Somebody's word, a `Broadcast` in topic `journeys`, goes the same way as soon as the journey is in force.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from processors.moments import next_of_cron
from schemas.errors import TidewireError
from schemas.internal import HEADERS, Sweep, encode_internal
from schemas.journeys import Broadcast, JourneyFile, LedJourney
from schemas.segments import Fired, encode_said
from schemas.times import DAY_MS
from streams.definitions import TOPIC, Coordinator
from streams.journeys import Journeys
from streams.lines import EVENTS
from streams.log import Log, Outgoing
from streams.segments import RULES_KEY
from streams.sweeps import cron_of, sweep_id

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5
AGAIN_AFTER_S = 5.0
FIRED = "fired"
LONGEST_MISSED_MS = DAY_MS


def due(cron: str, zone: str, since_ms: int, now_ms: int) -> tuple[int, int]:
    """The newest moment after `since_ms` that is due, not more than a day ago, or 0; and the next after now.

    >>> from schemas.times import HOUR_MS
    >>> due("0 9 * * *", "UTC", 0, 3 * DAY_MS + 9 * HOUR_MS) == (3 * DAY_MS + 9 * HOUR_MS, 4 * DAY_MS + 9 * HOUR_MS)
    True
    """
    newest, at_ms = 0, next_of_cron(cron, zone, max(since_ms, now_ms - LONGEST_MISSED_MS))
    while at_ms <= now_ms:
        newest, at_ms = at_ms, next_of_cron(cron, zone, at_ms)
    return newest, at_ms


async def ask_everybody(log_: Log, journey: str, sweep: str) -> None:
    """Ask everybody to enter a journey, each once by this sweep."""
    value = encode_internal(Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=sweep, journey=journey))
    partitions = range(log_.partitions(EVENTS))
    await log_.append(EVENTS, [Outgoing(RULES_KEY.encode(), value, partition, HEADERS) for partition in partitions])


class Schedules:
    """Asks everybody when a moment is due, or somebody says so.

    Args:
        coordinator: says which journeys are in force, and what they are.
        journeys: those that the coordinator reads on in.
        now_ms: a clock.
    """

    def __init__(self, log_: Log, coordinator: Coordinator, journeys: Journeys, zone: str,
                 now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:  # fmt: skip
        self._log = log_
        self._coordinator = coordinator
        self._journeys = journeys
        self._zone = zone
        self._now_ms = now_ms
        self._next: dict[str, tuple[str, int]] = {}  # of each journey, with its entry, the next moment

    async def run(self) -> None:
        while True:
            try:
                await self.fire()
                await asyncio.sleep(LOOK_EVERY_S)
            except TidewireError as error:
                log.warning("schedules_wait", error=str(error))
                await asyncio.sleep(AGAIN_AFTER_S)

    async def fire(self) -> None:
        """Ask everybody into what is due now."""
        for journey in self._coordinator.in_force.journeys:
            if journey.is_newest and (cron := cron_of(JourneyFile.model_validate(journey.said).enter)):
                await self._fire(journey, cron, self._now_ms())
        for asked in self._journeys.broadcasts:
            await self._broadcast(asked)

    async def _broadcast(self, asked: Broadcast) -> None:
        in_force = {each.name: each for each in self._coordinator.in_force.journeys if each.is_newest}
        saved, journey = self._journeys.saved(asked.name), in_force.get(asked.name)
        if saved is not None and (journey is None or journey.version != saved.version):
            return  # it is being prepared
        if journey is not None and journey.status == "live":
            await ask_everybody(self._log, asked.name, asked.sweep)
            log.info("journey_broadcast", journey=asked.name, sweep=asked.sweep, by=asked.by)
        else:  # it was steered, or taken out, since
            log.warning("journey_not_broadcast", journey=asked.name, sweep=asked.sweep, by=asked.by)
        await self._journeys.was_asked(asked)

    async def _fire(self, journey: LedJourney, cron: str, now_ms: int) -> None:
        name, entry = journey.name, f"{cron} {self._zone}"
        known, next_ms = self._next.get(name, ("", 0))
        if known == entry and now_ms < next_ms:
            return
        fired = self._coordinator.known.fired.get(name)
        if fired is None or fired.entry != entry:  # what was due before it was asked for is nobody's
            fired = await self._note(Fired(journey=name, entry=entry, at_ms=now_ms))
        at_ms, next_ms = due(cron, self._zone, fired.at_ms, now_ms)
        if at_ms:
            sweep = sweep_id(name, at_ms) if journey.status == "live" else ""
            if sweep:
                await ask_everybody(self._log, name, sweep)
                log.info("journey_due", journey=name, sweep=sweep)
            await self._note(Fired(journey=name, entry=entry, at_ms=at_ms, sweep=sweep))
        self._next[name] = entry, next_ms

    async def _note(self, fired: Fired) -> Fired:
        await self._log.append(TOPIC, [Outgoing(f"{fired.journey}/{FIRED}".encode(), encode_said(fired))])
        self._coordinator.known.fired[fired.journey] = fired
        return fired
