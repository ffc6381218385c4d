"""Packages of npm, installed once and then kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "node"


def node_modules(name: str, packages: Iterable[str] = (), files: Iterable[Path] = ()) -> Path:
    """Where they are, under a name that says which. Other tests may install them at the same time: the first to end is
    kept.

    Args:
        files: `package.json` and what stands beside it, where these say which packages.
    """
    place = CACHE / name
    if not place.exists():
        aside = place.with_name(f"{name}.{os.getpid()}")
        aside.mkdir(parents=True)
        for file in files:
            shutil.copy(file, aside)
        # `npm ci` wants the native add-ons of every platform in the lock; all are optional, and none is needed.
        subprocess.run(
            ["npm", "install", "--omit=optional", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund",
             "--prefix", str(aside), *packages],
            cwd=aside, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        try:
            aside.rename(place)
        except OSError:
            shutil.rmtree(aside)
    return place / "node_modules"
