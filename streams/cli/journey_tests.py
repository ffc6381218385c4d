"""Commands that try journeys before anybody lives through them: `journeys test` and `journeys dry-run`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConfigError, TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of

if TYPE_CHECKING:
    from config.journey_cases import CasesRead
    from config.settings import Settings
    from schemas.event import Event
    from streams.access import Api
    from streams.cases import Ran, Row
    from streams.dry_run import Period, Report
    from streams.rehearsal import Rehearsal


def register_tests(journeys: typer.Typer) -> None:
    journeys.command("test")(test)
    journeys.command("dry-run")(dry_run)


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


# --- dry runs


def dry_run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the journey.")],
    from_: Annotated[str, typer.Option("--from", metavar="DATE", help="The first day that is told of.")],
    to: Annotated[str, typer.Option("--to", metavar="DATE", help="The last day.")],
    since: Annotated[str | None, typer.Option(
        "--since", metavar="DATE", help="People enter from this day on, so that those are inside who were. [default: "
        "the first day]", show_default=False)] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Leave out the other journeys, which share its caps.")] = False,
    draft: Annotated[Path | None, typer.Option("--draft", metavar="FILE", help="A journey as YAML, saved or not, "
                                               "instead of the newest version.", exists=True, dir_okay=False)] = None,
    file: Annotated[Path | None, typer.Option(
        "--file", metavar="FILE", help="Events as JSON lines, as `send` takes them, not those in ClickHouse; the "
        "journeys are then those of the config folder.")] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """What a journey would have done in a past period, or did: the same engine over the events that really came.

    Nothing is sent, and nothing is written.
    """
    from streams.cli.show import as_json_line
    from streams.dry_run import period_of

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    period = period_of(from_, to, since or "", settings.timezone)
    if file is not None:
        report = _over_file(settings, name, period, file, draft, alone)
    else:
        from streams.cli.question import ask

        report = ask(settings, lambda api: _over_the_past(settings, api, name, period, draft, alone))
    if as_json:
        print(as_json_line(report))
    else:
        _print_report(report)


def _over_file(
    settings: Settings, name: str, period: Period, file: Path, draft: Path | None, alone: bool
) -> Report:
    from streams.past import past_of_file
    from streams.rehearsal import rehearsal_of

    rehearsal = rehearsal_of(settings.config, settings.workspace, settings.timezone)
    return _run(rehearsal, name, period, past_of_file(file, settings.workspace), draft, alone)


def _over_the_past(
    settings: Settings, api: Api, name: str, period: Period, draft: Path | None, alone: bool
) -> Report:
    from streams.past import past_of
    from streams.rehearsal import decode_rehearsal

    rehearsal = decode_rehearsal(api.get("/api/rehearsal")["rehearsal"], settings.config)
    past = past_of(lambda sql: api.post("/api/sql", {"query": sql})["rows"], rehearsal.workspace, period.to_ms)
    return _run(rehearsal, name, period, past, draft, alone)


def _run(
    rehearsal: Rehearsal, name: str, period: Period, past: Iterable[Event], draft: Path | None, alone: bool
) -> Report:
    from config.yaml_file import read_text
    from streams.cli.progress import progress
    from streams.dry_run import DryRun

    if draft is not None:
        rehearsal = rehearsal.with_draft(name, read_text(draft), str(draft))
    if name not in rehearsal.journeys:
        from difflib import get_close_matches

        near = get_close_matches(name, list(rehearsal.journeys), 1)
        raise TidewireError(f'There is no journey "{name}".' + (f' Did you mean "{near[0]}"?' if near else ""))
    began = time.monotonic()
    run = DryRun(rehearsal, name, period, alone=alone)
    with progress("events", None) as bar:
        run.run(past, bar.advance)
    return run.report(time.monotonic() - began)


def _print_report(report: Report) -> None:
    from streams.cli.show import cell, print_facts, print_table

    print(f"{report.journey}, {report.from_} to {report.to}")
    print()
    print_facts({
        "people": report.people, "entered": report.entered, "held out": report.held_out, "inside": report.inside,
        "goals": report.goals, "by held out": report.goals_of_held_out, "worth": report.value,
        "events": report.events, "beside it": " ".join(report.beside), "seconds": report.seconds,
    })  # fmt: skip
    for title, rows in (
        ("Not entered", [{"why": why, "times": times} for why, times in report.not_entered.items()]),
        ("Steps", [
            {"step": step, "times": times, "sent": report.sends.get(step, 0) + report.calls.get(step, 0),
             "delayed": report.delayed.get(step, 0), "refused": report.refused.get(step, {})}
            for step, times in report.steps.items()
        ]),
        ("Caps", [{"cap": cap, "times": times} for cap, times in report.caps.items()]),
        ("Left", [{"why": why, "times": times} for why, times in report.left.items()]),
        ("Exits", [{"by": by, "times": times} for by, times in report.exits.items()]),
    ):  # fmt: skip
        if rows:
            print(f"\n{title}")
            print_table(rows)
    for example in report.examples:
        print(f"\n{cell(example.person)}")
        for line in example.lines:
            print(f"  {line.at}  {' '.join(filter(None, (line.what, cell(line.step))))}"
                  f"{' — ' if line.why else ''}{cell(line.why)}")  # fmt: skip
