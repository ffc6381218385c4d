"""Worlds for the pages to stand on, each a process of its own, and a browser to look at them."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

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


@pytest.fixture(scope="module")  # while it is open no test of the module may be async
def browser() -> Iterator[Browser]:
    path = next(path for path in map(shutil.which, BROWSERS) if path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser who looks at the pages of a world. What a page must never do is remembered."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(20_000)
        self.context.add_init_script(
            "window.violations = []; document.addEventListener('securitypolicyviolation', "
            "(event) => window.violations.push(event.violatedDirective + ' ' + event.blockedURI))"
        )
        self.dialogs: list[str] = []
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.context.on("request", lambda request: self._request(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, url: str) -> None:
        if not url.startswith((self.url, "data:")):
            self.elsewhere.append(url)

    def open(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}", wait_until="load")

    def complaints(self) -> list[str]:
        """Dialogs, script errors, breaches of the policy and requests to other sites, on this page and before."""
        return self.dialogs + self.faults + self.elsewhere + self.page.evaluate("window.violations")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Somebody who looks at a world: `visit(world, color_scheme="dark")`."""
    visitors: list[Visitor] = []

    def visit(world: World, **options: Any) -> Visitor:
        visitors.append(Visitor(browser, world.url, **options))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.context.close()
