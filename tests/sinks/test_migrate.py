"""Migrations, and the reference page made from what they make."""

import re
import shutil
from pathlib import Path

import pytest

from docs.analytics_reference import PAGE, page
from schemas.errors import TidewireError
from sinks.analytics import Analytics
from sinks.migrate import FOLDER, made_by, migrate, migrations


async def test_both_grounds_are_migrated_alike_and_a_second_time_changes_nothing(either: Analytics) -> None:
    first = await migrate(either)
    second = await migrate(either)
    names = await either.query_columns(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND NOT startsWith(name, '.') ORDER BY name"
    )

    assert first == [each.name for each in migrations()]
    assert second == []
    assert set(names["name"]) == made_by(migrations())


def test_numbers_have_no_gaps_and_no_doubles() -> None:
    numbers = [int(each.name[:4]) for each in migrations()]

    assert numbers == list(range(1, len(numbers) + 1))


async def test_each_can_be_applied_twice_because_a_crash_may_lose_the_note(analytics: Analytics) -> None:
    for each in migrations():
        await analytics.command(each.sql)
    await analytics.command("TRUNCATE TABLE migrations")

    again = await migrate(analytics)

    assert len(again) == len(migrations())


async def test_a_file_that_was_applied_may_not_change(analytics: Analytics, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder)
    changed = folder / "0002_identities.sql"
    changed.write_text(changed.read_text() + "-- more")

    with pytest.raises(TidewireError, match="0002_identities was changed after it was applied"):
        await migrate(analytics, folder=folder)


async def test_an_older_tidewire_does_not_touch_what_a_newer_one_made(analytics: Analytics, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder)
    newest = sorted(folder.glob("*.sql"))[-1]
    newest.unlink()

    with pytest.raises(TidewireError, match=f"has migration {newest.stem}, which this Tidewire does not know"):
        await migrate(analytics, folder=folder)


async def test_a_table_that_forgets_repeated_inserts_is_refused_with_the_mend(analytics: Analytics) -> None:
    await analytics.command("ALTER TABLE people MODIFY SETTING non_replicated_deduplication_window = 0")

    with pytest.raises(TidewireError, match=r"table people of chdb:.* Run there: ALTER TABLE people MODIFY") as refused:
        await migrate(analytics)

    await analytics.command(str(refused.value).partition("Run there: ")[2])
    assert await migrate(analytics) == []


async def test_a_new_file_is_applied_after_the_others(analytics: Analytics, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder)
    (folder / "9000_more.sql").write_text("CREATE TABLE IF NOT EXISTS more (n Int8) ENGINE = MergeTree ORDER BY n")

    assert await migrate(analytics, folder=folder) == ["9000_more"]
    assert await analytics.query("SELECT n FROM more") == []


async def test_every_column_and_every_view_says_what_it_is(analytics: Analytics) -> None:
    silent = await analytics.query_columns(
        "SELECT table || '.' || name AS place FROM system.columns WHERE database = currentDatabase() AND comment = ''"
    )
    tables = await analytics.query_columns(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = ''"
    )

    assert silent["place"] == []
    assert tables["name"] == []


async def test_a_table_that_keeps_every_row_it_is_given_is_refused(analytics: Analytics) -> None:
    await analytics.command("DROP TABLE rejected")
    await analytics.command("CREATE TABLE rejected (id String) ENGINE = MergeTree ORDER BY id COMMENT 'by hand'")

    with pytest.raises(TidewireError, match=r"table rejected of .* is a MergeTree, so what is inserted again"):
        await migrate(analytics)


def test_names_of_what_migrations_make_are_found() -> None:
    assert {"events", "event_log", "people", "person_list", "migrations"} <= made_by(migrations())
    assert all(re.match(r"[a-z_]+\Z", name) for name in made_by(migrations()))


async def test_the_reference_says_what_is_there(chdb: Analytics) -> None:
    assert await page(chdb) == PAGE.read_text(encoding="utf-8"), "run `python -m docs.analytics_reference`"


async def test_the_examples_of_the_page_run(analytics: Analytics) -> None:
    examples = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    statements = [sql for text in examples for sql in text.split(";") if sql.strip()]

    assert [await analytics.query(sql) for sql in statements] == [[]] * 3


async def test_every_view_is_written_on_the_page(analytics: Analytics) -> None:
    views = await analytics.query_columns(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    )
    written = PAGE.read_text(encoding="utf-8").partition("## Reference")[0]

    assert [name for name in views["name"] if f"`{name}`" not in written] == []
