"""A mail as it stands on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import compat32, default
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import Refused
from sinks.messages.address import NO_HEADER
from sinks.messages.channel import Message
from sinks.messages.mail import LARGEST_MAIL, LONGEST_LINE, mail_of, wire_of
from sinks.messages.rendering import LONGEST_SUBJECT, Rendered
from sinks.messages.reports import MOST_BOUNDARIES, MOST_READ, Kind
from sinks.messages.smtp_settings import SmtpSettings

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
ID = "0123456789abcdef" * 2
SETTINGS: dict[str, Any] = {"host": "127.0.0.1", "security": "none", "from": "Shop <news@shop.example>"}
HELLO = Rendered("en", "Hello", "", "Hello Ada", "<p>Hello Ada</p>")
MESSAGE = Message(ID, "default/u:ada", "ada@example.com", "hello", "transactional", "", HELLO)


def a_message(**content: str) -> Message:
    return MESSAGE._replace(content=HELLO._replace(**content))


def wire(message: Message = MESSAGE, **settings: object) -> bytes:
    return wire_of(mail_of(message, SmtpSettings.model_validate({**SETTINGS, **settings}), NOW))


def read(octets: bytes) -> EmailMessage:
    """As a mail program reads it."""
    mail = message_from_bytes(octets, policy=default)
    assert isinstance(mail, EmailMessage) and not mail.defects
    return mail


def decoded(octets: bytes, header: str) -> str:
    """A header by Python's older reader, which knows nothing of how it was written."""
    return str(make_header(decode_header(message_from_bytes(octets, policy=compat32)[header].replace("\r\n", ""))))


def test_a_mail_says_who_it_is_from_and_what_it_is():
    mail = read(wire())

    assert {name: str(mail[name]) for name in mail if name not in ("Content-Type", "MIME-Version")} == {
        "From": "Shop <news@shop.example>", "To": "ada@example.com", "Subject": "Hello",
        "Date": "Sun, 22 Nov 2026 08:00:00 +0000", "Message-ID": f"<{ID}@shop.example>", "Content-Language": "en",
        "Auto-Submitted": "auto-generated", "X-Tidewire-Message": f"{ID}; template=hello",
    }  # fmt: skip
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert [part.get_content() for part in mail.iter_parts()] == ["Hello Ada\r\n", "<p>Hello Ada</p>\r\n"]


def test_a_marketing_mail_can_be_left_with_one_click():
    url = "https://shop.example/u/" + "t" * 500
    mail = read(wire(MESSAGE._replace(kind="marketing", topic="offers", unsubscribe=url), reply_to="ada@shop.example"))

    assert mail["List-Unsubscribe"] == f"<{url}>" and mail["Reply-To"] == "ada@shop.example"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "Auto-Submitted" not in mail


def test_a_long_address_to_leave_by_stands_in_one_line():
    url = "https://shop.example/u?" + "t=a;b,c&" * 100

    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in wire(MESSAGE._replace(unsubscribe=url))


def test_there_is_only_what_there_is():
    assert read(wire(a_message(html=""))).get_content_type() == "text/plain"
    assert read(wire(a_message(text=""))).get_content_type() == "text/html"
    with pytest.raises(Refused, match="neither text nor HTML"):
        wire(a_message(text="", html=""))


@example(" a ")
@example("a?=  b?= c")
@example("ü" * LONGEST_SUBJECT)
@example("𐀀" * 10)
@given(st.text(max_size=LONGEST_SUBJECT).filter(lambda text: not NO_HEADER.search(text)))
def test_a_subject_is_read_as_it_was_written(subject: str):
    octets = wire(a_message(subject=subject))

    assert decoded(octets, "Subject") == subject
    assert all(len(line) <= 76 for line in octets.split(b"\r\n") if b"=?" in line)  # RFC 2047, 2


@given(st.text("Aü,;:@<>()[]. '王", max_size=80).filter(lambda name: not set(name) & set("<>")))
def test_a_name_is_read_as_it_was_written_and_moves_no_address(name: str):
    octets = wire(**{"from": f"{name} <news@shop.example>"})

    (sender,) = read(octets)["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (" ".join(name.split()), "news@shop.example")


@pytest.mark.parametrize(
    "bad", ["\r\nBcc: a@b.example", "\nBcc: a@b.example", "\rX", "\x00", "\x85", "\u2028", "\u2029", "\ud800",
            " =?UTF-8?Q?=0A?=Bcc: a@b.example", "=?utf-8?b?DQpCY2M6IGE=?="],
)  # fmt: skip
@pytest.mark.parametrize("where", ["subject", "language", "to", "template", "unsubscribe", "id", "from"])
def test_nothing_can_be_put_into_the_headers(where: str, bad: str):
    with pytest.raises((Refused, ValueError)):
        if where in ("subject", "language"):
            wire(a_message(**{where: f"a{bad}"}))
        elif where == "from":
            wire(**{"from": f"a{bad} <a@b.example>"})
        else:
            good = "https://a.example/" if where == "unsubscribe" else getattr(MESSAGE, where)
            wire(MESSAGE._replace(**{where: good + bad}))


@pytest.mark.parametrize(
    ("header", "value", "why"),
    [("Bcc", "bob@example.com", "none of ours"), ("Reply-To", "a" * LONGEST_LINE, "at most 998")],
)
def test_what_is_written_is_looked_at_once_more(header: str, value: str, why: str):
    mail = mail_of(MESSAGE, SmtpSettings.model_validate(SETTINGS), NOW)
    mail[header] = value

    with pytest.raises(Refused, match=why):
        wire_of(mail)


def test_a_body_is_seven_bits_wide_and_has_no_long_lines():
    text = "王" * 3_000 + "\r\rA" * 3 + "\x00\x0b.\n.." + "a" * 3_000
    octets = wire(a_message(text=text, html=""))

    assert octets.isascii() and max(map(len, octets.split(b"\r\n"))) <= LONGEST_LINE
    assert b"\r" not in octets.replace(b"\r\n", b"") and b"\n" not in octets.replace(b"\r\n", b"")
    assert b"\x00" not in octets
    said = text.replace("\r", "\n").replace("\x00\x0b", "") + "\n"
    assert read(octets).get_content().replace("\r\n", "\n") == said


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n"), min_size=1, max_size=200))
def test_a_text_is_read_as_it_was_written(text: str):
    octets = wire(a_message(text=text, html=""))

    assert octets.endswith(b"\r\n") and octets.isascii()
    assert read(octets).get_content().replace("\r\n", "\n") == text + "\n" * (not text.endswith("\n"))


def test_half_a_character_and_too_much_are_refused():
    with pytest.raises(Refused, match="half of a character"):
        wire(a_message(text="\ud800"))
    with pytest.raises(Refused, match="at most 5,000,000"):
        wire(a_message(text="a\n" * (LARGEST_MAIL // 3 + 1)))


def test_an_address_that_is_not_ascii_makes_its_mail_utf_8():
    octets = wire(MESSAGE._replace(to="王@bücher.example"))

    assert "\r\nTo: 王@xn--bcher-kva.example\r\n".encode() in octets


@pytest.mark.parametrize(
    ("said", "why"),
    [({"host": "smtp.example.com"}, "this machine only"), ({"user": "ada"}, "for all to read"),
     ({"host": "a..b", "security": "tls"}, "no name of a machine"),
     ({"host": "", "security": "tls"}, "no name of a machine"),
     ({"from": "Shop"}, 'one "@"'), ({"reply_to": "a"}, 'one "@"'), ({"bounces_to": "ä@b.example"}, "not ASCII"),
     ({"helo": "a b"}, "no name of a machine"), ({"password": "x"}, "Extra inputs")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(said: dict[str, object], why: str):
    with pytest.raises(ValueError, match=why):
        SmtpSettings.model_validate({**SETTINGS, **said})


def test_settings_say_how_long_a_message_takes_at_most():
    settings = SmtpSettings.model_validate(SETTINGS)

    assert settings.longest_call_s == 115 < 120
    assert SmtpSettings.model_validate({**SETTINGS, "host": "::1"}).is_loopback


def test_the_page_names_every_key_and_the_limits():
    page = Path("docs/email.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    rows = page.partition("| key |")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (?:`?([\w ]+)[^|]* )?\|", rows, re.MULTILINE))

    assert SmtpSettings.model_validate(yaml.safe_load(example)["email"]["smtp"]).security == "starttls"
    fields = {field.alias or name: field for name, field in SmtpSettings.model_fields.items()}
    assert set(told) == set(fields)
    for name in ("security", *(name for name in told if name == "port" or name.endswith(("_s", "connection")))):
        assert str(fields[name].default) == told[name].strip(), name
    assert all(f"`{kind}`" in page for kind in get_args(Kind))
    assert (LARGEST_MAIL, MOST_READ, MOST_BOUNDARIES) == (5_000_000, 250_000, 20)
