"""Tidewire as a user runs it: processes started, killed and asked, on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from processors.fold import Fold
from processors.registry import load_processors
from schemas.customer import decode_customer
from streams.store import StateStore
from tests.kafka_broker import free_ports

START_S = 60.0
COMMAND = (sys.executable, "-m", "streams.cli")
WRITE_KEY = "trial-key"


def free_port() -> int:
    return free_ports(1)[0]


class Process:
    """One `tidewire` command. Its standard error goes to a file, shown when something went wrong.

    `program` is what is run; another module than the command line's may change something before it runs that.
    """

    def __init__(
        self, *arguments: str, data: Path, port: int, settings: Mapping[str, str] | None = None,
        program: Sequence[str] = COMMAND,
    ) -> None:  # fmt: skip
        self.data = data
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.arguments = (*arguments, "--data", str(data), "--port", str(port))
        self._environment = {**os.environ, "TIDEWIRE_WRITE_KEYS": WRITE_KEY, "TIDEWIRE_LOG_LEVEL": "warning",
                             **(settings or {})}  # fmt: skip
        data.mkdir(parents=True, exist_ok=True)
        self.said = data.with_name(f"{data.name}.{arguments[0]}.log")
        self._program = tuple(program)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def role(self) -> str:
        return self.arguments[0]

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.role} was not started"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of the process that ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        with self.said.open("ab") as said:
            self._process = subprocess.Popen(
                [*self._program, *self.arguments], env=self._environment, stdout=said, stderr=said,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def ready(self) -> None:
        """Return when it takes requests."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"{self.arguments[0]} ended with {self._process.returncode}:\n{self.told()}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{self.arguments[0]} was not ready in {START_S:.0f} s:\n{self.told()}")

    def told(self) -> str:
        return self.said.read_text(errors="replace")[-4_000:]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as the loss of power would, as far as a process can tell."""
        self.signal(signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        """It stands still, as a machine that swaps, or a virtual one that is moved."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        if self.is_running:
            self.signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.ask_to_stop()
        return self.wait(30)

    def metrics(self) -> dict[str, float]:
        """What `/metrics` says: `{'tidewire_stage_records_total{outcome="applied"}': 17.0}`."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str) -> float:
        """One of `metrics`; 0 where it was not counted yet. OSError while the process does not answer."""
        return self.metrics().get(name, 0.0)

    def wait(self, timeout_s: float = 10) -> int:
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.arguments[0]} did not end:\n{self.told()}") from None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


def tidewire(*arguments: str, settings: Mapping[str, str] | None = None, timeout_s: float = 600) -> str:
    """The standard output of a command that must succeed."""
    environment = {**os.environ, "TIDEWIRE_WRITE_KEYS": WRITE_KEY, **(settings or {})}
    done = subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"tidewire {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4_000:]}"
    return done.stdout


class People(MutableMapping[str, dict[str, Any]]):
    """What is shown of many people, packed: of a million, decoded, the machine would have no room."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}

    def __setitem__(self, key: str, shown: dict[str, Any]) -> None:
        self._packed[key] = _pack(shown)

    def __getitem__(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.msgpack.decode(self._packed[key])
        return found

    def __delitem__(self, key: str) -> None:
        del self._packed[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __eq__(self, other: object) -> bool:
        return self._packed == other._packed if isinstance(other, People) else NotImplemented

    def differing(self, other: People) -> list[str]:
        """The keys of those of whom the two show different things."""
        return [key for key in sorted(self.keys() | other.keys()) if self._packed.get(key) != other._packed.get(key)]


_pack = msgspec.msgpack.Encoder(order="sorted", decimal_format="string").encode


def people_of(*folders: Path) -> People:
    """What is known of every person in the stores of stopped workers: what each processor shows, by person key.

    A partition that several workers owned one after another is taken from the one who wrote it last.
    """
    fold = Fold(load_processors(Path("config")))
    people = People()
    newest: dict[str, tuple[tuple[int, int], Path]] = {}
    for folder in folders:
        for partition in sorted((folder / "customers").glob("customers-*")):
            store = StateStore(partition)
            how_new = (store.epoch, store.changelog_next)
            store.close()
            newest[partition.name] = max(newest.get(partition.name, ((-1, -1), partition)), (how_new, partition))
    for _, partition in newest.values():
        store = StateStore(partition)
        for key in store.keys():  # noqa: SIM118 - a store is no dict
            (value,) = store.get([key])
            assert value is not None
            customer = decode_customer(value)
            if customer.parts:
                people[key.decode()] = {"keys": sorted(customer.parts), **fold.portrait(customer.parts)}
        store.close()
    return people
