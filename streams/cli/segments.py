"""Commands for segments: `segments list`, `show`, `check`, `preview`, `apply`, `why`, `verify` and `fuzz`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of, who

if TYPE_CHECKING:
    from sinks.parity.run import Fuzzed

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the segment.")]
SHOWN_DIFFERENCES = 20


def register(app: typer.Typer) -> None:
    segments = typer.Typer(help="Segments: who is meant, who is in, and the proof.", no_args_is_help=True)
    segments.command("list")(list_segments)
    segments.command("show")(show_segment)
    segments.command("check")(check)
    segments.command("preview")(preview)
    segments.command("apply")(apply)
    segments.command("why")(why)
    segments.command("verify")(verify)
    segments.command("fuzz")(fuzz)
    app.add_typer(segments, name="segments")


def list_segments(
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None
) -> None:
    """Every segment: how many are in it, who came and went today, and its proof. With --json one a row."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get("/api/segments"))
    if as_json:
        for each in found["segments"]:
            print(as_json_line(each))
        return
    print_table([_row(each) for each in found["segments"]])
    progress = found["progress"]
    if progress["segments"]:
        print(f"being prepared: {', '.join(progress['segments'])} ({progress['step']})")
    for error in progress["errors"]:
        print(error)


def _row(segment: dict[str, Any]) -> dict[str, Any]:
    return {
        "segment": segment["name"], "version": segment["version"],
        "state": "live" if segment["is_live"] else "being prepared", "members": segment["members"],
        "joined today": segment["joined_today"], "left today": segment["left_today"],
        "differences": segment["differences"], "compared": segment["compared_at"],
    }  # fmt: skip


def show_segment(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """One segment: who is meant, in words, who is in it, and how fresh it is."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_facts

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get(f"/api/segments/{_path_part(name)}"))
    if as_json:
        print(as_json_line(found))
        return
    print(found["sentence"]["en"])
    print()
    print_facts({**_row(found), "about": found["about"], "by": found["by"], "source": found["source"],
                 **found["freshness"]})  # fmt: skip


def check(as_json: Json = False, config: Config = None) -> None:
    """Read config/segments/*.yaml as `up` does, and say each as a sentence. Exit code 2 where one is wrong."""
    from config.segments import read_segments
    from schemas.sentences import sentence_of

    settings = settings_of(config=config)
    for name, definition in read_segments(settings.config).items():
        if as_json:
            print(json.dumps({"segment": name, "sentence": sentence_of(definition.when)}, ensure_ascii=False))
        else:
            print(f"{name}: {sentence_of(definition.when)}")


def preview(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A segment as YAML, saved or not.", exists=True,
                                         dir_okay=False)],
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """How many people a segment would have now, and some of them. Nothing is saved."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    asked = {"yaml": file.read_text(encoding="utf-8", errors="replace")}
    found = ask(settings, lambda api: api.post(f"/api/segments/{_path_part(file.stem)}/preview", asked))
    if as_json:
        print(as_json_line(found))
        return
    if found["sample"]:
        print_table(found["sample"])
    print(f"{found['people']:,} {'person' if found['people'] == 1 else 'people'} ({float(found['seconds']):.2f} s)")


def apply(
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None
) -> None:
    """Take over what changed in config/segments/*.yaml since they were last read; `up` does when it starts."""
    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    changed = ask(settings, lambda api: api.post("/api/segments/apply", {"by": who()}))["changed"]
    if as_json:
        print(json.dumps(changed))
        return
    for each in changed:
        print(f"{each['name']}: {'taken out' if each['is_gone'] else 'version ' + str(each['version'])}")
    if not changed:
        print("nothing changed")


def why(
    name: Name,
    person: Annotated[str, typer.Argument(metavar="PERSON", help="A person key, a user id, an anonymous id or an "
                                                  "e-mail address.")],
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Why somebody is in a segment, or is not: each part of its condition, with the facts. Exit code 1: she is not."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get(f"/api/segments/{_path_part(name)}/why", person=person))
    if as_json:
        print(as_json_line(found))
    else:
        print(f"{cell(found['person'])} is {'' if found['why']['is_true'] else 'not '}in {name}")
        _print_reason(found["why"], 0)
    if not found["why"]["is_true"]:
        raise typer.Exit(1)


def _print_reason(reason: dict[str, Any], depth: int) -> None:
    from streams.cli.show import cell

    names = ("events", "total", "times", "values", "until")
    facts = [f"{name}: {cell(reason[name])}" for name in names if name in reason]
    print(f"{'  ' * depth}{'yes' if reason['is_true'] else 'no ':<3} {cell(reason['says'])}"
          f"{' — ' if facts else ''}{'; '.join(facts)}")  # fmt: skip
    for part in reason.get("parts", ()):
        _print_reason(part, depth + 1)


def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One segment; all of them without it.",
                                               show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Compare who is in a segment live with who ought to be by the events at rest. Exit code 1 where they differ.

    Who differs is looked at again when all that was under way has arrived; a difference is what stays one.
    """
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)

    def compare(api: Any) -> list[dict[str, Any]]:
        names = [name] if name is not None else [each["name"] for each in api.get("/api/segments")["segments"]]
        return [api.post(f"/api/segments/{_path_part(each)}/verify") for each in names]

    found = ask(settings, compare)
    if as_json:
        for each in found:
            print(as_json_line(each))
    else:
        print_table([{key: each[key] for key in ("segment", "version", "members", "sql_members", "differences")}
                     for each in found])  # fmt: skip
        for each in found:
            for kind, what in (("missing", "by the events alone"), ("surplus", "live alone")):
                for key in each[kind][:SHOWN_DIFFERENCES]:
                    print(f"{each['segment']}: {key} is in it {what}; `tidewire segments why {each['segment']} {key}`")
    if any(each["differences"] for each in found):
        raise typer.Exit(1)


def fuzz(
    cases: Annotated[int, typer.Option("--cases", metavar="N", min=1, help="So many conditions.")] = 2_000,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The same seed makes the same cases.")] = 1,
    as_json: Json = False,
) -> None:
    """Hold the three readings of a condition against each other, on worlds that nobody has thought of: live judging,
    SQL, and a naive program. Needs nothing but this command. Exit code 1 where any two differ.
    """
    from streams.cli.run import in_loop
    from streams.roles import set_up_logging

    set_up_logging("warning")
    found: Fuzzed = in_loop(_fuzz(cases, seed, is_quiet=as_json))
    if as_json:
        print(json.dumps({"cases": found.cases, "seed": seed, "differences": len(found.differences),
                          "first": [str(each) for each in found.differences[:SHOWN_DIFFERENCES]]}))  # fmt: skip
    else:
        print(f"{found.cases:,} cases, {len(found.differences)} differences")
    if found.differences:
        raise typer.Exit(1)


async def _fuzz(cases: int, seed: int, *, is_quiet: bool) -> Fuzzed:
    from sinks.parity.run import Fuzzed, fuzz

    found, shown, told_at = Fuzzed(0, []), 0, 0.0
    begin, end, every_s = ("\r", "", 0.1) if sys.stderr.isatty() else ("", "\n", 60.0)
    async for found in fuzz(cases, seed):
        if not is_quiet:
            for each in found.differences[shown:SHOWN_DIFFERENCES]:  # at once: many cases take hours
                print(f"{begin}{each}", flush=True)
            shown = len(found.differences)
            if (now := time.monotonic()) >= told_at + every_s:
                print(f"{begin}{found.cases:,} of {cases:,} cases", end=end, file=sys.stderr, flush=True)
                told_at = now
    if begin and not is_quiet:
        print(file=sys.stderr)
    return found


def _path_part(text: str) -> str:
    from urllib.parse import quote

    if not text:
        raise TidewireError("Name a segment. `tidewire segments list` names them.")
    return quote(text, safe="")
