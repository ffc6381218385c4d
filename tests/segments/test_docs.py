"""docs/segments.md says what the code does: its examples are read, its tables are asked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from math import log10
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from config.segments import MOST_SEGMENTS, check_together, parse_segment, read_segments
from config.yaml_file import LARGEST_BYTES
from processors.answers import View
from processors.memories import MOST_KNOWN, MOST_OF_SEQUENCE, Memories
from processors.registry import load_processors
from processors.rules import Rules
from processors.selectors import LARGEST_AMOUNT, _room
from processors.values import LONGEST_TEXT, MOST_IN_LIST, zone_named
from schemas import conditions
from schemas.conditions import KINDS, Did, leaves_of, read_condition
from schemas.errors import ConfigError
from schemas.event import Event
from schemas.segments import Definition
from schemas.sentences import sentence_of
from schemas.times import from_ms, to_ms
from sinks.analytics import Analytics
from sinks.migrate import migrate
from streams.cli.app import app
from streams.proof import LOOKS, REST
from streams.stage import MOST_SWEPT

PAGE = (Path(__file__).parents[2] / "docs" / "segments.md").read_text(encoding="utf-8")
SAID = " ".join(PAGE.split())  # wherever its lines end
NOW_MS = to_ms(datetime(2026, 3, 2, 12, tzinfo=UTC))


def _name_of(text: str, number: int) -> str:
    named = re.match(r"# config/segments/(\w+)\.yaml\n", text)
    return named[1] if named else f"example_{number}"


EXAMPLES = {_name_of(text, number): text for number, text in
            enumerate(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))}  # fmt: skip
WRONG = re.findall(r"^```yaml wrong\n(.*?)^```\n\n(?:gets\n\n)?    (\S[^\n]*)\n", PAGE, re.M | re.S)


def table(under: str) -> list[list[str]]:
    """The rows of the table whose heads are these."""
    rows = PAGE.partition(f"| {under} |\n")[2].splitlines()[1:]
    assert rows, under
    end = next(place for place, row in enumerate(rows) if not row.startswith("|"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:end]]


def is_true(when: Any, *events: Event) -> bool:
    rules = Rules([Definition("it", read_condition(when))], zone_named("UTC"))
    memories = Memories()
    for event in events:
        rules.remember(memories, event)
    return bool(rules.judge(View(memories.of, lambda name: None, set(), NOW_MS), ["it"]))


def an_event(name: str, at_ms: int, **more: Any) -> Event:
    raw = {f"raw_{part}": msgspec.Raw(msgspec.json.encode(said)) for part, said in more.items()}
    kind = "identify" if "traits" in more else "track"
    return Event(message_id=f"{name}-{at_ms}", type=kind, workspace="w", source="web", timestamp=from_ms(at_ms),
                 received_at=from_ms(at_ms), user_id="ann", event=name if kind == "track" else "", **raw)  # fmt: skip


# --- examples


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_segment(name: str) -> None:
    definition = parse_segment(name, EXAMPLES[name])

    named = {other: parse_segment(other, text) for other, text in EXAMPLES.items() if "config/segments/" in text}
    check_together({**named, name: definition}, "segments")
    for language in ("en", "zh"):
        assert sentence_of(definition.when, language)


def test_every_kind_of_condition_and_test_has_an_example() -> None:
    found = [parse_segment(name, text).when for name, text in EXAMPLES.items()]
    leaves = [leaf for when in found for leaf in leaves_of(when)]

    assert {leaf.kind for leaf in leaves} | {"all", "any", "not"} == set(KINDS)
    said = {name for leaf in leaves if isinstance(leaf, Did) for name in leaf.model_fields_set}
    assert said == set(Did.model_fields) - {"at_most"}  # which stands in the table
    tests = [field.alias or name for name, field in conditions.Test.model_fields.items()]
    assert [name for name in tests if not re.search(rf"`{name}\b", PAGE)] == []


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said.split(":")[0] for _, said in WRONG])
def test_what_is_wrong_is_said_as_the_page_says(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config" / "segments"
    folder.mkdir(parents=True)
    (folder / "buyers.yaml").write_text(EXAMPLES["buyers"], encoding="utf-8")
    (folder / f"{_name_of(text, 0)}.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as refused:
        read_segments(Path("config"))

    assert str(refused.value) == said


def test_there_are_wrong_examples() -> None:
    assert len(WRONG) == 2 == PAGE.count("```yaml wrong")


def test_the_sentence_on_the_page_is_that_of_its_example() -> None:
    assert f"`buyers: {sentence_of(parse_segment('buyers', EXAMPLES['buyers']).when)}`" in PAGE


# --- what a test says of a value


@pytest.mark.parametrize(("sent", "asked", "answer"), table("sent | asked | true"))
def test_what_the_table_says_of_a_value_is_so(sent: str, asked: str, answer: str) -> None:
    test = yaml.safe_load(f"{{{asked.strip('`')}}}")
    said = {"other": 1} if sent == "*nothing*" else {"it": msgspec.json.decode(sent.strip("`"))}

    of_trait = is_true({"trait": "it", **test}, an_event("", NOW_MS - 1, traits=said))
    of_context = is_true({"context": "it", **test}, an_event("A", NOW_MS - 1, context=said))

    assert of_trait is of_context is (answer == "yes")
    if "within" not in test:
        where = [{"property": "it", **test}]
        assert is_true({"did": "A", "where": where}, an_event("A", NOW_MS - 1, properties=said)) is of_trait


@pytest.mark.parametrize(("sent", "paths"), [
    ({"products": [{"category": "a"}, {"category": "b"}]}, {"products.category": True, "products": False}),
    ({"products": [{"category": "b"}, 5]}, {"products.category": False, "products": True}),
    ({"products": [{"category": ["b"]}]}, {"products.category": False}),
    ({"products": {"category": "b"}}, {"products.category": True}),
    ({"products.category": "b"}, {"products.category": False}),
    ({"products": [*range(MOST_IN_LIST), "b"]}, {"products": True}),
])  # fmt: skip
def test_what_the_page_says_of_lists_and_paths_is_so(sent: Any, paths: dict[str, bool]) -> None:
    for path, exists in paths.items():
        event = an_event("A", NOW_MS - 1, properties=sent)
        assert is_true({"did": "A", "where": [{"property": path, "exists": True}]}, event) is exists, path


def test_so_much_of_a_list_and_of_a_text_is_looked_at() -> None:
    assert f"The first {MOST_IN_LIST} values are looked at" in SAID
    assert f"Of a text the first {LONGEST_TEXT:,} characters are looked at" in SAID
    many, long = [*("x" * MOST_IN_LIST), "b"], "x" * LONGEST_TEXT + "end"
    assert not is_true({"trait": "it", "is": "b"}, an_event("", NOW_MS, traits={"it": many}))
    assert not is_true({"trait": "it", "ends_with": "end"}, an_event("", NOW_MS, traits={"it": long}))


@pytest.mark.parametrize(("later", "stays"), [
    ({"other": 1}, True), ({"address": {"zip": 3000}}, False), ({"address": None}, False),
    ({"address": {"city": None}}, False), ({"address": "x"}, False),
])  # fmt: skip
def test_a_part_of_a_trait_stays_until_the_trait_is_said_again(later: Any, stays: bool) -> None:
    said = [an_event("", NOW_MS - 2, traits={"address": {"city": "Bern"}}), an_event("", NOW_MS - 1, traits=later)]

    for events in (said, said[::-1]):
        assert is_true({"trait": "address.city", "is": "Bern"}, *events) is stays


# --- events and time


@pytest.mark.parametrize(("did", "answer"), table("she did, at | `A`, then `B` within 2 hours, without `C`"))
def test_what_the_table_says_of_a_sequence_is_so(did: str, answer: str) -> None:
    events = []
    for each in did.split(", "):
        name, at = each.split()
        hour, minute = map(int, at.split(":"))
        events.append(an_event(name, NOW_MS - 12 * 3_600_000 + (hour * 60 + minute) * 60_000))
    steps = [{"did": "A"}, {"did": "B", "within": "2 hours", "without": {"did": "C"}}]

    assert is_true({"sequence": steps}, *events) is (answer == "yes")


@pytest.mark.parametrize(("when", "ago", "answer"), [
    ({"within": "2 hours"}, timedelta(hours=2), False),
    ({"within": "2 hours"}, timedelta(hours=2, milliseconds=-1), True),
    ({"which": "last", "longer_ago": "2 hours"}, timedelta(hours=2), True),
    ({"which": "last", "longer_ago": "2 hours"}, timedelta(hours=2, milliseconds=-1), False),
    ({"within": "1 calendar day"}, timedelta(hours=12), True),
    ({"within": "1 calendar day"}, timedelta(hours=12, milliseconds=1), False),
    ({"within": "3 calendar days"}, timedelta(days=2, hours=12), True),
    ({"within": "3 calendar days"}, timedelta(days=2, hours=12, milliseconds=1), False),
    ({"since": "2026-03-02"}, timedelta(hours=12), True),
    ({"since": "2026-03-02"}, timedelta(hours=12, milliseconds=1), False),
])  # fmt: skip
def test_the_edges_of_windows_are_where_the_page_says(when: Any, ago: timedelta, answer: bool) -> None:
    event = an_event("A", NOW_MS - round(ago / timedelta(milliseconds=1)))

    assert is_true({"did": "A", **when}, event) is answer


@pytest.mark.parametrize(("asked", "of_none"), [
    ({}, False), ({"at_least": 3}, False), ({"at_most": 3}, True), ({"exactly": 3}, False), ({"exactly": 0}, True),
    ({"total": {"of": "x", "at_least": 0}}, True), ({"total": {"of": "x", "at_least": 1}}, False),
    ({"total": {"of": "x", "less_than": 1}}, True), ({"total": {"of": "x", "less_than": 0}}, False),
    ({"which": "last", "longer_ago": "1 day"}, False), ({"which": "first", "within": "1 day"}, False),
])  # fmt: skip
def test_what_is_true_of_who_did_nothing(asked: Any, of_none: bool) -> None:
    assert is_true({"did": "A", **asked}) is of_none


# --- what is bounded


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    (most_wheres,) = [limit.max_length for limit in Did.model_fields["where"].metadata if hasattr(limit, "max_length")]
    rows = dict(table("of a condition | at most"))

    assert rows == {
        "nodes, levels": f"{conditions.MOST_NODES}, {conditions.DEEPEST}",
        "values of `one_of`, `none_of`": f"{conditions.MOST_VALUES:,}",
        "characters of a text, of a name or path": f"{conditions.LONGEST_TEXT}, {conditions.LONGEST_NAME}",
        "tests of one `where`": str(most_wheres), "steps of a sequence": "4",
        "a window": f"{conditions.LONGEST_WINDOW_DAYS:,} days",
        "a number": f"{round(log10(conditions.LARGEST_NUMBER))} digits",
        "segments in the folder, bytes of a file": f"{MOST_SEGMENTS:,}, {LARGEST_BYTES // 1024} kB",
    }  # fmt: skip


def test_what_is_remembered_is_as_the_page_says() -> None:
    rows = {row[0]: row[1:] for row in table("asked | remembered | beyond")}
    sizes = sorted({_room(times) for times in range(1, conditions.MOST_TIMES + 2)})

    assert rows["`did` with a count"][0].endswith(f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]:,}")
    assert rows["`total`"][0] == f"the newest {MOST_KNOWN:,}"
    assert rows["`sequence`"][0].startswith(f"the newest {MOST_OF_SEQUENCE} of all")
    assert rows["`trait`, `context`"][0].endswith(f"{MOST_IN_LIST} values of {LONGEST_TEXT:,} characters")
    assert f"beyond {LARGEST_AMOUNT:,}, counts as 0" in SAID
    assert f"{MOST_SWEPT} at a time" in SAID
    assert (LOOKS, REST) == (4, 19) and "up to four times" in SAID and "nineteen times" in SAID


def test_every_command_of_the_page_can_be_given_like_that() -> None:
    lines = re.findall(r"^    tidewire ([^#\n]+)", PAGE, re.M) + re.findall(r"`tidewire (segments [^`]+)`", PAGE)

    assert len(lines) > 8
    for line in lines:
        asked = CliRunner().invoke(app, [*line.split(), "--help"])
        assert asked.exit_code == 0, f"tidewire {line}: {asked.output}"


async def test_the_queries_of_the_page_can_be_asked(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S)
    analytics = Analytics(f"chdb:{tmp_path / 'clickhouse'}")
    await migrate(analytics, [table for each in load_processors(tmp_path) for table in each.tables])

    queries = [query for query in block.split(";") if query.strip()]
    found = [await analytics.query(query) for query in queries]
    await analytics.close()

    assert found == [[], []]


def test_every_link_of_the_page_leads_somewhere() -> None:
    headings = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
                for heading in re.findall(r"^#+ (.+)$", PAGE, re.M)}  # fmt: skip
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        assert not file or (Path(__file__).parents[2] / "docs" / file).exists(), target
        assert file or anchor in headings, target
