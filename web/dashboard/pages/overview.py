"""Overview: how many people, events, orders, how much revenue, from where, and compared with before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from web.dashboard.export import csv_response
from web.dashboard.language import Language
from web.dashboard.queries import commerce
from web.dashboard.queries.overview import METRICS, MOST_RANKS, Overview, Rank, Series, Total, choose_range, extent
from web.dashboard.ranges import RANGES, Range
from web.dashboard.site import Site

SOURCES = ("channel", "source", "campaign", "write_key")


class Tile(NamedTuple):
    """One number of the strip: its total, the stretch before, its course, and a line of detail."""

    metric: str
    value: str
    total: Total
    course: list[int | Decimal]
    note: str


async def overview(request: Request) -> Response:
    site: Site = request.app.state.site
    known = await extent(site.analytics, site.workspace)
    if known is None:
        return site.page(request, "overview_empty.html", **sending(site, request))
    language = site.language(request)
    span = choose_range(request.query_params, known, site.now(), language.zone_name)
    numbers = Overview(site.analytics, site.workspace, span)
    currencies = await commerce.currencies(numbers)
    metric = request.query_params.get("metric", "people")
    metric = metric if metric in METRICS else "people"
    currency = request.query_params.get("currency", "")
    currency = currency if currency in currencies else (currencies[0] if currencies else "")
    by = request.query_params.get("by", "channel")
    by = by if by in SOURCES else "channel"
    query = {name: request.query_params.get(name, "") for name in ("range", "from", "to", "metric", "currency", "by")}

    # Side by side: ClickHouse answers several at a time.
    totals, events, new, orders, top_events = await asyncio.gather(
        numbers.people_and_events(), numbers.event_series(), numbers.new_people(),
        commerce.order_series(numbers, currency), numbers.top_events(),
    )  # fmt: skip
    source_ranks, products, fresh = await asyncio.gather(
        _sources(numbers, by), commerce.products(numbers), site.freshness()
    )
    anonymous = [everybody - known for everybody, known in
                 zip(new["new_people"].now, new["identified"].now, strict=True)]  # fmt: skip
    series = {**events, **new, **orders}
    tiles = _tiles(language, totals, series, currency, len(currencies))
    return site.page(
        request,
        "overview.html",
        tiles=tiles,
        metric=metric,
        series=series[metric],
        new=new,
        new_anonymous=anonymous,
        currency=currency,
        currencies=currencies,
        span=span,
        known=known,
        ranges=RANGES,
        query=query,
        by=by,
        sources=SOURCES,
        top_events=top_events,
        source_ranks=source_ranks,
        products=products,
        most=MOST_RANKS,
        last_day=span.end - timedelta(milliseconds=1),
        freshness=fresh,
    )


def sending(site: Site, request: Request) -> dict[str, Any]:
    """What a page needs to show how the first event is sent."""
    return {
        "address": f"{request.url.scheme}://{request.url.netloc}",
        "write_key": site.settings.write_keys.partition(",")[0].strip() or "WRITE_KEY",
    }


def _tiles(language: Language, totals: Mapping[str, Total], series: Mapping[str, Series], currency: str,
           currency_count: int) -> list[Tile]:  # fmt: skip
    identified, people = totals["identified"].now, totals["people"].now
    note_people = language.text("overview.split", identified=language.compact(identified),
                                anonymous=language.compact(people - identified))  # fmt: skip
    new = _sum(series["new_people"])
    money = _sum(series["revenue"])
    orders = _sum(series["orders"])
    mean = commerce.mean_order(series, money)
    note_orders = "" if mean is None else language.text("overview.mean_order", amount=language.money(mean, currency))
    note_money = language.text("overview.other_currencies", n=currency_count - 1) if currency_count > 1 else ""
    new_identified = _sum(series["identified"]).now
    note_new = language.text("overview.split", identified=language.compact(new_identified),
                             anonymous=language.compact(new.now - new_identified)) if new.now else ""  # fmt: skip
    per_person = language.number(totals["events"].now / people, 1) if people else ""
    note_events = language.text("overview.per_person", n=per_person) if people else ""
    amount = money.now if currency_count else None
    shown = language.money(amount, currency, compact=True)
    if shown != language.money(amount, currency):
        note_money = " · ".join(filter(None, (language.money(amount, currency), note_money)))

    def whole(number: int | Decimal) -> str:
        return language.compact(number, whole_below=1_000_000)

    return [
        Tile("people", whole(people), totals["people"], series["people"].now, note_people),
        Tile("new_people", whole(new.now), new, series["new_people"].now, note_new),
        Tile("events", whole(totals["events"].now), totals["events"], series["events"].now, note_events),
        Tile("orders", whole(orders.now), orders, series["orders"].now, note_orders),
        Tile("revenue", shown, money, series["revenue"].now, note_money),
    ]


def _sum(series: Series) -> Total:
    return Total(sum(series.now), None if series.before is None else sum(series.before))


async def _sources(numbers: Overview, by: str) -> list[Rank]:
    return await (numbers.write_keys() if by == "write_key" else commerce.visit_sources(numbers, by))


async def table(request: Request) -> Response:
    """The table behind a chart, as CSV: `/overview/NAME.csv` with the query of the page."""
    site: Site = request.app.state.site
    known = await extent(site.analytics, site.workspace)
    name = request.path_params["name"]
    if known is None:
        return PlainTextResponse("404: there are no events yet, so there is no table.", 404)
    span = choose_range(request.query_params, known, site.now(), site.language(request).zone_name)
    numbers = Overview(site.analytics, site.workspace, span)
    if name in ("people", "events"):
        return _series_csv(name, span, (await numbers.event_series())[name])
    if name == "new_people":
        new = await numbers.new_people()
        rows = zip(_series_rows(new["new_people"], name), new["identified"].now, strict=True)
        return csv_response(name, ("start", name, "identified", "before"),
                            ({**row, "identified": identified} for row, identified in rows))  # fmt: skip
    if name in ("orders", "revenue"):
        currencies = await commerce.currencies(numbers)
        currency = request.query_params.get("currency", "")
        currency = currency if currency in currencies else (currencies[0] if currencies else "")
        rows_of = _series_rows((await commerce.order_series(numbers, currency))[name], name)
        of_all = "" if name == "orders" else currency
        columns = ("start", name, "before", "currency")
        return csv_response(name, columns, ({**row, "currency": of_all} for row in rows_of))
    if name == "top_events":
        return _ranks_csv(name, await numbers.top_events())
    if name == "products":
        return _products_csv(await commerce.products(numbers))
    by = request.query_params.get("by", "channel")
    if name == "sources" and by in SOURCES:
        return _ranks_csv(f"sources_by_{by}", await _sources(numbers, by))
    return PlainTextResponse("404: there is no such table.", 404)


def _series_csv(name: str, span: Range, series: Series) -> Response:
    return csv_response(name, ("start", name, "before"), _series_rows(series, name))


def _series_rows(series: Series, name: str) -> Iterable[dict[str, object]]:
    before: Sequence[int | Decimal | None] = series.before or [None] * len(series.now)
    for step, value, earlier in zip(series.steps, series.now, before, strict=True):
        yield {"start": step, name: value, "before": earlier}


def _ranks_csv(name: str, ranks: Iterable[Rank]) -> Response:
    return csv_response(name, Rank._fields, (rank._asdict() for rank in ranks))


def _products_csv(products: Sequence[commerce.Product]) -> Response:
    currencies = sorted({code for product in products for code in product.revenue})
    columns = ("product_id", "name", "units", "orders", "before", *(f"revenue_{code}" for code in currencies))
    rows = ({**product._asdict(), **{f"revenue_{code}": amount for code, amount in product.revenue.items()}}
            for product in products)  # fmt: skip
    return csv_response("products", columns, rows)


async def freshness(request: Request) -> Response:
    """The line that says how far behind the numbers are; asked for again and again by the page."""
    site: Site = request.app.state.site
    headers: dict[str, str] = {}
    if request.query_params.get("until") == "events" and await extent(site.analytics, site.workspace):
        headers["hx-refresh"] = "true"  # an empty page waits for the first event
    return site.page(request, "freshness.html", headers=headers, freshness=await site.freshness())

