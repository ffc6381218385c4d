"""Journeys in their topic: their versions beside how they are steered, and what they ask for that must be there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.settings import Settings
from schemas.errors import ConfigError, TidewireError
from streams.embedded import EmbeddedLog
from streams.journeys import Journeys
from streams.log import TP
from streams.templates import Templates
from streams.texts import Overtaken
from streams.topics import create_topics

TEMPLATE = "channel: sms\nkind: marketing\ntopic: offers\ncontent:\n  en:\n    text: Hello\n"
TEXT = "enter: {joined: loyal}\nsteps:\n- {step: hello, send: hello}\n"
OTHER = "enter: {joined: loyal}\nsteps:\n- {step: later, wait: 1 day}\n- {step: hello, send: hello}\n"


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=tmp_path))
    yield log
    await log.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for folder in ("journeys", "templates"):
        (tmp_path / "config" / folder).mkdir(parents=True)
    return Settings(data=tmp_path, config=tmp_path / "config")


async def names() -> set[str]:
    return {"loyal", "lapsed"}


@pytest.fixture
async def journeys(log: EmbeddedLog, settings: Settings) -> Journeys:
    templates = Templates(log, settings)
    await templates.save("hello", TEMPLATE, by="ann", now_ms=1)
    return Journeys(log, settings, templates, names)


def another(log: EmbeddedLog, settings: Settings) -> Journeys:
    return Journeys(log, settings, Templates(log, settings), names)


async def test_versions_and_steering_stand_side_by_side_in_one_partition(
    log: EmbeddedLog, settings: Settings, journeys: Journeys
) -> None:
    await journeys.save("greet", TEXT, by="ann", now_ms=1)
    await journeys.steer("greet", "paused", by="bob", now_ms=2)
    await journeys.save("greet", OTHER, by="ann", now_ms=3, upon=1)
    await journeys.migrate("greet", None, by="cy", now_ms=4)

    later = another(log, settings)
    await later.look()

    steering = later.steering("greet")
    assert (steering.status, steering.migrate_to, steering.by, steering.at_ms) == ("paused", 2, "cy", 4)
    assert [each.version for each in later.versions("greet")] == [2, 1]
    first = await later.version("greet", 1)
    assert first is not None and first.text == TEXT
    (held,) = [partition for partition, (start, end) in (await log.bounds("journeys")).items() if end > start]
    keys = [record.key or b"" for record in await log.read(TP("journeys", held), 0, 10)]
    assert [key.split(b"/")[1] for key in keys] == [b"1", b"steering", b"2", b"steering"]


async def test_what_was_never_steered_is_live(journeys: Journeys) -> None:
    await journeys.save("greet", TEXT, by="ann", now_ms=1)

    assert (journeys.steering("greet").status, journeys.steering("greet").migrate_to) == ("live", 0)


async def test_one_that_comes_back_after_it_was_taken_out_is_live(journeys: Journeys) -> None:
    await journeys.save("greet", TEXT, by="ann", now_ms=1)
    await journeys.steer("greet", "stopped", by="ann", now_ms=2)
    await journeys.remove("greet", by="ann", now_ms=3)

    saved = await journeys.save("greet", TEXT, by="ann", now_ms=4, upon=0)

    assert (saved.version, journeys.steering("greet").status) == (3, "live")


async def test_what_is_not_there_is_not_steered(journeys: Journeys) -> None:
    await journeys.save("greet", TEXT, by="ann", now_ms=1)

    with pytest.raises(TidewireError, match=r'There is no journey "gone". `tidewire journeys list`'):
        await journeys.steer("gone", "paused", by="ann", now_ms=2)
    with pytest.raises(TidewireError, match='Journey "greet" has no version 7'):
        await journeys.migrate("greet", 7, by="ann", now_ms=2)
    with pytest.raises(Overtaken, match='Journey "greet" has version 1 meanwhile, not 3'):
        await journeys.save("greet", OTHER, by="ann", now_ms=2, upon=3)

    assert (journeys.steering("greet").status, journeys.steering("greet").migrate_to) == ("live", 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [(TEXT.replace("send: hello", "send: helo"), ':3: step "hello".*no template "helo". Did you mean "hello"'),
     (TEXT.replace("loyal", "loyl"), ':1: "enter.joined": there is no segment "loyl". Did you mean "loyal"')],
)  # fmt: skip
async def test_what_it_asks_for_must_be_there_when_it_is_saved(journeys: Journeys, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        await journeys.save("greet", text, by="ann", now_ms=1)

    assert journeys.newest == {}


async def test_a_file_that_was_taken_over_stays_when_what_it_asks_for_goes(
    settings: Settings, journeys: Journeys
) -> None:
    """Else one who takes out a template on the page would keep everything from starting again."""
    (settings.config / "journeys" / "greet.yaml").write_text(TEXT)
    (settings.config / "journeys" / "greet.cases.yaml").write_text("cases: []")
    assert [each.name for each in await journeys.apply_files(by="files", now_ms=1)] == ["greet"]
    await journeys._templates.remove("hello", by="ann", now_ms=2)

    assert await journeys.apply_files(by="files", now_ms=3) == []
    assert 'there is no template "hello"' in (await journeys.troubles())["greet"]

    (settings.config / "journeys" / "greet.yaml").write_text(OTHER)
    with pytest.raises(ConfigError, match='there is no template "hello"'):
        await journeys.apply_files(by="files", now_ms=4)


async def test_a_file_comes_with_what_it_asks_for(settings: Settings, journeys: Journeys) -> None:
    (settings.config / "journeys" / "greet.yaml").write_text(TEXT)
    await journeys.apply_files(by="files", now_ms=1)

    assert await journeys.troubles() == {}
    assert list(journeys.mails(["hello", "none"])) == ["hello"]
    assert journeys.mails(["hello"])["hello"].topic == "offers"
