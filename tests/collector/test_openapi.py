"""The API is what /openapi.json says it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.collector.running import KEY, Running
from web.collector.ingest import PATHS
from web.collector.openapi import openapi

pytestmark = pytest.mark.together

# The other paths are second names of these.
TESTED = r"^(/v1/(track|alias|batch|pixel/track|projects/.*)|/beacon/.*|/healthz|/readyz|/metrics)$"


@pytest.mark.slow
def test_schemathesis_finds_nothing(collector: Running, tmp_path: Path):
    ended = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{collector.url}/openapi.json", "--auth", f"{KEY}:",
         "--checks", "all", "--max-examples", "12", "--max-response-time", "2", "--generation-deterministic",
         "--include-path-regex", TESTED, "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout[-6_000:] + ended.stderr[-2_000:]
    assert collector.counted("requests_total", status="200") > 100  # it came further than the write key


def test_every_path_is_described_and_every_description_is_a_path():
    described = set(openapi()["paths"])

    beside = {"/v1/projects/{writeKey}/settings", "/healthz", "/readyz", "/metrics"}
    assert described == set(PATHS) | beside
