"""The reference part of docs/analytics.md, made from the comments that the tables and views carry themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BEGIN = "<!-- made by `python -m sinks.reference`; a test keeps it true -->"

TABLES_AND_VIEWS = """
SELECT name, comment, engine = 'View' AS is_view
FROM system.tables WHERE database = currentDatabase() AND NOT startsWith(name, '.') AND name != 'migrations'
ORDER BY is_view DESC, name
"""
COLUMNS = """
SELECT table, name, type, comment
FROM system.columns WHERE database = currentDatabase() ORDER BY table, position
"""


def reference(tables: Iterable[Mapping[str, Any]], columns: Iterable[Mapping[str, Any]]) -> str:
    """Every view, then every table, with its columns: Markdown. The arguments are the rows of the queries above."""
    of_table: dict[str, list[str]] = {}
    for column in columns:
        line = f"| `{column['name']}` | `{column['type']}` | {_cell(column['comment'])} |"
        of_table.setdefault(column["table"], []).append(line)
    parts = []
    for table in tables:
        kind = "View" if table["is_view"] else "Table"
        rows = "\n".join(of_table[table["name"]])
        head = f"### {kind} `{table['name']}`\n\n{table['comment']}\n\n| column | type | what |\n|---|---|---|"
        parts.append(f"{head}\n{rows}\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
