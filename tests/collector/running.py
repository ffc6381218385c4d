"""A collector as it runs: the embedded log, uvicorn on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from config.settings import Settings
from config.write_keys import WriteKey, WriteKeys, hash_of
from schemas.event import Event, decode_event
from schemas.rejected import Rejected, decode_rejected
from streams.embedded import EmbeddedLog
from streams.log import TP, Outgoing, Placed
from streams.topics import create_topics
from web.collector.answers import Answer, refusal
from web.collector.app import collector_app
from web.collector.ingest import Collector
from web.collector.server import GuardedServer, Whole, guarded_server

KEY = "key-of-tests"
PUBLIC_KEY = "public-key-of-tests"
SLOW_KEY = "slow-key-of-tests"
SERVER_KEY = "server-key-of-tests"
KEYS = WriteKeys(
    [
        WriteKey(name="tests", sha256=hash_of(KEY), kind="any"),
        WriteKey(name="web", sha256=hash_of(PUBLIC_KEY), kind="public", origins=("https://shop.example",)),
        WriteKey(name="slow", sha256=hash_of(SLOW_KEY), kind="server", events_per_s=2, burst=4),
        WriteKey(name="server", sha256=hash_of(SERVER_KEY), kind="server"),
    ]
)


class Faulty:
    """The log, whose next appends raise what `faults` holds before they reach it, and wait while it `is_held`."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.faults: list[Exception] = []
        self.is_held = False

    async def append(self, topic: str, records: Sequence[Outgoing]) -> list[Placed]:
        while self.is_held:  # noqa: ASYNC110 - tests set it from another thread
            await asyncio.sleep(0.005)
        if self.faults:
            raise self.faults.pop(0)
        return await self._log.append(topic, records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class _FaultyWhole:
    """Requests taken whole, with the faults of `Running`."""

    def __init__(self, running: Running, whole: Whole) -> None:
        self._running = running
        self._whole = whole
        self.urls = whole.urls

    def take(
        self, url: bytes, head: Any, body: bytes, client: Any, reply: Callable[[Answer], None]
    ) -> bool:
        running = self._running
        running.taken_whole += 1
        running.asked_at_s.append(time.monotonic())
        if running.answer_first:
            reply(running.answer_first.pop(0))
            return True
        if running.lose_answers:
            running.lose_answers -= 1
            return self._whole.take(url, head, body, client, lambda answer: reply(refusal(502, "bad gateway")))
        return self._whole.take(url, head, body, client, reply)


class Running:
    """A collector that runs, and what it has stored."""

    def __init__(
        self, folder: Path, wrap: Callable[[Any], Any] = lambda app: app, *, is_whole: bool = True,
        links: Callable[[Running], Any] = lambda running: None, **options: Any,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._is_whole = is_whole  # requests are taken whole where they can be; else all go by ASGI
        self._wrap = wrap
        self._links = links  # what answers the links of messages
        self._options = options
        self.answer_first: list[Answer] = []  # what ingest answers before it works
        self.lose_answers = 0  # so many answers of ingest are lost after its work is done: a proxy answers 502
        self.asked_at_s: list[float] = []  # when a request to ingest came
        self.taken_whole = 0  # so many of them without ASGI's steps between
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.settings = Settings(data=folder, partitions=3)
        self.registry = CollectorRegistry()
        self.lag = 0
        self.server: GuardedServer
        self.log: Any
        self.port = 0
        self._client = httpx.Client(timeout=20, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Running:
        self._thread.start()
        self._ready.wait(20)
        if self._failure:
            raise self._failure
        return self

    def stop(self) -> None:
        self._client.close()
        self.server.should_exit = True
        self._thread.join(20)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # so that the test fails with it instead of waiting
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        real = EmbeddedLog(self._folder / "log.db", fsync=False)
        await real.start()
        await create_topics(real, self.settings)
        self.log = Faulty(real)
        collector = Collector(
            self.log, KEYS, self.settings, self.registry, lag=lambda: self.lag, body_timeout_s=1.5, **self._options
        )
        whole = collector_app(
            collector, self.log, self.settings, self.registry, lambda: self.lag, self._links(self)
        )
        app = self._wrap(self._faulty(whole))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.server = guarded_server(app, "127.0.0.1", self.port, loop="asyncio", lifespan="off")
        self.server.client_timeout_s = 2.0
        serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        while not self.server.started:  # noqa: ASYNC110 (uvicorn offers nothing to wait for)
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        await real.stop()

    def _faulty(self, app: Any) -> Any:
        async def faulty(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"].startswith("/v1/") and scope["method"] == "POST":
                self.asked_at_s.append(time.monotonic())
                if self.answer_first:
                    await self.answer_first.pop(0).send(send)
                    return
                if self.lose_answers:
                    self.lose_answers -= 1

                    async def unheard(message: Any) -> None:
                        pass

                    await app(scope, receive, unheard)
                    await refusal(502, "bad gateway").send(send)
                    return
            await app(scope, receive, send)

        if self._is_whole:
            faulty.whole = _FaultyWhole(self, app.whole)  # type: ignore[attr-defined]
        return faulty

    def _await(self, doing: Awaitable[Any]) -> Any:
        async def call() -> Any:
            return await doing

        done: Future[Any] = asyncio.run_coroutine_threadsafe(call(), self._loop)
        return done.result(20)

    def values(self, topic: str) -> list[bytes]:
        async def read() -> list[bytes]:
            found: list[bytes] = []
            for partition, (first, end) in (await self.log.bounds(topic)).items():
                while first < end:
                    records = await self.log.read(TP(topic, partition), first, 10_000)
                    found += [record.value for record in records]
                    first = records[-1].offset + 1
            return found

        return self._await(read())

    def events(self) -> list[Event]:
        return [decode_event(value) for value in self.values("events")]

    def rejected(self) -> list[Rejected]:
        return [decode_rejected(value) for value in self.values("rejected")]

    def post(
        self, path: str = "/v1/track", content: bytes | None = None, key: str | None = KEY, **options: Any
    ) -> httpx.Response:
        auth = (key, "") if key is not None else None
        return self.request("POST", path, content=content, auth=auth, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, self.url + path, **options)

    def counted(self, name: str, **labels: str) -> float:
        """Sum of a metric over the labels that are not named."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == f"tidewire_collector_{name}" and labels.items() <= sample.labels.items()
        )

    def raw(self, request: bytes, wait_s: float = 5.0) -> bytes:
        """What the server answers to these very bytes, until it closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as connection:
            connection.sendall(request)
            answer = b""
            try:
                while chunk := connection.recv(65536):
                    answer += chunk
                    if _is_whole(answer):
                        break
            except (TimeoutError, ConnectionResetError):
                pass
            return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end or b"content-length: " not in head.lower():
        return False
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return len(body) >= length
