"""How long the processors take for one event: `python -m bench.processors`.

Input: track events of a browser (1.1 kB each, with page, campaign, user agent), one person, a visit in progress, her
traits told before. Printed beside the machine: µs per event for all processors together and each alone, without
decoding the event; then what encoding her state and making her portrait take.
"""

from __future__ import annotations

import platform
from pathlib import Path
from time import process_time

import msgspec

from processors.base import Person
from processors.fold import Fold
from processors.histories import BEGIN_MS, event_of
from processors.registry import load_processors
from schemas.customer import Part, decode_part
from schemas.event import decode_event, encode_event
from schemas.keyed import encode_state
from schemas.times import DAY_MS, to_iso

EVENTS = 20_000
CONTEXT = {
    "ip": "203.0.113.7", "locale": "de-AT", "timezone": "Europe/Vienna",
    "library": {"name": "analytics.js", "version": "4.1.0"},
    "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 "
                 "Safari/537.36",
    "page": {"url": "https://shop.example.com/shoes/red?utm_source=news", "path": "/shoes/red", "title": "Red shoes",
             "referrer": "https://www.google.com/", "search": "?utm_source=news"},
    "screen": {"width": 1920, "height": 1080, "density": 2},
    "campaign": {"name": "spring", "source": "news", "medium": "email"},
}  # fmt: skip
TRAITS = {"email": "ann@example.com", "name": "Ann Example", "plan": "pro", "city": "Wien", "phone": "+431234567",
          "birthday": "1990-05-01", "seats": 4, "newsletter": True}  # fmt: skip
PERSON = Person("shop/u:ann", "shop/u:ann", 0)


def fresh_events() -> list[bytes]:
    names = ("Product Viewed", "Product Added", "Cart Viewed", "Product List Viewed")
    return [
        encode_event(event_of({"at": to_iso(BEGIN_MS + DAY_MS + number * 1000), "event": names[number % 4],
                               "messageId": f"ajs-next-{number:09}-7c2f4e10", "anonymousId": "a-1",
                               "properties": {"product_id": "p-1", "name": "Red shoe", "price": 49.9},
                               "context": CONTEXT}))
        for number in range(EVENTS)
    ]  # fmt: skip


def microseconds(fold: Fold, raw: list[bytes]) -> float:
    part = warm_part(fold)
    spent = 0.0
    for begin in range(0, len(raw), 500):  # as the stage does: decode a batch, fold it, forget it
        events = [decode_event(value) for value in raw[begin : begin + 500]]
        for event in events:  # asked for by the wiring before any processor
            _ = event.at_ms, event.key, event.received_ms, event.label
        started = process_time()
        for event in events:
            fold.check(event)
            fold.apply(part, event, PERSON, event.received_ms)
        spent += process_time() - started
    return spent / len(raw) * 1e6


def warm_part(fold: Fold) -> Part:
    part = Part()
    told = event_of({"at": to_iso(BEGIN_MS), "type": "identify", "traits": TRAITS, "context": CONTEXT})
    fold.apply(part, told, PERSON, 0)
    return decode_part(encode_state(part))


def best(fold: Fold, raw: list[bytes]) -> float:
    return min(microseconds(fold, raw) for _ in range(5))


def main() -> None:
    processors = load_processors(Path("config"))
    raw = fresh_events()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
          f"msgspec {msgspec.__version__}, {EVENTS} events of {len(raw[0])} bytes, best of 5")  # fmt: skip
    for name, chosen in (("all", processors), *((one.name, [one]) for one in processors)):
        print(f"{name:>12}: {best(Fold(chosen), raw):5.2f} µs per event")
    fold = Fold(processors)
    part = warm_part(fold)
    for value in raw[:2_000]:
        event = decode_event(value)
        fold.apply(part, event, PERSON, event.received_ms)
    stored = encode_state(part)
    for name, work in (("encode", lambda: encode_state(part)), ("decode", lambda: decode_part(stored)),
                       ("portrait", lambda: fold.portrait({"": part}))):  # fmt: skip
        begin = process_time()
        for _ in range(2_000):
            work()
        print(f"{name:>12}: {(process_time() - begin) / 2_000 * 1e6:5.2f} µs for a state of {len(stored)} bytes")


if __name__ == "__main__":
    main()
