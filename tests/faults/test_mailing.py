"""The mail server of the rows: it takes mails, is told otherwise while it works, and comes back where it was."""

from __future__ import annotations

import smtplib

import pytest

from tests.faults.mailing import MailServer
from tests.messages.smtp_server import DROP


def send(port: int, id_: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        mail = f"X-Tidewire-Message: {id_}\r\n\r\nHello\r\n.\r\nAda\r\n"
        client.sendmail("shop@example.com", "ada@example.com", mail)


def test_mails_are_taken_and_told_of_while_nobody_was_answered_yet():
    server, told = MailServer(), []
    try:
        server.when_it_has_the_next(lambda: told.append(list(server.taken)))
        send(server.port, "m1")
        send(server.port, "m2")

        assert server.taken == ["m1", "m2"] and told == [["m1"]] and server.unanswered == 0
    finally:
        server.stop()


def test_it_does_as_it_is_told_and_comes_back_where_it_was():
    server = MailServer()
    try:
        port = server.port
        server.say(end=DROP)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            send(port, "m1")
        server.close()
        with pytest.raises(ConnectionRefusedError):
            send(port, "m2")
        server.open()
        server.say(MAIL=b"450 4.2.0 not now\r\n")
        with pytest.raises(smtplib.SMTPSenderRefused, match="not now"):
            send(port, "m3")
        server.say()
        send(port, "m4")

        assert server.taken == ["m1", "m4"] and server.unanswered == 1 and server.port == port
    finally:
        server.stop()
