"""A backup: everything that cannot be made again, in one folder that proves itself whole.

    manifest.json      what this is, written last, with the checksum of every file
    log.db             the embedded log at one moment: events, changelog, portraits, ledger, dead letters, offsets
    clickhouse/        each table in format Native, packed by lz4; views are kept as their statements
    config/            the YAML files, and the pools of coupons
    write_key          the data folder's own write key
    link_keys          the keys that links of messages are signed with, where the data folder holds them
    inbox_keys         those that tokens of the inbox are signed with, likewise

ClickHouse must be copied, because it keeps events for longer than the log does. The states of people in RocksDB are
left out: the log's topic `customers` makes them again.

**The order is what makes it exact.** First the sink's offsets are read, then ClickHouse is copied, then the log. So
ClickHouse holds nothing that the log does not, and everything before those offsets; in the copy of the log the sink
goes on from them, and what it stores a second time is read once. Nobody has to stand still meanwhile.

On Kafka the topics are not copied: their replicas, or a mirror, are their backup. See docs/operating.md.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import lz4.frame
import msgspec
import structlog

from config.coupons import FOLDER as COUPONS
from config.inbox_keys import FILE_NAME as INBOX_KEYS
from config.link_keys import FILE_NAME as LINK_KEYS
from config.settings import Settings
from schemas.errors import ConfigError, TidewireError, Unreachable
from sinks.clickhouse import GROUP as SINK_GROUP
from streams.access import KEY_FILE
from streams.embedded import EmbeddedLog
from streams.lag import GROUPS
from streams.log import TP, Log

if TYPE_CHECKING:
    from sinks.analytics import Analytics

log = structlog.get_logger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"
LOG_FILE = "log.db"
KEYS = (KEY_FILE, LINK_KEYS, INBOX_KEYS)  # files of the data folder
UNFINISHED = ".unfinished"  # what the folder is called until it is whole
READ_BYTES = 1024 * 1024
SPARE_BYTES = 64 * 1024 * 1024  # that must stay free on the disk

class BackupFile(msgspec.Struct, frozen=True):
    """A file of a backup, by its path in the folder."""

    path: str
    size_bytes: int
    sha256: str


class BackupTable(msgspec.Struct, frozen=True):
    """A table or view of ClickHouse: the statement that makes it, and the file with its rows; a view has none."""

    name: str
    create: str
    file: str = ""


class BackupTopic(msgspec.Struct, frozen=True):
    """A topic of the log: `id` is another where it was made anew; `bounds` as those of `Log.bounds`."""

    name: str
    id: str
    partitions: int
    retention_ms: int | None
    bounds: dict[int, tuple[int, int]]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds.

    Attributes:
        format: of the folder; a newer one is for a newer Tidewire.
        ground: where the log was: `embedded` (it is in the backup) or `kafka` (it is not).
        made_at: everything answered before is in it.
        topics: as they were when it began.
        offsets: by group, topic and partition: where each goes on, as the copy of ClickHouse needs it.
        left_out: tables that are no part of the backup, as their engine keeps nothing that could be copied.
        checksum: of all the rest of the manifest.
    """

    format: int
    tidewire: str
    clickhouse: str
    database: str
    ground: str
    made_at: datetime
    topics: list[BackupTopic]
    offsets: dict[str, dict[str, dict[int, int]]]
    tables: list[BackupTable]
    files: list[BackupFile]
    left_out: list[str]
    checksum: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def summed(self) -> str:
        """What `checksum` must be."""
        bare = msgspec.structs.replace(self, checksum="")
        return sha256(msgspec.json.encode(bare)).hexdigest()


def summary(manifest: Manifest) -> dict[str, Any]:
    """The few facts of a backup that a person or a program asks for."""
    return {
        "made_at": manifest.made_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "tidewire": manifest.tidewire, "ground": manifest.ground, "tables": len(manifest.tables),
        "files": len(manifest.files), "size_bytes": manifest.size_bytes, "left_out": manifest.left_out,
    }  # fmt: skip


async def take_backup(log_: Log, analytics: Analytics, settings: Settings, to: Path) -> Manifest:
    """Make the backup `to`, a folder (its absolute path) that is not there yet or is empty. All else goes on meanwhile.

    Until it is whole the folder has another name, so one that was broken off is never taken for a backup.

    Raises:
        TidewireError: it cannot be made, with the mend; nothing is left of it.
    """
    _check_place(to, settings)
    made_at = datetime.now(UTC)
    offsets = {group: await _committed(log_, group, topics) for group, topics in GROUPS.items()}
    with _unfinished(to) as folder:
        check_space(folder, await _size(log_, analytics), "backup")
        files: list[BackupFile] = []
        topics = await _topics(log_)
        tables, left_out = await _copy_clickhouse(analytics, folder, files)
        if isinstance(log_, EmbeddedLog):
            sink = {TP(topic, partition): after for topic, of_topic in offsets[SINK_GROUP].items()
                    for partition, after in of_topic.items()}  # fmt: skip
            made_at = datetime.now(UTC)
            await log_.copy_to(folder / LOG_FILE, {SINK_GROUP: sink})
            files.append(await asyncio.to_thread(_summed, folder, LOG_FILE))
        files += await asyncio.to_thread(_copy_files, settings, folder)
        manifest = Manifest(
            format=FORMAT, tidewire=metadata.version("tidewire"), clickhouse=await version_of(analytics),
            database=analytics.place.database, ground="embedded" if isinstance(log_, EmbeddedLog) else "kafka",
            made_at=made_at, topics=topics,
            offsets=offsets, tables=tables, files=files, left_out=left_out,
        )  # fmt: skip
        manifest = msgspec.structs.replace(manifest, checksum=manifest.summed())
        await asyncio.to_thread(_write, folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    log.info("backup_made", folder=str(to), size_bytes=manifest.size_bytes, tables=len(tables), left_out=left_out)
    return manifest


async def version_of(analytics: Analytics) -> str:
    return str((await analytics.query("SELECT version() AS version"))[0]["version"])


# --- where it is put


def _check_place(to: Path, settings: Settings) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError("backup", f"{to} is there already.", "Name a folder that is not there, one for each backup.")
    if to.is_relative_to(settings.data.absolute()):
        raise ConfigError("backup", f"{to} lies in the data folder, and would be lost with it.",
                          "Name a folder elsewhere, best on another disk.")  # fmt: skip


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        TidewireError: with the numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise TidewireError(
            f"the disk of {folder.parent} has {free / 1024**2:,.0f} MB free, and the {what} may need "
            f"{(needed + SPARE_BYTES) / 1024**2:,.0f} MB. Make room, or name a folder on another disk."
        )


@contextmanager
def _unfinished(to: Path) -> Iterator[Path]:
    """The folder while it is made: renamed to what it is to be at the end, removed where anything went wrong."""
    folder = to.with_name(to.name + UNFINISHED)
    lock: IO[str] | None = None
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        lock = (to.parent / f"{to.name}.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for entry in folder.iterdir():  # left by one that was killed
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    except BlockingIOError:
        raise Unreachable(f"another process is making {to}. Wait for it, or name another folder.") from None
    except OSError as error:
        raise TidewireError(f"{to.parent} cannot be written: {error.strerror}. Name another folder.") from None
    try:
        yield folder
        for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            _sync_folder(inner)
        if to.exists():
            to.rmdir()
        folder.rename(to)
        _sync_folder(to.parent)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise TidewireError(f"the backup {to} cannot be written: {error.strerror or error}.") from error
        raise
    finally:
        Path(lock.name).unlink(missing_ok=True)
        lock.close()


# --- what is copied


async def _committed(log_: Log, group: str, topics: tuple[str, ...]) -> dict[str, dict[int, int]]:
    return {topic: await log_.committed(group, topic) for topic in topics}


async def _topics(log_: Log) -> list[BackupTopic]:
    found = []
    for name, state in sorted((await log_.topics()).items()):
        found.append(BackupTopic(name, state.id, state.partitions, state.retention_ms, await log_.bounds(name)))
    return found


async def _size(log_: Log, analytics: Analytics) -> int:
    sql = "SELECT sum(bytes_on_disk) AS bytes FROM system.parts WHERE active AND database = currentDatabase()"
    size = int((await analytics.query(sql))[0]["bytes"])
    return size + (log_.path.stat().st_size if isinstance(log_, EmbeddedLog) else 0)


_TABLES = """
SELECT name, engine, create_table_query FROM system.tables
WHERE database = currentDatabase() AND NOT is_temporary AND NOT startsWith(name, '.') ORDER BY name
"""


async def _copy_clickhouse(
    analytics: Analytics, folder: Path, files: list[BackupFile]
) -> tuple[list[BackupTable], list[str]]:
    tables: list[BackupTable] = []
    left_out: list[str] = []
    (folder / "clickhouse").mkdir()
    for row in await analytics.query(_TABLES):
        name, create = row["name"], row["create_table_query"]
        if row["engine"] == "View":
            tables.append(BackupTable(name, create))
        elif row["engine"].endswith("MergeTree"):
            file = f"clickhouse/{len(tables):03d}-{re.sub('[^A-Za-z0-9_-]', '', name)}.lz4"
            files.append(await _dump(analytics, name, folder, file))
            tables.append(BackupTable(name, create, file))
        else:
            left_out.append(name)
    return tables, left_out


async def _dump(analytics: Analytics, table: str, folder: Path, name: str) -> BackupFile:
    with _Packed(folder / name) as packed:
        dumping = asyncio.ensure_future(analytics.dump(table, packed.write))
        try:
            await asyncio.shield(dumping)
        except asyncio.CancelledError:
            packed.is_stopped = True  # a thread cannot be cancelled: its next block ends it
            await asyncio.gather(dumping, return_exceptions=True)
            raise
    return BackupFile(name, packed.size_bytes, packed.sha256)


class _Packed:
    """A file that is packed, counted and summed as it is written."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sum = sha256()
        self._packer = lz4.frame.LZ4FrameCompressor(content_checksum=True)
        self.size_bytes = 0
        self.is_stopped = False

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def __enter__(self) -> _Packed:
        self._out = self._file.open("xb")
        self._put(self._packer.begin())
        return self

    def write(self, block: bytes) -> None:
        """Raises TidewireError, never OSError: that would be taken for ClickHouse's."""
        if self.is_stopped:
            raise TidewireError("the backup was stopped.")
        self._put(self._packer.compress(block))

    def _put(self, data: bytes) -> None:
        try:
            self._out.write(data)
        except OSError as error:
            raise _not_written(self._file, error) from error
        self._sum.update(data)
        self.size_bytes += len(data)

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._put(self._packer.flush())
                self._out.flush()
                os.fsync(self._out.fileno())
        except OSError as error:
            raise _not_written(self._file, error) from error
        finally:
            self._out.close()


def _not_written(file: Path, error: OSError) -> TidewireError:
    return TidewireError(f"{file} cannot be written: {error.strerror or error}.")


def _copy_files(settings: Settings, folder: Path) -> list[BackupFile]:
    """The YAML files of the config folder, with the pools of coupons, and the keys of the data folder."""
    config = settings.config
    files = sorted({*config.rglob("*.y*ml"), *(config / COUPONS).glob("*")})
    found = [_copied(file, folder, f"config/{file.relative_to(config)}") for file in files if file.is_file()]
    return found + [_copied(settings.data / key, folder, key) for key in KEYS if (settings.data / key).is_file()]


def _copied(file: Path, folder: Path, name: str) -> BackupFile:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / name)
    (folder / name).chmod(0o600)
    return _summed(folder, name)


# --- files


def _summed(folder: Path, name: str) -> BackupFile:
    """The file as it is on the disk now; it is on the disk when this returns."""
    with (folder / name).open("rb") as file:
        os.fsync(file.fileno())
        return BackupFile(name, (folder / name).stat().st_size, sum_of(file))


def sum_of(file: IO[bytes], read: Callable[[bytes], object] = lambda block: None) -> str:
    """The checksum of what is left of an open file; `read` is given each block on the way."""
    found = sha256()
    while block := file.read(READ_BYTES):
        found.update(block)
        read(block)
    return found.hexdigest()


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- looking at one


def read_backup(folder: Path) -> Manifest:
    """The manifest of a backup, once every file was read and found as it was written.

    Raises:
        TidewireError: it is none, is damaged, or was made by a newer Tidewire.
    """
    manifest = read_manifest(folder)
    for file in manifest.files:
        path = folder / file.path
        try:
            with path.open("rb") as content:
                size, found = path.stat().st_size, sum_of(content)
        except FileNotFoundError:
            raise _damaged(folder, f"{file.path} is missing") from None
        except OSError as error:
            raise _damaged(folder, f"{file.path} cannot be read: {error.strerror}") from None
        if size != file.size_bytes:
            raise _damaged(folder, f"{file.path} has {size:,} bytes instead of {file.size_bytes:,}")
        if found != file.sha256:
            raise _damaged(folder, f"{file.path} is not what was written")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, checked against itself; raises as `read_backup`."""
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError:
        mend = "Name the folder that `tidewire backup` made."
        if folder.name.endswith(UNFINISHED):
            mend = "It was broken off: take another backup."
        raise TidewireError(f"{folder} is no backup: it has no {MANIFEST}. {mend}") from None
    try:
        plain: Any = msgspec.json.decode(content)
        if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
            raise TidewireError(
                f"{folder} was made by Tidewire {plain.get('tidewire')}, in a format this version does not know. "
                "Restore it with that version or a newer one."
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read: {error}") from None
    if manifest.checksum != manifest.summed():
        raise _damaged(folder, f"{MANIFEST} is not what was written")
    if any(Path(file.path).is_absolute() or ".." in Path(file.path).parts for file in manifest.files):
        raise _damaged(folder, f"{MANIFEST} names a file outside")
    return manifest


def _damaged(folder: Path, what: str) -> TidewireError:
    return TidewireError(f"the backup {folder} is damaged: {what}. Nothing was restored; use another one.")
