"""The tables of coupons: what came of each campaign, and of each coupon that was given."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from processors.base import Table

Few = Annotated[str, "LowCardinality(String)"]


class CampaignRow(msgspec.Struct, frozen=True):
    """A campaign, and what came of it.

    Attributes:
        campaign: its name.
        title: by language.
        about: what it is for.
        series: prefix and length of its generated codes; empty where it has a pool.
        pool: digest of the codes of its pool; empty where they are generated.
        worth: of one coupon, in `unit`.
        unit: a currency, or percent.
        expires: until when a coupon is good, as it was written.
        expires_days: for so many days after it was given a coupon is good; 0: until `ends_at`.
        ends_at: from then on nothing is given.
        definition: the campaign as its file says it, as JSON.
        most_codes: that are given; 0: as many as there are.
        most_worth: that is given; 0: without end.
        stock: codes of its pool, or those that its series may give at most.
        codes_left: that can still be given.
        given, refused, used, misused: how often.
        worth_given: of all that were given; worth_used: of those that were used.
        is_gone: its file was taken out.
        changed_at: when any of this changed.
    """

    campaign: str
    title: dict[str, str]
    about: str
    series: Few
    pool: str
    worth: Decimal
    unit: Few
    expires: str
    expires_days: float
    ends_at: datetime | None
    definition: str
    most_codes: int
    most_worth: Decimal
    stock: int
    codes_left: int
    given: int
    refused: int
    used: int
    misused: int
    worth_given: Decimal
    worth_used: Decimal
    is_gone: bool
    changed_at: datetime


class CouponRow(msgspec.Struct, frozen=True):
    """A coupon that was given to somebody.

    Attributes:
        code: in capital letters.
        campaign: that it is of.
        worth: in `unit`, a currency or percent.
        given_at: when; cause: what asked for it.
        expires_at: from then on it is no longer good.
        used_at: when it was used; order_id: by which order.
    """

    code: str
    campaign: Few
    worth: Decimal
    unit: Few
    given_at: datetime
    cause: str
    expires_at: datetime | None
    used_at: datetime | None
    order_id: str


CAMPAIGNS = Table("coupon_campaigns", CampaignRow, ("campaign",),
                  "Coupon campaigns, and what came of each. They are nobody's: `key` is the workspace.")  # fmt: skip
COUPONS = Table("coupons", CouponRow, ("code",), "Coupons that were given, with whom they were given to.")
TABLES = (CAMPAIGNS, COUPONS)
