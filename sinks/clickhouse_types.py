"""ClickHouse's types, as this side sees them: the text of a type, read as the Python type its values have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Optional

import msgspec

_PLAIN: dict[str, Any] = {
    "String": str, "FixedString": str, "UUID": str, "IPv4": str, "IPv6": str, "Enum8": str, "Enum16": str,
    "Date": date, "Date32": date, "DateTime": datetime, "DateTime64": datetime,
    "Decimal": Decimal, "Decimal32": Decimal, "Decimal64": Decimal, "Decimal128": Decimal, "Decimal256": Decimal,
    "Bool": bool, "Nothing": None,
    "Float32": Optional[float], "Float64": Optional[float],  # nan and inf are null in JSON  # noqa: UP045
}  # fmt: skip
_INTEGER = re.compile(r"U?Int\d+\Z")


@lru_cache(maxsize=1_000)
def python_type(clickhouse_type: str) -> Any:
    """The type of a column's values in ClickHouse's JSON formats; `Any` where they vary or are not known here.

    >>> python_type("LowCardinality(Nullable(String))"), python_type("Map(String, Decimal(18, 4))")
    (typing.Optional[str], dict[str, decimal.Decimal])
    """
    name, _, rest = clickhouse_type.partition("(")
    inner = list(_arguments(rest[:-1])) if rest else []
    if name == "Nullable":
        return Optional[python_type(inner[0])]  # noqa: UP045
    if name in ("LowCardinality", "SimpleAggregateFunction"):
        return python_type(inner[-1])
    if name == "Array":
        return list[python_type(inner[0])]  # type: ignore[misc]
    if name == "Map":
        return dict[python_type(inner[0]), python_type(inner[1])]  # type: ignore[misc]
    if name in _PLAIN:
        return _PLAIN[name]
    return int if _INTEGER.match(name) else Any


def _arguments(text: str) -> Iterator[str]:
    """The arguments of a type: split at the commas that stand in no brackets and no quotes.

    >>> list(_arguments("String, Map(String, Enum8('a,b' = 1))"))
    ['String', "Map(String, Enum8('a,b' = 1))"]
    """
    depth, start, quoted, escaped = 0, 0, False, False
    for i, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "'":
            quoted = not quoted
        elif not quoted:
            depth += (char == "(") - (char == ")")
            if char == "," and depth == 0:
                yield text[start:i].strip()
                start = i + 1
    yield text[start:].strip()


class Answer(msgspec.Struct, frozen=True):
    """What a query gave: names of the columns, and the rows, each a tuple in their order."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def read_answer(body: bytes) -> Answer:
    """Read an answer in format `JSONCompactEachRowWithNamesAndTypes`."""
    first, _, rest = body.partition(b"\n")
    if not first:
        return Answer((), [])
    types, _, lines = rest.partition(b"\n")
    try:
        rows = _decoder(types).decode_lines(lines)
    except RecursionError:  # JSON nested more deeply than Python reads: such values stay text
        rows = [tuple(map(_text_of_raw, row)) for row in _decoder(types, msgspec.Raw).decode_lines(lines)]
    return Answer(tuple(_names(first)), rows)


_names = msgspec.json.Decoder(list[str]).decode


@lru_cache(maxsize=500)
def _decoder(types: bytes, varying: Any = Any) -> msgspec.json.Decoder[tuple[Any, ...]]:
    known = (python_type(name) for name in _names(types))
    columns = tuple(varying if kind is Any else kind for kind in known)
    return msgspec.json.Decoder(tuple[columns] if columns else tuple[()])  # type: ignore[valid-type]


def _text_of_raw(value: Any) -> Any:
    return str(value, "utf-8", "replace") if isinstance(value, msgspec.Raw) else value
