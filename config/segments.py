"""Segments as YAML: config/segments/NAME.yaml

    title: {en: Loyal, zh: 忠诚客户}
    about: Bought at least three times in a year, and lately.
    when:
      all:
        - {did: Order Completed, at_least: 3, within: 365 days}
        - {did: Order Completed, within: 90 days}

The name of the file is the name of the segment. docs/segments.md says what conditions there are. The stages of
config/lifecycle.yaml are segments too, each without those before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from config.yaml_file import YamlFile, parse_yaml, read_yaml
from processors.rfm import RFM, rfm_of
from processors.rules import in_order
from schemas.conditions import (
    KINDS,
    All,
    Attribute,
    Condition,
    Did,
    InSegment,
    Not,
    Problem,
    SegmentName,
    Sequence,
    Step,
    Total,
    Where,
    WrongCondition,
    leaves_of,
    problems_of,
    read_condition,
)
from schemas.errors import ConfigError, shown
from schemas.segments import Definition

FOLDER = "segments"  # of the config folder
LIFECYCLE = "lifecycle.yaml"
STAGE = "stage_"  # how segments begin that are stages
_NAME: TypeAdapter[str] = TypeAdapter(SegmentName)
NO_SUCH_KEY = "no such key here"  # as `schemas.conditions` says it
MOST_SEGMENTS = 1_000
RESERVED = ("new",)  # /segments/new is where the pages make one


Form = TypeVar("Form", bound="SegmentFile")


class SegmentFile(BaseModel):
    """One segment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Annotated[dict[str, str], Field(max_length=10)] = Field(
        default_factory=dict, description="Its name for people, by language: `{en: Loyal, zh: 忠诚客户}`."
    )
    about: str = Field("", max_length=1_000, description="What it is for.")
    when: Condition = Field(description="Who is in it; see docs/segments.md.")


def read_segments(config: Path) -> dict[str, Definition]:
    """The segments of the config folder, by name.

    Raises:
        ConfigError: with file and line, the path, the value and the mend.
    """
    found = {file.stem: read_segment(file) for file in sorted((config / FOLDER).glob("*.yaml"))}
    for name in found:
        if name.startswith(STAGE):
            raise ConfigError(str(config / FOLDER / f"{name}.yaml"), f'"{STAGE}" begins the names of stages alone.',
                              f"Name it otherwise, or write it in {LIFECYCLE}.")  # fmt: skip
    if (config / LIFECYCLE).exists():
        found |= _read_lifecycle(config / LIFECYCLE)
    for file in sorted((config / FOLDER).glob("*.yml")):
        raise ConfigError(str(file), "is not read.", "Let its name end with .yaml.")
    if len(found) > MOST_SEGMENTS:
        raise ConfigError(str(config / FOLDER), f"holds {len(found)} segments; at most {MOST_SEGMENTS}.")
    check_together(found, str(config / FOLDER))
    for name, definition in found.items():
        check_attributes(definition, known_attributes(config), _place(str(config / FOLDER), name))
    return found


def read_segment(file: Path) -> Definition:
    return _definition(file.stem, read_yaml(file))


def parse_segment(name: str, text: str) -> Definition:
    """A segment as somebody writes it on a page; raises like `read_segments`."""
    if name.startswith(STAGE):
        raise ConfigError(name, f"stages are written in {LIFECYCLE} alone.", "Change it there.")
    return _definition(name, parse_yaml(text, f"{name}.yaml"))


class Stage(SegmentFile):
    """One stage of people's life as customers."""

    stage: SegmentName = Field(description="Its name.")


def _read_lifecycle(file: Path) -> dict[str, Definition]:
    """The stages, in their order; people are in the first whose condition is true of them."""
    whole = read_yaml(file)
    stages = whole.values.get("stages") if isinstance(whole.values, dict) else None
    if not isinstance(stages, list) or not stages or len(whole.values) > 1:
        raise ConfigError(whole.place(), "holds no stages.", "Write `stages:`, and below it a list.")
    found: dict[str, Definition] = {}
    for number, values in enumerate(stages):
        if not isinstance(values, dict):
            raise ConfigError(whole.place(("stages", number)), "is no stage.", "Write `stage:` and `when:`.")
        read = _read(Stage, values, whole, ("stages", number))
        name = STAGE + read.stage
        if name in found:
            raise ConfigError(whole.place(("stages", number)), f'there are two stages "{read.stage}".')
        others = tuple(Not.model_validate({"not": {"segment": before}}) for before in found)
        when = All(all=(read.when, *others)) if others else read.when
        found[name] = Definition(name, when, title=dict(read.title), about=read.about)
    return found


def _definition(name: str, file: YamlFile) -> Definition:
    _check_name(name, file)
    if not isinstance(file.values, dict):
        raise ConfigError(file.place(), "holds no segment.", "Write `when:`, and below it a condition.")
    read = _read(SegmentFile, file.values, file, ())
    return Definition(name, read.when, title=dict(read.title), about=read.about)


def _read(model: type[Form], values: dict[str, Any], file: YamlFile, at: tuple[str | int, ...]) -> Form:
    """Read what stands at a path of the file."""
    try:
        read_condition(values.get("when"))
        return model.model_validate(values)
    except WrongCondition as wrong:
        problem = wrong.problems[0]
        path = (*at, "when", *problem.path)
        if "when" not in values:
            near = get_close_matches("when", [str(key) for key in values], 1)
            mend = f'Did you mean it by "{near[0]}"?' if near else "Write `when:`, and below it a condition."
            raise ConfigError(file.place(at), '"when" is missing.', mend) from None
        raise ConfigError(file.place(path), _said(path, problem.what, problem.value), _mend(problem)) from None
    except ValidationError as error:
        problem = problems_of(error)[0]
        path = (*at, *problem.path)
        known = ", ".join(model.model_fields)
        mend = f"It may hold {known}." if len(problem.path) == 1 else ""
        raise ConfigError(file.place(path), _said(path, problem.what, problem.value), mend) from None


CONDITION_KEYS = sorted({*KINDS, *(field.alias or name for node in (Did, Sequence, Step, Total, Where)
                          for name, field in node.model_fields.items())})  # fmt: skip


def _mend(problem: Problem) -> str:
    """What a key that there is not may have been meant to be."""
    return _did_you_mean(str(problem.path[-1]), CONDITION_KEYS) if problem.what == NO_SUCH_KEY else ""


def _said(path: tuple[str | int, ...], what: str, value: Any) -> str:
    got = "" if value is None else "; got " + (shown(value) or '""')
    return f'"{".".join(map(str, path))}": {what}{got}.'


def _check_name(name: str, file: YamlFile) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a segment.',
                          "Use lower case letters, digits and _, at most 63, a letter first.") from None  # fmt: skip
    if name in RESERVED:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a segment.', "It is the address of a page.")


def check_together(definitions: Mapping[str, Definition], folder: str) -> None:
    """Whether all segments that are asked for are there, and none asks for itself, by whatever way.

    Raises:
        ConfigError: what is wrong.
    """
    for name, definition in definitions.items():
        for leaf in leaves_of(definition.when):
            if isinstance(leaf, InSegment) and leaf.segment not in definitions:
                raise ConfigError(_place(folder, name), f'there is no segment "{leaf.segment}".',
                                  _did_you_mean(leaf.segment, list(definitions))
                                  or f'Bring it back, or let "{name}" do without it first.')  # fmt: skip
    try:
        in_order(definitions.values())
    except ValueError as error:
        raise ConfigError(folder, f"{error}.", "Let one of them say what it means itself.") from None


def check_attributes(definition: Definition, known: Mapping[str, frozenset[str]], place: str) -> None:
    """Whether there is somebody who knows the attributes that are asked for.

    Args:
        known: see `known_attributes`.

    Raises:
        ConfigError: there is not.
    """
    for leaf in leaves_of(definition.when):
        if isinstance(leaf, Attribute):
            section, field = leaf.attribute.split(".")[:2]
            names = [f"{section}.{each}" for each in known.get(section, ())]
            if section not in known:
                raise ConfigError(place, f'"{leaf.attribute}": there is no processor "{section}".',
                                  _did_you_mean(section, sorted(known)))  # fmt: skip
            if names and f"{section}.{field}" not in names:
                raise ConfigError(place, f'"{leaf.attribute}": processor "{section}" shows nothing of that name.',
                                  _did_you_mean(f"{section}.{field}", sorted(names)))  # fmt: skip


@cache
def known_attributes(config: Path) -> Mapping[str, frozenset[str]]:
    """What the processors show of people, by their names; of one that shows nothing of nobody, nothing is known."""
    from processors.registry import load_processors

    known = {RFM: frozenset(rfm_of([1, 1, 1])), "company": frozenset({"id", "people", "orders", "revenue"})}
    for processor in load_processors(config):
        try:
            known[processor.name] = frozenset(processor.show(processor.State()))
        except Exception:  # it need not be able to show somebody of whom it knows nothing
            known[processor.name] = frozenset()
    return known


def _place(folder: str, name: str) -> str:
    return f"{Path(folder).parent / LIFECYCLE}" if name.startswith(STAGE) else f"{folder}/{name}.yaml"


def _did_you_mean(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f'Did you mean "{near[0]}"?' if near else ""
