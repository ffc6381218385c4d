"""What pages and commands ask of segments, and do to them: one door for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from config.segments import check_attributes, check_together, known_attributes, parse_segment, read_segments
from config.settings import Settings
from processors.values import zone_named
from schemas.errors import TidewireError
from schemas.segments import Definition, Said
from schemas.times import to_ms
from sinks.conditions import Query, listed_sql, people_sql, preview_sql
from sinks.explain import Reason, explain
from streams.definitions import Known, Progress, remove, save, take_over
from streams.log import Log
from streams.proof import Proof, Prover

if TYPE_CHECKING:
    from sinks.analytics import Analytics

SAMPLE = 20
LONGEST_PREPARED_S = 60.0  # a comparison waits so long for what is being prepared
LOOK_EVERY_S = 0.5


class Preview(NamedTuple):
    """Who would be in a segment now."""

    people: int
    sample: list[dict[str, Any]]
    seconds: float


class Segments:
    """Segments as those who run the shop see them. `progress` says what is being prepared, where this process does."""

    def __init__(self, log: Log, analytics: Analytics, settings: Settings, now: Callable[[], datetime],
                 progress: Callable[[], Progress]) -> None:  # fmt: skip
        self._log = log
        self._analytics = analytics
        self._settings = settings
        self._now = now
        self.progress = progress
        self._known = Known(log)
        self._looking = asyncio.Lock()
        self._prover = Prover(log, analytics, workspace=settings.workspace, zone=settings.timezone)

    @property
    def zone(self) -> str:
        return self._settings.timezone

    async def known(self) -> Known:
        """What topic `definitions` says now."""
        async with self._looking:
            await self._known.look()
        return self._known

    async def wanted(self, name: str) -> Said:
        """The newest version of a segment.

        Raises:
            TidewireError: there is none.
        """
        said = (await self.known()).wanted.get(name)
        if said is None or said.is_gone:
            raise TidewireError(f'There is no segment "{name}". `tidewire segments list` names them.')
        return said

    async def parse(self, name: str, text: str) -> tuple[Definition, Mapping[str, Definition]]:
        """A segment as it was written, and all others with it.

        Raises:
            ConfigError: with the line, what is wrong, and the mend.
        """
        definition = parse_segment(name, text)
        definitions = {**(await self.known()).definitions, name: definition}
        check_together(definitions, "segments")
        check_attributes(definition, known_attributes(self._settings.config), f"{name}.yaml")
        return definition, definitions

    async def preview(self, name: str, text: str) -> Preview:
        """How many would be in a segment that was not saved yet, and who, for example.

        Raises:
            ConfigError: see `parse`.
            ClickHouseError: it takes too long.
        """
        definition, definitions = await self.parse(name, text)
        began, people = time.monotonic(), self._people(definition, definitions)
        (found,) = await self._analytics.query(*preview_sql(people, most=SAMPLE))
        sample = await self._analytics.query(*listed_sql(found["sample"], workspace=self._settings.workspace))
        return Preview(found["people"], sample, time.monotonic() - began)

    def _people(self, definition: Definition, definitions: Mapping[str, Definition]) -> Query:
        return people_sql(definition.when, definitions, workspace=self._settings.workspace, now_ms=to_ms(self._now()),
                          zone=zone_named(self.zone))  # fmt: skip

    async def verify(self, name: str) -> Proof:
        """Compare a segment now, and write down what came of it; one that is being prepared is waited for.

        Raises:
            TidewireError: there is none, or it is still being prepared.
        """
        await self.wanted(name)
        until_s = time.monotonic() + LONGEST_PREPARED_S
        while name not in (definitions := await self._prover.look()):
            if time.monotonic() > until_s:
                step = self.progress().step or "waiting"
                raise TidewireError(f'Segment "{name}" is still being prepared ({step}). Ask again later.')
            await asyncio.sleep(LOOK_EVERY_S)
        return await self._prover.prove(definitions, name)

    async def why(self, name: str, keys: list[str], sections: Mapping[str, Any]) -> Reason:
        """Why the person with these keys is in a segment, or is not.

        Raises:
            TidewireError: there is no such segment.
        """
        await self.wanted(name)
        definitions = (await self.known()).definitions
        return await explain(self._analytics, definitions, name, keys=keys, sections=sections,
                             now_ms=to_ms(self._now()), zone=zone_named(self.zone))  # fmt: skip

    async def save(self, name: str, text: str, *, by: str, upon: int | None = None) -> Said:
        """Write a new version; the same as before is none.

        Args:
            upon: the version that was changed, 0 for none; None: whichever is the newest.

        Raises:
            ConfigError: see `parse`.
            TidewireError: somebody else wrote a version meanwhile.
        """
        definition, _ = await self.parse(name, text)
        return await save(self._log, definition, by=by, now_ms=to_ms(self._now()), upon=upon)

    async def remove(self, name: str, *, by: str) -> None:
        """Take a segment out.

        Raises:
            TidewireError: there is none, or another asks for it.
        """
        await remove(self._log, name, by=by, now_ms=to_ms(self._now()))

    async def apply_files(self, *, by: str) -> list[Said]:
        """Make new versions of what changed in the files. Returns them.

        Raises:
            ConfigError: a file is wrong; then nothing changes.
        """
        files = read_segments(self._settings.config)
        return await take_over(self._log, files, by=by, now_ms=to_ms(self._now()))
