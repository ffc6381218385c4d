"""The whole way of messages through the log, both stages and a channel; and a sender that dies in the middle of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from config.channels import ChannelSettings
from config.settings import Settings
from processors.fold import Fold
from processors.profile import Profile
from schemas.event import Event, encode_event
from schemas.messages import Order, decode_of_message, encode_of_message
from schemas.times import DAY_MS, from_ms
from sinks.messages.channel import Accepted, Message
from sinks.messages.channel import Outcome as Said
from streams import messages
from streams.app import StageApp
from streams.dispatch import Dispatcher
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.lines import EVENTS, MESSAGES
from streams.log import TP, Log, Outgoing
from streams.messages import MessageStage
from streams.metrics import DispatchMetrics, StageMetrics, of_messages
from streams.stage import CustomerStage
from streams.suppressions import Suppressions
from streams.topics import create_topics
from tests.kafka_broker import Kafka
from tests.messages.test_dispatch import HELLO
from tests.messages.test_files import read_text
from tests.streams.test_worker import crash
from tests.streams.world import IGNORE_WHAT_FAUST_LEFT, collect_what_faust_left

pytestmark = IGNORE_WHAT_FAUST_LEFT

NOW_MS = 1_800_000_000_000
PEOPLE = 10
AT_ONCE = 4
LEASE_MS, SHORT_LEASE_MS = 60_000, 1_500  # the second where a sender dies, and nobody wants to wait for the first


def fatal(what: str, error: BaseException | None) -> None:
    raise AssertionError(what) from error


class Mailman:
    """A channel that remembers what it was given. While it hesitates it has taken a message and not said so."""

    def __init__(self) -> None:
        self.given: list[Message] = []
        self.dice = random.Random(7)

    async def send(self, message: Message) -> Said:
        self.given.append(message)
        await asyncio.sleep(self.dice.choice([0.0, 0.002, 0.03]))
        return Accepted()

    async def close(self) -> None: ...


class Shop:
    """A log, people who can be written to, and senders that come and go."""

    log: Log

    def __init__(self, folder: Path, kafka: str = "", lease_ms: int = LEASE_MS) -> None:
        self.lease_ms = lease_ms
        self.settings = Settings(data=folder, log=kafka, checkpoint_ms=20, partitions=2)
        self.log = KafkaLog(kafka) if kafka else EmbeddedLog(folder / "log.db", fsync=False)
        self.mailman = Mailman()
        self.template = read_text(HELLO, folder)
        self.receipt = read_text(HELLO.replace("marketing\ntopic: offers", "transactional"), folder, "receipt")
        self.sender: tuple[StageApp, Dispatcher] | None = None
        self.running: list[tuple[StageApp, Dispatcher]] = []

    async def open(self) -> None:
        await self.log.start()
        await create_topics(self.log, self.settings)
        stage = CustomerStage(Fold([Profile()]), partitions=2, most_links=100)
        self.customers = StageApp(self.log, stage, self.settings, StageMetrics(CollectorRegistry()), fatal=fatal)
        await self.customers.start()
        at = from_ms(NOW_MS)
        events = [Event(message_id=f"i{n}", type="identify", workspace="w", source="shop", timestamp=at, received_at=at,
                        user_id=f"p{n}", raw_traits=msgspec.Raw(msgspec.json.encode(
                            {"email": f"p{n}@example.com", "consent": {"offers": True}})))
                  for n in range(PEOPLE)]  # fmt: skip
        await self.log.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event)) for event in events])

    async def close(self) -> None:
        for sender in list(self.running):  # of a test that failed
            await self.stop_sender(sender)
        await self.customers.stop()
        await self.log.stop()

    async def start_sender(self, data: str = ".") -> tuple[StageApp, Dispatcher]:
        settings = self.settings.model_copy(update={"data": self.settings.data / data})
        templates = {"hello": self.template, "receipt": self.receipt}
        channels: Any = {"email": (ChannelSettings(rate=10_000, at_once=AT_ONCE), self.mailman)}
        dispatcher = Dispatcher(self.log, channels, lambda name: templates[name], Suppressions(self.log),
                                DispatchMetrics(CollectorRegistry()), lease_ms=self.lease_ms, call_s=1.0)  # fmt: skip
        stage = MessageStage(lambda: dispatcher.room, self.lease_ms)
        metrics = StageMetrics(CollectorRegistry(), of=of_messages)
        app = StageApp(self.log, stage, settings, metrics, fatal=fatal, checkpoint_ms=5,
                       then=dispatcher.then, owns=dispatcher.owns)  # fmt: skip
        dispatcher.start(lambda error: fatal("dispatch", error))
        await app.start()
        self.sender = app, dispatcher
        self.running.append(self.sender)
        return self.sender

    async def stop_sender(self, sender: tuple[StageApp, Dispatcher] | None = None) -> None:
        assert self.sender is not None
        app, dispatcher = sender = sender or self.sender
        self.running.remove(sender)
        await app.stop()
        await dispatcher.stop()

    async def kill_sender(self) -> None:
        """Nothing more is written: what a call would have said, what was handled since the last checkpoint."""
        assert self.sender is not None
        app, dispatcher = self.sender
        self.running.remove(self.sender)
        for task in (dispatcher._turns, *dispatcher._tasks):
            assert task is not None
            task.cancel()
        await crash(app.worker)
        app.worker._owned.clear()
        app.faust.consumer._marked.clear()
        await app.stop()

    async def order(self, *orders: Order) -> None:
        await self.log.append(MESSAGES.topic, [Outgoing(each.to.encode(), encode_of_message(each)) for each in orders])

    async def states(self) -> dict[str, str]:
        """The newest state of each message, as ClickHouse would have it."""
        newest: dict[str, tuple[int, str]] = {}
        for partition, (first, end) in (await self.log.bounds("rows")).items():
            for record in await self.log.read(TP("rows", partition), first, max(1, end - first)):
                row = msgspec.json.decode(record.value or b"")
                if row["table"] == "messages":
                    id_ = row["values"]["id"]
                    newest[id_] = max(newest.get(id_, (0, "")), (row["version"], row["values"]["state"]))
        return {id_: state for id_, (_, state) in newest.items()}

    async def until_ended(self, count: int) -> dict[str, str]:
        until = time.monotonic() + 40
        while True:
            states = await self.states()
            if len(states) == count and not {"waiting", "sending"} & set(states.values()):
                return states
            assert time.monotonic() < until, f"{len(states)} of {count} messages were taken: {Counter(states.values())}"
            await asyncio.sleep(0.1)


def orders_of(count: int) -> list[Order]:
    return [
        Order(to=f"w/u:p{number % PEOPLE}", id=f"m{number}", at_ms=NOW_MS, expires_ms=4 * NOW_MS, channel="email",
              given={"name": str(number)}, **({"template": "hello", "kind": "marketing", "topic": "offers"}
              if number % 2 else {"template": "receipt", "kind": "transactional"}))
        for number in range(count)
    ]  # fmt: skip


async def test_messages_of_one_kind_to_one_person_leave_in_the_order_in_which_they_were_ordered(tmp_path: Path) -> None:
    shop, orders = Shop(tmp_path), orders_of(100)
    await shop.open()
    await shop.start_sender()

    await shop.order(*orders)
    states = await shop.until_ended(len(orders))
    await shop.stop_sender()
    await shop.close()

    assert set(states.values()) == {"sent"} and len(shop.mailman.given) == len(orders)
    for person in {order.to for order in orders}:
        for kind in ("marketing", "transactional"):
            wanted = [order.id for order in orders if (order.to, order.kind) == (person, kind)]
            assert [each.id for each in shop.mailman.given if (each.person, each.kind) == (person, kind)] == wanted


async def test_a_sender_that_stops_in_good_order_leaves_nothing_unknown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(messages, "OFFER_AGAIN_MS", 300)
    monkeypatch.setattr("streams.worker.TICK_AGAIN_S", 1.0)
    shop, orders = Shop(tmp_path), orders_of(60)
    await shop.open()
    await shop.order(*orders)

    for _ in range(5):
        await shop.start_sender()
        await asyncio.sleep(0.3)
        await shop.stop_sender()
    await shop.start_sender()
    states = await shop.until_ended(len(orders))
    await shop.stop_sender()
    await shop.close()

    assert set(states.values()) == {"sent"}
    assert Counter(message.id for message in shop.mailman.given) == {order.id: 1 for order in orders}


async def test_whenever_a_sender_dies_marketing_is_sent_once_at_most_and_the_others_once_at_least(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(messages, "FIRST_PAUSE_MS", 100)
    monkeypatch.setattr(messages, "OFFER_AGAIN_MS", 300)
    monkeypatch.setattr("streams.worker.TICK_AGAIN_S", 1.0)
    shop, orders, kills = Shop(tmp_path, lease_ms=SHORT_LEASE_MS), orders_of(120), 6
    await shop.open()

    for number in range(kills):
        await shop.start_sender()
        await shop.order(*orders[number * 20 : number * 20 + 20], *orders[:5])  # some of them again
        while len(shop.mailman.given) < number * 20 + 8:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await shop.kill_sender()
    await shop.start_sender()
    states = await shop.until_ended(len(orders))
    await shop.stop_sender()
    events = await _events(shop)
    await shop.close()

    given = Counter(message.id for message in shop.mailman.given)
    marketing = {order.id for order in orders if order.kind == "marketing"}
    unknown = {id_ for id_, state in states.items() if state == "unknown"}
    assert set(states.values()) <= {"sent", "unknown"}
    assert unknown <= marketing and len(unknown) <= kills * AT_ONCE
    assert max(given[id_] for id_ in marketing) == 1
    assert marketing - unknown <= given.keys()
    others = {order.id for order in orders} - marketing
    assert others <= given.keys() and sum(given[id_] - 1 for id_ in others) <= kills * AT_ONCE
    assert sum(given.values()) > len(given) or unknown, "no sender died in the middle of a call"
    assert events == Counter({id_: 1 for id_, state in states.items() if state == "sent"})


@pytest.fixture
def collected() -> Iterator[None]:
    """Afterwards, when nothing of the test holds its consumers any more."""
    yield
    collect_what_faust_left()


@pytest.mark.kafka
@pytest.mark.slow
async def test_on_kafka_senders_come_and_go_and_each_message_leaves_once(
    tmp_path: Path, own_kafka: Kafka, monkeypatch, collected: None
) -> None:
    monkeypatch.setattr(messages, "OFFER_AGAIN_MS", 300)
    monkeypatch.setattr("streams.worker.TICK_AGAIN_S", 1.0)
    shop, orders = Shop(tmp_path, own_kafka.url), orders_of(90)
    try:
        await shop.open()
        first = await shop.start_sender("first")
        await shop.order(*orders[:30])
        second = await shop.start_sender("second")  # partitions move while messages are under way
        await shop.order(*orders[30:60])
        await shop.until_ended(60)
        owned = [len(app.worker._owned) for app, _ in (first, second)]
        await shop.order(*orders[60:], *orders[:30])
        await shop.stop_sender(first)
        states = await shop.until_ended(len(orders))
        await shop.stop_sender(second)
        events = await _events(shop)
    finally:
        await shop.close()

    assert owned == [1, 1], "the two did not share the partitions"
    assert set(states.values()) == {"sent"}
    assert Counter(message.id for message in shop.mailman.given) == {order.id: 1 for order in orders}
    assert events == Counter(order.id for order in orders)


async def _events(shop: Shop) -> Counter[str]:
    """How often each message is said to have been sent, of events with different ids."""
    told: dict[str, str] = {}
    for partition, (first, end) in (await shop.log.bounds(EVENTS)).items():
        for record in await shop.log.read(TP(EVENTS, partition), first, max(1, end - first)):
            if not record.headers and b"Message Sent" in (record.value or b""):
                event = msgspec.json.decode(record.value or b"")
                told[event["messageId"]] = event["properties"]["message_id"]
    return Counter(told.values())


async def test_what_nobody_can_read_is_a_dead_letter_and_nobody_waits_for_it(tmp_path: Path) -> None:
    shop, orders = Shop(tmp_path), orders_of(2)
    await shop.open()
    await shop.start_sender()

    await shop.log.append(MESSAGES.topic, [Outgoing(b"w/u:p0", b"junk") for _ in range(300)])
    await shop.order(*orders)
    states = await shop.until_ended(2)
    letters = sum(end - first for first, end in (await shop.log.bounds("rejected")).values())
    await shop.stop_sender()
    await shop.close()

    assert set(states.values()) == {"sent"} and letters == 300


def test_a_lease_is_longer_than_a_call() -> None:
    from config.channels import LONGEST_CALL_S

    assert LONGEST_CALL_S * 1_000 < messages.LEASE_MS < DAY_MS
    assert decode_of_message(encode_of_message(orders_of(1)[0])) == orders_of(1)[0]
