"""JSON for `tidewire why`. The call needs the token of `data/run.json`.

    GET /api/why?person=KEY&about=NAME   why somebody got something of a journey, a template or a message, or did not

`about` is a name or the id of a message; where several things have the same name, `journey:NAME` or `template:NAME`
says which. `language` is en or zh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from config.journeys import JourneyRead
from schemas.keys import split_key
from schemas.times import EPOCH, from_ms
from sinks.messages.rendering import Template
from web.dashboard.language import LANGUAGES, Language
from web.dashboard.pages.api import ApiError, Found, answered, find_person
from web.dashboard.queries import why as queries
from web.dashboard.queries.segments import segments_of
from web.dashboard.site import Site
from web.dashboard.why import KINDS, MESSAGE, Answer, Rules, Why


@answered
async def why(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = request.query_params
    code = asked.get("language", "en")
    language = Language(code if code in LANGUAGES else "en", site.settings.timezone)
    answer = await why_of(site, await find_person(site, asked.get("person", "")), asked.get("about", ""), language)
    if not answer.kind:
        raise ApiError(404, answer.says)
    told = answer._asdict()
    lines = [{"when": language.at(line.at, seconds=True), **line._asdict()} for line in answer.lines]
    return {**told, "lines": lines}


async def why_of(site: Site, found: Found, about: str, language: Language) -> Answer:
    """Why she got, or did not get, what is asked about. Pages ask this, too."""
    workspace = split_key(found.person.key)[0]
    in_now = [row["segment"] for row in await segments_of(site.analytics, workspace, found.person.key)]
    teller = Why(found.person, workspace, language, site.settings.timezone, traits=_traits(found), segments=in_now)
    kind, _, name = about.partition(":") if about.partition(":")[0] in KINDS else ("", "", about)
    known: list[str] = []
    if kind in ("", "message") and MESSAGE.fullmatch(name):
        row = await queries.message(site.analytics, workspace, name)
        if (answer := await teller.of_message(name, row)) is not None:
            return answer
    if kind in ("", "journey") and (rules := await rules_of(site, name)) is not None:
        known.append("journey")
    else:
        rules = None
    if kind in ("", "template") and await _is_template(site, name):
        known.append("template")
    if rules is not None:
        also = tuple(f"{other}:{name}" for other in known[1:])
        return (await teller.of_journey(rules))._replace(also=also)
    if known:
        return await teller.of_template(name)
    return Answer(found.person.key, "", name, language.text("told.journey.none", name=name[:100] or "–"))


async def rules_of(site: Site, name: str) -> Rules | None:
    """A journey as it is now, or was; None: there never was one of this name."""
    await site.journeys.look()
    versions = site.journeys.versions(name)
    if not versions:
        return Rules(name, None) if await queries.has_runs(site.analytics, site.workspace, name) else None
    since = EPOCH
    for version in versions:  # the newest first: since it was there without a gap
        if version.is_gone:
            break
        since = from_ms(version.at_ms)
    read = site.journeys.read(name)
    return Rules(name, read.said if isinstance(read, JourneyRead) else None, site.journeys.steering(name).status, since)


async def _is_template(site: Site, name: str) -> bool:
    await site.templates.look()
    return isinstance(site.templates.read(name), Template) or bool(site.templates.versions(name))


def _traits(found: Found) -> Mapping[str, Any]:
    traits = ((found.portrait or {}).get("sections", {}).get("profile") or {}).get("traits")
    return traits if isinstance(traits, Mapping) else {}
