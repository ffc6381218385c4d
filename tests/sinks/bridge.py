"""chDB behind ClickHouse's HTTP interface, well enough for clickhouse_connect: a stand-in for a server.

It runs in a process of its own, so that it can be killed, and the way of `clickhouse://` is the one that is tested:
requests, parameters, settings, Native inserts (compressed or not), errors with their codes. The engine and the SQL are
ClickHouse's own.

What it cannot prove: users and their rights (every user and password is taken), quotas, replication and Keeper,
sessions, TLS, streaming of large answers, and how a server behaves when many clients press it.

    python -m tests.sinks.bridge --path DIR --port 8123

`POST /_bridge` with JSON makes trouble: `delay_s` before each answer; `drop` so many answers after executing; `fail`
so many queries that start with `fail_start` with the error code `fail_code`, without executing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

# Parameters of a request that are no settings of a query.
_OF_TRANSPORT = {
    "query", "database", "session_id", "session_timeout", "session_check", "query_id", "quota_key", "compress",
    "decompress", "wait_end_of_query", "client_protocol_version", "role", "buffer_size",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression",
    "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip
_INSERT = re.compile(rb"\s*(INSERT\s+INTO\s+.+?)\s+FORMAT\s+(\w+)\n", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)\.")


def inflated(body: bytes) -> bytes:
    """All frames of an lz4 body: the driver makes one of every block, and a large insert has several.

    Raises:
        RuntimeError: it is not lz4.
    """
    parts = []
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(frame.decompress(body))
        if not frame.eof:
            raise RuntimeError("the last lz4 frame is not whole")
        body = frame.unused_data or b""
    return b"".join(parts)


class Trouble:
    """What goes wrong next. Counts go down as it happens."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.delay_s = 0.0
        self.drop = 0
        self.fail = 0
        self.fail_code = 252
        self.fail_start = "INSERT"

    def takes(self, name: str) -> bool:
        with self.lock:
            left = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
            return bool(left > 0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    path_of_data: str
    trouble: Trouble

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._answer(200, b"Ok.\n")
        else:
            self._query(b"")

    def do_POST(self) -> None:
        try:
            body = self._body()
        except RuntimeError as error:  # not compressed as it says: what the driver sends when it cannot write a value
            self._fail(432, f"DB::Exception: {error}")
            return
        if urlsplit(self.path).path == "/_bridge":
            for name, value in json.loads(body).items():
                setattr(self.trouble, name, value)
            self._answer(200, b"")
        else:
            self._query(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        encoding = self.headers.get("Content-Encoding")
        if encoding == "lz4":
            return inflated(body)
        assert encoding is None, f"the bridge does not read {encoding}"
        return body

    def _query(self, body: bytes) -> None:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):  # as the driver sends parameters that are too long for an address
            given |= fields_of(kind, body)
            body = b""
        sql = given.get("query", "").encode()
        text = sql + b"\n" + body if sql and body else sql or body
        if text.lstrip().upper().startswith(self.trouble.fail_start.encode()) and self.trouble.takes("fail"):
            self._fail(self.trouble.fail_code, "DB::Exception: made by the bridge")
            return
        time.sleep(self.trouble.delay_s)
        connection = chdb.connect(self.path_of_data)
        try:
            answer = execute(connection, text, given)
        except Exception as error:  # what chDB says, as a server would
            message = str(error)
            code = _CODE.search(message)
            self._fail(int(code[1]) if code else 1002, message[message.find("Code: ") :])
            return
        finally:
            connection.close()
        if self.trouble.takes("drop"):
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self._answer(200, answer, {"X-ClickHouse-Format": "TabSeparated"} if answer else {})

    def _fail(self, code: int, message: str) -> None:
        self._answer(500, message.encode(), {"X-ClickHouse-Exception-Code": str(code)})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-ClickHouse-Summary": "{}", "X-ClickHouse-Timezone": "UTC", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go as they like; whatever else happens is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def fields_of(kind: str, body: bytes) -> dict[str, str]:
    """The fields of a form."""
    form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    return {str(part.get_param("name", header="content-disposition")): bytes(part.get_payload(decode=True)).decode()
            for part in form.iter_parts()}  # fmt: skip


def execute(connection: Any, text: bytes, given: dict[str, str]) -> bytes:
    """Run one statement with the settings and parameters of its request."""
    if given.get("database"):
        connection.query(f"USE `{given['database']}`")
    settings = {name: given[name] for name in given.keys() - _OF_TRANSPORT if not name.startswith("param_")}
    for name in sorted(settings, key="readonly".__eq__):  # readonly is the last that can be set
        value = settings[name].replace("\\", "\\\\").replace("'", "\\'")
        connection.query(f"SET {name} = '{value}'")
    parameters = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
    insert = _INSERT.match(text)
    if insert and insert[2].upper() != b"VALUES":
        with tempfile.NamedTemporaryFile(suffix=".data") as file:
            file.write(text[insert.end() :])
            file.flush()
            connection.query(f"{insert[1].decode()} FROM INFILE '{file.name}' FORMAT {insert[2].decode()}")
        return b""
    return bytes(connection.query(text.decode(), "TabSeparated", params=parameters).bytes() or b"")


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--path", type=Path, required=True, help="folder of the data")
    arguments.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one, and prints it")
    given = arguments.parse_args()
    keep = chdb.connect(str(given.path))  # while one handle is open the engine stays
    keep.query("SELECT 1")
    Handler.path_of_data, Handler.trouble = str(given.path), Trouble()
    server = Server(("127.0.0.1", given.port), Handler)
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
