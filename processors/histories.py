"""Histories for the acceptance suite: the events of a processor's cases, and others made from them.

An event is written as the body of a Segment call, and `at`: `{"at": "2024-03-01 10:00", "type": "page"}`. What is
left out is filled in: `userId` is `ann`, the message id is its place, `type` is `track` where `event` is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from processors.base import EVERY_EVENT, Processor
from schemas.event import Event, decode_event
from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS, from_ms, to_iso, to_ms

WORKSPACE = "shop"
PERSON = f"{WORKSPACE}/u:ann"
BEGIN_MS = to_ms(datetime(2024, 3, 1, tzinfo=UTC))
RECEIVED_MS = to_ms(datetime(2026, 1, 1, tzinfo=UTC))  # long after all of it happened
CALLS = {"Page": "page", "Screen": "screen", "Identify": "identify", "Group": "group", "Alias": "alias"}

Body = dict[str, Any]


def event_of(body: Mapping[str, Any], number: int = 0) -> Event:
    """The event of a body as cases write it.

    Raises:
        Refused: it breaks a rule that every event obeys.
        ValueError: `at` is no time.
    """
    rest = dict(body)
    at = datetime.fromisoformat(str(rest.pop("at")))
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    filled = {
        "messageId": f"m-{number:04}", "workspace": WORKSPACE, "source": "website", "userId": "ann",
        "type": "track" if "event" in rest else "page", "timestamp": at, "receivedAt": at, **rest,
    }  # fmt: skip
    return decode_event(msgspec.json.encode(filled))


def events_of(bodies: Sequence[Mapping[str, Any]]) -> list[Event]:
    return [event_of(body, number) for number, body in enumerate(bodies)]


def history(processor: Processor[Any], random: Random, length: int = 30) -> list[Event]:
    """A made-up history within what the processor keeps exactly: its cases' events at other times, and others.

    Times crowd together, so that some are equal and some a little apart.
    """
    span_ms = min(processor.exact_for_ms or 20 * DAY_MS, 20 * DAY_MS) // 2
    moments = [BEGIN_MS + random.randrange(span_ms) for _ in range(max(length // 6, 1))]
    bodies = [_body(processor, random) for _ in range(length)]
    for body in bodies:
        apart = random.choice((0, 0, 1, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS))
        body["at"] = to_iso(min(random.choice(moments) + apart * random.randrange(-3, 4), BEGIN_MS + span_ms))
    return sorted(events_of(bodies), key=lambda event: (event.at_ms, event.message_id))


def _body(processor: Processor[Any], random: Random) -> Body:
    examples = [event for case in processor.cases for event in case["events"] if not case.get("refuses")]
    if examples and random.random() < 0.8:
        body: Body = dict(random.choice(examples))
        if isinstance(body.get("properties"), dict) and random.random() < 0.5:  # of another's things
            other = random.choice(examples).get("properties")
            body["properties"] = {**body["properties"], **(other if isinstance(other, dict) else {})}
    else:
        label = random.choice(sorted(processor.wants - {EVERY_EVENT}) or ["Page", "Identify", "Product Viewed"])
        body = {"type": CALLS[label]} if label in CALLS else {"event": label}
        body["traits"] = {random.choice(("plan", "city", "email")): random.choice(("a", "b", None, 3))}
        body["groupId"], body["previousId"] = "g-1", "old"
    who = random.random()
    if who < 0.2:
        body["anonymousId"] = random.choice(("phone", "laptop"))
    return body


def hostile_flood(processor: Processor[Any], length: int) -> list[Event]:
    """Events that are all different in everything, and large: what somebody sends who wants the state to grow."""
    labels = sorted(processor.wants - {EVERY_EVENT})
    bodies = []
    for number in range(length):
        odd = f"{number * 2_654_435_761 % 2**32:08x}-" + "长" * 25
        label = labels[number % len(labels)] if labels else ("", "Page", "Identify", "Group", "Subscribed")[number % 5]
        body: Body = {"type": CALLS[label]} if label in CALLS else {"event": label or f"Event {odd}"}
        # Forwards by an hour, with every third event long ago: sessions, gaps and late events without end.
        hours = number if number % 3 else -number
        body |= {
            "at": from_ms(BEGIN_MS + hours * HOUR_MS + number).isoformat(),
            "messageId": f"{odd}-{'m' * 40}", "anonymousId": odd, "groupId": f"g-{odd}", "previousId": f"p-{odd}",
            "traits": {f"trait-{odd}": f"{odd * 20}", "email": f"{number}@example.com", f"t-{number}": odd, "name": odd,
                       "consent": {odd: {odd: bool(number % 2)}}},
            "properties": {
                "order_id": odd, "total": 10**12, "currency": _letters(number), "coupon": odd * 5, "refund_id": odd,
                "products": [{"product_id": f"{odd}-{line}" * 3, "price": 1, "quantity": 10**6} for line in range(20)],
                "topic": odd, "channel": odd, "url": f"https://{number}.example.com/{odd}?utm_source={number}",
            },
            "context": {
                "locale": odd, "timezone": f"Europe/{number}", "device": {"id": odd, "model": odd},
                "campaign": {"name": odd, "source": odd, "medium": odd}, "page": {"url": f"https://{number}.example.com"},
            },
        }  # fmt: skip
        bodies.append(body)
    return events_of(bodies)


def _letters(number: int) -> str:
    return "".join(chr(65 + number // 26**place % 26) for place in range(3))
