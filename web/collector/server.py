"""uvicorn, guarded against clients that send their headers slowly, endlessly or never, or a body not at all.

How large a body may be, and how long it may take, is the application's affair. All that waits is looked at together,
a few times a minute: a timer for each request would cost more than reading it.
"""

from __future__ import annotations

import gc
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEADERS_BYTES = 16 * 1024
CLIENT_TIMEOUT_S = 10.0  # for the headers of a request, and for the next bytes of its body
KEEP_ALIVE_S = 65  # longer than usual proxies keep theirs, or they send into a closing connection
SHUTDOWN_S = 10  # an open live page must not hold up the flush of the log
_TICKS_PER_S = 10  # of uvicorn's main loop


class GuardedProtocol(HttpToolsProtocol):
    """Refuses a request whose line and headers together are too large, and knows what it waits for."""

    header_bytes = 0
    reads = 0
    seen_waiting_for: object = None
    times_seen = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.reads += 1
        scope: Any = self.scope
        if scope is None or "path" in scope:  # the headers are complete
            self.header_bytes = 0
            return
        self.header_bytes += len(data)
        if self.header_bytes > LARGEST_HEADERS_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are larger than {LARGEST_HEADERS_BYTES} bytes.")

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
    return GuardedServer(config)


def spare_the_collector() -> None:
    """Let the garbage collector look less often, and never at what lives as long as the process.

    To be called once, when everything is set up: decoding makes and drops many objects and no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
