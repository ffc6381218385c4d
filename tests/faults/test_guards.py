"""A test of the tests: each guard of the worker is taken away, and a row of the fault matrix notices.

The same row with the guard is green: here, or in tests/faults/test_rows.py where it is one of the short ones. Without
these tests nobody would know whether a green row means that Tidewire is right, or that the row looks away.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rows import Outcome, Row, Scene, all_rows

SEED = 1
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]  # one at a time: they press the machine


def the_row(name: str) -> Row:
    (found,) = (row for row in all_rows() if row.name == name)
    return found


def run(row: Row, folder: Path, without: str = "") -> tuple[Outcome, list[str]]:
    scene = Scene(row, folder, SEED, without=without)
    try:
        outcome = row.run(scene)
    finally:
        scene.close()
    return outcome, row.faults_of(outcome)


STEPS = "killed after each step of a checkpoint"
TWICE = "everything sent twice"
BACK = "offsets set back to the beginning"
LATE = "worker stops as it writes to the changelog"
UNANSWERED = "answers of ClickHouse lost"


def test_the_other_rows_are_green_in_every_run_of_the_tests():
    assert the_row(STEPS).is_short
    assert the_row(BACK).is_short
    assert the_row(UNANSWERED).is_short


@pytest.mark.parametrize("name", [TWICE, pytest.param(LATE, marks=pytest.mark.kafka)])
def test_with_every_guard_the_row_is_green(name: str, tmp_path: Path):
    _, faults = run(the_row(name), tmp_path)

    assert faults == []


@pytest.mark.kafka
def test_without_its_lease_a_late_writer_does_no_harm_as_its_epoch_is_old(tmp_path: Path):
    _, faults = run(the_row(LATE), tmp_path, without="lease")

    assert faults == []


@pytest.mark.parametrize(
    ("guard", "name", "turns"),
    [
        ("fence", BACK, "doubled"),
        ("message_ids", TWICE, "doubled"),
        ("flush", STEPS, "lost"),
        ("outputs_first", STEPS, "lost"),
        pytest.param("ownership", LATE, "wrong", marks=pytest.mark.kafka),
        pytest.param("tokens", UNANSWERED, "wrong", marks=pytest.mark.kafka),
    ],
)
def test_without_a_guard_a_row_turns_red(guard: str, name: str, turns: str, tmp_path: Path):
    row = the_row(name)

    outcome, faults = run(row, tmp_path, without=guard)

    assert faults, f"row {row.number}, {row.name!r}, does not notice that the guard {guard!r} is gone"
    assert getattr(outcome, turns), faults
