"""JSON for `tidewire journeys …`. Each call needs the token of `data/run.json`.

    GET  /api/journeys                    every journey: its version and state, who is inside, what came of it
    GET  /api/journeys/NAME?version=3     one, with its text; without `version` the newest
    GET  /api/journeys/NAME/versions      who wrote which version when, the newest first
    POST /api/journeys/NAME               {"yaml": …, "by": …, "upon": 3}   saves a new version; PUT does the same
    POST /api/journeys/NAME/status        {"status": "paused", "by": …}   live, paused, draining or stopped
    POST /api/journeys/NAME/migrate       {"to": 3, "by": …}   moves who is inside; without `to` to the newest version
    POST /api/journeys/NAME/broadcast     {"id": …, "by": …}   whoever is in its segment enters, by an `id` once
    POST /api/journeys/NAME/remove        {"by": …}   takes it out; who is inside leaves
    GET  /api/journeys/apply              what changed in the files, and how
    POST /api/journeys/apply              {"by": …}   takes it over

A version that was overtaken by somebody else's is answered with 409.
"""

from __future__ import annotations

from typing import Any, get_args

from starlette.requests import Request

from config.journeys import JourneyRead, read_limits
from schemas.journeys import SavedJourney, Status, Steering
from schemas.times import to_ms
from streams.definitions import take_over_limits
from streams.texts import Overtaken
from web.dashboard.pages.api import LONGEST_NAME, ApiError, answered, body_of_request
from web.dashboard.pages.segments import whole
from web.dashboard.queries.journeys import Standing, standings
from web.dashboard.site import Site

STATUSES: tuple[Status, ...] = get_args(Status)


@answered
async def journeys(request: Request) -> Any:
    site: Site = request.app.state.site
    await site.journeys.look()
    troubles, in_force = await site.journeys.troubles(), await _in_force(site)
    found = await standings(site.analytics, site.workspace)
    return {"journeys": [
        _line(site, saved, found.get(name, Standing()), in_force.get(name), troubles.get(name, ""))
        for name, saved in site.journeys.newest.items() if not saved.is_gone
    ]}  # fmt: skip


async def _in_force(site: Site) -> dict[str, tuple[int, Status]]:
    """The version of each journey by which people enter now, and what partitions were told is wanted of it."""
    told = (await site.segments.known()).told
    journeys = told.led.journeys if told is not None and told.is_settled else []
    return {each.name: (each.version, each.status) for each in journeys if each.is_newest}


def _line(
    site: Site, saved: SavedJourney, standing: Standing, in_force: tuple[int, Status] | None, trouble: str
) -> dict[str, Any]:
    read, steering = site.journeys.read(saved.name), site.journeys.steering(saved.name)
    said = read.said if isinstance(read, JourneyRead) else None
    return {
        **_head(saved), **_steered(steering), "is_live": in_force == (saved.version, steering.status),
        "title": dict(said.title) if said is not None else {}, "enter": said.enter.kind if said is not None else "",
        "inside": standing.inside, "entered": standing.entered, "held_out": standing.held_out, "sent": standing.sent,
        "treated": standing.treated._asdict(), "control": standing.control._asdict(), "wrong": trouble,
    }  # fmt: skip


def _head(saved: SavedJourney) -> dict[str, Any]:
    return {"journey": saved.name, "version": saved.version, "by": saved.by, "at_ms": saved.at_ms,
            "source": saved.source, "is_gone": saved.is_gone}  # fmt: skip


def _steered(steering: Steering) -> dict[str, Any]:
    return {"status": steering.status, "migrate_to": steering.migrate_to}


@answered
async def journey(request: Request) -> Any:
    site: Site = request.app.state.site
    name, version = request.path_params["name"], request.query_params.get("version", "")
    await site.journeys.look()
    saved = await site.journeys.version(name, whole(version)) if version else site.journeys.saved(name)
    if saved is None:
        what = f" of version {version:.20}. `tidewire journeys versions {name}` shows them" if version else ""
        raise ApiError(404, f'There is no journey "{name}"{what or ". `tidewire journeys list` shows them"}.')
    return {**_head(saved), **_steered(site.journeys.steering(name)), "yaml": saved.text}


@answered
async def versions(request: Request) -> Any:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.journeys.look()
    kept = site.journeys.versions(name)
    if not kept:
        raise ApiError(404, f'There is no journey "{name}". `tidewire journeys list` shows them.')
    return {"versions": [_head(saved) for saved in kept]}


@answered
async def save(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    text = asked.get("yaml")
    if not isinstance(text, str):
        raise ApiError(400, 'Send {"yaml": "enter: …"}.')
    try:
        saved = await site.journeys.save(request.path_params["name"], text, by=_by(asked), now_ms=to_ms(site.now()),
                                         upon=_number(asked, "upon"))  # fmt: skip
    except Overtaken as error:
        raise ApiError(409, str(error)) from None
    return _head(saved)


@answered
async def status(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    wanted = next((each for each in STATUSES if each == asked.get("status")), None)
    if wanted is None:
        raise ApiError(400, f'Send {{"status": …}}, one of {", ".join(STATUSES)}.')
    steering = await site.journeys.steer(request.path_params["name"], wanted, by=_by(asked), now_ms=to_ms(site.now()))
    return {"journey": steering.name, **_steered(steering)}


@answered
async def migrate(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    steering = await site.journeys.migrate(request.path_params["name"], _number(asked, "to"), by=_by(asked),
                                           now_ms=to_ms(site.now()))  # fmt: skip
    return {"journey": steering.name, **_steered(steering)}


@answered
async def broadcast(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    id_ = asked.get("id") or ""
    if not isinstance(id_, str):
        raise ApiError(400, '`id` must be a text: {"id": "spring"}.')
    said = await site.journeys.broadcast(request.path_params["name"], by=_by(asked), now_ms=to_ms(site.now()), id_=id_)
    return {"journey": said.name, "id": said.id, "sweep": said.sweep}


@answered
async def remove(request: Request) -> Any:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    try:
        await site.journeys.remove(name, by=_by(await body_of_request(request)), now_ms=to_ms(site.now()))
    except Overtaken as error:
        raise ApiError(409, str(error)) from None
    return {"removed": name}


@answered
async def differences(request: Request) -> Any:
    """What the files would change; `before` is what is saved now."""
    site: Site = request.app.state.site
    changed = await site.journeys.changed_files(by="", now_ms=to_ms(site.now()))
    texts = {name: saved.text for name, saved in site.journeys.newest.items() if not saved.is_gone}
    return {"changed": [{**_head(saved), "yaml": saved.text, "before": texts.get(saved.name)} for saved in changed]}


@answered
async def apply(request: Request) -> Any:
    """What holds for all of them, config/limits.yaml, too."""
    site: Site = request.app.state.site
    by, now_ms = _by(await body_of_request(request)), to_ms(site.now())
    limits = read_limits(site.settings.config)
    changed = await site.journeys.apply_files(by=by, now_ms=now_ms)
    await take_over_limits(site.log, limits, by=by, now_ms=now_ms)
    return {"changed": [_head(saved) for saved in changed]}


def _number(asked: dict[str, Any], name: str) -> int | None:
    """A version that a call names; None: none.

    Raises:
        ApiError: it is no number.
    """
    value = asked.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ApiError(400, f"`{name}` must be the number of a version.")
    return value


def _by(asked: dict[str, Any]) -> str:
    return str(asked.get("by") or "api")[:LONGEST_NAME]
