"""Journeys as YAML: config/journeys/NAME.yaml, or written on a page

    enter: {event: {did: Product Added}}
    again: {once_per: cart_id}
    steps:
      - {step: pause, wait: 1 hour}
      - {step: remind, send: basket}

The name of the file is the name of the journey; NAME.cases.yaml beside it holds its cases. docs/journeys.md says what
each word means, and what holds for all journeys is in config/limits.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from config.journey_graph import WrongGraph, check_graph
from config.segments import CONDITION_KEYS, NO_SUCH_KEY, check_attributes, known_attributes
from config.yaml_file import YamlFile, parse_yaml, read_text, read_yaml
from schemas.conditions import (
    KINDS,
    Event,
    InSegment,
    SegmentName,
    WrongCondition,
    leaves_of,
    path_in_condition,
    problems_of,
    read_condition,
)
from schemas.errors import ConfigError, shown
from schemas.journeys import (
    CLOCK,
    MOST_FACTS,
    STEP,
    STEPS,
    Again,
    Arm,
    At,
    BranchStep,
    CallStep,
    Cap,
    Case,
    Change,
    Dated,
    Enter,
    Goal,
    Joined,
    JourneyFile,
    Left,
    Limits,
    Mail,
    Met,
    QuietHours,
    Schedule,
    SendStep,
    SplitStep,
    WaitUntilStep,
    Work,
)
from schemas.segments import Definition

FOLDER = "journeys"  # of the config folder
LIMITS = "limits.yaml"
CASES = ".cases.yaml"  # how files end that hold cases of journeys
MOST_JOURNEYS = 200
RESERVED = ("new", "apply")  # as names of templates: addresses of pages
Place = tuple[str | int, ...]
Form = TypeVar("Form", bound=BaseModel)
_NAME: TypeAdapter[str] = TypeAdapter(SegmentName)  # names of journeys are as those of segments


@dataclass(frozen=True)
class JourneyRead:
    """A journey as its text says it, checked by itself.

    Attributes:
        said: what it says.
        plain: the same as the YAML has it, of values that JSON has; `JourneyFile.model_validate(plain)` is `said`.
        file: its lines, for what is found wrong later.
    """

    name: str
    said: JourneyFile
    plain: dict[str, Any]
    file: YamlFile = field(repr=False, compare=False)


def read_journeys(config: Path, zone: str) -> dict[str, JourneyRead]:
    """The journeys of the config folder, by name, each checked by itself; see `check_journeys_together`.

    Args:
        zone: the time zone of the workspace.

    Raises:
        ConfigError: with file and line, the step, the path, the value and the mend.
    """
    folder = config / FOLDER
    return {
        name: parse_journey(name, text, config, zone, str(folder / f"{name}.yaml"))
        for name, text in read_texts(config).items()
    }  # fmt: skip


def read_texts(config: Path) -> dict[str, str]:
    """What the files of the config folder say, by the names of the journeys; not checked yet.

    Raises:
        ConfigError: a file cannot be read, or would not be; or there are too many.
    """
    folder = config / FOLDER
    for wrong in sorted(folder.glob("*.yml")):
        raise ConfigError(str(wrong), "is not read.", "Let its name end with .yaml.")
    files = [each for each in sorted(folder.glob("*.yaml")) if not each.name.endswith(CASES)]
    if len(files) > MOST_JOURNEYS:
        raise ConfigError(str(folder), f"holds {len(files)} journeys; at most {MOST_JOURNEYS}.")
    return {each.stem: read_text(each) for each in files}


def parse_journey(name: str, text: str, config: Path, zone: str, file: str = "") -> JourneyRead:
    """A journey as somebody wrote it.

    Args:
        config: the config folder, whose processors say what attributes there are to ask for.
        file: how messages name it; `NAME.yaml` where it is none.

    Raises:
        ConfigError: as `read_journeys`.
    """
    read = parse_yaml(text, file or f"{name}.yaml")
    _check_name(name, read)
    if not isinstance(read.values, dict):
        raise ConfigError(read.place(), "holds no journey.", "Write `enter:` and `steps:`.")
    said = _read(JourneyFile, read)
    journey = JourneyRead(name, said, _plain(read.values), read)
    try:
        check_graph(said)
    except WrongGraph as wrong:
        raise _error(journey, wrong.path, wrong.what, wrong.mend) from None
    _check_conditions(journey, known_attributes(config))
    _check_event(journey)
    _check_messages(journey)
    _check_given(journey)
    _check_splits(journey)
    if said.enter.schedule is not None:
        _check_cron(journey, said.enter.schedule.cron)
    return journey


def check_journeys_together(
    journeys: Mapping[str, JourneyRead], segments: Collection[str], templates: Mapping[str, Mail]
) -> None:
    """Whether the segments and templates that journeys ask for are there.

    Args:
        segments: their names, with those of stages.
        templates: what each is, by name; see `mail_of`.

    Raises:
        ConfigError: as `read_journeys`.
    """
    for journey in journeys.values():
        for path, name in segments_of(journey.said):
            if name not in segments:
                near = get_close_matches(name, list(segments), 1)
                raise _error(journey, path, f'there is no segment "{name}".',
                             f'Did you mean "{near[0]}"?' if near else
                             f"Write it first, in config/segments/{name}.yaml or on the page.")  # fmt: skip
        for path, name in templates_of(journey.said):
            is_call = path[-1] == "call"
            fitting = [other for other, mail in templates.items() if (mail.channel == CALL) is is_call]
            if name in fitting:
                continue
            near = get_close_matches(name, fitting, 1)
            if name in templates:
                raise _error(journey, path, f'template "{name}" is of channel {templates[name].channel}, which '
                             + ("only send takes." if is_call else "only call takes."),
                             f'Write {"send" if is_call else "call"}: {name}, or name another.')  # fmt: skip
            raise _error(journey, path, f'there is no template "{name}".', f'Did you mean "{near[0]}"?' if near else
                         f"Write it first, in config/templates/{name}.yaml or on the page.")  # fmt: skip


CALL = "call"  # the channel of templates that other programs are told by


def mail_of(template: Any) -> Mail:
    """What journeys must know of a template: a `TemplateFile`, or a compiled one."""
    return Mail(template.channel, template.kind, template.topic)


def segments_of(journey: JourneyFile) -> Iterator[tuple[Place, str]]:
    """The segments that it asks for, each with its place."""
    enter = journey.enter
    for key in ("joined", "left", "broadcast"):
        if (name := getattr(enter, key)) is not None:
            yield ("enter", key), name
    if enter.schedule is not None:
        yield ("enter", "schedule", "segment"), enter.schedule.segment
    for path, condition in conditions_of(journey):
        for leaf in leaves_of(condition):
            if isinstance(leaf, InSegment):
                yield path, leaf.segment
    for path, happening in _happenings(journey):
        if isinstance(happening, Joined):
            yield (*path, "joined"), happening.joined
        elif isinstance(happening, Left):
            yield (*path, "left"), happening.left


def templates_of(journey: JourneyFile) -> Iterator[tuple[Place, str]]:
    """The templates that it sends or calls by, each with its place, whose last is `send` or `call`."""
    for place, step in enumerate(journey.steps):
        if isinstance(step, SendStep):
            yield ("steps", place, "send"), step.send
        elif isinstance(step, CallStep):
            yield ("steps", place, "call"), step.call


def conditions_of(journey: JourneyFile) -> Iterator[tuple[Place, Any]]:
    """Its conditions, each with its place."""
    if journey.when is not None:
        yield ("when",), journey.when
    for place, step in enumerate(journey.steps):
        if isinstance(step, BranchStep):
            for number, case in enumerate(step.branch):
                yield ("steps", place, "branch", number, "when"), case.when


def facts_of(journey: JourneyFile) -> dict[str, Place]:
    """The properties of the event that somebody enters by which a run must keep, with the place that asks first."""
    found: dict[str, Place] = {}
    if isinstance(journey.again, Again) and journey.again.once_per is not None:
        found[journey.again.once_per] = ("again", "once_per")
    for path, happening in _happenings(journey):
        if isinstance(happening, Met) and happening.matching is not None:
            found.setdefault(happening.matching, (*path, "matching"))
    for place, step in enumerate(journey.steps):
        if isinstance(step, SendStep | CallStep):
            for name, fact in step.from_event.items():
                found.setdefault(fact, ("steps", place, "from_event", name))
    return found


def _happenings(journey: JourneyFile) -> Iterator[tuple[Place, Any]]:
    if journey.goal is not None:
        yield ("goal",), journey.goal
    for place, happening in enumerate(journey.exits):
        yield ("exits", place), happening
    for place, step in enumerate(journey.steps):
        if isinstance(step, WaitUntilStep):
            yield ("steps", place, "wait_until"), step.wait_until


# --- checks of one


def _check_name(name: str, file: YamlFile) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a journey.',
                          "Use lower case letters, digits and _, at most 63, a letter first.") from None  # fmt: skip
    if name in RESERVED:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a journey.', "It is the address of a page.")


def _check_conditions(journey: JourneyRead, known: Mapping[str, frozenset[str]]) -> None:
    for path, condition in conditions_of(journey.said):
        try:
            read_condition(_at(journey.file.values, path))
        except WrongCondition as too_large:  # it was read before, so it is too large
            raise _error(journey, path, f"{too_large.problems[0].what}.", "Write a part of it as a segment.") from None
        try:
            check_attributes(Definition(journey.name, condition), known, "")
        except ConfigError as wrong:
            raise _error(journey, path, wrong.what, wrong.mend) from None


def _check_event(journey: JourneyRead) -> None:
    """Values of the event that she entered by are there only where it is an event."""
    facts = facts_of(journey.said)
    if facts and journey.said.enter.event is None:
        path = next(iter(facts.values()))
        raise _error(journey, path, f"there is no event that she entered by; enter is {journey.said.enter.kind}.",
                     "Enter by an event, or take it out.")  # fmt: skip
    if len(facts) > MOST_FACTS:
        raise _error(journey, list(facts.values())[MOST_FACTS],
                     f"{len(facts)} values of the event are asked for; at most {MOST_FACTS}.")  # fmt: skip


def _check_messages(journey: JourneyRead) -> None:
    sends = [step.step for step in journey.said.steps if isinstance(step, SendStep)]
    for path, happening in _happenings(journey.said):
        if isinstance(happening, Met) and happening.message is not None and happening.message not in sends:
            near = get_close_matches(happening.message, sends, 1)
            mend = f'Did you mean "{near[0]}"?' if near else (f"Those are: {', '.join(sends)}." if sends else "")
            raise _error(journey, (*path, "message"), f'is "{happening.message}", which is not a step of this journey '
                         "that sends.", mend)  # fmt: skip


def _check_given(journey: JourneyRead) -> None:
    for place, step in enumerate(journey.said.steps):
        if isinstance(step, SendStep | CallStep):
            for name in step.from_event:
                if name in step.given:
                    raise _error(journey, ("steps", place, "from_event", name), "is said by given, too.",
                                 "Take one of them out.")  # fmt: skip


def _check_splits(journey: JourneyRead) -> None:
    for place, step in enumerate(journey.said.steps):
        if isinstance(step, SplitStep) and step.learns and journey.said.goal is None:
            raise _error(journey, ("steps", place, "learns"), "is of what reaches the goal, and there is none.",
                         "Write goal, or take it out.")  # fmt: skip


def _check_cron(journey: JourneyRead, cron: str) -> None:
    from processors.moments import check_cron  # only who schedules needs it

    try:
        check_cron(cron)
    except ValueError as error:
        raise _error(journey, ("enter", "schedule", "cron"), f"cannot be read: {error}.") from None


def _error(journey: JourneyRead, path: Place, what: str, mend: str = "") -> ConfigError:
    return ConfigError(journey.file.place(path), _told(path, what, journey.file.values), mend)


# --- reading


def _read(model: type[Form], file: YamlFile) -> Form:
    try:
        return model.model_validate(file.values)
    except ValidationError as error:
        problem = problems_of(error, path_of=_path)[0]
        value = problem.value
        got = f"; got {shown(value) or chr(34) * 2}" if isinstance(value, str | int | float | date) else ""
        what = _told(problem.path, f"{_in_words(problem.what)}{got}.", file.values)
        raise ConfigError(
            file.place(problem.path), what, _mend(problem.path, problem.what, value, file.values)
        ) from None


def _path(loc: Place) -> Place:
    """The way to a value as it stands in the YAML, of the way that pydantic tells, which names kinds in between."""
    match loc:
        case ("steps", place, _, "branch", number, "when", *rest):
            return ("steps", place, "branch", number, "when", *path_in_condition(tuple(rest)))
        case ("steps", place, _, "wait" | "wait_until" as key, _, *rest):
            return ("steps", place, key, *rest)
        case ("steps", place, _, *rest):
            return ("steps", place, *rest)
        case ("exits", place, _, *rest):
            return ("exits", place, *rest)
        case ("again", _, *rest):
            return ("again", *rest)
        case ("when", *rest):
            return ("when", *path_in_condition(tuple(rest)))
    return loc


_MODEL = re.compile(r"a valid dictionary( or instance of \w+)?")


def _in_words(what: str) -> str:
    """What pydantic says of a pattern, said of what it is for."""
    if CLOCK in what:
        return "write a time of day, such as 09:00"
    if STEP in what:
        return "write lower case letters, digits and _, at most 63, a letter first"
    what = _MODEL.sub("a map", what).replace("a valid tuple", "a list")
    return what.replace("Input should be", "should be")


def _mend(path: Place, what: str, value: Any, values: Any) -> str:
    """What a key that there is not may have been meant to be; at the top, all that there are."""
    if what == NO_SUCH_KEY:
        known = list(_keys_at(path[:-1], values))
        all_of_them = f"It may hold {', '.join(known)}." if len(known) < len(CONDITION_KEYS) else ""
        return _did_you_mean(str(path[-1]), known) or all_of_them
    for begin, known in _BEGINS.items():
        if what.startswith(begin) and isinstance(value, dict):
            return next(filter(None, (_did_you_mean(str(key), known) for key in value if key != "step")), "")
    return ""


_BEGINS = {"a step has": list(STEPS), "what happens has": ["did", "joined", "left"], "a condition has": list(KINDS)}


def _keys_at(path: Place, values: Any) -> Iterator[str]:
    """The keys that may stand in the map at a path."""
    if "when" in path or "where" in path:
        yield from CONDITION_KEYS
        return
    found: Any = Limits if isinstance(values, dict) and not {"enter", "steps"} & values.keys() else JourneyFile
    for place, step in enumerate(path):
        if isinstance(step, int):
            here = _at(values, path[: place + 1])
            kinds: Mapping[str, Any] = {"steps": STEPS, "exits": _HAPPENINGS}.get(str(path[place - 1]), {})
            found = next((model for kind, model in kinds.items() if kind in here), found)
        elif step == "wait_until":
            found = next(model for kind, model in _HAPPENINGS.items() if kind in _at(values, path[: place + 1]))
        else:
            found = _INNER.get(step, found)
    for name, each in found.model_fields.items():
        yield each.alias or name


_HAPPENINGS: dict[str, Any] = {"did": Met, "joined": Joined, "left": Left}
_INNER: dict[str, Any] = {
    "enter": Enter, "event": Event, "date": Dated, "schedule": Schedule, "again": Again, "goal": Goal, "wait": At,
    "branch": Case, "split": Arm, "update": Change, "ticket": Work, "task": Work, "quiet_hours": QuietHours,
    "caps": Cap,
}  # fmt: skip


def _told(path: Place, what: str, values: Any) -> str:
    """What is wrong, with the name of the step; and where there is none, its number."""
    goes_on = what.startswith(("is ", "goes ", "cannot ", "should "))
    if path[:1] == ("steps",) and len(path) > 1:
        step, rest = _at(values, path[:2]), path[2:]
        name = step.get("step") if isinstance(step, dict) else None
        named = f'step "{name}"' if isinstance(name, str) else f"step {int(path[1]) + 1}"
        whole = f'{named}, "{_dotted(rest)}"' if rest else named
    else:
        whole = f'"{_dotted(path)}"'
    return f"{whole}{' ' if goes_on else ': '}{what}" if path else what


def _dotted(path: Collection[str | int]) -> str:
    return ".".join(map(str, path))


def _did_you_mean(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f'Did you mean "{near[0]}"?' if near else ""


def _at(values: Any, path: Place) -> Any:
    """What stands at a path, None where nothing does."""
    for step in path:
        if isinstance(values, dict):
            values = values.get(step)
        elif isinstance(values, list) and isinstance(step, int) and step < len(values):
            values = values[step]
        else:
            return None
    return values


def _plain(values: Any) -> Any:
    """Days as texts, as JSON has them; all else that YAML has and JSON has not was refused before."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return values.isoformat() if isinstance(values, date) else values


# --- what holds for all of them


def read_limits(config: Path) -> Limits:
    """What config/limits.yaml says of the messages of all journeys; where there is none, nothing is limited.

    Raises:
        ConfigError: with file and line, the path, the value and the mend.
    """
    path = config / LIMITS
    if not path.exists():
        return Limits.model_validate({})
    file = read_yaml(path)
    if file.values is None:
        return Limits.model_validate({})
    if not isinstance(file.values, dict):
        raise ConfigError(file.place(), "holds no limits.", "Write `quiet_hours:` or `caps:`.")
    limits = _read(Limits, file)
    if limits.quiet_hours is not None and limits.quiet_hours.from_ == limits.quiet_hours.to:
        raise ConfigError(file.place(("quiet_hours",)), '"quiet_hours": from and to are the same time of day.',
                          "Leave quiet_hours out, if there are none.")  # fmt: skip
    return limits
