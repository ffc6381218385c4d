"""JSON for `tidewire message …`. Each call needs the token of `data/run.json`.

    POST /api/messages                {"template": …, "to": …, "given": {…}, "by": …, "once": …}   orders one
    GET  /api/messages?state=…&template=…&person=…   the newest first
    GET  /api/messages/ID             one, with what it said where it stayed here
    POST /api/messages/ID/settle      {"as": "sent" | "failed" | "again", "by": …}
    POST /api/messages/report         {"mail": …}   a report of delivery or a complaint, whole, in Base64
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from starlette.requests import Request

from sinks.messages.reports import Report, read_report
from streams.ordering import settle
from streams.receipts import take_report
from web.dashboard.pages.api import LARGEST_BODY_BYTES, LONGEST_NAME, ApiError, answered, body_of_request, find_key
from web.dashboard.pages.messages import SETTLE, order_for
from web.dashboard.queries import messages as queries
from web.dashboard.queries.messages import STATES
from web.dashboard.site import Site

MOST = 1_000
BY_COMMAND = "cli"


@answered
async def send(request: Request) -> Any:
    site: Site = request.app.state.site
    body = await body_of_request(request)
    given = body.get("given", {})
    if not isinstance(given, dict):
        raise ApiError(422, "`given` must be a JSON object.")
    wanted = await order_for(site, _text(body, "template"), _text(body, "to"), given, by=_by(body),
                             once=_text(body, "once", ""))  # fmt: skip
    return {"message": wanted.id, "to": wanted.to, "template": wanted.template, "channel": wanted.channel}


@answered
async def messages(request: Request) -> Any:
    site: Site = request.app.state.site
    asked = request.query_params
    state = asked.get("state", "")
    if state and state not in STATES:
        raise ApiError(422, f"There is no state {state!r:.50}; there are: {', '.join(STATES)}.")
    person = asked.get("person", "")
    key = await find_key(site, person) if person else ""
    most = int(asked["most"]) if asked.get("most", "").isdecimal() and len(asked["most"]) < 9 else queries.PAGE
    page = await queries.messages(site.analytics, site.workspace, state=state, template=asked.get("template", ""),
                                  person=key, most=min(most, MOST))  # fmt: skip
    return {"messages": page.rows}


@answered
async def message(request: Request) -> Any:
    site: Site = request.app.state.site
    row = await _row(site, request.path_params["id"])
    return {**row, "content": await queries.kept(site.analytics, site.workspace, row["id"])}


@answered
async def decide(request: Request) -> Any:
    site: Site = request.app.state.site
    row = await _row(site, request.path_params["id"])
    body = await body_of_request(request)
    choices = SETTLE.get(row["state"], ())
    as_ = next((each for each in choices if each == body.get("as")), None)
    if as_ is None:
        may = f"only as {', '.join(choices)}" if choices else "no more"
        raise ApiError(422, f"A message that is {row['state']} can be settled {may}.")
    await settle(site.log, row["key"], row["id"], as_, _by(body))
    return {"message": row["id"], "as": as_}


@answered
async def report(request: Request) -> Any:
    """What a server reports of messages that had left."""
    site: Site = request.app.state.site
    try:
        mail = b64decode(_text(await body_of_request(request), "mail", most=LARGEST_BODY_BYTES), validate=True)
    except ValueError:
        raise ApiError(422, "`mail` must be Base64.") from None
    reports = read_report(mail)
    if not reports:
        raise ApiError(422, "This mail is no report of delivery, and no complaint.")
    return {"reports": [await _take(site, each) for each in reports]}


async def _take(site: Site, said: Report) -> dict[str, str]:
    told = {"message": said.message_id, "kind": said.kind, "address": said.address, "why": said.why}
    row = await queries.message(site.analytics, site.workspace, said.message_id) if said.message_id else None
    if row is None:  # anybody may write a report
        return {**told, "done": "nothing: it names no message of ours"}
    return {**told, "done": await take_report(site.log, said, row, site.now())}


async def _row(site: Site, id_: str) -> dict[str, Any]:
    row = await queries.message(site.analytics, site.workspace, id_)
    if row is None:
        raise ApiError(404, f"There is no message {id_!r:.100}; one that was ordered just now takes a second or two.")
    return row


def _text(body: dict[str, Any], name: str, otherwise: str | None = None, most: int = 1_000) -> str:
    value = body.get(name, otherwise)
    if not isinstance(value, str) or (otherwise is None and not value):
        raise ApiError(422, f"`{name}` must be a text.")
    return value[:most]


def _by(body: dict[str, Any]) -> str:
    return _text(body, "by", BY_COMMAND)[:LONGEST_NAME]
