"""ClickHouse, as the rest of Tidewire asks it: chDB in this process, or a server. The same calls, the same SQL.

    chdb:PATH                             ClickHouse's own engine in this process; one process owns a path
    clickhouse://USER@HOST:8123/DB        a server, by its HTTP interface
    clickhouse+https://USER@HOST:8443/DB  the same, encrypted

Every call that can block runs in a thread of its own pool, so the event loop never waits. chDB serves any number of
handles of one process side by side; one handle does one thing at a time. Readers have handles of their own, which can
only read: `readonly=1` was the last thing they were told.

    ClickHouseError                what ClickHouse said, as one line; `code` is its number
    ├── ClickHouseAway             no answer, or too busy: the same call may work later
    └── RowsRefused                these rows, for what they hold
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import lz4.frame

from schemas.errors import ConfigError, TidewireError, Unreachable
from sinks.clickhouse_types import Answer, read_answer
from sinks.native import NotPacked, Packed, Packer

READERS = 4  # queries at a time; more wait
LONGEST_QUERY_S = 30.0
LONGEST_ANSWER_ROWS = 1_000_000
MOST_MEMORY_BYTES = 4 * 1024**3  # of one query
_BLOCK_BYTES = 1024 * 1024
OLDEST_SERVER = (25, 8)  # JSON as stable type, and dots in its keys kept apart

_FORMAT = "JSONCompactEachRowWithNamesAndTypes"
_READ_SETTINGS: dict[str, str | int | float] = {
    "max_result_rows": LONGEST_ANSWER_ROWS,
    "max_memory_usage": MOST_MEMORY_BYTES,
    "do_not_merge_across_partitions_select_final": 1,  # a partition follows from the key, in every table
    "join_use_nulls": 0,
    "date_time_output_format": "iso",
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_decimals": 1,
    "output_format_json_quote_denormals": 0,
    "output_format_json_validate_utf8": 1,
    "json_type_escape_dots_in_keys": 1,
}
_WRITE_SETTINGS: dict[str, str | int | float] = {
    "async_insert": 0,  # when the call returns, the rows are there
    "optimize_on_insert": 0,  # rows of one key are merged later anyway; FINAL reads one
    "max_partitions_per_insert_block": 1_000,
    "json_type_escape_dots_in_keys": 1,  # {"a.b": 1, "a": {"b": 2}} are two values
    "type_json_skip_duplicated_paths": 1,  # {"a": 1, "a": 2} is no reason to refuse an event
    "input_format_try_infer_dates": 0,  # text stays text: a path has the same type in every row
    "input_format_try_infer_datetimes": 0,
    "input_format_json_read_bools_as_numbers": 0,  # true in a list stays true, beside 5…
    "input_format_json_read_bools_as_strings": 0,  # …and beside "x"
}

# Codes of ClickHouse's src/Common/ErrorCodes.cpp. What is in neither list is taken as trouble that passes:
# rows are never thrown out for a cause that is not known to lie in them.
_OF_CONTENT = frozenset({6, 25, 26, 27, 33, 34, 38, 41, 53, 69, 70, 72, 117, 131, 190, 321, 349, 407, 441, 467, 645})
_OF_TIME = frozenset({159, 209})
_BUSY = frozenset({159, 202, 203, 209, 210, 225, 241, 242, 243, 252, 279, 285, 319, 394, 425, 439, 999})
_OF_VALUES = (ArithmeticError, ValueError, TypeError)  # the driver could not write a value as its column's type
_DENIED_WORDS = re.compile(r"(?<![\w.`])(file|eval|python|catboostEvaluate|ai[A-Z]\w*|into\s+outfile)\b", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'")
_READING = re.compile(r"\(*\s*(SELECT|WITH|SHOW|DESCRIBE|EXPLAIN|EXISTS)\b")

# What a table of engine Memory holds is gone when its server ends. It says nothing about data, so it is hidden, as
# ClickHouse hides tables of its own, and made where it is missing: no backup needs it.
_HAS_LIFE = "SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = '.life'"
_MAKE_LIFE = "CREATE TABLE IF NOT EXISTS `.life` (id UUID COMMENT 'Of this life.') ENGINE = Memory COMMENT 'One row.'"
_BEGIN_LIFE = "INSERT INTO `.life` SELECT generateUUIDv4()"
_LIFE = "SELECT toString(id) FROM `.life` ORDER BY id LIMIT 1"
_OUR_LIFE = uuid4().hex  # chDB lives as long as this process

Result = TypeVar("Result")


class ClickHouseError(TidewireError):
    """What ClickHouse said, as one line. `code` is its number; None where no answer came."""

    def __init__(self, what: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(what)


class ClickHouseAway(ClickHouseError, Unreachable):
    """It does not answer, or cannot take more now. Whether an insert was stored is not known."""


class RowsRefused(ClickHouseError):
    """At least one of these rows will never fit; nothing is said of which, and some may be stored."""


class Place(NamedTuple):
    """Where ClickHouse is: a folder for chDB, else a server."""

    path: Path | None
    host: str = ""
    port: int = 0
    user: str = "default"
    database: str = "default"
    is_secure: bool = False

    def __str__(self) -> str:
        if self.path is not None:
            return f"chdb:{self.path}"
        return f"clickhouse{'+https' * self.is_secure}://{self.user}@{self.host}:{self.port}/{self.database}"


def place_of(url: str) -> Place:
    """Read the address.

    Raises:
        ConfigError: it is none.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "chdb" and rest.removeprefix("//"):
        return Place(Path(rest.removeprefix("//")))
    if scheme in ("clickhouse", "clickhouse+https"):
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.password is not None:
            raise ConfigError("analytics", "the address holds a password.",
                              "Addresses are shown in logs: set `analytics_password` instead.")  # fmt: skip
        database = parts.path.strip("/") or "default"
        if parts.hostname and port != -1 and re.fullmatch(r"\w+", database):
            is_secure = scheme == "clickhouse+https"
            user = unquote(parts.username or "default")
            return Place(None, parts.hostname, port or (8443 if is_secure else 8123), user, database, is_secure)
    raise ConfigError("analytics", f"{url!r} is no address of ClickHouse.",
                      "It is written chdb:PATH, clickhouse://USER@HOST:8123/DB or clickhouse+https://…")  # fmt: skip


class Analytics:
    """One ClickHouse. Nothing is opened before `start` or the first call."""

    def __init__(self, url: str, password: str = "", *, readers: int = READERS) -> None:
        self.place = place_of(url)
        self._password = password
        self._reading = ThreadPoolExecutor(readers, thread_name_prefix="clickhouse-read")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="clickhouse-write")
        self._idle: dict[float | None, list[Any]] = {}  # clients by time limit; None: those that write
        self._lock = threading.Lock()
        self._owner: IO[str] | None = None
        self._types: dict[str, dict[str, str]] = {}
        self._checked: dict[str, None] = {}
        self._is_closed = False

    async def start(self) -> None:
        """Connect.

        Raises:
            ClickHouseAway: no answer, or another process owns the path.
            ClickHouseError: it is too old, or refuses the user.
        """
        await self._in(self._writing, self._with_client, None, lambda client: None)

    async def close(self) -> None:
        """Wait for what runs, and let go."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.gather(*(asyncio.to_thread(threads.shutdown) for threads in (self._reading, self._writing)))
        clients = [client for idle in self._idle.values() for client in idle]
        self._idle.clear()
        await asyncio.to_thread(lambda: [client.close() for client in clients])
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    # --- reading

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, longest_s: float = LONGEST_QUERY_S
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT (or SHOW, DESCRIBE, EXPLAIN), as dicts.

        Values go in as parameters only: `{name:Type}` in the SQL. Times come back aware and in UTC, decimals as
        `Decimal`, JSON as dicts. Nothing but reading is possible, neither files nor the network among it.

        Raises:
            ClickHouseError: the query is wrong, reads too much, or took longer than `longest_s` seconds.
            ClickHouseAway: no answer.
        """
        answer = await self._answer(sql, parameters, longest_s)
        names = answer.names
        return [dict(zip(names, row, strict=True)) for row in answer.rows]

    async def query_columns(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, longest_s: float = LONGEST_QUERY_S
    ) -> dict[str, list[Any]]:
        """The same by column; each is empty where there are no rows."""
        answer = await self._answer(sql, parameters, longest_s)
        return {name: [row[i] for row in answer.rows] for i, name in enumerate(answer.names)}

    async def _answer(self, sql: str, parameters: Mapping[str, Any] | None, longest_s: float) -> Answer:
        work = partial(self._read, sql, parameters, longest_s)
        return await self._in(self._reading, self._with_client, longest_s, work)

    def _read(self, sql: str, parameters: Mapping[str, Any] | None, longest_s: float, client: Any) -> Answer:
        sql = sql.strip().rstrip(";")
        settings = None if self.place.path is not None else _texts(_read_settings(longest_s))
        if sql not in self._checked:
            check_reading(client.raw_query("SELECT formatQuery({q:String})", {"q": sql}, settings, "TSVRaw").decode())
            if len(self._checked) > 1_000:
                self._checked.clear()
            self._checked[sql] = None
        return read_answer(client.raw_query(sql, dict(parameters or {}), settings, _FORMAT))

    # --- writing

    async def packer(self, table: str, names: Sequence[str]) -> Packer:
        """What encodes rows of these columns of the table for `insert`, in any thread.

        Raises:
            ClickHouseError: the table has no such column.
            ClickHouseAway: no answer.
        """
        types = await self._in(self._writing, self._with_client, None, partial(self._types_of, table, names))
        return Packer({name: types[name] for name in names})

    async def insert(self, table: str, columns: Mapping[str, Sequence[Any]] | Packed, token: str = "") -> None:
        """Store the rows, given by column, or packed; columns that are not given take their defaults.

        Times are whole milliseconds since 1970, days whole days since 1970, JSON is text. With a token nothing is
        stored if an insert with the same token was, among the last 1,000 of the table; see `sinks.repeats`.

        Raises:
            RowsRefused: at least one row will never fit.
            ClickHouseAway, ClickHouseError: the rows are fine; try again later.
        """
        await self._in(self._writing, self._with_client, None, partial(self._insert, table, columns, token))

    def _insert(self, table: str, columns: Mapping[str, Sequence[Any]] | Packed, token: str, client: Any) -> None:
        if not isinstance(columns, Packed):
            types = self._types_of(table, columns, client)
            packer = Packer({name: types[name] for name in columns})
            try:
                columns = Packed(packer.names, [packer.block(list(columns.values()))])
            except NotPacked as error:
                raise RowsRefused(f"{error}.") from error
        settings = _texts(_WRITE_SETTINGS | _token(token))
        if self.place.path is not None:  # by way of a file
            client.raw_insert(f"`{table}`", columns.names, columns.blocks, settings, "Native")
        else:
            client.raw_insert(f"`{table}`", columns.names, columns.compressed(), settings, "Native", "lz4")

    def _types_of(self, table: str, names: Iterable[str], client: Any) -> dict[str, str]:
        types = self._types.get(table)
        wanted = set(names)
        if types is None or not wanted <= types.keys():
            answer = client.raw_query(
                "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
                {"table": table}, None, _FORMAT,
            )  # fmt: skip
            types = self._types[table] = dict(read_answer(answer).rows)
        absent = wanted - types.keys()
        if absent:
            raise ClickHouseError(f"table {table!r} has no column {min(absent)!r}; was it changed by hand?")
        return types

    async def life(self) -> str:
        """An id of the process that runs ClickHouse now: another one after it began anew.

        Raises:
            ClickHouseAway: no answer.
        """
        if self.place.path is not None:
            return _OUR_LIFE
        return await self._in(self._writing, self._with_client, None, self._life)

    def _life(self, client: Any) -> str:
        if not read_answer(client.raw_query(_HAS_LIFE, None, None, _FORMAT)).rows:
            client.command(_MAKE_LIFE)
        while not (found := read_answer(client.raw_query(_LIFE, None, None, _FORMAT)).rows):
            client.command(_BEGIN_LIFE)
        return str(found[0][0])

    async def dump(self, table: str, write: Callable[[bytes], object]) -> None:
        """Give the rows of a table, as they stand, to `write`, block after block in format Native; from a thread.

        Rows that are inserted meanwhile may be among them or not. What `write` raises ends it, where it is no OSError.
        """
        await asyncio.to_thread(self._with_client, None, partial(self._dump, table, write))

    def _dump(self, table: str, write: Callable[[bytes], object], client: Any) -> None:
        # One thread: a copy may take long, and must not take the memory of what goes on beside it.
        sql = f"SELECT * FROM `{table}` SETTINGS max_threads = 1"  # noqa: S608 - a name that ClickHouse told
        # A server that fails halfway would else end the answer with its error, which looks like rows.
        settings = None if self.place.path is not None else {"wait_end_of_query": "1"}
        stream = client.raw_stream(sql, settings=settings, fmt="Native")
        try:
            while block := stream.read(_BLOCK_BYTES):
                write(block)
        finally:
            stream.close()

    async def load(self, table: str, file: Path) -> None:
        """Insert what `dump` gave, out of a file packed by lz4.

        Raises:
            RowsRefused: the rows are none of this table.
        """
        await self._in(self._writing, self._with_client, None, partial(self._load, table, file))

    def _load(self, table: str, file: Path, client: Any) -> None:
        with lz4.frame.open(file) as rows:
            if not rows.read(1):  # a server takes no empty insert
                return
        settings = {"max_partitions_per_insert_block": 1_000, "optimize_on_insert": 0,
                    "input_format_skip_unknown_fields": 0}  # fmt: skip
        if self.place.path is not None:
            told = ", ".join(f"{name} = '{value}'" for name, value in (settings | _token("")).items())
            path = str(file.absolute()).replace("\\", "\\\\").replace("'", "\\'")
            source = f"FROM INFILE '{path}' COMPRESSION 'lz4' SETTINGS {told} FORMAT Native"
            client.command(f"INSERT INTO `{table}` {source}")
            return
        with file.open("rb") as packed:
            client.raw_insert(f"`{table}`", None, packed, _texts(settings | _token("")), "Native", "lz4")

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run one statement with every right there is: for migrations, never for what people wrote."""
        return await self._in(self._writing, self._with_client, None, partial(self._command, sql, parameters))

    def _command(self, sql: str, parameters: Mapping[str, Any] | None, client: Any) -> list[dict[str, Any]]:
        self._types.clear()
        if not re.match(r"\s*(SELECT|SHOW|DESCRIBE|EXISTS)\b", sql):
            client.command(sql, dict(parameters or {}))
            return []
        answer = read_answer(client.raw_query(sql, dict(parameters or {}), None, _FORMAT))
        return [dict(zip(answer.names, row, strict=True)) for row in answer.rows]

    # --- clients

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[..., Result], *args: Any) -> Result:
        if self._is_closed:
            raise ClickHouseAway(f"{self.place} is closed.")
        return await asyncio.get_running_loop().run_in_executor(threads, work, *args)

    def _with_client(self, longest_s: float | None, work: Callable[[Any], Result]) -> Result:
        """Do the work with a client nobody else uses meanwhile. Runs in a thread."""
        from clickhouse_connect.driver.exceptions import ClickHouseError as DriverError

        client: Any = None
        try:
            with self._lock:
                idle = self._idle.setdefault(longest_s, [])
                client = idle.pop() if idle else None
            if client is None:
                client = self._connect(longest_s)
            result = work(client)
            with self._lock:
                idle.append(client)
            client = None
            return result
        except (DriverError, OSError, *_OF_VALUES) as error:
            raise self._explained(error, longest_s) from error
        finally:
            if client is not None:  # after an error a handle of chDB gives the rest of one answer with the next
                client.close()

    def _connect(self, longest_s: float | None) -> Any:
        import clickhouse_connect
        from clickhouse_connect import common

        common.set_setting("autogenerate_session_id", False)
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # it is told here, once, without a traceback
        place = self.place
        if place.path is not None:
            with self._lock:  # the first opens the engine
                self._own(place.path)
                client = clickhouse_connect.get_client(interface="chdb", path=str(place.path))
            if longest_s is not None:
                for name, value in _read_settings(longest_s).items():  # readonly is the last of them
                    client.command(f"SET {name} = '{value}'")
            return client
        client = clickhouse_connect.get_client(
            interface="https" if place.is_secure else "http", host=place.host, port=place.port, username=place.user,
            password=self._password, database="default", connect_timeout=10, send_receive_timeout=120, query_retries=0,
            client_name="tidewire",
        )  # fmt: skip
        version = tuple(int(part) for part in str(client.server_version).split(".")[:2])
        if version < OLDEST_SERVER:
            client.close()
            raise ClickHouseError(f"{place} is ClickHouse {client.server_version}; it must be "
                                  f"{'.'.join(map(str, OLDEST_SERVER))} or newer.")  # fmt: skip
        if longest_s is None and place.database != "default":
            client.command(f"CREATE DATABASE IF NOT EXISTS `{place.database}`")
        client.database = place.database
        return client

    def _own(self, path: Path) -> None:
        """Take the folder for this process. chDB would refuse a second one too, but not say who holds it."""
        if self._owner is not None:
            return
        file = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            owner = file.open("a+")
        except OSError as error:
            what = f"{path.parent} cannot be written: {error.strerror}. Name another folder with --data."
            raise ClickHouseError(what) from None
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner.seek(0)
            process = owner.read().strip() or "unknown"
            owner.close()
            what = f"the ClickHouse data in {path} is open in process {process}."
            raise ClickHouseAway(f"{what} Ask that process, stop it, or name another folder with --data.") from None
        owner.truncate(0)
        owner.write(str(os.getpid()))
        owner.flush()
        self._owner = owner

    def _explained(self, error: Exception, longest_s: float | None) -> ClickHouseError:
        """What went wrong, by what the caller can do about it."""
        from clickhouse_connect.driver import exceptions as driver

        code = getattr(error, "code", None)
        what = one_line(str(error))
        if longest_s is not None and code in _OF_TIME:
            what = f"the query took longer than {longest_s:g} s. Ask for less: fewer days, fewer columns."
            return ClickHouseError(what, code)
        if longest_s is None and (code in _OF_CONTENT or isinstance(error, (driver.DataError, *_OF_VALUES))):
            return RowsRefused(what, code)
        if code is None and isinstance(error, driver.OperationalError | OSError):
            return ClickHouseAway(f"{self.place} does not answer: {_root_of(error)}.")
        if code in _BUSY:
            return ClickHouseAway(f"{self.place} is busy: {what}", code)
        return ClickHouseError(what, code)


def check_reading(canonical: str) -> None:
    """Refuse what does more than read, by the canonical text that ClickHouse's own parser makes of one statement.

    `readonly=1` stops all writing to tables, and table functions that reach out. chDB still lets a SELECT read any file
    by the function `file`, write one by INTO OUTFILE, and KILL is not reading either.

    Raises:
        ClickHouseError: it names the word.
    """
    bare = _QUOTED.sub("''", canonical)
    if not _READING.match(bare):
        word = bare.split(maxsplit=1)[0]
        raise ClickHouseError(f"{word} does more than read. Use SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS.")
    denied = _DENIED_WORDS.search(bare)
    if denied:
        word = " ".join(denied[1].split())
        what = f"{word} reaches outside of ClickHouse and cannot be used here."
        raise ClickHouseError(f"{what} A column of that name can be written with its table, as t.file.")


_NOISE = re.compile(
    r"\s*\((?:in file/uri [^)]*|version [^)]*(?:\([^)]*\))?[^)]*|[A-Z_]{3,})\)|:?\s*While executing \w+"
    r"|(?:Code: \d+\.\s+)?DB::Exception: |Code: \d+\. ?|: data for INSERT was parsed from file"
    r"|Received ClickHouse exception, code: \d+, server response: |\s*\(for url [^)]*\)"
    r"|: In scope SELECT formatQuery.*|\. Expected one of: .*", re.DOTALL,
)  # fmt: skip
LONGEST_ERROR = 500  # characters


def one_line(text: str) -> str:
    """ClickHouse's message without stack, version and repeated prefixes: one line a person can read.

    >>> one_line("Code: 60. DB::Exception: Unknown table 'x'. (UNKNOWN_TABLE) (version 26.9.2.1).")
    "Unknown table 'x'."
    """
    line = " ".join(_NOISE.sub("", text.partition("Stack trace:")[0]).split()).rstrip(" :.") + "."
    return line if len(line) <= LONGEST_ERROR else line[: LONGEST_ERROR - 1] + "…"


def _root_of(error: BaseException) -> str:
    """What is behind a failed request, in the words of the system where it has some."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else cause.__cause__ or cause.__context__
    for found in reversed(seen):
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
    return one_line(str(seen[-1])).rstrip(".")


def _read_settings(longest_s: float) -> dict[str, str | int | float]:
    return {**_READ_SETTINGS, "max_execution_time": longest_s, "readonly": 1}


def _token(token: str) -> dict[str, str | int | float]:
    # Without a token ClickHouse would make one of the content, and that is not to be trusted: see sinks/repeats.py.
    return {"insert_deduplication_token": token or uuid4().hex}


def _texts(settings: Mapping[str, str | int | float]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}
