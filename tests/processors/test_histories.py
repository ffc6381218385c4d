"""Late, duplicate, shuffled, split and merged: the same person (point 7 of what must be shown)."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.acceptance import canonical, run, view
from processors.base import Person, Processor
from processors.fold import Fold
from processors.histories import PERSON
from processors.registry import load_processors
from schemas.customer import Part
from schemas.event import Event
from tests.processors.generators import everything

PROCESSORS = load_processors(Path("config"))
FOLD = Fold(PROCESSORS)
each = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: processor.name)


@each
@given(events=everything, random=st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_shuffled_and_doubled_events_make_the_same_person_and_the_same_rows(
    processor: Processor[Any], events: list[Event], random: Random
) -> None:
    disturbed = [event for event in events for _ in range(random.choice((1, 1, 2)))]
    random.shuffle(disturbed)

    ordered, found = run(processor, events), run(processor, disturbed, is_stored_each_time=True)

    assert view(processor, found.parts) == view(processor, ordered.parts)
    assert found.rows == ordered.rows


@each
@given(events=everything, random=st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_a_history_in_pieces_merges_to_the_whole_in_every_order(
    processor: Processor[Any], events: list[Event], random: Random
) -> None:
    pieces: list[list[Event]] = [[], [], []]
    for event in events:
        random.choice(pieces).append(event)

    whole, one, two, three = (_state(processor, piece) for piece in (events, *pieces))
    merged = [processor.merge(processor.merge(one, two), three), processor.merge(one, processor.merge(three, two)),
              processor.merge(three, processor.merge(two, one))]  # fmt: skip

    assert [processor.show(state) for state in merged] == [processor.show(whole)] * 3
    assert len({canonical(state) for state in merged}) == 1


def _state(processor: Processor[Any], events: list[Event]) -> Any:
    fold, part = Fold([processor]), Part()
    for event in events:
        fold.apply(part, event, Person(PERSON, event.key, 0), event.received_ms)
    return fold.view({"": part}, processor.name) or processor.State()
