"""JSON for `tidewire journeys dry-run`. Each call needs the token of `data/run.json`.

    GET  /api/rehearsal                 what is live, for a dry run elsewhere
    POST /api/journeys/NAME/dry-run     {"from": "2026-01-01", "to": "2026-03-31", "since": …, "yaml": …,
                                         "alone": false}
                                        what the journey would have done; one at a time, in a process of its own
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from schemas.errors import TidewireError
from streams.dry_run import Report, period_of
from streams.dry_run_apart import dry_run_apart
from streams.rehearsal import encode_rehearsal
from web.dashboard.pages.api import ApiError, answered, body_of_request
from web.dashboard.rehearsing import live_rehearsal
from web.dashboard.site import Site


@answered
async def rehearsal(request: Request) -> Any:
    return {"rehearsal": encode_rehearsal(await live_rehearsal(request.app.state.site)).decode()}


@answered
async def dry_run(request: Request) -> Any:
    site: Site = request.app.state.site
    said = await body_of_request(request)
    texts = {name: said.get(name, "") for name in ("from", "to", "since", "yaml")}
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(said.get("alone", False), bool):
        raise ApiError(400, 'Send {"from": "2026-01-01", "to": "2026-03-31"}, and "yaml" as text if not saved.')
    return await dry_run_of(site, request.path_params["name"], texts["from"], texts["to"], since=texts["since"],
                            text=texts["yaml"], alone=said.get("alone", False))  # fmt: skip


async def dry_run_of(
    site: Site, name: str, from_: str, to: str, *, since: str = "", text: str = "", alone: bool = False
) -> Report:
    """What a journey would have done from one day to another, or did.

    Args:
        since: people enter from this day on; empty: from the first day.
        text: a journey as YAML, saved or not, instead of the newest version.

    Raises:
        TidewireError: there is no such journey, a day is none, or the text is wrong; with the mend.
        ApiError: another dry run is under way.
    """
    period = period_of(from_, to, since, site.settings.timezone)
    rehearsal = await live_rehearsal(site)
    if text:
        rehearsal = await asyncio.to_thread(rehearsal.with_draft, name, text)
    if name not in rehearsal.journeys:
        raise TidewireError(f'There is no journey "{name}" that can be read.')
    if site.dry_running.locked():
        raise ApiError(429, "Another dry run is under way. Try again in a moment.")
    async with site.dry_running:
        return await dry_run_apart(site.analytics, rehearsal, name, period, alone=alone)
