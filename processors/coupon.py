"""Coupons: the newest of each campaign that she has not used, for what messages say: `{{ coupon.spring.code }}`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from processors.base import Person, Processor
from processors.bounded import Recent
from schemas.codes import LONGEST_CODE
from schemas.coupons import GIVEN, USED
from schemas.effects import Effect
from schemas.event import Event
from schemas.messages import SOURCE
from schemas.times import to_iso

MOST_CAMPAIGNS = 50
MOST_USED = 100
LONGEST_TEXT = 100  # of a unit or a time; what we write is shorter


class Hers(msgspec.Struct, array_like=True, gc=False):
    """A coupon that she was given. Of two of a campaign the later counts, then the greater message id."""

    at_ms: int
    message_id: str
    code: str
    worth: float
    unit: str
    expires: str

    @property
    def age(self) -> tuple[int, str, str]:
        return self.at_ms, self.message_id, self.code


class CouponState(msgspec.Struct, array_like=True):
    """By campaign the newest coupon; and the codes that were used."""

    of: dict[str, Hers] = {}
    used: Recent = msgspec.field(default_factory=Recent)


class CouponProcessor(Processor[CouponState]):
    """Only what the stage of coupons says counts: an event of that name from elsewhere gives nobody a code."""

    name = "coupon"
    about = "The newest coupon of each campaign that she has not used."
    wants = frozenset({GIVEN, USED})
    State = CouponState
    limits = {  # noqa: RUF012
        f"{MOST_CAMPAIGNS} campaigns": "those of which she was given a coupon last",
        f"{MOST_USED} codes that were used": "those that were used last; an older one would count as not used",
    }
    cases = (
        {
            "case": "the newest coupon of a campaign is the one to show",
            "events": [
                {"at": "2026-03-02", "source": SOURCE, "event": GIVEN, "properties": {
                    "campaign": "spring", "code": "SPRING-B", "worth": 10, "unit": "EUR",
                    "expires_at": "2026-04-01T00:00:00.000Z"}},
                {"at": "2026-03-01", "source": SOURCE, "event": GIVEN, "properties": {
                    "campaign": "spring", "code": "SPRING-A", "worth": 5, "unit": "EUR"}},
            ],
            "shows": {"spring": {"code": "SPRING-B", "worth": 10.0, "unit": "EUR",
                                 "expires": "2026-04-01T00:00:00.000Z"}},
        },
        {
            "case": "one that was used is gone, whichever of the two is heard first",
            "events": [
                {"at": "2026-03-03", "source": SOURCE, "event": USED, "properties": {
                    "campaign": "spring", "code": "SPRING-A"}},
                {"at": "2026-03-01", "source": SOURCE, "event": GIVEN, "properties": {
                    "campaign": "spring", "code": "SPRING-A", "worth": 5, "unit": "percent"}},
            ],
            "shows": {"spring": None},
        },
        {
            "case": "what others say of coupons is nothing",
            "events": [{"at": "2026-03-01", "event": GIVEN, "properties": {"campaign": "spring", "code": "FREE"}}],
            "shows": {"spring": None},
        },
    )  # fmt: skip

    def apply(self, state: CouponState, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        said = event.properties
        campaign, code = _name(said.get("campaign")), _name(said.get("code"))
        if event.source != SOURCE or not campaign or not code:
            return ()
        if event.label == USED:
            state.used.see(code, event.at_ms, MOST_USED)
            return ()
        worth, unit, expires = said.get("worth"), said.get("unit"), said.get("expires_at")
        hers = Hers(
            event.at_ms, event.message_id, code, float(worth) if isinstance(worth, int | float) else 0.0,
            unit[:LONGEST_TEXT] if isinstance(unit, str) else "",
            expires[:LONGEST_TEXT] if isinstance(expires, str) else "",
        )  # fmt: skip
        known = state.of.get(campaign)
        if known is None or hers.age > known.age:
            state.of[campaign] = hers
            _cut(state.of)
        return ()

    def merge(self, one: CouponState, other: CouponState) -> CouponState:
        of = dict(one.of)
        for campaign, hers in other.of.items():
            known = of.get(campaign)
            of[campaign] = hers if known is None or hers.age > known.age else known
        _cut(of)
        return CouponState(of, one.used.merged(other.used, MOST_USED))

    def show(self, state: CouponState) -> dict[str, Any]:
        return {
            campaign: {"code": hers.code, "worth": hers.worth, "unit": hers.unit, "expires": hers.expires}
            for campaign, hers in sorted(state.of.items()) if hers.code not in state.used.spans
        }  # fmt: skip


def still_good(sections: Mapping[str, Any], now_ms: int) -> Mapping[str, Any]:
    """What is shown of her, without coupons that have expired: none is promised that is no longer good."""
    coupons = sections.get(CouponProcessor.name)
    if not isinstance(coupons, Mapping):
        return sections
    now = to_iso(now_ms)
    good = {name: hers for name, hers in coupons.items() if not hers["expires"] or hers["expires"] > now}
    return {**sections, CouponProcessor.name: good}


def _name(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST_CODE else ""


def _cut(of: dict[str, Hers]) -> None:
    if len(of) > MOST_CAMPAIGNS:
        for campaign in sorted(of, key=lambda name: (of[name].age, name))[:-MOST_CAMPAIGNS]:
            del of[campaign]
