"""Rejected: what was refused and why; to look at, mend and send again."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from schemas.errors import Refused, Unreachable
from streams.redrive import Redriven, already_sent, body_of, is_redrivable, redrive, redrive_all
from web.dashboard.export import csv_response
from web.dashboard.queries import rejected as queries
from web.dashboard.queries.partitions import stopped_partitions
from web.dashboard.queries.rejected import STATES
from web.dashboard.site import Site, read_form, with_query


async def rejected(request: Request) -> Response:
    site: Site = request.app.state.site
    reason = request.query_params.get("reason", "")[:500]
    state = request.query_params.get("state", "open")
    state = state if state in STATES else "open"
    before = request.query_params.get("before", "")[:2_000]
    page = await queries.letters(site.analytics, site.workspace, reason, state, before)
    return site.page(
        request,
        "rejected.html",
        reasons=await queries.reasons(site.analytics, site.workspace),
        letters=page.rows,
        next=page.next,
        query={"reason": reason, "state": "" if state == "open" else state},
        reason=reason,
        state=state,
        states=STATES,
        sent=_count(request, "sent"),
        refused=_count(request, "refused"),
        held=_count(request, "held"),
        stopped=await stopped_partitions(site.analytics, site.log),
        goes_on=_count(request, "goes_on"),
        why=request.query_params.get("why", "")[:500],
    )


def _count(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


async def rejected_csv(request: Request) -> Response:
    site: Site = request.app.state.site
    page = await queries.letters(site.analytics, site.workspace, request.query_params.get("reason", ""),
                                 request.query_params.get("state", "all"), most=100_000)  # fmt: skip
    columns = ("id", "at", "refused_by", "processor", "reason", "field", "value", "mend", "source", "message_id", "key",
               "topic", "log_partition", "log_offset", "is_mended", "mended_at")  # fmt: skip
    return csv_response("rejected", columns, page.rows)


async def letter(request: Request) -> Response:
    """One dead letter: why, where, the whole record, and an editor to mend it."""
    site: Site = request.app.state.site
    row = await queries.letter(site.analytics, site.workspace, request.path_params["id"])
    if row is None:
        return site.page(request, "missing.html", 404, what="")
    return _letter_page(request, row, sent=request.query_params.get("sent", "") == "1")


def _letter_page(request: Request, row: dict[str, Any], *, status: int = 200, text: str | None = None,
                 refused: Refused | None = None, trouble: str = "", sent: bool = False) -> Response:  # fmt: skip
    site: Site = request.app.state.site
    found = queries.rejected_of(row)
    return site.page(
        request,
        "letter.html",
        status,
        letter=row,
        is_redrivable=is_redrivable(found) and not row["is_mended"],
        body=body_of(found) if text is None else text,
        refused=refused,
        trouble=trouble,
        sent=sent,
    )


async def send_again(request: Request) -> Response:
    """Re-drives one letter, with the text of the editor. Refused again: says why, keeps the text, changes nothing."""
    site: Site = request.app.state.site
    row = await queries.letter(site.analytics, site.workspace, request.path_params["id"])
    if row is None:
        return site.page(request, "missing.html", 404, what="")
    found = queries.rejected_of(row)
    text = (await read_form(request)).get("record", "")
    # Forms send CR LF for each end of line; JSON means the same without.
    text = text.replace("\r\n", "\n")
    record = None if text == body_of(found) else text.encode("utf-8", "replace")
    try:
        if row["is_mended"]:
            raise already_sent(row["id"])
        await redrive(site.log, found, record, site.check, site.workspace, site.now())
    except Refused as refused:
        return _letter_page(request, row, status=422, text=text, refused=refused)
    except Unreachable as error:  # what was typed must not be lost
        return _letter_page(request, row, status=503, text=text, trouble=str(error))
    return RedirectResponse(with_query(request.url.path, {"sent": 1}), 303)


async def send_all(request: Request) -> Response:
    """Re-drives all open letters of one reason as they are; those that are refused again stay open."""
    site: Site = request.app.state.site
    reason = (await read_form(request)).get("reason", "")
    if not reason:
        return PlainTextResponse("400: name the reason whose letters are to be sent again.", 400)
    done = await redrive_open(site, reason)
    return RedirectResponse(with_query("/rejected", {"reason": reason, "sent": str(done.sent), "why": done.why,
                                                     "refused": str(done.refused), "held": str(done.held)}),
                            303)  # fmt: skip


async def redrive_open(site: Site, reason: str) -> Redriven:
    """Re-drive the open letters of a reason, or, where it is empty, all of them: those that came first first."""
    found = await queries.open_letters(site.analytics, site.workspace, reason)
    return await redrive_all(site.log, found, site.check, site.workspace, site.now())
