"""Where a visit came from: source, medium and campaign, as web analytics commonly tell them apart."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from processors.context import LONGEST, Facts, campaign_of
from schemas.event import Event

DIRECT = "(direct)"
LONGEST_ADDRESS = 300
# Hosts by a label that tells whose they are, or whole where the label alone says too little.
# Source: the lists of GA4's default channel group, shortened.
_SEARCH = frozenset({"google", "bing", "baidu", "duckduckgo", "yahoo", "yandex", "ecosia", "sogou", "naver", "qwant",
                     "so.com"})  # fmt: skip
_SOCIAL = frozenset({
    "facebook", "instagram", "twitter", "linkedin", "pinterest", "reddit", "youtube", "tiktok", "weibo", "zhihu",
    "xiaohongshu", "douyin", "bilibili", "threads", "x.com", "t.co", "lnkd.in", "vk.com",
})  # fmt: skip


class Touch(NamedTuple):
    """Where somebody came from, and where she landed.

    Attributes:
        source: the utm source, else the host that referred, else `(direct)`.
        medium: the utm medium, `organic`, `social`, `referral`, or empty for direct.
        referrer, landing: addresses without scheme, query and fragment.
    """

    source: str
    medium: str
    campaign: str
    referrer: str
    landing: str


def address_of(event: Event, facts: Facts) -> tuple[str, str]:
    """Address and referrer of the page an event happened on: from the context, else from a page call itself."""
    page = facts.page
    if page is not None and (page.url or page.referrer):
        return page.url, page.referrer
    if event.type == "page":
        try:
            url, referrer = event.properties.get("url"), event.properties.get("referrer")
        except ValueError:  # a number in it that cannot be read
            return "", ""
        return url if isinstance(url, str) else "", referrer if isinstance(referrer, str) else ""
    return "", ""


def touch_of(event: Event, facts: Facts) -> Touch:
    """The touch of an event that opens a visit."""
    url, referrer = address_of(event, facts)
    host, landing = _place(url)
    from_host, from_place = _place(referrer)
    if not landing and event.type == "screen":
        landing = event.name[:LONGEST_ADDRESS]
    campaign = campaign_of(facts, url)
    if campaign is not None:
        return Touch(campaign.source.lower()[:LONGEST] or "(not set)", campaign.medium.lower()[:LONGEST],
                     campaign.name[:LONGEST], from_place, landing)  # fmt: skip
    if not from_host or from_host == host:
        return Touch(DIRECT, "", "", "", landing)
    return Touch(from_host, _medium(from_host), "", from_place, landing)


@lru_cache(maxsize=8192)
def _place(address: str) -> tuple[str, str]:
    """Host, and address without scheme, query and fragment, of a URL: what is left may hold no personal data."""
    if not address:
        return "", ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "", ""
    host = (parts.hostname or "").removeprefix("www.")[:LONGEST]
    path = parts.path if parts.path.startswith("/") else ""
    return host, f"{host}{path}"[:LONGEST_ADDRESS]


def _medium(host: str) -> str:
    signs = {host, *host.split(".")}
    if not _SEARCH.isdisjoint(signs):
        return "organic"
    return "referral" if _SOCIAL.isdisjoint(signs) else "social"
