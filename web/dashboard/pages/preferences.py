"""Language, colours and time zone, kept in cookies of this address."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from web.dashboard.language import LANGUAGES
from web.dashboard.ranges import known_zone
from web.dashboard.site import SCHEMES, local_path, read_form

YEAR_S = 365 * 24 * 3600


async def preferences(request: Request) -> Response:
    """Sets what is given and goes back to where it was chosen."""
    form = await read_form(request)
    answer = RedirectResponse(local_path(form.get("back", "/")), 303)
    chosen: dict[str, str] = {}
    if form.get("language") in LANGUAGES:
        chosen["language"] = form["language"]
    if form.get("scheme") in SCHEMES:
        chosen["scheme"] = form["scheme"]
    if "zone" in form:
        chosen["zone"] = known_zone(form["zone"])
    for name, value in chosen.items():
        answer.set_cookie(name, value, max_age=YEAR_S, httponly=True, samesite="strict")
    return answer
