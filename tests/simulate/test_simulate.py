"""The simulator: the same plan gives the same bytes, every call is a good call, and what was planted is there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event import EVENT_TYPES, LARGEST_EVENT_BYTES, LONGEST_MESSAGE_ID
from schemas.keys import is_blocked
from schemas.times import DAY_MS, to_ms
from streams.simulate import TRUTHS, Made, Plan, Shop, deliveries
from streams.simulate.delivery import LATEST_MS
from streams.simulate.truths import GOLD_AFTER_ORDERS, HOURS, LEAVES_AFTER_BAD_RATING, TOGETHER

pytestmark = pytest.mark.together

END = date(2026, 11, 1)

plans = st.builds(
    Plan,
    people=st.integers(0, 25),
    days=st.integers(1, 60),
    seed=st.integers(0, 2**64),
    end=st.dates(date(1990, 1, 1), date(2037, 1, 1)),
    disorder=st.floats(0, 1),
    duplicates=st.floats(0, 1),
)


BIG = Plan(people=1_500, days=150, seed=7, end=END)


@pytest.fixture(scope="module")
def run() -> tuple[list[dict], list[dict]]:
    shop = Shop(BIG)
    return [json.loads(call.body, parse_float=Decimal) for call in shop.calls()], list(shop.facts())


@pytest.fixture
def big(run) -> list[dict]:
    """The calls of a history that is long enough to measure in."""
    return run[0]


@pytest.fixture
def facts(run) -> list[dict]:
    """What is true of its people and no call says."""
    return run[1]


def visits_of(calls: list[dict], facts: list[dict]) -> list[list[int]]:
    """For each person the times of all her visits, on whatever device and whether she was known or not."""
    owner = {device: number for number, fact in enumerate(facts) for device in fact["anonymous_ids"]}
    visits: list[list[int]] = [[] for _ in facts]
    for call in calls:
        if call.get("name") == "Home":
            visits[owner[call["anonymousId"]]].append(to_ms(datetime.fromisoformat(call["timestamp"])))
    return visits


@settings(max_examples=25, deadline=None)
@given(plans)
def test_the_same_plan_gives_the_same_bytes(plan):
    assert list(deliveries(plan, Shop(plan).calls())) == list(deliveries(plan, Shop(plan).calls()))


def test_another_process_with_another_hash_seed_gives_the_same_bytes():
    program = (
        "import hashlib\nfrom datetime import date\nfrom streams.simulate import *\n"
        "plan = Plan(people=40, days=30, seed=3, end=date(2026, 11, 1), disorder=0.2, duplicates=0.1)\n"
        "print(hashlib.sha256(b'\\n'.join(c.body for c in deliveries(plan, Shop(plan).calls()))).hexdigest())"
    )

    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "4711")
    }

    assert len(digests) == 1


@settings(max_examples=25, deadline=None)
@given(plans, plans)
def test_another_plan_shares_no_id_with_it(one, other):
    if one.name == other.name:
        return

    ids = [
        {value for call in Shop(plan).calls() for value in _ids(json.loads(call.body))} for plan in (one, other)
    ]

    assert not ids[0] & ids[1]


def _ids(call: dict) -> set[str]:
    return {call[name] for name in ("messageId", "userId", "anonymousId") if name in call}


@settings(max_examples=25, deadline=None)
@given(plans)
def test_calls_come_in_order_of_time_and_within_the_days_of_the_plan(plan):
    calls = list(Shop(plan).calls())

    times = [call.at_ms for call in calls]
    assert times == sorted(times)
    assert all(plan.start_ms <= at_ms < plan.end_ms for at_ms in times)
    assert [to_ms(datetime.fromisoformat(json.loads(call.body)["timestamp"])) for call in calls] == times


@settings(max_examples=25, deadline=None)
@given(plans)
def test_every_call_is_one_that_a_collector_takes(plan):
    for call in Shop(plan).calls():
        body = json.loads(call.body)

        assert body["type"] in EVENT_TYPES
        assert body.get("userId") or body.get("anonymousId")
        assert not any(is_blocked(each) for each in _ids(body))
        assert 0 < len(body["messageId"]) < LONGEST_MESSAGE_ID
        assert body["type"] != "track" or body["event"]
        assert body["type"] != "group" or body["groupId"]
        assert len(call.body) < LARGEST_EVENT_BYTES


@settings(max_examples=25, deadline=None)
@given(plans)
def test_a_disturbed_delivery_brings_every_call_and_nothing_else(plan):
    calls = list(Shop(plan).calls())

    arrived = list(deliveries(plan, calls))

    assert set(arrived) == set(calls)
    assert max(Counter(arrived).values(), default=0) <= (2 if plan.duplicates else 1)
    if not plan.disorder and not plan.duplicates:
        assert arrived == calls


def test_disorder_and_duplicates_are_as_many_as_asked():
    calls = [Made(number * 60_000, 0, str(number).encode()) for number in range(20_000)]
    plan = Plan(people=1, days=30, seed=1, end=END, disorder=0.25, duplicates=0.1)

    arrived = list(deliveries(plan, calls))

    assert 0.09 < len(arrived) / len(calls) - 1 < 0.11
    first = list(dict.fromkeys(arrived))
    newest = 0
    late = 0
    for call in first:
        late += call.at_ms < newest
        newest = max(newest, call.at_ms)
        assert newest - call.at_ms <= LATEST_MS
    assert 0.2 < late / len(calls) < 0.3


def test_message_ids_are_unique(big):
    assert len({call["messageId"] for call in big}) == len(big)


def test_money_has_two_places_and_sums_up(big):
    orders = [call["properties"] for call in big if call.get("event") == "Order Completed"]

    assert len(orders) > 1_000
    for order in orders:
        goods = sum(Decimal(item["price"]) * item["quantity"] for item in order["products"])
        assert order["revenue"] == goods - order.get("discount", 0)
        assert order["total"] == order["revenue"] + order["shipping"]
        assert Decimal(order["total"]).as_tuple().exponent >= -2


def test_nobody_is_named_before_she_signed_up_and_no_refund_is_larger_than_its_order(big):
    members, orders = set(), {}
    for call in big:
        if call["type"] == "identify" and "createdAt" in call["traits"]:
            members.add(call["userId"])
        assert call.get("userId") in members | {None}
        if call.get("event") == "Order Completed":
            orders[call["properties"]["order_id"]] = call["properties"]["revenue"]
        if call.get("event") == "Order Refunded":
            assert call["properties"]["total"] <= orders[call["properties"]["order_id"]]


def test_it_has_all_that_the_shop_is_for(big):
    labels = {call.get("event") or call["type"] for call in big}
    devices: dict[str, set[str]] = {}
    for call in big:
        if "userId" in call and "anonymousId" in call:
            devices.setdefault(call["userId"], set()).add(call["anonymousId"])

    assert {"page", "screen", "identify", "group", "Product Viewed", "Product Added", "Checkout Started",
            "Order Refunded", "Email Opened", "Email Link Clicked", "Unsubscribed", "Ticket Created", "Ticket Rated",
            "Survey Answered", "Loyalty Points Earned", "Product Reviewed"} <= labels  # fmt: skip
    assert {trait for call in big for trait in call.get("traits", {})} >= {"birthday", "lunar_birthday", "consent"}
    assert {len(each) for each in devices.values()} == {1, 2, 3}
    assert {call["context"].get("locale") for call in big} >= {"en-US", "en-GB", "zh-CN"}
    assert any("\u4e00" <= call["traits"]["name"][0] <= "\u9fff" for call in big if "name" in call.get("traits", {}))


def test_an_order_is_of_the_cart_that_things_were_put_into(big):
    added: dict[str, set[str]] = {}
    for call in big:
        properties = call.get("properties", {})
        if call.get("event") == "Product Added":
            added.setdefault(properties["cart_id"], set()).add(properties["product_id"])
        if call.get("event") in ("Order Completed", "Checkout Started", "Cart Viewed"):
            assert {item["product_id"] for item in properties["products"]} <= added[properties["cart_id"]]

    ordered = [call["properties"]["cart_id"] for call in big if call.get("event") == "Order Completed"]
    assert 0 < len(ordered) == len(set(ordered)) < len(added)


# --- the planted truths


def test_planted_pairs_are_bought_together_and_others_are_not(big):
    baskets = [
        {item["product_id"] for item in call["properties"]["products"]}
        for call in big
        if call.get("event") == "Order Completed"
    ]
    counts = Counter(sku for basket in baskets for sku in basket)

    def lift(one: str, other: str) -> float:
        both = sum(1 for basket in baskets if one in basket and other in basket)
        return both * len(baskets) / (counts[one] * counts[other])

    for one, (other, _) in TOGETHER.items():
        assert lift(one, other) > 3
    planted = {frozenset((one, other)) for one, (other, _) in TOGETHER.items()}
    often = [sku for sku, count in counts.items() if count > 300]
    chance = [lift(a, b) for a in often for b in often if a < b and frozenset((a, b)) not in planted]
    assert chance
    assert max(chance) < 2


def test_planted_campaigns_differ_in_orders_a_visit(big):
    visits, orders = Counter(), Counter()
    for call in big:
        name = call["context"].get("campaign", {}).get("name", "")
        if call.get("name") == "Home":
            visits[name] += 1
        if call.get("event") == "Order Completed":
            orders[name] += 1

    rate = {name: orders[name] / visits[name] for name in visits}

    assert rate["spring_letter"] > 1.7 * rate[""]
    assert rate["big_banner"] < 0.35 * rate[""]


def test_people_leave_after_a_bad_ticket(big, facts):
    last = {fact["user_id"]: max(times) for fact, times in zip(facts, visits_of(big, facts), strict=True) if times}
    came_back: dict[bool, list[bool]] = {True: [], False: []}
    for call in big:
        at_ms = to_ms(datetime.fromisoformat(call["timestamp"]))
        if call.get("event") == "Ticket Rated" and at_ms < BIG.end_ms - 40 * DAY_MS:
            came_back[call["properties"]["rating"] <= 2].append(last[call["userId"]] > at_ms)

    after_bad, after_good = (sum(came_back[is_bad]) / len(came_back[is_bad]) for is_bad in (True, False))

    assert len(came_back[True]) > 40
    assert after_bad < 1 - LEAVES_AFTER_BAD_RATING + 0.12
    assert after_good > 0.6


def test_the_holdout_gets_no_mail_and_orders_less(big, facts):
    mailed = {call["userId"] for call in big if call.get("event") == "Email Delivered"}
    members = [fact for fact in facts if fact["user_id"]]

    held = [fact for fact in members if fact["is_holdout"]]
    others = [fact for fact in members if not fact["is_holdout"]]

    assert 0.06 < len(held) / len(members) < 0.14
    assert len(mailed) > 0.5 * len(others)
    assert not mailed & {fact["user_id"] for fact in held}
    orders = [sum(fact["orders"] for fact in group) / len(group) for group in (held, others)]
    assert orders[1] > 1.02 * orders[0]


def test_nobody_visits_after_her_hidden_day(big, facts):
    for fact, times in zip(facts, visits_of(big, facts), strict=True):
        assert not times or max(times) < to_ms(datetime.fromisoformat(fact["gone_at"]))


def test_people_come_at_their_own_local_hours(big, facts):
    habit = {device: fact["habit"] for fact in facts for device in fact["anonymous_ids"]}
    hours: dict[str, Counter[int]] = {}
    for call in big:
        if call.get("name") == "Home" and "timezone" in call["context"]:
            local = datetime.fromisoformat(call["timestamp"]).astimezone(ZoneInfo(call["context"]["timezone"]))
            hours.setdefault(habit[call["anonymousId"]], Counter())[local.hour] += 1

    for name, planted in HOURS.items():
        inside = sum(hours[name][hour] for hour in set(planted))
        assert inside > 0.75 * hours[name].total()  # the others came by a mail


def test_members_with_three_orders_come_more_often(big, facts):
    gold = {call["userId"]: to_ms(datetime.fromisoformat(call["timestamp"]))
            for call in big if call.get("event") == "Loyalty Tier Reached"}  # fmt: skip
    before, after = [], []
    for fact, times in zip(facts, visits_of(big, facts), strict=True):
        for one, next_one in pairwise(times):
            if fact["user_id"] in gold:
                (after if one >= gold[fact["user_id"]] else before).append(next_one - one)

    assert GOLD_AFTER_ORDERS == 3
    assert len(gold) > 50
    assert sum(after) / len(after) < 0.85 * sum(before) / len(before)


def test_every_truth_says_what_to_find():
    assert len({truth.name for truth in TRUTHS}) == len(TRUTHS)
    assert all(truth.what and truth.to_find for truth in TRUTHS)
