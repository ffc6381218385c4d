"""A whole customer stage in memory: partitions, their owners, messages between them, crashes. Nothing but the real
stage decides anything here; the world only delivers, in whatever order it is told to."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest

from processors.base import Person, Processor
from processors.fold import Fold
from schemas.coupons import CouponRecord, decode_of_coupons
from schemas.customer import Customer, decode_customer
from schemas.effects import Row
from schemas.event import Event, encode_event
from schemas.internal import HEADERS, Internal, Unmerge, encode_internal
from schemas.keyed import encode_state
from schemas.messages import OfMessages, decode_of_message
from schemas.rejected import Rejected, decode_rejected
from schemas.rows import LedgerLine, decode_ledger_line
from streams.dead_letters import DeadLetterLimit
from streams.giving import Giving
from streams.log import Record, partition_of
from streams.outbox import Outbox, RowKey
from streams.segments import RULES_KEY
from streams.stage import CustomerStage

IGNORE_WHAT_FAUST_LEFT = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Tally(msgspec.Struct, array_like=True):
    messages: dict[str, int] = {}


class TallyProcessor(Processor[Tally]):
    """Remembers which messages it was given, and how often: nothing is lost and nothing counted twice unseen."""

    name = "tally"
    about = "Counts every message."
    State = Tally

    def apply(self, state: Tally, event: Event, person: Person, now_ms: int) -> tuple[()]:
        if event.event == "Boom" and event.properties.get("boom"):
            state.messages["half done"] = 1
            raise ValueError("boom")
        state.messages[event.message_id] = state.messages.get(event.message_id, 0) + 1
        return ()

    def merge(self, one: Tally, other: Tally) -> Tally:
        names = {*one.messages, *other.messages}
        return Tally({name: one.messages.get(name, 0) + other.messages.get(name, 0) for name in sorted(names)})

    def show(self, state: Tally) -> dict[str, object]:
        return {"messages": dict(sorted(state.messages.items()))}


def an_event(
    number: int, *, user: str = "", anonymous: str = "", previous: str = "", minute: int | None = None,
    message_id: str = "", event: str = "Seen", flags: tuple[str, ...] = (),
) -> Event:  # fmt: skip
    at = START + timedelta(minutes=number if minute is None else minute)
    return Event(
        message_id=message_id or f"m{number}", type="alias" if previous else "track", event="" if previous else event,
        workspace="w", source="shop", timestamp=at, received_at=at, user_id=user, anonymous_id=anonymous,
        previous_id=previous, flags=flags,
    )  # fmt: skip


class Memory:
    """Customer records of one partition, with what a crash leaves of them."""

    def __init__(self) -> None:
        self.records: dict[str, Customer] = {}
        self.saved: dict[str, bytes] = {}
        self.position = self.saved_position = 0

    def get(self, key: str) -> Customer:
        return self.records.setdefault(key, Customer())

    def fetch(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.get(key)

    def keys_after(self, after: str, most: int) -> list[str]:
        return sorted(key for key in self.records if key > after)[:most]

    def touch(self, key: str, customer: Customer) -> None:
        pass

    def show(self, key: str) -> None:
        pass

    def checkpoint(self) -> None:
        self.saved = {key: encode_state(customer) for key, customer in self.records.items() if customer.revision}
        self.saved_position = self.position

    def crash(self, random: random.Random) -> None:
        """It dies while it writes down what it knows: some records are stored as they are, others as they were; that by
        which all are handled only where all are. Which record comes next was not written down yet."""
        newest = {key: encode_state(customer) for key, customer in self.records.items() if customer.revision}
        if random.random() < 0.5:
            newest = {key: value for key, value in newest.items() if key != RULES_KEY and random.random() < 0.5}
        self.saved |= newest
        self.records = {key: decode_customer(value) for key, value in self.saved.items()}
        self.position = self.saved_position


class World:
    def __init__(
        self, seed: int = 0, partitions: int = 3, fold: Fold | None = None, most_links: int = 100,
        giving: Giving | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.fold = fold or Fold([TallyProcessor()])
        self.stage = CustomerStage(self.fold, partitions=partitions, most_links=most_links, giving=giving)
        self.logs: list[list[Record]] = [[] for _ in range(partitions)]
        self.owners = [Memory() for _ in range(partitions)]
        self.decisions: dict[str, LedgerLine] = {}
        self.rejected: dict[str, Rejected] = {}
        self.messages: list[OfMessages] = []
        self.coupons: list[CouponRecord] = []
        self.rows: dict[RowKey, tuple[str, int, Row]] = {}
        self.gone_out: list[Record] = []  # what left to other topics, as often as it did
        self.clock_ms = 0  # of the log

    def send(self, event: Event, partition: int | None = None) -> None:
        self._append(event.key, encode_event(event), (), partition)

    def unmerge(self, key: str) -> None:
        self.tell(Unmerge(to=key, origin="page", at_ms=0, asked_by="anna"))

    def tell(self, message: Internal) -> None:
        """A message of the stage's own, from outside."""
        self._append(message.to, encode_internal(message), HEADERS)

    def _append(
        self, key: str, value: bytes, headers: tuple[tuple[str, bytes], ...] = (), partition: int | None = None
    ) -> None:
        if partition is None:
            partition = partition_of(key.encode(), len(self.logs))
        log = self.logs[partition]
        log.append(Record("events", partition, len(log), self.clock_ms, key.encode(), value, headers))

    def step(self, partition: int) -> None:
        owner, out = self.owners[partition], Outbox(self.fold.table_of)
        records = self.logs[partition][owner.position :][: self.random.randint(1, 4)]
        owner.position += len(records)
        owner.fetch((record.key or b"").decode() for record in records)  # as the worker does
        self.stage.handle(records, owner, out, DeadLetterLimit())
        for identity, row in out.rows.items():  # of each the highest version stays, as in ClickHouse
            if identity not in self.rows or self.rows[identity][1] <= row[1]:
                self.rows[identity] = row
        for topic, messages in out.take_messages().items():
            for message in messages:
                assert message.value is not None
                if topic == "events":
                    self._append((message.key or b"").decode(), message.value, message.headers, message.partition)
                    continue
                self.gone_out.append(Record(topic, 0, len(self.gone_out), self.clock_ms, message.key, message.value))
                if topic == "decisions":
                    line = decode_ledger_line(message.value)
                    self.decisions[line.id] = line
                elif topic == "messages":
                    self.messages.append(decode_of_message(message.value))
                elif topic == "coupon_requests":
                    self.coupons.append(decode_of_coupons(message.value))
                else:
                    letter = decode_rejected(message.value)
                    self.rejected[letter.id] = letter

    def settle(
        self, crash: float = 0.0, checkpoint: float = 0.2, most_crashes: int = 20, turns: int | None = None
    ) -> None:  # fmt: skip
        """Deliver everything, or for so many turns, the partitions in any order, with crashes and checkpoints in
        between."""
        for _ in count() if turns is None else range(turns):
            waiting = [p for p, owner in enumerate(self.owners) if owner.position < len(self.logs[p])]
            if not waiting:
                return
            partition = self.random.choice(waiting)
            chance = self.random.random()
            if chance < crash and most_crashes:
                most_crashes -= 1
                self.owners[partition].crash(self.random)
            elif chance < crash + checkpoint:
                self.owners[partition].checkpoint()
            else:
                self.step(partition)

    def people(self) -> dict[str, tuple[frozenset[str], dict[str, object]]]:
        """Every person: her key, the keys that are hers, and what is shown of her."""
        found = {}
        for owner in self.owners:
            for key, customer in owner.records.items():
                if customer.parts:
                    found[key] = (frozenset(customer.parts), self.fold.portrait(customer.parts))
        return found


People = dict[str, tuple[frozenset[str], dict[str, object]]]


def collect_what_faust_left() -> None:
    """Faust ends the thread of its Kafka consumer before asyncio has closed its sockets. Let them be found here, where
    a test ignores the warning (`IGNORE_WHAT_FAUST_LEFT`), and not in whatever test runs when the collector comes by."""
    for _ in range(3):
        gc.collect()


def people_of(events: Iterable[Event], seed: int = 0, **how: float) -> People:
    world = World(seed)
    for event in events:
        world.send(event)
    world.settle(**how)  # type: ignore[arg-type]
    return world.people()
