"""The editor of a segment: its YAML, checked while it is typed, tried on everybody, and saved as a new version."""

from __future__ import annotations

from typing import NamedTuple

import yaml
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from schemas.conditions import read_condition
from schemas.errors import ConfigError, TidewireError
from schemas.segments import Said
from schemas.sentences import sentence_of
from web.dashboard.pages.segments import BY
from web.dashboard.segments import Preview
from web.dashboard.site import Site, read_form, segment_path
from web.dashboard.written import yaml_of

UNNAMED = "this_segment"  # what is checked before it has a name
SHOWN_AROUND = 1  # lines before and after a wrong one
BEGINNING = """\
title: {en: Regulars, zh: 常客}
about: Ordered twice in a year, and lately.
when:
  all:
    - {did: Order Completed, at_least: 2, within: 365 days}
    - {did: Order Completed, within: 90 days}
"""
EXAMPLES = {
    "did": "when: {did: Order Completed, at_least: 2, within: 365 days}",
    "not": "when:\n  not: {did: Order Completed, within: 90 days}",
    "where": "when:\n  did: Product Viewed\n  where: {category: Tea, price: {at_least: 20}}\n  within: 7 days",
    "total": "when:\n  did: Order Completed\n  total: {of: total, at_least: 500}\n  within: 1 week",
    "which": "when: {did: Order Completed, which: first, within: 30 days}",
    "sequence": "when:\n  sequence:\n    - did: Product Added\n    - {did: Order Completed, within: 2 hours}\n"
                "  within: 30 days",
    "trait": "when: {trait: plan, one_of: [club, pro]}",
    "attribute": "when: {attribute: orders.orders, at_least: 3}",
    "context": "when: {context: device.type, is: mobile}",
    "segment": "when:\n  all:\n    - {segment: regulars}\n    - {trait: newsletter, is: true}",
    "any": "when:\n  any:\n    - {trait: city, is: Wien}\n    - {context: locale, starts_with: de}",
}  # fmt: skip


class Draft(NamedTuple):
    """What stands in the form. `upon`: the version it was begun from, 0 for none."""

    name: str
    text: str
    upon: int


class Shown(NamedTuple):
    """A line of the text, near the wrong one."""

    number: int
    text: str
    is_wrong: bool


class Verdict(NamedTuple):
    """Whether a draft can be saved: the sentence it says, or what is wrong, on which line, and how to mend it."""

    sentence: str = ""
    wrong: str = ""
    mend: str = ""
    line: int = 0
    around: tuple[Shown, ...] = ()


async def editor(request: Request) -> Response:
    """The editor, empty or of a segment; what is posted to it is checked, tried or saved, as `do` says."""
    site: Site = request.app.state.site
    name = request.path_params.get("name", "")
    said = (await site.segments.known()).wanted.get(name)
    if name and (said is None or said.is_gone):
        return site.page(request, "missing.html", 404, what="")
    if request.method != "POST":
        return await _page(request, said, Draft(name, BEGINNING if said is None else yaml_of(said), _version(said)))
    form = await read_form(request)
    draft = _draft(name, form)
    do = request.query_params.get("do") or form.get("do", "")
    if do == "check":
        return site.page(request, "segment_verdict.html", verdict=await _verdict(request, draft))
    if do == "preview":
        return await _preview(request, said, draft)
    return await _save(request, said, draft)


def _version(said: Said | None) -> int:
    return said.version if said is not None else 0


def _draft(name: str, form: dict[str, str]) -> Draft:
    upon = form.get("upon", "")
    # Forms send CR LF for each end of line.
    text = form.get("yaml", "").replace("\r\n", "\n")
    number = int(upon) if upon.isascii() and upon.isdigit() and len(upon) < 9 else 0
    return Draft(name or form.get("name", "").strip(), text, number)


async def _verdict(request: Request, draft: Draft) -> Verdict:
    site: Site = request.app.state.site
    try:
        definition, _ = await site.segments.parse(draft.name or UNNAMED, draft.text)
    except ConfigError as error:
        return verdict_of(error, draft.text)
    return Verdict(sentence_of(definition.when, site.language(request).code))


def verdict_of(error: ConfigError, text: str) -> Verdict:
    number = error.place.rpartition(":")[2]
    line = int(number) if number.isascii() and number.isdigit() else 0
    lines = text.split("\n")
    places = range(max(1, line - SHOWN_AROUND), min(len(lines), line + SHOWN_AROUND) + 1) if line else ()
    around = tuple(Shown(place, lines[place - 1], place == line) for place in places)
    return Verdict(wrong=error.what, mend=error.mend, line=line, around=around)


async def _preview(request: Request, said: Said | None, draft: Draft) -> Response:
    """How many would be in it, and some of them."""
    site: Site = request.app.state.site
    verdict, preview, trouble = await _verdict(request, draft), None, ""
    if not verdict.wrong:
        try:
            preview = await site.segments.preview(draft.name or UNNAMED, draft.text)
        except TidewireError as error:
            trouble = str(error)
    if "hx-request" in request.headers:
        return site.page(request, "segment_preview.html", verdict=verdict, preview=preview, trouble=trouble)
    return await _page(request, said, draft, verdict=verdict, preview=preview, trouble=trouble)


async def _save(request: Request, said: Said | None, draft: Draft) -> Response:
    """Writes a new version; where that cannot be, what was typed stays."""
    site: Site = request.app.state.site
    try:
        saved = await site.segments.save(draft.name, draft.text, by=BY, upon=draft.upon)
    except ConfigError as error:
        return await _page(request, said, draft, 422, verdict=verdict_of(error, draft.text))
    except TidewireError as error:
        newest = (await site.segments.known()).wanted.get(draft.name)
        if newest is None or _version(newest) == draft.upon:
            return await _page(request, said, draft, 503, trouble=str(error))
        return await _page(request, said, draft, 409, newest=newest)
    return RedirectResponse(segment_path(saved.name), 303)


async def _page(
    request: Request, said: Said | None, draft: Draft, status: int = 200, *, verdict: Verdict | None = None,
    preview: Preview | None = None, trouble: str = "", newest: Said | None = None,
) -> Response:  # fmt: skip
    site: Site = request.app.state.site
    return site.page(
        request,
        "segment_editor.html",
        status,
        said=said,
        draft=draft,
        verdict=verdict or await _verdict(request, draft),
        preview=preview,
        trouble=trouble,
        newest=newest,
        examples=[(name, text, sentence_of(_condition(text), site.language(request).code))
                  for name, text in EXAMPLES.items()],
    )


def _condition(text: str) -> object:
    return read_condition(yaml.safe_load(text)["when"])
