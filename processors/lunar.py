"""The Chinese calendar: which of its days a day is, and when one of its days is in a year.

Months are counted from 1; a leap month has the number of the one before: 闰二月 is month 2 with `is_leap`. A year
begins with the spring festival and has the number of the year in which that is. `lunar_python` computes new moons and
solar terms, at Beijing.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import date
from functools import lru_cache
from typing import NamedTuple

FIRST_YEAR, LAST_YEAR = 1900, 2199
_BEFORE_ORDINALS = 1_721_425  # Julian day number of the day before that with ordinal 1


class LunarDay(NamedTuple):
    year: int
    month: int
    day: int
    is_leap: bool = False


class _Month(NamedTuple):
    first: int  # ordinal of its first day
    month: int
    is_leap: bool
    days: int


def lunar_of(day: date) -> LunarDay:
    """The day as the Chinese calendar names it.

    >>> lunar_of(date(2023, 9, 29))
    LunarDay(year=2023, month=8, day=15, is_leap=False)

    Raises:
        ValueError: it is before 1900-02-01, or after 2199.
    """
    ordinal = day.toordinal()
    if not FIRST_YEAR <= day.year <= LAST_YEAR or ordinal < _months(FIRST_YEAR)[0].first:
        raise ValueError(f"{day} is not between {FIRST_YEAR} and {LAST_YEAR}")
    year = day.year if ordinal >= _months(day.year)[0].first else day.year - 1
    months = _months(year)
    month = months[bisect_right(months, ordinal, key=lambda each: each.first) - 1]
    return LunarDay(year, month.month, ordinal - month.first + 1, month.is_leap)


@lru_cache(16_384)
def day_of(year: int, month: int, day: int, is_leap: bool = False) -> date:
    """When that day is in that year of the calendar.

    In years without that leap month it is in the month of that number; the 30th of a month of 29 days is the 29th.

    >>> day_of(2024, 8, 15).isoformat(), day_of(2025, 6, 1, is_leap=True).isoformat()
    ('2024-09-17', '2025-07-25')
    """
    months = [each for each in _months(year) if each.month == month]
    found = months[-1] if is_leap else months[0]  # a leap month follows that of its number
    return date.fromordinal(found.first + min(day, found.days) - 1)


@lru_cache(512)
def _months(year: int) -> tuple[_Month, ...]:
    from lunar_python.LunarYear import LunarYear  # takes 50 ms

    return tuple(
        _Month(int(month.getFirstJulianDay()) - _BEFORE_ORDINALS, abs(month.getMonth()), month.isLeap(),
               month.getDayCount())
        for month in LunarYear(year).getMonths() if month.getYear() == year
    )  # fmt: skip
