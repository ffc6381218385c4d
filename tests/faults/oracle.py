"""The oracle: what must be there, worked out from topic `events` by a batch program that shares nothing with the
customer stage but the pure processors, and compared with what is there.

It reads all records, leaves out the stage's own messages, takes each message id once, finds out who is who by the
rule alone (the earliest claim of a key wins), folds each key's events in the order of the log, and views together
what belongs to one person. Only from whom a key was taken when people were parted it reads in the ledger, as that
depends on the moment; that each such order is answered once, and all that follows from it, it works out. Beside that
it counts orders and revenue by plain arithmetic over the JSON, without any processor. It knows nothing of offsets,
fences, checkpoints, messages or merges in transit: so a mistake there cannot be a mistake here too.

What is compared, by the numbers of the six points a run must hold:

1. what clients were told is taken stands in the log, or with its reason in topic `rejected`, and says what was sent;
2. every event of the log is good, refused, or was there before;
3. ClickHouse has every good event, once, and it belongs to the right person;
4. people, live and rebuilt from the changelog, and their rows in ClickHouse, are what the events make of them;
5. every decision is made once, and who is in a segment is who ought to be by ClickHouse's events at rest;
6. no journey takes a step twice, none of its timers fires early, and where everybody stands in ClickHouse is where the
   ledger left her. What must have come of a journey depends on moments that only its timers know: that row 34 works
   out, by a model of its own (`tests.faults.journeys_model`), and here it is left out of what people are compared by.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from processors.base import Person, Table
from processors.fold import Fold
from processors.registry import load_processors
from processors.values import zone_named
from schemas.customer import Part
from schemas.effects import Row
from schemas.errors import Refused
from schemas.event import PUBLIC_ALIAS, Event, decode_event
from schemas.internal import Unmerge, decode_internal, is_internal
from schemas.keys import anonymous_key, user_key
from schemas.messages import SOURCE
from sinks.conditions import compared_sql, people_sql
from sinks.tables import view_of
from streams.definitions import Known, definition_of
from streams.log import Log, Record
from tests.faults.machine import People

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster
    from tests.faults.traffic import Ledger

ZONE = "UTC"  # the default of the setting
JUDGED = frozenset({"memberships", "companies", "journey_runs"})  # tables of what is judged or led, not folded
LATER = frozenset({"journeys", "coupon"})
"""What is shown of people that follows from segments too, which may become live only when a worker is started once more
to rebuild what is known: so it is not compared, but where a row says that nothing of the kind can come."""
SHOWN = 3  # differences named in full
MOST_LINKS = 100  # the default of the setting; the oracle does not follow people beyond it

Json = dict[str, Any]
RowKey = tuple[str, str, tuple[object, ...]]


class Verdict(NamedTuple):
    """What a run comes to; see `tests.faults.rows.Outcome`."""

    lost: int
    doubled: int
    wrong: str


class Truth:
    """What the events of a log come to.

    Attributes:
        person_of: by key, the person she belongs to.
        owner: by message id, the key it was sent for; good events only.
        refused: message ids that no processor can use.
        unreadable: places of records that are no events.
        repeated: how many records were there before.
        taken_from: by key, from whom it was taken.
        people: by person, what each processor shows of her, and her keys.
        rows: the rows of the processors' tables, by table, key and key columns, with the values of all columns.
        sums: by person, counted without processors.
    """

    def __init__(self) -> None:
        self.person_of: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.refused: set[str] = set()
        self.unreadable: list[str] = []
        self.repeated = 0
        self.taken_from: Mapping[str, str] = {}
        self.people = People()
        self.rows: dict[RowKey, Json] = {}
        self.sums: dict[str, Sums] = {}


class Sums:
    """Plain arithmetic over one person's events."""

    def __init__(self) -> None:
        self.events = 0
        self.completed: dict[str, Decimal] = {}
        self.cancelled: set[str] = set()
        self.refunds: dict[tuple[str, str], tuple[str, str, Decimal]] = {}

    def add(self, event: Json) -> None:
        """One event as it stands in the log, decoded with decimals. What Tidewire says itself is none of hers."""
        if event["source"] == SOURCE:
            return
        self.events += 1
        if event["type"] != "track":
            return
        properties = event.get("properties", {})
        order_id = str(properties.get("order_id", ""))
        if event["event"] == "Order Completed":
            self.completed[order_id or event["messageId"]] = Decimal(properties.get("total", 0))
        elif event["event"] == "Order Cancelled":
            self.cancelled.add(order_id)
        elif event["event"] == "Order Refunded":
            refund_id = properties.get("refund_id") or event["messageId"]
            said = (event["timestamp"], event["messageId"], Decimal(properties["total"]))
            self.refunds[order_id, refund_id] = max(said, self.refunds.get((order_id, refund_id), said))

    @property
    def orders(self) -> int:
        return len(self.completed.keys() - self.cancelled)

    @property
    def revenue(self) -> Decimal:
        """Of orders that were not cancelled, less what was given back, each at most in full."""
        back: dict[str, Decimal] = defaultdict(Decimal)
        for (order_id, _), (_, _, amount) in self.refunds.items():
            back[order_id] += amount
        return sum((total - min(total, back[order_id]) for order_id, total in self.completed.items()
                    if order_id not in self.cancelled), Decimal(0))  # fmt: skip


def truth_of(records: Iterable[Record], fold: Fold, taken_from: Mapping[str, str] | None = None) -> Truth:
    """What the records of topic `events` come to. `taken_from` says by key from whom it was taken: that one's claims
    are void, before and after."""
    truth = Truth()
    truth.taken_from = taken_from = taken_from or {}
    events: dict[str, list[bytes]] = defaultdict(list)
    claims: dict[str, tuple[int, str, str]] = {}
    seen: set[tuple[str, str, int]] = set()
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        if is_internal(record.headers):
            continue
        try:
            event = decode_event(record.value)
        except Refused:
            truth.unreadable.append(f"{record.topic}-{record.partition}@{record.offset}")
            continue
        known = (event.source, event.message_id, event.attempt)
        if known in seen:
            truth.repeated += 1
            continue
        seen.add(known)
        try:
            fold.check(event)
        except Refused:
            truth.refused.add(event.message_id)
            continue
        truth.owner[event.message_id] = event.key
        events[event.key].append(record.value or b"")
        for key, claim in _claims_of(event):
            holder = claim[1]
            if key not in taken_from:
                claims[key] = min(claim, claims.get(key, claim))
            else:
                assert holder == taken_from[key], f"{holder} claims {key} too: whose it is, the moment decides"
    keys = sorted(events.keys() | claims.keys() | {holder for _, holder, _ in claims.values()} | taken_from.keys())
    for key in keys:
        truth.person_of[key] = _person(key, claims)
    _fold_people(truth, events, fold)
    return truth


def _claims_of(event: Event) -> Iterable[tuple[str, tuple[int, str, str]]]:
    """The keys that an event says are the same person's, and the claim on each: when, by whom, on what evidence."""
    if not event.user_id:
        return
    others = [anonymous_key(event.workspace, event.anonymous_id)] if event.anonymous_id else []
    if event.type == "alias":
        others.append(anonymous_key(event.workspace, event.previous_id))
        if PUBLIC_ALIAS not in event.flags:
            others.append(user_key(event.workspace, event.previous_id))
    for other in others:
        if other == event.key:
            continue
        holder, held = event.key, other
        if other.partition("/")[2].startswith("u:") and other < event.key:  # of two users the lesser key holds
            holder, held = other, event.key
        yield held, (event.at_ms, holder, event.message_id)


def _person(key: str, claims: Mapping[str, tuple[int, str, str]]) -> str:
    way = [key]
    while way[-1] in claims:
        way.append(claims[way[-1]][1])
        assert len(way) <= MOST_LINKS, f"keys claim each other: {way[:5]}"
    return way[-1]


def _fold_people(truth: Truth, events: Mapping[str, list[bytes]], fold: Fold) -> None:
    parts: dict[str, dict[str, Part]] = defaultdict(dict)
    for key, person in truth.person_of.items():
        part = parts[person][key] = Part()
        sums = truth.sums.setdefault(person, Sums())
        for value in events.get(key, ()):
            event = decode_event(value)
            for _, effect in fold.apply(part, event, Person(person, key, part.applied), event.received_ms):
                if isinstance(effect, Row):
                    table = fold.table_of[type(effect.values)]
                    of = (table.name, key, tuple(getattr(effect.values, column) for column in table.key))
                    if effect.is_deleted:
                        truth.rows.pop(of, None)
                    else:
                        truth.rows[of] = msgspec.structs.asdict(effect.values)
            part.applied += 1
            sums.add(json.loads(value, parse_float=Decimal))
    for person, own in parts.items():
        truth.people[person] = _at_once({"keys": sorted(own), **fold.portrait(own)})


# --- the comparison


class _Findings:
    """What was found wrong, as counts and words."""

    def __init__(self) -> None:
        self.lost = 0
        self.doubled = 0
        self.wrong: list[str] = []

    def lose(self, what: str, which: Collection[object]) -> None:
        if which:
            self.lost += len(which)
            self.wrong.append(f"{len(which)} {what}: {_some(which)}")

    def double(self, what: str, which: Collection[object]) -> None:
        if which:
            self.doubled += len(which)
            self.wrong.append(f"{len(which)} {what}: {_some(which)}")

    def differ(self, what: str, which: Collection[object]) -> None:
        if which:
            self.wrong.append(f"{len(which)} {what}: {_some(which)}")


def _some(which: Collection[object]) -> str:
    some = sorted(map(str, which))[:SHOWN]
    return ", ".join(each if len(each) <= 300 else each[:299] + "…" for each in some)


def judge(
    cluster: Cluster, ledger: Ledger, *, is_rebuilt: bool = True, refused_requests: bool = False,
    is_over: bool = False, also_expect: Callable[[Truth], str] | None = None,
) -> Verdict:  # fmt: skip
    """Stop the workers and compare everything. The cluster must be settled.

    Args:
        is_rebuilt: compare the people that a worker makes of the changelog alone, too.
        refused_requests: whole requests may have been refused for good.
        is_over: nothing comes of journeys and of segments any more, so all that is shown of people is rebuilt, too.
        also_expect: asked about the truth; says in words what else is wrong with it.
    """
    found = _Findings()
    if ledger.refused and not refused_requests:
        found.differ("requests were refused for good", ledger.refused)
    found.wrong += cluster.stop_workers()
    live = cluster.live_people()
    rebuilt = cluster.rebuilt_people() if is_rebuilt else live
    if cluster.is_embedded and cluster.up.is_running:
        cluster.up.stop()
    cluster.store_the_rest()

    fold = Fold(load_processors(Path("config")))
    records = cluster.read("events")
    truth = truth_of(records, fold, _judge_partings(found, cluster, records))
    letters = [json.loads(record.value or b"{}") for record in cluster.read("rejected")]
    _judge_log(found, ledger, records, truth, letters)
    del records, letters  # of a long run they are most of what is held
    _judge_arithmetic(found, truth)
    _judge_people(found, truth, live, "")
    if not is_over:
        live, rebuilt = _all_at_once(live), _all_at_once(rebuilt)
    if rebuilt != live:
        _judge_people(found, truth, rebuilt, "rebuilt from the changelog, ")
        found.differ("people differ between the live state and the changelog", _differing(live, rebuilt))
    del live, rebuilt
    _judge_clickhouse(found, cluster, truth, fold)
    if also_expect is not None and (also := also_expect(truth)):
        found.wrong.append(also)
    return Verdict(found.lost, found.doubled, "; ".join(found.wrong))


def _judge_log(
    found: _Findings, ledger: Ledger, records: Iterable[Record], truth: Truth, letters: Iterable[Json]
) -> None:
    by_collector = {each.get("message_id", "") for each in letters if each["by"] == "collector"}
    by_stage = {each.get("message_id", "") for each in letters if each["by"] == "stage"}
    in_log = truth.owner.keys() | truth.refused
    found.lose("events were taken and are not in the log", ledger.taken.keys() - in_log - by_collector)
    found.lose("refused events have no dead letter", truth.refused - by_stage)
    found.differ("good events have a dead letter", truth.owner.keys() & by_stage)
    places = {f"{each['topic']}-{each['partition']}@{each['offset']}" for each in letters if each.get("topic")}
    found.lose("unreadable records have no dead letter", set(truth.unreadable) - places)
    changed = []
    for record in records:
        if not is_internal(record.headers):
            try:
                said = json.loads(record.value or b"")
            except ValueError:
                continue
            sent = ledger.taken.get(said.get("messageId")) or ledger.open.get(said.get("messageId"))
            if sent is not None and any(said.get(name) != sent[name] for name in _AS_SENT if sent.get(name)):
                changed.append(said["messageId"])
    found.differ("events do not say what was sent", changed)


_AS_SENT = ("type", "event", "name", "userId", "anonymousId", "previousId", "properties", "traits")


def _judge_partings(found: _Findings, cluster: Cluster, records: Iterable[Record]) -> dict[str, str]:
    """What the ledger says of orders to take a key from whoever holds it: by key, from whom it was taken."""
    orders = [decode_internal(record.value or b"") for record in records if is_internal(record.headers)]
    asked = Counter(order.to for order in orders if isinstance(order, Unmerge))
    if not asked:
        return {}
    with cluster.asking() as ask:
        told = ask("SELECT about AS key, facts.`from`::String AS holder FROM decision_log "
                   "WHERE processor = 'identity' AND kind IN ('unmerged', 'unmerge_refused')")  # fmt: skip
    answered = Counter(row["key"] for row in told)
    found.lose("orders to part people were not answered", [*(asked - answered).elements()])
    found.double("orders to part people were answered twice", [*(answered - asked).elements()])
    return {row["key"]: row["holder"] for row in told if row["holder"]}


def _judge_arithmetic(found: _Findings, truth: Truth) -> None:
    """The processors against plain arithmetic: what they agree on is not a bug of theirs."""
    differing = []
    for person, sums in truth.sums.items():
        shown = truth.people[person]
        revenue = sum((Decimal(amount) for amount in shown.get("orders", {}).get("revenue", {}).values()), Decimal(0))
        told = (shown.get("profile", {}).get("events", 0), shown.get("orders", {}).get("orders", 0), revenue)
        if told != (sums.events, sums.orders, sums.revenue):
            differing.append(f"{person}: {told} by the processors, {(sums.events, sums.orders, sums.revenue)} counted")
    found.differ("people have other sums than arithmetic gives", differing)


def _judge_people(found: _Findings, truth: Truth, people: People, where: str) -> None:
    people = _all_at_once(people)
    for person in truth.people.differing(people):
        has, wants = _events_of(people.get(person, {})), _events_of(truth.people.get(person, {}))
        if has != wants:
            name = f"{person} ({where}{wants} events, has {has})"
            found.lost += max(0, wants - has)
            found.doubled += max(0, has - wants)
            found.wrong.append(name)
            if len(found.wrong) > 10 * SHOWN:
                break
    found.differ(f"people are not what their events make of them {where}".rstrip(" ,"),
                 _differing(truth.people, people))  # fmt: skip


def _at_once(shown: Json) -> Json:
    return {name: section for name, section in shown.items() if name not in LATER}


def _all_at_once(people: People) -> People:
    """The same people, but nothing of what may come later."""
    all_of_them = People()
    for key, shown in people.items():
        all_of_them[key] = _at_once(shown)
    return all_of_them


def _events_of(shown: Json) -> int:
    return int(shown.get("profile", {}).get("events", 0))


def _differing(one: People, other: People) -> list[str]:
    """Whose two records differ, with the first place where they do."""
    return [f"{key}: {_first_difference(one.get(key), other.get(key))}" for key in one.differing(other)]


def _first_difference(one: object, other: object, place: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys(), key=str):
            if one.get(name) != other.get(name):
                return _first_difference(one.get(name), other.get(name), f"{place}.{name}".lstrip("."))
    return f"{place} {str(one)[:80]} ≠ {str(other)[:80]}".strip()


def _judge_clickhouse(found: _Findings, cluster: Cluster, truth: Truth, fold: Fold) -> None:
    with cluster.asking() as ask:  # one answer after the other: all at once they are too much for a long run
        _judge_events(found, truth, ask("SELECT message_id, person FROM event_log"),
                      ask("SELECT id, message_id, refused_by FROM rejected_list"))  # fmt: skip
        _judge_portraits(found, truth, ask("SELECT person, identities, sections FROM person_list"))
        _judge_identities(found, truth, ask("SELECT key, person FROM identity_list"))
        _judge_decisions(found, truth, ask(
            "SELECT id, recorded_for, kind, about, concat(facts.evidence::String, facts.message::String) AS evidence "
            "FROM decision_log WHERE processor NOT IN ('segments', 'company', 'journeys')"
        ))  # fmt: skip
        _judge_journeys(found, ask(_RUNS), ask("SELECT run, state FROM journey_runs FINAL"))
        for table in fold.tables:
            if table.name not in JUDGED:
                _judge_rows(found, truth, table, ask(f"SELECT * FROM {view_of(table)}"))
    _judge_segments(found, cluster)


def _judge_portraits(found: _Findings, truth: Truth, people: list[Json]) -> None:
    must, told = People(), People()
    for person, each in truth.people.items():
        must[person] = {"keys": each.pop("keys"), **_of_events(json.loads(_plain(each)))}
    for row in people:
        told[row["person"]] = {"keys": sorted(row["identities"]), **_of_events(json.loads(row["sections"]))}
    found.double("people stand twice in person_list", _twice(row["person"] for row in people))
    found.differ("portraits in ClickHouse are not what the events make of them", _differing(must, told))


def _of_events(sections: Json) -> Json:
    """Without what depends on definitions, on other people and on time."""
    return {name: section for name, section in sections.items() if name not in {"rfm", "company", *LATER}}


_RUNS = """
SELECT facts.run::String AS run, countIf(kind = 'entered') AS entered, countIf(kind = 'left') AS left,
    countIf(due > at) AS early, countIf(due IS NOT NULL) AS fired,
    uniqExactIf((facts.step::String, due), due IS NOT NULL) AS timers
FROM (
    SELECT *, if(kind IN ('woke', 'timed_out'), parseDateTime64BestEffortOrNull(facts.due::String, 3, 'UTC'), NULL)
        AS due
    FROM decision_log WHERE processor = 'journeys' AND kind != 'not_entered'
)
GROUP BY run
"""


def _judge_journeys(found: _Findings, told: list[Json], rows: list[Json]) -> None:
    """Ways through journeys: what the ledger tells of each, and the row of each."""
    ended = {row["run"]: row["state"] in ("ended", "after") for row in rows}
    found.double("rows of journeys stand twice", _twice(row["run"] for row in rows))
    found.double("ways through journeys began or ended twice",
                 [each["run"] for each in told if each["entered"] > 1 or each["left"] > 1])  # fmt: skip
    found.double("timers of journeys fired twice", [each["run"] for each in told if each["fired"] > each["timers"]])
    found.lose("ways through journeys have no beginning", [each["run"] for each in told if not each["entered"]])
    found.differ("timers of journeys fired early", [each["run"] for each in told if each["early"]])
    found.lose("ways through journeys have no row", {each["run"] for each in told} - ended.keys())
    found.double("rows of journeys are of ways that nobody went", ended.keys() - {each["run"] for each in told})
    found.differ("ways through journeys are over, and their rows do not say so",
                 [each["run"] for each in told if each["left"] and not ended.get(each["run"], True)])  # fmt: skip


_UNEVEN = """
SELECT key, segment, sum(n) AS more
FROM (
    SELECT recorded_for AS key, about AS segment, if(kind = 'joined', 1, -1) AS n FROM decisions FINAL
    WHERE processor = 'segments' AND kind IN ('joined', 'left')
    UNION ALL SELECT key, segment, -1 AS n FROM memberships FINAL
)
GROUP BY key, segment HAVING more != 0 ORDER BY key, segment
"""


def _judge_segments(found: _Findings, cluster: Cluster) -> None:
    """Who is in each segment live, against the ledger, and against SQL over the events where segments are live and
    everybody was judged."""
    with cluster.asking() as ask:
        found.differ("who is in a segment did not join it once more than she left it, by the ledger",
                     [f"{row['key']}: {row['segment']}, {row['more']:+}" for row in ask(_UNEVEN)])  # fmt: skip
    known = cluster.ask_log(_known)
    if known.pending(ZONE):
        return
    definitions = {name: definition_of(said) for name, said in known.live.items() if not said.is_gone}
    with cluster.asking() as ask:
        for name, definition in definitions.items():
            people = people_sql(definition.when, definitions, workspace="default", now_ms=time.time_ns() // 1_000_000,
                                zone=zone_named(ZONE))  # fmt: skip
            (proof,) = ask(*compared_sql(people, workspace="default", name=name))
            found.lose(f"people are missing in segment {name}", proof["missing"])
            found.double(f"people should not be in segment {name}", proof["surplus"])


async def _known(log: Log) -> Known:
    known = Known(log)
    await known.look()
    return known


def _judge_identities(found: _Findings, truth: Truth, identities: list[Json]) -> None:
    found.differ("keys belong to another person in identity_list", [
        f"{key}: {person} ≠ {truth.person_of.get(key)}"
        for key, person in {row["key"]: row["person"] for row in identities}.items()
        if truth.person_of.get(key) != person
    ])  # fmt: skip
    found.lose("keys are not in identity_list", truth.person_of.keys() - {row["key"] for row in identities})


def _plain(shown: Json) -> str:
    return msgspec.json.Encoder(decimal_format="string").encode(shown).decode()


def _judge_events(found: _Findings, truth: Truth, events: list[Json], rejected: list[Json]) -> None:
    stored = {row["message_id"]: row["person"] for row in events}
    found.lose("good events are not in event_log", truth.owner.keys() - stored.keys())
    found.double("events stand twice in event_log", _twice(row["message_id"] for row in events))
    found.differ("events in event_log are not in the log", stored.keys() - truth.owner.keys())
    found.differ("events belong to another person in event_log", [
        f"{message_id}: {person} ≠ {truth.person_of[truth.owner[message_id]]}" for message_id, person in stored.items()
        if message_id in truth.owner and person != truth.person_of[truth.owner[message_id]]
    ])  # fmt: skip
    found.double("dead letters stand twice in rejected_list", _twice(row["id"] for row in rejected))
    by_stage = {row["message_id"] for row in rejected if row["refused_by"] == "stage"}
    found.lose("refused events are not in rejected_list", truth.refused - by_stage)


def _judge_decisions(found: _Findings, truth: Truth, decisions: list[Json]) -> None:
    found.double("decisions stand twice in decision_log", _twice(row["id"] for row in decisions))
    about = [(row["kind"], row["recorded_for"], row["about"], row["evidence"]) for row in decisions]
    found.double("decisions were made twice, under two ids", _twice(about))
    merged = {row["about"] for row in decisions if row["kind"] == "merged"}
    held = {key for key, person in truth.person_of.items() if key != person}
    found.lose("merged keys have no decision", held - merged)
    found.differ("decisions are about keys that nobody claims", merged - held - truth.taken_from.keys())


def _judge_rows(found: _Findings, truth: Truth, table: Table, rows: list[Json]) -> None:
    def place(row: Mapping[str, Any]) -> tuple[object, ...]:
        return (row["key"], *(_stored(row[column]) for column in table.key))

    must = {(key, *map(_stored, columns)): values
            for (name, key, columns), values in truth.rows.items() if name == table.name}  # fmt: skip
    told = {place(row): row for row in rows}
    found.double(f"rows stand twice in {view_of(table)}", _twice(map(place, rows)))
    found.lose(f"rows are not in {view_of(table)}", must.keys() - told.keys())
    found.double(f"rows in {view_of(table)} should not be there", told.keys() - must.keys())
    found.differ(f"rows of {view_of(table)} say something else", [
        f"{of}: {name} {told[of][name]!r} ≠ {value!r}" for of, values in must.items() if of in told
        for name, value in values.items() if told[of][name] != _stored(value)
    ])  # fmt: skip
    found.differ(f"rows of {view_of(table)} belong to another person",
                 [of for of, row in told.items() if row["person"] != truth.person_of.get(row["key"])])  # fmt: skip


def _stored(value: Any) -> Any:
    """A value as ClickHouse gives it back: times to the millisecond."""
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    return value


def _twice(which: Iterable[object]) -> list[object]:
    """What is there more than once, as often as it is there too often."""
    return [each for each, count in Counter(which).items() for _ in range(count - 1)]
