"""The traffic of a shop: pages, product views, carts, orders, sign-ins, mails, by people with several devices.

Made by `streams.simulate`, the same every time, and kept in `.cache/bench`, because making it takes longer than
measuring with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import islice

import msgspec

from bench.child import ROOT
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from streams.simulate import Plan, Shop

DAYS, SEED, END = 60, 7, date(2026, 11, 1)
EVENTS_A_PERSON = 20
_LENGTH_BYTES = 4


def plan_for(count: int) -> Plan:
    return Plan(people=max(50, count // EVENTS_A_PERSON), days=DAYS, seed=SEED, end=END)


def calls(count: int) -> Iterator[tuple[int, bytes]]:
    """The first `count` calls: the number of the human being, and the body of the call."""
    file = ROOT / ".cache" / "bench" / f"shop-{SEED}-{DAYS}-{count}.bin"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as out:
            made = 0
            for made, call in enumerate(islice(Shop(plan_for(count)).calls(), count), 1):  # noqa: B007
                packed = msgspec.msgpack.encode((call.person, call.body))
                out.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
        if made < count:
            raise RuntimeError(f"the shop made {made} of {count} calls; its people do too little in {DAYS} days")
        partial.rename(file)
    decode = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
    with file.open("rb") as kept:
        while length := kept.read(_LENGTH_BYTES):
            yield decode(kept.read(int.from_bytes(length, "big")))


def events(count: int) -> Iterator[tuple[bytes, bytes]]:
    """The same as they stand in topic `events`, with their keys."""
    arrival = Arrival("default", "shop", datetime(END.year, END.month, END.day, tzinfo=UTC))
    for _, body in calls(count):
        event = read_event(body, "", arrival)
        yield event.key.encode(), encode_event(event)
