"""Send Segment calls to a collector over HTTP: at least once, and those of one person in order.

Calls are gathered into batches on a few lanes. A person always takes the same lane, and a lane has one request under
way, so her calls arrive in the order they were given, however often a request must be repeated. A repeated request
carries the same bytes, so the same messageIds: the collector's side makes "at least once" into "once".
"""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from types import TracebackType
from typing import NamedTuple, Self
from zlib import crc32

import aiohttp

from schemas.errors import TidewireError, Unreachable, shown
from schemas.event import LARGEST_BATCH_BYTES, LARGEST_EVENT_BYTES, MOST_EVENTS_IN_BATCH

PATH = "/v1/batch"
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
LONGEST_ANSWER_S = 60.0
SAY_AFTER_S = 2.0
_FRAME = len(b'{"batch":[]}')
_WORTH_REPEATING = frozenset({408, 425, 429, 500, 502, 503, 504})


class CallRefused(TidewireError):
    """The collector will never take this request: a wrong write key, a wrong address, a call that is too large."""


class Sent(NamedTuple):
    """What a sender has done so far: calls answered 200, requests answered 200, and requests that were repeated."""

    calls: int
    requests: int
    repeated: int


class Sender:
    """Sends calls to one collector; use it as an async context manager, which flushes at its end.

    Args:
        url: address of the collector, such as `http://127.0.0.1:8088`.
        write_key: goes into the Basic header.
        batch: calls of one request, at most; a request is also kept below Segment's 500 KB.
        lanes: requests under way at once, at most.
        patience_s: how long a request is repeated before the collector counts as unreachable.
        compress: send gzip; worth it over a network, not on one machine.
        on_sent: told the number of calls of each request when it was answered 200.
        on_trouble: told once, in words, when requests have failed for some seconds.

    Raises (from every method):
        CallRefused: see there. Calls of other requests may have been stored.
        Unreachable: no 200 within `patience_s`. What was not answered may or may not have been stored;
            sending the same calls again, with the same messageIds, is right.
    """

    def __init__(
        self,
        url: str,
        write_key: str,
        *,
        batch: int = 500,
        lanes: int = 4,
        patience_s: float = 120.0,
        compress: bool = False,
        on_sent: Callable[[int], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {
            "Authorization": "Basic " + b64encode(f"{write_key}:".encode()).decode(),
            "Content-Type": "application/json",
        }
        if compress:
            self._headers["Content-Encoding"] = "gzip"
        self._compress = compress
        self._batch = min(batch, MOST_EVENTS_IN_BATCH)
        self._patience_s = patience_s
        self._on_sent = on_sent
        self._on_trouble = on_trouble
        self._is_in_trouble = False
        self._lanes = [_Lane() for _ in range(lanes)]
        self._http: aiohttp.ClientSession | None = None
        self._jitter = Random()
        self._calls = self._requests = self._repeated = 0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=LONGEST_ANSWER_S, connect=5.0),
            connector=aiohttp.TCPConnector(limit=len(self._lanes)),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
        finally:
            for lane in self._lanes:
                if lane.under_way is not None:
                    lane.under_way.cancel()
            await asyncio.gather(*(lane.under_way for lane in self._lanes if lane.under_way), return_exceptions=True)
            if self._http is not None:
                await self._http.close()

    @property
    def sent(self) -> Sent:
        return Sent(self._calls, self._requests, self._repeated)

    async def send(self, person: str, call: bytes) -> None:
        """Give one call, a JSON object with `type` and `messageId`. Waits while the person's lane is full."""
        if len(call) > LARGEST_EVENT_BYTES:
            begins = call[:80].decode("utf-8", "replace")
            raise CallRefused(f"a call of {len(call)} bytes is over the {LARGEST_EVENT_BYTES} allowed: {begins}…")
        lane = self._lanes[crc32(person.encode()) % len(self._lanes)]
        if len(lane.calls) >= self._batch or lane.size_bytes + len(call) + 1 > LARGEST_BATCH_BYTES:
            await self._dispatch(lane)
        lane.calls.append(call)
        lane.size_bytes += len(call) + 1

    async def flush(self) -> None:
        """Wait until every call given so far was answered 200."""
        for lane in self._lanes:
            if lane.calls:
                await self._dispatch(lane)
        for lane in self._lanes:
            await lane.settled()

    async def _dispatch(self, lane: _Lane) -> None:
        await lane.settled()
        calls, lane.calls = lane.calls, []
        lane.size_bytes = _FRAME
        lane.under_way = asyncio.create_task(self._deliver(calls))

    async def _deliver(self, calls: list[bytes]) -> None:
        body = b'{"batch":[' + b",".join(calls) + b"]}"
        if self._compress:
            body = gzip.compress(body, 6)
        loop = asyncio.get_running_loop()
        began = loop.time()
        give_up = began + self._patience_s
        pause = FIRST_PAUSE_S
        while True:
            trouble, asked_s = await self._post(body)
            if trouble is None:
                break
            wait_s = pause * self._jitter.uniform(0.5, 1.0) if asked_s is None else asked_s
            pause = min(pause * 2, LONGEST_PAUSE_S)
            if loop.time() + wait_s > give_up:
                raise Unreachable(f"the collector at {self.url} did not take the events for {self._patience_s:.0f} s; "
                                  f"the last time: {trouble}. Start it with `tidewire up`.")  # fmt: skip
            if loop.time() - began > SAY_AFTER_S:
                self._say(f"The collector at {self.url} does not take the events: {trouble}. "
                          f"Trying again for {give_up - loop.time():.0f} s.")  # fmt: skip
            self._repeated += 1
            await asyncio.sleep(wait_s)
        self._is_in_trouble = False
        self._calls += len(calls)
        self._requests += 1
        if self._on_sent is not None:
            self._on_sent(len(calls))

    def _say(self, what: str) -> None:
        if not self._is_in_trouble and self._on_trouble is not None:
            self._on_trouble(what)
        self._is_in_trouble = True

    async def _post(self, body: bytes) -> tuple[str | None, float | None]:
        """None when answered 200; else what went wrong, and the seconds to wait where the collector named them."""
        if self._http is None:
            raise RuntimeError("a Sender is used inside `async with`")
        try:
            async with self._http.post(
                self.url + PATH, data=body, headers=self._headers, allow_redirects=False
            ) as answer:
                text = await answer.text(errors="replace")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise CallRefused(f"{shown(self.url)} is not the address of a collector; it looks like "
                              "http://127.0.0.1:8088") from None  # fmt: skip
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            return str(error) or type(error).__name__, None
        if answer.status == 200:
            return None, None
        if answer.status in _WORTH_REPEATING:
            return f"status {answer.status}", _retry_after_s(answer.headers.get("Retry-After"))
        if answer.status in (401, 403):
            raise CallRefused(f"the collector at {self.url} does not know the write key (status {answer.status}). "
                              "Name one with TIDEWIRE_WRITE_KEYS, or make one with `tidewire keys new`.")  # fmt: skip
        said = shown(" ".join(text.split())) or "it said no more"
        raise CallRefused(f"the collector at {self.url} refused the request (status {answer.status}): {said}")


class _Lane:
    """The calls gathered for the next request, and the request under way."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.size_bytes = _FRAME
        self.under_way: asyncio.Task[None] | None = None

    async def settled(self) -> None:
        if self.under_way is not None:
            await self.under_way
            self.under_way = None


def _retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, 10.2.3); None if it says none."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
