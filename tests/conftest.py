"""What the tests share, and what becomes of tests whose machine lacks something.

A test says by a marker what it needs beside Python: `kafka`, `node`, `browser` or `promtool`. Where that is missing the
test is skipped and the run says so in one line at its end; under CI=true it fails, so that nothing is left out unseen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import kafka_broker

OUTSIDE_KAFKA = "TIDEWIRE_TEST_KAFKA"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_LEFT_OUT = "left out: needs "

# How long an example takes says how busy the machine is, not whether the code is right. A failure prints its seed.
settings.register_profile("tidewire", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("tidewire")


def _lacking_kafka() -> str:
    if os.environ.get(OUTSIDE_KAFKA):
        return ""
    lacking = kafka_broker.missing()
    return f"Apache Kafka, and for that {lacking}, or {OUTSIDE_KAFKA}=host:port" if lacking else ""


def _lacking_node() -> str:
    return "" if shutil.which("node") and shutil.which("npm") else "Node.js with npm"


def _lacking_browser() -> str:
    return "" if any(shutil.which(name) for name in BROWSERS) else "Chromium"


def _lacking_promtool() -> str:
    return "" if shutil.which("promtool") else "Prometheus's promtool"


NEEDS: dict[str, Callable[[], str]] = {
    "kafka": lru_cache(_lacking_kafka),
    "node": lru_cache(_lacking_node),
    "browser": lru_cache(_lacking_browser),
    "promtool": lru_cache(_lacking_promtool),
}


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.hasplugin("xdist"):
        return
    items.sort(key=_turn)
    for item in items:
        if item.get_closest_marker("kafka") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("kafka"))  # one worker, so one broker
        elif item.get_closest_marker("together"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _turn(item: pytest.Item) -> int:
    """Long rows of tests that wait for much go first, each with a worker of its own; and nothing slow is left to the
    end."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    firsts = [folder == "faults", item.get_closest_marker("kafka") is not None, folder == "dashboard",
              item.get_closest_marker("slow") is not None, True]  # fmt: skip
    return firsts.index(True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Groups that xdist does not see cost a broker and all worlds once more, and nothing else would say so."""
    if not getattr(session.config.option, "loadgroup", False):  # set in the workers of `--dist loadgroup` alone
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") and item.nodeid.rfind("@") <= item.nodeid.rfind("]"):
            raise RuntimeError(f"pytest-xdist lost the group of {item.nodeid}: do its version and pytest's agree?")


@pytest.hookimpl(tryfirst=True)  # before a fixture tries to start what is missing
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, lacking in NEEDS.items():
        if item.get_closest_marker(marker) and lacking():
            _leave_out(lacking())


def _leave_out(lacking: str) -> None:
    if is_ci():
        pytest.fail(f"CI=true, and this test needs {lacking}", pytrace=False)
    pytest.skip(_LEFT_OUT + lacking)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if _LEFT_OUT in reason:
            what = reason.partition(_LEFT_OUT)[2]
            left_out[what] = left_out.get(what, 0) + 1
    if left_out:
        counted = (f"{n} test{'s' * (n > 1)} that need{'s' * (n == 1)} {what}" for what, n in left_out.items())
        said = "; ".join(counted)
        terminalreporter.write_line(f"Left out: {said}.", yellow=True, bold=True)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """URL of a running Kafka, shared by the tests of a run: give topics and groups names of your own."""
    outside = os.environ.get(OUTSIDE_KAFKA)
    if outside:
        yield f"kafka://{outside}"
        return
    with kafka_broker.Kafka() as cluster:
        yield cluster.url


@pytest.fixture(scope="session")
def can_start_kafka() -> None:
    """For tests that start a Kafka of their own: one from outside must not be hurt."""
    lacking = kafka_broker.missing()
    if lacking:
        _leave_out(f"a Kafka of its own, and for that {lacking}")


@pytest.fixture
def own_kafka(can_start_kafka: None, request: pytest.FixtureRequest) -> Iterator[kafka_broker.Kafka]:
    """A Kafka for one test alone, to stop, kill, pause and start again; the parameter says of how many brokers."""
    with kafka_broker.Kafka(getattr(request, "param", 1)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    return next(path for path in map(shutil.which, BROWSERS) if path)
