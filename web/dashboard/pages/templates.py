"""Templates of messages: the list, one as a person would read it now, its versions, and what takes it out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from processors.coupon import still_good
from schemas.errors import ConfigError, TidewireError
from schemas.journeys import SavedJourney
from schemas.templates import SavedTemplate
from schemas.times import from_ms, to_ms
from sinks.messages.rendering import GIVEN, Rendered, Template
from sinks.messages.templating import CannotFill
from web.dashboard.pages.api import ApiError, find_person
from web.dashboard.pages.segments import BY, whole
from web.dashboard.queries import people
from web.dashboard.site import Site, read_form, template_path
from web.dashboard.written import DiffLine, diff_of

LONGEST_GIVEN = 10_000  # characters of one value
SHOWN_VERSIONS = 10
MOST_COMPARED_LINES = 3_000  # of both texts: comparing takes the product of their lines at worst

# A mail is shown in a frame of its own, in which nothing runs, nothing is sent, and nothing of the page is to be seen.
OF_MAIL = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; font-src https:; "
                               "form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox",
    "x-frame-options": "SAMEORIGIN",
}  # fmt: skip


class Line(NamedTuple):
    """One template of the list. `read`: None where it is wrong, and `wrong` says why."""

    saved: SavedTemplate
    at: datetime
    read: Template | None
    wrong: str


class Version(NamedTuple):
    """One version of the history."""

    saved: SavedTemplate | SavedJourney
    at: datetime


class Tried(NamedTuple):
    """A template filled in for somebody. `message`: None where she cannot be sent it, and `wrong` says why."""

    person: str
    name: str
    message: Rendered | None
    wrong: str


async def templates(request: Request) -> Response:
    site: Site = request.app.state.site
    await site.templates.look()
    newest = site.templates.newest.values()
    return site.page(request, "templates.html", lines=await asyncio.to_thread(lines_of, site),
                     gone=[saved for saved in newest if saved.is_gone])  # fmt: skip


def lines_of(site: Site) -> list[Line]:
    """All templates there are; those that nobody asked for yet are compiled."""
    lines = []
    for name, saved in site.templates.newest.items():
        found = site.templates.read(name)
        if found is not None:
            read, wrong = (None, str(found)) if isinstance(found, ConfigError) else (found, "")
            lines.append(Line(saved, from_ms(saved.at_ms), read, wrong))
    return lines


async def template(request: Request) -> Response:
    return await _page(request)


async def _page(request: Request, status: int = 200, trouble: str = "") -> Response:
    """One template, and what it becomes for the person of `person`; `trouble` is what kept us from doing what was
    asked."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.templates.look()
    versions = [Version(saved, from_ms(saved.at_ms)) for saved in site.templates.versions(name)]
    if not versions:
        return site.page(request, "missing.html", 404, what="")
    shown = versions if "versions" in request.query_params else versions[:SHOWN_VERSIONS]
    history: dict[str, Any] = {"name": name, "versions": shown, "count": len(versions), "newest_version": versions[0],
                               "trouble": trouble or request.query_params.get("trouble", "")[:500],
                               "path_of": template_path}  # fmt: skip
    saved, read = site.templates.saved(name), site.templates.read(name)
    if saved is None:
        return site.page(request, "template_gone.html", status, **history)
    if not isinstance(read, Template):
        return site.page(request, "template.html", status, read=None, wrong=str(read), saved=saved, **history)
    who, given = request.query_params.get("person", "").strip(), given_of(request.query_params)
    recent = [] if who else await people.newest(site.analytics, site.workspace)
    return site.page(
        request, "template.html", status, read=read, wrong="", saved=saved, asked=asked_by(read),
        wanted=wanted_by(read), who=who, given=given, newest=recent, query=dict(request.query_params),
        tried=await tried(site, read, who, given) if who else None, **history,
    )  # fmt: skip


def asked_by(template: Template) -> list[str]:
    """All that a template asks for."""
    return sorted({path for _, path, _ in template.asked})


def wanted_by(template: Template) -> list[str]:
    """What has to come with the order to send."""
    return sorted({path.split(".")[1] for path in asked_by(template) if path.startswith(f"{GIVEN}.")})


async def mail(request: Request) -> Response:
    """The HTML of a mail, alone."""
    site: Site = request.app.state.site
    await site.templates.look()
    read = site.templates.read(request.path_params["name"])
    if not isinstance(read, Template):
        return PlainTextResponse("404: there is no such template.", 404, headers=OF_MAIL)
    found = await tried(site, read, request.query_params.get("person", "").strip(), given_of(request.query_params))
    if found.message is None or not found.message.html:
        return PlainTextResponse(f"404: {found.wrong or 'it has no HTML.'}", 404, headers=OF_MAIL)
    return HTMLResponse(found.message.html, headers=OF_MAIL)


async def tried(site: Site, template: Template, who: str, given: Mapping[str, Any]) -> Tried:
    """A template, saved or not, filled in for whom a key, an id or an address names."""
    try:
        found = await find_person(site, who)
    except ApiError as error:
        return Tried("", "", None, str(error))
    portrait = found.portrait or {}
    sections = still_good(portrait.get("sections") or {}, to_ms(site.now()))
    name = str(portrait.get("name") or portrait.get("email") or "")
    try:
        message = await asyncio.to_thread(template.render, sections, given)
    except CannotFill as cannot:
        return Tried(found.person.key, name, None, str(cannot))
    return Tried(found.person.key, name, message, "")


def given_of(query: Mapping[str, str]) -> dict[str, str]:
    """What the order to send would bring along: fields `given.NAME`, empty ones left out."""
    start = f"{GIVEN}."
    return {
        name.removeprefix(start): value[:LONGEST_GIVEN]
        for name, value in query.items() if name.startswith(start) and value
    }  # fmt: skip


# --- versions


async def version(request: Request) -> Response:
    """One version: its text, and what it changed of the one before it, or of the one of `against`."""
    site: Site = request.app.state.site
    name, number = request.path_params["name"], whole(request.path_params["version"])
    await site.templates.look()
    saved = await site.templates.version(name, number)
    if saved is None:
        return site.page(request, "missing.html", 404, what="")
    kept = site.templates.versions(name)
    asked = whole(request.query_params.get("against", ""))
    earlier = next((each.version for each in kept if each.version < number), 0)
    against = asked if any(each.version == asked for each in kept) else earlier
    other = await site.templates.version(name, against)
    diff = await asyncio.to_thread(_diff, other.text if other is not None else "", saved.text)
    return site.page(request, "version.html", name=name, saved=saved, at=from_ms(saved.at_ms), kept=kept,
                     against=against, diff=diff, newest=kept[0], path_of=template_path, gone="templates.gone",
                     source="templates.source")  # fmt: skip


def _diff(old: str, new: str) -> list[DiffLine] | None:
    """What changed; None: they are too long to be compared."""
    return diff_of(old, new) if old.count("\n") + new.count("\n") <= MOST_COMPARED_LINES else None


async def restore(request: Request) -> Response:
    """Writes an old version again, as a new one."""
    site: Site = request.app.state.site
    name, form = request.path_params["name"], await read_form(request)
    await site.templates.look()
    saved = await site.templates.version(name, whole(form.get("version", "")))
    if saved is None or saved.is_gone:
        return site.page(request, "missing.html", 404, what="")
    try:
        await site.templates.save(name, saved.text, by=BY, now_ms=to_ms(site.now()), upon=whole(form.get("upon", "")))
    except TidewireError as error:
        return await _page(request, 409, trouble=str(error))
    return RedirectResponse(template_path(name), 303)


async def remove_form(request: Request) -> Response:
    """Asks once more before a template is taken out, and says what will happen."""
    return await _remove_page(request)


async def _remove_page(request: Request, status: int = 200, trouble: str = "") -> Response:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.templates.look()
    saved = site.templates.saved(name)
    if saved is None:
        return site.page(request, "missing.html", 404, what="")
    return site.page(request, "template_remove.html", status, name=name, saved=saved, trouble=trouble)


async def remove(request: Request) -> Response:
    site: Site = request.app.state.site
    try:
        await site.templates.remove(request.path_params["name"], by=BY, now_ms=to_ms(site.now()))
    except TidewireError as error:
        return await _remove_page(request, 409, trouble=str(error))
    return RedirectResponse("/templates", 303)
