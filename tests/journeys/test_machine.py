"""The engine against a model that knows nothing of it: events, time, merges, partings, caps, crashes and replays in
whatever order Hypothesis thinks of."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.times import MINUTE_MS
from tests.journeys.model import JOURNEYS, LIMITS, Model
from tests.journeys.shop import MAILS, START_MS, Shop

USERS, VISITORS, CARTS = st.sampled_from(["u1", "u2"]), st.sampled_from(["a1", "a2", "a3"]), st.sampled_from("xyz")
DEEDS = st.sampled_from(["Signed Up", "Product Added", "Order Completed"])
CRASHES = st.sampled_from([0.0, 0.0, 0.3])


class Machine(RuleBasedStateMachine):
    """`shop` is the stage, `model` what it ought to do."""

    def __init__(self) -> None:
        super().__init__()
        assert MAILS["hello"].kind == "marketing"
        self.shop = Shop(seed=1, partitions=2, limits=LIMITS, **JOURNEYS)
        self.model = Model()
        for user in ("u1", "u2"):
            self.shop.customer(user)
            self.model.holder[user] = user
        self.merged: dict[str, str] = {}
        self.parted: set[str] = set()

    def _now(self) -> int:
        """No two things happen in the same moment."""
        self._pass(self.shop.clock_ms + MINUTE_MS)
        return self.shop.clock_ms

    def _pass(self, until_ms: int, crash: float = 0.0) -> None:
        self.shop.wait(f"{(until_ms - self.shop.clock_ms) / 1000}s", crash=crash)
        self.model.time(until_ms)

    @rule(user=USERS, deed=DEEDS, cart=CARTS, crash=CRASHES)
    def a_user_does_something(self, user: str, deed: str, cart: str, crash: float) -> None:
        now_ms = self._now()
        self.shop.happen(deed, user=user, properties={"cart_id": cart})
        self.shop.settle(crash=crash)
        self.model.event(user, deed, cart, now_ms)

    @rule(visitor=VISITORS, deed=DEEDS, cart=CARTS, crash=CRASHES)
    def a_visitor_does_something(self, visitor: str, deed: str, cart: str, crash: float) -> None:
        now_ms = self._now()
        self.shop.happen(deed, anonymous=visitor, properties={"cart_id": cart})
        self.shop.settle(crash=crash)
        self.model.event(visitor, deed, cart, now_ms)

    @rule(hours=st.integers(1, 60), crash=CRASHES)
    def time_passes(self, hours: int, crash: float) -> None:
        self._pass(self.shop.clock_ms + hours * 60 * MINUTE_MS, crash)

    @rule(user=USERS, visitor=VISITORS, crash=CRASHES)
    def a_visitor_logs_in(self, user: str, visitor: str, crash: float) -> None:
        if visitor in self.merged or visitor in self.parted:
            return
        self._now()
        self.shop.happen("Seen", user=user, anonymous=visitor)
        self.shop.settle(crash=crash)
        self.merged[visitor] = user
        self.model.merge(user, visitor)
        if visitor not in self.model.holder:  # nothing was known of her; what she does from now on is the user's
            self.model.holder[visitor] = user

    @rule(visitor=VISITORS, crash=CRASHES)
    def a_merge_is_undone(self, visitor: str, crash: float) -> None:
        if visitor not in self.merged:
            return
        self._now()
        self.shop.unmerge(f"w/a:{visitor}")
        self.shop.settle(crash=crash)
        del self.merged[visitor]
        self.parted.add(visitor)
        self.model.unmerge(visitor)

    @rule()
    def everybody_is_swept(self) -> None:
        self.shop.sweep()

    @invariant()
    def what_was_sent_and_told_is_what_ought_to_be(self) -> None:
        told = Counter((line.kind, str(line.facts.get("why", ""))) for line in self.shop.lines(
            "entered", "not_entered", "refused", "left", "goal"))  # fmt: skip
        sent = Counter((each.to.rpartition(":")[2], each.template, each.at_ms) for each in self.shop.orders)

        assert told == self.model.told
        assert sent == self.model.sent
        runs = self.shop.runs().values()
        waiting = sorted((run.journey, run.key, run.due_ms) for run in runs if run.state == "waits")
        assert waiting == sorted((run.journey, run.cart, run.due) for device in self.model.devices.values()
                                 for run in device.going if run.due)  # fmt: skip
        assert self.shop.clock_ms >= START_MS and not self.shop.rejected


Machine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_engine_does_what_the_model_does = Machine.TestCase
