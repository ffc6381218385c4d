from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collector.running import Running


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for the tests of a module; they tell their events apart by messageId or person."""
    running = Running(tmp_path_factory.mktemp("collector")).start()
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
