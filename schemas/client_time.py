"""Times as clients write them. One that cannot be used never costs the event: a flag says so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from schemas.times import EPOCH

LATEST_PLAUSIBLE = datetime(2200, 1, 1, tzinfo=UTC)  # a clock beyond it is not merely fast


def read_time(value: object, flags: list[str]) -> datetime | None:
    """A client's time in UTC, or None with a flag: ISO 8601, near misses of it, or a number since 1970.

    >>> read_time("2015-2-02T00:30:12Z", [])  # stands so in Segment's own documentation
    datetime.datetime(2015, 2, 2, 0, 30, 12, tzinfo=datetime.timezone.utc)
    """
    try:
        is_iso = type(value) is str and value[4:5] == "-"
        moment = datetime.fromisoformat(value) if is_iso else _odd_time(value, flags)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        try:
            moment = _almost_iso(value)
        except (ValueError, OverflowError):
            flags.append("timestamp_unreadable")
            return None
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            flags.append("timestamp_without_zone")
            moment = moment.replace(tzinfo=UTC)
        else:
            try:
                moment = moment.astimezone(UTC)
            except OverflowError:  # the very first and last hours of the calendar
                moment = datetime.min.replace(tzinfo=UTC)
    if not EPOCH < moment < LATEST_PLAUSIBLE:
        flags.append("timestamp_implausible")
        return None
    return moment


def read_sent_at(value: object, flags: list[str]) -> datetime | None:
    """sentAt of an event, a batch or a header; None where there is none, and flagged where it cannot be used."""
    if value is None or value == "":
        return None
    oddities: list[str] = []
    moment = read_time(value, oddities)
    if moment is None:
        flags.append("sent_at_unreadable")
    return moment


_MILLISECONDS_FROM = 100_000_000_000  # seconds until the year 5138, milliseconds since 1973
_ALMOST_ISO = re.compile(
    r"\s*(\d{4})[-/](\d{1,2})[-/](\d{1,2})[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?"
    r"\s*(?:(Z|UTC|GMT)|([+-])(\d{2}):?(\d{2}))?\s*",
    re.ASCII | re.IGNORECASE,
)


def _odd_time(value: object, flags: list[str]) -> datetime:
    number: float
    if type(value) is int or type(value) is float:
        number = value
    elif type(value) is str and value.isascii() and value.isdigit() and len(value) in (10, 13):
        number = int(value)
    elif type(value) is str:
        return datetime.fromisoformat(value)
    else:
        raise ValueError("neither text nor a number")
    moment = EPOCH + timedelta(seconds=number if abs(number) < _MILLISECONDS_FROM else number / 1000)
    flags.append("timestamp_as_number")
    return moment


def _almost_iso(value: object) -> datetime:
    """One-digit months and days, slashes, a leap second, blanks."""
    match = _ALMOST_ISO.fullmatch(value) if type(value) is str and len(value) < 50 else None
    if match is None:
        raise ValueError("not a time")
    year, month, day, hour, minute, second, fraction, _, sign, zone_hour, zone_minute = match.groups()
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    if second == "60":  # datetime knows no leap second
        second, micros = "59", 999_999
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micros, UTC)
    if sign:
        if int(zone_hour) > 18 or int(zone_minute) > 59:
            raise ValueError("no such zone")
        offset = timedelta(hours=int(zone_hour), minutes=int(zone_minute))
        moment = moment - offset if sign == "+" else moment + offset
    return moment
