"""Every processor keeps every law; and the suite catches those that do not."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors.acceptance import LAWS, Broken, accept, check
from processors.base import Person, Processor, Table
from processors.bounded import Said
from processors.registry import load_processors
from schemas.effects import Effect, Row
from schemas.event import Event

PROCESSORS = {processor.name: processor for processor in load_processors(Path("config"))}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", PROCESSORS)
def test_every_processor_keeps_every_law(name: str, law: str) -> None:
    LAWS[law](PROCESSORS[name], 1, 12)


def test_accept_says_nothing_of_a_processor_that_keeps_them_all() -> None:
    accept(PROCESSORS["visits"], seed=2, histories=4)


class Pages(msgspec.Struct, array_like=True):
    names: list[str] = []
    count: int = 0
    newest: Said = msgspec.field(default_factory=Said)


class PageRow(msgspec.Struct):
    name: str
    count: int


class Sound(Processor[Pages]):
    """A processor that keeps the laws; the others each break one of them."""

    name = "sound"
    about = "Counts pages and remembers the newest."
    wants = frozenset({"Page"})
    State = Pages
    tables = (Table("page_names", PageRow, ("name",), "Pages."),)
    cases = ({"case": "two", "events": [{"at": "2024-03-01", "type": "page", "name": "a"},
                                        {"at": "2024-03-02", "type": "page", "name": "b"}],
              "shows": {"count": 2, "newest": "b"}},)  # fmt: skip

    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.count += 1
        state.newest.hear(event.at_ms, event.message_id, event.name)
        return (Row(PageRow(event.name, 1)),)

    def merge(self, one: Pages, other: Pages) -> Pages:
        return Pages(sorted({*one.names, *other.names}), one.count + other.count, one.newest.or_newer(other.newest))

    def show(self, state: Pages) -> dict[str, Any]:
        return {"count": state.count, "newest": state.newest.text, "names": state.names}


class WrongCase(Sound):
    cases = ({"case": "three", "events": [{"at": "2024-03-01", "type": "page"}], "shows": {"count": 3}},)


class LastArrivalWins(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.newest = Said(1, "m", event.name)
        return ()


class RowsByArrival(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.count += 1
        return (Row(PageRow(event.name, state.count)),)


class Forgetful(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        self.seen = getattr(self, "seen", 0) + 1  # kept beside the state: gone after a restart, shared by all persons
        state.count = self.seen
        return ()


class MergeOfOne(Sound):
    def merge(self, one: Pages, other: Pages) -> Pages:
        return one


class MergeInPlace(Sound):
    def merge(self, one: Pages, other: Pages) -> Pages:
        one.count += other.count
        one.newest = one.newest.or_newer(other.newest)
        return one


class ShowsDates(Sound):
    def show(self, state: Pages) -> dict[str, Any]:
        return {**super().show(state), "at": datetime(2024, 3, 1, tzinfo=UTC)}


class ReadsTheClock(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        if time.time() > 0:
            state.count += 1
        return ()


class ReadsTheDate(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        if datetime.now(UTC).year > 1:
            state.count += 1
        return ()


class RollsDice(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        random.random()
        state.count += 1
        return ()


class ReadsAFile(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        with open(__file__):  # noqa: PTH123
            state.count += 1
        return ()


class KeepsSets(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.names = list({*state.names, event.name, *(f"{event.name}{letter}" for letter in "abcdefgh")})
        return ()


class KeepsAll(Sound):
    def apply(self, state: Pages, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.names.append(event.message_id)
        state.names.sort()
        return ()


BROKEN = {
    "its cases hold": [WrongCase],
    "the order of arrival does not matter": [LastArrivalWins, RowsByArrival],
    "a restart after any event changes nothing": [Forgetful],
    "merging the pieces of a history is folding it whole, in every order": [MergeOfOne, MergeInPlace],
    "what it shows is plain JSON, and showing changes nothing": [ShowsDates],
    "it asks nothing but its arguments": [ReadsTheClock, ReadsTheDate, RollsDice, ReadsAFile],
    "hash seeds do not matter": [KeepsSets],
    "its state is bounded": [KeepsAll],
}


def test_a_sound_processor_passes() -> None:
    assert [verdict for verdict in check(Sound(), seed=3) if not verdict.is_kept] == []


@pytest.mark.parametrize(("law", "broken"), [(law, one) for law, all_ in BROKEN.items() for one in all_],
                         ids=lambda value: getattr(value, "__name__", None))  # fmt: skip
def test_a_law_that_is_broken_is_found(law: str, broken: type[Sound]) -> None:
    with pytest.raises((Broken, TypeError), match=r".+"):
        LAWS[law](broken(), 3, 6)


def test_accept_names_the_processor_and_the_law() -> None:
    with pytest.raises(Broken, match=r'processor sound: its cases hold: case "three": count is 1, not 3'):
        accept(WrongCase(), histories=1)
