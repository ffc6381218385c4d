"""Journeys as those who run a shop meet them: files, commands, people who enter, stand still and leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from schemas.errors import TidewireError
from streams.access import Api, ApiRefused, find_running
from streams.cli.app import app
from tests.cli.running import Up

pytestmark = pytest.mark.together

TEMPLATE = "channel: email\nkind: transactional\ncontent: {en: {subject: Hello, text: Hello}}\n"
BUYERS = "when: {did: Order Completed}\n"
GREET = "enter: {broadcast: buyers}\nholdout: 0\nsteps:\n- {step: rest, wait: 7 days}\n- {step: hello, send: hello}\n"
TWICE = """\
enter: {event: {did: Signed Up}}
when: {did: Order Completed, at_least: 2, within: 365 days}
holdout: 0
goal: {did: Order Completed, within: 7 days}
steps:
- {step: rest, wait: 1 day}
"""


class Told(NamedTuple):
    code: int
    out: str
    error: BaseException | None

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def tidewire(*arguments: str | Path) -> Told:
    """A command in this process, which saves most of what it costs."""
    done = CliRunner().invoke(app, ["journeys", *map(str, arguments)])
    return Told(done.exit_code, done.stdout, done.exception)


def filled(folder: Path) -> Path:
    for name, text in (("templates/hello", TEMPLATE), ("segments/buyers", BUYERS), ("journeys/greet", GREET)):
        file = folder / "config" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


# --- check


def test_files_are_checked_without_anything_running(folder: Path) -> None:
    done, as_json = (tidewire("check", "--config", folder / "config", *more) for more in ((), ("--json",)))

    assert (done.code, done.out) == (0, "greet: by broadcast, 2 steps\n")
    assert as_json.rows == [{"journey": "greet", "steps": 2, "wrong": ""}]


def test_all_that_is_wrong_is_said_with_its_file_and_line(folder: Path) -> None:
    config = folder / "config"
    (config / "journeys" / "greet.yaml").write_text(GREET.replace("send: hello", "send: helo"))
    (config / "journeys" / "other.yaml").write_text(GREET.replace("wait: 7 days", "wait: 7 dys"))
    (config / "limits.yaml").write_text("cap: 3\n")

    done = tidewire("check", "--config", config)

    limits, greet, other = done.out.splitlines()
    assert done.code == 1
    assert limits.startswith(f"{config}/limits.yaml:1: ")
    assert greet.startswith(f'{config}/journeys/greet.yaml:5: step "hello"') and 'Did you mean "hello"?' in greet
    assert other.startswith(f'{config}/journeys/other.yaml:4: step "rest"')


def test_a_file_that_is_named_is_checked_alone(folder: Path) -> None:
    (folder / "config" / "journeys" / "other.yaml").write_text("enter: x\n")
    file = folder / "draft.yaml"
    file.write_text(GREET.replace("buyers", "bayers"))

    good = tidewire("check", folder / "config" / "journeys" / "greet.yaml", "--config", folder / "config")
    wrong = tidewire("check", file, "--config", folder / "config", "--json")

    assert (good.code, good.out) == (0, "greet: by broadcast, 2 steps\n")
    assert wrong.code == 1 and [row["journey"] for row in wrong.rows] == ["draft"]
    assert 'draft.yaml:1: "enter.broadcast": there is no segment "bayers"' in wrong.rows[0]["wrong"]


def test_what_is_wrong_beside_journeys_is_said_too_and_they_are_checked_as_far_as_they_can_be(folder: Path) -> None:
    (folder / "config" / "segments" / "buyers.yaml").write_text("when: {dit: x}\n")

    done = tidewire("check", "--config", folder / "config")

    wrong, greet = done.out.splitlines()
    assert done.code == 1 and "segments/buyers.yaml:1" in wrong and greet == "greet: by broadcast, 2 steps"


# --- of a running `up`


class Shop:
    """A running `up`, asked by commands and by its API."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.up, self.sent = folder, Up(folder), 0
        found = find_running(folder / "data")
        assert found is not None
        self.api = Api(found.url, found.token)

    def __call__(self, *arguments: str | Path) -> Told:
        return tidewire(*arguments, "--data", self.folder / "data", "--config", self.folder / "config")

    def line(self, name: str) -> dict[str, Any]:
        return next(each for each in self.api.get("/api/journeys")["journeys"] if each["journey"] == name)

    def sql(self, query: str) -> Any:
        return self.api.post("/api/sql", {"query": query})["rows"]

    def send(self, *events: tuple[str, str]) -> None:
        file, lines = self.folder / "events.jsonl", []
        for user, event in events:
            self.sent += 1
            lines.append(json.dumps({"type": "track", "userId": user, "event": event,
                                     "properties": {"order_id": str(self.sent), "total": 10}}))  # fmt: skip
        file.write_text("\n".join(lines))
        done = self.up.ask("send", str(file))
        assert done.code == 0, done.err

    def until(self, is_true: Callable[[], object], what: str) -> None:
        until_s = time.monotonic() + 60
        while not is_true():
            assert time.monotonic() < until_s, (what, self.api.get("/api/journeys"))
            time.sleep(0.1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(filled(tmp_path_factory.mktemp("shop")))
    yield shop
    shop.up.stop()


def test_people_are_asked_in_and_out_and_what_they_did_before_counts(shop: Shop) -> None:
    shop.send(("ada", "Order Completed"), ("ada", "Order Completed"), ("bob", "Order Completed"), ("cy", "Signed Up"))
    shop.until(lambda: shop.line("greet")["is_live"], "live")
    known = "SELECT count() AS n FROM memberships FINAL WHERE segment = 'buyers'"
    shop.until(lambda: shop.sql(known)[0]["n"] == 2, "buyers")

    # a broadcast, twice under one name
    first = shop("broadcast", "greet", "--id", "spring")
    shop.until(lambda: shop.line("greet")["inside"] == 2, "asked in")
    shop("broadcast", "greet", "--id", "spring")
    assert first.out == "greet: everybody in its segment is asked in, as greet@broadcast-spring.\n"

    # a journey whose condition asks for what was before
    (shop.folder / "config" / "journeys" / "twice.yaml").write_text(TWICE)
    differs, applied = shop("diff"), shop("apply", "--json")
    assert "+enter: {event: {did: Signed Up}}" in differs.out.splitlines()
    assert [(each["journey"], each["version"]) for each in json.loads(applied.out)] == [("twice", 1)]
    shop.until(lambda: shop.line("twice")["is_live"], "its past is known")
    shop.send(("ada", "Signed Up"), ("bob", "Signed Up"))
    shop.until(lambda: shop.line("twice")["entered"] == 1, "ada entered")
    refused = "SELECT recorded_for AS who, facts.why::String AS why FROM decisions WHERE kind = 'not_entered'"
    shop.until(lambda: shop.sql(refused) == [{"who": "default/u:bob", "why": "condition"}], "bob did not")
    shop.send(("ada", "Order Completed"))
    shop.until(lambda: shop.line("twice")["treated"]["goals"] == 1, "her goal")

    # versions
    (shop.folder / "greet.yaml").write_text(GREET.replace("7 days", "9 days"))
    saved = shop("apply", shop.folder / "greet.yaml")
    assert saved.out == "greet: version 2\n"
    assert [(row["version"], row["source"]) for row in shop("versions", "greet", "--json").rows] == [
        (2, "page"), (1, "file")]  # fmt: skip
    compared = shop("diff", "greet").out.splitlines()
    assert "-- {step: rest, wait: 7 days}" in compared and "+- {step: rest, wait: 9 days}" in compared
    assert shop("show", "greet", "--version", "1").out == GREET
    assert shop("diff").out == "nothing changed\n"
    assert shop("migrate", "greet").out == "greet: who is inside goes on by version 2.\n"
    moved = "SELECT countIf(definition = 2) AS n FROM journey_runs FINAL WHERE journey = 'greet'"
    shop.until(lambda: shop.sql(moved)[0]["n"] == 2, "moved")

    # steering
    assert shop("pause", "greet").out.startswith("greet is paused: nobody enters")
    paused = shop("broadcast", "greet")
    assert isinstance(paused.error, ApiRefused) and "Let it go on first" in str(paused.error)
    assert shop("resume", "greet", "--json").rows == [{"journey": "greet", "status": "live", "migrate_to": 2}]
    assert shop("drain", "greet").code == 0 and shop.line("greet")["inside"] == 2
    assert shop("stop", "greet").code == 0
    shop.until(lambda: shop.line("greet")["inside"] == 0, "all left")

    listed = shop("list")
    assert listed.code == 0 and "stopped" in listed.out and "1 (100.0 %)" in listed.out
    assert shop.line("greet")["entered"] == 2  # by the two broadcasts of one name each once
    assert shop("remove", "twice").out == "twice: taken out.\n"
    assert [row["journey"] for row in shop("list", "--json").rows] == ["greet"]
    assert shop("resume", "greet").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pause", "nope"), 'There is no journey "nope"'),
        (("show", "nope"), 'There is no journey "nope"'),
        (("versions", "nope"), 'There is no journey "nope"'),
        (("remove", "nope"), 'There is no journey "nope"'),
        (("migrate", "greet", "--to", "9"), 'Journey "greet" has no version 9'),
        (("show", "greet", "--version", "9"), 'There is no journey "greet" of version 9'),
        (("show", ""), "Name a journey"),
    ],
)
def test_what_there_is_not_is_said_to_be_missing(shop: Shop, arguments: tuple[str, ...], says: str) -> None:
    done = shop(*arguments)

    assert done.code == 1 and isinstance(done.error, TidewireError) and says in str(done.error)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("greet/status", {"status": "gone"}, 400, "one of live, paused, draining, stopped"),
        ("greet/migrate", {"to": "2"}, 400, "`to` must be the number of a version"),
        ("greet/broadcast", {"id": 2}, 400, "`id` must be a text"),
        ("greet/broadcast", {"id": "a b"}, 422, '"a b" cannot be the id of a broadcast'),
        ("greet", {"text": GREET}, 400, 'Send {"yaml": "enter: …"}'),
        ("greet", {"yaml": "enter: x"}, 422, "greet.yaml:1"),
        ("greet", {"yaml": f"about: mine\n{GREET}", "upon": 77}, 409, "meanwhile, not 77"),
        ("new", {"yaml": GREET}, 422, '"new" cannot be the name of a journey'),
    ],
)
def test_calls_that_are_wrong_say_what_is(shop: Shop, path: str, body: dict[str, Any], status: int, says: str) -> None:
    with pytest.raises(ApiRefused) as refused:
        shop.api.post(f"/api/journeys/{path}", body)

    assert (refused.value.status, says in str(refused.value)) == (status, True), str(refused.value)


def test_who_has_no_token_steers_nothing(shop: Shop) -> None:
    with pytest.raises(ApiRefused) as refused:
        Api(shop.api.url, "wrong").post("/api/journeys/greet/status", {"status": "stopped"})

    assert refused.value.status == 403
