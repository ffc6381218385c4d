"""`tidewire inbox …`: try out what people read of their inbox."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from schemas.errors import TidewireError
from streams.cli.options import Config, Data, Json, settings_of

_LIFE = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def register(app: typer.Typer) -> None:
    inbox = typer.Typer(help="The inbox that people read in your pages and apps.", no_args_is_help=True)
    app.add_typer(inbox, name="inbox")
    inbox.command(short_help="A token for one person, to try it out.")(token)


def token(
    person: Annotated[str, typer.Argument(metavar="USER", help="Her userId.")],
    life: Annotated[str, typer.Option("--for", metavar="TIME", help="How long it is good: 90s, 15m, 1h, 7d.")] = "1h",
    workspace: Annotated[str | None, typer.Option("--workspace", help="Whose person she is.")] = None,
    as_json: Json = False, data: Data = None, config: Config = None,
) -> None:  # fmt: skip
    """Print a token by which somebody's inbox can be read. Who has it reads as she does: it is for trying out, and your
    backend makes those of your people itself."""
    from config.inbox_keys import load_inbox_keys
    from sinks.messages.person_tokens import PersonTokens
    from streams.cli.show import as_json_line

    settings = settings_of(data=data, config=config)
    keys = load_inbox_keys(settings)
    if not keys:
        raise TidewireError("There is no key of an inbox: write `inbox: {via: inbox}` into channels.yaml, or name a "
                            "file with TIDEWIRE_INBOX_KEYS; see docs/inbox.md.")  # fmt: skip
    tokens = PersonTokens({name: [key.secret for key in own] for name, own in keys.items()})
    made = tokens.sign(workspace or settings.workspace, person, _seconds(life))
    print(as_json_line({"token": made}) if as_json else made)


def _seconds(life: str) -> int:
    found = _LIFE.fullmatch(life)
    if found is None or int(found[1]) == 0:
        raise TidewireError(f"--for {life!r:.30} is no time; write 90s, 15m, 1h or 7d.")
    return int(found[1]) * _SECONDS[found[2]]
