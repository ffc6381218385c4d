"""The tables of processors: made, extended, refused."""

import time
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from structlog.testing import capture_logs

from processors.base import Table
from schemas.times import DAY_MS
from sinks.analytics import Analytics
from sinks.migrate import migrate
from sinks.tables import TableRefused, clickhouse_type, columns_from, columns_of, create_view, ensure_tables


class Colour(Enum):
    RED = "red"


class Visit(msgspec.Struct):
    """One visit.

    Attributes:
        started_at: when it's begun; the page's
            own time.
        pages, events: how many.
    """

    started_at: datetime
    source: Annotated[str, "LowCardinality(String)"]
    pages: int = 0
    events: int = 0
    ratio: float = 0.0
    is_bounce: bool = False
    value: Decimal = Decimal(0)
    ended_at: datetime | None = None
    day: date = date(1970, 1, 1)
    tags: list[str] = []
    revenue: dict[str, Decimal] = {}
    moments: list[datetime] = []
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    tree: Annotated[dict[str, Any], "JSON"] = {}
    nickname: str | None = None


VISITS = Table("visits", Visit, ("started_at",), "Each visit's row.")


def table(kind: object, name: str = "t", key: tuple[str, ...] = ("n",), field: str = "value") -> Table:
    row = msgspec.defstruct("Row", [("n", int), (field, kind)])  # type: ignore[list-item]
    return Table(name, row, key, "A table.")


def test_docstrings_become_comments() -> None:
    abouts = {column.name: column.about for column in columns_of(VISITS)}

    assert abouts["started_at"] == "when it's begun; the page's own time."
    assert abouts["pages"] == abouts["events"] == "how many."


@pytest.mark.parametrize("hint", [object, Any, dict[int, str], int | str, tuple[int, str], bytes, list[str] | None])
def test_types_without_a_column_are_refused(hint: Any) -> None:
    with pytest.raises(TypeError, match="no ClickHouse type"):
        clickhouse_type(hint)


async def test_every_type_goes_in_and_comes_back(either: Analytics) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    row = Visit(moment, "news", 3, 4, 0.5, True, Decimal("1.2345"), moment, date(2026, 1, 2), ["a", "b'\t"],
                {"EUR": Decimal("2.5")}, [moment], "b", Colour.RED, {"a": {"b": [1]}}, None)  # fmt: skip
    await migrate(either, [VISITS])

    ours = {"workspace": ["shop"], "key": ["shop/a:1"], "version": [1], "is_deleted": [0]}
    await either.insert("visits", ours | columns_from([row]))
    rows = await either.query("SELECT * FROM visits_list")

    known = {"workspace": "shop", "key": "shop/a:1", "person": "shop/a:1", "colour": "red"}
    assert rows == [msgspec.structs.asdict(row) | known]


async def test_rows_follow_their_person_and_the_newest_is_read(analytics: Analytics) -> None:
    await ensure_tables(analytics, [VISITS])
    at = [0, 0, 0, 5]
    await analytics.insert("visits", {
        "workspace": ["shop"] * 4, "key": ["shop/a:1", "shop/a:1", "shop/u:9", "shop/u:9"], "started_at": at,
        "pages": [1, 2, 7, 8], "version": [1, 2, 1, 1], "is_deleted": [0, 0, 0, 0],
    })  # fmt: skip
    await analytics.insert("visits", {"workspace": ["shop"], "key": ["shop/u:9"], "started_at": [5], "version": [2],
                                      "is_deleted": [1]})  # fmt: skip
    await analytics.insert("identities", {"workspace": ["shop"], "key": ["shop/a:1"], "person": ["shop/u:9"],
                                          "moves": [1]})  # fmt: skip

    rows = await analytics.query("SELECT person, key, pages FROM visits_list ORDER BY key")

    assert rows == [
        {"person": "shop/u:9", "key": "shop/a:1", "pages": 2},
        {"person": "shop/u:9", "key": "shop/u:9", "pages": 7},
    ]


async def test_a_new_field_becomes_a_column_of_the_table_and_the_view(analytics: Analytics) -> None:
    await ensure_tables(analytics, [table(str)])
    await analytics.insert("t", {"n": [1], "value": ["old"], "version": [1]})
    more = msgspec.defstruct("Row", [("n", int), ("value", str), ("extra", int | None), ("tags", list[str])])

    await ensure_tables(analytics, [Table("t", more, ("n",), "A table.")])
    await ensure_tables(analytics, [Table("t", more, ("n",), "A table.")])

    assert await analytics.query("SELECT n, value, extra, tags FROM t_list") == [
        {"n": 1, "value": "old", "extra": None, "tags": []}
    ]


async def test_a_type_or_a_key_that_changed_is_refused_with_the_mend(analytics: Analytics) -> None:
    await ensure_tables(analytics, [table(str)])

    with pytest.raises(TableRefused) as of_type:
        await ensure_tables(analytics, [table(int)])
    with pytest.raises(TableRefused) as of_key:
        await ensure_tables(analytics, [table(str, key=("n", "value"))])

    assert "column 'value' is String in ClickHouse, and Int64 in the processor" in str(of_type.value)
    assert "give the field another name" in str(of_type.value)
    assert "its key is (workspace, key, n) in ClickHouse" in str(of_key.value)


async def test_another_spelling_of_the_same_type_is_no_change(analytics: Analytics) -> None:
    for _ in range(2):
        await ensure_tables(analytics, [table(Annotated[Decimal, "Decimal64(4)"])])


@pytest.mark.parametrize("wrong", [
    table(str, name="events"), table(str, name="event"), table(str, name="Visits"), table(str, name="x; DROP"),
    table(str, name=""), table(str, field="key"), table(str, field="person"), table(str, field="Größe"), table(object),
    table(str, key=("nope",)), table(str | None, key=("value",)), table(list[str], key=("value",)),
    table(float, key=("value",)), table(str)._replace(days=1), table(str)._replace(days=1, since="value"),
    table(datetime | None)._replace(days=1, since="value"),
])  # fmt: skip
async def test_what_cannot_be_a_table_is_refused_before_anything_is_made(analytics: Analytics, wrong: Table) -> None:
    with pytest.raises(TableRefused):
        await ensure_tables(analytics, [wrong], reserved=frozenset({"events", "event_list"}))


async def test_rows_end_when_the_setting_says_so_and_a_setting_that_changed_counts(analytics: Analytics) -> None:
    kept = msgspec.defstruct("Row", [("n", int), ("at", datetime)])
    now_ms = time.time_ns() // 1_000_000
    for name, days in (("t", 2), ("before", 0)):  # one is made so, the other was there before it forgot anything
        await ensure_tables(analytics, [Table(name, kept, ("n",), "A table.", "at", days)])
        await analytics.insert(name, {"n": [1, 2, 3], "at": [now_ms - days * DAY_MS for days in (0, 1, 3)],
                                      "version": [1] * 3})  # fmt: skip
        await analytics.command(f"OPTIMIZE TABLE {name} FINAL")

    async def there(name: str) -> list[int]:
        await analytics.command(f"OPTIMIZE TABLE {name} FINAL")
        return [row["n"] for row in await analytics.query(f"SELECT n FROM {name}_list ORDER BY n")]

    assert (await there("t"), await there("before")) == ([1, 2], [1, 2, 3])
    for _ in range(2):
        await ensure_tables(analytics, [Table(name, kept, ("n",), "A table.", "at", 1) for name in ("t", "before")])
    assert (await there("t"), await there("before")) == ([1], [1])
    with capture_logs() as lines:
        await ensure_tables(analytics, [Table("t", kept, ("n",), "A table.", "at", 1)])
        await ensure_tables(analytics, [Table("t", kept, ("n",), "A table.", "at")])  # it is left as it is
        await ensure_tables(analytics, [Table("t", kept, ("n",), "A table.", "at", 30)])
    assert [(line["event"], line["days"]) for line in lines] == [("retention_changed", 30)]


def test_texts_are_quoted() -> None:
    sql = create_view(Table("t", table(str).row, ("n",), "It's a \\ table."))

    assert sql.endswith("COMMENT 'It\\'s a \\\\ table.'")
