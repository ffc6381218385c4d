"""ClickHouse's engine behind its HTTP interface, as a process of its own that tests start, kill, freeze and annoy."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.kafka_broker import free_ports


class Bridge:
    """A stand-in for a server, in its own process; see tests/sinks/bridge.py. It keeps its port over `kill`."""

    def __init__(self, folder: Path, database: str = "tidewire") -> None:
        self.folder = folder
        self.database = database
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Its address by another port, such as that of a proxy before it."""
        return f"clickhouse://tidewire@127.0.0.1:{port}/{self.database}"

    def start(self) -> None:
        self.port = self.port or free_ports(1)[0]
        command = [sys.executable, "-m", "tests.sinks.bridge", "--path", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it listens

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def make_trouble(self, **trouble: object) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/_bridge", json.dumps(trouble).encode())
        urllib.request.urlopen(request, timeout=5).close()
