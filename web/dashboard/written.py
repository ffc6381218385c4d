"""A segment as a person would write it: the YAML of a version, and what changed from one version to the next."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import unified_diff
from typing import Any, NamedTuple

import yaml

from schemas.conditions import KINDS, read_condition
from schemas.segments import Said
from sinks.messages.rendering import Template

WIDTH = 100  # of a line
CONTEXT_LINES = 2  # around a change


def title_of(said: Said | Template, language: str) -> str:
    """Its name for people: in their language, else in English, else in any; else its name."""
    return said.title.get(language) or said.title.get("en") or next(filter(None, said.title.values()), said.name)


def yaml_of(said: Said) -> str:
    """Title, purpose and condition, as they are written in a file; `config.segments.parse_segment` reads the same.

    >>> print(yaml_of(Said(name="buyers", version=1, when={"at_least": 2, "did": "Order", "where": [{"property": "a",
    ...     "is": 1}]}, title={"en": "Buyers"})), end="")
    title: {en: Buyers}
    when:
      did: Order
      where: {a: 1}
      at_least: 2
    """
    condition = read_condition(said.when).model_dump(mode="json", by_alias=True, exclude_none=True)
    parts: dict[str, Any] = {"title": dict(said.title), "about": said.about}
    kept = {name: value for name, value in parts.items() if value}
    return yaml.safe_dump({**kept, "when": _written(condition)}, sort_keys=False, allow_unicode=True, width=WIDTH,
                          default_flow_style=None)  # fmt: skip


def _written(node: Any) -> Any:
    """The key that names a node first, and tests on properties in their short form."""
    if isinstance(node, list):
        return [_written(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    first = [key for key in node if key in KINDS or key == "property"]
    rest = [key for key in node if key not in first and not (key == "where" and not node[key])]
    written = {key: _written(node[key]) for key in (*first, *rest)}
    if "where" in written:
        written["where"] = _wheres(written["where"])
    return written


def _wheres(wheres: list[dict[str, Any]]) -> Any:
    """`{category: Tea}` for `[{property: category, is: Tea}]`, where no two tests are on the same property."""
    names = [where["property"] for where in wheres]
    if len(set(names)) < len(names) or "property" in names:
        return wheres
    tests = ({key: value for key, value in where.items() if key != "property"} for where in wheres)
    return {name: test["is"] if list(test) == ["is"] else test for name, test in zip(names, tests, strict=True)}


class DiffLine(NamedTuple):
    """One line of a diff. `kind`: `added`, `removed`, `same`, or `gap` where lines are left out."""

    kind: str
    text: str


_KINDS = {"+": "added", "-": "removed", " ": "same", "@": "gap"}


def changed(before: Said | None, after: Said) -> list[DiffLine]:
    """What a version changed of the one before it; of the first, all of it. Nothing for one that took it out."""
    if after.is_gone:
        return []
    return diff_of("" if before is None or before.is_gone else yaml_of(before), yaml_of(after))


def diff_of(old: str, new: str) -> list[DiffLine]:
    """What changed from one text to another, line by line, with a little of what stands around it."""
    lines = list(unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=CONTEXT_LINES))
    # The first three lines name the files and the first place.
    return [DiffLine(_KINDS[line[0]], "" if line[0] == "@" else line[1:]) for line in lines[3:]]
