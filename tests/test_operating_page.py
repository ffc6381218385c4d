"""docs/operating.md names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from config.settings import PREFIX, Settings
from streams.cli.app import app
from streams.kafka_address import MECHANISMS, OPTIONS, SECURITIES

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


def test_the_page_names_the_ports_that_are_published() -> None:
    published = set(re.findall(r"127\.0\.0\.1:(\d+):\d+", (ROOT / "docker-compose.yml").read_text()))

    named = set(re.findall(r"127\.0\.0\.1:(\d+)", PAGE))
    assert published - named == {"8123", "1025"}  # ClickHouse and SMTP, which people do not open
