"""The stage of coupons: what one record of topic `coupon_requests` does to the coupons of a workspace. Pure, like the
customer stage. One writer decides about a workspace, in the order of the log: who gets which code, whether a budget is
spent, whether a code was used before.

**After a crash.** The desk (`DESK`) is the leader of its partition: it is stored behind all others. So what the records
since then did may stand in the other states already, in all or in some, when those records come again. Each such state
says by the offset of which record it is so; what is so only by this record or a later one is not so yet. Thus a record
decides the same as often as it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from config.coupons import LARGEST_BYTES, MOST_POOL
from processors.amounts import UNIT, decimal_of
from processors.base import Table
from processors.fold import Spent
from schemas.codes import SEED_BYTES, code_of, most_codes, normal
from schemas.coupons import (
    DESK,
    GIVEN,
    HISTORY_MS,
    MISUSED,
    REFUSED,
    USED,
    Coupon,
    CouponRecord,
    CouponState,
    Define,
    Give,
    Redeem,
    Series,
    Standing,
    Stock,
    WhyMisused,
    WhyRefused,
    code_key,
    decode_of_coupons,
    has_key,
    stock_key,
)
from schemas.effects import Decision, Row
from schemas.errors import Refused
from schemas.keys import WORKSPACE_PATTERN, split_key
from schemas.recent import has_seen, remember, token
from schemas.rows import encode_json
from schemas.times import DAY_MS, from_ms, to_iso
from sinks.coupons import TABLES, CampaignRow, CouponRow
from streams.dead_letters import DeadLetterLimit
from streams.lines import COUPONS
from streams.log import Outgoing, Record
from streams.outbox import Outbox, effect_id
from streams.receipts import receipt
from streams.worker import States

MOST_CAMPAIGNS = 1_000  # of a partition; also those that were taken out
REMEMBER_S = 400 * DAY_MS // 1000
OUTCOMES = ("given", "refused", "used", "misused")  # of what is counted, what people ask for


class CouponStage:
    """The stage (`streams.worker.Stage`) that keeps coupons."""

    State = CouponState
    line = COUPONS
    leader = DESK
    room = 0  # nothing here has timers: whether a coupon is still good is asked when it is used
    table_of: Mapping[type[msgspec.Struct], Table] = {table.row: table for table in TABLES}

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.spent: Spent = {}
        self.is_careful = False

    def handle(
        self, records: Sequence[Record], states: States[CouponState], out: Outbox, limit: DeadLetterLimit
    ) -> int:  # fmt: skip
        """Never says to stop: only what nobody can read becomes a dead letter, whole, and nobody waits for it."""
        for record in records:
            try:
                self._handle(record, states, out)
            except Refused as refused:
                self.counts["rejected"] += 1
                out.begin(record, record.timestamp_ms)
                out.reject(refused, record)
        return len(records)

    def next_due_ms(self, state: CouponState) -> int:
        return 0

    def tick(self, key: str, at_ms: int, partition: int) -> Outgoing:
        raise AssertionError("coupons have no timers")

    def portrait(self, key: str, state: CouponState, at_ms: int) -> None:
        return None

    def shrink(self, key: str, state: CouponState, limit_bytes: int, out: Outbox) -> None:
        """Nothing here can outgrow it: MOST_CAMPAIGNS and LARGEST_BYTES see to that."""

    def _handle(self, record: Record, states: States[CouponState], out: Outbox) -> None:
        try:
            message: CouponRecord = decode_of_coupons(record.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise Refused("the record says nothing of coupons", value=str(error)) from error
        if not WORKSPACE_PATTERN.match(message.workspace):
            raise Refused("workspace is not a workspace name", field="workspace", value=message.workspace)
        desk = states.get(DESK)
        if record.offset <= desk.offset:
            self.counts["replayed"] += 1
            return
        desk.offset = record.offset
        desk.revision += 1
        states.touch(DESK, desk)
        out.begin(record, record.timestamp_ms)
        out.speak(DESK, record.offset)
        self.counts[_Turn(message.workspace, desk, record, states, out).take(message)] += 1


class _Turn:
    """One record at the desk of its partition."""

    def __init__(
        self, workspace: str, desk: CouponState, record: Record, states: States[CouponState], out: Outbox
    ) -> None:  # fmt: skip
        self._workspace, self._desk, self._record, self._states, self._out = workspace, desk, record, states, out
        self._offset, self._now_ms = record.offset, record.timestamp_ms

    def take(self, message: CouponRecord) -> str:
        """Fold it in; what became of it, in a word."""
        match message:
            case Define():
                return self._define(message)
            case Stock():
                return self._stock(message)
            case Give():
                return self._give(message)
            case Redeem():
                return self._redeem(message)

    # --- campaigns

    def _define(self, message: Define) -> str:
        campaign, desk = message.campaign, self._desk
        if len(msgspec.json.encode(campaign)) > LARGEST_BYTES:
            raise Refused(f"a campaign has at most {LARGEST_BYTES:,} bytes", field="campaign", value=campaign.name)
        if not campaign.pool and not (campaign.prefix and campaign.length):
            raise Refused("a campaign has a pool, or a prefix and a length of codes", field="campaign",
                          value=campaign.name)  # fmt: skip
        if not campaign.pool:
            series = f"{self._workspace}/{campaign.series}"
            if series not in desk.series and len(message.seed) != SEED_BYTES:
                raise Refused(f"a series of codes has a seed of {SEED_BYTES} bytes", field="seed",
                              value=campaign.series)  # fmt: skip
            desk.series.setdefault(series, Series(message.seed))
        name = f"{self._workspace}/{campaign.name}"
        standing = desk.campaigns.get(name)
        if standing is None:
            if len(desk.campaigns) >= MOST_CAMPAIGNS:
                raise Refused(f"there are {MOST_CAMPAIGNS:,} campaigns already", field="campaign", value=campaign.name)
            standing = desk.campaigns[name] = Standing(campaign)
        elif (standing.campaign, standing.is_gone) == (campaign, message.is_gone):
            return "duplicates"
        elif standing.given and standing.campaign.unit != campaign.unit:
            raise Refused("a campaign that gave coupons has its unit for good", field="campaign.unit",
                          value=campaign.unit, mend="Write another campaign.")  # fmt: skip
        standing.campaign, standing.is_gone = campaign, message.is_gone
        self._tell(standing)
        return "applied"

    def _stock(self, message: Stock) -> str:
        standing = self._standing(message.campaign)
        if standing is None:
            raise Refused("there is no such campaign", field="campaign", value=message.campaign)
        before, unusable = standing.stock, list[str]()
        for said in message.codes:
            code = normal(said)
            key = code_key(self._workspace, code)
            state = self._states.get(key)
            known = state.coupon if state.coupon is not None and state.coupon.since < self._offset else None
            if not code or standing.stock >= MOST_POOL or (known is not None and known.campaign != message.campaign):
                unusable.append(said)
            elif known is None:
                state.coupon = Coupon(message.campaign, self._offset)
                self._touch(key, state)
                self._keep(stock_key(self._workspace, message.campaign, standing.stock), code)
                standing.stock += 1
        if unusable:  # the others count all the same
            mend = f'Take them out of the pool of "{message.campaign}".'
            self._out.reject(Refused("codes of a pool are no codes, too many, or those of another campaign",
                                     field="codes", value=", ".join(unusable), mend=mend), self._record)  # fmt: skip
        if standing.stock == before:
            return "duplicates"
        self._tell(standing)
        return "applied"

    # --- giving

    def _give(self, message: Give) -> str:
        self._check_person(message.person)
        for person in (message.person, *message.keys):
            has = self._states.get(has_key(self._workspace, message.campaign, person))
            if has.code and has.since < self._offset:
                return "duplicates"
        known = token(message.person, f"{message.campaign} {message.request}")
        if has_seen(self._desk.seen, known):
            return "duplicates"
        standing = self._standing(message.campaign)
        why = self._why_not(standing)
        code = "" if why or standing is None else self._next_code(standing)
        if standing is not None and code:
            self._hand_over(standing, code, message)
            return "given"
        self._refuse(standing, message, why or "empty")
        self._desk.seen = remember(self._desk.seen, known, self._now_ms, REMEMBER_S)
        return "refused"

    def _why_not(self, standing: Standing | None) -> WhyRefused | None:
        if standing is None:
            return "unknown"
        campaign = standing.campaign
        if standing.is_gone:
            return "withdrawn"
        if campaign.ends_ms and self._now_ms >= campaign.ends_ms:
            return "expired"
        if campaign.most_codes and standing.given >= campaign.most_codes:
            return "budget"
        if campaign.most_worth and standing.worth_given + campaign.worth > campaign.most_worth:
            return "budget"
        return None

    def _next_code(self, standing: Standing) -> str:
        """The code that is next; empty where there is none left."""
        campaign = standing.campaign
        if campaign.pool:
            if standing.next >= standing.stock:
                return ""
            standing.next += 1
            return self._states.get(stock_key(self._workspace, campaign.name, standing.next - 1)).code
        series = self._desk.series[f"{self._workspace}/{campaign.series}"]
        while series.next < most_codes(campaign.length):
            code = code_of(campaign.prefix, campaign.length, series.seed, series.next)
            series.next += 1
            coupon = self._states.get(code_key(self._workspace, code)).coupon
            if coupon is None or coupon.since >= self._offset:  # else it stands in a pool that looks like the series
                return code
        return ""

    def _hand_over(self, standing: Standing, code: str, message: Give) -> None:
        campaign = standing.campaign
        expires_ms = self._now_ms + campaign.expires_after_ms if campaign.expires_after_ms else campaign.ends_ms
        if campaign.ends_ms:
            expires_ms = min(expires_ms, campaign.ends_ms)
        key = code_key(self._workspace, code)
        state = self._states.get(key)
        since = state.coupon.since if campaign.pool and state.coupon is not None else self._offset
        coupon = state.coupon = Coupon(
            campaign.name, since, message.person, self._offset, self._now_ms, expires_ms, campaign.worth, campaign.unit,
            cause=message.cause,
        )  # fmt: skip
        self._touch(key, state)
        self._keep(has_key(self._workspace, campaign.name, message.person), code)
        standing.given += 1
        standing.worth_given += campaign.worth
        self._event(GIVEN, message.person, effect_id(GIVEN, self._workspace, code), {
            **_said(coupon, code), "request": message.request, "cause": message.cause})  # fmt: skip
        self._decide(message.person, "coupon_given", campaign.name, {"code": code, "cause": message.cause})
        self._row(code, coupon)
        self._tell(standing)

    def _refuse(self, standing: Standing | None, message: Give, why: WhyRefused) -> None:
        facts = {"reason": why, "cause": message.cause}
        self._event(REFUSED, message.person, effect_id(REFUSED, message.person, message.campaign, message.request), {
            "campaign": message.campaign, "request": message.request, **facts})  # fmt: skip
        self._decide(message.person, "coupon_refused", message.campaign, facts)
        if standing is not None:
            standing.refused += 1
            self._tell(standing)

    # --- using

    def _redeem(self, message: Redeem) -> str:
        self._check_person(message.person)
        if not any(name.startswith(f"{self._workspace}/") for name in self._desk.campaigns):
            return "ignored"  # whoever has no campaigns has coupons from elsewhere
        code = normal(message.code)
        key = code_key(self._workspace, code)
        state = self._states.get(key)
        coupon = state.coupon
        if coupon is None or not -1 < coupon.given_at < self._offset:
            is_history = self._now_ms - message.at_ms > HISTORY_MS
            return "ignored" if is_history else self._misuse(None, message, "unknown")
        is_used = -1 < coupon.used_at < self._offset
        if is_used and message.order and coupon.order == message.order:
            return "duplicates"  # the shop says by two events, maybe of two keys, that one order used it
        if coupon.holder not in (message.person, *message.keys):
            return self._misuse(coupon, message, "not_hers")
        if is_used:
            return "duplicates" if coupon.by == message.event else self._misuse(coupon, message, "twice")
        if coupon.expires_ms and message.at_ms >= coupon.expires_ms:
            return self._misuse(coupon, message, "expired")
        coupon.used_at, coupon.used_ms = self._offset, message.at_ms
        coupon.by, coupon.order = message.event, message.order
        self._touch(key, state)
        said = {**_said(coupon, code), "order_id": message.order, "event": message.event}
        self._event(USED, message.person, effect_id(USED, self._workspace, code), said)
        self._decide(message.person, "coupon_used", coupon.campaign, {"code": code, "order": message.order})
        self._row(code, coupon)
        standing = self._desk.campaigns[f"{self._workspace}/{coupon.campaign}"]
        standing.used += 1
        standing.worth_used += coupon.worth
        self._tell(standing)
        return "used"

    def _misuse(self, coupon: Coupon | None, message: Redeem, why: WhyMisused) -> str:
        known = token(message.person, f"{MISUSED} {message.event}")
        if has_seen(self._desk.seen, known):
            return "duplicates"
        self._desk.seen = remember(self._desk.seen, known, self._now_ms, REMEMBER_S)
        campaign = coupon.campaign if coupon is not None else ""
        facts = {"reason": why, "code": message.code[:100]}
        said = {"campaign": campaign, **facts, "order_id": message.order, "event": message.event}
        self._event(MISUSED, message.person, effect_id(MISUSED, message.person, message.event), said)
        self._decide(message.person, "coupon_misused", campaign, facts)
        if coupon is not None:
            standing = self._desk.campaigns[f"{self._workspace}/{campaign}"]
            standing.misused += 1
            self._tell(standing)
        return "misused"

    # --- what follows

    def _check_person(self, key: str) -> None:
        try:
            workspace = split_key(key)[0]
        except ValueError as error:
            raise Refused("the person is no person key", field="person", value=key) from error
        if workspace != self._workspace:
            raise Refused("the person is of another workspace", field="person", value=key)

    def _standing(self, campaign: str) -> Standing | None:
        return self._desk.campaigns.get(f"{self._workspace}/{campaign}")

    def _keep(self, key: str, code: str) -> None:
        state = self._states.get(key)
        state.code, state.since = code, self._offset
        self._touch(key, state)

    def _touch(self, key: str, state: CouponState) -> None:
        state.offset = max(state.offset, self._offset)
        state.revision += 1
        self._states.touch(key, state)

    def _event(self, name: str, person: str, message_id: str, said: Mapping[str, object]) -> None:
        self._out.event(receipt(name, person, message_id, said, from_ms(self._now_ms)))

    def _decide(self, person: str, kind: str, about: str, facts: Mapping[str, str]) -> None:
        self._out.decide(person, "coupons", Decision(kind, about, facts))

    def _row(self, code: str, coupon: Coupon) -> None:
        self._out.row(coupon.holder, self._desk.revision, Row(CouponRow(
            code=code, campaign=coupon.campaign, worth=decimal_of(coupon.worth), unit=coupon.unit,
            given_at=from_ms(coupon.given_ms), cause=coupon.cause,
            expires_at=from_ms(coupon.expires_ms) if coupon.expires_ms else None,
            used_at=from_ms(coupon.used_ms) if coupon.used_at >= 0 else None, order_id=coupon.order)))  # fmt: skip

    def _tell(self, standing: Standing) -> None:
        """What came of a campaign, as a row."""
        campaign = standing.campaign
        self._out.row(self._workspace, self._desk.revision, Row(CampaignRow(
            campaign=campaign.name, title=campaign.title, about=campaign.about,
            series="" if campaign.pool else campaign.series, pool=campaign.pool, worth=decimal_of(campaign.worth),
            unit=campaign.unit, expires=campaign.expires, expires_days=campaign.expires_after_ms / DAY_MS,
            ends_at=from_ms(campaign.ends_ms) if campaign.ends_ms else None,
            definition=encode_json(campaign).decode(),
            most_codes=campaign.most_codes, most_worth=decimal_of(campaign.most_worth),
            stock=standing.stock if campaign.pool else most_codes(campaign.length), codes_left=self._left(standing),
            given=standing.given, refused=standing.refused, used=standing.used, misused=standing.misused,
            worth_given=decimal_of(standing.worth_given), worth_used=decimal_of(standing.worth_used),
            is_gone=standing.is_gone, changed_at=from_ms(self._now_ms))))  # fmt: skip

    def _left(self, standing: Standing) -> int:
        """How many codes can still be given, by stock and budget."""
        campaign = standing.campaign
        if campaign.pool:
            left = standing.stock - standing.next
        else:
            left = most_codes(campaign.length) - self._desk.series[f"{self._workspace}/{campaign.series}"].next
        if campaign.most_codes:
            left = min(left, campaign.most_codes - standing.given)
        if campaign.most_worth:
            left = min(left, (campaign.most_worth - standing.worth_given) // campaign.worth)
        return max(left, 0)


def _said(coupon: Coupon, code: str) -> dict[str, object]:
    return {"campaign": coupon.campaign, "code": code, "worth": coupon.worth / UNIT, "unit": coupon.unit,
            "expires_at": to_iso(coupon.expires_ms) if coupon.expires_ms else ""}  # fmt: skip
