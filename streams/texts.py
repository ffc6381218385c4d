"""Versioned texts in a topic: from a file or a page into the log, and from there to everybody who reads one.

All versions of a text stand in one partition, so the log itself says who of two was first: a version counts if there
is none of its number before it. Who comes second is told so, and nothing is written over.

In memory are the newest text of each name, and of older versions only who wrote them when, and where they stand.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import ClassVar, Generic, Literal, NamedTuple, TypeVar
from uuid import uuid4

import msgspec
import structlog

from config.settings import Settings
from schemas.errors import ConfigError, TidewireError
from schemas.journeys import SavedJourney
from schemas.templates import SavedTemplate
from streams.log import TP, Log, LogBusy, Outgoing, partition_of

log = structlog.get_logger(__name__)

Saved = TypeVar("Saved", SavedTemplate, SavedJourney)
Read = TypeVar("Read")

READ_AT_ONCE = 50
MOST_VERSIONS = 200  # of a text; older ones are forgotten
LOOK_AGAIN_S = 0.5  # where the log does not answer


class Place(NamedTuple):
    """A version without its text, and where that stands."""

    head: SavedTemplate | SavedJourney
    partition: int
    offset: int


class Overtaken(TidewireError):
    """Somebody else saved a version meanwhile.

    Attributes:
        newest: that version; None: there is none any more.
        upon: the version that was changed, 0 for none.
    """

    def __init__(self, noun: str, name: str, newest: SavedTemplate | SavedJourney | None, upon: int) -> None:
        self.newest, self.upon = newest, upon
        of_it = f'{noun.capitalize()} "{name}"'
        if newest is None:
            super().__init__(f"{of_it} was taken out meanwhile. Save it as a new one, upon version 0.")
        elif upon == 0:
            super().__init__(f'There is a {noun} "{name}" already, of version {newest.version}. Change that one, '
                             "or take another name.")  # fmt: skip
        else:
            super().__init__(f"{of_it} has version {newest.version} meanwhile, not {upon}. "
                             "Look at it, and change that one.")  # fmt: skip


class Texts(ABC, Generic[Saved, Read]):
    """What a topic says of texts of one kind, and the door by which all that is new comes into it.

    Attributes:
        topic: in which they stand.
        noun: what one of them is called, as in `tidewire NOUNs list`.
        folder: of the config folder, in which their files are.
        most, largest_together_bytes: of the newest of all, which everybody who reads them has in memory.
        form: what a version is in the topic.
        changes: grows with whatever was read.
    """

    topic: ClassVar[str]
    noun: ClassVar[str]
    folder: ClassVar[str]
    most: ClassVar[int]
    largest_together_bytes: ClassVar[int]
    form: type[Saved]

    def __init__(self, log_: Log, settings: Settings) -> None:
        self._log = log_
        self._config, self._zone = settings.config, settings.timezone
        self._next: dict[int, int] = {}
        self._looking = asyncio.Lock()
        self._newest: dict[str, Saved] = {}
        self._versions: dict[str, dict[int, Place]] = {}
        self._compiled: dict[str, tuple[str, Read | ConfigError]] = {}  # by name: of which id, and what it became
        self.changes = 0

    # --- what each kind says of itself

    @abstractmethod
    def _decode(self, value: bytes) -> Saved: ...

    @abstractmethod
    def _encode(self, saved: Saved) -> bytes: ...

    @abstractmethod
    def _files(self) -> Mapping[str, str]:
        """What the files of the config folder say, by name; not checked yet.

        Raises:
            ConfigError: a file cannot be read, or would not be.
        """

    @abstractmethod
    def check(self, name: str, text: str, file: str = "") -> Read:
        """A text that was not saved yet, compiled.

        Raises:
            ConfigError: what is wrong with it, with its line and the mend.
        """

    async def _check_beside(self, new: Mapping[str, Read]) -> None:
        """Whether what new texts ask for is there.

        Raises:
            ConfigError: it is not.
        """

    async def examine(self, name: str, text: str) -> Read:
        """As `check`, and whether what it asks for is there.

        Raises:
            ConfigError: what is wrong with it, with its line and the mend.
        """
        read = await asyncio.to_thread(self.check, name, text)
        await self._check_beside({name: read})
        return read

    # --- what there is

    async def look(self) -> None:
        """Read on, to where the topic ends now.

        Raises:
            LogBusy: the log does not answer; what was known before stays known.
        """
        async with self._looking:
            for partition, (first, end) in (await self._log.bounds(self.topic)).items():
                at = max(first, self._next.get(partition, first))
                while at < end:
                    records = await self._log.read(TP(self.topic, partition), at, READ_AT_ONCE)
                    for record in records:
                        self._take(partition, record.offset, record.key or b"", record.value)
                        self.changes += 1
                    at = records[-1].offset + 1 if records else end
                    self._next[partition] = at

    def _take(self, partition: int, offset: int, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._forget(key)
            return
        saved = self._decode(value)
        versions, newest = self._versions.setdefault(saved.name, {}), self._newest.get(saved.name)
        known = versions.get(saved.version)
        is_again = known is not None and known.head.id == saved.id  # the log may hold a record twice
        if newest is not None and saved.version <= newest.version and not is_again:
            return  # whoever saved it was too late
        versions[saved.version] = Place(msgspec.structs.replace(saved, text=""), partition, offset)
        if not is_again:
            self._newest[saved.name] = saved

    def _forget(self, key: bytes) -> None:
        name, version, id_ = key.decode().split("/")
        place = self._versions.get(name, {}).get(int(version))
        if place is not None and place.head.id == id_:
            del self._versions[name][int(version)]

    @property
    def newest(self) -> dict[str, Saved]:
        """The newest version of each, by name and in its order; also of those that were taken out."""
        return dict(sorted(self._newest.items()))

    def saved(self, name: str) -> Saved | None:
        """The newest version that there is."""
        saved = self._newest.get(name)
        return None if saved is None or saved.is_gone else saved

    def versions(self, name: str) -> list[Saved]:
        """All versions that are kept, the newest first, without their texts."""
        heads = (place.head for _, place in sorted(self._versions.get(name, {}).items(), reverse=True))
        return [head for head in heads if isinstance(head, self.form)]

    async def version(self, name: str, number: int) -> Saved | None:
        """One version with its text; None: there is none, or it was forgotten."""
        place = self._versions.get(name, {}).get(number)
        if place is None:
            return None
        for record in await self._log.read(TP(self.topic, place.partition), place.offset, 1):
            if record.offset == place.offset and record.value is not None:
                return self._decode(record.value)
        return None

    def read(self, name: str) -> Read | ConfigError | None:
        """The newest version, compiled, or what is wrong with it; None: there is none of that name."""
        saved = self.saved(name)
        if saved is None:
            return None
        compiled = self._compiled.get(name)
        if compiled is None or compiled[0] != saved.id:
            compiled = self._compiled[name] = saved.id, self.compile(saved)
        return compiled[1]

    def compile(self, saved: Saved) -> Read | ConfigError:
        """A version, compiled, or what is wrong with it: a processor that it asks may be gone since it was saved."""
        try:
            return self.check(saved.name, saved.text)
        except ConfigError as wrong:
            return wrong

    # --- what is new

    async def save(self, name: str, text: str, *, by: str, now_ms: int, upon: int | None = None) -> Saved:
        """Save a version that was written on a page or by a command; the same as before is no new version.

        Args:
            upon: the version that was changed, 0 for none; None: whichever is the newest.

        Raises:
            ConfigError: it is wrong, see `check`; or there is too much of it.
            Overtaken: somebody else saved a version meanwhile.
        """
        text = text.replace("\r\n", "\n")
        read = await asyncio.to_thread(self.check, name, text)
        await self.look()
        newest = self.saved(name)
        version = newest.version if newest is not None else 0
        if newest is not None and newest.text == text:  # also what was sent again because no answer came
            return newest
        if upon is not None and upon != version:
            raise Overtaken(self.noun, name, newest, upon)
        await self._check_beside({name: read})
        before = self._newest.get(name)
        from_file = before.from_file if before is not None else ""
        saved = self._following(name, text, by=by, now_ms=now_ms, source="page", from_file=from_file)
        if not await self._write([saved]):
            raise Overtaken(self.noun, name, self.saved(name), version)
        return saved

    async def remove(self, name: str, *, by: str, now_ms: int) -> None:
        """Take one out: nothing happens by it any more. Its versions stay.

        Raises:
            TidewireError: there is none.
            Overtaken: somebody else saved a version meanwhile.
        """
        await self.look()
        newest = self.saved(name)
        if newest is None:
            raise self.missing(name)
        if not await self._write([self._gone(newest, by, now_ms)]):
            raise Overtaken(self.noun, name, self.saved(name), newest.version)

    def missing(self, name: str) -> TidewireError:
        """What is said to whom asks for one that there is not."""
        return TidewireError(f'There is no {self.noun} "{name}". `tidewire {self.noun}s list` names them.')

    async def apply_files(self, *, by: str, now_ms: int) -> list[Saved]:
        """Make new versions of what changed in the files since they were last taken over. Returns them.

        What was changed on the page stays until its file changes; what the page made stays without a file.

        Raises:
            ConfigError: a file is wrong; then nothing changes.
        """
        return await self._write(await self.changed_files(by=by, now_ms=now_ms))

    async def changed_files(self, *, by: str, now_ms: int) -> list[Saved]:
        """The versions that `apply_files` would make; raises as it does."""
        texts, reads = await asyncio.to_thread(self._checked_files)
        await self.look()
        changed = []
        for name, text in texts.items():
            before, digest = self._newest.get(name), blake2b(text.encode(), digest_size=8).hexdigest()
            if before is None or before.from_file != digest:
                changed.append(self._following(name, text, by=by, now_ms=now_ms, source="file", from_file=digest))
        await self._check_beside({saved.name: reads[saved.name] for saved in changed})
        for name, saved in self.newest.items():
            if name not in texts and saved.from_file and not saved.is_gone:
                changed.append(self._gone(saved, by, now_ms))
        return changed

    def _checked_files(self) -> tuple[Mapping[str, str], Mapping[str, Read]]:
        texts = self._files()
        folder = self._config / self.folder
        return texts, {name: self.check(name, text, str(folder / f"{name}.yaml")) for name, text in texts.items()}

    def _following(
        self, name: str, text: str, *, by: str, now_ms: int, source: Literal["file", "page"], from_file: str
    ) -> Saved:
        before = self._newest.get(name)
        return self.form(name=name, version=before.version + 1 if before is not None else 1, id=uuid4().hex,
                         text=text, by=by, at_ms=now_ms, source=source, from_file=from_file)  # fmt: skip

    def _gone(self, saved: Saved, by: str, now_ms: int) -> Saved:
        return msgspec.structs.replace(saved, version=saved.version + 1, id=uuid4().hex, text="", by=by, at_ms=now_ms,
                                       from_file="", is_gone=True)  # fmt: skip

    async def _write(self, new: Sequence[Saved]) -> list[Saved]:
        """Write new versions. Returns those that count; of the others somebody else's came first."""
        if not new:
            return []
        self._check_all(new)
        await self._append((saved, self._encode(saved)) for saved in new)
        await self.look()
        counted = [saved for saved in new if self._versions[saved.name][saved.version].head.id == saved.id]
        forgotten = [saved for saved in new if saved not in counted]
        for saved in counted:
            forgotten += self.versions(saved.name)[MOST_VERSIONS:]
        await self._append((saved, None) for saved in forgotten)
        return counted

    async def _append(self, records: Iterable[tuple[Saved, bytes | None]]) -> None:
        await self._append_of((saved.name, f"{saved.version}/{saved.id}", value) for saved, value in records)

    async def _append_of(self, records: Iterable[tuple[str, str, bytes | None]]) -> None:
        """Write records under `NAME/…`, all of a name into one partition."""
        partitions = self._log.partitions(self.topic)
        outgoing = [Outgoing(f"{name}/{rest}".encode(), value, partition_of(name.encode(), partitions))
                    for name, rest, value in records]  # fmt: skip
        if outgoing:
            await self._log.append(self.topic, outgoing)

    def _check_all(self, new: Iterable[Saved]) -> None:
        """Whether all of them are few and small enough to be in memory.

        Raises:
            ConfigError: they are not.
        """
        kept = {**self._newest, **{saved.name: saved for saved in new}}
        sizes = [len(saved.text.encode()) for saved in kept.values() if not saved.is_gone]
        if len(sizes) > self.most:
            raise ConfigError(self.folder, f"there would be {len(sizes)} {self.noun}s; at most {self.most}.",
                              "Take some out.")  # fmt: skip
        if sum(sizes) > self.largest_together_bytes:
            raise ConfigError(self.folder, f"all together would have {sum(sizes):,} bytes; at most "
                                           f"{self.largest_together_bytes:,}.", "Take some out.")  # fmt: skip


async def look_surely(texts: Texts[Saved, Read]) -> None:
    """Read on, again and again while the log is busy or away."""
    while True:
        try:
            await texts.look()
            return
        except LogBusy as error:
            log.warning("log_not_answering", topic=texts.topic, error=str(error), again_in_s=LOOK_AGAIN_S)
            await asyncio.sleep(LOOK_AGAIN_S)
