"""Coupons: topic `coupon_requests`, and what is remembered of campaigns, codes and people.

All that happens to the coupons of a workspace stands in topic `coupon_requests`, in order, keyed by the workspace:

    Define  a campaign is to be so from here on
    Stock   codes of a campaign's pool
    Give    somebody is to have a coupon of a campaign
    Redeem  a code was used

The stage of coupons (`streams/coupons.py`) folds them into `CouponState`s; what it decides is an event of hers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from schemas.codes import LONGEST, PREFIX
from schemas.keyed import Keyed
from schemas.times import DAY_MS

GIVEN, REFUSED, USED, MISUSED = "Coupon Given", "Coupon Refused", "Coupon Used", "Coupon Misused"
TOLD = frozenset({GIVEN, REFUSED, USED, MISUSED})  # what the stage says; no deeds of hers
REDEEMED, ORDERED = "Coupon Redeemed", "Order Completed"  # what shops say: with `code`, and with `coupon`
HISTORY_MS = 7 * DAY_MS  # an event that comes so late is history that is brought in
PERCENT = "percent"  # unit of a worth that is no money
WhyRefused = Literal["unknown", "withdrawn", "expired", "budget", "empty"]
"""There is no such campaign; its file was taken out; its day is over; its budget is spent; there are no codes left."""
WhyMisused = Literal["unknown", "not_hers", "twice", "expired"]
"""Nobody was given this code; somebody else was; it was used before; it was too late."""


MOST_STOCKED = 1_000  # codes of one record
LONGEST_WINDOW_MS = 3_660 * DAY_MS
EARLIEST_MS = -62_135_596_800_000  # the beginning of the year 1
LATEST_MS = 253_402_300_799_999  # the end of the year 9999
MOST_WORTH = 10**16  # in 1/10,000
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Text = Annotated[str, msgspec.Meta(max_length=400)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]


class Campaign(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A campaign, as its file says.

    Attributes:
        name: of the file.
        title: its name for people, by language (`en`, `zh`).
        about: what it is for.
        prefix, length: of its generated codes; empty and 0 where it has a pool.
        pool: digest of the codes of its pool; empty where they are generated.
        worth: in 1/10,000 of `unit`, a currency or `percent`.
        expires: as it was written.
        expires_after_ms: a coupon is good for so long after it was given; 0: until `ends_ms`.
        ends_ms: from then on nothing is given, and no coupon is good, in ms since 1970; 0: never.
        most_codes: that are given; 0: as many as there are.
        most_worth: that is given, in 1/10,000 of `unit`; 0: without end.
        when: the condition on which it is given by itself, as it was written; empty: it is not.
    """

    name: Name
    title: dict[str, str] = {}
    about: str = ""
    prefix: Annotated[str, msgspec.Meta(pattern=rf"^({PREFIX})?$")] = ""
    length: Annotated[int, msgspec.Meta(ge=0, le=LONGEST)] = 0
    pool: Text = ""
    worth: Annotated[int, msgspec.Meta(gt=0, le=MOST_WORTH)]
    unit: Annotated[str, msgspec.Meta(pattern=rf"^([A-Z]{{3}}|{PERCENT})$")]
    expires: Text
    expires_after_ms: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_WINDOW_MS)] = 0
    ends_ms: Moment = 0
    most_codes: Annotated[int, msgspec.Meta(ge=0)] = 0
    most_worth: Annotated[int, msgspec.Meta(ge=0, le=MOST_WORTH)] = 0
    when: dict[str, Any] = {}

    @property
    def series(self) -> str:
        """The series that its codes are from: campaigns with the same prefix and length share one."""
        return f"{self.prefix}/{self.length}"


class OfCoupons(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True):
    """What all records of topic `coupon_requests` carry: whose coupons they are about."""

    workspace: str


class Define(OfCoupons, tag="define", kw_only=True):
    """A campaign is to be so from here on.

    Attributes:
        seed: 32 random bytes, for a series that has none yet; the first in the log counts.
        is_gone: nothing is given any more; what was given stays good.
    """

    campaign: Campaign
    seed: bytes = b""
    is_gone: bool = False


class Stock(OfCoupons, tag="stock", kw_only=True):
    """Codes of a campaign's pool. Those that it has already change nothing."""

    campaign: Name
    codes: Annotated[list[Text], msgspec.Meta(max_length=MOST_STOCKED)]


class Give(OfCoupons, tag="give", kw_only=True):
    """Somebody is to have a coupon. Who has one of this campaign keeps it, whatever she is known by.

    Attributes:
        person: the person key she is known by now.
        keys: the other keys whose history is hers.
        request: id of the request; of the same id nothing is refused twice.
        cause: what asks: `event Order Completed`, `segment loyal`, or who does.
    """

    campaign: Name
    person: Text
    keys: list[str] = []
    request: Text
    cause: Text = ""


class Redeem(OfCoupons, tag="redeem", kw_only=True):
    """A code was used.

    Attributes:
        code: as it was sent.
        person, keys: who used it, as in `Give`.
        event: message id of the event that says so.
        order: id of the order; a shop may say by two events that one order used it.
        at_ms: when, in ms since 1970.
    """

    code: Text
    person: Text
    keys: list[str] = []
    event: Text
    order: Text = ""
    at_ms: Annotated[int, msgspec.Meta(ge=EARLIEST_MS, le=LATEST_MS)]


CouponRecord = Define | Stock | Give | Redeem
encode_of_coupons = msgspec.json.Encoder().encode
decode_of_coupons = msgspec.json.Decoder(CouponRecord).decode


class Series(msgspec.Struct, array_like=True):
    """Generated codes: the seed of their permutation, and the number of the next one."""

    seed: bytes
    next: int = 0


class Standing(msgspec.Struct, array_like=True):
    """A campaign, and what came of it so far.

    Attributes:
        stock: codes that its pool ever had; next: how many of them were handed out.
        given, refused, used, misused: how often.
        worth_given, worth_used: in 1/10,000 of the campaign's unit.
    """

    campaign: Campaign
    is_gone: bool = False
    stock: int = 0
    next: int = 0
    given: int = 0
    refused: int = 0
    used: int = 0
    misused: int = 0
    worth_given: int = 0
    worth_used: int = 0


class Coupon(msgspec.Struct, array_like=True):
    """A code that there is.

    Attributes:
        since: offset of the record by which it came into the pool, or was given if it was generated.
        holder: the person key that it was given to; empty: nobody yet.
        given_at: offset of the record by which it was given; -1: by none.
        given_ms, expires_ms: in ms since 1970; 0: not, or never.
        used_at: offset of the record by which it was used; -1: by none.
        used_ms: when; by: message id of the event that said so; order: that used it.
        cause: what it was given for.
    """

    campaign: str
    since: int
    holder: str = ""
    given_at: int = -1
    given_ms: int = 0
    expires_ms: int = 0
    worth: int = 0
    unit: str = ""
    used_at: int = -1
    used_ms: int = 0
    by: str = ""
    order: str = ""
    cause: str = ""


class CouponState(Keyed, array_like=True):
    """Value of changelog `coupons`, one of these by its key. MessagePack, as arrays.

        `*`                                 the desk of a partition: its campaigns and series
        `WORKSPACE/code/CODE`               a code there is
        `WORKSPACE/has/CAMPAIGN/PERSON`     the code that somebody has of a campaign
        `WORKSPACE/stock/CAMPAIGN/NUMBER`   a code of a pool, by its number

    Attributes:
        campaigns: by `WORKSPACE/NAME`; series: by `WORKSPACE/PREFIX/LENGTH`.
        seen: requests that were refused, and misuses that were told, as `schemas.recent` keeps them.
        coupon: of a code.
        code: that somebody has, or that stands in a pool.
        since: offset of the record by which that was so.
    """

    campaigns: dict[str, Standing] = msgspec.field(default_factory=dict)
    series: dict[str, Series] = msgspec.field(default_factory=dict)
    seen: bytes = b""
    coupon: Coupon | None = None
    code: str = ""
    since: int = -1


DESK = "*"  # the key of a partition's own state


def code_key(workspace: str, code: str) -> str:
    return f"{workspace}/code/{code}"


def has_key(workspace: str, campaign: str, person: str) -> str:
    return f"{workspace}/has/{campaign}/{person}"


def stock_key(workspace: str, campaign: str, number: int) -> str:
    return f"{workspace}/stock/{campaign}/{number}"
