"""docs/journeys.md and the README say what the code does: their examples are read, their numbers are asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from config.journeys import (
    MOST_JOURNEYS,
    check_journeys_together,
    mail_of,
    parse_journey,
    read_journeys,
    read_limits,
)
from config.segments import read_segments
from config.templates import read_templates
from config.yaml_file import LARGEST_BYTES
from processors.journeys import MOST_KEYS, MOST_ORDERED, MOST_RUNS
from schemas.errors import ConfigError
from schemas.journeys import (
    LONGEST_FACT,
    MOST_FACTS,
    MOST_STEPS,
    STEPS,
    Again,
    At,
    Enter,
    Goal,
    JourneyFile,
    Limits,
    Mail,
    SendStep,
    Status,
    kind_of,
)
from streams.cli.app import app
from streams.journey_turn import MOST_ENTRIES_AN_HOUR, MOST_STEPS_AT_ONCE
from streams.journeys import LARGEST_TOGETHER_BYTES

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
PAGE = (ROOT / "docs" / "journeys.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = " ".join(PAGE.split())
EXAMPLES = {f"example_{number}": text
            for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))}  # fmt: skip
(FIRST_ORDER,) = re.findall(r"`config/journeys/first_order\.yaml`:\n\n```yaml\n(.*?)^```", README, re.M | re.S)


@pytest.fixture(scope="module")
def mails() -> dict[str, Mail]:
    return {name: mail_of(each) for name, each in read_templates(CONFIG, "UTC").items()}


@pytest.mark.parametrize("text", [*EXAMPLES.values(), FIRST_ORDER], ids=[*EXAMPLES, "readme"])
def test_every_example_is_a_journey_that_can_be_live(text: str, mails: dict[str, Mail]) -> None:
    journey = parse_journey("example", text, CONFIG, "UTC")

    check_journeys_together({"example": journey}, read_segments(CONFIG), mails)


def test_every_step_and_key_has_an_example() -> None:
    read = [parse_journey("example", text, CONFIG, "UTC").said for text in EXAMPLES.values()]
    steps = [step for each in read for step in each.steps]

    assert {kind_of(step) for step in steps} | {"call"} == set(STEPS)
    assert {name for each in read for name in each.model_fields_set} >= set(JourneyFile.model_fields) - {
        "about", "priority"}  # fmt: skip
    sends = {name for step in steps if isinstance(step, SendStep) for name in step.model_fields_set}
    assert sends | {"then"} == set(SendStep.model_fields)
    for model in (Enter, Again, At, Goal):
        for field in model.model_fields:
            assert re.search(rf"\b{field}\b", PAGE), (model.__name__, field)


def test_the_wrong_example_is_refused_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((text, said),) = re.findall(r"^```yaml wrong\n(.*?)^```\n\ngets\n\n    (\S[^\n]*)\n", PAGE, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config" / "journeys"
    folder.mkdir(parents=True)
    (folder / "winback.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as refused:
        read_journeys(Path("config"), "UTC")

    assert str(refused.value) == said


def test_the_limits_of_the_page_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml limits\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "limits.yaml").write_text(text, encoding="utf-8")

    limits = read_limits(tmp_path)

    assert limits.model_fields_set == set(Limits.model_fields)
    assert {name for cap in limits.caps for name in cap.model_fields_set} == {"at_most", "within", "channel", "topic"}


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    rows = {cells[0].strip(): cells[1].strip() for line in PAGE.partition("## What is bounded")[2].splitlines()
            if line.startswith("| ") and (cells := line.strip("|").split("|"))}  # fmt: skip

    assert rows["journeys"] == (f"{MOST_JOURNEYS}, {LARGEST_BYTES // 1024} kB each and "
                                f"{LARGEST_TOGETHER_BYTES // 1024**2} MB together")  # fmt: skip
    assert rows["steps of a journey; cases of a `branch`; arms of a `split`; `exits`"].split("; ")[0] == str(MOST_STEPS)
    assert rows["journeys that one person is in at a time"] == str(MOST_RUNS)
    assert rows["entries of one person into one journey, in an hour of the clock"] == str(MOST_ENTRIES_AN_HOUR)
    assert rows["steps of one person at one moment"] == str(MOST_STEPS_AT_ONCE)
    assert rows["values of the event that a run keeps"] == f"{MOST_FACTS}, {LONGEST_FACT:,} bytes each"
    assert rows["values of `once_per` that are remembered, of one journey"] == f"{MOST_KEYS}, the newest"
    assert rows["messages that count for caps"] == f"{MOST_ORDERED}, the newest"


def test_every_journey_that_is_shipped_stands_on_the_page() -> None:
    table = PAGE.partition("## Shipped")[2]

    assert [name for name in read_journeys(CONFIG, "UTC") if f"`{name}`" not in table] == []


def test_every_way_to_steer_stands_on_the_page() -> None:
    for status in get_args(Status):
        word = {"live": "resume", "paused": "pause", "draining": "drain", "stopped": "stop"}[status]
        assert f"`tidewire journeys {word} NAME`" in PAGE


def test_every_command_of_the_page_can_be_given_like_that() -> None:
    found = re.findall(r"^    tidewire ((?:journeys|why) [^#\n]+)", PAGE + README, re.M)
    found += re.findall(r"`tidewire ((?:journeys|why) [^`]+)`", PAGE)

    assert len(found) > 15
    for line in found:
        asked = CliRunner().invoke(app, [*line.split(), "--help"])
        assert asked.exit_code == 0, f"tidewire {line}: {asked.output}"


@pytest.mark.parametrize("page", ["docs/journeys.md", "docs/decisions/0017-journeys-in-the-stage.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r"\]\(([^)]+)\)", file.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        linked = file.parent / name if name else file
        assert linked.exists(), target
        headings = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
                    for heading in re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)}  # fmt: skip
        assert not anchor or anchor in headings, target
