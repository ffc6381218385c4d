"""Templates of messages: the list, and one as a person would read it now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from config.templates import FOLDER, read_each, read_one
from schemas.errors import ConfigError
from sinks.messages.rendering import GIVEN, Rendered, Template
from sinks.messages.templating import CannotFill
from web.dashboard.pages.api import ApiError, find_person
from web.dashboard.queries import people
from web.dashboard.site import Site

LONGEST_GIVEN = 10_000  # characters of one value

# A mail is shown in a frame of its own, in which nothing runs, nothing is sent, and nothing of the page is to be seen.
OF_MAIL = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; font-src https:; "
                               "form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox",
    "x-frame-options": "SAMEORIGIN",
}  # fmt: skip


class Tried(NamedTuple):
    """A template filled in for somebody. `message`: None where she cannot be sent it, and `wrong` says why."""

    person: str
    name: str
    message: Rendered | None
    wrong: str


async def templates(request: Request) -> Response:
    site: Site = request.app.state.site
    found = await asyncio.to_thread(read_each, site.settings.config, site.settings.timezone)
    lines = [(name, each if isinstance(each, Template) else None, str(each)) for name, each in found.items()]
    return site.page(request, "templates.html", lines=lines)


async def template(request: Request) -> Response:
    """One template, and what it becomes for the person of `person`."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    read = read_one(site.settings.config, name, site.settings.timezone)
    if read is None:
        return site.page(request, "missing.html", 404, what="")
    source = (site.settings.config / FOLDER / f"{name}.yaml").read_text(encoding="utf-8", errors="replace")
    if isinstance(read, ConfigError):
        return site.page(request, "template.html", name=name, read=None, wrong=str(read), source=source, trouble="")
    asked = sorted({path for _, path, _ in read.asked})
    wanted = sorted({path.split(".")[1] for path in asked if path.startswith(f"{GIVEN}.")})
    who, given = request.query_params.get("person", "").strip(), given_of(request.query_params)
    newest = [] if who else await people.newest(site.analytics, site.workspace)
    return site.page(
        request, "template.html", name=name, read=read, wrong="", source=source, asked=asked, wanted=wanted, who=who,
        given=given, newest=newest, query=dict(request.query_params),
        tried=await _tried(site, read, who, given) if who else None,
        trouble=request.query_params.get("trouble", "")[:500],
    )  # fmt: skip


async def mail(request: Request) -> Response:
    """The HTML of a mail, alone."""
    site: Site = request.app.state.site
    read = read_one(site.settings.config, request.path_params["name"], site.settings.timezone)
    if not isinstance(read, Template):
        return PlainTextResponse("404: there is no such template.", 404, headers=OF_MAIL)
    tried = await _tried(site, read, request.query_params.get("person", "").strip(), given_of(request.query_params))
    if tried.message is None or not tried.message.html:
        return PlainTextResponse(f"404: {tried.wrong or 'it has no HTML.'}", 404, headers=OF_MAIL)
    return HTMLResponse(tried.message.html, headers=OF_MAIL)


async def _tried(site: Site, template: Template, who: str, given: Mapping[str, str]) -> Tried:
    try:
        found = await find_person(site, who)
    except ApiError as error:
        return Tried("", "", None, str(error))
    portrait = found.portrait or {}
    sections: Mapping[str, Any] = portrait.get("sections") or {}
    name = str(portrait.get("name") or portrait.get("email") or "")
    try:
        return Tried(found.person.key, name, template.render(sections, given), "")
    except CannotFill as cannot:
        return Tried(found.person.key, name, None, str(cannot))


def given_of(query: Mapping[str, str]) -> dict[str, str]:
    """What the order to send would bring along: fields `given.NAME`, empty ones left out."""
    start = f"{GIVEN}."
    return {
        name.removeprefix(start): value[:LONGEST_GIVEN]
        for name, value in query.items() if name.startswith(start) and value
    }  # fmt: skip
