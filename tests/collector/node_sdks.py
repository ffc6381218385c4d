"""The JavaScript SDKs of sdks/package-lock.json."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tests import npm

SDKS = Path(__file__).parent / "sdks"


def node_modules() -> Path:
    """Where they are."""
    files = [SDKS / "package.json", SDKS / "package-lock.json"]
    return npm.node_modules(sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16], files=files)
