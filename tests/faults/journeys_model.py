"""The second model of journeys: what must have come of those of row 34, worked out from topic `events` alone.

A plain program for these three journeys and no others. It reads the log part by part: the events of a key in the order
in which they stood where the person was at that time, and the ticks that were sent to her. It knows nothing of plans,
turns, states, checkpoints or repetitions, so it cannot make the mistakes it looks for. That who entered when, what was
due when, and what was sent are the same as the ledger says, `differences` tells.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from schemas.customer import decode_parts
from schemas.internal import Absorb, Forward, Internal, Merge, Tick, decode_internal, is_internal
from schemas.keys import anonymous_key, user_key
from schemas.messages import SOURCE
from schemas.times import to_ms
from streams.log import Record

MINUTE_MS = 1_000  # so long a minute of these journeys takes
PAUSE_MS = 2 * MINUTE_MS
GOAL_MS = 6 * MINUTE_MS
LONGEST_MS = 2 * PAUSE_MS + GOAL_MS  # so long after she entered, at most, nothing more is due
MOST_MARKETING = 3

SIGNED_UP, ADDED, ORDERED, EMPTIED, SEEN = (
    "Signed Up", "Product Added", "Order Completed", "Basket Emptied", "Basket Seen"
)  # fmt: skip
FILES = {
    "journeys/club.yaml": f"""
enter: {{event: {{did: {SIGNED_UP}}}}}
priority: 80
holdout: 30
steps:
  - {{step: card, send: offer}}
""",
    "journeys/welcome.yaml": f"""
enter: {{event: {{did: {SIGNED_UP}}}}}
holdout: 20
steps:
  - {{step: hello, send: offer}}
  - {{step: pause, wait: 2 minutes}}
  - {{step: nudge, send: offer}}
  - {{step: again, go: pause, times: 1}}
  - {{step: tag, update: {{add_tags: [welcomed]}}}}
""",
    "journeys/basket.yaml": f"""
enter: {{event: {{did: {ADDED}}}}}
again: {{once_per: cart_id}}
holdout: 10
goal: {{did: {ORDERED}, matching: cart_id, within: 6 minutes, value: total}}
exits: [{{did: {EMPTIED}, matching: cart_id}}]
steps:
  - {{step: pause, wait: 2 minutes}}
  - {{step: remind, send: basket, from_event: {{cart: cart_id}}}}
  - {{step: look, wait_until: {{did: {SEEN}, matching: cart_id}}, at_most: 2 minutes, then: end, otherwise: last_call}}
  - {{step: last_call, send: basket, from_event: {{cart: cart_id}}}}
  - {{step: ask, task: {{subject: Call her}}}}
""",
    "templates/offer.yaml": """
{channel: inbox, kind: marketing, topic: offers, content: {en: {subject: An offer, text: For you.}}}
""",
    "templates/basket.yaml": """
{channel: inbox, kind: transactional, content: {en: {subject: Your basket, text: "It holds {{ given.cart }}."}}}
""",
    "limits.yaml": f"""
caps: [{{at_most: {MOST_MARKETING}, within: 1 day}}]
""",
}
HELD_OUT = {"club": 30, "welcome": 20, "basket": 10}

Line = tuple[object, ...]
Json = dict[str, Any]


class Moment(NamedTuple):
    """Something that came to a part where it was then.

    Attributes:
        home: the person key that it came to.
        at_ms: when it was, for the stage.
        event: as it stands in the log; None: time passed.
    """

    home: str
    at_ms: int
    event: Json | None


@dataclass
class Way:
    """Somebody's way through a journey; `entry` is the message id by which she entered."""

    journey: str
    entry: str
    cart: str
    entered_ms: int
    is_control: bool = False
    state: str = "waits"
    step: str = ""
    due_ms: int = 0
    rounds: int = 0
    left_ms: int = 0
    left_by: str = ""
    goal_ms: int = 0
    sent: int = 0


@dataclass
class Truth:
    """What must have come of journeys.

    Attributes:
        lines: of the ledger, each as often as it must stand there.
        orders: of messages: journey, template, to whom, when.
        ways: by journey and entry.
        made: events that journeys made: key, name.
        fired: how many timers.
    """

    lines: Counter[Line] = field(default_factory=Counter)
    orders: Counter[Line] = field(default_factory=Counter)
    ways: dict[tuple[str, str], Way] = field(default_factory=dict)
    made: Counter[Line] = field(default_factory=Counter)
    fired: int = 0


def truth_of(records: Sequence[Record]) -> Truth:
    """What the records of topic `events` come to."""
    truth = Truth()
    for key, moments in _moments(records).items():
        _Part(key, truth).live(moments)
    return truth


# --- what came to whom, in which order


def _moments(records: Sequence[Record]) -> dict[str, list[Moment]]:
    """What came to each part, in the order in which it did: at its own key, and once that was merged, at the user's."""
    events: dict[str, list[tuple[int, Json]]] = defaultdict(list)
    messages: dict[str, list[tuple[int, int, Internal]]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        if not is_internal(record.headers):
            event = json.loads(record.value or b"")
            if event["source"] != SOURCE:
                events[_key_of(event)].append((record.offset, event))
        else:
            message = decode_internal(record.value or b"")
            messages[message.to].append((record.offset, record.timestamp_ms, message))
    return {key: list(_moments_of(key, events[key], messages)) for key in sorted(events)}


def _moments_of(
    key: str, events: Sequence[tuple[int, Json]], messages: Mapping[str, Sequence[tuple[int, int, Internal]]]
) -> Iterator[Moment]:
    leaves, home = next(((offset, message.claim.holder) for offset, _, message in messages[key]
                         if isinstance(message, Merge)), (None, ""))  # fmt: skip
    here = [(offset, 0, _moment_of(key, event)) for offset, event in events]
    here += [(offset, 0, Moment(key, min(message.at_ms, told_ms), None)) for offset, told_ms, message in messages[key]
             if isinstance(message, Tick)]  # fmt: skip
    seen: set[str] = set()
    for offset, _, moment in sorted(here, key=lambda each: each[0]):
        if leaves is None or offset < leaves:
            yield from _new(moment, seen)
    if leaves is None:
        return
    comes = next(offset for offset, _, message in messages[home]
                 if isinstance(message, Absorb) and key in decode_parts(message.parts))  # fmt: skip
    there = []
    for offset, told_ms, message in messages[home]:
        if isinstance(message, Forward) and message.part == key:  # what comes before the part is held until it is there
            there.append((max(comes, offset), offset, _moment_of(home, json.loads(bytes(message.event)))))
        elif isinstance(message, Tick) and offset > comes:
            there.append((offset, offset, Moment(home, min(message.at_ms, told_ms), None)))
    for _, _, moment in sorted(there, key=lambda each: each[:2]):
        yield from _new(moment, seen)


def _new(moment: Moment, seen: set[str]) -> Iterator[Moment]:
    """The moment, but no event a second time."""
    id_ = moment.event["messageId"] if moment.event is not None else ""
    if not id_ or id_ not in seen:
        seen.add(id_)
        yield moment


def _moment_of(home: str, event: Json) -> Moment:
    return Moment(home, _ms(event["receivedAt"]), event)


def _key_of(event: Json) -> str:
    workspace, user = event["workspace"], event.get("userId", "")
    return user_key(workspace, user) if user else anonymous_key(workspace, event["anonymousId"])


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


# --- the journeys


class _Part:
    """One key's history, from its first event to the end."""

    def __init__(self, key: str, truth: Truth) -> None:
        self.key, self.truth = key, truth
        self.ways: list[Way] = []
        self.marketing = 0
        self.home = key
        self.now_ms = 0

    def live(self, moments: Iterable[Moment]) -> None:
        for home, at_ms, event in moments:
            self.home, self.now_ms = home, at_ms
            if event is None:
                for way in sorted(self.ways, key=lambda way: way.due_ms):
                    if 0 < way.due_ms <= at_ms:
                        self._time_has_come(way)
            else:
                for way in list(self.ways):
                    self._happens(way, event.get("event", ""), event)
                self._enters(event.get("event", ""), event)

    def _enters(self, name: str, event: Json) -> None:
        if name == SIGNED_UP:
            before = {way.journey: way for way in self.ways}
            for journey in ("club", "welcome"):
                if journey not in before:
                    self._begin(journey, event)
                else:
                    inside = before[journey].state == "waits"
                    self._tell(None, journey, "not_entered", event["messageId"], "inside" if inside else "again")
        elif name == ADDED:
            if event["properties"]["cart_id"] in {way.cart for way in self.ways}:
                self._tell(None, "basket", "not_entered", event["messageId"], "again")
            else:
                self._begin("basket", event)

    def _begin(self, journey: str, event: Json) -> None:
        way = Way(journey, event["messageId"], event.get("properties", {}).get("cart_id", ""), self.now_ms)
        self.ways.append(way)
        self.truth.ways[journey, way.entry] = way
        way.is_control = _share("holdout", journey, self.home) * 100 < HELD_OUT[journey]
        self._line(way, "entered", way.is_control)
        if way.is_control:
            way.state = "control"
            self._after(way)
        elif journey == "club":
            self._market(way, "card")
            self._leave(way, "done")
        elif journey == "welcome":
            self._market(way, "hello")
            self._wait(way, "pause", PAUSE_MS)
        else:
            self._wait(way, "pause", PAUSE_MS)

    def _time_has_come(self, way: Way) -> None:
        due_ms, way.due_ms = way.due_ms, 0
        if way.state in ("control", "after"):
            way.state = "ended"
            return
        self.truth.fired += 1
        self._line(way, "timed_out" if way.step == "look" else "woke", way.step, due_ms)
        if way.journey == "welcome":
            self._market(way, "nudge")
            way.rounds += 1
            if way.rounds == 1:
                self._wait(way, "pause", PAUSE_MS)
                return
            way.step = "tag"
            self._line(way, "updated", "tag")
            self.truth.made[self.key, "identify"] += 1
            self._leave(way, "done")
        elif way.step == "pause":
            self._order(way, "remind", "basket")
            self._wait(way, "look", PAUSE_MS)
        else:
            self._order(way, "last_call", "basket")
            way.step = "ask"
            self._line(way, "opened", "ask")
            self.truth.made[self.key, "Task Created"] += 1
            self._leave(way, "done")

    def _happens(self, way: Way, name: str, event: Json) -> None:
        if not way.cart or event.get("properties", {}).get("cart_id") != way.cart:
            return
        if name == ORDERED and way.state != "ended" and self.now_ms <= way.entered_ms + GOAL_MS:
            way.goal_ms = self.now_ms
            self._line(way, "goal", event["messageId"])
            if way.state == "waits":
                self._leave(way, "goal")
            way.state, way.due_ms = "ended", 0
        elif way.state == "waits" and name == EMPTIED:
            self._leave(way, "exit")
        elif way.state == "waits" and name == SEEN and way.step == "look":
            self._line(way, "happened", "look")
            self._leave(way, "done")

    def _market(self, way: Way, step: str) -> None:
        """Propose a message of which nobody gets more than so many."""
        if self.marketing < MOST_MARKETING:
            self.marketing += 1
            self._order(way, step, "offer")
        else:
            way.step = step
            self._line(way, "refused", step, "cap")

    def _order(self, way: Way, step: str, template: str) -> None:
        way.step = step
        way.sent += 1
        self._line(way, "proposed", step)
        self.truth.orders[way.journey, template, self.home, self.now_ms] += 1

    def _wait(self, way: Way, step: str, long_ms: int) -> None:
        way.step, way.due_ms = step, self.now_ms + long_ms
        self._line(way, "waits", step, way.due_ms)

    def _leave(self, way: Way, why: str) -> None:
        way.left_ms, way.left_by = self.now_ms, why
        way.state = "after"
        self._line(way, "left", why)
        self._after(way)

    def _after(self, way: Way) -> None:
        """Until the time of the goal is over it is looked for."""
        way.due_ms = way.entered_ms + GOAL_MS if way.journey == "basket" and not way.goal_ms else 0
        if way.due_ms <= self.now_ms:
            way.state, way.due_ms = "ended", 0

    def _line(self, way: Way, kind: str, *more: object) -> None:
        self._tell(way.entry, way.journey, kind, *more)

    def _tell(self, entry: str | None, journey: str, kind: str, *more: object) -> None:
        self.truth.lines[entry, journey, kind, self.home, self.now_ms, *more] += 1


def _share(*of: str) -> float:
    """The lot that somebody draws, from 0 to 1."""
    return int(blake2b("\0".join(of).encode(), digest_size=16).hexdigest()[:13], 16) / 16**13


# --- what is there


@dataclass
class Findings:
    """What is not as it must be.

    Attributes:
        lost: steps, messages and rows that are missing.
        doubled: those that are there too often, or should not be there.
        latest_ms: how long after it was due, and could fire, the latest timer did.
        wrong: in words.
    """

    lost: int = 0
    doubled: int = 0
    latest_ms: int = 0
    wrong: list[str] = field(default_factory=list)

    def compare(self, what: str, must: Counter[Line], told: Counter[Line]) -> None:
        lost, more = must - told, told - must
        self.lost += lost.total()
        self.doubled += more.total()
        for name, which in (("missing", lost), ("too many", more)):
            if which:
                some = "; ".join(map(str, sorted(which, key=str)[:3]))
                self.wrong.append(f"{which.total()} {what} are {name}: {some}")


def differences(
    truth: Truth, *, events: Sequence[Record], decisions: Sequence[Record], messages: Sequence[Record],
    rows: Sequence[Json], could_fire: Callable[[int], int],
) -> Findings:  # fmt: skip
    """Compare the truth with the ledger, the orders and the rows.

    Args:
        decisions, messages: all records of these topics.
        rows: of table journey_runs, the newest of each.
        could_fire: from when on a timer could fire that was due then.
    """
    found = Findings()
    lines = _once(found, "lines of the ledger", decisions, lambda said: said.get("processor") == "journeys")
    entries = {line["facts"]["run"]: line["facts"]["message_id"] for line, _ in lines if line["kind"] == "entered"}
    found.compare("lines of the ledger", truth.lines, Counter(_line_of(line, entries) for line, _ in lines))
    for line, told_ms in lines:
        if line["kind"] in ("woke", "timed_out"):
            due_ms = _ms(line["facts"]["due"])
            if min(_ms(line["at"]), told_ms) < due_ms:
                found.wrong.append(f"a timer that was due {line['facts']['due']} fired {line['at']}")
            found.latest_ms = max(found.latest_ms, told_ms - could_fire(due_ms))
    orders = _once(found, "orders", messages, lambda said: said.get("by", "").startswith("journey "))
    found.compare("messages", truth.orders, Counter(
        (said["by"].partition(" ")[2], said["template"], said["to"], said["at_ms"]) for said, _ in orders
    ))  # fmt: skip
    proposed = Counter(line["facts"]["message"] for line, _ in lines if line["kind"] == "proposed")
    found.compare("ids of messages", Counter(dict(proposed)), Counter(said["id"] for said, _ in orders))
    found.compare("rows", Counter(map(_row_of_way, truth.ways.values())),
                  Counter(_row_of(row, entries) for row in rows))  # fmt: skip
    found.compare("events of journeys", truth.made, Counter(_made(events)))
    return found


def _once(
    found: Findings, what: str, records: Sequence[Record], is_ours: Callable[[Json], bool]
) -> list[tuple[Json, int]]:  # fmt: skip
    """What these records say, once by id, and when it was first said. What is said again must be the same."""
    said: dict[str, tuple[Json, int]] = {}
    for record in records:
        each = json.loads(record.value or b"{}")
        if is_ours(each):
            known, since_ms = said.setdefault(each["id"], (each, record.timestamp_ms))
            said[each["id"]] = known, min(since_ms, record.timestamp_ms)
            if known != each:
                found.doubled += 1
                found.wrong.append(f"{what} say two things under one id: {known}, and {each}"[:600])
    return list(said.values())


def _line_of(line: Json, entries: Mapping[str, str]) -> Line:
    facts, kind = line["facts"], line["kind"]
    entry = None if kind == "not_entered" else entries.get(facts["run"], "nobody's")
    more: tuple[object, ...] = ()
    match kind:
        case "entered":
            more = (facts["control"],)
        case "not_entered":
            more = (facts["message_id"], facts["why"])
        case "waits" | "woke" | "timed_out":
            more = (facts["step"], _ms(facts["due"]))
        case "refused":
            more = (facts["step"], facts["why"])
        case "goal":
            more = (facts["message_id"],)
        case "left":
            more = (facts["why"],)
        case _:
            more = (facts["step"],)
    return entry, line["about"], kind, line["person"], _ms(line["at"]), *more


def _row_of_way(way: Way) -> Line:
    return (way.entry, way.journey, "ended", way.is_control, way.entered_ms, way.left_by, way.left_ms, way.goal_ms,
            way.sent)  # fmt: skip


def _row_of(row: Json, entries: Mapping[str, str]) -> Line:
    moments = (to_ms(row[name]) if row[name] else 0 for name in ("entered_at", "left_at", "goal_at"))
    entered_ms, left_ms, goal_ms = moments
    return (entries.get(row["run"], "nobody's"), row["journey"], row["state"], row["is_control"], entered_ms,
            row["left_by"], left_ms, goal_ms, row["sent"])  # fmt: skip


def _made(records: Sequence[Record]) -> Iterator[Line]:
    """Events that journeys made, each once."""
    seen: set[str] = set()
    for record in records:
        if is_internal(record.headers):
            continue
        event = json.loads(record.value or b"")
        name, id_ = event.get("event") or event["type"], event["messageId"]
        if event["source"] == SOURCE and name in ("identify", "Task Created") and id_ not in seen:
            seen.add(id_)
            yield _key_of(event), name
