"""The channel by SMTP, against a real server and one that does everything wrong, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import Envelope as Received

from schemas.errors import ConfigError
from sinks.messages.channel import Accepted, Declined, Later, Outcome, Unknown
from sinks.messages.smtp import SmtpChannel
from sinks.messages.smtp_settings import SmtpSettings
from tests.messages.smtp_server import ANSWERS, DROP, HANG, SLOWLY, ScriptedServer, certificate
from tests.messages.test_mail import ID, MESSAGE, SETTINGS, a_message

SHORT_S = 0.2  # of the phase that is to fail
STARTTLS = b"250-here\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"
LOGIN = {"security": "starttls", "user": "ada", "password": "canary-secret"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def a_channel(
    port: int, context: ssl.SSLContext | None = None, password: str = "", **settings: Any
) -> AsyncIterator[SmtpChannel]:
    said = {**SETTINGS, "port": port, "connect_timeout_s": 5, "answer_timeout_s": 5, "end_timeout_s": 5, **settings}
    channel = SmtpChannel(SmtpSettings.model_validate(said), password, context)
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def talking(
    context: tuple[ssl.SSLContext, ssl.SSLContext] | None = None, says: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[SmtpChannel, ScriptedServer]]:  # fmt: skip
    """A channel and its server. When they part, no socket is left, and no task."""
    server_context, client_context = context or (None, None)
    is_tls = settings.get("security") == "tls"
    server = ScriptedServer(says or {}, None if is_tls else server_context)
    async with server.running(server_context if is_tls else None):
        async with a_channel(server.port, client_context, **settings) as channel:
            yield channel, server
        await until(lambda: server.open == 0 and asyncio.all_tasks() == {asyncio.current_task()})
    gc.collect()  # a socket or a transport that was forgotten warns now, and warnings are errors


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def said(says: dict[str, Any], **settings: Any) -> tuple[Outcome, ScriptedServer]:
    async with talking(says=says, **settings) as (channel, server):
        return await channel.send(MESSAGE), server


# --- a good server


class Handler:
    """Keeps what aiosmtpd took."""

    def __init__(self) -> None:
        self.taken: list[Received] = []

    async def handle_DATA(self, server: Server, session: object, envelope: Received) -> str:
        self.taken.append(envelope)
        return "250 OK id=1rABcd-0002Ef"


async def test_a_real_server_takes_a_mail_as_it_was_written():
    handler = Handler()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(handler, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    text = ".\n..two\n.three\n\n.\nend\n."
    async with a_channel(server.sockets[0].getsockname()[1]) as channel:
        outcomes = [await channel.send(a_message(text=text, html="")),
                    await channel.send(MESSAGE._replace(to="王@bücher.example"))]  # fmt: skip
    server.close()
    await server.wait_closed()

    first, second = handler.taken
    assert outcomes == [Accepted("1rABcd-0002Ef")] * 2
    assert (first.mail_from, first.rcpt_tos) == ("news@shop.example", ["ada@example.com"])
    assert second.rcpt_tos == ["王@xn--bcher-kva.example"] and "SMTPUTF8" in second.mail_options
    assert isinstance(first.content, bytes)
    body = message_from_bytes(first.content, policy=policy.default)
    assert body.get_content().replace("\r\n", "\n") == text + "\n"  # type: ignore[attr-defined]


async def test_a_server_that_forwards_takes_the_mail():
    outcome, server = await said({"RCPT": b"251 2.1.5 will forward\r\n"})

    assert outcome == Accepted("4XyzAB") and len(server.mails) == 1


async def test_the_envelope_names_the_message_where_the_server_wants_it():
    outcome, server = await said({"EHLO": b"250-here\r\n250-DSN\r\n250 SIZE\r\n"}, bounces_to="back@shop.example")

    assert outcome == Accepted("4XyzAB")
    size = next(len(mail) for mail in server.mails)
    assert f"MAIL FROM:<back@shop.example> SIZE={size} RET=HDRS ENVID={ID}" in server.commands
    assert server.commands[0] == "EHLO shop.example" and server.commands[-1] == "QUIT"


# --- what fails, and what it means


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        ({"": b"421 too busy\r\n"}, Later("421 too busy", is_down=True)),
        ({"": DROP}, Later("at connect", is_down=True)),
        ({"": b"what is this\r\n"}, Later("no answer of SMTP", is_down=True)),
        ({"": b"2" * 40_000}, Later("too long", is_down=True)),
        ({"": b"220-more\r\n" * 5_000}, Later("too long", is_down=True)),
        ({"EHLO": b"550 go away\r\n"}, Later("answered EHLO with 550", is_down=True)),
        ({"MAIL": b"550 5.7.1 not you\r\n"}, Later("answered MAIL with 550", is_down=True)),
        ({"MAIL": DROP}, Later("at MAIL", is_down=True)),
        ({"RCPT": b"450 later\r\n"}, Later("answered RCPT with 450 later")),
        ({"RCPT": b"550 5.1.1 <ada@example.com>:\x1b[31m unknown\r\n"}, Declined("5.1.1", is_address=True)),
        ({"RCPT": DROP}, Later("at RCPT")),
        ({"DATA": b"451 later\r\n"}, Later("answered DATA")),
        ({"DATA": b"250 ok\r\n"}, Later("answered DATA with 250")),
        ({".": b"552 5.3.4 too large\r\n"}, Declined("answered the mail with 552")),
        ({".": b"451 4.3.0 disk\r\n"}, Later("451")),
        ({".": b"421 going\r\n"}, Later("421", is_down=True)),
        ({".": DROP}, Unknown("at end")),
        ({".": b"wh\x00at\r\n"}, Unknown("no answer of SMTP")),
    ],
)  # fmt: skip
async def test_what_a_server_does_means(says: dict[str, bytes], outcome: Later | Declined | Unknown):
    got, server = await said(says)

    assert not isinstance(got, Accepted) and outcome.why in got.why and got.why.isprintable()
    assert got == outcome._replace(why=got.why)
    assert server.connections == 1 and len(server.mails) == ("." in says)


@pytest.mark.parametrize(
    ("says", "limit", "outcome"),
    [
        ({"": HANG}, "connect", Later("no answer to connect", is_down=True)),
        ({"": SLOWLY}, "connect", Later("no answer to connect", is_down=True)),
        ({"EHLO": HANG}, "connect", Later("no answer to EHLO", is_down=True)),
        ({"RCPT": SLOWLY}, "answer", Later("no answer to RCPT")),
        ({".": HANG}, "end", Unknown("no answer to end")),
    ],
)  # fmt: skip
async def test_a_server_that_does_not_answer_is_not_waited_for(
    says: dict[str, bytes], limit: str, outcome: Later | Unknown
):
    began = time.monotonic()
    got, _ = await said(says, **{f"{limit}_timeout_s": SHORT_S})

    assert not isinstance(got, Accepted | Declined) and outcome.why in got.why
    assert got == outcome._replace(why=got.why)
    assert SHORT_S <= time.monotonic() - began < 3


async def test_a_limit_is_for_all_answers_together():
    """Each answer comes in time, and all of them do not."""
    async with talking(answer_timeout_s=SHORT_S) as (channel, server):
        server.late_s = {"MAIL": SHORT_S * 0.6, "RCPT": SHORT_S * 0.6}
        outcome = await channel.send(MESSAGE)

    assert isinstance(outcome, Later) and "no answer to" in outcome.why


async def test_a_mail_without_its_dot_is_none():
    """It is larger than sockets hold, and the server goes away in the middle of it, or reads no more."""
    large = a_message(text=("a" * 75 + "\n") * 60_000, html="")
    for does in (DROP, SLOWLY):
        async with talking(says={"text": does, "EHLO": b"250 here\r\n"}, answer_timeout_s=1) as (channel, server):
            outcome = await channel.send(large)

        assert isinstance(outcome, Later) and not outcome.is_down and "text" in outcome.why
        assert server.mails == []


async def test_nobody_listens(unused_tcp_port_factory: Callable[[], int]):
    async with a_channel(unused_tcp_port_factory()) as channel:
        outcome = await channel.send(MESSAGE)

    assert isinstance(outcome, Later) and outcome.is_down and "127.0.0.1" in outcome.why


async def test_what_cannot_be_a_mail_is_sent_to_nobody():
    async with talking() as (channel, server):
        no_address = await channel.send(MESSAGE._replace(to="ada"))
        no_subject = await channel.send(a_message(subject="a\nBcc: b@c.example"))

    assert isinstance(no_address, Declined) and no_address.is_address and "ada@example.com" in no_address.why
    assert isinstance(no_subject, Declined) and not no_subject.is_address
    assert server.connections == 0


async def test_what_the_server_cannot_take_is_not_begun():
    async with talking(says={"EHLO": b"250-here\r\n250 SIZE 100\r\n"}) as (channel, server):
        too_large = await channel.send(MESSAGE)
        not_ascii = await channel.send(MESSAGE._replace(to="王@example.com"))

    assert isinstance(too_large, Declined) and "at most 100 octets" in too_large.why
    assert isinstance(not_ascii, Declined) and "SMTPUTF8" in not_ascii.why and not not_ascii.is_address
    assert not any(line.startswith("MAIL") for line in server.commands)


async def test_a_limit_of_more_digits_than_a_number_has_is_none():
    outcome, _ = await said({"EHLO": b"250-here\r\n250 SIZE %b\r\n" % (b"0" * 19 + b"1" + b"9" * 5_000)})

    assert isinstance(outcome, Declined) and "at most 1 octets" in outcome.why


# --- encryption and logging in


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mails_leave_encrypted_and_logged_in(tls: tuple[ssl.SSLContext, ssl.SSLContext], security: str):
    async with talking(tls, {"EHLO": STARTTLS}, **{**LOGIN, "security": security}) as (channel, server):
        outcomes = [await channel.send(MESSAGE), await channel.send(a_message(text="a\n" * 200_000, html=""))]

    assert outcomes == [Accepted("4XyzAB")] * 2 and server.connections == 1
    assert len(server.mails[1]) > 600_000
    before = ["EHLO", "STARTTLS"] if security == "starttls" else []
    assert [line.partition(" ")[0] for line in server.commands] == [
        *before, "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]  # fmt: skip


@pytest.mark.parametrize(
    ("says", "why"),
    [({}, "does not offer STARTTLS"), ({"EHLO": STARTTLS, "STARTTLS": b"250 ok\r\n"}, "answered STARTTLS with 250"),
     ({"EHLO": STARTTLS, "STARTTLS": b"454 4.7.0 not now\r\n"}, "answered STARTTLS with 454")],
)  # fmt: skip
async def test_nothing_is_said_where_encryption_is_taken_away(
    says: dict[str, bytes], why: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
):
    async with talking((tls[0], tls[1]), says, **LOGIN) as (channel, server):
        server._context = None
        outcome = await channel.send(MESSAGE)

    assert isinstance(outcome, Later) and outcome.is_down and why in outcome.why
    assert not [line for line in server.commands if line.split(" ")[0] not in ("EHLO", "STARTTLS")]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], security: str
):
    contexts = tls[0], ssl.create_default_context()
    async with talking(contexts, {"EHLO": STARTTLS}, **{**LOGIN, "security": security}) as (channel, server):
        outcome = await channel.send(MESSAGE)

    assert isinstance(outcome, Later) and outcome.is_down and "certificate" in outcome.why
    assert not any(line.startswith(("AUTH", "MAIL")) for line in server.commands)


async def test_what_was_said_in_the_clear_does_not_count(tls: tuple[ssl.SSLContext, ssl.SSLContext]):
    """Somebody on the way puts answers behind the 220: they would be read as the encrypted server's own."""
    injected = b"220 go on\r\n250-evil\r\n250-AUTH LOGIN\r\n250 DSN\r\n"
    async with talking(tls, {"EHLO": STARTTLS, "STARTTLS": injected}, **LOGIN) as (channel, server):
        outcome = await channel.send(MESSAGE)

    assert outcome == Accepted("4XyzAB")
    assert any(line.startswith("AUTH PLAIN ") for line in server.commands)
    assert not any("ENVID" in line for line in server.commands)


async def test_a_wrong_password_stops_the_channel_and_is_not_told(tls: tuple[ssl.SSLContext, ssl.SSLContext]):
    says = {"EHLO": STARTTLS, "AUTH": b"535 5.7.8 no\r\n"}
    async with talking(tls, says, **LOGIN) as (channel, server):
        outcome = await channel.send(MESSAGE)

    assert isinstance(outcome, Later) and outcome.is_down and "answered AUTH with 535 5.7.8 no" in outcome.why
    assert "canary" not in f"{outcome!r} {channel!r} {channel._settings!r}"
    assert sum(line.startswith("AUTH") for line in server.commands) == 1  # once, or the account is locked


async def test_a_server_without_a_way_to_log_in_is_left(tls: tuple[ssl.SSLContext, ssl.SSLContext]):
    offers = [STARTTLS, b"250-here\r\n250 AUTH CRAM-MD5\r\n"]
    async with talking(tls, {"EHLO": offers}, **LOGIN) as (channel, _):
        outcome = await channel.send(MESSAGE)

    assert isinstance(outcome, Later) and outcome.is_down and "cram-md5" in outcome.why


def test_a_user_has_a_password():
    settings = SmtpSettings.model_validate({**SETTINGS, "security": "tls", "user": "ada"})
    with pytest.raises(ConfigError, match=r"no password .* Set TIDEWIRE_SMTP_PASSWORD"):
        SmtpChannel(settings)
    with pytest.raises(ConfigError, match="no user"):
        SmtpChannel(settings.model_copy(update={"user": ""}), "secret")


# --- connections


async def test_messages_together_use_as_many_connections_and_the_next_ones_no_more():
    async with talking() as (channel, server):
        first = await asyncio.gather(*(channel.send(MESSAGE) for _ in range(10)))
        second = await asyncio.gather(*(channel.send(MESSAGE) for _ in range(10)))
        third = [await channel.send(MESSAGE) for _ in range(3)]

        assert {*first, *second, *third} == {Accepted("4XyzAB")} and len(server.mails) == 23
        assert server.connections <= 10 and "QUIT" not in server.commands


async def test_a_refused_mail_costs_no_connection():
    says = {"RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"], ".": [b"554 5.7.1 spam\r\n", ANSWERS["."]]}
    async with talking(says=says) as (channel, server):
        outcomes = [await channel.send(MESSAGE) for _ in range(3)]

    assert [type(outcome) for outcome in outcomes] == [Declined, Declined, Accepted]
    assert server.connections == 1 and server.commands.count("RSET") == 2


async def test_a_connection_that_failed_is_not_used_again():
    says = {".": [b"421 going\r\n", DROP, ANSWERS["."]]}
    async with talking(says=says) as (channel, server):
        outcomes = [await channel.send(MESSAGE) for _ in range(3)]

    assert [type(outcome) for outcome in outcomes] == [Later, Unknown, Accepted] and server.connections == 3


@pytest.mark.parametrize("reset", [DROP, b"421 you were silent for too long\r\n", b"what\r\n"])
async def test_a_kept_connection_that_has_gone_stale_costs_no_message(reset: bytes):
    async with talking(says={"RSET": reset}) as (channel, server):
        outcomes = [await channel.send(MESSAGE) for _ in range(2)]

    assert outcomes == [Accepted("4XyzAB")] * 2 and server.connections == 2


async def test_a_kept_connection_that_was_closed_or_is_dead_costs_no_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sinks.messages.smtp_session.CHECK_S", SHORT_S)
    async with talking(says={"RSET": HANG}) as (channel, server):
        outcomes = [await channel.send(MESSAGE) for _ in range(2)]
        for writer in list(server.writers):
            writer.close()
        await until(lambda: not any(session.is_fit for session in channel._idle))
        outcomes.append(await channel.send(MESSAGE))

    assert outcomes == [Accepted("4XyzAB")] * 3 and server.connections == 3


async def test_a_connection_is_left_when_nothing_goes_through_it_or_much_did():
    async with talking(idle_s=0.05) as (channel, server):
        await channel.send(MESSAGE)
        await until(lambda: server.open == 0)
        assert server.commands[-1] == "QUIT" and channel._idle == {}

    async with talking(messages_per_connection=2) as (channel, server):
        for _ in range(4):
            await channel.send(MESSAGE)
    assert server.connections == 2 and server.commands.count("QUIT") == 2


async def test_a_connection_in_use_is_not_idle():
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    async with talking(idle_s=0.05) as (channel, server):
        await channel.send(MESSAGE)
        server.late_s = {".": 0.1}
        outcome = await channel.send(MESSAGE)

    assert outcome == Accepted("4XyzAB") and failures == []


@pytest.mark.parametrize(
    ("where", "security"),
    [("", "starttls"), ("EHLO", "starttls"), ("STARTTLS", "starttls"), ("AUTH", "starttls"), ("RSET", "starttls"),
     ("RCPT", "starttls"), (".", "starttls"), ("", "tls")],
)  # fmt: skip
async def test_cancelled_it_lets_go_of_what_it_holds(
    where: str, security: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
):
    async with talking(tls, {"EHLO": STARTTLS}, **{**LOGIN, "security": security}) as (channel, server):
        if where == "RSET":
            await channel.send(MESSAGE)
        server.says[where] = HANG
        sending = asyncio.create_task(channel.send(MESSAGE))
        await until(lambda: server.connections == 1 and server.is_hanging)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

        assert channel._idle == {}


async def test_what_ends_after_the_channel_was_closed_is_not_kept():
    async with talking() as (channel, server):
        sending = asyncio.create_task(channel.send(MESSAGE))
        await asyncio.sleep(0)
        await channel.close()

        assert await sending == Accepted("4XyzAB") and channel._idle == {}
        await until(lambda: server.open == 0)
