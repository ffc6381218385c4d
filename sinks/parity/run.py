"""Holds the three against each other."""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from processors.answers import View, at_path
from processors.memories import Memories, Memory
from processors.rules import Rules
from processors.segments import Segments
from processors.values import zone_named
from schemas.conditions import read_condition
from schemas.rows import Portrait, encode_json
from schemas.segments import Definition
from schemas.times import from_ms
from sinks.analytics import Analytics
from sinks.conditions import people_sql
from sinks.events import event_columns
from sinks.memories import LONGEST_S, memories_of
from sinks.migrate import migrate
from sinks.parity.naive import Naive
from sinks.parity.worlds import Person, Told, World, a_world
from sinks.portraits import decode_portrait, people_columns

SECTION = "told"  # what stands in portraits here
SEGMENTS = 6  # of one world


@dataclass(frozen=True)
class Difference:
    """A segment in which not all three have the same people."""

    world: World
    segment: str
    person: Person
    live: bool
    sql: bool
    naive: bool

    def __str__(self) -> str:
        return (
            f"{self.world.workspace} {self.segment} {self.person.key}: live {self.live}, SQL {self.sql}, naive "
            f"{self.naive}: {self.world.segments[self.segment]}"
        )


def definitions_of(world: World) -> dict[str, Definition]:
    return {name: Definition(name, read_condition(said)) for name, said in world.segments.items()}


class _Live:
    """One person, judged as time goes on. See `streams.segments.Judging`, which does the same in the stage."""

    def __init__(self, rules: Rules, keys: Sequence[str], shows: Mapping[str, Any]) -> None:
        self.rules = rules
        self.parts = {key: Memories() for key in keys}
        self.members: set[str] = set()
        self._sections = {SECTION: shows}
        self._due_ms = 0

    def judge(self, now_ms: int, names: Sequence[str]) -> int:
        attribute: Callable[[str], Any] = lambda name: at_path(self._sections, name.split("."))  # noqa: E731
        view = View(self.rules.view_of(self._memories), attribute, self.members, now_ms)
        self.rules.judge(view, names)
        return view.due_ms

    def begin(self, now_ms: int) -> None:
        """By all segments: when they begin, and when parts of her came or went."""
        self._due_ms = self.judge(now_ms, list(self.rules.segments))

    def hear(self, told: Told) -> None:
        now_ms = told.event.received_ms
        self.wait_until(now_ms)
        turned = self.rules.turned(self.rules.remember(self.parts[told.key], told.event), self._memories, now_ms)
        self._due_ms = min(self._due_ms, self.judge(now_ms, self.rules.in_order(turned)))

    def wait_until(self, moment_ms: int) -> None:
        while self._due_ms <= moment_ms:
            self._due_ms = self.judge(self._due_ms, self.rules.timely(self._memories))

    @property
    def _memories(self) -> list[Mapping[str, Memory]]:
        return [part.of for part in self.parts.values()]


def live_members(world: World, person: Person, rules: Rules) -> dict[str, set[str]]:
    """The segments that she is in, and the guest who left her, when everything was told and time went on to the end."""
    guest = person.guest or Person("", (), (), {})
    she = _Live(rules, [*person.keys, *guest.keys], person.shows)
    she.begin(0)
    came = sorted([*person.told, *guest.told], key=lambda told: told.event.received_at)
    parted_at = bisect_left(came, person.parted_ms, key=lambda told: told.event.received_ms)
    for told in came[:parted_at]:
        she.hear(told)
    she.wait_until(person.parted_ms)
    other = _Live(rules, guest.keys, guest.shows)
    other.parts = {key: she.parts.pop(key) for key in guest.keys}
    for each in (she, other):
        each.begin(person.parted_ms)
    for told in came[parted_at:]:
        (other if told.key in guest.keys else she).hear(told)
    for each in (she, other):
        each.wait_until(world.now_ms)
    return {person.key: she.members, guest.key: other.members}


def naive_members(world: World, person: Person) -> set[str]:
    plain = {name: _plain(said) for name, said in world.segments.items()}
    naive = Naive(person.events, plain, from_ms(world.now_ms), world.zone, {SECTION: person.shows})
    return {name for name, said in plain.items() if naive.is_true(said)}


def _plain(said: Any) -> Any:
    """A condition as it is understood: with the short forms written out."""
    return read_condition(said).model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Fuzzed:
    """What came of so many cases, each one condition over the people of a world."""

    cases: int
    differences: list[str]


async def fuzz(cases: int, seed: int) -> AsyncIterator[Fuzzed]:
    """Make so many cases and hold the three against each other; tells on the way how far it is.

    They need a ClickHouse of their own, which is made for it and forgotten.
    """
    with tempfile.TemporaryDirectory(prefix="tidewire-fuzz-") as folder:
        analytics = Analytics(f"chdb:{folder}/clickhouse")
        try:
            await migrate(analytics, Segments.tables)
            done, found, rng = 0, list[str](), Random(seed)
            while done < cases:
                world = a_world(rng, f"w{done}", segments=min(SEGMENTS, cases - done))
                found += [str(each) async for each in differences(analytics, world)]
                found += await forgotten(analytics, world)
                done += len(world.segments)
                yield Fuzzed(done, found)
        finally:
            await analytics.close()


async def store(analytics: Analytics, world: World) -> None:
    """Put the histories into ClickHouse, as often as they were told, and whose the keys are."""
    events = [told.event for person in world.everybody for told in person.told]
    if events:
        columns = event_columns(events)
        columns["key"] = [told.key for person in world.everybody for told in person.told]
        await analytics.insert("events", columns)
    moves = [(key, person.key, 1) for person in world.people for key in person.keys[1:]]
    for person in world.people:
        if person.guest is not None:
            moves += [(person.guest.key, person.key, 1), (person.guest.key, person.guest.key, 2)]
    if moves:
        await analytics.insert("identities", {
            "workspace": [world.workspace] * len(moves), "key": [key for key, _, _ in moves],
            "person": [owner for _, owner, _ in moves], "moves": [number for _, _, number in moves],
            "evidence": [""] * len(moves), "linked_at": [None] * len(moves),
        })  # fmt: skip
    portraits = [Portrait(key=person.key, workspace=world.workspace, revision=1, at=from_ms(world.now_ms),
                          sections={SECTION: person.shows}) for person in world.everybody]  # fmt: skip
    await analytics.insert("people", people_columns([decode_portrait(encode_json(each)) for each in portraits]))


async def differences(analytics: Analytics, world: World) -> AsyncIterator[Difference]:
    """Store a world, and say wherever the three do not agree about somebody who was heard of."""
    await store(analytics, world)
    zone, definitions = zone_named(world.zone), definitions_of(world)
    rules = Rules(list(definitions.values()), zone)
    heard_of = [person for person in world.everybody if person.told]
    live: dict[str, set[str]] = {}
    for person in world.people:
        live |= live_members(world, person, rules)
    naive = {person.key: naive_members(world, person) for person in heard_of}
    for name, definition in definitions.items():
        query = people_sql(definition.when, definitions, workspace=world.workspace, now_ms=world.now_ms, zone=zone)
        sql = {row["person"] for row in await analytics.query(*query, longest_s=LONGEST_S)}
        for person in heard_of:
            answers = name in live[person.key], person.key in sql, name in naive[person.key]
            if len(set(answers)) > 1:
                yield Difference(world, name, person, *answers)


async def forgotten(analytics: Analytics, world: World) -> list[str]:
    """Where ClickHouse knows another past than was remembered live, of a world that is stored."""
    zone = zone_named(world.zone)
    rules = Rules(list(definitions_of(world).values()), zone)
    live: dict[str, Memories] = {}
    for person in world.everybody:
        for told in person.told:
            rules.remember(live.setdefault(told.key, Memories()), told.event)
    read = await memories_of(analytics, list(rules.selectors.values()), zone, [*live], longest_s=LONGEST_S)
    return [f"{world.workspace} {key}: remembered {live[key].of}, read {read.get(key, {})}"
            for key in sorted(live) if live[key].of != read.get(key, {})]  # fmt: skip
