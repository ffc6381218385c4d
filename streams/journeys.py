"""Journeys in topic `journeys`: their versions, and what marketers want of each: that it stands still, that whoever is
inside moves to another version, that people are asked in now.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from uuid import uuid4

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
from schemas.journeys import Broadcast, Mail, SavedJourney, Status, Steering, decode_of_journeys, encode_of_journeys
from sinks.messages.rendering import Template
from streams.log import Log
from streams.templates import Templates
from streams.texts import Texts

STEERING = "steering"
BROADCAST = "broadcast"
LARGEST_TOGETHER_BYTES = 2 * 1024 * 1024  # every partition is told all of them, and older versions, in one record

_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")

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
        self._broadcasts: dict[bytes, Broadcast] = {}

    def _decode(self, value: bytes) -> SavedJourney:
        saved = decode_of_journeys(value)
        assert isinstance(saved, SavedJourney), "all else stands under keys of its own"
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
            self._check_among(new, await self._segments())

    def _check_among(self, new: Mapping[str, JourneyRead], segments: Collection[str]) -> None:
        """Whether the segments and templates that these ask for are there, as of the last look."""
        names = {name for read in new.values() for _, name in templates_of(read.said)}
        if self.mails(names).keys() != names:  # what is said then names one that is alike
            names.update(self._templates.newest)
        check_journeys_together(new, segments, self.mails(names))

    async def troubles(self) -> dict[str, str]:
        """What is wrong with journeys by now, or missing of what they ask for, by name; of most of them nothing."""
        await self._templates.look()
        segments, found = await self._segments(), {}
        for name in self._newest:
            read = self.read(name)
            try:
                if isinstance(read, JourneyRead):
                    self._check_among({name: read}, segments)
            except ConfigError as missing:
                read = missing
            if isinstance(read, ConfigError):
                found[name] = str(read)
        return found

    def mails(self, names: Iterable[str]) -> dict[str, Mail]:
        """What orders must say of those of these templates that there are."""
        reads = {name: self._templates.read(name) for name in names}
        return {name: mail_of(read) for name, read in reads.items() if isinstance(read, Template)}

    def _take(self, partition: int, offset: int, key: bytes, value: bytes | None) -> None:
        name, _, rest = key.decode().partition("/")
        if rest != STEERING and not rest.startswith(f"{BROADCAST}/"):
            super()._take(partition, offset, key, value)
            return
        said = decode_of_journeys(value) if value is not None else None
        if isinstance(said, Steering):
            self._steering[name] = said
        elif isinstance(said, Broadcast):
            self._broadcasts[key] = said
        else:
            self._broadcasts.pop(key, None)

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

    async def broadcast(self, name: str, *, by: str, now_ms: int, id_: str = "") -> Broadcast:
        """Let everybody enter who is in the segment of a journey, as soon as the journey is in force.

        Args:
            id_: the same again asks nobody twice; empty: one that nobody used yet.

        Raises:
            TidewireError: there is no such journey, people enter it in another way, or nobody may enter it now.
        """
        await self._there(name)
        read, status = self.read(name), self.steering(name).status
        if isinstance(read, ConfigError):
            raise read
        if read is None or read.said.enter.broadcast is None:
            kind = read.said.enter.kind if read is not None else "none"
            raise TidewireError(f'Nobody can be asked into journey "{name}": its enter is {kind}, not broadcast.')
        if status != "live":
            raise TidewireError(f'Journey "{name}" is {status}. Let it go on first: `tidewire journeys resume {name}`.')
        if id_ and not _ID.fullmatch(id_):
            raise TidewireError(f'"{id_:.100}" cannot be the id of a broadcast. Write letters, digits, _, - and ., '
                                "at most 100.")  # fmt: skip
        asked = Broadcast(name=name, id=id_ or uuid4().hex, by=by, at_ms=now_ms)
        await self._append_of([(name, f"{BROADCAST}/{asked.id}", encode_of_journeys(asked))])
        await self.look()
        return asked

    @property
    def broadcasts(self) -> list[Broadcast]:
        """Those that nobody was asked by yet, as of the last look, the oldest first."""
        return sorted(self._broadcasts.values(), key=lambda each: (each.at_ms, each.id))

    async def was_asked(self, broadcast: Broadcast) -> None:
        """Everybody was asked by it."""
        await self._append_of([(broadcast.name, f"{BROADCAST}/{broadcast.id}", None)])
        await self.look()

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
