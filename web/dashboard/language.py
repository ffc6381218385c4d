"""The languages of the pages: their texts, and how each writes numbers, money and times.

A text is found by its key in catalogue/en.yaml and catalogue/zh.yaml, which have the same keys (a test sees to it).
A text with `{name}` takes a value; one with `one` and `other` has two forms, chosen by `n`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml

LANGUAGES: dict[str, str] = {"en": "English", "zh": "中文"}
HTML_LANG = {"en": "en", "zh": "zh-Hans"}

_FOLDER = Path(__file__).parent / "catalogue"

# Signs as the Unicode CLDR has them for each language; other currencies stand with their code.
_SIGNS = {
    "en": {"USD": "$", "EUR": "€", "GBP": "£", "CNY": "CN¥", "JPY": "¥", "HKD": "HK$", "TWD": "NT$", "INR": "₹",
           "KRW": "₩", "AUD": "A$", "CAD": "CA$", "BRL": "R$"},
    "zh": {"USD": "US$", "EUR": "€", "GBP": "£", "CNY": "¥", "JPY": "JP¥", "HKD": "HK$", "TWD": "NT$", "INR": "₹",
           "KRW": "₩", "AUD": "AU$", "CAD": "CA$", "BRL": "R$"},
}  # fmt: skip
_WITHOUT_CENTS = frozenset({"JPY", "KRW", "VND", "CLP", "ISK"})
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)")

Number = int | float | Decimal


@cache
def catalogue(language: str) -> Mapping[str, str | Mapping[str, str]]:
    """All texts of a language, by key such as `overview.title`."""
    document = yaml.safe_load((_FOLDER / f"{language}.yaml").read_text("utf-8"))
    return dict(_flat(document, ""))


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str | Mapping[str, str]]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and set(value) != {"one", "other"}:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value if isinstance(value, dict) else str(value)


@cache
def _refusals(language: str) -> tuple[Mapping[str, str], tuple[tuple[re.Pattern[str], str], ...]]:
    """Translations of refusals: those without a gap by their text, and those with as a pattern each."""
    file = _FOLDER / f"refusals.{language}.yaml"
    texts: dict[str, str] = yaml.safe_load(file.read_text("utf-8")) if file.exists() else {}
    gaps = {text: said for text, said in texts.items() if "{" in text}
    patterns = ((re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(text)), said) for text, said in gaps.items())
    return (
        {text: said for text, said in texts.items() if text not in gaps},
        tuple((re.compile(pattern, re.DOTALL), said) for pattern, said in patterns),
    )


def choose(accept_language: str, cookie: str = "") -> str:
    """The language to speak: the one chosen before, else the first of the browser's that we have, else English.

    >>> choose("zh-CN,zh;q=0.9,en;q=0.8"), choose("de, en;q=0.1"), choose("zh", cookie="en"), choose("")
    ('zh', 'en', 'en', 'en')
    """
    if cookie in LANGUAGES:
        return cookie
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept_language.split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((-float(quality or 1), place, tag.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    for negative_quality, _, primary in sorted(wanted):
        if primary in LANGUAGES and negative_quality < 0:
            return primary
    return "en"


class Language:
    """One language and time zone, as a page speaks it."""

    def __init__(self, code: str, zone: str = "UTC") -> None:
        self.code = code
        self.html_lang = HTML_LANG[code]
        self.zone_name = zone
        self._zone = ZoneInfo(zone)
        self._texts = catalogue(code)

    def text(self, key: str, /, **values: object) -> str:
        """The text of a key, with its values put in. `n` also chooses between one and many.

        Raises:
            KeyError: no such text; a mistake in a page, which the tests find.
        """
        found = self._texts[key]
        if not isinstance(found, str):
            found = found["one" if values.get("n") in (1, "1") else "other"]
        return found.format(**values) if values else found

    def refusal(self, text: str) -> str:
        """A reason or a mend of a refusal, which the system writes in English, in this language where it is known."""
        whole, gaps = _refusals(self.code)
        if text in whole:
            return whole[text]
        for pattern, said in gaps:
            found = pattern.fullmatch(text)
            if found is not None:
                return said.format(**found.groupdict())
        return text

    def has(self, key: str) -> bool:
        return key in self._texts

    def number(self, value: Number | None, places: int = 0) -> str:
        """With separators: 69,659. Nothing known: –."""
        return "–" if value is None else f"{value:,.{places}f}"

    def compact(self, value: Number | None, whole_below: int = 10_000) -> str:
        """Short: 69.7K, 2.5M; in Chinese by ten thousands: 6.97万, 1.2亿. Whole below `whole_below`."""
        if value is None:
            return "–"
        size = abs(float(value))
        units: tuple[tuple[int, str], ...]
        if self.code == "zh":
            units = ((10**12, "万亿"), (10**8, "亿"), (10**4, "万"))
        else:
            units = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))
        for unit, sign in units:
            if size >= unit and size >= whole_below:
                short = float(value) / unit
                return f"{short:.{2 if abs(short) < 10 else 1 if abs(short) < 100 else 0}f}{sign}"
        return self.number(value, 0)

    def percent(self, ratio: float | None, places: int = 1) -> str:
        return "–" if ratio is None else f"{100 * ratio:,.{places}f}%"

    def points(self, difference: float) -> str:
        """A difference of shares, in hundredths: +2.3, −0.4."""
        size = f"{abs(100 * difference):,.1f}"
        return ("" if size == "0.0" else "+" if difference > 0 else "−") + size

    def change(self, ratio: float | None) -> str:
        """A difference as people say it: +12%, −3.4%."""
        if ratio is None:
            return "–"
        size = abs(ratio) * 100
        if size >= 1000:
            return ("+" if ratio > 0 else "−") + self.number(size / 100 + (1 if ratio > 0 else 0), 0) + "×"
        text = f"{size:.0f}" if size >= 10 or size == 0 else f"{size:.1f}"
        sign = "" if text in ("0", "0.0") else "+" if ratio > 0 else "−"
        return f"{sign}{text}%"

    def money(self, amount: Number | None, currency: str, compact: bool = False) -> str:
        """An amount with the sign of its currency: $2,500,315.63; ¥0.99."""
        if amount is None:
            return "–"
        sign = _SIGNS[self.code].get(currency.upper(), f"{currency} " if currency else "")
        minus = "−" if amount < 0 else ""
        size = -amount if amount < 0 else amount
        if compact and size >= 10_000:
            return f"{minus}{sign}{self.compact(size)}"
        places = 0 if currency.upper() in _WITHOUT_CENTS else 2
        return f"{minus}{sign}{self.number(size, places)}"

    def at(self, moment: datetime | None, seconds: bool = False) -> str:
        """A moment in the page's time zone: 12 Mar 1998, 14:05; 1998年3月12日 14:05."""
        if moment is None:
            return "–"
        here = moment.astimezone(self._zone)
        clock = f"{here:%H:%M:%S}" if seconds else f"{here:%H:%M}"
        return f"{self.day(moment)}{'' if self.code == 'zh' else ','} {clock}"

    def day(self, moment: datetime | None) -> str:
        if moment is None:
            return "–"
        here = moment.astimezone(self._zone)
        if self.code == "zh":
            return f"{here.year}年{here.month}月{here.day}日"
        return f"{here.day} {_MONTHS[here.month - 1]} {here.year}"

    def clock(self, moment: datetime) -> str:
        return f"{moment.astimezone(self._zone):%H:%M:%S}"

    def iso_day(self, moment: datetime) -> str:
        """The day in the page's time zone, as forms and addresses write it: 1998-03-12."""
        return f"{moment.astimezone(self._zone):%Y-%m-%d}"

    def moment(self, value: object) -> datetime | None:
        """The moment that a text of JSON stands for, if it is one: 1998-03-12T00:00:00.000Z."""
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            return None
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return None

    def plain(self, value: Number) -> str:
        """A number of unknown meaning: with separators, and no more places than it has."""
        if isinstance(value, int):
            return f"{value:,}"
        if abs(float(value)) >= 1e15:
            return str(value)
        return f"{value:,.4f}".rstrip("0").rstrip(".")

    def step(self, moment: datetime, step: str) -> str:
        """The name of a point of a chart that is one `step` wide."""
        here = moment.astimezone(self._zone)
        if step in ("hour", "6 hours"):
            return self.at(moment)
        if step == "month":
            return f"{here.year}年{here.month}月" if self.code == "zh" else f"{_MONTHS[here.month - 1]} {here.year}"
        return self.day(moment)

    def ago(self, moment: datetime | None, now: datetime) -> str:
        """How long ago, roughly: 3 minutes ago; a date where it is more than a month."""
        if moment is None:
            return "–"
        return self.lasting(now - moment, "ago") if now - moment < timedelta(days=31) else self.day(moment)

    def lasting(self, length: timedelta, manner: str = "lasting") -> str:
        """A length of time in its largest unit. `manner`: `ago` or `lasting`."""
        seconds = max(int(length.total_seconds()), 0)
        for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
            if seconds >= size:
                return self.text(f"time.{manner}.{unit}", n=seconds // size)
        return self.text(f"time.{manner}.seconds", n=seconds)
