"""Rows that are packed while they are read are stored as those that are not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sinks.analytics import Analytics, ClickHouseError, RowsRefused
from sinks.batch import AT_ONCE, PACKED, Reader
from sinks.events import NAMES
from sinks.migrate import migrate
from sinks.native import NotPacked, Packed, Packer
from streams.log import Record
from tests.sinks.feed import event_json, portrait, with_raw
from tests.sinks.test_analytics import HOSTILE, ODD_TABLE

STORED = "SELECT * FROM odd_ones ORDER BY k, version"


async def test_packed_rows_are_stored_as_columns_are(either: Analytics) -> None:
    await either.command(ODD_TABLE)
    columns = {
        "k": HOSTILE, "j": ['{"a.b": 1, "a": {"b": 2}}'] * len(HOSTILE), "d": [Decimal("-1.0001")] * len(HOSTILE),
        "version": range(len(HOSTILE)), "n": [None, *range(len(HOSTILE) - 1)], "a": [("p", "p")] * len(HOSTILE),
        "l": HOSTILE, "m": [{"q": 0.1}] * len(HOSTILE),
    }  # fmt: skip
    await either.insert("odd_ones", columns)
    expected = await either.query(STORED)
    await either.command("TRUNCATE TABLE odd_ones")

    packer = await either.packer("odd_ones", list(columns))
    block = packer.block(list(columns.values()))
    await either.insert("odd_ones", Packed(packer.names, [block, block]))

    assert await either.query(STORED) == sorted(expected * 2, key=lambda row: (row["k"], row["version"]))


async def test_a_table_without_the_column_is_told_when_the_packer_is_made(either: Analytics) -> None:
    await either.command("CREATE TABLE one (n UInt64) ENGINE = MergeTree ORDER BY n")

    with pytest.raises(ClickHouseError, match="no column 'm'"):
        await either.packer("one", ["n", "m"])


async def test_a_packed_row_that_clickhouse_refuses_is_told_from_trouble_that_passes(either: Analytics) -> None:
    await either.command("CREATE TABLE one (tree JSON) ENGINE = MergeTree ORDER BY tuple()")
    packer = await either.packer("one", ["tree"])

    with pytest.raises(RowsRefused):
        await either.insert("one", Packed(packer.names, [packer.block([['{"a": 1}', '{"a": 1e999}']])]))

    assert await either.query("SELECT count() AS n FROM one") == [{"n": 0}]


@pytest.mark.parametrize(("kind", "value"), [("UInt8", 300), ("UInt8", "x"), ("Decimal(18, 4)", "x"), ("String", None)])
def test_a_value_that_is_none_of_its_column_is_not_packed(kind: str, value: object) -> None:
    with pytest.raises(NotPacked, match="column n"):
        Packer({"n": kind}).block([[value]])


def test_a_long_number_is_written_seven_bits_at_a_time() -> None:
    block = Packer({"n": "UInt8"}).block([[7] * 300])

    assert block == bytes([1, 0xAC, 0x02, 1]) + b"n" + bytes([5]) + b"UInt8" + bytes([7] * 300)


def records() -> list[Record]:
    """Events for more than one block; some are odd, and some are none."""
    odd = [
        event_json(type="group", event=None, groupId="g"), event_json(originalTimestamp="0001-01-01T00:00:00Z"),
        event_json(properties="text"), with_raw(event_json(), context="[1]"), b"{}", event_json(properties=None),
    ]  # fmt: skip
    plain = [event_json(number, context={"page": {"title": f"名 {number}"}}) for number in range(AT_ONCE * 2 + 7)]
    return [Record("events", 0, i, 0, b"k", value) for i, value in enumerate(plain + odd)]


async def test_events_that_are_packed_while_they_are_read_are_the_same_rows(analytics: Analytics) -> None:
    reader = Reader(())
    question = "SELECT * FROM events ORDER BY message_id, version, type, toString(properties), context"
    (columns,) = reader.read(records()).rows
    await analytics.insert("events", columns.columns)
    expected = await analytics.query(question)
    await analytics.command("TRUNCATE TABLE events")

    reader.packers = {"events": await analytics.packer("events", NAMES)}
    batch = reader.read(records())
    (packed,) = batch.rows
    assert packed.packed is not None
    await analytics.insert("events", packed.packed)

    assert await analytics.query(question) == expected
    assert batch.skipped == 1
    assert {name: list(values) for name, values in packed.columns.items()} == columns.columns
    assert packed.origins == columns.origins


async def test_portraits_that_are_packed_while_they_are_read_are_the_same_rows(analytics: Analytics) -> None:
    sections = {"profile": {"email": "a@b.c", "events": 3, "traits": {"a.b": 1}}, "orders": {"revenue": {"EUR": "1.5"}}}
    odd = [portrait("shop/u:x", 1, sections={"profile": {"events": "many"}}), b"{}"]
    values = [portrait(f"shop/u:{n}", n, [f"shop/a:{n}"], sections=sections) for n in range(AT_ONCE + 7)]
    records = [Record("profiles", 0, i, 0, b"k", value) for i, value in enumerate(odd + values)]
    reader = Reader(())
    plain = reader.read(records)
    reader.packers = {"people": await analytics.packer("people", PACKED["people"])}
    question = "SELECT * FROM people ORDER BY key"

    packed = reader.read(records)
    stored = []
    for rows in (plain.rows[0].columns, packed.rows[0].packed):
        assert rows is not None
        await analytics.insert("people", rows)
        stored.append(await analytics.query(question))
        await analytics.command("TRUNCATE TABLE people")

    assert stored[0] == stored[1]
    assert len(stored[0]) == len(values)
    assert [bad.origin for bad in packed.bad] == [bad.origin for bad in plain.bad] == [records[1], records[0]]
    assert packed.rows[1] == plain.rows[1]
    assert dict(packed.rows[0].columns) == plain.rows[0].columns


async def test_where_packing_fails_the_rows_stay_columns(either: Analytics) -> None:
    await migrate(either)
    reader = Reader(())
    (expected,) = reader.read(records()).rows

    reader.packers = {"events": Packer(dict.fromkeys(NAMES, "UInt8"))}
    (rows,) = reader.read(records()).rows

    assert (rows.packed, rows.columns, rows.origins) == (None, expected.columns, expected.origins)
