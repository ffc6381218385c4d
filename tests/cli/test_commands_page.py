"""docs/commands.md names every command and every option there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer

from streams.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
OF_TYPER = {"--help", "--install-completion", "--show-completion"}


def commands() -> Iterator[tuple[str, set[str]]]:
    """Every command with its options."""

    def walk(command, path: list[str]) -> Iterator[tuple[str, set[str]]]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, [*path, name])
            return
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        yield " ".join(path), options - OF_TYPER

    yield from walk(typer.main.get_command(app), [])


def test_every_command_is_on_the_page():
    missing = [name for name, _ in commands() if f"tidewire {name}" not in PAGE and f"**`{name}`**" not in PAGE]

    assert missing == []


def test_every_option_is_on_the_page_and_no_other():
    there = {option for _, options in commands() for option in options}

    named = set(re.findall(r"--[a-z][a-z-]*", PAGE)) - OF_TYPER

    assert there - named == set()
    assert named - there == set()
