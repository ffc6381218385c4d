"""Commands for journeys."""

from __future__ import annotations

import typer

from streams.cli.journey_tests import register_tests


def register(app: typer.Typer) -> None:
    journeys = typer.Typer(help="Journeys: what happens to whom and when.", no_args_is_help=True)
    register_tests(journeys)
    app.add_typer(journeys, name="journeys")
