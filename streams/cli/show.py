"""Answers as text for people, and as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

WIDEST_LINE = 100_000
WIDEST_CELL = 60  # characters of a nested value


def as_json_line(value: Any) -> str:
    """One line of JSON. Decimals are numbers with all their digits; times are ISO 8601."""
    return msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode(value).decode()


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table with their column names; the number of rows below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        print("no rows")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numeric = {name for name in rows[0] if isinstance(rows[0][name], int | float | Decimal)}
    for name in rows[0]:
        table.add_column(Text(name), justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row.values()))  # Text: what events say is never markup
    # Lines that go into a file or another program are not folded.
    width = None if sys.stdout.isatty() else WIDEST_LINE
    Console(highlight=False, width=width).print(table)
    print(f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}")


def cell(value: Any) -> str:
    """A value as the text of a cell, without signs that a terminal would act on."""
    match value:
        case None:
            text = ""
        case datetime():
            text = value.isoformat(sep=" ", timespec="milliseconds" if value.microsecond else "seconds")
            text = text.replace("+00:00", "Z")
        case date():
            text = value.isoformat()
        case Mapping() | list():
            text = json.dumps(value, ensure_ascii=False, default=str)
            text = text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"
        case str() if value.endswith("+00:00") and value[:1].isdigit():
            text = value.removesuffix("+00:00") + "Z"
        case _:
            text = str(value)
    return plain(text)


def plain(text: str) -> str:
    """The text without control signs: an event must not colour, move or clear the terminal.

    >>> plain("a\\x1b[31mb")
    'a�[31mb'
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, one a line; what is empty is left out."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {}, 0)}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {cell(value)}")


def print_person(found: Mapping[str, Any]) -> None:
    portrait = found.get("portrait") or {}
    print(cell(found["person"]))
    print()
    print_facts({name: portrait.get(name) for name in _OF_PORTRAIT})
    traits = portrait.get("traits")
    if isinstance(traits, Mapping) and traits:
        print("\nTraits")
        print_facts(traits)
    for title, rows in (
        ("Identities", [{"key": each["key"], "by event": each.get("evidence"), "at": each.get("linked_at")}
                        for each in found.get("identities") or ()]),
        ("Events", [{"event": each["event"], "count": each["count"], "first": each["first"], "last": each["last"]}
                    for each in found.get("events") or ()]),
        ("Segments", [{"segment": each["segment"], "since": each["since"]} for each in found.get("segments") or ()]),
        ("Newest", [{"at": each.get("timestamp"), "event": each.get("event") or each.get("name") or each.get("type"),
                     "source": each.get("source"), "messageId": each.get("messageId")}
                    for each in found.get("timeline") or ()]),
    ):  # fmt: skip
        if rows:
            print(f"\n{title}")
            print_table(rows)


_OF_PORTRAIT = ("user_id", "name", "email", "phone", "company", "locale", "timezone", "first_seen", "last_seen",
                "events", "visits", "orders", "revenue", "first_order_at", "last_order_at")  # fmt: skip


def print_rejected(found: Mapping[str, Any]) -> None:
    if not found["reasons"]:
        print("nothing was rejected")
        return
    print_table([{"reason": each["reason"], "by": each["processor"] or each["refused_by"], "open": each["open"],
                  "all": each["times"], "last": each["last"]} for each in found["reasons"]])  # fmt: skip
    if found["letters"]:
        print()
        print_table([{"id": each["id"], "at": each["at"], "reason": each["reason"], "field": each["field"],
                      "value": each["value"], "key": each["key"]} for each in found["letters"]])  # fmt: skip
    if found["has_more"]:
        print("there are more: --limit N")


def print_letter(letter: Mapping[str, Any]) -> None:
    print_facts({name: value for name, value in letter.items() if name not in _NOT_SHOWN})
    print()
    print(plain(str(letter["body"])))


_NOT_SHOWN = ("body", "record", "record_key", "at_ms")
