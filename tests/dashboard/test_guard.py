"""Who may look at the pages, and what they may load."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from web.dashboard.guard import CONTENT_SECURITY_POLICY, Guard

TOKEN = "t0ken"


def guarded() -> ASGIApp:
    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("shown")

    return Guard(Starlette(routes=[Route("/", page, methods=["GET", "POST"])]), TOKEN)


async def ask(method: str = "GET", client: str = "127.0.0.1", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(guarded(), client=(client, 40_000))
    sent = {"host": "localhost:8088", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8088") as http:
        return await http.request(method, "/", headers=sent)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_is_answered(client: str) -> None:
    answer = await ask(client=client)

    assert (answer.status_code, answer.text) == (200, "shown")


@pytest.mark.parametrize("client", ["10.0.0.7", "192.168.1.2", "2001:db8::1", "::ffff:10.0.0.7", "not an address"])
async def test_another_machine_is_refused_with_a_way_to_go_on(client: str) -> None:
    answer = await ask(client=client)

    assert answer.status_code == 403
    assert "ssh -L" in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8088", "127.0.0.1.evil.example", "10.0.0.7", "[::2]",
                                  "localhost.evil.example", "", "a]b"])  # fmt: skip
async def test_a_name_that_is_not_loopback_is_refused_although_it_leads_here(host: str) -> None:
    answer = await ask(host=host)

    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:8088", "[::1]:8088", "LOCALHOST:1"])
async def test_the_names_of_loopback_are_answered(host: str) -> None:
    assert (await ask(host=host)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "none"}, 403),
        ({"sec_fetch_site": "cross-site", "origin": "http://localhost:8088"}, 403),
        ({"authorization": "Bearer wrong"}, 403),
        ({"authorization": f"Basic {TOKEN}"}, 403),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://localhost:8088"}, 200),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
    ],
)
async def test_only_our_own_pages_and_the_token_may_change_something(headers: dict[str, str], status: int) -> None:
    assert (await ask("POST", **headers)).status_code == status


async def test_without_a_token_no_authorization_opens_anything() -> None:
    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("shown")

    app = Guard(Starlette(routes=[Route("/", page, methods=["POST"])]), token="")
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answers = [await http.post("/", headers={"authorization": given}) for given in ("Bearer", "Bearer ", "")]

    assert [answer.status_code for answer in answers] == [403, 403, 403]


@pytest.mark.parametrize("client", ["127.0.0.1", "10.0.0.7"])
async def test_every_answer_forbids_what_is_not_ours(client: str) -> None:
    headers = (await ask(client=client)).headers

    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_the_policy_lets_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))

    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
        "connect-src": "'self'", "font-src": "'self'", "frame-src": "'self'", "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/unmerge"), ("POST", "/rejected/redrive"), ("POST", "/rejected/some-id"), ("POST", "/preferences"),
     ("POST", "/partitions/go-on")],
)
def test_pages_of_other_sites_cannot_post_into_ours(world: Callable[..., object], method: str, path: str) -> None:
    http: httpx.Client = world("little").http  # type: ignore[attr-defined]

    answer = http.request(method, path, headers={"origin": "https://evil.example"}, data={"key": "x"})

    assert answer.status_code == 403
