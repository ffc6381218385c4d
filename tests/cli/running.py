"""`tidewire up` as a process of its own, with commands that ask it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cli.command import Done, environment, tidewire


class Up:
    """A running `tidewire up` over the folder `data` in `folder`; `program` is another one, as `python -m` names it."""

    def __init__(self, folder: Path, data: str = "data", *, program: str = "streams.cli", **settings: str) -> None:
        self.folder = folder
        self.data = data
        with (folder / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, "up", "--data", data, "--port", "0"],
                cwd=folder, env=environment(**settings), stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        for _ in range(600):
            if self._said("pid") == self.process.pid:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.process.kill()
        self.process.wait()
        raise AssertionError((folder / "up.log").read_text())

    def ask(self, *arguments: str, **more: str) -> Done:
        return tidewire(*arguments, "--data", self.data, cwd=self.folder, timeout_s=120, **more)

    def _said(self, what: str) -> Any:
        try:
            return json.loads((self.folder / self.data / "run.json").read_text())[what]
        except FileNotFoundError:
            return None

    @property
    def url(self) -> str:
        return str(self._said("url"))

    def count(self, query: str) -> int:
        """The one number of a query."""
        found = self.ask("sql", query, "--json")
        assert found.code == 0, found.err
        return int(next(iter(found.json.values())))

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out
