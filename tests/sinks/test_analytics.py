"""The one way to ask ClickHouse, on both grounds."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from sinks.analytics import Analytics, ClickHouseAway, ClickHouseError, RowsRefused, place_of
from tests.sinks.conftest import Bridge

HOSTILE = ["\t", "\n", "\\", "'", '"', "`", "\\'", "\\n", "\\N", "\0", "a\0b", "é", "中文", "😀", "' OR 1=1 --",
           "{x:String}", "%s", "%(a)s", "$$", ";", "/*", "--", "\r\n", "\x7f", "\ufeff", " ", ""]  # fmt: skip


async def test_a_parameter_is_the_value_whatever_it_holds(either: Analytics) -> None:
    rows = await either.query("SELECT {many:Array(String)} AS many", {"many": HOSTILE})
    alone = [await either.query("SELECT {one:String} AS one", {"one": value}) for value in HOSTILE]

    assert rows == [{"many": HOSTILE}]
    assert alone == [[{"one": value}] for value in HOSTILE]


@settings(max_examples=5, deadline=None)
@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=30))
def test_any_text_comes_back_as_it_went(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    async def ask() -> tuple[list[str], list[str]]:
        analytics = Analytics(f"chdb:{tmp_path_factory.getbasetemp() / 'any-text'}", readers=1)
        together = await analytics.query("SELECT {values:Array(String)} AS v", {"values": values})
        alone = [(await analytics.query("SELECT {v:String} AS v", {"v": value}))[0]["v"] for value in values]
        await analytics.close()
        return together[0]["v"], alone

    together, alone = asyncio.run(ask())

    assert together == alone == values


async def test_values_come_back_as_what_they_are(either: Analytics) -> None:
    rows = await either.query("""
        SELECT toUInt64(18446744073709551615) AS large, toDecimal64('12.3', 4) AS money, toDate('2026-02-03') AS day,
            toDateTime64('2026-02-03 04:05:06.789', 3, 'Asia/Shanghai') AS moment, NULL::Nullable(Int8) AS nothing,
            map('EUR', toDecimal64('1.5', 4)) AS by_currency, [1, 2]::Array(UInt8) AS numbers, true AS truth,
            '{"a": {"b": [1, "x", null]}}'::JSON AS tree, nan AS odd, toLowCardinality('l') AS low,
            tuple(1, 'a') AS pair
    """)

    assert rows == [{
        "large": 2**64 - 1, "money": Decimal("12.3"), "day": date(2026, 2, 3),
        "moment": datetime(2026, 2, 2, 20, 5, 6, 789_000, tzinfo=UTC), "nothing": None,
        "by_currency": {"EUR": Decimal("1.5")}, "numbers": [1, 2], "truth": True,
        "tree": {"a": {"b": [1, "x", None]}}, "odd": None, "low": "l", "pair": [1, "a"],
    }]  # fmt: skip


async def test_columns_are_the_rows_turned(chdb: Analytics) -> None:
    columns = await chdb.query_columns("SELECT number AS n, toString(number) AS s FROM numbers(3)")
    empty = await chdb.query_columns("SELECT number AS n FROM numbers(0)")

    assert columns == {"n": [0, 1, 2], "s": ["0", "1", "2"]}
    assert empty == {"n": []}


MORE_THAN_READING = [
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT FILE ('/etc/passwd')",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT 1 INTO OUTFILE '/tmp/tidewire-must-not-be'",
    "SELECT 1 into/**/outfile '/tmp/tidewire-must-not-be'",
    "SELECT * FROM remote('127.0.0.1', 'system.one')",
    "SELECT * FROM executable('x', 'CSV', 'a String')",
    "INSERT INTO decisions (id) VALUES ('x')",
    "CREATE TABLE t (a Int8) ENGINE = Memory",
    "DROP TABLE IF EXISTS t",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1; DROP TABLE t",
    "SELECT 1; SELECT 2",
    "BACKUP DATABASE default TO File('/tmp/tidewire-must-not-be')",
    "SYSTEM SHUTDOWN",
    "",
]  # fmt: skip
READING = [
    "SELECT 'file(x) INTO OUTFILE; KILL' AS text", "-- hello\nSELECT 1", "SELECT 1;", "(SELECT 1) UNION ALL (SELECT 2)",
    "WITH 1 AS x SELECT x", "SHOW TABLES", "DESCRIBE system.one", "EXPLAIN SELECT 1", "EXISTS TABLE x",
]  # fmt: skip


async def test_a_query_can_only_read_and_only_clickhouse(either: Analytics) -> None:
    for sql in MORE_THAN_READING:
        with pytest.raises(ClickHouseError) as caught:
            pytest.fail(f"{sql} gave {await either.query(sql)}")
        assert not isinstance(caught.value, ClickHouseAway | RowsRefused)
        assert "\n" not in str(caught.value)
    assert not await asyncio.to_thread(Path("/tmp/tidewire-must-not-be").exists)


async def test_what_reads_is_let_through(either: Analytics) -> None:
    for sql in READING:
        await either.query(sql)


ODD_TABLE = """
CREATE TABLE odd_ones (k String, j JSON, d Decimal(18, 4), l LowCardinality(String), m Map(String, Float64),
    n Nullable(DateTime64(3, 'UTC')), a Array(LowCardinality(String)), version UInt64, is_deleted UInt8)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY k
"""


async def test_a_table_dumped_and_loaded_is_the_same_to_the_last_type(either: Analytics, tmp_path: Path) -> None:
    await either.command(ODD_TABLE)
    tree = '{"a.b": 1, "a": {"b": 2}, "x": 1.0, "l": [1, {"z": null}]}'
    await either.insert("odd_ones", {
        "k": [*HOSTILE, "tree"], "j": ["{}"] * len(HOSTILE) + [tree],
        "d": [Decimal("-12345678901234.0001")] * (len(HOSTILE) + 1), "version": range(len(HOSTILE) + 1),
        "n": [None, *range(len(HOSTILE))], "a": [["p", "p"]] * (len(HOSTILE) + 1), "l": [*HOSTILE, "x"],
        "m": [{"q": 0.1}] * (len(HOSTILE) + 1),
    })  # fmt: skip
    question = "SELECT *, JSONAllPathsWithTypes(j) AS types FROM odd_ones ORDER BY k, version"
    before = await either.query(question)
    file = tmp_path / "o'd\\d.lz4"

    with lz4.frame.open(file, "wb") as packed:
        await either.dump("odd_ones", packed.write)
    await either.command("TRUNCATE TABLE odd_ones")
    await either.load("odd_ones", file)

    assert await either.query(question) == before
    assert len(before) == len(HOSTILE) + 1


async def test_an_empty_table_is_dumped_and_loaded_too(either: Analytics, tmp_path: Path) -> None:
    await either.command("CREATE TABLE none (n UInt64) ENGINE = MergeTree ORDER BY n")
    with lz4.frame.open(tmp_path / "none.lz4", "wb") as packed:
        await either.dump("none", packed.write)

    await either.load("none", tmp_path / "none.lz4")

    assert await either.query("SELECT count() AS n FROM none") == [{"n": 0}]


async def test_what_ends_a_dump_reaches_its_caller(either: Analytics) -> None:
    class DiskFull(Exception):
        pass

    def fail(block: bytes) -> None:
        raise DiskFull

    await either.command("CREATE TABLE kept ENGINE = MergeTree ORDER BY n AS SELECT number AS n FROM numbers(9)")

    with pytest.raises(DiskFull):
        await either.dump("kept", fail)
    assert await either.query("SELECT count() AS n FROM kept") == [{"n": 9}]


async def test_rows_of_another_table_are_refused(either: Analytics, tmp_path: Path) -> None:
    await either.command("CREATE TABLE one (n UInt64) ENGINE = MergeTree ORDER BY n")
    await either.command("CREATE TABLE two (other String) ENGINE = MergeTree ORDER BY other")
    await either.insert("one", {"n": [1]})
    with lz4.frame.open(tmp_path / "one.lz4", "wb") as packed:
        await either.dump("one", packed.write)

    with pytest.raises(ClickHouseError):
        await either.load("two", tmp_path / "one.lz4")


async def test_an_answer_that_broke_off_does_not_run_into_the_next(chdb: Analytics) -> None:
    with pytest.raises(ClickHouseError, match="time to stop"):
        await chdb.query("SELECT throwIf(number = 100000, 'time to stop') FROM numbers(200000)")

    rows = await chdb.query("SELECT 1 AS one")

    assert rows == [{"one": 1}]


async def test_a_query_that_takes_too_long_is_ended_and_says_so(either: Analytics) -> None:
    endless = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"

    started = time.monotonic()
    with pytest.raises(ClickHouseError, match=r"took longer than 0\.5 s"):
        await either.query(endless, longest_s=0.5)
    took = time.monotonic() - started
    rows = await either.query("SELECT 1 AS one")

    assert took < 5
    assert rows == [{"one": 1}]


async def test_an_answer_of_too_many_rows_is_refused(chdb: Analytics) -> None:
    with pytest.raises(ClickHouseError, match=r"max rows: 1\.00 million"):
        await chdb.query("SELECT number FROM numbers(3000000)")


async def test_the_event_loop_goes_on_while_queries_run_side_by_side(chdb: Analytics) -> None:
    await chdb.query("SELECT 1")
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before - 0.01)

    watching = asyncio.create_task(watch())
    started = time.monotonic()
    await asyncio.gather(*(chdb.query(f"SELECT sleep(1), {i}") for i in range(4)))
    took = time.monotonic() - started
    watching.cancel()

    assert took < 3, "four sleeps of a second ran one after another"
    assert longest < 0.5


OPEN = """
import asyncio, sys
from schemas.errors import Unreachable
from sinks.analytics import Analytics
try:
    asyncio.run(Analytics(f"chdb:{sys.argv[1]}").start())
except Unreachable as error:
    print(error)
"""


async def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "clickhouse"
    holder = Analytics(f"chdb:{path}")
    await holder.start()

    second = await asyncio.to_thread(_run, OPEN, str(path))
    await holder.close()
    after = await asyncio.to_thread(_run, OPEN, str(path))

    assert second.count("\n") == 1
    assert f"is open in process {os.getpid()}" in second
    assert after == ""


def _run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_server_that_is_not_there_is_away(bridge: Bridge) -> None:
    analytics = Analytics(bridge.url)
    await analytics.start()
    bridge.kill()

    with pytest.raises(ClickHouseAway, match="does not answer: Connection refused"):
        await analytics.query("SELECT 1")
    bridge.start()
    rows = await analytics.query("SELECT 1 AS one")
    await analytics.close()

    assert rows == [{"one": 1}]


async def test_refused_rows_and_trouble_that_passes_are_told_apart(either: Analytics) -> None:
    await either.command("CREATE TABLE t (n Int64, small UInt8, tree JSON, at DateTime64(3, 'UTC')) "
                         "ENGINE = MergeTree ORDER BY n")  # fmt: skip

    for columns in ({"tree": ['{"a": 1e999}']}, {"small": [300]}, {"small": ["x"]}, {"n": [2**70]}, {"at": ["soon"]}):
        with pytest.raises(RowsRefused):
            await either.insert("t", columns)
    with pytest.raises(ClickHouseError, match="no column 'm'") as unknown_column:
        await either.insert("t", {"m": [1]})
    with pytest.raises(ClickHouseError) as unknown_table:
        await either.insert("nope", {"m": [1]})
    await either.insert("t", {"n": [1, 2], "tree": ['{"a": 1, "a": 2}', '{"a.b": 1, "a": {"b": 2}}']})
    rows = await either.query("SELECT n, tree FROM t ORDER BY n")

    assert not isinstance(unknown_column.value, RowsRefused)
    assert not isinstance(unknown_table.value, RowsRefused)
    assert rows == [{"n": 1, "tree": {"a": 1}}, {"n": 2, "tree": {"a": {"b": 2}, "a.b": 1}}]


@pytest.mark.parametrize(("url", "place"), [
    ("chdb:data/clickhouse", "chdb:data/clickhouse"), ("chdb:///var/x", "chdb:/var/x"), ("chdb://x", "chdb:x"),
    ("clickhouse://ch", "clickhouse://default@ch:8123/default"),
    ("clickhouse://u%40x@ch:9/db", "clickhouse://u@x@ch:9/db"),
    ("clickhouse+https://u@ch/db", "clickhouse+https://u@ch:8443/db"),
])  # fmt: skip
def test_addresses_are_read(url: str, place: str) -> None:
    assert str(place_of(url)) == place


@pytest.mark.parametrize("url", [
    "", "chdb:", "chdb://", "clickhouse://", "postgres://x", "clickhouse://h:x/db", "clickhouse://h/d`b", "clickhouse://h/a/b",
    "clickhouse://u:secret@h/db",
])  # fmt: skip
def test_what_is_no_address_is_refused_with_the_mend(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place_of(url)

    assert "analytics" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_importing_it_loads_no_engine_and_no_driver() -> None:
    heavy = ("chdb", "clickhouse_connect", "pandas", "numpy", "pyarrow")

    loaded = _run(f"import sys, sinks.analytics, sinks.clickhouse; print([m for m in {heavy} if m in sys.modules])")

    assert loaded.strip() == "[]"


async def test_an_insert_of_many_wide_rows_is_stored_whole(either: Analytics) -> None:
    """The driver sends it in several blocks, each compressed by itself."""
    await either.command("CREATE TABLE wide (n UInt64, s String) ENGINE = MergeTree ORDER BY n")

    await either.insert("wide", {"n": list(range(20_000)), "s": [str(n) * 300 for n in range(20_000)]})

    assert await either.query("SELECT count() AS rows, max(length(s)) AS widest FROM wide") == [
        {"rows": 20_000, "widest": 1_500}
    ]


@pytest.mark.parametrize(
    "said", ["[5,true]", '["x",true]', '["x",5]', "[true,1.5,null]", '[{"id":[5,true]},{"id":["x"]}]']
)
async def test_a_list_of_several_kinds_is_kept_as_it_came(either: Analytics, said: str) -> None:
    await either.command("CREATE TABLE lists (told JSON) ENGINE = MergeTree ORDER BY ()")

    await either.insert("lists", {"told": [f'{{"list":{said}}}']})

    (row,) = await either.query("SELECT toJSONString(told) AS told FROM lists")
    assert row["told"] == f'{{"list":{said}}}'
