"""Writes the figures of docs/benchmarks.json into docs/benchmarks.md: `python -m bench.document`.

The JSON is what `python -m bench --out docs/benchmarks.json` wrote; nothing of the table is typed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.child import ROOT
from bench.measure import HEADINGS, lines_of

PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
BEGIN, END = "<!-- figures: made by `python -m bench.document` -->", "<!-- end of the figures -->"


def with_figures(page: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The page with the figures in their place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{figures(results)}\n\n{END}{after}"


def figures(results: Sequence[Mapping[str, Any]]) -> str:
    """All figures as Markdown: the machine, then a table for each part, then what must be known of them."""
    if not results:
        return "None are kept yet."
    return "\n\n".join([_machine(results[0]), *map(_part, results)])


def _machine(result: Mapping[str, Any]) -> str:
    found = result["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gb']} GB, {found['system']}, "
        f"Python {found['python']}; {packages}."
    )


def _part(result: Mapping[str, Any]) -> str:
    size = ", ".join(f"{name} {value}" for name, value in result["input"].items())
    load = " to ".join(str(result["load"][when][0]) for when in ("before", "after"))
    quick = " **A quick run: its figures say nothing.**" if result["quick"] else ""
    headings = HEADINGS[1:]
    rows = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    rows += ["| " + " | ".join(line[1:]) + " |" for line in lines_of(result)]
    about = f"{result['at'][:10]}, {result['seconds']:.0f} s, load average {load}; {size}.{quick}"
    return "\n".join([f"### {result['part']}", "", about, "", *rows, *(f"\n{note}" for note in result["notes"])])


def kept() -> list[dict[str, Any]]:
    """The results that the page shows."""
    results: list[dict[str, Any]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else []
    return results


def main() -> None:
    PAGE.write_text(with_figures(PAGE.read_text(), kept()))


if __name__ == "__main__":
    main()
