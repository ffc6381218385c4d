"""The command line's tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.ask import register as register_ask
from streams.cli.build import register as register_build
from streams.cli.coupons import register as register_coupons
from streams.cli.inbox import register as register_inbox
from streams.cli.journeys import register as register_journeys
from streams.cli.keep import register as register_keep
from streams.cli.messages import register as register_messages
from streams.cli.partitions import register as register_partitions
from streams.cli.run import register as register_run
from streams.cli.segments import register as register_segments
from streams.cli.suppressions import register as register_suppressions
from streams.cli.templates import register as register_templates

EPILOG = """\b
Exit codes:  0 done · 1 it failed, or found something wrong · 2 wrong command or configuration
             3 not reachable, or held by another process · 130 interrupted

A command takes its options after its name: tidewire up --port 8090. Settings also come from TIDEWIRE_… variables and
config/tidewire.yaml; `tidewire config show` prints each and where it came from."""

app = typer.Typer(
    name="tidewire",
    help="Marketing automation and CRM as an event-driven streaming pipeline.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,  # rich costs 100 ms, a third of what --help may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"tidewire {metadata.version('tidewire')}")
        raise typer.Exit


@app.callback()
def tidewire(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Marketing automation and CRM as an event-driven streaming pipeline."""


register_run(app)
register_ask(app)
register_segments(app)
register_journeys(app)
register_templates(app)
register_messages(app)
register_suppressions(app)
register_inbox(app)
register_coupons(app)
register_partitions(app)
register_keep(app)
register_build(app)
