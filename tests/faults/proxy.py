"""A TCP proxy on loopback that can be a bad network, and another one a moment later.

    with Proxy(target_port) as proxy:
        ...                                   # clients connect to proxy.port
        proxy.be(Delay(0.5))                  # half a second each way
        proxy.be(DropAnswers(share=0.3))      # three requests of ten are done, and nobody hears of it
        proxy.reset()                         # every connection ends with a RST, now

It runs in a thread of its own. A mode holds for all connections, those that are open and those to come, from the next
chunk on. No mode loses a part of a stream and then goes on with it, for TCP does not: connections that lost something
are reset when the mode ends.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

CHUNK = 64 * 1024
MOST_HELD_BYTES = 8 * 1024 * 1024  # of one direction of one connection while it waits for a delay
SMALL_HELD_BYTES = 2 * CHUNK  # likewise where a narrow link is to press back on who sends
STARTS_WITHIN_S = 10.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Pass:
    """As if there were no proxy."""


@dataclass(frozen=True)
class Delay:
    """Everything comes later by so many seconds, each way, in order."""

    seconds: float


@dataclass(frozen=True)
class Throttle:
    """A narrow link: so many bytes a second each way, for all connections together."""

    bytes_per_s: int


@dataclass(frozen=True)
class DropAnswers:
    """Requests arrive, and the answers of a share of them do not.

    A request begins where the client speaks after the target did, as in HTTP and Kafka with one request at a time.
    The connection whose answer was swallowed hangs, or is reset as soon as the answer came.

    Attributes:
        share: of the requests, 0 to 1; by a dice with this seed.
        of: of which requests, by the first bytes of each; of all without it.
        hangs: whether the connection stays open in silence.
    """

    share: float = 1.0
    of: Callable[[bytes], bool] = bool
    hangs: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Reset:
    """Every connection ends with a RST, new ones at once."""


@dataclass(frozen=True)
class Blackhole:
    """Connections are accepted, and whatever either side says comes to nobody."""


@dataclass(frozen=True)
class HalfOpen:
    """The connections open now have lost their peer, and no FIN said so: they stay dead in silence. New ones work."""


Mode = Pass | Delay | Throttle | DropAnswers | Reset | Blackhole | HalfOpen


class Proxy:
    """Passes TCP connections to a port of loopback, or another host.

    Attributes:
        port: where it listens.
        accepted: how many connections came so far.
        dropped_answers: how many answers it swallowed so far.
        bytes_up, bytes_down: what it handed to the target, and to the clients.
    """

    def __init__(self, target_port: int, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self._target = (host, target_port)
        self.port = port
        self.accepted = 0
        self.dropped_answers = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._mode: Mode = Pass()
        self._links: set[_Link] = set()
        self._bucket = _Bucket()
        self._dice = random.Random(0)
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy to {target_port}", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._server: asyncio.Server | None = None

    # --- from any thread

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(STARTS_WITHIN_S):
            raise RuntimeError("the proxy did not start")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STARTS_WITHIN_S)

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._links)

    def be(self, mode: Mode) -> None:
        """Change. When this returns, it holds."""
        self._do(self._become(mode))

    def reset(self) -> int:
        """Reset every connection now, whatever the mode; how many there were."""
        return self._do(self._reset_all())

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STARTS_WITHIN_S)

    # --- in its own thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            try:
                self._server = self._loop.run_until_complete(
                    asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)
                )
                self.port = self._server.sockets[0].getsockname()[1]
            except BaseException as error:
                self._failure = error
                return
            finally:
                self._ready.set()
            self._loop.run_forever()
            self._loop.run_until_complete(self._end(self._server))
        finally:
            self._loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        """Close every connection, also one that was accepted this very moment and is no link yet."""
        server.close()
        while True:
            await _turns()
            for link in list(self._links):
                link.reset()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _become(self, mode: Mode) -> None:
        self._mode = mode
        self._bucket = _Bucket()
        if isinstance(mode, DropAnswers):
            self._dice = random.Random(mode.seed)
        for link in list(self._links):
            if isinstance(mode, Reset) or link.is_torn:
                link.reset()
            elif isinstance(mode, HalfOpen):
                link.lose_target()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if isinstance(self._mode, Reset):
            _abort(writer)
            return
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run(*self._target)
        except asyncio.CancelledError:  # the proxy stops, and asyncio's streams would call that an error
            return
        finally:
            self._links.discard(link)


async def _turns() -> None:
    """Let the loop go round: what was accepted becomes a task, and a transport that was closed lets go its socket."""
    for _ in range(3):
        await asyncio.sleep(0)


class _Bucket:
    """When the next byte of a narrow link may go, for both directions."""

    def __init__(self) -> None:
        self.free_at = {"up": 0.0, "down": 0.0}

    def take(self, way: str, size: int, bytes_per_s: int, now: float) -> float:
        """How long to wait before so many bytes may go."""
        start = max(now, self.free_at[way])
        self.free_at[way] = start + size / bytes_per_s
        return self.free_at[way] - now


class _Link:
    """One connection of a client, and the one to the target behind it.

    Attributes:
        is_torn: something of it was lost, so it cannot go on once the mode is over.
    """

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._target: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.is_torn = False
        self._is_dead = False  # in silence, for ever
        self._ended = asyncio.Event()
        self._target_spoke = True
        self._swallows = False

    async def run(self, host: str, port: int) -> None:
        try:
            if isinstance(self._proxy._mode, Blackhole):
                self.is_torn = True  # the target will never have heard of it
                pumps = [self._pump("up", self._client[0], None)]
            else:
                try:
                    self._target = await asyncio.open_connection(host, port, limit=CHUNK)
                except OSError:  # nobody listens: the client hears what it would have heard
                    self.reset()
                    return
                pumps = [
                    self._pump("up", self._client[0], self._target[1]),
                    self._pump("down", self._target[0], self._client[1]),
                ]
            tasks = [asyncio.ensure_future(pump) for pump in pumps]
            over: asyncio.Future[Any] = asyncio.ensure_future(self._ended.wait())
            try:
                both: asyncio.Future[Any] = asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.wait({both, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*tasks, over):
                    task.cancel()
                await asyncio.gather(*tasks, over, return_exceptions=True)
        finally:
            self._close()

    def reset(self) -> None:
        for side in (self._client, self._target):
            if side is not None:
                _abort(side[1])
        self._ended.set()

    def lose_target(self) -> None:
        """The client is told nothing."""
        self._is_dead = True
        if self._target is not None:
            _abort(self._target[1])

    def _close(self) -> None:
        for side in (self._client, self._target):
            if side is not None:
                side[1].close()

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
        """Carry one direction: one task reads and says when what it read is due, the other hands it on."""
        flight = _Flight()
        hand_on = asyncio.ensure_future(self._hand_on(way, flight, writer))
        try:
            while True:
                try:
                    chunk = await reader.read(CHUNK)
                except OSError:
                    if not self._is_dead:
                        self.reset()
                    break
                if not chunk:
                    break
                mode = self._proxy._mode
                self._notice(way, chunk, mode)
                if self._loses(way, mode):
                    continue
                delay_s = mode.seconds if isinstance(mode, Delay) else 0.0
                flight.add(chunk, asyncio.get_running_loop().time() + delay_s)
                await flight.until_below(MOST_HELD_BYTES if delay_s else SMALL_HELD_BYTES)
            if self._is_dead:
                if way == "down":
                    await self._ended.wait()  # the client waits for an answer that never comes
                return
            flight.end()
            await hand_on
        finally:
            hand_on.cancel()
            await asyncio.gather(hand_on, return_exceptions=True)

    def _notice(self, way: str, chunk: bytes, mode: Mode) -> None:
        """Where a request begins, decide whether it will be answered."""
        if way == "down":
            self._target_spoke = True
        elif self._target_spoke:
            self._target_spoke = False
            self._swallows = (
                isinstance(mode, DropAnswers) and mode.of(chunk) and self._proxy._dice.random() < mode.share
            )

    def _loses(self, way: str, mode: Mode) -> bool:
        if self._is_dead:
            return True
        if isinstance(mode, Blackhole):
            self.is_torn = True
            return True
        if way == "down" and self._swallows and isinstance(mode, DropAnswers):
            if not self.is_torn:
                self.is_torn = True
                self._proxy.dropped_answers += 1
                if not mode.hangs:
                    self.reset()
            return True
        return False

    async def _hand_on(self, way: str, flight: _Flight, writer: asyncio.StreamWriter | None) -> None:
        loop, proxy = asyncio.get_running_loop(), self._proxy
        while (first := await flight.first()) is not None:
            chunk, due = first
            while not isinstance(proxy._mode, Pass) and (left_s := due - loop.time()) > 0:
                await _sleep_or(proxy._changed, left_s)
            mode = proxy._mode
            if isinstance(mode, Throttle):
                await _sleep_or(
                    proxy._changed, proxy._bucket.take(way, len(chunk), mode.bytes_per_s, loop.time())
                )
            if isinstance(proxy._mode, Blackhole) or writer is None or self._is_dead:
                self.is_torn = True
            else:
                try:
                    writer.write(chunk)
                    await writer.drain()
                except OSError:
                    if not self._is_dead:
                        self.reset()
                    return
                if way == "up":
                    proxy.bytes_up += len(chunk)
                else:
                    proxy.bytes_down += len(chunk)
            flight.leave()
        if writer is not None and not self._is_dead and writer.can_write_eof():
            try:
                writer.write_eof()
            except OSError:  # the other side has closed both ways
                return


class _Flight:
    """Chunks on their way, in order, each with the moment when it is due."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[bytes, float]] = deque()
        self._size = 0
        self._is_over = False
        self._moved = asyncio.Event()

    def add(self, chunk: bytes, due: float) -> None:
        self._chunks.append((chunk, due))
        self._size += len(chunk)
        self._tell()

    def end(self) -> None:
        self._is_over = True
        self._tell()

    def leave(self) -> None:
        chunk, _ = self._chunks.popleft()
        self._size -= len(chunk)
        self._tell()

    async def first(self) -> tuple[bytes, float] | None:
        while not self._chunks:
            if self._is_over:
                return None
            await self._moved.wait()
        return self._chunks[0]

    async def until_below(self, size: int) -> None:
        while self._size > size:
            await self._moved.wait()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


async def _sleep_or(changed: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the mode changes."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
