"""What answers of SMTP servers mean. The texts are those of real servers."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.messages.channel import Accepted, Declined, Later, Unknown
from sinks.messages.smtp_answers import LONGEST_REFERENCE, Stage, answered, broken, is_of_address, one_line

EARLY: tuple[Stage, ...] = ("connect", "EHLO", "STARTTLS", "AUTH", "RSET", "MAIL")
STAGES: tuple[Stage, ...] = get_args(Stage)


def kind(stage: Stage, said: str) -> str:
    """The outcome in short."""
    match answered(stage, int(said[:3]), said[4:], "relay"):
        case Later(is_down=is_down):
            return "down" if is_down else "later"
        case Declined(is_address=is_address):
            return "no address" if is_address else "declined"
        case other:
            return type(other).__name__.lower()


@pytest.mark.parametrize(
    ("stage", "said", "meant"),
    [
        ("connect", "421 too many connections", "down"), ("connect", "554 5.7.1 you are listed", "down"),
        ("EHLO", "502 no such command", "down"), ("STARTTLS", "454 4.7.0 TLS not available", "down"),
        ("AUTH", "535 5.7.8 Authentication credentials invalid", "down"), ("AUTH", "454 4.7.0 later", "down"),
        ("MAIL", "530 5.7.0 Authentication required", "down"), ("MAIL", "550 5.7.1 sender not yours", "down"),
        ("MAIL", "553 sender refused", "down"), ("MAIL", "452 4.3.1 Insufficient system storage", "down"),
        ("MAIL", "552 5.3.4 Message size exceeds fixed limit", "declined"), ("MAIL", "552 too large", "declined"),
        ("MAIL", "553 5.6.7 SMTPUTF8 is required", "declined"),
        ("RCPT", "450 4.2.1 The user is receiving mail too quickly", "later"), ("RCPT", "451 try later", "later"),
        ("RCPT", "452 4.2.2 mailbox full", "later"), ("RCPT", "450 4.7.1 Greylisting in action", "later"),
        ("RCPT", "450 4.7.1 too much mail from you", "down"), ("RCPT", "421 4.7.0 slow down", "down"),
        ("RCPT", "550 5.1.1 No such user", "no address"), ("RCPT", "550 5.1.1 no\n5.1.1 user", "no address"),
        ("RCPT", "550 no such user here", "no address"), ("RCPT", "551 not local", "no address"),
        ("RCPT", "553 not allowed", "no address"), ("RCPT", "556 5.1.10 Recipient has null MX", "no address"),
        ("RCPT", "501 5.1.3 Bad recipient address syntax", "no address"),
        ("RCPT", "550 5.2.1 The account is disabled", "no address"),
        ("RCPT", "552 5.2.2 Over quota", "later"), ("RCPT", "552 full", "later"), ("RCPT", "550 5.2.2 full", "later"),
        ("RCPT", "552 5.3.4 too large", "declined"), ("RCPT", "554 5.7.1 <a@b.example>: Relay access denied", "down"),
        ("RCPT", "550 relay not permitted", "down"), ("DATA", "530 5.7.0 log in first", "down"),
        ("RCPT", "550 5.7.1 blocked", "declined"), ("RCPT", "550 5.4.1 Access denied", "declined"),
        ("RCPT", "554 no", "declined"), ("RCPT", "550 5.1.8 Sender domain not found", "down"),
        ("RCPT", "553 5.1.7 Sender syntax", "down"), ("RCPT", "504 5.5.2 need a whole name to greet with", "down"),
        ("RCPT", "530 log in first", "down"), ("RCPT", "503 5.5.1 need MAIL", "down"),
        ("DATA", "451 4.3.0 later", "later"), ("DATA", "421 going", "down"),
        ("DATA", "554 no valid recipients", "declined"),
        ("end", "451 4.3.0 disk", "later"), ("end", "421 4.3.2 going down", "down"),
        ("end", "451 4.7.1 looks odd", "later"), ("end", "550 content refused", "declined"),
        ("end", "554 5.7.1 spam", "declined"), ("end", "552 5.3.4 too large", "declined"),
        ("end", "552 5.2.2 full", "later"), ("end", "552 too much", "declined"),
        ("end", "550 5.1.1 unknown", "no address"), ("end", "354 go on", "unknown"),
        ("DATA", "250 ok", "later"), ("MAIL", "354 what", "down"),
    ],
)  # fmt: skip
def test_an_answer_means(stage: Stage, said: str, meant: str):
    assert kind(stage, said) == meant


def test_what_fails_before_a_recipient_is_named_is_the_channel():
    for stage in EARLY:
        for code in (421, 450, 451, 454, 500, 535, 550, 554):
            assert kind(stage, f"{code} 5.1.1 no") == "down", (stage, code)


def test_without_an_answer_only_the_dot_leaves_anybody_in_doubt():
    for stage in STAGES:
        outcome = broken(stage, "gone")
        if stage == "end":
            assert outcome == Unknown("gone")
        else:
            assert outcome == Later("gone", is_down=stage in EARLY)


@given(st.sampled_from(STAGES), st.integers(200, 599), st.text(max_size=300))
def test_every_answer_is_one_outcome_and_one_line(stage: Stage, code: int, text: str):
    outcome = answered(stage, code, text, "relay")

    if isinstance(outcome, Accepted):
        assert stage == "end" and code < 300 and len(outcome.reference) <= LONGEST_REFERENCE
    else:
        assert outcome.why.isprintable() and str(code) in outcome.why and len(outcome.why) <= 200
    assert not isinstance(outcome, Unknown) or (stage == "end" and 300 <= code < 400)


@pytest.mark.parametrize(
    ("text", "reference"),
    [("2.0.0 Ok: queued as 4XyzAB12", "4XyzAB12"), ("OK id=1rABcd-0002Ef-Gh", "1rABcd-0002Ef-Gh"),
     ("2.6.0 <a@b> [InternalId=12345, Hostname=x] Queued mail for delivery", "12345"),
     ("Ok 0102018f0a-1b2c-000000", "0102018f0a-1b2c-000000"),
     ("2.0.0 4AM8m0001 Message accepted for delivery", "4AM8m0001"),
     ("2.0.0 OK 1700000000 a1-20020a - gsmtp", "2.0.0 OK 1700000000 a1-20020a - gsmtp"),
     ("queued as " + "x" * 300, "x" * LONGEST_REFERENCE), ("", "")],
)  # fmt: skip
def test_the_name_of_a_mail_in_the_queue_is_found(text: str, reference: str):
    assert answered("end", 250, text, "relay") == Accepted(reference)


def test_what_a_server_says_is_one_line():
    assert one_line("a\r\nb\x1b[31m\u202ec\u2028 \udcff d\x00") == "a b [31m c d"
    assert len(one_line("a" * 500)) == 200


def test_only_some_statuses_are_about_the_address():
    assert is_of_address("5.1.6") and not is_of_address("5.1.7") and not is_of_address("5.2.2")
