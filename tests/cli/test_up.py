"""`tidewire up` and the commands that ask it; then the same questions to the folder it left."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.cli.command import environment, is_one_line, tidewire
from tests.cli.running import Up

pytestmark = pytest.mark.together

HISTORY = (
    "00001 19970101 1 11.77\n00002 19970112 1 12.00\n00002 19970112 5 77.00\n00003 19970102 2 20.76\n"
    "00003 19970330 2 0.10\n00003 19970402 2 0.20\n"
)
EVENTS = (
    {"type": "identify", "userId": "ann", "messageId": "i1", "traits": {"email": "Ann@Example.com", "name": "O'Ann"}},
    {"type": "track", "event": "Order Completed", "userId": "ann", "messageId": "bad",
     "properties": {"order_id": "neg", "total": -3}},
    {"type": "page", "userId": "null", "messageId": "nobody"},
    {"type": "page", "anonymousId": "visitor", "messageId": "p1", "name": "\x1b[31mRed <b>"},
)  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    (folder / "history.txt").write_text(HISTORY)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    running = Up(folder)
    try:
        assert running.ask("demo", "--once", "--file", "history.txt").code == 0
        assert running.ask("send", "events.jsonl").code == 0
        wait_for(running, "SELECT count() AS n FROM rejected_list", 2)
        wait_for(running, "SELECT count() AS n FROM event_log", 11)
        yield running
    finally:
        code, out = running.stop()
        assert (code, out) == (0, ""), (folder / "up.log").read_text()
        assert not (folder / "data" / "run.json").exists()


def wait_for(up: Up, query: str, count: int) -> None:
    for _ in range(60):
        found = up.ask("sql", query, "--json").json["n"]
        if found == count:
            return
        time.sleep(0.5)
    raise AssertionError(f"{query}: {found}, not {count}")


def test_it_tells_its_address_to_its_owner_alone(up):
    file = up.folder / "data" / "run.json"

    found = json.loads(file.read_text())

    assert found["pid"] == up.process.pid
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"Tidewire is up: {found['url']}" in (up.folder / "up.log").read_text()


def test_sql_prints_one_object_a_row(up):
    done = up.ask("sql", "--json", "SELECT revenue, timestamp, order_id FROM event_log WHERE user_id = '00003' "
                  "AND event = 'Order Completed' ORDER BY timestamp")  # fmt: skip

    rows = [json.loads(line, parse_float=Decimal) for line in done.out.splitlines()]
    assert [row["revenue"] for row in rows] == [Decimal("20.76"), Decimal("0.10"), Decimal("0.20")]
    assert rows[0]["timestamp"] == "1997-01-02T12:00:00Z"
    assert rows[0]["order_id"] == "cdnow-4"


def test_sql_is_a_table_for_people(up):
    done = up.ask("sql", "SELECT event, count() AS count FROM event_log GROUP BY event ORDER BY count DESC, event")

    assert "Order Completed" in done.out
    assert done.out.splitlines()[-1] == "3 rows"


def test_sql_reads_its_query_from_standard_input(up):
    assert tidewire("sql", "-", "--json", "--data", "data", cwd=up.folder, stdin="SELECT 1 AS one").json == {"one": 1}


@pytest.mark.parametrize("query", ["SELEC 1", "DROP TABLE events", "SELECT * FROM nowhere", "SELECT 1; SELECT 2"])
def test_a_query_that_cannot_be_answered_is_one_line(up, query):
    done = up.ask("sql", query)

    assert done.code == 1
    assert is_one_line(done.err)


@pytest.mark.parametrize("key", ["default/u:ann", "ann", "ann@example.com", "ANN@EXAMPLE.COM"])
def test_a_person_is_found_by_key_id_or_address(up, key):
    done = up.ask("person", key, "--json")

    assert done.json["person"] == "default/u:ann"
    assert done.json["portrait"]["email"].lower() == "ann@example.com"


def test_a_person_is_told_in_lines_and_what_events_say_cannot_drive_the_terminal(up):
    ann, visitor = up.ask("person", "ann"), up.ask("person", "visitor")

    assert "default/u:ann" in ann.out
    assert "O'Ann" in ann.out
    assert "\x1b" not in visitor.out
    assert "default/a:visitor" in visitor.out


@pytest.mark.parametrize("key", ["nobody", "no'body@example.com", "x\\", "default/u:nobody"])
def test_nobody_is_one_line_and_exit_code_one(up, key):
    done = up.ask("person", key)

    assert done.code == 1
    assert is_one_line(done.err)
    assert "nobody by the key" in done.err


def test_what_was_refused_is_listed_shown_mended_and_sent_again(up):
    listed = {row["refused_by"]: row for row in up.ask("rejected", "list", "--json").rows}
    assert listed.keys() == {"collector", "stage"}
    bad = listed["stage"]
    told = up.ask("rejected", "list")
    assert bad["reason"][:20] in told.out

    shown = up.ask("rejected", "show", bad["id"], "--json").json
    assert (shown["field"], shown["value"]) == ("properties.total", "-3")
    again = up.ask("rejected", "redrive", bad["id"])
    assert again.code == 1
    assert "refused again" in again.err

    event = json.loads(up.ask("rejected", "show", bad["id"], "--body").out)
    event["properties"]["total"] = 3
    (up.folder / "mended.json").write_text(json.dumps(event))
    mended = up.ask("rejected", "redrive", bad["id"], "--file", "mended.json", "--json")
    assert mended.json["sent"] == 1

    wait_for(up, "SELECT count() AS n FROM orders FINAL WHERE order_id = 'neg' AND revenue = 3", 1)
    wait_for(up, "SELECT count() AS n FROM decision_log WHERE processor = 'redrive'", 1)
    assert [row["id"] for row in up.ask("rejected", "list", "--json").rows] == [listed["collector"]["id"]]
    assert up.ask("rejected", "show", "no-such-id").code == 1


def test_the_doctor_asks_the_running_process(up):
    done = up.ask("doctor", "--json")

    findings = {finding["name"]: finding for finding in done.json}
    assert done.code == 0, done.out
    assert str(up.process.pid) in findings["process"]["what"]
    assert findings["analytics"]["what"].startswith("ClickHouse ")
    assert findings["lag of processors"]["what"] == "0 records"


@pytest.mark.parametrize("command", [("up", "--port", "0"), ("worker", "--port", "0")])
def test_a_second_process_in_the_folder_is_refused_with_the_number_of_the_first(up, command):
    done = up.ask(*command)

    assert done.code == 3
    assert is_one_line(done.err)
    assert f"is open in process {up.process.pid}" in done.err


def test_a_port_that_is_taken_is_one_line(up, tmp_path):
    port = json.loads((up.folder / "data" / "run.json").read_text())["url"].rpartition(":")[2]

    done = tidewire("up", "--data", tmp_path, "--port", port, cwd=tmp_path)

    assert done.code == 3
    assert is_one_line(done.err)
    assert port in done.err
    assert "--port" in done.err


def test_the_demo_again_changes_no_number(up):
    runs = [up.ask("demo", "--once", "--json", "--file", "history.txt").json for _ in range(2)]

    for run in runs:
        assert run.pop("seconds") > 0
    assert runs[0] == runs[1]
    assert runs[0]["events"] in (11, 12)  # 12 once the refused one was mended


# --- demo with a Tidewire of its own, and the folder it leaves


def test_the_demo_alone_counts_exactly_and_leaves_a_folder_that_can_be_asked(tmp_path):
    (tmp_path / "history.txt").write_text(HISTORY)
    options = ("demo", "--once", "--json", "--data", "data", "--port", "0", "--file", "history.txt")

    runs = [tidewire(*options, cwd=tmp_path, timeout_s=120) for _ in range(2)]

    for run in runs:
        assert run.code == 0, run.err
        counts = json.loads(run.out, parse_float=Decimal)
        assert run.out.count("\n") == 1
        assert counts.pop("seconds") >= 0
        assert counts.pop("rows") > 15
        assert counts == {"events": 9, "people": 3, "orders": 6, "revenue": Decimal("121.83"), "rejected": 0}
    assert runs[0].json["rows"] == runs[1].json["rows"]
    assert not (tmp_path / "data" / "run.json").exists()

    asked = tidewire(
        "sql", "SELECT sum(revenue) AS revenue FROM orders FINAL", "--json", "--data", "data", cwd=tmp_path
    )
    person = tidewire("person", "00003", "--json", "--data", "data", cwd=tmp_path)
    rejected = tidewire("rejected", "list", "--data", "data", cwd=tmp_path)

    assert json.loads(asked.out, parse_float=Decimal) == {"revenue": Decimal("121.83")}
    assert person.json["portrait"]["orders"] == 3
    assert rejected.out == "nothing was rejected\n"


def test_the_demo_leaves_the_pages_up_until_it_is_stopped(tmp_path):
    (tmp_path / "history.txt").write_text(HISTORY)
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "demo", "--data", "data", "--port", "0", "--file", "history.txt"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        said = next(line for line in lines if "events sent" in line)
        counts = tidewire("sql", "SELECT count() AS n FROM event_log", "--json", "--data", "data", cwd=tmp_path)
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)

    assert said.startswith("9 events sent. The dashboard: http://127.0.0.1:")
    assert counts.code == 0
    assert (process.returncode, out) == (0, "")


def test_a_demo_that_is_interrupted_says_so_and_can_be_run_again(tmp_path):
    lines = "".join(f"{n:05d} 19970101 1 1.00\n" for n in range(1, 30_000))
    (tmp_path / "history.txt").write_text(lines)
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "demo", "--once", "--data", "data", "--port", "0", "--file",
         "history.txt"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(600):
        if (tmp_path / "data" / "run.json").exists():
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert out == ""
    assert err.splitlines()[-1] == "tidewire: Tidewire was stopped before everything was through."
    assert "Traceback" not in err
