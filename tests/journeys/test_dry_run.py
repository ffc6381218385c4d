"""Dry runs: of a time in which journeys were live they say what happened; of another what would have."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.fold import Fold
from processors.orders import Orders
from processors.rfm import scores_of
from schemas.coupons import HISTORY_MS
from schemas.customer import Customer, Part
from schemas.errors import ConfigError
from schemas.event import Event, decode_event
from schemas.internal import is_internal
from schemas.messages import SOURCE, Order
from schemas.segments import Cuts, Said
from schemas.times import DAY_MS, HOUR_MS, from_ms, to_iso, to_ms
from streams.cdnow import calls, find_file, read_purchases
from streams.dry_run import DryRun, Period, period_of
from streams.fifths import Fifths
from streams.past import past_of_file
from streams.rehearsal import Rehearsal, decode_rehearsal, encode_rehearsal, rehearsal_of
from streams.virtual import Told
from tests.cli.command import ROOT, tidewire
from tests.cli.running import Up
from tests.journeys.shop import MAILS, START_MS, Shop

CART = """
enter: {event: {did: Product Added}}
again: {once_per: cart_id}
holdout: 20
priority: 70
goal: {did: Order Completed, matching: cart_id, within: 2 days, value: total}
exits: [{left: lively}]
steps:
  - {step: pause, wait: 1 hour}
  - {step: remind, send: basket, refused: work}
  - {step: look, wait_until: {did: Message Clicked, message: remind}, at_most: 6 hours, otherwise: who}
  - {step: came, update: {traits: {came_back: true}, add_tags: [clicker]}, then: end}
  - {step: who, branch: [{when: {trait: came_back, is: true}, then: end}, {when: {did: Seen, at_least: 3}, then: lot}]}
  - {step: work, ticket: {subject: Call her}, then: end}
  - {step: lot, split: [{then: work}, {then: last}]}
  - {step: last, send: again}
"""
LIVELY = """
enter: {joined: lively}
again: {after: 1 day}
holdout: 10
steps: [{step: hello, send: hello}, {step: evening, wait: {at: '19:00'}}, {step: more, send: text}]
"""
SEGMENTS = {"lively": {"did": "Seen", "at_least": 2, "within": "12 hours"}}
LIMITS = {"caps": [{"at_most": 2, "within": "1 day"}], "quiet_hours": {"from": "22:00", "to": "07:00"}}
USERS = ("ann", "bob", "cleo", "dan", "eve", "fay", "gus", "hal")


def rehearsal(journeys: dict[str, str], segments: Any = SEGMENTS, limits: Any = LIMITS) -> Rehearsal:
    said = {name: Said(name=name, version=1, when=when, is_live=True) for name, when in segments.items()}
    whole = Rehearsal(ROOT / "config", "w", "UTC", said, {}, MAILS, limits)
    for name, text in journeys.items():
        whole = whole.with_draft(name, text)
    return whole


# --- a time in which they were live


class Lived:
    """A shop in which people do as they like for days, while journeys are live; messages are sent and followed."""

    def __init__(self, seed: int, days: int = 4) -> None:
        self.random = Random(seed)
        self.shop = Shop(seed=seed, limits=LIMITS, segments=SEGMENTS, cart=CART, lively=LIVELY)
        self._answered = 0
        for user in USERS[:6]:
            self.shop.customer(user, consents=self.random.random() < 0.8, phone="+49151", timezone="Europe/Berlin")
        for _ in range(days * 20):
            self.shop.wait(f"{self.random.randint(1, 140)}m")
            self._answer()
            self._happen()
        self.shop.wait("9h")
        self._answer()

    def _answer(self) -> None:
        """Messages that were ordered are sent, some fail, and some are followed."""
        for order in self.shop.orders[self._answered :]:
            about = {"message_id": order.id, "template": order.template, "channel": order.channel}
            user = order.to.partition(":")[2]
            self.shop.wait("1s")
            self.shop.happen("Message Sent", user=user, properties=about, source=SOURCE)
            self.shop.settle()
            if self.random.random() < 0.4:
                self.shop.wait(f"{self.random.randint(1, 20)}m")
                what = self.random.choice(("Message Clicked", "Message Clicked", "Message Failed"))
                self.shop.happen(what, user=user, properties=about, source=SOURCE)
                self.shop.settle()
        self._answered = len(self.shop.orders)

    def _happen(self) -> None:
        user, number = self.random.choice(USERS), self.random.randint(1, 12)
        match self.random.choice(("see", "see", "see", "add", "add", "order", "visit", "tell")):
            case "see":
                self.shop.did(user, "Seen")
            case "add":
                self.shop.did(user, "Product Added", cart_id=f"c{number}", product={"name": "Tea"})
            case "order":
                order = f"o{self.random.random()}"
                self.shop.did(user, "Order Completed", cart_id=f"c{number}", order_id=order, total=9)
            case "visit":  # on a device that is known to be hers, or becomes so
                self.shop.happen("Product Added", anonymous=f"d{user}", properties={"cart_id": f"c{number}"})
                self.shop.settle()
                if self.random.random() < 0.5:
                    self.shop.did(user, "Seen", anonymous=f"d{user}")
            case "tell":
                self.shop.said(user, came_back=self.random.random() < 0.5)

    @property
    def history(self) -> list[Event]:
        """What ClickHouse would know: every event that came, in the order in which it came."""
        records = [record for log in self.shop.logs for record in log if not is_internal(record.headers)]
        events = [decode_event(record.value) for record in records]
        return sorted(events, key=lambda event: (event.received_ms, _number(event.message_id)))


def _number(message_id: str) -> tuple[int, str]:
    return (int(message_id[1:]), "") if message_id[0] == "m" else (0, message_id)


def ways(lines: Iterable[Any], from_ms: int = 0) -> dict[str, list[tuple[Any, ...]]]:
    """By person, what happened to her and when, without what names runs and messages."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for line in lines:
        at_ms = line.at_ms if isinstance(line, Told) else to_ms(line.at)
        facts = tuple((name, value) for name, value in sorted(line.facts.items())
                      if name not in ("run", "message", "message_id", "id", "version"))  # fmt: skip
        if at_ms >= from_ms:
            found.setdefault(line.person, []).append((at_ms, line.about, line.kind, facts))
    return {person: sorted(told) for person, told in found.items()}


def test_of_a_time_in_which_journeys_were_live_it_says_what_happened() -> None:
    both, met = rehearsal({"cart": CART, "lively": LIVELY}), Counter[str]()
    for seed in range(8):
        lived = Lived(seed)
        run = DryRun(both, "cart", Period(START_MS, lived.shop.clock_ms + 1, START_MS))

        run.run(lived.history)

        assert ways(run.told) == ways(lived.shop.lines()), seed
        assert sent(run.orders) == sent(lived.shop.orders), seed
        met.update(str(line.facts.get("why") or line.kind) for line in lived.shop.lines())
        met.update("held out" for line in lived.shop.lines("entered") if line.facts["control"])
    # All of it happened: otherwise nothing was shown.
    assert {"entered", "held out", "again", "inside", "proposed", "cap", "delayed", "no_consent", "no_address",
            "happened", "timed_out", "branched", "split", "updated", "opened", "goal", "exit", "done", "merged"} <= \
        met.keys()  # fmt: skip


def sent(orders: Iterable[Order]) -> Counter[tuple[str, str, int]]:
    return Counter((order.to, order.template, order.at_ms) for order in orders)


def test_of_its_second_half_it_says_what_happened_then_if_it_knows_since_when_it_was_live() -> None:
    lived = Lived(11)
    end_ms = lived.shop.clock_ms + 1
    half_ms = (START_MS + end_ms) // 2
    both = rehearsal({"cart": CART, "lively": LIVELY})
    run = DryRun(both, "cart", Period(half_ms, end_ms, START_MS))

    run.run(lived.history)
    report = run.report()

    happened = [line for line in lived.shop.lines(about="cart") if to_ms(line.at) >= half_ms]
    counts = Counter(line.kind for line in happened)
    assert ways(run.told, half_ms) == ways(lived.shop.lines(), half_ms)
    assert (report.entered, sum(report.sends.values()), sum(report.left.values())) == \
        (counts["entered"], counts["proposed"], counts["left"])  # fmt: skip
    assert report.goals + report.goals_of_held_out == counts["goal"]
    assert report.inside == sum(run.state not in ("control", "after") and run.journey == "cart"
                                for run in lived.shop.runs().values())  # fmt: skip


# --- a time in which they were not


def an_event(user: str, at_ms: int, event: str, came_ms: int | None = None, **properties: Any) -> Event:
    return Event(message_id=f"{user}-{at_ms}-{event}", type="track", event=event, workspace="w", source="shop",
                 user_id=user, timestamp=from_ms(at_ms), received_at=from_ms(came_ms or at_ms),
                 raw_properties=msgspec.Raw(msgspec.json.encode(properties)))  # fmt: skip


def reports(journeys: dict[str, str], events: Sequence[Event], period: Period, name: str = "it", **more: Any) -> Any:
    run = DryRun(rehearsal(journeys, **more), name, period)
    run.run(events)
    return run.report()


DAY = Period(START_MS, START_MS + DAY_MS, START_MS)
LOYAL = {"loyal": {"did": "Order Completed", "at_least": 2}}


def test_what_came_before_makes_people_what_they_are_and_makes_nobody_enter() -> None:
    text = "enter: {event: {did: Seen}}\nwhen: {did: Seen, at_least: 3}\nholdout: 0\nsteps: [{step: a, exit: b}]"
    events = [an_event("ann", START_MS - hours * HOUR_MS, "Seen") for hours in (50, 40)]
    events += [an_event(user, START_MS + HOUR_MS, "Seen") for user in ("ann", "bob")]

    report = reports({"it": text}, events, DAY)

    assert (report.entered, report.not_entered, report.events) == (1, {"condition": 1}, 4)
    assert [example.person for example in report.examples] == ["w/u:ann"]


def test_what_was_brought_in_later_counts_from_when_it_happened() -> None:
    text = "enter: {event: {did: Seen}}\nholdout: 0\nsteps: [{step: a, wait: 1 hour}]"
    came_ms = START_MS + 400 * DAY_MS
    late = [an_event("ann", START_MS + HOUR_MS, "Seen", came_ms), an_event("bob", START_MS - DAY_MS, "Seen", came_ms)]
    waited = an_event("cleo", START_MS - HISTORY_MS // 2, "Seen", START_MS + 2 * HOUR_MS)  # of a phone without a net

    report = reports({"it": text}, [late[1], late[0], waited], DAY)

    assert {example.person: example.lines[0].at for example in report.examples} == {
        "w/u:ann": to_iso(START_MS + HOUR_MS), "w/u:cleo": to_iso(START_MS + 2 * HOUR_MS)}  # fmt: skip


def test_days_schedules_and_broadcasts_let_people_enter_at_their_moments() -> None:
    orders = [an_event(user, START_MS - number * HOUR_MS, "Order Completed", order_id=f"o{number}")
              for user in ("ann", "bob") for number in (1, 2)]  # fmt: skip
    said = msgspec.structs.replace(an_event("bob", START_MS - DAY_MS, ""), type="identify",
                                   raw_traits=msgspec.Raw(b'{"birthday":"1990-01-03"}'))  # fmt: skip
    year = Period(START_MS, START_MS + 366 * DAY_MS, START_MS)
    steps = "holdout: 0\nagain: always\nsteps: [{step: a, exit: b}]"
    history = [said, *sorted(orders, key=lambda event: event.at_ms)]

    date = reports({"it": f"enter: {{date: {{trait: birthday}}}}\n{steps}"}, history, year)
    weekly = reports({"it": f"enter: {{schedule: {{cron: 0 9 * * MON, segment: loyal}}}}\n{steps}"}, history, year,
                     segments=LOYAL)  # fmt: skip
    once = reports({"it": f"enter: {{broadcast: loyal}}\n{steps}"}, history, year, segments=LOYAL)

    assert [line.at for each in date.examples for line in each.lines if line.what == "entered"] == [
        "2026-01-03T09:00:00.000Z", ]  # fmt: skip
    assert (weekly.entered, weekly.people) == (2 * 52, 2)
    assert (once.entered, once.examples[0].lines[0].at) == (2, to_iso(START_MS))


def test_journeys_beside_it_share_its_caps_unless_it_is_alone() -> None:
    send = "enter: {event: {did: Seen}}\nholdout: 0\npriority: %d\nsteps: [{step: a, send: hello}]"
    events = [msgspec.structs.replace(an_event("ann", START_MS, ""), type="identify", raw_traits=msgspec.Raw(
        b'{"email":"a@example.com","consent":{"offers":true}}')), an_event("ann", START_MS + 1, "Seen")]  # fmt: skip
    both = rehearsal({"it": send % 10, "other": send % 90}, limits={"caps": [{"at_most": 1, "within": "1 day"}]})
    runs = [DryRun(both, "it", DAY, alone=alone) for alone in (False, True)]

    for run in runs:
        run.run(events)

    with_other, alone = (run.report() for run in runs)
    assert (with_other.sends, with_other.refused, with_other.beside) == ({}, {"a": {"arbitration": 1}}, ["other"])
    assert with_other.caps == {"1 in 1 day": 1}
    assert (alone.sends, alone.refused, alone.beside) == ({"a": 1}, {}, [])


# --- fifths of RFM


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4), st.sampled_from(("EUR", "USD"))),
                         max_size=4), min_size=5, max_size=40), st.randoms(use_true_random=False))  # fmt: skip
def test_fifths_worked_out_in_memory_are_those_of_everybody(people: Any, random: Any) -> None:
    """Held against sorting everybody, as ClickHouse does; people come in any order, and some become others."""
    fold = Fold([Orders()])
    fifths = Fifths(fold, "w")
    customers: dict[str, Customer] = {}
    for number, orders in enumerate(people):
        key = f"w/u:{number}"
        customers[key] = Customer(parts={key: Part()})
        for place, (day, total, currency) in enumerate(orders):
            event = an_event(str(number), START_MS + day * DAY_MS + place, "Order Completed", order_id=f"{place}",
                             total=total, currency=currency)  # fmt: skip
            fold.apply(customers[key].parts[key], event, None, event.at_ms)  # type: ignore[arg-type]
        if random.random() < 0.5:
            fifths.hear(key, customers[key])
    gone = random.choice(list(customers))
    fifths.hear(gone, customers[gone])
    customers[gone].parts.clear()
    for key, customer in customers.items():
        fifths.hear(key, customer)

    cuts = fifths.look_up(7)
    assert cuts == naive(fold, customers)
    if cuts is not None:
        concerned = fifths.concerned(cuts)
        for key, customer in customers.items():
            customer.rfm = scores_of(fold.shown(customer.parts, "orders"), cuts)
            fifths.hear(key, customer)  # with the scores that she has in her record
        assert concerned == sorted(key for key, customer in customers.items() if customer.rfm)
        assert fifths.concerned(cuts) == []


def naive(fold: Fold, customers: dict[str, Customer]) -> Cuts | None:
    shown = [fold.shown(customer.parts, "orders") for customer in customers.values() if customer.parts]
    bought = [each for each in shown if each.get("orders")]
    if len(bought) < 5:
        return None
    paid = Counter(currency for each in bought for currency in each["revenue"])
    currency = max(paid, key=lambda each: (paid[each], each))
    places = [(len(bought) * k + 4) // 5 - 1 for k in (1, 2, 3, 4)]

    def at(values: Iterable[float]) -> Any:
        ordered = sorted(values)
        return tuple(ordered[place] for place in places)

    last = at(to_ms(np.datetime64(each["last_at"][:-1]).item().replace(tzinfo=from_ms(0).tzinfo)) for each in bought)
    return Cuts(workspace="w", currency=currency, customers=len(bought), last_ms=last, at_ms=7,
                orders=at(float(each["orders"]) for each in bought),
                revenue=at(float(each["revenue"].get(currency, 0)) for each in bought))  # fmt: skip


def test_who_becomes_at_risk_by_the_days_alone_enters() -> None:
    """Scores move as others buy: she who bought much, long ago, joins the segment on a day on which she did nothing."""
    text = "enter: {joined: risky}\nholdout: 0\nsteps: [{step: a, exit: b}]"
    segments = {"risky": {"attribute": "rfm.group", "one_of": ["at_risk", "cannot_lose"]}}
    events = [an_event("ann", START_MS + number * HOUR_MS, "Order Completed", order_id=f"a{number}", total=90)
              for number in range(6)]  # fmt: skip
    events += [an_event(f"p{day}", START_MS + day * DAY_MS // 2, "Order Completed", order_id=f"p{day}", total=5)
               for day in range(1, 60)]  # fmt: skip
    period = Period(START_MS, START_MS + 40 * DAY_MS, START_MS)

    report = reports({"it": text}, sorted(events, key=lambda event: event.at_ms), period, segments=segments)

    (example,) = [each for each in report.examples if each.person == "w/u:ann"]
    entered_ms = to_ms(np.datetime64(example.lines[0].at[:-1]).item().replace(tzinfo=from_ms(0).tzinfo))
    assert entered_ms % DAY_MS == 0 and entered_ms > START_MS + DAY_MS


# --- how long it takes


@pytest.fixture(scope="module")
def cdnow() -> list[Event]:
    """Every twentieth customer."""
    some = [purchase for purchase in read_purchases(find_file()) if int(purchase.customer) % 20 == 7]
    came = {"workspace": "default", "source": "demo", "receivedAt": "2026-01-01T00:00:00Z"}
    return [decode_event(msgspec.json.encode({**msgspec.json.decode(call.body), **came})) for call in calls(some)]


@pytest.mark.parametrize("name", ["win_back", "post_purchase"])
def test_a_year_of_cdnow_takes_under_a_minute(name: str, cdnow: list[Event]) -> None:
    """As much time for a twentieth of it; what days cost, however many people there are, comes on top."""
    shipped = rehearsal_of(ROOT / "config", "default", "UTC")
    run = DryRun(shipped, name, period_of("1997-06-01", "1998-05-31", "", "UTC"))
    began_s = time.process_time()

    run.run(cdnow)

    assert time.process_time() - began_s < 60 / 20 + 6.0
    report = run.report()
    assert report.entered > 20 and report.examples


# --- how it is asked for


def test_a_rehearsal_comes_through_to_another_process() -> None:
    before = rehearsal_of(ROOT / "config", "default", "Europe/Berlin")

    after = decode_rehearsal(encode_rehearsal(before), ROOT / "config")

    assert after == before
    assert after.uses_rfm(["win_back"]) and not after.uses_rfm(["welcome"])


@pytest.mark.parametrize(("days", "what"), [
    (("2026-01-31", "2026-01-30", ""), "2026-01-30 is before 2026-01-31"),
    (("tomorrow", "2026-01-30", ""), '"tomorrow" is no day. Write it as 2026-01-31.'),
    (("2026-01-01", "2026-01-30", "2026-01-02"), "2026-01-02 is after 2026-01-01"),
])  # fmt: skip
def test_days_that_cannot_be_meant_are_told(days: tuple[str, str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)):
        period_of(*days, "UTC")


def test_days_begin_and_end_in_the_time_zone_of_the_workspace() -> None:
    period = period_of("2026-01-01", "2026-01-01", "2025-12-31", "Europe/Berlin")

    assert period == Period(START_MS - HOUR_MS, START_MS + 23 * HOUR_MS, START_MS - 25 * HOUR_MS)


LINES = [
    {"type": "identify", "userId": "ann", "timestamp": "2026-01-05T08:00:00Z",
     "traits": {"email": "ann@example.com", "consent": {"baskets": True}}},
    {"type": "track", "userId": "ann", "event": "Product Added", "timestamp": "2026-01-05T09:00:00Z",
     "properties": {"cart_id": "c1", "a.b": 1, "product": {"name": "Tea"}}},
    {"type": "track", "anonymousId": "x", "event": "Product Added", "timestamp": "2026-01-05T09:30:00Z",
     "properties": {"cart_id": "c2"}},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tmp_path / "config"
    for file, text in {
        "journeys/cart.yaml": CART.replace("exits: [{left: lively}]\n", "").replace("holdout: 20", "holdout: 0"),
        **{f"templates/{name}.yaml": f"channel: email\nkind: marketing\ntopic: baskets\n"
                                     f"content: {{en: {{subject: {name}, text: It waits.}}}}\n"
           for name in ("basket", "again")},
    }.items():  # fmt: skip
        (config / file).parent.mkdir(parents=True, exist_ok=True)
        (config / file).write_text(text)
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    return tmp_path


def test_a_file_of_events_is_read_as_the_collector_would(folder: Path) -> None:
    events = past_of_file(folder / "events.jsonl", "default")

    assert [(event.label, event.received_ms == event.at_ms) for event in events] == [
        ("Identify", True), ("Product Added", True), ("Product Added", True)]  # fmt: skip


def test_over_clickhouse_it_says_the_same_as_over_the_file(folder: Path) -> None:
    """By the command over a file, by the command over what ClickHouse knows, and by the API, of a draft."""
    days = ("--from", "2026-01-05", "--to", "2026-01-06", "--json")
    by_file = tidewire("journeys", "dry-run", "cart", *days, "--file", "events.jsonl", cwd=folder)
    assert by_file.code == 0, by_file.err
    up = Up(folder)
    try:
        sent = up.ask("send", "events.jsonl")
        assert sent.code == 0, sent.err
        for _ in range(60):
            if up.count("SELECT count() FROM event_log") == len(LINES):
                break
        by_command = up.ask("journeys", "dry-run", "cart", *days)
        wrong = up.ask("journeys", "dry-run", "crat", *days)
        saved = (folder / "config" / "journeys" / "cart.yaml").read_text()
        (folder / "draft.yaml").write_text(saved.replace("holdout: 0", "holdout: 100"))
        by_draft = up.ask("journeys", "dry-run", "cart", *days, "--draft", "draft.yaml")
        by_api = asked(up, {"from": "2026-01-05", "to": "2026-01-06"})
        api_wrong = asked(up, {"from": "2026-01-05", "to": "2026-01-06", "yaml": "enter: {}"})
    finally:
        up.stop()

    told = [{name: value for name, value in each.items() if name not in ("seconds", "examples")}
            for each in (by_file.json, by_command.json, by_api)]  # fmt: skip
    assert told[0] == told[1] == told[2]
    assert told[0]["entered"] == 2 and told[0]["sends"] == {"remind": 1} and told[0]["refused"] == {
        "remind": {"no_address": 1}}  # fmt: skip
    assert [ways_of(each) for each in (by_command.json, by_api)] == [ways_of(by_file.json)] * 2
    assert (by_draft.json["held_out"], by_draft.json["sends"]) == (2, {})
    assert wrong.code == 1 and wrong.err == 'tidewire: There is no journey "crat". Did you mean "cart"?\n'
    assert api_wrong["error"].startswith("cart.yaml:1")


def ways_of(report: dict[str, Any]) -> dict[str, Any]:
    return {each["person"]: each["lines"] for each in report["examples"]}


def asked(up: Up, body: dict[str, Any]) -> Any:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    token = json.loads((up.folder / up.data / "run.json").read_text())["token"]
    request = Request(f"{up.url}/api/journeys/cart/dry-run", json.dumps(body).encode(),
                      {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})  # fmt: skip
    try:
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except HTTPError as error:
        return json.load(error)
