"""Commands that try journeys before anybody lives through them: `journeys test` and `journeys dry-run`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConfigError
from streams.cli.options import Config, Json, settings_of

if TYPE_CHECKING:
    from config.journey_cases import CasesRead
    from streams.cases import Ran, Row
    from streams.rehearsal import Rehearsal


def register_tests(journeys: typer.Typer) -> None:
    journeys.command("test")(test)


# --- cases


def test(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One journey; all of them without it.",
                                               show_default=False)] = None,
    as_json: Json = False, config: Config = None,
) -> None:  # fmt: skip
    """Run the cases of config/journeys/*.cases.yaml under virtual time. Exit code 1 where one differs.

    The journeys, segments, templates and limits are those of the config folder; nothing runs, and nothing is sent.
    With --json one case a row.
    """
    from streams.cases import run_cases
    from streams.cli.show import as_json_line
    from streams.rehearsal import rehearsal_of

    settings = settings_of(config=config)
    rehearsal = rehearsal_of(settings.config, settings.workspace, settings.timezone)
    began, failed, count = time.monotonic(), 0, 0
    for cases in _cases(settings.config, rehearsal, name):
        for ran in run_cases(cases, rehearsal):
            count, failed = count + 1, failed + (not ran.passed)
            if as_json:
                print(as_json_line(_as_json(cases, ran)))
            else:
                _print(cases, ran)
    if not as_json:
        print(f"{count} {'case' if count == 1 else 'cases'}, {failed} {'differs' if failed == 1 else 'differ'} "
              f"({time.monotonic() - began:.1f} s)", file=sys.stderr)  # fmt: skip
    if failed:
        raise typer.Exit(1)


def _cases(config: Path, rehearsal: Rehearsal, name: str | None) -> Iterator[CasesRead]:
    """The cases of one journey, or of all, each file checked when its turn comes."""
    from config.journey_cases import files_of_cases, read_cases
    from config.journeys import CASES, FOLDER
    from schemas.journeys import JourneyFile

    files = files_of_cases(config)
    if name is not None and name not in files:
        known = "" if name in rehearsal.journeys else f' There is no journey "{name}" either.'
        raise ConfigError(str(config / FOLDER / f"{name}{CASES}"), f"is not there.{known}",
                          "Write it; docs/journey-cases.md says how.")  # fmt: skip
    if not files:
        raise ConfigError(str(config / FOLDER), f"holds no cases: no file that ends with {CASES}.",
                          "Write one; docs/journey-cases.md says how.")  # fmt: skip
    for each, file in files.items():
        if name in (None, each):
            yield read_cases(file, JourneyFile.model_validate(rehearsal.journeys[each].said))


def _print(cases: CasesRead, ran: Ran) -> None:
    """A case that passed on one line; of one that differs, what was expected beside what was got."""
    from streams.cases import clock, line_text
    from streams.cli.show import plain

    print(plain(f"{'passed ' if ran.passed else 'DIFFERS'} {ran.journey}: {ran.case.case}"))
    if ran.passed:
        return
    print(f"        {ran.place}, from {clock(ran.start_ms, cases.said.tz)}; - expected, + got")
    for row in ran.rows:
        if row.expected is not None:
            print(plain(f"      {'-' if row.differs else ' '} {line_text(row.expected)}"))
        else:
            print(plain(f"      + {_got(cases, ran, row)}"))


def _got(cases: CasesRead, ran: Ran, row: Row) -> str:
    from streams.cases import clock, got_text

    assert row.got is not None
    return f"{got_text(row.got, ran.start_ms)}  # {clock(row.got.at_ms, cases.said.tz)}"


def _as_json(cases: CasesRead, ran: Ran) -> dict[str, Any]:
    from schemas.times import to_iso
    from streams.cases import got_text, line_text

    rows = [
        {"mark": " " if not row.differs else "-" if row.got is None else "+",
         "expected": line_text(row.expected) if row.expected is not None else None,
         "got": got_text(row.got, ran.start_ms) if row.got is not None else None,
         "at": to_iso(row.got.at_ms) if row.got is not None else None}
        for row in ran.rows
    ]  # fmt: skip
    return {"journey": ran.journey, "case": ran.case.case, "place": ran.place, "passed": ran.passed, "lines": rows}
