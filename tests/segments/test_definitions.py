"""Definitions in their topic: files and pages side by side, and two who write at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from config.segments import parse_segment
from config.settings import Settings
from schemas.errors import ConfigError, TidewireError
from schemas.journeys import Led, LedJourney
from schemas.segments import Told, encode_said
from streams.definitions import TOPIC, Known, _write, remove, save, take_over
from streams.embedded import EmbeddedLog
from streams.log import Outgoing
from streams.topics import create_topics

BUYERS = parse_segment("buyers", "when: {did: Order Completed}\n")
OTHERS = parse_segment("others", "when: {not: {segment: buyers}}\n")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=tmp_path))
    yield log
    await log.stop()


async def known(log: EmbeddedLog) -> Known:
    found = Known(log)
    await found.look()
    return found


async def test_a_file_that_goes_is_refused_while_a_segment_of_the_page_asks_for_it(log: EmbeddedLog) -> None:
    await take_over(log, {"buyers": BUYERS}, by="files", now_ms=1)
    await save(log, OTHERS, by="ann", now_ms=2)

    with pytest.raises(ConfigError, match=r'others.yaml: there is no segment "buyers"'):
        await take_over(log, {}, by="files", now_ms=3)
    with pytest.raises(ConfigError, match='there is no segment "buyers"'):
        await remove(log, "buyers", by="ann", now_ms=3)

    assert not (await known(log)).wanted["buyers"].is_gone


async def test_of_two_who_write_the_same_number_the_newer_becomes_live(log: EmbeddedLog) -> None:
    said = await save(log, BUYERS, by="ann", now_ms=1)
    await _write(log, [msgspec.structs.replace(said, zone="UTC", is_live=True, is_settled=True)], is_live=True)
    assert not (await known(log)).pending("UTC")

    await _write(log, [msgspec.structs.replace(said, by="bob", at_ms=2)])

    assert (await known(log)).pending("UTC")["buyers"].by == "bob"


async def test_what_changed_meanwhile_is_not_written_over(log: EmbeddedLog) -> None:
    await save(log, BUYERS, by="ann", now_ms=1)

    with pytest.raises(TidewireError, match="has version 1 meanwhile, not 0"):
        await save(log, parse_segment("buyers", "when: {did: A}\n"), by="bob", now_ms=2, upon=0)


async def test_a_segment_that_a_journey_asks_for_stays(log: EmbeddedLog) -> None:
    await save(log, BUYERS, by="ann", now_ms=1)
    said = {"enter": {"joined": "buyers"}, "steps": [{"step": "hello", "exit": "enough"}]}
    led = Led(journeys=[LedJourney(name="greet", version=1, said=said)])
    await log.append(TOPIC, [Outgoing(b"led", encode_said(Told(led=led, zone="UTC", at_ms=2)))])

    with pytest.raises(TidewireError, match='Journey "greet" asks for segment "buyers"'):
        await remove(log, "buyers", by="ann", now_ms=3)

    await log.append(TOPIC, [Outgoing(b"led", encode_said(Told(led=Led(), zone="UTC", at_ms=4)))])
    await remove(log, "buyers", by="ann", now_ms=5)
    assert (await known(log)).wanted["buyers"].is_gone
