"""Templates of messages as YAML: config/templates/NAME.yaml, or written on a page

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
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from config.segments import known_attributes
from config.yaml_file import YamlFile, parse_yaml, read_text
from schemas.conditions import SegmentName, problems_of
from schemas.errors import ConfigError, shown
from schemas.templates import TemplateFile
from sinks.messages.rendering import GIVEN, MESSAGE, OF_MESSAGE, Template, WrongPart, compile_template

FOLDER = "templates"  # of the config folder
MOST_TEMPLATES = 1_000
RESERVED = ("new", "apply")  # /templates/new is where the pages make one, /api/templates/apply takes over the files
_NAME: TypeAdapter[str] = TypeAdapter(SegmentName)  # names of templates are as those of segments


def read_templates(config: Path, zone: str) -> dict[str, Template]:
    """The templates of the config folder, by name.

    Args:
        zone: the time zone of days and hours that are printed.

    Raises:
        ConfigError: with file and line, the path, the value and the mend.
    """
    folder = config / FOLDER
    return {
        name: parse_template(name, text, config, zone, str(folder / f"{name}.yaml"))
        for name, text in read_texts(config).items()
    }  # fmt: skip


def read_texts(config: Path) -> dict[str, str]:
    """What the files of the config folder say, by the names of the templates; not checked yet.

    Raises:
        ConfigError: a file cannot be read, or would not be; or there are too many.
    """
    folder = config / FOLDER
    for file in sorted(folder.glob("*.yml")):
        raise ConfigError(str(file), "is not read.", "Let its name end with .yaml.")
    files = sorted(folder.glob("*.yaml"))
    if len(files) > MOST_TEMPLATES:
        raise ConfigError(str(folder), f"holds {len(files)} templates; at most {MOST_TEMPLATES}.")
    return {file.stem: read_text(file) for file in files}


def parse_template(name: str, text: str, config: Path, zone: str, file: str = "") -> Template:
    """A template as somebody wrote it, compiled, which takes about 10 ms.

    Args:
        config: the config folder, whose processors say what there is to ask for.
        file: how messages name it; `NAME.yaml` where it is none.

    Raises:
        ConfigError: as `read_templates`.
    """
    return _template(name, parse_yaml(text, file or f"{name}.yaml"), known_attributes(config), zone)


def _template(name: str, file: YamlFile, known: Mapping[str, frozenset[str]], zone: str) -> Template:
    _check_name(name, file)
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


def _check_name(name: str, file: YamlFile) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a template.',
                          "Use lower case letters, digits and _, at most 63, a letter first.") from None  # fmt: skip
    if name in RESERVED:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a template.', "It is the address of a page.")


def _check_asked(asked: str, known: Mapping[str, frozenset[str]], place: str, part: str) -> None:
    """Whether somebody knows what a template asks for."""
    section, _, rest = asked.partition(".")
    if section == GIVEN:
        return
    if section == MESSAGE:
        if rest not in OF_MESSAGE:
            known_ones = " and ".join(f"{MESSAGE}.{name}" for name in OF_MESSAGE)
            raise ConfigError(place, f'"{part}" asks for "{asked}".', f"There are {known_ones}.")
        return
    if section not in known:
        near = get_close_matches(section, [*known, GIVEN, MESSAGE], 1)
        mend = f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(sorted(known))}, {GIVEN} and {MESSAGE}."
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
