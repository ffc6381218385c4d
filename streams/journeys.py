"""Journeys in topic `journeys`: their versions, and what marketers want of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import msgspec

from config.journeys import (
    FOLDER,
    MOST_JOURNEYS,
    JourneyRead,
    check_journeys_together,
    mail_of,
    parse_journey,
    read_texts,
    templates_of,
)
from config.settings import Settings
from schemas.errors import ConfigError, TidewireError
from schemas.journeys import Mail, SavedJourney, Status, Steering, decode_of_journeys, encode_of_journeys
from sinks.messages.rendering import Template
from streams.log import Log
from streams.templates import Templates
from streams.texts import Texts

STEERING = "steering"
LARGEST_TOGETHER_BYTES = 2 * 1024 * 1024  # every partition is told all of them, and older versions, in one record

Segments = Callable[[], Awaitable[Collection[str]]]


class Journeys(Texts[SavedJourney, JourneyRead]):
    """Journeys, and how they are steered.

    Args:
        templates: by which they send.
        segments: names those that there are.
    """

    topic, noun, folder = "journeys", "journey", FOLDER
    most, largest_together_bytes = MOST_JOURNEYS, LARGEST_TOGETHER_BYTES
    form = SavedJourney

    def __init__(self, log_: Log, settings: Settings, templates: Templates, segments: Segments) -> None:
        super().__init__(log_, settings)
        self._templates, self._segments = templates, segments
        self._steering: dict[str, Steering] = {}

    def _decode(self, value: bytes) -> SavedJourney:
        saved = decode_of_journeys(value)
        assert isinstance(saved, SavedJourney), "steering stands under keys of its own"
        return saved

    def _encode(self, saved: SavedJourney) -> bytes:
        return encode_of_journeys(saved)

    def _files(self) -> Mapping[str, str]:
        return read_texts(self._config)

    def check(self, name: str, text: str, file: str = "") -> JourneyRead:
        return parse_journey(name, text, self._config, self._zone, file)

    async def _check_beside(self, new: Mapping[str, JourneyRead]) -> None:
        if new:
            await self._templates.look()
            names = {name for read in new.values() for _, name in templates_of(read.said)}
            if self.mails(names).keys() != names:  # what is said then names one that is alike
                names.update(self._templates.newest)
            check_journeys_together(new, await self._segments(), self.mails(names))

    async def lacks(self, name: str) -> str:
        """What is missing of what a journey asks for, or what is wrong with it; empty: nothing."""
        read = self.read(name)
        try:
            if isinstance(read, JourneyRead):
                await self._check_beside({name: read})
        except ConfigError as missing:
            return str(missing)
        return str(read) if isinstance(read, ConfigError) else ""

    def mails(self, names: Iterable[str]) -> dict[str, Mail]:
        """What orders must say of those of these templates that there are."""
        reads = {name: self._templates.read(name) for name in names}
        return {name: mail_of(read) for name, read in reads.items() if isinstance(read, Template)}

    def _take(self, partition: int, offset: int, key: bytes, value: bytes | None) -> None:
        name, _, rest = key.decode().partition("/")
        if rest != STEERING:
            super()._take(partition, offset, key, value)
        elif value is not None:
            steering = decode_of_journeys(value)
            if isinstance(steering, Steering):
                self._steering[name] = steering

    # --- steering

    def steering(self, name: str) -> Steering:
        """What is wanted of a journey, as of the last look."""
        return self._steering.get(name) or Steering(name=name)

    async def steer(self, name: str, status: Status, *, by: str, now_ms: int) -> Steering:
        """Let it be live, pause it, drain it or stop it.

        Raises:
            TidewireError: there is no such journey.
        """
        await self._there(name)
        return await self._steer(msgspec.structs.replace(self.steering(name), status=status, by=by, at_ms=now_ms))

    async def migrate(self, name: str, to: int | None, *, by: str, now_ms: int) -> Steering:
        """Let those who are inside by another version move to this one; None: to the newest.

        Raises:
            TidewireError: there is no such journey, or no such version of it.
        """
        newest = await self._there(name)
        version = to if to is not None else newest.version
        saved = await self.version(name, version)
        if saved is None or saved.is_gone:
            raise TidewireError(f'Journey "{name}" has no version {version}. `tidewire journeys versions {name}` shows '
                                "those it has.")  # fmt: skip
        if isinstance(wrong := self.compile(saved), ConfigError):
            raise wrong
        return await self._steer(msgspec.structs.replace(self.steering(name), migrate_to=version, by=by, at_ms=now_ms))

    async def remove(self, name: str, *, by: str, now_ms: int) -> None:
        await super().remove(name, by=by, now_ms=now_ms)
        if name in self._steering:  # one of that name that comes later is live
            await self._steer(Steering(name=name, by=by, at_ms=now_ms))

    async def _there(self, name: str) -> SavedJourney:
        await self.look()
        newest = self.saved(name)
        if newest is None:
            raise self.missing(name)
        return newest

    async def _steer(self, steering: Steering) -> Steering:
        await self._append_of([(steering.name, STEERING, encode_of_journeys(steering))])
        await self.look()
        return steering
