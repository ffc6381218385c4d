"""The short rows of the fault matrix, in every run of the tests. All of them: `make faults`, see docs/faults.md."""

from __future__ import annotations

import random

import pytest

from tests.faults.__main__ import run
from tests.faults.reference import PAGE, whole_page
from tests.faults.rows import Row, all_rows

SHORT = [row for row in all_rows() if row.is_short]


def _case(row: Row) -> object:
    # One group, so that no two of them press the machine at the same time.
    marks = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
    if row.ground == "kafka":
        marks.append(pytest.mark.kafka)
    return pytest.param(row, marks=marks, id=f"{row.number} {row.name}")


@pytest.mark.parametrize("row", [_case(row) for row in SHORT])
def test_nothing_is_lost_and_nothing_happens_twice_after(row: Row, request: pytest.FixtureRequest):
    if row.ground == "kafka":
        request.getfixturevalue("can_start_kafka")
    seed = random.randrange(10**6)

    _, wrong = run(row, seed)

    assert not wrong, f"row {row.number}, seed {seed}: {wrong}"


def test_both_grounds_are_among_them():
    assert {row.ground for row in SHORT} >= {"kafka", "embedded"}


def test_the_page_says_what_every_row_does():
    assert PAGE.read_text() == whole_page(), "run `python -m tests.faults.reference`"
