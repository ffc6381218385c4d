"""What the people of a company come to together, live, and usable in conditions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from processors.fold import Fold
from processors.orders import Orders
from processors.profile import Profile
from processors.segments import CompanyRow, Segments
from schemas.event import Event
from schemas.times import DAY_MS, HOUR_MS, from_ms
from streams.companies import TELL_AFTER_MS
from tests.segments.test_live import Shop

BIG = {"attribute": "company.orders", "at_least": 3}
RICH = {"attribute": "company.revenue.EUR", "at_least": 30}


def an_order(order_id: str, total: float) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"order_id": order_id, "total": total, "currency": "EUR"}))


class Firms(Shop):
    """People who work somewhere, and buy."""

    def __init__(self, seed: int = 0, **segments: Any) -> None:
        super().__init__(seed, fold=Fold([Profile(), Orders(), Segments()]), **segments)

    def works_at(self, user: str, group: str) -> None:
        self.tell(user, type="group", group_id=group)

    def buys(self, user: str, total: float = 10.0, anonymous: str = "") -> None:
        self.tell(user, type="track", event="Order Completed", anonymous_id=anonymous,
                  raw_properties=an_order(f"o{self.count}", total))

    def tell(self, user: str, **more: Any) -> None:
        self.count += 1
        at = from_ms(self.clock_ms)
        self.send(Event(message_id=f"m{self.count}", workspace="w", source="shop", timestamp=at, received_at=at,
                        user_id=user, **more))  # fmt: skip
        self.settle()

    def account(self, key: str) -> dict[str, Any]:
        return next(owner.records[key].account for owner in self.owners if key in owner.records)

    def companies(self) -> dict[str, CompanyRow | None]:
        """The row of each company; None where it was deleted."""
        found = {}
        for (table, part, _), (_, _, row) in self.rows.items():
            if table == "companies":
                assert isinstance(row.values, CompanyRow)
                found[part] = None if row.is_deleted else row.values
        return found

    def told(self) -> None:
        self.wait(2 * TELL_AFTER_MS / DAY_MS)


def test_what_all_of_a_company_bought_is_known_to_each():
    firms = Firms(big=BIG, rich=RICH)
    for user in ("ann", "bob"):
        firms.works_at(user, "acme")
        firms.buys(user, 12.5)
    firms.told()
    assert firms.account("w/u:ann") == {"people": 2, "orders": 2, "revenue": {"EUR": "25"}}
    assert firms.members("big") == set()

    firms.buys("ann", 5)
    firms.told()

    assert firms.members("big") == firms.members("rich") == {"u:ann", "u:bob"}
    assert ("u:bob", "big", "company") in firms.ledger("joined")
    assert firms.companies() == {"w/g:acme": CompanyRow("acme", 2, 3, {"EUR": Decimal(30)})}


def test_who_changes_her_company_takes_her_orders_along():
    firms = Firms(big=BIG)
    for user, group, orders in (("ann", "acme", 2), ("bob", "acme", 2), ("eve", "other", 1)):
        firms.works_at(user, group)
        for _ in range(orders):
            firms.buys(user)
    firms.told()
    assert firms.members("big") == {"u:ann", "u:bob"}

    firms.clock_ms += HOUR_MS
    firms.works_at("ann", "other")
    firms.told()

    assert firms.members("big") == {"u:ann", "u:eve"}
    assert firms.account("w/u:bob")["orders"] == 2


def test_who_leaves_her_company_is_judged_at_once():
    firms = Firms(big=BIG)
    firms.works_at("ann", "acme")
    for _ in range(3):
        firms.buys("ann")
    firms.told()
    assert firms.members("big") == {"u:ann"}

    firms.clock_ms += HOUR_MS
    firms.works_at("ann", "other")

    assert firms.members("big") == set()
    assert ("u:ann", "big", "event") in firms.ledger("left")


def test_merged_people_are_one_of_the_company():
    firms = Firms()
    firms.works_at("ann", "acme")
    firms.buys("", anonymous="x")
    firms.tell("", type="group", group_id="acme", anonymous_id="x")
    firms.told()
    assert firms.account("w/u:ann") == {"people": 2, "orders": 1, "revenue": {"EUR": "10"}}

    firms.buys("ann", anonymous="x")
    firms.told()

    assert firms.account("w/u:ann") == {"people": 1, "orders": 2, "revenue": {"EUR": "20"}}
    assert firms.companies() == {"w/g:acme": CompanyRow("acme", 1, 2, {"EUR": Decimal(20)})}


@pytest.mark.parametrize("seed", range(10))
def test_crashes_change_nothing(seed: int):
    """Once it has come to rest, everybody knows the same, whatever was done again on the way."""
    shops = []
    for crash in (0.0, 0.2):
        firms = Firms(seed, big=BIG)
        for number in range(40):
            firms.clock_ms += HOUR_MS
            firms.count += 1
            at, user = from_ms(firms.clock_ms), f"u{number % 5}"
            kind: dict[str, Any] = {"type": "group", "group_id": f"g{number // 4 % 2}"} if number % 4 == 0 else {
                "type": "track", "event": "Order Completed", "raw_properties": an_order(f"o{number}", 1)}  # fmt: skip
            firms.send(Event(message_id=f"m{number}", workspace="w", source="shop", timestamp=at, received_at=at,
                             user_id=user, **kind))  # fmt: skip
        firms.settle(crash=crash)
        firms.told()
        firms.told()
        shops.append(firms)

    quiet, shaken = shops
    people = [f"w/u:u{number}" for number in range(5)]
    assert [shaken.account(key) for key in people] == [quiet.account(key) for key in people]
    assert shaken.members("big") == quiet.members("big")
    assert shaken.companies() == quiet.companies()
    assert len(quiet.companies()) == 2
