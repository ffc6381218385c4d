"""Commands for templates of messages: `templates list`, `check` and `preview`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of

if TYPE_CHECKING:
    from sinks.messages.rendering import Template

Given = Annotated[str, typer.Option("--given", metavar="JSON", help="What the order to send brings along, as "
                                    '{"coupon": "A1"}; the template asks for it as given.coupon.')]  # fmt: skip


def register(app: typer.Typer) -> None:
    templates = typer.Typer(help="Templates: what messages say, checked and previewed.", no_args_is_help=True)
    templates.command("list")(list_templates)
    templates.command("check")(check)
    templates.command("preview")(preview)
    app.add_typer(templates, name="templates")


def list_templates(as_json: Json = False, config: Config = None) -> None:
    """Every template: its channel, its kind, what it asks consent for, and its languages."""
    from streams.cli.show import as_json_line, print_table

    rows = [_row(template) for template in _templates(config).values()]
    if as_json:
        for row in rows:
            print(as_json_line(row))
    elif rows:
        print_table([{**row, "languages": " ".join(row["languages"])} for row in rows])
    else:
        print("There are no templates. Write config/templates/NAME.yaml; docs/templates.md says how.")


def check(as_json: Json = False, config: Config = None) -> None:
    """Read config/templates/*.yaml, and say what each asks of a person. Exit code 2 where one is wrong."""
    for name, template in _templates(config).items():
        asked = sorted({path for _, path, _ in template.asked})
        if as_json:
            print(json.dumps({"template": name, "asks": asked}, ensure_ascii=False))
        else:
            print(f"{name}: asks for {', '.join(asked)}" if asked else f"{name}: asks for nothing")


def preview(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the template.")],
    to: Annotated[str, typer.Option("--to", metavar="PERSON", help="Whose message: a person key, a user id, an "
                                    "anonymous id or an e-mail address.")],
    given: Given = "{}",
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write its HTML to this file.")] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """The message as one person would read it now. Nothing is sent. Exit code 1 where she cannot be sent it."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    templates = _templates(config)
    if name not in templates:
        raise TidewireError(f'There is no template "{name}". There are: {", ".join(templates) or "none"}.')
    brought = read_given(given)
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get("/api/person", key=to))
    message = templates[name].render((found["portrait"] or {}).get("sections") or {}, brought)
    if html is not None:
        if not message.html:
            raise TidewireError(f'Template "{name}" has no HTML.')
        html.write_text(message.html, encoding="utf-8")
    if as_json:
        print(as_json_line({"person": found["person"], **message._asdict()}))
        return
    print(f"to: {cell(found['person'])}, in {message.language}")
    for part in ("subject", "preheader"):
        if said := getattr(message, part):
            print(f"{part}: {cell(said)}")
    print()
    for line in message.text.splitlines():
        print(cell(line))


def read_given(text: str) -> dict[str, Any]:
    """What an option `--given` says.

    Raises:
        TidewireError: it is no JSON object.
    """
    import msgspec

    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise TidewireError(f"--given is no JSON: {error}.") from None
    if not isinstance(given, dict):
        raise TidewireError('--given is no JSON object, such as {"coupon": "A1"}.')
    return given


def _row(template: Template) -> dict[str, Any]:
    return {"template": template.name, "channel": template.channel, "kind": template.kind, "topic": template.topic,
            "languages": list(template.parts)}  # fmt: skip


def _templates(config: Path | None) -> dict[str, Template]:
    from config.templates import read_templates

    settings = settings_of(config=config)
    return read_templates(settings.config, settings.timezone)
