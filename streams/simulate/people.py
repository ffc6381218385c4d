"""The people of the shop: what is fixed about each before anything happens, drawn from her own dice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from schemas.times import DAY_MS, HOUR_MS, from_ms, to_ms
from streams.simulate.catalogue import (
    AGENTS,
    CAMPAIGNS,
    FAMILY_EN,
    FAMILY_ZH,
    GIVEN_EN,
    GIVEN_ZH,
    INDUSTRIES,
    MARKETS,
    Agent,
    Campaign,
)
from streams.simulate.plan import Plan
from streams.simulate.truths import HOLDOUT, HOURS, MEAN_LIFETIME_DAYS

_ZONES = {market.timezone: ZoneInfo(market.timezone) for market in MARKETS}
_WEIGHTS = [campaign.weight for campaign in CAMPAIGNS]
_SATURDAY = 5


class Device:
    """A browser or an app of one person. It knows her only after she signed up or in on it."""

    def __init__(self, anonymous_id: str, agent: Agent, context: dict[str, Any]) -> None:
        self.anonymous_id = anonymous_id
        self.agent = agent
        self.context = context
        self.is_signed_in = False


class Company:
    """Who a business customer buys for."""

    def __init__(self, plan: Plan, number: int) -> None:
        dice = plan.random("company", number)
        self.id = f"co-{plan.id('company', number, length=8)}"
        self.traits = {
            "name": f"{dice.choice(FAMILY_EN)} & {dice.choice(FAMILY_EN)} {dice.choice(('Ltd', 'Partners', 'Studio'))}",
            "industry": dice.choice(INDUSTRIES),
            "employees": dice.choice((4, 12, 30, 80, 250)),
            "plan": dice.choice(("standard", "standard", "business")),
        }


class Human:
    """One human being: fixed and hidden facts, and what has become of her so far."""

    def __init__(self, plan: Plan, number: int) -> None:
        dice = plan.random("human", number)
        self.plan = plan
        self.number = number
        self.market = dice.choices(MARKETS, [market.weight for market in MARKETS])[0]
        self.zone = _ZONES[self.market.timezone]
        self.user_id = f"u-{plan.id('user', number, length=10)}"
        self.first_name, self.last_name = _name(dice, self.market.language)
        self.email = f"{'kehu' if self.market.language == 'zh' else 'customer'}.{self.user_id[2:]}@example.com"
        self.city = dice.choice(self.market.cities)
        self.is_business = dice.random() < 0.12
        self.company = Company(plan, dice.randrange(1 + plan.people // 40)) if self.is_business else None
        self.habit = "office" if self.is_business else dice.choice(("evening", "evening", "lunch", "any"))
        self.visits_a_week = dice.gammavariate(2.0, 0.6) + 0.1
        self.inclination = dice.betavariate(2.0, 6.0)  # likelihood that a visit ends in an order
        self.ever_signs_up = self.is_business or dice.random() < 0.7
        self.would_subscribe = dice.random() < 0.65
        self.is_holdout = dice.random() < HOLDOUT
        self.opens = dice.betavariate(3.0, 5.0)  # likelihood of opening a mail
        self.came_by = dice.choices(CAMPAIGNS, _WEIGHTS)[0]
        span_ms = plan.end_ms - plan.start_ms
        self.born_ms = self.at_a_good_hour(dice, plan.start_ms + dice.randrange(max(1, int(span_ms * 0.8))))
        self.gone_ms = self.born_ms + int(dice.expovariate(1 / MEAN_LIFETIME_DAYS) * DAY_MS)
        self.devices = [self._device(dice, index) for index in range(dice.choices((1, 2, 3), (55, 35, 10))[0])]

        self.is_member = False
        self.is_subscribed = False
        self.orders = 0
        self.points = 0
        self.birthdays = _birthdays(plan.random("birthday", number), self.market.language)
        self.left_after_ticket = False
        self._actions = 0
        self._calls = 0
        self._things = 0

    def _device(self, dice: Random, index: int) -> Device:
        agent = dice.choices(AGENTS, [agent.weight for agent in AGENTS])[0]
        context: dict[str, Any] = {
            "ip": f"{self.market.network}.{dice.randrange(1, 255)}",
            "locale": self.market.locale,
            "timezone": self.market.timezone,
            "userAgent": agent.user_agent,
            "device": {"type": agent.kind},
            "os": {"name": agent.os},
            "library": {"name": "tidewire-simulate", "version": "1"},
        }
        if agent.is_app:
            context["app"] = {"name": "Shop", "version": "3.2"}
        raw = self.plan.id("device", self.number, index, length=32)
        return Device("-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:])), agent, context)

    def dice(self) -> Random:
        """Fresh dice for her next action."""
        self._actions += 1
        return self.plan.random("action", self.number, self._actions)

    def next_message_id(self) -> str:
        self._calls += 1
        return f"sim-{self.plan.id('call', self.number, self._calls, length=22)}"

    def next_id(self, kind: str) -> str:
        """The id of a new order, ticket or mail of hers."""
        self._things += 1
        return f"{kind}-{self.plan.id(kind, self.number, self._things, length=10)}"

    def at_a_good_hour(self, dice: Random, about_ms: int) -> int:
        """A moment near `about_ms`, not before the history begins, on a day and at an hour that she keeps."""
        local = from_ms(about_ms).astimezone(self.zone)
        if self.habit == "office":
            while local.weekday() >= _SATURDAY:
                local += timedelta(days=1)
        local = local.replace(hour=dice.choice(HOURS[self.habit]), minute=dice.randrange(60), second=dice.randrange(60),
                              microsecond=dice.randrange(1000) * 1000)  # fmt: skip
        moment = to_ms(local.astimezone(UTC))
        is_early = moment < max(about_ms - 12 * HOUR_MS, self.plan.start_ms)
        # A day later, a Saturday may come of a Friday: rare, and true of offices too.
        return moment + DAY_MS if is_early else moment

    def next_newsletter_ms(self, after_ms: int) -> int:
        """The next Thursday at ten in the morning, her time."""
        local = from_ms(after_ms).astimezone(self.zone)
        day = local.date() + timedelta(days=(3 - local.weekday()) % 7)
        moment = to_ms(datetime(day.year, day.month, day.day, 10, tzinfo=self.zone).astimezone(UTC))
        return moment if moment > after_ms else moment + 7 * DAY_MS

    def traits(self) -> dict[str, Any]:
        return {
            "email": self.email,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "name": self.full_name,
            "address": {"city": self.city, "country": self.market.country},
            "language": self.market.language,
            **self.birthdays,
        }

    @property
    def full_name(self) -> str:
        if self.market.language == "zh":
            return self.last_name + self.first_name
        return f"{self.first_name} {self.last_name}"

    def usual_campaign(self, dice: Random) -> Campaign:
        """What brings her back: mostly nothing but herself, at times what brought her first."""
        chance = dice.random()
        if chance < 0.2:
            return self.came_by
        return dice.choices(CAMPAIGNS, _WEIGHTS)[0] if chance < 0.45 else CAMPAIGNS[0]


def _name(dice: Random, language: str) -> tuple[str, str]:
    if language == "zh":
        return dice.choice(GIVEN_ZH), dice.choice(FAMILY_ZH)
    return dice.choice(GIVEN_EN), dice.choice(FAMILY_EN)


def _birthdays(dice: Random, language: str) -> dict[str, str]:
    """When she has her birthday, if she says; some keep that of the Chinese calendar, and say its month and day."""
    if dice.random() < 0.4:
        return {}
    if language == "zh" and dice.random() < 0.25:
        return {"lunar_birthday": f"{dice.randint(1, 12):02d}-{dice.randint(1, 29):02d}"}
    return {"birthday": (date(1950, 1, 1) + timedelta(days=dice.randrange(20_000))).isoformat()}
