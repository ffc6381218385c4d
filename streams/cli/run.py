"""Commands that run something: the roles, the demo, the simulator, `send`."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from streams.cli.options import (
    Analytics,
    Config,
    Data,
    Json,
    Log,
    Port,
    Url,
    WriteKey,
    explained_settings_of,
    settings_of,
)

if TYPE_CHECKING:
    from config.settings import Settings
    from streams.roles import Running

Result = TypeVar("Result")
_ROLES = {
    "collector": "Take events over HTTP and write them to the log.",
    "worker": "Run the customer stage: processors, identity, timers.",
    "sink": "Write events, people and rows to ClickHouse.",
    "sender": "Hand messages over to their channels.",
    "dashboard": "Serve the pages.",
}


def register(app: typer.Typer) -> None:
    app.command(short_help="Start everything in one process.")(up)
    app.command(short_help="Replay a real purchase history.")(demo)
    app.command(short_help="Tell the history of a made-up shop.")(simulate)
    app.command(short_help="Send a file of events.")(send)
    for role, what in _ROLES.items():
        app.command(
            role, help=f"{what} One role alone, as many processes of it as wanted; `up` runs all of them in one."
        )(_role(role))


def say(line: str) -> None:
    """One line for the person at the terminal; standard output is for results."""
    with suppress(OSError):  # whoever read it may have gone
        print(line, file=sys.stderr, flush=True)


def in_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it in a new event loop: uvloop's where it is installed."""
    import asyncio
    import logging

    # What libraries log before a role sets up logging is for nobody: what went wrong is said in a line of our own.
    logging.lastResort = logging.NullHandler()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def up(
    data: Data = None, port: Port = None, config: Config = None, log: Log = None, analytics: Analytics = None
) -> None:
    """Start everything in one process: collector, processors, sinks, dashboard."""
    from streams.access import KEY_FILE, with_folder_key
    from streams.target import EVERY_ROLE

    settings = with_folder_key(settings_of(data=data, port=port, config=config, log=log, analytics=analytics))

    async def ready(running: Running) -> None:
        say(f"Tidewire is up: {running.url} (Ctrl-C stops it; a write key for trials is in {settings.data / KEY_FILE})")

    _run_roles(settings, EVERY_ROLE, ready)


def _role(role: str) -> Any:
    def command(
        data: Data = None, port: Port = None, config: Config = None, log: Log = None, analytics: Analytics = None
    ) -> None:
        settings = settings_of(data=data, port=port, config=config, log=log, analytics=analytics)

        async def ready(running: Running) -> None:
            say(f"{role} is up: {running.url}" if running.url else f"{role} is up")

        _run_roles(settings, frozenset({role}), ready)

    return command


def _run_roles(settings: Settings, roles: frozenset[str], ready: Any) -> None:
    from streams.roles import run

    in_loop(run(settings, roles, ready=ready))


def demo(
    once: Annotated[bool, typer.Option("--once", help="End when everything has arrived in ClickHouse.")] = False,
    as_json: Json = False,
    data: Data = None,
    port: Port = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
    url: Url = None,
    write_key: WriteKey = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Another purchase history in the format of CDNOW's.")
    ] = None,
) -> None:
    """Replay a real purchase history through the collector: 69,659 orders of 23,570 customers of CDNOW, 1997 and 1998.

    Starts Tidewire, or sends to the one that runs in the data folder, and leaves the dashboard running. With --once it
    ends when everything is in ClickHouse, and prints what is there; with --json as one JSON object.
    """
    from streams import demo as cdnow

    if as_json and not once:
        raise typer.BadParameter("--json goes with --once: it prints what is in ClickHouse in the end.")
    settings = _quiet_settings_of(data=data, port=port, config=config, log=log, analytics=analytics)
    history = cdnow.prepare(file)
    in_loop(_demo(settings, history, once, as_json, url, write_key))


def _quiet_settings_of(**given: Any) -> Settings:
    """Settings for a Tidewire beside a progress bar, which log lines would tear: warnings alone, unless told else."""
    settings, places = explained_settings_of(**given)
    return settings if "log_level" in places else settings.model_copy(update={"log_level": "warning"})


async def _demo(
    settings: Settings, history: list[Any], once: bool, as_json: bool, url: str | None, write_key: str | None
) -> None:
    from streams import demo as cdnow
    from streams.cli.progress import progress
    from streams.target import open_target

    async with open_target(settings, url=url, write_key=write_key, reads=once) as target:
        with progress("Replaying CDNOW", len(history)) as bar:
            if not once:
                await cdnow.replay(target, history, bar.advance, say)
            else:
                counts = await cdnow.run_once(target, history, settings.workspace, bar.advance, say)
        if once:
            print(cdnow.as_json(counts) if as_json else _told(counts), flush=True)
            return
        if url is not None:
            say(f"{len(history):,} events sent to {url}")
        else:
            ending = " (Ctrl-C stops it)" if target.is_own else ""
            say(f"{len(history):,} events sent. The dashboard: {target.url}{ending}")
        await target.stay()


def _told(counts: Any) -> str:
    return (
        f"{counts.orders:,} orders of {counts.people:,} people, {counts.revenue:,} USD; {counts.events:,} events and "
        f"{counts.rows:,} rows in ClickHouse, {counts.rejected:,} rejected, in {counts.seconds:.1f} s"
    )


def simulate(
    people: Annotated[int, typer.Option("--people", min=1, max=10_000_000, help="How many people.")] = 1_000,
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="How many days.")] = 90,
    seed: Annotated[int, typer.Option("--seed", help="Which history: the same seed tells the same.")] = 1,
    end: Annotated[
        datetime | None,
        typer.Option("--end", metavar="DATE", formats=["%Y-%m-%d"], help="The day after the last. [default: today]"),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, metavar="N", help="Send N events a second.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Send as fast as they are taken (the default).")] = False,
    disorder: Annotated[
        float, typer.Option("--disorder", min=0, max=1, metavar="SHARE", help="Share of events that arrive late.")
    ] = 0.0,
    duplicates: Annotated[
        float, typer.Option("--duplicates", min=0, max=1, metavar="SHARE", help="Share of events that arrive twice.")
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", allow_dash=True, help="Write JSON lines here (-: standard output); send nothing."
        ),
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option("--facts", metavar="FILE", help="Write what is true of each person here, as JSON lines."),
    ] = None,
    as_json: Json = False,
    data: Data = None,
    port: Port = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
    url: Url = None,
    write_key: WriteKey = None,
) -> None:
    """Tell the history of a made-up shop: visits, carts, orders, refunds, mails, tickets, with planted truths.

    The same seed and options give the same bytes. Sends to the Tidewire in the data folder, or starts one for as long.
    """
    from streams.cli.sending import simulate_to_collector, simulate_to_file
    from streams.simulate import Plan

    if rate is not None and fast:
        raise typer.BadParameter("--rate and --fast exclude each other; give one.")
    last = end.date() if end is not None else date.today()
    plan = Plan(people=people, days=days, seed=seed, end=last, disorder=disorder, duplicates=duplicates)
    if out is not None:
        simulate_to_file(plan, out, facts)
        return
    settings = _quiet_settings_of(data=data, port=port, config=config, log=log, analytics=analytics)
    report = in_loop(simulate_to_collector(plan, settings, rate=rate, facts=facts, url=url, write_key=write_key))
    print(report.as_json() if as_json else report.told(), flush=True)


def send(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", allow_dash=True, help="JSON lines; - reads standard input.", show_default=False),
    ],
    as_json: Json = False,
    data: Data = None,
    port: Port = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
    url: Url = None,
    write_key: WriteKey = None,
) -> None:
    """Send a file of events: one Segment call, or one batch body, a line.

    A call without messageId gets one made of its content, so the same file sent again changes nothing. `sentAt` is left
    out: it would move old events to today. Lines that are no call are named, and the others are sent (exit code 1).
    """
    from streams.cli.sending import send_file

    settings = _quiet_settings_of(data=data, port=port, config=config, log=log, analytics=analytics)
    report = in_loop(send_file(file, settings, url=url, write_key=write_key))
    print(report.as_json() if as_json else report.told(), flush=True)
    if report.bad:
        raise typer.Exit(1)
