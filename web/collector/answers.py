"""Answers, ready to be sent: each is made once where it can be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Headers = tuple[tuple[bytes, bytes], ...]

ANY_ORIGIN = (b"access-control-allow-origin", b"*")  # no cookies are ever read, so every page may ask
_JSON = (b"content-type", b"application/json")
# Without this a browser hides Retry-After from the SDK, which then comes again after a quarter of a second.
_EXPOSED = (b"access-control-expose-headers", b"Retry-After, X-RateLimit-Reset")
_CLOSE = (b"connection", b"close")

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A response. `label` is its status as the metrics count it."""

    status: int
    body: bytes
    headers: Headers
    label: str

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


def answer(
    status: int, body: bytes, *headers: tuple[bytes, bytes], content_type: tuple[bytes, bytes] = _JSON
) -> Answer:
    length = (b"content-length", str(len(body)).encode())
    return Answer(status, body, (content_type, length, ANY_ORIGIN, *headers), str(status))


def refusal(status: int, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    return answer(status, _encode({"success": False, "message": message}), *headers)


def unreadable(message: str, *, hang_up: bool = False) -> Answer:
    """400: the request as a whole fails. Hang up where its body is not worth reading to the end."""
    return refusal(400, message, _CLOSE) if hang_up else refusal(400, message)


def come_again(status: int, message: str, after_s: int) -> Answer:
    """429 or 503: nothing is wrong with the events, the client is to send them again, the same, later."""
    seconds = str(max(1, after_s)).encode()
    return refusal(status, message, (b"retry-after", seconds), (b"x-ratelimit-reset", seconds), _EXPOSED)


# Exactly 200: on another 2xx older Python SDKs send the batch again until they give up, and report it lost.
TAKEN = answer(200, b'{"success":true}')

# The smallest GIF there is: one transparent pixel.
_GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
PIXEL = answer(200, _GIF, (b"cache-control", b"no-store"), content_type=(b"content-type", b"image/gif"))

PREFLIGHT = Answer(
    204,
    b"",
    (
        ANY_ORIGIN,
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (
            b"access-control-allow-headers",
            b"authorization, content-type, content-encoding, anonymousid, sentat, x-retry-count, *",
        ),
        (b"access-control-max-age", b"86400"),
        _EXPOSED,
    ),
    "204",
)

UNKNOWN_PATH = refusal(404, "There is no such path. The paths are in /openapi.json.")
NO_WRITE_KEY = refusal(
    401,
    "A write key is missing. Send it as Basic user name, as writeKey in the body, or as writeKey in the query.",
    (b"www-authenticate", b'Basic realm="write key"'),
)
WRONG_WRITE_KEY = refusal(
    401, "This write key is not known here.", (b"www-authenticate", b'Basic realm="write key"')
)
WRONG_ORIGIN = refusal(403, "This write key may not be used by pages of this origin.")
SLOW_BODY = Answer(408, *refusal(408, "The body did not come in time.", _CLOSE)[1:3], "408")


def wrong_method(allowed: str) -> Answer:
    return refusal(405, f"This path takes {allowed}.", (b"allow", allowed.encode()))
