"""Stories that are harder to get right than the shop's own: see `tests.faults.traffic.Story`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, islice

from tests.faults.traffic import Json, Story


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def twice(story: Story, stretch: int = 30) -> Story:
    """Everything once more: each stretch of the story is told again, as a client does that saw no answer to it."""

    def told(rng: random.Random, number: int) -> Iterator[Json]:
        events = story(rng, number)
        while chunk := list(islice(events, stretch)):
            yield from chunk
            yield from chunk

    return told


def crowded(story: Story, share: float) -> Story:
    """One user of each client causes this share of all events. Her `n` says the order in which she did."""

    def told(rng: random.Random, number: int) -> Iterator[Json]:
        events = story(rng, number)
        clock = datetime.now(UTC) - timedelta(days=2)
        for n in count():
            while rng.random() >= share:
                yield next(events)
            clock += timedelta(milliseconds=rng.randrange(1, 200))
            yield {"messageId": f"hot{number}-{n}", "type": "track", "event": "Product Viewed", "timestamp": iso(clock),
                   "userId": f"hot{number}", "properties": {"product_id": f"p{n % 40}", "n": n}}  # fmt: skip

    return told


# --- people who are parted

PAIR = "pair"  # begins the message ids by which a device and a user become one


def in_pairs(story: Story, share: float = 0.3) -> Story:
    """This share of all events is of devices that one user each has, and nobody else: `a:<pair>` and `u:<pair>`, which
    become one with the event of message id `<pair>`. All of them go on, each as the device alone and as the user."""

    def told(rng: random.Random, number: int) -> Iterator[Json]:
        events = story(rng, number)
        clock = datetime.now(UTC) - timedelta(days=2)
        pairs = 0
        for n in count():
            while rng.random() >= share:
                yield next(events)
            clock += timedelta(milliseconds=rng.randrange(1, 200))
            if pairs == 0 or rng.random() < 0.05:
                pairs += 1
                pair = message_id = f"{PAIR}{number}-{pairs}"
                call = {"type": "identify", "userId": pair, "anonymousId": pair, "traits": {"plan": rng.choice("abc")}}
            else:
                pair = f"{PAIR}{number}-{rng.randint(max(1, pairs - 50), pairs)}"
                message_id = f"{pair}-{n}"
                ids = rng.choice([{"userId": pair}, {"anonymousId": pair}, {"userId": pair, "anonymousId": pair}])
                order = {"event": "Order Completed", "properties": {"order_id": f"o-{message_id}", "total": 9}}
                view = {"event": "Product Viewed", "properties": {"product_id": f"p{n % 40}"}}
                call = {"type": "track", **rng.choice([order, view]), **ids}
            yield {"messageId": message_id, "timestamp": iso(clock), **call}

    return told


# --- clocks


class Clock:
    """A client's clock.

    Attributes:
        off: how far it is from the right time.
        is_told: the client says when it sends, by the same clock, so that its times can be corrected.
    """

    def __init__(self, off: timedelta, is_told: bool) -> None:
        self.off, self.is_told = off, is_told


CLOCKS = tuple(
    Clock(sign * timedelta(days=days), is_told) for days in (1, 3_650) for sign in (1, -1) for is_told in (True, False)
)
MOST_LATE = timedelta(days=30)


def by_wrong_clocks(story: Story) -> Story:
    """Nine of ten events by a clock that is wrong, some a month late, and none in order. Properties say what is true:
    `happened`, and which of CLOCKS it was, `clock`; -1 is the right one."""

    def told(rng: random.Random, number: int) -> Iterator[Json]:
        events = story(rng, number)
        while chunk := list(islice(events, 50)):
            rng.shuffle(chunk)
            for event in chunk:
                yield _misdated(event, rng)

    return told


def _misdated(event: Json, rng: random.Random) -> Json:
    which = rng.randrange(-1, len(CLOCKS))
    clock = CLOCKS[which] if which >= 0 else Clock(timedelta(), rng.random() < 0.5)
    now = datetime.now(UTC)
    happened = now - timedelta(seconds=rng.randrange(60, 7_200))
    if rng.random() < 0.2:
        happened -= MOST_LATE * rng.random()
    told = {"sentAt": iso(now + clock.off)} if clock.is_told else {}
    true = {"happened": iso(happened), "clock": which}
    place = "traits" if event["type"] == "identify" else "properties"
    return {**event, **told, "timestamp": iso(happened + clock.off), place: {**event.get(place, {}), **true}}


# --- poison


def poisons(number: int) -> Sequence[tuple[Json, bool]]:
    """Bad events, as a batch may hold them, and whether they can be stored all the same, what is odd in them flagged.

    Of the twenty bad inputs; those that are whole requests are `POISONED_BODIES`.
    """
    good: Json = {"type": "track", "event": "Product Viewed", "userId": f"poison{number}", "properties": {}}
    deep: Json = {}
    for _ in range(40):
        deep = {"a": deep}
    return (
        ({**good, "userId": None}, False),  # nobody
        ({**good, "userId": "null"}, False),
        ({**good, "userId": {"id": 1}}, False),
        ({**good, "userId": "x" * 10_000}, False),
        ({**good, "type": "party"}, False),
        ({"type": "track", "userId": f"poison{number}"}, False),  # no name
        ({**good, "properties": "text"}, False),
        ({**good, "properties": deep}, False),
        ({**good, "properties": {str(n): n for n in range(3_000)}}, False),
        ({**good, "properties": {"big": "x" * 40_000}}, False),
        ({**good, "event": ["Product Viewed"]}, False),
        ({**good, "event": "Order Completed", "properties": {"order_id": "p", "total": -1}}, False),  # by a processor
        ({**good, "event": "Order Completed", "properties": {"order_id": "p", "total": "much"}}, False),
        ({**good, "event": "Order Refunded", "properties": {"total": 1}}, False),
        ({**good, "timestamp": "275760-01-01"}, True),
        ({**good, "timestamp": ""}, True),
        ({**good, "timestamp": 0}, True),
        ({**good, "properties": {"": 0, "__proto__": 1, "constructor": 2, "$set": {}}}, True),
        ({**good, "properties": {"xss": "<script>alert(1)</script>", "sql": "' OR 1=1 --", "csv": "=1+1"}}, True),
        ({**good, "properties": {"huge": 1e308, "negative": -0.0, "many": 2**60}}, True),
        ({**good, "__faust": {"ns": "any.Model"}}, True),
        ({**good, "context": {"ip": "\u202e1.1.1.1", "userAgent": "\x1b[31m \0"}}, True),
    )


def poisoned(story: Story, share: float) -> Story:
    """The story, with this share of events poisoned; each has a message id of its own."""

    def told(rng: random.Random, number: int) -> Iterator[Json]:
        kinds = poisons(number)
        for n, event in enumerate(story(rng, number)):
            yield event
            if rng.random() < share:
                kind = rng.randrange(len(kinds))
                yield {"timestamp": event["timestamp"], **kinds[kind][0], "messageId": f"poison-{number}-{n}-{kind}"}

    return told


POISONED_BODIES: tuple[bytes, ...] = (
    b"", b"null", b"[]", b'""', b"0", b'{"batch":null}', b'{"batch":', b'{"batch":[]} x', b'{"batch":[{}]}{"batch":[]}',
    b"\xff\xfe\x00", b'{"batch":[{"total":NaN}]}', b'{"batch":[{"total":Infinity}]}',
    b'{"batch":' + b"[" * 100_000, b'{"batch":[' + b"0," * 100_000 + b"0]}", b"\x1f\x8b\x08broken",
    b'{"batch":[{"' + b"k" * 2_000_000 + b'":1}]}', b"writeKey=x&event=y", '{"batch":[]}'.encode("utf-16"),
)  # fmt: skip
"""Whole requests that are none: each is answered with 4xx, at once."""


