"""A receiver of posts on this machine, and a message for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer

from sinks.messages.channel import Message
from sinks.messages.rendering import Rendered

ID = "0123456789abcdef0123456789abcdef"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Request(NamedTuple):
    """What came."""

    method: str
    path: str
    query: str
    headers: Any
    body: bytes


class Says(NamedTuple):
    """An answer."""

    status: int = 200
    text: str = ""
    headers: Mapping[str, str] = {}


class Receiver(NamedTuple):
    """Where it listens, and what came. `allow` lets it be asked."""

    url: str
    allow: tuple[str, ...]
    requests: list[Request]


@asynccontextmanager
async def receiver(*answers: Says | Handler) -> AsyncIterator[Receiver]:
    """Gives these answers one after the other, the last of them on and on."""
    requests: list[Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        body, query = await request.read(), request.raw_path.partition("?")[2]
        requests.append(Request(request.method, request.path, query, request.headers.copy(), body))
        answer = answers[min(len(requests), len(answers)) - 1]
        if isinstance(answer, Says):
            return web.Response(status=answer.status, text=answer.text, headers=answer.headers)
        return await answer(request)

    application = web.Application(client_max_size=1 << 20)
    application.router.add_route("*", "/{path:.*}", handle)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server(shutdown_timeout=0.0)
    try:
        yield Receiver(f"http://127.0.0.1:{server.port}", (f"127.0.0.1:{server.port}",), requests)
    finally:
        await server.close()


@asynccontextmanager
async def speaker(*pieces: bytes, pause_s: float = 0.0, hangs: bool = False) -> AsyncIterator[Receiver]:
    """Answers with these bytes and nothing else, then closes, or hangs until it is left."""
    requests: list[Request] = []
    under_way: list[asyncio.Future[None]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        under_way.append(ended)
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(Request(*head.decode().split()[:2], "", {}, head))
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            if hangs:
                await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set_result(None)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield Receiver(f"http://{place}", (place,), requests)
    finally:
        server.close()
        await asyncio.gather(*under_way)


def message(to: str = "ada@example.com", **changes: Any) -> Message:
    content = Rendered("en", "Hello", "", "Hello Ada", "<p>Hello Ada</p>")
    return Message(ID, "w/p1", to, "hello", "marketing", "offers", content)._replace(**changes)
