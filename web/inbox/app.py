"""A person's inbox as one ASGI app, to be mounted beside the collector: everybody may ask who has a token of hers.

    GET  /inbox        her messages, the newest first; ?unread=1, ?limit=N, ?cursor=… of the page before
    POST /inbox/read   {"ids": […]} or {"all": true}: she has read them

The token comes as `Authorization: Bearer TOKEN`, see sinks/messages/person_tokens.py. There is no cookie, so pages of
every origin may ask. A token is written into no log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from time import monotonic
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from config.inbox_keys import load_inbox_keys
from config.settings import Settings
from schemas.messages import READ
from schemas.rows import encode_json, row_once
from schemas.safe_json import Unreadable
from sinks.analytics import Analytics, ClickHouseError
from sinks.messages.links import Mailed
from sinks.messages.person_tokens import PersonTokens, WrongToken
from sinks.messages.tables import INBOX_READS, InboxReadRow
from streams.lines import EVENTS
from streams.log import Log, LogBusy, Outgoing
from streams.metrics import InboxMetrics
from streams.outbox import effect_id
from web.collector import answers
from web.collector.answers import Answer
from web.collector.ingest import BODY_TIMEOUT_S, LAG_RETRY_S, now
from web.collector.request import ClientGone, FarTooLarge, TooSlow, query_of, read_body
from web.inbox.queries import Inbox, Place, Unread, place_of
from web.links.limits import Limits
from web.links.recording import Reader, event_of

PATH, READ_PATH = "/inbox", "/inbox/read"
USUAL, MOST_MESSAGES = 20, 100  # messages of one answer
MOST_IDS = 100  # of one request
MOST_MARKED = 1_000  # by one request for all
LARGEST_BODY_BYTES = 16 * 1024
LONGEST_AGENT = 500  # characters of a user agent that are kept
PER_S, AT_ONCE = 5, 60  # requests of one person
MOST_ASKING, MOST_WAITING = 2, 100  # requests that ask ClickHouse together, and that wait for their turn
LONGEST_WAIT_S = 8.0  # for ClickHouse

_PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_NONE = answers.refusal(404, "There is no inbox here: set `inbox_keys`, see docs/inbox.md.")
_ASKED: Mapping[str, str] = {PATH: "list", READ_PATH: "read"}

log = structlog.get_logger(__name__)


class _Wrong(Exception):
    """The request ends with this answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.label)


class Marked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/inbox/read`."""

    ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=MOST_IDS)] | None = None
    all: bool = False


_decode_marked = msgspec.json.Decoder(Marked).decode


class InboxSite:
    """What each address answers.

    Args:
        tokens: None where no workspace has a key: then there is no inbox.
        days: that a message stays.
        clock: the time of day, in UTC.
    """

    def __init__(
        self, log_: Log, analytics: Analytics | None, tokens: PersonTokens | None, metrics: InboxMetrics, *, days: int,
        limits: Limits, clock: Callable[[], datetime] = now,
    ) -> None:  # fmt: skip
        self._log = log_
        self._analytics = analytics
        self._tokens = tokens
        self._metrics = metrics
        self._days = days
        self._limits = limits
        self._clock = clock
        self._turns = asyncio.Semaphore(MOST_ASKING)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except _Wrong as wrong:
            answer = wrong.answer
        except ClientGone:
            return
        self._metrics.requests.labels(_ASKED.get(scope["path"], "unknown"), answer.label).inc()
        await answer._replace(headers=(*answer.headers, *_PRIVATE)).send(send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if path not in _ASKED:
            return answers.UNKNOWN_PATH
        if method == "OPTIONS":
            return answers.PREFLIGHT
        wanted = "GET" if path == PATH else "POST"
        if method != wanted:
            return answers.wrong_method(f"{wanted}, OPTIONS")
        if self._tokens is None or self._analytics is None:
            return _NONE
        headers: dict[bytes, bytes] = dict(scope["headers"])
        person = _person(self._tokens, headers)
        if wait_s := self._limits.take(person, monotonic()):
            return answers.come_again(429, "Too many requests for this inbox.", wait_s)
        inbox = Inbox(self._analytics, person, self._clock() - timedelta(days=self._days))
        if path == PATH:
            return await self._list(inbox, _query(scope))
        marked = await _marked(headers, receive)
        return await self._mark(inbox, person, marked, _reader(scope, headers))

    async def _list(self, inbox: Inbox, query: Mapping[str, str]) -> Answer:
        most, place = _limit(query.get("limit", "")), _place(query.get("cursor", ""))
        if (unread := query.get("unread", "")) not in ("", "1"):
            raise _Wrong(answers.unreadable("`unread` is 1, or left out."))
        async with self._turn():
            page = await inbox.page(place, most=most, is_unread=bool(unread))
        shown = [{"id": row["id"], "at": row["kept_at"], "title": row["subject"], "text": row["text"],
                  "html": row["html"], "link": row["link"], "read": bool(row["is_read"])}
                 for row in page.rows]  # fmt: skip
        return answers.answer(200, encode_json({"messages": shown, "unread": page.unread, "next": page.next}))

    async def _mark(self, inbox: Inbox, person: str, marked: Marked, reader: Reader) -> Answer:
        """Write down what she has read. What is none of hers, or was read before, is left out."""
        async with self._turn():
            found = await inbox.unread(None if marked.all else marked.ids, MOST_MARKED)
        at = self._clock()
        try:
            if found:
                # First what she did: were only the mark stored, nobody would ever hear of it. Both may come again.
                await self._log.append(EVENTS, [_event(each, person, reader, at) for each in found])
                await self._log.append("rows", [_row(each, at) for each in found])
        except LogBusy as busy:
            log.warning("reading_not_stored", error=str(busy))
            raise _Wrong(answers.come_again(503, "This cannot be stored now.", busy.retry_after_s)) from None
        return answers.answer(200, encode_json({"read": [each.id for each in found]}))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A turn at ClickHouse: a few requests have one together, some more wait, so that pages have theirs, too."""
        later = answers.come_again(503, "The inbox cannot be read now.", LAG_RETRY_S)
        if self._under_way >= MOST_WAITING:
            raise _Wrong(later)
        self._under_way += 1
        try:
            async with asyncio.timeout(LONGEST_WAIT_S), self._turns:
                yield
        except (TimeoutError, ClickHouseError) as error:
            log.warning("inbox_not_read", error=str(error) or "no answer in time")
            raise _Wrong(later) from None
        finally:
            self._under_way -= 1


def inbox_app(log_: Log, settings: Settings, registry: CollectorRegistry, analytics: Analytics | None, *,
              clock: Callable[[], datetime] = now, limits: Limits | None = None) -> InboxSite:  # fmt: skip
    """The app. Without any key there is no inbox, and it says so.

    Args:
        analytics: None where this process can ask no ClickHouse.
        clock: the time of day, in UTC.

    Raises:
        ConfigError: the keys are not as they must be.
    """
    keys = {workspace: [key.secret for key in own] for workspace, own in load_inbox_keys(settings).items()}
    tokens = PersonTokens(keys, lambda: clock().timestamp()) if keys else None
    return InboxSite(log_, analytics, tokens, InboxMetrics(registry), days=settings.inbox_days,
                     limits=limits or Limits(PER_S, AT_ONCE), clock=clock)  # fmt: skip


# --- requests


def _person(tokens: PersonTokens, headers: Mapping[bytes, bytes]) -> str:
    """Who asks, as a person key."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    try:
        if scheme.lower() != b"bearer" or not token:
            raise WrongToken("There is no token.", "Send that of a person as `Authorization: Bearer TOKEN`; see "
                             "docs/inbox.md.")  # fmt: skip
        return tokens.read(token.strip().decode("latin-1"))
    except WrongToken as wrong:
        challenge = (b"www-authenticate", b'Bearer realm="inbox"')
        raise _Wrong(answers.refusal(401, str(wrong), challenge)) from None


def _query(scope: Scope) -> Mapping[str, str]:
    try:
        return query_of(scope["query_string"])
    except Unreadable as unreadable:
        raise _Wrong(answers.unreadable(str(unreadable))) from None


def _limit(text: str) -> int:
    """How many messages are asked for."""
    if not text:
        return USUAL
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_MESSAGES:
        raise _Wrong(answers.unreadable(f"`limit` is a whole number from 1 to {MOST_MESSAGES}."))
    return int(text)


def _place(cursor: str) -> Place:
    place = place_of(cursor) if cursor else Place()
    if place is None:
        raise _Wrong(answers.unreadable("`cursor` is none: take `next` of the page before, as it is."))
    return place


async def _marked(headers: Mapping[bytes, bytes], receive: Receive) -> Marked:
    """The body of a request.

    Raises:
        ClientGone
    """
    try:
        body = await read_body(receive, headers.get(b"content-length"), BODY_TIMEOUT_S)
    except TooSlow:
        raise _Wrong(answers.SLOW_BODY) from None
    except Unreadable as unreadable:
        is_too_far = isinstance(unreadable, FarTooLarge)
        raise _Wrong(answers.unreadable(str(unreadable), hang_up=is_too_far)) from None
    try:
        if len(body) > LARGEST_BODY_BYTES:
            raise ValueError(f"it has more than {LARGEST_BODY_BYTES:,} bytes")
        marked = _decode_marked(body)
        if marked.all == (marked.ids is not None):
            raise ValueError("one of `ids` and `all` is said")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _Wrong(answers.unreadable('The body is {"ids": ["…"]}, of at most '
                                        f'{MOST_IDS} ids, or {{"all": true}}: {error}.')) from None  # fmt: skip
    return marked


def _reader(scope: Scope, headers: Mapping[bytes, bytes]) -> Reader:
    client = scope.get("client")
    agent = headers.get(b"user-agent", b"").decode("latin-1")
    return Reader(client[0] if client else "", agent[:LONGEST_AGENT])


# --- what is written down


def _event(read: Unread, person: str, reader: Reader, at: datetime) -> Outgoing:
    """That she has read a message, as an event of whoever asked; of one message it is always the same."""
    mailed = Mailed(read.id, person, read.template, read.topic, "inbox")
    return event_of(READ, mailed, reader, {}, effect_id(read.id, read.key, READ), at)


def _row(read: Unread, at: datetime) -> Outgoing:
    """The mark, beside the message: under the key that this was sent to."""
    return Outgoing(read.key.encode(), encode_json(row_once(INBOX_READS.name, read.key, InboxReadRow(read.id, at))))
