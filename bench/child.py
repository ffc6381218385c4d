"""Processes of the suite's own: started with a job, measured from outside, ended by id."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SILENT_S = 600.0  # a process that says nothing for so long is stuck
ROOT = Path(__file__).parent.parent
_TICKS_S = os.sysconf("SC_CLK_TCK")


class ChildFailed(RuntimeError):
    """A process of the suite ended, or fell silent, without its result."""


class Child:
    """A Python module of this repository as a process of its own, with a job in JSON as its argument.

    It speaks JSON, one line each, on its standard output; what it says on standard error is shown when it fails.

    Args:
        python: of another environment, for peers whose dependencies are not ours.
        core: the only core it may use.
    """

    def __init__(
        self, module: str, job: Mapping[str, Any], *, python: str = sys.executable, core: int | None = None
    ) -> None:
        self._module = module
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(job)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, preexec_fn=_end_with_parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, timeout_s: float = SILENT_S) -> dict[str, Any]:
        """The next line it says; waits for it.

        Raises:
            ChildFailed: it ended before, or said nothing for so long and was ended.
        """
        assert self._process.stdout is not None
        patience = threading.Timer(timeout_s, self._process.kill)
        patience.start()
        try:
            while line := self._process.stdout.readline():
                if line.startswith(b"{"):
                    said: dict[str, Any] = json.loads(line)
                    return said
        finally:
            patience.cancel()
        raise ChildFailed(f"{self._module} ended with {self._process.wait()}:\n{self.told()}")

    def tell(self, what: Mapping[str, Any]) -> None:
        """Say a line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def told(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")[-4_000:]

    def stop(self, timeout_s: float = 20.0) -> None:
        """End it, in good order where it takes that in time."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._said.close()

    def end(self, timeout_s: float = 20.0) -> None:
        """Wait until it ends by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def kill(self) -> None:
        """`kill -9`, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def cpu_s(self) -> float:
        return cpu_seconds(self.pid)

    @property
    def rss_mb(self) -> float:
        return rss_mb(self.pid)


def run(module: str, job: Mapping[str, Any], *, python: str = sys.executable) -> dict[str, Any]:
    """Run it to its end; its one line."""
    with Child(module, job, python=python) as child:
        said = child.line()
        child.end()
        return said


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_S


def rss_mb(pid: int) -> float:
    """Memory of a process that is resident now."""
    return _status_mb(pid, "VmRSS:")


def peak_mb(pid: int) -> float:
    """The most memory of a process that was ever resident."""
    return _status_mb(pid, "VmHWM:")


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def cores() -> Sequence[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def _end_with_parent() -> None:
    """Runs in the new process: end when the one that started it ends, however it ends. Linux only."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
