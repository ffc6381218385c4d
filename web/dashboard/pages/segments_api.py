"""JSON for `tidewire segments …`. Each call needs the token of `data/run.json`.

    GET  /api/segments                 every segment: its version, who is in it, how it was proven
    GET  /api/segments/NAME            one, with its condition and sentence
    POST /api/segments/NAME            {"yaml": …, "by": …, "upon": 3}   writes a new version
    POST /api/segments/NAME/remove     {"by": …}   takes it out
    POST /api/segments/NAME/preview    {"yaml": …}   how many would be in it, and who, for example
    POST /api/segments/NAME/verify     compares it with the events at rest
    GET  /api/segments/NAME/why?person=KEY   each part of the condition with its facts
    POST /api/segments/apply           {"by": …}   takes over what changed in the files
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from processors.values import zone_named
from schemas.conditions import read_condition
from schemas.segments import Said
from schemas.sentences import sentence_of
from schemas.times import to_ms
from sinks.explain import Reason
from streams.definitions import Known
from web.dashboard.pages.api import LONGEST_NAME, ApiError, answered, body_of_request, find_person
from web.dashboard.queries.segments import Standing, freshness, standings
from web.dashboard.site import Site

LANGUAGES = ("en", "zh")


@answered
async def segments(request: Request) -> Any:
    site: Site = request.app.state.site
    known = await site.segments.known()
    names = sorted(name for name, said in known.wanted.items() if not said.is_gone)
    found = await _standings(site, names)
    return {"segments": [_line(site, known, name, found[name]) for name in names],
            "progress": _progress(site)}  # fmt: skip


@answered
async def segment(request: Request) -> Any:
    site: Site = request.app.state.site
    said = await site.segments.wanted(request.path_params["name"])
    known = await site.segments.known()
    found = await _standings(site, [said.name])
    when = read_condition(said.when)
    return {
        **_line(site, known, said.name, found[said.name]),
        "about": said.about,
        "by": said.by,
        "at_ms": said.at_ms,
        "source": said.source,
        "when": said.when,
        "sentence": {language: sentence_of(when, language) for language in LANGUAGES},
        "freshness": await freshness(site.analytics, site.workspace, said.name),
    }


async def _standings(site: Site, names: list[str]) -> dict[str, Standing]:
    today = zone_named(site.segments.zone).day_of(to_ms(site.now()))
    return await standings(site.analytics, site.workspace, names, today=today, zone=site.segments.zone)


def _line(site: Site, known: Known, name: str, standing: Standing) -> dict[str, Any]:
    said, proof = known.wanted[name], standing.proof
    return {
        "name": name,
        "title": said.title,
        "version": said.version,
        "is_live": name not in known.pending(site.segments.zone),
        "members": standing.members,
        "joined_today": standing.today.joined,
        "left_today": standing.today.left,
        "differences": proof["differences"] if proof else None,
        "compared_at": proof["compared_at"] if proof else None,
    }


def _progress(site: Site) -> dict[str, Any]:
    progress = site.segments.progress()
    return {"segments": list(progress.names), "step": progress.step, "done": progress.done, "of": progress.of,
            "errors": progress.errors}  # fmt: skip


@answered
async def save(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    upon = asked.get("upon")
    said = await site.segments.save(request.path_params["name"], _yaml(asked), by=_by(asked.get("by")),
                                    upon=upon if isinstance(upon, int) else None)  # fmt: skip
    return _written(said)


@answered
async def remove(request: Request) -> Any:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.segments.remove(name, by=_by((await body_of_request(request)).get("by")))
    return {"removed": name}


@answered
async def apply(request: Request) -> Any:
    site: Site = request.app.state.site
    changed = await site.segments.apply_files(by=_by((await body_of_request(request)).get("by")))
    return {"changed": [_written(said) for said in changed]}


def _written(said: Said) -> dict[str, Any]:
    return {"name": said.name, "version": said.version, "is_gone": said.is_gone}


@answered
async def preview(request: Request) -> Any:
    site: Site = request.app.state.site
    yaml = _yaml(await body_of_request(request))
    return (await site.segments.preview(request.path_params["name"], yaml))._asdict()


@answered
async def verify(request: Request) -> Any:
    site: Site = request.app.state.site
    proof = await site.segments.verify(request.path_params["name"])
    return {"segment": proof.name, "version": proof.version, "members": proof.members,
            "sql_members": proof.sql_members, "differences": proof.differences, "missing": proof.missing,
            "surplus": proof.surplus, "seconds": round(proof.seconds, 3)}  # fmt: skip


@answered
async def why(request: Request) -> Any:
    site: Site = request.app.state.site
    found = await find_person(site, request.query_params.get("person", ""))
    sections = (found.portrait or {}).get("sections", {})
    reason = await site.segments.why(request.path_params["name"], found.person.keys, sections)
    return {"person": found.person.key, "segment": request.path_params["name"], "why": _reason(reason)}


def _reason(reason: Reason) -> dict[str, Any]:
    facts = {"events": reason.events, "total": reason.total, "times": reason.times, "values": reason.values,
             "until": reason.until, "parts": [_reason(part) for part in reason.reasons]}  # fmt: skip
    return {"says": sentence_of(reason.node), "is_true": reason.is_true,
            **{name: value for name, value in facts.items() if value not in (None, (), [])}}  # fmt: skip


def _yaml(asked: dict[str, Any]) -> str:
    text = asked.get("yaml")
    if not isinstance(text, str):
        raise ApiError(400, 'Send {"yaml": "when: …"}.')
    return text


def _by(name: object) -> str:
    return str(name or "api")[:LONGEST_NAME]
