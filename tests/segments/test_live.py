"""Segments in the customer stage: who joins, who leaves, and why; whatever happens to the log in between."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from processors.base import Person
from processors.fold import Fold
from processors.memories import Memories, Memory, token_of
from processors.segments import Segments
from processors.selectors import selector_of
from schemas.conditions import read_condition
from schemas.effects import Timer
from schemas.event import Event
from schemas.internal import HEADERS, Backfill, Define, Sweep, Tick, encode_internal
from schemas.keyed import encode_state
from schemas.segments import Definitions, Said, encode_definitions
from schemas.times import DAY_MS, HOUR_MS, from_ms, to_ms
from streams.segments import RULES_KEY
from tests.streams.world import START, Tally, TallyProcessor, World

START_MS = to_ms(START)
BUYERS = {"did": "Order Completed", "at_least": 2, "within": "30 days"}
SLEEPERS = {"not": {"did": "Order Completed", "within": "30 days"}}


class Shop(World):
    """A world with segments, and a clock."""

    def __init__(self, seed: int = 0, fold: Fold | None = None, **segments: Any) -> None:
        super().__init__(seed, fold=fold or Fold([Segments()]))
        self.clock_ms = START_MS
        self.count = 0
        if segments:
            self.define(**segments)

    def define(self, *, is_live: bool = True, version: int = 1, **segments: Any) -> None:
        self.say(is_live=is_live, version=version, **segments)
        self.settle()

    def say(self, *, is_live: bool = True, version: int = 1, **segments: Any) -> None:
        said = [Said(name=name, version=version, when=when, is_live=is_live) for name, when in segments.items()]
        definitions = msgspec.Raw(encode_definitions(Definitions(zone="UTC", definitions=said)))
        for partition in range(len(self.logs)):
            define = Define(to=RULES_KEY, origin="", at_ms=0, definitions=definitions)
            self._append(RULES_KEY, encode_internal(define), HEADERS, partition)

    def sweep(self) -> None:
        self.begin_sweep()
        self.settle()

    def begin_sweep(self) -> None:
        for partition in range(len(self.logs)):
            sweep = Sweep(to=RULES_KEY, origin="", at_ms=0, sweep="first")
            self._append(RULES_KEY, encode_internal(sweep), HEADERS, partition)

    def did(self, user: str, event: str = "Order Completed", *, days_ago: float = 0, message_id: str = "",
            anonymous: str = "", previous: str = "") -> None:  # fmt: skip
        self.count += 1
        at = from_ms(self.clock_ms) - timedelta(days=days_ago)
        self.send(Event(message_id=message_id or f"m{self.count}", type="alias" if previous else "track", workspace="w",
                        source="shop", timestamp=at, received_at=from_ms(self.clock_ms), user_id=user,
                        anonymous_id=anonymous, previous_id=previous, event="" if previous else event))  # fmt: skip
        self.settle()

    def wait(self, days: float) -> None:
        """Time passes, and timers fire when they are due."""
        until_ms = self.clock_ms + round(days * DAY_MS)
        while True:
            dues = [(self.stage.next_due_ms(customer), key) for owner in self.owners
                    for key, customer in owner.records.items()]  # fmt: skip
            due_ms, key = min(((due, key) for due, key in dues if due), default=(until_ms + 1, ""))
            if due_ms > until_ms:
                break
            self.clock_ms = max(self.clock_ms, due_ms)
            self._append(key, encode_internal(Tick(to=key, origin="", at_ms=self.clock_ms)), HEADERS)
            self.settle()
        self.clock_ms = until_ms

    def members(self, segment: str) -> set[str]:
        return {key.removeprefix("w/") for owner in self.owners for key, customer in owner.records.items()
                if segment in customer.segments}  # fmt: skip

    def balance(self) -> dict[tuple[str, str], int]:
        """How much more often each person joined a segment than left it, by the ledger; who is even is left out."""
        balance = Counter[tuple[str, str]]()
        for line in self.decisions.values():
            if line.kind in ("joined", "left"):
                balance[line.person, line.about] += 1 if line.kind == "joined" else -1
        return {each: count for each, count in balance.items() if count}

    def now_in(self) -> dict[tuple[str, str], int]:
        """Who is in what, each once."""
        return {(key, name): 1 for owner in self.owners for key, customer in owner.records.items()
                for name in customer.segments}  # fmt: skip

    def memberships(self) -> dict[tuple[str, object], bool]:
        """Which rows of `memberships` there are, and whether they still stand."""
        return {(part, key): not row.is_deleted for (_, part, key), (_, _, row) in self.rows.items()}

    def ledger(self, kind: str) -> list[tuple[str, str, str]]:
        lines = sorted(self.decisions.values(), key=lambda line: line.at)
        return [(line.person.removeprefix("w/"), line.about, str(line.facts["why"])) for line in lines
                if line.kind == kind]  # fmt: skip


def test_an_event_lets_her_join_and_time_alone_lets_her_leave():
    shop = Shop(buyers=BUYERS)

    shop.did("ann", days_ago=10)
    assert shop.members("buyers") == set()
    shop.did("ann")
    assert shop.members("buyers") == {"u:ann"}
    shop.wait(19.99)
    assert shop.members("buyers") == {"u:ann"}
    shop.wait(0.02)

    assert shop.members("buyers") == set()
    assert shop.ledger("joined") == [("u:ann", "buyers", "event")]
    assert shop.ledger("left") == [("u:ann", "buyers", "time")]
    (left,) = [line for line in shop.decisions.values() if line.kind == "left"]
    assert left.at == START + timedelta(days=20)  # to the millisecond


def test_time_alone_lets_her_join_too():
    shop = Shop(sleepers=SLEEPERS)

    shop.did("ann")
    assert shop.members("sleepers") == set()
    shop.wait(31)

    assert shop.members("sleepers") == {"u:ann"}
    shop.did("ann")
    assert shop.members("sleepers") == set()


def test_of_a_new_person_something_is_true_already():
    shop = Shop(sleepers=SLEEPERS)

    shop.did("ann", "Seen")

    assert shop.members("sleepers") == {"u:ann"}
    assert shop.ledger("joined") == [("u:ann", "sleepers", "event")]


def test_a_late_event_changes_the_past():
    shop = Shop(went={"sequence": [{"did": "A"}, {"did": "B", "without": {"did": "C"}}]})
    shop.did("ann", "A", days_ago=3)
    shop.did("ann", "B", days_ago=1)
    assert shop.members("went") == {"u:ann"}

    shop.did("ann", "C", days_ago=2)

    assert shop.members("went") == set()


def test_people_who_sleep_are_found_when_a_segment_is_new():
    shop = Shop()
    shop.did("ann", days_ago=40)
    shop.did("bob", days_ago=1)
    shop.define(sleepers=SLEEPERS, is_live=False)
    selector = selector_of(read_condition(SLEEPERS["not"]), "UTC")
    assert selector is not None
    for user, days, message in (("ann", 40, "m1"), ("bob", 1, "m2")):
        memory = Memory([(START_MS - days * DAY_MS, token_of("shop", message), 0)])
        backfill = Backfill(to=f"w/u:{user}", origin="", at_ms=0, part=f"w/u:{user}",
                            memories=encode_state(Memories({selector.id: memory})))  # fmt: skip
        shop._append(f"w/u:{user}", encode_internal(backfill), HEADERS)

    shop.define(sleepers=SLEEPERS)
    assert shop.members("sleepers") == set()
    shop.sweep()

    assert shop.members("sleepers") == {"u:ann"}
    assert shop.ledger("joined") == [("u:ann", "sleepers", "definition")]
    assert {(line.about, line.facts["partition"]) for line in shop.decisions.values() if line.kind == "swept"} == {
        ("first", partition) for partition in range(len(shop.logs))
    }
    shop.wait(30)
    assert shop.members("sleepers") == {"u:ann", "u:bob"}


def test_an_edited_segment_lets_go_of_who_is_in_it_no_more():
    shop = Shop(buyers={"did": "Order Completed"}, twice={"segment": "buyers"})
    shop.did("ann")
    assert shop.members("twice") == {"u:ann"}

    shop.define(version=2, buyers={"did": "Order Completed", "at_least": 2}, twice={"segment": "buyers"})
    shop.sweep()

    assert shop.members("buyers") == shop.members("twice") == set()
    shop.did("ann")
    shop.did("ann")
    assert shop.members("twice") == {"u:ann"}


def test_a_segment_that_is_gone_is_left_by_everybody():
    shop = Shop(buyers={"did": "Order Completed"}, others={"did": "Seen"})
    shop.did("ann")

    shop.define(others={"did": "Seen"})
    shop.sweep()

    assert shop.members("buyers") == set()
    assert shop.ledger("left") == [("u:ann", "buyers", "definition")]


def test_merged_people_are_one_member_and_unmerged_ones_two():
    shop = Shop(buyers=BUYERS)
    shop.did("ann")
    shop.did("", anonymous="x")
    assert shop.members("buyers") == set()

    shop.did("ann", previous="x")
    shop.did("ann", "Seen", anonymous="x")

    assert shop.members("buyers") == {"u:ann"}
    shop.unmerge("w/a:x")
    shop.settle()
    assert shop.members("buyers") == set()


def test_a_member_who_is_merged_into_another_leaves():
    shop = Shop(buyers={"did": "Order Completed"})
    shop.did("", anonymous="x")
    assert shop.members("buyers") == {"a:x"}

    shop.did("ann", "Seen", anonymous="x")

    assert shop.members("buyers") == {"u:ann"}


def test_a_duplicate_counts_once():
    shop = Shop(buyers=BUYERS)

    shop.did("ann", message_id="same")
    shop.did("ann", message_id="same")

    assert shop.members("buyers") == set()


def test_a_clock_that_goes_back_changes_no_answer():
    shop = Shop(buyers={"did": "Order Completed", "within": "2 hours"})
    shop.did("ann")
    shop.wait(3 * HOUR_MS / DAY_MS)
    assert shop.members("buyers") == set()

    shop.clock_ms -= 2 * HOUR_MS
    shop.did("ann", "Seen")

    assert shop.members("buyers") == set()


def test_an_event_and_the_merge_that_it_causes_are_two_decisions():
    """Both follow from one record, and are about one person."""
    shop = Shop(lead={"did": "Signed Up"}, visitor={"did": "Seen"})
    shop.did("", "Seen", anonymous="x")

    shop.did("ann", "Signed Up", anonymous="x")

    assert sorted(shop.ledger("joined")) == [
        ("a:x", "visitor", "event"), ("u:ann", "lead", "event"), ("u:ann", "visitor", "absorb")
    ]  # fmt: skip
    assert shop.balance() == shop.now_in()


@pytest.mark.parametrize("seed", range(20))
def test_crashes_change_nothing(seed: int):
    """Whatever is done again after a crash is decided again as it was, under the same ids."""
    shops = []
    for crash in (0.0, 0.2):
        shop = Shop(seed)
        shop.define(buyers=BUYERS, sleepers=SLEEPERS, chain={"segment": "buyers"})
        for number in range(30):
            shop.clock_ms += HOUR_MS
            user, anonymous = (f"u{number % 4}", "") if number % 3 else ("", f"a{number % 4}")
            if number % 10 == 9:
                user, anonymous = f"u{number % 4}", f"a{number % 4}"
            event = Event(message_id=f"m{number}", type="track", workspace="w", source="shop", user_id=user,
                          anonymous_id=anonymous,
                          timestamp=from_ms(shop.clock_ms), received_at=from_ms(shop.clock_ms),
                          event="Order Completed" if number % 3 else "Seen")  # fmt: skip
            shop.send(event)
        shop.settle(crash=crash)
        shops.append(shop)

    quiet, shaken = shops
    for shop in shops:
        assert shop.balance() == shop.now_in()
    assert shaken.decisions == quiet.decisions
    assert shaken.memberships() == quiet.memberships()  # an older row that is written again hides no newer one
    assert [shaken.members(name) for name in ("buyers", "sleepers", "chain")] == [
        quiet.members(name) for name in ("buyers", "sleepers", "chain")
    ]


@pytest.mark.parametrize("crash", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(20))
def test_a_sweep_judges_everybody_once_whoever_is_born_and_whatever_crashes(
    seed: int, crash: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("streams.stage.MOST_SWEPT", 2)
    shop = Shop(seed)
    for number in range(60):
        shop.clock_ms += HOUR_MS
        if number == 30:
            shop.say(buyers=BUYERS, everybody={"not": {"did": "Nothing"}})
            shop.begin_sweep()
        event = "Order Completed" if number % 3 else "Seen"
        shop.send(Event(message_id=f"m{number}", type="track", workspace="w", source="shop", anonymous_id="",
                        user_id=f"u{number * 37 % 50}", event=event, timestamp=from_ms(shop.clock_ms),
                        received_at=from_ms(shop.clock_ms)))  # fmt: skip
        shop.settle(crash=crash, turns=2)
    shop.settle(crash=crash)

    assert shop.members("everybody") == {f"u:u{number}" for number in range(50)}
    assert shop.balance() == shop.now_in()
    assert {line.facts["partition"] for line in shop.decisions.values() if line.kind == "swept"} == {0, 1, 2}


class ProudProcessor(TallyProcessor):
    """Has a fault in what it shows."""

    name = "proud"

    def show(self, state: Tally) -> dict[str, object]:
        raise ValueError("boom")


def test_a_processor_that_cannot_show_costs_its_attributes_and_nobody_else():
    shop = Shop(fold=Fold([ProudProcessor(), Segments()]), buyers={"did": "Order Completed"},
                proud={"attribute": "proud.messages", "exists": True})  # fmt: skip

    shop.did("ann")

    assert shop.members("buyers") == {"u:ann"}
    assert shop.members("proud") == set()


class FickleProcessor(TallyProcessor):
    """Changes its mind when its timer fires."""

    name = "fickle"

    def apply(self, state: Tally, event: Event, person: Person, now_ms: int) -> tuple[Timer]:
        return (Timer("mind", now_ms + HOUR_MS),)

    def on_timer(self, state: Tally, timer: str, person: Person, now_ms: int) -> tuple[()]:
        state.messages["changed"] = 1
        return ()


def test_what_a_processors_timer_changes_is_judged_then():
    shop = Shop(fold=Fold([FickleProcessor(), Segments()]),
                fickle={"attribute": "fickle.messages.changed", "is": 1})  # fmt: skip
    shop.did("ann")
    assert shop.members("fickle") == set()

    shop.wait(1)

    assert shop.members("fickle") == {"u:ann"}
    assert shop.ledger("joined") == [("u:ann", "fickle", "time")]
