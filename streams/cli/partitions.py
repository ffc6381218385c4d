"""Commands for partitions that stopped rather than become dead letters: `partitions list` and `partitions go-on`."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of, who


def register(app: typer.Typer) -> None:
    partitions = typer.Typer(help="Partitions that stand still rather than become dead letters.", no_args_is_help=True)
    partitions.command("list")(list_partitions)
    partitions.command("go-on")(go_on)
    app.add_typer(partitions, name="partitions")


def list_partitions(
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None
) -> None:
    """Which partitions stand still, since when, and why. Exit code 1 where any does. With --json one a row."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    stopped = ask(settings, lambda api: api.get("/api/partitions"))["stopped"]
    if as_json:
        for each in stopped:
            print(as_json_line(each))
    elif stopped:
        print_table(stopped)
    else:
        print("none stands still")
    if stopped:
        raise typer.Exit(1)


def go_on(
    partition: Annotated[int, typer.Argument(metavar="N", min=0, help="Which partition, as `partitions list` shows.")],
    let_through: Annotated[
        bool,
        typer.Option("--let-through", help="What stands in it now may all become dead letters, however many."),
    ] = False,
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """Let a stopped partition go on, once the cause is mended. Its worker does within seconds; nothing is skipped.

    Without --let-through it stops again when the next hundred records cannot be handled either.
    """
    import json

    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    asked = {"partition": partition, "let_through": let_through, "by": who()}
    done = ask(settings, lambda api: api.post("/api/partitions/go-on", asked))
    print(json.dumps(done) if as_json else f"partition {partition} goes on as soon as its worker reads this")
