"""No post goes inward, whatever an address looks like and whatever DNS says; and what comes back is bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import ValidationError

from sinks.messages import guarded_http
from sinks.messages.guarded_http import (
    LARGEST_ANSWER,
    LONGEST_URL,
    GuardedHttp,
    HttpSettings,
    NoAnswer,
    NotAllowed,
    is_public,
    parse_url,
)
from tests.messages.receiver import Says, receiver, speaker

PUBLIC = "93.184.215.14"


class Names(AbstractResolver):
    """DNS that says these addresses of every name, others each time; the last on and on."""

    def __init__(self, *answers: Sequence[str], pause_s: float = 0.0) -> None:
        self.answers, self.pause_s = list(answers), pause_s
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        await asyncio.sleep(self.pause_s)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET6 if ":" in address
                              else socket.AF_INET, proto=0, flags=0) for address in found]  # fmt: skip

    async def close(self) -> None: ...


@asynccontextmanager
async def asking(allow: Sequence[str] = (), **how: Any) -> AsyncIterator[GuardedHttp]:
    http = GuardedHttp(allow, **{"timeout_s": 2.0, **how})
    try:
        yield http
    finally:
        await http.close()


@asynccontextmanager
async def listener(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[int, list[object]]]:
    """A port of this machine, and the connections that came to it."""
    came: list[object] = []

    async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(connected, host, port)
    port = server.sockets[0].getsockname()[1]
    try:
        yield port, came
    finally:
        server.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (PUBLIC, True), ("2606:4700::1111", True), (f"64:ff9b::{PUBLIC}", True), ("2002:5db8:d70e::1", True),
        ("127.0.0.1", False), ("0.0.0.0", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("100.100.100.200", False), ("192.0.0.192", False),
        ("168.63.129.16", False), ("198.18.0.1", False), ("224.0.0.1", False), ("240.0.0.1", False),
        ("255.255.255.255", False), ("::", False), ("::1", False), ("::127.0.0.1", False), ("::ffff:127.0.0.1", False),
        (f"::ffff:{PUBLIC}", False), ("64:ff9b::127.0.0.1", False), ("64:ff9b:1::1", False), ("2002:7f00:1::1", False),
        ("2001:0:5db8:d70e::1", False), ("fc00::1", False), ("fd00:ec2::254", False), ("fe80::1%eth0", False),
        ("fec0::1", False), ("ff02::1", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_what_is_public(address: str, expected: bool) -> None:
    assert is_public(ip_address(address)) is expected


async def test_no_form_of_an_address_leads_inward(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = [
        "https://127.0.0.1:{}/", "http://127.0.0.1:{}/", "https://127.1:{}/", "https://0x7f.1:{}/", "https://127.0.0.1.:{}/",
        "https://2130706433:{}/", "https://0x7f000001:{}/", "https://017700000001:{}/", "https://0177.0.0.1:{}/",
        "https://0:{}/", "https://0.0.0.0:{}/", "https://[::1]:{}/", "https://[::]:{}/", "https://[::127.0.0.1]:{}/",
        "https://[::ffff:127.0.0.1]:{}/", "https://[::ffff:7f00:1]:{}/", "https://[64:ff9b::7f00:1]:{}/",
        "https://[0:0:0:0:0:0:0:1%25lo]:{}/", "https://localhost:{}/", "https://localhost.:{}/", "https://LOCALHOST:{}/",
        "https://ⓛocalhost:{}/", "https://１２７.０.０.１:{}/", "https://127。0。0。1:{}/", "https://good.example@127.0.0.1:{}/",
        "https://good.example:443@localhost:{}/", "https://127.0.0.1:{}\\@good.example/", "https://127.0.0.1%00:{}/",
        "https://localhost%0d%0a:{}/", "https://local\r\nhost:{}/", " https://127.0.0.1:{}/", "//127.0.0.1:{}/",
        "ftp://127.0.0.1:{}/", "gopher://127.0.0.1:{}/", "file:///etc/passwd", "unix:///run/a.sock", "127.0.0.1:{}",
        "https://", "https://:{}/", "https://[::1", "https://127.0.0.1:99999/", "https://a..b:{}/", "",
        "https://127.0.0.1:{}/" + "a" * LONGEST_URL, f"https://{'a' * 64}.test:{{}}/",
    ]  # fmt: skip
    async with listener() as (port, came), asking() as http:
        monkeypatch.setattr(guarded_http, "PORTS", (port,))  # nothing but the address is wrong
        for form in forms:
            with pytest.raises(NoAnswer) as refused:
                await http.post(form.format(port), b"{}", {})
            assert not refused.value.was_sent and str(refused.value), form

    assert came == []


async def test_one_address_that_is_not_public_refuses_them_all() -> None:
    names = Names([PUBLIC, "2606:4700::1111", "10.0.0.1"])
    async with asking(resolver=names) as http:
        with pytest.raises(NotAllowed, match=r"10\.0\.0\.1, an address of good\.example, is not public; .*allow"):
            await http.post("https://good.example/", b"", {})


async def test_a_name_that_turns_inward_later_is_refused_then() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"])
    async with receiver(Says()) as there, asking(there.allow, resolver=names) as http:
        url = there.url.replace("127.0.0.1", "good.example")
        async with listener("127.0.0.2", int(url.rpartition(":")[2])) as (_, came):
            assert [(await http.post(url, b"", {})).status for _ in range(2)] == [200, 200]
            for inward in ("127.0.0.2", "169.254.169.254"):
                with pytest.raises(NotAllowed, match=inward):
                    await http.post(url, b"", {})

    assert len(there.requests) == 2 and came == []
    assert len(names.asked) == 4  # no question between check and connection


async def test_only_what_is_listed_may_be_asked_within_and_only_there_by_http() -> None:
    async with receiver(Says(text="hello")) as there, asking(there.allow) as http:
        assert (await http.post(there.url, b"", {})).body == b"hello"
        for other in (there.url.replace("127.0.0.1", "127.0.0.2"), "http://127.0.0.1:1", f"http://{PUBLIC}"):
            with pytest.raises(NotAllowed, match=r"may not be asked at port \d+, only at 443 and 8443"):
                await http.post(other, b"", {})
        with pytest.raises(NotAllowed, match=r"is not public; .*`allow: \[\"127\.0\.0\.1:8443\"\]`"):
            await http.post("https://127.0.0.1:8443", b"", {})


async def test_a_redirect_is_an_answer() -> None:
    async with listener() as (port, came):
        inward = Says(302, headers={"Location": f"http://127.0.0.1:{port}/"})
        async with receiver(inward) as there, asking([*there.allow, f"127.0.0.1:{port}"]) as http:
            answer = await http.post(there.url, b"", {})

    assert (answer.status, came) == (302, [])
    assert answer.headers["location"].endswith(f":{port}/")


async def test_neither_proxies_nor_cookies_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listener() as (port, came):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        async with receiver(Says(headers={"Set-Cookie": "a=b"})) as there, asking(there.allow) as http:
            for _ in range(2):
                await http.post(there.url, b"x", {"Content-Type": "text/plain"})

    assert came == []
    second = there.requests[1].headers
    assert (second["Content-Type"], second["User-Agent"], "Cookie" in second) == ("text/plain", "Tidewire", False)


async def test_what_is_read_is_bounded() -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"})  # is not unpacked
        await response.prepare(request)
        for _ in range(160):
            await response.write(bytes(64 * 1024))
            sent += 64 * 1024
        return response

    async with receiver(pour) as there, asking(there.allow) as http:
        answer = await http.post(there.url, b"", {})

    assert (answer.status, len(answer.body)) == (200, LARGEST_ANSWER)
    assert sent < 8 << 20  # of 10 MB; what the sockets of both sides hold was taken


@pytest.mark.parametrize(
    ("pieces", "why", "is_timeout"),
    [
        ((), "disconnected", False),
        ((b"HTTP/1.1 200 OK\r\n",), "within 0.15 s", True),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "did not answer", False),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"a" * 9_000 + b"\r\n\r\n",), "did not answer", False),
        ((b"HTTP/1.1 200 OK\r\n" + b"A: a\r\n" * 200 + b"\r\n",), "did not answer", False),
    ],
    ids=["silence", "half an answer", "another protocol", "a long header", "many headers"],
)
async def test_no_answer_is_told_from_one_that_was_never_asked(
    pieces: tuple[bytes, ...], why: str, is_timeout: bool
) -> None:
    async with speaker(*pieces, hangs=is_timeout) as there, asking(there.allow, timeout_s=0.15) as http:
        with pytest.raises(NoAnswer, match=why) as none:
            await http.post(f"{there.url}/secret-path", b"x", {})
    async with asking(there.allow) as http:
        with pytest.raises(NoAnswer, match=r"could not be connected: .*Connect call failed") as never:
            await http.post(f"{there.url}/secret-path", b"x", {})

    assert (none.value.was_sent, none.value.is_timeout) == (True, is_timeout)
    assert not never.value.was_sent and "secret-path" not in str(none.value) + str(never.value)


async def test_slow_headers_end_with_the_time() -> None:
    slowly = [b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 20]
    async with speaker(*slowly, pause_s=0.01) as there, asking(there.allow, timeout_s=0.1) as http:
        with pytest.raises(NoAnswer, match=r"within 0\.1 s") as none:
            await http.post(there.url, b"", {})

    assert (none.value.was_sent, none.value.is_timeout) == (True, True)


async def test_of_an_answer_that_breaks_off_what_came_is_enough() -> None:
    async with speaker(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{}") as there, asking(there.allow) as http:
        answer = await http.post(there.url, b"", {})

    assert (answer.status, answer.body) == (201, b"{}")


async def test_a_connection_that_never_stands_was_not_sent() -> None:
    async with asking(resolver=Names([PUBLIC], pause_s=9.0), timeout_s=0.05) as http:
        with pytest.raises(NoAnswer, match=r"could not be connected within 0\.05 s") as none:
            await http.post("https://good.example", b"", {})

    assert (none.value.was_sent, none.value.is_timeout) == (False, True)


async def test_a_server_whose_certificate_is_not_good_gets_nothing() -> None:
    async with receiver(Says()) as there, asking(there.allow) as http:
        with pytest.raises(NoAnswer, match="could not be connected") as none:
            await http.post(there.url.replace("http", "https"), b"", {})

    assert not none.value.was_sent and there.requests == []


@pytest.mark.parametrize(
    ("url", "allow", "why"),
    [
        ("https://10.0.0.1/a", (), "10.0.0.1 is not public"),
        ("http://127.0.0.1:9000", ("127.0.0.2:9000",), "may not be asked at port 9000"),
        ("http://good.example/", ("127.0.0.1:9000",), "port 80 may not be asked, only 443 and 8443; .* 127.0.0.1:80"),
        ("http://127.0.0.1:9000", ("localhost:9000",), "no IP address with a port"),
        ("https://127.1/", (), "write it as four numbers"),
        ("https://u:p@good.example/", (), "a user or a password"),
        ("http://good.example:443/", (), "port 443 is for https"),
        ("mailto:a@good.example", (), "no address of the web"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(url: str, allow: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        HttpSettings(url=url, allow=allow)


def test_settings_that_can_are_taken() -> None:
    assert HttpSettings(url="http://127.0.0.1:9000/a?b=c", allow=("127.0.0.1:9000",)).allow
    assert HttpSettings(url="http://[::1]:9000/", allow=("[::1]:9000",)).allow
    assert parse_url("https://bücher.example:8443/ü").host == "bücher.example"
