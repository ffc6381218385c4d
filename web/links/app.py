"""The links of messages as one ASGI app, to be mounted beside the collector: everybody may ask.

    GET  /l/c/TOKEN        to where a link leads; she clicked
    GET  /l/o/TOKEN.gif    the picture at the end of a mail; she opened it
    GET  /l/u/TOKEN        asks whether she wants to leave a topic, and changes nothing: programs follow links, too
    POST /l/u/TOKEN        takes her off (RFC 8058, and the button of that page)
    GET  /l/p/TOKEN        asks what she wants to get
    POST /l/p/TOKEN        what she wants

There is no session and no cookie: the signed token is all that counts. It is written into no log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from email import message_from_bytes
from http import HTTPStatus
from time import monotonic
from typing import NamedTuple
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.link_keys import load_link_keys
from config.settings import Settings
from processors.consent import MOST_TOPICS
from schemas.messages import CLICKED, MACHINE, OPENED
from schemas.safe_json import Unreadable
from sinks.messages.links import (
    CLICK,
    OPEN,
    PREFERENCES,
    UNSUBSCRIBE,
    ExpiredLink,
    Kind,
    Mailed,
    Said,
    Tokens,
    UnknownLink,
)
from sinks.messages.rendering import Template
from streams.log import Log, LogBusy
from streams.metrics import LinkMetrics
from streams.templates import Templates
from web.collector.answers import PIXEL
from web.collector.ingest import BODY_TIMEOUT_S, now
from web.collector.request import ClientGone, TooSlow, read_body
from web.links.limits import Limits
from web.links.machines import Machines
from web.links.pages import HEADERS, page
from web.links.recording import PATIENCE_S, NotTaken, Reader, Recorder

PREFIX = "/l/"
LARGEST_FORM_BYTES = 16 * 1024
LONGEST_AGENT = 500  # characters of a user agent that are kept
LOOK_AGAIN_S = 60.0  # at the templates, for the topics there are
ONE_CLICK = ("List-Unsubscribe", "One-Click")  # of RFC 8058
STOP = ("stop", "everything")
_NAMES: Mapping[str, str] = {CLICK.letter: "click", OPEN.letter: "open", UNSUBSCRIBE.letter: "unsubscribe",
                             PREFERENCES.letter: "preferences"}  # fmt: skip


class Subject(NamedTuple):
    """What she may want to get or not: a topic on a channel."""

    topic: str
    channel: str

    @property
    def field(self) -> str:
        """Its name in the form."""
        return f"{self.channel}/{self.topic}"


class Subjects:
    """The topics of the marketing templates. The collector knows no profiles, so none is hers in particular."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._known: frozenset[Subject] = frozenset()
        self._looked_at_s = float("-inf")
        self._looking = asyncio.Lock()

    async def of(self, mailed: Mailed) -> list[Subject]:
        """Those there are, and that of the message."""
        async with self._looking:
            if monotonic() - self._looked_at_s > LOOK_AGAIN_S:
                with suppress(LogBusy):  # those that were known then
                    await self._templates.look()
                self._known = await asyncio.to_thread(self._look)
                self._looked_at_s = monotonic()
        own = {Subject(mailed.topic, mailed.channel)} if mailed.topic else set()
        return sorted(own) + sorted(self._known - own)[: MOST_TOPICS - len(own)]

    def _look(self) -> frozenset[Subject]:
        templates = map(self._templates.read, self._templates.newest)
        return frozenset(Subject(template.topic, template.channel) for template in templates
                         if isinstance(template, Template) and template.topic)  # fmt: skip


def links_app(log: Log, settings: Settings, registry: CollectorRegistry, *, patience_s: float = PATIENCE_S,
              clock: Callable[[], datetime] = now, limits: Limits | None = None) -> ASGIApp:  # fmt: skip
    """The app. Without any key it knows no link, and says so.

    Args:
        patience_s: how long the log is waited for before she is sent on.
        clock: the time of day, in UTC.

    Raises:
        ConfigError: the keys are not as they must be.
    """
    metrics = LinkMetrics(registry)
    tokens = Tokens([key.secret for key in load_link_keys(settings)], lambda: clock().timestamp())
    site = LinkSite(tokens, Recorder(log, metrics, patience_s=patience_s, clock=clock),
                    Subjects(Templates(log, settings)), metrics, limits or Limits())  # fmt: skip
    app = Starlette(
        routes=[
            Route("/l/c/{token}", site.click),
            Route("/l/o/{token}.gif", site.open),
            Route("/l/u/{token}", site.ask_to_leave),
            Route("/l/u/{token}", site.leave, methods=["POST"]),
            Route("/l/p/{token}", site.ask_what),
            Route("/l/p/{token}", site.choose, methods=["POST"]),
        ],
        exception_handlers={UnknownLink: _unknown, HTTPException: _refuse, NotTaken: _later, TooMany: _later,
                            Unreadable: _odd, TooSlow: _odd, ClientGone: _odd},
    )  # fmt: skip
    app.router.redirect_slashes = False
    return _Outermost(app, metrics)


class TooMany(Exception):
    """One address asks too often."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"again in {retry_after_s} s")


class LinkSite:
    """What each address answers."""

    def __init__(
        self, tokens: Tokens, recorder: Recorder, subjects: Subjects, metrics: LinkMetrics, limits: Limits
    ) -> None:
        self._tokens = tokens
        self._recorder = recorder
        self._subjects = subjects
        self._metrics = metrics
        self._limits = limits
        self._machines = Machines()

    # --- what she reads

    async def click(self, request: Request) -> Response:
        """To where the token says: the address itself can name no other place."""
        said = self._read(CLICK, request)
        reader = _reader(request)
        mark = self._machines.of_click(request.method, request.headers, said.message, reader.ip, said.number,
                                       monotonic())  # fmt: skip
        await self._count(CLICKED, said, reader, {"link": said.number, "url": said.url, MACHINE: mark})
        if not said.url:  # no person sees this link
            return page(request, "trouble.html", HTTPStatus.NOT_FOUND, what="unknown")
        return Response(status_code=HTTPStatus.FOUND, headers={"location": said.url})

    async def open(self, request: Request) -> Response:
        mailed = self._read(OPEN, request)
        mark = self._machines.of_opening(request.method, request.headers)
        await self._count(OPENED, mailed, _reader(request), {MACHINE: mark})
        return Response(PIXEL.body, media_type="image/gif")

    async def _count(self, name: str, mailed: Mailed, reader: Reader, properties: Mapping[str, object]) -> None:
        if self._limits.take(reader.ip, monotonic()):
            self._metrics.lost.labels("limit").inc()
        else:
            await self._recorder.count(name, mailed, reader, properties)

    # --- what she wants

    async def ask_to_leave(self, request: Request) -> Response:
        mailed = self._read(UNSUBSCRIBE, request)
        return page(request, "leave.html", mailed=mailed, preferences=self._preferences(mailed))

    async def leave(self, request: Request) -> Response:
        """She leaves the topic on the channel; her next message is not sent, whatever was ordered before."""
        mailed = self._read(UNSUBSCRIBE, request)
        self._limit(request)
        if ONE_CLICK not in (await _form(request)).items():
            raise Unreadable("the body of a one-click request is List-Unsubscribe=One-Click")
        await self._recorder.say("Unsubscribed", mailed, _reader(request), {})
        return page(request, "left.html", mailed=mailed, preferences=self._preferences(mailed))

    async def ask_what(self, request: Request) -> Response:
        mailed = self._read(PREFERENCES, request)
        return page(request, "preferences.html", subjects=await self._subjects.of(mailed))

    async def choose(self, request: Request) -> Response:
        """What she said of each subject; what she said nothing of stays."""
        mailed = self._read(PREFERENCES, request)
        self._limit(request)
        form = await _form(request)
        here = PREFERENCES.path(request.path_params["token"])
        if STOP in form.items():
            await self._recorder.say("Unsubscribed", mailed, _reader(request), {"topic": "", "channel": ""})
            return page(request, "stopped.html", here=here)
        choices = {subject: form[subject.field] == "yes" for subject in await self._subjects.of(mailed)
                   if form.get(subject.field) in ("yes", "no")}  # fmt: skip
        if choices:
            consent: dict[str, dict[str, bool]] = {}
            for (topic, channel), is_wanted in choices.items():
                consent.setdefault(topic, {})[channel] = is_wanted
            await self._recorder.say("Consent Changed", mailed, _reader(request),
                                     {"topic": "", "channel": "", "consent": consent})  # fmt: skip
        return page(request, "saved.html", choices=choices, here=here)

    def _preferences(self, mailed: Mailed) -> str:
        """The way to the preferences of who may leave."""
        return PREFERENCES.path(self._tokens.sign(PREFERENCES, mailed))

    # --- requests

    def _read(self, kind: Kind[Said], request: Request) -> Said:
        return self._tokens.read(kind, request.path_params["token"])

    def _limit(self, request: Request) -> None:
        if wait_s := self._limits.take(_reader(request).ip, monotonic()):
            raise TooMany(wait_s)


def _reader(request: Request) -> Reader:
    """Who asks. Behind a proxy the address is that of `X-Forwarded-For`, where the server trusts the proxy."""
    return Reader(request.client.host if request.client else "", request.headers.get("user-agent", "")[:LONGEST_AGENT])


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, in either of its two ways of being sent.

    Raises:
        Unreadable: it is too large, or has too many fields.
        TooSlow, ClientGone
    """
    declared = request.headers.get("content-length", "").encode() or None
    body = await read_body(request.receive, declared, BODY_TIMEOUT_S)
    if len(body) > LARGEST_FORM_BYTES:
        raise Unreadable(f"a form has at most {LARGEST_FORM_BYTES} bytes")
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        parts = message_from_bytes(b"Content-Type: " + re.sub(r"\s+", " ", kind).encode("latin-1") + b"\r\n\r\n" + body)
        return {str(part.get_param("name", "", "content-disposition")): _text(part.get_payload(decode=True))
                for part in parts.walk() if not part.is_multipart()}  # fmt: skip
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=200))
    except ValueError as error:
        raise Unreadable("the form has too many fields", value=str(error)) from None


def _text(payload: object) -> str:
    return payload.decode("utf-8", "replace").strip() if isinstance(payload, bytes) else ""


# --- when it does not go well


async def _unknown(request: Request, error: Exception) -> Response:
    """Says no more than whether it was ever a link of ours."""
    if isinstance(error, ExpiredLink):
        return page(request, "trouble.html", HTTPStatus.GONE, what="expired")
    return page(request, "trouble.html", HTTPStatus.NOT_FOUND, what="unknown")


async def _refuse(request: Request, error: Exception) -> Response:
    """No address of ours, or not meant so."""
    assert isinstance(error, HTTPException)
    return page(request, "trouble.html", error.status_code, headers=error.headers, what="unknown")


async def _later(request: Request, error: Exception) -> Response:
    """Nothing is stored, and she is told so: a mailbox provider asks again by itself."""
    if isinstance(error, TooMany):
        headers = {"retry-after": str(error.retry_after_s)}
        return page(request, "trouble.html", HTTPStatus.TOO_MANY_REQUESTS, headers, what="many")
    assert isinstance(error, NotTaken)
    headers = {"retry-after": str(max(1, error.retry_after_s))}
    return page(request, "trouble.html", HTTPStatus.SERVICE_UNAVAILABLE, headers, what="later")


async def _odd(request: Request, error: Exception) -> Response:
    status = HTTPStatus.REQUEST_TIMEOUT if isinstance(error, TooSlow) else HTTPStatus.BAD_REQUEST
    return page(request, "trouble.html", status, {"connection": "close"}, what="odd")


class _Outermost:
    """Puts the headers on every answer, whoever made it, and counts it."""

    def __init__(self, app: ASGIApp, metrics: LinkMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        link = _NAMES.get(scope["path"].removeprefix(PREFIX).partition("/")[0], "unknown")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                self._metrics.requests.labels(link, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, send_guarded)
