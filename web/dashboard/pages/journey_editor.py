"""The editor of a journey: its YAML, checked and drawn while it is typed, and saved as a version."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from config.journeys import JourneyRead
from schemas.errors import ConfigError, TidewireError
from schemas.journey_sentences import title_of_journey
from schemas.journeys import SavedJourney
from schemas.times import to_ms
from streams.texts import Overtaken
from web.dashboard.journey_drawing import Drawn, draw
from web.dashboard.pages.journeys import told_of
from web.dashboard.pages.segment_editor import Verdict, verdict_of
from web.dashboard.pages.segments import BY, whole
from web.dashboard.queries.journeys import unknown_flow
from web.dashboard.site import Site, journey_path, read_form

UNNAMED = "this_journey"  # what is checked before it has a name
BEGINNING = """\
title: {en: Abandoned cart, zh: 购物车提醒}
about: Calls a basket to mind that was left.
enter: {event: {did: Product Added}}
again: {once_per: cart_id}
goal: {did: Order Completed, matching: cart_id, within: 7 days}
steps:
  - {step: pause, wait: 1 hour}
  - {step: remind, send: welcome}
"""
EXAMPLES = {
    "enter": "enter: {event: {did: Product Added, where: {price: {at_least: 20}}}}\n\n"
             "enter: {joined: at_risk}\n\nenter: {date: {trait: birthday, at: \"09:00\"}}\n\n"
             "enter: {schedule: {cron: 0 9 * * mon, segment: buyers}}\n\nenter: {broadcast: buyers}",
    "again": "again: never\n\nagain: always\n\nagain: {after: 30 days}\n\nagain: {once_per: order_id}",
    "wait": "- {step: an_hour, wait: 1 hour}\n- {step: evening, wait: {at: \"18:00\", days: [mon, fri]}}\n"
            "- {step: renewal, wait: {date: renews_on, days_before: 3}}",
    "wait_until": "- step: opened\n  wait_until: {did: Message Opened, message: remind}\n  at_most: 2 days\n"
                  "  otherwise: again",
    "branch": "- step: who\n  branch:\n    - {when: {trait: plan, is: club}, then: to_club}\n"
              "    - {when: {segment: buyers}, then: to_buyers}\n  then: to_all",
    "split": "- {step: coin, split: [{then: short, weight: 1}, {then: long, weight: 1}], learns: true}",
    "send": "- {step: remind, send: basket, from_event: {product: name}, refused: give_up}",
    "update": "- {step: mark, update: {traits: {warm: true}, add_tags: [cart]}}\n- {step: crm, call: tell_crm}\n"
              "- {step: ask, ticket: {subject: Call her, priority: high}}",
    "go": "- {step: once_more, go: remind, times: 2}\n- {step: give_up, exit: No answer}",
}  # fmt: skip


class Draft(NamedTuple):
    """What stands in the form. `upon`: the version it was begun from, 0 for none."""

    name: str
    text: str
    upon: int


async def editor(request: Request) -> Response:
    """The editor, empty or of a journey; what is posted to it is checked, drawn or saved, as `do` says."""
    site: Site = request.app.state.site
    name = request.path_params.get("name", "")
    await site.journeys.look()
    saved = site.journeys.saved(name)
    if name and saved is None:
        return site.page(request, "missing.html", 404, what="")
    if request.method != "POST":
        return await _page(request, saved, Draft(name, BEGINNING, 0) if saved is None
                           else Draft(name, saved.text, saved.version))  # fmt: skip
    form = await read_form(request)
    # Forms send CR LF for each end of line.
    text, upon = form.get("yaml", "").replace("\r\n", "\n"), whole(form.get("upon", ""))
    draft = Draft(name or form.get("name", "").strip(), text, upon)
    do = request.query_params.get("do") or form.get("do", "")
    if do == "check":
        verdict, read = await _verdict(site, draft)
        return site.page(request, "journey_verdict.html", verdict=verdict, **_read(site, request, read))
    if do in ("preview", "live"):
        return await _preview(request, saved, draft, is_live=do == "live")
    return await _save(request, saved, draft)


async def _verdict(site: Site, draft: Draft) -> tuple[Verdict, JourneyRead | None]:
    """What is wrong with a draft, or what it became."""
    try:
        return Verdict(), await site.journeys.examine(draft.name or UNNAMED, draft.text)
    except ConfigError as error:
        return verdict_of(error, draft.text), None


def _read(site: Site, request: Request, read: JourneyRead | None) -> dict[str, Any]:
    language = site.language(request)
    return {"said": read.said if read is not None else None, "told": told_of(read.said if read else None, language)}


def _drawn(site: Site, request: Request, read: JourneyRead | None) -> Drawn | None:
    return draw(read.said, unknown_flow(read.said), site.language(request)) if read is not None else None


async def _preview(request: Request, saved: SavedJourney | None, draft: Draft, *, is_live: bool) -> Response:
    """A draft as a graph. While it is typed, the last that could be drawn stays."""
    site: Site = request.app.state.site
    verdict, read = await _verdict(site, draft)
    if is_live and read is None:
        return Response(status_code=204)
    if "hx-request" not in request.headers:
        return await _page(request, saved, draft)
    return site.page(request, "journey_preview.html", verdict=verdict, drawn=_drawn(site, request, read))


async def _save(request: Request, saved: SavedJourney | None, draft: Draft) -> Response:
    """Writes a new version; where that cannot be, what was typed stays."""
    site: Site = request.app.state.site
    try:
        new = await site.journeys.save(draft.name, draft.text, by=BY, now_ms=to_ms(site.now()), upon=draft.upon)
    except ConfigError as error:
        return await _page(request, saved, draft, 422, wrong=error)
    except Overtaken as error:
        return await _page(request, saved, draft, 409, overtaken=error)
    except TidewireError as error:
        return await _page(request, saved, draft, 503, trouble=str(error))
    return RedirectResponse(journey_path(new.name), 303)


async def _page(
    request: Request, saved: SavedJourney | None, draft: Draft, status: int = 200, *,
    wrong: ConfigError | None = None, overtaken: Overtaken | None = None, trouble: str = "",
) -> Response:  # fmt: skip
    site: Site = request.app.state.site
    verdict, read = await _verdict(site, draft)
    before = site.journeys.read(draft.name) if saved is not None else None
    title = title_of_journey(draft.name, before.said if isinstance(before, JourneyRead) else None,
                             site.language(request).code)  # fmt: skip
    return site.page(
        request,
        "journey_editor.html",
        status,
        saved=saved,
        shown_name=title if saved is not None else "",
        draft=draft,
        verdict=verdict_of(wrong, draft.text) if wrong is not None else verdict,
        drawn=_drawn(site, request, read),
        overtaken=overtaken,
        trouble=trouble,
        examples=EXAMPLES,
        **_read(site, request, read),
    )
