"""The dashboard as one Starlette app: its addresses, and what happens when something behind it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from config.settings import Settings
from processors.fold import Fold
from processors.registry import load_processors
from schemas.errors import TidewireError
from sinks.analytics import ClickHouseError
from streams.definitions import Progress
from streams.log import Log
from streams.redrive import Check
from web.dashboard.guard import Guard
from web.dashboard.pages import (
    api,
    coupons,
    journey_dry_runs,
    journey_editor,
    journey_trials,
    journeys,
    journeys_api,
    live,
    messages,
    messages_api,
    overview,
    partitions,
    people,
    person,
    person_why,
    preferences,
    rejected,
    segment_editor,
    segments,
    segments_api,
    suppressions,
    template_editor,
    templates,
    templates_api,
    why_api,
)
from web.dashboard.queries.commerce import UNKNOWN_TABLE
from web.dashboard.site import STATIC, Site

if TYPE_CHECKING:
    from sinks.analytics import Analytics

YEAR_S = 365 * 24 * 3600
logger = structlog.get_logger(__name__)


class _Anything(Convertor[str]):
    """The rest of a path. Unlike Starlette's `path` with line ends too: an id may hold any sign there is."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


def dashboard(log: Log, analytics: Analytics, settings: Settings, token: str = "", *, check: Check | None = None,
              now: Callable[[], datetime] = lambda: datetime.now(UTC),
              progress: Callable[[], Progress] = Progress) -> Starlette:  # fmt: skip
    """The pages over a log and a ClickHouse, both started; to be served on a loopback address.

    Args:
        token: what the calls under /api ask for; without one they answer 403.
        check: asks every processor whether it takes an event that is to be sent again, as `Fold.check` does;
            without it, the processors there are.
        now: the clock.
        progress: how far segments are that are being prepared.
    """
    app = Starlette(
        routes=[
            Route("/", overview.overview),
            Route("/overview/{name}.csv", overview.table),
            Route("/freshness", overview.freshness),
            Route("/live", live.live),
            Route("/live/stream", live.stream),
            Route("/people", people.people),
            Route("/people.csv", people.people_csv),
            Route("/people/{key:anything}/why", person_why.why),
            Route("/people/{key:anything}", person.person),
            Route("/unmerge", person.unmerge_form),
            Route("/unmerge", person.unmerge, methods=["POST"]),
            Route("/segments", segments.segments),
            Route("/segments/new", segment_editor.editor, methods=["GET", "POST"]),
            Route("/segments/{name}.csv", segments.members_csv),
            Route("/segments/{name}", segments.segment),
            Route("/segments/{name}/edit", segment_editor.editor, methods=["GET", "POST"]),
            Route("/segments/{name}/progress", segments.progress),
            Route("/segments/{name}/why", segments.why),
            Route("/segments/{name}/verify", segments.verify, methods=["POST"]),
            Route("/segments/{name}/restore", segments.restore, methods=["POST"]),
            Route("/segments/{name}/remove", segments.remove_form),
            Route("/segments/{name}/remove", segments.remove, methods=["POST"]),
            Route("/journeys", journeys.journeys),
            Route("/journeys/new", journey_editor.editor, methods=["GET", "POST"]),
            Route("/journeys/{name}", journeys.journey),
            Route("/journeys/{name}/edit", journey_editor.editor, methods=["GET", "POST"]),
            Route("/journeys/{name}/versions/{version}", journeys.version),
            Route("/journeys/{name}/restore", journeys.restore, methods=["POST"]),
            Route("/journeys/{name}/steer", journeys.steer_form),
            Route("/journeys/{name}/steer", journeys.steer, methods=["POST"]),
            Route("/journeys/{name}/remove", journeys.remove_form),
            Route("/journeys/{name}/remove", journeys.remove, methods=["POST"]),
            Route("/journeys/{name}/dry-run", journey_trials.dry_run),
            Route("/journeys/{name}/dry-run", journey_trials.run_dry, methods=["POST"]),
            Route("/journeys/{name}/tests", journey_trials.tests),
            Route("/journeys/{name}/tests", journey_trials.run_tests, methods=["POST"]),
            Route("/templates", templates.templates),
            Route("/templates/new", template_editor.editor, methods=["GET", "POST"]),
            Route("/templates/new/mail/{id}", template_editor.mail),
            Route("/templates/{name}", templates.template),
            Route("/templates/{name}/edit", template_editor.editor, methods=["GET", "POST"]),
            Route("/templates/{name}/mail", templates.mail),
            Route("/templates/{name}/versions/{version}", templates.version),
            Route("/templates/{name}/restore", templates.restore, methods=["POST"]),
            Route("/templates/{name}/remove", templates.remove_form),
            Route("/templates/{name}/remove", templates.remove, methods=["POST"]),
            Route("/templates/{name}/send", messages.send_test, methods=["POST"]),
            Route("/messages", messages.messages),
            Route("/messages/{id}", messages.message),
            Route("/messages/{id}", messages.decide, methods=["POST"]),
            Route("/messages/{id}/mail", messages.mail),
            Route("/suppressions", suppressions.suppressions),
            Route("/suppressions", suppressions.add, methods=["POST"]),
            Route("/suppressions/release", suppressions.remove, methods=["POST"]),
            Route("/coupons", coupons.coupons),
            Route("/coupons/{name}", coupons.campaign),
            Route("/coupons/{name}/give", coupons.give_one, methods=["POST"]),
            Route("/rejected", rejected.rejected),
            Route("/rejected.csv", rejected.rejected_csv),
            Route("/rejected/redrive", rejected.send_all, methods=["POST"]),
            Route("/rejected/{id}", rejected.letter),
            Route("/rejected/{id}", rejected.send_again, methods=["POST"]),
            Route("/partitions/go-on", partitions.go_on, methods=["POST"]),
            Route("/preferences", preferences.preferences, methods=["POST"]),
            Mount(
                "/api",
                routes=[
                    Route("/status", api.status),
                    Route("/person", api.person),
                    Route("/why", why_api.why),
                    Route("/rejected", api.rejected),
                    Route("/rejected/redrive", api.redrive_letters, methods=["POST"]),
                    Route("/rejected/{id}", api.letter),
                    Route("/sql", api.sql, methods=["POST"]),
                    Route("/partitions", api.partitions),
                    Route("/partitions/go-on", api.partition_goes_on, methods=["POST"]),
                    Route("/backup", api.begin_backup, methods=["POST"]),
                    Route("/backup", api.backup_state),
                    Route("/messages", messages_api.messages),
                    Route("/messages", messages_api.send, methods=["POST"]),
                    Route("/messages/report", messages_api.report, methods=["POST"]),
                    Route("/messages/{id}", messages_api.message),
                    Route("/messages/{id}/settle", messages_api.decide, methods=["POST"]),
                    Route("/suppressions", suppressions.list_),
                    Route("/suppressions", suppressions.add_all, methods=["POST"]),
                    Route("/suppressions/release", suppressions.release_one, methods=["POST"]),
                    Route("/coupons", coupons.list_),
                    Route("/coupons/codes/{code}", coupons.code),
                    Route("/coupons/{name}", coupons.one),
                    Route("/coupons/{name}/of", coupons.of),
                    Route("/coupons/{name}/give", coupons.ask, methods=["POST"]),
                    Route("/rehearsal", journey_dry_runs.rehearsal),
                    Route("/journeys/{name}/dry-run", journey_dry_runs.dry_run, methods=["POST"]),
                    Route("/segments", segments_api.segments),
                    Route("/segments/apply", segments_api.apply, methods=["POST"]),
                    Route("/segments/{name}", segments_api.segment),
                    Route("/segments/{name}", segments_api.save, methods=["POST"]),
                    Route("/segments/{name}/remove", segments_api.remove, methods=["POST"]),
                    Route("/segments/{name}/preview", segments_api.preview, methods=["POST"]),
                    Route("/segments/{name}/verify", segments_api.verify, methods=["POST"]),
                    Route("/segments/{name}/why", segments_api.why),
                    Route("/journeys", journeys_api.journeys),
                    Route("/journeys/apply", journeys_api.differences),
                    Route("/journeys/apply", journeys_api.apply, methods=["POST"]),
                    Route("/journeys/{name}", journeys_api.journey),
                    Route("/journeys/{name}", journeys_api.save, methods=["POST", "PUT"]),
                    Route("/journeys/{name}/versions", journeys_api.versions),
                    Route("/journeys/{name}/status", journeys_api.status, methods=["POST"]),
                    Route("/journeys/{name}/migrate", journeys_api.migrate, methods=["POST"]),
                    Route("/journeys/{name}/broadcast", journeys_api.broadcast, methods=["POST"]),
                    Route("/journeys/{name}/remove", journeys_api.remove, methods=["POST"]),
                    Route("/templates", templates_api.templates),
                    Route("/templates/apply", templates_api.apply, methods=["POST"]),
                    Route("/templates/{name}", templates_api.template),
                    Route("/templates/{name}", templates_api.save, methods=["POST"]),
                    Route("/templates/{name}/versions", templates_api.versions),
                    Route("/templates/{name}/preview", templates_api.preview, methods=["POST"]),
                    Route("/templates/{name}/remove", templates_api.remove, methods=["POST"]),
                ],
            ),
            Mount("/static", _Assets(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={HTTPException: _refuse, TidewireError: _trouble},
    )
    app.state.site = Site(log, analytics, settings, token, check or _check_of(settings), now, progress)
    return app


def _check_of(settings: Settings) -> Check:
    return Fold(load_processors(settings.config)).check


class _Assets(StaticFiles):
    """Files whose address names their content, so a browser keeps them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        if answer.status_code == HTTPStatus.OK and b"v=" in scope.get("query_string", b""):
            answer.headers["cache-control"] = f"public, max-age={YEAR_S}, immutable"
        return answer


async def _refuse(request: Request, error: Exception) -> Response:
    """What is not there, or not meant so."""
    assert isinstance(error, HTTPException)
    headers: Mapping[str, str] = error.headers or {}
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, headers=dict(headers))
    site: Site = request.app.state.site
    if error.status_code == HTTPStatus.NOT_FOUND:
        return site.page(request, "missing.html", 404, what="")
    return site.page(request, "trouble.html", error.status_code, what=str(error.detail), headers=headers)


async def _trouble(request: Request, error: Exception) -> Response:
    """The log or ClickHouse cannot be asked: the page says so in one line, and how to go on."""
    logger.warning("page_failed", path=request.url.path, error=str(error))
    site: Site = request.app.state.site
    what = str(error)
    if isinstance(error, ClickHouseError) and error.code == UNKNOWN_TABLE:
        what = site.language(request).text("trouble.no_tables")  # the sink makes them when it starts
    return site.page(request, "trouble.html", 503, what=what, headers={"retry-after": "5"})



