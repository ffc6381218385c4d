"""Live segments, SQL at rest and a naive program have the same people, over worlds that nobody has thought of; and
what ClickHouse knows of the past is what was remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sinks.analytics import Analytics
from sinks.migrate import migrate
from sinks.parity.run import differences, forgotten
from sinks.parity.worlds import a_world
from tests.sinks.conftest import chdb  # noqa: F401 - a fixture

WORLDS = 350  # of six segments each: more than 2,000 conditions
_names = (f"w{number}" for number in count())


@pytest.fixture(scope="module")
def loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def analytics(loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory):
    analytics = Analytics(f"chdb:{tmp_path_factory.mktemp('parity') / 'clickhouse'}")
    loop.run_until_complete(migrate(analytics))
    yield analytics
    loop.run_until_complete(analytics.close())


@settings(max_examples=WORLDS, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(rng=st.randoms(use_true_random=False))
def test_the_three_agree(analytics: Analytics, loop: asyncio.AbstractEventLoop, rng) -> None:
    async def found() -> list[str]:
        world = a_world(rng, next(_names))
        return [*[str(each) async for each in differences(analytics, world)], *await forgotten(analytics, world)]

    assert loop.run_until_complete(found()) == []
