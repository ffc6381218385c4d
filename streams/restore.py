"""Putting a backup back, where nothing is yet: see streams/backup.py.

With the embedded log a mark stands beside it from the first step to the last. While it stands nothing starts there, and
the same `tidewire restore` begins anew; so after `kill -9` there is either the whole of it or a folder that says so.

On Kafka the topics must be those the backup was taken with. ClickHouse is filled, and the sink's group put back to
where that ClickHouse was: the sink then stores what came since.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from config.settings import Settings
from schemas.errors import ConfigError, TidewireError, Unreachable
from sinks.clickhouse import GROUP as SINK_GROUP
from streams.access import RUN_FILE, find_running
from streams.backup import KEYS, LOG_FILE, BackupTable, Manifest, check_space, read_backup, sum_of, version_of
from streams.grounds import embedded_file, open_log, restoring_mark
from streams.log import TP, Log

if TYPE_CHECKING:
    from sinks.analytics import Analytics

NOT_OURS = ("lost+found",)  # what a new file system holds


class Restored(NamedTuple):
    """What was put back.

    Attributes:
        kept: files of the config folder that were there, are others, and stay as they are.
        gaps: records that the sink needs to go on and the log no longer holds.
    """

    manifest: Manifest
    kept: list[str]
    gaps: list[str]


async def restore(folder: Path, settings: Settings, *, with_gaps: bool = False) -> Restored:
    """Put the backup in `folder` back into the log, the ClickHouse and the folders of the settings.

    Args:
        with_gaps: also where the log has forgotten records that the sink had not stored when the backup was taken.

    Raises:
        TidewireError: the backup is damaged or for another version, or there is something already where it would go.
    """
    manifest = read_backup(folder)
    _check_ground(manifest, settings)
    if not settings.is_embedded:
        _check_chdb(settings)
        gaps = await _beside_kafka(manifest, folder, settings, with_gaps)
        return Restored(manifest, _put_files_back(folder, manifest, settings), gaps)
    _make_room(settings)
    _check_chdb(settings)
    _mark(settings, folder, manifest)
    try:
        await _fill(manifest, folder, settings)
        kept = _put_files_back(folder, manifest, settings)
        _copy(folder / LOG_FILE, embedded_file(settings), 0o600)
    except BaseException:
        _clear(settings)
        raise
    restoring_mark(settings).unlink()
    _sync(embedded_file(settings).parent)
    return Restored(manifest, kept, [])


# --- is there room for it


def _check_ground(manifest: Manifest, settings: Settings) -> None:
    ground = "embedded" if settings.is_embedded else "kafka"
    if manifest.ground != ground:
        mend = ("Name the Kafka with --log." if ground == "embedded"
                else "Leave --log out, so that the log is in the data folder.")  # fmt: skip
        raise ConfigError("restore", f"the backup belongs to a log of kind {manifest.ground}.", mend)


def _make_room(settings: Settings) -> None:
    """Refuse a folder that holds anything; what a restore that was broken off left is removed."""
    data, mark, file = settings.data, restoring_mark(settings), embedded_file(settings)
    if mark.exists():
        _clear(settings)
        return
    running = find_running(data)
    if running is not None:
        raise Unreachable(f"process {running.pid} runs in {data}. Stop it, and name an empty folder with --data.")
    there = [entry.name for entry in data.iterdir() if entry.name not in NOT_OURS] if data.exists() else []
    if there or file.exists():
        name = file if file.exists() else data / there[0]
        raise ConfigError("restore", f"{name} is there already.",
                          "Name an empty folder with --data, or move away what is there.")  # fmt: skip


def _check_chdb(settings: Settings) -> None:
    folder = _chdb_folder(settings)
    if folder is not None and folder.exists():
        raise ConfigError("restore", f"{folder} is there already.", "Move it away, or name another with --analytics.")


def _chdb_folder(settings: Settings) -> Path | None:
    url = settings.analytics_url
    return Path(url.removeprefix("chdb:").removeprefix("//")) if url.startswith("chdb:") else None


def _mark(settings: Settings, folder: Path, manifest: Manifest) -> None:
    mark = restoring_mark(settings)
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        mark.parent.mkdir(parents=True, exist_ok=True)
        check_space(settings.data, manifest.size_bytes, "restore")
        mark.write_text(f"A restore of {folder.absolute()} goes on here, or was broken off.\n")
        _sync(mark.parent)
    except OSError as error:
        raise TidewireError(f"{mark.parent} cannot be written: {error.strerror}. Name another with --data.") from None


def _clear(settings: Settings) -> None:
    """Remove what a restore put here. It began where nothing was, so all of it is its own; the mark goes last."""
    file, chdb = embedded_file(settings), _chdb_folder(settings)
    for path in (file, *(settings.data / key for key in KEYS), settings.data / RUN_FILE):
        path.unlink(missing_ok=True)
    if chdb is not None and chdb.exists():
        shutil.rmtree(chdb)
        chdb.with_name(chdb.name + ".lock").unlink(missing_ok=True)
    restoring_mark(settings).unlink(missing_ok=True)


# --- ClickHouse


async def _fill(manifest: Manifest, folder: Path, settings: Settings) -> None:
    """Make the tables and views, and load their rows.

    Raises:
        TidewireError: ClickHouse is older than the backup's, or there is something in the database.
    """
    from sinks.analytics import Analytics

    analytics = Analytics(settings.analytics_url, settings.analytics_password)
    try:
        await analytics.start()
        await _check_server(analytics, manifest)
        for table in manifest.tables:
            if table.file:
                await analytics.command(table.create)
                await analytics.load(table.name, folder / table.file)
        await _make_views(analytics, [table for table in manifest.tables if not table.file])
    finally:
        await analytics.close()


async def _check_server(analytics: Analytics, manifest: Manifest) -> None:
    ours, theirs = await version_of(analytics), manifest.clickhouse
    if _major(ours) < _major(theirs):
        raise TidewireError(f"the backup was taken from ClickHouse {theirs}, and {analytics.place} is {ours}. "
                            "Use the version it came from, or a newer one.")  # fmt: skip
    if analytics.place.database != manifest.database:
        raise ConfigError("restore", f"the backup is of the database {manifest.database!r}, and --analytics names "
                          f"{analytics.place.database!r}.", "Name a database of the same name.")  # fmt: skip
    there = await analytics.command("SELECT name FROM system.tables WHERE database = currentDatabase() LIMIT 1")
    if there:
        raise ConfigError("restore", f"{analytics.place} has the table {there[0]['name']!r} already.",
                          "Restore into an empty database.")  # fmt: skip


async def _make_views(analytics: Analytics, views: list[BackupTable]) -> None:
    """A view may read another one, which must be there first; which does, only ClickHouse knows."""
    from sinks.analytics import ClickHouseError

    while views:
        left: list[BackupTable] = []
        for view in views:
            try:
                await analytics.command(view.create)
            except ClickHouseError as error:
                trouble = error
                left.append(view)
        if len(left) == len(views):
            raise TidewireError(f"the view {left[0].name!r} cannot be made: {trouble}") from trouble
        views = left


def _major(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


# --- Kafka


async def _beside_kafka(manifest: Manifest, folder: Path, settings: Settings, with_gaps: bool) -> list[str]:
    log_ = open_log(settings)
    await log_.start()
    try:
        wanted, gaps = await _sink_goes_on(log_, manifest)
        if gaps and not with_gaps:
            raise TidewireError(f"the log no longer holds what the sink needs to go on from this backup: {gaps[0]}. "
                                "Restore a newer one, or with --with-gaps.")  # fmt: skip
        now = {TP(topic, partition): after for topic in manifest.offsets[SINK_GROUP]
               for partition, after in (await log_.committed(SINK_GROUP, topic)).items()}  # fmt: skip
        await log_.go_on_from(SINK_GROUP, now)  # changes nothing: it tells whether a sink runs, before anything else
        await _fill(manifest, folder, settings)
        await log_.go_on_from(SINK_GROUP, wanted)
    finally:
        await log_.stop()
    return gaps


async def _sink_goes_on(log_: Log, manifest: Manifest) -> tuple[dict[TP, int], list[str]]:
    """Where the sink goes on, and which records it needs that are gone.

    Raises:
        TidewireError: the topics are not those the backup was taken with.
    """
    ids = {topic.name: topic.id for topic in manifest.topics}
    wanted: dict[TP, int] = {}
    gaps: list[str] = []
    states = await log_.topics()
    for topic, offsets in manifest.offsets[SINK_GROUP].items():
        state = states.get(topic)
        if state is None or state.id != ids[topic]:
            what = "is not there" if state is None else "was made anew since the backup was taken"
            raise TidewireError(f"topic {topic!r} {what}, so its offsets mean nothing. Bring the topics back first; "
                                "without them docs/operating.md says how to begin from the events.")  # fmt: skip
        for partition, (first, end) in (await log_.bounds(topic)).items():
            after = offsets.get(partition, 0)
            if after < first and not state.is_compacted:
                gaps.append(f"{first - after} records of {topic}-{partition}")
            if after > end:
                raise TidewireError(f"{topic}-{partition} ends at offset {end}, and the backup goes on from {after}: "
                                    "the log has lost records. Bring the topics back first.")  # fmt: skip
            wanted[TP(topic, partition)] = max(after, first)
    return wanted, gaps


# --- files


def _put_files_back(folder: Path, manifest: Manifest, settings: Settings) -> list[str]:
    """The config files, each where there is none; and the keys. Returns those that were left as they are."""
    kept = []
    for file in manifest.files:
        source = folder / file.path
        if file.path in KEYS:
            _copy(source, settings.data / file.path, 0o600)
        elif file.path.startswith("config/"):
            target = settings.config / file.path.removeprefix("config/")
            if not target.exists():
                _copy(source, target, 0o600)
            elif target.read_bytes() != source.read_bytes():
                kept.append(str(target))
    return kept


def _copy(source: Path, target: Path, mode: int) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as content, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode),
                                                     "wb") as out:  # fmt: skip
            sum_of(content, out.write)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise TidewireError(f"{target} cannot be written: {error.strerror or error}.") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
