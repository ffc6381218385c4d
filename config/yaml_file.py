"""A YAML file, and on which line of it each value stands."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from schemas.errors import ConfigError

LARGEST_BYTES = 256 * 1024
DEEPEST = 100  # levels; reading takes the square of them


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a time of day, 21:30, is a text (YAML 1.1 reads 1290), and so is a key such as `on`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


_CLOCK = re.compile(r"[0-9]{1,2}(:[0-5][0-9]){1,2}\Z")
_Loader.yaml_implicit_resolvers = {
    first: [("tag:yaml.org,2002:str", _CLOCK), *resolvers] if first in "0123456789" else resolvers
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}  # fmt: skip


class YamlFile(NamedTuple):
    """What a file holds. `name` is how messages name it."""

    name: str
    values: Any
    node: yaml.Node | None

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line on which the value stands, from 1; of what is nearest to it where it is not there."""
        return line_of(self.node, path)

    def place(self, path: Sequence[str | int] = ()) -> str:
        return f"{self.name}:{self.line_of(path)}"


def read_yaml(file: Path) -> YamlFile:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, or is no YAML; with the line.
    """
    return parse_yaml(read_text(file), str(file))


def read_text(file: Path) -> str:
    """What a file holds.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"cannot be read: {error}.") from None


def parse_yaml(text: str, name: str) -> YamlFile:
    """Read YAML of a file, or a page, that messages call `name`; raises like `read_yaml`."""
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_BYTES:
        raise ConfigError(name, f"is too large; at most {LARGEST_BYTES // 1024} kB.")
    try:
        _refuse_tricks(text, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(place, f"cannot be read as YAML: {getattr(error, 'problem', None) or error}.") from None
    except (ValueError, RecursionError, OverflowError) as error:  # such as a day that no month has
        raise ConfigError(_place_of_trouble(text, name), f"cannot be read as YAML: {error}.") from None
    _refuse_twice(node, name)
    return YamlFile(name, values, node)


def line_of(node: yaml.Node | None, path: Sequence[str | int]) -> int:
    """The line on which the value at a path stands, from 1; of what is nearest to it where it is not there."""
    line = 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if str(key.value) == str(step)]
            if not pairs:
                return line
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and str(step).isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
    return line


def _place_of_trouble(text: str, name: str) -> str:
    """Where the first value stands that looks like a number or a time and is none."""
    with suppress(yaml.YAMLError):
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.ScalarEvent) and event.style is None and _is_trouble(event.value):
                return f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}"
    return name


def _is_trouble(value: str) -> bool:
    try:
        yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError):
        return False
    except (ValueError, OverflowError):
        return True
    return False


def _refuse_tricks(text: str, name: str) -> None:
    """A few lines of aliases can stand for millions of values, and one line of brackets can take hours to read."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            place = f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}"
            raise ConfigError(place, f"is nested too deeply; at most {DEEPEST} levels.")
        if isinstance(event, yaml.AliasEvent):
            place = f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}"
            raise ConfigError(place, f"uses the alias *{event.anchor}.", "Write the value out.")


def _refuse_twice(node: yaml.Node | None, name: str) -> None:
    """YAML takes the last of two keys of one name; whoever wrote them meant both."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if lines.setdefault(str(key.value), line) != line:
                    raise ConfigError(f"{name}:{line}", f'"{key.value}" is set twice.', "Take one of the two out.")
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
