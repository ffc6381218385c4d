"""Journeys in the customer stage: who enters, goes on, leaves, and what she is sent."""

from __future__ import annotations

from collections import Counter

import pytest

from processors.journeys import MOST_RUNS
from schemas.event import decode_event
from schemas.messages import SOURCE
from schemas.times import DAY_MS, from_ms
from streams.journey_turn import MOST_ENTRIES_AN_HOUR, MOST_STEPS_AT_ONCE
from tests.journeys.shop import START_MS, Shop

WELCOME = """
enter: {event: {did: Signed Up}}
goal: {did: Order Completed, within: 7 days, value: total}
steps:
  - {step: hello, send: hello}
  - {step: pause, wait: 2 days}
  - {step: once_more, send: again}
"""
HELLO = "enter: {event: {did: Signed Up}}\nagain: always\nsteps: [{step: hello, send: hello}]"
BASKET = """
enter: {event: {did: Product Added}}
again: {once_per: cart_id}
exits: [{did: Order Completed, matching: cart_id}]
steps:
  - {step: pause, wait: 1 hour}
  - {step: remind, send: basket, from_event: {cart: cart_id, what: product.name}, given: {offer: five percent}}
"""


def test_she_enters_is_written_to_waits_and_leaves():
    shop = Shop(welcome=WELCOME)
    shop.customer("ann")

    shop.did("ann", "Signed Up")
    assert shop.sent() == {"hello": 1}
    (run,) = shop.runs("ann").values()
    assert (run.step, run.state, run.due_ms) == ("pause", "waits", START_MS + 2 * DAY_MS)
    shop.wait("47.9h")
    assert shop.sent() == {"hello": 1}
    shop.wait("0.2h")

    assert shop.sent() == {"hello": 1, "again": 1}
    assert shop.told() == [("entered", ""), ("proposed", "hello"), ("waits", "pause"), ("woke", "pause"),
                           ("proposed", "once_more"), ("left", "done")]  # fmt: skip
    assert {each.by for each in shop.orders} == {"journey welcome"}
    first, second = shop.orders
    assert (first.to, first.channel, first.kind, first.topic) == ("w/u:ann", "email", "marketing", "offers")
    assert first.expires_ms == START_MS + DAY_MS and second.at_ms == START_MS + 2 * DAY_MS


def test_a_goal_counts_within_its_time_also_after_the_last_step_and_lets_her_leave_before():
    shop = Shop(welcome=WELCOME)
    for user in ("ann", "bea", "cleo"):
        shop.customer(user)
        shop.did(user, "Signed Up")

    shop.wait("1d")
    shop.did("ann", "Order Completed", total=12.5)
    shop.wait("3d")
    shop.did("bea", "Order Completed", total=30)
    shop.wait("10d")
    shop.did("cleo", "Order Completed", total=70)

    assert Counter((line.person, line.facts["value"]) for line in shop.lines("goal")) == {
        ("w/u:ann", 12.5): 1, ("w/u:bea", 30.0): 1}  # fmt: skip
    assert [line.facts["why"] for line in shop.lines("left")] == ["goal", "done", "done"]
    assert shop.runs() == {} and shop.sent() == {"hello": 3, "again": 2}
    rows = {row.run: row for row in (shop.row(str(line.facts["run"])) for line in shop.lines("entered"))}
    assert {row.state for row in rows.values()} == {"ended"}
    assert sorted((row.left_by, row.goal_value, row.sent) for row in rows.values()) == [
        ("done", 0.0, 2), ("done", 30.0, 2), ("goal", 12.5, 1)]  # fmt: skip


def test_once_per_cart_a_run_and_what_is_asked_of_the_cart_is_asked_of_that_one():
    shop = Shop(basket=BASKET)
    shop.customer("ann")

    shop.did("ann", "Product Added", cart_id="c1", product={"name": "Soap"})
    shop.did("ann", "Product Added", cart_id="c1", product={"name": "Towel"})
    shop.did("ann", "Product Added", cart_id=2, product={"name": "Comb"})
    shop.did("ann", "Product Added", product={"name": "no cart"})
    shop.did("ann", "Order Completed", cart_id="2")
    shop.wait("1.1h")

    (order,) = shop.orders
    assert order.given == {"cart": "c1", "what": "Soap", "offer": "five percent"}
    assert shop.told("not_entered", "left") == [("not_entered", "again"), ("not_entered", "no_key"),
                                                ("left", "exit"), ("left", "done")]  # fmt: skip


@pytest.mark.parametrize(("again", "days", "entries"), [
    ("never", 40, 1), ("always", 40, 3), ("{after: 30 days}", 20, 2),
])  # fmt: skip
def test_when_she_may_enter_once_more(again: str, days: float, entries: int):
    shop = Shop(short=f"enter: {{event: {{did: Signed Up}}}}\nagain: {again}\nsteps: [{{step: hello, send: hello}}]")
    shop.customer("ann")

    for _ in range(3):
        shop.did("ann", "Signed Up")
        shop.wait(f"{days}d")

    assert len(shop.lines("entered")) == entries
    assert {line.facts["why"] for line in shop.lines("not_entered")} == ({"again"} if entries < 3 else set())


def test_who_is_inside_does_not_enter_again():
    shop = Shop(slow="enter: {event: {did: Signed Up}}\nagain: always\nsteps: [{step: pause, wait: 1 day}]")

    shop.did("ann", "Signed Up")
    shop.did("ann", "Signed Up")

    assert shop.told("entered", "not_entered") == [("entered", ""), ("not_entered", "inside")]


def test_history_that_is_brought_in_lets_nobody_enter():
    shop = Shop(welcome=WELCOME)

    shop.did("ann", "Signed Up", days_ago=8)

    assert shop.lines() == []


def test_a_filter_a_condition_and_a_workspace():
    shop = Shop(segments={"vip": {"trait": "plan", "is": "pro"}}, welcome="""
enter: {event: {did: Signed Up, where: {from: shop}}}
when: {segment: vip}
steps: [{step: hello, send: hello}]
""")  # fmt: skip
    shop.customer("ann", plan="pro")
    shop.customer("bea")

    for user in ("ann", "bea"):
        shop.did(user, "Signed Up", **{"from": "app"})
        shop.did(user, "Signed Up", **{"from": "shop"})

    assert shop.told() == [("entered", ""), ("proposed", "hello"), ("left", "done"), ("not_entered", "condition")]


def test_an_event_with_two_of_the_values_that_are_asked_for_lets_her_enter_once():
    text = HELLO.replace("Signed Up", "Order Completed, where: {products.sku: {one_of: [kettle, mill]}}")
    shop = Shop(hello=text)
    shop.customer("ann")

    shop.did("ann", "Order Completed", products=[{"sku": "cup"}])
    shop.did("ann", "Order Completed", products=[{"sku": "mill"}, {"sku": "cup"}, {"sku": "kettle"}])

    assert shop.told() == [("entered", ""), ("proposed", "hello"), ("left", "done")]


def test_segments_let_people_enter_go_on_and_leave():
    shop = Shop(segments={"vip": {"trait": "plan", "is": "pro"}, "cold": {"trait": "mood", "is": "cold"}}, one="""
enter: {joined: vip}
again: always
exits: [{left: vip}]
steps:
  - {step: until, wait_until: {joined: cold}, at_most: 3 days, otherwise: end}
  - {step: hello, send: hello}
  - {step: pause, wait: 1 day}
""", two="enter: {left: vip}\nsteps: [{step: again, send: again}]")  # fmt: skip
    shop.customer("ann")

    shop.said("ann", plan="pro")
    shop.said("ann", mood="cold")
    shop.said("ann", plan="free")

    assert [(line.about, kind, what) for line, (kind, what) in zip(shop.lines(), shop.told(), strict=True)] == [
        ("one", "entered", ""), ("one", "waits", "until"), ("one", "happened", "until"), ("one", "proposed", "hello"),
        ("one", "waits", "pause"), ("one", "left", "exit"), ("two", "entered", ""), ("two", "proposed", "again"),
        ("two", "left", "done"),
    ]  # fmt: skip
    assert shop.lines("entered")[0].facts["segment"] == "vip"


def test_waiting_until_something_happens_or_for_so_long():
    journey = """
enter: {event: {did: Signed Up}}
steps:
  - {step: hello, send: hello}
  - {step: opened, wait_until: {did: Message Opened, message: hello}, at_most: 1 day, otherwise: nudge}
  - {step: thanks, send: receipt, then: end}
  - {step: nudge, send: again}
"""
    shop = Shop(welcome=journey)
    for user in ("ann", "bea"):
        shop.customer(user)
        shop.did(user, "Signed Up")
    (hers,) = [each.id for each in shop.orders if each.to == "w/u:ann"]

    shop.happen("Message Opened", user="bea", properties={"message_id": hers}, source=SOURCE)  # another's
    shop.happen("Message Opened", user="ann", properties={"message_id": hers}, source=SOURCE)
    shop.settle()
    shop.wait("25h")

    assert sorted((each.to, each.template) for each in shop.orders) == [
        ("w/u:ann", "hello"), ("w/u:ann", "receipt"), ("w/u:bea", "again"), ("w/u:bea", "hello")]  # fmt: skip
    assert [line.facts["due"] for line in shop.lines("timed_out")] == ["2026-01-02T00:00:00.000Z"]


def test_branches_the_first_that_is_true_and_the_next_step_where_none_is():
    shop = Shop(branching="""
enter: {event: {did: Signed Up}}
steps:
  - step: who
    branch:
      - {when: {trait: plan, is: pro}, then: receipt}
      - {when: {did: Order Completed, at_least: 2}, then: again}
  - {step: hello, send: hello, then: end}
  - {step: receipt, send: receipt, then: end}
  - {step: again, send: again}
""")
    for user in ("ann", "bea", "cleo"):
        shop.customer(user)
    shop.said("ann", plan="pro")
    for _ in range(2):
        shop.did("ann", "Order Completed")
        shop.did("bea", "Order Completed")

    for user in ("ann", "bea", "cleo"):
        shop.did(user, "Signed Up")

    assert [(each.to[-4:], each.template) for each in shop.orders] == [
        (":ann", "receipt"), (":bea", "again"), ("cleo", "hello")]  # fmt: skip
    assert [(line.facts["to"], line.facts["number"]) for line in shop.lines("branched")] == [
        ("receipt", 1), ("again", 2), ("hello", 0)]  # fmt: skip


def test_splits_draw_by_weight_the_same_for_the_same_and_learned_weights_count():
    journey = """
enter: {event: {did: Signed Up}}
again: always
steps:
  - {step: lot, split: [{then: one, weight: 3}, {then: two}], learns: true}
  - {step: one, exit: one}
  - {step: two, exit: two}
"""
    shop = Shop(split=journey)
    for number in range(200):
        shop.happen("Signed Up", user=f"u{number}")
    shop.settle()
    drawn = {line.person: line.facts["to"] for line in shop.lines("split")}
    assert 130 <= Counter(drawn.values())["one"] <= 170
    assert {line.facts["share"] for line in shop.lines("split")} == {0.75, 0.25}

    for number in range(200):
        shop.happen("Signed Up", user=f"u{number}")
    shop.settle()
    assert {line.person: line.facts["to"] for line in shop.lines("split")[200:]} == drawn

    shop.steer("split", weights={"lot": [0.0, 1.0]})
    shop.did("new", "Signed Up")
    assert shop.lines("split")[-1].facts["to"] == "two"


def test_held_out_people_get_nothing_and_are_watched_for_the_goal():
    shop = Shop(welcome=WELCOME + "holdout: 30\n")
    for number in range(100):
        shop.customer(f"u{number}")
        shop.did(f"u{number}", "Signed Up")
    control = {line.person for line in shop.lines("entered") if line.facts["control"]}
    assert 18 <= len(control) <= 42
    assert control.isdisjoint({each.to for each in shop.orders}) and len(shop.orders) == 100 - len(control)

    someone = min(control)
    shop.did(someone.removeprefix("w/u:"), "Order Completed", total=5)
    shop.wait("8d")

    (goal,) = shop.lines("goal")
    assert (goal.person, goal.facts["control"]) == (someone, True)
    assert control.isdisjoint({each.to for each in shop.orders}) and shop.runs() == {}
    assert shop.row(str(goal.facts["run"])).is_control and shop.row(str(goal.facts["run"])).state == "ended"


def test_who_is_held_out_of_all_journeys_is_so_of_each():
    shop = Shop(limits={"holdout": 40}, one=WELCOME, two=WELCOME)
    for number in range(60):
        shop.customer(f"u{number}")
        shop.did(f"u{number}", "Signed Up")

    of = {name: {line.person for line in shop.lines("entered", about=name) if line.facts["control"]}
          for name in ("one", "two")}  # fmt: skip

    assert of["one"] == of["two"] and 12 <= len(of["one"]) <= 36
    assert {line.facts.get("held_out_by") for line in shop.lines("entered")} == {"all", None}


def test_traits_tags_tickets_and_calls():
    shop = Shop(doing="""
enter: {event: {did: Signed Up}}
steps:
  - {step: change, update: {traits: {stage: new, "home.town": Wien}, add_tags: [a, b], remove_tags: [old]}}
  - {step: ticket, ticket: {subject: Look, priority: high}}
  - {step: task, task: {subject: Call her}}
  - {step: tell, call: receipt, given: {x: 1}}
""")
    shop.customer("ann", tags=["old", "a"])
    shop.wait("1m")

    shop.did("ann", "Signed Up")

    shown = shop.people()["w/u:ann"][1]["profile"]
    assert shown["traits"] | {"email": ""} == {
        "email": "", "stage": "new", "home": {"town": "Wien"}, "tags": ["a", "b"]}  # fmt: skip
    assert shown["events"] == 3  # what a journey does is no deed of hers
    events = [decode_event(record.value) for log in shop.logs for record in log if not record.headers]
    opened = {each.event: each.properties for each in events if each.source == SOURCE and each.type == "track"}
    assert opened["Ticket Created"]["subject"] == "Look" and opened["Ticket Created"]["priority"] == "high"
    assert opened["Task Created"]["journey"] == "doing"
    assert [(each.template, each.given) for each in shop.orders] == [("receipt", {"x": 1})]
    assert shop.told()[1:] == [("updated", "change"), ("opened", "ticket"), ("opened", "task"), ("called", "tell"),
                               ("left", "done")]  # fmt: skip


def test_a_loop_goes_round_so_often_and_no_more():
    shop = Shop(loop="""
enter: {event: {did: Signed Up}}
steps:
  - {step: hello, send: receipt}
  - {step: pause, wait: 1 day}
  - {step: round, go: hello, times: 2}
""")
    shop.customer("ann")

    shop.did("ann", "Signed Up")
    shop.wait("30d")

    assert shop.sent() == {"receipt": 3}


def test_one_that_takes_too_many_steps_at_once_goes_on_a_second_later():
    steps = "\n".join(f"  - {{step: t{number}, task: {{subject: x}}}}" for number in range(90))
    shop = Shop(
        many=f"enter: {{event: {{did: Signed Up}}}}\nsteps:\n{steps}\n  - {{step: back, go: t0, times: 4}}\n"
    )

    shop.did("ann", "Signed Up")
    assert len(shop.lines("opened")) == MOST_STEPS_AT_ONCE - 2
    shop.wait("10s")

    assert len(shop.lines("opened")) == 5 * 90 and shop.runs() == {}
    assert len(shop.lines("slowed")) == 2


def test_a_journey_that_makes_people_enter_itself_does_not_run_away():
    shop = Shop(itself="enter: {event: {did: Identify}}\nagain: always\n"
                     "steps: [{step: change, update: {traits: {n: 1}}}]")  # fmt: skip

    shop.said("ann", name="Ann")

    assert len(shop.lines("entered")) == MOST_ENTRIES_AN_HOUR
    assert [line.facts["why"] for line in shop.lines("not_entered")] == ["too_often"]


def test_nobody_is_in_more_journeys_than_so_many():
    journeys = {f"j{number:02}": "enter: {event: {did: Signed Up}}\nsteps: [{step: pause, wait: 1 day}]"
                for number in range(MOST_RUNS + 3)}  # fmt: skip
    shop = Shop(**journeys)

    shop.did("ann", "Signed Up")

    assert len(shop.runs("ann")) == MOST_RUNS
    assert [line.facts["why"] for line in shop.lines("not_entered")] == ["too_many"] * 3


# --- the arbiter


def test_fifty_journeys_in_a_second_with_a_cap_of_two_send_exactly_two_the_most_urgent():
    journeys = {
        f"j{number:02}": f"enter: {{event: {{did: Signed Up}}}}\npriority: {number}\n"
                         "steps: [{step: hello, send: hello}]"
        for number in range(50)
    }  # fmt: skip
    shop = Shop(limits={"caps": [{"at_most": 2, "within": "1 day"}]}, **journeys)
    shop.customer("ann")

    shop.did("ann", "Signed Up")

    assert sorted(each.by for each in shop.orders) == ["journey j48", "journey j49"]
    refused = shop.lines("refused")
    assert len(refused) == 48 and {line.facts["why"] for line in refused} == {"arbitration"}
    assert {line.facts["winner"] for line in refused} == {"j48"}


def test_caps_by_channel_topic_and_time():
    shop = Shop(limits={"caps": [{"at_most": 1, "within": "1 day", "channel": "email", "topic": "offers"}]}, each="""
enter: {event: {did: Signed Up}}
again: always
steps:
  - {step: hello, send: hello}
  - {step: more, send: again, refused: text}
  - {step: never, send: basket, then: end}
  - {step: text, send: text}
  - {step: basket, send: basket}
  - {step: receipt, send: receipt}
""")
    shop.customer("ann", phone="+43 1 234567")

    shop.did("ann", "Signed Up")
    shop.wait("1.01d")
    shop.did("ann", "Signed Up")

    assert shop.sent() == {"hello": 2, "text": 2, "basket": 2, "receipt": 2}
    (one, _) = shop.lines("refused")
    assert one.facts["cap"] == "1 in 1 day (email, offers)" and one.facts["winner"] == "each"


def test_a_message_that_failed_does_not_count():
    shop = Shop(limits={"caps": [{"at_most": 1, "within": "1 day"}]},
                each=HELLO)  # fmt: skip
    shop.customer("ann")
    shop.did("ann", "Signed Up")

    shop.happen("Message Failed", user="ann", properties={"message_id": shop.orders[0].id}, source=SOURCE)
    shop.settle()
    shop.did("ann", "Signed Up")
    shop.did("ann", "Signed Up")

    assert shop.sent() == {"hello": 2}
    assert shop.told("refused") == [("refused", "cap")]


def test_consent_and_addresses():
    shop = Shop(welcome="""
enter: {event: {did: Signed Up}}
steps:
  - {step: hello, send: hello}
  - {step: text, send: text}
  - {step: receipt, send: receipt}
""")
    shop.customer("ann", consents=False)
    shop.did("nobody", "Seen")

    for user in ("ann", "nobody"):
        shop.did(user, "Signed Up")

    assert [(each.to, each.template) for each in shop.orders] == [("w/u:ann", "receipt")]
    assert shop.told("refused") == [("refused", "no_consent"), ("refused", "no_address")] + [
        ("refused", "no_address")] * 3  # fmt: skip


def test_quiet_hours_are_those_of_her_own_time_zone_and_what_must_arrive_does_not_wait():
    shop = Shop(limits={"quiet_hours": {"from": "21:00", "to": "08:00"}}, welcome="""
enter: {event: {did: Signed Up}}
steps:
  - {step: receipt, send: receipt}
  - {step: hello, send: hello}
""")
    shop.customer("ann", timezone="Asia/Tokyo")  # 09:00 there
    shop.customer("bea", timezone="America/New_York")  # 19:00
    shop.customer("cleo", timezone="Europe/Vienna")  # 01:00
    for user in ("ann", "bea", "cleo"):
        shop.did(user, "Signed Up")
    assert shop.sent() == {"receipt": 3, "hello": 2}
    assert [line.facts["until"] for line in shop.lines("delayed")] == ["2026-01-01T07:00:00.000Z"]

    shop.wait("6.9h")
    assert shop.sent()["hello"] == 2
    shop.wait("0.2h")

    assert shop.sent()["hello"] == 3 and shop.runs() == {}


def test_a_message_that_would_be_too_late_after_quiet_hours_is_refused():
    shop = Shop(limits={"quiet_hours": {"from": "21:00", "to": "08:00"}}, welcome="""
enter: {event: {did: Signed Up}}
steps: [{step: hello, send: hello, expires: 2 hours}]
""")
    shop.customer("ann", timezone="UTC")

    shop.did("ann", "Signed Up")

    assert shop.told("refused", "left") == [("refused", "expired"), ("left", "done")]


def test_a_template_that_is_gone_is_told():
    shop = Shop(welcome="enter: {event: {did: Signed Up}}\nsteps: [{step: hello, send: gone}]")
    shop.customer("ann")

    shop.did("ann", "Signed Up")

    assert shop.told("refused") == [("refused", "template")]


# --- steering


def test_a_version_is_pinned_for_who_is_inside_until_she_is_moved():
    shop = Shop(welcome=WELCOME)
    for user in ("ann", "bea"):
        shop.customer(user)
    shop.did("ann", "Signed Up")
    shop.write("welcome", WELCOME.replace("send: again", "send: receipt"))
    shop.define()
    shop.sweep()
    shop.did("bea", "Signed Up")
    assert {run.version for run in shop.runs("ann").values()} == {1}

    shop.wait("3d")
    assert [(each.to, each.template) for each in shop.orders][2:] == [("w/u:ann", "again"), ("w/u:bea", "receipt")]

    shop.customer("cleo")
    shop.did("cleo", "Signed Up")
    shop.write("welcome", WELCOME.replace("send: again", "send: basket"))
    shop.steer("welcome", migrate_to=3)
    shop.wait("3d")
    assert shop.orders[-1].template == "basket"
    assert [(line.facts["from"], line.facts["to"]) for line in shop.lines("moved")
            if line.person == "w/u:cleo"] == [(2, 3)]  # fmt: skip


def test_paused_nobody_enters_and_who_is_inside_stands_still_until_it_goes_on():
    shop = Shop(welcome=WELCOME)
    for user in ("ann", "bea"):
        shop.customer(user)
    shop.did("ann", "Signed Up")

    shop.steer("welcome", status="paused")
    shop.did("bea", "Signed Up")
    shop.wait("5d")
    assert shop.sent() == {"hello": 1}
    assert shop.told("not_entered", "woke", "held") == [
        ("not_entered", "paused"), ("woke", "pause"), ("held", "once_more")]  # fmt: skip

    shop.steer("welcome", status="live")
    assert shop.sent() == {"hello": 1, "again": 1}
    assert shop.told("resumed") == [("resumed", "once_more")]


@pytest.mark.parametrize(("status", "sent"), [("draining", {"hello": 1, "again": 1}), ("stopped", {"hello": 1})])
def test_drained_and_stopped(status: str, sent: dict[str, int]):
    shop = Shop(welcome=WELCOME)
    for user in ("ann", "bea"):
        shop.customer(user)
    shop.did("ann", "Signed Up")

    shop.steer("welcome", status=status)
    shop.did("bea", "Signed Up")
    shop.wait("8d")

    assert shop.sent() == sent and shop.runs() == {}
    assert shop.told("not_entered") == [("not_entered", status)]


def test_a_journey_that_is_gone_lets_everybody_go():
    shop = Shop(welcome=WELCOME, basket=BASKET)
    shop.customer("ann")
    shop.did("ann", "Signed Up")

    del shop.versions["welcome"]
    shop.define()
    shop.sweep()

    assert shop.runs() == {} and shop.told("left") == [("left", "gone")]
    shop.wait("9d")
    assert shop.sent() == {"hello": 1}


# --- sweeps


def test_a_broadcast_reaches_who_is_in_the_segment_once():
    shop = Shop(segments={"vip": {"trait": "plan", "is": "pro"}},
                news="enter: {broadcast: vip}\nagain: always\nsteps: [{step: hello, send: hello}]")  # fmt: skip
    for number in range(120):
        shop.customer(f"u{number}", plan="pro" if number % 2 else "free")

    shop.sweep("news", "news@broadcast-1")
    shop.sweep("news", "news@broadcast-1")
    assert len(shop.orders) == 60
    shop.sweep("news", "news@broadcast-2")

    assert len(shop.orders) == 120 and {line.facts["by"] for line in shop.lines("entered")} == {"broadcast"}


def test_a_birthday_is_met_on_its_day():
    shop = Shop(birthday="enter: {date: {trait: birthday, at: '09:00'}}\nagain: {after: 300 days}\n"
                         "steps: [{step: hello, send: hello}]")  # fmt: skip
    shop.customer("ann", birthday="1990-01-03")
    shop.customer("bea", birthday="1990-01-04")
    shop.customer("cleo", birthday="someday")

    shop.sweep("birthday", "birthday@2026-01-03T09:00:00+00:00")

    assert [each.to for each in shop.orders] == ["w/u:ann"]


# --- people who are merged


def test_a_run_moves_with_its_part_and_one_of_two_goes_on():
    shop = Shop(welcome=WELCOME, basket=BASKET)
    shop.customer("ann")
    shop.happen("Signed Up", anonymous="phone")
    shop.happen("Product Added", anonymous="phone", properties={"cart_id": "c"})
    shop.settle()
    shop.wait("0.1h")
    shop.did("ann", "Signed Up")

    shop.did("ann", "Seen", anonymous="phone")

    assert sorted((run.journey, run.step) for run in shop.runs("ann").values()) == [
        ("basket", "pause"), ("welcome", "pause")]  # fmt: skip
    assert shop.told("left") == [("left", "merged")]
    shop.wait("1h")
    assert [(each.to, each.template) for each in shop.orders if each.template == "basket"] == [("w/u:ann", "basket")]
    shop.did("ann", "Signed Up")
    assert shop.told("not_entered") == [("not_entered", "inside")]

    shop.did("ann", "Product Added", anonymous="phone", cart_id="d")
    shop.unmerge("w/a:phone")
    shop.settle()
    assert {run.key for run in shop.runs("phone").values()} <= {"", "d"}


def test_what_she_got_as_a_visitor_counts_when_she_is_known():
    shop = Shop(limits={"caps": [{"at_most": 2, "within": "1 day"}]},
                each=HELLO)  # fmt: skip
    shop.happen("", anonymous="phone", traits={"email": "ann@example.com"})
    shop.happen("Subscribed", anonymous="phone", properties={"topic": "*"})
    shop.happen("Signed Up", anonymous="phone")
    shop.settle()
    shop.customer("ann")
    shop.did("ann", "Seen", anonymous="phone")

    for _ in range(3):
        shop.did("ann", "Signed Up")

    assert [each.to for each in shop.orders] == ["w/a:phone", "w/u:ann"]
    assert shop.told("refused") == [("refused", "cap")] * 2


def test_what_a_client_says_is_not_what_tidewire_says():
    shop = Shop(welcome=WELCOME)
    shop.customer("ann")

    shop.happen("", user="ann", traits={"plan": "pro"})
    shop.settle()

    assert shop.people()["w/u:ann"][1]["profile"]["events"] == 3


def test_times_are_those_of_the_log():
    shop = Shop(late="enter: {event: {did: Signed Up}}\nsteps: [{step: nine, wait: {at: '09:00', days: [mon]}}, "
                     "{step: hello, send: receipt}]")  # fmt: skip
    shop.customer("ann", timezone="Europe/Vienna")

    shop.did("ann", "Signed Up")  # a Thursday

    assert [line.facts["due"] for line in shop.lines("waits")] == ["2026-01-05T08:00:00.000Z"]
    shop.wait("5d")
    assert [from_ms(each.at_ms).isoformat() for each in shop.orders] == ["2026-01-05T08:00:00+00:00"]

