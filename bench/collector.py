"""Requests per second of the collector on one core, beside a bare ASGI callable on the same uvicorn.

The server has a core to itself, the client another. Single track calls of about 580 bytes, and batches of 100 of them.
`before the log` is the collector with a log that acknowledges at once; `acknowledged` with the embedded log, on disk.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench.child import Child, cores
from bench.contestants.web import WRITE_KEY
from bench.load import Flood, Flooded, client, flood
from bench.measure import Figure, Options, Report, interleaved, rounded

BATCH = 100
CONNECTIONS = {"bare": 32, "memory": 32, "embedded": 256}  # many clients share an acknowledgement
NAMES = {"bare": "bare ASGI", "memory": "before the log", "embedded": "acknowledged"}
SECONDS, QUICK_SECONDS = 5.0, 1.0
BODIES = 50  # different ones, in turn
SINGLE_OF_BARE = 0.8
BATCHED_EVENTS_PER_S = 100_000


class Sample(NamedTuple):
    """One flood of one server, by the clock and by the CPU time of the server."""

    flooded: Flooded
    per_cpu_s: float

    @property
    def per_s(self) -> float:
        return self.flooded.requests_per_s


def measure(options: Options) -> Report:
    singles = [json.dumps(call(number)) for number in range(BODIES)]
    batches = [json.dumps({"batch": [call(body * BATCH + i) for i in range(BATCH)]}) for body in range(5)]
    seconds = QUICK_SECONDS if options.is_quick else SECONDS
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    for kind, path, bodies, events in (("single", "/v1/track", singles, 1), ("batch", "/v1/batch", batches, BATCH)):
        if not options.wants(kind):
            continue
        options.say(f" {kind}: {len(bodies[0])} bytes")
        contest: dict[str, Callable[[], Sample]] = {
            server: partial(_one, server, path, bodies, seconds) for server in NAMES
        }
        samples = interleaved(contest, options.runs, lambda sample: sample.per_s, options)
        rates, cpu_rates = {}, {}
        for server, done in samples.items():
            per_s = Figure(f"{kind} {NAMES[server]}", "requests/s", [sample.per_s for sample in done])
            per_cpu_s = Figure(f"{kind} {NAMES[server]} cpu", "req/CPU-s", [sample.per_cpu_s for sample in done])
            p99 = Figure(f"{kind} {NAMES[server]} p99", "ms", [sample.flooded.p99_ms for sample in done])
            rates[server], cpu_rates[server] = per_s.median, per_cpu_s.median
            figures += [per_s, per_cpu_s, p99]
        ratio, cpu_ratio = rates["memory"] / rates["bare"], cpu_rates["memory"] / cpu_rates["bare"]
        limit = SINGLE_OF_BARE if kind == "single" else None
        figures.append(Figure(f"{kind} before the log of bare", "×", [ratio], at_least=limit))
        # Where the machine is busy the servers wait, and the clock makes all of them alike: their CPU time does not.
        figures.append(Figure(f"{kind} before the log of bare, cpu", "×", [cpu_ratio], at_least=limit))
        if kind == "batch":
            for server, floor in (("memory", BATCHED_EVENTS_PER_S), ("embedded", None)):
                runs = [sample.per_s * events for sample in samples[server]]
                figures.append(Figure(f"batch events {NAMES[server]}", "events/s", runs, at_least=floor))
        found[kind] = {
            "ratio_bare": rounded(ratio), "ratio_bare_cpu": rounded(cpu_ratio),
            "requests_per_s": {name: rounded(rate) for name, rate in rates.items()},
            "events_per_s": {name: rounded(rate * events) for name, rate in rates.items()},
            "events_per_cpu_s": {name: rounded(rate * events) for name, rate in cpu_rates.items()},
        }  # fmt: skip
    return Report(
        input={"event_bytes": len(singles[0]), "batch": BATCH, "seconds": seconds, "client": client(),
               "connections": "/".join(map(str, CONNECTIONS.values())), "cores": len(cores())},
        figures=figures, found=found,
        notes=() if len(cores()) > 1 else ("client and server share the only core, so the figures are too low",),
    )  # fmt: skip


def call(number: int) -> dict[str, Any]:
    """A track call as a browser sends it."""
    return {
        "type": "track", "event": "Product Viewed", "messageId": f"ajs-next-{number:024}",
        "userId": f"u-{number:06}", "anonymousId": f"5f3c2a10-0000-4000-8000-{number:012}",
        "timestamp": "2026-01-01T12:00:00.000Z",
        "properties": {"product_id": f"sku-{number % 500}", "name": "Red shoe of the summer", "category": "shoes",
                       "price": 49.9, "currency": "EUR", "quantity": 1},
        "context": {"library": {"name": "analytics.js", "version": "4.1.0"}, "locale": "de-AT",
                    "page": {"url": "https://shop.example/products/red", "path": "/products/red", "title": "Red"}},
    }  # fmt: skip


def _one(server: str, path: str, bodies: list[str], seconds: float) -> Sample:
    its, mine = (cores()[0], cores()[1]) if len(cores()) > 1 else (None, None)
    with (
        tempfile.TemporaryDirectory() as folder,
        Child("bench.contestants.web", {"server": server, "folder": folder}, core=its) as child,
    ):
        url = f"http://127.0.0.1:{child.line()['port']}{path}"
        before = child.cpu_s
        flooded = flood(Flood(url, bodies, WRITE_KEY, CONNECTIONS[server], seconds), mine)
        cpu_s = child.cpu_s - before
    requests = flooded.requests_per_s * seconds
    if flooded.refused:
        raise RuntimeError(f"{server} did not answer {flooded.refused} requests with 200")
    return Sample(flooded, requests / cpu_s)
