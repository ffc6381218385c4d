"""Requests that come in one piece are taken without ASGI's steps between, and nobody can tell but by the clock."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import re
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from config.settings import Settings
from streams.log import LogBusy, Outgoing, Placed
from tests.collector.running import KEY, KEYS, PUBLIC_KEY, SLOW_KEY, Running
from web.collector.answers import TAKEN
from web.collector.ingest import MOST_TOGETHER, Collector
from web.collector.server import GuardedProtocol

pytestmark = pytest.mark.together

Start = Callable[..., Running]
AUTH = b"Authorization: Basic " + b64encode(f"{KEY}:".encode()) + b"\r\n"


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("whole")).start()
    yield running
    running.stop()


def event(number: int | str = 1, **fields: object) -> bytes:
    return json.dumps({"userId": "u1", "event": "A", "messageId": f"m-{number}", **fields}).encode()


def batch(events: int) -> bytes:
    calls = b",".join(event(n, type="track") for n in range(events))
    return b'{"batch":[' + calls + b"]}"


def request(body: bytes, path: bytes = b"/v1/track", head: bytes = AUTH, first: bytes = b"POST %b HTTP/1.1") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return first % path + b"\r\nHost: x\r\n" + head + length + b"\r\n" + body


def basic(key: str) -> bytes:
    return b"Authorization: Basic " + b64encode(f"{key}:".encode()) + b"\r\n"


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        yield connection


def answers(connection: socket.socket, count: int) -> list[bytes]:
    """So many answers, each with its head and body."""
    read, found = b"", []
    while len(found) < count:
        read += (chunk := connection.recv(65536))
        assert chunk, f"the connection ended after {len(found)} answers and {read!r}"
        while whole := re.match(rb"(?is)HTTP/1\.1 .*?content-length: (\d+).*?\r\n\r\n", read):
            end = whole.end() + int(whole[1])
            if len(read) < end:
                break
            found.append(read[:end])
            read = read[end:]
    assert not read
    return found


def until(claim: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not claim():
        assert time.monotonic() - started < 10
        time.sleep(0.005)


REQUESTS = {
    "track": request(event("track")),
    "batch": request(batch(3), b"/v1/batch"),
    "short path": request(event("short"), b"/v1/t"),
    "long batch": request(batch(600), b"/v1/batch"),
    "empty batch": request(b'{"batch":[]}', b"/v1/b"),
    "write key in the body": request(event("inside", writeKey=KEY), head=b""),
    "write key in a batch": request(b'{"writeKey":"%b","batch":[]}' % KEY.encode(), b"/v1/import", head=b""),
    "gzip": request(gzip.compress(event("gzip"), mtime=0)),
    "byte order mark": request(b"\xef\xbb\xbf" + event("mark")),
    "no write key": request(event("no"), head=b""),
    "wrong write key": request(event("wrong"), head=basic("wrong")),
    "wrong origin": request(event("origin"), head=basic(PUBLIC_KEY) + b"Origin: https://evil.example\r\n"),
    "right origin": request(event("right"), head=basic(PUBLIC_KEY) + b"Origin: https://shop.example\r\n"),
    "refused event": request(event("refused", userId="null")),
    "not JSON": request(b"{"),
    "nothing": request(b""),
    "cut gzip": request(gzip.compress(event(), mtime=0)[:-9]),
    "gzip bomb": request(gzip.compress(b" " * 3_000_000, mtime=0)),
    "too large": request(b" " * 600_000, b"/v1/batch"),
    "event too large": request(event("large", text="x" * 33_000)),
    "sentAt in a header": request(event("sent"), head=AUTH + b"sentAt: soon\r\n"),
    "chunked": b"POST /v1/track HTTP/1.1\r\nHost: x\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n"
               + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event("c")), event("c")),
    "with a query": request(event("query"), b"/v1/track?a=b"),
    "with a slash": request(event("slash"), b"/v1/track/"),
    "by a proxy": request(event("proxy"), head=AUTH + b"X-Forwarded-For: 192.0.2.9\r\n"),
    "unknown path": request(event("unknown"), b"/v1/charge"),
    "other method": request(b"", first=b"PUT %b HTTP/1.1"),
    "closing": request(event("closing"), head=AUTH + b"Connection: close\r\n"),
    "HTTP/1.0": request(event("old"), first=b"POST %b HTTP/1.0"),
    "expecting": request(event("expecting"), head=AUTH + b"Expect: 100-continue\r\n"),
}  # fmt: skip
BY_ASGI = {
    "with a query", "with a slash", "by a proxy", "unknown path", "other method", "closing", "HTTP/1.0", "expecting",
    "too large",
}  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A collector that takes every request by ASGI."""
    running = Running(tmp_path_factory.mktemp("asgi"), is_whole=False).start()
    yield running
    running.stop()


def stored(running: Running) -> tuple[list[tuple[str, object]], list[tuple[str, bytes]]]:
    events = [(event.message_id, event.flags) for event in running.events()]
    return sorted(events), sorted((letter.reason, letter.record) for letter in running.rejected())


@pytest.mark.parametrize("name", REQUESTS)
def test_whole_or_by_asgi_the_answer_and_what_is_stored_are_the_same(
    collector: Running, other: Running, name: str
) -> None:
    before = collector.taken_whole

    said = [re.sub(rb"date: .*?\r\n", b"", running.raw(REQUESTS[name])) for running in (collector, other)]

    assert said[0] == said[1]
    assert said[0].startswith(b"HTTP/1.1 ")
    assert stored(collector) == stored(other)
    if name != "too large":  # it comes in many pieces
        assert (collector.taken_whole > before) == (name not in BY_ASGI or name == "by a proxy")


def test_both_count_the_same(collector: Running, other: Running) -> None:
    for sent in REQUESTS.values():
        collector.raw(sent)
        other.raw(sent)

    for name, labels in (("received_events_total", {}), ("rejected_events_total", {}), ("requests_total", {}),
                         ("requests_total", {"status": "200"}), ("append_seconds_count", {})):  # fmt: skip
        assert collector.counted(name, **labels) == other.counted(name, **labels) > 0


def test_a_rate_counts_each_request_once(start_collector: Start) -> None:
    running = start_collector(monotonic_s=lambda: 0.0)

    statuses = [running.post(content=event(n), key=SLOW_KEY).status_code for n in range(5)]

    assert statuses == [200] * 4 + [429]


def test_a_body_that_comes_in_pieces_goes_by_asgi(collector: Running) -> None:
    whole = request(event("pieces"))
    before = collector.taken_whole

    with connected(collector) as connection:
        for begin in range(0, len(whole), 50):
            connection.sendall(whole[begin : begin + 50])
            time.sleep(0.01)
        (answer,) = answers(connection, 1)

    assert answer.startswith(b"HTTP/1.1 200")
    assert collector.taken_whole == before
    assert [e.message_id for e in collector.events()].count("m-pieces") == 1


def test_requests_after_one_another_on_a_connection_are_answered_in_order(collector: Running) -> None:
    sent = [request(event("a")), request(b"{"), request(event("b"), b"/v1/track?x=y"), request(batch(2), b"/v1/batch"),
            request(event("c"), head=b"")]  # fmt: skip

    with connected(collector) as connection:
        one_by_one = []
        for each in sent:
            connection.sendall(each)
            one_by_one += answers(connection, 1)
        connection.sendall(b"".join(sent))
        at_once = answers(connection, len(sent))

    for said in (one_by_one, at_once):
        assert [answer.split(b" ")[1] for answer in said] == [b"200", b"400", b"200", b"200", b"401"]


class Appended:
    """A log that keeps what is appended, by topic."""

    def __init__(self) -> None:
        self.appends: dict[str, list[int]] = {"events": [], "rejected": []}

    async def append(self, topic: str, records: Sequence[Outgoing]) -> list[Placed]:
        await asyncio.sleep(0)
        self.appends[topic].append(len(records))
        return []


@pytest.mark.parametrize(
    ("requests", "appended"),
    [(1, {"events": [1], "rejected": []}), (20, {"events": [16], "rejected": [4]}),
     (MOST_TOGETHER + 10, {"events": [801, 7], "rejected": [200, 2]})],
)  # fmt: skip
async def test_what_comes_at_the_same_time_is_appended_together_up_to_a_limit(
    tmp_path: Path, requests: int, appended: dict[str, list[int]]
) -> None:
    log, registry, replies = Appended(), CollectorRegistry(), []
    collector = Collector(log, KEYS, Settings(data=tmp_path), registry)  # type: ignore[arg-type]
    head = [(b"authorization", b"Basic " + b64encode(KEY.encode()))]

    for number in range(1, requests + 1):
        body = event(number) if number % 5 else event(number, userId="null")
        assert collector.take(b"/v1/track", head, body, None, replies.append)
    async with asyncio.timeout(10):
        while len(replies) < requests:  # noqa: ASYNC110 - a reply is a plain call
            await asyncio.sleep(0)

    assert log.appends == appended
    assert replies == [TAKEN] * requests
    assert registry.get_sample_value("tidewire_collector_append_seconds_count") == requests
    assert registry.get_sample_value("tidewire_collector_received_events_total", {"source": "tests"}) == requests


def test_what_the_log_does_not_take_is_refused_to_each_client(start_collector: Start) -> None:
    running = start_collector()
    running.log.faults = [LogBusy("full", 7) for _ in range(20)]

    with ExitStack() as stack:
        connections = [stack.enter_context(connected(running)) for _ in range(10)]
        for number, connection in enumerate(connections):
            connection.sendall(request(event(number)))
        said = [answers(connection, 1)[0] for connection in connections]

    assert all(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 7" in answer for answer in said)
    assert running.events() == []


def test_a_client_that_hangs_up_before_its_answer_harms_nobody(start_collector: Start) -> None:
    running = start_collector()
    running.log.is_held = True
    with connected(running) as connection:
        connection.sendall(request(event("gone")))
        until(lambda: running.taken_whole == 1)
    running.log.is_held = False

    assert running.post(content=event("next")).status_code == 200
    until(lambda: {e.message_id for e in running.events()} == {"m-gone", "m-next"})  # the one held may come after


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_connection_that_ended_holds_no_memory(start_collector: Start, is_whole: bool) -> None:
    """A shop's browsers open thousands of them, and garbage is looked for as good as never."""
    running = start_collector(is_whole=is_whole)
    gc.collect()
    gc.disable()
    try:
        for number in range(20):
            with connected(running) as connection:
                connection.sendall(request(event(f"short-{number}")))
                answers(connection, 1)
        until(lambda: not running.server.server_state.connections)

        until(lambda: not any(type(each) is GuardedProtocol for each in gc.get_objects()))
    finally:
        gc.enable()


def test_a_server_that_stops_answers_what_it_took_and_says_that_it_closes(start_collector: Start) -> None:
    running = start_collector()
    running.log.is_held = True
    with connected(running) as connection:
        connection.sendall(request(event("last")))
        until(lambda: running.taken_whole == 1)
        running.server.should_exit = True
        until(lambda: not running.server.servers[0].is_serving())
        running.log.is_held = False
        (answer,) = answers(connection, 1)
        after = connection.recv(100)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert after == b""


def test_a_bug_in_taking_a_request_is_an_answer_of_500(start_collector: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start_collector()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("web.collector.ingest.Collector._sender_first", broken)

    assert running.post(content=event()).status_code == 500
    monkeypatch.undo()
    assert running.post(content=event()).status_code == 200
