"""What a receiver of webhooks gets, and what its answers mean."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from schemas.errors import ConfigError
from sinks.messages.answers import LONGEST_PAUSE_S, asked_pause_s
from sinks.messages.channel import Accepted, Declined, Later, Outcome, Unknown
from sinks.messages.guarded_http import LARGEST_ANSWER, LONGEST_URL, PORTS, TIMEOUT_S, Answer, GuardedHttp
from sinks.messages.webhook import (
    LONGEST_SECRET,
    REFERENCE,
    SHORTEST_SECRET,
    WebhookChannel,
    WebhookSettings,
    _key,
    body_of,
    body_of_call,
    signed,
)
from tests.messages.receiver import ID, Receiver, Says, message, receiver, speaker

SECRET, OLDER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "b2xk" * 8
NOW_S = 1_800_000_000
PAGE = Path("docs/webhooks.md").read_text(encoding="utf-8")


@asynccontextmanager
async def webhook(
    there: Receiver, secrets: Sequence[str] = (SECRET,), **settings: Any
) -> AsyncIterator[WebhookChannel]:
    said = WebhookSettings(url=there.url + "/hook", allow=there.allow, **settings)
    http = GuardedHttp(there.allow, timeout_s=0.2)
    channel = WebhookChannel(said, secrets, http=http, clock=lambda: NOW_S + 0.9)
    try:
        yield channel
    finally:
        await channel.close()


async def said_to(answer: Says, **settings: Any) -> Outcome:
    async with receiver(answer) as there, webhook(there, **settings) as channel:
        return await channel.send(message())


def test_it_signs_as_the_standard_does() -> None:
    headers = signed([_key(SECRET, 1)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }  # fmt: skip


async def test_a_receiver_gets_the_message_and_knows_it_again() -> None:
    told = message(unsubscribe="https://shop.example/u/1", to="王@example.com")
    async with receiver(Says(500), Says(200)) as there, webhook(there, [SECRET, OLDER]) as channel:
        first, second = await channel.send(told), await channel.send(told)

    assert first == Later("answered 500") and second == Accepted()
    assert [request.headers["webhook-id"] for request in there.requests] == [ID, ID]
    request = there.requests[0]
    assert (request.method, request.path, request.headers["Content-Type"]) == ("POST", "/hook", "application/json")
    assert json.loads(request.body) == {
        "type": "message", "id": ID, "person": "w/p1", "to": "王@example.com", "template": "hello", "kind": "marketing",
        "topic": "offers", "language": "en", "subject": "Hello", "preheader": "", "text": "Hello Ada",
        "html": "<p>Hello Ada</p>", "unsubscribe": "https://shop.example/u/1",
    }  # fmt: skip
    assert "王".encode() in request.body and b'": ' not in request.body
    assert request.headers["webhook-timestamp"] == str(NOW_S)
    newest, older = request.headers["webhook-signature"].split(" ")
    assert newest == signed([_key(SECRET, 1)], ID, NOW_S, request.body)["webhook-signature"]
    assert older == signed([_key(OLDER, 2)], ID, NOW_S, request.body)["webhook-signature"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Says(200), Accepted()),
        (Says(204), Accepted()),
        (Says(202, '{"id": "msg-7", "more": [1]}'), Accepted("msg-7")),
        (Says(201, '{"id": 7}', {REFERENCE: "other"}), Accepted("7")),
        (Says(200, '{"id": "a b"}', {REFERENCE: "req-1"}), Accepted("req-1")),
        (Says(200, '{"id": ["a"]}'), Accepted()),
        (Says(200, '["id"]', {REFERENCE: "a" * 101}), Accepted()),
        (Says(200, "OK"), Accepted()),
        (Says(408), Later("answered 408")),
        (Says(425), Later("answered 425")),
        (Says(429, "slow down", {"Retry-After": "7"}), Later("answered 429: slow down", 7.0)),
        (Says(500, "a\r\n\x00  b\x1b[31m" + "c" * 900), Later("answered 500: a b [31m" + "c" * 191 + "…")),
        (Says(503, headers={"Retry-After": "99999999"}), Later("answered 503", LONGEST_PAUSE_S, is_down=True)),
        (Says(400, "no such person"), Declined("answered 400: no such person")),
        (Says(404), Declined("answered 404")),
        (Says(410), Declined("answered 410")),
    ],
)  # fmt: skip
async def test_what_answers_mean(answer: Says, expected: Outcome) -> None:
    assert await said_to(answer) == expected


async def test_a_redirect_is_declined_and_says_where_it_leads() -> None:
    said = await said_to(Says(307, headers={"Location": "http://169.254.169.254/latest"}))

    assert isinstance(said, Declined)
    assert re.search(r"answered 307, which leads to http://169\.254\.169\.254/latest; .*write the last", said.why)


@pytest.mark.parametrize(
    ("said", "expected"),
    [("0", 0.0), ("30", 30.0), ("3601", 3600.0), ("", None), ("-5", None), ("soon", None), ("9" * 5_000, None),
     ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0), ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
     ("Sat, 15 Jan 2028 08:01:00 -0000", 3600.0), ("Fri, 15 Jan 20270 08:01:00 GMT", None)],
)  # fmt: skip
def test_how_long_it_asks_to_be_left_alone(said: str, expected: float | None) -> None:
    assert asked_pause_s(Answer(503, {"Retry-After": said}, b""), NOW_S) == expected


async def test_who_keeps_ids_is_asked_again_when_nothing_was_answered() -> None:
    for hangs, is_down in ((False, False), (True, True)):
        async with speaker(hangs=hangs) as there, webhook(there) as channel:
            said = await channel.send(message())
        async with speaker(hangs=hangs) as there, webhook(there, is_idempotent=False) as careful:
            unknown = await careful.send(message())

        assert isinstance(said, Later) and said.is_down is is_down
        assert isinstance(unknown, Unknown) and "did not answer" in unknown.why


async def test_a_receiver_that_resets_behind_its_status_has_taken_it() -> None:
    async def reset(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202, headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"id": "a"')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with receiver(reset) as there, webhook(there) as channel:
        assert await channel.send(message()) == Accepted()


async def test_what_cannot_be_connected_is_down_and_nothing_is_unknown() -> None:
    async with receiver(Says()) as there:
        pass
    async with webhook(there, is_idempotent=False) as channel:
        said = await channel.send(message())

    assert isinstance(said, Later) and said.is_down and "could not be connected" in said.why


@pytest.mark.parametrize(
    ("secrets", "what"),
    [
        ([], "there is none"),
        (["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "secret 1 of the webhook: does not begin with whsec_"),
        ([SECRET, "whsec_not base64!"], "secret 2 of the webhook: is not Base64"),
        (["whsec_" + "YWJj" * 7], "has 21 bytes; 24 to 64"),
        (["whsec_" + "YWJj" * 22], "has 66 bytes; 24 to 64"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_shown(secrets: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refused:
        WebhookChannel(WebhookSettings(url="https://hooks.example"), secrets)

    assert "openssl rand" in str(refused.value)
    assert not any(secret.removeprefix("whsec_") in str(refused.value) for secret in secrets)


def test_the_receiver_of_the_page_takes_what_is_sent_and_nothing_else() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    page: dict[str, Any] = {}
    exec(example, page)
    body = body_of(message())
    headers = signed([_key(OLDER, 1), _key(SECRET, 2)], ID, NOW_S, body)

    assert page["is_genuine"](headers, body, SECRET, NOW_S + 60)
    assert not page["is_genuine"](headers, body + b" ", SECRET, NOW_S + 60)
    assert not page["is_genuine"](headers, body, SECRET, NOW_S + 301)
    assert not page["is_genuine"](headers, body, "whsec_" + "YWJj" * 8, NOW_S + 60)


def test_the_page_says_what_the_code_does() -> None:
    example, call = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    of_call = message(content=message().content._replace(text="{}"))
    text = " ".join(PAGE.split())

    assert list(json.loads(example)) == list(json.loads(body_of(message())))
    assert list(json.loads(call)) == list(json.loads(body_of_call(of_call)))
    assert all(f"`{name}`" in text for name in WebhookSettings.model_fields)
    for limit in (f"{SHORTEST_SECRET} to {LONGEST_SECRET} bytes", f"{TIMEOUT_S:g} seconds", f"`{REFERENCE}`",
                  f"{LARGEST_ANSWER // 1024} kB", f"{PORTS[0]} or {PORTS[1]}", f"{LONGEST_URL:,} characters",
                  "an hour"):  # fmt: skip
        assert limit in text
