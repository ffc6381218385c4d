"""`tidewire processors new`: a processor that works, and its test, to be changed into the one that is wanted."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import NamedTuple

from schemas.errors import ConfigError, TidewireError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")

PROCESSOR = '''\
"""{Title}: how often it happened, and when last."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from processors.base import Person, Processor, Table
from schemas.effects import Effect, Row
from schemas.event import Event
from schemas.times import from_ms, to_iso

NEVER = -(2**62)


class {Class}State(msgspec.Struct, array_like=True):
    """What is remembered of one person key. Small, bounded, the same in whatever order the events come."""

    count: int = 0
    newest_ms: int = NEVER


class {Class}Row(msgspec.Struct):
    """One row of table `{name}`: columns are made from these fields."""

    at: datetime
    message_id: str


class {Class}(Processor[{Class}State]):
    """Counts `Example Happened`."""

    name = "{name}"
    about = "How often Example Happened, and when last."
    wants = frozenset({{"Example Happened"}})
    State = {Class}State
    tables = (Table("{name}", {Class}Row, ("message_id",), "One row per Example Happened."),)
    cases = (
        {{
            "case": "two of them count as two, and the newest is the newest by its own time",
            "events": [
                {{"at": "2024-03-02", "event": "Example Happened"}},
                {{"at": "2024-03-01", "event": "Example Happened"}},
            ],
            "shows": {{"count": 2, "newest": "2024-03-02T00:00:00.000Z"}},
        }},
    )

    def apply(
        self, state: {Class}State, event: Event, person: Person, now_ms: int
    ) -> Iterable[Effect]:
        state.count += 1
        state.newest_ms = max(state.newest_ms, event.at_ms)
        return (Row({Class}Row(from_ms(event.at_ms), event.message_id)),)

    def merge(self, one: {Class}State, other: {Class}State) -> {Class}State:
        return {Class}State(one.count + other.count, max(one.newest_ms, other.newest_ms))

    def show(self, state: {Class}State) -> dict[str, Any]:
        if state.newest_ms == NEVER:
            return {{}}
        return {{"count": state.count, "newest": to_iso(state.newest_ms)}}
'''

TEST = '''\
"""{Title} counts what happened, and keeps the laws of processors."""

from __future__ import annotations

from processors.acceptance import accept
from processors.{name} import {Class}, {Class}State


def test_it_keeps_the_laws_of_processors():
    accept({Class}())


def test_somebody_without_events_shows_nothing():
    assert {Class}().show({Class}State()) == {{}}
'''


class Made(NamedTuple):
    processor: Path
    test: Path


def new_processor(name: str, root: Path) -> Made:
    """Write `processors/NAME.py` and `tests/processors/test_NAME.py` below `root`.

    Raises:
        ConfigError: the name is none, is taken, or `root` is no folder with processors.
        TidewireError: a file cannot be written.
    """
    if not _NAME.match(name) or keyword.iskeyword(name):
        raise ConfigError("NAME", f"{name!r} is no name of a processor.",
                          "Use lower case letters, digits and _, at most 41, such as tickets.")  # fmt: skip
    folder = root / "processors"
    if not folder.is_dir():
        raise ConfigError(str(root), "there is no folder processors/ here.",
                          "Run it in the folder of the project, or name that with --into.")  # fmt: skip
    made = Made(folder / f"{name}.py", root / "tests" / "processors" / f"test_{name}.py")
    for file in made:
        if file.exists():
            raise ConfigError(str(file), "is there already.", "Choose another name.")
    words = {"name": name, "Class": "".join(part.capitalize() for part in name.split("_")),
             "Title": name.replace("_", " ").strip().capitalize()}  # fmt: skip
    try:
        made.test.parent.mkdir(parents=True, exist_ok=True)
        made.processor.write_text(PROCESSOR.format(**words), encoding="utf-8")
        made.test.write_text(TEST.format(**words), encoding="utf-8")
    except OSError as error:
        raise TidewireError(f"{error.filename} cannot be written: {error.strerror}.") from None
    return made
