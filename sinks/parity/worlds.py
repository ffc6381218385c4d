"""Worlds that nobody has thought of: conditions, and people whose histories come late, twice and in pieces.

Few names and values, so that conditions and events meet; times on the edges of windows, days and clock changes.
Everything is drawn from one `random.Random`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from schemas.conditions import WrongCondition, read_condition
from schemas.event import Event
from schemas.times import from_ms, to_iso, to_ms

ZONES = ("UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo")
# Noon, the days on which clocks are changed, the turn of a year and a leap day.
MOMENTS = ("2026-03-01T12:00:00", "2026-03-29T03:30:00", "2026-10-25T02:30:00", "2026-01-01T00:00:00",
           "2028-02-29T23:59:59", "2026-03-08T06:59:59", "2026-11-01T05:30:00", "2018-11-04T10:00:00")  # fmt: skip
NAMES = ("A", "B", "C")
PATHS = ("color", "size", "products.id", "products", "deep.er", "name")
TEXTS = ("red", "Red", "grün", "5", "5.0", "-1", "", "2026-02-28", "true", "ÄÖ", "李雷", "ΑΣ",
         "İx", "a\"b'c\\d", "x" * 3)
NUMBERS = (5, 5.0, -1, 0, 0.1, 12.25, 10**15, -0.0001)
VALUES = (*TEXTS, *NUMBERS, True, False)
WINDOWS = ("30 minutes", "2 hours", "1 day", "3 days", "1 week", "1 calendar day", "2 calendar days", "8 calendar days")
LENGTHS = {"30 minutes": 1_800_000, "2 hours": 7_200_000, "1 day": 86_400_000, "3 days": 3 * 86_400_000,
           "1 week": 7 * 86_400_000}  # fmt: skip
LOCALES = ("en-GB", "zh-CN", "de", None)
_encode = msgspec.json.encode


@dataclass(frozen=True)
class Told:
    """One arrival of an event, under the person key it was sent for."""

    key: str
    event: Event


@dataclass(frozen=True)
class Person:
    """A person: her keys, and what was told of them, in the order in which it came.

    Attributes:
        shows: what a processor `told` shows of her.
        guest: a key that was merged into her and is somebody of its own again since `parted_ms`.
    """

    key: str
    keys: tuple[str, ...]
    told: tuple[Told, ...]
    shows: dict[str, Any]
    guest: Person | None = None
    parted_ms: int = 0

    @property
    def events(self) -> list[Event]:
        """Each event once: as it came first."""
        once: dict[tuple[str, str], Event] = {}
        for told in self.told:
            once.setdefault((told.event.source, told.event.message_id), told.event)
        return list(once.values())


@dataclass(frozen=True)
class World:
    """Conditions by the names of their segments, as plain maps, and people, looked at `now`."""

    workspace: str
    zone: str
    now_ms: int
    segments: dict[str, Any]
    people: tuple[Person, ...]

    @property
    def everybody(self) -> list[Person]:
        """The people and their guests."""
        return [*self.people, *(person.guest for person in self.people if person.guest is not None)]


def a_world(rng: Random, workspace: str, *, segments: int = 6, people: int = 8) -> World:
    zone = rng.choice(ZONES)
    now_ms = to_ms(datetime.fromisoformat(rng.choice(MOMENTS)).replace(tzinfo=UTC)) + rng.choice((0, 1, -1, 999))
    conditions: dict[str, Any] = {}
    for number in range(segments):
        conditions[f"s{number}"] = _condition(rng, list(conditions), 3)
    edges = _edges(zone, now_ms)
    crowd = tuple(_person(rng, f"{workspace}/u:{number}", workspace, now_ms, edges) for number in range(people))
    return World(workspace, zone, now_ms, conditions, crowd)


def _edges(zone: str, now_ms: int) -> list[int]:
    """Moments at which an answer may change."""
    today = from_ms(now_ms).astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    midnights = [to_ms((today - timedelta(days=days)).astimezone(UTC)) for days in range(9)]
    return [now_ms, *(now_ms - length for length in LENGTHS.values()), *midnights]


# --- conditions


def _condition(rng: Random, others: list[str], depth: int) -> dict[str, Any]:
    while True:
        said = _node(rng, others, depth)
        try:
            read_condition(said)
        except WrongCondition:
            continue
        return said


def _node(rng: Random, others: list[str], depth: int) -> dict[str, Any]:
    kinds = ["did", "did", "did", "which", "total", "sequence", "trait", "context", "attribute"]
    if depth > 1:
        kinds += ["all", "any", "not", "not"]
    if others:
        kinds.append("segment")
    match rng.choice(kinds):
        case "all" | "any" as several:
            return {several: [_node(rng, others, depth - 1) for _ in range(rng.randint(1, 3))]}
        case "not":
            return {"not": _node(rng, others, depth - 1)}
        case "segment":
            return {"segment": rng.choice(others)}
        case "did":
            times: dict[str, Any] = rng.choice(
                [{}, {"at_least": rng.randint(1, 4)}, {"at_most": rng.randint(0, 3)}, {"exactly": rng.randint(0, 3)}]
            )
            return {**_event(rng), **times, **_when(rng)}
        case "which":
            when = rng.choice([{"within": rng.choice(WINDOWS)}, {"longer_ago": rng.choice(WINDOWS)}, _since(rng)])
            return {**_event(rng), "which": rng.choice(["first", "last"]), **when}
        case "total":
            limit = {rng.choice(["at_least", "less_than"]): rng.choice([0, 5, 10, 12.25, -1, 0.1])}
            return {**_event(rng), "total": {"of": rng.choice(PATHS), **limit}, **_when(rng)}
        case "sequence":
            return _sequence(rng)
        case "trait":
            return {"trait": rng.choice(["plan", "renewal", "address.city", "tags"]), **_test(rng, takes_time=True)}
        case "attribute":
            name = rng.choice(["told.plan", "told.tags", "told.address.city", "told.renewal"])
            return {"attribute": name, **_test(rng, takes_time=True)}
        case _:
            return {"context": rng.choice(["locale", "device.type"]), **_test(rng)}


def _event(rng: Random) -> dict[str, Any]:
    said: dict[str, Any] = {"did": rng.choice([*NAMES, "Page", "Identify"])}
    wheres = rng.choice([0, 0, 0, 1, 1, 2])
    if wheres:
        said["where"] = [{"property": rng.choice(PATHS), **_test(rng)} for _ in range(wheres)]
    return said


def _when(rng: Random) -> dict[str, Any]:
    return rng.choice([{}, {"within": rng.choice(WINDOWS)}, {"within": rng.choice(WINDOWS)}, _since(rng)])


def _since(rng: Random) -> dict[str, Any]:
    return {"since": rng.choice(["2026-02-27", "2026-03-29", "2026-10-25", "2026-01-01", "2028-02-29", "2018-11-04"])}


def _sequence(rng: Random) -> dict[str, Any]:
    steps = [_event(rng)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        step = _event(rng)
        if rng.random() < 0.6:
            step["within"] = rng.choice(list(LENGTHS))
        if rng.random() < 0.4:
            step["without"] = _event(rng)
        steps.append(step)
    return {"sequence": steps, **_when(rng)}


def _test(rng: Random, *, takes_time: bool = False) -> dict[str, Any]:
    value, text = rng.choice(VALUES), rng.choice([text for text in TEXTS if text])
    number, other = sorted(rng.sample(NUMBERS, 2))
    tests: list[dict[str, Any]] = [
        {"is": value}, {"is": value}, {"is_not": value}, {"one_of": rng.sample(VALUES, 3)},
        {"none_of": rng.sample(VALUES, 2)}, {"contains": text}, {"lacks": text}, {"starts_with": text},
        {"ends_with": text}, {"exists": rng.random() < 0.5}, {"at_least": number}, {"at_most": number},
        {"more_than": number}, {"less_than": number}, {"between": [number, other]}, {"before": "2026-03-01"},
        {"since": "2026-02-28"},
    ]  # fmt: skip
    if takes_time:
        tests += 3 * [{"within": rng.choice(WINDOWS)}, {"longer_ago": rng.choice(WINDOWS)}]
    return rng.choice(tests)


# --- people


def _person(rng: Random, key: str, workspace: str, now_ms: int, edges: list[int]) -> Person:
    keys = (key, *(f"{key}-{part}" for part in range(rng.choice([0, 0, 1, 2]))))
    told = _told(rng, key, keys, workspace, now_ms, edges)
    guest = None
    if rng.random() < 0.2:
        left = f"{key}-left"
        guest = Person(left, (left,), _told(rng, left, (left,), workspace, now_ms, edges), _traits(rng, now_ms))
    return Person(key, keys, told, _traits(rng, now_ms), guest, min(now_ms, rng.choice(edges)))


def _told(
    rng: Random, key: str, keys: tuple[str, ...], workspace: str, now_ms: int, edges: list[int]
) -> tuple[Told, ...]:
    told = []
    for number in range(rng.randint(0, 9)):
        event = _an_event(rng, f"{key}-{number}", workspace, now_ms, edges)
        holder = rng.choice(keys)
        told.append(Told(holder, event))
        if rng.random() < 0.15:
            again_ms = rng.choice([event.received_ms, now_ms])
            told.append(Told(holder, msgspec.structs.replace(event, received_at=from_ms(again_ms))))
    return tuple(sorted(told, key=lambda each: each.event.received_at))


def _an_event(rng: Random, message_id: str, workspace: str, now_ms: int, edges: list[int]) -> Event:
    at_ms = min(now_ms, rng.choice(edges) + rng.choice([0, 0, 1, -1, 60_000, -3_600_000, -rng.randint(0, 10**8)]))
    late_ms = rng.choice([0, 0, 5, 3_600_000, 10 * 86_400_000])
    kind = rng.choice([*NAMES, *NAMES, "Page", "Identify"])
    at = from_ms(at_ms)
    event = Event(
        message_id=message_id, type="track" if kind in NAMES else kind.lower(), workspace=workspace,  # type: ignore[arg-type]
        source=rng.choice(["web", "app"]), timestamp=at, received_at=from_ms(min(now_ms, at_ms + late_ms)),
        original_timestamp=at, user_id="u", event=kind if kind in NAMES else "",
    )  # fmt: skip
    if kind == "Identify":
        event.raw_traits = msgspec.Raw(_encode(_traits(rng, now_ms)))
    else:
        event.raw_properties = msgspec.Raw(_encode(_properties(rng)))
    if kind == "Page":
        event.name = rng.choice(["", "red", "Start"])
    locale = rng.choice(LOCALES)
    context: dict[str, Any] = rng.choice(
        [{}, {"locale": locale}, {"device": {"type": rng.choice(VALUES)}}, {"locale": locale, "device": "phone"}]
    )
    event.raw_context = msgspec.Raw(_encode(context))
    return event


def _properties(rng: Random) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in ("color", "size", "name"):
        if rng.random() < 0.6:
            said[name] = rng.choice([*VALUES, None, rng.sample(VALUES, 2), {}])
    if rng.random() < 0.5:
        said["products"] = rng.choice([
            [{"id": rng.choice(VALUES)}, {"id": rng.choice(VALUES)}], [{"other": 1}], [], list(rng.sample(VALUES, 2)),
            rng.choice(VALUES), {"id": rng.choice(VALUES)}, [{"id": rng.choice(VALUES)}, rng.choice(VALUES)],
            [{"id": [rng.choice(VALUES)]}],
        ])  # fmt: skip
    if rng.random() < 0.4:
        said["deep"] = rng.choice([{"er": rng.choice(VALUES)}, [{"er": rng.choice(VALUES)}], {"er": None}, 5])
    return said


def _traits(rng: Random, now_ms: int) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if rng.random() < 0.6:
        said["plan"] = rng.choice([*VALUES, None])
    if rng.random() < 0.5:
        said["tags"] = rng.choice([list(rng.sample(VALUES, 2)), [], None, "red"])
    if rng.random() < 0.5:
        said["address"] = rng.choice([{"city": rng.choice(VALUES)}, {}, None, "Bern", [{"city": "x"}, {"city": "red"}]])
    if rng.random() < 0.6:
        moment = now_ms + rng.choice([0, 1, -1, -86_400_000, -86_399_999, 3_600_000, -7 * 86_400_000])
        said["renewal"] = rng.choice(
            [to_iso(moment), to_iso(moment)[:10], to_iso(moment)[:19], to_iso(moment)[:16].replace("T", " "),
             to_iso(moment)[:19] + "+05:30", "soon", moment, None, "2026-02-30"]
        )  # fmt: skip
    return said
