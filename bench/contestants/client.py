"""Sends the traffic of a shop to a collector, in batches: as fast as it is taken, or at a pace.

Everybody has a lane, and a lane one request under way, so what a person does arrives in order. At a pace, a request is
due whether or not the ones before it were answered, and its events carry in their messageIds when it was due: waiting
for a slow server counts in full.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice, tee

import msgspec
import uvloop

from bench import shop
from bench.load import Connection, request
from bench.measure import percentile
from bench.shop_journeys import MARK, marked

DEEPEST = 1  # requests that may wait behind the one under way, where there is no pace
PAUSE_S = 0.1  # after an answer that says: not now
_NOT_NOW = frozenset({429, 503})
_TIMESTAMP = re.compile(rb'"timestamp":"[^"]*"')
_MESSAGE_ID = re.compile(rb'"messageId":"[^"]*"')


class Job(msgspec.Struct, frozen=True):
    """What to send, and where.

    Attributes:
        calls: how many, after `skip` of the `made` ones.
        rate: events a second; 0: as fast as they are taken.
        is_marked: they happen now, and of every twenty one is for journeys (`bench/shop_journeys.py`), and says when it
            was due.
    """

    url: str
    write_key: str
    made: int
    calls: int
    skip: int = 0
    batch: int = 100
    lanes: int = 32
    rate: float = 0.0
    is_marked: bool = False


class Lane:
    """One connection, and the requests that wait for it."""

    def __init__(self, url: str, connection: Connection, on_answer: Callable[[float, bool], None]) -> None:
        self._url, self._connection = url, connection
        self._opening: asyncio.Task[None] | None = None
        self._on_answer = on_answer
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._is_busy = False
        self._emptied: asyncio.Future[None] | None = None

    def give(self, due: float, whole: bytes) -> None:
        self._waiting.append((due, whole))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            self._is_busy = False
            if self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)
            return
        self._is_busy = True
        if self._connection.is_closed:  # the collector lets go of one on which nothing came for so long
            self._opening = asyncio.get_running_loop().create_task(self._open_again())
            return
        self._connection.send(self._waiting[0][1], self._answered)

    async def _open_again(self) -> None:
        self._connection = await Connection.open(self._url)
        self._next()

    def _answered(self, status: int) -> None:
        if status in _NOT_NOW:
            self._on_answer(0.0, True)
            asyncio.get_running_loop().call_later(PAUSE_S, self._next)
            return
        if status != 200:
            raise SystemExit(f"the collector answered {status or 'nothing'}")
        due, _ = self._waiting.popleft()
        self._on_answer(time.time() - due, False)
        self._next()

    @property
    def waiting(self) -> int:
        """Requests that were not answered yet."""
        return len(self._waiting)

    async def empty(self) -> None:
        """Return when everything given was answered."""
        if self._is_busy:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied


async def send(given: Job) -> None:
    took: list[float] = []
    repeated = 0

    def answered(seconds: float, is_repeated: bool) -> None:
        nonlocal repeated
        if is_repeated:
            repeated += 1
        else:
            took.append(seconds)

    lanes = [Lane(given.url, await Connection.open(given.url), answered) for _ in range(given.lanes)]
    gathered: list[list[bytes]] = [[] for _ in lanes]
    calls = islice(_made(given), given.skip, given.skip + given.calls)
    first = list(islice(calls, given.batch * given.lanes))  # so that it does not begin with reading a file
    began = time.time()
    print(json.dumps({"began": began}), flush=True)
    sent = 0
    for person, body in _chain(first, calls):
        number = person % len(lanes)
        gathered[number].append(body)
        sent += 1
        if len(gathered[number]) == given.batch:
            await _give(given, lanes[number], gathered[number], sent, began)
            gathered[number] = []
    for lane, bodies in zip(lanes, gathered, strict=True):
        if bodies:
            lane.give(time.time(), _request(given, bodies))
    for lane in lanes:
        await lane.empty()
    took.sort()
    said = {"sent": sent, "ended": time.time(), "requests": len(took), "repeated": repeated,
            "p50_ms": percentile(took, 0.5) * 1000, "p99_ms": percentile(took, 0.99) * 1000}  # fmt: skip
    print(json.dumps(said), flush=True)


def _made(given: Job) -> Iterator[tuple[int, bytes]]:
    if not given.is_marked:
        return shop.calls(given.made)
    people, bodies = tee(shop.calls(given.made))
    happening = (_TIMESTAMP.sub(_now(), body, count=1) for body in marked(body for _, body in bodies))
    return zip((person for person, _ in people), happening, strict=True)


def _now() -> bytes:
    """What happened long ago lets nobody enter a journey."""
    return b'"timestamp":"%s"' % datetime.now(UTC).isoformat(timespec="milliseconds").encode()


async def _give(given: Job, lane: Lane, bodies: list[bytes], sent: int, began: float) -> None:
    if given.rate:
        due = began + sent / given.rate
        whole = _request(given, [_stamped(body, due, sent - number) for number, body in enumerate(bodies)])
        await asyncio.sleep(max(0.0, due - time.time()))
        lane.give(due, whole)
    else:
        whole = _request(given, bodies)
        if lane.waiting > DEEPEST:
            await lane.empty()
        lane.give(time.time(), whole)


def _request(given: Job, bodies: list[bytes]) -> bytes:
    return request(f"{given.url}/v1/batch", b'{"batch":[' + b",".join(bodies) + b"]}", given.write_key)


def _stamped(body: bytes, due: float, number: int) -> bytes:
    due_ns = int(due * 1e9)
    body = body.replace(MARK, b'"due":%d,%s' % (due_ns, MARK), 1)
    return _MESSAGE_ID.sub(b'"messageId":"due-%d-%d"' % (due_ns, number), body, count=1)


def _chain(first: list[tuple[int, bytes]], rest: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield from first
    yield from rest


def main() -> None:
    given = msgspec.json.decode(sys.argv[1], type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send(given))


if __name__ == "__main__":
    main()
