"""The table of rows in docs/faults.md, made from the rows themselves.

    python -m tests.faults.reference        writes it anew
"""

from __future__ import annotations

import inspect
from pathlib import Path

from tests.faults.rows import all_rows

PAGE = Path(__file__).parent.parent.parent / "docs" / "faults.md"
MARK = "<!-- From here on made by `python -m tests.faults.reference`; a test keeps it true. -->\n"
GROUNDS = {"kafka": "Kafka", "embedded": "one process", "none": "–"}


def reference() -> str:
    """A line for each row: what it does, in the words of its docstring."""
    lines = ["| row | fault | on | what happens, and what must hold | recovery |", "|---|---|---|---|---|"]
    for row in all_rows():
        brokers = f", {row.brokers} brokers" if row.brokers > 1 else ""
        name = row.name + (" (LONG=1)" if row.is_long_only else "") + (" ◦" if row.is_short else "")
        text = " ".join((inspect.getdoc(row.run) or "").split()).replace("|", "\\|")
        lines.append(f"| {row.number} | {name} | {GROUNDS[row.ground]}{brokers} | {text} | {row.limit_s:g} s |")
    return "\n".join(lines) + "\n"


def whole_page() -> str:
    """The page with its table as it must be."""
    before, _, _ = PAGE.read_text().partition(MARK)
    return f"{before}{MARK}\n{reference()}"


if __name__ == "__main__":
    PAGE.write_text(whole_page())
