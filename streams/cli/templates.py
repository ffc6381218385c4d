"""Commands for templates of messages: what there is, its versions, checked, previewed and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of, who

if TYPE_CHECKING:
    from config.settings import Settings
    from sinks.messages.rendering import Template

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the template.")]
Given = Annotated[str, typer.Option("--given", metavar="JSON", help="What the order to send brings along, as "
                                    '{"coupon": "A1"}; the template asks for it as given.coupon.')]  # fmt: skip


def register(app: typer.Typer) -> None:
    templates = typer.Typer(help="Templates: what messages say, checked and previewed.", no_args_is_help=True)
    templates.command("list")(list_templates)
    templates.command("show")(show_template)
    templates.command("versions")(versions)
    templates.command("check")(check)
    templates.command("preview")(preview)
    templates.command("apply")(apply)
    app.add_typer(templates, name="templates")


def list_templates(
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None
) -> None:
    """Every template: its version, its channel, its kind, what it asks consent for, and its languages.

    Before the first `up` these are the files.
    """
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    if _is_begun(settings):
        rows = ask(settings, lambda api: api.get("/api/templates"))["templates"]
    else:
        rows = [_row(template) for template in _templates(settings).values()]
    if as_json:
        for row in rows:
            print(as_json_line(row))
    elif rows:
        names = ("template", "version", "channel", "kind", "topic", "languages", "by", "wrong")
        print_table([{name: " ".join(row[name]) if name == "languages" else row[name] for name in names if name in row}
                     for row in rows])  # fmt: skip
    else:
        print("There are no templates. Write config/templates/NAME.yaml; docs/templates.md says how.")


def _is_begun(settings: Settings) -> bool:
    """Whether there is a log that templates were taken over into."""
    from streams.access import find_running
    from streams.grounds import embedded_file

    return not settings.is_embedded or embedded_file(settings).exists() or find_running(settings.data) is not None


def show_template(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", metavar="N", min=1, help="Not the newest, but this "
                                                "one.", show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """A template as it was written, the newest version or another."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    asked = {"version": str(version)} if version is not None else {}
    found = ask(settings, lambda api: api.get(f"/api/templates/{_path_part(name)}", **asked))
    if as_json:
        print(as_json_line(found))
        return
    for line in found["yaml"].splitlines():
        print(cell(line))


def versions(
    name: Name, as_json: Json = False, data: Data = None, config: Config = None, log: Log = None,
    analytics: Analytics = None,
) -> None:  # fmt: skip
    """Who saved which version of a template when, the newest first."""
    from schemas.times import from_ms
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get(f"/api/templates/{_path_part(name)}/versions"))["versions"]
    if as_json:
        for row in found:
            print(as_json_line(row))
        return
    print_table([{"version": row["version"], "at": from_ms(row["at_ms"]).isoformat(timespec="seconds"),
                  "by": row["by"], "source": row["source"], "": "removed" if row["is_gone"] else ""}
                 for row in found])  # fmt: skip


def check(as_json: Json = False, config: Config = None) -> None:
    """Read config/templates/*.yaml as `up` does, and say what each asks of a person. Exit code 2 where one is wrong."""
    for name, template in _templates(settings_of(config=config)).items():
        asked = sorted({path for _, path, _ in template.asked})
        if as_json:
            print(json.dumps({"template": name, "asks": asked}, ensure_ascii=False))
        else:
            print(f"{name}: asks for {', '.join(asked)}" if asked else f"{name}: asks for nothing")


def preview(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="PERSON", help="Whose message: a person key, a user id, an "
                                    "anonymous id or an e-mail address.")],
    given: Given = "{}",
    version: Annotated[int | None, typer.Option("--version", metavar="N", min=1, help="Not the newest, but this "
                                                "one.", show_default=False)] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write its HTML to this file.")] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """The message as one person would read it now. Nothing is sent. Exit code 1 where she cannot be sent it."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    body = {"to": to, "given": read_given(given), "version": version}
    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    message = ask(settings, lambda api: api.post(f"/api/templates/{_path_part(name)}/preview", body))
    if html is not None:
        if not message["html"]:
            raise TidewireError(f'Template "{name}" has no HTML.')
        html.write_text(message["html"], encoding="utf-8")
    if as_json:
        print(as_json_line(message))
        return
    print(f"to: {cell(message['person'])}, in {message['language']}")
    for part in ("subject", "preheader", "link"):
        if message[part]:
            print(f"{part}: {cell(message[part])}")
    print()
    for line in message["text"].splitlines():
        print(cell(line))


def apply(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Save this file as a new version of the "
                                                "template of its name. Without it: all files of the config folder.",
                                                exists=True, dir_okay=False, show_default=False)] = None,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Take over what changed in config/templates/*.yaml since they were last read, as `up` does when it starts; or save
    one file, wherever it is, as if it were written on the page."""
    from config.yaml_file import read_text
    from streams.cli.question import ask

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    if file is not None:
        body, path = {"yaml": read_text(file), "by": who()}, f"/api/templates/{_path_part(file.stem)}"
        changed = [ask(settings, lambda api: api.post(path, body))]
    else:
        changed = ask(settings, lambda api: api.post("/api/templates/apply", {"by": who()}))["changed"]
    if as_json:
        print(json.dumps(changed))
        return
    for each in changed:
        print(f"{each['template']}: {'taken out' if each['is_gone'] else 'version ' + str(each['version'])}")
    if not changed:
        print("nothing changed")


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


def _templates(settings: Settings) -> dict[str, Template]:
    from config.templates import read_templates

    return read_templates(settings.config, settings.timezone)


def _path_part(text: str) -> str:
    from urllib.parse import quote

    if not text:
        raise TidewireError("Name a template. `tidewire templates list` names them.")
    return quote(text, safe="")
