"""Letting a partition go on that stopped rather than become dead letters. Shown on the page Rejected."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from streams.partitions import let_go_on
from web.dashboard.site import Site, read_form, with_query

BY = "dashboard"


async def go_on(request: Request) -> Response:
    site: Site = request.app.state.site
    form = await read_form(request)
    number = form.get("partition", "")
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        return PlainTextResponse("400: name the partition that is to go on.", 400)
    await let_go_on(site.log, int(number), by=BY, let_through=form.get("let_through", "") == "1")
    return RedirectResponse(with_query("/rejected", {"goes_on": number}), 303)
