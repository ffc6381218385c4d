"""Where a command sends events: a Tidewire that runs already, or one of its own for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from config.settings import Settings
from schemas.errors import ConfigError, TidewireError, Unreachable
from streams.access import Api, RunFile, find_running, with_folder_key, write_key_of
from streams.lag import Lag, measure_lag

if TYPE_CHECKING:
    from sinks.analytics import Analytics
    from streams.log import Log
    from streams.roles import Running

LOOK_EVERY_S = 0.1
EVERY_ROLE = frozenset({"collector", "worker", "sink", "sender", "dashboard"})


class Stopped(TidewireError):
    """The Tidewire that the events went to ended before they were all through."""


class Target(Protocol):
    """A Tidewire to send to, and to read back from."""

    @property
    def url(self) -> str: ...

    @property
    def write_key(self) -> str: ...

    @property
    def is_own(self) -> bool:
        """Whether it was started for this command, and ends with it."""

    async def behind(self) -> Lag:
        """What is left to do until everything that was answered 200 so far is in ClickHouse."""

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a SELECT; decimals as `Decimal` or as text with all their digits."""

    async def stay(self) -> None:
        """Return when it is stopped; at once where it is another's."""


@asynccontextmanager
async def open_target(
    settings: Settings, *, url: str | None = None, write_key: str | None = None, reads: bool = True
) -> AsyncIterator[Target]:
    """The collector at `url`; else the process that owns the data folder; else one of our own, stopped at the end.

    Args:
        reads: whether `behind` and `query` are going to be asked: of a collector elsewhere that takes its log and
            its ClickHouse.

    Raises:
        TidewireError: there is none and none can be started, or it ended meanwhile.
    """
    if url is not None:
        async with _elsewhere(settings, url, write_key, reads) as elsewhere:
            yield elsewhere
        return
    found = await asyncio.to_thread(find_running, settings.data)
    if found is not None:
        yield _Running(found, write_key or write_key_of(settings))
        return
    async with _own(settings, write_key) as own:
        yield own


async def wait_until_through(target: Target, patience_s: float = 120.0) -> None:
    """Return when everything sent before is in ClickHouse.

    Raises:
        Unreachable: some of it is not, and nothing has moved for `patience_s`.
    """
    clock = asyncio.get_running_loop().time
    before, since = None, clock()
    while not (left := await target.behind()).is_none:
        if left != before:
            before, since = left, clock()
        elif clock() - since > patience_s:
            who = "worker" if left.stage else "sink"
            raise Unreachable(
                f"{max(left):,} records are not in ClickHouse yet, and nothing has moved for {patience_s:.0f} s. "
                f"Does a {who} run? `tidewire doctor` looks."
            )
        await asyncio.sleep(LOOK_EVERY_S)


class _Running:
    """The process that owns the data folder, asked by its API."""

    is_own = False

    def __init__(self, found: RunFile, write_key: str) -> None:
        self._api = Api(found.url, found.token)
        self.url = found.url
        self.write_key = write_key

    async def behind(self) -> Lag:
        status = await asyncio.to_thread(self._api.get, "/api/status")
        if status["trouble"]:
            raise Unreachable(f"{self.url} cannot say how far it is: {status['trouble']}")
        return Lag(int(status["stage_behind"]["records"]), int(status["clickhouse_behind"]["records"]))

    async def query(self, sql: str) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self._api.post, "/api/sql", {"query": sql})
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    async def stay(self) -> None:
        return


class _Elsewhere:
    """A collector whose log and ClickHouse other processes read and fill too."""

    is_own = False

    def __init__(self, url: str, write_key: str, log: Log | None, analytics: Analytics | None) -> None:
        self.url = url
        self.write_key = write_key
        self._log = log
        self._analytics = analytics

    async def behind(self) -> Lag:
        assert self._log is not None
        return await measure_lag(self._log)

    async def query(self, sql: str) -> list[dict[str, Any]]:
        assert self._analytics is not None
        return await self._analytics.query(sql)

    async def stay(self) -> None:
        return


@asynccontextmanager
async def _elsewhere(settings: Settings, url: str, write_key: str | None, reads: bool) -> AsyncIterator[Target]:
    if not (write_key or settings.write_keys):
        raise ConfigError("--url", "another collector needs a write key that it knows.",
                          "Name it with --write-key or TIDEWIRE_WRITE_KEYS.")  # fmt: skip
    key = write_key or write_key_of(settings)
    if not reads:
        yield _Elsewhere(url, key, None, None)
        return
    if settings.is_embedded or settings.analytics_url.startswith("chdb:"):
        raise ConfigError("--url", "what that collector took is read back from its log and its ClickHouse.",
                          "Name them with --log kafka://… and --analytics clickhouse://….")  # fmt: skip
    from sinks.analytics import Analytics
    from streams.grounds import open_log

    async with AsyncExitStack() as stack:
        log = open_log(settings)
        await log.start()
        stack.push_async_callback(log.stop)
        analytics = Analytics(settings.analytics_url, settings.analytics_password)
        stack.push_async_callback(analytics.close)
        await analytics.start()
        yield _Elsewhere(url, key, log, analytics)


class _Own:
    """All roles in this process."""

    is_own = True

    def __init__(self, running: Running, write_key: str, roles: asyncio.Task[None]) -> None:
        self._running = running
        self._roles = roles
        self.is_staying = False
        self.url = running.url
        self.write_key = write_key

    async def behind(self) -> Lag:
        return await measure_lag(self._running.log)

    async def query(self, sql: str) -> list[dict[str, Any]]:
        return await self._running.analytics.query(sql)

    async def stay(self) -> None:
        self.is_staying = True
        await asyncio.wait([self._roles])


@asynccontextmanager
async def _own(settings: Settings, write_key: str | None) -> AsyncIterator[Target]:
    from streams.roles import run

    settings = with_folder_key(settings)
    started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()

    async def ready(running: Running) -> None:
        started.set_result(running)

    roles = asyncio.create_task(run(settings, EVERY_ROLE, ready=ready))
    try:
        first: tuple[asyncio.Future[Any], ...] = (roles, started)
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await roles  # raises what went wrong
            raise Stopped("Tidewire was stopped before it had started.")
        running = started.result()
        own = _Own(running, write_key or write_key_of(settings), roles)
        async with _while_running(own, roles):
            yield own
        running.stop()
        await roles
    finally:
        if not roles.done():
            if started.done():
                started.result().stop()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(roles), 30)
            roles.cancel()
            await asyncio.gather(roles, return_exceptions=True)


@asynccontextmanager
async def _while_running(own: _Own, roles: asyncio.Task[None]) -> AsyncIterator[None]:
    """The body, cancelled when the roles end under it before it stays; then what ended them is raised."""
    body = asyncio.current_task()
    assert body is not None
    has_ended = False

    def end(task: asyncio.Task[None]) -> None:
        nonlocal has_ended
        if not own.is_staying:
            has_ended = True
            body.cancel()

    roles.add_done_callback(end)
    try:
        yield
    except asyncio.CancelledError:
        if not has_ended:
            raise
        body.uncancel()
        roles.result()  # raises what went wrong
        raise Stopped("Tidewire was stopped before everything was through.") from None
    finally:
        roles.remove_done_callback(end)
