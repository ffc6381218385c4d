"""uvicorn, guarded against clients that send their headers slowly, endlessly or never.

Bodies are the collector's own affair (size, time); what comes before them the ASGI application never sees.
"""

from __future__ import annotations

import gc
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEADERS_BYTES = 16 * 1024
HEADER_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 65  # longer than usual proxies keep theirs, or they send into a closing connection
SHUTDOWN_S = 10  # an open live page must not hold up the flush of the log
_TICKS_PER_S = 10  # of uvicorn's main loop


class GuardedProtocol(HttpToolsProtocol):
    """Refuses a request whose line and headers together are too large."""

    header_bytes = 0
    idle_sweeps = 0  # how many sweeps in a row found it waiting for the same headers
    swept_cycle: object = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        scope: Any = self.scope
        if scope is None or "path" in scope:  # the headers are complete
            self.header_bytes = 0
            return
        self.header_bytes += len(data)
        if self.header_bytes > LARGEST_HEADERS_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are larger than {LARGEST_HEADERS_BYTES} bytes.")

    @property
    def waits_for_headers(self) -> bool:
        """Nothing, or not all of the headers, came, and uvicorn's keep-alive timer does not watch it."""
        has_request = self.cycle is not None and not self.cycle.response_complete
        return not has_request and self.timeout_keep_alive_task is None


class GuardedServer(uvicorn.Server):
    """Closes connections on which a request's headers do not arrive in time (half as long again, at most)."""

    header_timeout_s = HEADER_TIMEOUT_S

    async def on_tick(self, counter: int) -> bool:
        if counter % max(1, int(self.header_timeout_s / 2 * _TICKS_PER_S)) == 0:
            self._sweep()
        return await super().on_tick(counter)

    def _sweep(self) -> None:
        for connection in list(self.server_state.connections):
            if not isinstance(connection, GuardedProtocol):
                continue
            if not connection.waits_for_headers or connection.cycle is not connection.swept_cycle:
                connection.idle_sweeps = 0
                connection.swept_cycle = connection.cycle
            if connection.waits_for_headers:
                connection.idle_sweeps += 1
                if connection.idle_sweeps > 2:
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
