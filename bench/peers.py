"""The environment of the peers whose dependencies are not ours: made once, in `.cache/`.

Quix Streams asks for older versions of libraries that Tidewire uses, so it has its own. Faust needs none: it is the one
that Tidewire itself is built on.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

from bench.child import ROOT
from bench.measure import LeftOut

PINNED = Path(__file__).parent / "peers.txt"
CACHE = ROOT / ".cache"


def python_of_peers() -> str:
    """The interpreter to run them with; the same Python as ours.

    Raises:
        LeftOut: pip could not bring them.
    """
    told = f"{sys.version}{PINNED.read_text()}"
    folder = CACHE / f"peers-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    python = folder / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / ".peers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        if not (folder / "whole").exists():
            print("Installing the peers into .cache; the first time this takes a minute.", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(PINNED)]
            try:
                subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
                subprocess.run(install, check=True, stdout=sys.stderr)
            except subprocess.CalledProcessError as error:
                raise LeftOut(f"the peers of {PINNED.name} could not be installed: {error}") from None
            (folder / "whole").touch()
    return str(python)


def versions_of_peers() -> dict[str, str]:
    """The versions of what is measured beside us, as pinned."""
    pairs = (line.split("==") for line in PINNED.read_text().splitlines() if "==" in line)
    return {name: number for name, number in pairs if name in ("quixstreams", "confluent-kafka")}
