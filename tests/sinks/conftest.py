"""Real ClickHouse engines for the tests of sinks: chDB in this process, and chDB behind HTTP in another."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sinks.analytics import Analytics
from sinks.migrate import migrate


class Bridge:
    """A stand-in for a server, in its own process; see tests/sinks/bridge.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"clickhouse://tidewire@127.0.0.1:{self.port}/tidewire"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.sinks.bridge", "--path", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def make_trouble(self, **trouble: object) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/_bridge", json.dumps(trouble).encode())
        urllib.request.urlopen(request, timeout=5).close()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    bridge = Bridge(tmp_path / "server")
    bridge.start()
    yield bridge
    bridge.kill()


@pytest.fixture
async def chdb(tmp_path: Path) -> AsyncIterator[Analytics]:
    """chDB in this process, empty."""
    analytics = Analytics(f"chdb:{tmp_path / 'clickhouse'}")
    yield analytics
    await analytics.close()


@pytest.fixture
async def analytics(chdb: Analytics) -> Analytics:
    """chDB in this process, migrated."""
    await migrate(chdb)
    return chdb


@pytest.fixture(params=["chdb", "server"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Analytics]:
    """ClickHouse on either ground, empty."""
    bridge = Bridge(tmp_path / "server")
    if request.param == "server":
        bridge.start()
    analytics = Analytics(bridge.url if request.param == "server" else f"chdb:{tmp_path / 'clickhouse'}", "secret")
    await analytics.start()
    yield analytics
    await analytics.close()
    bridge.kill()
