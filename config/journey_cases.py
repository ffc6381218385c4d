"""Cases of journeys as YAML: config/journeys/NAME.cases.yaml

    cases:
      - case: a basket that is left is called to mind after an hour
        events:
          - {at: +0 minutes, event: Product Added, properties: {cart_id: c-1}}
        expect:
          - {at: +0 minutes, entered: event}
          - {at: +1 hour, step: remind, send: basket}

docs/journey-cases.md says what each word means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ValidationError

from config.journeys import CASES, FOLDER
from config.segments import NO_SUCH_KEY
from config.yaml_file import YamlFile, parse_yaml, read_text
from schemas.conditions import problems_of
from schemas.errors import ConfigError, shown
from schemas.journey_cases import Case, CaseEvent, CaseFile, Line, Moment, Person
from schemas.journeys import JourneyFile, SendStep, SplitStep


@dataclass(frozen=True)
class CasesRead:
    """The cases of one journey.

    Attributes:
        journey: its name.
        file: the lines of the file, by which messages name a case.
    """

    journey: str
    said: CaseFile
    file: YamlFile = field(repr=False, compare=False)

    def place(self, number: int, *path: str | int) -> str:
        """File and line of a case, or of something in it."""
        return self.file.place(("cases", number, *path))


def files_of_cases(config: Path) -> dict[str, Path]:
    """The files of the config folder, by the name of the journey."""
    found = {file.name.removesuffix(CASES): file for file in sorted((config / FOLDER).glob(f"*{CASES}"))}
    for name, file in found.items():
        if not (config / FOLDER / f"{name}.yaml").exists():
            journeys = [each.stem for each in (config / FOLDER).glob("*.yaml") if not each.name.endswith(CASES)]
            near = get_close_matches(name, journeys, 1)
            mend = f'Did you mean "{near[0]}{CASES}"?' if near else f"Write {name}.yaml beside it."
            raise ConfigError(str(file), f'there is no journey "{name}".', mend)
    return found


def read_cases(file: Path, journey: JourneyFile) -> CasesRead:
    """The cases of a file.

    Raises:
        ConfigError: with file and line, the value and the mend.
    """
    return parse_cases(file.name.removesuffix(CASES), read_text(file), journey, str(file))


def parse_cases(name: str, text: str, journey: JourneyFile, file: str = "") -> CasesRead:
    """Cases as somebody wrote them; raises like `read_cases`."""
    read = parse_yaml(text, file or f"{name}{CASES}")
    if not isinstance(read.values, dict):
        raise ConfigError(read.place(), "holds no cases.", "Write `cases:`, and below it a list.")
    try:
        said = CaseFile.model_validate(read.values)
    except ValidationError as error:
        problem = problems_of(error)[0]
        is_value = problem.what != NO_SUCH_KEY and isinstance(problem.value, str | int | float)
        got = f"; got {shown(problem.value)}" if is_value else ""
        raise ConfigError(read.place(problem.path), f"{_named(problem.path, read)}{problem.what}{got}.",
                          _mend(problem.path, problem.what)) from None  # fmt: skip
    cases = CasesRead(name, said, read)
    _check_steps(cases, journey)
    _check_times(cases)
    return cases


def _named(path: Sequence[str | int], file: YamlFile) -> str:
    """Where something stands: the case by its name, where it has one."""
    if path[:1] != ("cases",) or len(path) < 2 or not isinstance(path[1], int):
        return f'"{_dotted(path)}": ' if path else ""
    values = file.values.get("cases")
    case = values[path[1]] if isinstance(values, list) and path[1] < len(values) else None
    name = case.get("case") if isinstance(case, dict) else None
    named = f'case "{name}"' if isinstance(name, str) else f"case {path[1] + 1}"
    return f'{named}, "{_dotted(path[2:])}": ' if path[2:] else f"{named}: "


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(each + 1) if isinstance(each, int) else each for each in path)


_MODELS: dict[str, type[BaseModel]] = {"expect": Line, "events": CaseEvent, "person": Person, "cases": Case}


def _mend(path: Sequence[str | int], what: str) -> str:
    """What a key that there is not may have been meant to be."""
    if what != NO_SUCH_KEY:
        return ""
    inner: type[BaseModel] = next((model for name, model in _MODELS.items() if name in path[:-1]), CaseFile)
    known = [each.alias or name for name, each in inner.model_fields.items()]
    near = get_close_matches(str(path[-1]), known, 1)
    return f'Did you mean "{near[0]}"?' if near else f"It may hold {', '.join(known)}."


def _check_steps(cases: CasesRead, journey: JourneyFile) -> None:
    """Whether the steps that are named are there, and are of the kind that is meant."""
    steps = {step.step: step for step in journey.steps}
    sends = [name for name, step in steps.items() if isinstance(step, SendStep)]
    splits = [name for name, step in steps.items() if isinstance(step, SplitStep)]
    for number, case in enumerate(cases.said):
        for place, event in enumerate(case.events):
            if event.of is not None:
                _check(cases, (number, "events", place, "of"), event.of, sends, "a step of this journey that sends")
        for place, line in enumerate(case.expect):
            if line.step is not None:
                _check(cases, (number, "expect", place, "step"), line.step, list(steps), "a step of this journey")
        for place, name in enumerate(case.fails):
            _check(cases, (number, "fails", place), name, sends, "a step of this journey that sends")
        for name, to in case.draws.items():
            _check(cases, (number, "draws", name), name, splits, "a split of this journey")
            split = steps[name]
            assert isinstance(split, SplitStep)
            _check(cases, (number, "draws", name), to, [arm.then for arm in split.split], f'an arm of "{name}"')


def _check(cases: CasesRead, path: tuple[int | str, ...], name: str, known: Sequence[str], what: str) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, 1)
    mend = f'Did you mean "{near[0]}"?' if near else (f"There are {', '.join(known)}." if known else "There is none.")
    whole = ("cases", *path)
    raise ConfigError(cases.file.place(whole), f'{_named(whole, cases.file)}"{name}" is not {what}.', mend)


def _check_times(cases: CasesRead) -> None:
    """Nothing happens before a case begins."""
    for number, case in enumerate(cases.said):
        start_ms = case.start.ms(0, cases.said.tz)
        named: list[tuple[tuple[str | int, ...], Moment]] = [
            (("events", place, "at"), event.at) for place, event in enumerate(case.events)]  # fmt: skip
        if case.until is not None:
            named.append((("until",), case.until))
        for path, moment in named:
            if moment.ms(start_ms, cases.said.tz) < start_ms:
                whole = ("cases", number, *path)
                raise ConfigError(cases.file.place(whole), f"{_named(whole, cases.file)}{moment} is before the case "
                                  f"begins, at {case.start}.", "Let `start` be earlier.")  # fmt: skip
