"""docs/processors.md, made from what the processors declare: `python -m processors.reference`."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getdoc
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from processors.base import EVERY_EVENT, Processor, Table
from processors.registry import load_processors

FILE = Path(__file__).parent.parent / "docs" / "processors.md"

HEAD = """\
<!-- made by `python -m processors.reference`; a test keeps it true -->
# The processors

Every event goes through these, in this order. Each keeps a state per person key; a person who was merged is viewed over
all her keys, so a merge can be undone. What a processor shows of a person stands in her portrait (topic `profiles`,
column `sections` of table `people`) under its name, and its tables are in ClickHouse.
How to add one: [adding-a-processor.md](adding-a-processor.md).

**Late, twice, out of order.** What a person looks like depends on when things happened, not on when they were heard of.
Of two words on one thing the newer by the event's own `timestamp` counts; of the same instant, that with the greater
message id. An event that comes again is dropped by its message id for 24 hours; after that the processors below still
know an order by its order id and a refund by its refund id, while a count of events counts it again. Where a processor
has to forget, its limits below say how late is too late, and what came later is counted, never hidden.

**Between persons.** Whatever order two or more persons are merged in, the result is the same. Consent only narrows:
see `profile`.

| processor | version | events | tables | what |
|---|---|---|---|---|
"""


def reference(processors: Iterable[Processor[Any]]) -> str:
    """The page, in Markdown."""
    found = list(processors)
    return HEAD + "".join(map(_line, found)) + "".join(map(_section, found))


def _line(processor: Processor[Any]) -> str:
    tables = ", ".join(f"`{table.name}`" for table in processor.tables)
    name = f"[{processor.name}](#{processor.name})"
    cells = (name, str(processor.version), _wants(processor), tables, processor.about)
    return f"| {' | '.join(cells)} |\n"


def _wants(processor: Processor[Any]) -> str:
    return "every one" if EVERY_EVENT in processor.wants else ", ".join(sorted(processor.wants))


def _section(processor: Processor[Any]) -> str:
    parts = [f"\n## {processor.name}\n", getdoc(type(processor)) or processor.about, ""]
    parts += _rows("Limits", ("limit", "beyond it"), processor.limits.items())
    parts += _rows(
        f"Settings, in `config/processors/{processor.name}.yaml`", ("setting", "default", "what"),
        ((f"`{name}`", f"`{field.default}`" if not isinstance(field.default, tuple) else ", ".join(field.default),
          field.description or "") for name, field in type(processor).Settings.model_fields.items()),
    )  # fmt: skip
    for table in processor.tables:
        parts += [*_rows(f"Table `{table.name}`", ("column", "type"), _columns(table)), f"{table.about} Key: "
                  + ", ".join(f"`{column}`" for column in ("workspace", "key", *table.key)) + ".", ""]  # fmt: skip
    parts += ["**Kept true by these cases**", "", *(f"- {case['case']}" for case in processor.cases), ""]
    return "\n".join(parts)


def _rows(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [f"**{title}**", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *lines, ""] if lines else []


def _columns(table: Table) -> Iterable[tuple[str, ...]]:
    hints = get_type_hints(table.row)
    for field in msgspec.structs.fields(table.row):
        hint = hints[field.name]
        yield f"`{field.name}`", getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else _short(str(hint))


def _short(hint: str) -> str:
    return hint.replace("decimal.", "").replace("datetime.", "").replace(" | None", ", or null")


if __name__ == "__main__":
    FILE.write_text(reference(load_processors(Path("config"))), encoding="utf-8")
