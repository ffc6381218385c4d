"""Numbered migrations: `sinks/migrations/0001_events.sql` and on, one change each, the same on chDB and a server.

A file that was applied never changes again: what comes later is another file. Each can be applied twice, because the
process may die between a change and the note that it was made. Tables of processors are made from their structs, by
`sinks.tables`, after these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import structlog

from processors.base import Table
from schemas.errors import TidewireError
from sinks.analytics import Analytics
from sinks.tables import TOKENS, ensure_tables

log = structlog.get_logger(__name__)

FOLDER = Path(__file__).parent / "migrations"

_NOTES = """
CREATE TABLE IF NOT EXISTS migrations
(
    name String COMMENT 'File that was applied.',
    checksum String COMMENT 'SHA-256 of its text.',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When.'
)
ENGINE = ReplacingMergeTree ORDER BY name COMMENT 'Which migrations were applied.'
"""
_FORGETFUL = """
SELECT name FROM system.tables
WHERE database = currentDatabase() AND has({names:Array(String)}, name) AND engine = 'ReplacingMergeTree'
    AND NOT match(engine_full, 'non_replicated_deduplication_window = [1-9]')
ORDER BY name
"""
_NOTE = "INSERT INTO migrations (name, checksum) SELECT {name:String}, {checksum:String}"


_DOUBLING = """
SELECT name, engine FROM system.tables
WHERE database = currentDatabase() AND name IN {names:Array(String)}
    AND NOT endsWith(engine, 'ReplacingMergeTree')
ORDER BY name
"""


class Migration(NamedTuple):
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """All of them, in order."""
    return [Migration(file.stem, file.read_text()) for file in sorted(folder.glob("*.sql"))]


def made_by(all_of_them: Iterable[Migration]) -> frozenset[str]:
    """The names of the tables and views that migrations make, and that no processor may use."""
    pattern = re.compile(r"^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+)", re.MULTILINE)
    return frozenset({"migrations", *(name for each in all_of_them for name in pattern.findall(each.sql))})


async def migrate(analytics: Analytics, tables: Sequence[Table] = (), folder: Path = FOLDER) -> list[str]:
    """Bring ClickHouse to what this Tidewire needs; the names of what was applied. Can be run again, and by several.

    Raises:
        TidewireError: a file that was applied has changed, a newer Tidewire was here, or a table does not fit, or was
            changed by hand so that repeated inserts are stored twice, or read twice.
        ClickHouseAway: no answer; try again later.
    """
    known = migrations(folder)
    await analytics.command(_NOTES)
    rows = await analytics.command("SELECT name, checksum FROM migrations FINAL ORDER BY name")
    applied = {row["name"]: row["checksum"] for row in rows}
    unknown = applied.keys() - {each.name for each in known}
    if unknown:
        what = f"{analytics.place} has migration {max(unknown)}, which this Tidewire does not know."
        raise TidewireError(f"{what} Use the newer Tidewire that made it.")
    new = []
    for each in known:
        if each.name not in applied:
            await analytics.command(each.sql)
            note = {"name": each.name, "checksum": each.checksum}
            await analytics.command(_NOTE, note)
            log.info("migrated", migration=each.name)
            new.append(each.name)
        elif applied[each.name] != each.checksum:
            what = f"migration {each.name} was changed after it was applied to {analytics.place}."
            raise TidewireError(f"{what} Put the file back as it was, and write the change as a new migration.")
    ours = made_by(known)
    await ensure_tables(analytics, tables, reserved=ours)
    replacing = made_by(each for each in known if "ENGINE = ReplacingMergeTree" in each.sql) - {"migrations"}
    await _check_engines(analytics, [*replacing, *(table.name for table in tables)])
    await _check_tokens(analytics, ours - {"migrations"})
    return new


async def _check_engines(analytics: Analytics, tables: list[str]) -> None:
    """A table that was made anew by hand may keep every row it is given, and rows are given more than once."""
    for row in await analytics.command(_DOUBLING, {"names": sorted(tables)}):
        what = f"table {row['name']} of {analytics.place} is a {row['engine']}, so what is inserted again counts twice."
        mend = "It must be a ReplacingMergeTree: put it back as it was, or rename it, and Tidewire makes a new one."
        raise TidewireError(f"{what} {mend}")


async def _check_tokens(analytics: Analytics, tables: frozenset[str]) -> None:
    """Somebody may have set by hand what migrations set, and then repeated inserts would be stored twice."""
    for row in await analytics.command(_FORGETFUL, {"names": sorted(tables)}):
        what = f"table {row['name']} of {analytics.place} does not remember what was inserted"
        mend = f"ALTER TABLE {row['name']} MODIFY SETTING {TOKENS}"
        raise TidewireError(f"{what} (non_replicated_deduplication_window is 0). Run there: {mend}")
