"""`tidewire backup` and `tidewire restore`: the whole way round, killed in between, and all that can be wrong."""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.errors import TidewireError
from streams.backup import MANIFEST, UNFINISHED, Manifest, read_backup
from tests.cli.command import Done, environment, is_one_line, tidewire
from tests.cli.running import Up

pytestmark = pytest.mark.together

HUNDRED = 100  # each so many calls one is refused by the stage


def call(n: int) -> dict[str, Any]:
    """A numbered call of one of thirty people; each fifth is an order, each hundredth has a total no order can have."""
    body = {"type": "track", "event": "Viewed", "userId": f"u{n % 30}", "messageId": f"m{n}",
            "timestamp": f"2026-05-{1 + n % 28:02d}T10:00:00Z"}  # fmt: skip
    if n % 5:
        return body
    total = -1 if n % HUNDRED == 0 else n % 7 + 0.25
    return body | {"event": "Order Completed", "properties": {"order_id": f"o{n}", "total": total, "currency": "EUR"}}


def portraits(numbers: Iterable[int]) -> dict[str, tuple[int, int, Decimal]]:
    """What is true of each person after these calls: events, orders, revenue."""
    true: dict[str, tuple[int, int, Decimal]] = {}
    for n in numbers:
        if n % HUNDRED:
            key = f"default/u:u{n % 30}"
            events, orders, revenue = true.get(key, (0, 0, Decimal(0)))
            is_order = n % 5 == 0
            revenue += Decimal(n % 7) + Decimal("0.25") if is_order else 0
            true[key] = (events + 1, orders + is_order, revenue)
    return true


def write_calls(folder: Path, first: int, last: int) -> str:
    file = folder / f"{first}-{last}.jsonl"
    file.write_text("".join(json.dumps(call(n)) + "\n" for n in range(first, last)))
    return file.name


class Sending(threading.Thread):
    """Sends numbered calls until it is told to stop or nobody answers; `taken` are those answered with 200."""

    def __init__(self, up: Up, first: int) -> None:
        super().__init__()
        self._url, self._n = f"{up.url}/v1/batch", first
        key = (up.folder / up.data / "write_key").read_text().strip()
        self._headers = {"Content-Type": "application/json",
                         "Authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"}  # fmt: skip
        self.taken: list[int] = []
        self.is_stopping = False

    def run(self) -> None:
        while not self.is_stopping:
            numbers = range(self._n, self._n + 20)
            body = json.dumps({"batch": [call(n) for n in numbers]}).encode()
            try:
                urllib.request.urlopen(urllib.request.Request(self._url, body, self._headers), timeout=10).close()
            except OSError:  # refused, or killed while it answered
                return
            self.taken += numbers
            self._n = numbers.stop

    def stop(self) -> None:
        self.is_stopping = True
        if self.is_alive():
            self.join()


def numbers_of(up: Up, table: str, where: str = "1") -> list[int]:
    rows = up.ask("sql", f"SELECT message_id FROM {table} WHERE {where} ORDER BY 1", "--json").rows
    return sorted(int(row["message_id"][1:]) for row in rows)


def settle(up: Up) -> None:
    for _ in range(400):
        found = {each["name"]: each["what"] for each in up.ask("doctor", "--json").json}
        if found.get("lag of processors") == found.get("lag of clickhouse") == "0 records":
            return
        time.sleep(0.5)  # a question is a process of its own
    raise AssertionError(f"there is always something left to do: {found}")


def check_numbers(up: Up) -> list[int]:
    """What ClickHouse says of people must be what the events in ClickHouse make of them. Returns the numbers taken."""
    settle(up)
    applied, refused = numbers_of(up, "event_log"), numbers_of(up, "rejected_list", "refused_by = 'stage'")
    sql = "SELECT person, events, orders, toString(revenue['EUR']) AS revenue FROM person_list ORDER BY person"
    rows = up.ask("sql", sql, "--json").rows
    assert len(set(applied)) == len(applied)
    assert all(n % HUNDRED == 0 for n in refused)
    found = {row["person"]: (row["events"], row["orders"], Decimal(row["revenue"])) for row in rows}
    assert found == portraits(applied)
    assert up.count("SELECT count() AS n FROM orders_list") == sum(1 for n in applied if n % 5 == 0)
    return sorted({*applied, *refused})


def test_a_backup_of_a_running_tidewire_goes_on_exactly_where_it_was_taken(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tidewire.yaml").write_text("checkpoint_ms: 100\nsink_wait_ms: 200\n")
    (tmp_path / "config" / "coupons").mkdir()
    (tmp_path / "config" / "coupons" / "thanks.yaml").write_text(
        "codes: {file: thanks.txt}\nworth: {percent: 5}\nexpires: 1 day after given\n")
    (tmp_path / "config" / "coupons" / "thanks.txt").write_text("THANKS-1\n")  # without it `up` would not start
    up = Up(tmp_path)
    sending = Sending(up, 1_000)
    try:
        assert up.ask("send", write_calls(tmp_path, 0, 1_000)).code == 0
        sending.start()
        while sending.is_alive() and len(sending.taken) < 200:
            time.sleep(0.01)

        taken_before = list(sending.taken)
        made = up.ask("backup", "kept", "--json")
        taken_after = len(sending.taken)
    finally:
        sending.stop()
        up.kill()
    shutil.rmtree(tmp_path / "config")
    put_back = tidewire("restore", "kept", "--data", "again", cwd=tmp_path)
    second = Up(tmp_path, "again")
    second.kill()  # in the middle of catching up, or before it began
    second = Up(tmp_path, "again")
    try:
        kept = check_numbers(second)
        assert second.ask("send", write_calls(tmp_path, 0, 4_000)).code == 0
        at_last = check_numbers(second)
    finally:
        second.stop()

    assert made.json["ground"] == "embedded", made.err
    assert put_back.code == 0, put_back.err
    assert set(range(1_000)) | set(taken_before) <= set(kept)  # what was answered before the backup began
    assert set(kept) <= set(range(1_000)) | set(sending.taken)
    assert taken_after > len(taken_before) >= 200  # it went on meanwhile
    assert at_last == list(range(4_000))  # nothing twice, nothing missing
    assert (tmp_path / "again" / "write_key").read_text() == (tmp_path / "data" / "write_key").read_text()
    assert (tmp_path / "config" / "tidewire.yaml").read_text().startswith("checkpoint_ms")


# --- one that was taken of a stopped Tidewire


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped Tidewire in `data`, and its backup in `kept`."""
    folder = tmp_path_factory.mktemp("backup")
    (folder / "config").mkdir()
    (folder / "config" / "tidewire.yaml").write_text("public_url: https://go.shop.test\n")
    (folder / "config" / "channels.yaml").write_text("inbox: {via: inbox}\n")
    done = tidewire("send", write_calls(folder, 0, 300), "--data", "data", "--port", "0", cwd=folder, timeout_s=120)
    assert done.code == 0, done.err
    made = tidewire("backup", "kept", "--json", cwd=folder)
    assert made.code == 0, made.err
    assert made.json["ground"] == "embedded"  # and nothing but that object on standard output
    return folder


@pytest.fixture
def kept(folder: Path, tmp_path: Path) -> Path:
    """A copy of the backup, to be damaged."""
    shutil.copytree(folder / "kept", tmp_path / "kept")
    return tmp_path / "kept"


def rows_in(data: str, cwd: Path) -> list[Any]:
    return tidewire("sql", "SELECT * FROM event_log ORDER BY message_id", "--json", "--data", data, cwd=cwd).rows


def test_a_backup_is_for_its_owner_alone_and_can_be_checked(folder: Path) -> None:
    checked = tidewire("restore", "kept", "--check", cwd=folder)
    as_json = tidewire("restore", "kept", "--check", "--json", cwd=folder)

    assert checked.code == 0, checked.err
    assert "kept is whole" in checked.out
    assert as_json.json["ground"] == "embedded"
    assert stat.S_IMODE((folder / "kept").stat().st_mode) == 0o700
    for key in ("write_key", "link_keys", "inbox_keys"):
        assert stat.S_IMODE((folder / "kept" / key).stat().st_mode) == 0o600
    assert not list(folder.glob("kept.*"))


def test_a_stopped_tidewire_comes_back_with_every_row_and_the_commands_can_ask_it(folder: Path, tmp_path: Path) -> None:
    done = tidewire("restore", str(folder / "kept"), "--data", "again", cwd=tmp_path)

    assert done.code == 0, done.err
    assert rows_in("again", tmp_path) == rows_in("data", folder)
    assert len(rows_in("again", tmp_path)) == 297
    again, before = tmp_path / "again" / "link_keys", folder / "data" / "link_keys"  # links that were sent still lead
    assert (again.read_bytes(), stat.S_IMODE(again.stat().st_mode)) == (before.read_bytes(), 0o600)
    listed = tidewire("rejected", "list", "--json", "--data", "again", cwd=tmp_path)
    assert len(listed.rows) == 3


@pytest.mark.parametrize("place", ["kept", "data/kept"])
def test_a_backup_is_not_put_where_it_would_be_lost_or_cover_another(folder: Path, place: str) -> None:
    done = tidewire("backup", place, cwd=folder)

    assert done.code == 2
    assert is_one_line(done.err)
    assert tidewire("restore", "kept", "--check", cwd=folder).code == 0
    assert list((folder / "data").glob("kept*")) == []


def test_there_is_nothing_to_back_up_where_nothing_is(tmp_path: Path) -> None:
    done = tidewire("backup", "kept", cwd=tmp_path)

    assert done.code == 1
    assert "There is no data" in done.err
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("what", ["a file", "a log", "a mark of lost+found"])
def test_a_folder_that_holds_something_is_left_alone(folder: Path, tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if what == "a mark of lost+found":  # of a file system that is new
        (data / "lost+found").mkdir()
    else:
        (data / ("log.db" if what == "a log" else "notes.txt")).write_text("mine")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}

    done = tidewire("restore", str(folder / "kept"), cwd=tmp_path)

    if what == "a mark of lost+found":
        assert done.code == 0, done.err
        return
    assert done.code == 2
    assert is_one_line(done.err)
    assert "is there already" in done.err
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def of_another_format(file: Path) -> None:
    plain = json.loads(file.read_text())
    file.write_text(json.dumps(plain | {"format": 99, "tidewire": "7.0.0", "added_later": 1}))


def of_a_newer_clickhouse(file: Path) -> None:
    manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    manifest = msgspec.structs.replace(manifest, clickhouse="99.1.1.1")
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, checksum=manifest.summed())))


def pointing_outside(file: Path) -> None:
    manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    outside = msgspec.structs.replace(manifest.files[0], path="../../elsewhere")
    manifest = msgspec.structs.replace(manifest, files=[outside, *manifest.files[1:]])
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, checksum=manifest.summed())))


@pytest.mark.parametrize(
    ("file", "harm", "says"),
    [
        ("log.db", truncate, "log.db has"),
        ("log.db", flip, "log.db is not what was written"),
        ("clickhouse/*-events.lz4", truncate, "-events.lz4 has"),
        ("clickhouse/*-events.lz4", flip, "-events.lz4 is not what was written"),
        ("clickhouse/*-events.lz4", Path.unlink, "-events.lz4 is missing"),
        ("write_key", flip, "write_key is not what was written"),
        (MANIFEST, truncate, "manifest.json cannot be read"),
        (MANIFEST, flip, "manifest.json"),
        (MANIFEST, Path.unlink, "it has no manifest.json"),
        (MANIFEST, of_another_format, "was made by Tidewire 7.0.0"),
        (MANIFEST, pointing_outside, "names a file outside"),
    ],
)
def test_a_backup_that_is_not_whole_says_what_is_wrong(
    kept: Path, file: str, harm: Callable[[Path], None], says: str
) -> None:
    (harmed,) = kept.glob(file)
    harm(harmed)

    with pytest.raises(TidewireError) as refused:
        read_backup(kept)

    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "harm", "says"),
    [
        ("log.db", truncate, "log.db has"),
        (MANIFEST, of_a_newer_clickhouse, "Use the version it came from, or a newer one"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_one_line_and_nothing_is_written(
    kept: Path, file: str, harm: Callable[[Path], None], says: str
) -> None:
    harm(kept / file)

    done = tidewire("restore", "kept", cwd=kept.parent)

    assert done.code == 1
    assert is_one_line(done.err), done.err
    assert says in done.err
    left = [path.name for path in (kept.parent / "data").rglob("*")] if (kept.parent / "data").exists() else []
    assert [name for name in left if not name.endswith(".lock")] == []


def test_a_backup_of_another_ground_is_refused(kept: Path) -> None:
    done = tidewire("restore", "kept", "--log", "kafka://127.0.0.1:9", cwd=kept.parent)

    assert done.code == 2
    assert "the backup belongs to a log of kind embedded" in done.err


# --- killed, and full disks


def killed_when(arguments: list[str], cwd: Path, is_time: Callable[[], bool]) -> None:
    """Run a command, and kill it as `kill -9` does when it is time."""
    process = subprocess.Popen([sys.executable, "-m", "streams.cli", *arguments], cwd=cwd, env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not is_time():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.0005)
    process.kill()
    process.wait()


def test_a_backup_that_was_killed_is_none_and_the_next_one_is_whole(folder: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / f"new{UNFINISHED}"
    killed_when(["backup", str(tmp_path / "new")], folder, (unfinished / "clickhouse").exists)
    said = tidewire("restore", str(unfinished), cwd=tmp_path)

    again = tidewire("backup", str(tmp_path / "new"), cwd=folder)

    assert "was broken off" in said.err
    assert again.code == 0, again.err
    assert tidewire("restore", "new", "--check", cwd=tmp_path).code == 0
    assert [path.name for path in tmp_path.glob("new*")] == ["new"]


def test_a_restore_that_was_killed_starts_nothing_until_it_is_run_again(folder: Path, tmp_path: Path) -> None:
    backup = str(folder / "kept")
    killed_when(["restore", backup, "--data", "again"], tmp_path, (tmp_path / "again" / "clickhouse" / "store").exists)

    started = tidewire("up", "--data", "again", "--port", "0", cwd=tmp_path)
    asked = tidewire("sql", "SELECT 1", "--data", "again", cwd=tmp_path)
    again = tidewire("restore", backup, "--data", "again", cwd=tmp_path)

    for refused in (started, asked):
        assert refused.code == 1
        assert is_one_line(refused.err), refused.err
        assert "was broken off. Run the same `tidewire restore` again" in refused.err
    assert again.code == 0, again.err
    assert rows_in("again", tmp_path) == rows_in("data", folder)


def with_files_of_at_most(size: int, arguments: list[str], cwd: Path) -> Done:
    """Run a command that cannot write more than this into one file, as on a disk that fills."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments], cwd=cwd, env=environment(), text=True, capture_output=True,
        check=False, timeout=60, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("size", [4_000, 20_000, 200_000])  # fails at a table, at a larger one, at the log
def test_a_disk_that_fills_during_a_backup_leaves_nothing_behind(folder: Path, tmp_path: Path, size: int) -> None:
    done = with_files_of_at_most(size, ["backup", str(tmp_path / "new")], folder)

    assert done.code == 1, done.err
    assert is_one_line(done.err.splitlines(keepends=True)[-1]), done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
    assert tidewire("restore", "kept", "--check", cwd=folder).code == 0


def test_a_disk_that_fills_during_a_restore_leaves_a_folder_that_can_be_used(folder: Path, tmp_path: Path) -> None:
    failed = with_files_of_at_most(100_000, ["restore", str(folder / "kept"), "--data", "again"], tmp_path)

    again = tidewire("restore", str(folder / "kept"), "--data", "again", cwd=tmp_path)

    assert failed.code == 1, failed.err
    assert "Traceback" not in failed.err
    assert again.code == 0, again.err
    assert rows_in("again", tmp_path) == rows_in("data", folder)


def test_a_running_tidewire_says_why_it_cannot_make_one_and_goes_on(tmp_path: Path) -> None:
    up = Up(tmp_path)
    try:
        assert up.ask("send", write_calls(tmp_path, 0, 50)).code == 0
        refused = up.ask("backup", "/proc/nowhere/kept")
        covered = up.ask("backup", str(tmp_path / "data" / "kept"))
        restored = up.ask("restore", "nowhere")
        settle(up)
        assert up.count("SELECT count() AS n FROM event_log") == 49
    finally:
        up.stop()

    for done in (refused, covered, restored):
        assert done.code in (1, 2)
        assert is_one_line(done.err), done.err
    assert "/proc/nowhere" in refused.err


def test_a_folder_in_which_something_runs_is_not_restored_into(folder: Path, tmp_path: Path) -> None:
    up = Up(tmp_path)
    try:
        done = up.ask("restore", str(folder / "kept"))
    finally:
        up.stop()

    assert done.code == 3
    assert f"process {up.process.pid} runs in data" in done.err
