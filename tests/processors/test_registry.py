"""Processors are found by themselves, in one order, with settings whose errors name the place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from processors import registry
from processors.registry import load_processors
from processors.visits import VisitsSettings
from schemas.errors import ConfigError

FILE = '''
import msgspec
from processors.base import Processor, Table

class State(msgspec.Struct):
    count: int = 0

class {kind}(Processor[State]):
    name = "{name}"
    about = "Counts."
    State = State
    {more}

    def apply(self, state, event, person, now_ms):
        return ()

    def merge(self, one, other):
        return one
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "config" / "processors").mkdir(parents=True)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if name.startswith("processors.") and str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, file: str, name: str, more: str = "", kind: str = "Counting") -> Path:
    path = folder / f"{file}.py"
    path.write_text(FILE.format(name=name, more=more, kind=kind))
    return path


def names(folder: Path) -> list[str]:
    return [processor.name for processor in load_processors(folder / "config", [folder])]


def test_the_first_processors_are_found_in_their_order() -> None:
    found = [processor.name for processor in load_processors(Path("config"))]

    assert found == ["coupon", "journeys", "profile", "segments", "visits", "orders"]


def test_a_file_in_a_folder_is_a_processor(folder: Path) -> None:
    write(folder, "counting", "counting")

    assert names(folder) == ["counting", "coupon", "journeys", "profile", "segments", "visits", "orders"]


def test_a_processor_comes_after_those_it_names(folder: Path) -> None:
    write(folder, "counting", "counting", 'after = ("orders",)')

    assert names(folder) == ["coupon", "journeys", "profile", "segments", "visits", "orders", "counting"]


def test_two_processors_of_one_name_are_refused_with_both_places(folder: Path) -> None:
    write(folder, "counting", "visits")

    with pytest.raises(ConfigError, match=r'counting\.py: a processor named "visits" is already in .*visits\.py'):
        names(folder)


@pytest.mark.parametrize(("more", "error"), [
    ('version = 0', r"version is 0\. It is a whole number from 1"),
    ('version = "2"', r"version is '2'"),
    ('about = ""', "does not declare about"),
    ('State = dict', "State is not a msgspec.Struct"),
    ('wants = "Page"', "wants is 'Page'"),
    ('wants = frozenset()', "wants is"),
    ('Settings = dict', "Settings is not a pydantic model"),
    ('tables = (Table("counts", State, ("nothing",), "x"),)', r'key of table "counts" is \(\'nothing\',\)'),
    ('tables = ("counts",)', "is not a Table"),
    ('tables = (Table("orders", State, ("count",), "x"),)', 'table "orders" already belongs to processor'),
    ('after = ("visit",)', r'"after" names "visit", which is no processor. Did you mean "visits"\?'),
    ('after = ("counting",)', r'wait for each other by "after": counting'),
    ('name = "Bad Name"', "name is 'Bad Name'"),
])  # fmt: skip
def test_what_is_missing_or_wrong_in_a_declaration_is_said_with_its_place(folder: Path, more: str, error: str) -> None:
    write(folder, "counting", "counting", more)

    with pytest.raises(ConfigError, match=error) as refused:
        names(folder)

    assert "counting.py" in refused.value.place or "orders.py" in refused.value.place


def test_a_processor_must_say_how_two_states_become_one(folder: Path) -> None:
    file = write(folder, "counting", "counting")
    file.write_text(file.read_text().replace("def merge", "def merged"))

    with pytest.raises(ConfigError, match=r"counting\.py, class Counting: has no merge\. See docs"):
        names(folder)


def test_a_file_that_is_not_python_is_named_with_its_line(folder: Path) -> None:
    (folder / "broken.py").write_text("x = 1\ndef :\n")

    with pytest.raises(ConfigError, match=r"broken\.py:2: is not Python"):
        names(folder)


def test_a_file_that_fails_on_import_is_named_with_the_error(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_this_name\n")

    with pytest.raises(ConfigError, match=r"broken\.py: cannot be imported: ModuleNotFoundError"):
        names(folder)


def test_a_class_that_begins_with_an_underscore_is_no_processor(folder: Path) -> None:
    write(folder, "counting", "counting", kind="_Counting")

    assert names(folder) == ["coupon", "journeys", "profile", "segments", "visits", "orders"]


def test_another_package_names_its_processors_by_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "elsewhere", "elsewhere")
    points = [EntryPoint("elsewhere", "elsewhere:Counting", registry.GROUP)]
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])

    assert "elsewhere" in [processor.name for processor in load_processors(folder / "config")]

    points[0] = EntryPoint("elsewhere", "elsewhere:Nothing", registry.GROUP)
    with pytest.raises(ConfigError, match="entry point elsewhere = elsewhere:Nothing: cannot be imported"):
        load_processors(folder / "config")


# --- settings


def settings_error(folder: Path, text: str, name: str = "visits") -> str:
    (folder / "config" / "processors" / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_processors(folder / "config")
    return str(refused.value).replace(str(folder), "")


def test_settings_come_from_the_file_of_the_processor(folder: Path) -> None:
    (folder / "config" / "processors" / "visits.yaml").write_text("silence_minutes: 45\n")

    (visits,) = [one for one in load_processors(folder / "config") if one.name == "visits"]

    assert visits.settings == VisitsSettings(silence_minutes=45)


@pytest.mark.parametrize(("text", "error"), [
    ("# ours\nsilence_minutes: 0\n",
     'visits.yaml:2: "silence_minutes": Input should be greater than or equal to 1; got 0.'),
    ("keep_days: 1\nsilence_minute: 5\n", 'visits.yaml:2: "silence_minute": Extra inputs are not permitted; got 5. '
                                          'Did you mean "silence_minutes"? Settings are: silence_minutes,'),
    ("server_libraries:\n  - a\n  - [b]\n", 'visits.yaml:3: "server_libraries.1": Input should be a valid string'),
    ("a: [1\n", "visits.yaml:2: cannot be read as YAML"),
    ("- 1\n", "visits.yaml: must hold settings as `name: value`."),
])  # fmt: skip
def test_wrong_settings_are_said_with_file_line_and_mend(folder: Path, text: str, error: str) -> None:
    assert error in settings_error(folder, text)


def test_a_settings_file_of_no_processor_is_a_mistake(folder: Path) -> None:
    assert 'there is no processor named "visit". Did you mean "visits"?' in settings_error(folder, "a: 1\n", "visit")
