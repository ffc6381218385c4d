"""The topics: the public contract. Each with its key, its value, who writes it, and how long it is kept."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from schemas.coupons import CouponRecord, CouponState
from schemas.customer import Customer
from schemas.event import Event
from schemas.journeys import OfJourneys
from schemas.messages import Mailbox, OfMessages
from schemas.rejected import Rejected
from schemas.rows import LedgerLine, Portrait, TableRow
from schemas.segments import Noted
from schemas.templates import SavedTemplate
from schemas.times import DAY_MS


class Topic(NamedTuple):
    """One topic.

    Attributes:
        schema: type of the value; docs/topics/ holds its JSON Schema.
        retention_ms: how long records are kept; None: for ever, the newest of each key (compacted).
        with_events: whether it must have as many partitions as `events`.
    """

    name: str
    key: str
    schema: object
    encoding: Literal["json", "msgpack"]
    retention_ms: int | None
    with_events: bool
    about: str

    @property
    def is_compacted(self) -> bool:
        return self.retention_ms is None


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic("events", "person key", Event, "json", 365 * DAY_MS, True,
              "Accepted events, the whole body as sent plus the four times. Records with the header `tidewire` are the "
              "customer stage's own messages among them (schemas/internal.py); skip them."),
        Topic("customers", "person key", Customer, "msgpack", None, True,
              "The newest state of every person key: the changelog of the customer stage."),
        Topic("profiles", "person key", Portrait, "json", None, False,
              "The newest portrait of every person: the golden record in readable form."),
        Topic("rows", "person key", TableRow, "json", 7 * DAY_MS, False, "Rows for ClickHouse, of every processor."),
        Topic("decisions", "person key", LedgerLine, "json", 365 * DAY_MS, False,
              "The ledger: what was decided about a person, with its cause."),
        Topic("messages", "person key", OfMessages, "json", 30 * DAY_MS, True,
              "Messages to people: that they were ordered, may be sent or may not, and what became of each attempt."),
        Topic("sends", "person key", Mailbox, "msgpack", None, True,
              "The messages to every person that are open: the changelog of the stage of messages."),
        Topic("suppressions", "workspace, channel and address", TableRow, "json", None, False,
              "Addresses to which nothing is sent: the newest word about each, as a row of table `suppressions`."),
        Topic("coupon_requests", "workspace", CouponRecord, "json", 30 * DAY_MS, True,
              "Coupons: what campaigns there are, who is to have one, and which were used. Whoever can read the seeds "
              "here can work out codes, as whoever can read `events` can read them."),
        Topic("coupons", "what the state is of", CouponState, "msgpack", None, True,
              "Campaigns, codes and who has which: the changelog of the stage of coupons."),
        Topic("definitions", "segment and version", Noted, "json", None, False,
              "Every version of every segment, and under `NAME/live` the one that people are judged by; "
              "under `WORKSPACE/rfm` where the fifths of RFM meet; under `led` what partitions were last told of "
              "journeys, under `limits` what holds for all of them, under `JOURNEY/fired` when people were last "
              "asked into it."),
        Topic("templates", "template, version and id", SavedTemplate, "json", None, False,
              "Every version of every template of messages, the newest 200 of each; all of one template are in one "
              "partition, and of two of the same version the first counts."),
        Topic("journeys", "journey, version and id", OfJourneys, "json", None, False,
              "Every version of every journey, as topic `templates` holds templates; and under `NAME/steering` what "
              "marketers want of it: live, paused, draining or stopped; under `NAME/broadcast/ID` that whoever is in "
              "its segment is to enter it now."),
        Topic("rejected", "person key, where known", Rejected, "json", 90 * DAY_MS, False,
              "Dead letters: what was refused, whole, with the cause."),
    )
}  # fmt: skip


def json_schema(topic: Topic) -> dict[str, object]:
    """The JSON Schema of a topic's value; for MessagePack topics of the same structure in JSON."""
    return msgspec.json.schema(_with_objects(topic.schema) if topic.schema is Event else topic.schema)


def _with_objects(schema: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same struct with plain objects where it keeps raw bytes, which a JSON Schema cannot say."""
    fields: list[tuple[str, object, object]] = []
    for field in msgspec.structs.fields(schema):
        if field.type is msgspec.Raw:
            fields.append((field.encode_name, dict[str, Any], msgspec.field(default_factory=dict)))
        elif field.default is msgspec.NODEFAULT:
            fields.append((field.encode_name, field.type, msgspec.field()))
        else:
            fields.append((field.encode_name, field.type, msgspec.field(default=field.default)))
    return msgspec.defstruct(schema.__name__, fields, kw_only=True, namespace={"__doc__": schema.__doc__})
