"""Person: everything known of one, and the undoing of a merge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from config.journeys import JourneyRead
from schemas.internal import HEADERS, Unmerge, encode_internal
from schemas.journey_sentences import title_of_journey
from schemas.keys import split_key
from schemas.times import to_ms
from streams.log import Outgoing
from web.dashboard.language import Language
from web.dashboard.portrait import read_sections
from web.dashboard.queries import commerce
from web.dashboard.queries import journeys as queries_of_journeys
from web.dashboard.queries.coupons import coupons as coupons_of
from web.dashboard.queries.messages import messages as messages_to
from web.dashboard.queries.person import Person, body_of
from web.dashboard.queries.segments import segments_of
from web.dashboard.site import Site, person_path, read_form, with_query
from web.dashboard.telling import summary

MOST_MESSAGES = 5  # the others are a link away
MOST_COUPONS = 20


async def person(request: Request) -> Response:
    return await person_page(request, request.path_params["key"])


async def person_page(request: Request, key: str) -> Response:
    site: Site = request.app.state.site
    try:
        workspace, _, _ = split_key(key)
    except ValueError as error:
        return site.page(request, "missing.html", 404, what=str(error))
    someone = Person(site.analytics, workspace, key)
    portrait = await someone.portrait()
    if portrait is None:
        holder = await someone.holder()
        if holder != key:
            return RedirectResponse(with_query(person_path(holder), {"was": key}), 303)
    identities = await someone.identities()
    counts = await someone.counts()
    if portrait is None and not counts:
        return site.page(request, "missing.html", 404, what="")
    event = request.query_params.get("event", "")[:200]
    timeline = await someone.timeline(event, request.query_params.get("before", "")[:2_000])
    if request.headers.get("hx-target", "") in ("timeline", "timeline-next"):
        return site.page(request, "timeline.html", person=key, timeline=timeline.rows, next=timeline.next, event=event,
                         body_of=body_of, summary=summary_of, is_more=bool(request.query_params.get("before")),
                         headers={"vary": "HX-Target"})  # fmt: skip
    facts = _facts(portrait, counts)
    orders, decisions, course, segments, messages, coupons = await asyncio.gather(
        commerce.orders_of(someone), someone.decisions(), _course(someone, facts["first_seen"], facts["last_seen"]),
        segments_of(site.analytics, workspace, key),
        messages_to(site.analytics, workspace, person=key, most=MOST_MESSAGES),
        coupons_of(site.analytics, workspace, site.now(), person=key, most=MOST_COUPONS),
    )  # fmt: skip
    wanted = (await site.segments.known()).wanted
    return site.page(
        request,
        "person.html",
        headers={"vary": "HX-Target"},
        person=key,
        facts=facts,
        portrait=portrait,
        sections=read_sections(portrait["sections"] if portrait else {}),
        identities=identities,
        counts=counts,
        event=event,
        timeline=timeline.rows,
        next=timeline.next,
        is_more=False,
        body_of=body_of,
        summary=summary_of,
        orders=orders,
        most_orders=commerce.MOST_ORDERS,
        decisions=decisions,
        messages=messages,
        coupons=coupons.rows,
        journeys=await journeys_of(site, site.language(request), someone.keys),
        course=course,
        segments=[(wanted[row["segment"]], row["since"]) for row in segments if row["segment"] in wanted],
        was=request.query_params.get("was", "")[:400],
        unmerged=request.query_params.get("unmerged", "")[:400],
    )


async def journeys_of(site: Site, language: Language, keys: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Her ways through journeys, each with the title of the journey."""
    rows = await queries_of_journeys.of_person(site.analytics, site.workspace, keys)
    if rows:
        await site.journeys.look()
    titles: dict[str, str] = {}
    for name in {row["journey"] for row in rows}:
        read = await asyncio.to_thread(site.journeys.read, name)
        titles[name] = title_of_journey(name, read.said if isinstance(read, JourneyRead) else None, language.code)
    return [(titles[row["journey"]], row) for row in rows]


async def _course(someone: Person, first: datetime | None, last: datetime | None) -> list[int]:
    return await someone.course(first, last) if first is not None and last is not None else []


def summary_of(row: Mapping[str, Any]) -> str:
    """A row of the timeline in one line."""
    parts = (row[name] if isinstance(row[name], dict) else {} for name in ("properties", "traits", "context"))
    return summary(row["type"], row["name"] or row["title"], row["group_id"] or row["previous_id"], *parts)


def _facts(portrait: dict[str, Any] | None, counts: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers at the top: from the portrait, or from the events while there is none yet."""
    if portrait is not None and portrait["first_seen"] is not None:
        return portrait
    first: datetime | None = min((row["first"] for row in counts), default=None)
    last: datetime | None = max((row["last"] for row in counts), default=None)
    blank = {"name": "", "email": "", "phone": "", "company": "", "user_id": "", "locale": "", "timezone": "",
             "visits": 0, "orders": 0, "revenue": {}, "traits": {}, "identities": []}  # fmt: skip
    return {**blank, **(portrait or {}), "first_seen": first, "last_seen": last,
            "events": sum(row["count"] for row in counts)}  # fmt: skip


async def unmerge_form(request: Request) -> Response:
    """Asks once more before a merge is undone, and says what will happen."""
    site: Site = request.app.state.site
    key, holder = request.query_params.get("key", ""), request.query_params.get("person", "")
    if not _are_keys(key, holder):
        return site.page(request, "missing.html", 404, what="")
    return site.page(request, "unmerge.html", key=key, person=holder)


async def unmerge(request: Request) -> Response:
    """Sends the order to undo a merge to the customer stage, which does it in its turn."""
    site: Site = request.app.state.site
    form = await read_form(request)
    key, holder = form.get("key", ""), form.get("person", "")
    if not _are_keys(key, holder):
        return PlainTextResponse("400: key and person must be two person keys of one workspace.", 400)
    now_ms = to_ms(site.now())
    order = Unmerge(to=key, origin=f"dashboard@{now_ms}", at_ms=now_ms, asked_by="dashboard")
    await site.log.append("events", [Outgoing(key.encode(), encode_internal(order), headers=HEADERS)])
    return RedirectResponse(with_query(person_path(holder), {"unmerged": key}), 303)


def _are_keys(key: str, holder: str) -> bool:
    try:
        return split_key(key)[0] == split_key(holder)[0] and key != holder
    except ValueError:
        return False
