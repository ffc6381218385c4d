"""Mails from the order to a real mail server and back: links, the way out, bounces and complaints, with a real `up`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller

from tests.cli.running import Up
from tests.kafka_broker import free_ports
from tests.messages.test_reports import ARF, POSTFIX, RECIPIENT

pytestmark = pytest.mark.together

PUBLIC = "https://go.shop.test"
OFFER = """\
channel: email
kind: marketing
topic: offers
content:
  en:
    subject: "For {{ profile.name }}"
    text: "Hello {{ profile.name }}. No more: {{ message.unsubscribe }}"
    html: |
      <p><a href="https://shop.test/sale?a=1&amp;b=2">Sale</a>, <a href="{{ message.preferences }}">choose</a></p>
"""
CHANNELS = """\
email:
  via: smtp
  rate: 1000
  smtp: {{host: 127.0.0.1, port: {port}, security: none, from: Shop <news@shop.example>}}
"""
PEOPLE = ("ada", "bob", "eve")
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}


class Postbox:
    """Takes mails as a server does."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, Message]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.rcpt_tos[0], message_from_bytes(envelope.content, policy=default)))
        return "250 2.0.0 OK: queued as 12345"


class Shop(Up):
    """An `up` that sends mails, and the server that takes them."""

    def __init__(self, folder: Path) -> None:
        self.postbox = Postbox()
        (port,) = free_ports(1)
        self.server = Controller(self.postbox, hostname="127.0.0.1", port=port)
        self.server.start()
        (folder / "config" / "templates").mkdir(parents=True)
        (folder / "config" / "templates" / "offer.yaml").write_text(OFFER)
        (folder / "config" / "channels.yaml").write_text(CHANNELS.format(port=port))
        super().__init__(folder, TIDEWIRE_PUBLIC_URL=PUBLIC)
        lines = [f'{{"type": "identify", "userId": "{who}", "traits": {{"email": "{who}@example.com", '
                 f'"name": "{who.title()}", "consent": {{"offers": true}}}}}}' for who in PEOPLE]  # fmt: skip
        (folder / "people.jsonl").write_text("\n".join(lines))
        assert self.ask("send", "people.jsonl").code == 0
        self.until(lambda: self.count("SELECT count() FROM person_list") == len(PEOPLE))

    def until(self, reached: Callable[[], bool]) -> None:
        by = time.monotonic() + 30
        while not reached():
            assert time.monotonic() < by, (self.folder / "up.log").read_text()[-2000:]
            time.sleep(0.5)  # a question is a process of its own

    def send(self, who: str) -> tuple[str, str]:
        """Its state, with why, and its id."""
        said = self.ask("message", "send", "offer", "--to", who, "--wait", "30").out.strip()
        found = re.match(r"(.*) \((\w+)\)$", said)
        assert found is not None, said
        return found[1], found[2]

    def link(self, address: str, method: str = "GET", **more: Any) -> httpx.Response:
        """As a proxy at the public address passes it on."""
        return httpx.request(method, address.replace(PUBLIC, self.url), headers=BROWSER, trust_env=False, **more)

    def events(self, message: str) -> list[str]:
        rows = self.ask("sql", "SELECT person, event FROM event_log WHERE source = 'tidewire' AND "
                        f"(toString(properties.message_id) = '{message}') ORDER BY timestamp, event", "--json").rows
        assert {row["person"] for row in rows} <= {f"default/u:{who}" for who in PEOPLE}
        return [row["event"] for row in rows]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("mails"))
    yield shop
    shop.stop()
    shop.server.stop()


def test_a_mail_arrives_and_one_click_ends_them(shop: Shop) -> None:
    state, id_ = shop.send("ada")
    ((to, mail),) = [each for each in shop.postbox.mails if id_ in each[1]["Message-ID"]]
    way_out = re.fullmatch(r"<(https://go\.shop\.test/l/u/\S+)>", mail["List-Unsubscribe"])[1]
    html = mail.get_body(("html",)).get_content()  # type: ignore[attr-defined]
    (sale,) = re.findall(rf'"({PUBLIC}/l/c/[^"]+)"', html)
    (choose,) = re.findall(rf'"({PUBLIC}/l/p/[^"]+)"', html)
    (picture,) = re.findall(rf'"({PUBLIC}/l/o/[^"]+)"', html)

    assert (state, to, mail["Subject"]) == ("sent", "ada@example.com", "For Ada")
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert way_out in re.sub(r"\s", "", mail.get_body(("plain",)).get_content())  # type: ignore[attr-defined]

    clicked = shop.link(sale)
    assert (clicked.status_code, clicked.headers["location"]) == (302, "https://shop.test/sale?a=1&b=2")
    assert shop.link(picture).headers["content-type"] == "image/gif"
    assert shop.link(choose).status_code == 200
    shop.until(lambda: {"Message Clicked", "Message Opened", "Message Sent"} <= set(shop.events(id_)))

    assert shop.link(way_out).status_code == 200  # GET changes nothing
    assert shop.send("ada")[0] == "sent"
    assert shop.link(way_out, "POST", data={"List-Unsubscribe": "One-Click"}).status_code == 200
    assert shop.send("ada")[0] == "withheld: no_consent"


def test_a_bounce_that_comes_back_ends_mails_to_the_address(shop: Shop) -> None:
    state, id_ = shop.send("bob")
    recipient = RECIPIENT.format(action="failed", status="5.1.1", said="550 5.1.1 no such user").replace(
        "ada@example.com", "somebody.else@example.com")  # fmt: skip
    (shop.folder / "bounce.eml").write_text(
        POSTFIX.format(envelope=f"Original-Envelope-Id: {id_}\n", recipient=recipient, returned="text/rfc822-headers",
                       headers="Subject: x"))  # fmt: skip

    told = shop.ask("message", "report", "bounce.eml")
    again = shop.ask("message", "report", "bounce.eml")
    shop.until(lambda: "Message Bounced" in shop.events(id_))
    shop.until(lambda: "bob@example.com" in shop.ask("suppression", "list").out)
    listed = shop.ask("suppression", "list", "--json").rows

    assert state == "sent" and told.code == again.code == 0 and told.out.startswith(f"{id_}: bounced (")
    assert [(row["address"], row["reason"], row["message"]) for row in listed] == [
        ("bob@example.com", "bounced", id_)]  # fmt: skip
    assert shop.events(id_).count("Message Bounced") == 1
    assert shop.send("bob")[0] == "withheld: bounced"


def test_what_is_no_report_of_ours_changes_nothing(shop: Shop) -> None:
    recipient = RECIPIENT.format(action="failed", status="5.1.1", said="550 5.1.1 no such user")
    stranger = POSTFIX.format(envelope=f"Original-Envelope-Id: {'0' * 32}\n", recipient=recipient,
                              returned="text/rfc822-headers", headers="Subject: x")  # fmt: skip
    (shop.folder / "stranger.eml").write_text(stranger)
    (shop.folder / "reply.eml").write_text("From: eve@example.com\nSubject: Re\n\nStop it.\n")

    told, reply = (shop.ask("message", "report", f"{name}.eml") for name in ("stranger", "reply"))
    missing = shop.ask("message", "report", "nowhere.eml")

    assert told.code == 1 and "nothing: it names no message of ours" in told.out
    assert reply.code == 1 and "is no report of delivery" in reply.err
    assert missing.code == 1 and "nowhere.eml cannot be read" in missing.err
    assert shop.send("eve")[0] == "sent"


def test_who_complains_gets_no_marketing_any_more(shop: Shop) -> None:
    _, id_ = shop.send("eve")
    ((_, mail),) = [each for each in shop.postbox.mails if id_ in each[1]["Message-ID"]]
    headers = "\n".join(f"{name}: {value}" for name, value in mail.items() if name in ("Message-ID", "To"))
    (shop.folder / "complaint.eml").write_text(ARF.format(type="abuse", headers=headers))

    told = shop.ask("message", "report", "complaint.eml")
    shop.until(lambda: "Message Complained" in shop.events(id_))
    shop.until(lambda: "eve@example.com" in shop.ask("suppression", "list").out)
    (listed,) = shop.ask("suppression", "list", "--part", "eve@", "--json").rows

    assert told.out.startswith(f"{id_}: complained (feedback: abuse")
    assert (listed["reason"], listed["message"]) == ("complained", id_)
    assert "Unsubscribed" in shop.events(id_)
    assert shop.send("eve")[0] == "withheld: no_consent"
