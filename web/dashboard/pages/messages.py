"""Messages: what was sent to whom and what became of it; and the order to send one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from schemas.errors import TidewireError
from schemas.messages import Order, SettleAs
from schemas.times import to_ms
from streams.ordering import order, settle
from web.dashboard.pages.api import ApiError, find_key
from web.dashboard.pages.templates import OF_MAIL, given_of
from web.dashboard.queries import messages as queries
from web.dashboard.queries.messages import STATES
from web.dashboard.site import Site, message_path, read_form, template_path, with_query

SETTLE: Mapping[str, tuple[SettleAs, ...]] = {"unknown": ("sent", "failed", "again"), "waiting": ("failed",)}
"""What a person may decide of a message, by its state."""
BY_PAGE = "page"


async def messages(request: Request) -> Response:
    site: Site = request.app.state.site
    query = {name: request.query_params.get(name, "")[:300] for name in ("state", "template", "person")}
    if query["state"] not in STATES:
        query["state"] = ""
    before = request.query_params.get("before", "")[:2_000]
    page = await queries.messages(site.analytics, site.workspace, state=query["state"], template=query["template"],
                                  person=query["person"], before=before)  # fmt: skip
    return site.page(
        request,
        "messages.html",
        channels=await queries.counts(site.analytics, site.workspace),
        rows=page.rows,
        next=page.next,
        query=query,
        states=STATES,
    )


async def message(request: Request) -> Response:
    """One message: what became of it, and what it says where it stayed here."""
    site: Site = request.app.state.site
    row = await queries.message(site.analytics, site.workspace, request.path_params["id"])
    if row is None:
        return _missing(request)
    return site.page(request, "message.html", message=row, choices=SETTLE.get(row["state"], ()),
                     kept=await queries.kept(site.analytics, site.workspace, row["id"]),
                     settled=request.query_params.get("settled", ""))  # fmt: skip


def _missing(request: Request) -> Response:
    """There is no such message; or it was ordered a moment ago, and ClickHouse does not know of it yet."""
    site: Site = request.app.state.site
    if request.query_params.get("ordered"):
        return site.page(request, "message_ordered.html", headers={"refresh": "1"})
    return site.page(request, "missing.html", 404, what="")


async def mail(request: Request) -> Response:
    """The HTML of a message that stayed here, alone."""
    site: Site = request.app.state.site
    kept = await queries.kept(site.analytics, site.workspace, request.path_params["id"])
    if kept is None or not kept["html"]:
        return PlainTextResponse("404: there is no such mail.", 404, headers=OF_MAIL)
    return HTMLResponse(kept["html"], headers=OF_MAIL)


async def decide(request: Request) -> Response:
    """What becomes of a message that nobody knows the end of; or it is stopped."""
    site: Site = request.app.state.site
    row = await queries.message(site.analytics, site.workspace, request.path_params["id"])
    if row is None:
        return site.page(request, "missing.html", 404, what="")
    said = (await read_form(request)).get("as", "")
    as_ = next((each for each in SETTLE.get(row["state"], ()) if each == said), None)
    if as_ is None:
        return PlainTextResponse(f"400: a message that is {row['state']} cannot be settled as {said!r:.50}.", 400)
    await settle(site.log, row["key"], row["id"], as_, BY_PAGE)
    return RedirectResponse(with_query(message_path(row["id"]), {"settled": as_}), 303)


async def send_test(request: Request) -> Response:
    """Order a template for one person, as its page shows it."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    form = await read_form(request)
    try:
        wanted = await order_for(site, name, form.get("person", "").strip(), given_of(form), by=BY_PAGE)
    except TidewireError as error:
        query = {key: value for key, value in form.items() if key == "person" or key.startswith("given.")}
        return RedirectResponse(with_query(template_path(name), query, trouble=str(error)[:500]), 303)
    return RedirectResponse(with_query(message_path(wanted.id), {"ordered": 1}), 303)


async def order_for(site: Site, name: str, who: str, given: dict[str, Any], *, by: str, once: str = "") -> Order:
    """Order a message for whom a key, an id or an address names.

    Raises:
        ApiError: there is nobody, or several.
        TidewireError: it cannot be ordered; with the mend.
    """
    to = await find_key(site, who)
    await site.templates.look()
    template = site.templates.read(name)
    if template is None:
        raise ApiError(404, f'There is no template "{name}". `tidewire templates list` shows them.')
    return await order(site.log, template, name=name, to=to, given=given, by=by,
                       now_ms=to_ms(site.now()), once=once)  # fmt: skip
