"""Reports of delivery and of complaints, as servers write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Refused
from sinks.messages.reports import MOST_BOUNDARIES, MOST_READ, MOST_REPORTS, Report, read_report
from tests.messages.test_mail import ID, wire

ADA = "ada@example.com"
HEADERS = wire().split(b"\r\n\r\n")[0].decode()

POSTFIX = """\
From: MAILER-DAEMON@relay.example (Mail Delivery System)
To: news@shop.example
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="4Xyz/relay.example"

This is a MIME-encapsulated message.

--4Xyz/relay.example
Content-Description: Notification
Content-Type: text/plain; charset=utf-8

I'm sorry to have to inform you that your message could not be delivered.

--4Xyz/relay.example
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example
{envelope}X-Postfix-Sender: rfc822; news@shop.example
Arrival-Date: Sun, 22 Nov 2026 08:00:00 +0000 (UTC)

{recipient}

--4Xyz/relay.example
Content-Description: Undelivered Message Headers
Content-Type: {returned}

{headers}

--4Xyz/relay.example--
"""
RECIPIENT = """\
Final-Recipient: rfc822; Ada@Example.com
Original-Recipient: rfc822;ada@example.com
Action: {action}
Status: {status}
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; {said}"""
ARF = """\
From: fbl@provider.example
Content-Type: multipart/report; report-type=feedback-report; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/plain

This is an email abuse report.

--b
Content-Type: message/feedback-report

Feedback-Type: {type}
User-Agent: SomeGenerator/1.0
Version: 1
Original-Rcpt-To: <ada@example.com>

--b
Content-Type: message/rfc822

{headers}

The text that she complains about.
--b--
"""


def a_report(
    action: str = "failed", status: str = "5.1.1", said: str = "550 5.1.1 unknown", *, recipient: str = "",
    returned: str = "text/rfc822-headers", headers: str = HEADERS, envelope: str = "",
) -> bytes:  # fmt: skip
    recipient = recipient or RECIPIENT.format(action=action, status=status, said=said)
    return POSTFIX.format(recipient=recipient, returned=returned, headers=headers, envelope=envelope).encode()


def one(raw: bytes) -> Report:
    (report,) = read_report(raw)
    return report


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("returned", ["text/rfc822-headers", "message/rfc822", "message/global-headers"])
def test_a_bounce_names_message_address_and_cause(returned: str, end: bytes):
    raw = a_report(returned=returned).replace(b"\r\n", b"\n").replace(b"\n", end)

    assert one(raw) == Report("bounced", ID, ADA, "5.1.1", "failed 550 5.1.1 unknown", True)


@pytest.mark.parametrize(
    ("action", "status", "said", "kind", "counted", "is_address"),
    [("failed", "5.7.1", "550 5.7.1 blocked", "bounced", "5.7.1", False),
     ("failed", "5.2.2", "552 5.2.2 full", "bounced", "5.2.2", False),
     ("failed", "4.4.7", "451 4.4.7 expired", "bounced", "4.4.7", False),
     ("failed", "5.0.0", "550-5.1.1 unknown", "bounced", "5.1.1", True),
     ("failed", "5.0.0", "550 unknown", "bounced", "5.0.0", False),
     ("failed", "", "550 5.1.2 x", "bounced", "5.1.2", True),
     ("FAILED", "5.1.1 (unknown)", "550 x", "bounced", "5.1.1", True),
     ("delayed", "4.4.1", "451 4.4.1 no answer", "delayed", "4.4.1", False),
     ("delayed", "5.1.1", "550 5.1.1 odd", "delayed", "5.1.1", False),
     ("delivered", "2.0.0", "250 ok", "delivered", "2.0.0", False),
     ("relayed", "2.0.0", "250 ok", "other", "2.0.0", False),
     ("expanded", "2.0.0", "250 ok", "other", "2.0.0", False)],
)  # fmt: skip
def test_only_what_was_given_up_is_a_bounce(
    action: str, status: str, said: str, kind: str, counted: str, is_address: bool
):
    report = one(a_report(action, status, said))

    assert (report.kind, report.status, report.is_address) == (kind, counted, is_address)
    assert report.message_id == ID and said in report.why


def test_the_message_is_known_by_its_envelope_by_our_header_or_by_its_name():
    other = "f" * 32
    renamed = HEADERS.replace(f"<{ID}@shop.example>", "<010001@email.provider.example>")
    bare = f"Message-ID: <{ID}@shop.example>\nTo: ada@example.com"

    assert one(a_report(headers="Subject: x", envelope=f"Original-Envelope-Id: {other}\n")).message_id == other
    assert one(a_report(headers=renamed)).message_id == ID
    assert one(a_report(headers=bare)).message_id == ID
    assert one(a_report(headers="Message-ID: <mine@shop.example>")).message_id == ""


@pytest.mark.parametrize(("type_", "kind"), [("abuse", "complained"), ("fraud", "complained"), ("not-spam", "other")])
def test_a_complaint_is_one(type_: str, kind: str):
    report = one(ARF.format(type=type_, headers=HEADERS).encode())

    assert report == Report(kind, ID, ADA, "", f"feedback: {type_} SomeGenerator/1.0", False)  # type: ignore[arg-type]


def test_a_complaint_without_her_address_is_of_whom_the_mail_was_for():
    raw = ARF.format(type="abuse", headers=HEADERS).replace("Original-Rcpt-To: <ada@example.com>\n", "")

    assert one(raw.encode()).address == ADA


def test_a_report_is_found_in_what_lists_and_filters_put_around_it():
    inner = a_report().decode().partition("MIME-Version: 1.0\n")[2]
    raw = f'From: list@example.com\nContent-Type: multipart/mixed; boundary="o"\n\n--o\n{inner}\n--o\n\nfooter\n--o--\n'

    assert one(raw.encode()).kind == "bounced"


def test_a_report_that_is_attached_is_of_somebody_else():
    """Who forwards a report, or complains of one, reports nothing of our message."""
    raw = b"From: a@b.example\nContent-Type: message/rfc822\n\n" + a_report()

    assert read_report(raw) == []


@pytest.mark.parametrize(
    "raw",
    [b"From: ada@example.com\nSubject: Out of office\nAuto-Submitted: auto-replied\n\nI am away. Status: 5.1.1\n",
     b"From: ada@example.com\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n"
     b"--b\n\nread\n--b\n"
     b"Content-Type: message/disposition-notification\n\nDisposition: manual-action; displayed\n--b--\n",
     wire(), a_report(recipient=" "), b"From: a\nContent-Type: message/delivery-status\n\n"],
    ids=["out of office", "read", "a mail", "of nobody", "of one part"],  # a mail has a boundary of its own each time
)  # fmt: skip
def test_what_is_no_report_says_nothing(raw: bytes):
    assert read_report(raw) == []


def test_an_address_that_is_none_and_words_that_are_no_line_stay_outside():
    recipient = RECIPIENT.format(action="failed", status="5.1.1", said="550 a\x1b[2J\n more " + "x" * 900)
    raw = a_report(recipient=recipient.replace("ada@example.com", "<script>").replace("Ada@Example.com", "\x00"))

    report = one(raw)

    assert report.address == "" and report.why.isprintable() and len(report.why) <= 200


def test_addresses_in_utf_8_have_reports_of_their_own_kind():
    raw = a_report().replace(b"message/delivery-status", b"message/global-delivery-status")
    raw = raw.replace(b"rfc822;ada@", "utf-8; ädä@".encode())

    assert one(raw).address == "ädä@example.com"


@pytest.mark.parametrize("raw", [b"", b"\n\n", b"hello\nworld", b"\x00\xff" * 100])
def test_what_is_no_mail_is_refused(raw: bytes):
    with pytest.raises(Refused, match="no mail"):
        read_report(raw)


def test_what_is_made_to_be_hard_to_read_is_not_read_to_its_end():
    nested = b"".join(
        b'Content-Type: multipart/report; boundary="b%d"\n\n--b%d\n' % (i, i) for i in range(MOST_BOUNDARIES)
    )
    began = time.process_time()

    with pytest.raises(Refused, match="parts within parts"):
        read_report(nested * 2)
    with pytest.raises(Refused, match="cannot be read"):
        read_report(b"Content-Type: message/rfc822\n\n" * 8_000)
    assert read_report(nested + b"--b19\n\n" * 10_000) == []
    recipient = RECIPIENT.format(action="failed", status="5.1.1", said="550 x")
    assert len(read_report(a_report(recipient=f"{recipient}\n\n" * 300))) == MOST_REPORTS
    assert one(a_report() + b"x" * 5 * MOST_READ).kind == "bounced"
    assert read_report(a_report().replace(b"I'm sorry", b"I'm sorry\n" * MOST_READ)) == []
    assert time.process_time() - began < 3


@given(st.data())
def test_whatever_becomes_of_a_report_it_is_read_or_refused(data: st.DataObject):
    complaint = ARF.format(type="abuse", headers=HEADERS).encode()
    raw = data.draw(st.sampled_from([a_report(returned="message/rfc822"), complaint]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        raw = raw[:start] + data.draw(st.binary(max_size=8)) + raw[start + data.draw(st.integers(0, 200)) :]

    try:
        reports = read_report(raw)
    except Refused:
        return

    assert all(len(report.message_id) in (0, 32) and report.why.isprintable() for report in reports)
