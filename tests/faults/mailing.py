"""A shop that writes to its people, and those who take its messages on: a mail server and receivers of posts that do
what they are told, good or bad, each in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from streams.access import find_running
from tests.faults.cluster import wait_for
from tests.faults.machine import WRITE_KEY, Process, free_port
from tests.messages.smtp_server import ANSWERS, DROP, HANG, ScriptedServer

HURRIED = (sys.executable, "-m", "tests.faults.hurried")
KINDS = ("marketing", "transactional")
WAYS = ("email", "sms")
TEMPLATES = {
    "email": """\
channel: email
kind: {kind}
{topic}content:
  en:
    subject: "Hello"
    text: "Hello {{{{ profile.email }}}}"
    html: '<p>Hello {{{{ profile.email }}}}, <a href="https://shop.test/a">this</a> is for you.</p>'
""",
    "sms": """\
channel: sms
kind: {kind}
{topic}content: {{en: {{text: "Hello {{{{ profile.phone }}}}"}}}}
""",
}
STATES = "SELECT id, state FROM messages_list"
SECRETS = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # of these tests alone
SILENT_S = 30.0  # longer than any client waits


class Shop:
    """An `up` that sends messages, and can be killed and started again. Its templates are named `KIND` for e-mails and
    `KIND_sms`.

    Args:
        channels: what `channels.yaml` holds.
        people: how many it knows: `p0`, `p1`…
        program: one that is in a hurry makes of minutes seconds, see `tests.faults.hurried`.
    """

    def __init__(
        self, folder: Path, channels: Mapping[str, Any], people: int, *, program: Iterable[str] = HURRIED
    ) -> None:
        (folder / "config" / "templates").mkdir(parents=True)
        for way in WAYS:
            for kind in KINDS:
                topic = "topic: offers\n" if kind == "marketing" else ""
                file = folder / "config" / "templates" / f"{template_of(kind, way)}.yaml"
                file.write_text(TEMPLATES[way].format(kind=kind, topic=topic))
        (folder / "config" / "channels.yaml").write_text(json.dumps(channels))  # YAML holds JSON
        settings = {"TIDEWIRE_CONFIG": str(folder / "config"), "TIDEWIRE_PUBLIC_URL": "https://go.shop.test",
                    "TIDEWIRE_WEBHOOK_SECRETS": SECRETS}  # fmt: skip
        self.people = people
        self._http = httpx.Client(timeout=20, trust_env=False)
        self.process = Process("up", data=folder / "data", port=free_port(), settings=settings, program=tuple(program))
        self.start()
        self._know_people()

    def start(self) -> None:
        self.process.start()
        self.process.ready()
        wait_for(lambda: self._run_file() is not None, 30, "it does not say where it is", self.process.told)

    def close(self) -> None:
        """End it at once."""
        if self.process.is_running:
            self.process.kill()
        self._http.close()

    def _run_file(self) -> Any:
        found = find_running(self.process.data)
        return found if found is not None and found.pid == self.process.pid else None

    def headers(self) -> dict[str, str]:
        """Of a request to its API.

        Raises:
            httpx.ConnectError: it is dead.
        """
        found = self._run_file()
        if found is None:
            raise httpx.ConnectError("it is dead")
        return {"authorization": f"Bearer {found.token}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.request(method, self.process.url + path, json=body, headers=self.headers())
        answer.raise_for_status()
        return answer.json()

    def _know_people(self) -> None:
        calls = [{"type": "identify", "userId": f"p{n}", "messageId": f"i{n}", "traits": {
            "email": f"p{n}@example.com", "phone": f"+4915{n:09}", "consent": {"offers": True}}}
            for n in range(self.people)]  # fmt: skip
        self._http.post(f"{self.process.url}/v1/batch", json={"batch": calls}, auth=(WRITE_KEY, "")).raise_for_status()
        wait_for(lambda: self._known() == self.people, 30, "people are not known", self.process.told)

    def _known(self) -> int:
        return int(self._ask("SELECT count() AS n FROM person_list")[0]["n"])

    def _ask(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.call("POST", "/api/sql", {"query": query})["rows"]
        return rows

    def order(self, number: int, kind: str, way: str = "email") -> str:
        """A message to somebody; its id. Ordered again, after a crash, it is the same."""
        return str(self.call("POST", "/api/messages", self.order_body(number, kind, way))["message"])

    def order_body(self, number: int, kind: str, way: str = "email") -> dict[str, Any]:
        return {"template": template_of(kind, way), "to": f"p{number % self.people}", "once": str(number)}

    def states(self) -> dict[str, str]:
        """Of all messages, by id."""
        return {each["id"]: each["state"] for each in self._ask(STATES)}

    def wait_until_ended(self, ids: Iterable[str], within_s: float) -> dict[str, str]:
        """The states of these messages and all others, once nothing more will happen to any."""
        wanted = set(ids)

        def ended() -> bool:
            states = self.states()
            return states.keys() >= wanted and not {"waiting", "sending"} & set(states.values())

        wait_for(ended, within_s, f"of {len(wanted):,} messages some do not end",
                 lambda: str(dict(Counter(self.states().values()))))  # fmt: skip
        return self.states()


def template_of(kind: str, way: str) -> str:
    return kind if way == "email" else f"{kind}_{way}"


class _Watched(ScriptedServer):
    on_mail: Callable[[], None] | None = None
    unanswered = 0

    async def _say(self, command: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if command == ".":
            self.unanswered += self.says["."] in (DROP, HANG)
            call, self.on_mail = self.on_mail, None
            if call is not None:
                call()
        return await super()._say(command, reader, writer)


class MailServer:
    """A `ScriptedServer` that can be told otherwise while it works, closed, and opened again at the same port."""

    def __init__(self) -> None:
        self._server = _Watched({}, None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.open()
        self.port = self._server.port

    def say(self, **says: bytes) -> None:
        """Answer so from now on, and to all else as a good server does. `greeting` and `end` are the words for what a
        server says when somebody connects, and at the end of a mail."""
        names = {"greeting": "", "end": "."}
        self._server.says = {**ANSWERS, **{names.get(name, name): said for name, said in says.items()}}

    def open(self) -> None:
        self._running = self._server.running()
        self._do(self._running.__aenter__())

    def close(self) -> None:
        """Nobody listens any more."""
        self._do(self._running.__aexit__(None, None, None))

    def stop(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> None:
        async def whole() -> None:
            await work

        asyncio.run_coroutine_threadsafe(whole(), self._loop).result(30)

    def when_it_has_the_next(self, call: Callable[[], None]) -> None:
        """Call this, from another thread, when the next mail is there as a whole and before the server says so."""
        self._server.on_mail = call

    @property
    def unanswered(self) -> int:
        """How many mails it has and never said so."""
        return self._server.unanswered

    @property
    def taken(self) -> list[str]:
        """The ids of messages whose mails came to their end, in the order in which they came."""
        return [message_from_bytes(mail)["X-Tidewire-Message"].partition(";")[0] for mail in list(self._server.mails)]


class Says(NamedTuple):
    """An answer to a post."""

    status: int = 200
    body: bytes = b'{"id": "r-1"}'
    headers: Mapping[str, str] = {}


class Silent(NamedTuple):
    """No answer."""


class Taken(NamedTuple):
    """A post that came: when, by `time.monotonic`."""

    id: str
    at: float
    body: Any


class Receiver:
    """Takes posts, and answers as `says` holds. It keeps those it answered with 2xx, in `taken`: all, also what came
    twice."""

    def __init__(self, says: Callable[[], Says | Silent] = Says) -> None:
        self.says = says
        self.taken: list[Taken] = []
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.place = f"127.0.0.1:{self._server.server_port}"

    def settings(self) -> dict[str, Any]:
        """The part `webhook` of a channel."""
        return {"url": f"http://{self.place}/", "allow": [self.place]}

    def stop(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # `self` is the handler's, below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body, at = self.rfile.read(int(self.headers["Content-Length"])), time.monotonic()
                says = receiver.says()
                if isinstance(says, Silent):
                    receiver._over.wait(SILENT_S)
                    self.close_connection = True
                    return
                if says.status < 300:
                    receiver.taken.append(Taken(self.headers["webhook-id"], at, json.loads(body)))
                with suppress(OSError):  # who does not read a large answer to its end
                    self.send_response(says.status)
                    self.send_header("Content-Length", str(len(says.body)))
                    for name, value in says.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(says.body)
                    return
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
