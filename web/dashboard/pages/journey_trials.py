"""Journeys tried before anybody lives through them: their cases under virtual time, and dry runs over what happened."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from config.journey_cases import files_of_cases, read_cases
from config.journeys import JourneyRead
from schemas.errors import TidewireError
from schemas.journey_sentences import step_sentence, title_of_journey
from schemas.journeys import JourneyFile
from streams.cases import Ran, clock, got_text, line_text, run_cases
from streams.dry_run import Report
from streams.rehearsal import Rehearsal
from web.dashboard.pages.api import ApiError
from web.dashboard.pages.journey_dry_runs import dry_run_of
from web.dashboard.rehearsing import live_rehearsal
from web.dashboard.site import Site, read_form

DRY_DAYS = 30  # that a dry run goes back unless somebody says otherwise


class ShownLine(NamedTuple):
    """A line of a case. `mark`: `same`, `removed` where it was expected alone, `added` where it happened alone."""

    mark: str
    text: str
    at: str


class ShownCase(NamedTuple):
    name: str
    place: str
    passed: bool
    lines: list[ShownLine]


class Tried(NamedTuple):
    """What came of the cases. `trouble`: why they could not be run."""

    cases: list[ShownCase]
    seconds: float
    trouble: str = ""

    @property
    def failed(self) -> int:
        return sum(not case.passed for case in self.cases)


async def tests(request: Request) -> Response:
    return await _tests_page(request, None)


async def run_tests(request: Request) -> Response:
    """Runs the cases of the file against the newest version, one journey at a time."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    async with site.trying:
        began = time.monotonic()
        try:
            rehearsal = await live_rehearsal(site)
            cases = await asyncio.to_thread(_run, name, rehearsal) if name in rehearsal.journeys else []
            tried = Tried(cases, time.monotonic() - began)
        except TidewireError as error:
            tried = Tried([], time.monotonic() - began, str(error))
    return await _tests_page(request, tried)


async def _tests_page(request: Request, tried: Tried | None) -> Response:
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.journeys.look()
    saved, read = site.journeys.saved(name), site.journeys.read(name)
    if saved is None:
        return site.page(request, "missing.html", 404, what="")
    said = read.said if isinstance(read, JourneyRead) else None
    try:
        has_cases, trouble = name in await asyncio.to_thread(files_of_cases, site.settings.config), ""
    except TidewireError as error:
        has_cases, trouble = False, str(error)
    return site.page(request, "journey_tests.html", name=name, saved=saved, has_cases=has_cases, tried=tried,
                     trouble=trouble or (tried.trouble if tried is not None else ""),
                     title=title_of_journey(name, said, site.language(request).code))  # fmt: skip


def _run(name: str, rehearsal: Rehearsal) -> list[ShownCase]:
    said = JourneyFile.model_validate(rehearsal.journeys[name].said)
    cases = read_cases(files_of_cases(rehearsal.config)[name], said)
    return [ShownCase(ran.case.case, ran.place, ran.passed, _lines(ran, cases.said.tz))
            for ran in run_cases(cases, rehearsal)]  # fmt: skip


def _lines(ran: Ran, zone: tzinfo) -> list[ShownLine]:
    lines = []
    for row in ran.rows:
        at = clock(row.got.at_ms, zone) if row.got is not None else ""
        if row.expected is not None:
            lines.append(ShownLine("removed" if row.differs else "same", line_text(row.expected), at))
        elif row.got is not None:
            lines.append(ShownLine("added", got_text(row.got, ran.start_ms), at))
    return lines


# --- over what happened


async def dry_run(request: Request) -> Response:
    return await _dry_run_page(request)


async def run_dry(request: Request) -> Response:
    """Goes through what happened from one day to another, and shows what the newest version would have done."""
    site: Site = request.app.state.site
    form = await read_form(request)
    from_, to = form.get("from", ""), form.get("to", "")
    try:
        report = await dry_run_of(site, request.path_params["name"], from_, to)
    except ApiError as error:
        return await _dry_run_page(request, error.status, from_=from_, to=to, trouble=str(error))
    except TidewireError as error:
        return await _dry_run_page(request, 422, from_=from_, to=to, trouble=str(error))
    return await _dry_run_page(request, from_=from_, to=to, report=report)


async def _dry_run_page(
    request: Request, status: int = 200, *, from_: str = "", to: str = "", report: Report | None = None,
    trouble: str = "",
) -> Response:  # fmt: skip
    site: Site = request.app.state.site
    name = request.path_params["name"]
    await site.journeys.look()
    saved, read = site.journeys.saved(name), site.journeys.read(name)
    if saved is None:
        return site.page(request, "missing.html", 404, what="")
    said = read.said if isinstance(read, JourneyRead) else None
    language = site.language(request)
    today = site.now().astimezone(ZoneInfo(site.settings.timezone)).date()
    return site.page(
        request, "dry_run.html", status, name=name, saved=saved, said=said, report=report, trouble=trouble,
        title=title_of_journey(name, said, language.code), from_=from_ or f"{today - timedelta(days=DRY_DAYS)}",
        to=to or f"{today}", sentences={step.step: step_sentence(step, language.code) for step in said.steps}
        if said is not None else {},
    )  # fmt: skip
