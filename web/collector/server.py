"""uvicorn, guarded against clients that send their headers slowly, endlessly or never, or a body not at all.

How large a body may be, and how long it may take, is the application's affair. All that waits is looked at together,
a few times a minute: a timer for each request would cost more than reading it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from web.collector.answers import TAKEN, Answer

LARGEST_HEADERS_BYTES = 16 * 1024
CLIENT_TIMEOUT_S = 10.0  # for the headers of a request, and for the next bytes of its body
KEEP_ALIVE_S = 65  # longer than usual proxies keep theirs, or they send into a closing connection
SHUTDOWN_S = 10  # an open live page must not hold up the flush of the log
_TICKS_PER_S = 10  # of uvicorn's main loop


class Whole(Protocol):
    """What an application offers as its attribute `whole` to take requests without ASGI's steps between."""

    @property
    def urls(self) -> Mapping[bytes, object]:
        """To which a POST may be taken, as they stand in the first line of the request."""

    def take(
        self,
        url: bytes,
        head: Sequence[tuple[bytes, bytes]],
        body: bytes,
        client: tuple[str, int] | None,
        reply: Callable[[Answer], None],
    ) -> bool:
        """Take a request that came in one piece, and reply now or later, once; False: it is left to ASGI."""


class GuardedProtocol(HttpToolsProtocol):
    """Refuses a request whose line and headers together are too large, and knows what it waits for.

    A request that comes in one piece, as nearly all to a collector do, goes straight to the application where that
    offers it. Of uvicorn's steps in between (scope, task, events, messages) each costs as much as reading an event.
    Anything unusual takes uvicorn's way: a body that is still to come, pipelining, HTTP/1.0, upgrades, `Expect`.
    """

    is_in_head = False
    header_bytes = 0
    reads = 0
    seen_waiting_for: object = None
    times_seen = 0
    body_so_far: list[bytes] | None = None  # of a request that may turn out to be whole

    def __init__(self, config: Any, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        is_plain = not config.root_path and config.limit_concurrency is None
        self.whole: Whole | None = getattr(config, "whole", None) if is_plain else None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.reads += 1
        if self.body_so_far is not None:  # the rest is still to come
            chunks, self.body_so_far = self.body_so_far, None
            if not self.transport.is_closing():
                self._take_uvicorns_way(chunks)
        if not self.is_in_head:
            self.header_bytes = 0
            return
        self.header_bytes += len(data)
        if self.header_bytes > LARGEST_HEADERS_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are larger than {LARGEST_HEADERS_BYTES} bytes.")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.cycle = None  # type: ignore[assignment]  # it knows us: each would hold the other, and all buffers

    # --- what the parser calls

    def on_message_begin(self) -> None:
        self.is_in_head = True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self.is_in_head = False
        cycle: Any = self.cycle
        if (
            self.whole is not None
            and self.url in self.whole.urls
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        ):
            self.body_so_far = []
        else:
            self._take_uvicorns_way(())

    def on_body(self, body: bytes) -> None:
        if self.body_so_far is None:
            super().on_body(body)
        else:
            self.body_so_far.append(body)

    def on_message_complete(self) -> None:
        chunks, self.body_so_far = self.body_so_far, None
        if chunks is None:
            super().on_message_complete()
            return
        before: Any = self.cycle
        exchange = self.cycle = WholeExchange(self)  # type: ignore[assignment]
        if not self._is_taken(b"".join(chunks), exchange):
            self.cycle = before
            self._take_uvicorns_way(chunks)
            super().on_message_complete()

    def _is_taken(self, body: bytes, exchange: WholeExchange) -> bool:
        try:
            return self.whole is not None and self.whole.take(
                self.url, self.headers, body, self.client, exchange.reply
            )
        except Exception:  # on uvicorn's way it is logged, and answered with 500
            return exchange.response_complete

    def _take_uvicorns_way(self, chunks: Sequence[bytes]) -> None:
        """Do what uvicorn does when the head is complete, and with what has come of the body."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers = self.scope["headers"] = headers
        super().on_headers_complete()
        for chunk in chunks:
            super().on_body(chunk)

    def waiting_for(self) -> object:
        """What the client owes: the headers of a request, however they drip, or the next bytes of a body.

        None where it owes nothing, or uvicorn's keep-alive timer watches it. The same as long as it is the same.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return ("headers", id(cycle)) if self.timeout_keep_alive_task is None else None
        if cycle.more_body and not self.flow.read_paused:
            return ("body", id(cycle), self.reads)
        return None


class _Nobody:
    """Whom uvicorn wakes when a connection is lost; here nobody sleeps."""

    def set(self) -> None:
        pass


class WholeExchange:
    """A request that was taken whole and its answer, in the place where uvicorn has its cycle."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "response_complete")

    more_body = False
    message_event = _Nobody()

    def __init__(self, protocol: GuardedProtocol) -> None:
        self._protocol = protocol
        self.response_complete = False
        self.disconnected = False  # uvicorn says so
        self.keep_alive = True  # until uvicorn is told to shut down

    def reply(self, answer: Answer) -> None:
        protocol = self._protocol
        self.response_complete = True
        transport = protocol.transport
        if self.disconnected or transport.is_closing():
            return
        transport.write(_on_the_wire(answer, protocol.server_state.default_headers, self.keep_alive))
        if not self.keep_alive or _CLOSE in answer.headers:
            transport.close()
        protocol.on_response_complete()


_CLOSE = (b"connection", b"close")
_taken: tuple[object, bytes] = (None, b"")


def _on_the_wire(answer: Answer, of_server: list[tuple[bytes, bytes]], keep_alive: bool) -> bytes:
    """The answer as it is sent; the usual one is made once while the server's date is the same."""
    global _taken
    if answer is TAKEN and keep_alive:
        made_for, made = _taken
        if made_for is not of_server:
            made = _written(answer, of_server, ())
            _taken = of_server, made
        return made
    closing = () if keep_alive or _CLOSE in answer.headers else (_CLOSE,)
    return _written(answer, of_server, closing)


def _written(
    answer: Answer, of_server: Sequence[tuple[bytes, bytes]], more: Sequence[tuple[bytes, bytes]]
) -> bytes:
    headers = b"".join(b"%b: %b\r\n" % header for header in (*of_server, *answer.headers, *more))
    return STATUS_LINE[answer.status] + headers + b"\r\n" + answer.body


class GuardedServer(uvicorn.Server):
    """Closes connections whose client owes something for too long (half as long again, at most)."""

    client_timeout_s = CLIENT_TIMEOUT_S

    async def on_tick(self, counter: int) -> bool:
        if counter % max(1, int(self.client_timeout_s / 2 * _TICKS_PER_S)) == 0:
            self._sweep()
        return await super().on_tick(counter)

    def _sweep(self) -> None:
        for connection in list(self.server_state.connections):
            if not isinstance(connection, GuardedProtocol):
                continue
            waiting_for = connection.waiting_for()
            if waiting_for is None or waiting_for != connection.seen_waiting_for:
                connection.seen_waiting_for, connection.times_seen = waiting_for, 0
                continue
            connection.times_seen += 1
            if connection.times_seen >= 2:
                connection.transport.close()


def guarded_server(app: Any, host: str, port: int, **options: Any) -> GuardedServer:
    """A server for the collector and whatever stands beside it in `app`; `options` go to `uvicorn.Config`."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        **{
            "loop": "uvloop",
            "http": GuardedProtocol,
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "timeout_keep_alive": KEEP_ALIVE_S,
            "timeout_graceful_shutdown": SHUTDOWN_S,
            **options,
        },
    )
    config.whole = getattr(app, "whole", None)  # type: ignore[attr-defined]
    return GuardedServer(config)


def spare_the_collector() -> None:
    """Let the garbage collector look less often, and never at what lives as long as the process.

    To be called once, when everything is set up: decoding makes and drops many objects and no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
