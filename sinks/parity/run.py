"""Holds the three against each other."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from processors.answers import View
from processors.memories import Memories, Memory
from processors.rules import Rules
from processors.segments import Segments
from processors.values import zone_named
from schemas.conditions import read_condition
from schemas.segments import Definition
from schemas.times import from_ms
from sinks.analytics import Analytics
from sinks.conditions import people_sql
from sinks.events import event_columns
from sinks.memories import read_memories
from sinks.migrate import migrate
from sinks.parity.naive import Naive
from sinks.parity.worlds import Person, World, a_world

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


def live_members(world: World, person: Person, rules: Rules) -> set[str]:
    """The segments she is in after everything was told, one event after the other, and time went on to the end."""
    parts: dict[str, Memories] = {key: Memories() for key in person.keys}
    members: set[str] = set()
    def judge(now_ms: int, names: Sequence[str]) -> int:
        view = View(rules.view_of(memories()), lambda name: None, members, now_ms)
        rules.judge(view, names)
        return view.due_ms

    def memories() -> list[Mapping[str, Memory]]:
        return [part.of for part in parts.values()]

    due_ms = judge(0, list(rules.segments))  # everybody is judged once, when the segments begin

    def wait_until(moment_ms: int) -> None:
        nonlocal due_ms
        while due_ms <= moment_ms:
            due_ms = judge(due_ms, rules.timely(memories()))

    for told in person.told:
        now_ms = told.event.received_ms
        wait_until(now_ms)
        changes = rules.remember(parts[told.key], told.event)
        turned = rules.turned(changes, memories(), now_ms)
        due_ms = min(due_ms, judge(now_ms, rules.in_order(turned)))
    wait_until(world.now_ms)
    return members


def naive_members(world: World, person: Person) -> set[str]:
    plain = {name: _plain(said) for name, said in world.segments.items()}
    naive = Naive(person.events, plain, from_ms(world.now_ms), world.zone)
    return {name for name, said in plain.items() if naive.is_true(said)}


def _plain(said: Any) -> Any:
    """A condition as it is understood: with the short forms written out."""
    return read_condition(said).model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Fuzzed:
    """What came of so many cases, each one condition over the people of a world."""

    cases: int
    differences: list[Difference]


async def fuzz(cases: int, seed: int) -> AsyncIterator[Fuzzed]:
    """Make so many cases and hold the three against each other; tells on the way how far it is.

    They need a ClickHouse of their own, which is made for it and forgotten.
    """
    with tempfile.TemporaryDirectory(prefix="tidewire-fuzz-") as folder:
        analytics = Analytics(f"chdb:{folder}/clickhouse")
        try:
            await migrate(analytics, Segments.tables)
            done, found, rng = 0, [], Random(seed)
            while done < cases:
                world = a_world(rng, f"w{done}", segments=min(SEGMENTS, cases - done))
                found += [each async for each in differences(analytics, world)]
                done += len(world.segments)
                yield Fuzzed(done, found)
        finally:
            await analytics.close()


async def store(analytics: Analytics, world: World) -> None:
    """Put the histories into ClickHouse, as often as they were told, and whose the keys are."""
    events = [told.event for person in world.people for told in person.told]
    if events:
        columns = event_columns(events)
        columns["key"] = [told.key for person in world.people for told in person.told]
        await analytics.insert("events", columns)
    merged = [(person, key) for person in world.people for key in person.keys[1:]]
    if merged:
        await analytics.insert("identities", {
            "workspace": [world.workspace] * len(merged), "key": [key for _, key in merged],
            "person": [person.key for person, _ in merged], "moves": [1] * len(merged),
            "evidence": [""] * len(merged), "linked_at": [None] * len(merged),
        })  # fmt: skip


async def differences(analytics: Analytics, world: World) -> AsyncIterator[Difference]:
    """Store a world, and say wherever the three do not agree about somebody who was heard of."""
    await store(analytics, world)
    zone, definitions = zone_named(world.zone), definitions_of(world)
    rules = Rules(list(definitions.values()), zone)
    heard_of = [person for person in world.people if person.told]
    live = {person.key: live_members(world, person, rules) for person in heard_of}
    naive = {person.key: naive_members(world, person) for person in heard_of}
    for name, definition in definitions.items():
        query = people_sql(definition.when, definitions, workspace=world.workspace, now_ms=world.now_ms, zone=zone)
        sql = {row["person"] for row in await analytics.query(*query)}
        for person in heard_of:
            answers = name in live[person.key], person.key in sql, name in naive[person.key]
            if len(set(answers)) > 1:
                yield Difference(world, name, person, *answers)


async def forgotten(analytics: Analytics, world: World) -> list[str]:
    """Where ClickHouse knows another past than was remembered live, of a world that is stored."""
    zone = zone_named(world.zone)
    rules = Rules(list(definitions_of(world).values()), zone)
    live: dict[str, Memories] = {}
    for person in world.people:
        for told in person.told:
            rules.remember(live.setdefault(told.key, Memories()), told.event)
    read: dict[str, Memories] = {}
    selectors = list(rules.selectors.values())
    if selectors:
        async for people in read_memories(analytics, selectors, zone, at_once=10):
            ours = [key for key in people if key.startswith(f"{world.workspace}/")]
            read |= {key: Memories(people[key]) for key in ours}
    return [
        f"{world.workspace} {key}: remembered {live.get(key)}, read {read.get(key)}"
        for key in sorted({*live, *read})
        if live.get(key, Memories()).of != read.get(key, Memories()).of
    ]
