"""Live segments, SQL at rest and a naive program have the same people, over worlds that nobody has thought of; and
what ClickHouse knows of the past is what was remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas.event import Event
from schemas.times import from_ms, to_ms
from sinks.analytics import Analytics
from sinks.migrate import migrate
from sinks.parity.run import differences, forgotten
from sinks.parity.worlds import Person, Told, World, a_world
from tests.sinks.conftest import chdb  # noqa: F401 - a fixture

WORLDS = 334  # of six segments each: more than 2,000 conditions
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


@pytest.mark.slow
@settings(max_examples=WORLDS, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(rng=st.randoms(use_true_random=False))
def test_the_three_agree(analytics: Analytics, loop: asyncio.AbstractEventLoop, rng) -> None:
    async def found() -> list[str]:
        world = a_world(rng, next(_names))
        return [*[str(each) async for each in differences(analytics, world)], *await forgotten(analytics, world)]

    assert loop.run_until_complete(found()) == []


@pytest.mark.parametrize(
    ("zone", "day"),
    [("America/Sao_Paulo", "2018-11-04"), ("Asia/Beirut", "2024-03-31"), ("Africa/Cairo", "2024-04-26"),
     ("Europe/Berlin", "2026-03-29"), ("Australia/Lord_Howe", "2024-10-06"), ("America/New_York", "2026-11-01")],
)  # fmt: skip
def test_an_hour_that_clocks_leave_out_is_the_same_moment_for_all(
    analytics: Analytics, loop: asyncio.AbstractEventLoop, zone: str, day: str
) -> None:
    """Where clocks are put forward at midnight, as in Brazil, Lebanon and Egypt, the day itself begins with it."""
    now_ms = to_ms(datetime.fromisoformat(f"{day}T12:00:00+00:00"))
    at = from_ms(now_ms)
    workspace = next(_names)
    texts = [day, *(f"{day}T{hour:02}:{minute:02}" for hour in range(5) for minute in (0, 15, 30, 45))]
    people = []
    for number, text in enumerate(texts):
        key = f"{workspace}/u:{number}"
        event = Event(message_id=f"e{number}", type="track", workspace=workspace, source="web", timestamp=at,
                      received_at=at, event="A", user_id=str(number))  # fmt: skip
        people.append(Person(key, (key,), (Told(key, event),), {"renewal": text}))
    windows = ["1 calendar day", *(f"{minutes} minutes" for minutes in range(420, 1_080, 30))]
    segments = {f"s{number}": {"attribute": "told.renewal", "within": window} for number, window in enumerate(windows)}
    world = World(workspace, zone, now_ms, segments, tuple(people))

    async def found() -> list[str]:
        return [str(each) async for each in differences(analytics, world)]

    assert loop.run_until_complete(found()) == []
