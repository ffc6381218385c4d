"""Coupons: campaigns, what came of them, and who was given which code; on pages and as JSON for `tidewire coupon …`.

    GET  /api/coupons                     the campaigns
    GET  /api/coupons/NAME                one, with the coupons that were given last
    POST /api/coupons/NAME/give           {"to": …, "by": …, "once": …}   asks for a coupon for a person
    GET  /api/coupons/NAME/of?person=…&request=…   what somebody has of it, or why the request was refused
    GET  /api/coupons/codes/CODE          one coupon
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from schemas.codes import normal
from schemas.conditions import read_condition
from schemas.errors import TidewireError
from schemas.keys import split_key
from schemas.sentences import sentence_of
from streams.giving import give
from web.dashboard.pages.api import LONGEST_NAME, ApiError, answered, body_of_request, find_key
from web.dashboard.queries import coupons as queries
from web.dashboard.queries.coupons import STATES
from web.dashboard.site import Site, campaign_path, read_form, with_query

BY_PAGE, BY_COMMAND = "page", "cli"


async def coupons(request: Request) -> Response:
    site: Site = request.app.state.site
    return site.page(request, "coupons.html", rows=await queries.campaigns(site.analytics, site.workspace))


async def campaign(request: Request) -> Response:
    """One campaign: what came of it, and who was given a coupon last."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    found = await queries.campaigns(site.analytics, site.workspace, name)
    if not found:
        return site.page(request, "missing.html", 404, what="")
    asked = {"state": request.query_params.get("state", "")}
    if asked["state"] not in STATES:
        asked["state"] = ""
    page = await queries.coupons(site.analytics, site.workspace, site.now(), campaign=name, state=asked["state"],
                                 before=request.query_params.get("before", "")[:2_000])  # fmt: skip
    told = {name: request.query_params.get(name, "")[:500] for name in ("asked", "trouble")}
    when = json.loads(found[0]["definition"]).get("when")
    said = sentence_of(read_condition(when), site.language(request).code) if when else ""
    return site.page(request, "coupon.html", campaign=found[0], rows=page.rows, next=page.next, query=asked,
                     states=STATES, told=told, when=said)  # fmt: skip


async def give_one(request: Request) -> Response:
    """Ask for a coupon for one person, as its page shows it."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    who = (await read_form(request)).get("person", "").strip()
    try:
        person, _ = await _give(site, name, who, by=BY_PAGE)
    except TidewireError as error:
        return RedirectResponse(with_query(campaign_path(name), {"trouble": str(error)[:500]}), 303)
    return RedirectResponse(with_query(campaign_path(name), {"asked": person}), 303)


@answered
async def list_(request: Request) -> Any:
    site: Site = request.app.state.site
    return {"campaigns": await queries.campaigns(site.analytics, site.workspace)}


@answered
async def one(request: Request) -> Any:
    site: Site = request.app.state.site
    row = await _campaign(site, request.path_params["name"])
    page = await queries.coupons(site.analytics, site.workspace, site.now(), campaign=row["campaign"])
    return {**row, "coupons": page.rows}


@answered
async def ask(request: Request) -> Any:
    site: Site = request.app.state.site
    body = await body_of_request(request)
    to, once, by = (body.get(name, default) for name, default in (("to", None), ("once", ""), ("by", BY_COMMAND)))
    if not isinstance(to, str) or not to or not isinstance(once, str) or not isinstance(by, str):
        raise ApiError(422, 'Send {"to": "somebody"}, and `once` and `by` as texts.')
    name = request.path_params["name"]
    person, id_ = await _give(site, name, to, by=by[:LONGEST_NAME], once=once)
    return {"campaign": name, "person": person, "request": id_}


@answered
async def of(request: Request) -> Any:
    """`state` is `given`, `refused` (with the reason as `why`), or `asked` while nothing is known yet."""
    site: Site = request.app.state.site
    asked = request.query_params
    name, person = request.path_params["name"], asked.get("person", "")
    page = await queries.coupons(site.analytics, site.workspace, site.now(), campaign=name, person=person, most=1)
    if page.rows:
        return {**page.rows[0], "is": page.rows[0]["state"], "state": "given", "why": ""}
    why = await queries.why_refused(site.analytics, site.workspace, asked.get("request", ""))
    return {"campaign": name, "person": person, "state": "refused" if why else "asked", "why": why}


@answered
async def code(request: Request) -> Any:
    site: Site = request.app.state.site
    said = request.path_params["code"]
    row = await queries.coupon(site.analytics, site.workspace, site.now(), normal(said))
    if row is None:
        raise ApiError(404, f"Nobody was given the code {said!r:.80}. `tidewire coupon list` shows the campaigns.")
    return row


async def _campaign(site: Site, name: str) -> dict[str, Any]:
    found = await queries.campaigns(site.analytics, site.workspace, name)
    if not found:
        raise ApiError(404, f"There is no campaign {name!r:.80}. `tidewire coupon list` shows them.")
    return found[0]


async def _give(site: Site, name: str, who: str, *, by: str, once: str = "") -> tuple[str, str]:
    """The person, and the id of the request.

    Raises:
        ApiError: there is no such campaign, nobody of this name, or several.
        LogBusy: the log takes nothing just now.
    """
    await _campaign(site, name)
    person = await find_key(site, who)
    if split_key(person)[0] != site.workspace:
        raise ApiError(422, f"{person} is of another workspace than {site.workspace}, whose campaigns these are.")
    return person, await give(site.log, name, person, by=by, once=once)
