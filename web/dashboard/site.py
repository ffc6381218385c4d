"""What every page stands on: where the data is, how a template becomes an answer, who asks in which language."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from config.settings import Settings
from schemas.sentences import sentence_of
from streams.definitions import Progress
from streams.journeys import Journeys
from streams.log import Log
from streams.redrive import Check
from streams.templates import Templates
from web.dashboard import charts
from web.dashboard.freshness import Freshness, freshness
from web.dashboard.language import LANGUAGES, Language, choose
from web.dashboard.ranges import known_zone
from web.dashboard.segments import Segments
from web.dashboard.written import title_of

if TYPE_CHECKING:
    from sinks.analytics import Analytics
    from streams.backup import Manifest

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
LARGEST_FORM_BYTES = 1024 * 1024
SCHEMES = ("auto", "light", "dark")

PAGES = (("overview", "/"), ("live", "/live"), ("people", "/people"), ("segments", "/segments"),
         ("journeys", "/journeys"), ("templates", "/templates"), ("messages", "/messages"), ("coupons", "/coupons"),
         ("rejected", "/rejected"))  # fmt: skip

logger = structlog.get_logger(__name__)


class Site:
    """The dashboard's resources, one for all requests. `now` is a clock, so that a test may hold it."""

    def __init__(self, log: Log, analytics: Analytics, settings: Settings, token: str, check: Check,
                 now: Callable[[], datetime], progress: Callable[[], Progress] = Progress) -> None:  # fmt: skip
        self.log = log
        self.analytics = analytics
        self.settings = settings
        self.token = token
        self.check = check
        self.now = now
        self.segments = Segments(log, analytics, settings, now, progress)
        self.templates = Templates(log, settings)  # of messages
        self.journeys = Journeys(log, settings, self.templates, self._segments_there)
        self.drafts: OrderedDict[str, str] = OrderedDict()  # mails of templates that were not saved, by their digest
        self.trying = asyncio.Lock()  # of journeys that are tried: each has a stage of its own in memory
        self.open_streams = 0  # of live pages
        self.backup: asyncio.Task[Manifest] | None = None  # the newest that was asked for
        self.dry_running = asyncio.Lock()  # one of a journey at a time
        self._pages = _environment()

    async def _segments_there(self) -> Collection[str]:
        return (await self.segments.known()).definitions

    @property
    def workspace(self) -> str:
        return self.settings.workspace

    def language(self, request: Request) -> Language:
        """The language and time zone this request is answered in."""
        code = choose(request.headers.get("accept-language", ""), request.cookies.get("language", ""))
        return Language(code, known_zone(request.cookies.get("zone", "")))

    async def freshness(self) -> Freshness:
        return await freshness(self.log, self.now())

    def fragment(self, language: Language, template: str, **context: object) -> str:
        """A template as text."""
        return self._pages.get_template(template).render(
            t=language.text, lang=language, now=self.now(), workspace=self.workspace, **context
        )

    def page(self, request: Request, template: str, status: int = 200, headers: Mapping[str, str] | None = None,
             **context: object) -> Response:  # fmt: skip
        """A template as the answer to a request."""
        language = self.language(request)
        scheme = request.cookies.get("scheme", "auto")
        html = self.fragment(
            language,
            template,
            request=request,
            path=request.url.path,
            here=here(request),
            scheme=scheme if scheme in SCHEMES else "auto",
            next_scheme=SCHEMES[(SCHEMES.index(scheme) + 1) % len(SCHEMES)] if scheme in SCHEMES else "light",
            other_language=next(code for code in LANGUAGES if code != language.code),
            languages=LANGUAGES,
            pages=PAGES,
            **context,
        )
        answer = HTMLResponse(html, status, headers={"vary": "Accept-Language, Cookie", **(headers or {})})
        answer.headers["content-language"] = language.html_lang
        return answer


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form, the last of each name; empty where the body is not one, or is too large."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM_BYTES:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))


def here(request: Request) -> str:
    """The path and query of this page, to come back to."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def local_path(target: str) -> str:
    """The target, if it is a path of this site; else `/`. Nobody is sent elsewhere.

    >>> local_path("/people?q=ann"), local_path("//evil.example/"), local_path("https://evil.example")
    ('/people?q=ann', '/', '/')
    """
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        return "/"
    return "/" if any(ord(sign) < 32 or sign == "\\" for sign in target) else target


def with_query(path: str, query: Mapping[str, object], **changes: object) -> str:
    """A path with a query: those given, changed; empty ones left out."""
    merged = {**query, **changes}
    kept = {name: str(value) for name, value in merged.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(kept)}" if kept else path


def person_path(key: str) -> str:
    return "/people/" + quote(key, safe="")


def segment_path(name: str, rest: str = "") -> str:
    """The page of a segment, or one below it."""
    return "/segments/" + quote(name, safe="") + (f"/{rest}" if rest else "")


def journey_path(name: str, rest: str = "") -> str:
    """The page of a journey, or one below it."""
    return "/journeys/" + quote(name, safe="") + (f"/{rest}" if rest else "")


def template_path(name: str, rest: str = "") -> str:
    """The page of a template, or one below it."""
    return "/templates/" + quote(name, safe="") + (f"/{rest}" if rest else "")


def message_path(id_: str, rest: str = "") -> str:
    """The page of a message, or one below it."""
    return "/messages/" + quote(id_, safe="") + (f"/{rest}" if rest else "")


def campaign_path(name: str, rest: str = "") -> str:
    """The page of a coupon campaign, or one below it."""
    return "/coupons/" + quote(name, safe="") + (f"/{rest}" if rest else "")


def web_url(value: object) -> str:
    """The value, if it is an address of the web that may be linked to; else nothing.

    >>> web_url("https://shop.example/a"), web_url("javascript:alert(1)"), web_url("//x")
    ('https://shop.example/a', '', '')
    """
    if not isinstance(value, str) or len(value) > 2_000:
        return ""
    try:
        parts = urlsplit(value)
    except ValueError:
        return ""
    return value if parts.scheme in ("http", "https") and parts.netloc else ""


def as_json(value: object, indent: int = 2) -> str:
    """A value as JSON for people to read."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


@cache
def _asset(path: str) -> str:
    digest = hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:12]
    return f"/static/{path}?v={digest}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools: dict[str, Any] = {
        "asset": _asset, "charts": charts, "web_url": web_url, "as_json": as_json, "with_query": with_query,
        "person_path": person_path, "segment_path": segment_path, "journey_path": journey_path,
        "template_path": template_path, "message_path": message_path, "campaign_path": campaign_path,
        "sentence_of": sentence_of, "title_of": title_of, "utc": UTC, "timedelta": timedelta,
    }  # fmt: skip
    environment.globals.update(tools)
    environment.tests["initial"] = lambda word: word[:1].isalpha()
    return environment
