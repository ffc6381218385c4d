"""When coupons are asked for: on an event, on joining a segment, by somebody; and when one was used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from config.coupons import CampaignRead
from processors.fold import Fold
from processors.profile import Profile
from processors.segments import Segments
from schemas.conditions import read_condition
from schemas.coupons import Campaign, Give, Redeem
from schemas.event import Event
from schemas.internal import Coupon, Define
from schemas.segments import Definitions, Said, encode_definitions
from streams.giving import Giving
from streams.segments import RULES_KEY
from tests.streams.world import START, TallyProcessor, World

SPEND = {"did": "Order Completed", "where": {"total": {"at_least": 100}, "currency": "EUR"}}


def campaign(name: str, when: dict[str, Any] | None) -> CampaignRead:
    made = Campaign(name=name, prefix="X", length=10, worth=1, unit="EUR", expires="1 day", expires_after_ms=1)
    return CampaignRead(made, (), read_condition(when) if when is not None else None)


def a_world(*campaigns: CampaignRead, partitions: int = 3) -> World:
    fold = Fold([TallyProcessor(), Profile(), Segments()])
    return World(fold=fold, partitions=partitions, giving=Giving(campaigns, "shop"))


def an_event(
    name: str = "Order Completed", user: str = "ada", *, id_: str = "m1", late_days: float = 0, source: str = "web",
    workspace: str = "shop", anonymous: str = "", **said: Any,
) -> Event:  # fmt: skip
    return Event(message_id=id_, type="track", event=name, workspace=workspace, source=source, user_id=user,
                 anonymous_id=anonymous, timestamp=START - timedelta(days=late_days), received_at=START,
                 raw_properties=msgspec.Raw(msgspec.json.encode(said)))  # fmt: skip


def told(world: World, *events: Event) -> list[Any]:
    for event in events:
        world.send(event)
    world.settle()
    taken, world.coupons = world.coupons, []
    return taken


def who(asked: Iterable[Any]) -> list[tuple[str, str]]:
    return sorted((each.campaign, each.person) for each in asked if isinstance(each, Give))


def test_an_order_of_a_hundred_is_given_a_coupon_and_no_other():
    world = a_world(campaign("spring", SPEND), campaign("by_hand", None))

    asked = told(
        world, an_event(total=100, currency="EUR"), an_event(id_="m2", user="bob", total=99.99, currency="EUR"),
        an_event(id_="m3", user="eve", total=200, currency="USD"), an_event("Refund", id_="m4", total=100),
    )  # fmt: skip

    assert who(asked) == [("spring", "shop/u:ada")]
    assert asked[0].cause == "event Order Completed" and asked[0].workspace == "shop"


def test_an_event_that_comes_twice_asks_once_and_two_ask_twice():
    world = a_world(campaign("spring", SPEND))
    one, other = (an_event(id_=id_, total=100, currency="EUR") for id_ in ("m1", "m2"))

    asked = told(world, one, one, other)

    assert len(asked) == 2 and len({each.request for each in asked}) == 2


def test_history_other_workspaces_and_what_we_say_ourselves_give_nothing():
    world = a_world(campaign("spring", SPEND))
    of = {"total": 100, "currency": "EUR"}

    asked = told(world, an_event(late_days=7.1, **of), an_event(id_="m2", workspace="other", **of),
                 an_event(id_="m3", source="tidewire", **of))  # fmt: skip
    in_time = told(world, an_event(id_="m4", late_days=6.9, **of))

    assert asked == [] and who(in_time) == [("spring", "shop/u:ada")]


def test_who_joins_a_segment_is_given_its_coupon():
    world = a_world(campaign("thanks", {"segment": "twice"}), partitions=1)
    twice = Said(name="twice", version=1, when={"did": "Order Completed", "at_least": 2}, is_live=True)
    definitions = encode_definitions(Definitions(zone="UTC", definitions=[twice]))
    world.tell(Define(to=RULES_KEY, origin="x", at_ms=0, definitions=msgspec.Raw(definitions)))

    first = told(world, an_event(id_="m1"))
    second = told(world, an_event(id_="m2"), an_event(id_="m3"))

    assert first == [] and who(second) == [("thanks", "shop/u:ada")]
    assert second[0].cause == "segment twice"


def test_a_request_follows_a_merge_and_names_all_keys_that_are_hers():
    world = a_world()
    told(world, an_event("Seen", user="", anonymous="v"), an_event("Seen", id_="m2", anonymous="v"))

    world.tell(Coupon(to="shop/a:v", origin="", at_ms=0, campaign="spring", request="r1", cause="ann"))
    (asked,) = told(world)

    assert asked == Give(workspace="shop", campaign="spring", person="shop/u:ada", keys=["shop/a:v"], request="r1",
                         cause="ann")  # fmt: skip


def test_a_code_that_is_used_is_told_with_all_keys_of_hers():
    world = a_world()

    told(world, an_event("Seen", user="", anonymous="v"), an_event("Seen", id_="m2", anonymous="v"))
    used = told(world, an_event(id_="m3", coupon="SPRING-X", order_id=17),
                an_event("Coupon Redeemed", id_="m4", code="SPRING-Y"))  # fmt: skip

    hers = Redeem(workspace="shop", code="SPRING-X", person="shop/u:ada", keys=["shop/a:v"], event="m3", order="17",
                  at_ms=int(START.timestamp() * 1000))  # fmt: skip
    assert used == [hers, msgspec.structs.replace(hers, code="SPRING-Y", event="m4", order="")]


def test_what_is_no_code_is_none():
    world = a_world()

    assert told(world, *(an_event(id_=f"m{number}", coupon=code) for number, code in
                         enumerate([None, "", "  ", 7, ["A"], {"a": 1}, "x" * 201]))) == []  # fmt: skip
