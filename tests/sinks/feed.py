"""What the tests of sinks put into the log: the values of its topics, small and whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from schemas.event import Event, decode_event
from schemas.rejected import Rejected, encode_rejected
from schemas.rows import Identity, Portrait, TableRow, encode_json
from schemas.topics import TOPICS
from streams.embedded import EmbeddedLog
from streams.log import Outgoing

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def event_json(number: int = 1, **other: Any) -> bytes:
    """An order, as it stands in topic `events`; `other` are fields by their names in JSON, None leaves one out."""
    at = NOON + timedelta(minutes=number % 10_000)
    body: dict[str, Any] = {
        "messageId": f"m-{number}", "type": "track", "workspace": "shop", "source": "web", "timestamp": iso(at),
        "receivedAt": iso(at + timedelta(seconds=2)), "originalTimestamp": iso(at), "userId": f"u-{number % 97}",
        "event": "Order Completed",
        "properties": {"order_id": f"o-{number}", "total": number % 50 + 0.25, "currency": "eur"},
    } | other  # fmt: skip
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def with_raw(body: bytes, **raw: str) -> bytes:
    """The event with texts put in as they are, whether they are JSON or not."""
    for name, text in raw.items():
        body = body[:-1] + b"," + json.dumps(name).encode() + b":" + text.encode("utf-8", "surrogateescape") + b"}"
    return body


def event(number: int = 1, **other: Any) -> Event:
    return decode_event(event_json(number, **other))


def refusal(record: bytes, by: str = "stage", topic: str = "events", letter_id: str = "letter-1") -> bytes:
    return encode_rejected(Rejected(id=letter_id, at=NOON, by=by, reason="total is no number", field="properties.total",  # type: ignore[arg-type]
                                    record=record, topic=topic, partition=0, offset=7, workspace="shop"))  # fmt: skip


def portrait(key: str, revision: int, keys: Sequence[str] = (), *, moves: int = 0, merged_into: str = "",
             sections: Mapping[str, Any] | None = None) -> bytes:  # fmt: skip
    identities = [Identity(key=one, person=key, moves=0 if one == key else moves) for one in (key, *keys)]
    return encode_json(Portrait(key=key, workspace="shop", revision=revision, at=NOON, merged_into=merged_into,
                                identities=identities, sections=dict(sections or {})))  # fmt: skip


def table_row(table: str, values: Mapping[str, Any], *, key: str = "shop/u:1", version: int = 1,
              is_deleted: bool = False) -> bytes:  # fmt: skip
    return encode_json(TableRow(table=table, workspace="shop", key=key, version=version, is_deleted=is_deleted,
                                values=dict(values)))  # fmt: skip


@asynccontextmanager
async def embedded_log(folder: Path, partitions: int = 2) -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    for topic in TOPICS.values():
        await log.create_topic(topic.name, partitions, topic.retention_ms)
    yield log
    await log.stop()


async def put(log: EmbeddedLog, topic: str, values: Iterable[bytes], key: str | None = None) -> None:
    await log.append(topic, [Outgoing(None if key is None else key.encode(), value) for value in values])
