"""Visits: when a person was there, how she came, where she landed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from pydantic import BaseModel, Field

from processors.base import Person, Processor, Table
from processors.bounded import admit, cut
from processors.context import facts_of
from processors.touch import Touch, touch_of
from schemas.effects import Effect, Row
from schemas.event import Event
from schemas.messages import SOURCE
from schemas.times import DAY_MS, MINUTE_MS, from_ms, to_iso

MOST_TOUCHES = 50  # combinations of source, medium and campaign that are counted; by lot, the rest together
SHOWN_VISITS = 20
_EVER = -(2**62)
SHOWN_TOUCHES = 10


class VisitsSettings(BaseModel, extra="forbid", frozen=True):
    """What makes a visit. File: config/processors/visits.yaml"""

    silence_minutes: int = Field(30, ge=1, le=1440, description="Silence that ends a visit, in minutes.")
    keep_days: int = Field(
        730, ge=1, le=3660,
        description="Visits that ended longer than this before the newest event are kept as totals only; an event that "
                    "comes later than this is counted as late.")  # fmt: skip
    keep_visits: int = Field(100, ge=20, le=500, description="Visits kept one by one, at most; older ones as totals.")
    server_libraries: tuple[str, ...] = Field(
        ("analytics-python", "analytics-node", "@segment/analytics-node", "analytics-ruby", "analytics-go",
         "analytics-java", "analytics-php", "analytics.net", "rudder-sdk-node", "@rudderstack/rudder-sdk-node",
         "rudder-analytics-python", "tidewire", "tidewire-demo", "tidewire-import"),
        description="Libraries that run on servers: their track calls make no visit, unless they carry the visitor's "
                    "page, user agent or device.")  # fmt: skip


class Visit(msgspec.Struct, array_like=True, gc=False):
    """One visit. `start_id` is the message id of its earliest event, which says how she came."""

    start_ms: int
    start_id: str
    end_ms: int
    events: int
    pages: int
    source: str
    medium: str
    campaign: str
    referrer: str
    landing: str


class Older(msgspec.Struct, array_like=True, gc=False):
    """Totals of the visits that are not kept one by one any more."""

    visits: int = 0
    lasted_ms: int = 0
    touches: dict[str, int] = {}


class VisitsState(msgspec.Struct, array_like=True, gc=False):
    """All visits of a part.

    Attributes:
        visits: by start; between two of them there is always the silence that parts visits.
        older: those before.
        floor_ms: an event before this time is late, because there were too many visits to keep.
        late: how many were late; they made no visit.
        first: the earliest event there ever was, as a visit of its own.
    """

    visits: list[Visit] = []
    older: Older = msgspec.field(default_factory=Older)
    events: int = 0
    pages: int = 0
    floor_ms: int | None = None
    late: int = 0
    first: Visit | None = None


class VisitRow(msgspec.Struct, gc=False):
    """One row of table `visits`.

    Attributes:
        started_at, ended_at: time of its first and of its last event.
        seconds: from the first to the last event.
        events: how many events of the visit.
        pages: how many of them page and screen calls.
        source: utm source, referring host, or (direct).
        medium: utm medium, organic, social, referral, or empty.
        campaign: utm campaign.
        referrer: address it came from, without query.
        landing: address of its first event, without query.
    """

    started_at: datetime
    ended_at: datetime
    seconds: int = 0
    events: int = 0
    pages: int = 0
    source: str = ""
    medium: str = ""
    campaign: str = ""
    referrer: str = ""
    landing: str = ""


class Visits(Processor[VisitsState]):
    """A visit is a run of events with less than the silence between them, in the events' own time.

    An event that comes late may lengthen a visit, start it earlier, or bridge two into one; the row of a visit that
    is no more is deleted. What a visit came from is what its earliest event says. Merged persons: the visits of both,
    where they overlap as one.

    An event is presence where it is a page or screen call, or carries a page, user agent or device, or is a track
    call that does not come from a server library.
    """

    name = "visits"
    version = 1
    about = "Visits by 30 minutes of silence, with source, medium, campaign and landing page."
    after = ("profile",)
    State = VisitsState
    Settings = VisitsSettings
    limits = {  # noqa: RUF012
        "`keep_days` before the newest event": "visits before are kept as totals; an event before is counted in "
        "`late`, `events` and `pages`, and makes or lengthens no visit. Two parts of a person that visited at the same "
        "time, both longer ago than this, count as two visits",
        "`keep_visits` visits": "the newest; older ones are kept as totals, and events before them are late",
        f"{MOST_TOUCHES} sources": "with medium and campaign; a fixed lot decides, the rest is in `visits` only",
    }
    tables = (Table("visits", VisitRow, ("started_at",), "One row per visit of a person key, by its start."),)
    cases = (
        {
            "case": "thirty minutes of silence end a visit",
            "events": [
                {"at": "2024-03-01 10:00", "type": "page"},
                {"at": "2024-03-01 10:30", "type": "page"},
                {"at": "2024-03-01 11:00:01", "type": "page"},
            ],
            "shows": {"visits": 2, "pages": 3, "first_at": "2024-03-01T10:00:00.000Z"},
        },
        {
            "case": "an event that comes late bridges two visits into one, and the row of the second is deleted",
            "events": [
                {"at": "2024-03-01 10:00", "type": "page"},
                {"at": "2024-03-01 10:50", "type": "page"},
                {"at": "2024-03-01 10:25", "event": "Product Viewed"},
            ],
            "shows": {"visits": 1, "events": 3},
            "rows": {"visits": [{"started_at": "2024-03-01T10:00:00Z", "seconds": 3000, "pages": 2}]},
        },
        {
            "case": "the earliest event says where the visit came from",
            "events": [
                {"at": "2024-03-01 10:10", "type": "page", "context": {"page": {"url": "https://shop.test/cart"}}},
                {"at": "2024-03-01 10:00", "type": "page",
                 "context": {"page": {"url": "https://shop.test/?utm_source=News&utm_medium=email&utm_campaign=Spring"}}},
            ],
            "shows": {"sources": [{"source": "news", "medium": "email", "campaign": "Spring", "visits": 1}]},
            "rows": {"visits": [{"landing": "shop.test/", "source": "news", "pages": 2}]},
        },
        {
            "case": "what a server sends is no visit, unless it says on whose behalf",
            "events": [
                {"at": "2024-03-01", "event": "Order Shipped", "context": {"library": {"name": "analytics-python"}}},
                {"at": "2024-03-02", "event": "Order Completed",
                 "context": {"library": {"name": "analytics-python"}, "userAgent": "Mozilla/5.0"}},
            ],
            "shows": {"visits": 1, "events": 1},
        },
        {
            "case": "an event more than two years behind the newest is counted as late",
            "events": [{"at": "2024-03-31", "type": "page"}, {"at": "2022-02-28", "type": "page"}],
            "shows": {"visits": 1, "late": 1, "events": 2},
        },
    )  # fmt: skip

    def __init__(self, settings: BaseModel | None = None) -> None:
        super().__init__(settings)
        self._silence_ms: int = self.settings.silence_minutes * MINUTE_MS
        self.exact_for_ms = self._keep_ms = self.settings.keep_days * DAY_MS
        self._most = self.settings.keep_visits
        self._servers = frozenset(name.lower() for name in self.settings.server_libraries)

    def apply(self, state: VisitsState, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        pages = 1 if event.type in ("page", "screen") else 0
        if not pages and not self._is_presence(event):
            return ()
        at_ms = event.at_ms
        state.events += 1
        state.pages += pages
        visits = state.visits
        if visits:
            visit = visits[-1]
            if visit.start_ms < at_ms <= visit.end_ms + self._silence_ms:  # nearly every event
                if at_ms > visit.end_ms:
                    visit.end_ms = at_ms
                visit.events += 1
                visit.pages += pages
                return (Row(_row(visit)),)
        return self._elsewhere(state, event, pages)

    def _is_presence(self, event: Event) -> bool:
        if event.source == SOURCE:
            return False  # she read a mail or left a topic: not the shop, though it came from a browser
        facts = facts_of(event)
        if facts.page is not None or facts.user_agent or facts.device is not None:
            return True
        return event.type == "track" and (facts.library is None or facts.library.name.lower() not in self._servers)

    def _elsewhere(self, state: VisitsState, event: Event, pages: int) -> Iterable[Effect]:
        """An event that opens a visit, or comes late."""
        at_ms = event.at_ms
        touch = touch_of(event, facts_of(event))
        visit = Visit(at_ms, event.message_id, at_ms, 1, pages, *touch)
        if state.first is None or _start(visit) < _start(state.first):
            state.first = Visit(at_ms, event.message_id, at_ms, 1, pages, *touch)
        visits = state.visits
        if at_ms < self._floor(state):
            state.late += 1
            return ()
        place = bisect_right(visits, at_ms, key=lambda visit: visit.start_ms)
        joined = [near for near in visits[max(place - 1, 0) : place + 1] if self._is_near(near, visit)]
        for near in joined:
            visit = _one(visit, near)
            visits.remove(near)
        visits.insert(bisect_right(visits, visit.start_ms, key=lambda visit: visit.start_ms), visit)
        self._settle(state)
        gone = (Row(_key(near), is_deleted=True) for near in joined if near.start_ms != visit.start_ms)
        return (*gone, Row(_row(visit)))

    def _is_near(self, one: Visit, other: Visit) -> bool:
        silence_ms = max(one.start_ms, other.start_ms) - min(one.end_ms, other.end_ms)
        return silence_ms <= self._silence_ms

    def _floor(self, state: VisitsState) -> int:
        """The time before which an event is late."""
        floors = [] if state.floor_ms is None else [state.floor_ms]
        if state.visits:  # the last one holds the newest event
            floors.append(state.visits[-1].end_ms - self._keep_ms)
        return max(floors, default=_EVER)

    def _settle(self, state: VisitsState) -> None:
        """Add to the totals what is too old or too much. An event that is not late never touches what is added here."""
        visits, older = state.visits, state.older
        floor = self._floor(state)
        while len(visits) > self._most or visits[0].end_ms + self._silence_ms < floor:
            is_too_much = len(visits) > self._most
            visit = visits.pop(0)
            older.visits += 1
            older.lasted_ms += visit.end_ms - visit.start_ms
            _count(older.touches, visit)
            if is_too_much:
                state.floor_ms = floor = max(floor, visit.end_ms + self._silence_ms + 1)

    def merge(self, one: VisitsState, other: VisitsState) -> VisitsState:
        if not one.events or not other.events:
            return one if one.events else other
        # Nothing is added to the totals here: so three parts give the same whichever two are merged first.
        visits: list[Visit] = []
        for visit in sorted((*one.visits, *other.visits), key=_start):
            if visits and self._is_near(visits[-1], visit):
                visits[-1] = _one(visits[-1], visit)
            else:
                visits.append(visit)
        touches = dict(one.older.touches)
        for touch, count in other.older.touches.items():
            touches[touch] = touches.get(touch, 0) + count
        floors = [floor for floor in (one.floor_ms, other.floor_ms) if floor is not None]
        return VisitsState(
            visits=visits,
            older=Older(one.older.visits + other.older.visits, one.older.lasted_ms + other.older.lasted_ms,
                        {touch: touches[touch] for touch in cut(touches, MOST_TOUCHES)}),
            events=one.events + other.events, pages=one.pages + other.pages,
            floor_ms=max(floors, default=None), late=one.late + other.late,
            first=min((first for first in (one.first, other.first) if first is not None), key=_start, default=None),
        )  # fmt: skip

    def attribute(self, name: str, states: Sequence[VisitsState]) -> Any:
        if name not in ("visits", "last_at"):
            return super().attribute(name, states)
        seen = [state for state in states if state.events]
        if len(seen) == 1:
            visits = seen[0].visits
            count, last_ms = len(visits), visits[-1].end_ms if visits else None
        else:
            count, last_ms = self._together(seen)
        if name == "last_at":
            return None if last_ms is None else to_iso(last_ms)
        return count + sum(state.older.visits for state in seen)

    def _together(self, states: Sequence[VisitsState]) -> tuple[int, int | None]:
        """How many visits there are in all, overlapping ones as one, and when the last ended; see `merge`."""
        count, end_ms = 0, _EVER
        for start_ms, until_ms in sorted([(visit.start_ms, visit.end_ms) for each in states for visit in each.visits]):
            if count and start_ms - min(end_ms, until_ms) <= self._silence_ms:
                end_ms = max(end_ms, until_ms)
            else:
                count, end_ms = count + 1, until_ms
        return count, end_ms if count else None

    def show(self, state: VisitsState) -> dict[str, Any]:
        touches = dict(state.older.touches)
        for visit in state.visits:
            touch = _touch(visit)
            touches[touch] = touches.get(touch, 0) + 1
        kept = {touch: touches[touch] for touch in cut(touches, MOST_TOUCHES)}
        most = sorted(kept.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_TOUCHES]
        floor = self._floor(state)
        recent = [visit for visit in state.visits[-SHOWN_VISITS:] if visit.end_ms + self._silence_ms >= floor]
        lasted_ms = state.older.lasted_ms + sum(visit.end_ms - visit.start_ms for visit in state.visits)
        return {
            "visits": len(state.visits) + state.older.visits,
            "events": state.events,
            "pages": state.pages,
            "seconds": lasted_ms // 1000,
            "first_at": to_iso(state.first.start_ms) if state.first else None,
            "last_at": to_iso(state.visits[-1].end_ms) if state.visits else None,
            "first": _shown(state.first) if state.first else None,
            "recent": [_shown(visit) | {"events": visit.events, "pages": visit.pages, "until": to_iso(visit.end_ms)}
                       for visit in reversed(recent)],
            "sources": [dict(zip(("source", "medium", "campaign"), touch.split("\t"), strict=True), visits=count)
                        for touch, count in most],
            "late": state.late,
        }  # fmt: skip


def _start(visit: Visit) -> tuple[int, str]:
    return visit.start_ms, visit.start_id


def _one(one: Visit, other: Visit) -> Visit:
    """Two visits as one: the earlier says how it began."""
    first, second = sorted((one, other), key=_start)
    return msgspec.structs.replace(
        first, end_ms=max(first.end_ms, second.end_ms), events=first.events + second.events,
        pages=first.pages + second.pages,
    )  # fmt: skip


_moment = lru_cache(maxsize=4096)(from_ms)  # the start of a visit is asked for at each of its events


def _row(visit: Visit) -> VisitRow:
    start_ms, end_ms = visit.start_ms, visit.end_ms
    return VisitRow(
        _moment(start_ms), from_ms(end_ms), (end_ms - start_ms) // 1000, visit.events, visit.pages, visit.source,
        visit.medium, visit.campaign, visit.referrer, visit.landing,
    )  # fmt: skip


def _key(visit: Visit) -> VisitRow:
    start = from_ms(visit.start_ms)
    return VisitRow(start, start)


def _touch(visit: Visit) -> str:
    return "\t".join(text.replace("\t", " ") for text in (visit.source, visit.medium, visit.campaign))


def _count(touches: dict[str, int], visit: Visit) -> None:
    touch = _touch(visit)
    if touch in touches or admit(touches, touch, MOST_TOUCHES):
        touches[touch] = touches.get(touch, 0) + 1


def _shown(visit: Visit) -> dict[str, Any]:
    return {"at": to_iso(visit.start_ms), **Touch(visit.source, visit.medium, visit.campaign, visit.referrer,
                                                  visit.landing)._asdict()}  # fmt: skip
