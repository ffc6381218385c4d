"""When something is due by the clocks and calendars of people: pure functions of the time, in ms since 1970.

Zones are named as IANA has them, or `GMT+08:00`, as `processors.profile.zone_of` gives them. A name that cannot be read
is taken for UTC: ask `local_zone_of` first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import count
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from processors.lunar import FIRST_YEAR, LAST_YEAR, day_of, lunar_of
from schemas.journeys import DAYS, Calendar
from schemas.times import DAY_MS, MINUTE_MS, SECOND_MS, to_ms

_LONGEST = 40  # characters of a day
_DAY_MINUTES = DAY_MS // MINUTE_MS
_OFFSET = re.compile(r"GMT([+-])([0-9]{2}):([0-9]{2})\Z")
_WRITTEN = re.compile(r"(?:([0-9]{4})-|--)?([0-9]{2})-([0-9]{2})(?:[T ](.*))?\Z", re.DOTALL)
_MIDNIGHT = re.compile(r"00:00(?::00(?:\.0+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?\Z")
_HAS_OFFSET = re.compile(r".*(?:Z|[+-][0-9]{2}:?[0-9]{2})\Z", re.DOTALL)

# --- zones


@lru_cache(4096)
def _read_zone(name: str) -> tzinfo | None:
    offset = _OFFSET.match(name)
    if offset is not None:
        minutes = int(offset[2]) * 60 + int(offset[3])
        if minutes >= _DAY_MINUTES:
            return None
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a name such as `America` is a folder
        return None


@lru_cache(4096)
def _zone(name: str) -> tzinfo:
    return _read_zone(name) or UTC


def local_zone_of(profile_zone: str, workspace_zone: str) -> str:
    """Whose clock counts for somebody: her own zone where it can be read, else that of the workspace.

    >>> local_zone_of("America/New_York", "Europe/Vienna"), local_zone_of("Mars/Olympus", "Europe/Vienna")
    ('America/New_York', 'Europe/Vienna')
    """
    return profile_zone if profile_zone and _read_zone(profile_zone) is not None else workspace_zone


def day_at(now_ms: int, zone: str) -> date:
    """The day that it is there."""
    return _local(now_ms, _zone(zone)).date()


def _local(at_ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at_ms // SECOND_MS, zone)


def _minute(at: str) -> int:
    return int(at[:2]) * 60 + int(at[3:])


@lru_cache(65_536)  # many wait for the same minute of the same day
def _moment(zone: str, ordinal: int, minute: int) -> int:
    """The first moment at which the clocks there show that time of that day, or a later one."""
    there = _zone(zone)
    hours, minutes = divmod(minute, 60)
    day = date.fromordinal(ordinal)
    shown = datetime(day.year, day.month, day.day, hours, minutes, tzinfo=there)  # where shown twice: the first
    at_ms = to_ms(shown)
    if shown.astimezone(UTC).astimezone(there).replace(tzinfo=None) == shown.replace(tzinfo=None):
        return at_ms
    return _turn(there, to_ms(shown.replace(fold=1)), at_ms)  # put forward over it


def _turn(zone: tzinfo, before_ms: int, after_ms: int) -> int:
    """When clocks were put forward or back between two moments that differ in their offset."""
    low, high = before_ms // SECOND_MS, after_ms // SECOND_MS
    offset = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high * SECOND_MS


# --- times of day


def next_clock(now_ms: int, at: str, on: Sequence[str] = (), zone: str = "UTC") -> int:
    """When clocks there next show a time of day, on one of these weekdays where any are said; this very moment counts.

    Where clocks are put forward over that time, the first moment after; where they are put back, the first of both.

    >>> next_clock(0, "09:00", ("fri",), "Europe/Vienna") - DAY_MS  # 1970 began on a Thursday
    28800000
    """
    minute = _minute(at)
    today = _local(now_ms, _zone(zone)).toordinal()
    for ordinal in count(today - 1):  # yesterday's may be now, where clocks were put forward over midnight
        if not on or DAYS[(ordinal - 1) % 7] in on:
            at_ms = _moment(zone, ordinal, minute)
            if at_ms >= now_ms:
                return at_ms
    raise AssertionError("days have no end")


def quiet_until(now_ms: int, from_: str, to: str, zone: str) -> int:
    """When the quiet hours end that it is in now, by the clocks there; 0: it is in none.

    They may pass midnight. They are those minutes that clocks show, so where these are put back in them, the hour that
    comes twice is quiet twice; from a time to the same time there are none.

    >>> quiet_until(0, "22:00", "08:00", "UTC") == 8 * 60 * MINUTE_MS, quiet_until(0, "01:00", "08:00", "UTC")
    (True, 0)
    """
    there, begin, end = _zone(zone), _minute(from_), _minute(to)
    local = _local(now_ms, there)
    shown = local.hour * 60 + local.minute
    if (shown - begin) % _DAY_MINUTES >= (end - begin) % _DAY_MINUTES:
        return 0
    until_ms = (now_ms // SECOND_MS + (end - shown) % _DAY_MINUTES * 60 - local.second) * SECOND_MS
    if _local(until_ms, there).utcoffset() == local.utcoffset():
        return until_ms
    turn_ms = _turn(there, now_ms, until_ms)
    return quiet_until(turn_ms, from_, to, zone) or turn_ms


# --- days that traits say


class _Said(NamedTuple):
    """A day that a trait says.

    Attributes:
        once: its ordinal; None where no year is said.
        month, day: of each year, of the calendar that is meant.
    """

    once: int | None
    month: int
    day: int
    is_lunar: bool = False
    is_leap: bool = False

    def in_year(self, year: int) -> int:
        """Its ordinal in a year of its calendar."""
        if self.is_lunar:
            return day_of(year, self.month, self.day, self.is_leap).toordinal()
        return _solar(year, self.month, self.day)


def dated(
    value: object, *, calendar: Calendar, yearly: bool, days_before: int, at: str, zone: str, after_ms: int
) -> int | None:  # fmt: skip
    """The next moment, `after_ms` or later, of the day that a trait says; None where it is past or cannot be read.

    A day is written `1990-03-01`, with a time of day or without, or `03-01`; with `L` before it, of the Chinese
    calendar. The 29th of February is the 28th in common years. With calendar `lunar`, `03-01` is a day of that
    calendar, and of a day with a year that day of it is meant on which it was, as of somebody's birth;
    `processors.lunar.day_of` says when it is in years that have no such day. A year before 1901 or after 2199 counts
    as none. A time of day that names its offset and is not midnight is moved to `zone`, as browsers write a day that
    began there as an hour of the day before.

    Args:
        yearly: that day of each year, also of those before it; else that day alone, and one without a year is none.
        days_before: so many days earlier.
        at: the time of day, by the clocks in `zone`.
    """
    said = _read(value, calendar, zone)
    if said is None:
        return None
    minute = _minute(at)
    if not yearly:
        if said.once is None:
            return None
        at_ms = _moment(zone, said.once - days_before, minute)
        return at_ms if at_ms >= after_ms else None
    year = _local(after_ms, _zone(zone)).year
    # A lunar year ends in the year after, and what is asked for may be a year before the day.
    moments = (_moment(zone, said.in_year(each) - days_before, minute) for each in count(year - 1))
    return next(at_ms for at_ms in moments if at_ms >= after_ms)


def is_day(
    value: object, day: date, *, calendar: Calendar, yearly: bool, days_before: int = 0, zone: str = "UTC"
) -> bool:
    """Whether a day is so many days before that which a trait says, read as `dated` reads it.

    >>> is_day("2000-02-29", date(2023, 2, 28), calendar="solar", yearly=True)
    True
    """
    said = _read(value, calendar, zone)
    if said is None:
        return False
    wanted = day + timedelta(days=days_before)
    if not yearly:
        return said.once == wanted.toordinal()
    return said.in_year(lunar_of(wanted).year if said.is_lunar else wanted.year) == wanted.toordinal()


def _read(value: object, calendar: Calendar, zone: str) -> _Said | None:
    return _read_text(value.strip(), calendar, zone) if isinstance(value, str) and len(value) <= _LONGEST else None


@lru_cache(32_768)  # birthdays of many are the same day
def _read_text(text: str, calendar: Calendar, zone: str) -> _Said | None:
    is_lunar = text.startswith("L")
    match = _WRITTEN.match(text.removeprefix("L"))
    if match is None:
        return None
    year, month, day = int(match[1] or 0), int(match[2]), int(match[3])
    if is_lunar or (calendar == "lunar" and not year):
        if not (1 <= month <= 12 and 1 <= day <= 30) or (year and not FIRST_YEAR <= year <= LAST_YEAR):
            return None
        return _Said(day_of(year, month, day).toordinal() if year else None, month, day, is_lunar=True)
    try:
        ordinal = _solar(year or 2000, month, day)
    except ValueError:
        return None
    there = _day_there(match[0], match[4], zone) if year else None
    if there is not None:
        ordinal, year, month, day = there.toordinal(), there.year, there.month, there.day
    has_year = FIRST_YEAR < year <= LAST_YEAR  # another stands for none: some programs write 1604 where it is not known
    if calendar == "solar":
        return _Said(ordinal if has_year else None, month, day)
    if not has_year:
        return None
    lunar = lunar_of(date.fromordinal(ordinal))
    return _Said(ordinal, lunar.month, lunar.day, is_lunar=True, is_leap=lunar.is_leap)


def _day_there(text: str, time: str | None, zone: str) -> date | None:
    """The day in `zone` of a time that names its offset and is not midnight; None: as it is written."""
    if not time or _MIDNIGHT.match(time) or not _HAS_OFFSET.match(time):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(_zone(zone)).date()
    except (ValueError, OverflowError):  # a time of day that is none, or the 29th of February of a common year
        return None


def _solar(year: int, month: int, day: int) -> int:
    if month == 2 and day == 29:
        return date(year, 3, 1).toordinal() - 1
    return date(year, month, day).toordinal()


# --- cron


_CRON_FIELDS = {  # as `cronsim` names them, and we do
    "minute": ("minute", "0 to 59"),
    "hour": ("hour", "0 to 23"),
    "day-of-month": ("day", "1 to 31, as far as these months go, or L for the last"),
    "month": ("month", "1 to 12, or JAN to DEC"),
    "day-of-week": ("weekday", "0 to 7, where both are Sunday, or SUN to SAT"),
}


@lru_cache(1024)
def check_cron(cron: str) -> None:
    """See that it can be read, and is ever due.

    Raises:
        ValueError: it is not; says which field, what stands there and what may.
    """
    from cronsim import CronSim, CronSimError

    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(f"{cron!r} has {len(fields)} fields: write five, minute, hour, day, month and weekday, "
                         "such as 0 9 * * MON")  # fmt: skip
    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        wrong = str(error).removeprefix("Bad ")
        name, may = _CRON_FIELDS[wrong]
        raise ValueError(f"{cron!r}: {name} is {fields[list(_CRON_FIELDS).index(wrong)]!r}; write {may}, or several "
                         "as 1,3 or 1-5 or */2") from None  # fmt: skip
    except StopIteration:
        raise ValueError(f"{cron!r}: there is no such day in 50 years") from None


def next_of_cron(cron: str, zone: str, after_ms: int) -> int:
    """The first moment later than `after_ms` that a cron line means, by the clocks there.

    A line with given hours and minutes, as `30 2 * * *`, is due once a day as with Debian's cron: where clocks are put
    forward over it at the first minute after, where they are put back at the first of both. One whose minute or hour
    begins with `*`, as `0 * * * *`, is due whenever clocks show it: an hour left out is left out, one that comes twice
    counts twice. Where clocks are turned by half an hour, as on Lord Howe, `cronsim` may miss times in the hours after.

    Raises:
        ValueError: `check_cron` says why.
    """
    from cronsim import CronSim

    check_cron(cron)
    moments = CronSim(cron, _local(after_ms, _zone(zone)))
    # In the hour that comes twice `cronsim` names moments of its first time, which are past in the second.
    return next(at_ms for at_ms in map(to_ms, moments) if at_ms > after_ms)
