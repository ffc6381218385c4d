"""Templates in their topic: files and pages side by side, two who save at once, and who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.settings import Settings
from config.templates import FOLDER
from schemas.errors import ConfigError, TidewireError
from sinks.messages.rendering import Template
from streams import texts as module
from streams.channels import templates_of
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.log import TP, LogBusy
from streams.templates import Templates
from streams.texts import Overtaken
from streams.topics import create_topics
from tests.kafka_broker import Kafka

TEXT = "channel: sms\nkind: transactional\ncontent:\n  en:\n    text: |\n      One\n"
OTHER = TEXT.replace("One", "Two")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=tmp_path))
    yield log
    await log.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "config" / FOLDER).mkdir(parents=True)
    return Settings(data=tmp_path, config=tmp_path / "config")


@pytest.fixture
def templates(log: EmbeddedLog, settings: Settings) -> Templates:
    return Templates(log, settings)


def write(settings: Settings, name: str, text: str) -> Path:
    file = settings.config / FOLDER / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def said(templates: Templates, name: str) -> str:
    found = templates.read(name)
    assert isinstance(found, Template)
    return f"{found.version} {found.render({}).text}"


async def test_what_is_saved_is_read_by_everybody_who_follows_the_log(
    log: EmbeddedLog, settings: Settings, templates: Templates
) -> None:
    sender = templates_of(Templates(log, settings))

    await templates.save("hello", TEXT, by="ann", now_ms=1)
    first = await asyncio.to_thread(sender, "hello")
    await templates.save("hello", OTHER, by="bob", now_ms=2, upon=1)
    second = await asyncio.to_thread(sender, "hello")
    await templates.remove("hello", by="ann", now_ms=3)

    assert isinstance(first, Template) and isinstance(second, Template)
    assert [(each.version, each.render({}).text) for each in (first, second)] == [("1", "One"), ("2", "Two")]
    assert await asyncio.to_thread(sender, "hello") == 'there is no template "hello" any more'
    assert [(each.version, each.by, each.is_gone) for each in templates.versions("hello")] == [
        (3, "ann", True), (2, "bob", False), (1, "ann", False)]  # fmt: skip
    old = await templates.version("hello", 1)
    assert old is not None and old.text == TEXT


async def test_the_same_text_is_no_new_version_and_may_be_sent_again(templates: Templates) -> None:
    await templates.save("hello", TEXT, by="ann", now_ms=1, upon=0)

    again = await templates.save("hello", TEXT.replace("\n", "\r\n"), by="ann", now_ms=2, upon=0)

    assert (again.version, len(templates.versions("hello"))) == (1, 1)


async def test_of_many_who_save_at_once_one_is_first_and_nothing_is_written_over(
    log: EmbeddedLog, settings: Settings, templates: Templates
) -> None:
    await templates.save("hello", TEXT, by="ann", now_ms=1)
    writers = [Templates(log, settings) for _ in range(8)]
    texts = [TEXT.replace("One", f"Of {number}") for number in range(8)]
    calls = (each.save("hello", text, by="b", now_ms=2, upon=1) for each, text in zip(writers, texts, strict=True))

    done = await asyncio.gather(*calls, return_exceptions=True)

    saved = [each for each in done if not isinstance(each, BaseException)]
    refused = [each for each in done if isinstance(each, Overtaken)]
    assert (len(saved), len(refused)) == (1, 7)
    assert all("has version 2 meanwhile, not 1" in str(each) and each.newest == saved[0] for each in refused)
    later = Templates(log, settings)
    await later.look()
    assert later.saved("hello") == saved[0] and len(later.versions("hello")) == 2


async def test_who_was_overtaken_between_looking_and_writing_is_told_so(
    log: EmbeddedLog, settings: Settings, templates: Templates
) -> None:
    await templates.save("hello", TEXT, by="ann", now_ms=1)
    slow = Templates(log, settings)
    await slow.look()
    await templates.save("hello", OTHER, by="bob", now_ms=2)

    late = slow._following("hello", "late", by="eve", now_ms=3, source="page", from_file="")

    assert await slow._write([late]) == []  # as if nobody had been asked what there is
    for each in (slow, templates, Templates(log, settings)):
        await each.look()
        newest = each.saved("hello")
        assert newest is not None and (newest.version, newest.by, newest.text) == (2, "bob", OTHER)


@pytest.mark.parametrize(("upon", "told"), [(0, 'There is a template "hello" already, of version 2'),
                                            (1, "has version 2 meanwhile, not 1")])  # fmt: skip
async def test_what_changed_meanwhile_is_not_written_over(templates: Templates, upon: int, told: str) -> None:
    await templates.save("hello", TEXT, by="ann", now_ms=1)
    await templates.save("hello", OTHER, by="bob", now_ms=2)

    with pytest.raises(Overtaken, match=told):
        await templates.save("hello", TEXT, by="eve", now_ms=3, upon=upon)


async def test_what_was_taken_out_comes_back_as_a_new_version(templates: Templates) -> None:
    await templates.save("hello", TEXT, by="ann", now_ms=1)
    await templates.remove("hello", by="ann", now_ms=2)

    with pytest.raises(Overtaken, match="was taken out meanwhile"):
        await templates.save("hello", OTHER, by="bob", now_ms=3, upon=1)
    with pytest.raises(TidewireError, match='There is no template "hello"'):
        await templates.remove("hello", by="bob", now_ms=3)
    await templates.save("hello", TEXT, by="ann", now_ms=4, upon=0)

    assert said(templates, "hello") == "3 One"


async def test_files_are_taken_over_when_they_change_and_what_the_page_changed_stays_until_then(
    settings: Settings, templates: Templates
) -> None:
    file = write(settings, "hello", TEXT)
    assert [each.version for each in await templates.apply_files(by="files", now_ms=1)] == [1]
    await templates.save("hello", OTHER, by="ann", now_ms=2)
    await templates.save("made", TEXT, by="ann", now_ms=2)

    assert await templates.apply_files(by="files", now_ms=3) == []
    assert said(templates, "hello") == "2 Two"
    write(settings, "hello", TEXT.replace("One", "Three"))
    await templates.apply_files(by="files", now_ms=4)
    assert said(templates, "hello") == "3 Three"
    file.unlink()
    assert [each.is_gone for each in await templates.apply_files(by="files", now_ms=5)] == [True]
    assert templates.read("hello") is None and said(templates, "made") == "1 One"
    write(settings, "hello", TEXT)
    await templates.apply_files(by="files", now_ms=6)
    assert said(templates, "hello") == "5 One"


async def test_a_wrong_file_changes_nothing_of_any(settings: Settings, templates: Templates) -> None:
    write(settings, "hello", TEXT)
    write(settings, "other", TEXT.replace("sms", "fax"))

    with pytest.raises(ConfigError, match=r'templates/other\.yaml:1: "channel"'):
        await templates.apply_files(by="files", now_ms=1)

    await templates.look()
    assert templates.newest == {}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("hello", "channel: sms\nkind: marketing\n", "content"), ("new", TEXT, '"new" cannot be the name'),
     ("a/b", TEXT, "cannot be the name"), ("hello", TEXT + "#" * 300_000, "too large"),
     ("hello", TEXT.replace("One", "{{ profil.name }}"), 'there is no processor "profil"')],
)  # fmt: skip
async def test_what_is_wrong_is_not_saved(templates: Templates, name: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        await templates.save(name, text, by="ann", now_ms=1)

    await templates.look()
    assert templates.newest == {}


async def test_all_that_is_in_memory_is_bounded(templates: Templates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Templates, "most", 2)
    await templates.save("one", TEXT, by="ann", now_ms=1)
    await templates.save("two", TEXT, by="ann", now_ms=1)

    with pytest.raises(ConfigError, match="there would be 3 templates; at most 2"):
        await templates.save("three", TEXT, by="ann", now_ms=1)
    monkeypatch.setattr(Templates, "largest_together_bytes", 2 * len(TEXT))
    with pytest.raises(ConfigError, match="all together would have"):
        await templates.save("two", TEXT + "# more\n", by="ann", now_ms=1)
    assert all(place.head.text == "" for kept in templates._versions.values() for place in kept.values())


async def test_old_versions_are_forgotten_by_everybody(
    log: EmbeddedLog, settings: Settings, templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_VERSIONS", 3)
    follower = Templates(log, settings)
    for number in range(5):
        await templates.save("hello", TEXT.replace("One", str(number)), by="ann", now_ms=number)
        await follower.look()

    await templates.look()
    await follower.look()
    for each in (templates, follower):
        assert [saved.version for saved in each.versions("hello")] == [5, 4, 3]
        assert await each.version("hello", 1) is None
        assert said(each, "hello") == "5 4"


async def test_while_the_log_is_away_the_sender_waits_for_it(
    log: EmbeddedLog, settings: Settings, templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    await templates.save("hello", TEXT, by="ann", now_ms=1)
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    bounds, asked = log.bounds, []

    async def away(topic: str) -> dict[int, tuple[int, int]]:
        asked.append(topic)
        if len(asked) < 3:
            raise LogBusy("away")
        return await bounds(topic)

    monkeypatch.setattr(log, "bounds", away)

    found = await asyncio.to_thread(templates_of(Templates(log, settings)), "hello")

    assert isinstance(found, Template) and len(asked) == 3


async def test_a_template_that_nobody_can_fill_in_any_more_is_said_to_be_wrong(
    log: EmbeddedLog, settings: Settings, templates: Templates
) -> None:
    saved = await templates.save("hello", TEXT, by="ann", now_ms=1)
    await templates._write([templates._following("hello", saved.text.replace("One", "{{ gone.name }}"), by="ann",
                                                 now_ms=2, source="page", from_file="")])  # fmt: skip

    told = await asyncio.to_thread(templates_of(Templates(log, settings)), "hello")

    assert isinstance(told, str) and 'template "hello" is wrong' in told and 'there is no processor "gone"' in told


async def test_all_versions_of_a_template_stand_in_one_partition(log: EmbeddedLog, templates: Templates) -> None:
    for number in range(6):
        await templates.save("hello", TEXT.replace("One", str(number)), by="ann", now_ms=number)

    bounds = await log.bounds(Templates.topic)

    (held,) = [partition for partition, (first, end) in bounds.items() if end > first]
    records = await log.read(TP(Templates.topic, held), 0, 10)
    assert [(record.key or b"").split(b"/")[1] for record in records] == [b"1", b"2", b"3", b"4", b"5", b"6"]


@pytest.mark.kafka
@pytest.mark.slow
async def test_on_kafka_one_of_many_is_first_and_senders_read_what_was_saved_last(
    settings: Settings, own_kafka: Kafka
) -> None:
    logs = [KafkaLog(own_kafka.url) for _ in range(3)]
    for each in logs:
        await each.start()
    try:
        await create_topics(logs[0], settings.model_copy(update={"log": own_kafka.url}))
        writers = [Templates(each, settings) for each in logs]
        sender = templates_of(Templates(logs[2], settings))
        for upon in range(4):
            calls = (each.save("hello", TEXT.replace("One", f"{upon} of {number}"), by=str(number), now_ms=1, upon=upon)
                     for number, each in enumerate(writers))  # fmt: skip

            done = await asyncio.gather(*calls, return_exceptions=True)

            (saved,) = [each for each in done if not isinstance(each, BaseException)]
            assert sum(isinstance(each, Overtaken) for each in done) == 2
            found = await asyncio.to_thread(sender, "hello")
            assert isinstance(found, Template)
            assert (found.version, found.render({}).text) == (str(upon + 1), f"{upon} of {saved.by}")
        old = await writers[1].version("hello", 1)
        assert old is not None and "0 of " in old.text
    finally:
        for each in logs:
            await each.stop()
