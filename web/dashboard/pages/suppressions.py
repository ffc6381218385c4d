"""The suppression list: the addresses to which nothing is sent, on a page and as JSON for `tidewire suppression …`.

    GET  /api/suppressions?channel=…&part=…   the newest first
    POST /api/suppressions          {"channel": …, "addresses": […], "why": …, "by": …}
    POST /api/suppressions/release  {"channel": …, "address": …, "by": …}
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from schemas.errors import TidewireError
from schemas.messages import ADDRESSES
from schemas.templates import Channel
from schemas.times import to_ms
from streams.suppressions import Suppression, address_key, release, suppress
from web.dashboard.pages.api import LONGEST_NAME, ApiError, answered, body_of_request
from web.dashboard.queries import suppressions as queries
from web.dashboard.site import Site, read_form, with_query

CHANNELS: tuple[Channel, ...] = tuple(ADDRESSES)  # an inbox has no address
MOST_AT_ONCE = 10_000
MOST_LISTED = 1_000
BY_PAGE, BY_COMMAND = "page", "cli"


async def suppressions(request: Request) -> Response:
    site: Site = request.app.state.site
    asked = {name: request.query_params.get(name, "")[:320] for name in ("channel", "part")}
    if asked["channel"] not in CHANNELS:
        asked["channel"] = ""
    page = await queries.suppressions(site.analytics, site.workspace, channel=asked["channel"],
                                      part=address_key(asked["part"]),
                                      before=request.query_params.get("before", "")[:2_000])  # fmt: skip
    told = {name: request.query_params.get(name, "")[:500] for name in ("added", "released", "trouble")}
    return site.page(request, "suppressions.html", rows=page.rows, next=page.next, query=asked, channels=CHANNELS,
                     told=told, all=await queries.count(site.analytics, site.workspace))  # fmt: skip


async def add(request: Request) -> Response:
    """Put addresses on the list, one a line."""
    site: Site = request.app.state.site
    form = await read_form(request)
    addresses = form.get("addresses", "").split()
    try:
        added = await _add(site, form.get("channel", ""), addresses, form.get("why", ""), BY_PAGE)
    except TidewireError as error:
        return RedirectResponse(with_query("/suppressions", {"trouble": str(error)[:500]}), 303)
    return RedirectResponse(with_query("/suppressions", {"added": added}), 303)


async def remove(request: Request) -> Response:
    """Take one off the list."""
    site: Site = request.app.state.site
    form = await read_form(request)
    address = form.get("address", "")
    try:
        await _release(site, form.get("channel", ""), address, BY_PAGE)
    except TidewireError as error:
        return RedirectResponse(with_query("/suppressions", {"trouble": str(error)[:500]}), 303)
    return RedirectResponse(with_query("/suppressions", {"released": address[:320]}), 303)


@answered
async def list_(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = request.query_params
    channel = _channel(asked["channel"]) if asked.get("channel") else ""
    most = int(asked["most"]) if asked.get("most", "").isdecimal() and len(asked["most"]) < 9 else queries.PAGE
    page = await queries.suppressions(site.analytics, site.workspace, channel=channel,
                                      part=address_key(asked.get("part", "")),
                                      most=min(most, MOST_LISTED))  # fmt: skip
    return {"suppressions": page.rows}


@answered
async def add_all(request: Request) -> Any:
    site: Site = request.app.state.site
    body = await body_of_request(request)
    addresses, why = body.get("addresses"), body.get("why", "")
    if not isinstance(addresses, list) or not all(isinstance(each, str) for each in addresses):
        raise ApiError(422, "`addresses` must be a list of texts.")
    if not isinstance(why, str):
        raise ApiError(422, "`why` must be a text.")
    return {"added": await _add(site, body.get("channel"), addresses, why, _by(body))}


@answered
async def release_one(request: Request) -> Any:
    site: Site = request.app.state.site
    body = await body_of_request(request)
    address = body.get("address")
    if not isinstance(address, str):
        raise ApiError(422, "`address` must be a text.")
    await _release(site, body.get("channel"), address, _by(body))
    return {"released": address_key(address)}


async def _add(site: Site, channel: object, addresses: list[str], why: str, by: str) -> int:
    """How many there were.

    Raises:
        TidewireError: the channel or an address is none; nothing was added.
        LogBusy: the log takes nothing just now.
    """
    if not addresses:
        raise TidewireError("Name the addresses, one a line.")
    if len(addresses) > MOST_AT_ONCE:
        raise TidewireError(f"These are {len(addresses):,} addresses; at most {MOST_AT_ONCE:,} at once.")
    where = _channel(channel)
    each = {address_key(address): Suppression(site.workspace, where, address, "blocked", why.strip())
            for address in addresses}  # fmt: skip
    await suppress(site.log, each.values(), by=by, now_ms=to_ms(site.now()))
    return len(each)


async def _release(site: Site, channel: object, address: str, by: str) -> None:
    """Raises like `_add`."""
    await release(site.log, site.workspace, _channel(channel), address, by=by, now_ms=to_ms(site.now()))


def _channel(name: object) -> Channel:
    channel = next((each for each in CHANNELS if each == name), None)
    if channel is None:
        raise TidewireError(f"There is no channel {name!r:.50}; there are: {', '.join(CHANNELS)}.")
    return channel


def _by(body: dict[str, Any]) -> str:
    by = body.get("by", BY_COMMAND)
    return by[:LONGEST_NAME] if isinstance(by, str) else BY_COMMAND
