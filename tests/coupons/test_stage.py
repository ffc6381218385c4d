"""The stage of coupons: pure, in memory, with crashes at every point."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streams.coupons
from schemas.coupons import (
    DESK,
    Campaign,
    CouponRecord,
    CouponState,
    Define,
    Give,
    Redeem,
    Stock,
    encode_of_coupons,
)
from schemas.event import Event, decode_event
from schemas.keyed import encode_state
from schemas.rejected import decode_rejected
from schemas.rows import decode_ledger_line
from schemas.times import DAY_MS
from sinks.coupons import CampaignRow, CouponRow
from streams.coupons import CouponStage
from streams.dead_letters import DeadLetterLimit
from streams.lines import COUPONS
from streams.log import Record
from streams.outbox import Outbox

T0 = 1_800_000_000_000
SEED = bytes(range(32))
SPRING = Campaign(name="spring", prefix="SPRING", length=10, worth=100_000, unit="EUR",
                  expires="30 days after given", expires_after_ms=30 * DAY_MS)  # fmt: skip
POOL = Campaign(name="pool", pool="d1", worth=150_000, unit="percent", expires="2027-03-31", ends_ms=T0 + 60 * DAY_MS)
decode_state = msgspec.msgpack.Decoder(CouponState).decode


def changed(campaign: Campaign, **what: object) -> Campaign:
    return msgspec.structs.replace(campaign, **what)


def define(campaign: Campaign, *, seed: bytes = SEED, is_gone: bool = False) -> Define:
    return Define(workspace="w", campaign=campaign, seed=seed, is_gone=is_gone)


def give(who: str, campaign: str = "spring", *keys: str, request: str = "") -> Give:
    return Give(workspace="w", campaign=campaign, person=f"w/u:{who}", keys=list(keys), request=request or f"r-{who}",
                cause="test")  # fmt: skip


def redeem(code: str, who: str, *keys: str, event: str = "", order: str = "", at_ms: int = T0) -> Redeem:
    return Redeem(workspace="w", code=code, person=f"w/u:{who}", keys=list(keys), event=event or f"e-{who}",
                  order=order, at_ms=at_ms)  # fmt: skip


class Memory:
    """The states of one partition, as `streams.worker.States`."""

    def __init__(self, stored: dict[str, bytes] | None = None) -> None:
        self.states = {key: decode_state(value) for key, value in (stored or {}).items()}
        self.touched: set[str] = set()

    def get(self, key: str) -> CouponState:
        return self.states.setdefault(key, CouponState())

    def fetch(self, keys: Iterable[str]) -> None: ...

    def keys_after(self, after: str, most: int) -> list[str]:
        return []

    def touch(self, key: str, state: CouponState) -> None:
        assert self.states[key] is state
        self.touched.add(key)

    def show(self, key: str) -> None: ...


class Desk:
    """A partition of topic `coupon_requests` and its stage; time moves when it is told to."""

    def __init__(self) -> None:
        self.stage = CouponStage()
        self.memory = Memory()
        self.out = Outbox(self.stage.table_of)
        self.now_ms = T0
        self.log: list[Record] = []
        self.position = 0
        self.events: dict[str, Event] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.decisions: dict[str, tuple[str, str, str]] = {}
        self.letters: list[str] = []
        self.campaigns: dict[str, CampaignRow] = {}
        self.coupons: dict[str, tuple[str, CouponRow]] = {}

    def append(self, *records: CouponRecord | bytes) -> None:
        for each in records:
            value = each if isinstance(each, bytes) else encode_of_coupons(each)
            self.log.append(Record(COUPONS.topic, 0, len(self.log), self.now_ms, b"w", value))

    def take(self, *records: CouponRecord | bytes, after_ms: int = 0) -> list[str]:
        """Fold them in. The names of the events that follow, with the reason where there is one."""
        self.now_ms += after_ms
        self.append(*records)
        known = set(self.events)
        while self.position < len(self.log):
            self.step()
        new = [event for id_, event in self.events.items() if id_ not in known]
        return [f"{event.event} {event.properties.get('reason', '')}".strip() for event in new]

    def step(self) -> None:
        self.stage.handle([self.log[self.position]], self.memory, self.out, DeadLetterLimit())
        self.position += 1
        for topic, outgoing in self.out.take_messages().items():
            for each in outgoing:
                if topic == "events":
                    event = decode_event(each.value)
                    before = self.events.setdefault(event.message_id, event)
                    assert each.value == msgspec.json.encode(before), "of one id there are two events"
                elif topic == "decisions":
                    line = decode_ledger_line(each.value or b"")
                    self.decisions[line.id] = line.person, line.kind, line.about
                else:
                    self.letters.append(decode_rejected(each.value or b"").reason)
        for part, version, row in self.out.rows.values():
            values = row.values
            assert isinstance(values, CampaignRow | CouponRow)
            name = values.campaign if isinstance(values, CampaignRow) else values.code
            if version >= self.versions.get((part, name), -1):
                self.versions[part, name] = version
                if isinstance(values, CampaignRow):
                    self.campaigns[values.campaign] = values
                else:
                    self.coupons[values.code] = part, values
        self.out.take_rows()

    def code_of(self, who: str, campaign: str = "spring") -> str:
        (code,) = [code for code, (part, row) in self.coupons.items()
                   if (part, row.campaign) == (f"w/u:{who}", campaign)]  # fmt: skip
        return code


# --- giving


def test_a_coupon_is_an_event_a_row_and_a_line_of_the_ledger():
    desk = Desk()

    told = desk.take(define(SPRING), give("ada"))

    code = desk.code_of("ada")
    assert told == ["Coupon Given"] and code.startswith("SPRING-") and len(code) == 17
    (event,) = desk.events.values()
    assert (event.key, event.source) == ("w/u:ada", "tidewire")
    assert event.properties == {"campaign": "spring", "code": code, "worth": 10.0, "unit": "EUR", "cause": "test",
                                "expires_at": "2027-02-14T08:00:00.000Z", "request": "r-ada"}  # fmt: skip
    assert list(desk.decisions.values()) == [("w/u:ada", "coupon_given", "spring")]
    row = desk.campaigns["spring"]
    assert (row.given, row.worth_given, row.used, row.codes_left) == (1, 10, 0, 26_439_621)


def test_one_person_has_one_whatever_she_is_known_by_and_however_often_it_is_asked_for():
    desk = Desk()
    desk.take(define(SPRING), give("ada"), give("ada"), give("ada", request="another"))

    desk.take(give("ada2", "spring", "w/u:ada"))  # she was merged since

    assert desk.campaigns["spring"].given == 1 and len(desk.events) == 1
    assert desk.stage.counts == {"applied": 1, "given": 1, "duplicates": 3}


def test_two_people_whose_requests_have_the_same_id_are_two():
    desk = Desk()

    told = desk.take(give("ada", request="1"), give("bob", request="1"), define(SPRING), give("eve", request="1"))

    assert told == ["Coupon Refused unknown", "Coupon Refused unknown", "Coupon Given"]


def test_of_two_campaigns_she_has_two():
    desk = Desk()

    desk.take(define(SPRING), define(changed(SPRING, name="again")), give("ada"), give("ada", "again"))

    assert len({desk.code_of("ada"), desk.code_of("ada", "again")}) == 2  # of one series


@pytest.mark.parametrize(
    ("before", "why"),
    [([], "unknown"), ([define(SPRING), define(SPRING, is_gone=True)], "withdrawn"),
     ([define(changed(SPRING, ends_ms=T0))], "expired"), ([define(POOL)], "empty"),
     ([define(changed(SPRING, most_codes=1)), give("bob")], "budget"),
     ([define(changed(SPRING, most_worth=199_999)), give("bob")], "budget")],
)  # fmt: skip
def test_a_coupon_that_is_not_given_says_why_once(before: list[CouponRecord], why: str):
    desk = Desk()
    desk.take(*before)
    asked = give("ada", "pool" if why == "empty" else "spring")

    told = desk.take(asked, asked)

    assert told == [f"Coupon Refused {why}"]
    assert ("w/u:ada", "coupon_refused", asked.campaign) in desk.decisions.values()
    assert why == "unknown" or desk.campaigns[asked.campaign].refused == 1


def test_a_budget_is_spent_to_the_last_coupon_and_not_beyond():
    desk = Desk()
    desk.take(define(changed(SPRING, most_worth=300_000)))

    desk.take(*(give(f"p{number}") for number in range(10)))

    row = desk.campaigns["spring"]
    assert (row.given, row.refused, row.worth_given, row.codes_left) == (3, 7, 30, 0)
    assert desk.take(define(changed(SPRING, most_worth=400_000)), give("p9", request="again")) == ["Coupon Given"]


def test_a_campaign_that_gave_coupons_keeps_its_unit():
    desk = Desk()

    desk.take(define(SPRING), give("ada"), define(changed(SPRING, unit="USD")), give("bob"))

    assert len(desk.letters) == 1 and desk.campaigns["spring"].unit == "EUR" and desk.campaigns["spring"].given == 2


def test_a_pool_gives_its_codes_in_order_each_once():
    desk = Desk()
    desk.take(define(POOL), Stock(workspace="w", campaign="pool", codes=["a-1", "B-2"]))
    desk.take(Stock(workspace="w", campaign="pool", codes=["A-1", "B-2", "C-3"]))  # the file, with one more

    desk.take(*(give(who, "pool") for who in "abcd"))

    assert [desk.code_of(who, "pool") for who in "abc"] == ["A-1", "B-2", "C-3"]
    assert (desk.campaigns["pool"].stock, desk.campaigns["pool"].given, desk.campaigns["pool"].refused) == (3, 3, 1)
    assert desk.coupons["A-1"][1].expires_at is not None


def test_codes_of_another_pool_are_told_and_the_others_count():
    desk = Desk()
    desk.take(define(POOL), define(changed(POOL, name="other")), Stock(workspace="w", campaign="pool", codes=["A-1"]))

    desk.take(Stock(workspace="w", campaign="other", codes=["A-1", "B-2", "no code"]))

    assert desk.campaigns["other"].stock == 1 and len(desk.letters) == 1


def test_a_series_goes_round_a_pool_that_has_its_next_code_and_ends_before_codes_can_be_guessed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(streams.coupons, "most_codes", lambda length: 3)
    first = Desk()
    first.take(define(SPRING), give("ada"))
    desk = Desk()
    desk.take(define(POOL), Stock(workspace="w", campaign="pool", codes=[first.code_of("ada")]), define(SPRING))

    told = desk.take(*(give(who) for who in "abc"))

    assert told == ["Coupon Given", "Coupon Given", "Coupon Refused empty"]
    assert first.code_of("ada") not in {desk.code_of("a"), desk.code_of("b")}


def test_a_campaign_that_comes_back_under_another_name_gives_no_code_again():
    desk = Desk()
    desk.take(define(SPRING), *(give(f"p{number}") for number in range(50)), define(SPRING, is_gone=True))

    desk.take(define(changed(SPRING, name="may"), seed=SEED[::-1]))
    desk.take(*(give(f"p{number}", "may") for number in range(50)))

    assert len(desk.coupons) == 100 and desk.campaigns["spring"].is_gone


# --- using


def test_a_code_that_is_used_counts_once_however_it_is_typed_and_told():
    desk = Desk()
    desk.take(define(SPRING), give("ada"))
    code = desk.code_of("ada")

    told = desk.take(redeem(f" {code.lower()}", "ada", order="o1"), redeem(code, "ada", order="o1"),
                     redeem(code, "ada", event="other", order="o1"))  # fmt: skip

    assert told == ["Coupon Used"]
    row = desk.campaigns["spring"]
    assert (row.used, row.worth_used, row.misused) == (1, 10, 0)
    assert desk.coupons[code][1].order_id == "o1" and desk.coupons[code][1].used_at is not None


def test_what_is_wrong_is_marked_and_told_once():
    desk = Desk()
    desk.take(define(SPRING), give("ada"), give("bob"))
    ada, bob = desk.code_of("ada"), desk.code_of("bob")
    wrong = [redeem(ada, "eve", event="1"), redeem("SPRING-2222222222", "eve", event="2"), redeem("no code", "eve",
             event="3"), redeem(bob, "bob", event="4", at_ms=T0 + 30 * DAY_MS)]  # fmt: skip

    told = desk.take(*wrong, *wrong)
    used = desk.take(redeem(ada, "ada", order="o1"))
    twice = desk.take(redeem(ada, "ada", event="5", order="o2"))

    assert told == [f"Coupon Misused {why}" for why in ("not_hers", "unknown", "unknown", "expired")]
    assert (used, twice) == (["Coupon Used"], ["Coupon Misused twice"])
    assert (desk.campaigns["spring"].used, desk.campaigns["spring"].misused) == (1, 3)


def test_an_order_that_says_its_code_under_two_keys_used_it_once():
    desk = Desk()
    desk.take(define(SPRING), give("ada"))
    code = desk.code_of("ada")

    told = desk.take(redeem(code, "ada", order="o1"), redeem(code, "visitor", order="o1"),
                     redeem(code, "visitor", event="e-ada"))  # fmt: skip

    assert told == ["Coupon Used", "Coupon Misused not_hers"]


def test_who_was_merged_uses_what_she_was_given_before():
    desk = Desk()
    desk.take(define(SPRING), give("visitor"))

    assert desk.take(redeem(desk.code_of("visitor"), "ada", "w/u:visitor")) == ["Coupon Used"]


def test_history_that_is_brought_in_and_coupons_of_elsewhere_accuse_nobody():
    desk = Desk()

    assert desk.take(redeem("ELSE-1", "ada")) == []
    assert desk.take(define(SPRING), redeem("ELSE-1", "ada", at_ms=T0 - 8 * DAY_MS)) == []
    assert desk.take(redeem("ELSE-1", "ada")) == ["Coupon Misused unknown"]


def test_a_code_of_a_pool_that_nobody_was_given_is_unknown():
    desk = Desk()
    desk.take(define(POOL), Stock(workspace="w", campaign="pool", codes=["A-1"]))

    assert desk.take(redeem("A-1", "eve")) == ["Coupon Misused unknown"]


# --- records

UNUSABLE: dict[str, object] = {
    "name": "No Name", "prefix": "a b", "length": 17, "worth": 0, "unit": "euro", "most_worth": -1, "ends_ms": 2**60,
    "expires_after_ms": -1,
}  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [b"", b"junk", b'{"type":"give"}',
     encode_of_coupons(Give(workspace="w", campaign="spring", person="x", request="r")),
     encode_of_coupons(Give(workspace="W!", campaign="spring", person="w/u:x", request="r")),
     encode_of_coupons(define(SPRING, seed=b"short")), encode_of_coupons(define(SPRING, seed=bytes(65))),
     encode_of_coupons(Define(workspace="w", campaign=SPRING)).replace(b'"name"', b'"when":' + b'{"a":' * 2_000),
     encode_of_coupons(define(changed(SPRING, about="x" * 5_000))),
     encode_of_coupons(Stock(workspace="w", campaign="nowhere", codes=["A"])),
     encode_of_coupons(msgspec.structs.replace(give("x"), person="other/u:x")),
     *(encode_of_coupons(define(changed(SPRING, **{name: value}))) for name, value in UNUSABLE.items()),
     *(encode_of_coupons(redeem("A", "x", at_ms=at_ms)) for at_ms in (-(2**60), 2**60))],
)  # fmt: skip
def test_what_nobody_can_use_is_a_dead_letter_and_the_next_counts(value: bytes):
    desk = Desk()

    desk.take(value, define(SPRING), give("ada"))

    assert len(desk.letters) == 1 and desk.campaigns["spring"].given == 1


# --- whatever dies


class Crashing(Desk):
    """Its process dies, also in the middle of a checkpoint: then some states are stored, and the desk is not."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.stored: dict[str, bytes] = {}
        self.stored_position = 0

    def store(self, whole: bool) -> None:
        for key in sorted(self.memory.touched, key=lambda key: key == DESK):
            if whole or (key != DESK and self.dice.random() < 0.5):
                self.stored[key] = encode_state(self.memory.states[key])
        if whole:
            self.memory.touched.clear()
            self.stored_position = self.position

    def die(self) -> None:
        self.store(whole=False)
        self.out.clear()
        self.memory, self.position = Memory(self.stored), self.stored_position

    def run(self) -> None:
        deaths = 0
        while self.position < len(self.log):
            self.step()
            chance = self.dice.random()
            if chance < 0.1 and deaths < 20:
                deaths += 1
                self.die()
            elif chance < 0.3:
                self.store(whole=True)


def a_history(dice: random.Random) -> list[CouponRecord]:
    records: list[CouponRecord] = [define(changed(SPRING, most_codes=6)), define(POOL)]
    records += [Stock(workspace="w", campaign="pool", codes=[f"P-{n}" for n in range(m, m + 3)]) for m in (0, 2)]
    plain = Desk()
    for _ in range(40):
        kind = dice.choice(["give", "give", "pool", "use", "use", "define"])
        who = f"p{dice.randrange(8)}"
        plain.take(*records[len(plain.log) :])
        codes = [*plain.coupons, "NO-1", "P-0", "P-2"]
        if kind == "use":
            records.append(redeem(dice.choice(codes), who, event=f"e{dice.randrange(30)}"))
        elif kind == "define":
            records.append(define(changed(SPRING, most_codes=dice.choice([4, 6, 8])), is_gone=dice.random() < 0.3))
        else:
            records.append(give(who, "pool" if kind == "pool" else "spring", request=f"r{dice.randrange(30)}"))
    return records


@given(st.integers(0, 2**32))
def test_whatever_dies_the_same_people_have_the_same_codes(seed: int):
    dice = random.Random(seed)
    records = a_history(dice)
    whole, crashing = Desk(), Crashing(seed)
    whole.take(*records)

    crashing.append(*records)
    crashing.run()

    assert crashing.events == whole.events
    assert crashing.coupons == whole.coupons and crashing.campaigns == whole.campaigns
    assert crashing.decisions == whole.decisions
    assert encode_state(crashing.memory.get(DESK)) == encode_state(whole.memory.get(DESK))
    holders = Counter(event.properties["code"] for event in whole.events.values() if event.event == "Coupon Given")
    assert set(holders.values()) <= {1}
    of = Counter((part, row.campaign) for part, row in whole.coupons.values())
    assert set(of.values()) <= {1}
