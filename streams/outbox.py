"""The outbox of the customer stage: what follows from the records handled, on its way to the log.

Two kinds leave at different times. Messages to other persons, decisions and dead letters leave after each batch, in
order. Rows and portraits are states: only the newest of each key matters, so they are gathered by key and leave with
the next checkpoint. All of it is acknowledged before the state that says it happened is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from processors.base import Table
from schemas.effects import Decision, Row
from schemas.errors import Refused
from schemas.event import Event, encode_event
from schemas.internal import HEADERS, Internal, encode_internal
from schemas.rejected import Rejected, encode_rejected
from schemas.rows import LedgerLine, TableRow, encode_json
from schemas.times import from_ms
from streams.log import Outgoing, Record
from streams.metrics import reason_class

RowKey = tuple[str, str, object]


def effect_id(*parts: object) -> str:
    """The same for the same parts, whenever and wherever it is made: 32 hexadecimal digits."""
    return blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _line_id(number: int, *of: str) -> str:
    """Of a line of the ledger. What one record caused sorts by it in the order in which it was decided.

    One record may cause messages to several keys, and several to one: with each it is decided anew.
    """
    return f"{min(number, 0xFFFF):04x}{effect_id(*of, number)[:28]}"


def _no_key(values: object) -> None:
    """The key of a table that has one row a person."""


class Outbox:
    """What waits to be sent. `table_of` gives the table of a row's type."""

    def __init__(self, table_of: Mapping[type[msgspec.Struct], Table]) -> None:
        self._table_of = table_of
        self._key_of = {row: attrgetter(*table.key) if table.key else _no_key for row, table in table_of.items()}
        self.messages: dict[str, list[Outgoing]] = {}
        self.rows: dict[RowKey, tuple[str, int, Row]] = {}
        self._then: list[Any] = []
        self.rejected: Counter[tuple[str, str]] = Counter()
        """How many dead letters, by processor and class of reason, since somebody last took them."""
        self._origin: str | Record = ""
        self._at_ms = 0
        self._way = ""
        self._decided = Counter[tuple[str, str]]()
        self._by = ""
        self._offset = -1
        self._sent = 0

    def begin(self, origin: str | Record, at_ms: int, way: str = "") -> None:
        """From here on everything follows from the input record `origin`: it, or its `topic-partition@offset`.

        Args:
            way: tells apart what follows from one record at one person by several messages.
        """
        self._origin, self._at_ms, self._way = origin, at_ms, way

    def speak(self, by: str, offset: int) -> None:
        """From here on messages are sent by the record of key `by`, on the record of its partition at `offset`."""
        self._by, self._offset, self._sent = by, offset, 0
        self._decided.clear()

    @property
    def origin(self) -> str:
        origin = self._origin
        if not isinstance(origin, str):  # worked out for the few records that something follows from
            origin = self._origin = f"{origin.topic}-{origin.partition}@{origin.offset}"
        return origin

    @property
    def at_ms(self) -> int:
        return self._at_ms

    def send(self, message: Internal, partition: int | None = None) -> None:
        """Send a message to where its receiver is; `partition` is named where the receiver is one itself."""
        self._sent += 1
        message.by, message.seq = self._by, (self._offset, self._sent)
        self._put("events", message.to.encode(), encode_internal(message), HEADERS, partition)

    def decide(self, person: str, processor: str, decision: Decision) -> None:
        cause = self.origin, self._way
        self._decided[cause] += 1
        line = LedgerLine(
            id=_line_id(self._decided[cause], *cause, self._by, processor),
            workspace=person.partition("/")[0], person=person, at=from_ms(self._at_ms), processor=processor,
            kind=decision.kind, about=decision.about, cause=self.origin, facts=decision.facts,
        )  # fmt: skip
        self._put("decisions", person.encode(), encode_json(line))

    def reject(self, refused: Refused, record: Record, **known: object) -> None:
        """A record went wrong; `known` are further fields of `Rejected`."""
        letter = Rejected.of(
            refused,
            id=effect_id(record.topic, record.partition, record.offset, refused.processor, refused.reason),
            at=from_ms(record.timestamp_ms), by="stage",
            record=record.value or b"", record_key=record.key or b"",
            topic=record.topic, partition=record.partition, offset=record.offset, processor=refused.processor, **known,
        )  # fmt: skip
        self._put("rejected", letter.key.encode() or record.key, encode_rejected(letter))
        self.rejected[refused.processor, reason_class(refused)] += 1

    def row(self, part: str, version: int, row: Row) -> None:
        table = self._table_of[type(row.values)]
        identity = (table.name, part, self._key_of[type(row.values)](row.values))
        waiting = self.rows.pop(identity, None)  # so that rows leave in the order of their newest change
        if waiting is not None and waiting[1] > version:
            # After a crash the partition that a part came from does its records again, when the one that the part went
            # to may have done its own already. What was said before must not hide what was said since.
            self.rows[identity] = waiting
        else:
            self.rows[identity] = (part, version, row)

    def then(self, what: Any) -> None:
        """To be done once the states are durable: for the worker's `then`."""
        self._then.append(what)

    def event(self, event: Event) -> None:
        """Send an event, as a collector would."""
        self._put("events", event.key.encode(), encode_event(event))

    def say(self, topic: str, key: str, value: bytes) -> None:
        """Send a record that is none of the above."""
        self._put(topic, key.encode(), value)

    def _put(
        self, topic: str, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...] = (),
        partition: int | None = None,
    ) -> None:  # fmt: skip
        self.messages.setdefault(topic, []).append(Outgoing(key, value, partition, headers))

    def take_messages(self) -> dict[str, list[Outgoing]]:
        taken, self.messages = self.messages, {}
        return taken

    def take_then(self) -> list[Any]:
        taken, self._then = self._then, []
        return taken

    def take_rows(self) -> list[Outgoing]:
        """The newest row of each key, encoded only now: most were written over since."""
        taken, self.rows = self.rows, {}
        return [self._encoded(*waiting) for waiting in taken.values()]

    def _encoded(self, part: str, version: int, row: Row) -> Outgoing:
        line = TableRow(
            table=self._table_of[type(row.values)].name, workspace=part.partition("/")[0], key=part, version=version,
            is_deleted=row.is_deleted, values=msgspec.Raw(encode_json(row.values)),
        )  # fmt: skip
        return Outgoing(part.encode(), encode_json(line))

    def clear(self) -> None:
        """Forget what waits: it will follow again from the same records."""
        self.messages, self.rows, self._then = {}, {}, []
        self.rejected.clear()
