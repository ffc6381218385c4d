"""The tables of processors: made from their structs, extended when a field is added, refused when a type changes."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import structlog

from processors.base import Table
from schemas.errors import TidewireError
from schemas.rows import encode_json
from schemas.times import to_ms
from sinks.analytics import Analytics

log = structlog.get_logger(__name__)

# DateTime64 holds the years 1900 to 2299; a time outside is taken as the nearest it can hold.
FIRST_MS, LAST_MS = -2_208_988_800_000, 10_413_791_999_999

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_TYPES: dict[object, str] = {
    str: "String", int: "Int64", float: "Float64", bool: "Bool", Decimal: "Decimal(18, 4)",
    datetime: "DateTime64(3, 'UTC')", date: "Date32",
}  # fmt: skip
OURS = ("workspace", "person", "key", "version", "is_deleted")  # columns no struct may have


class Column(NamedTuple):
    name: str
    type: str
    about: str


class TableRefused(TidewireError):
    """A processor's table cannot be, or cannot become, what its struct says."""

    def __init__(self, table: str, what: str, mend: str) -> None:
        super().__init__(f"table {table!r} of a processor: {what}. {mend}")


def columns_of(table: Table) -> list[Column]:
    """The columns of the struct.

    Raises:
        TableRefused: a name or a type that cannot be a column.
    """
    hints = get_type_hints(table.row, include_extras=True)
    abouts = _abouts(table.row.__doc__ or "")
    columns = []
    for field in msgspec.structs.fields(table.row):
        if not _NAME.match(field.name) or field.name in OURS:
            mend = f"Columns are named {_NAME.pattern[:-2]}, and {', '.join(OURS)} are there already."
            raise TableRefused(table.name, f"{field.name!r} cannot be a column", mend)
        try:
            kind = clickhouse_type(hints[field.name])
        except TypeError as error:
            raise TableRefused(table.name, f"field {field.name!r}: {error}",
                               'Name a ClickHouse type: Annotated[…, "String"].') from None  # fmt: skip
        columns.append(Column(field.name, kind, abouts.get(field.name, "")))
    return columns


def clickhouse_type(hint: Any) -> str:
    """The ClickHouse type of a field.

    >>> clickhouse_type(dict[str, Decimal]), clickhouse_type(datetime | None)
    ('Map(String, Decimal(18, 4))', "Nullable(DateTime64(3, 'UTC'))")

    Raises:
        TypeError: there is none.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        named = [extra for extra in arguments[1:] if isinstance(extra, str)]
        return named[0] if named else clickhouse_type(arguments[0])
    if origin is Literal:
        return "LowCardinality(String)"
    if origin in (Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) == 1 and len(arguments) == 2:
            inner = clickhouse_type(others[0])
            if inner.startswith("LowCardinality("):
                return f"LowCardinality(Nullable({inner[15:-1]}))"
            if not inner.startswith(("Array(", "Map(", "JSON")):
                return f"Nullable({inner})"
    elif origin in (list, tuple, set, frozenset) and arguments and (origin is not tuple or arguments[1:] == (...,)):
        return f"Array({clickhouse_type(arguments[0])})"
    elif origin is dict and arguments[0] is str:
        return f"Map(String, {clickhouse_type(arguments[1])})"
    elif isinstance(hint, type) and issubclass(hint, Enum):
        return "LowCardinality(String)"
    elif hint in _TYPES:
        return _TYPES[hint]
    raise TypeError(f"no ClickHouse type for {hint!r}")


def _abouts(docstring: str) -> dict[str, str]:
    """What a struct's docstring says of its fields, under `Attributes:`."""
    _, _, rest = docstring.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        begins = re.match(r" {8}(\w[\w, ]*): (.+)", line)
        if begins:
            for name in begins[1].split(", "):
                found[name] = begins[2].strip()
        elif line.startswith(" " * 12) and name:
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return found


# --- statements


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _line(column: Column) -> str:
    return f"    `{column.name}` {column.type}" + (f" COMMENT {quoted(column.about)}" if column.about else "")


_FIRST = [
    Column("workspace", "LowCardinality(String)", "Whose data this is."),
    Column("key", "String", "Person key whose history it came from."),
]
_LAST = [
    Column("version", "UInt64", "Of rows with the same key columns the highest is read."),
    Column("is_deleted", "UInt8", "1: the row is gone."),
]
_COLUMNS = "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
_MADE = """
SELECT sorting_key, engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}
"""
# A committed offset says that the rows are on the disk. Few files an insert make that cheap. What is inserted again
# under the same token is dropped: see sinks/repeats.py.
TOKENS = "non_replicated_deduplication_window = 1000"
_STORAGE = f"SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 67108864, {TOKENS}"
_PERSON = Column("person", "String", "Key of the person it belongs to today.")


def create_table(table: Table) -> str:
    lines = ",\n".join(_line(column) for column in (*_FIRST, *columns_of(table), *_LAST))
    forget = f"TTL {_end_of(table)}\n" if table.days else ""
    return (f"CREATE TABLE IF NOT EXISTS `{table.name}`\n(\n{lines}\n)\n"
            f"ENGINE = ReplacingMergeTree(version, is_deleted)\nORDER BY ({', '.join(_sorted_by(table))})\n"
            f"{forget}{_STORAGE}\n"
            f"COMMENT {quoted(f'{table.about} Read it through {view_of(table)}, or with FINAL.')}")  # fmt: skip


def create_view(table: Table) -> str:
    """The view through which analysts read the table: each row once, with the person it belongs to today."""
    columns = columns_of(table)
    lines = ",\n".join(_line(column) for column in (_FIRST[0], _PERSON, _FIRST[1], *columns))
    chosen = ", ".join(f"t.`{name}` AS `{name}`" for name in ("key", *(column.name for column in columns)))
    # Names are checked against _NAME, types come from code, and texts are quoted.
    return (f"CREATE OR REPLACE VIEW `{view_of(table)}`\n(\n{lines}\n)\n"  # noqa: S608
            f"AS SELECT t.workspace AS workspace, if(i.person = '', t.key, i.person) AS person, {chosen}\n"
            f"FROM `{table.name}` AS t FINAL\n"
            "LEFT JOIN (SELECT workspace, key, person FROM identities FINAL WHERE person != key) AS i\n"
            "    ON t.workspace = i.workspace AND t.key = i.key\n"
            f"SETTINGS join_use_nulls = 0\nCOMMENT {quoted(table.about)}")  # fmt: skip


def _end_of(table: Table) -> str:
    """When a row is deleted, written as ClickHouse writes it."""
    return f"toDateTime({table.since}) + toIntervalDay({table.days})"


def view_of(table: Table) -> str:
    return f"{table.name}_list"


def _sorted_by(table: Table) -> list[str]:
    return ["workspace", "key", *table.key]


async def ensure_tables(analytics: Analytics, tables: Iterable[Table], reserved: frozenset[str] = frozenset()) -> None:
    """Make the tables of processors, add what is new, and make their views.

    Raises:
        TableRefused: a table that cannot be made from the one there is; nothing of it was changed.
        ClickHouseAway: no answer.
    """
    for table in tables:
        _check(table, reserved)
        there = {row["name"]: row["type"] for row in await analytics.command(_COLUMNS, {"table": table.name})}
        if not there:
            await analytics.command(create_table(table))
            log.info("table_made", table=table.name)
        else:
            await _extend(analytics, table, there)
        await analytics.command(create_view(table))


def _check(table: Table, reserved: frozenset[str]) -> None:
    if not _NAME.match(table.name) or table.name in reserved or view_of(table) in reserved:
        raise TableRefused(table.name, "the name is taken or is none", f"Tables are named {_NAME.pattern[:-2]}.")
    columns = {column.name: column.type for column in columns_of(table)}
    for name in table.key:
        kind = columns.get(name)
        if kind is None or "Nullable(" in kind or kind.startswith(("Array(", "Map(", "JSON", "Float")):
            raise TableRefused(table.name, f"key column {name!r} is {kind or 'no field of the struct'}",
                               "Key columns are fields that always have one exact value.")  # fmt: skip
    if table.days and columns.get(table.since) != "DateTime64(3, 'UTC')":
        raise TableRefused(table.name, f"rows end {table.days} days after {table.since!r}, which is "
                           f"{columns.get(table.since) or 'no field of the struct'}",
                           "Name a field that is always a time.")  # fmt: skip


async def _extend(analytics: Analytics, table: Table, there: dict[str, str]) -> None:
    made = (await analytics.command(_MADE, {"table": table.name}))[0]
    is_key = made["sorting_key"]
    key = ", ".join(_sorted_by(table))
    if is_key != key:
        raise TableRefused(table.name, f"its key is ({is_key}) in ClickHouse, and ({key}) in the processor",
                           "The key of a table cannot change: give the table another name.")  # fmt: skip
    for column in columns_of(table):
        if column.name not in there:
            continue
        is_type = there[column.name]
        if is_type != column.type and is_type != await _canonical(analytics, column.type):
            what = f"column {column.name!r} is {is_type} in ClickHouse, and {column.type} in the processor"
            raise TableRefused(table.name, what, "The type of a column cannot change: give the field another name.")
    for column in columns_of(table):
        if column.name not in there:
            await analytics.command(f"ALTER TABLE `{table.name}` ADD COLUMN IF NOT EXISTS {_line(column).strip()}")
            log.info("column_added", table=table.name, column=column.name)
    if table.days and f"TTL {_end_of(table)} SETTINGS" not in made["engine_full"]:  # the setting is another now
        await analytics.command(f"ALTER TABLE `{table.name}` MODIFY TTL {_end_of(table)}")
        log.info("retention_changed", table=table.name, days=table.days)
    if TOKENS not in made["engine_full"]:  # made before there were tokens
        await analytics.command(f"ALTER TABLE `{table.name}` MODIFY SETTING {TOKENS}")


async def _canonical(analytics: Analytics, kind: str) -> str:
    rows = await analytics.command(f"SELECT toTypeName(defaultValueOfTypeName({quoted(kind)})) AS type")
    return str(rows[0]["type"])


# --- values


def stored_ms(moment: datetime) -> int:
    """The time as ClickHouse stores it: ms since 1970, in the years it can hold."""
    return min(max(to_ms(moment), FIRST_MS), LAST_MS)


@cache
def writers_of(row: type[msgspec.Struct]) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    """For each field what makes its value one that `Analytics.insert` takes; None: it is one."""
    hints = get_type_hints(row, include_extras=True)
    return tuple((field.name, _writer(hints[field.name])) for field in msgspec.structs.fields(row))


def _writer(hint: Any) -> Callable[[Any], Any] | None:
    kind = clickhouse_type(hint)
    if kind.startswith("JSON"):
        return lambda value: "{}" if value is None else encode_json(value).decode()
    if kind in ("DateTime64(3, 'UTC')", "Nullable(DateTime64(3, 'UTC'))"):
        return lambda value: None if value is None else stored_ms(value)
    if kind == "Array(DateTime64(3, 'UTC'))":
        return lambda values: [stored_ms(value) for value in values]
    if kind == "Map(String, DateTime64(3, 'UTC'))":
        return lambda values: {name: stored_ms(value) for name, value in values.items()}
    if "LowCardinality" in kind and get_origin(hint) is None:  # an Enum
        return lambda value: value.value
    return None


def columns_from(rows: Sequence[msgspec.Struct]) -> dict[str, list[Any]]:
    """The rows, all of one struct, by column, as `Analytics.insert` takes them."""
    columns: dict[str, list[Any]] = {}
    for name, write in writers_of(type(rows[0])):
        values = [getattr(row, name) for row in rows]
        columns[name] = values if write is None else [write(value) for value in values]
    return columns
