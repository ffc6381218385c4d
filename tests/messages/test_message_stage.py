"""The stage of messages, and the customer stage's leave to send: pure, in memory, with crashes at every point."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.base import Person
from processors.fold import Fold
from processors.profile import Profile
from processors.visits import Visits
from schemas.customer import Part
from schemas.event import Event, decode_event
from schemas.internal import Prepare
from schemas.keyed import encode_state
from schemas.messages import (
    Mailbox,
    OfMessages,
    Order,
    Outcome,
    Ready,
    Result,
    Settle,
    Withheld,
    decode_mailbox,
    encode_of_message,
)
from schemas.rows import decode_ledger_line
from schemas.templates import Class
from schemas.times import DAY_MS, from_ms
from sinks.messages.tables import MessageRow
from streams.dead_letters import DeadLetterLimit
from streams.lines import MESSAGES
from streams.log import Record
from streams.messages import FIRST_PAUSE_MS, LEASE_MS, OFFER_AGAIN_MS, Attempt, Ended, MessageStage, Offer
from streams.outbox import Outbox
from tests.streams.world import World

ADA, T0 = "w/u:ada", 1_800_000_000_000
SECTIONS = msgspec.Raw(b'{"profile":{"email":"ada@example.com"}}')


def an_order(id_: str = "m1", to: str = ADA, *, kind: Class = "marketing", at_ms: int = T0) -> Order:
    topic = "offers" if kind == "marketing" else ""
    return Order(to=to, id=id_, template="hello", channel="email", kind=kind, topic=topic, by="test", at_ms=at_ms,
                 expires_ms=at_ms + DAY_MS)  # fmt: skip


def ready(order: Order, attempt: int = 1) -> Ready:
    return Ready(to=order.to, id=order.id, attempt=attempt, person=order.to, sections=SECTIONS)


def outcome(order: Order, result: Result = "accepted", attempt: int = 1, **said: object) -> Outcome:
    return Outcome(to=order.to, id=order.id, attempt=attempt, result=result, via="fake", **said)  # type: ignore[arg-type]


class Mailboxes:
    """The states of one partition, as `streams.worker.States`."""

    def __init__(self) -> None:
        self.states: dict[str, Mailbox] = {}

    def get(self, key: str) -> Mailbox:
        return self.states.setdefault(key, Mailbox())

    def fetch(self, keys: Iterable[str]) -> None: ...

    def keys_after(self, after: str, most: int) -> list[str]:
        return []

    def touch(self, key: str, state: Mailbox) -> None: ...

    def show(self, key: str) -> None: ...


class Desk:
    """A partition of topic `messages` and its stage; time moves when it is told to."""

    def __init__(self, room: int = 100) -> None:
        self.stage = MessageStage(lambda: room)
        self.mailboxes = Mailboxes()
        self.out = Outbox(self.stage.table_of)
        self.now_ms = T0
        self.offset = 0
        self.events: list[Event] = []
        self.decisions: list[tuple[str, str]] = []
        self.rejected = 0
        self.rows: dict[str, MessageRow] = {}

    def take(self, *messages: OfMessages | bytes, after_ms: int = 0) -> list[object]:
        """Fold them in; what is to be done outside then."""
        self.now_ms += after_ms
        for message in messages:
            value = message if isinstance(message, bytes) else encode_of_message(message)
            record = Record(MESSAGES.topic, 0, self.offset, self.now_ms, ADA.encode(), value)
            self.offset += 1
            assert self.stage.handle([record], self.mailboxes, self.out, DeadLetterLimit()) == 1
        return self._gather()

    def wake(self, after_ms: int = 0) -> list[object]:
        """Tell who has something due, as the worker does."""
        self.now_ms += after_ms
        due = [key for key, box in self.mailboxes.states.items()
               if 0 < self.stage.next_due_ms(box) <= self.now_ms]  # fmt: skip
        return [each for key in due for each in self.take(self.stage.tick(key, self.now_ms, 0).value or b"")]

    def _gather(self) -> list[object]:
        for topic, records in self.out.take_messages().items():
            for record in records:
                if topic == "events":
                    self.events.append(decode_event(record.value))
                elif topic == "decisions":
                    line = decode_ledger_line(record.value or b"")
                    self.decisions.append((line.kind, line.about))
                else:
                    self.rejected += 1
        for row in self.out.rows.values():
            values = row[2].values
            assert isinstance(values, MessageRow)
            self.rows[values.id] = values
        self.out.take_rows()
        return self.out.take_then()

    def state(self, id_: str = "m1") -> str:
        return self.rows[id_].state


# --- the way of one message


def test_an_order_asks_for_a_turn_and_is_handed_over_once_it_is_allowed():
    desk, order = Desk(), an_order()

    (offer,) = desk.take(order)
    (attempt,) = desk.take(ready(order))
    waiting = desk.state()
    then = desk.take(outcome(order, address="ada@example.com", version="v1", reference="250 ok"))

    assert offer == Offer(order, 1)
    assert attempt == Attempt(order, 1, ADA, SECTIONS, T0 + LEASE_MS)
    assert (waiting, desk.state(), then) == ("sending", "sent", [])
    assert desk.decisions == [("message_sent", "hello")]
    row = desk.rows["m1"]
    assert (row.address, row.template_version, row.via, row.reference, row.attempts) == (
        "ada@example.com", "v1", "fake", "250 ok", 1)  # fmt: skip
    (event,) = desk.events
    assert (event.event, event.user_id, event.source) == ("Message Sent", "ada", "tidewire")
    assert event.properties["message_id"] == "m1" and event.properties["topic"] == "offers"
    assert desk.stage.next_due_ms(desk.mailboxes.get(ADA)) == 0 and not desk.mailboxes.get(ADA).open


def test_an_order_that_comes_again_changes_nothing_however_late():
    desk, order = Desk(), an_order()
    desk.take(order, ready(order), outcome(order))

    then = desk.take(order, after_ms=300 * DAY_MS)

    assert then == [] and desk.stage.counts["duplicates"] == 1
    assert desk.state() == "sent" and len(desk.events) == 1


def test_what_comes_twice_is_handed_over_once():
    desk, order = Desk(), an_order()

    then = desk.take(order, ready(order), ready(order), outcome(order), outcome(order), ready(order))

    assert sum(isinstance(each, Attempt) for each in then) == 1
    assert len(desk.events) == 1 and desk.stage.counts["duplicates"] == 3


def test_a_message_that_is_withheld_says_why():
    desk, order = Desk(), an_order()
    desk.take(order)

    then = desk.take(Withheld(to=ADA, id="m1", attempt=1, person="w/u:ada2", why="no_consent"))

    assert then == [Ended(order)] and desk.state() == "withheld" and desk.rows["m1"].why == "no_consent"
    assert desk.decisions == [("message_withheld", "hello")] and desk.events == []


def test_a_refusal_of_the_address_is_a_bounce_of_the_person_she_is_now():
    desk, order = Desk(), an_order()
    desk.take(order, msgspec.structs.replace(ready(order), person="w/a:visitor"))

    desk.take(outcome(order, "declined", why="550 no such user", is_address=True))

    assert desk.state() == "failed" and desk.rows["m1"].why == "550 no such user"
    assert [(event.event, event.anonymous_id) for event in desk.events] == [
        ("Message Failed", "visitor"), ("Message Bounced", "visitor")]  # fmt: skip
    assert desk.events[0].message_id != desk.events[1].message_id


# --- trying again


def test_what_is_not_taken_is_tried_again_ever_more_seldom_until_it_is_too_late():
    desk, order = Desk(), an_order(kind="transactional")
    desk.take(order)
    pauses = []

    for attempt in range(1, 200):
        desk.take(ready(order, attempt))
        failed_ms = desk.now_ms
        desk.take(outcome(order, "later", attempt, why="451 try later"))
        if desk.state() == "failed":
            break
        (offer,) = desk.wake(after_ms=desk.mailboxes.get(ADA).open["m1"].due_ms - desk.now_ms)
        assert offer == Offer(order, attempt + 1)
        pauses.append(desk.now_ms - failed_ms)

    assert pauses[:3] == [FIRST_PAUSE_MS, 2 * FIRST_PAUSE_MS, 4 * FIRST_PAUSE_MS] and pauses == sorted(pauses)
    assert desk.now_ms <= order.expires_ms and desk.rows["m1"].why == "it was too late: 451 try later"


def test_a_channel_that_is_down_costs_no_try():
    desk, order = Desk(), an_order()
    desk.take(order)

    for attempt in (1, 2, 3):
        desk.take(ready(order, attempt), outcome(order, "later", attempt, counts=False, after_ms=2_000))
        (offer,) = desk.wake(after_ms=2_000)

    assert offer == Offer(order, 4) and desk.mailboxes.get(ADA).open["m1"].tries == 0


def test_leave_that_was_given_for_an_earlier_attempt_is_none():
    desk, order = Desk(), an_order()
    desk.take(order, ready(order), outcome(order, "later"))

    assert desk.take(ready(order)) == [] and desk.state() == "waiting"


def test_an_offer_that_is_lost_comes_again():
    desk, order = Desk(), an_order()
    desk.take(order)

    assert desk.wake(after_ms=OFFER_AGAIN_MS - 1) == []
    assert desk.wake(after_ms=1) == [Offer(order, 1)]


def test_without_room_nothing_is_offered_and_it_stays_due():
    desk, order = Desk(room=0), an_order()

    assert desk.take(order) == []
    assert desk.stage.next_due_ms(desk.mailboxes.get(ADA)) == T0


def test_the_messages_of_a_kind_leave_one_after_the_other():
    desk = Desk()
    first, second = an_order("m1"), an_order("m2")
    receipt = an_order("m3", kind="transactional")

    offered = desk.take(first, second, receipt)
    while_sending = desk.take(ready(first))
    after = desk.take(outcome(first))

    assert offered == [Offer(first, 1), Offer(receipt, 1)]
    assert [type(each) for each in while_sending] == [Attempt]
    assert after == [Offer(second, 1)]


# --- nobody knows


@pytest.mark.parametrize("by", ["its process", "the channel"])
def test_a_marketing_message_of_which_nobody_knows_is_not_sent_again_by_itself(by: str):
    desk, order, next_ = Desk(), an_order(), an_order("m2")
    desk.take(order, next_, ready(order))

    then = desk.wake(after_ms=LEASE_MS) if by == "its process" else desk.take(outcome(order, "unknown", why="silence"))

    assert desk.state() == "unknown" and then == [Offer(next_, 1)]
    desk.wake(after_ms=300 * DAY_MS)
    assert (desk.state(), desk.state("m2")) == ("unknown", "failed")  # the one because nobody knows, the other too late
    assert [event.properties["message_id"] for event in desk.events] == ["m2"]


def test_a_transactional_message_of_which_nobody_knows_is_sent_again():
    desk, order = Desk(), an_order(kind="transactional")
    desk.take(order, ready(order))

    then = desk.wake(after_ms=LEASE_MS)
    again = desk.wake(after_ms=FIRST_PAUSE_MS)

    assert then == [] and again == [Offer(order, 2)]


@pytest.mark.parametrize("kind", ["marketing", "transactional"])
def test_an_answer_that_comes_after_the_lease_still_counts(kind: Class):
    desk, order = Desk(), an_order(kind=kind)
    desk.take(order, ready(order))
    desk.wake(after_ms=LEASE_MS)

    desk.take(outcome(order))

    assert desk.state() == "sent" and [event.event for event in desk.events] == ["Message Sent"]


@pytest.mark.parametrize(("as_", "state"), [("sent", "sent"), ("failed", "failed"), ("again", "waiting")])
def test_a_person_decides_about_it(as_: str, state: str):
    desk, order = Desk(), an_order()
    desk.take(order, ready(order), outcome(order, "unknown", why="silence"))

    then = desk.take(Settle(to=ADA, id="m1", as_=as_, by="ann"), after_ms=2 * DAY_MS)

    assert desk.state() == state
    assert then == ([Offer(desk.mailboxes.get(ADA).open["m1"].order, 2)] if as_ == "again" else [])


def test_what_is_on_its_way_cannot_be_settled_and_what_waits_can_only_be_stopped():
    desk, first, second = Desk(), an_order(), an_order("m2")
    desk.take(first, second, ready(first))

    desk.take(*(Settle(to=ADA, id=id_, as_=as_) for id_ in ("m1", "m2") for as_ in ("sent", "again")))
    desk.take(Settle(to=ADA, id="m1", as_="failed"))
    still = desk.state("m1"), desk.state("m2")
    desk.take(Settle(to=ADA, id="m2", as_="failed", by="ann"))

    assert still == ("sending", "waiting") and desk.state("m2") == "failed"


NO_MESSAGES = [b"", b"junk", b"[]", b'{"type":"order"}', b'{"type":"wake","to":"nobody","at_ms":1}']


@pytest.mark.parametrize("value", NO_MESSAGES)
def test_what_is_no_message_is_rejected(value: bytes):
    desk = Desk()

    assert desk.take(value) == [] and desk.rejected == 1


# --- whatever dies


class Crashing(Desk):
    """A desk whose process dies: what it had not stored happens again, what it had in hand is gone. The other side
    counts what it is given."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.log: list[bytes] = []
        self.times: list[int] = []
        self.stored: dict[str, bytes] = {}
        self.position = self.stored_position = 0
        self.asked: deque[Offer] = deque()
        self.calls: deque[Attempt] = deque()
        self.durable: list[object] = []
        self.given: Counter[str] = Counter()
        self.unsure: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.kills = 0

    def append(self, message: OfMessages | bytes) -> None:
        self.log.append(message if isinstance(message, bytes) else encode_of_message(message))
        self.times.append(self.now_ms)

    def step(self) -> None:
        """One thing happens."""
        self.now_ms += self.dice.choice([1, 10, 1_000, 20_000])
        what = self.dice.choice(["read", "read", "read", "store", "store", "answer", "call", "wake", "die"])
        getattr(self, what)()

    def read(self) -> None:
        if self.position < len(self.log):
            value, now = self.log[self.position], self.now_ms
            self.offset, self.now_ms = self.position, self.times[self.position]
            self.durable += self.take(value)
            self.now_ms, self.position = now, self.position + 1

    def store(self) -> None:
        self.stored = {key: encode_state(box) for key, box in self.mailboxes.states.items()}
        self.stored_position = self.position
        for each in self.durable:
            if isinstance(each, Offer):
                self.asked.append(each)
            elif isinstance(each, Attempt):
                self.calls.append(each)
        self.durable = []

    def answer(self) -> None:
        if self.asked:
            offer = self.asked.popleft()
            for _ in range(self.dice.choice([1, 1, 2])):
                self.append(ready(offer.order, offer.attempt))

    def call(self) -> None:
        if not self.calls:
            return
        attempt = self.calls.popleft()
        if self.now_ms > attempt.until_ms:  # the dispatcher begins nothing so late
            self.append(outcome(attempt.order, "later", attempt.attempt))
            return
        result = self.dice.choice(["accepted", "accepted", "later", "declined", "unknown", "died"])
        if result in ("accepted", "unknown", "died") and (result == "accepted" or self.dice.random() < 0.5):
            self.given[attempt.order.id] += 1
        if result == "died":  # between the other side's answer and ours
            self.unsure[attempt.order.id] += 1
            self.die()
        elif result == "unknown":
            self.unsure[attempt.order.id] += 1
            self.append(outcome(attempt.order, "unknown", attempt.attempt))
        else:
            self.accepted |= {attempt.order.id} if result == "accepted" else set()
            self.append(outcome(attempt.order, result, attempt.attempt))  # type: ignore[arg-type]

    def wake(self, after_ms: int = 0) -> list[object]:
        for key, box in self.mailboxes.states.items():
            if 0 < self.stage.next_due_ms(box) <= self.now_ms:
                self.append(self.stage.tick(key, self.now_ms, 0).value or b"")
        return []

    def die(self) -> None:
        self.kills += 1
        self.out.clear()
        self.mailboxes.states = {key: decode_mailbox(value) for key, value in self.stored.items()}
        self.position = self.stored_position
        self.asked.clear()
        self.calls.clear()
        self.durable = []


@given(st.integers(0, 2**32))
def test_whatever_dies_marketing_is_sent_at_most_once_and_nothing_is_forgotten(seed: int):
    desk = Crashing(seed)
    orders = [an_order(f"m{n}", f"w/u:p{n % 2}", kind="marketing" if n % 3 else "transactional") for n in range(6)]
    for order in orders:
        for _ in range(desk.dice.choice([1, 1, 2])):  # who orders may die, too, and order again
            desk.append(order)

    for _ in range(300):
        desk.step()
    desk.now_ms += 2 * DAY_MS
    for _ in range(400):  # and at last it lives
        desk.wake()
        desk.read()
        desk.read()
        desk.store()
        desk.answer()
        desk.now_ms += LEASE_MS // 4
        while desk.calls:
            last = desk.calls.popleft()
            if desk.now_ms <= last.until_ms:
                desk.given[last.order.id] += 1
                desk.accepted.add(last.order.id)
                desk.append(outcome(last.order, "accepted", last.attempt))

    assert desk.position == len(desk.log)
    for order in orders:
        state = desk.state(order.id)
        assert state in ("sent", "failed", "unknown"), (order.id, state)
        if order.kind == "marketing":
            assert desk.given[order.id] <= 1
            assert state != "unknown" or desk.unsure[order.id] or desk.kills
        else:
            assert state != "unknown"
            assert desk.given[order.id] <= 1 + desk.unsure[order.id] + desk.kills
        if order.id in desk.accepted:
            assert state == "sent", "the channel said that it took it"
        if state == "sent":
            assert desk.given[order.id] >= 1
    told = {event.message_id: event for event in desk.events if event.event == "Message Sent"}
    sent = [order.id for order in orders if desk.state(order.id) == "sent"]
    assert sorted(event.properties["message_id"] for event in told.values()) == sent


def test_what_was_said_to_her_is_no_sign_of_life():
    """Else who is written to every week would never be asleep."""
    desk, order = Desk(), an_order()
    desk.take(order, ready(order), outcome(order))
    (sent,) = desk.events
    fold, part, person = Fold([Profile(), Visits()]), Part(), Person(ADA, ADA, 0)
    seen = an_identify(1, user="ada", email="ada@example.com")
    fold.apply(part, seen, person, seen.received_ms)
    before = fold.portrait({ADA: part})

    sent.timestamp = sent.received_at = from_ms(T0 + DAY_MS)
    done = fold.apply(part, sent, person, sent.received_ms)

    assert fold.portrait({ADA: part}) == before and done == []


# --- leave to send


def asked(world: World, key: str, topic: str = "offers") -> OfMessages:
    """What the customer stage answers."""
    world.tell(Prepare(to=key, origin="", at_ms=0, mailbox=key, id="m1", attempt=3, channel="email", topic=topic))
    world.settle()
    return world.messages[-1]


def an_identify(number: int, *, user: str = "", anonymous: str = "", **traits: object) -> Event:
    at = from_ms(T0 + number * 1000)
    return Event(message_id=f"i{number}", type="identify", workspace="w", source="shop", timestamp=at, received_at=at,
                 user_id=user, anonymous_id=anonymous, raw_traits=msgspec.Raw(msgspec.json.encode(traits)))  # fmt: skip


def a_world(*events: Event) -> World:
    world = World(fold=Fold([Profile()]))
    for event in events:
        world.send(event)
    world.settle()
    return world


def test_whom_nothing_is_known_of_gets_nothing():
    answer = asked(a_world(), "w/u:nobody")

    assert answer == Withheld(to="w/u:nobody", id="m1", attempt=3, person="w/u:nobody", why="nobody")


def test_who_has_no_address_gets_nothing():
    answer = asked(a_world(an_identify(1, user="ada", consent={"offers": True})), ADA)

    assert isinstance(answer, Withheld) and answer.why == "no_address"


@pytest.mark.parametrize(
    ("consent", "is_allowed"),
    [({}, False), ({"offers": True}, True), ({"offers": False}, False), ({"*": True}, True), ({"news": True}, False),
     ({"offers": {"sms": True}}, False), ({"offers": {"email": True}}, True),
     ({"*": True, "offers": {"email": False}}, False)],
)  # fmt: skip
def test_a_topic_needs_consent(consent: dict[str, object], is_allowed: bool):
    world = a_world(an_identify(1, user="ada", email="ada@example.com", consent=consent))

    answer, transactional = asked(world, ADA), asked(world, ADA, topic="")

    assert isinstance(answer, Ready) == is_allowed
    assert is_allowed or answer.why == "no_consent"  # type: ignore[union-attr]
    assert isinstance(transactional, Ready)


def test_consent_that_was_withdrawn_counts_at_once():
    world = a_world(an_identify(1, user="ada", email="ada@example.com", consent={"offers": True}))
    before = asked(world, ADA)
    at = from_ms(T0 + 5_000)

    world.send(Event(message_id="e1", type="track", event="Unsubscribed", workspace="w", source="tidewire",
                     user_id="ada", timestamp=at, received_at=at,
                     raw_properties=msgspec.Raw(b'{"topic":"offers"}')))  # fmt: skip
    after = asked(world, ADA)

    assert isinstance(before, Ready) and isinstance(after, Withheld) and after.why == "no_consent"


def test_of_whom_was_merged_the_person_she_is_now_answers_to_the_mailbox_it_was_ordered_for():
    world = a_world(an_identify(1, anonymous="v", consent={"offers": True}),
                    an_identify(2, user="ada", anonymous="v", email="ada@example.com"))  # fmt: skip

    answer = asked(world, "w/a:v")

    assert isinstance(answer, Ready) and (answer.to, answer.person, answer.attempt) == ("w/a:v", ADA, 3)
    assert msgspec.json.decode(answer.sections)["profile"]["email"] == "ada@example.com"

    world.unmerge("w/a:v")
    world.settle()
    apart = asked(world, "w/a:v")

    assert isinstance(apart, Withheld) and apart.person == "w/a:v"
