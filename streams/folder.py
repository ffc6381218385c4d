"""The data folder of a process: it can be written, and no other worker or sender keeps its states there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import TidewireError, Unreachable

LOCK_FILE = "worker.lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The folder is this process' alone while the `with` lasts; it is made where it is missing.

    Raises:
        TidewireError: it cannot be written.
        Unreachable: another worker or sender, whose process is named, holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        what = f"the data folder {folder} cannot be written: {error.strerror}."
        raise TidewireError(f"{what} Name another with --data.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            what = f"the data folder {folder} is that of process {lock.read().strip() or 'unknown'} already."
            raise Unreachable(f"{what} Give each worker and each sender a folder of its own with --data.") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
