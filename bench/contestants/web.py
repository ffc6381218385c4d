"""A server for the contest of collectors, all on the same uvicorn with the same settings.

`bare` is an ASGI callable that does nothing but answer; `memory` is Tidewire's collector before a log that keeps
nothing; `embedded` the same before the embedded log, whose acknowledgement it waits for.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from config.settings import load_settings
from config.write_keys import load_write_keys
from schemas.topics import TOPICS
from streams.embedded import EmbeddedLog
from streams.log import Outgoing, Placed
from web.collector.app import collector_app
from web.collector.ingest import Collector
from web.collector.server import guarded_server, spare_the_collector

WRITE_KEY = "bench"
_ANSWER = b'{"success":true}'


class Job(msgspec.Struct, frozen=True):
    """Which server, and the folder of its log."""

    server: str
    folder: str


class NoLog:
    """Acknowledges every record, and forgets it: what it costs to come so far."""

    async def append(self, topic: str, records: Sequence[Outgoing]) -> list[Placed]:
        return []


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"16")]})  # fmt: skip
    await send({"type": "http.response.body", "body": _ANSWER})


async def serve(given: Job) -> None:
    app: Any = bare
    log: Any = NoLog()
    if given.server == "embedded":
        log = EmbeddedLog(Path(given.folder) / "log.db")
        await log.start()
        for topic in TOPICS.values():
            await log.create_topic(topic.name, 4, topic.retention_ms)
    if given.server != "bare":
        settings, registry = load_settings({"data": given.folder}, {}), CollectorRegistry()
        keys = load_write_keys(settings.config, WRITE_KEY, "default")
        collector = Collector(log, keys, settings, registry)
        app = collector_app(collector, log, settings, registry, lambda: 0)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = guarded_server(app, *listener.getsockname()[:2], lifespan="off")
    spare_the_collector()
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await server.serve(sockets=[listener])
    if given.server == "embedded":
        await log.stop()


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(msgspec.json.decode(sys.argv[1], type=Job)))


if __name__ == "__main__":
    main()
