"""docs/topics/ says what the code does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from docs.topics.generate import FOLDER, files
from schemas.event import Event, encode_event
from schemas.rejected import Rejected, encode_rejected
from schemas.rows import Identity, LedgerLine, Portrait, TableRow, encode_json
from schemas.segments import Said, encode_said
from schemas.templates import SavedTemplate, encode_saved
from schemas.topics import TOPICS

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def test_the_topic_reference_is_what_the_code_says() -> None:
    made = files()

    of_us = [path for path in FOLDER.iterdir() if path.suffix in (".json", ".md")]
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in of_us}

    assert on_disk == made, "run `python -m docs.topics.generate`"


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("events", encode_event(Event(
            message_id="m-1", type="track", workspace="shop", source="web", timestamp=AT, received_at=AT, user_id="7",
            event="Order Completed", raw_properties=msgspec.Raw(b'{"total": 9.9, "products": [{"sku": "a"}]}')))),
        ("profiles", encode_json(Portrait(
            key="shop/u:7", workspace="shop", revision=3, at=AT,
            identities=[Identity(key="shop/a:x", person="shop/u:7", moves=1, evidence="m-1", linked_at=AT)],
            sections={"orders": {"count": 2}}))),
        ("rows", encode_json(TableRow(
            table="visits", workspace="shop", key="shop/u:7", version=2, values={"pages": 4}))),
        ("decisions", encode_json(LedgerLine(
            id="d-1", workspace="shop", person="shop/u:7", at=AT, processor="identity", kind="merged", about="shop/a:x",
            cause="events-0@17", facts={"by": "m-1"}))),
        ("definitions", encode_said(Said(
            name="buyers", version=2, when={"did": "Order Completed", "at_least": 2}, title={"en": "Buyers"}, by="ann",
            at_ms=1_772_368_200_000, source="page", from_file="5f0c", is_live=True, zone="Europe/Berlin"))),
        ("templates", encode_saved(SavedTemplate(
            name="welcome", version=2, id="5f0c", text="channel: sms", by="ann", at_ms=1_772_368_200_000, source="page",
            from_file="9a1b"))),
        ("rejected", encode_rejected(Rejected(
            id="r-1", at=AT, by="collector", reason="messageId must have 1 to 100 characters", record=b"\xff{"))),
    ],
)  # fmt: skip
def test_what_we_write_fits_the_schema_we_publish(topic: str, value: bytes) -> None:
    schema: Any = msgspec.json.decode((FOLDER / f"{topic}.json").read_bytes())

    jsonschema_rs.validator_for(schema).validate(msgspec.json.decode(value))


def test_every_topic_is_written_in_the_reference() -> None:
    reference = (FOLDER / "README.md").read_text(encoding="utf-8")

    assert [name for name in TOPICS if f"| `{name}` |" not in reference] == []
