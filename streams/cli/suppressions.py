"""`tidewire suppression …`: the addresses to which nothing is sent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of

if TYPE_CHECKING:
    from streams.access import Api

Channel = Annotated[str, typer.Option("--channel", metavar="CHANNEL", help="email or sms.")]
AT_ONCE = 10_000


def register(app: typer.Typer) -> None:
    suppression = typer.Typer(help="Addresses to which nothing is sent.", no_args_is_help=True)
    app.add_typer(suppression, name="suppression")
    suppression.command("list", short_help="The addresses, the newest first.")(list_)
    suppression.command(short_help="Put addresses on the list.")(add)
    suppression.command(short_help="Take one off the list.")(release)


def list_(
    channel: Annotated[str, typer.Option("--channel", metavar="CHANNEL", help="Only those of email or of sms.")] = "",
    part: Annotated[str, typer.Option("--part", metavar="TEXT", help="Only addresses with this in them.")] = "",
    most: Annotated[int, typer.Option("--most", min=1, max=1000, help="At most so many.")] = 50,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """The addresses to which nothing is sent, the newest first, each with its reason."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    asked = {"channel": channel, "part": part, "most": str(most)}
    found = ask(settings, lambda api: api.get("/api/suppressions", **asked))["suppressions"]
    if as_json:
        for row in found:
            print(as_json_line(row))
    else:
        names = ("address", "channel", "reason", "why", "since", "said_by")
        print_table([{name: row[name] for name in names} for row in found])


def add(
    addresses: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS]...", help="The addresses.")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="A file with one address a line; - reads "
                                              "standard input.")] = None,
    channel: Channel = "email",
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, in one line.")] = "",
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Put addresses on the suppression list: nothing is sent there, whoever they belong to."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line

    wanted = [*(addresses or ()), *(_lines(file) if file is not None else ())]
    if not wanted:
        raise TidewireError("Name an address, or a file with --file.")
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)

    def post(api: Api) -> int:
        bodies = [{"channel": channel, "addresses": wanted[first : first + AT_ONCE], "why": why}
                  for first in range(0, len(wanted), AT_ONCE)]  # fmt: skip
        return sum(api.post("/api/suppressions", body)["added"] for body in bodies)

    added = ask(settings, post)
    print(as_json_line({"added": added}) if as_json else f"on the list: {added:,}")


def release(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The address.")],
    channel: Channel = "email",
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Take an address off the suppression list. What was withheld meanwhile is not sent by that: order it again."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    body = {"channel": channel, "address": address}
    done = ask(settings, lambda api: api.post("/api/suppressions/release", body))
    print(as_json_line(done) if as_json else cell(f"off the list: {done['released']}"))


def _lines(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise TidewireError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise TidewireError(f"{file} is no UTF-8 text.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
