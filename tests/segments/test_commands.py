"""Segments as those who run a shop meet them: files, commands, people who come and go, and the proof."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import is_one_line, tidewire
from tests.cli.running import Up

BUYERS = """\
title: {en: Buyers, zh: 买家}
about: Bought twice in a year.
when: {did: Order Completed, at_least: 2, within: 365 days}
"""
OTHERS = "when: {not: {segment: buyers}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config" / "segments").mkdir(parents=True)
    write(tmp_path, "buyers", BUYERS)
    write(tmp_path, "others", OTHERS)
    return tmp_path


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    running = Up(folder)
    yield running
    running.stop()


def write(folder: Path, name: str, text: str) -> None:
    (folder / "config" / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")


def an_order(user: str, days_ago: float, number: int, **more: Any) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(days=days_ago)
    return {"type": "track", "event": "Order Completed", "userId": user, "messageId": f"{user}-{number}",
            "timestamp": at.isoformat(), **more,
            "properties": {"order_id": f"{user}-{number}", "total": 10.0 + number, "currency": "EUR"}}  # fmt: skip


def send(up: Up, events: list[dict[str, Any]]) -> None:
    file = up.folder / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, events)))
    before = up.count("SELECT count() FROM event_log")
    done = up.ask("send", str(file))
    assert done.code == 0, done.err
    until(lambda: up.count("SELECT count() FROM event_log") == before + len(events))


def until(is_so: Callable[[], Any], within_s: float = 60.0) -> None:
    until_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(1.0)  # a question is a process of its own


def members(up: Up, name: str) -> set[str]:
    found = up.ask("sql", f"SELECT key FROM memberships FINAL WHERE segment = '{name}'", "--json")
    return {row["key"].removeprefix("default/u:") for row in found.rows}


def proofs(up: Up) -> dict[str, tuple[int, int, int]]:
    found = up.ask("segments", "verify", "--json")
    assert found.code == 0, found.out + found.err
    return {row["segment"]: (row["members"], row["sql_members"], row["differences"]) for row in found.rows}


def test_from_the_file_to_the_proof(folder: Path, up: Up):
    until(lambda: all(row["is_live"] for row in up.ask("segments", "list", "--json").rows))
    send(up, [an_order("ann", 30, 1), an_order("ann", 3, 2), an_order("bob", 400, 1), an_order("bob", 2, 2)])

    assert proofs(up) == {"buyers": (1, 1, 0), "others": (1, 1, 0)}
    assert members(up, "buyers") == {"ann"}

    # Who never comes again is found when a segment is changed, and when one is new.
    write(folder, "buyers", BUYERS.replace("365 days", "500 days"))
    write(folder, "old", "when: {did: Order Completed, which: first, longer_ago: 300 days}\n")
    applied = up.ask("segments", "apply", "--json")
    assert applied.code == 0, applied.err
    assert [(each["name"], each["version"]) for each in applied.json] == [("buyers", 2), ("old", 1)]
    assert proofs(up) == {"buyers": (2, 2, 0), "others": (0, 0, 0), "old": (1, 1, 0)}

    # Why, in words and facts; and from the ledger, by which version.
    said = up.ask("segments", "why", "old", "bob")
    assert said.code == 0
    assert "default/u:bob is in old" in said.out
    assert up.ask("segments", "why", "old", "ann").code == 1
    caused = up.ask("sql", "SELECT person, facts.why::String AS why, facts.version::Int64 AS version FROM decision_log "
                    "WHERE kind = 'joined' AND about = 'buyers' ORDER BY at", "--json").rows  # fmt: skip
    assert [(row["person"], row["why"], row["version"]) for row in caused] == [
        ("default/u:ann", "event", 1), ("default/u:bob", "definition", 2)]  # fmt: skip

    # What is said of a person names her segments.
    assert {row["segment"] for row in up.ask("person", "bob", "--json").json["segments"]} == {"buyers", "old"}
    assert "old" in up.ask("person", "bob").out.partition("Segments")[2]

    # The page of commands: list, show.
    row = next(row for row in up.ask("segments", "list", "--json").rows if row["name"] == "buyers")
    assert (row["members"], row["joined_today"], row["left_today"], row["version"]) == (2, 2, 0, 2)
    shown = up.ask("segments", "show", "buyers")
    assert "Order Completed" in shown.out and "500 days" in shown.out

    # A file that goes takes its segment with it; not while another asks for it.
    (folder / "config" / "segments" / "buyers.yaml").unlink()
    refused = up.ask("segments", "apply")
    assert refused.code != 0 and is_one_line(refused.err)
    assert 'there is no segment "buyers"' in refused.err
    (folder / "config" / "segments" / "others.yaml").unlink()
    assert up.ask("segments", "apply").code == 0
    until(lambda: not members(up, "buyers"))
    assert set(proofs(up)) == {"old"}


def test_a_segment_is_tried_before_it_is_saved(folder: Path, up: Up):
    send(up, [an_order(f"u{number}", 5, number) for number in range(30)])
    until(lambda: up.count("SELECT count() FROM person_list WHERE orders = 1") == 30)
    file = folder / "tried.yaml"
    file.write_text("when: {did: Order Completed}\n")

    found = up.ask("segments", "preview", str(file), "--json").json

    assert found["people"] == 30
    assert len(found["sample"]) == 20
    assert found["sample"][0]["orders"] == 1
    assert "tried" not in up.ask("segments", "list").out


def test_a_worker_that_dies_while_a_segment_is_prepared_loses_nobody(folder: Path):
    up = Up(folder)
    send(up, [an_order(f"u{number}", 5, count) for number in range(200) for count in range(2)])
    write(folder, "buyers", BUYERS.replace("at_least: 2", "exactly: 2"))
    assert up.ask("segments", "apply").code == 0
    up.kill()

    up = Up(folder)
    try:
        assert proofs(up) == {"buyers": (200, 200, 0), "others": (0, 0, 0)}
    finally:
        up.stop()


def test_a_wrong_file_is_said_with_its_line(folder: Path):
    write(folder, "buyers", "title: {en: Buyers}\nwhen:\n  all:\n    - {did: A}\n    - {did: B, atleast: 2}\n")

    done = tidewire("segments", "check", cwd=folder)

    assert done.code == 2
    assert is_one_line(done.err)
    assert "buyers.yaml:5" in done.err and '"when.all.1.atleast"' in done.err


def test_a_stranger_can_check_the_three():
    done = tidewire("segments", "fuzz", "--cases", "60", "--seed", "5", "--json")

    assert done.code == 0, done.err
    assert (done.json["cases"], done.json["differences"]) == (60, 0)

    done = tidewire("segments", "fuzz", "--cases", "18", "--seed", "6")

    assert (done.code, done.out) == (0, "18 cases, 0 differences\n")
    assert re.fullmatch(r"\d+ of 18 cases\n", done.err)  # no terminal: now and then a line
