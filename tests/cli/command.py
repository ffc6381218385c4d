"""Runs `tidewire` as a process of its own, as a person does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**more: str) -> dict[str, str]:
    """This process' environment without settings of Tidewire's, and with warnings as errors in our own code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWIRE_")}
    return {**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def tidewire(*arguments: str | Path, stdin: str | None = None, cwd: Path | None = None, timeout_s: float = 60.0,
             **settings: str) -> Done:  # fmt: skip
    """Run one command to its end; `settings` are environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *map(str, arguments)], input=stdin, capture_output=True, text=True,
        cwd=cwd, timeout=timeout_s, env=environment(**settings), check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def is_one_line(err: str) -> bool:
    """Whether it is one line of ours, and no traceback."""
    return err.startswith("tidewire: ") and err.count("\n") == 1 and "Traceback" not in err
