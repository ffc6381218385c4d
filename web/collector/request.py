"""Reading a request, whatever its Content-Type claims: the bytes decide."""

from __future__ import annotations

import asyncio
import zlib
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from schemas.event import LARGEST_BATCH_BYTES
from schemas.intake import text_or_empty
from schemas.safe_json import Unreadable
from web.collector.answers import Receive

MOST_DISCARDED_BYTES = 16 * 1024 * 1024  # of a body that is too large; beyond it the connection is closed
DEEPEST_QUERY_NAME = 8  # parts of a name such as context.page.title
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_TOO_LARGE = f"a request has at most {LARGEST_BATCH_BYTES} bytes, inflated"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ClientGone(Exception):
    """The client hung up: there is nobody to answer."""


class TooSlow(Exception):
    """The body did not come in time."""


class TooLarge(Unreadable):
    """The body is larger than any may be.

    It was read to its end, and thrown away: a client that is still sending when the connection closes never reads the
    answer.
    """


class FarTooLarge(TooLarge):
    """So large that its end was not waited for."""


async def read_body(receive: Receive, declared: bytes | None, timeout_s: float) -> bytes:
    """The whole body, inflated where it is gzip, and without byte order mark.

    Most bodies are there with their headers, and a timer costs more than reading one; so only the rest of a body is
    timed. Where not even its beginning comes, the server ends the connection (web/collector/server.py).

    Raises:
        ClientGone, TooSlow
        TooLarge: as declared by Content-Length, as sent, or inflated.
        Unreadable: it begins as gzip but is not.
    """
    if declared is not None and declared.isdigit() and int(declared[:20]) > MOST_DISCARDED_BYTES:
        raise FarTooLarge(_TOO_LARGE, mend="Send smaller batches.")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body") or message["type"] == "http.disconnect" or len(body) > LARGEST_BATCH_BYTES:
        try:
            async with asyncio.timeout(timeout_s):
                body = await _rest(body, message, receive)
        except TimeoutError:
            raise TooSlow from None
    return plain(body)


def plain(body: bytes) -> bytes:
    """A body as it came, inflated where it is gzip, and without byte order mark.

    Raises:
        TooLarge, Unreadable
    """
    if body[:2] == _GZIP:
        body = inflated(body)
    return body[3:] if body[:3] == _BOM else body


async def _rest(first: bytes, message: Mapping[str, Any], receive: Receive) -> bytes:
    chunks = [first]
    size = len(first)
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        if size > MOST_DISCARDED_BYTES:
            raise FarTooLarge(_TOO_LARGE, mend="Send smaller batches.")
        if size > LARGEST_BATCH_BYTES:
            chunks.clear()
        if not message.get("more_body"):
            if size > LARGEST_BATCH_BYTES:
                raise TooLarge(_TOO_LARGE, mend="Send smaller batches.")
            return b"".join(chunks)
        message = await receive()
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)


def inflated(body: bytes) -> bytes:
    """The text of a gzip file; no more of it is ever inflated than a request may have.

    Raises:
        TooLarge, Unreadable
    """
    text = b""
    try:
        while body:
            member = zlib.decompressobj(wbits=31)
            text += member.decompress(body, LARGEST_BATCH_BYTES + 1 - len(text))
            if len(text) > LARGEST_BATCH_BYTES:
                raise TooLarge(_TOO_LARGE, mend="Send smaller batches.")
            if not member.eof:
                raise Unreadable("the gzip body is cut off")
            body = member.unused_data
    except zlib.error as error:
        raise Unreadable("the gzip body is damaged", value=str(error)) from None
    return text


def basic_user(authorization: bytes) -> str:
    """The user name of a Basic header, which is the write key; empty for anything else.

    Old SDKs leave the colon out.

    >>> basic_user(b"Basic a2V5Og=="), basic_user(b"basic a2V5"), basic_user(b"Bearer a2V5Og==")
    ('key', 'key', '')
    """
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        decoded = b64decode(credentials.strip() + b"==").decode("utf-8")
    except (NotBase64, UnicodeDecodeError, ValueError):
        return ""
    return decoded.partition(":")[0]


def query_of(query: bytes) -> dict[str, str]:
    """The parameters of a query string; of a repeated one the first.

    Raises:
        Unreadable: more parameters than an event could have keys.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=1_000)
    except ValueError as error:
        raise Unreadable("the query has too many parameters", value=str(error)) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def pixel_event(query: Mapping[str, str], headers: Mapping[bytes, bytes]) -> bytes:
    """The event a pixel's query means, as JSON.

    Segment's pixel has the whole event as Base64 in `data`; RudderStack's has one parameter for each key, dotted where
    it lies deeper (`context.page.title`). The page and the browser are known from the headers. `data` that is not
    Base64 of a JSON object is a key like others.
    """
    event: dict[str, Any] = {}
    data = query.get("data", "").replace(" ", "+").replace("-", "+").replace("_", "/")
    try:
        decoded = _decode(b64decode(data + "=="))
    except (NotBase64, ValueError, RecursionError):
        decoded = None
    if isinstance(decoded, dict):
        event = decoded
    for name, value in query.items():
        if name != "writeKey" and not (name == "data" and event is decoded):
            _put(event, name.split("."), value)
    context = event.setdefault("context", {})
    if isinstance(context, dict):
        agent, referer = headers.get(b"user-agent"), headers.get(b"referer")
        if agent:
            context.setdefault("userAgent", agent.decode("latin-1"))
        page = context.setdefault("page", {})
        if referer and isinstance(page, dict):
            page.setdefault("url", referer.decode("latin-1"))
    return _encode(event)


def _put(event: dict[str, Any], path: list[str], value: str) -> None:
    """Put a query's value where its name says; a value that is a JSON object or list becomes one."""
    if len(path) > DEEPEST_QUERY_NAME:
        return
    for part in path[:-1]:
        event = event.setdefault(part, {})
        if not isinstance(event, dict):
            return
    decoded: Any = value
    if value[:1] in ("{", "["):
        try:
            decoded = _decode(value.encode())
        except (ValueError, RecursionError):
            decoded = value
    event.setdefault(path[-1], decoded)


def write_key_of_data(event: bytes) -> str:
    """The write key inside a pixel's `data`."""
    return text_or_empty(_decode(event).get("writeKey"))
