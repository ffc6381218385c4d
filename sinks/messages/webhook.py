"""Webhooks: messages are posted, as JSON and signed, to a receiver that passes them on, and so is what other programs
are told. See docs/webhooks.md.

Source: Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import binascii
import hmac
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence

import msgspec
from pydantic import Field

from schemas.errors import ConfigError
from sinks.messages.answers import of_silence, of_status
from sinks.messages.channel import Accepted, Message, Outcome
from sinks.messages.guarded_http import Answer, GuardedHttp, HttpSettings, NoAnswer

PREFIX = "whsec_"
SHORTEST_SECRET, LONGEST_SECRET = 24, 64  # bytes
REFERENCE = "X-Request-Id"  # of an answer that holds no `id`
_MAKE_ONE = f'Make one: echo "{PREFIX}$(openssl rand -base64 32)"'
_PLAIN = re.compile(r"[\w.:@/+=-]{1,100}\Z", re.ASCII)


class WebhookSettings(HttpSettings):
    """Where messages are posted to."""

    is_idempotent: bool = Field(
        True, description="The receiver keeps `webhook-id`, and takes a message that comes twice once. Where it does "
                          "not, a message that got no answer becomes `unknown`.",
    )  # fmt: skip


def body_of(message: Message) -> bytes:
    """What is posted: one JSON object, compact."""
    content = message.content
    return msgspec.json.encode({
        "type": "message", "id": message.id, "person": message.person, "to": message.to, "template": message.template,
        "kind": message.kind, "topic": message.topic, "language": content.language, "subject": content.subject,
        "preheader": content.preheader, "text": content.text, "html": content.html, "unsubscribe": message.unsubscribe,
    })  # fmt: skip


def body_of_call(message: Message) -> bytes:
    """What another program is told: one JSON object, in which `data` is the JSON that the template was filled in to."""
    return msgspec.json.encode({
        "type": "call", "id": message.id, "person": message.person, "template": message.template,
        "language": message.content.language, "data": msgspec.Raw(message.content.text.encode()),
    })  # fmt: skip


class WebhookChannel:
    """Posts each message to one receiver.

    Args:
        body_of: what is posted of a message.
        secrets: as `whsec_…`, the newest first; each signs, so that the receiver may change to the next when it likes.
        clock: seconds since 1970.

    Raises:
        ConfigError: there is no secret, or one is none.
    """

    def __init__(self, settings: WebhookSettings, secrets: Sequence[str], *, http: GuardedHttp | None = None,
                 clock: Callable[[], float] = time.time,
                 body_of: Callable[[Message], bytes] = body_of) -> None:  # fmt: skip
        if not secrets:
            raise ConfigError("secrets of the webhook", "there is none.", _MAKE_ONE)
        self._settings = settings
        self._keys = [_key(secret, number) for number, secret in enumerate(secrets, 1)]
        self._http = http or GuardedHttp(settings.allow)
        self._clock = clock
        self._body_of = body_of

    async def send(self, message: Message) -> Outcome:
        body, at_s = self._body_of(message), self._clock()
        headers = {"Content-Type": "application/json", **signed(self._keys, message.id, int(at_s), body)}
        try:
            answer = await self._http.post(self._settings.url, body, headers)
        except NoAnswer as silence:
            return of_silence(silence, is_idempotent=self._settings.is_idempotent)
        return Accepted(_reference(answer)) if 200 <= answer.status < 300 else of_status(answer, self._clock())

    async def close(self) -> None:
        await self._http.close()


def signed(keys: Sequence[bytes], id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows what is from here, and knows it again. One signature for each key."""
    content = b"%b.%d.%b" % (id_.encode(), at_s, body)
    signatures = [b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys]
    return {"webhook-id": id_, "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(f"v1,{each}" for each in signatures)}  # fmt: skip


def _key(secret: str, number: int) -> bytes:
    place = f"secret {number} of the webhook"
    if not secret.startswith(PREFIX):
        raise ConfigError(place, f"does not begin with {PREFIX}.", _MAKE_ONE)
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(place, f"is not Base64 behind {PREFIX}.", _MAKE_ONE) from None
    if not SHORTEST_SECRET <= len(key) <= LONGEST_SECRET:
        raise ConfigError(place, f"has {len(key)} bytes; {SHORTEST_SECRET} to {LONGEST_SECRET}.", _MAKE_ONE)
    return key


class _Said(msgspec.Struct):
    id: str | int = ""


def _reference(answer: Answer) -> str:
    """The name of the message on the other side, where it gives one that can be shown as it is."""
    try:
        id_ = str(msgspec.json.decode(answer.body, type=_Said).id)
    except (msgspec.DecodeError, UnicodeDecodeError):
        id_ = ""
    return next((each for each in (id_, answer.headers.get(REFERENCE, "")) if _PLAIN.match(each)), "")
