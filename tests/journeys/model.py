"""What journeys ought to do, said once more and in another way: people are sets of devices, and whoever is due is found
by looking at everybody. It knows two journeys and one cap; nothing of logs, states, timers or crashes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

HOUR, DAY = 3_600_000, 86_400_000
CAP, WINDOW = 2, DAY  # marketing messages to one person, of all journeys
LIMITS = {"caps": [{"at_most": CAP, "within": "1 day"}]}
JOURNEYS = {
    "basket": """
enter: {event: {did: Product Added}}
again: {once_per: cart_id}
priority: 80
exits: [{did: Order Completed, matching: cart_id}]
steps:
  - {step: pause, wait: 3 hours}
  - {step: remind, send: basket}
""",
    "welcome": """
enter: {event: {did: Signed Up}}
again: {after: 5 days}
goal: {did: Order Completed, within: 3 days}
steps:
  - {step: hello, send: hello}
  - {step: pause, wait: 1 day}
  - {step: once_more, send: again}
""",
}


@dataclass
class Going:
    """A run: of `welcome` or of a cart in `basket`. `due`: when its wait is over; 0: it only looks for the goal."""

    journey: str
    entered: int
    due: int
    cart: str = ""


@dataclass
class Device:
    """What is known of one person key."""

    going: list[Going] = field(default_factory=list)
    entered: list[tuple[str, str, int]] = field(default_factory=list)
    got: list[int] = field(default_factory=list)


class Model:
    """Devices by key, who holds which, and what was sent and told."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.holder: dict[str, str] = {}
        self.told: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[tuple[str, str, int]] = Counter()

    def of(self, person: str) -> list[Device]:
        return [device for key, device in self.devices.items() if self.holder[key] == person]

    def event(self, key: str, name: str, cart: str, now: int) -> None:
        device = self.devices.setdefault(key, Device())
        person = self.holder.setdefault(key, key)
        for each in self.of(person):
            for run in list(each.going):
                if name != "Order Completed":
                    continue
                if run.journey == "basket" and run.cart == cart and run.due:
                    self.tell("left", "exit")
                    each.going.remove(run)
                elif run.journey == "welcome" and now <= run.entered + 3 * DAY:
                    self.tell("goal", "")
                    if run.due:
                        self.tell("left", "goal")
                    each.going.remove(run)
        if name == "Signed Up":
            before = [at for each in self.of(person) for journey, _, at in each.entered if journey == "welcome"]
            if any(run.journey == "welcome" and run.due for each in self.of(person) for run in each.going):
                self.tell("not_entered", "inside")
            elif before and max(before) + 5 * DAY > now:
                self.tell("not_entered", "again")
            else:
                device.entered.append(("welcome", "", now))
                device.going.append(Going("welcome", now, now + DAY))
                self.tell("entered", "")
                self.propose(device, person, "hello", now)
        if name == "Product Added":
            if any((journey, of) == ("basket", cart) for each in self.of(person) for journey, of, _ in each.entered):
                self.tell("not_entered", "again")
            else:
                device.entered.append(("basket", cart, now))
                device.going.append(Going("basket", now, now + 3 * HOUR, cart))
                self.tell("entered", "")

    def propose(self, device: Device, person: str, template: str, now: int) -> None:
        got = [at for each in self.of(person) for at in each.got if at > now - WINDOW]
        if not person.startswith("u"):
            self.tell("refused", "no_address")
        elif len(got) >= CAP:
            self.tell("refused", "arbitration" if now in got else "cap")
        else:
            device.got.append(now)
            self.sent[person, template, now] += 1

    def time(self, until: int) -> None:
        """Everything that is due, in the order of time."""
        while True:
            runs = [run for each in self.devices.values() for run in each.going]
            due = min((run.due for run in runs if 0 < run.due <= until), default=0)
            for device in self.devices.values():  # of whom only the goal is looked for
                device.going = [run for run in device.going if run.due or run.entered + 3 * DAY > (due or until)]
            if not due:
                return
            for journey, template in (("basket", "basket"), ("welcome", "again")):  # the higher priority first
                for key, device in self.devices.items():
                    for run in [run for run in device.going if run.due == due and run.journey == journey]:
                        self.propose(device, self.holder[key], template, due)
                        self.tell("left", "done")
                        run.due = 0
                        if journey == "basket":
                            device.going.remove(run)

    def merge(self, user: str, anonymous: str) -> None:
        for key, holder in self.holder.items():
            if holder == anonymous:
                self.holder[key] = user
        kept = set()
        going = [(run, each) for each in self.of(user) for run in each.going if run.due]
        for run, device in sorted(going, key=lambda each: each[0].entered):
            if (run.journey, run.cart) in kept:
                self.tell("left", "merged")
                device.going.remove(run)
            kept.add((run.journey, run.cart))

    def unmerge(self, anonymous: str) -> None:
        self.holder[anonymous] = anonymous

    def tell(self, kind: str, why: str) -> None:
        self.told[kind, why] += 1
