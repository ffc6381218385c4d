"""Rows for ClickHouse, and the portrait of a person: values of topics `rows`, `profiles` and `decisions`. JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw


class TableRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row of a processor's table. Of two with the same table and key columns the higher version stays.

    Attributes:
        table: name of the ClickHouse table.
        key: the person key whose history it came from; `identities` says whose it is today.
        values: an object with the columns of the table.
    """

    table: str
    workspace: str
    key: str
    version: int
    is_deleted: bool = False
    values: Raw | dict[str, Any]


class Identity(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which person a key belongs to, and why."""

    key: str
    person: str
    moves: int
    evidence: str = ""  # message id of the event that linked them
    linked_at: datetime | None = None


class Portrait(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The newest profile of a person: the golden record in readable form.

    Attributes:
        key: the person key.
        revision: of two portraits of a key the higher stays.
        merged_into: the key she was merged into; then nothing else is said.
        identities: every person key whose history is hers, her own among them.
        sections: what each processor shows of her, by its name.
    """

    key: str
    workspace: str
    revision: int
    at: datetime
    merged_into: str = ""
    identities: list[Identity] = []
    sections: dict[str, Any] = {}


class LedgerLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One decision about a person, with its cause.

    Attributes:
        id: of the line; those of one cause sort by it in the order in which they were decided.
        cause: the input record's id, `topic-partition@offset`.
    """

    id: str
    workspace: str
    person: str
    at: datetime
    processor: str
    kind: str
    about: str
    cause: str
    facts: Mapping[str, str | int | float | bool | None] = {}


def row_once(table: str, person: str, values: msgspec.Struct) -> TableRow:
    """A row of a person key that is never changed: written again it is the same."""
    return TableRow(table=table, workspace=person.partition("/")[0], key=person, version=1,
                    values=Raw(encode_json(values)))  # fmt: skip


encode_json = msgspec.json.Encoder(decimal_format="string").encode
decode_table_row = msgspec.json.Decoder(TableRow).decode
decode_portrait = msgspec.json.Decoder(Portrait).decode
decode_ledger_line = msgspec.json.Decoder(LedgerLine).decode
