"""`tidewire message …` of a running `up`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import is_one_line
from tests.cli.running import Up

pytestmark = pytest.mark.together

NOTE = """\
channel: email
kind: transactional
content: {en: {subject: "A note, {{ given.what | default('hello') }}", text: "Hello {{ profile.email }}"}}
"""
HURRIED = "tests.faults.hurried"  # what was being sent when it was killed is taken up again within seconds
OFFER = NOTE.replace("transactional", "marketing\ntopic: offers")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("messages")
    (folder / "config" / "templates").mkdir(parents=True)
    (folder / "config" / "templates" / "note.yaml").write_text(NOTE)
    (folder / "config" / "templates" / "offer.yaml").write_text(OFFER)
    event = '{"type": "identify", "userId": "ada", "traits": {"email": "ada@example.com"}}'
    (folder / "events.jsonl").write_text(event)
    running = Up(folder, program=HURRIED)
    assert running.ask("send", "events.jsonl").code == 0
    for _ in range(100):
        if running.ask("person", "ada@example.com").code == 0:
            break
    yield running
    running.stop()


def test_a_message_is_sent_listed_and_shown(up: Up) -> None:
    sent = up.ask("message", "send", "note", "--to", "ada@example.com", "--given", '{"what": "dear"}', "--wait", "30")
    id_ = sent.out.partition("(")[2].partition(")")[0]
    listed = up.ask("message", "list", "--person", "ada", "--json")
    shown = up.ask("message", "show", id_)

    assert (sent.code, sent.out.strip()) == (0, f"sent ({id_})"), sent.err
    assert id_ in {row["id"] for row in listed.rows}
    assert "state: sent" in shown.out and "subject: A note, dear" in shown.out
    assert shown.out.rstrip().endswith("Hello ada@example.com")


def test_why_somebody_got_a_message_is_told(up: Up) -> None:
    id_ = up.ask("message", "send", "note", "--to", "ada", "--wait", "30").out.partition("(")[2].partition(")")[0]
    told, as_json = up.ask("why", "ada@example.com", id_), up.ask("why", "ada", "note", "--json").json
    none = up.ask("why", "ada", "nothing")

    answer, line = told.out.splitlines()
    assert answer.startswith(f"note, message {id_}: it was sent at ")
    assert answer.endswith(" to ada@example.com by outbox.")
    assert "note was ordered for her at " in line and "by cli" in line
    assert as_json["kind"] == "template" and as_json["lines"][-1]["facts"] == {"message": id_}
    assert none.code == 1 and "There is no journey, no template and no message called nothing." in none.err


def test_what_is_not_sent_says_why_and_fails(up: Up) -> None:
    done = up.ask("message", "send", "offer", "--to", "ada", "--wait", "30")

    assert done.code == 1 and done.out.startswith("withheld: no_consent (")


def test_an_order_that_is_given_twice_is_one(up: Up) -> None:
    first, again = (up.ask("message", "send", "note", "--to", "ada", "--once", "x", "--json").json for _ in range(2))

    assert first["message"] == again["message"] and first["channel"] == "email"


def test_a_template_is_saved_by_commands_and_shown_in_all_its_versions(up: Up) -> None:
    changed = up.folder / "note.yaml"
    changed.write_text(NOTE.replace("Hello", "Dear"))

    saved = up.ask("templates", "apply", str(changed))
    again, files = up.ask("templates", "apply", str(changed)), up.ask("templates", "apply")
    versions = up.ask("templates", "versions", "note", "--json").rows
    listed = up.ask("templates", "list", "--json").rows
    changed.write_text("channel: fax\n")
    wrong = up.ask("templates", "apply", str(changed))

    assert (saved.out.strip(), again.out.strip(), files.out.strip()) == (*["note: version 2"] * 2, "nothing changed")
    assert [(row["version"], row["source"]) for row in versions] == [(2, "page"), (1, "file")]
    assert [(row["template"], row["version"]) for row in listed] == [("note", 2), ("offer", 1)]
    assert "Dear" in up.ask("templates", "show", "note").out
    assert up.ask("templates", "show", "note", "--version", "1").out == NOTE
    read = up.ask("templates", "preview", "note", "--to", "ada", "--version", "1")
    assert read.out.rstrip().endswith("Hello ada@example.com") and "subject: A note, hello" in read.out
    assert wrong.code == 1 and is_one_line(wrong.err) and "note.yaml:1" in wrong.err
    assert up.ask("templates", "show", "nope").code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("send", "nope", "--to", "ada"), 1, 'There is no template "nope"'),
        (("send", "note", "--to", "nobody"), 1, "There is nobody by the key"),
        (("send", "note", "--to", "ada", "--given", "[1]"), 1, "--given is no JSON object"),
        (("show", "nope"), 1, "There is no message 'nope'"),
        (("settle", "nope", "eaten"), 1, "'eaten' is no way to settle a message; there are: sent, failed, again."),
        (("list", "--state", "eaten"), 1, "There is no state 'eaten'; there are: waiting, sending, unknown, sent"),
    ],
)
def test_a_mistake_is_one_line(up: Up, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = up.ask("message", *arguments)

    assert done.code == code and is_one_line(done.err) and says in done.err


def test_what_ends_survives_a_kill(up: Up, tmp_path: Path) -> None:
    """Ordered, and killed at once: it is sent by the one that comes after, once."""
    ordered = [up.ask("message", "send", "note", "--to", "ada", "--once", str(number), "--json").json["message"]
               for number in range(3)]  # fmt: skip
    up.kill()
    again = Up(up.folder, program=HURRIED)
    try:
        for id_ in ordered:
            for _ in range(200):
                shown = again.ask("message", "show", id_, "--json")
                if shown.code == 0 and shown.json["state"] == "sent":
                    break
            assert shown.json["state"] == "sent", shown.out
        rows = again.count(f"SELECT count() FROM outbox FINAL WHERE id IN {tuple(ordered)!r}")
    finally:
        up.process = again.process

    assert rows == 3


def test_an_address_is_put_on_the_suppression_list_and_taken_off(up: Up) -> None:
    (up.folder / "old.txt").write_text("bob@example.com\n\nADA@example.com\n")
    added = up.ask("suppression", "add", "--file", "old.txt", "--why", "moved")
    withheld = up.ask("message", "send", "note", "--to", "ada", "--wait", "30")
    for _ in range(100):
        listed = up.ask("suppression", "list", "--json")
        if len(listed.rows) == 2:
            break
    released = up.ask("suppression", "release", "Ada@example.com")
    sent = up.ask("message", "send", "note", "--to", "ada", "--wait", "30")

    assert (added.code, added.out.strip()) == (0, "on the list: 2"), added.err
    assert withheld.out.startswith("withheld: blocked (")
    assert {(row["address"], row["reason"], row["why"], row["said_by"]) for row in listed.rows} == {
        ("ada@example.com", "blocked", "moved", "cli"), ("bob@example.com", "blocked", "moved", "cli")}  # fmt: skip
    assert (released.code, released.out.strip()) == (0, "off the list: ada@example.com")
    assert sent.out.startswith("sent (")


@pytest.mark.parametrize("arguments", [("add",), ("add", "--file", "none.txt"), ("add", "a b@c.d"),
                                       ("add", "a@b.c", "--channel", "fax")])  # fmt: skip
def test_what_cannot_be_put_on_the_list_is_said_in_one_line(up: Up, arguments: tuple[str, ...]) -> None:
    done = up.ask("suppression", *arguments)

    assert done.code == 1 and is_one_line(done.err)
