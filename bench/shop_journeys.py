"""Journeys as those who run a shop write them, as many as are asked for, over the traffic of `shop.py`.

A mix in fixed turns of what is shipped: a basket, a welcome, a review, a win-back, and the like; eight of ten are
entered by an event, two by a segment. Every twentieth event is a look at a product that says of which of fifty
collections it is, and the journeys share these out. So more journeys make more to choose from at each event, and not
many more people who enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bench.audiences import segments
from schemas.journeys import Led, LedJourney, Mail
from schemas.segments import Definitions, Said, encode_definitions
from streams.leads import conditions_told

COLLECTIONS = 50
ONE_OF = 20  # events means something to a journey
ZONE = "UTC"
MAILS = {name: Mail("email", "marketing", "newsletter") for name in ("reminder", "letter", "offer")}
LIMITS = {"quiet_hours": {"from": "21:00", "to": "08:00"},
          "caps": [{"at_most": 2, "within": "1 day"}, {"at_most": 5, "within": "7 days"}]}  # fmt: skip
MARK = b'"collection":"'
_LOOK = b'"event":"Product Viewed"'
_PROPERTIES = b'"properties":{'

Journey = dict[str, Any]
Node = dict[str, Any]


def marked(bodies: Iterator[bytes]) -> Iterator[bytes]:
    """The calls, with a collection in one look at a product of every twenty events."""
    marks = 0
    for number, body in enumerate(bodies):
        if number >= marks * ONE_OF and _LOOK in body and _PROPERTIES in body:
            said = b'%s%s%s",' % (_PROPERTIES, MARK, _collection(marks).encode())
            body = body.replace(_PROPERTIES, said, 1)
            marks += 1
        yield body


def journeys(count: int) -> dict[str, Journey]:
    """So many journeys by name."""
    named = list(segments(10))
    made = {}
    for number in range(count):
        make = _KINDS[number % len(_KINDS)]
        collections = [_collection(mark) for mark in range(number, COLLECTIONS, count)]
        looked = {"event": {"did": "Product Viewed", "where": {"collection": {"one_of": collections}}}}
        segment = named[number // len(_KINDS) % len(named)]
        made[f"{make.__name__.strip('_')}_{number}"] = make(looked, segment)
    return made


def _collection(mark: int) -> str:
    return f"c{mark % COLLECTIONS:02}"


def led(count: int) -> Led:
    return Led(journeys=[LedJourney(name=name, version=1, said=said) for name, said in journeys(count).items()],
               mails=MAILS, limits=LIMITS)  # fmt: skip


def encoded(count: int, judged: dict[str, Any]) -> bytes:
    """So many journeys beside these segments, as a partition is told them."""
    said = [Said(name=name, version=1, when=when, is_live=True) for name, when in judged.items()]
    all_of_them = led(count)
    said += conditions_told(all_of_them, ZONE)
    return encode_definitions(Definitions(zone=ZONE, definitions=said, journeys=all_of_them))


# --- the mix

_ORDER: Node = {"did": "Order Completed", "within": "14 days", "value": "total"}


def _basket(looked: Node, segment: str) -> Journey:
    return {
        "enter": looked, "again": {"once_per": "product_id"}, "priority": 70,
        "goal": _ORDER | {"within": "3 days"}, "exits": [{"did": "Order Completed"}],
        "steps": [
            {"step": "an_hour", "wait": "1 hour"},
            {"step": "remind", "send": "reminder", "from_event": {"product": "name"}, "refused": "end"},
            {"step": "followed", "wait_until": {"did": "Message Clicked", "message": "remind"}, "at_most": "1 day",
             "then": "end", "otherwise": "last_call"},
            {"step": "last_call", "send": "reminder", "expires": "12 hours"},
        ],
    }  # fmt: skip


def _welcome(looked: Node, segment: str) -> Journey:
    return {
        "enter": looked, "again": {"after": "30 days"}, "goal": _ORDER,
        "steps": [
            {"step": "hello", "send": "letter"},
            {"step": "two_days", "wait": "2 days"},
            {"step": "a_morning", "wait": {"at": "10:00", "days": ["mon", "tue", "wed", "thu", "fri"]}},
            {"step": "favourites", "send": "letter"},
        ],
    }  # fmt: skip


def _win_back(looked: Node, segment: str) -> Journey:
    return {
        "enter": {"joined": segment}, "again": {"after": "180 days"}, "priority": 40,
        "goal": _ORDER | {"within": "30 days"}, "exits": [{"left": segment}],
        "steps": [
            {"step": "hour", "split": [{"then": "morning"}, {"then": "evening"}]},
            {"step": "morning", "wait": {"at": "09:00"}, "then": "offer"},
            {"step": "evening", "wait": {"at": "18:30"}},
            {"step": "offer", "send": "offer"},
            {"step": "three_weeks", "wait": "21 days"},
            {"step": "last_call", "send": "offer"},
        ],
    }  # fmt: skip


def _review(looked: Node, segment: str) -> Journey:
    return {
        "enter": looked, "again": {"once_per": "product_id"}, "holdout": 0, "priority": 30,
        "goal": {"did": "Product Reviewed", "matching": "product_id", "within": "28 days", "leaves": False},
        "exits": [{"did": "Order Refunded"}],
        "steps": [
            {"step": "arrives", "wait_until": {"did": "Product Reviewed", "matching": "product_id"},
             "at_most": "14 days", "then": "how_was_it", "otherwise": "an_evening"},
            {"step": "an_evening", "wait": {"at": "18:00"}},
            {"step": "ask", "send": "letter", "then": "end"},
            {"step": "how_was_it", "then": "end", "branch": [
                {"when": {"did": "Product Reviewed", "where": {"rating": {"at_most": 2}}, "within": "1 hour"},
                 "then": "care"}]},
            {"step": "care", "ticket": {"subject": "Not content"}},
        ],
    }  # fmt: skip


def _interest(looked: Node, segment: str) -> Journey:
    return {
        "enter": looked, "again": {"after": "1 day"}, "goal": _ORDER,
        "when": {"did": "Product Viewed", "at_least": 2, "within": "7 days"},
        "steps": [
            {"step": "a_day", "wait": "1 day"},
            {"step": "how_much", "then": "end", "branch": [
                {"when": {"did": "Product Viewed", "at_least": 5, "within": "7 days"}, "then": "offer"},
                {"when": {"segment": segment}, "then": "letter"}]},
            {"step": "letter", "send": "letter", "then": "end"},
            {"step": "offer", "send": "offer"},
        ],
    }  # fmt: skip


def _goodbye(looked: Node, segment: str) -> Journey:
    return {
        "enter": {"left": segment}, "again": "always", "goal": _ORDER, "exits": [{"joined": segment}],
        "steps": [
            {"step": "a_week", "wait": "7 days"},
            {"step": "ask", "send": "letter"},
        ],
    }  # fmt: skip


_KINDS: tuple[Callable[[Node, str], Journey], ...] = (
    _interest, _basket, _win_back, _welcome, _review, _interest, _basket, _goodbye, _welcome, _review,
)  # fmt: skip
