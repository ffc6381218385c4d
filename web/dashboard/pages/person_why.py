"""Why somebody got something of a journey, a template or a message, or did not: the ledger in plain words."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from web.dashboard.pages.api import ApiError, find_person
from web.dashboard.pages.person import person_page
from web.dashboard.pages.why_api import why_of
from web.dashboard.site import Site

LONGEST_ABOUT = 200


async def why(request: Request) -> Response:
    """Of a path without `about` the last word is part of the key: an id may hold any sign there is."""
    site: Site = request.app.state.site
    key, about = request.path_params["key"], request.query_params.get("about", "").strip()[:LONGEST_ABOUT]
    if "about" not in request.query_params:
        return await person_page(request, f"{key}/why")
    try:
        found = await find_person(site, key)
    except ApiError as error:
        return site.page(request, "missing.html", 404, what=str(error))
    answer = await why_of(site, found, about, site.language(request))
    portrait = found.portrait or {}
    shown = portrait.get("name") or portrait.get("email") or found.person.key.partition("/")[2][2:]
    return site.page(request, "person_why.html", 200 if answer.kind else 404, person=found.person.key, shown=shown,
                     about=about, answer=answer)  # fmt: skip
