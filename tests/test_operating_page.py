"""docs/operating.md names only what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from config.settings import PREFIX, Settings
from streams.cli.app import app
from streams.kafka_address import MECHANISMS, OPTIONS, SECURITIES
from streams.metrics import METRICS
from tests.cli.command import tidewire
from tests.cli.running import Up

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")


def test_every_variable_of_the_page_is_a_setting() -> None:
    named = {name.removesuffix("_FILE").lower() for name in re.findall(rf"{PREFIX}([A-Z_]+[A-Z])\b", PAGE)}

    assert named
    assert named <= set(Settings.model_fields)


def test_every_command_of_the_page_can_be_given_like_that() -> None:
    lines = re.findall(r"^    (?:\w+=\S+ )*tidewire (.+)$", PAGE, re.MULTILINE)
    lines += [line for line in re.findall(r"`tidewire ([^`]+)`", PAGE) if "…" not in line]

    assert len(lines) > 8
    for line in lines:
        asked = CliRunner().invoke(app, [*line.split(), "--help"])
        assert asked.exit_code == 0, f"tidewire {line}: {asked.output}"


def test_every_option_of_the_kafka_url_is_on_the_page() -> None:
    section = PAGE.partition("### The way into Kafka")[2].partition("###")[0]

    assert [word for word in (*OPTIONS, *SECURITIES, *MECHANISMS) if f"`{word}`" not in section] == []


def test_every_file_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:deploy|tests|config)/[\w./-]*)`", PAGE)) | set(re.findall(r"\]\(([\w./-]+)\)", PAGE))

    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "docs" / name).exists()]
    assert missing == ["config/tidewire.yaml"]  # the reader's own


# --- alarms


def anchors() -> set[str]:
    """Of every heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alarm_has_its_section_and_leads_to_it() -> None:
    for rule in alerts():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / page).read_text() == PAGE
        assert anchor == rule["alert"].lower()
        assert anchor in anchors()


def test_every_section_of_an_alarm_says_what_to_do_and_no_other_is_there() -> None:
    part = PAGE.partition("## What each alarm means\n")[2].partition("\n## ")[0]

    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=\n### |\Z)", part, re.MULTILINE | re.DOTALL))

    assert list(sections) and set(sections) == {rule["alert"] for rule in alerts()}
    assert [name for name, text in sections.items() if "**Do:**" not in text] == []


def test_every_link_of_ours_into_the_page_leads_somewhere() -> None:
    links = set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    for other in (ROOT / "docs").glob("*.md"):
        links |= set(re.findall(r"\]\(operating\.md#([\w-]+)\)", other.read_text()))

    assert len(links) > 10
    assert links - anchors() == set()


def test_every_metric_of_the_page_is_reported() -> None:
    series = {name for metric in METRICS for name in (metric.name, *metric.series)}

    assert set(re.findall(r"\btidewire_[a-z_]+\b", PAGE)) <= series


# --- backup


def test_the_commands_of_backup_and_restore_do_what_they_say(tmp_path: Path) -> None:
    section = PAGE.partition("## Back up and restore\n")[2].partition("\n## ")[0]
    block = re.findall(r"^    tidewire (.+)$", section, re.MULTILINE)
    lines = [line.replace("/srv/", f"{tmp_path}/").replace("/mnt/", f"{tmp_path}/mnt/").split() for line in block]
    call = '{"type": "track", "event": "Signed Up", "userId": "u-17"}\n'
    sent = tidewire("send", "-", "--data", tmp_path / "tidewire", "--port", "0", stdin=call, cwd=tmp_path)
    assert sent.code == 0, sent.err

    *commands, start = lines
    for command in commands:
        done = tidewire(*command, cwd=tmp_path)
        assert done.code == 0, f"{command}: {done.err}"

    assert [command[0] for command in lines] == ["backup", "restore", "restore", "up"]
    up = Up(tmp_path, start[start.index("--data") + 1])
    try:
        assert up.count("SELECT count() AS n FROM event_log") == 1
    finally:
        up.stop()


def test_the_page_names_the_ports_that_are_published() -> None:
    published = set(re.findall(r"127\.0\.0\.1:(\d+):\d+", (ROOT / "docker-compose.yml").read_text()))

    named = set(re.findall(r"127\.0\.0\.1:(\d+)", PAGE))
    # ClickHouse, SMTP, and what Prometheus asks, which people do not open
    assert published - named == {"8123", "1025", "8090", "8091", "8092", "8093"}
