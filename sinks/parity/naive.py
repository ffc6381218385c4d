"""Who is in a segment, worked out the plain way: every event of a person looked at, for one moment. Slow and obvious.

It shares nothing with what it checks but the words of conditions: not how values are found, nor tested, nor how time
is reckoned. docs/segments.md is what it was written from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from schemas.event import Event

Said = dict[str, Any]  # a condition, as plain maps and lists


class Naive:
    """A person's answers.

    Args:
        events: hers, each once, in any order.
        others: the conditions of all segments, by name.
        sections: what processors show of her.
    """

    def __init__(
        self, events: Sequence[Event], others: Mapping[str, Said], now: datetime, zone: str,
        sections: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.events = sorted(events, key=_stamp)
        self.others, self.now, self.zone, self.sections = others, now, ZoneInfo(zone), sections

    def is_true(self, said: Said) -> bool:
        if "all" in said:
            return all(self.is_true(each) for each in said["all"])
        if "any" in said:
            return any(self.is_true(each) for each in said["any"])
        if "not" in said:
            return not self.is_true(said["not"])
        if "segment" in said:
            return said["segment"] in self.others and self.is_true(self.others[said["segment"]])
        if "sequence" in said:
            return any(self._counts(at, said) for at in self._ends(said["sequence"]))
        if "did" in said:
            return self._did(said)
        if "attribute" in said:
            return self._test(self._attribute(said["attribute"]), said)
        return self._test(self._word(said), said)

    # --- events

    def _those(self, said: Said) -> list[Event]:
        wheres = said.get("where", [])
        return [event for event in self.events if event.label == said["did"]
                and all(self._test(_property(event, where["property"]), where) for where in wheres)]  # fmt: skip

    def _did(self, said: Said) -> bool:
        those = self._those(said)
        if "which" in said:
            those = those[:1] if said["which"] == "first" else those[-1:]
        counted = [event for event in those if self._counts(event.timestamp, said)]
        if "total" in said:
            return self._total(those, said)
        if "at_most" in said:
            return len(counted) <= int(said["at_most"])
        if "exactly" in said:
            return len(counted) == int(said["exactly"])
        return len(counted) >= int(said.get("at_least", 1))

    def _total(self, those: list[Event], said: Said) -> bool:
        total = said["total"]
        amount = Decimal(0)
        for event in those[-1000:]:
            if self._counts(event.timestamp, said):
                for value in _property(event, total["of"]):
                    number = _number(value)
                    if number is not None and abs(number) <= 10**10:
                        amount += round(Decimal(float(number) * 10_000))
        if "at_least" in total:
            return amount >= round(float(total["at_least"]) * 10_000)
        return amount < round(float(total["less_than"]) * 10_000)

    def _counts(self, at: datetime, said: Said) -> bool:
        if "within" in said:
            return self._is_within(at, said["within"])
        if "longer_ago" in said:
            return not self._is_within(at, said["longer_ago"])
        if "since" in said:
            return at.astimezone(self.zone).date().isoformat() >= str(said["since"])
        return True

    def _is_within(self, at: datetime, duration: str) -> bool:
        count, _, unit = duration.partition(" ")
        if unit.startswith("calendar"):
            day, today = at.astimezone(self.zone).date(), self.now.astimezone(self.zone).date()
            return day > today - timedelta(days=int(count))
        return at > self.now - timedelta(**{unit.rstrip("s") + "s": int(count)})

    def _ends(self, steps: list[Said]) -> list[datetime]:
        found = []
        for end in self._those(steps[-1]):
            event: Event | None = end
            for earlier, step in zip(reversed(steps[:-1]), reversed(steps[1:]), strict=True):
                event = self._step_before(event, earlier, step) if event is not None else None
            if event is not None:
                found.append(end.timestamp)
        return found

    def _step_before(self, event: Event, earlier: Said, step: Said) -> Event | None:
        before = [other for other in self._those(earlier) if _stamp(other) < _stamp(event)]
        if not before:
            return None
        newest = before[-1]
        if "within" in step:
            count, unit = step["within"].split(" ", 1)
            if event.timestamp - newest.timestamp > timedelta(**{unit.rstrip("s") + "s": int(count)}):
                return None
        if "without" in step and any(
            _stamp(newest) < _stamp(other) < _stamp(event) for other in self._those(step["without"])
        ):
            return None
        return newest

    # --- attributes, words and tests

    def _attribute(self, path: str) -> list[Any]:
        value: Any = dict(self.sections)
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return _values(value, [])

    def _word(self, said: Said) -> list[Any]:
        path = str(said.get("trait") or said.get("context")).split(".")
        for event in reversed(self.events):
            if "trait" in said and event.type != "identify":
                continue
            words = dict(event.traits if "trait" in said else event.context)
            if path[0] in words:
                return _values(words, path)
        return []

    def _test(self, values: list[Any], said: Said) -> bool:
        for negative, positive in (("is_not", "is"), ("none_of", "one_of"), ("lacks", "contains")):
            if negative in said:
                return not self._test(values, {positive: said[negative]})
        if said.get("exists") is False:
            return not values
        return any(self._passes(value, said) for value in values)

    def _passes(self, value: Any, said: Said) -> bool:
        if "exists" in said:
            return True
        if "is" in said:
            return _same(value, said["is"])
        if "one_of" in said:
            return any(_same(value, each) for each in said["one_of"])
        for word in ("contains", "starts_with", "ends_with"):
            if word in said:
                text, part = _lower(value[:1000]) if isinstance(value, str) else None, _lower(said[word])
                return text is not None and (
                    part in text if word == "contains" else text[: len(part)] == part if word == "starts_with"
                    else text[-len(part) :] == part
                )  # fmt: skip
        number = _number(value)
        if "at_least" in said:
            return number is not None and number >= said["at_least"]
        if "at_most" in said:
            return number is not None and number <= said["at_most"]
        if "more_than" in said:
            return number is not None and number > said["more_than"]
        if "less_than" in said:
            return number is not None and number < said["less_than"]
        if "between" in said:
            return number is not None and said["between"][0] <= number <= said["between"][1]
        at = self._time(value)
        if at is None:
            return False
        if "before" in said:
            return at.astimezone(self.zone).date().isoformat() < str(said["before"])
        if "since" in said:
            return at.astimezone(self.zone).date().isoformat() >= str(said["since"])
        if "within" in said:
            return at <= self.now and self._is_within(at, said["within"])
        return at <= self.now and not self._is_within(at, said["longer_ago"])

    def _time(self, value: Any) -> datetime | None:
        if not isinstance(value, str) or not re.fullmatch(
            r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{3,})?)?(Z|[+-]\d\d:\d\d)?)?", value, re.ASCII
        ) or not "1900" <= value[:4] < "2200":
            return None
        try:
            at = datetime.fromisoformat(re.sub(r"(\.\d{3})\d+", r"\1", value))
        except ValueError:
            return None
        return at if at.tzinfo is not None else at.replace(tzinfo=self.zone).astimezone(UTC)


def _stamp(event: Event) -> tuple[datetime, int]:
    from hashlib import md5

    digest = md5(f"{event.source}\0{event.message_id}".encode(), usedforsecurity=False).hexdigest()
    return event.timestamp, int(digest[:15], 16)


def _property(event: Event, path: str) -> list[Any]:
    if path in ("name", "category") and event.type in ("page", "screen") and getattr(event, path):
        return [getattr(event, path)]
    return _values(dict(event.properties), path.split("."))


def _values(value: Any, path: list[str], *, may_fan: bool = True) -> list[Any]:
    if isinstance(value, list):
        if not may_fan:
            return []
        if not path:
            return [each for each in value if _is_scalar(each)][:20]
        if not value or not all(isinstance(each, dict) for each in value):
            return []
        inner = [_values(each, path, may_fan=False) for each in value]
        return [each for one in inner for each in one][:20]
    if not path:
        return [value] if _is_scalar(value) else []
    return _values(value.get(path[0]), path[1:], may_fan=may_fan) if isinstance(value, dict) else []


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, str):
        return isinstance(value, str) and value == wanted
    number = _number(value)
    return number is not None and number == wanted


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if re.fullmatch(r"-?\d{1,15}(\.\d{1,6})?", value, re.ASCII) else None
    return float(value)


def _lower(text: str) -> str:
    return text.lower().replace("ς", "σ")
