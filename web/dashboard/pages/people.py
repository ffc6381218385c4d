"""People: the list, searched and sorted."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from web.dashboard.export import csv_response
from web.dashboard.queries import people as queries
from web.dashboard.queries.people import COLUMNS, KINDS, MOST_EXPORTED, PAGE, SHOWN_AT_FIRST, SORTS, Wanted
from web.dashboard.site import Site

MOST_COLUMNS = 12


async def people(request: Request) -> Response:
    site: Site = request.app.state.site
    wanted = Wanted.of(request.query_params)
    currency = await queries.main_currency(site.analytics, site.workspace)
    page = await queries.list_people(site.analytics, site.workspace, wanted, currency, PAGE)
    traits = await queries.trait_names(site.analytics, site.workspace)
    columns = _columns(request, traits)
    query = {
        "q": wanted.search,
        "kind": "" if wanted.kind == "all" else wanted.kind,
        "sort": "" if wanted.sort == "last_seen" else wanted.sort,
        "reversed": "1" if wanted.is_reversed else "",
        "columns": request.query_params.get("columns", ""),
    }
    is_turning = request.headers.get("hx-target") == "people"
    return site.page(
        request,
        "people_list.html" if is_turning else "people.html",
        headers={"vary": "HX-Target"},
        wanted=wanted,
        query=query,
        rows=page.rows,
        next=page.next,
        count=await queries.count_people(site.analytics, site.workspace, wanted),
        currency=currency,
        columns=columns,
        all_columns=COLUMNS,
        traits=traits,
        kinds=KINDS,
        sorts=SORTS,
    )


def _columns(request: Request, traits: list[str]) -> list[str]:
    """The columns that are asked for, in the order of the list: our own by name, traits as `trait:NAME`."""
    # A form sends one `column` for each ticked box; links carry them in one `columns`.
    asked = request.query_params.getlist("column") or [
        name for name in request.query_params.get("columns", "").split(",") if name
    ]
    known = {*COLUMNS, *(f"trait:{name}" for name in traits)}
    chosen = [name for name in asked if name in known] or list(SHOWN_AT_FIRST)
    return chosen[:MOST_COLUMNS]


async def people_csv(request: Request) -> Response:
    """The list as CSV, with the same search, at most 100,000 people."""
    site: Site = request.app.state.site
    wanted = Wanted.of(request.query_params)._replace(after="")
    currency = await queries.main_currency(site.analytics, site.workspace)
    page = await queries.list_people(site.analytics, site.workspace, wanted, currency, MOST_EXPORTED)
    names = ("person", "user_id", "name", "email", "phone", "company", "locale", "timezone", "first_seen", "last_seen",
             "events", "visits", "orders")  # fmt: skip
    currencies = sorted({code for row in page.rows for code in row["revenue"]})
    columns = (*names, *(f"revenue_{code}" for code in currencies))
    return csv_response("people", columns, (_flat(row, currencies) for row in page.rows))


def _flat(row: dict[str, Any], currencies: list[str]) -> dict[str, Any]:
    return {**row, **{f"revenue_{code}": row["revenue"].get(code, 0) for code in currencies}}
