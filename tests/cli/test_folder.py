"""The data folder of a worker, and a process whose log lines nobody reads any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import TidewireError, Unreachable
from streams.folder import owned
from tests.cli.command import environment


def test_a_folder_is_one_workers_and_then_the_next_ones(tmp_path: Path):
    folder = tmp_path / "made" / "worker-1"

    says = rf"process {os.getpid()} already\. Give each worker"
    with owned(folder), pytest.raises(Unreachable, match=says), owned(folder):
        pass
    with owned(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()

    refused = pytest.raises(TidewireError, match=r"file/data cannot be written: Not a directory\. Name another")
    with refused, owned(tmp_path / "file" / "data"):
        pass


@pytest.mark.slow
def test_a_process_whose_log_nobody_reads_goes_on_and_stops_when_told(tmp_path: Path):
    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "up", "--data", str(data), "--port", "0"], env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.close()

    until = time.monotonic() + 60
    while not (data / "run.json").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)

    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
