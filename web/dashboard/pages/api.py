"""JSON for `tidewire` commands that ask a running process. Each call needs the token of `data/run.json`.

    GET  /api/status                                  how much there is, and how far behind ClickHouse is
    GET  /api/person?key=KEY                          everything about one person
    GET  /api/rejected?reason=…&state=open&limit=50   dead letters and their reasons
    GET  /api/rejected/ID                             one, with its whole record
    POST /api/rejected/redrive  {"id": …, "record": …} or {"reason": …} or {"all": true}
    POST /api/sql               {"query": …}          rows of a SELECT
    GET  /api/partitions                              those that stand still, and why
    POST /api/partitions/go-on  {"partition": 3, "let_through": false, "by": "ann"}
    POST /api/backup            {"to": "/a/folder"}   begins a backup; one at a time
    GET  /api/backup                                  how it is getting on: running, done or failed
    …    /api/segments…                               see segments_api.py
    …    /api/rehearsal, /api/journeys/NAME/dry-run   see journey_dry_runs.py
    …    /api/journeys…                               see journeys_api.py
    …    /api/templates…                              see templates_api.py
    …    /api/coupons…                                see coupons.py
    GET  /api/why?person=KEY&about=NAME               see why_api.py

An answer of 200 has what was asked for; any other `{"error": "one line for a person"}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import Refused, TidewireError, Unreachable
from schemas.keys import split_key
from streams.backup import summary, take_backup
from streams.partitions import let_go_on
from streams.redrive import already_sent, body_of, redrive
from web.dashboard.guard import has_token
from web.dashboard.pages.rejected import redrive_open
from web.dashboard.queries import commerce, people
from web.dashboard.queries import overview as overview_queries
from web.dashboard.queries import person as person_queries
from web.dashboard.queries import rejected as queries
from web.dashboard.queries.partitions import stopped_partitions
from web.dashboard.queries.segments import segments_of
from web.dashboard.site import Site

LARGEST_BODY_BYTES = 1024 * 1024
MOST_LETTERS = 1_000
LONGEST_NAME = 100

_encode = msgspec.json.Encoder(decimal_format="number").encode
Call = Callable[[Request], Awaitable[Any]]


class ApiError(TidewireError):
    """An answer other than 200."""

    def __init__(self, status: int, what: str) -> None:
        self.status = status
        super().__init__(what)


def answered(call: Call) -> Callable[[Request], Awaitable[Response]]:
    """A call as an endpoint: the token is checked, what it returns becomes JSON, and errors their status."""

    @wraps(call)
    async def endpoint(request: Request) -> Response:
        site: Site = request.app.state.site
        if not has_token(request, site.token):
            return _json({"error": "This needs the token of data/run.json, as Authorization: Bearer TOKEN."}, 403)
        try:
            return _json(await call(request))
        except ApiError as error:
            return _json({"error": str(error)}, error.status)
        except Unreachable as error:
            return _json({"error": str(error)}, 503)
        except TidewireError as error:
            return _json({"error": str(error)}, 422)

    return endpoint


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")


async def body_of_request(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise ApiError(413, f"A request may have {LARGEST_BODY_BYTES} bytes.")
    try:
        value = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return value


@answered
async def status(request: Request) -> Any:
    site: Site = request.app.state.site
    known = await overview_queries.extent(site.analytics, site.workspace)
    fresh = await site.freshness()
    return {
        "workspace": site.workspace,
        "events": known.events if known else 0,
        "is_current": fresh.is_current,
        "clickhouse_behind": {"records": fresh.sink.records, "seconds": fresh.sink.waited.total_seconds()},
        "stage_behind": {"records": fresh.stage.records, "seconds": fresh.stage.waited.total_seconds()},
        "trouble": fresh.trouble,
    }


@answered
async def person(request: Request) -> Any:
    """`key` may be a whole person key, or a user id, an anonymous id or an e-mail address of this workspace."""
    site: Site = request.app.state.site
    asked = request.query_params.get("key", "")
    found = await find_person(site, asked)
    timeline = await found.person.timeline("", "", most=20)
    return {
        "person": found.person.key,
        "portrait": found.portrait,
        "identities": found.identities,
        "events": found.counts,
        "orders": await commerce.orders_of(found.person),
        "segments": await segments_of(site.analytics, split_key(found.person.key)[0], found.person.key),
        "timeline": [person_queries.body_of(row) for row in timeline.rows],
    }


class Found(NamedTuple):
    """Somebody, and what was asked of her on the way."""

    person: person_queries.Person
    portrait: dict[str, Any] | None
    identities: list[dict[str, Any]]
    counts: list[dict[str, Any]]


async def find_person(site: Site, asked: str) -> Found:
    """Somebody by a person key, a user id, an anonymous id or an e-mail address.

    Raises:
        ApiError: there is nobody, or several have this address.
    """
    found = await _find(site, _keys_of(asked, site.workspace))
    if found is None and "@" in asked:
        keys = await people.by_email(site.analytics, site.workspace, asked)
        if len(keys) > 1:
            raise ApiError(409, f"{asked} is the address of several people: {', '.join(keys)}. Name one by her key.")
        found = await _find(site, keys)
    if found is None:
        raise ApiError(404, f"There is nobody by the key {asked!r}. Search the people at /people.")
    return found


async def find_key(site: Site, asked: str) -> str:
    """The person key of somebody, named and refused as by `find_person`; all else of her is not asked for."""
    for key in _keys_of(asked, site.workspace)[:1]:
        if await people.is_known(site.analytics, split_key(key)[0], key):
            return key
    return (await find_person(site, asked)).person.key


async def _find(site: Site, keys: Iterable[str]) -> Found | None:
    """The first of them that anything is known of."""
    for key in keys:
        someone = person_queries.Person(site.analytics, split_key(key)[0], key)
        holder = await someone.holder()
        if holder != key:
            someone = person_queries.Person(site.analytics, split_key(holder)[0], holder)
        found = Found(someone, await someone.portrait(), await someone.identities(), await someone.counts())
        if found.portrait is not None or found.counts:
            return found
    return None


def _keys_of(asked: str, workspace: str) -> list[str]:
    try:
        split_key(asked)
    except ValueError:
        return [f"{workspace}/u:{asked}", f"{workspace}/a:{asked}"] if asked else []
    return [asked]


@answered
async def rejected(request: Request) -> Any:
    site: Site = request.app.state.site
    limit = request.query_params.get("limit", "50")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MOST_LETTERS):
        raise ApiError(400, f"limit must be 1 to {MOST_LETTERS}, not {limit!r}.")
    page = await queries.letters(site.analytics, site.workspace, request.query_params.get("reason", ""),
                                 request.query_params.get("state", "open"), most=int(limit))  # fmt: skip
    reasons = await queries.reasons(site.analytics, site.workspace)
    return {"letters": page.rows, "reasons": [reason._asdict() for reason in reasons], "has_more": bool(page.next)}


@answered
async def letter(request: Request) -> Any:
    site: Site = request.app.state.site
    row = await _letter(site, request.path_params["id"])
    return {**row, "body": body_of(queries.rejected_of(row))}


async def _letter(site: Site, letter_id: str) -> dict[str, Any]:
    row = await queries.letter(site.analytics, site.workspace, letter_id)
    if row is None:
        raise ApiError(404, f"There is no rejected record {letter_id!r}. `tidewire rejected list` names them.")
    return row


@answered
async def redrive_letters(request: Request) -> Any:
    """One by `id` (with `record`, the mended JSON, as text or object), all open ones of a `reason`, or `all`."""
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    if asked.get("id"):
        row = await _letter(site, str(asked["id"]))
        if row["is_mended"]:
            raise already_sent(row["id"])
        found = queries.rejected_of(row)
        record = asked.get("record")
        raw = None if record is None else record.encode() if isinstance(record, str) else _encode(record)
        try:
            event = await redrive(site.log, found, raw, site.check, site.workspace, site.now())
        except Refused as refused:
            raise ApiError(422, f"It would be refused again: {refused}.") from None
        return {"sent": 1, "refused": 0, "held": 0, "why": "", "message_id": event.message_id, "attempt": event.attempt}
    if not asked.get("reason") and asked.get("all") is not True:
        raise ApiError(400, 'Name what to send again: {"id": …}, {"reason": …} or {"all": true}.')
    return (await redrive_open(site, "" if asked.get("all") is True else str(asked["reason"])))._asdict()


@answered
async def sql(request: Request) -> Any:
    site: Site = request.app.state.site
    query = (await body_of_request(request)).get("query")
    if not isinstance(query, str) or not query.strip():
        raise ApiError(400, 'Send {"query": "SELECT …"}.')
    return {"rows": await site.analytics.query(query)}


@answered
async def partitions(request: Request) -> Any:
    site: Site = request.app.state.site
    return {"stopped": [each._asdict() for each in await stopped_partitions(site.analytics, site.log)]}


@answered
async def partition_goes_on(request: Request) -> Any:
    """A partition that runs is not disturbed by it."""
    site: Site = request.app.state.site
    asked = await body_of_request(request)
    partition = asked.get("partition")
    if not isinstance(partition, int) or isinstance(partition, bool):
        raise ApiError(400, 'Name the partition: {"partition": 3}.')
    by = str(asked.get("by", ""))[:LONGEST_NAME]
    note = await let_go_on(site.log, partition, by=by, let_through=asked.get("let_through") is True)
    return {"partition": partition, "let_through": note.let_through, "until": note.offset}


@answered
async def begin_backup(request: Request) -> Any:
    """This process owns the log and chDB, so it makes the backup; whoever asked looks again."""
    site: Site = request.app.state.site
    to = (await body_of_request(request)).get("to")
    if not isinstance(to, str) or not Path(to).is_absolute():
        raise ApiError(400, 'Send {"to": "/the/folder"}, an absolute path.')
    if site.backup is not None and not site.backup.done():
        raise ApiError(409, "A backup is being made. Wait for it.")
    site.backup = asyncio.create_task(take_backup(site.log, site.analytics, site.settings, Path(to)))
    return {"state": "running"}


@answered
async def backup_state(request: Request) -> Any:
    site: Site = request.app.state.site
    if site.backup is None:
        raise ApiError(404, "No backup was begun since this process started.")
    if not site.backup.done():
        return {"state": "running"}
    error = site.backup.exception()
    if error is not None:
        return {"state": "failed", "why": str(error) or type(error).__name__}
    return {"state": "done", "done": summary(site.backup.result())}
