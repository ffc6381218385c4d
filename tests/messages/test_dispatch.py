"""Handing messages over: turns, rests, and what becomes of an attempt, whatever the channel does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from config.channels import Channels, ChannelSettings, read_channels
from schemas.errors import ConfigError
from schemas.internal import Prepare, decode_internal
from schemas.messages import Order, Outcome, decode_of_message
from sinks.messages.channel import Accepted, Declined, Later, Message, Unknown
from sinks.messages.channel import Outcome as Said
from streams import dispatch
from streams.dispatch import MOST_WAITING, Dispatcher, Lane
from streams.log import LogUnavailable, Outgoing, partition_of
from streams.messages import Attempt, Ended, Offer
from streams.metrics import DispatchMetrics
from streams.suppressions import Suppressions
from tests.messages.test_files import read_text
from tests.messages.test_message_stage import ADA, SECTIONS, T0, an_order

HELLO = """
channel: email
kind: marketing
topic: offers
content: {en: {subject: "Hello {{ profile.email }}", text: "Hello {{ given.name | default('you') }}"}}
"""


class FakeLog:
    """Remembers what was appended."""

    def __init__(self) -> None:
        self.appended: list[tuple[str, Outgoing]] = []
        self.grown = asyncio.Event()
        self.is_away = False  # for who reads

    def partitions(self, topic: str) -> int:
        return 2

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        if self.is_away:
            raise LogUnavailable("the broker is away")
        return {}

    async def append(self, topic: str, records: list[Outgoing]) -> list[Any]:
        self.appended += [(topic, record) for record in records]
        self.grown.set()
        return []

    def prepares(self) -> list[Prepare]:
        found = [decode_internal(record.value or b"") for topic, record in self.appended if topic == "events"]
        return [each for each in found if isinstance(each, Prepare)]

    def outcomes(self) -> list[Outcome]:
        found = [decode_of_message(record.value or b"") for topic, record in self.appended if topic == "messages"]
        return [each for each in found if isinstance(each, Outcome)]

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not reached():
                self.grown.clear()
                await self.grown.wait()


class FakeChannel:
    """Says what it is told to say, when it may."""

    def __init__(self, *says: Said | BaseException) -> None:
        self.says = list(says)
        self.may_say = asyncio.Event()
        self.may_say.set()
        self.given: list[Message] = []
        self.silent = asyncio.Event()
        self.is_closed = False

    async def send(self, message: Message) -> Said:
        self.given.append(message)
        await self.may_say.wait()
        said = self.says.pop(0) if self.says else Accepted("ref")
        if isinstance(said, asyncio.CancelledError):
            await asyncio.Event().wait()
        if isinstance(said, BaseException):
            raise said
        return said

    async def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def dispatching(
    tmp_path: Path, channel: FakeChannel, template: str = HELLO, lease_ms: int = 60_000, call_s: float = 5.0,
    suppressions: Suppressions | None = None, **settings: object,
) -> AsyncIterator[tuple[Dispatcher, FakeLog]]:  # fmt: skip
    log, failures = FakeLog(), []
    read = read_text(template, tmp_path)
    dispatcher = Dispatcher(
        log, {"email": (ChannelSettings(**{"rate": 10_000, **settings}), channel)},  # type: ignore[arg-type]
        lambda name: read if name == "hello" else f'there is no template "{name}" any more',
        suppressions or Suppressions(log), DispatchMetrics(CollectorRegistry()), lease_ms=lease_ms, call_s=call_s,
    )  # fmt: skip
    dispatcher.start(failures.append)
    try:
        yield dispatcher, log
    finally:
        await dispatcher.stop()
    assert channel.is_closed and failures == []


def an_attempt(order: Order | None = None, sections: bytes = bytes(SECTIONS)) -> Attempt:
    return Attempt(order or an_order(), 1, ADA, msgspec.Raw(sections), T0)


async def said_of(tmp_path: Path, said: Said | BaseException, **how: Any) -> Outcome:
    async with dispatching(tmp_path, FakeChannel(said), **how) as (dispatcher, log):
        dispatcher.then([an_attempt()])
        await log.until(lambda: bool(log.outcomes()))
        return log.outcomes()[0]


# --- attempts


async def test_a_message_is_filled_in_and_handed_over(tmp_path: Path):
    channel = FakeChannel(Accepted("250 queued"))
    async with dispatching(tmp_path, channel) as (dispatcher, log):
        dispatcher.then([an_attempt(msgspec.structs.replace(an_order(), given={"name": "Ada"}))])
        await log.until(lambda: bool(log.outcomes()))

    (message,), (outcome,) = channel.given, log.outcomes()
    assert (message.id, message.person, message.to) == ("m1", ADA, "ada@example.com")
    assert (message.content.subject, message.content.text) == ("Hello ada@example.com", "Hello Ada")
    assert (outcome.to, outcome.id, outcome.attempt, outcome.result) == (ADA, "m1", 1, "accepted")
    assert (outcome.address, outcome.via, outcome.reference) == ("ada@example.com", "outbox", "250 queued")
    assert outcome.version
    assert log.appended[0][1].key == ADA.encode()


@pytest.mark.parametrize(
    ("said", "result", "counts"),
    [(Later("451 busy", 7.0), "later", True), (Later("421 going down", is_down=True), "later", False),
     (Declined("550 unknown", is_address=True), "declined", True), (Unknown("silence"), "unknown", True),
     (ValueError("a bug"), "unknown", True)],
)  # fmt: skip
async def test_what_a_channel_says_is_told(tmp_path: Path, said: Said | BaseException, result: str, counts: bool):
    outcome = await said_of(tmp_path, said)

    assert (outcome.result, outcome.counts) == (result, counts)
    assert outcome.why == (f"the channel failed: {said!r}" if isinstance(said, ValueError) else said.why)  # type: ignore[union-attr]
    assert outcome.is_address == (result == "declined")
    assert outcome.after_ms == {"451 busy": 7_000, "421 going down": 1_000}.get(outcome.why, 0)


async def test_a_channel_that_does_not_answer_is_not_waited_for(tmp_path: Path):
    outcome = await said_of(tmp_path, asyncio.CancelledError(), call_s=0.05)

    assert outcome.result == "unknown" and "no answer within" in outcome.why


async def test_what_comes_too_late_is_not_begun(tmp_path: Path):
    """The process stood still between the state that says so and the call: another may have given it up by now."""
    channel = FakeChannel()
    async with dispatching(tmp_path, channel, lease_ms=1_000, call_s=2.0) as (dispatcher, log):
        dispatcher.then([an_attempt()])
        await log.until(lambda: bool(log.outcomes()))

    assert channel.given == [] and log.outcomes()[0].result == "later"


@pytest.mark.parametrize(
    ("attempt", "why"),
    [(an_attempt(msgspec.structs.replace(an_order(), template="gone")), 'there is no template "gone" any more'),
     (an_attempt(msgspec.structs.replace(an_order(), topic="news")), "its channel or topic is another"),
     (an_attempt(sections=b"{}"), "content.en.subject")],
)  # fmt: skip
async def test_what_cannot_be_filled_in_is_not_sent(tmp_path: Path, attempt: Attempt, why: str):
    channel = FakeChannel()
    async with dispatching(tmp_path, channel) as (dispatcher, log):
        dispatcher.then([attempt])
        await log.until(lambda: bool(log.outcomes()))

    (outcome,) = log.outcomes()
    assert channel.given == [] and outcome.result == "declined" and why in outcome.why
    assert not outcome.is_address


async def test_a_fault_of_ours_in_filling_in_costs_that_message_alone(tmp_path: Path, monkeypatch):
    def breaks(*arguments: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr("sinks.messages.rendering.Template.render", breaks)
    outcome = await said_of(tmp_path, Accepted())

    assert outcome.result == "declined" and "a fault in Tidewire itself: KeyError('oh')" in outcome.why


async def test_calls_under_way_are_waited_for_when_the_process_ends(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dispatch, "LEAVE_S", 0.05)
    channel = FakeChannel(Accepted("soon"), asyncio.CancelledError())
    async with dispatching(tmp_path, channel) as (dispatcher, log):
        dispatcher.then([an_attempt(), an_attempt(an_order("m2"))])
        while len(channel.given) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    assert [(outcome.id, outcome.result) for outcome in log.outcomes()] == [("m1", "accepted")]


# --- turns


async def test_an_offer_asks_for_leave_once_and_gives_its_slot_back(tmp_path: Path):
    async with dispatching(tmp_path, FakeChannel(), at_once=1) as (dispatcher, log):
        first, second = Offer(an_order(), 1), Offer(an_order("m2"), 3)
        dispatcher.then([first, first, second])
        await log.until(lambda: bool(log.prepares()))
        before = [prepare.id for prepare in log.prepares()]
        dispatcher.then([Ended(first.order)])
        await log.until(lambda: len(log.prepares()) > 1)

    assert before == ["m1"] and [prepare.id for prepare in log.prepares()] == ["m1", "m2"]
    asked = log.prepares()[1]
    assert (asked.to, asked.mailbox, asked.attempt, asked.channel, asked.topic) == (ADA, ADA, 3, "email", "offers")


def a_lane(monkeypatch, **settings: Any) -> tuple[Lane, Callable[[float], None]]:
    now = [1_000.0]
    monkeypatch.setattr(dispatch.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return Lane("email", FakeChannel(), ChannelSettings(**settings)), later


def offers(count: int, start: int = 0) -> list[Offer]:
    return [Offer(an_order(f"m{number}"), 1) for number in range(start, start + count)]


def test_so_many_a_second_leave_and_no_more(monkeypatch):
    lane, later = a_lane(monkeypatch, rate=10, at_once=1_000)
    for offer in offers(100):
        lane.add(offer)
    later(10.0)  # what was not used is not saved up

    taken = [len(lane.take())]
    for _ in range(20):
        later(0.1)
        taken.append(len(lane.take()))

    assert taken[0] == 10 and sum(taken[1:]) == 20


def test_so_many_are_under_way_and_no_more(monkeypatch):
    lane, _ = a_lane(monkeypatch, rate=1_000, at_once=3)
    for offer in offers(5):
        lane.add(offer)
    _(1.0)

    first = lane.take()
    lane.ended(first[0].order)
    second = lane.take()

    assert [len(first), len(second), len(lane.take())] == [3, 1, 0]


def test_a_slot_that_nobody_gives_back_is_free_again_in_time(monkeypatch):
    lane, later = a_lane(monkeypatch, rate=1_000, at_once=1)
    for offer in offers(2):
        lane.add(offer)
    later(1.0)
    lane.take()

    later(59.0)
    before = lane.take()
    later(2.0)

    assert before == [] and len(lane.take()) == 1


def test_a_call_keeps_its_slot_however_long_it_takes_also_one_that_another_process_asked_for(monkeypatch):
    lane, later = a_lane(monkeypatch, rate=1_000, at_once=2)
    asked_here, asked_elsewhere, *others = offers(4)
    lane.add(asked_here)
    later(1.0)
    lane.take()
    lane.begins(asked_here.order)
    lane.begins(asked_elsewhere.order)
    for offer in others:
        lane.add(offer)

    later(119.0)
    during = lane.take()
    lane.ended(asked_elsewhere.order)

    assert during == [] and lane.take() == others[:1]


async def test_who_is_offered_elsewhere_now_keeps_no_slot_here_and_a_call_that_began_does(tmp_path: Path):
    moved, stayed = "default/u:ada", "default/u:dora"
    calling, asked, waiting = (Offer(an_order(id_, to=moved), 1) for id_ in ("calling", "asked", "waiting"))
    others = [Offer(an_order(f"m{number}", to=stayed), 1) for number in range(3)]
    here = {partition_of(stayed.encode(), 2)}
    assert partition_of(moved.encode(), 2) not in here
    channel = FakeChannel()
    channel.may_say.clear()
    async with dispatching(tmp_path, channel, at_once=2) as (dispatcher, log):
        dispatcher.then([calling, asked, waiting, *others])
        await log.until(lambda: len(log.prepares()) == 2)
        dispatcher.then([an_attempt(calling.order)])
        dispatcher.owns(here)
        await log.until(lambda: len(log.prepares()) == 3)
        dispatcher.owns(here)  # nothing of it was given back
        await asyncio.sleep(0.1)
        asked_for = [prepare.id for prepare in log.prepares()]
        channel.may_say.set()

    assert asked_for == ["calling", "asked", "m0"]


def test_there_is_room_for_so_many_and_the_others_come_again(monkeypatch):
    lane, _ = a_lane(monkeypatch)
    for offer in offers(MOST_WAITING + 5):
        lane.add(offer)

    assert len(lane.waiting) == MOST_WAITING and lane.room == 0


def test_a_channel_that_is_down_rests_ever_longer_and_is_tried_with_one(monkeypatch):
    lane, later = a_lane(monkeypatch, rate=1_000, at_once=8)
    for offer in offers(50):
        lane.add(offer)
    down, rests, tried = Later("refused", is_down=True), [], []
    later(1.0)
    under_way = lane.take()

    for offer in under_way:  # all of them fail together: that is one failure
        rests.append(lane.heard(down))
        lane.ended(offer.order)
    for _ in range(8):
        assert lane.take() == []
        later(rests[-1])
        (offer,) = lane.take()
        rests.append(lane.heard(down))
        lane.ended(offer.order)
        tried.append(rests[-1])
    later(rests[-1])
    (offer,) = lane.take()
    lane.heard(Declined("550 no such user"))  # it takes something from somebody again
    lane.ended(offer.order)

    assert set(rests[: len(under_way)]) == {1.0}
    assert tried == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert len(lane.take()) == 8


def test_a_channel_that_asks_for_longer_is_left_alone_for_longer(monkeypatch):
    lane, later = a_lane(monkeypatch)
    lane.add(offers(1)[0])

    assert lane.heard(Later("429", after_s=300.0, is_down=True)) == 300.0
    later(299.0)
    assert lane.take() == []
    later(1.0)
    assert len(lane.take()) == 1


# --- config/channels.yaml


def test_without_a_file_every_channel_is_the_outbox(tmp_path: Path):
    channels = read_channels(tmp_path)

    assert channels == Channels() and channels.email.via == channels.sms.via == "outbox"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("email: {via: pigeon}",
         'channels.yaml:1: "email.via": Input should be \'outbox\', \'smtp\' or \'webhook\'; got pigeon. '),
        ("email:\n  rate: 0", 'channels.yaml:2: "email.rate": Input should be greater than 0; got 0.'),
        ("fax: {}", 'channels.yaml:1: "fax": no such key here; got {}. It may hold email, sms, inbox, call.'),
        ("email: {via: smtp}", 'channels.yaml:1: "email": `via: smtp` needs a part `smtp:` that says how'),
        ("sms:\n  via: twilio\n  twilio: {account: x}", 'channels.yaml:3: "sms.twilio.account": '),
        ("email:\n  smtp: {host: smtp.example.com, from: a@b.example, pass: x}",
         'channels.yaml:2: "email.smtp.pass": no such key here; got x. It may hold host, port, security, user, from, '),
        ("email:\n  smtp: {host: a.example, from: a@b.example, end_timeout_s: 500}",
         'channels.yaml:1: "email": smtp: its times come to 555 s for one mail; at most 120.'),
        ("email: [", "channels.yaml:1: cannot be read as YAML"),
        ("- 1", "channels.yaml:1: "),
    ],
)
def test_a_mistake_is_named_with_its_line_and_mend(tmp_path: Path, text: str, says: str):
    (tmp_path / "channels.yaml").write_text(text)

    with pytest.raises(ConfigError) as mistake:
        read_channels(tmp_path)

    assert says in str(mistake.value)


def test_an_empty_file_is_none(tmp_path: Path):
    (tmp_path / "channels.yaml").write_text("# nothing yet\n")

    assert read_channels(tmp_path) == Channels()
