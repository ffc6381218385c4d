"""Who may look: loopback only, from its own pages only, and nothing from elsewhere may run.

The pages have no accounts yet, so everything rests on three checks, made for each request before any page sees it:

- the other end is this machine, and the `Host` it asked for is a loopback name. A page of another site that has its
  name resolve to 127.0.0.1 (DNS rebinding) still sends its own name;
- a request that changes something comes from a page of ours, or carries the bearer token of `data/run.json`;
- the answer tells the browser to run, load and send nothing but what this address serves.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
        "font-src 'self'", "frame-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_NOT_LOOPBACK = (
    "403: these pages show personal data and have no accounts yet, so they answer only this machine,\n"
    "asked by the name localhost or 127.0.0.1. Open them there, or reach them through a tunnel:\n"
    "    ssh -L 8088:127.0.0.1:8088 THIS-MACHINE   and then   http://localhost:8088/\n"
)
_NOT_OURS = (
    "403: this request would change something and did not come from a page of this dashboard.\n"
    "Open the dashboard itself and use its buttons, or send the token of data/run.json as\n"
    "    Authorization: Bearer TOKEN\n"
)


def is_loopback_name(host: str) -> bool:
    """Whether a `Host` header names this machine by a loopback name.

    >>> [is_loopback_name(host) for host in ("localhost:8088", "127.0.0.1", "[::1]:80", "evil.example", "")]
    [True, True, True, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_loopback_client(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_same_origin(headers: Headers) -> bool:
    """Whether a browser says that the request comes from a page of this very address."""
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    return site == "same-origin"


def has_token(connection: HTTPConnection, token: str) -> bool:
    """Whether the request carries the bearer token; never, where there is none."""
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


class Guard:
    """Middleware around the whole dashboard; see the page."""

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a mail that is shown in a frame has a stricter policy of its own
                headers.setdefault("cache-control", "no-store")
            await send(message)

        connection = HTTPConnection(scope)
        if not _is_loopback_client(scope) or not is_loopback_name(connection.headers.get("host", "")):
            await PlainTextResponse(_NOT_LOOPBACK, 403)(scope, receive, send_guarded)
            return
        if scope["method"] not in SAFE_METHODS and not (
            is_same_origin(connection.headers) or has_token(connection, self._token)
        ):
            await PlainTextResponse(_NOT_OURS, 403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)
