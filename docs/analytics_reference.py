"""The reference part of docs/analytics.md, made from the comments that the tables and views carry themselves.

`python -m docs.analytics_reference` writes it anew, by migrating an empty chDB with the tables of every processor.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from processors.registry import load_processors
from sinks.analytics import Analytics
from sinks.coupons import TABLES as OF_COUPONS
from sinks.messages.tables import TABLES
from sinks.migrate import migrate

PAGE = Path(__file__).parent / "analytics.md"
BEGIN = "<!-- From here on made by `python -m docs.analytics_reference`; a test keeps it true. -->"

_TABLES_AND_VIEWS = """
SELECT name, comment, engine = 'View' AS is_view
FROM system.tables WHERE database = currentDatabase() AND NOT startsWith(name, '.') AND name != 'migrations'
ORDER BY is_view DESC, name
"""
_COLUMNS = """
SELECT table, name, type, comment
FROM system.columns WHERE database = currentDatabase() ORDER BY table, position
"""


async def page(analytics: Analytics) -> str:
    """The page as it should be, for an empty ClickHouse."""
    of_processors = (table for each in load_processors(Path("config")) for table in each.tables)
    await migrate(analytics, [*of_processors, *TABLES, *OF_COUPONS])
    written, _, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    made = reference(await analytics.query(_TABLES_AND_VIEWS), await analytics.query(_COLUMNS))
    return f"{written}{BEGIN}\n\n{made}"


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


async def _write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        analytics = Analytics(f"chdb:{folder}/clickhouse")
        text = await page(analytics)
        await analytics.close()
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_write())
