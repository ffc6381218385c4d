"""Commands that ask: `sql`, `person`, `why` and `rejected`: of the running process, or else of the data folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConfigError, TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of

if TYPE_CHECKING:
    from config.settings import Settings

LetterId = Annotated[str, typer.Argument(metavar="ID", help="Id of the dead letter, as `rejected list` shows it.")]


def register(app: typer.Typer) -> None:
    app.command(short_help="Ask ClickHouse.")(sql)
    app.command(short_help="Everything about one person.")(person)
    app.command(short_help="Why somebody got a message, or did not.")(why)
    rejected = typer.Typer(help="What was refused, and why.", no_args_is_help=True)
    rejected.command("list")(list_rejected)
    rejected.command("show")(show_rejected)
    rejected.command("redrive")(redrive_rejected)
    app.add_typer(rejected, name="rejected")


# --- sql


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A SELECT; - reads it from standard input.")],
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    analytics: Analytics = None,
) -> None:
    """Ask ClickHouse: a SELECT over the views and tables of docs/analytics.md. With --json one object a row."""
    from streams.cli.show import as_json_line, print_table

    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise ConfigError("sql", "the query is empty.", "Try: tidewire sql 'SELECT count() FROM event_log'.")
    settings = settings_of(data=data, config=config, analytics=analytics)
    rows = _rows(settings, text)
    if as_json:
        for row in rows:
            print(as_json_line(row))
    else:
        print_table(rows)


def _rows(settings: Settings, query: str) -> list[dict[str, Any]]:
    from streams.access import Api, find_running
    from streams.cli.question import must_exist

    # A server answers many processes; a chDB folder only the one that owns it.
    if settings.analytics_url.startswith("chdb:"):
        running = find_running(settings.data)
        if running is not None:
            rows: list[dict[str, Any]] = Api(running.url, running.token).post("/api/sql", {"query": query})["rows"]
            return rows
        must_exist(settings)
    return _query_alone(settings, query)


def _query_alone(settings: Settings, query: str) -> list[dict[str, Any]]:
    from sinks.analytics import Analytics
    from streams.cli.run import in_loop

    async def ask() -> list[dict[str, Any]]:
        analytics = Analytics(settings.analytics_url, settings.analytics_password)
        try:
            return await analytics.query(query)
        finally:
            await analytics.close()

    return in_loop(ask())


# --- person


def person(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="A person key (default/u:42), a user id, an anonymous id or an e-mail address."
        ),
    ],
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """Everything about one person: portrait, identities, the newest events. Exit code 1 where there is nobody."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_person

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get("/api/person", key=key))
    if as_json:
        print(as_json_line(found))
    else:
        print_person(found)


# --- why


def why(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="A person key, a user id, an anonymous id or an "
                                          "e-mail address.")],
    about: Annotated[str, typer.Argument(metavar="JOURNEY|MESSAGE", help="Name of a journey, id of a message, or name "
                                         "of a template; template:NAME where a journey has the same name.")],
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Why somebody got something of a journey, or did not: one sentence, and each step that led to it.

    Exit code 1: there is no such person, journey or message.
    """
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    answer = ask(settings, lambda api: api.get("/api/why", person=person, about=about))
    if as_json:
        print(as_json_line(answer))
        return
    print(cell(answer["says"]))
    for line in answer["lines"]:
        cause = f"  [{cell(line['cause'])}]" if line["cause"] else ""
        print(f"  {cell(line['when'])}  {cell(line['says'])}{cause}")
    for other in answer["also"]:
        print(f"There is another of that name: tidewire why {cell(person)} {cell(other)}", file=sys.stderr)


# --- rejected


def list_rejected(
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Only those refused for this reason.")
    ] = None,
    state: Annotated[str, typer.Option("--state", metavar="STATE", help="open, mended or all.")] = "open",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")] = 50,
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """What was refused, the newest first, and how much of it by reason. With --json one letter a row."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_rejected

    if state not in ("open", "mended", "all"):
        raise typer.BadParameter("--state is open, mended or all.")
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get("/api/rejected", reason=reason, state=state, limit=limit))
    if as_json:
        for letter in found["letters"]:
            print(as_json_line(letter))
    else:
        print_rejected(found)


def show_rejected(
    letter_id: LetterId,
    as_json: Json = False,
    body: Annotated[
        bool, typer.Option("--body", help="Print the refused event alone, to be mended in a file.")
    ] = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """One dead letter, whole: the reason, the field, the value, the mend, and the record."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_letter

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    letter = ask(settings, lambda api: api.get(f"/api/rejected/{_path_part(letter_id)}"))
    if body:
        print(letter["body"])
    elif as_json:
        print(as_json_line(letter))
    else:
        print_letter(letter)


def redrive_rejected(
    letter_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of the dead letter.", show_default=False)
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="All open ones with this reason.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All open ones.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", allow_dash=True, help="The mended event (JSON), with ID.")
    ] = None,
    as_json: Json = False,
    data: Data = None,
    config: Config = None,
    log: Log = None,
    analytics: Analytics = None,
) -> None:
    """Send refused events again: one, as it is or mended; all of a reason; or all. Exit code 1 where any is refused."""
    from streams.cli.question import ask

    if (letter_id is not None) + (reason is not None) + every != 1:
        raise typer.BadParameter("Name what to send again: an ID, --reason TEXT or --all.")
    if file is not None and letter_id is None:
        raise typer.BadParameter("--file goes with an ID: it is the mended event.")
    asked: dict[str, Any] = {"all": True} if every else {"reason": reason} if reason is not None else {"id": letter_id}
    if file is not None:
        asked["record"] = _read_text(file)
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    done = ask(settings, lambda api: api.post("/api/rejected/redrive", asked))
    if as_json:
        print(json.dumps(done))
    else:
        again = f", {done['refused']} refused again: {done['why']}" if done["refused"] else ""
        held = f", {done['held']} held back behind them" if done["held"] else ""
        print(f"{done['sent']} sent again{again}{held}")
    if done["refused"]:
        raise typer.Exit(1)


def _read_text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TidewireError(f"{file} cannot be read: {error}.") from None


def _path_part(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")
