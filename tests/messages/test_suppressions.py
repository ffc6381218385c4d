"""The suppression list: addresses to which nothing is sent, from the moment they are on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from config.settings import Settings
from schemas.errors import TidewireError
from sinks.messages.channel import Accepted, Declined
from streams.embedded import EmbeddedLog
from streams.log import Log, LogUnavailable, Outgoing
from streams.suppressions import TOPIC, Suppression, Suppressions, release, suppress
from streams.topics import create_topics
from tests.messages.test_dispatch import FakeChannel, FakeLog, an_attempt, dispatching

NOW_MS = 1_800_000_000_000
ADA = Suppression("w", "email", "Ada@Example.com", "blocked", "she rang")


@pytest.fixture
async def log(tmp_path: Path):
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=tmp_path, partitions=2))
    yield log
    await log.stop()


async def known(log: Log) -> Suppressions:
    """As a process that starts now knows it."""
    suppressions = Suppressions(log)
    await suppressions.catch_up()
    return suppressions


async def test_an_address_is_on_the_list_however_it_is_written(log: Log):
    await suppress(log, [ADA], by="cli", now_ms=NOW_MS)

    found = await known(log)

    assert found.reason("w", "email", "ada@example.com ", "marketing") == "blocked"
    assert found.reason("w", "email", "ADA@EXAMPLE.COM", "transactional") == "blocked"
    assert found.reason("w", "sms", "ada@example.com", "marketing") is None
    assert found.reason("other", "email", "ada@example.com", "marketing") is None
    assert found.reason("w", "email", "bob@example.com", "marketing") is None


async def test_the_newest_word_counts(log: Log):
    await suppress(log, [ADA], by="cli", now_ms=NOW_MS)
    await release(log, "w", "email", "ada@example.com", by="cli", now_ms=NOW_MS + 1)
    assert (await known(log)).reason("w", "email", "ada@example.com", "marketing") is None

    await suppress(log, [ADA._replace(reason="bounced")], by="smtp", now_ms=NOW_MS + 2)
    assert (await known(log)).reason("w", "email", "ada@example.com", "marketing") == "bounced"


async def test_who_complained_gets_what_is_no_marketing(log: Log):
    await suppress(log, [ADA._replace(reason="complained")], by="report", now_ms=NOW_MS)

    found = await known(log)

    assert found.reason("w", "email", "ada@example.com", "marketing") == "complained"
    assert found.reason("w", "email", "ada@example.com", "transactional") is None


async def test_a_change_is_known_to_who_asks_after_it(log: Log):
    running = await known(log)

    await suppress(log, [ADA], by="cli", now_ms=NOW_MS)
    await running.catch_up()
    assert running.reason("w", "email", "ada@example.com", "marketing") == "blocked"
    await release(log, "w", "email", "ada@example.com", by="cli", now_ms=NOW_MS + 1)
    await running.catch_up()
    assert running.reason("w", "email", "ada@example.com", "marketing") is None


async def test_those_who_ask_together_share_a_look_that_begins_after_they_asked():
    log = SlowLog()
    suppressions = Suppressions(log)  # type: ignore[arg-type]

    first = asyncio.create_task(suppressions.catch_up())
    await log.asked.wait()
    others = [asyncio.create_task(suppressions.catch_up()) for _ in range(5)]
    await _a_moment()
    log.may_answer.set()
    await asyncio.gather(first, *others)

    assert log.looks == 2


async def test_a_look_that_failed_counts_for_nobody():
    log = SlowLog(LogUnavailable("away"), LogUnavailable("away"), LogUnavailable("away"))
    suppressions = Suppressions(log)  # type: ignore[arg-type]

    asked = [asyncio.create_task(suppressions.catch_up()) for _ in range(3)]
    await log.asked.wait()
    log.may_answer.set()
    said = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in said] == [LogUnavailable] * 3


class SlowLog:
    """Counts who looks where it ends, and answers when it may."""

    def __init__(self, *faults: Exception) -> None:
        self.looks = 0
        self.faults = list(faults)  # answered first
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        self.looks += 1
        self.asked.set()
        await self.may_answer.wait()
        if self.faults:
            raise self.faults.pop(0)
        return {}


@pytest.mark.parametrize("address", ["", "  ", "a b@example.com", "a\n@example.com", "a\x00@example.com", "a" * 321])
async def test_what_is_no_address_is_refused_and_nothing_is_added(log: Log, address: str):
    with pytest.raises(TidewireError, match=r"is no address\."):
        await suppress(log, [ADA, ADA._replace(address=address)], by="cli", now_ms=NOW_MS)

    assert (await known(log)).reason("w", "email", "ada@example.com", "marketing") is None


async def test_what_nobody_can_read_stops_nobody(log: Log):
    await log.append(TOPIC, [Outgoing(b"w/email/x", b"{"), Outgoing(b"w/email/y", b'{"table": 1}'),
                             Outgoing(b"w/email/z", None)])  # fmt: skip
    await suppress(log, [ADA], by="cli", now_ms=NOW_MS)

    assert (await known(log)).reason("w", "email", "ada@example.com", "marketing") == "blocked"


# --- sending


async def test_nothing_is_handed_over_to_an_address_on_the_list(tmp_path: Path):
    channel, suppressions = FakeChannel(), Suppressions(FakeLog())  # type: ignore[arg-type]
    await suppressions.add(ADA, by="cli")

    async with dispatching(tmp_path, channel, suppressions=suppressions) as (dispatcher, log):
        dispatcher.then([an_attempt()])
        await log.until(lambda: bool(log.outcomes()))

    assert channel.given == []
    assert [(each.result, each.why) for each in log.outcomes()] == [("withheld", "blocked")]


async def test_nothing_is_handed_over_while_the_list_cannot_be_read(tmp_path: Path):
    channel = FakeChannel()

    async with dispatching(tmp_path, channel) as (dispatcher, log):
        log.is_away = True
        dispatcher.then([an_attempt()])
        await log.until(lambda: bool(log.outcomes()))

    assert channel.given == []
    assert [(each.result, each.why) for each in log.outcomes()] == [
        ("later", "the suppression list could not be read: the broker is away")]  # fmt: skip


async def test_an_address_that_nothing_reaches_comes_on_the_list_before_the_message_ends(tmp_path: Path):
    channel = FakeChannel(Declined("550 5.1.1 no such user", is_address=True), Accepted())

    async with dispatching(tmp_path, channel) as (dispatcher, log):
        dispatcher.then([an_attempt()])
        await log.until(lambda: len(log.outcomes()) == 1)
        dispatcher.then([an_attempt()])
        await log.until(lambda: len(log.outcomes()) == 2)

    assert len(channel.given) == 1
    assert [topic for topic, _ in log.appended] == [TOPIC, "messages", "messages"]
    assert [(each.result, each.why) for each in log.outcomes()] == [
        ("declined", "550 5.1.1 no such user"), ("withheld", "bounced")]  # fmt: skip


async def test_a_message_that_is_declined_says_nothing_about_the_address(tmp_path: Path):
    channel = FakeChannel(Declined("552 too large"), Accepted())

    async with dispatching(tmp_path, channel) as (dispatcher, log):
        dispatcher.then([an_attempt()])
        await log.until(lambda: len(log.outcomes()) == 1)
        dispatcher.then([an_attempt()])
        await log.until(lambda: len(log.outcomes()) == 2)

    assert {topic for topic, _ in log.appended} == {"messages"} and len(channel.given) == 2


async def _a_moment() -> None:
    await asyncio.sleep(0.005)
