"""Blocks of ClickHouse's format Native.

The driver's own insert encodes all rows together, when they stand ready. By then most of them have left the processor's
cache, all of them lie in memory at once, and so does pandas, which it imports to see whether it was given a data frame.
Here what has many rows is encoded while it is read, a few hundred at a time; what is kept is bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lz4.frame


class NotPacked(Exception):
    """A value is none of its column's type, or does not fit it."""


class Packer:
    """Encodes rows of one table.

    Args:
        types: the ClickHouse type of each column, in the order in which `block` is given them.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        from clickhouse_connect.datatypes.registry import get_from_name
        from clickhouse_connect.driver.insert import InsertContext

        self.names = tuple(types)
        kinds = [get_from_name(kind) for kind in types.values()]
        self._context = InsertContext("", self.names, kinds, column_oriented=True)
        self._columns = [
            (name, _text(name) + _text(kind.insert_name), kind) for name, kind in zip(types, kinds, strict=True)
        ]

    def block(self, columns: Sequence[Sequence[Any]]) -> bytes:
        """The columns, of which each has the same number of rows.

        Raises:
            NotPacked
        """
        from clickhouse_connect.driver.exceptions import DataError

        block = bytearray(_number(len(columns)) + _number(len(columns[0])))
        for (name, head, kind), values in zip(self._columns, columns, strict=True):
            block += head
            self._context.start_column(name)
            try:
                kind.write_column(values, block, self._context)
            except (DataError, ArithmeticError, TypeError, ValueError) as error:
                raise NotPacked(f"column {name}: {error}") from error
        return bytes(block)


class Packed:
    """Rows of one table that are encoded already: the names of their columns, and blocks of them."""

    def __init__(self, names: Sequence[str], blocks: Sequence[bytes]) -> None:
        self.names = names
        self.blocks = blocks

    def compressed(self) -> bytes:
        """All blocks together, as a frame of LZ4."""
        return bytes(lz4.frame.compress(b"".join(self.blocks)))


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _number(len(encoded)) + encoded


def _number(number: int) -> bytes:
    """As Native writes lengths: seven bits a byte, the least first (LEB128)."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
