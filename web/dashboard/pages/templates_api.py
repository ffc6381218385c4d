"""JSON for `tidewire templates …`. Each call needs the token of `data/run.json`.

    GET  /api/templates                    every template: its version, channel, kind, topic and languages
    GET  /api/templates/NAME?version=3     one, with its text; without `version` the newest
    GET  /api/templates/NAME/versions      who wrote which version when, the newest first
    POST /api/templates/NAME               {"yaml": …, "by": …, "upon": 3}   saves a new version
    POST /api/templates/NAME/remove        {"by": …}   takes it out
    POST /api/templates/NAME/preview       {"to": …, "given": {…}, "version": 3}   as one person would read it now
    POST /api/templates/apply              {"by": …}   takes over what changed in the files

A version that was overtaken by somebody else's is answered with 409.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from schemas.errors import ConfigError
from schemas.templates import SavedTemplate
from schemas.times import to_ms
from sinks.messages.rendering import Template
from streams.texts import Overtaken
from web.dashboard.pages.api import LONGEST_NAME, ApiError, answered, body_of_request
from web.dashboard.pages.segments import whole
from web.dashboard.pages.templates import lines_of, tried
from web.dashboard.site import Site


@answered
async def templates(request: Request) -> Any:
    site: Site = request.app.state.site
    await site.templates.look()
    return {"templates": [{**_head(line.saved), **_facts(line.read), "wrong": line.wrong} for line in lines_of(site)]}


def _head(saved: SavedTemplate) -> dict[str, Any]:
    return {"template": saved.name, "version": saved.version, "by": saved.by, "at_ms": saved.at_ms,
            "source": saved.source, "is_gone": saved.is_gone}  # fmt: skip


def _facts(read: Template | None) -> dict[str, Any]:
    if read is None:
        return {"title": {}, "channel": "", "kind": "", "topic": "", "languages": []}
    return {"title": dict(read.title), "channel": read.channel, "kind": read.kind, "topic": read.topic,
            "languages": list(read.parts)}  # fmt: skip


@answered
async def template(request: Request) -> Any:
    site: Site = request.app.state.site
    saved = await _asked_for(site, request.path_params["name"], request.query_params.get("version", ""))
    return {**_head(saved), "yaml": saved.text}


async def _asked_for(site: Site, name: str, version: str) -> SavedTemplate:
    """A version of a template; the newest, where none is named.

    Raises:
        ApiError: there is none.
    """
    await site.templates.look()
    saved = await site.templates.version(name, whole(version)) if version else site.templates.saved(name)
    if saved is None:
        what = f' of version {version:.20}. `tidewire templates versions {name}` shows them' if version else ""
        raise ApiError(404, f'There is no template "{name}"{what or ". `tidewire templates list` shows them"}.')
    return saved


@answered
async def versions(request: Request) -> Any:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.templates.look()
    kept = site.templates.versions(name)
    if not kept:
        raise ApiError(404, f'There is no template "{name}". `tidewire templates list` shows them.')
    return {"versions": [_head(saved) for saved in kept]}


@answered
async def save(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    text, upon = asked.get("yaml"), asked.get("upon")
    if not isinstance(text, str):
        raise ApiError(400, 'Send {"yaml": "channel: …"}.')
    try:
        saved = await site.templates.save(request.path_params["name"], text, by=_by(asked), now_ms=to_ms(site.now()),
                                          upon=upon if isinstance(upon, int) else None)  # fmt: skip
    except Overtaken as error:
        raise ApiError(409, str(error)) from None
    return _head(saved)


@answered
async def remove(request: Request) -> Any:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.templates.remove(name, by=_by(await body_of_request(request)), now_ms=to_ms(site.now()))
    return {"removed": name}


@answered
async def apply(request: Request) -> Any:
    site: Site = request.app.state.site
    changed = await site.templates.apply_files(by=_by(await body_of_request(request)), now_ms=to_ms(site.now()))
    return {"changed": [_head(saved) for saved in changed]}


@answered
async def preview(request: Request) -> Any:
    """Answers 422 where she would not be sent it, with why."""
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    given, number = asked.get("given", {}), asked.get("version")
    if not isinstance(given, dict):
        raise ApiError(422, "`given` must be a JSON object.")
    saved = await _asked_for(site, request.path_params["name"], str(number) if number is not None else "")
    read = site.templates.compile(saved)
    if isinstance(read, ConfigError):
        raise read
    found = await tried(site, read, str(asked.get("to", "")), given)
    if found.message is None:
        raise ApiError(422, found.wrong)
    return {"person": found.person, "version": saved.version, **found.message._asdict()}


def _by(asked: dict[str, Any]) -> str:
    return str(asked.get("by") or "api")[:LONGEST_NAME]
