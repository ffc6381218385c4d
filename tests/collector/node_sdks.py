"""The JavaScript SDKs of sdks/package-lock.json, installed once and then kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

SDKS = Path(__file__).parent / "sdks"
CACHE = Path(__file__).parents[2] / ".cache" / "node"


def node_modules() -> Path:
    """Where they are. Other tests may install them at the same time: the first to end is kept."""
    files = [SDKS / "package.json", SDKS / "package-lock.json"]
    place = CACHE / sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    if not place.exists():
        aside = place.with_name(f"{place.name}.{os.getpid()}")
        aside.mkdir(parents=True)
        for file in files:
            shutil.copy(file, aside)
        # `npm ci` wants the native add-ons of every platform in the lock; all are optional, and none is needed.
        subprocess.run(
            ["npm", "install", "--omit=optional", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"],
            cwd=aside, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        try:
            aside.rename(place)
        except OSError:
            shutil.rmtree(aside)
    return place / "node_modules"
