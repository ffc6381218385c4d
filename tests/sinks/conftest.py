"""Real ClickHouse engines for the tests of sinks: chDB in this process, and chDB behind HTTP in another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sinks.analytics import Analytics
from sinks.migrate import migrate
from tests.sinks.server import Bridge


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
