"""Records of the log as rows of tables, each row with the record it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import msgspec

from processors.base import Table
from schemas.errors import Refused
from schemas.event import Event, decode_event
from schemas.internal import is_internal
from schemas.rejected import Rejected, decode_rejected
from schemas.rows import LedgerLine, decode_ledger_line, encode_json
from sinks.events import NAMES as EVENT_NAMES
from sinks.events import row_of, tombstone_columns
from sinks.native import NotPacked, Packed, Packer
from sinks.plain_events import plain_row
from sinks.portraits import NAMES as PEOPLE_NAMES
from sinks.portraits import ReadPortrait, decode_portrait, identity_columns, newest_identities, people_columns
from sinks.tables import columns_from, stored_ms
from streams.log import Record

TOPICS = ("events", "profiles", "rows", "suppressions", "decisions", "rejected")

AT_ONCE = 500  # rows: what is made of them then still lies in the processor's cache when it becomes columns

Columns = dict[str, list[Any]]
Item = TypeVar("Item")

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError)


class Rows(NamedTuple):
    """Rows of one table, by column. `origins` are the records they came from, in the same order.

    `packed` are the same rows, encoded as `Analytics.insert` takes them too; None where they are not.
    """

    table: str
    columns: Mapping[str, Sequence[Any]]
    origins: Sequence[Record]
    packed: Packed | None = None

    def halves(self) -> list[Rows]:
        """The same rows as two, the second half first."""
        middle = len(self.origins) // 2
        return [
            Rows(self.table, {name: values[of] for name, values in self.columns.items()}, self.origins[of])
            for of in (slice(middle, None), slice(middle))
        ]

    def only(self, chosen: Sequence[int]) -> Rows:
        columns = {name: [values[i] for i in chosen] for name, values in self.columns.items()}
        return Rows(self.table, columns, [self.origins[i] for i in chosen])


class BadRow(NamedTuple):
    """A record that no row could be made of, or whose row ClickHouse refused."""

    table: str
    origin: Record
    refused: Refused


class Batch:
    """What a number of records comes to.

    Attributes:
        rows: by table; the order in which they are stored does not matter, their versions do.
        bad: records of which no row could be made.
        skipped: how many records of `events` are no events; the customer stage rejects them.
    """

    def __init__(self) -> None:
        self.rows: list[Rows] = []
        self.bad: list[BadRow] = []
        self.skipped = 0

    def add(self, table: str, items: Sequence[Item], origins: Sequence[Record],
            columns_of: Callable[[Sequence[Item]], Columns]) -> None:  # fmt: skip
        """Add rows; an item that `columns_of` cannot read becomes a bad row."""
        columns, origins = self.columns(table, items, origins, columns_of)
        if origins:
            self.rows.append(Rows(table, columns, origins))

    def columns(self, table: str, items: Sequence[Item], origins: Sequence[Record],
                columns_of: Callable[[Sequence[Item]], Columns]) -> tuple[Columns, Sequence[Record]]:  # fmt: skip
        """The items by column, and the records they came from; one that cannot be read becomes a bad row."""
        if not items:
            return {}, []
        try:
            return columns_of(items), origins
        except _UNREADABLE:
            fine: list[int] = []
            for i, item in enumerate(items):
                try:
                    columns_of([item])
                    fine.append(i)
                except _UNREADABLE as error:
                    self.spoil(table, origins[i], str(error))
            return (columns_of([items[i] for i in fine]) if fine else {}), [origins[i] for i in fine]

    def spoil(self, table: str, origin: Record, why: str) -> None:
        self.bad.append(BadRow(table, origin, Refused(f"no row of table {table} can be made of it", value=why)))


STORED = ("events", "identities", "people", "decisions", "rejected")  # tables beside those of processors


class Reader:
    """Makes rows of records. `tables` are those of processors.

    Attributes:
        packers: for tables of `PACKED` what encodes their rows while they are read; without one they stay columns.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        self.packers: Mapping[str, Packer] = {}
        self._decode_values = {table.name: msgspec.json.Decoder(table.row).decode for table in tables}

    def read(self, records: Iterable[Record]) -> Batch:
        by_topic: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_topic[record.topic].append(record)
        batch = Batch()
        self._events(by_topic["events"], batch)
        self._portraits(by_topic["profiles"], batch)
        self._table_rows(by_topic["rows"] + by_topic["suppressions"], batch)
        batch.add("decisions", *_decoded(by_topic["decisions"], decode_ledger_line, "decisions", batch), _decisions)
        self._rejected(by_topic["rejected"], batch)
        return batch

    def _events(self, records: Sequence[Record], batch: Batch) -> None:
        gathered = _Gathered("events", self.packers, _event_columns_again)
        for begin in range(0, len(records), AT_ONCE):
            rows: list[tuple[Any, ...]] = []
            of: list[Record] = []
            for record in records[begin : begin + AT_ONCE]:
                if record.headers and is_internal(record.headers):  # the customer stage's own; no event
                    continue
                try:
                    rows.append(_event_row(record))
                    of.append(record)
                except UnicodeDecodeError as error:
                    batch.spoil("events", record, str(error))
                except (Refused, RecursionError):
                    batch.skipped += 1
            gathered.add(list(zip(*rows, strict=True)), of)
        batch.rows += gathered.rows()

    def _portraits(self, records: Sequence[Record], batch: Batch) -> None:
        gathered = _Gathered("people", self.packers, _people_columns_again)
        portraits: list[ReadPortrait] = []
        origins: list[Record] = []
        for begin in range(0, len(records), AT_ONCE):
            some, of = _decoded(records[begin : begin + AT_ONCE], decode_portrait, "people", batch)
            portraits += some
            origins += of
            columns, of_columns = batch.columns("people", some, of, people_columns)
            gathered.add(list(columns.values()), of_columns)
        batch.rows += gathered.rows()
        linked = newest_identities(portraits)
        batch.add("identities", linked, [origins[each.said_by] for each in linked], identity_columns)

    def _table_rows(self, records: Sequence[Record], batch: Batch) -> None:
        rows, origins = _decoded(records, _decode_row, "rows", batch)
        by_table: dict[str, list[tuple[_TableRow, msgspec.Struct]]] = defaultdict(list)
        origins_of: dict[str, list[Record]] = defaultdict(list)
        for row, origin in zip(rows, origins, strict=True):
            decode = self._decode_values.get(row.table)
            if decode is None:
                batch.spoil(row.table, origin, "no processor has this table")
                continue
            try:
                by_table[row.table].append((row, decode(row.values)))
                origins_of[row.table].append(origin)
            except _UNREADABLE as error:
                batch.spoil(row.table, origin, str(error))
        for table, pairs in by_table.items():
            batch.add(table, pairs, origins_of[table], _values)

    def _rejected(self, records: Sequence[Record], batch: Batch) -> None:
        letters, origins = _decoded(records, decode_rejected, "rejected", batch)
        batch.add("rejected", letters, origins, _letters)
        # What the stage refused changed nothing there: its event is taken back here too, so both tell the same.
        refused: list[Event] = []
        of: list[Record] = []
        for letter, origin in zip(letters, origins, strict=True):
            if letter.by == "stage":
                try:
                    refused.append(decode_event(letter.record))
                    of.append(origin)
                except (Refused, RecursionError):  # it never was an event, so no row is there
                    continue
        batch.add("events", refused, of, tombstone_columns)


def _event_row(record: Record) -> tuple[Any, ...]:
    row = plain_row(record.value) if record.value else None
    return row_of(decode_event(record.value)) if row is None else row


def _event_columns_again(origins: Sequence[Record]) -> Iterable[Sequence[Any]]:
    return zip(*map(_event_row, origins), strict=True)


def _people_columns_again(origins: Sequence[Record]) -> Iterable[Sequence[Any]]:
    return people_columns([decode_portrait(record.value or b"") for record in origins]).values()


_Again = Callable[[Sequence[Record]], Iterable[Sequence[Any]]]  # makes the columns of records once more
PACKED: Mapping[str, Sequence[str]] = {"events": EVENT_NAMES, "people": PEOPLE_NAMES}


class _Gathered:
    """Rows of one table, chunk after chunk: packed where there is a packer, else by column."""

    def __init__(self, table: str, packers: Mapping[str, Packer], again: _Again) -> None:
        self._table = table
        self._names = PACKED[table]
        self._again = again
        self._packer = packers.get(table)
        self._blocks: list[bytes] = []
        self._columns: Columns = {name: [] for name in self._names}
        self._origins: list[Record] = []

    def add(self, columns: Iterable[Sequence[Any]], origins: Sequence[Record]) -> None:
        if not origins:
            return
        self._origins += origins
        if self._packer is not None:
            with suppress(NotPacked):  # ClickHouse will be asked which row it is
                self._blocks.append(self._packer.block(list(columns)))
                return
            self._packer = None
            columns = self._again(self._origins)
        for column, values in zip(self._columns.values(), columns, strict=True):
            column.extend(values)

    def rows(self) -> list[Rows]:
        if not self._origins:
            return []
        if self._packer is None:
            return [Rows(self._table, self._columns, self._origins)]
        columns = _ColumnsAgain(self._names, self._origins, self._again)
        return [Rows(self._table, columns, self._origins, Packed(self._names, self._blocks))]


class _ColumnsAgain(Mapping[str, Sequence[Any]]):
    """The columns of rows that are packed, made once more of their records if somebody asks.

    That is where ClickHouse refuses one of them; else columns would be kept for nothing.
    """

    def __init__(self, names: Sequence[str], origins: Sequence[Record], again: _Again) -> None:
        self._names = names
        self._origins = origins
        self._again = again

    @cached_property
    def _columns(self) -> dict[str, Sequence[Any]]:
        return dict(zip(self._names, self._again(self._origins), strict=True))

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _TableRow(msgspec.Struct):
    """A `schemas.rows.TableRow` whose values stay text until its table is known."""

    table: str
    workspace: str
    key: str
    version: int
    values: msgspec.Raw
    is_deleted: bool = False


_decode_row = msgspec.json.Decoder(_TableRow).decode


def _decoded(
    records: Iterable[Record], decode: Callable[[bytes], Item], table: str, batch: Batch
) -> tuple[list[Item], list[Record]]:
    """The values of the records, and those that could be read. A record without a value says nothing."""
    items: list[Item] = []
    origins: list[Record] = []
    for record in records:
        if record.value:
            try:
                items.append(decode(record.value))
                origins.append(record)
            except _UNREADABLE as error:
                batch.spoil(table, record, str(error))
    return items, origins


def _values(pairs: Sequence[tuple[_TableRow, msgspec.Struct]]) -> Columns:
    return {
        "workspace": [row.workspace for row, _ in pairs],
        "key": [row.key for row, _ in pairs],
        **columns_from([values for _, values in pairs]),
        "version": [row.version for row, _ in pairs],
        "is_deleted": [int(row.is_deleted) for row, _ in pairs],
    }


def _decisions(lines: Sequence[LedgerLine]) -> Columns:
    return {
        "workspace": [line.workspace for line in lines],
        "id": [line.id for line in lines],
        "recorded_for": [line.person for line in lines],
        "at": [stored_ms(line.at) for line in lines],
        "processor": [line.processor for line in lines],
        "kind": [line.kind for line in lines],
        "about": [line.about for line in lines],
        "cause": [line.cause for line in lines],
        "facts": [encode_json(line.facts).decode() for line in lines],
    }


def _letters(letters: Sequence[Rejected]) -> Columns:
    return {
        "workspace": [letter.workspace for letter in letters],
        "id": [letter.id for letter in letters],
        "at": [stored_ms(letter.at) for letter in letters],
        "refused_by": [letter.by for letter in letters],
        **{
            name: [getattr(letter, name) for letter in letters]
            for name in ("processor", "reason", "field", "value", "mend", "source", "message_id", "key", "topic")
        },
        "log_partition": [letter.partition for letter in letters],
        "log_offset": [letter.offset for letter in letters],
        "record": [letter.record for letter in letters],
        "record_key": [letter.record_key for letter in letters],
    }
