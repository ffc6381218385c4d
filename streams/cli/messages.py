"""`tidewire message …`: send one, look what became of it, decide where nobody knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of
from streams.cli.templates import Given, read_given

if TYPE_CHECKING:
    from streams.access import Api

MessageId = Annotated[str, typer.Argument(metavar="ID", help="Id of the message, as `message send` prints it.")]
AS = ("sent", "failed", "again")
FINAL = ("sent", "failed", "withheld", "unknown")
LOOK_EVERY_S = 0.25


def register(app: typer.Typer) -> None:
    message = typer.Typer(help="Messages to people: send, look, decide.", no_args_is_help=True)
    app.add_typer(message, name="message")
    message.command(short_help="Send a template to somebody.")(send)
    message.command("list", short_help="What became of messages, the newest first.")(list_)
    message.command(short_help="One message, and what it says.")(show)
    message.command(short_help="Decide about one that nobody knows the end of.")(settle)
    message.command(short_help="Take in a bounce or a complaint that came back as a mail.")(report)


def send(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="Name of the template.")],
    to: Annotated[str, typer.Option("--to", metavar="PERSON", help="A person key, a user id, an anonymous id or an "
                                    "e-mail address.")],
    given: Given = "{}",
    once: Annotated[str, typer.Option("--once", metavar="TEXT", help="Orders of this template to this person with the "
                                      "same text, such as an order number, are one.")] = "",
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, max=3600, help="Wait so long for what "
                                        "becomes of it.")] = 0,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Order a message. It leaves through its channel (config/channels.yaml): the outbox, unless you name another.

    With --wait the exit code is 1 where it was not sent.
    """
    from streams.cli.question import ask

    body = {"template": template, "to": to, "given": read_given(given), "once": once}
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    ordered = ask(settings, lambda api: api.post("/api/messages", body))
    if not wait:
        _print(ordered, as_json, f"ordered: {ordered['message']}")
        return
    row = ask(settings, lambda api: _wait(api, ordered["message"], wait))
    why = f": {row['why']}" if row["why"] else ""
    _print(row, as_json, f"{row['state']}{why} ({row['id']})")
    if row["state"] != "sent":
        raise typer.Exit(1)


def _wait(api: Api, id_: str, seconds: float) -> Any:
    import time

    from streams.access import ApiRefused

    until = time.monotonic() + seconds
    row: Any = {"id": id_, "state": "ordered", "why": "it is not known yet; does a sender run?"}
    while time.monotonic() < until:
        try:
            row = api.get(f"/api/messages/{id_}")
        except ApiRefused as refused:
            if refused.status != 404:
                raise
        if row["state"] in FINAL:
            return row
        time.sleep(LOOK_EVERY_S)
    return row


def list_(
    state: Annotated[str, typer.Option("--state", metavar="STATE", help="Only these: waiting, sending, unknown, sent, "
                                       "failed or withheld.")] = "",
    template: Annotated[str, typer.Option("--template", metavar="NAME", help="Only those of a template.")] = "",
    person: Annotated[str, typer.Option("--person", metavar="PERSON", help="Only those to one person.")] = "",
    most: Annotated[int, typer.Option("--most", min=1, max=1000, help="At most so many.")] = 50,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """What became of messages, the newest first."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get("/api/messages", state=state, template=template, person=person,
                                              most=str(most)))["messages"]  # fmt: skip
    if as_json:
        for row in found:
            print(as_json_line(row))
    else:
        names = ("id", "ordered_at", "person", "template", "channel", "state", "why")
        print_table([{name: row[name] for name in names} for row in found])


def show(
    id_: MessageId, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """One message: what became of it, and what it says where it stayed here."""
    from urllib.parse import quote

    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    row = ask(settings, lambda api: api.get(f"/api/messages/{quote(id_, safe='')}"))
    if as_json:
        print(as_json_line(row))
        return
    content = row.pop("content")
    for name, value in row.items():
        if value not in ("", None):
            print(f"{name}: {cell(value)}")
    if content:
        print(f"\nsubject: {cell(content['subject'])}\n" if content["subject"] else "")
        for line in content["text"].splitlines():
            print(cell(line))


def settle(
    id_: MessageId,
    as_: Annotated[str, typer.Argument(metavar="sent|failed|again", help="`sent`: she got it. `failed`: she did not, "
                                       "leave it. `again`: send it once more.")],
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Decide about a message that nobody knows the end of. One that still waits can be stopped, with `failed`."""
    from urllib.parse import quote

    from streams.cli.question import ask

    if as_ not in AS:
        raise TidewireError(f"{as_!r} is no way to settle a message; there are: {', '.join(AS)}.")
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    done = ask(settings, lambda api: api.post(f"/api/messages/{quote(id_, safe='')}/settle", {"as": as_}))
    _print(done, as_json, f"settled as {as_}: {id_}")


def report(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The mail as the server stored it; - reads standard "
                                        "input.")],
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Take in a bounce or a complaint that came back as a mail. What nobody can do anything with is said, and the exit
    code is 1."""
    from base64 import b64encode

    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    body = {"mail": b64encode(_start_of(file)).decode()}
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    reports = ask(settings, lambda api: api.post("/api/messages/report", body))["reports"]
    for each in reports:
        print(as_json_line(each) if as_json else cell(f"{each['message'] or '?'}: {each['done']} ({each['why']})"))
    if all(each["done"].startswith("nothing:") for each in reports):
        raise typer.Exit(1)


def _start_of(file: str) -> bytes:
    """As much of a mail as a report is looked for in."""
    from sinks.messages.reports import MOST_READ

    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as opened:
            return opened.read(MOST_READ)
    except OSError as error:
        raise TidewireError(f"{file} cannot be read: {error.strerror}.") from None


def _print(value: Any, as_json: bool, line: str) -> None:
    from streams.cli.show import as_json_line, cell

    print(as_json_line(value) if as_json else cell(line))
