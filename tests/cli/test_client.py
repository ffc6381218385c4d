"""The sender, against a real HTTP server that answers as it is told."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import Unreachable
from schemas.event import LARGEST_BATCH_BYTES
from streams import client
from streams.client import CallRefused, Sender

Answer = Callable[[int, list[dict]], web.Response | None]


class Collector:
    """Keeps what it answered 200; before that asks `answer(number of the request, its calls)`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[list[dict]] = []
        self.stored: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.under_way = self.most_under_way = 0
        self.sizes: list[int] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            body = await request.read()
            self.sizes.append(len(body))
            calls = json.loads(body)["batch"]
            self.headers.append(dict(request.headers))
            self.requests.append(calls)
            await asyncio.sleep(0.002)
            answer = self.answer(len(self.requests), calls)
            if answer is None:
                self.stored += calls
                return web.json_response({"success": True})
            return answer
        finally:
            self.under_way -= 1


@asynccontextmanager
async def collector(answer: Answer = lambda number, calls: None) -> AsyncIterator[Collector]:
    kept = Collector(answer)
    app = web.Application(client_max_size=2**20)
    app.router.add_post("/v1/batch", kept.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kept.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield kept
    finally:
        await runner.cleanup()


def call(person: int, number: int, size: int = 0) -> bytes:
    named = {"type": "track", "event": "x", "userId": f"u{person}", "messageId": f"{person}-{number}"}
    return json.dumps({**named, "n": number, "pad": "x" * size}).encode()


async def give(sender: Sender, people: int, each: int) -> None:
    for number in range(each):
        for person in range(people):
            await sender.send(f"u{person}", call(person, number))


def in_order(calls: list[dict]) -> bool:
    """Whether the first arrivals of each person's calls stand in the order they were sent."""
    last: dict[str, int] = {}
    seen: set[str] = set()
    for each in calls:
        if each["messageId"] in seen:
            continue
        seen.add(each["messageId"])
        if each["n"] != last.get(each["userId"], -1) + 1:
            return False
        last[each["userId"]] = each["n"]
    return True


async def test_every_call_arrives_once_and_in_the_order_of_its_person():
    async with collector() as server, Sender(server.url, "key", batch=7, lanes=3) as sender:
        await give(sender, people=11, each=20)
        await sender.flush()

    assert len(server.stored) == 220
    assert in_order(server.stored)
    assert sender.sent.calls == 220
    assert max(len(calls) for calls in server.requests) == 7
    assert 1 < server.most_under_way <= 3


async def test_leaving_the_context_sends_what_is_left():
    async with collector() as server:
        async with Sender(server.url, "key", batch=500) as sender:
            await sender.send("u1", call(1, 0))

        assert [each["messageId"] for each in server.stored] == ["1-0"]


async def test_the_write_key_goes_into_the_basic_header():
    async with collector() as server, Sender(server.url, "wk") as sender:
        await sender.send("u1", call(1, 0))
        await sender.flush()

        assert server.headers[0]["Authorization"] == "Basic d2s6"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_busy_collector_gets_the_same_bytes_again(status):
    async with (
        collector(lambda number, calls: web.Response(status=status) if number <= 2 else None) as server,
        Sender(server.url, "key") as sender,
    ):
        await sender.send("u1", call(1, 0))
        await sender.flush()

    assert server.requests == [server.stored] * 3
    assert sender.sent == (1, 1, 2)


async def test_retry_after_is_obeyed():
    moments: list[float] = []

    def busy_once(number: int, calls: list[dict]) -> web.Response | None:
        moments.append(asyncio.get_running_loop().time())
        return web.Response(status=429, headers={"Retry-After": "1"}) if number == 1 else None

    async with collector(busy_once) as server, Sender(server.url, "key") as sender:
        await sender.send("u1", call(1, 0))
        await sender.flush()

    assert moments[1] - moments[0] >= 1.0


async def test_a_retry_after_in_the_past_or_unreadable_does_not_stop_the_sender():
    def odd(number: int, calls: list[dict]) -> web.Response | None:
        headers = {1: "Wed, 21 Oct 2015 07:28:00 GMT", 2: "soon", 3: "-5"}
        return web.Response(status=503, headers={"Retry-After": headers[number]}) if number in headers else None

    async with collector(odd) as server, Sender(server.url, "key") as sender:
        await sender.send("u1", call(1, 0))
        await sender.flush()

    assert len(server.stored) == 1


async def test_a_dropped_connection_is_tried_again():
    async def drop(request: web.Request, counter: list[int] = [0]) -> web.Response:  # noqa: B006
        await request.read()
        counter[0] += 1
        if counter[0] < 3:
            assert request.transport is not None
            request.transport.abort()
        return web.Response()

    url, stop = await serve(drop)
    async with Sender(url, "key") as sender:
        await sender.send("u1", call(1, 0))
        await sender.flush()
    await stop()

    assert sender.sent == (1, 1, 2)


async def serve(handler: Callable[[web.Request], Awaitable[web.Response]]) -> tuple[str, Callable[[], Awaitable[None]]]:
    app = web.Application()
    app.router.add_post("/v1/batch", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}", runner.cleanup


async def test_a_collector_that_never_answers_is_unreachable_after_the_patience():
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 did not take the events for 0 s"):
        async with Sender("http://127.0.0.1:9", "key", patience_s=0.5) as sender:
            await sender.send("u1", call(1, 0))


async def test_trouble_that_lasts_is_said_once(monkeypatch):
    monkeypatch.setattr(client, "SAY_AFTER_S", 0.2)
    said: list[str] = []
    fails = lambda number, calls: web.Response(status=503) if number < 8 else None  # noqa: E731

    async with collector(fails) as server, Sender(server.url, "key", on_trouble=said.append) as sender:
        await sender.send("u1", call(1, 0))
        await sender.flush()

    assert len(said) == 1
    assert f"{server.url} does not take the events: status 503. Trying again for" in said[0]


@pytest.mark.parametrize(("status", "says"), [(401, "write key"), (403, "write key"), (400, "no json"), (404, "404")])
async def test_what_will_never_be_taken_is_not_repeated(status, says):
    async with collector(lambda number, calls: web.Response(status=status, text="no\njson")) as server:
        with pytest.raises(CallRefused, match=says):
            async with Sender(server.url, "key") as sender:
                await sender.send("u1", call(1, 0))

        assert len(server.requests) == 1


async def test_an_address_that_is_none_is_said():
    with pytest.raises(CallRefused, match="not the address of a collector"):
        async with Sender("ftp://example", "key") as sender:
            await sender.send("u1", call(1, 0))


async def test_no_request_is_larger_than_segment_allows():
    async with collector() as server, Sender(server.url, "key", lanes=1) as sender:
        for number in range(40):
            await sender.send("u1", call(1, number, size=30_000))
        await sender.flush()

    assert max(server.sizes) <= LARGEST_BATCH_BYTES
    assert len(server.stored) == 40
    assert len(server.requests) == 3


async def test_a_call_that_is_too_large_is_refused_before_it_is_sent():
    async with Sender("http://127.0.0.1:9", "key") as sender:
        with pytest.raises(CallRefused, match="over the 32768"):
            await sender.send("u1", call(1, 0, size=40_000))


async def test_compressed_bodies_open_into_the_same_calls():
    bodies: list[bytes] = []

    async def keep(request: web.Request) -> web.Response:
        assert request.headers["Content-Encoding"] == "gzip"
        bodies.append(await request.content.read())
        return web.Response()

    url, stop = await serve(keep)
    async with Sender(url, "key", compress=True) as sender:
        await sender.send("u1", call(1, 0))
        await sender.flush()
    await stop()

    body = bodies[0] if bodies[0].startswith(b"{") else gzip.decompress(bodies[0])  # aiohttp may have opened it
    assert json.loads(body)["batch"] == [json.loads(call(1, 0))]


@settings(max_examples=15, deadline=None)
@given(fails=st.sets(st.integers(1, 30), max_size=15), lanes=st.integers(1, 5), batch=st.integers(1, 40))
def test_whatever_fails_on_the_way_all_calls_are_stored_in_order(fails, lanes, batch):
    async def scenario() -> tuple[list[dict], Sender]:
        def answer(number: int, calls: list[dict]) -> web.Response | None:
            return web.Response(status=503, headers={"Retry-After": "0"}) if number in fails else None

        async with collector(answer) as server, Sender(server.url, "key", lanes=lanes, batch=batch) as sender:
            await give(sender, people=5, each=12)
            await sender.flush()
        return server.stored, sender

    stored, sender = asyncio.run(scenario())

    assert len(stored) == 60
    assert in_order(stored)
    assert sender.sent.calls == 60
