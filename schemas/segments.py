"""Definitions of segments: what topic `definitions` holds of each, and what the partitions are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from schemas.conditions import read_condition
from schemas.journeys import Led


class Said(msgspec.Struct, tag="segment", kw_only=True, omit_defaults=True):
    """A version of a segment, as it stands in topic `definitions`. JSON.

    Attributes:
        name: of the segment.
        version: grows by one with every change.
        when: the condition, as it was written.
        title: its name for people, by language (`en`, `zh`).
        about: what it is for.
        by: who wrote this version; at_ms: when.
        source: `file` or `page`: where this version was written.
        from_file: of the file's content that was last taken over; so what was changed on the page since stays.
        is_live: people are judged by it. Else what it asks for is only remembered, until the past is known too.
        zone: the time zone in which days began when it became live.
        is_settled: everybody was judged by it.
        is_gone: the segment was taken out; everybody leaves it.
    """

    name: str
    version: int
    when: Any
    title: dict[str, str] = {}
    about: str = ""
    by: str = ""
    at_ms: int = 0
    source: str = "file"
    from_file: str = ""
    is_live: bool = False
    zone: str = ""
    is_settled: bool = False
    is_gone: bool = False


class Cuts(msgspec.Struct, tag="rfm", kw_only=True, frozen=True):
    """RFM: where the fifths of a workspace's customers meet: of n customers the values of the n·k/5th, rounded up, for
    k from 1 to 4, the least first. A value on a cut point belongs to the lower fifth.

    Attributes:
        currency: the one that most customers paid in; revenue in others does not count.
        customers: how many people had an order.
        last_ms: of the moments of their last orders, four in ms since 1970.
        orders, revenue: of their numbers of orders, and of their revenue after refunds.
        at_ms: when it was looked up.
    """

    workspace: str
    currency: str
    customers: int
    last_ms: tuple[int, int, int, int]
    orders: tuple[float, float, float, float]
    revenue: tuple[float, float, float, float]
    at_ms: int

    def says_the_same(self, other: Cuts | None) -> bool:
        return other is not None and msgspec.structs.replace(other, at_ms=self.at_ms, customers=self.customers) == self


class SavedLimits(msgspec.Struct, tag="limits", kw_only=True, frozen=True):
    """What holds for the messages of all journeys: `schemas.journeys.Limits`, as plain values; by whom and when."""

    limits: Any
    by: str
    at_ms: int


class Told(msgspec.Struct, tag="led", kw_only=True, frozen=True):
    """What partitions were told of journeys last.

    Attributes:
        zone: the time zone in which days began.
        asks_everybody: everybody is looked at after it.
        is_settled: all of it was done. Else it is done again.
    """

    led: Led
    zone: str
    at_ms: int
    asks_everybody: bool = False
    is_settled: bool = False


class Fired(msgspec.Struct, tag="fired", kw_only=True, frozen=True):
    """At which moment everybody was last asked into a journey that a date or a schedule lets people enter.

    Attributes:
        entry: the moments that were meant, as a cron line and a time zone.
        at_ms: that moment, or when the journey was first seen.
        sweep: as what they were asked; empty: they were not, as it was first seen then, or not live.
    """

    journey: str
    entry: str
    at_ms: int
    sweep: str = ""


class Definitions(msgspec.Struct, kw_only=True):
    """All of them that matter to the people of a partition, and the time zone in which days begin. JSON.

    Attributes:
        cuts: of RFM, of each workspace that has any.
        journeys: by which they are led.
    """

    zone: str
    definitions: list[Said]
    cuts: list[Cuts] = []
    journeys: Led = msgspec.field(default_factory=Led)


@dataclass(frozen=True)
class Definition:
    """One version of a segment, ready to be compiled.

    Attributes:
        when: the condition, see `schemas.conditions`.
        is_live: people are judged by it.
    """

    name: str
    when: Any
    version: int = 1
    is_live: bool = True
    title: dict[str, str] = field(default_factory=dict)
    about: str = ""


Noted = Said | Cuts | SavedLimits | Told | Fired
"""What stands in topic `definitions`."""

encode_said = msgspec.json.Encoder(order="sorted").encode
decode_said = msgspec.json.Decoder(Noted).decode
encode_definitions = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Definitions).decode


class Read(NamedTuple):
    """What the people of a partition are judged and led by."""

    zone: str
    definitions: tuple[Definition, ...]
    cuts: dict[str, Cuts]
    led: Led


@lru_cache(16)
def read_definitions(definitions: bytes) -> Read:
    """Read what `encode_definitions` wrote.

    Raises:
        msgspec.DecodeError, schemas.conditions.WrongCondition: they were not checked before they were written.
    """
    said = _decode(definitions)
    read = tuple(Definition(each.name, read_condition(each.when), each.version, each.is_live, each.title)
                 for each in said.definitions)  # fmt: skip
    return Read(said.zone, read, {cuts.workspace: cuts for cuts in said.cuts}, said.journeys)
