"""How a command finds the process that owns a data folder, and the folder's own write key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from config.settings import Settings
from schemas.errors import TidewireError, Unreachable
from streams.access import Api, ApiRefused, RunFile, find_running, folder_key, with_folder_key, write_key_of


class Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, object]]] = {}
    seen: ClassVar[list[tuple[str, str, str | None, bytes]]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).seen.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, value = type(self).answers.get(self.path.partition("?")[0], (404, {"error": "not here"}))
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def server(**answers: tuple[int, object]) -> Iterator[str]:
    Handler.answers = {f"/{name.replace('__', '/')}": answer for name, answer in answers.items()}
    Handler.seen = []
    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def write_run_file(folder: Path, pid: int, url: str) -> None:
    (folder / "run.json").write_text(json.dumps({"pid": pid, "url": url, "token": "t"}))


def test_a_call_carries_the_token_and_gives_the_decoded_answer():
    with server(api__sql=(200, {"rows": [{"n": 1}]})) as url:
        answer = Api(url, "secret").post("/api/sql", {"query": "SELECT 1"})

    assert answer == {"rows": [{"n": 1}]}
    assert Handler.seen == [("POST", "/api/sql", "Bearer secret", b'{"query": "SELECT 1"}')]


def test_a_query_leaves_out_what_is_not_given_and_is_encoded():
    with server(api__person=(200, {})) as url:
        Api(url, "t").get("/api/person", key="default/u:a b&c", reason=None)

    assert Handler.seen[0][1] == "/api/person?key=default%2Fu%3Aa+b%26c"


def test_no_proxy_is_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with server(x=(200, {})) as url:
        assert Api(url, "t").get("/x") == {}


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [((404, {"error": "nobody by that key"}), ApiRefused, "nobody by that key"),
     ((422, {"detail": "refused again"}), ApiRefused, "refused again"),
     ((403, b"<html>no</html>"), ApiRefused, "answered with status 403"),
     ((500, {}), ApiRefused, "answered with status 500"),
     ((503, {"error": "busy"}), Unreachable, "busy")],
)  # fmt: skip
def test_an_answer_that_says_no_is_an_error_with_its_reason(answer, error, says):
    with server(x=answer) as url, pytest.raises(error, match=says):
        Api(url, "t").get("/x")


def test_no_answer_is_unreachable():
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not answer"):
        Api("http://127.0.0.1:9", "t").get("/x")


def test_without_a_run_file_nothing_runs(tmp_path):
    assert find_running(tmp_path) is None
    assert find_running(tmp_path / "none") is None


def test_the_process_that_owns_the_folder_is_found(tmp_path):
    with server(healthz=(200, {})) as url:
        write_run_file(tmp_path, os.getpid(), url)

        assert find_running(tmp_path) == RunFile(os.getpid(), url, "t")


def test_a_file_left_by_a_killed_process_is_none(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_run_file(tmp_path, dead.pid, "http://127.0.0.1:9")

    assert find_running(tmp_path) is None


def test_a_process_id_that_went_to_another_program_is_none(tmp_path):
    write_run_file(tmp_path, os.getpid(), "http://127.0.0.1:9")

    assert find_running(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", '{"pid": "x"}', "[]"])
def test_a_broken_run_file_is_named_with_the_mend(tmp_path, text):
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(TidewireError, match=r"run\.json cannot be read: .* Remove it"):
        find_running(tmp_path)


def test_a_folder_has_one_key_and_only_its_owner_may_read_it(tmp_path):
    data = tmp_path / "data"

    key = folder_key(data)

    assert key.startswith("tw_")
    assert folder_key(data) == key
    assert folder_key(tmp_path / "other") != key
    assert stat.S_IMODE((data / "write_key").stat().st_mode) == 0o600
    assert [file.name for file in data.iterdir()] == ["write_key"]


def test_many_who_ask_at_once_get_one_key(tmp_path):
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(folder_key(tmp_path))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_an_empty_key_file_is_named(tmp_path):
    (tmp_path / "write_key").write_text("\n")

    with pytest.raises(TidewireError, match="write_key is empty"):
        folder_key(tmp_path)


@pytest.mark.parametrize("given", ["", "mine", " mine , other "])
def test_the_key_to_send_with_is_the_first_given_else_the_folders_own(tmp_path, given):
    settings = Settings(data=tmp_path, write_keys=given)

    assert write_key_of(settings) == ("mine" if given.strip() else folder_key(tmp_path))
    assert folder_key(tmp_path) in with_folder_key(settings).write_keys.split(",")
