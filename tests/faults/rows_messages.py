"""Row 20: the sender dies between the mail server's 250 and our SENT, again and again."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from typing import Any

import httpx
from aiosmtpd.controller import Controller

from streams.access import find_running
from tests.faults.cluster import wait_for
from tests.faults.machine import WRITE_KEY, Process, free_port
from tests.faults.rows import Outcome, Scene, row

HURRIED = (sys.executable, "-m", "tests.faults.hurried")
TEMPLATE = """\
channel: email
kind: {kind}
content: {{en: {{subject: "Hello", text: "Hello {{{{ profile.email }}}}"}}}}
"""
CHANNELS = """\
email:
  via: smtp
  rate: 1000
  at_once: 1
  smtp: {{host: 127.0.0.1, port: {port}, security: none, from: Shop <news@shop.example>}}
"""
KINDS = ("marketing", "transactional")
PEOPLE = 10
ENDED_WITHIN_S = 60.0
STATES = "/api/messages?most=1000"


class MailServer:
    """Takes every mail, and calls `on_mail` when it has one: before it says so, or a moment after.

    Attributes:
        taken: the ids of messages, each time one was taken.
    """

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.on_mail: Callable[[], None] | None = None
        self.after_s: float | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append(message_from_bytes(envelope.content)["X-Tidewire-Message"].partition(";")[0])
        call, self.on_mail = self.on_mail, None
        if call is not None and self.after_s is None:
            call()
        elif call is not None:
            threading.Timer(self.after_s, call).start()
        return "250 2.0.0 Ok: queued"

    def close(self) -> None:
        self._controller.stop()


class Shop:
    """An `up` that sends mails, and can be killed and started again."""

    def __init__(self, scene: Scene, server: MailServer) -> None:
        config = scene.folder / "config"
        (config / "templates").mkdir(parents=True)
        for kind in KINDS:
            topic = "topic: offers\n" if kind == "marketing" else ""
            text = TEMPLATE.format(kind=kind).replace("content:", f"{topic}content:")
            (config / "templates" / f"{kind}.yaml").write_text(text)
        (config / "channels.yaml").write_text(CHANNELS.format(port=server.port))
        settings = {"TIDEWIRE_CONFIG": str(config), "TIDEWIRE_PUBLIC_URL": "https://go.shop.test"}
        self.process = Process("up", data=scene.folder / "data", port=free_port(), settings=settings, program=HURRIED)
        self.start()

    def start(self) -> None:
        self.process.start()
        self.process.ready()
        wait_for(lambda: self._run_file() is not None, 30, "it does not say where it is", self.process.told)

    def _run_file(self) -> Any:
        found = find_running(self.process.data)
        return found if found is not None and found.pid == self.process.pid else None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        found = self._run_file()
        if found is None:
            raise httpx.ConnectError("it is dead")
        headers = {"authorization": f"Bearer {found.token}"}
        answer = httpx.request(method, self.process.url + path, json=body, headers=headers, timeout=20, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def know_people(self) -> None:
        calls = [{"type": "identify", "userId": f"p{n}", "messageId": f"i{n}", "traits": {
            "email": f"p{n}@example.com", "consent": {"offers": True}}} for n in range(PEOPLE)]  # fmt: skip
        httpx.post(f"{self.process.url}/v1/batch", json={"batch": calls}, auth=(WRITE_KEY, ""), timeout=20,
                   trust_env=False).raise_for_status()  # fmt: skip
        wait_for(lambda: self._people() == PEOPLE, 30, "people are not known", self.process.told)

    def _people(self) -> int:
        said = self.call("POST", "/api/sql", {"query": "SELECT count() AS n FROM person_list"})
        return int(said["rows"][0]["n"])

    def order(self, number: int) -> tuple[str, str]:
        """A message to somebody: its id and its kind. Ordered again after a crash it is the same."""
        kind = KINDS[number % 2]
        body = {"template": kind, "to": f"p{number % PEOPLE}", "once": str(number)}
        return self.call("POST", "/api/messages", body)["message"], kind

    def states(self) -> dict[str, str]:
        return {each["id"]: each["state"] for each in self.call("GET", STATES)["messages"]}


@row("20", "sender kill -9 between 250 and SENT", limit_s=60, ground="none", alone=True)
def sender_killed_in_the_middle(scene: Scene) -> Outcome:
    """Again and again the sender is killed when the mail server has taken a mail: half of the times before the server
    says so, else within some milliseconds after. Marketing is never sent twice, and a kill leaves at most one message
    unknown; what is transactional is sent at least once, and at most once more for each kill. `sent` means taken."""
    kills, server = scene.size(8, 40), MailServer()
    shop, kinds, left = Shop(scene, server), dict[str, str](), 0
    try:
        shop.know_people()
        for number in range(kills):
            died = threading.Event()

            def die(died: threading.Event = died) -> None:
                with suppress(ProcessLookupError):
                    shop.process.signal(9)
                died.set()

            server.after_s = None if number % 2 else scene.rng.uniform(0, 0.02)
            server.on_mail = die
            for offset in range(4):  # some of them wait when it dies
                with suppress(httpx.TransportError):
                    id_, kind = shop.order(4 * number + offset)
                    kinds[id_] = kind
            if not died.wait(ENDED_WITHIN_S):
                return Outcome(0, 0, 0, f"no mail came after {number} kills: {shop.process.told()[-500:]}")
            shop.process.wait()
            left += 1
            shop.start()
            for offset in range(4):
                id_, kind = shop.order(4 * number + offset)
                kinds[id_] = kind
        scene.fault_over()
        began = time.monotonic()
        wait_for(lambda: _ended(shop.states(), kinds), ENDED_WITHIN_S, "some do not end",
                 lambda: json.dumps(shop.states()))  # fmt: skip
        recovery_s, states = time.monotonic() - began, shop.states()
    finally:
        if shop.process.is_running:
            shop.process.kill()
        server.close()
    return _judge(kinds, states, Counter(server.taken), left, recovery_s)


def _ended(states: dict[str, str], kinds: dict[str, str]) -> bool:
    return states.keys() == kinds.keys() and not {"waiting", "sending"} & set(states.values())


def _judge(
    kinds: dict[str, str], states: dict[str, str], taken: Counter[str], kills: int, recovery_s: float
) -> Outcome:
    marketing = {id_ for id_, kind in kinds.items() if kind == "marketing"}
    unknown = {id_ for id_, state in states.items() if state == "unknown"}
    twice = sum(taken[id_] - 1 for id_ in marketing if taken[id_] > 1)
    again = sum(taken[id_] - 1 for id_ in kinds.keys() - marketing if taken[id_] > 1)
    lost = sum(1 for id_, state in states.items() if state == "sent" and not taken[id_])
    wrong = []
    if unknown - marketing:
        wrong.append(f"{len(unknown - marketing)} transactional messages are unknown")
    if len(unknown) > kills:
        wrong.append(f"{len(unknown)} are unknown after {kills} kills")
    if again > kills:
        wrong.append(f"{again} transactional messages came again after {kills} kills")
    if others := {state for state in states.values() if state not in ("sent", "unknown")}:
        wrong.append(f"some are {', '.join(sorted(others))}")
    if not unknown and not again:
        wrong.append("no kill hit the moment")
    return Outcome(lost, twice, recovery_s, "; ".join(wrong))
