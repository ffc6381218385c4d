"""Commands for journeys: what there is, checked, saved and steered. Those that try them are in `journey_tests`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConfigError, TidewireError
from streams.cli.journey_tests import register_tests
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of, who

if TYPE_CHECKING:
    from config.journeys import JourneyRead
    from config.settings import Settings
    from schemas.journeys import Mail

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the journey.")]
Files = Annotated[list[Path] | None, typer.Argument(metavar="[FILES]", help="Check these files. Without them: all of "
                                                    "the config folder.", exists=True, dir_okay=False,
                                                    show_default=False)]  # fmt: skip


def register(app: typer.Typer) -> None:
    journeys = typer.Typer(help="Journeys: what happens to whom and when.", no_args_is_help=True)
    journeys.command("list")(list_journeys)
    journeys.command("show")(show_journey)
    journeys.command("versions")(versions)
    journeys.command("check")(check)
    journeys.command("diff")(diff)
    journeys.command("apply")(apply)
    register_tests(journeys)
    journeys.command("pause")(pause)
    journeys.command("resume")(resume)
    journeys.command("drain")(drain)
    journeys.command("stop")(stop)
    journeys.command("migrate")(migrate)
    journeys.command("broadcast")(broadcast)
    journeys.command("remove")(remove)
    app.add_typer(journeys, name="journeys")


# --- what there is


def list_journeys(
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None
) -> None:
    """Every journey: its state, who is inside, how many entered and reached the goal, and of those held out.

    With --json one a row.
    """
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    rows = ask(settings, lambda api: api.get("/api/journeys"))["journeys"]
    if as_json:
        for row in rows:
            print(as_json_line(row))
    elif rows:
        print_table([_row(row) for row in rows])
        for row in rows:
            if row["wrong"]:
                print(f"{row['journey']}: {row['wrong']}")
    else:
        print("There are no journeys. Write config/journeys/NAME.yaml; docs/journeys.md says how.")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    state = row["status"] if row["is_live"] else f"{row['status']}, being prepared"
    return {
        "journey": row["journey"], "version": row["version"], "state": state, "enter": row["enter"],
        "inside": row["inside"], "entered": row["entered"], "sent": row["sent"], "converted": _share(row["treated"]),
        "held out": row["held_out"], "of them converted": _share(row["control"]),
    }  # fmt: skip


def _share(group: dict[str, Any]) -> str:
    """Of people, who count once however often they entered."""
    goals, people = group["goals"], group["people"]
    return f"{goals} ({100 * goals / people:.1f} %)" if people else "0"


def show_journey(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", metavar="N", min=1, help="Not the newest, but this "
                                                "one.", show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """A journey as it was written, the newest version or another."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get(f"/api/journeys/{_path_part(name)}", version=version))
    if as_json:
        print(as_json_line(found))
        return
    for line in found["yaml"].splitlines():
        print(cell(line))


def versions(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """Who saved which version of a journey when, the newest first."""
    from schemas.times import from_ms
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get(f"/api/journeys/{_path_part(name)}/versions"))["versions"]
    if as_json:
        for row in found:
            print(as_json_line(row))
        return
    print_table([{"version": row["version"], "at": from_ms(row["at_ms"]).isoformat(timespec="seconds"),
                  "by": row["by"], "source": row["source"], "": "removed" if row["is_gone"] else ""}
                 for row in found])  # fmt: skip


# --- files


def check(files: Files = None, as_json: Json = False, config: Config = None) -> None:
    """Read config/journeys/*.yaml and config/limits.yaml, or these files, as `up` does, and say what is wrong with
    each. Nothing need run.

    The segments and templates that they ask for are those of the config folder. Exit code 1 where one is wrong.
    """
    found = list(_checked(settings_of(config=config), files))
    for name, read, wrong in found:
        if as_json:
            print(json.dumps({"journey": name, "steps": len(read.said.steps) if read is not None else None,
                              "wrong": str(wrong) if wrong is not None else ""}, ensure_ascii=False))  # fmt: skip
        elif wrong is not None:
            print(wrong)
        elif read is not None:
            steps = len(read.said.steps)
            print(f"{name}: by {read.said.enter.kind}, {steps} {'step' if steps == 1 else 'steps'}")
    if any(wrong is not None for _, _, wrong in found):
        raise typer.Exit(1)


def _checked(
    settings: Settings, files: Sequence[Path] | None
) -> Iterator[tuple[str, JourneyRead | None, ConfigError | None]]:
    """Each journey with what is wrong with it. What is wrong beside journeys has no name."""
    from config.journeys import FOLDER, check_journeys_together, mail_of, parse_journey, read_limits, read_texts
    from config.segments import read_segments
    from config.templates import read_templates
    from config.yaml_file import read_text

    config, zone = settings.config, settings.timezone
    texts: dict[Path, str] = {}

    def mails_there() -> dict[str, Mail]:
        return {name: mail_of(template) for name, template in read_templates(config, zone).items()}

    def take_folder() -> None:
        texts.update((config / FOLDER / f"{name}.yaml", text) for name, text in read_texts(config).items())

    def take(file: Path) -> None:
        texts[file] = read_text(file)

    readers: list[Callable[[], Any]] = [lambda: read_segments(config), mails_there]
    readers += [take_folder, lambda: read_limits(config)] if files is None else [partial(take, file) for file in files]
    beside: list[Any] = []
    for read in readers:
        try:
            beside.append(read())
        except ConfigError as wrong:
            yield "", None, wrong
            beside.append(None)
    segments, mails, *_ = beside
    for file, text in texts.items():
        try:
            journey = parse_journey(file.stem, text, config, zone, str(file))
            if segments is not None and mails is not None:
                check_journeys_together({journey.name: journey}, segments, mails)
            yield file.stem, journey, None
        except ConfigError as wrong:
            yield file.stem, None, wrong


def diff(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Compare two versions of this journey. Without "
                                               "it: the files with what is saved.", show_default=False)] = None,
    begin: Annotated[int | None, typer.Option("--from", metavar="N", min=1, help="The older version; the one before "
                                              "the newest unless said.", show_default=False)] = None,
    end: Annotated[int | None, typer.Option("--to", metavar="N", min=1, help="The newer version; the newest unless "
                                            "said.", show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """What `apply` would change; or what is different between two versions of a journey."""
    from streams.cli.question import ask
    from streams.cli.show import cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    if name is None:
        changed = ask(settings, lambda api: api.get("/api/journeys/apply"))["changed"]
        found = [(each["journey"], f"version {each['version'] - 1}", "the file", each["before"] or "", each["yaml"])
                 for each in changed]  # fmt: skip
    else:
        found = [ask(settings, lambda api: _two_versions(api, name, begin, end))]
    if as_json:
        for journey, was, is_now, before, after in found:
            print(json.dumps({"journey": journey, "from": was, "to": is_now, "before": before, "after": after},
                             ensure_ascii=False))  # fmt: skip
        return
    for journey, was, is_now, before, after in found:
        for line in _diff(before, after, f"{journey}: {was}", f"{journey}: {is_now}"):
            print(cell(line))
    if not any(before != after for _, _, _, before, after in found):
        print("nothing changed" if name is None else "they are the same")


def _two_versions(api: Any, name: str, begin: int | None, end: int | None) -> tuple[str, str, str, str, str]:
    path = f"/api/journeys/{_path_part(name)}"
    there = [row["version"] for row in api.get(f"{path}/versions")["versions"] if not row["is_gone"]]
    newer = end if end is not None else there[0]
    older = begin if begin is not None else next((each for each in there if each < newer), None)
    if older is None:
        raise TidewireError(f'Journey "{name}" has no version before {newer}.')
    texts = [api.get(path, version=number)["yaml"] for number in (older, newer)]
    return name, f"version {older}", f"version {newer}", *texts


def _diff(before: str, after: str, was: str, is_now: str) -> Iterator[str]:
    from difflib import unified_diff

    yield from unified_diff(before.splitlines(), after.splitlines(), was, is_now, lineterm="")


def apply(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Save this file as a new version of the "
                                                "journey of its name. Without it: all files of the config folder.",
                                                exists=True, dir_okay=False, show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Take over what changed in config/journeys/*.yaml and config/limits.yaml since they were last read, as `up` does
    when it starts; or save one file, wherever it is, as if it were written on the page."""
    from config.yaml_file import read_text
    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    if file is not None:
        body, path = {"yaml": read_text(file), "by": who()}, f"/api/journeys/{_path_part(file.stem)}"
        changed = [ask(settings, lambda api: api.post(path, body))]
    else:
        changed = ask(settings, lambda api: api.post("/api/journeys/apply", {"by": who()}))["changed"]
    if as_json:
        print(json.dumps(changed))
        return
    for each in changed:
        print(f"{each['journey']}: {'taken out' if each['is_gone'] else 'version ' + str(each['version'])}")
    if not changed:
        print("nothing changed")


# --- steering


def pause(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """Nobody enters, and who is inside is held at the next step."""
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    _steer(settings, name, "paused", "nobody enters, and who is inside is held at the next step", as_json=as_json)


def resume(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """People enter as before, and who is inside goes on."""
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    _steer(settings, name, "live", "people enter, and who is inside goes on", as_json=as_json)


def drain(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """Nobody enters; who is inside goes on to the end."""
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    _steer(settings, name, "draining", "nobody enters; who is inside goes on to the end", as_json=as_json)


def stop(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """Nobody enters, and who is inside leaves now."""
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    _steer(settings, name, "stopped", "nobody enters, and who is inside leaves", as_json=as_json)


def _steer(settings: Settings, name: str, status: str, what: str, *, as_json: bool) -> None:
    from streams.cli.question import ask

    body = {"status": status, "by": who()}
    done = ask(settings, lambda api: api.post(f"/api/journeys/{_path_part(name)}/status", body))
    print(json.dumps(done) if as_json else f"{name} is {status}: {what}.")


def migrate(
    name: Name,
    to: Annotated[int | None, typer.Option("--to", metavar="N", min=1, help="To this version; the newest unless said.",
                                           show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Who is inside by another version goes on by this one, where it has the step that she is at."""
    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    body = {"to": to, "by": who()}
    done = ask(settings, lambda api: api.post(f"/api/journeys/{_path_part(name)}/migrate", body))
    print(json.dumps(done) if as_json else f"{name}: who is inside goes on by version {done['migrate_to']}.")


def broadcast(
    name: Name,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="A name for it. The same once more asks nobody "
                                            "who was asked.", show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Everybody who is in its segment now enters, of a journey whose enter is broadcast."""
    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    body = {"id": id_, "by": who()}
    done = ask(settings, lambda api: api.post(f"/api/journeys/{_path_part(name)}/broadcast", body))
    print(json.dumps(done) if as_json else f"{name}: everybody in its segment is asked in, as {done['sweep']}.")


def remove(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """Take a journey out: who is inside leaves. Its versions stay; one whose file is still there comes back with the
    next `apply` or `up`."""
    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    done = ask(settings, lambda api: api.post(f"/api/journeys/{_path_part(name)}/remove", {"by": who()}))
    print(json.dumps(done) if as_json else f"{name}: taken out.")


def _path_part(text: str) -> str:
    from urllib.parse import quote

    if not text:
        raise TidewireError("Name a journey. `tidewire journeys list` names them.")
    return quote(text, safe="")
