"""The editor of a template: its YAML, checked while it is typed, filled in for somebody, and saved as a version."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from schemas.errors import ConfigError, TidewireError
from schemas.templates import SavedTemplate
from schemas.times import to_ms
from sinks.messages.rendering import Template
from streams.texts import Overtaken
from web.dashboard.pages.segment_editor import Verdict, verdict_of
from web.dashboard.pages.segments import BY, whole
from web.dashboard.pages.templates import LONGEST_GIVEN, OF_MAIL, Tried, asked_by, tried
from web.dashboard.queries import people
from web.dashboard.site import Site, read_form, template_path

UNNAMED = "this_template"  # what is checked before it has a name
MOST_DRAFTS = 16  # mails of previews that are kept to be shown; each has at most 512 kB
BEGINNING = """\
title: {en: Hello, zh: 你好}
about: To who is new here.
channel: email
kind: transactional
content:
  en:
    subject: "Welcome, {{ profile.name | default('friend') }}"
    text: |
      Hello {{ profile.name | default('there') }},

      it is good to have you here.
"""
EXAMPLES = {
    "default": "Hello {{ profile.name | default('there') }},",
    "if": "{% if orders.orders %}\nThank you for your order.\n{% else %}\nWe wait for your first one.\n{% endif %}",
    "for": "{% for product in given.products | limit(3) %}\n- {{ product.name }}\n{% endfor %}",
    "given": "Your coupon: {{ given.coupon }}",
    "money": "{{ given.total | money('EUR') }}",
    "marketing": "kind: marketing\ntopic: offers",
    "html": "html: |\n  <!doctype html>\n  <html><body><p>Hello {{ profile.name | default('you') }}</p></body></html>",
}  # fmt: skip


class Draft(NamedTuple):
    """What stands in the form.

    Attributes:
        upon: the version it was begun from, 0 for none.
        person: whose message is shown.
        given: what would come with the order to send, as JSON.
    """

    name: str
    text: str
    upon: int
    person: str
    given: str


class Shown(NamedTuple):
    """A draft as somebody would read it. `mail`: under what address its HTML is shown; `trouble`: why nothing is."""

    tried: Tried | None = None
    mail: str = ""
    trouble: str = ""


async def editor(request: Request) -> Response:
    """The editor, empty or of a template; what is posted to it is checked, shown or saved, as `do` says."""
    site: Site = request.app.state.site
    name = request.path_params.get("name", "")
    await site.templates.look()
    saved = site.templates.saved(name)
    if name and saved is None:
        return site.page(request, "missing.html", 404, what="")
    if request.method != "POST":
        recent = await people.newest(site.analytics, site.workspace)
        text, upon = (BEGINNING, 0) if saved is None else (saved.text, saved.version)
        return await _page(request, saved, Draft(name, text, upon, recent[0]["person"] if recent else "", "{}"))
    form = await read_form(request)
    draft = _draft(name, form)
    do = request.query_params.get("do") or form.get("do", "")
    if do == "check":
        verdict, read = await _verdict(site, draft)
        return site.page(request, "template_verdict.html", verdict=verdict, read=read, asked=_asked(read))
    if do in ("preview", "live"):
        return await _preview(request, saved, draft, is_live=do == "live")
    return await _save(request, saved, draft)


def _draft(name: str, form: dict[str, str]) -> Draft:
    # Forms send CR LF for each end of line.
    text, upon = form.get("yaml", "").replace("\r\n", "\n"), whole(form.get("upon", ""))
    person, given = form.get("person", "").strip(), form.get("given", "")[:LONGEST_GIVEN]
    return Draft(name or form.get("name", "").strip(), text, upon, person, given)


async def _verdict(site: Site, draft: Draft) -> tuple[Verdict, Template | None]:
    """What is wrong with a draft, or what it became."""
    try:
        return Verdict(), await asyncio.to_thread(site.templates.check, draft.name or UNNAMED, draft.text)
    except ConfigError as error:
        return verdict_of(error, draft.text), None


def _asked(read: Template | None) -> list[str]:
    return asked_by(read) if read is not None else []


async def _shown(site: Site, request: Request, read: Template, draft: Draft) -> Shown:
    if not draft.person:
        return Shown()
    try:
        given: Any = msgspec.json.decode(draft.given or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return Shown(trouble=site.language(request).text("template_editor.wrong_given"))
    try:
        found = await tried(site, read, draft.person, given)
    except TidewireError as error:
        return Shown(trouble=str(error))
    return Shown(found, _kept(site, found.message.html) if found.message is not None and found.message.html else "")


def _kept(site: Site, html: str) -> str:
    """Keep a mail for the frame that will ask for it: in a text of the page it would be under the page's own policy."""
    id_ = blake2b(html.encode(), digest_size=16).hexdigest()
    site.drafts[id_] = html
    site.drafts.move_to_end(id_)
    while len(site.drafts) > MOST_DRAFTS:
        site.drafts.popitem(last=False)
    return f"/templates/new/mail/{id_}"


async def mail(request: Request) -> Response:
    """The HTML of a draft, alone."""
    site: Site = request.app.state.site
    html = site.drafts.get(request.path_params["id"])
    if html is None:
        return PlainTextResponse("404: this preview is too old. Show it again.", 404, headers=OF_MAIL)
    return HTMLResponse(html, headers=OF_MAIL)


async def _preview(request: Request, saved: SavedTemplate | None, draft: Draft, *, is_live: bool) -> Response:
    """A draft as somebody would read it. While it is typed, the last that could be read stays."""
    site: Site = request.app.state.site
    verdict, read = await _verdict(site, draft)
    if is_live and read is None:
        return Response(status_code=204)
    if "hx-request" not in request.headers:
        return await _page(request, saved, draft)
    shown = await _shown(site, request, read, draft) if read is not None else Shown()
    return site.page(request, "template_preview.html", verdict=verdict, shown=shown)


async def _save(request: Request, saved: SavedTemplate | None, draft: Draft) -> Response:
    """Writes a new version; where that cannot be, what was typed stays."""
    site: Site = request.app.state.site
    try:
        new = await site.templates.save(draft.name, draft.text, by=BY, now_ms=to_ms(site.now()), upon=draft.upon)
    except ConfigError as error:
        return await _page(request, saved, draft, 422, wrong=error)
    except Overtaken as error:
        return await _page(request, saved, draft, 409, overtaken=error)
    except TidewireError as error:
        return await _page(request, saved, draft, 503, trouble=str(error))
    return RedirectResponse(template_path(new.name), 303)


async def _page(
    request: Request, saved: SavedTemplate | None, draft: Draft, status: int = 200, *,
    wrong: ConfigError | None = None, overtaken: Overtaken | None = None, trouble: str = "",
) -> Response:  # fmt: skip
    site: Site = request.app.state.site
    verdict, read = await _verdict(site, draft)
    before = site.templates.read(draft.name) if saved is not None else None
    return site.page(
        request,
        "template_editor.html",
        status,
        saved=saved,
        before=before if isinstance(before, Template) else None,
        draft=draft,
        verdict=verdict_of(wrong, draft.text) if wrong is not None else verdict,
        read=read,
        asked=_asked(read),
        shown=await _shown(site, request, read, draft) if read is not None else Shown(),
        overtaken=overtaken,
        trouble=trouble,
        examples=EXAMPLES,
    )
