"""Commands that keep what there is: `backup` and `restore`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of

if TYPE_CHECKING:
    from config.settings import Settings
    from streams.access import RunFile

LOOK_EVERY_S = 0.2


def register(app: typer.Typer) -> None:
    app.command(short_help="Copy everything into a folder.")(backup)
    app.command(short_help="Put a backup back.")(restore)


def backup(
    to: Annotated[Path, typer.Argument(metavar="TO", help="The folder to make; it must not be there yet.")],
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """Copy everything that cannot be made again into a folder: the embedded log, ClickHouse, the config.

    The Tidewire in the data folder may run meanwhile; then it makes the backup itself. On Kafka the topics are not in
    it: docs/operating.md says how they are kept.
    """
    from streams.access import find_running

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    to = to.absolute()
    running = find_running(settings.data)
    done = _alone(settings, to) if running is None else _by_running(running, to)
    if as_json:
        print(json.dumps(done))
        return
    print(f"{to} holds everything as of {done['made_at']}: {done['tables']} tables and views, "
          f"{done['size_bytes'] / 1024**2:,.1f} MB")  # fmt: skip
    if done["ground"] == "kafka":
        print("The topics of Kafka are not in it; docs/operating.md says how they are kept.")
    for name in done["left_out"]:
        print(f"left out: table {name}, of an engine that keeps no rows of its own")


def _alone(settings: Settings, to: Path) -> dict[str, Any]:
    from streams.cli.question import must_exist
    from streams.cli.run import in_loop

    must_exist(settings)
    return in_loop(_take(settings, to))


async def _take(settings: Settings, to: Path) -> dict[str, Any]:
    from sinks.analytics import Analytics as ClickHouse
    from streams.backup import summary, take_backup
    from streams.grounds import open_log
    from streams.roles import set_up_logging

    set_up_logging("warning")  # standard output is for the result
    log_ = open_log(settings)
    await log_.start()
    try:
        clickhouse = ClickHouse(settings.analytics_url, settings.analytics_password)
        try:
            await clickhouse.start()
            return summary(await take_backup(log_, clickhouse, settings, to))
        finally:
            await clickhouse.close()
    finally:
        await log_.stop()


def _by_running(running: RunFile, to: Path) -> dict[str, Any]:
    """The process that owns the folder makes it, for as long as it takes, and is asked how it is getting on."""
    from streams.access import Api

    api = Api(running.url, running.token)
    state: dict[str, Any] = api.post("/api/backup", {"to": str(to)})
    while state["state"] == "running":
        time.sleep(LOOK_EVERY_S)
        state = api.get("/api/backup")
    if state["state"] == "failed":
        raise TidewireError(state["why"])
    done: dict[str, Any] = state["done"]
    return done


def restore(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="The folder that `tidewire backup` made.")],
    check: Annotated[bool, typer.Option("--check", help="Only read it and compare every checksum.")] = False,
    with_gaps: Annotated[
        bool, typer.Option("--with-gaps", help="On Kafka: also where the log has forgotten records the sink needs.")
    ] = False,
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """Put a backup back, into a data folder that is empty. Every checksum is compared before anything is written.

    On Kafka: fills an empty ClickHouse, and puts the sink back to where that was. Stop the sinks first.
    """
    from streams.backup import read_backup, summary

    if check:
        found = summary(read_backup(source))
        print(json.dumps(found) if as_json else f"{source} is whole: everything as of {found['made_at']}, "
              f"{found['tables']} tables and views, {found['size_bytes'] / 1024**2:,.1f} MB")  # fmt: skip
        return
    from streams.cli.run import in_loop
    from streams.restore import restore as put_back
    from streams.roles import set_up_logging

    set_up_logging("warning")
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    done = in_loop(put_back(source, settings, with_gaps=with_gaps))
    if as_json:
        print(json.dumps({**summary(done.manifest), "kept": done.kept, "gaps": done.gaps}))
        return
    where, command = (settings.data, "up") if settings.is_embedded else ("ClickHouse", "sink")
    print(f"everything as of {done.manifest.made_at:%Y-%m-%dT%H:%M:%SZ} is back in {where}: start `tidewire {command}`")
    for file in done.kept:
        print(f"left as it is: {file}; that of the backup is another")
    for gap in done.gaps:
        print(f"missing for ever: {gap}")
