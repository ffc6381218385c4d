"""Which time a page looks at, and in what steps."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

RangeName = Literal["24h", "7d", "30d", "12m", "all", "custom"]
StepName = Literal["hour", "6 hours", "day", "week", "month"]
RANGES: tuple[RangeName, ...] = ("24h", "7d", "30d", "12m", "all")
STEPS: tuple[StepName, ...] = get_args(StepName)


class Range(NamedTuple):
    """A stretch of time and the one before it.

    Attributes:
        start, end: in UTC; `end` is not part of it.
        before: start of the stretch of the same length before it; None where there is nothing to compare with.
        before_end: where that stretch ends: as far into it as now is into this one.
        step: width of one point of a chart.
        zone: name of the time zone that days begin in.
    """

    name: RangeName
    start: datetime
    end: datetime
    before: datetime | None
    before_end: datetime | None
    step: StepName
    zone: str

    @property
    def is_running(self) -> bool:
        """Whether it ends now, so that its last step is not over yet."""
        return self.name not in ("all", "custom")


def known_zone(name: str) -> str:
    """The name, if it is a time zone's; else `UTC`.

    >>> known_zone("Asia/Shanghai"), known_zone("../etc/passwd"), known_zone("")
    ('Asia/Shanghai', 'UTC', 'UTC')
    """
    try:
        return ZoneInfo(name).key if name else "UTC"
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"


def span_of(name: RangeName, now: datetime, zone: str) -> Range:
    """One of the ranges that end now. `24h` begins at a full hour, `7d` and `30d` at midnight, `12m` at a month."""
    midnight = now.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    step: StepName
    # Arithmetic on local times is by the clock on the wall: a day is a day, however many hours it has.
    if name == "24h":
        start = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
        before, step = start - timedelta(hours=24), "hour"
    elif name == "7d":
        start, before, step = midnight - timedelta(days=6), midnight - timedelta(days=13), "6 hours"
    elif name == "30d":
        start, before, step = midnight - timedelta(days=29), midnight - timedelta(days=59), "day"
    else:
        month = midnight.replace(day=1)
        start = (month.replace(year=month.year - 1) + timedelta(days=32)).replace(day=1)
        before, step = start.replace(year=start.year - 1), "week"
    start, before = start.astimezone(UTC), before.astimezone(UTC)
    end = now.astimezone(UTC) + timedelta(milliseconds=1)
    return Range(name, start, end, before, min(before + (end - start), start), step, zone)


def whole(first: datetime, last: datetime, zone: str) -> Range:
    """Everything there is, from the first event to the last."""
    start = first.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
    end = last.astimezone(UTC) + timedelta(milliseconds=1)
    return Range("all", start, end, None, None, _step_for(end - start), zone)


def between(first: date, last: date, zone: str) -> Range:
    """The days from `first` to `last`, both whole."""
    if last < first:
        first, last = last, first
    here = ZoneInfo(zone)
    start = datetime(first.year, first.month, first.day, tzinfo=here).astimezone(UTC)
    next_day = last + timedelta(days=1)
    end = datetime(next_day.year, next_day.month, next_day.day, tzinfo=here).astimezone(UTC)
    return Range("custom", start, end, start - (end - start), start, _step_for(end - start), zone)


def _step_for(length: timedelta) -> StepName:
    if length <= timedelta(days=2):
        return "hour"
    if length <= timedelta(days=8):
        return "6 hours"
    if length <= timedelta(days=100):
        return "day"
    if length <= timedelta(days=3 * 366):
        return "week"
    return "month"


def steps_of(span: Range, start: datetime, end: datetime) -> list[datetime]:
    """Where each step of a chart begins, in UTC: as ClickHouse's toStartOfInterval counts in the zone."""
    here = ZoneInfo(span.zone)
    at = floor_to(start, span.step, span.zone)
    found: list[datetime] = []
    while at < end and len(found) < 5_000:
        found.append(at)
        at = _next_step(at, span.step, here)
    return found


def floor_to(moment: datetime, step: StepName, zone: str) -> datetime:
    """The start of the step that the moment lies in, in UTC."""
    here = moment.astimezone(ZoneInfo(zone)).replace(minute=0, second=0, microsecond=0)
    if step == "hour":
        return here.astimezone(UTC)
    if step == "6 hours":
        return here.replace(hour=here.hour // 6 * 6).astimezone(UTC)
    here = here.replace(hour=0, fold=0)
    if step == "week":
        here = (here.replace(tzinfo=None) - timedelta(days=here.weekday())).replace(tzinfo=here.tzinfo)
    elif step == "month":
        here = here.replace(day=1)
    return here.astimezone(UTC)


def _next_step(at: datetime, step: StepName, zone: ZoneInfo) -> datetime:
    if step == "hour":
        return at + timedelta(hours=1)
    local = at.astimezone(zone).replace(tzinfo=None)
    if step == "6 hours":
        later = local + timedelta(hours=6)
        later = later.replace(hour=later.hour // 6 * 6)
    elif step == "day":
        later = local + timedelta(days=1)
    elif step == "week":
        later = local + timedelta(days=7)
    else:
        later = (local.replace(day=1) + timedelta(days=32)).replace(day=1)
    return later.replace(tzinfo=zone).astimezone(UTC)
