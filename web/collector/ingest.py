"""From request to answer: read, find the write key, judge each event alone, store, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from time import monotonic, time_ns
from typing import Any, NamedTuple

import msgspec
import structlog
from msgspec import Raw
from prometheus_client import CollectorRegistry

from config.settings import Settings
from config.write_keys import WriteKey, WriteKeys
from schemas.client_time import read_sent_at
from schemas.errors import Refused
from schemas.event import LARGEST_BATCH_BYTES, LONGEST_MESSAGE_ID, encode_event
from schemas.intake import (
    Arrival,
    arrival_of_batch,
    read_batch,
    read_event,
    read_write_key,
    text_or_empty,
)
from schemas.keys import LONGEST_ID, anonymous_key, is_blocked, user_key
from schemas.plain_call import plain_call
from schemas.rejected import Rejected, encode_rejected
from schemas.safe_json import Unreadable
from streams.log import Log, LogBusy, Outgoing
from web.collector import answers
from web.collector.answers import Answer, Receive, Send
from web.collector.counters import Counters
from web.collector.rates import TokenBucket
from web.collector.request import (
    ClientGone,
    FarTooLarge,
    TooSlow,
    basic_user,
    pixel_event,
    plain,
    query_of,
    read_body,
    write_key_of_data,
)

BODY_TIMEOUT_S = 10.0
LAG_RETRY_S = 5  # a lag that is too long does not shrink in one second
EVENTS_AT_A_STRETCH = 250  # judged before other requests get their turn
_BATCH = ""

log = structlog.get_logger(__name__)


class Path(NamedTuple):
    """What a path takes. `call` is the type of its one event; empty for a batch."""

    call: str
    is_pixel: bool = False


_CALLS = ("track", "identify", "page", "screen", "group", "alias")
PATHS: Mapping[str, Path] = {
    **{f"/v1/{call}": Path(call) for call in _CALLS},
    **{f"/v1/{call[0]}": Path(call) for call in _CALLS},  # the browser SDK's; `s` is screen
    **dict.fromkeys(("/v1/batch", "/v1/b", "/v1/import", "/beacon/v1/batch"), Path(_BATCH)),
    **{f"/pixel/v1/{call}": Path(call, is_pixel=True) for call in _CALLS},  # RudderStack's
    **{f"/v1/pixel/{call}": Path(call, is_pixel=True) for call in _CALLS},  # Segment's
}
SETTINGS_BEFORE, SETTINGS_AFTER = "/v1/projects/", "/settings"
PREFIXES = ("/v1/", "/beacon/v1/", "/pixel/v1/")  # what the collector answers, be it with 404


WHOLE = {name.encode(): path for name, path in PATHS.items() if not path.is_pixel}
MOST_TOGETHER = 1_000  # records of requests that came at the same time and are appended together


def now() -> datetime:
    """The time of day in UTC, in whole milliseconds like every time that is stored."""
    return _moment(time_ns() // 1_000_000)


@lru_cache(maxsize=1)  # a busy collector takes dozens of requests in one millisecond
def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


class _Sender(NamedTuple):
    """A write key as requests need it, and what it may still send."""

    key: WriteKey
    name: str
    workspace: str
    bucket: TokenBucket | None
    is_public: bool

    @staticmethod
    def of(key: WriteKey, now_s: float) -> _Sender:
        bucket = None if key.rate is None else TokenBucket(key.rate, key.most_at_once, now_s)
        return _Sender(key, key.name, key.workspace, bucket, key.kind == "public")


class _Judged:
    """The events of one request, each good or rejected."""

    __slots__ = ("call", "good", "is_pixel", "reasons", "rejected", "sender")

    def __init__(self, path: Path, sender: _Sender) -> None:
        self.call, self.is_pixel = path
        self.sender = sender
        self.good: list[Outgoing] = []
        self.rejected: list[Outgoing] = []
        self.reasons: list[str] = []

    def __len__(self) -> int:
        return len(self.good) + len(self.rejected)


class Collector:
    """ASGI callable for all paths below PREFIXES.

    200 is answered only when the log has acknowledged every event of the request: good ones in topic `events`, refused
    ones, each whole and with its reason, in topic `rejected`. After any other answer the client is to send the request
    again (429, 503) or to mend it (other 4xx). Bad input never leads to an answer of 500.

    Args:
        lag: how many records the customer stage is behind; asked with every request, so it must be cheap.
        clock, monotonic_s: the time of day, and a clock that never jumps, for the rates.
    """

    def __init__(
        self,
        log: Log,
        keys: WriteKeys,
        settings: Settings,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], datetime] = now,
        lag: Callable[[], int] = lambda: 0,
        monotonic_s: Callable[[], float] = monotonic,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._log = log
        self._keys = keys
        self._most_lag = settings.most_lag
        self._counters = Counters(registry)
        self._clock = clock
        self._lag = lag
        self._monotonic_s = monotonic_s
        self._body_timeout_s = body_timeout_s
        self._senders = {key.sha256: _Sender.of(key, monotonic_s()) for key in keys}
        self._known_headers: dict[bytes, _Sender] = {}
        self._together: list[tuple[_Judged, Callable[[Answer], None]]] = []
        self._records_together = 0
        self._at_work: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the collector answers HTTP, not {scope['type']}")
        began_s = self._monotonic_s()
        try:
            answer = await self._answer(scope, receive)
        except ClientGone:
            return
        self._counters.answered(answer.label, self._monotonic_s() - began_s)
        await answer.send(send)

    # ---- routes ------------------------------------------------------------------------------------------------------

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> Answer:
        name: str = scope["path"]
        path = PATHS.get(name) or PATHS.get(name.rstrip("/"))
        method = scope["method"]
        if method == "OPTIONS":
            return answers.PREFLIGHT
        if path is None:
            return self._browser_settings(scope, name.rstrip("/"))
        if method != ("GET" if path.is_pixel else "POST"):
            return answers.wrong_method("GET, OPTIONS" if path.is_pixel else "POST, OPTIONS")
        try:
            return await self._ingest(path, scope, receive)
        except Unreadable as unreadable:
            return answers.unreadable(str(unreadable), hang_up=isinstance(unreadable, FarTooLarge))
        except TooSlow:
            return answers.SLOW_BODY

    def _browser_settings(self, scope: Mapping[str, Any], name: str) -> Answer:
        """What Segment's browser SDK asks for before it sends anything."""
        if not (name.startswith(SETTINGS_BEFORE) and name.endswith(SETTINGS_AFTER)):
            return answers.UNKNOWN_PATH
        if scope["method"] != "GET":
            return answers.wrong_method("GET, OPTIONS")
        plain = name[len(SETTINGS_BEFORE) : -len(SETTINGS_AFTER)]
        if self._keys.find(plain) is None:
            return answers.refusal(404, "This write key is not known here.")
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        body = msgspec.json.encode({
            "integrations": {"Segment.io": {"apiKey": plain, "apiHost": f"{host}/v1", "protocol": scope["scheme"]}},
            "plan": {"track": {"__default": {"enabled": True, "integrations": {}}},
                     "identify": {"__default": {"enabled": True}}, "group": {"__default": {"enabled": True}}},
            "metrics": {"sampleRate": 0},
            "analyticsNextEnabled": True, "edgeFunction": {}, "middlewareSettings": {}, "enabledMiddleware": {},
            "legacyVideoPluginsEnabled": False, "remotePlugins": [],
        })  # fmt: skip
        return answers.answer(200, body, (b"cache-control", b"no-cache"))

    # ---- ingest ------------------------------------------------------------------------------------------------------

    async def _ingest(self, path: Path, scope: Mapping[str, Any], receive: Receive) -> Answer:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        query = query_of(scope["query_string"])
        sender = self._sender_first(headers, query)
        if isinstance(sender, Answer):
            return sender
        if path.is_pixel:
            body = pixel_event(query, headers)
            sender = sender or self._find(write_key_of_data(body))
            if isinstance(sender, Answer):
                return sender
        else:
            body = await read_body(receive, headers.get(b"content-length"), self._body_timeout_s)
        opened = self._open(path, sender, headers, body, scope.get("client"))
        if isinstance(opened, Answer):
            return opened
        return await self._judge_and_store(path, *opened)

    async def _judge_and_store(
        self, path: Path, sender: _Sender, raws: Sequence[bytes | Raw], arrival: Arrival
    ) -> Answer:
        judged = _Judged(path, sender)
        for begin in range(0, len(raws), EVENTS_AT_A_STRETCH):
            if begin:
                await asyncio.sleep(0)
            self._judge(raws[begin : begin + EVENTS_AT_A_STRETCH], arrival, judged)
        (answer,) = await self._store([judged])
        return answer

    @property
    def urls(self) -> Mapping[bytes, object]:
        """See `web.collector.server.Whole`."""
        return WHOLE

    def take(
        self,
        url: bytes,
        head: Sequence[tuple[bytes, bytes]],
        body: bytes,
        client: tuple[str, int] | None,
        reply: Callable[[Answer], None],
    ) -> bool:
        """Answer a POST to one of `urls` that came in one piece; False: it is one for `__call__`.

        `reply` is called at once, or when the log has acknowledged the events. The same as `__call__` in all but its
        cost: no task, no messages, and the events of requests that come at the same time are appended together.
        """
        headers = dict(head)
        if b"x-forwarded-for" in headers or len(body) > LARGEST_BATCH_BYTES:
            return False
        path = WHOLE[url]
        try:
            sender = self._sender_first(headers, {})
            opened = sender if isinstance(sender, Answer) else self._open(path, sender, headers, plain(body), client)
            if isinstance(opened, Answer):
                self._reply(opened, reply)
                return True
            sender, raws, arrival = opened
            if len(raws) > EVENTS_AT_A_STRETCH:
                self._begin(self._judge_and_reply(path, sender, raws, arrival, reply))
                return True
            judged = _Judged(path, sender)
            self._judge(raws, arrival, judged)
        except Unreadable as unreadable:
            self._reply(answers.unreadable(str(unreadable)), reply)
            return True
        if not self._together:
            asyncio.get_running_loop().call_soon(self._append_together)
        self._together.append((judged, reply))
        self._records_together += len(judged)
        if self._records_together > MOST_TOGETHER:
            self._append_together()
        return True

    def _sender_first(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> _Sender | Answer | None:
        """Whose the request is, as far as its head says; refused before its body is read: floods are to cost little."""
        sender = self._sender_of_header(headers.get(b"authorization")) or self._sender_of_query(query)
        if isinstance(sender, _Sender) and (refusal := self._not_now(sender, headers, events=0)):
            return refusal
        return sender

    def _open(
        self,
        path: Path,
        sender: _Sender | None,
        headers: Mapping[bytes, bytes],
        body: bytes,
        client: tuple[str, int] | None,
    ) -> tuple[_Sender, Sequence[bytes | Raw], Arrival] | Answer:
        """Whose the request is, the events of its body, and what is known of them.

        Raises:
            Unreadable
        """
        batch = read_batch(body) if path.call == _BATCH else None
        if sender is None:
            found = self._find(text_or_empty(batch.write_key) if batch else read_write_key(body))
            if isinstance(found, Answer):
                return found
            sender = found
        raws: Sequence[bytes | Raw] = batch.batch if batch else (body,)
        if refusal := self._not_now(sender, headers, events=len(raws)):
            return refusal
        arrival = self._arrival(sender, client, headers)
        return sender, raws, arrival_of_batch(batch, arrival) if batch else arrival

    def _not_now(self, sender: _Sender, headers: Mapping[bytes, bytes], events: int) -> Answer | None:
        """403, 429 or 503, or None where the events may come in; their tokens are then taken."""
        origin = headers.get(b"origin")
        if origin and not sender.key.allows(origin.decode("latin-1")):
            return answers.WRONG_ORIGIN
        if sender.bucket is not None and (wait_s := sender.bucket.take(events, self._monotonic_s())):
            return answers.come_again(429, f"This write key may send {sender.key.rate} events a second.", wait_s)
        if self._lag() >= self._most_lag:
            return answers.come_again(503, "The processors are too far behind to take more.", LAG_RETRY_S)
        return None

    def _arrival(
        self, sender: _Sender, client: tuple[str, int] | None, headers: Mapping[bytes, bytes]
    ) -> Arrival:
        ip = client[0] if client else ""
        flags: list[str] = []
        sent_at_header = headers.get(b"sentat")  # RudderStack's browser SDK says it only there
        sent_at = read_sent_at(sent_at_header.decode("latin-1"), flags) if sent_at_header else None
        return Arrival(sender.workspace, sender.name, self._clock(), sent_at, ip, flags=tuple(flags),
                       is_public=sender.is_public)  # fmt: skip

    def _judge(self, raws: Sequence[bytes | Raw], arrival: Arrival, judged: _Judged) -> None:
        """Add the events to those that were judged.

        Raises:
            Unreadable: the only event of the request is none.
        """
        call, good = judged.call, judged.good
        for raw in raws:
            try:
                accepted = plain_call(bytes(raw), call, arrival)
                if accepted is None:
                    event = read_event(raw, call, arrival)
                    accepted = event.key.encode(), encode_event(event)
                good.append(Outgoing(*accepted))
            except Refused as refused:
                if call and isinstance(refused, Unreadable):
                    raise
                judged.reasons.append(refused.reason)
                judged.rejected.append(dead_letter(refused, bytes(raw), arrival, call))
            except Exception:
                # A bug of ours must not cost an event, nor its 99 neighbours.
                log.exception("event_not_understood", source=judged.sender.name)
                judged.reasons.append("the collector failed on this event")
                judged.rejected.append(dead_letter(Refused(judged.reasons[-1]), bytes(raw), arrival, call))

    def _append_together(self) -> None:
        together, self._together, self._records_together = self._together, [], 0
        if together:
            self._begin(self._store_together(together))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _judge_and_reply(
        self,
        path: Path,
        sender: _Sender,
        raws: Sequence[bytes | Raw],
        arrival: Arrival,
        reply: Callable[[Answer], None],
    ) -> None:
        self._reply(await self._judge_and_store(path, sender, raws, arrival), reply)

    async def _store_together(self, together: Sequence[tuple[_Judged, Callable[[Answer], None]]]) -> None:
        for answer, (_, reply) in zip(await self._store([judged for judged, _ in together]), together, strict=True):
            self._reply(answer, reply)

    def _reply(self, answer: Answer, reply: Callable[[Answer], None]) -> None:
        self._counters.requests[answer.label] += 1
        reply(answer)

    async def _store(self, requests: Sequence[_Judged]) -> Sequence[Answer]:
        """The answers, when the log has acknowledged the events of all the requests, or has not."""
        first, *others = requests
        good, rejected = first.good, first.rejected
        if others:
            good = [event for request in requests for event in request.good]
            rejected = [letter for request in requests for letter in request.rejected]
        started_s = self._monotonic_s()
        try:  # without a timeout of its own: every log ends its waiting by itself
            if not rejected:
                if good:
                    await self._log.append("events", good)
            elif not good:
                await self._log.append("rejected", rejected)
            else:
                await asyncio.gather(self._log.append("events", good), self._log.append("rejected", rejected))
        except LogBusy as busy:
            log.warning("log_busy", error=str(busy), sources=_names(requests), events=len(good) + len(rejected))
            return [answers.come_again(503, "The log cannot take more now.", busy.retry_after_s)] * len(requests)
        except Exception:
            log.exception("append_failed", sources=_names(requests))
            return [answers.come_again(503, "The log cannot take the events.", LAG_RETRY_S)] * len(requests)
        took_s = self._monotonic_s() - started_s
        for request in requests:
            self._counters.stored(request.sender.name, len(request.good), request.reasons, took_s)
        return [answers.PIXEL if request.is_pixel else answers.TAKEN for request in requests]

    # ---- write keys --------------------------------------------------------------------------------------------------

    def _sender_of_header(self, authorization: bytes | None) -> _Sender | Answer | None:
        """The key of a Basic header. Other schemes name none here: OAuth clients have the key in the body."""
        if not authorization:
            return None
        known = self._known_headers.get(authorization)
        if known is not None:
            return known
        plain = basic_user(authorization)
        if not plain:
            return None
        found = self._find(plain)
        if isinstance(found, _Sender) and len(authorization) < 500:
            if len(self._known_headers) >= 1_000:  # one key has many headers: passwords are ignored
                self._known_headers.clear()
            self._known_headers[authorization] = found
        return found

    def _sender_of_query(self, query: Mapping[str, str]) -> _Sender | Answer | None:
        plain = query.get("writeKey")
        return self._find(plain) if plain else None

    def _find(self, plain: str) -> _Sender | Answer:
        if not plain:
            return answers.NO_WRITE_KEY
        key = self._keys.find(plain)
        return answers.WRONG_WRITE_KEY if key is None else self._senders[key.sha256]


def _names(requests: Sequence[_Judged]) -> list[str]:
    return sorted({request.sender.name for request in requests})


class _Whose(msgspec.Struct, rename="camel"):
    message_id: Any = None
    user_id: Any = None
    anonymous_id: Any = None


_decode_whose = msgspec.json.Decoder(_Whose).decode


_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def on_its_own(raw: bytes, arrival: Arrival, call: str) -> bytes:
    """The event with what the request said of it beside: the call of its path, and what its batch says of all.

    So that it can be mended and sent again by itself. What cannot be read, or needs nothing, stays as it is.
    """
    try:
        members = _decode_members(raw)
        said: dict[str, Any] = {}
        if call and "type" not in members:
            said["type"] = call
        if arrival.sent_at is not None and "sentAt" not in members:
            said["sentAt"] = arrival.sent_at
        for name, of_all in (("context", arrival.context), ("integrations", arrival.integrations)):
            if of_all:
                own = msgspec.json.decode(members[name]) if name in members else {}
                if isinstance(own, dict):
                    said[name] = {**of_all, **own}
        return msgspec.json.encode({**members, **said}) if said else raw
    except (ValueError, TypeError, RecursionError):
        return raw


def dead_letter(refused: Refused, raw: bytes, arrival: Arrival, call: str = "", number: int = 1) -> Outgoing:
    """The record of topic `rejected` for an event that was refused before the log.

    Args:
        call: that of the request's path.
        number: which event of its request, from 1 on: sent again together, they keep their order.
    """
    try:
        whose = _decode_whose(raw)
    except (ValueError, RecursionError):
        whose = _Whose()
    user_id, anonymous_id = text_or_empty(whose.user_id), text_or_empty(whose.anonymous_id)
    key = ""
    if user_id and len(user_id) <= LONGEST_ID and not is_blocked(user_id):
        key = user_key(arrival.workspace, user_id)
    elif anonymous_id and len(anonymous_id) <= LONGEST_ID and not is_blocked(anonymous_id):
        key = anonymous_key(arrival.workspace, anonymous_id)
    same = blake2b(digest_size=16)
    for part in (arrival.workspace, arrival.source, refused.reason, refused.field):
        same.update(part.encode() + b"\0")
    same.update(raw)
    letter = Rejected.of(
        refused,
        id=same.hexdigest(),
        at=arrival.received_at,
        by="collector",
        record=on_its_own(raw, arrival, call),
        offset=number,
        workspace=arrival.workspace,
        source=arrival.source,
        message_id=text_or_empty(whose.message_id)[:LONGEST_MESSAGE_ID],
        key=key,
    )
    return Outgoing(key.encode() or None, encode_rejected(letter))
