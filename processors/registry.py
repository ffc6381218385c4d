"""Finds the processors, puts them in order, and gives each its settings.

A processor is found where it is: any module of the folder `processors/` that defines a subclass of `Processor`, and
what other packages name under the entry point group `tidewire.processors`. Nothing else lists them.

Order: each after those it names in `after`, otherwise by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from heapq import heapify, heappop, heappush
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import yaml
from pydantic import BaseModel, ValidationError

from processors.base import Processor, Table
from schemas.errors import ConfigError, shown

HERE = Path(__file__).parent
GROUP = "tidewire.processors"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")

AnyProcessor = Processor[Any]


def load_processors(config: Path, folders: Sequence[Path] = ()) -> list[AnyProcessor]:
    """All processors there are, in order, each with its settings from `config/processors/<name>.yaml`.

    Args:
        config: the config folder.
        folders: further folders of processor files, beside `processors/` itself.

    Raises:
        ConfigError: two of one name or table, something missing or wrong in one, or in its settings.
    """
    found = [*_of_folder(HERE), *(pair for folder in folders for pair in _of_folder(folder)), *_of_packages()]
    by_name: dict[str, tuple[str, type[AnyProcessor]]] = {}
    tables: dict[str, str] = {}
    for place, processor in found:
        check_declaration(place, processor)
        if processor.name in by_name:
            other = by_name[processor.name][0]
            raise ConfigError(place, f'a processor named "{processor.name}" is already in {other}.',
                              "Give one of them another name.")  # fmt: skip
        by_name[processor.name] = (place, processor)
        for table in processor.tables:
            if table.name in tables:
                raise ConfigError(place, f'table "{table.name}" already belongs to processor "{tables[table.name]}".',
                                  "Give it another name.")  # fmt: skip
            tables[table.name] = processor.name
    ordered = in_order(by_name.values())
    _check_files(config / "processors", by_name)
    return [make(processor, config) for processor in ordered]


def make(processor: type[AnyProcessor], config: Path) -> AnyProcessor:
    """The processor with the settings of its file; the defaults where there is none.

    Raises:
        ConfigError: with file, line, value and what would be right.
    """
    return processor(read_settings(config / "processors" / f"{processor.name}.yaml", processor.Settings))


def in_order(processors: Iterable[tuple[str, type[AnyProcessor]]]) -> list[type[AnyProcessor]]:
    """Each after those it names in `after`, otherwise by name.

    Raises:
        ConfigError: one names a processor that is not there, or they wait for each other.
    """
    waiting = {processor.name: (place, processor) for place, processor in processors}
    open_: dict[str, set[str]] = {}
    for name, (place, processor) in waiting.items():
        for other in processor.after:
            if other not in waiting:
                mend = _did_you_mean(other, waiting)
                raise ConfigError(place, f'"after" names "{other}", which is no processor.', mend)
        open_[name] = set(processor.after)
    ready = [name for name, others in open_.items() if not others]
    heapify(ready)
    ordered: list[type[AnyProcessor]] = []
    while ready:
        name = heappop(ready)
        ordered.append(waiting[name][1])
        del open_[name]
        for other, others in open_.items():
            if name in others:
                others.remove(name)
                if not others:
                    heappush(ready, other)
    if open_:
        names = ", ".join(sorted(open_))
        raise ConfigError(waiting[min(open_)][0], f'processors wait for each other by "after": {names}.',
                          "Take one of the names out.")  # fmt: skip
    return ordered


# --- finding


def processors_of(module: ModuleType) -> list[type[AnyProcessor]]:
    """The processors that a module defines itself; classes whose name begins with `_` are none."""
    return [thing for name, thing in vars(module).items()
            if isinstance(thing, type) and issubclass(thing, Processor) and thing.__module__ == module.__name__
            and thing is not Processor and not name.startswith("_")]  # fmt: skip


def import_file(file: Path) -> ModuleType:
    """The module of a processor file, as part of the package `processors`.

    Raises:
        ConfigError: it cannot be imported; with the place in the file.
    """
    name = f"processors.{file.stem}"
    try:
        if file.parent == HERE:
            return importlib.import_module(name)
        known = sys.modules.get(name)
        if known is not None and Path(str(known.__file__)) == file:
            return known
        if known is not None or (HERE / file.name).exists():
            raise ConfigError(str(file), f"a module {name} is already in {HERE}.", "Rename the file.")
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ConfigError(str(file), "is not a Python file.")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}", f"is not Python: {error.msg}.") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(str(file), f"cannot be imported: {type(error).__name__}: {error}.") from error
    return module


def _of_folder(folder: Path) -> Iterator[tuple[str, type[AnyProcessor]]]:
    for file in sorted(folder.glob("*.py")):
        if not file.stem.startswith("_"):
            for processor in processors_of(import_file(file)):
                yield str(file), processor


def _of_packages() -> Iterator[tuple[str, type[AnyProcessor]]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        place = f"entry point {point.name} = {point.value}"
        try:
            named = point.load()
        except Exception as error:
            raise ConfigError(place, f"cannot be imported: {type(error).__name__}: {error}.",
                              "Mend or remove the package that declares it.") from error  # fmt: skip
        if isinstance(named, ModuleType):
            for processor in processors_of(named):
                yield place, processor
        elif isinstance(named, type) and issubclass(named, Processor):
            yield place, named
        else:
            raise ConfigError(place, f"names {named!r}, which is neither a processor nor a module with some.")


# --- declarations


def check_declaration(place: str, processor: type[AnyProcessor]) -> None:
    """Whether everything a processor must declare is there and can be used.

    Raises:
        ConfigError: what is missing or wrong, and what would be right.
    """
    for wrong, mend in _faults(processor):
        raise ConfigError(f"{place}, class {processor.__name__}", wrong, mend)


def _faults(processor: type[AnyProcessor]) -> Iterator[tuple[str, str]]:
    missing = [name for name in ("name", "about", "State") if getattr(processor, name, None) in (None, "")]
    if missing:
        yield f"does not declare {', '.join(missing)}.", "See docs/adding-a-processor.md."
    if not isinstance(processor.name, str) or not _NAME.match(processor.name):
        yield f"name is {processor.name!r}.", "Use lower case letters, digits and _, at most 41."
    if not isinstance(processor.version, int) or isinstance(processor.version, bool) or processor.version < 1:
        yield f"version is {processor.version!r}.", "It is a whole number from 1."
    if not (isinstance(processor.State, type) and issubclass(processor.State, msgspec.Struct)):
        yield "State is not a msgspec.Struct.", "Declare one, with a default for every field."
    try:
        processor.State()
    except TypeError as error:
        yield f"State cannot begin empty: {error}.", "Give every field a default."
    wants = processor.wants
    if isinstance(wants, str) or not wants or not all(isinstance(label, str) for label in wants):
        yield f"wants is {processor.wants!r}.", 'It is a frozenset of event labels, such as frozenset({"Page"}).'
    for method in ("apply", "merge"):
        if getattr(processor, method) is getattr(Processor, method):
            yield f"has no {method}.", "See docs/adding-a-processor.md."
    if not (isinstance(processor.Settings, type) and issubclass(processor.Settings, BaseModel)):
        yield "Settings is not a pydantic model.", "Declare one, or leave it out."
    for table in processor.tables:
        yield from _table_faults(table)


def _table_faults(table: Table) -> Iterator[tuple[str, str]]:
    if not (isinstance(table, Table) and isinstance(table.row, type) and issubclass(table.row, msgspec.Struct)):
        yield f"{table!r} is not a Table with a struct.", "See docs/adding-a-processor.md."
        return
    fields = {field.name for field in msgspec.structs.fields(table.row)}
    if not table.key or not fields.issuperset(table.key):
        yield (f'key of table "{table.name}" is {table.key!r}.',
               f"It names at least one of the fields: {', '.join(sorted(fields))}.")  # fmt: skip


# --- settings


def read_settings(file: Path, model: type[BaseModel]) -> BaseModel:
    """The settings of a YAML file, checked; the defaults where there is no file.

    Raises:
        ConfigError: with file and line, the value, and what would be right.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return model()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"cannot be read: {error}.") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError(place, f"cannot be read as YAML: {getattr(error, 'problem', error)}.") from None
    if values is None:
        return model()
    if not isinstance(values, dict):
        raise ConfigError(str(file), "must hold settings as `name: value`.")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(step) for step in first["loc"]]
        name = ".".join(path)
        mend = "" if not path or path[0] in model.model_fields else (
            _did_you_mean(path[0], model.model_fields) + f" Settings are: {', '.join(model.model_fields) or 'none'}."
        )  # fmt: skip
        line = _line_of(node, path)
        raise ConfigError(f"{file}:{line}", f'"{name}": {first["msg"]}; got {shown(first["input"])}.', mend) from None


def _line_of(node: yaml.Node | None, path: Sequence[str]) -> int:
    """The line on which the value stands, from 1; of what is nearest to it where it is not there."""
    line = 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if str(key.value) == step]
            if not pairs:
                return line
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
    return line


def _check_files(folder: Path, names: Iterable[str]) -> None:
    """A settings file that belongs to no processor is a spelling mistake, or a processor that is missing."""
    known = list(names)
    for file in sorted(folder.glob("*.yaml")):
        if file.stem not in known:
            mend = f"{_did_you_mean(file.stem, known)} Processors are: {', '.join(sorted(known))}."
            raise ConfigError(str(file), f'there is no processor named "{file.stem}".', mend.strip())


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f'Did you mean "{near[0]}"?' if near else ""
