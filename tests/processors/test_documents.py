"""The pages about processors say what is: what is to be followed to the letter is followed here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from processors.acceptance import LAWS, Verdict, check
from processors.histories import event_of
from processors.reference import FILE, reference
from processors.registry import import_file, load_processors
from sinks.tables import create_table, create_view

GUIDE = Path("docs/adding-a-processor.md")


def test_the_page_of_processors_is_what_they_declare(tmp_path: Path) -> None:
    assert FILE.read_text(encoding="utf-8") == reference(load_processors(tmp_path)), (
        "run: python -m processors.reference"
    )


def code_of(file: str) -> str:
    block = rf"^`{re.escape(file)}`:\n\n```python\n(.*?)^```$"
    found = re.search(block, GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert found, f"{GUIDE} does not show {file}"
    return found[1]


@pytest.fixture
def touchpoints(tmp_path: Path) -> Iterator[ModuleType]:
    file = tmp_path / "touchpoints.py"
    file.write_text(code_of("processors/touchpoints.py"), encoding="utf-8")
    yield import_file(file)
    sys.modules.pop("processors.touchpoints", None)


def test_the_processor_of_the_guide_is_found_and_keeps_the_laws(touchpoints: ModuleType, tmp_path: Path) -> None:
    found = {processor.name: processor for processor in load_processors(tmp_path / "config", [tmp_path])}

    assert check(found["touchpoints"]) == [Verdict("touchpoints", law, True) for law in LAWS]


def test_the_test_of_the_guide_passes(touchpoints: ModuleType) -> None:
    names: dict[str, object] = {}
    exec(compile(code_of("tests/processors/test_touchpoints.py"), str(GUIDE), "exec"), names)
    tests = [test for name, test in names.items() if name.startswith("test_") and callable(test)]

    for test in tests:
        test()

    assert len(tests) == 3


def test_the_table_of_the_guide_can_be_made_in_clickhouse(touchpoints: ModuleType) -> None:
    (table,) = touchpoints.Touchpoints.tables

    assert "`at` DateTime64(3, 'UTC') COMMENT 'when it happened.'" in create_table(table)
    assert "`touchpoints_list`" in create_view(table)


def test_the_laws_of_the_guide_are_those_of_the_suite() -> None:
    listed = re.findall(r"^\d+\. (.*?)(?:[:;(.]|$)", GUIDE.read_text(encoding="utf-8"), re.M)

    assert [law.strip() for law in listed] == list(LAWS)


def test_the_events_of_every_case_are_events() -> None:
    for processor in load_processors(Path("config")):
        for case in processor.cases:
            assert case["case"] and all(event_of(body) for body in case["events"])
