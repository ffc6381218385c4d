"""One question to the API: of the process that owns the data folder, else of the same pages in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from config.settings import Settings
from schemas.errors import TidewireError
from streams.access import Answer, Api, find_running

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Result = TypeVar("Result")
TOKEN = "own"  # noqa: S105 - of pages that nobody else can reach
HOST = "127.0.0.1"


def ask(settings: Settings, question: Callable[[Api], Result]) -> Result:
    """Put the question, which may be several calls.

    Raises:
        TidewireError: there is no data; or another process holds the folder and does not answer.
    """
    found = find_running(settings.data)
    if found is not None:
        return question(Api(found.url, found.token))
    from streams.cli.run import in_loop

    return in_loop(_ask_ourselves(settings, question))


def must_exist(settings: Settings) -> None:
    """A question makes no data folder.

    Raises:
        TidewireError: there is no chDB where the settings say, or a restore was broken off; with the mend.
    """
    from streams.grounds import refuse_half_restored

    refuse_half_restored(settings)
    url = settings.analytics_url
    if not url.startswith("chdb:"):
        return
    folder = Path(url.removeprefix("chdb:").removeprefix("//"))
    if not folder.is_dir():
        raise TidewireError(f"There is no data in {folder}. Start with `tidewire demo` or `tidewire up`, "
                            "or name the folder with --data.")  # fmt: skip


async def _ask_ourselves(settings: Settings, question: Callable[[Api], Result]) -> Result:
    must_exist(settings)
    async with _pages(settings) as app:
        # The question is plain code that waits for its answers, so it may not stand in the loop that gives them.
        return await asyncio.to_thread(question, _OwnApi(app, asyncio.get_running_loop()))


@asynccontextmanager
async def _pages(settings: Settings) -> AsyncIterator[ASGIApp]:
    from processors.fold import Fold
    from processors.registry import load_processors
    from sinks.analytics import Analytics
    from streams.grounds import open_log
    from web.dashboard.app import dashboard

    fold = Fold(load_processors(settings.config))
    log = open_log(settings)
    await log.start()
    try:
        analytics = Analytics(settings.analytics_url, settings.analytics_password)
        try:
            await analytics.start()
            yield dashboard(log, analytics, settings, TOKEN, check=fold.check)
        finally:
            await analytics.close()
    finally:
        await log.stop()


class _OwnApi(Api):
    """The API of pages in this process, asked from another thread."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(f"http://{HOST}", TOKEN)
        self._app = app
        self._loop = loop

    def _exchange(self, method: str, path: str, body: Any) -> Answer:
        return asyncio.run_coroutine_threadsafe(self._call(method, path, body), self._loop).result()

    async def _call(self, method: str, path: str, body: Any) -> Answer:
        data = b"" if body is None else json.dumps(body).encode()
        raw_path, _, query = path.partition("?")
        scope: MutableMapping[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(raw_path), "raw_path": raw_path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(b"host", HOST.encode()), *((name.lower().encode(), value.encode())
                                                    for name, value in self._headers.items())],
            "client": (HOST, 0), "server": (HOST, 80),
        }  # fmt: skip
        status = 500
        parts: list[bytes] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return Answer(status, b"".join(parts))
