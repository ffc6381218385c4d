"""Values that a condition asks about: how they are found in what was sent, and what the tests say of them.

`docs/segments.md` is the specification. `sinks/conditions.py` says the same in SQL; `tests/segments` holds both to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from schemas.conditions import Duration, Op, Test
from schemas.times import from_ms, to_ms

LONGEST_TEXT = 1_000  # characters of a text that are looked at
MOST_IN_LIST = 20  # values of a list that are looked at

Scalar = bool | int | float | str
Passes = Callable[[Scalar], bool]
NEVER_MS = 2**62  # later than any time

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = re.compile(
    rf"((?:19|20|21)[0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}})"
    rf"(?:[T ]({_CLOCK})(?::([0-5][0-9])(?:\.([0-9]{{3}})[0-9]*)?)?(Z|[+-]{_CLOCK})?)?"
)
_OURS = re.compile(r"(?:19|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")  # as it is shown
_USUAL_TIME = 40  # characters; the fraction of a second may have any number of digits

# --- finding


def found(value: Any, path: Sequence[str]) -> list[Scalar]:
    """The texts, numbers and truths that stand at a path: of a list on the way every one, if it holds objects only.

    >>> found({"products": [{"id": 1}, {"id": 2}]}, ["products", "id"])
    [1, 2]
    """
    for place, step in enumerate(path):
        if value.__class__ is dict or isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            return _in_list(_walk(each, path[place:]) for each in value)
        else:
            return []
    if value.__class__ is str:
        return [value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT]]
    if isinstance(value, list):
        return _in_list(value)
    return [_cut(value)] if isinstance(value, str | int | float) else []


def _walk(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _in_list(values: Iterable[Any]) -> list[Scalar]:
    scalars = [_cut(value) for value in values if isinstance(value, str | int | float)]
    return scalars[:MOST_IN_LIST]


def _cut(value: Scalar) -> Scalar:
    return value[:LONGEST_TEXT] if isinstance(value, str) else value


# --- days and times


class Zone:
    """The time zone in which days begin."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._zone = ZoneInfo(name)
        self._midnight = lru_cache(4096)(self._midnight_of)
        self._read = lru_cache(16_384)(self._read_ms)  # the same times are asked for again and again

    def midnight_ms(self, day: date) -> int:
        """When a day begins: the first moment at which the clocks show it."""
        return self._midnight(day)

    def _midnight_of(self, day: date) -> int:
        # Where clocks are put forward at midnight there is no 00:00: the moment before is asked for its offset.
        return to_ms(datetime(day.year, day.month, day.day, tzinfo=self._zone))

    def day_of(self, at_ms: int) -> date:
        return from_ms(at_ms).astimezone(self._zone).date()

    def days_before_ms(self, now_ms: int, days: int) -> int:
        """When the first of the last so many days began; today is the last of them."""
        return self.midnight_ms(self.day_of(now_ms) - timedelta(days=days - 1))

    def leaves_ms(self, at_ms: int, days: int) -> int:
        """When a moment is no longer in the last so many days."""
        return self.midnight_ms(self.day_of(at_ms) + timedelta(days=days))

    def read_ms(self, value: Scalar) -> int | None:
        """The moment that a text means: a date, or date and time; in this zone where it names none. None: it is none.

        >>> Zone("UTC").read_ms("1970-01-02T00:00:00Z")
        86400000
        """
        if not isinstance(value, str):
            return None
        return self._read(value) if len(value) <= _USUAL_TIME else self._read_ms(value)

    def _read_ms(self, value: str) -> int | None:
        if _OURS.fullmatch(value):
            try:
                return to_ms(datetime.fromisoformat(value))
            except ValueError:
                return None
        match = _TIME.fullmatch(value)
        if match is None:
            return None
        day, minutes, seconds, fraction, offset = match.groups()
        try:
            at = datetime.fromisoformat(f"{day}T{minutes or '00:00'}:{seconds or '00'}.{fraction or '000'}")
        except ValueError:
            return None
        if offset is None:
            return to_ms(at.replace(tzinfo=self._zone))
        return to_ms(at.replace(tzinfo=_fixed(offset)))


def _fixed(offset: str) -> timezone:
    if offset == "Z":
        return timezone(timedelta())
    minutes = int(offset[1:3]) * 60 + int(offset[4:6])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


@lru_cache(64)
def zone_named(name: str) -> Zone:
    return Zone(name)


class Window:
    """The last so long: from when on a moment is in it, and until when it stays.

    Attributes:
        ms: how long; 0 of days of the calendar, which are not all alike.
    """

    def __init__(self, duration: Duration, zone: Zone) -> None:
        self.ms = 0 if duration.is_calendar else duration.ms
        self._days = duration.count
        self._zone = zone

    def holds(self, at_ms: int, now_ms: int) -> bool:
        if self.ms:
            return at_ms > now_ms - self.ms
        return at_ms >= self._zone.days_before_ms(now_ms, self._days)

    def leaves_ms(self, at_ms: int) -> int:
        """When a moment that is in it is in it no longer."""
        return at_ms + self.ms if self.ms else self._zone.leaves_ms(at_ms, self._days)


# --- tests


def number_of(value: Scalar) -> float | None:
    """The number that a value is, or that its text says; None: it is none."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def passes(test: Test, zone: Zone) -> Passes:
    """What a test that time does not change says of one value, before `is_not` and the like turn it round."""
    op, value, _ = test.asked
    return _MAKERS[op](value, zone)


def _is(value: Scalar, zone: Zone) -> Passes:
    if isinstance(value, bool):
        return lambda found: found is value
    if isinstance(value, str):
        return lambda found: found == value and isinstance(found, str)
    number = float(value)
    return lambda found: number_of(found) == number


def _one_of(values: Sequence[Scalar], zone: Zone) -> Passes:
    texts = frozenset(value for value in values if isinstance(value, str))
    numbers = frozenset(float(value) for value in values if not isinstance(value, bool | str))
    truths = frozenset(value for value in values if isinstance(value, bool))

    def passes(found: Scalar) -> bool:
        if isinstance(found, bool):
            return found in truths
        if isinstance(found, str) and found in texts:
            return True
        return bool(numbers) and number_of(found) in numbers

    return passes


def lowered(text: str) -> str:
    """In lower case. A sigma is one letter, wherever in a word it stands."""
    return text.lower().replace("ς", "σ")


def _text_test(holds: Callable[[str, str], bool]) -> Callable[[str, Zone], Passes]:
    def make(value: str, zone: Zone) -> Passes:
        wanted = lowered(value)
        return lambda found: isinstance(found, str) and holds(lowered(found), wanted)

    return make


def _number_test(holds: Callable[[float, Any], bool]) -> Callable[[Any, Zone], Passes]:
    def make(value: Any, zone: Zone) -> Passes:
        def passes(found: Scalar) -> bool:
            number = number_of(found)
            return number is not None and holds(number, value)

        return passes

    return make


def _time_test(holds: Callable[[int, int], bool]) -> Callable[[date, Zone], Passes]:
    def make(value: date, zone: Zone) -> Passes:
        limit_ms = zone.midnight_ms(value)

        def passes(found: Scalar) -> bool:
            at_ms = zone.read_ms(found)
            return at_ms is not None and holds(at_ms, limit_ms)

        return passes

    return make


_MAKERS: dict[Op, Callable[[Any, Zone], Passes]] = {
    Op.IS: _is,
    Op.ONE_OF: _one_of,
    Op.EXISTS: lambda value, zone: lambda found: True,
    Op.CONTAINS: _text_test(lambda text, wanted: wanted in text),
    Op.STARTS_WITH: _text_test(str.startswith),
    Op.ENDS_WITH: _text_test(str.endswith),
    Op.AT_LEAST: _number_test(lambda number, value: number >= value),
    Op.AT_MOST: _number_test(lambda number, value: number <= value),
    Op.MORE_THAN: _number_test(lambda number, value: number > value),
    Op.LESS_THAN: _number_test(lambda number, value: number < value),
    Op.BETWEEN: _number_test(lambda number, value: value[0] <= number <= value[1]),
    Op.BEFORE: _time_test(lambda at_ms, limit_ms: at_ms < limit_ms),
    Op.SINCE: _time_test(lambda at_ms, limit_ms: at_ms >= limit_ms),
}

