"""What the stage does with one record: refusals, duplicates, and events that are sent again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from processors.fold import Fold
from processors.registry import load_processors
from schemas.event import Event
from tests.streams.world import World, an_event


@pytest.fixture
def world() -> World:
    return World(fold=Fold(load_processors(Path("config"))))


def an_order(total: str, *, attempt: int = 0, source: str = "shop") -> Event:
    order = an_event(1, user="u", message_id="m-order", event="Order Completed")
    order.raw_properties = msgspec.Raw(msgspec.json.encode({"order_id": "o1", "total": total, "currency": "EUR"}))
    order.attempt, order.source = attempt, source
    return order


def orders_of(world: World) -> int:
    return int(world.people()["w/u:u"][1].get("orders", {"orders": 0})["orders"])  # type: ignore[call-overload,attr-defined,index]


def test_a_refused_event_changes_nothing_and_is_kept_with_the_reason(world: World):
    world.send(an_order("abc"))

    world.settle()

    (letter,) = world.rejected.values()
    assert (letter.processor, letter.field, letter.value) == ("orders", "properties.total", "abc")
    assert (letter.topic, letter.offset, letter.message_id, letter.key) == ("events", 0, "m-order", "w/u:u")
    assert world.people() == {}


def test_a_refused_event_claims_no_other_id(world: World):
    order = an_order("abc")
    order.anonymous_id = "phone"
    world.send(order)
    world.send(an_event(2, anonymous="phone"))

    world.settle()

    assert set(world.people()) == {"w/a:phone"}


def test_the_same_message_id_again_is_the_same_message_even_if_it_was_corrected(world: World):
    world.send(an_order("abc"))
    world.send(an_order("12.50"))

    world.settle()

    assert world.people() == {}
    assert world.stage.counts["duplicates"] == 1


def test_a_mended_event_that_is_sent_again_counts_once(world: World):
    for event in (an_order("abc"), an_order("12.50", attempt=1), an_order("12.50", attempt=1), an_order("abc")):
        world.send(event)

    world.settle()

    assert orders_of(world) == 1
    assert len(world.rejected) == 1


def test_an_event_its_client_mended_itself_is_not_counted_again_when_its_letter_is_sent_again(world: World):
    for event in (an_order("12.50"), an_order("12.50", attempt=1)):  # the collector had refused a first one
        world.send(event)

    world.settle()

    assert orders_of(world) == 1
    assert world.stage.counts["duplicates"] == 1


def test_two_sources_may_use_the_same_message_id(world: World):
    for source in ("web", "app"):
        event = an_event(1, user="u", message_id="1", event="Seen")
        event.source = source
        world.send(event)

    world.settle()

    assert world.stage.counts["applied"] == 2
