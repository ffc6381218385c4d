"""Commands for those who build and run it: processors, topics, write keys, settings, the doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConfigError, TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, Port, explained_settings_of, settings_of

if TYPE_CHECKING:
    from config.settings import Settings
    from streams.doctor import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


def register(app: typer.Typer) -> None:
    processors = typer.Typer(help="List, check and make processors.", no_args_is_help=True)
    processors.command("list")(list_processors)
    processors.command("check")(check_processors)
    processors.command("new")(new_processor)
    app.add_typer(processors, name="processors")
    topics = typer.Typer(help="Make and check the topics of the log.", no_args_is_help=True)
    topics.command("create")(create)
    topics.command("check")(check)
    app.add_typer(topics, name="topics")
    keys = typer.Typer(help="Write keys: who may send.", no_args_is_help=True)
    keys.command("new")(new_key)
    keys.command("list")(list_keys)
    app.add_typer(keys, name="keys")
    config = typer.Typer(help="The settings, and where they come from.", no_args_is_help=True)
    config.command("show")(show_config)
    app.add_typer(config, name="config")
    app.command(short_help="Is everything as it should be?")(doctor)


# --- processors


def list_processors(as_json: Json = False, config: Config = None) -> None:
    """The processors, in the order in which each event goes through them."""
    from processors.registry import load_processors
    from streams.cli.show import print_table

    rows = [
        {"name": each.name, "version": each.version, "wants": sorted(each.wants),
         "tables": [table.name for table in each.tables], "about": each.about}
        for each in load_processors(settings_of(config=config).config)
    ]  # fmt: skip
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    print_table([{**row, "wants": _joined(row["wants"]), "tables": _joined(row["tables"])} for row in rows])


def _joined(names: object) -> str:
    return ", ".join(names) if isinstance(names, list) else str(names)


def check_processors(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Only these.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which histories are tried.")] = 0,
    histories: Annotated[int, typer.Option("--histories", min=1, max=100_000, help="How many.")] = 12,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Hold the processors to the laws: duplicates, order, restarts, merges, purity. Exit code 1 where one is broken."""
    from processors.acceptance import check as try_laws
    from processors.registry import load_processors

    processors = load_processors(settings_of(config=config).config)
    known = {each.name: each for each in processors}
    for name in names or ():
        if name not in known:
            raise ConfigError("NAME", f"there is no processor {name!r}.", f"Processors are: {', '.join(known)}.")
    broken = 0
    for processor in [known[name] for name in names] if names else processors:
        for verdict in try_laws(processor, seed=seed, histories=histories):
            broken += not verdict.is_kept
            if as_json:
                print(json.dumps(verdict._asdict(), ensure_ascii=False), flush=True)
            else:
                mark = typer.style("✓", fg="green") if verdict.is_kept else typer.style("✗", fg="red")
                typer.echo(f"{mark} {verdict.processor}: {verdict.law}" + (f": {verdict.what}" if verdict.what else ""))
    if broken:
        raise typer.Exit(1)


def new_processor(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the processor, such as tickets.")],
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Folder of the project. [default: the current one]")
    ] = None,
) -> None:
    """Write a processor that works, processors/NAME.py, and its test; then change it into yours."""
    from streams.scaffold import new_processor

    made = new_processor(name, into or Path())
    for file in made:
        print(file)
    typer.echo(f"Now change it, and try it: tidewire processors check {name}", err=True)


# --- topics


def create(data: Data = None, config: Config = None, log: Log = None, as_json: Json = False) -> None:
    """Make the topics that are missing; leave those that exist, and say what is wrong with them."""
    _topics(settings_of(data=data, config=config, log=log), makes=True, as_json=as_json)


def check(data: Data = None, config: Config = None, log: Log = None, as_json: Json = False) -> None:
    """Check that every topic is there with the right partitions, retention and compaction. Exit code 2 where not."""
    _topics(settings_of(data=data, config=config, log=log), makes=False, as_json=as_json)


def _topics(settings: Settings, *, makes: bool, as_json: bool) -> None:
    from streams.access import find_running
    from streams.cli.run import in_loop

    if settings.is_embedded and find_running(settings.data) is not None:
        raise TidewireError(f"{settings.data} is open in a running Tidewire, which made its topics when it started. "
                            "`tidewire doctor` asks it how it is.")  # fmt: skip

    async def work() -> list[str]:
        from streams.grounds import open_log
        from streams.topics import check_topics, create_topics

        log = open_log(settings)
        await log.start()
        try:
            made = await create_topics(log, settings) if makes else []
            await check_topics(log, settings)
            for state in sorted((await log.topics()).values()):
                if as_json:
                    print(json.dumps({**state._asdict(), "made": state.name in made}))
                elif not makes or state.name in made:
                    print(f"{state.name}: {state.partitions} partitions, "
                          + ("compacted" if state.is_compacted else _kept(state.retention_ms)))  # fmt: skip
            return made
        finally:
            await log.stop()

    made = in_loop(work())
    if not as_json:
        print(f"{len(made)} made" if makes else "all right")


def _kept(retention_ms: int | None) -> str:
    return "kept for ever" if retention_ms is None else f"kept {retention_ms / 86_400_000:g} days"


# --- write keys


def new_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the source, as it will stand in every event.")],
    kind: Annotated[
        str, typer.Option("--kind", help="public: browsers and apps; server: programs that keep a secret; any.")
    ] = "public",
    workspace: Annotated[str | None, typer.Option("--workspace", help="Whose data its events are.")] = None,
    add: Annotated[bool, typer.Option("--add", help="Add it to config/write_keys.yaml too.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make a write key. It is shown once and kept nowhere; the file holds its hash, and collectors read it at start."""
    from config.write_keys import FILE_NAME, hash_of, new_write_key

    settings = settings_of(config=config)
    if kind not in ("public", "server", "any"):
        raise typer.BadParameter("--kind is public, server or any.")
    plain, lines = new_write_key(name, kind, workspace or settings.workspace)  # type: ignore[arg-type]
    file = settings.config / FILE_NAME
    if add:
        _add_key(file, lines)
    if as_json:
        print(json.dumps({"name": name, "key": plain, "sha256": hash_of(plain), "kind": kind,
                          "workspace": workspace or settings.workspace, "added": add}))  # fmt: skip
        return
    print(plain)
    typer.echo(
        f"It stands in {file}. Restart the collector." if add else f"Put this under `keys:` in {file}:\n\n{lines}",
        err=True,
    )


def _add_key(file: Path, lines: str) -> None:
    """Put the key at the end of the list, if the file is one that this can be done to without a person's eye.

    Raises:
        ConfigError: it is not; nothing was changed.
    """
    from config.write_keys import read_write_keys

    before = read_write_keys(file)
    text = file.read_text(encoding="utf-8") if file.exists() else "keys: []\n"
    empty = [line for line in text.splitlines() if line.strip() == "keys: []"]
    if empty and not before:
        changed = text.replace("keys: []", "keys:\n" + lines.rstrip("\n"), 1)
    else:
        changed = text.rstrip("\n") + "\n" + lines
    trial = file.with_name(file.name + ".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        trial.write_text(changed, encoding="utf-8")
        try:
            after = read_write_keys(trial)
        except ConfigError:
            after = ()
        if after[:-1] != before or len(after) != len(before) + 1:
            raise ConfigError(str(file), "a key cannot be added to it by itself.", f"Put it in by hand:\n{lines}")
        trial.replace(file)
    except OSError as error:
        raise TidewireError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        trial.unlink(missing_ok=True)


def list_keys(as_json: Json = False, config: Config = None) -> None:
    """The write keys there are, without the keys themselves."""
    from config.write_keys import load_write_keys
    from streams.cli.show import print_table

    settings = settings_of(config=config)
    rows = [
        {"name": key.name, "kind": key.kind, "workspace": key.workspace, "origins": ", ".join(key.origins),
         "events_per_s": key.rate, "sha256": key.sha256[:12]}
        for key in load_write_keys(settings.config, settings.write_keys, settings.workspace)
    ]  # fmt: skip
    if as_json:
        for row in rows:
            print(json.dumps(row))
    else:
        print_table(rows)


# --- settings


def show_config(
    data: Data = None,
    port: Port = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
    as_json: Json = False,
) -> None:
    """Every setting, its value, and where the value came from. Secrets are not shown."""
    from streams.cli.show import print_table

    settings, places = explained_settings_of(data=data, port=port, config=config, log=log, analytics=analytics)
    rows = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        is_secret = field.repr is False
        if is_secret:
            value = "(set)" if value else ""
        elif name == "log":
            value = settings.log_url
        elif name == "analytics":
            value = settings.analytics_url
        rows.append({"setting": name, "value": str(value) if isinstance(value, Path) else value,
                     "from": places.get(name, "default")})  # fmt: skip
    if as_json:
        print(json.dumps({row["setting"]: {"value": row["value"], "from": row["from"]} for row in rows}))
    else:
        print_table(rows)


# --- doctor


def doctor(
    data: Data = None,
    port: Port = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
    as_json: Json = False,
) -> None:
    """Look at everything that a start needs: ok, warn or fail, each with the mend. Exit code 1 where one fails."""
    from streams.cli.run import in_loop
    from streams.doctor import examine

    settings = settings_of(data=data, port=port, config=config, log=log, analytics=analytics)
    findings = in_loop(examine(settings))
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            _print_finding(finding, max(len(each.name) for each in findings))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _print_finding(finding: Finding, width: int) -> None:
    sign, colour = _MARKS[finding.state]
    mark = typer.style(f"{sign} {finding.state:<4}", fg=colour)
    typer.echo(f"{mark}  {finding.name:<{width}}  {finding.what}" + (f"  → {finding.mend}" if finding.mend else ""))
