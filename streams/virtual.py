"""The customer stage in memory, under a clock of its own: a year of somebody's life takes milliseconds.

The stage, the processors, the segments and the journeys are the real ones. Only what is around them is not there: no
log, no disk, no other process, one partition. What the stage sends to itself comes at once; timers fire at the very
moment they are due, the earliest first, and before events of that moment; messages that are ordered are answered by
`answer`. Nothing leaves: what journeys did stands in `told` and `orders`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from processors.fold import Fold, ProcessorFailed
from processors.journeys import JOURNEYS
from schemas.customer import Customer
from schemas.effects import Decision, Row
from schemas.errors import Refused, TidewireError
from schemas.event import Event, encode_event
from schemas.internal import HEADERS, Define, Internal, Sweep, Tick, encode_internal
from schemas.messages import Order, decode_of_message
from schemas.segments import Definitions, encode_definitions
from schemas.times import SECOND_MS, from_ms, to_iso
from streams.dead_letters import DeadLetterLimit
from streams.giving import Giving
from streams.lines import EVENTS, MESSAGES
from streams.log import Outgoing, Record
from streams.outbox import Outbox, effect_id
from streams.receipts import receipt
from streams.segments import RULES_KEY
from streams.stage import CustomerStage

ANSWER_AFTER_MS = SECOND_MS  # so long after it was ordered a message is said to have been sent
MOST_AT_ONCE = 1_000  # times that one person's timers fire at one moment
_TIMERS, _MOMENTS, _EVENTS = range(3)  # what comes first of one moment

Action = Callable[[], None]


class Told(NamedTuple):
    """A line of the ledger, of somebody's journeys."""

    at_ms: int
    person: str
    kind: str
    about: str
    facts: Mapping[str, Any]


def all_goes_well(order: Order, now_ms: int) -> Iterable[Event]:
    """Every message is sent a moment later, and no more is heard of it."""
    return (sent(order, "Message Sent", now_ms + ANSWER_AFTER_MS),)


def sent(order: Order, name: str, at_ms: int, **said: Any) -> Event:
    """An event that tells what became of a message, as the stage of messages would."""
    facts = {"message_id": order.id, "template": order.template, "channel": order.channel, "kind": order.kind,
             "topic": order.topic, **said}  # fmt: skip
    return receipt(name, order.to, effect_id(order.id, name, at_ms), facts, from_ms(at_ms))


class VirtualStage:
    """The stage, and the time it is.

    Args:
        fold: the processors.
        answer: which events follow from an order.

    Attributes:
        now_ms: the time.
        told: what journeys decided, in order.
        orders: the messages that they ordered, in order.
        refused: how many events were refused.
        touched: keys of people whose records changed since somebody last emptied it, but for those that only timers and
            sweeps changed: these change nothing of what segments ask for.
    """

    def __init__(
        self, fold: Fold, *, answer: Callable[[Order, int], Iterable[Event]] = all_goes_well,
        giving: Giving | None = None, most_links: int = 100,
    ) -> None:  # fmt: skip
        self.fold = fold
        self.now_ms = 0
        self.told: list[Told] = []
        self.orders: list[Order] = []
        self.refused = 0
        self.people = _People()
        self.touched: set[str] = set()
        self._answer = answer
        self._stage = CustomerStage(fold, partitions=1, most_links=most_links, giving=giving)
        self._out = _Outbox(fold, self)
        self._waiting: deque[Outgoing] = deque()
        self._queue: list[tuple[int, int, int, Action | str]] = []
        self._due: dict[str, int] = {}  # by person key: the moment that stands in the queue
        self._offset = self._number = 0

    # --- what happens

    def define(self, definitions: Definitions) -> None:
        """From here on people are judged, and led, by these."""
        encoded = msgspec.Raw(encode_definitions(definitions))
        self.tell(Define(to=RULES_KEY, origin="", at_ms=0, definitions=encoded))

    def sweep(self, sweep: Sweep, concerned: Sequence[str] | None = None) -> None:
        """Look at everybody; or, where it is known that nothing would come of it for others, at those alone."""
        self.people.concerned = concerned
        self._deliver(_internal(sweep), is_asked=True)
        self.people.concerned = None

    def event(self, event: Event) -> None:
        """Something happens, at its `received_ms`; all that is due until then happens before."""
        self.advance(event.received_ms)
        self.happen(event)

    def happen(self, event: Event) -> None:
        """It happens now."""
        self._deliver(Outgoing(event.key.encode(), encode_event(event)))

    def tell(self, message: Internal) -> None:
        self._deliver(_internal(message))

    def at(self, at_ms: int, action: Action) -> None:
        """Do something when that moment has come."""
        self._put(at_ms, _MOMENTS, action)

    def later(self, event: Event) -> None:
        """An event that is to happen at its `received_ms`."""
        self._put(event.received_ms, _EVENTS, lambda: self.happen(event))

    def advance(self, until_ms: int) -> None:
        """Let time pass; everything that is due by then happens, at its moment."""
        queue = self._queue
        while queue and queue[0][0] <= until_ms:
            at_ms, _, _, what = heapq.heappop(queue)
            self.now_ms = max(self.now_ms, at_ms)
            if isinstance(what, str):
                self._tick(what, at_ms)
            else:
                what()
        self.now_ms = max(self.now_ms, until_ms)

    @property
    def next_ms(self) -> int:
        """When something is due next; 0: nothing ever."""
        queue = self._queue
        while queue and isinstance(queue[0][3], str) and self._due.get(queue[0][3]) != queue[0][0]:
            heapq.heappop(queue)  # it was put off since
        return queue[0][0] if queue else 0

    # --- how it comes about

    def _put(self, at_ms: int, rank: int, what: Action | str) -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(at_ms, self.now_ms), rank, self._number, what))

    def _tick(self, key: str, at_ms: int) -> None:
        if self._due.get(key) != at_ms:
            return  # it was put off since
        del self._due[key]
        for _ in range(MOST_AT_ONCE):
            self._deliver(_internal(Tick(to=key, origin="", at_ms=self.now_ms)), is_asked=True)
            if self._due.get(key, self.now_ms + 1) > self.now_ms:
                return
            del self._due[key]
        raise TidewireError(f"The timers of {key} fire without end at {to_iso(self.now_ms)}. It is a bug in a "
                            "processor, or in the stage.")  # fmt: skip

    def _deliver(self, first: Outgoing, *, is_asked: bool = False) -> None:
        """Hand a record to the stage, and all that it sends itself in turn. `is_asked`: it is a timer or a sweep."""
        waiting, stage, people, out = self._waiting, self._stage, self.people, self._out
        waiting.append(first)
        while waiting:
            outgoing = waiting.popleft()
            record = Record(EVENTS, 0, self._offset, self.now_ms, outgoing.key, outgoing.value, outgoing.headers)
            self._offset += 1
            try:
                stage.handle((record,), people, out, DeadLetterLimit())
            except ProcessorFailed as failed:
                raise TidewireError(f"Processor {failed.processor} failed at {to_iso(self.now_ms)}: {failed}. "
                                    "It is a bug in that processor.") from failed  # fmt: skip
            if not is_asked or outgoing.headers is not HEADERS:
                self.touched |= people.changed
            self._notice(people.changed)

    def _notice(self, changed: set[str]) -> None:
        """See when people whose records changed are due."""
        for key in changed:
            due_ms = self._stage.next_due_ms(self.people.records[key])
            if not due_ms:
                self._due.pop(key, None)
            elif self._due.get(key) != due_ms:
                self._due[key] = max(due_ms, self.now_ms)
                self._put(due_ms, _TIMERS, key)
        changed.clear()

    def send(self, topic: str, outgoing: Outgoing) -> None:
        """Take what the stage sends: for the outbox."""
        if topic == EVENTS:
            self._waiting.append(outgoing)
        elif topic == MESSAGES.topic and outgoing.value is not None:
            order = decode_of_message(outgoing.value)
            if isinstance(order, Order):
                self.orders.append(order)
                for event in self._answer(order, self.now_ms):
                    self.later(event)


class _People:
    """The records (`streams.worker.States`), those that changed, and whom sweeps are about."""

    def __init__(self) -> None:
        self.records: dict[str, Customer] = {}
        self.changed: set[str] = set()
        self.concerned: Sequence[str] | None = None
        self._keys: list[str] = []

    def get(self, key: str) -> Customer:
        customer = self.records.get(key)
        if customer is None:
            customer = self.records[key] = Customer()
        return customer

    def fetch(self, keys: Iterable[str]) -> None: ...

    def keys_after(self, after: str, most: int) -> Sequence[str]:
        if self.concerned is None and len(self._keys) < len(self.records):
            self._keys = sorted(self.records)
        keys = self._keys if self.concerned is None else self.concerned
        first = bisect_right(keys, after)
        return keys[first : first + most]

    def touch(self, key: str, customer: Customer) -> None:
        self.changed.add(key)

    def show(self, key: str) -> None: ...


class _Outbox(Outbox):
    """Hands over at once what is sent, and keeps no rows, portraits, and decisions about other things."""

    def __init__(self, fold: Fold, world: VirtualStage) -> None:
        super().__init__(fold.table_of)
        self._world = world

    def decide(self, person: str, processor: str, decision: Decision) -> None:
        if processor == JOURNEYS:
            told = Told(self.at_ms, person, decision.kind, decision.about, decision.facts)
            self._world.told.append(told)

    def reject(self, refused: Refused, record: Record, **known: object) -> None:
        self._world.refused += 1

    def row(self, part: str, version: int, row: Row) -> None: ...

    def then(self, what: Any) -> None: ...

    def _put(
        self, topic: str, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...] = (),
        partition: int | None = None,
    ) -> None:  # fmt: skip
        self._world.send(topic, Outgoing(key, value, partition, headers))


def _internal(message: Internal) -> Outgoing:
    return Outgoing(message.to.encode(), encode_internal(message), None, HEADERS)
