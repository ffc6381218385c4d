"""Segments: the list, and everything about one: who is in it, who came and went and why, its proof and its versions."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from schemas.conditions import InSegment, leaves_of, read_condition
from schemas.errors import TidewireError
from schemas.segments import Said
from schemas.sentences import sentence_of
from schemas.times import from_ms
from streams.definitions import Known
from web.dashboard.export import csv_stream
from web.dashboard.language import Language
from web.dashboard.pages.api import ApiError, find_person
from web.dashboard.queries import segments as queries
from web.dashboard.queries.people import main_currency
from web.dashboard.queries.segments import EXPORTED_AT_ONCE, Members, Standing
from web.dashboard.site import Site, read_form, segment_path
from web.dashboard.written import DiffLine, changed, title_of, yaml_of

BY = "dashboard"
LONGEST_SEARCH = 200
TOP_EVENTS = 8
REASONS = ("event", "time", "definition", "company", "identity")


class Line(NamedTuple):
    """One segment of the list. `state`: `preparing`, `live` where it was not compared yet, `proven` or `differs`."""

    said: Said
    title: str
    sentence: str
    standing: Standing
    state: str


async def segments(request: Request) -> Response:
    site: Site = request.app.state.site
    language = site.language(request)
    search = request.query_params.get("q", "").strip()[:LONGEST_SEARCH]
    known = await site.segments.known()
    wanted = [said for _, said in sorted(known.wanted.items()) if not said.is_gone]
    shown = [said for said in wanted if _matches(said, search, language)]
    found = await _standings(site, language, [said.name for said in shown])
    is_turning = request.headers.get("hx-target") == "segments"
    return site.page(
        request,
        "segments_list.html" if is_turning else "segments.html",
        headers={"vary": "HX-Target"},
        lines=[_line(site, known, said, found[said.name], language) for said in shown],
        count=len(wanted),
        search=search,
        progress=site.segments.progress(),
        gone=[said for _, said in sorted(known.wanted.items()) if said.is_gone],
    )


def _matches(said: Said, search: str, language: Language) -> bool:
    sentence = sentence_of(read_condition(said.when), language.code)
    told = "\n".join((said.name, *said.title.values(), said.about, sentence))
    return search.casefold() in told.casefold()


async def _standings(site: Site, language: Language, names: list[str]) -> dict[str, Standing]:
    zone = language.zone_name
    return await queries.standings(site.analytics, site.workspace, names, today=_today(site, language), zone=zone)


def _today(site: Site, language: Language) -> date:
    return site.now().astimezone(ZoneInfo(language.zone_name)).date()


def _line(site: Site, known: Known, said: Said, standing: Standing, language: Language) -> Line:
    return Line(said, title_of(said, language.code), sentence_of(read_condition(said.when), language.code), standing,
                _state(site, known, said, standing))  # fmt: skip


def _state(site: Site, known: Known, said: Said, standing: Standing) -> str:
    if said.name in known.pending(site.segments.zone):
        return "preparing"
    if standing.proof is None or standing.proof["version"] != said.version:
        return "live"
    return "differs" if standing.proof["differences"] else "proven"


# --- one


class Version(NamedTuple):
    """One version of the history."""

    said: Said
    at: datetime
    diff: list[DiffLine]


async def segment(request: Request) -> Response:
    return await _page(request)


async def _page(request: Request, status: int = 200, trouble: str = "") -> Response:
    """The page of a segment; `trouble` is what kept us from doing what was asked."""
    site: Site = request.app.state.site
    name, language = request.path_params["name"], site.language(request)
    known = await site.segments.known()
    said = known.wanted.get(name)
    if said is None:
        return site.page(request, "missing.html", 404, what="")
    if said.is_gone:
        return site.page(request, "segment_gone.html", status, said=said, title=title_of(said, language.code),
                         at=from_ms(said.at_ms), versions=_versions(known, name), trouble=trouble)  # fmt: skip
    members = Members(site.analytics, site.workspace, name, request.query_params.get("q", ""))
    after = request.query_params.get("after", "")[:2_000]
    listed: dict[str, Any] = {
        "said": said, "search": members.search, "after": after, "reason_of": reason_of,
        "query": {"q": members.search}, "currency": await main_currency(site.analytics, site.workspace),
    }  # fmt: skip
    if request.headers.get("hx-target") == "members":
        page, count = await asyncio.gather(members.page(after), members.count())
        return site.page(request, "segment_members.html", headers={"vary": "HX-Target"}, members=page, count=count,
                         **listed)  # fmt: skip
    where = (site.analytics, site.workspace, name)
    standings, page, count, fresh, caused, overlap = await asyncio.gather(
        _standings(site, language, [name]), members.page(after), members.count(), queries.freshness(*where),
        queries.causes(*where, today=_today(site, language), zone=language.zone_name), queries.overlap(*where),
    )  # fmt: skip
    standing = standings[name]
    return site.page(
        request,
        "segment.html",
        status,
        headers={"vary": "HX-Target"},
        line=_line(site, known, said, standing, language),
        standing=standing,
        starts=[datetime.combine(flow.day, time(), ZoneInfo(language.zone_name)) for flow in standing.days],
        members=page,
        count=count,
        freshness=fresh,
        reasons=_by_reason(caused),
        events=_by_event(caused),
        causes=caused,
        overlap=[(known.wanted[row["segment"]], row["both"]) for row in overlap if row["segment"] in known.wanted],
        asking=_asking(known, name),
        versions=_versions(known, name),
        progress=site.segments.progress(),
        trouble=trouble,
        top=TOP_EVENTS,
        **listed,
    )


def reason_of(why: str) -> str:
    """A cause as the pages name it. The past is read for a new version; all else is that people were merged or told
    apart."""
    if why == "backfill":
        return "definition"
    return why if why in REASONS else "identity"


class Count(NamedTuple):
    """How many joined and left by one cause."""

    name: str
    joined: int
    left: int

    @property
    def all(self) -> int:
        return self.joined + self.left


def _by_reason(causes: Iterable[Mapping[str, Any]]) -> list[Count]:
    found = {count.name: count for count in _counted(causes, lambda row: reason_of(row["why"]))}
    return [found[name] for name in REASONS if name in found]


def _by_event(causes: Iterable[Mapping[str, Any]]) -> list[Count]:
    of_events = (row for row in causes if row["why"] == "event")
    return sorted(_counted(of_events, lambda row: row["event"]), key=lambda count: (-count.all, count.name))


def _counted(rows: Iterable[Mapping[str, Any]], name_of: Any) -> list[Count]:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"joined": 0, "left": 0})
    for row in rows:
        counts[name_of(row)][row["kind"]] += row["times"]
    return [Count(name, **count) for name, count in counts.items()]


def _versions(known: Known, name: str) -> list[Version]:
    """All there were, the newest first."""
    saids = [said for _, said in sorted(known.versions.get(name, {}).items())]
    before: list[Said | None] = [None, *saids]
    return [Version(said, from_ms(said.at_ms), changed(earlier, said))
            for earlier, said in zip(before, saids, strict=False)][::-1]  # fmt: skip


def _asking(known: Known, name: str) -> list[Said]:
    """The segments that ask for this one, so that it cannot be removed."""
    return [known.wanted[other] for other, definition in sorted(known.definitions.items())
            if any(isinstance(leaf, InSegment) and leaf.segment == name for leaf in leaves_of(definition.when))]


async def progress(request: Request) -> Response:
    """How far a new version is; when it is live the page is shown anew. Asked for again and again by the page."""
    site: Site = request.app.state.site
    pending = (await site.segments.known()).pending(site.segments.zone)
    is_live = request.path_params["name"] not in pending
    return site.page(request, "segment_progress.html", headers={"hx-refresh": "true"} if is_live else None,
                     progress=site.segments.progress())  # fmt: skip


async def members_csv(request: Request) -> Response:
    """All members, those that the search finds."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    said = (await site.segments.known()).wanted.get(name)
    if said is None or said.is_gone:
        return site.page(request, "missing.html", 404, what="")
    members = Members(site.analytics, site.workspace, name, request.query_params.get("q", ""))
    codes = await queries.currencies(site.analytics, site.workspace)
    first = await members.page(most=EXPORTED_AT_ONCE)

    async def rows() -> AsyncIterator[dict[str, Any]]:
        async for row in members.all(first):
            yield {**row, **{f"revenue_{code}": row["revenue"].get(code, 0) for code in codes}}

    columns = ("person", "user_id", "name", "email", "phone", "company", "since", "definition", "why", "event",
               "first_seen", "last_seen", "events", "visits", "orders", *(f"revenue_{code}" for code in codes))
    return csv_stream(name, columns, rows())


async def why(request: Request) -> Response:
    """Each part of the condition, whether it is true of one person, and by which facts."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    try:
        said = await site.segments.wanted(name)
        found = await find_person(site, request.query_params.get("person", "")[:2_000])
    except ApiError:  # nobody
        return site.page(request, "missing.html", 404, what="")
    except TidewireError as error:
        return site.page(request, "missing.html", 404, what=str(error))
    sections = (found.portrait or {}).get("sections", {})
    reason = await site.segments.why(name, found.person.keys, sections)
    portrait = found.portrait or {}
    return site.page(
        request,
        "why.html" if "hx-request" in request.headers else "segment_why.html",
        headers={"vary": "HX-Request"},
        said=said,
        person=found.person.key,
        shown=portrait.get("name") or portrait.get("email") or found.person.key.partition("/")[2][2:],
        reason=reason,
    )


# --- what changes something


async def verify(request: Request) -> Response:
    """Compares now, and shows what came of it."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    try:
        await site.segments.verify(name)
    except TidewireError as error:
        return await _page(request, 503, trouble=str(error))
    return RedirectResponse(segment_path(name) + "#proof", 303)


async def restore(request: Request) -> Response:
    """Writes an old version again, as a new one."""
    site: Site = request.app.state.site
    name, form = request.path_params["name"], await read_form(request)
    versions = (await site.segments.known()).versions.get(name, {})
    said = versions.get(whole(form.get("version", "")))
    if said is None:
        return site.page(request, "missing.html", 404, what="")
    try:
        await site.segments.save(name, yaml_of(said), by=BY, upon=whole(form.get("upon", "")))
    except TidewireError as error:
        return await _page(request, 409, trouble=str(error))
    return RedirectResponse(segment_path(name), 303)


def whole(text: str) -> int:
    """A number of a form; -1, which no version has, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else -1


async def remove_form(request: Request) -> Response:
    """Asks once more before a segment is taken out, and says what will happen."""
    return await _remove_page(request)


async def _remove_page(request: Request, status: int = 200, trouble: str = "") -> Response:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    known = await site.segments.known()
    said = known.wanted.get(name)
    if said is None or said.is_gone:
        return site.page(request, "missing.html", 404, what="")
    members = Members(site.analytics, site.workspace, name)
    return site.page(request, "segment_remove.html", status, said=said, asking=_asking(known, name),
                     count=await members.count(), trouble=trouble)  # fmt: skip


async def remove(request: Request) -> Response:
    site: Site = request.app.state.site
    try:
        await site.segments.remove(request.path_params["name"], by=BY)
    except TidewireError as error:
        return await _remove_page(request, 409, trouble=str(error))
    return RedirectResponse("/segments", 303)
