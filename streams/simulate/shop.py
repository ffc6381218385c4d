"""The shop: what its people do, action after action, in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from heapq import heappop, heappush
from random import Random
from typing import Any

import msgspec

from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, from_ms
from streams.simulate.catalogue import BY_SKU, CART_MAIL, NEWSLETTER, PRODUCTS, Campaign, Product
from streams.simulate.people import Device, Human
from streams.simulate.plan import Made, Plan
from streams.simulate.truths import (
    BAD_RATING,
    BAD_RATING_ANYWAY,
    GOLD_AFTER_ORDERS,
    GOLD_PACE,
    LEAVES_AFTER_BAD_RATING,
    SLOW_ANSWER,
    TOGETHER,
)

Action = Callable[[Human, int], None]
Cart = dict[str, int]

SITE = "https://shop.example"
TOPICS = ("newsletter", "offers")  # of what people allow to be sent
_SERVER = {"library": {"name": "tidewire-import", "version": "1"}}
_CENT = Decimal("0.01")
_WEIGHTS = [product.weight for product in PRODUCTS]

# The digits of a Decimal stand in the JSON as they are; a float would round them.
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Shop:
    """One run of the shop. Iterate over `calls` once; `facts` is true after it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._people = [Human(plan, number) for number in range(plan.people)]
        self._agenda: list[tuple[int, int, int, Action]] = []
        self._made: list[tuple[int, int, Made]] = []
        self._order = 0
        for human in self._people:
            self._plan(human.born_ms, human, self._first_visit)

    def calls(self) -> Iterator[Made]:
        """Every call, in the order in which they happened: all from the first day to the last."""
        while self._agenda:
            at_ms, _, number, action = heappop(self._agenda)
            if at_ms >= self.plan.end_ms:
                break
            while self._made and self._made[0][0] < at_ms:  # no later action can make an earlier call
                yield heappop(self._made)[2]
            action(self._people[number], at_ms)
        while self._made:
            yield heappop(self._made)[2]

    def facts(self) -> Iterator[dict[str, Any]]:
        """What is true about each person and no event says."""
        for human in self._people:
            yield {
                "user_id": human.user_id if human.is_member else "",
                "anonymous_ids": [device.anonymous_id for device in human.devices],
                "gone_at": from_ms(human.gone_ms).isoformat(),
                "left_after_ticket": human.left_after_ticket,
                "is_holdout": human.is_holdout,
                "habit": human.habit,
                "came_by": human.came_by.name,
                "orders": human.orders,
            }

    # --- visits

    def _first_visit(self, human: Human, at_ms: int) -> None:
        dice = human.dice()
        self._visit(human, dice, human.devices[0], human.came_by, at_ms)
        self._plan_visit(human, dice, at_ms)

    def _usual_visit(self, human: Human, at_ms: int) -> None:
        dice = human.dice()
        self._visit(human, dice, dice.choice(human.devices), human.usual_campaign(dice), at_ms)
        self._plan_visit(human, dice, at_ms)

    def _plan_visit(self, human: Human, dice: Random, after_ms: int) -> None:
        pace = human.visits_a_week * (GOLD_PACE if human.is_member and human.orders >= GOLD_AFTER_ORDERS else 1.0)
        gap_ms = int(dice.expovariate(pace / 7) * DAY_MS)
        at_ms = max(after_ms + HOUR_MS, human.at_a_good_hour(dice, after_ms + gap_ms))
        if at_ms < human.gone_ms:
            self._plan(at_ms, human, self._usual_visit)

    def _visit(self, human: Human, dice: Random, device: Device, campaign: Campaign, at_ms: int) -> None:
        if at_ms >= human.gone_ms:
            return
        visit = _Visit(self, human, dice, device, campaign, at_ms)
        visit.look("Home", "/")
        if human.is_member and not device.is_signed_in and dice.random() < 0.6:
            visit.sign_in()
        if dice.random() < 0.15:
            visit.track("Products Searched", {"query": dice.choice(PRODUCTS).name(human.market.language)})
        cart: Cart = {}
        for _ in range(min(8, 1 + int(dice.expovariate(0.5)))):
            product = dice.choices(PRODUCTS, _WEIGHTS)[0]
            visit.look(product.name(human.market.language), f"/products/{product.sku}")
            visit.track("Product Viewed", visit.item(product))
            if dice.random() < 0.25:
                self._put(visit, cart, product)
                if product.sku in TOGETHER and dice.random() < TOGETHER[product.sku][1]:
                    self._put(visit, cart, BY_SKU[TOGETHER[product.sku][0]])
        likely = min(0.95, human.inclination * campaign.conversion)
        if dice.random() < likely:
            if not cart:
                self._put(visit, cart, dice.choices(PRODUCTS, _WEIGHTS)[0])
            self._check_out(visit, cart)
        elif cart:
            visit.track("Cart Viewed", {"cart_id": visit.cart_id, "products": visit.items(cart)})
            if self._gets_mail(human) and dice.random() < 0.5:
                self._plan(visit.now_ms + 4 * HOUR_MS, human, self._cart_mail)

    def _put(self, visit: _Visit, cart: Cart, product: Product) -> None:
        if product.sku in cart:
            return
        many = visit.human.is_business and visit.dice.random() < 0.5
        cart[product.sku] = visit.dice.randrange(4, 13) if many else 1 + (visit.dice.random() < 0.12)
        visit.track("Product Added", visit.item(product) | {"cart_id": visit.cart_id, "quantity": cart[product.sku]})
        if visit.dice.random() < 0.05:
            del cart[product.sku]
            visit.track("Product Removed", visit.item(product) | {"cart_id": visit.cart_id})

    def _check_out(self, visit: _Visit, cart: Cart) -> None:
        human, dice = visit.human, visit.dice
        if not cart:
            return
        visit.look("Checkout", "/checkout")
        order_id = human.next_id("order")
        items = visit.items(cart)
        visit.track("Checkout Started", {"order_id": order_id, "cart_id": visit.cart_id, "products": items})
        if human.ever_signs_up and not human.is_member:
            visit.sign_up()
            self._welcome(human, visit.now_ms)
        elif human.is_member and not visit.device.is_signed_in:
            visit.sign_in()
        revenue = sum((item["price"] * item["quantity"] for item in items), Decimal(0))
        discount = Decimal(0)
        order: dict[str, Any] = {
            "order_id": order_id, "cart_id": visit.cart_id, "currency": human.market.currency, "products": items,
        }  # fmt: skip
        if visit.campaign.name == "spring_letter":
            discount = _money(revenue * Decimal("0.1"))
            order |= {"coupon": "SPRING10", "discount": discount}
        shipping = Decimal(0) if revenue >= 50 * human.market.rate else _money(5 * human.market.rate)
        order |= {"revenue": revenue - discount, "shipping": shipping, "total": revenue - discount + shipping}
        visit.track("Order Completed", order)
        human.orders += 1
        self._after_order(human, dice, visit, order)

    def _after_order(self, human: Human, dice: Random, visit: _Visit, order: dict[str, Any]) -> None:
        at_ms = visit.now_ms
        if human.is_member:
            points = int(order["revenue"] / human.market.rate)
            human.points += points
            self._server(human, at_ms + SECOND_MS, "Loyalty Points Earned",
                         {"points": points, "balance": human.points, "order_id": order["order_id"]})  # fmt: skip
            if human.orders == GOLD_AFTER_ORDERS:
                self._server(human, at_ms + 2 * SECOND_MS, "Loyalty Tier Reached", {"tier": "gold"})
        who = None if human.is_member else visit.device
        if dice.random() < 0.06:
            item = dice.choice(order["products"])
            back = {"order_id": order["order_id"], "currency": order["currency"], "products": [item],
                    "total": _money(item["price"] * item["quantity"])}  # fmt: skip
            if back["total"] <= order["revenue"]:
                days = dice.randrange(4, 20)
                self._plan(at_ms + days * DAY_MS, human,
                           lambda human, at_ms: self._server(human, at_ms, "Order Refunded", back, who))  # fmt: skip
        if human.is_member and dice.random() < 0.12:
            self._plan(at_ms + int(dice.uniform(1, 8) * DAY_MS), human, self._ticket)
        if human.is_member and dice.random() < 0.08:
            score = min(10, max(0, round(dice.gauss(8, 2))))
            self._plan(at_ms + 9 * DAY_MS, human,
                       lambda human, at_ms: self._server(human, at_ms, "Survey Answered",
                                                         {"survey": "nps", "score": score}))  # fmt: skip
        review = self.plan.random("review", order["order_id"])
        if human.is_member and review.random() < 0.1:
            rating = review.choices((1, 2, 3, 4, 5), (4, 6, 10, 30, 50))[0]
            about = {"product_id": review.choice(order["products"])["product_id"], "order_id": order["order_id"],
                     "rating": rating}  # fmt: skip
            self._plan(at_ms + int(review.uniform(5, 20) * DAY_MS), human,
                       lambda human, at_ms: self._server(human, at_ms, "Product Reviewed", about))  # fmt: skip

    # --- service

    def _ticket(self, human: Human, at_ms: int) -> None:
        dice = human.dice()
        ticket = human.next_id("ticket")
        is_slow = dice.random() < SLOW_ANSWER
        is_bad = dice.random() < (BAD_RATING if is_slow else BAD_RATING_ANYWAY)
        about = dice.choice(("delivery", "quality", "billing", "question"))
        rating = dice.choice((1, 2)) if is_bad else dice.choice((4, 5, 5))
        solved_ms = at_ms + int((dice.uniform(48, 120) if is_slow else dice.uniform(0.5, 8)) * HOUR_MS)
        self._server(human, at_ms, "Ticket Created",
                     {"ticket_id": ticket, "category": about, "priority": dice.choice(("normal", "high")),
                      "channel": dice.choice(("email", "chat", "phone"))})  # fmt: skip
        solved = {"ticket_id": ticket, "hours_to_solve": round((solved_ms - at_ms) / HOUR_MS, 1)}
        self._plan(solved_ms, human, lambda human, at_ms: self._server(human, at_ms, "Ticket Solved", solved))

        def rate(human: Human, at_ms: int) -> None:
            if at_ms >= human.gone_ms:
                return
            self._server(human, at_ms, "Ticket Rated", {"ticket_id": ticket, "rating": rating})
            if is_bad and human.dice().random() < LEAVES_AFTER_BAD_RATING:
                human.gone_ms = at_ms
                human.left_after_ticket = True

        self._plan(solved_ms + 2 * HOUR_MS, human, rate)

    # --- mail

    def _gets_mail(self, human: Human) -> bool:
        return human.is_subscribed and not human.is_holdout

    def _welcome(self, human: Human, at_ms: int) -> None:
        if self._gets_mail(human):
            self._plan(at_ms + 5 * MINUTE_MS, human,
                       lambda human, at_ms: self._mail(human, at_ms, "welcome", NEWSLETTER))  # fmt: skip
            self._plan(human.next_newsletter_ms(at_ms + DAY_MS), human, self._newsletter)

    def _newsletter(self, human: Human, at_ms: int) -> None:
        if self._gets_mail(human):
            self._mail(human, at_ms, "newsletter", NEWSLETTER)
            self._plan(human.next_newsletter_ms(at_ms), human, self._newsletter)

    def _cart_mail(self, human: Human, at_ms: int) -> None:
        if self._gets_mail(human):
            self._mail(human, at_ms, "cart_reminder", CART_MAIL)

    def _mail(self, human: Human, at_ms: int, template: str, campaign: Campaign) -> None:
        dice = human.dice()
        mail = {"email_id": human.next_id("mail"), "campaign_name": template, "topic": "newsletter",
                "email_subject": _SUBJECTS[template, human.market.language]}  # fmt: skip
        if dice.random() < 0.003:
            self._server(human, at_ms, "Email Bounced", mail)
            human.is_subscribed = False
            return
        self._server(human, at_ms, "Email Delivered", mail)
        if at_ms >= human.gone_ms or dice.random() >= human.opens:
            return
        opened_ms = at_ms + int(dice.expovariate(1 / 4) * HOUR_MS) + 30 * SECOND_MS
        self._plan(opened_ms, human, lambda human, at_ms: self._server(human, at_ms, "Email Opened", mail))
        if dice.random() < 0.35:
            self._plan(opened_ms + 20 * SECOND_MS, human,
                       lambda human, at_ms: self._click(human, at_ms, mail, campaign))  # fmt: skip
        elif dice.random() < 0.01:
            self._plan(opened_ms + 40 * SECOND_MS, human, lambda human, at_ms: self._unsubscribe(human, at_ms, mail))

    def _click(self, human: Human, at_ms: int, mail: dict[str, Any], campaign: Campaign) -> None:
        dice = human.dice()
        device = dice.choice(human.devices)
        self._server(human, at_ms, "Email Link Clicked", mail | {"link_url": f"{SITE}/?utm_campaign={campaign.name}"})
        self._visit(human, dice, device, campaign, at_ms + 3 * SECOND_MS)

    def _unsubscribe(self, human: Human, at_ms: int, mail: dict[str, Any]) -> None:
        human.is_subscribed = False
        self._server(human, at_ms, "Unsubscribed", mail)
        self._call(human, at_ms + SECOND_MS, None, _SERVER, "identify",
                   {"traits": {"consent": dict.fromkeys(TOPICS, False)}})  # fmt: skip

    # --- calls

    def _plan(self, at_ms: int, human: Human, action: Action) -> None:
        if at_ms < self.plan.end_ms:
            self._order += 1
            heappush(self._agenda, (at_ms, self._order, human.number, action))

    def _server(
        self, human: Human, at_ms: int, event: str, properties: dict[str, Any], device: Device | None = None
    ) -> None:
        """An event that the shop's own server sends; about a member, else about the device of a guest."""
        self._call(human, at_ms, device, _SERVER, "track", {"event": event, "properties": properties})

    def _call(
        self, human: Human, at_ms: int, device: Device | None, context: dict[str, Any], kind: str, body: dict[str, Any]
    ) -> None:
        if at_ms >= self.plan.end_ms:
            return
        call: dict[str, Any] = {"type": kind, "messageId": human.next_message_id(), "timestamp": _iso(at_ms)}
        if device is not None:
            call["anonymousId"] = device.anonymous_id
        if device is None or device.is_signed_in:
            call["userId"] = human.user_id
        self._order += 1
        made = Made(at_ms, human.number, _encode(call | body | {"context": context}))
        heappush(self._made, (at_ms, self._order, made))


class _Visit:
    """One visit under way: each call comes some seconds after the one before."""

    def __init__(self, shop: Shop, human: Human, dice: Random, device: Device, campaign: Campaign, at_ms: int) -> None:
        self.shop, self.human, self.dice, self.device, self.campaign = shop, human, dice, device, campaign
        self.now_ms = at_ms
        self.cart_id = f"cart-{shop.plan.id('cart', human.number, at_ms, length=10)}"
        self.referrer = campaign.referrer
        self.context = device.context
        if campaign.name:
            self.context = device.context | {
                "campaign": {"name": campaign.name, "source": campaign.source, "medium": campaign.medium}
            }

    def look(self, title: str, path: str) -> None:
        """A page of the web site, or a screen of the app."""
        page = {"path": path, "title": title, "url": SITE + path}
        if self.referrer:
            page["referrer"] = self.referrer
        if self.device.agent.is_app:
            self._call("screen", {"name": title, "properties": {"path": path}})
        else:
            self._call("page", {"name": title, "properties": page}, {"page": page})
        self.referrer = SITE + path

    def track(self, event: str, properties: dict[str, Any]) -> None:
        self._call("track", {"event": event, "properties": properties})

    def sign_up(self) -> None:
        human = self.human
        human.is_member = self.device.is_signed_in = True
        human.is_subscribed = human.would_subscribe
        self._call("identify", {"traits": human.traits() | {
            "createdAt": _iso(self.now_ms), "consent": dict.fromkeys(TOPICS, human.is_subscribed)}})  # fmt: skip
        self.track("Signed Up", {"method": "email"})
        if human.company is not None:
            self._call("group", {"groupId": human.company.id, "traits": human.company.traits})

    def sign_in(self) -> None:
        self.device.is_signed_in = True
        self._call("identify", {"traits": {"email": self.human.email}})
        self.track("Signed In", {"method": "email"})

    def item(self, product: Product) -> dict[str, Any]:
        market = self.human.market
        return {"product_id": product.sku, "name": product.name(market.language), "category": product.category,
                "price": _money(product.usd * market.rate), "currency": market.currency}  # fmt: skip

    def items(self, cart: Cart) -> list[dict[str, Any]]:
        return [self.item(BY_SKU[sku]) | {"quantity": quantity} for sku, quantity in cart.items()]

    def _call(self, kind: str, body: dict[str, Any], context: dict[str, Any] | None = None) -> None:
        self.shop._call(self.human, self.now_ms, self.device, self.context | (context or {}), kind, body)
        self.now_ms += 1 + int(self.dice.expovariate(1 / 25) * SECOND_MS)


_SUBJECTS = {
    ("welcome", "en"): "Welcome to the shop", ("welcome", "zh"): "欢迎光临",
    ("newsletter", "en"): "New this week", ("newsletter", "zh"): "本周上新",
    ("cart_reminder", "en"): "You left something behind", ("cart_reminder", "zh"): "您的购物车还在等您",
}  # fmt: skip


def _money(amount: Decimal) -> Decimal:
    return amount.quantize(_CENT, ROUND_HALF_UP)


def _iso(at_ms: int) -> str:
    return from_ms(at_ms).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
