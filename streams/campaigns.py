"""Campaigns on their way from their files into the log, when the role dashboard starts.

All of them are told to the stage of coupons each time; what it knows already changes nothing. Only the codes of pools,
which may be many, are left out where it has them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from config.coupons import CampaignRead
from schemas.codes import SEED_BYTES
from schemas.coupons import MOST_STOCKED, Campaign, CouponRecord, Define, Stock, encode_of_coupons
from streams.lines import COUPONS
from streams.log import Log, Outgoing
from streams.sender import append_surely

if TYPE_CHECKING:
    from sinks.analytics import Analytics

log = structlog.get_logger(__name__)

_THERE = """
SELECT campaign, pool, stock, is_gone, definition
FROM coupon_campaigns FINAL WHERE workspace = {workspace:String}
"""


async def take_over(log_: Log, analytics: Analytics, campaigns: Mapping[str, CampaignRead], workspace: str) -> None:
    """Tell the stage of coupons what the files say; a campaign whose file is gone is withdrawn.

    Raises:
        ClickHouseAway: no answer; nothing was changed.
    """
    there = {row["campaign"]: row for row in await analytics.command(_THERE, {"workspace": workspace})}
    for name, read in campaigns.items():
        await _send(log_, Define(workspace=workspace, campaign=read.campaign, seed=secrets.token_bytes(SEED_BYTES)))
        if _lacks_codes(read, there.get(name)):
            codes = iter(read.pool)
            while some := list(islice(codes, MOST_STOCKED)):
                await _send(log_, Stock(workspace=workspace, campaign=name, codes=some))
            log.info("pool_stocked", campaign=name, codes=len(read.pool))
    for name in there.keys() - campaigns.keys():
        if not there[name]["is_gone"]:
            campaign = msgspec.json.decode(there[name]["definition"], type=Campaign)
            await _send(log_, Define(workspace=workspace, campaign=campaign, is_gone=True))
            log.info("campaign_withdrawn", campaign=name)


def _lacks_codes(read: CampaignRead, row: Mapping[str, Any] | None) -> bool:
    """Whether the stage may lack codes of a pool; the last of them may have been lost with a process."""
    return bool(read.pool) and (row is None or row["pool"] != read.campaign.pool or row["stock"] < len(read.pool))


async def _send(log_: Log, record: CouponRecord) -> None:
    await append_surely(log_, COUPONS.topic, [Outgoing(record.workspace.encode(), encode_of_coupons(record))])
