"""What an event may have turned is found by thresholds; asking everything anew finds no more."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.audiences import encoded, segments
from bench.contestants.segmented import Delivery, arrivals
from processors.answers import View
from processors.fold import Fold
from processors.memories import Memories, Memory, token_of
from processors.registry import load_processors
from processors.rules import Rules
from processors.values import NEVER_MS, zone_named
from schemas.conditions import read_condition
from schemas.internal import HEADERS, Define, encode_internal
from schemas.segments import Definition
from schemas.times import DAY_MS, HOUR_MS
from streams.segments import RULES_KEY
from streams.stage import CustomerStage

EVENTS = 2_000
NOW_MS = 1_000 * DAY_MS


def test_over_the_traffic_of_a_shop_nobody_is_missed_and_no_timer_comes_late():
    delivery = Delivery(CustomerStage(Fold(load_processors(Path("config"))), partitions=1, most_links=100))
    define = Define(to=RULES_KEY, origin="", at_ms=0, definitions=msgspec.Raw(encoded(segments(60))))
    delivery.bring([delivery.record(RULES_KEY.encode(), encode_internal(define), 0, HEADERS)], "events")
    judging = delivery.stage._judging
    assert judging is not None
    looked = 0

    for at_ms, key, value in arrivals(EVENTS):
        delivery.fire(at_ms)
        delivery.bring([delivery.record(key, value, at_ms)], "events")
        customer = delivery.held.records[key.decode()]
        if not customer.parts:
            continue
        attribute = lambda name: delivery.stage.fold.shown(customer.parts, name.split(".")[0]).get(name.split(".")[1])  # noqa: E731, B023
        view = View(judging.rules.view_of(judging._memories(customer)), attribute, set(), at_ms)
        judging.rules.judge(view, list(judging.rules.segments))
        assert view.members == set(customer.segments)
        assert view.due_ms >= (customer.judged_due_ms or NEVER_MS)
        looked += 1

    assert looked > EVENTS / 2 and delivery.timers > EVENTS / 20


def rules(**conditions: object) -> Rules:
    return Rules([Definition(name, read_condition(when)) for name, when in conditions.items()], zone_named("UTC"))


def changed(rules: Rules, *ago_ms: int) -> set[str]:
    """Who may be turned by the last of some orders, which came in this order."""
    from tests.streams.world import an_event

    memories, changes = Memories(), []
    for number, ago in enumerate(ago_ms):
        event = an_event(number, user="u", event="Order Completed")
        event.__dict__["at_ms"] = NOW_MS - ago
        changes = rules.remember(memories, event)
    return rules.turned(changes, [memories.of], NOW_MS)


@pytest.mark.parametrize(
    ("ago_ms", "turned"),
    [
        ([HOUR_MS], {"once"}),
        ([2 * HOUR_MS, HOUR_MS], {"twice"}),
        ([3 * HOUR_MS, 2 * HOUR_MS, HOUR_MS], set()),
        ([8 * DAY_MS, HOUR_MS], {"once"}),  # the one before has left the window
        ([HOUR_MS, 8 * DAY_MS], set()),  # one that comes late, from before the window
        ([HOUR_MS, 6 * DAY_MS], {"twice"}),
        ([8 * DAY_MS, HOUR_MS, 6 * DAY_MS], {"twice"}),
    ],
)
def test_a_count_turns_where_the_event_makes_it_so_many(ago_ms, turned):
    week = {"did": "Order Completed", "within": "7 days"}
    two = rules(once=week, twice={**week, "at_least": 2})

    assert changed(two, *ago_ms) == turned


def test_of_two_parts_that_know_of_the_same_event_everything_is_asked_anew():
    two = rules(once={"did": "Order Completed", "within": "7 days"})
    from tests.streams.world import an_event

    event = an_event(1, user="u", event="Order Completed")
    event.__dict__["at_ms"] = NOW_MS
    memories = Memories()
    changes = two.remember(memories, event)
    (id,) = memories.of
    other = {id: Memory([(NOW_MS - HOUR_MS, token_of("shop", "m1"), 0)])}

    assert two.turned(changes, [memories.of, other], NOW_MS) == {"once"}


def test_a_word_that_is_said_again_turns_nothing():
    from tests.streams.world import an_event

    one = rules(mobile={"context": "device.type", "is": "mobile"})
    memories, turned = Memories(), []
    for number, said in enumerate((b"mobile", b"mobile", b"desktop")):
        event = an_event(number, user="u")
        event.raw_context = msgspec.Raw(b'{"device":{"type":"%s"}}' % said)
        turned.append(one.turned(one.remember(memories, event), [memories.of], NOW_MS))

    assert turned == [{"mobile"}, set(), {"mobile"}]


def test_an_attribute_by_itself_is_what_is_shown_of_her():
    delivery = Delivery(CustomerStage(Fold(load_processors(Path("config"))), partitions=1, most_links=100))
    delivery.bring([delivery.record(key, value, at_ms) for at_ms, key, value in arrivals(EVENTS)], "events")
    fold, merged = delivery.stage.fold, 0

    for customer in delivery.held.records.values():
        merged += len(customer.parts) > 1
        for processor in ("profile", "visits", "orders"):
            shown = fold.shown(customer.parts, processor)
            assert fold.attributes(customer.parts, processor, list(shown)) == list(shown.values())

    assert merged > 3
