"""A run says what it left out, and under CI=true it may leave out nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ONE_OF_EACH = """
import pytest

@pytest.mark.{marker}
def test_that_needs_something():
    raise AssertionError("it ran without what it needs")

def test_that_needs_nothing():
    pass
"""


def run_on_a_bare_machine(folder: Path, marker: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a small suite with our conftest where no program can be found."""
    (folder / "test_small.py").write_text(ONE_OF_EACH.format(marker=marker))
    root = Path(__file__).parents[1]
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "TIDEWIRE_TEST_KAFKA")}
    bare = {"PATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ["-p", "tests.conftest", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-c", str(root / "pyproject.toml"), "--rootdir", str(folder),
         str(folder)],
        cwd=root, env=inherited | bare | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("marker", "said"), [("kafka", "Apache Kafka"), ("node", "Node.js"), ("browser", "Chromium")])
def test_a_run_without_what_a_test_needs_leaves_it_out_and_says_so(tmp_path: Path, marker: str, said: str) -> None:
    run = run_on_a_bare_machine(tmp_path, marker)

    assert run.returncode == 0, run.stdout
    assert f"Left out: 1 test that needs {said}" in run.stdout
    assert "1 passed, 1 skipped" in run.stdout


def test_under_ci_nothing_may_be_left_out(tmp_path: Path) -> None:
    run = run_on_a_bare_machine(tmp_path, "kafka", CI="true")

    assert run.returncode == 1
    assert "CI=true, and this test needs Apache Kafka" in run.stdout
    assert "TIDEWIRE_TEST_KAFKA=host:port" in run.stdout
    assert "1 passed, 1 error" in run.stdout


def test_an_outside_kafka_is_enough(tmp_path: Path) -> None:
    run = run_on_a_bare_machine(tmp_path, "kafka", TIDEWIRE_TEST_KAFKA="127.0.0.1:9")

    assert "it ran without what it needs" in run.stdout
