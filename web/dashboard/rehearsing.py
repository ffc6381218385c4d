"""What is live, to be rehearsed: the newest journeys, segments, templates and limits as the log has them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from config.journeys import JourneyRead
from schemas.journeys import LedJourney
from schemas.segments import Said
from streams.rehearsal import Rehearsal

if TYPE_CHECKING:
    from web.dashboard.site import Site


async def live_rehearsal(site: Site) -> Rehearsal:
    """The newest version of each journey that can be read, with all that it asks for, and how it is steered."""
    known = await site.segments.known()
    await site.templates.look()
    await site.journeys.look()
    # A segment is judged by its definition whether it is live already or not.
    segments = {name: Said(name=name, version=said.version, when=said.when, is_live=True)
                for name, said in known.wanted.items() if not said.is_gone}  # fmt: skip
    return await asyncio.to_thread(_rehearsal, site, segments, known.limits)


def _rehearsal(site: Site, segments: Mapping[str, Said], limits: Mapping[str, Any]) -> Rehearsal:
    settings = site.settings
    journeys = {}
    for name in site.journeys.newest:
        read, saved = site.journeys.read(name), site.journeys.saved(name)
        if isinstance(read, JourneyRead) and saved is not None:
            status = site.journeys.steering(name).status
            journeys[name] = LedJourney(name=name, version=saved.version, said=read.plain, status=status)
    return Rehearsal(settings.config, settings.workspace, settings.timezone, segments, journeys,
                     site.journeys.mails(site.templates.newest), limits)  # fmt: skip
