"""Coupons, as the customer stage and commands ask for them: who is to have one, and which were used.

The customer stage knows who somebody is today and by which keys she was known before. So every request goes through it,
to the one log of coupons (`streams/coupons.py`), which decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import uuid4

from config.coupons import CampaignRead
from processors.rules import Matches, matching
from processors.values import Zone, zone_named
from schemas.conditions import Did
from schemas.coupons import HISTORY_MS, ORDERED, REDEEMED, Give, Redeem, encode_of_coupons
from schemas.customer import Customer
from schemas.event import Event
from schemas.internal import HEADERS, Coupon, encode_internal
from schemas.keys import split_key
from schemas.messages import SOURCE
from streams.lines import COUPONS, EVENTS
from streams.log import Log, Outgoing
from streams.outbox import Outbox, effect_id

LONGEST_CODE = 200  # characters of what an event says; a longer one is none
_USED = {ORDERED: "coupon", REDEEMED: "code"}  # where an event says the code


class Giving:
    """On which events, and on joining which segments, coupons are given by themselves.

    Args:
        workspace: whose campaigns they are.
        zone: in which the days begin that conditions name.
    """

    def __init__(
        self, campaigns: Iterable[CampaignRead] = (), workspace: str = "default", zone: Zone | None = None
    ) -> None:  # fmt: skip
        self._workspace = workspace
        self._by_event: dict[str, list[tuple[str, Matches]]] = defaultdict(list)
        self._by_segment: dict[str, list[str]] = defaultdict(list)
        for each in campaigns:
            if isinstance(each.when, Did):
                matches = matching(each.when, zone or zone_named("UTC"))
                self._by_event[each.when.did].append((each.campaign.name, matches))
            elif each.when is not None:
                self._by_segment[each.when.segment].append(each.campaign.name)

    def after_event(self, key: str, customer: Customer, event: Event, out: Outbox) -> None:
        """An event of hers was applied: what follows of coupons."""
        if event.source == SOURCE:
            return
        if event.label in _USED:
            self._use(key, customer, event, out)
        if event.label in self._by_event and event.workspace == self._workspace:
            if event.received_ms - event.at_ms > HISTORY_MS:
                return
            for campaign, matches in self._by_event[event.label]:
                if matches(event):
                    request = effect_id("coupon", event.key, event.source, event.message_id)
                    _ask(key, customer, campaign, request, f"event {event.label}", out)

    def joined(self, key: str, customer: Customer, segment: str, out: Outbox) -> None:
        """She is in a segment from now on."""
        if segment not in self._by_segment or split_key(key)[0] != self._workspace:
            return
        for campaign in self._by_segment[segment]:
            request = effect_id("coupon", segment, key, out.origin)
            _ask(key, customer, campaign, request, f"segment {segment}", out)

    def _use(self, key: str, customer: Customer, event: Event, out: Outbox) -> None:
        code = event.properties.get(_USED[event.label])
        if not isinstance(code, str) or not code.strip() or len(code) > LONGEST_CODE:
            return
        order = event.properties.get("order_id")
        redeem = Redeem(
            workspace=event.workspace, code=code, person=key, keys=_others(key, customer), event=event.message_id,
            order=str(order)[:LONGEST_CODE] if isinstance(order, str | int) else "", at_ms=event.at_ms,
        )  # fmt: skip
        out.say(COUPONS.topic, event.workspace, encode_of_coupons(redeem))


def on_coupon(key: str, customer: Customer, message: Coupon, out: Outbox) -> None:
    """Somebody wants her to have a coupon; whom she was merged into has her history."""
    if customer.redirect:
        out.send(Coupon(to=customer.redirect, origin=out.origin, at_ms=message.at_ms, campaign=message.campaign,
                        request=message.request, cause=message.cause))  # fmt: skip
    else:
        _ask(key, customer, message.campaign, message.request, message.cause, out)


def _ask(key: str, customer: Customer, campaign: str, request: str, cause: str, out: Outbox) -> None:
    workspace = split_key(key)[0]
    give = Give(workspace=workspace, campaign=campaign, person=key, keys=_others(key, customer), request=request,
                cause=cause)  # fmt: skip
    out.say(COUPONS.topic, workspace, encode_of_coupons(give))


def _others(key: str, customer: Customer) -> list[str]:
    return [part for part in customer.parts if part != key]


async def give(log_: Log, campaign: str, to: str, *, by: str, once: str = "") -> str:
    """Ask for a coupon of a campaign for a person; it stands in the log when this returns. Returns the request's id.

    Args:
        to: the person key.
        once: two requests for one person with the same text here are one.
    """
    request = effect_id("coupon", campaign, to, once) if once else uuid4().hex
    wanted = Coupon(to=to, origin="", at_ms=0, campaign=campaign, request=request, cause=by)
    await log_.append(EVENTS, [Outgoing(to.encode(), encode_internal(wanted), None, HEADERS)])
    return request
