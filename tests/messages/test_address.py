"""Addresses and senders: what may stand on a command line and in a header."""

from __future__ import annotations

import pytest
from aiosmtplib.email import parse_address
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Refused, shown
from sinks.messages.address import LONGEST_ADDRESS, LONGEST_LOCAL, Sender, check_address, check_header, read_sender


@pytest.mark.parametrize(
    ("text", "address"),
    [("Ada.Lovelace+a@Example.COM", "Ada.Lovelace+a@example.com"), (" ada@example.com ", "ada@example.com"),
     ("ada@Bücher.example", "ada@xn--bcher-kva.example"), ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
     ("a\u0308da@example.com", "äda@example.com"), ("王@example.com", "王@example.com"),
     ("ada@straße.example", "ada@xn--strae-oqa.example"), ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
     ("a" * LONGEST_LOCAL + "@example.com", "a" * LONGEST_LOCAL + "@example.com")],
)  # fmt: skip
def test_an_address_is_written_as_on_the_wire(text: str, address: str):
    assert check_address(text) == address
    assert check_address(address) == address


@pytest.mark.parametrize(
    "text",
    ["", "ada", "@", "ada@", "@example.com", "a@b@example.com", "Ada <ada@example.com>", "<ada@example.com>",
     "ada@example.com,bob@example.com", "ada(comment)@example.com", '"a b"@example.com', "a..b@example.com",
     ".a@example.com", "a.@example.com", "a b@example.com", "ada@example", "ada@127.0.0.1", "ada@[127.0.0.1]",
     "ada@-a.example", "ada@a_b.example", "ada@exa mple.com", "ada@example.com.", "ada@example..com",
     "ada@example.com\n", "ada@example.com\r\nRCPT TO:<bob@example.com>", "ada@example.com> SIZE=1",
     "a\x00@example.com", "=?utf-8?q?a?=@example.com", "a\u2028b@example.com", "a\u200bb@example.com",
     "a\u202eb@example.com", "a\ufffdb@example.com", "\ud800@example.com", "ada@xn--0.example", "ada@\u2024.example",
     "a" * (LONGEST_LOCAL + 1) + "@example.com", "ä" * (LONGEST_LOCAL // 2 + 1) + "@example.com",
     "a@" + "a." * 130 + "example",
     "a@" + "ü" * 50 + ".example." + "a" * 62 + "." + "b" * 60 + "." + "c" * 60 + ".example"],
)  # fmt: skip
def test_what_is_no_mailbox_is_refused_with_the_value(text: str):
    with pytest.raises(Refused) as refused:
        check_address(text)

    assert refused.value.mend
    assert refused.value.value == shown(text)


@given(st.text(max_size=40) | st.from_regex(r"[^@]{1,10}@[^@]{1,10}\.[a-z]{2,3}", fullmatch=True))
def test_what_is_an_address_can_end_no_command(text: str):
    try:
        address = check_address(text)
    except Refused:
        return

    assert not set(address) & set(" \t\r\n<>,;:()\"\\[]\x00") and address.isprintable()
    assert address.count("@") == 1 and len(address.encode()) <= LONGEST_ADDRESS
    assert check_address(address) == parse_address(address) == address


def test_a_sender_has_a_name_or_none():
    assert read_sender(" Ada  & Bob, Inc. <News@shop.Example>") == Sender("Ada & Bob, Inc.", "News@shop.example")
    assert read_sender('"Müller" <a@shop.example>') == Sender("Müller", "a@shop.example")
    assert read_sender("a@shop.example") == Sender("", "a@shop.example")
    assert read_sender("a@Shop.example").domain == "shop.example"


@pytest.mark.parametrize(
    "text",
    ["Shop", "Shop <>", "Shop <a@b.example> more", "A\nB <a@b.example>", "=?utf-8?q?a?= <a@b.example>",
     'A "B" C <a@b.example>', "a\\b <a@b.example>", "N" * 101 + " <a@b.example>", "Ä <ä@b.example>",
     "A <a@b.example>, B <b@b.example>"],
)  # fmt: skip
def test_what_is_no_sender_is_refused(text: str):
    with pytest.raises(Refused):
        read_sender(text)


@pytest.mark.parametrize("bad", ["\r", "\n", "\x00", "\x0b", "\x7f", "\x85", "\u2028", "\u2029", "=?", "\udc80"])
def test_a_header_holds_nothing_that_ends_it(bad: str):
    with pytest.raises(Refused, match="a header of a mail may not"):
        check_header(f"a{bad}b", "subject")
