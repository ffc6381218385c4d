from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collector.running import Running


@pytest.fixture(scope="module", params=["whole", "asgi"])
def collector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for the tests of a module; they tell their events apart by messageId or person.

    Every test runs twice: requests are taken whole where they can be, and all go by ASGI.
    """
    running = Running(tmp_path_factory.mktemp("collector"), is_whole=request.param == "whole").start()
    yield running
    running.stop()


@pytest.fixture
def start_collector(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start one of the test's own."""
    started: list[Running] = []

    def start(**options: Any) -> Running:
        started.append(Running(tmp_path / str(len(started)), **options))
        return started[-1].start()

    yield start
    for running in started:
        running.stop()
