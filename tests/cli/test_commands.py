"""The command line: fast help, one clear line for every mistake, stated exit codes, JSON that programs can read."""

from __future__ import annotations

import errno
import json
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigError, Refused, TidewireError, Unreachable
from schemas.topics import TOPICS
from streams.cli import explain
from tests.cli.command import environment, is_one_line, tidewire

HEAVY = ("chdb", "pandas", "numpy", "pyarrow", "river", "faust", "mode", "aiokafka", "kafka", "rocksdict", "scipy",
         "clickhouse_connect", "aiohttp", "starlette", "uvicorn", "jinja2", "rich", "msgspec")  # fmt: skip


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("demo", "--help"), ("rejected", "--help")])
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys\nfrom streams.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True
    )

    assert "tidewire" in done.stdout
    assert done.stdout.splitlines()[-1] == "IMPORTED []"


def test_help_answers_at_once():
    """Three tenths of a second is the promise; in processor time, because machines that test are busy."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert tidewire("--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(took) < 0.3


def test_every_command_has_help():
    groups = {
        "": ["up", "demo", "simulate", "send", "collector", "worker", "sink", "sender", "dashboard", "sql", "person",
             "doctor", "backup", "restore"],
        "message": ["send", "list", "show", "settle"],
        "rejected": ["list", "show", "redrive"],
        "processors": ["list", "check", "new"],
        "partitions": ["list", "go-on"],
        "topics": ["create", "check"],
        "keys": ["new", "list"],
        "config": ["show"],
    }
    program = "import sys\nfrom typer.testing import CliRunner\nfrom streams.cli.app import app\n" + "\n".join(
        f"r = CliRunner().invoke(app, {[*group.split(), command, '--help']!r}); assert r.exit_code == 0, r.output; "
        f"assert 'Usage' in r.output"
        for group, commands in groups.items()
        for command in commands
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_codes_stand_in_the_help():
    help_text = tidewire("--help").out

    for code in ("0 done", "2 wrong command or configuration", "3 not reachable", "130 interrupted"):
        assert code in help_text


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("up", "--port", "99999"), 2, "--port: "),
        (("up", "--log", "carrier-pigeon:x"), 2, "names no log"),
        (("demo", "--file", "nowhere.txt"), 1, "nowhere.txt cannot be read: No such file"),
        (("send", "nowhere.jsonl"), 1, "nowhere.jsonl cannot be read: No such file"),
        (("send", "people.csv"), 1, "people.csv is not a file of JSON lines"),
        (("sql", " "), 2, "the query is empty"),
        (("sql", "SELECT 1"), 1, "There is no data in data/clickhouse. Start with `tidewire demo`"),
        (("person", "42"), 1, "There is no data in data/clickhouse"),
        (("rejected", "list"), 1, "There is no data in data/clickhouse"),
        (("processors", "check", "nonesuch"), 2, "there is no processor 'nonesuch'. Processors are: "),
        (("processors", "new", "Bad Name"), 2, "'Bad Name' is no name of a processor"),
        (("processors", "new", "class"), 2, "'class' is no name"),
        (("processors", "new", "tickets"), 2, "there is no folder processors/ here"),
        (("keys", "new", "Bad Name"), 2, "use lower case letters"),
        (("topics", "check"), 2, "Topic 'events' does not exist."),
        (("topics", "check", "--log", "embedded:/proc/none/log.db"), 1, "/proc/none"),
        (("sql", "SELECT 1", "--analytics", "clickhouse://127.0.0.1:9"), 3, "127.0.0.1:9"),
        (("sql", "SELECT 1", "--analytics", "mysql://x"), 2, "is no address of ClickHouse"),
        (("demo", "--url", "http://127.0.0.1:9"), 2, "--url: another collector needs a write key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_with_its_exit_code(tmp_path, arguments, code, says):
    if arguments[0] == "demo" and "--file" not in arguments:
        arguments = (*arguments, "--file", str(history(tmp_path)))

    done = tidewire(*arguments, cwd=tmp_path)

    assert done.code == code, done.err
    assert is_one_line(done.err), done.err
    assert says in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nonesuch",), "No such command"),
        (("simulate", "--rate", "5", "--fast"), "--rate and --fast exclude each other"),
        (("simulate", "--people", "0"), "--people"),
        (("demo", "--json"), "--json goes with --once"),
        (("simulate", "--end", "yesterday"), "--end"),
        (("rejected", "redrive"), "Name what to send again"),
        (("rejected", "redrive", "x", "--all"), "Name what to send again"),
        (("rejected", "redrive", "--all", "--file", "x"), "--file goes with an ID"),
        (("rejected", "list", "--state", "lost"), "--state is open, mended or all"),
        (("keys", "new", "web", "--kind", "secret"), "--kind is public, server or any"),
    ],
)
def test_a_wrong_command_ends_with_two_and_no_traceback(tmp_path, arguments, says):
    done = tidewire(*arguments, cwd=tmp_path)

    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_bad_config_file_is_named_with_its_line(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tidewire.yaml").write_text("# ours\nport: 8088\npartitions: many\n")

    done = tidewire("config", "show", cwd=tmp_path)

    assert done.code == 2
    assert is_one_line(done.err)
    assert 'config/tidewire.yaml, line 3, "partitions": ' in done.err
    assert "got many" in done.err


def test_a_broker_that_does_not_answer_is_one_line(tmp_path):
    done = tidewire("topics", "check", "--log", "kafka://127.0.0.1:9", cwd=tmp_path)

    assert done.code == 3
    assert is_one_line(done.err), done.err
    assert "127.0.0.1:9" in done.err


def test_a_log_that_another_process_holds_is_named_with_its_process(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import asyncio\nfrom streams.embedded import EmbeddedLog\n"
         "async def hold():\n    await EmbeddedLog('data/log.db').start()\n    print('held', flush=True)\n"
         "    await asyncio.sleep(60)\nasyncio.run(hold())"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        done = tidewire("topics", "create", cwd=tmp_path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()

    assert done.code == 3
    assert is_one_line(done.err)
    assert f"is open in process {holder.pid}" in done.err


def test_the_traceback_comes_when_asked_for(tmp_path):
    done = tidewire("topics", "check", cwd=tmp_path, TIDEWIRE_DEBUG="1")

    assert "Traceback" in done.err
    assert "ConfigError" in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x", "y"), 2),
        (Unreachable("x"), 3),
        (Refused("x"), 1),
        (TidewireError("two\nlines"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(errno.EADDRINUSE, "in use"), 3),
        (OSError(errno.ENOSPC, "full"), 1),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), 1),
        (ExceptionGroup("g", [ExceptionGroup("h", [Unreachable("x")])]), 3),
        (ZeroDivisionError("a bug"), 1),
    ],
)
def test_every_error_has_its_exit_code_and_at_most_one_line(error, code):
    found, line = explain(error)

    assert found == code
    assert "\n" not in line


def test_a_reader_that_goes_away_gets_no_complaint(tmp_path):
    command = f"{sys.executable} -m streams.cli simulate --people 50 --days 20 --out - | head -c 10"

    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False
    )

    assert done.stdout
    assert done.stderr == ""


# --- settings


def test_config_show_says_where_each_value_came_from(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "tidewire.yaml").write_text("partitions: 8\n")

    done = tidewire("config", "show", "--json", "--config", "conf", "--port", "1234", cwd=tmp_path,
                    TIDEWIRE_WRITE_KEYS="very-secret", TIDEWIRE_HOST="127.0.0.2")  # fmt: skip

    shown = done.json
    assert shown["partitions"] == {"value": 8, "from": 'conf/tidewire.yaml, line 1, "partitions"'}
    assert shown["port"] == {"value": 1234, "from": "--port"}
    assert shown["host"] == {"value": "127.0.0.2", "from": "TIDEWIRE_HOST"}
    assert shown["log"] == {"value": "embedded:data/log.db", "from": "default"}
    assert shown["write_keys"] == {"value": "(set)", "from": "TIDEWIRE_WRITE_KEYS"}
    assert "very-secret" not in done.out


def test_config_show_is_a_table_for_people(tmp_path):
    done = tidewire("config", "show", cwd=tmp_path, TIDEWIRE_PORT="9")

    assert any(line.split()[:3] == ["port", "9", "TIDEWIRE_PORT"] for line in done.out.splitlines())


# --- topics


def test_topics_are_created_once_and_then_right(tmp_path):
    made = tidewire("topics", "create", "--json", cwd=tmp_path, TIDEWIRE_PARTITIONS="3")
    again = tidewire("topics", "create", cwd=tmp_path)
    check = tidewire("topics", "check", cwd=tmp_path)

    assert {row["name"]: row["made"] for row in made.rows} == dict.fromkeys(TOPICS, True)
    assert {row["partitions"] for row in made.rows} == {3}
    assert (again.code, again.out) == (0, "0 made\n")
    assert check.code == 0
    assert "events: 3 partitions, kept 365 days" in check.out
    assert "customers: 3 partitions, compacted" in check.out


# --- write keys


def test_a_new_key_is_shown_once_with_the_lines_for_the_file(tmp_path):
    done = tidewire("keys", "new", "shop-web", cwd=tmp_path)

    key = done.out.strip()
    assert key.startswith("tw_")
    assert "name: shop-web" in done.err
    assert key not in done.err
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("before", [None, "keys: []\n", "# ours\nkeys: []\n# the end\n"])
def test_keys_are_added_to_the_file_and_listed(tmp_path, before):
    if before is not None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "write_keys.yaml").write_text(before)

    keys = [tidewire("keys", "new", name, "--add", "--json", "--kind", kind, cwd=tmp_path).json["key"]
            for name, kind in (("shop-web", "public"), ("till", "server"))]  # fmt: skip
    listed = tidewire("keys", "list", "--json", cwd=tmp_path).rows

    assert [(row["name"], row["kind"]) for row in listed] == [("shop-web", "public"), ("till", "server")]
    text = (tmp_path / "config" / "write_keys.yaml").read_text()
    assert not any(key in text for key in keys)
    assert "# ours" in text or before != "# ours\nkeys: []\n# the end\n"


def test_a_file_that_a_key_cannot_be_added_to_is_left_as_it_is(tmp_path):
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "write_keys.yaml"
    file.write_text("keys: [{name: web, sha256: '" + "0" * 64 + "', kind: any}]\n")
    before = file.read_text()

    done = tidewire("keys", "new", "till", "--add", cwd=tmp_path)

    assert done.code == 2
    assert "Put it in by hand" in done.err
    assert file.read_text() == before
    assert list((tmp_path / "config").iterdir()) == [file]


# --- processors


def test_processors_are_listed_with_what_they_want_and_make(tmp_path):
    rows = {row["name"]: row for row in tidewire("processors", "list", "--json", cwd=tmp_path).rows}

    assert {"profile", "visits", "orders"} <= rows.keys()
    assert "Order Completed" in rows["orders"]["wants"]
    assert "orders" in rows["orders"]["tables"]
    assert all(row["about"] for row in rows.values())


def test_a_scaffolded_processor_keeps_the_laws_and_its_test_passes(tmp_path):
    """In a copy of the packages, so that the project stays as it is."""
    root = Path(__file__).parents[2]
    for package in ("config", "processors", "schemas", "sinks", "streams"):
        copy_sources(root / package, tmp_path / package)
    (tmp_path / "tests" / "processors").mkdir(parents=True)
    own = {"PYTHONPATH": str(tmp_path)}

    made = tidewire("processors", "new", "care_calls", cwd=tmp_path, **own)
    listed = tidewire("processors", "list", "--json", cwd=tmp_path, **own)
    checked = tidewire("processors", "check", "care_calls", "--json", cwd=tmp_path, **own)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/processors/test_care_calls.py"],
        cwd=tmp_path, capture_output=True, text=True, env=environment(**own), check=False,
    )  # fmt: skip
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(root / "pyproject.toml"),
         "processors/care_calls.py", "tests/processors/test_care_calls.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    again = tidewire("processors", "new", "care_calls", cwd=tmp_path, **own)

    assert made.out.split() == ["processors/care_calls.py", "tests/processors/test_care_calls.py"]
    assert "care_calls" in [row["name"] for row in listed.rows]
    assert checked.code == 0, checked.out
    assert all(row["is_kept"] for row in checked.rows)
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    assert linted.returncode == 0, linted.stdout
    assert again.code == 2
    assert "is there already" in again.err


def copy_sources(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.suffix in (".py", ".sql", ".yaml") and file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())


# --- doctor


def test_the_doctor_finds_a_fresh_folder_ready_and_makes_nothing(tmp_path):
    done = tidewire("doctor", "--json", "--port", "0", cwd=tmp_path)

    findings = {finding["name"]: finding for finding in done.json}
    assert done.code == 0, done.out
    assert {
        "python",
        "java",
        "chdb",
        "clock",
        "data folder",
        "disk",
        "port",
        "log",
        "analytics",
        "write keys",
    } <= findings.keys()
    assert not [finding for finding in done.json if finding["state"] == "fail"]
    assert not list(tmp_path.iterdir())


def test_the_doctor_names_what_is_wrong_and_how_to_mend_it(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "write_keys.yaml").write_text("keys: [{name: web}]\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = tidewire("doctor", "--json", "--port", port, "--log", "kafka://127.0.0.1:9", "--data", "/proc/none",
                        "--analytics", "clickhouse://127.0.0.1:9", cwd=tmp_path)  # fmt: skip

    assert done.code == 1
    failed = {finding["name"]: finding for finding in done.json if finding["state"] == "fail"}
    assert failed.keys() >= {"port", "log", "analytics", "data folder", "write keys"}
    assert "--port" in failed["port"]["mend"]
    assert "write_keys.yaml, line 1" in failed["write keys"]["what"]
    assert "Traceback" not in done.err


def test_the_doctor_speaks_in_lines(tmp_path):
    done = tidewire("doctor", "--port", "0", cwd=tmp_path)

    assert all(line.lstrip()[0] in "✓!✗" for line in done.out.splitlines())


def test_the_doctor_sees_wrong_topics_and_what_waits(tmp_path):
    tidewire("topics", "create", cwd=tmp_path)

    done = tidewire("doctor", "--json", "--port", "0", cwd=tmp_path)

    findings = {finding["name"]: finding for finding in done.json}
    assert findings["topics"]["state"] == "ok"
    assert findings["lag of processors"]["what"].startswith("0 records")


# --- simulate


def test_simulate_writes_the_same_bytes_for_the_same_seed(tmp_path):
    options = (
        "simulate",
        "--people",
        "30",
        "--days",
        "20",
        "--end",
        "2026-11-01",
        "--disorder",
        "0.1",
        "--duplicates",
        "0.1",
    )

    runs = [tidewire(*options, "--seed", seed, "--out", f"{number}.jsonl", "--facts", f"{number}.facts", cwd=tmp_path)
            for number, seed in enumerate(("5", "5", "6"))]  # fmt: skip

    assert [run.code for run in runs] == [0, 0, 0]
    texts = [(tmp_path / f"{number}.jsonl").read_bytes() for number in range(3)]
    assert texts[0] == texts[1] != texts[2]
    assert all(json.loads(line)["messageId"] for line in texts[0].splitlines())
    facts = [json.loads(line) for line in (tmp_path / "0.facts").read_text().splitlines()]
    assert len(facts) == 30


def history(folder: Path) -> Path:
    file = folder / "history.txt"
    file.write_text("00001 19970101 1 11.77\n")
    return file
