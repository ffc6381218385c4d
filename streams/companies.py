"""Companies: what the people of one come to together, live, and known to each of them.

A person tells her company (the newest `group` call says which) what she brings: her orders and revenue, each time they
change. The company adds up, and tells its people in turn, not at once but all changes of some seconds together. Both
travel in the log as messages between keys, as merges do; a company's key is `workspace/g:GROUP_ID`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from processors.fold import Fold
from processors.segments import CompanyRow
from processors.selectors import UNIT
from schemas.customer import Company, Customer, Holding
from schemas.effects import Decision, Row
from schemas.internal import Account, Belongs
from streams.outbox import Outbox

PROFILE, ORDERS, COMPANY = "profile", "orders", "company"
GROUP = "Group"  # the label of events that say to which company somebody belongs
MOST_PEOPLE = 2_000  # of one company; who comes later is not added up
TELL_AFTER_MS = 5_000  # a change is told to everybody after so long, with all that came meanwhile


def is_company(key: str) -> bool:
    return key.partition("/")[2].startswith("g:")


class Companies:
    """What the customer stage does for companies."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    def matter(self, customer: Customer, label: str) -> bool:
        """Whether an event of this label may change what a person brings, or to whom."""
        return label == GROUP or (customer.holding is not None and self._fold.wants(ORDERS, label))

    def look(self, key: str, customer: Customer, out: Outbox) -> None:
        """Tell her company what she brings, if that changed; and the one she left, that she is gone."""
        before, now = customer.holding, self._holding(key, customer)
        if before == now:
            return
        if before is not None and (now is None or now.company != before.company):
            out.send(Belongs(to=before.company, origin=out.origin, at_ms=out.at_ms, person=key, is_gone=True))
            customer.account = {}
        if now is not None:
            out.send(Belongs(to=now.company, origin=out.origin, at_ms=out.at_ms, person=key, orders=now.orders,
                             revenue=now.revenue))  # fmt: skip
        customer.holding = now

    def _holding(self, key: str, customer: Customer) -> Holding | None:
        if customer.redirect or not customer.parts:
            return None
        group = self._fold.shown(customer.parts, PROFILE).get("company_id")
        if not group:
            return None
        orders = self._fold.shown(customer.parts, ORDERS)
        revenue = {currency: int(Decimal(amount) * UNIT) for currency, amount in orders.get("revenue", {}).items()}
        return Holding(f"{key.partition('/')[0]}/g:{group}", orders.get("orders", 0), revenue)

    def on_belongs(self, key: str, customer: Customer, message: Belongs, out: Outbox) -> None:
        """A person tells what she brings."""
        company = customer.company = customer.company or Company()
        if message.is_gone:
            if company.people.pop(message.person, None) is None:
                return
        elif message.person not in company.people and len(company.people) >= MOST_PEOPLE:
            out.decide(message.person, COMPANY, Decision("company_full", key, {"people": MOST_PEOPLE}))
            return
        else:
            company.people[message.person] = (message.orders, dict(message.revenue))
        if not customer.judged_due_ms:
            customer.judged_due_ms = out.at_ms + TELL_AFTER_MS

    def tell(self, key: str, customer: Customer, out: Outbox) -> None:
        """Tell everybody of a company what they come to."""
        company = customer.company
        assert company is not None
        customer.judged_due_ms = 0
        orders, revenue = 0, dict[str, int]()
        for of_one, amounts in company.people.values():
            orders += of_one
            for currency, amount in amounts.items():
                revenue[currency] = revenue.get(currency, 0) + amount
        shown = {currency: Decimal(amount) / UNIT for currency, amount in sorted(revenue.items())}
        row = CompanyRow(key.partition("/")[2][2:], len(company.people), orders, shown)
        out.row(key, customer.revision, Row(row, is_deleted=not company.people))
        account = {"people": len(company.people), "orders": orders,
                   "revenue": {currency: str(amount) for currency, amount in shown.items()}}  # fmt: skip
        for person in sorted(company.people):
            out.send(Account(to=person, origin=out.origin, at_ms=out.at_ms, company=key, account=account))

    @staticmethod
    def on_account(customer: Customer, message: Account) -> bool:
        """Her company tells what they come to together. Returns whether that is news."""
        if customer.holding is None or customer.holding.company != message.company:
            return False  # she left meanwhile
        if customer.account == message.account:
            return False
        customer.account = dict(message.account)
        return True


def section_of(customer: Customer) -> Mapping[str, Any]:
    """What stands in her portrait of her company, and what conditions ask of it."""
    if customer.holding is None or not customer.account:
        return {}
    return {"id": customer.holding.company.partition("/")[2][2:], **customer.account}
