"""Live: the stream as it passes.

The browser holds one event stream. It is fed from the ends of topics `events` and `rejected`, outside of any consumer
group, so looking changes nothing. What passes faster than eyes can read is counted, not shown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from schemas.errors import Refused, TidewireError
from schemas.event import decode_event
from schemas.internal import is_internal
from schemas.rejected import Rejected, decode_rejected
from schemas.times import from_ms
from streams.log import TP, Log, Record
from web.dashboard.language import Language
from web.dashboard.live_positions import Positions, pack, unpack
from web.dashboard.site import Site, with_query
from web.dashboard.telling import summary

TOPICS = ("events", "rejected")
TICK_S = 0.5
SHOWN_PER_TICK = 5  # ten lines a second; more cannot be read
MOST_WAITING = 60  # lines; a burst is shown bit by bit, a flood is not
READ_PER_TICK = 400  # records of one partition looked at in a tick, the newest; those before are counted unread
SHOWN_AT_FIRST = 30
PULSE_S = 60
ANNOUNCED_EVERY_S = 10  # to screen readers
MOST_STREAMS = 24
LARGEST_SHOWN = 16_000  # bytes of a record that is no JSON

logger = structlog.get_logger(__name__)


class Wanted(NamedTuple):
    """What the visitor asked to see, of one workspace; empty: everything."""

    workspace: str
    event: str = ""
    source: str = ""
    kind: str = ""

    @staticmethod
    def of(query: Mapping[str, str], workspace: str) -> Wanted:
        kind = query.get("kind", "")
        return Wanted(workspace, query.get("event", "").strip()[:200], query.get("source", "").strip()[:200],
                      kind if kind in TOPICS else "")  # fmt: skip

    def takes(self, line: Line) -> bool:
        return (
            line.workspace in (self.workspace, "")  # what names none belongs to whoever looks
            and (not self.kind or self.kind == line.kind)
            and (not self.event or self.event.casefold() in line.label.casefold())
            and (not self.source or self.source.casefold() == line.source.casefold())
        )


class Line(NamedTuple):
    """One record as a line of the page. `kind` is its topic; `field` and `says` why it was refused, or its facts."""

    place: str
    kind: str
    at: datetime
    workspace: str = ""
    label: str = ""
    source: str = ""
    key: str = ""
    says: str = ""
    field: str = ""
    id: str = ""
    facts: Any = None


class Glance(NamedTuple):
    """What one look at the ends of the topics found."""

    lines: list[Line]  # those that are wanted, the newest first
    passed: int  # records of `events` since the last look
    refused: int  # and of `rejected`
    unread: int  # that were not looked at


class Tail:
    """A place in the topics that follows their ends."""

    def __init__(self, log: Log, wanted: Wanted, positions: Positions) -> None:
        self._log = log
        self._wanted = wanted
        self.positions = positions

    async def look(self) -> Glance:
        """What came since the last look."""
        lines: list[Line] = []
        passed = refused = unread = 0
        for topic in TOPICS:
            for partition, (first, end) in (await self._log.bounds(topic)).items():
                tp = TP(topic, partition)
                at = min(self.positions.get(tp, first), end)
                count = end - at
                start = max(at, first, end - READ_PER_TICK)
                unread += start - at
                if start < end:
                    records = await self._log.read(tp, start, READ_PER_TICK)
                    end = max([end, *(record.offset + 1 for record in records)])
                    events = [record for record in records if not is_internal(record.headers)]
                    count -= len(records) - len(events)
                    lines += [line for line in map(line_of, events) if self._wanted.takes(line)]
                if topic == "events":
                    passed += count
                else:
                    refused += count
                self.positions[tp] = end
        lines.sort(key=lambda line: line.at, reverse=True)
        return Glance(lines, passed, refused, unread)


def line_of(record: Record) -> Line:
    """A record of `events` or `rejected` as a line; one that cannot be read says so."""
    place = f"{record.topic}-{record.partition}-{record.offset}"
    stored_at = from_ms(record.timestamp_ms)
    try:
        if record.topic == "rejected":
            return _refused_line(place, decode_rejected(record.value or b""))
        return _event_line(place, record.value or b"", stored_at)
    except (Refused, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Line(place, record.topic, stored_at, label="?", says=str(error), facts=_text(record.value or b""))


def _event_line(place: str, value: bytes, stored_at: datetime) -> Line:
    event = decode_event(value)
    return Line(
        place,
        "events",
        max(event.received_at, stored_at),
        workspace=event.workspace,
        label=event.label,
        source=event.source,
        key=event.key,
        says=summary(event.type, event.name, event.group_id or event.previous_id, event.properties, event.traits,
                     event.context),
        id=event.message_id,
        facts=msgspec.json.decode(value),
    )  # fmt: skip


def _refused_line(place: str, letter: Rejected) -> Line:
    try:
        body = msgspec.json.decode(letter.record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = _text(letter.record)
    label = body.get("event") or body.get("type") or "" if isinstance(body, dict) else ""
    return Line(
        place,
        "rejected",
        letter.at,
        workspace=letter.workspace,
        label=str(label)[:200],
        source=letter.source,
        key=letter.key,
        says=letter.reason,
        field=letter.field,
        id=letter.id,
        facts=body,
    )


def _text(record: bytes) -> str:
    return record[:LARGEST_SHOWN].decode("utf-8", "replace")


async def ends(log: Log) -> Positions:
    """The place after the newest record of each partition."""
    found: Positions = {}
    for topic in TOPICS:
        for partition, (_, end) in (await log.bounds(topic)).items():
            found[TP(topic, partition)] = end
    return found


async def live(request: Request) -> Response:
    """The page, with the newest lines there are."""
    site: Site = request.app.state.site
    wanted = Wanted.of(request.query_params, site.workspace)
    now_at = await ends(site.log)
    tail = Tail(site.log, wanted, {tp: max(end - READ_PER_TICK, 0) for tp, end in now_at.items()})
    glance = await tail.look()
    stream = with_query("/live/stream", wanted._asdict(), workspace="", since=pack(tail.positions))
    template = "live_feed.html" if request.headers.get("hx-target") == "feed" else "live.html"
    return site.page(request, template, wanted=wanted, lines=glance.lines[:SHOWN_AT_FIRST], stream=stream,
                     write_key=_write_key(site), address=f"{request.url.scheme}://{request.url.netloc}",
                     has_any=any(now_at.values()), headers={"vary": "HX-Request"})  # fmt: skip


def _write_key(site: Site) -> str:
    """A plain write key that was given for trials, to show how to send; else a word for it."""
    return site.settings.write_keys.partition(",")[0].strip() or "WRITE_KEY"


async def stream(request: Request) -> Response:
    """The event stream behind the page. One for each open page; bounded, so that nobody exhausts the process."""
    site: Site = request.app.state.site
    if site.open_streams >= MOST_STREAMS:
        return PlainTextResponse("503: too many live pages are open; close some.", 503, headers={"retry-after": "5"})
    known = unpack(request.headers.get("last-event-id", "") or request.query_params.get("since", ""))
    language = site.language(request)
    wanted = Wanted.of(request.query_params, site.workspace)
    tail = Tail(site.log, wanted, {**await ends(site.log), **known})
    return EventSourceResponse(_feed(site, language, tail), ping=15)


async def _feed(site: Site, language: Language, tail: Tail) -> AsyncIterator[ServerSentEvent]:
    clock = asyncio.get_running_loop().time
    pulse: deque[list[int]] = deque([[0, 0] for _ in range(PULSE_S)], maxlen=PULSE_S)
    waiting: deque[Line] = deque()
    skipped = 0
    since_announced = [0, 0]
    begun = second = announced = clock()
    site.open_streams += 1
    try:
        while True:
            try:
                glance = await tail.look()
            except TidewireError as error:
                logger.warning("live_log_unavailable", error=str(error))
                yield ServerSentEvent(site.fragment(language, "live_trouble.html"), event="pulse")
                await asyncio.sleep(4 * TICK_S)
                continue
            while clock() - second >= 1:
                pulse.append([0, 0])
                second += 1
            pulse[-1][0] += glance.passed
            pulse[-1][1] += glance.refused
            waiting.extend(reversed(glance.lines))
            overflow = max(len(waiting) - MOST_WAITING, 0)
            skipped += glance.unread + overflow
            for _ in range(overflow):
                waiting.popleft()
            since_announced = [since_announced[0] + glance.passed, since_announced[1] + glance.refused]
            if waiting:
                now = [waiting.popleft() for _ in range(min(SHOWN_PER_TICK, len(waiting)))]
                yield ServerSentEvent(site.fragment(language, "live_lines.html", lines=now[::-1]),
                                      event="lines", id=pack(tail.positions))  # fmt: skip
            yield ServerSentEvent(
                site.fragment(language, "live_pulse.html", pulse=list(pulse), skipped=skipped,
                              seconds=min(clock() - begun, PULSE_S)),
                event="pulse",
            )  # fmt: skip
            if clock() - announced >= ANNOUNCED_EVERY_S:
                if any(since_announced):
                    said = language.text("live.announce", events=language.number(since_announced[0]),
                                         refused=language.number(since_announced[1]))  # fmt: skip
                    yield ServerSentEvent(said, event="announce")
                announced, since_announced = clock(), [0, 0]
            await asyncio.sleep(TICK_S)
    finally:
        site.open_streams -= 1
