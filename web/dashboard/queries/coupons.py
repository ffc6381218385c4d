"""Coupon campaigns, and who was given which code, as ClickHouse has it: a second or two behind the log."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from schemas.times import to_ms
from web.dashboard.queries.people import cursor, read_cursor

if TYPE_CHECKING:
    from sinks.analytics import Analytics

PAGE = 50
LATEST_MS = 2**62
CouponIs = Literal["open", "used", "expired"]
STATES: tuple[CouponIs, ...] = get_args(CouponIs)

_STATE = """
multiIf(used_at IS NOT NULL, 'used', expires_at <= fromUnixTimestamp64Milli({now:Int64}, 'UTC'), 'expired', 'open')
"""
_COUPON = f"""
SELECT code, campaign, person, key, worth, unit, given_at, cause, expires_at, used_at, order_id,
    toUnixTimestamp64Milli(given_at) AS given_ms, {_STATE} AS state
FROM coupons_list
WHERE workspace = {{workspace:String}}
"""  # noqa: S608 - all of it stands here
LIST = f"""
{_COUPON}
    AND ({{campaign:String}} = '' OR campaign = {{campaign:String}})
    AND ({{person:String}} = '' OR person = {{person:String}})
    AND ({{state:String}} = '' OR state = {{state:String}})
    AND (given_ms, code) < ({{before:Int64}}, {{before_code:String}})
ORDER BY given_ms DESC, code DESC
LIMIT {{most:UInt32}}
"""
ONE = f"{_COUPON} AND code = {{code:String}}"
CAMPAIGNS = """
SELECT * EXCEPT (person, key),
    most_worth > 0 ? greatest(most_worth - worth_given, 0) : NULL AS worth_left
FROM coupon_campaigns_list
WHERE workspace = {workspace:String} AND ({campaign:String} = '' OR campaign = {campaign:String})
ORDER BY is_gone, campaign
"""
REFUSED = """
SELECT toString(properties.reason) AS reason
FROM event_log
WHERE workspace = {workspace:String} AND event = 'Coupon Refused' AND source = 'tidewire'
    AND timestamp >= now() - INTERVAL 1 DAY AND toString(properties.request) = {request:String}
LIMIT 1
"""


class CouponPage(NamedTuple):
    rows: list[dict[str, Any]]
    next: str


async def campaigns(analytics: Analytics, workspace: str, campaign: str = "") -> list[dict[str, Any]]:
    """Those that there are first, then those that were taken out."""
    return await analytics.query(CAMPAIGNS, {"workspace": workspace, "campaign": campaign})


async def coupons(
    analytics: Analytics, workspace: str, now: datetime, *, campaign: str = "", person: str = "", state: str = "",
    before: str = "", most: int = PAGE,
) -> CouponPage:  # fmt: skip
    """Those that were given last first; `before` is the `next` of the page before."""
    place = read_cursor(before) if before else None
    before_ms, before_code = place if place is not None and isinstance(place[0], int) else (LATEST_MS, "")
    rows = await analytics.query(LIST, {
        "workspace": workspace, "campaign": campaign, "person": person, "state": state, "now": to_ms(now),
        "before": before_ms, "before_code": before_code, "most": most + 1})  # fmt: skip
    shown = rows[:most]
    return CouponPage(shown, cursor(shown[-1]["given_ms"], shown[-1]["code"]) if len(rows) > most else "")


async def coupon(analytics: Analytics, workspace: str, now: datetime, code: str) -> dict[str, Any] | None:
    rows = await analytics.query(ONE, {"workspace": workspace, "code": code, "now": to_ms(now)})
    return rows[0] if rows else None


async def why_refused(analytics: Analytics, workspace: str, request: str) -> str:
    """Why a request of the last day was refused; empty: it was not, as far as it is known."""
    rows = await analytics.query(REFUSED, {"workspace": workspace, "request": request})
    return str(rows[0]["reason"]) if rows else ""
