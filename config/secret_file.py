"""Files that hold a secret: readable by their owner alone, and whole or not there."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from schemas.errors import TidewireError


def make_secret_file(file: Path, text: str) -> None:
    """Write a file that is not there yet, with mode 0600; one that another process made meanwhile stays as it is.

    Raises:
        TidewireError: the folder cannot be written.
    """
    whole = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):  # another process was first: its secret stands
            os.link(whole, file)
    except OSError as error:
        raise TidewireError(f"{file.parent} cannot be written: {error.strerror}. Name another with --data.") from None
    finally:
        with suppress(OSError):
            whole.unlink(missing_ok=True)
