"""A load client of few microseconds a request: keep-alive connections that speak just enough HTTP/1.1.

    python -m bench.load '{"url": …}'

As a process of its own it floods a server and says how it went; the suite takes `wrk` for that where there is one, as
it costs still less. `Connection` is also what `latency` and `whole_way` send with, at a pace or in order.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from bench.child import Child
from bench.measure import percentile

WARM_UP_S = 0.3


class Flood(msgspec.Struct, frozen=True):
    """What to flood a server with: requests one after another on each of so many connections."""

    url: str
    bodies: list[str]
    write_key: str
    connections: int
    seconds: float


class Flooded(NamedTuple):
    """How it went. Requests that were not answered 200 are `refused`."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    refused: int


def request(url: str, body: bytes, write_key: str) -> bytes:
    """A POST of a JSON body, whole, as it goes over the wire."""
    parts = urlsplit(url)
    key = b64encode(f"{write_key}:".encode()).decode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Basic {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: Any = None
        self.is_closed = False
        self._read = b""
        self._on_answer: Callable[[int], None] | None = None

    @classmethod
    async def open(cls, url: str) -> Connection:
        parts = urlsplit(url)
        address = parts.hostname or "127.0.0.1", parts.port or 80
        _, connection = await asyncio.get_running_loop().create_connection(cls, *address)
        return connection

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, on_answer: Callable[[int], None]) -> None:
        """Send a request; `on_answer` gets the status, 0 when the server hung up."""
        self._on_answer = on_answer
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        read = self._read = self._read + data if self._read else data
        end = read.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(read, 0, end)
        if len(read) < end + 4 + (int(length.group(1)) if length else 0):
            return
        self._read = b""
        self._answered(int(read[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        self._answered(0)

    def _answered(self, status: int) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(status)

    def close(self) -> None:
        self._on_answer = None
        self._transport.close()


_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


# --- floods


def flood(given: Flood, core: int | None) -> Flooded:
    """Flood from a process of its own, on a core of its own where one is named."""
    if shutil.which("wrk"):
        return _flood_by_wrk(given, core)
    with Child("bench.load", msgspec.to_builtins(given), core=core) as child:
        return Flooded(**child.line())


def client() -> str:
    """What floods are made with on this machine."""
    return "wrk" if shutil.which("wrk") else "bench/load.py (wrk is not installed; it costs less)"


_LUA = """
local requests, at = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json",
                                                       ["Authorization"] = args[2]}, line)
  end
end
function request()
  at = at %% #requests + 1
  return requests[at]
end
function done(summary, latency, requests)
  io.write(string.format("%%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, latency:percentile(50),
                         latency:percentile(99), summary.errors.status + summary.errors.read + summary.errors.write
                         + summary.errors.timeout))
end
""".replace("%%", "%")


def _flood_by_wrk(given: Flood, core: int | None) -> Flooded:
    with tempfile.TemporaryDirectory() as folder:
        script, bodies = Path(folder) / "flood.lua", Path(folder) / "bodies"
        script.write_text(_LUA)
        bodies.write_text("\n".join(given.bodies) + "\n")
        key = "Basic " + b64encode(f"{given.write_key}:".encode()).decode()
        pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
        done = subprocess.run(
            [*pin, "wrk", "-t1", f"-c{given.connections}", f"-d{max(1, round(given.seconds))}s", "-s", str(script),
             given.url, "--", str(bodies), key],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    requests, duration_us, p50_us, p99_us, refused = map(int, done.stdout.splitlines()[-1].split())
    return Flooded(requests / duration_us * 1e6, p50_us / 1000, p99_us / 1000, refused)


async def _flood(given: Flood) -> Flooded:
    requests = [request(given.url, body.encode(), given.write_key) for body in given.bodies]
    took: list[float] = []
    refused = 0
    begins = time.perf_counter() + WARM_UP_S
    over = begins + given.seconds
    done = asyncio.Event()
    open_ = given.connections

    def go_on(connection: Connection, number: int) -> None:
        sent = time.perf_counter()

        def answered(status: int) -> None:
            nonlocal refused, open_
            now = time.perf_counter()
            if sent >= begins:
                took.append(now - sent)
                refused += status != 200
            if now < over and status:
                go_on(connection, number + 1)
                return
            open_ -= 1
            if not open_:
                done.set()

        connection.send(requests[number % len(requests)], answered)

    connections = [await Connection.open(given.url) for _ in range(given.connections)]
    for number, connection in enumerate(connections):
        go_on(connection, number)
    await done.wait()
    for connection in connections:
        connection.close()
    return Flooded(len(took) / given.seconds, *_milliseconds(took), refused)


def _milliseconds(took: Sequence[float]) -> tuple[float, float]:
    in_order = sorted(took)
    return percentile(in_order, 0.5) * 1000, percentile(in_order, 0.99) * 1000


def main() -> None:
    import uvloop

    given = msgspec.json.decode(sys.argv[1], type=Flood)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_flood(given))._asdict()), flush=True)


if __name__ == "__main__":
    main()
