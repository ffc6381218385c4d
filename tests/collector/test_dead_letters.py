"""A refused event can be sent again by itself: its letter says what the request had said beside it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from schemas.errors import Refused
from schemas.intake import Arrival
from schemas.rejected import decode_rejected
from web.collector.ingest import dead_letter, on_its_own

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ALONE = Arrival(workspace="shop", source="web", received_at=NOW)
OF_BATCH = Arrival(workspace="shop", source="web", received_at=NOW, sent_at=NOW,
                   context={"locale": "en", "ip": "1.2.3.4"}, integrations={"All": True})  # fmt: skip


def test_an_event_of_a_path_of_one_call_gets_its_type():
    raw = b'{"userId":"u","name":"Home"}'

    kept = msgspec.json.decode(on_its_own(raw, ALONE, "screen"))

    assert kept == {"userId": "u", "name": "Home", "type": "screen"}


def test_an_event_of_a_batch_gets_what_the_batch_says_of_all_and_its_own_goes_first():
    raw = b'{"type":"track","userId":"u","context":{"locale":"fr"},"big":12345678901234567890123}'

    kept = on_its_own(raw, OF_BATCH, "")

    decoded = msgspec.json.decode(kept)
    assert decoded["context"] == {"locale": "fr", "ip": "1.2.3.4"}
    assert (decoded["integrations"], decoded["sentAt"]) == ({"All": True}, "2026-01-02T00:00:00Z")
    assert b'"big":12345678901234567890123' in kept  # what nobody reads stays as it was written


def test_what_needs_nothing_or_cannot_be_read_stays_as_it_came():
    for raw in (b'{"type":"track"}', b"[1]", b'"text"', b"{broken", b"", b"\xff", b'{"context":3}'):
        assert on_its_own(raw, ALONE, "") == raw

    assert on_its_own(b"{broken", OF_BATCH, "track") == b"{broken"


def test_the_letter_holds_it():
    letter = decode_rejected(dead_letter(Refused("no"), b'{"anonymousId":"a"}', ALONE, "page").value or b"")

    assert msgspec.json.decode(letter.record) == {"anonymousId": "a", "type": "page"}
    assert letter.key == "shop/a:a"
