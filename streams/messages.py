"""The stage of messages: what one record of topic `messages` does to one mailbox. Pure, like the customer stage.

What is to be done outside leaves by `Outbox.then`, once the mailbox that says so is durable: an `Offer` asks for a turn
of its channel, an `Attempt` is the call itself (`streams/dispatch.py`). What came of it comes back as a record.

Of one person the messages of a channel and a kind leave in the order in which they were ordered, one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from processors.base import Table
from processors.fold import Spent
from schemas.effects import Decision, Row
from schemas.errors import Refused
from schemas.event import Event
from schemas.keys import split_key
from schemas.messages import (
    SOURCE,
    Mailbox,
    OfMessages,
    Order,
    Outcome,
    Ready,
    Send,
    Settle,
    State,
    Wake,
    Withheld,
    decode_of_message,
    encode_of_message,
)
from schemas.recent import has_seen, remember, token
from schemas.times import DAY_MS, MINUTE_MS, from_ms
from sinks.messages.tables import TABLES, MessageRow
from streams.dead_letters import DeadLetterLimit
from streams.lines import MESSAGES
from streams.log import Outgoing, Record
from streams.outbox import Outbox, effect_id
from streams.receipts import BOUNCED, receipt
from streams.worker import States

REMEMBER_S = 400 * DAY_MS // 1000  # how long the id of a message is known; beyond, it would be too old to be sent
LEASE_MS = 180_000  # within it an attempt says what came of it
OFFER_AGAIN_MS = 30_000  # an offer may be lost with its process; one that still waits is not taken twice
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 30_000, 60 * MINUTE_MS  # between two tries
MOST_WAKES = 100  # of one partition under way
MOST_OPEN = 1_000  # messages of one person: what comes beyond is refused
_NAMES: Mapping[State, str] = {"sent": "Message Sent", "failed": "Message Failed"}


class Offer(NamedTuple):
    """A message that waits for a turn of its channel."""

    order: Order
    attempt: int


class Attempt(NamedTuple):
    """A message to be handed over, by `until_ms` or not at all."""

    order: Order
    attempt: int
    person: str
    sections: msgspec.Raw
    until_ms: int


class Ended(NamedTuple):
    """No more comes of an offer."""

    order: Order


class MessageStage:
    """The stage (`streams.worker.Stage`) that keeps mailboxes.

    Args:
        room: how many offers there is room for.
        lease_ms: within it an attempt says what came of it.
    """

    State = Mailbox
    line = MESSAGES
    leader = ""
    table_of: Mapping[type[msgspec.Struct], Table] = {table.row: table for table in TABLES}

    def __init__(self, room: Callable[[], int] = lambda: MOST_WAKES, lease_ms: int = LEASE_MS) -> None:
        self.counts: Counter[str] = Counter()
        self.spent: Spent = {}
        self.is_careful = False
        self._room = room
        self._lease_ms = lease_ms

    @property
    def room(self) -> int:
        return min(MOST_WAKES, self._room())

    def handle(self, records: Sequence[Record], mailboxes: States[Mailbox], out: Outbox, limit: DeadLetterLimit) -> int:
        """Never says to stop: only what nobody can read becomes a dead letter, whole, and nobody waits for it."""
        for record in records:
            try:
                self._handle(record, mailboxes, out)
            except Refused as refused:
                self.counts["rejected"] += 1
                out.begin(record, record.timestamp_ms)
                out.reject(refused, record)
        return len(records)

    def next_due_ms(self, mailbox: Mailbox) -> int:
        return min((send.due_ms for send in mailbox.open.values() if send.due_ms), default=0)

    def tick(self, key: str, at_ms: int, partition: int) -> Outgoing:
        return Outgoing(key.encode(), encode_of_message(Wake(to=key, at_ms=at_ms)), partition)

    def portrait(self, key: str, mailbox: Mailbox, at_ms: int) -> Outgoing | None:
        return None

    def shrink(self, key: str, mailbox: Mailbox, limit_bytes: int, out: Outbox) -> None:
        """Give up the newest messages; so many are open only when nothing has left for long."""
        turn = _Turn(key, mailbox, 0, out, self._lease_ms)
        for id_ in list(mailbox.open)[len(mailbox.open) // 2 :]:
            turn.end(mailbox.open[id_], "failed", f"her open messages outgrew {limit_bytes} bytes")

    def _handle(self, record: Record, mailboxes: States[Mailbox], out: Outbox) -> None:
        try:
            message: OfMessages = decode_of_message(record.value or b"")
            split_key(message.to)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise Refused("the record is no message", value=str(error)) from error
        mailbox = mailboxes.get(message.to)
        if record.offset <= mailbox.offset:
            self.counts["replayed"] += 1
            return
        mailbox.offset = record.offset
        mailbox.revision += 1
        mailboxes.touch(message.to, mailbox)
        out.begin(record, record.timestamp_ms)
        out.speak(message.to, record.offset)
        turn = _Turn(message.to, mailbox, record.timestamp_ms, out, self._lease_ms)
        self.counts["applied" if turn.take(message) else "duplicates"] += 1
        turn.offer(self.room > 0)


class _Turn:
    """One record at one mailbox."""

    def __init__(self, key: str, mailbox: Mailbox, now_ms: int, out: Outbox, lease_ms: int) -> None:
        self._key, self._mailbox, self._now_ms, self._out, self._lease_ms = key, mailbox, now_ms, out, lease_ms

    def take(self, message: OfMessages) -> bool:
        """Fold it in; False: it says nothing that is not known."""
        if isinstance(message, Order):
            return self._order(message)
        if isinstance(message, Wake):
            return self._wake()
        send = self._mailbox.open.get(message.id)
        if send is None:
            return False
        match message:
            case Ready():
                return self._ready(send, message)
            case Withheld():
                return self._withheld(send, message)
            case Outcome():
                return self._outcome(send, message)
            case Settle():
                return self._settle(send, message)

    def offer(self, has_room: bool) -> None:
        """Ask for a turn for the first message of each lane. Without room it stays due: it is woken when there is some.
        Those behind it are not due before it has ended."""
        lanes = set()
        for send in self._mailbox.open.values():
            lane = send.order.channel, send.order.kind
            if send.state == "unknown":
                continue
            if send.state == "waiting":
                if lane in lanes:
                    send.due_ms = 0
                elif send.due_ms <= self._now_ms:
                    send.due_ms = self._now_ms
                    if has_room:
                        send.due_ms += OFFER_AGAIN_MS
                        self._out.then(Offer(send.order, send.attempt + 1))
            lanes.add(lane)

    # --- records

    def _order(self, order: Order) -> bool:
        mailbox, known = self._mailbox, token(SOURCE, order.id)
        if has_seen(mailbox.seen, known):
            return False
        mailbox.seen = remember(mailbox.seen, known, self._now_ms, REMEMBER_S)
        send = mailbox.open[order.id] = Send(order)
        if len(mailbox.open) > MOST_OPEN:
            self.end(send, "failed", f"{MOST_OPEN:,} messages to her are open already")
        else:
            self._row(send)
        return True

    def _wake(self) -> bool:
        for send in list(self._mailbox.open.values()):
            if not 0 < send.due_ms <= self._now_ms:
                continue
            if send.state == "sending":
                self._may_have_arrived(send, "the process that sent it is gone, and did not say what came of it")
            elif send.order.expires_ms <= self._now_ms:
                self.end(send, "failed", f"it was too late: {send.why or 'its turn did not come'}")
        return True

    def _ready(self, send: Send, ready: Ready) -> bool:
        if send.state != "waiting" or ready.attempt != send.attempt + 1:
            return False
        if send.order.expires_ms <= self._now_ms:
            self._out.then(Ended(send.order))
            self.end(send, "failed", f"it was too late: {send.why or 'its turn did not come'}")
            return True
        send.state, send.attempt, send.person = "sending", ready.attempt, ready.person
        send.due_ms = self._now_ms + self._lease_ms
        self._out.then(Attempt(send.order, send.attempt, send.person, ready.sections, send.due_ms))
        self._row(send)
        return True

    def _withheld(self, send: Send, withheld: Withheld) -> bool:
        if send.state != "waiting" or withheld.attempt != send.attempt + 1:
            return False
        send.person = withheld.person
        self._out.then(Ended(send.order))
        self.end(send, "withheld", withheld.why)
        return True

    def _outcome(self, send: Send, outcome: Outcome) -> bool:
        # One that was given up may answer after all: that it was taken counts, whatever was tried since.
        is_awaited = send.state == "sending" and outcome.attempt == send.attempt
        if not is_awaited and (outcome.result != "accepted" or outcome.attempt > send.attempt):
            return False
        send.address, send.via, send.version = outcome.address, outcome.via, outcome.version
        send.reference = outcome.reference
        if outcome.result == "accepted":
            self.end(send, "sent", "")
        elif outcome.result == "withheld":
            self.end(send, "withheld", outcome.why)
        elif outcome.result == "declined":
            self.end(send, "failed", outcome.why, is_address=outcome.is_address)
        elif outcome.result == "unknown":
            self._may_have_arrived(send, outcome.why)
        else:
            self._again(send, outcome.why, outcome.after_ms, outcome.counts)
        return True

    def _settle(self, send: Send, settle: Settle) -> bool:
        if send.state == "sending" or (send.state == "waiting" and settle.as_ != "failed"):
            return False
        if settle.as_ == "again":
            send.order.expires_ms = max(send.order.expires_ms, self._now_ms + DAY_MS)
            self._wait(send, f"{settle.by} sent it again", self._now_ms)
        else:
            self.end(send, settle.as_, f"{settle.by} said so")
        return True

    # --- what becomes of it

    def _may_have_arrived(self, send: Send, why: str) -> None:
        """A marketing message is not sent twice: a person decides. A transactional one is not left unsent."""
        if send.order.kind == "marketing":
            send.state, send.due_ms, send.why = "unknown", 0, why
            self._row(send)
        else:
            self._again(send, why, 0, counts=True)

    def _again(self, send: Send, why: str, after_ms: int, counts: bool) -> None:
        send.tries += counts
        pause_ms = after_ms
        if counts:
            pause_ms = max(after_ms, min(FIRST_PAUSE_MS << min(send.tries - 1, 20), LONGEST_PAUSE_MS))
        if self._now_ms + pause_ms > send.order.expires_ms:
            self.end(send, "failed", f"it was too late: {why}")
        else:
            self._wait(send, why, self._now_ms + pause_ms)

    def _wait(self, send: Send, why: str, due_ms: int) -> None:
        send.state, send.due_ms, send.why = "waiting", due_ms, why
        self._row(send)

    def end(self, send: Send, state: State, why: str, *, is_address: bool = False) -> None:
        """Nothing more comes of it: say so to everybody."""
        order = send.order
        send.state, send.due_ms, send.why = state, 0, why
        self._row(send)
        del self._mailbox.open[order.id]
        facts = {"message": order.id, "channel": order.channel, **({"why": why} if why else {})}
        self._out.decide(send.person or self._key, "messages", Decision(f"message_{state}", order.template, facts))
        if name := _NAMES.get(state):
            self._out.event(self._receipt(name, send))
        if is_address:
            self._out.event(self._receipt(BOUNCED, send))

    def _receipt(self, name: str, send: Send) -> Event:
        """What became of it, as an event of hers."""
        order = send.order
        said = {"message_id": order.id, "template": order.template, "version": send.version, "channel": order.channel,
                "via": send.via, "kind": order.kind, "topic": order.topic, "reason": send.why}  # fmt: skip
        return receipt(name, send.person or self._key, effect_id(order.id, name, send.attempt), said,
                       from_ms(self._now_ms))  # fmt: skip

    def _row(self, send: Send) -> None:
        order = send.order
        self._out.row(order.to, self._mailbox.revision, Row(MessageRow(
            id=order.id, template=order.template, template_version=send.version, channel=order.channel,
            via=send.via, kind=order.kind, topic=order.topic, state=send.state, why=send.why, attempts=send.attempt,
            address=send.address, reference=send.reference, ordered_by=order.by, ordered_at=from_ms(order.at_ms),
            changed_at=from_ms(self._now_ms), due_at=from_ms(send.due_ms) if send.due_ms else None)))  # fmt: skip
