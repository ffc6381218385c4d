"""A shop with journeys, in memory: the real stage, a clock of its own, and what came of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from config.yaml_file import parse_yaml
from processors.fold import Fold
from processors.journeys import Journeys
from processors.profile import Profile
from processors.segments import Segments
from schemas.conditions import read_condition
from schemas.effects import Row
from schemas.event import Event
from schemas.internal import HEADERS, Define, Sweep, Tick, encode_internal
from schemas.journeys import BranchStep, JourneyFile, Led, LedJourney, Mail, Run
from schemas.messages import Order
from schemas.segments import Definitions, Said, encode_definitions
from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS, from_ms, to_ms
from streams.segments import RULES_KEY
from tests.streams.world import START, World

START_MS = to_ms(START)
MAILS = {
    "hello": Mail("email", "marketing", "offers"), "again": Mail("email", "marketing", "offers"),
    "basket": Mail("email", "marketing", "baskets"), "receipt": Mail("email", "transactional"),
    "text": Mail("sms", "marketing", "offers"),
}  # fmt: skip
_UNITS = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "s": 1_000}


def ms_of(text: str) -> int:
    """`3d` and the like."""
    return round(float(text[:-1]) * _UNITS[text[-1]])


class Shop(World):
    """Journeys are given as YAML, by name. Nobody is held out unless a journey says so."""

    def __init__(self, seed: int = 0, partitions: int = 3, limits: Any = None, segments: Any = None, **journeys: str):
        super().__init__(seed, partitions=partitions, fold=Fold([Profile(), Segments(), Journeys()]))
        self.clock_ms = START_MS
        self.count = 0
        self.limits = limits or {}
        self.segments = segments or {}
        self.versions: dict[str, list[LedJourney]] = {}
        for name, text in journeys.items():
            self.write(name, text)
        self.define()

    def write(self, name: str, text: str, **led: Any) -> None:
        """A new version of a journey; the ones before it stay for who is inside."""
        said = {"holdout": 0, **parse_yaml(text, name).values}
        JourneyFile.model_validate(said)
        older = [msgspec.structs.replace(each, is_newest=False) for each in self.versions.get(name, [])]
        self.versions[name] = [*older, LedJourney(name=name, version=len(older) + 1, said=said, **led)]

    def steer(self, name: str, **led: Any) -> None:
        """Another status, or the like, of its newest version."""
        *older, newest = self.versions[name]
        self.versions[name] = [*older, msgspec.structs.replace(newest, **led)]
        self.define()
        self.sweep()

    def define(self) -> None:
        said = [Said(name=name, version=1, when=when, is_live=True) for name, when in self.segments.items()]
        journeys = [each for versions in self.versions.values() for each in versions]
        for journey in journeys:
            conditions = _conditions(JourneyFile.model_validate(journey.said))
            said += [Said(name=f"journey.{journey.name}.{journey.version}.{number}", version=1,
                          when=each.model_dump(mode="json", by_alias=True, exclude_none=True))
                     for number, each in enumerate(conditions)]  # fmt: skip
        led = Led(journeys=journeys, mails=MAILS, limits=self.limits, workspace="w")
        definitions = msgspec.Raw(encode_definitions(Definitions(zone="UTC", definitions=said, journeys=led)))
        for partition in range(len(self.logs)):
            define = Define(to=RULES_KEY, origin="", at_ms=0, definitions=definitions)
            self._append(RULES_KEY, encode_internal(define), HEADERS, partition)
        self.settle()

    def sweep(self, journey: str = "", sweep: str = "first") -> None:
        for partition in range(len(self.logs)):
            message = Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=sweep, journey=journey)
            self._append(RULES_KEY, encode_internal(message), HEADERS, partition)
        self.settle()

    # --- what people do

    def did(self, user: str, event: str, *, anonymous: str = "", days_ago: float = 0, **properties: Any) -> None:
        self.happen(event, user=user, anonymous=anonymous, days_ago=days_ago, properties=properties)
        self.settle()

    def said(self, user: str, **traits: Any) -> None:
        """An identify call."""
        self.happen("", user=user, traits=traits)
        self.settle()

    def happen(
        self, event: str, *, user: str = "", anonymous: str = "", previous: str = "", days_ago: float = 0,
        properties: Any = None, traits: Any = None, source: str = "shop",
    ) -> None:  # fmt: skip
        self.count += 1
        kind: Any = "alias" if previous else "track" if event else "identify"
        self.send(Event(
            message_id=f"m{self.count}", type=kind, workspace="w", source=source, event=event, user_id=user,
            timestamp=from_ms(self.clock_ms - round(days_ago * DAY_MS)), received_at=from_ms(self.clock_ms),
            anonymous_id=anonymous, previous_id=previous,
            raw_properties=msgspec.Raw(msgspec.json.encode(properties or {})),
            raw_traits=msgspec.Raw(msgspec.json.encode(traits or {})),
        ))  # fmt: skip

    def customer(self, user: str, *, consents: bool = True, **traits: Any) -> None:
        """Somebody with an address, who allows everything."""
        self.said(user, email=f"{user}@example.com", **traits)
        if consents:
            self.did(user, "Subscribed", topic="*")

    def wait(self, long: str, crash: float = 0.0) -> None:
        """Time passes, and timers fire when they are due."""
        until_ms = self.clock_ms + ms_of(long)
        while True:
            dues = [(self.stage.next_due_ms(customer), key) for owner in self.owners
                    for key, customer in owner.records.items()]  # fmt: skip
            due_ms, key = min(((due, key) for due, key in dues if due), default=(until_ms + 1, ""))
            if due_ms > until_ms:
                break
            self.clock_ms = max(self.clock_ms, due_ms)
            self._append(key, encode_internal(Tick(to=key, origin="", at_ms=self.clock_ms)), HEADERS)
            self.settle(crash=crash)
        self.clock_ms = until_ms

    # --- what came of it

    def lines(self, *kinds: str, about: str = "") -> list[Any]:
        """Lines of the ledger about journeys, in the order of their time."""
        found = [line for line in self.decisions.values()
                 if line.processor == "journeys" and (not kinds or line.kind in kinds)
                 and about in ("", line.about)]  # fmt: skip
        return sorted(found, key=lambda line: line.at)

    def told(self, *kinds: str) -> list[tuple[str, str]]:
        """Kind, and the step or the reason."""
        return [(line.kind, str(line.facts.get("why") or line.facts.get("step") or "")) for line in self.lines(*kinds)]

    @property
    def orders(self) -> list[Order]:
        """Each message once, as the stage of messages takes it."""
        return list({each.id: each for each in self.messages if isinstance(each, Order)}.values())

    def sent(self) -> Counter[str]:
        return Counter(each.template for each in self.orders)

    def runs(self, user: str = "") -> dict[str, Run]:
        """The runs of everybody, or of one user."""
        found = {}
        for owner in self.owners:
            for key, customer in owner.records.items():
                if user in ("", key.partition(":")[2]):
                    for part in customer.parts.values():
                        if "journeys:1" in part.sections:
                            found.update(self.fold.open(part, "journeys").runs)
        return found

    def row(self, run: str) -> Any:
        """The newest row of a run."""
        (row,) = [row for (table, _, key), (_, _, row) in self.rows.items() if table == "journey_runs" and key == run]
        assert isinstance(row, Row)
        return row.values


def _conditions(journey: JourneyFile) -> list[Any]:
    found = [journey.when] if journey.when is not None else []
    found += [case.when for step in journey.steps if isinstance(step, BranchStep) for case in step.branch]
    return [read_condition(each.model_dump(mode="json", by_alias=True, exclude_none=True)) for each in found]
