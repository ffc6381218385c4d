"""Worlds for the pages to stand on, each a process of its own, and a browser to look at them."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import BROWSERS

ROOT = Path(__file__).parents[2]
START_S = 120
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run")  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.xdist_group("dashboard"))  # one worker, so each world runs once


class World:
    """A running Tidewire with the events of a scene."""

    def __init__(self, scene: str, folder: Path) -> None:
        self._errors = (folder / "errors").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.dashboard.world", scene, str(folder / "data")],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            said = self.errors()[-3000:]
            self.stop()
            pytest.fail(f"the world {scene!r} did not start: {said}")
        self.url: str = json.loads(line)["url"]
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def errors(self) -> str:
        """What went wrong inside, as far as it was logged."""
        self._errors.seek(0)
        return self._errors.read()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """The world of a scene, started when first asked for."""
    worlds: dict[str, World] = {}

    def of(scene: str) -> World:
        if scene not in worlds:
            worlds[scene] = World(scene, tmp_path_factory.mktemp(scene))
        return worlds[scene]

    yield of
    for each in worlds.values():
        each.http.close()
        each.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(path for path in map(shutil.which, BROWSERS) if path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()
