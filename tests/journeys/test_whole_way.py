"""The whole way on one process: a file becomes a journey, somebody signs up over HTTP, the mail that she is sent stands
in the outbox, and the ledger says why; also when the process is killed while she waits, and the file was changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from streams.access import Api, find_running
from streams.cli.app import app
from tests.cli.running import Up
from tests.faults.hurried import MINUTE
from tests.faults.machine import WRITE_KEY

pytestmark = pytest.mark.together

WELCOME = """\
enter: {event: {did: Signed Up}}
holdout: 0
goal: {did: Order Completed, within: 1 hour, value: total}
steps:
  - {step: hello, send: hello}
  - {step: rest, wait: 12 minutes}
  - {step: offer, send: offer}
"""
TEMPLATES = {
    "hello": """\
channel: email
kind: marketing
topic: letters
content: {en: {subject: "Hello {{ profile.name }}", text: "Good to have you."}}
""",
    "offer": """\
channel: email
kind: marketing
topic: letters
content: {en: {subject: "For {{ profile.name }}", text: "Ten percent."}}
""",
}
SECOND_MS = 1_000  # so long a minute takes


class Shop:
    """An `up` whose minutes are seconds, asked over HTTP and by commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("journeys/welcome", WELCOME)
        for name, text in TEMPLATES.items():
            self.write(f"templates/{name}", text)
        self.start()

    def write(self, name: str, text: str) -> None:
        file = self.folder / "config" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def start(self) -> None:
        self.up = Up(self.folder, program="tests.faults.hurried", **{
            MINUTE: str(SECOND_MS), "TIDEWIRE_WRITE_KEYS": WRITE_KEY})  # fmt: skip
        found = find_running(self.folder / "data")
        assert found is not None
        self.api = Api(found.url, found.token)

    def call(self, type_: str, user: str, event: str = "", **more: Any) -> str:
        """An event over HTTP; its message id."""
        id_ = f"{user}-{type_}-{event}"
        body = {"type": type_, "userId": user, "messageId": id_, **({"event": event} if event else {}), **more}
        httpx.post(f"{self.up.url}/v1/batch", json={"batch": [body]}, auth=(WRITE_KEY, ""), trust_env=False,
                   timeout=20).raise_for_status()  # fmt: skip
        return id_

    def sign_up(self, user: str, *, consents: bool = True) -> str:
        traits = {"email": f"{user}@example.com", "name": user.title(), "consent": {"letters": consents}}
        self.call("identify", user, traits=traits)
        return self.call("track", user, "Signed Up")

    def sql(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.api.post("/api/sql", {"query": query})["rows"]
        return rows

    def lines(self, user: str) -> list[dict[str, Any]]:
        return self.sql("SELECT kind, at, facts FROM decision_log WHERE processor = 'journeys' AND "
                        f"recorded_for = 'default/u:{user}' ORDER BY at, id")  # fmt: skip

    def mails(self, user: str) -> list[str]:
        return [row["subject"] for row in self.sql(
            f"SELECT subject FROM outbox_list WHERE person = 'default/u:{user}' ORDER BY kept_at")]  # fmt: skip

    def until(self, is_true: Callable[[], object], within_s: float = 30.0) -> None:
        by = time.monotonic() + within_s
        while not is_true():
            assert time.monotonic() < by, (self.folder / "up.log").read_text()[-3000:]
            time.sleep(0.1)

    def until_in_force(self, version: int, status: str = "live") -> None:
        """All partitions were told."""
        self.until(lambda: [(each["version"], each["status"]) for each in self.api.get("/api/journeys")["journeys"]
                            if each["is_live"]] == [(version, status)])  # fmt: skip

    def tidewire(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--data", str(self.folder / "data")])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("welcome"))
    yield shop
    shop.up.stop()


def test_who_signs_up_is_written_to_once_by_the_version_she_began_with_whatever_is_killed(shop: Shop) -> None:
    shop.until_in_force(1)
    ada = shop.sign_up("ada")
    shop.sign_up("eve", consents=False)
    shop.until(lambda: shop.mails("ada") == ["Hello Ada"])

    # while she waits, the file is changed and the process dies
    shop.write("journeys/welcome", WELCOME.replace("12 minutes", "50 minutes"))
    shop.up.kill()
    shop.start()
    shop.until_in_force(2)
    bob = shop.sign_up("bob")
    shop.until(lambda: shop.mails("ada") == ["Hello Ada", "For Ada"])
    shop.until(lambda: any(line["kind"] == "proposed" for line in shop.lines("bob")))
    ordered = time.time()
    shop.call("track", "bob", "Order Completed", properties={"order_id": "1", "total": 40})
    shop.until(lambda: any(line["kind"] == "left" for line in shop.lines("bob")))

    told = {user: shop.lines(user) for user in ("ada", "bob", "eve")}
    assert [line["kind"] for line in told["ada"]] == ["entered", "proposed", "waits", "woke", "proposed", "left"]
    assert [line["kind"] for line in told["bob"]] == ["entered", "proposed", "waits", "goal", "left"]
    assert [line["kind"] for line in told["eve"]][:2] == ["entered", "refused"]
    assert told["eve"][1]["facts"]["why"] == "no_consent" and shop.mails("eve") == []
    assert {user: {int(line["facts"]["version"]) for line in lines} for user, lines in told.items()} == {
        "ada": {1}, "bob": {2}, "eve": {1}}  # fmt: skip
    assert [told[user][0]["facts"]["message_id"] for user in ("ada", "bob")] == [ada, bob]
    assert (told["bob"][3]["facts"]["value"], told["bob"][4]["facts"]["why"]) == (40, "goal")
    assert abs(_seconds(told["bob"][4]["at"]) - ordered) < 5.0

    waits, woke = (told["ada"][at] for at in (2, 3))
    assert waits["facts"]["due"] == woke["facts"]["due"]
    assert _seconds(woke["at"]) >= _seconds(woke["facts"]["due"]) == _seconds(told["ada"][0]["at"]) + 12


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


def test_the_ledger_says_why_in_plain_words(shop: Shop) -> None:
    (mail,) = shop.sql("SELECT id, ordered_by, state FROM messages_list WHERE template = 'offer'")

    ada, eve = (shop.tidewire("why", who, "welcome").splitlines() for who in ("ada", "eve@example.com"))
    of_mail = shop.tidewire("why", "ada", mail["id"]).splitlines()

    assert (mail["ordered_by"], mail["state"]) == ("journey welcome", "sent")
    assert ada[0].startswith("She entered welcome at ") and ada[0].endswith("She came to the end.")
    assert "She entered welcome (version 1) by event Signed Up." in ada[1]
    assert "Step rest: what was due at " in ada[4]
    assert "hello was refused: she has not consented to letters on E-mail." in eve[2]
    assert of_mail[0].startswith(f"offer, message {mail['id']}: it was sent at ")
    assert "hello was proposed for E-mail and allowed" in of_mail[2] and "it was sent at " in of_mail[2]


def test_a_journey_that_is_paused_holds_who_is_inside_until_it_goes_on(shop: Shop) -> None:
    cy = shop.sign_up("cy")
    shop.until(lambda: shop.mails("cy") == ["Hello Cy"])

    shop.tidewire("journeys", "pause", "welcome")
    shop.until_in_force(2, "paused")
    shop.sign_up("dan")
    shop.until(lambda: shop.lines("dan"))
    (refused,) = shop.lines("dan")
    shop.tidewire("journeys", "stop", "welcome")
    shop.until(lambda: shop.lines("cy")[-1]["kind"] == "left")

    assert (refused["kind"], refused["facts"]["why"]) == ("not_entered", "paused")
    left = shop.lines("cy")
    assert [line["kind"] for line in left] == ["entered", "proposed", "waits", "left"]
    assert (left[0]["facts"]["message_id"], left[-1]["facts"]["why"]) == (cy, "stopped")
