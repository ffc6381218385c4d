"""The collector as a whole: ingest first, then the links of messages, and inboxes; beside them health, metrics, the
browser snippet, the API's description."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from config.settings import Settings
from streams.log import Log
from web.collector.answers import Receive, Send
from web.collector.ingest import PREFIXES, Collector
from web.collector.openapi import openapi
from web.inbox.app import PATH as INBOX
from web.inbox.app import inbox_app
from web.links.app import PREFIX as LINKS
from web.links.app import links_app

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

READY_TIMEOUT_S = 2.0
SNIPPET = Path(__file__).parent.parent / "static" / "tidewire.js"


class CollectorFirst:
    """Hands requests for the ingest paths straight to the collector, those for links of messages to `links`, those for
    inboxes to `inbox`, and all others to the rest of the site, whose pages may be for this machine alone.

    Routing and middleware cost an ingest request more than reading its event does.
    """

    def __init__(
        self, collector: Collector, rest: ASGIApp, links: ASGIApp | None = None, inbox: ASGIApp | None = None
    ) -> None:
        self._collector = collector
        self._rest = rest
        self._links = links
        self._inbox = inbox
        self.whole = collector  # takes requests without ASGI's steps between, see server.py

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIXES):
            await self._collector(scope, receive, send)
        elif self._links is not None and scope["type"] == "http" and scope["path"].startswith(LINKS):
            await self._links(scope, receive, send)
        elif self._inbox is not None and scope["type"] == "http" and f"{scope['path']}/".startswith(f"{INBOX}/"):
            await self._inbox(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def collector_routes(
    log: Log, settings: Settings, registry: CollectorRegistry, lag: Callable[[], int]
) -> list[BaseRoute]:
    """`/healthz`, `/readyz`, `/metrics`, `/tidewire.js`, `/openapi.json`: for the application beside the collector."""
    snippet = SNIPPET.read_bytes()
    packed = gzip.compress(snippet, 9, mtime=0)
    tag = f'"{blake2b(snippet, digest_size=8).hexdigest()}"'
    described = msgspec.json.encode(openapi())

    async def healthz(request: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        """Whether events can be taken now: the log answers, and the processors are not too far behind."""
        behind = lag()
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await log.bounds("events")
        except Exception as error:
            what = str(error) or "it does not answer"
            return JSONResponse({"ready": False, "log": what, "lag": behind}, 503)
        is_ready = behind < settings.most_lag
        return JSONResponse({"ready": is_ready, "log": "ok", "lag": behind}, 200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def tidewire_js(request: Request) -> Response:
        headers = {
            "access-control-allow-origin": "*",
            "cache-control": "public, max-age=3600",
            "etag": tag,
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        body = snippet
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = packed
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers, media_type="text/javascript; charset=utf-8")

    async def openapi_json(request: Request) -> Response:
        return Response(described, media_type="application/json", headers={"access-control-allow-origin": "*"})

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/tidewire.js", tidewire_js),
        Route("/openapi.json", openapi_json),
    ]


def collector_app(
    collector: Collector, log: Log, settings: Settings, registry: CollectorRegistry, lag: Callable[[], int],
    links: ASGIApp | None = None, inbox: ASGIApp | None = None,
) -> ASGIApp:  # fmt: skip
    """The collector alone, as `tidewire collector` serves it; `links` and `inbox`: with clocks of their own."""
    rest = Starlette(routes=collector_routes(log, settings, registry, lag))
    return CollectorFirst(collector, rest, links or links_app(log, settings, registry),
                          inbox or inbox_app(log, settings, registry, None))  # fmt: skip
