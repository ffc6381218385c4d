"""The second model of journeys, against the engine in memory: what row 34 compares on real processes, in a second.

Partitions crash in the middle, and who is merged is on the way while timers fire. And without a guard the model sees
what comes of it, so that a green row means something.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice

import msgspec
import pytest

from schemas import conditions
from schemas.intake import Arrival, read_event
from schemas.internal import HEADERS, Tick, encode_internal
from schemas.journeys import Mail
from schemas.times import from_ms
from streams import journey_turn, leading
from tests.faults.journeys_model import FILES, LONGEST_MS, MINUTE_MS, MOST_MARKETING, Findings, differences, truth_of
from tests.faults.rows_journeys import shoppers
from tests.faults.without import GUARDS
from tests.journeys import shop as shops
from tests.journeys.shop import Shop

TICK_MS = 1_000


class Busy(Shop):
    """A shop that people are in while partitions crash."""

    def tick(self) -> None:
        """As the worker does each second."""
        due = [key for owner in self.owners for key, customer in owner.records.items()
               if 0 < self.stage.next_due_ms(customer) <= self.clock_ms]  # fmt: skip
        for key in due:
            self._append(key, encode_internal(Tick(to=key, origin="", at_ms=self.clock_ms)), HEADERS)

    def live(self, seed: int, events: int) -> None:
        dice, ticked_ms = random.Random(seed), self.clock_ms
        for call in islice(shoppers(dice, 0), events):
            self.clock_ms += dice.randrange(100)
            if self.clock_ms >= ticked_ms + TICK_MS:
                ticked_ms = self.clock_ms
                self.tick()
            arrival = Arrival(workspace="w", source="shop", received_at=from_ms(self.clock_ms))
            self.send(read_event(json.dumps(call).encode(), "", arrival))
            self.settle(crash=0.02, turns=dice.randrange(6))
        for _ in range(0, LONGEST_MS + 4 * TICK_MS, TICK_MS):
            self.settle(crash=0.02)
            self.clock_ms += TICK_MS
            self.tick()
        self.settle()

    def findings(self) -> Findings:
        events = [record for log in self.logs for record in log]
        sent = {topic: [record for record in self.gone_out if record.topic == topic]
                for topic in ("decisions", "messages")}  # fmt: skip
        rows = [msgspec.structs.asdict(row.values) for (table, _, _), (_, _, row) in self.rows.items()
                if table == "journey_runs"]  # fmt: skip
        return differences(truth_of(events), events=events, rows=rows, **sent,
                           could_fire=lambda due_ms: due_ms)  # fmt: skip


@pytest.fixture
def open_shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Busy]]:
    monkeypatch.setitem(conditions._UNITS_MS, "minute", MINUTE_MS)
    monkeypatch.setitem(shops.MAILS, "offer", Mail("inbox", "marketing", "offers"))
    monkeypatch.setitem(shops.MAILS, "basket", Mail("inbox", "transactional"))
    monkeypatch.setattr(journey_turn, "effect_id", journey_turn.effect_id)  # what guards replace is put back
    monkeypatch.setattr(leading.Leading, "on_due", leading.Leading.on_due)
    return Busy


def open_for(kind: type[Busy], seed: int) -> Busy:
    journeys = {name.removeprefix("journeys/").removesuffix(".yaml"): text for name, text in FILES.items()
                if name.startswith("journeys/")}  # fmt: skip
    return kind(seed, partitions=4, limits={"caps": [{"at_most": MOST_MARKETING, "within": "1 day"}]}, **journeys)


@pytest.mark.parametrize("seed", range(3))
def test_the_engine_does_what_the_model_says(open_shop: type[Busy], seed: int):
    shop = open_for(open_shop, seed)

    shop.live(seed, 400)
    found = shop.findings()

    assert (found.wrong, found.lost, found.doubled) == ([], 0, 0)
    assert 0 < found.latest_ms <= 3 * TICK_MS
    assert len(shop.gone_out) > len({record.value for record in shop.gone_out})  # something was done again
    assert {line.kind for line in shop.lines()} == {
        "entered", "not_entered", "waits", "woke", "timed_out", "happened", "proposed", "refused", "updated", "opened",
        "goal", "left"}  # fmt: skip


@pytest.mark.parametrize("guard", ["run_ids", "due"])
def test_without_a_guard_the_model_sees_it(open_shop: type[Busy], guard: str):
    shop = open_for(open_shop, 1)
    GUARDS[guard]()

    shop.live(1, 400)
    found = shop.findings()

    assert found.doubled
    assert found.wrong
