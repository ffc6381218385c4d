"""Journeys: the list, and everything about one: its graph with who went where, what it changes, its messages, its
versions, and how it is steered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, time
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from config.journeys import JourneyRead
from schemas.errors import ConfigError, TidewireError
from schemas.journey_sentences import entry_sentences, exits_sentence, goal_sentence, title_of_journey
from schemas.journeys import JourneyFile, SavedJourney, Status
from schemas.times import from_ms, to_ms
from sinks.lift import FEWEST_GOALS, FEWEST_PEOPLE, Lift, lift, value_lift
from web.dashboard.journey_drawing import draw
from web.dashboard.language import Language
from web.dashboard.pages.segments import BY, whole
from web.dashboard.pages.templates import MOST_COMPARED_LINES, SHOWN_VERSIONS, Version
from web.dashboard.queries import journeys as queries
from web.dashboard.queries.journeys import NOTHING, Standing
from web.dashboard.queries.segments import Members
from web.dashboard.site import Site, journey_path, read_form, with_query
from web.dashboard.written import diff_of

STATUSES: Mapping[str, Status] = {"pause": "paused", "resume": "live", "drain": "draining", "stop": "stopped"}
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "live": ("pause", "drain", "stop"), "paused": ("resume", "drain", "stop"), "draining": ("resume", "pause", "stop"),
    "stopped": ("resume",),
}  # fmt: skip
"""What can be done with a journey, by its status; and `migrate` and `broadcast` where there is something to do."""


class Line(NamedTuple):
    """One journey of the list. `said`: None where it cannot be read; `wrong`: what is wrong, or missing of what it asks
    for."""

    saved: SavedJourney
    at: datetime
    said: JourneyFile | None
    wrong: str
    title: str
    sentence: str
    state: str
    standing: Standing
    lift: Lift


async def journeys(request: Request) -> Response:
    site: Site = request.app.state.site
    language = site.language(request)
    await site.journeys.look()
    found = await queries.standings(site.analytics, site.workspace)
    newest = site.journeys.newest.values()
    states = await states_of(site)
    lines = [_line(site, saved, states[saved.name], found.get(saved.name, NOTHING), language)
             for saved in newest if not saved.is_gone]  # fmt: skip
    return site.page(request, "journeys.html", lines=lines, gone=[saved for saved in newest if saved.is_gone])


class State(NamedTuple):
    """`wrong`, and why; `waiting` until partitions were told of the newest version and of what is wanted; else that."""

    name: str
    wrong: str = ""


async def states_of(site: Site) -> dict[str, State]:
    """How all journeys that there are stand with the partitions, by name."""
    troubles = await site.journeys.troubles()
    told = (await site.segments.known()).told
    led = told.led.journeys if told is not None and told.is_settled else []
    in_force = {each.name: (each.version, each.status) for each in led if each.is_newest}
    found = {}
    for name, saved in site.journeys.newest.items():
        status = site.journeys.steering(name).status
        if name in troubles:
            found[name] = State("wrong", troubles[name])
        else:
            found[name] = State(status if in_force.get(name) == (saved.version, status) else "waiting")
    return found


def _line(site: Site, saved: SavedJourney, state: State, standing: Standing, language: Language) -> Line:
    read = site.journeys.read(saved.name)
    said = read.said if isinstance(read, JourneyRead) else None
    sentence = entry_sentences(said, language.code)[0] if said is not None else ""
    return Line(
        saved, from_ms(saved.at_ms), said, state.wrong, title_of_journey(saved.name, said, language.code),
        (said.about if said is not None else "") or sentence, state.name, standing,
        lift(standing.treated, standing.control),
    )  # fmt: skip


# --- one


async def journey(request: Request) -> Response:
    return await _page(request)


async def _page(request: Request, status: int = 200, trouble: str = "") -> Response:
    """One journey; `trouble` is what kept us from doing what was asked."""
    site: Site = request.app.state.site
    name, language = request.path_params["name"], site.language(request)
    await site.journeys.look()
    versions = [Version(saved, from_ms(saved.at_ms)) for saved in site.journeys.versions(name)]
    if not versions:
        return site.page(request, "missing.html", 404, what="")
    shown = versions if "versions" in request.query_params else versions[:SHOWN_VERSIONS]
    history: dict[str, Any] = {"name": name, "versions": shown, "count": len(versions), "newest_version": versions[0],
                               "path_of": journey_path, "trouble": trouble}  # fmt: skip
    saved, read = site.journeys.saved(name), site.journeys.read(name)
    if saved is None:
        return site.page(request, "journey_gone.html", status, **history)
    of, said = await _version_shown(site, saved, read, request.query_params.get("version", ""))
    where = (site.analytics, site.workspace, name)
    today = site.now().astimezone(ZoneInfo(language.zone_name)).date()
    standings, inside, days = await asyncio.gather(
        queries.standings(*where), queries.inside(*where), queries.days(*where, today=today, zone=language.zone_name),
    )  # fmt: skip
    results, withheld, refusals, newest = await asyncio.gather(
        queries.results(*where), queries.withheld(*where), queries.refusals(*where), queries.newest(*where),
    )  # fmt: skip
    standing, state = standings.get(name, NOTHING), (await states_of(site))[name]
    flow = await queries.flow(*where, of, said, inside) if said is not None else None
    numbers = sorted({row["definition"] for row in inside} | {version.saved.version for version in shown
                                                             if not version.saved.is_gone}, reverse=True)  # fmt: skip
    return site.page(
        request,
        "journey.html",
        status,
        saved=saved,
        said=said,
        line=_line(site, saved, state, standing, language),
        standing=standing,
        told=told_of(said, language),
        of=of,
        numbers=numbers,
        drawn=draw(said, flow, language) if said is not None and flow is not None else None,
        older=sum(row["people"] for row in inside if row["definition"] != of),
        lift=lift(standing.treated, standing.control),
        value_lift=value_lift(standing.treated, standing.control) if said and said.goal and said.goal.value else None,
        fewest_people=FEWEST_PEOPLE,
        fewest_goals=FEWEST_GOALS,
        days=days,
        rest=[day.entered - day.converted for day in days],
        starts=[datetime.combine(day.day, time(), ZoneInfo(language.zone_name)) for day in days],
        results=results,
        withheld=withheld,
        refusals=refusals,
        newest=newest,
        actions=actions_of(site, name, inside),
        done=request.query_params.get("done", "") in (*STATUSES, "migrate", "broadcast"),
        **history,
    )


async def _version_shown(
    site: Site, saved: SavedJourney, read: JourneyRead | ConfigError | None, asked: str
) -> tuple[int, JourneyFile | None]:
    """The version whose graph is shown: the one that is asked for, else the newest."""
    number = whole(asked)
    if number not in (-1, saved.version):
        other = await site.journeys.version(saved.name, number)
        compiled = await asyncio.to_thread(site.journeys.compile, other) if other is not None else None
        if isinstance(compiled, JourneyRead):
            return number, compiled.said
    return saved.version, read.said if isinstance(read, JourneyRead) else None


def told_of(said: JourneyFile | None, language: Language) -> list[str]:
    """What a journey is, in sentences."""
    if said is None:
        return []
    goal = [goal_sentence(said.goal, language.code)] if said.goal is not None else []
    exits = [exits_sentence(said.exits, language.code)] if said.exits else []
    return [*entry_sentences(said, language.code), *goal, *exits]


def actions_of(site: Site, name: str, inside: list[dict[str, Any]]) -> list[str]:
    """What can be done with a journey now."""
    saved, read, steering = site.journeys.saved(name), site.journeys.read(name), site.journeys.steering(name)
    found = list(ACTIONS[steering.status])
    if not isinstance(read, JourneyRead) or saved is None:
        return found
    if read.said.enter.broadcast is not None and steering.status == "live":
        found.insert(0, "broadcast")
    if any(row["definition"] < saved.version for row in inside):
        found.append("migrate")
    return found


# --- versions


async def version(request: Request) -> Response:
    """One version: its text, and what it changed of the one before it, or of the one of `against`."""
    site: Site = request.app.state.site
    name, number = request.path_params["name"], whole(request.path_params["version"])
    await site.journeys.look()
    saved = await site.journeys.version(name, number)
    if saved is None:
        return site.page(request, "missing.html", 404, what="")
    kept = site.journeys.versions(name)
    asked = whole(request.query_params.get("against", ""))
    earlier = next((each.version for each in kept if each.version < number), 0)
    against = asked if any(each.version == asked for each in kept) else earlier
    other = await site.journeys.version(name, against)
    old = other.text if other is not None else ""
    is_short = old.count("\n") + saved.text.count("\n") <= MOST_COMPARED_LINES
    diff = await asyncio.to_thread(diff_of, old, saved.text) if is_short else None
    return site.page(request, "version.html", name=name, saved=saved, at=from_ms(saved.at_ms), kept=kept,
                     against=against, diff=diff, newest=kept[0], path_of=journey_path, gone="journey_remove.gone",
                     source="journey_editor.yaml")  # fmt: skip


async def restore(request: Request) -> Response:
    """Writes an old version again, as a new one."""
    site: Site = request.app.state.site
    name, form = request.path_params["name"], await read_form(request)
    await site.journeys.look()
    saved = await site.journeys.version(name, whole(form.get("version", "")))
    if saved is None or saved.is_gone:
        return site.page(request, "missing.html", 404, what="")
    try:
        await site.journeys.save(name, saved.text, by=BY, now_ms=to_ms(site.now()), upon=whole(form.get("upon", "")))
    except TidewireError as error:
        return await _page(request, 409, trouble=str(error))
    return RedirectResponse(journey_path(name), 303)


# --- what changes something


async def steer_form(request: Request) -> Response:
    """Asks once more before a journey is steered, and says what will happen."""
    return await _steer_page(request, request.query_params.get("do", ""))


async def _steer_page(request: Request, do: str, status: int = 200, trouble: str = "") -> Response:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.journeys.look()
    saved, read = site.journeys.saved(name), site.journeys.read(name)
    inside = await queries.inside(site.analytics, site.workspace, name)
    if saved is None or do not in actions_of(site, name, inside):
        return site.page(request, "missing.html", 404, what="")
    said = read.said if isinstance(read, JourneyRead) else None
    segment = said.enter.broadcast if said is not None else None
    count = await Members(site.analytics, site.workspace, segment).count() if segment and do == "broadcast" else 0
    return site.page(request, "journey_steer.html", status, name=name, saved=saved, do=do, segment=segment or "",
                     title=title_of_journey(name, said, site.language(request).code), count=count,
                     inside=sum(row["people"] for row in inside), trouble=trouble)  # fmt: skip


async def steer(request: Request) -> Response:
    site: Site = request.app.state.site
    name, form = request.path_params["name"], await read_form(request)
    do, now_ms = form.get("do", ""), to_ms(site.now())
    try:
        if do in STATUSES:
            await site.journeys.steer(name, STATUSES[do], by=BY, now_ms=now_ms)
        elif do == "migrate":
            await site.journeys.migrate(name, None, by=BY, now_ms=now_ms)
        elif do == "broadcast":
            await site.journeys.broadcast(name, by=BY, now_ms=now_ms)
        else:
            return site.page(request, "missing.html", 404, what="")
    except TidewireError as error:
        return await _steer_page(request, do, 409, trouble=str(error))
    return RedirectResponse(with_query(journey_path(name), {"done": do}), 303)


async def remove_form(request: Request) -> Response:
    """Asks once more before a journey is taken out, and says what will happen."""
    return await _remove_page(request)


async def _remove_page(request: Request, status: int = 200, trouble: str = "") -> Response:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.journeys.look()
    saved = site.journeys.saved(name)
    if saved is None:
        return site.page(request, "missing.html", 404, what="")
    inside = await queries.inside(site.analytics, site.workspace, name)
    return site.page(request, "journey_remove.html", status, name=name, saved=saved, trouble=trouble,
                     inside=sum(row["people"] for row in inside))  # fmt: skip


async def remove(request: Request) -> Response:
    site: Site = request.app.state.site
    try:
        await site.journeys.remove(request.path_params["name"], by=BY, now_ms=to_ms(site.now()))
    except TidewireError as error:
        return await _remove_page(request, 409, trouble=str(error))
    return RedirectResponse("/journeys", 303)
