"""What the context of an event says, as far as processors ask: read once per event, typed, and never an error.

Anybody can send anything as `context`. A field of another type than Segment's specification says counts as absent;
the event is good without it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec

from schemas.event import Event

LONGEST = 200  # characters of any text that is kept from a context


class Campaign(msgspec.Struct, gc=False):
    """The utm parameters, as the SDKs read them from the address of the page."""

    name: str = ""
    source: str = ""
    medium: str = ""
    term: str = ""
    content: str = ""


class Page(msgspec.Struct, gc=False):
    url: str = ""
    referrer: str = ""


class Device(msgspec.Struct, gc=False):
    id: str = ""
    manufacturer: str = ""
    model: str = ""
    name: str = ""
    type: str = ""


class Named(msgspec.Struct, gc=False):
    name: str = ""
    version: str = ""


class Facts(msgspec.Struct, rename="camel", gc=False):
    """Of Segment's context what processors use; other fields are skipped unread."""

    locale: str = ""
    timezone: str = ""
    user_agent: str = ""
    campaign: Campaign | None = None
    page: Page | None = None
    device: Device | None = None
    os: Named | None = None
    library: Named | None = None


_decode = msgspec.json.Decoder(Facts).decode
_PARTS: dict[str, type[msgspec.Struct]] = {
    "campaign": Campaign, "page": Page, "device": Device, "os": Named, "library": Named,
}  # fmt: skip


def facts_of(event: Event) -> Facts:
    """The facts of an event's context; asked for again, the same object."""
    known = event.__dict__
    if "_facts" in known:
        return cast(Facts, known["_facts"])
    try:
        facts = _decode(event.raw_context)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        facts = _leniently(event)
    known["_facts"] = facts
    return facts


def _leniently(event: Event) -> Facts:
    try:
        context = event.context
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Facts()
    texts = _texts(Facts, context)
    parts = {name: part(**_texts(part, context[name])) for name, part in _PARTS.items()
             if isinstance(context.get(name), dict)}  # fmt: skip
    return Facts(**texts, **parts)  # type: ignore[arg-type]


def _texts(struct: type[msgspec.Struct], found: Any) -> dict[str, str]:
    """The text fields of `struct` that `found` gives as text."""
    fields = ((field.name, found.get(field.encode_name)) for field in msgspec.structs.fields(struct))
    return {name: value for name, value in fields if isinstance(value, str) and name not in _PARTS}


def campaign_of(facts: Facts, url: str) -> Campaign | None:
    """The campaign of an event: from `context.campaign`, else from the utm parameters of its address.

    Source of the names: the campaign URL parameters of Google Analytics.
    """
    campaign = facts.campaign
    if campaign is not None and (campaign.source or campaign.name or campaign.medium):
        return campaign
    if "utm_" not in url and "clid=" not in url:
        return None
    return _campaign_of_url(url)


@lru_cache(maxsize=4096)
def _campaign_of_url(url: str) -> Campaign | None:
    try:
        asked = parse_qs(urlsplit(url).query, max_num_fields=100)
    except ValueError:
        return None
    found = {field: asked[f"utm_{utm}"][0] for utm, field in _UTM if f"utm_{utm}" in asked}
    if not found.keys() & {"source", "medium", "name"}:
        for click_id, source in (("gclid", "google"), ("msclkid", "bing")):  # automatic tagging says no more than this
            if click_id in asked:
                return Campaign(source=source, medium="cpc")
        return None
    return Campaign(**found)


_UTM = (("campaign", "name"), ("source", "source"), ("medium", "medium"), ("term", "term"), ("content", "content"))
