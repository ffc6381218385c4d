"""Templates of messages as YAML: config/templates/NAME.yaml

    channel: email
    kind: marketing
    topic: offers
    content:
      en:
        subject: "{{ profile.name | default('Hello') }}, your basket is waiting"
        text: |
          ...

The name of the file is the name of the template. docs/templates.md says what a template may hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from config.segments import known_attributes
from config.yaml_file import YamlFile, read_yaml
from schemas.conditions import SegmentName, problems_of
from schemas.errors import ConfigError, shown
from schemas.templates import TemplateFile
from sinks.messages.rendering import GIVEN, Template, WrongPart, compile_template

FOLDER = "templates"  # of the config folder
MOST_TEMPLATES = 1_000
_NAME: TypeAdapter[str] = TypeAdapter(SegmentName)  # names of templates are as those of segments


def read_templates(config: Path, zone: str) -> dict[str, Template]:
    """The templates of the config folder, by name.

    Args:
        zone: the time zone of days and hours that are printed.

    Raises:
        ConfigError: with file and line, the path, the value and the mend.
    """
    found = {}
    for name, read in read_each(config, zone).items():
        if isinstance(read, ConfigError):
            raise read
        found[name] = read
    for file in sorted((config / FOLDER).glob("*.yml")):
        raise ConfigError(str(file), "is not read.", "Let its name end with .yaml.")
    if len(found) > MOST_TEMPLATES:
        raise ConfigError(str(config / FOLDER), f"holds {len(found)} templates; at most {MOST_TEMPLATES}.")
    return found


def read_each(config: Path, zone: str) -> dict[str, Template | ConfigError]:
    """Each template, or what is wrong with it."""
    names = sorted(file.stem for file in (config / FOLDER).glob("*.yaml"))
    found = {name: read_one(config, name, zone) for name in names[: MOST_TEMPLATES + 1]}
    return {name: read for name, read in found.items() if read is not None}


def read_one(config: Path, name: str, zone: str) -> Template | ConfigError | None:
    """One template, or what is wrong with it; None: there is none of that name."""
    folder = config / FOLDER
    file = folder / f"{name}.yaml"
    try:
        changed_ns = file.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    return _read_as_of(changed_ns, config, file, zone) if file.parent == folder else None


@lru_cache(MOST_TEMPLATES)
def _read_as_of(changed_ns: int, config: Path, file: Path, zone: str) -> Template | ConfigError:
    """A file as it was last changed: compiling it takes 10 ms, and a page asks for all of them."""
    try:
        return _template(file.stem, read_yaml(file), known_attributes(config), zone)
    except ConfigError as wrong:
        return wrong


def _template(name: str, file: YamlFile, known: Mapping[str, frozenset[str]], zone: str) -> Template:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a template.',
                          "Use lower case letters, digits and _, at most 63, a letter first.") from None  # fmt: skip
    if not isinstance(file.values, dict):
        raise ConfigError(file.place(), "holds no template.", "Write `channel:`, `kind:` and `content:`.")
    try:
        said = TemplateFile.model_validate(file.values)
    except ValidationError as error:
        problem = problems_of(error)[0]
        path = ".".join(map(str, problem.path))
        got = f"; got {shown(problem.value)}" if path and problem.value is not None else ""
        mend = f"It may hold {', '.join(TemplateFile.model_fields)}." if len(problem.path) == 1 else ""
        raise ConfigError(file.place(problem.path), f'"{path}": {problem.what}{got}.' if path else f"{problem.what}.",
                          mend) from None  # fmt: skip
    try:
        template = compile_template(name, said, zone)
    except WrongPart as wrong:
        raise ConfigError(_place(file, wrong.path, wrong.line), f'"{".".join(wrong.path)}": {wrong.what}',
                          wrong.mend) from None  # fmt: skip
    for part, asked, line in template.asked:
        _check_asked(asked, known, _place(file, part, line), ".".join(part))
    return template


def _check_asked(asked: str, known: Mapping[str, frozenset[str]], place: str, part: str) -> None:
    """Whether somebody knows what a template asks for."""
    section, _, rest = asked.partition(".")
    if section == GIVEN:
        return
    if section not in known:
        near = get_close_matches(section, [*known, GIVEN], 1)
        mend = f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(sorted(known))} and {GIVEN}."
        raise ConfigError(place, f'"{part}" asks for "{asked}", and there is no processor "{section}".', mend)
    field = rest.partition(".")[0]
    if known[section] and field and field not in known[section]:
        near = get_close_matches(field, sorted(known[section]), 1)
        raise ConfigError(place, f'"{part}" asks for "{asked}", and processor "{section}" shows nothing of that name.',
                          f'Did you mean "{section}.{near[0]}"?' if near else "")  # fmt: skip


def _place(file: YamlFile, path: tuple[str, ...], line: int) -> str:
    """The line of the file on which a line of a text stands; where YAML folds lines it is that of the text."""
    node = file.node
    for step in path:
        values = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in values if key.value == step), None)
    if isinstance(node, yaml.ScalarNode) and node.style == "|":
        return f"{file.name}:{node.start_mark.line + 1 + line}"
    return file.place(path)
