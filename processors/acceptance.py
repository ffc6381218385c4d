"""The acceptance suite: the laws of `processors.base.Processor`, tried on one processor.

From pytest: `check(processor)` in a test of its own. From the command line: `tidewire processors check`. Both try the
processor's own cases, and histories made from them by a seeded generator, so that a failure can be had again.
"""

from __future__ import annotations

import datetime as datetime_module
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import count, permutations
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, NamedTuple

import msgspec

from processors.base import Person, Processor
from processors.fold import Fold
from processors.histories import PERSON, RECEIVED_MS, event_of, events_of, history, hostile_flood
from processors.registry import import_file, processors_of
from schemas.customer import Part, decode_part
from schemas.effects import Row
from schemas.errors import Refused, shown
from schemas.event import Event
from schemas.keyed import encode_state
from schemas.recent import has_seen, remember, token
from schemas.rows import encode_json
from schemas.times import SECOND_MS

LARGEST_STATE_BYTES = 400_000  # of one part; a customer record holds several, and Kafka takes a megabyte
FLOOD = 4_000
MERGED_FLOOD = 1_200
AnyProcessor = Processor[Any]


class Broken(AssertionError):
    """A law was broken; the text says by what."""


class Verdict(NamedTuple):
    """Whether a processor keeps a law; where not, `what` says what happened."""

    processor: str
    law: str
    is_kept: bool
    what: str = ""


def check(processor: AnyProcessor, *, seed: int = 0, histories: int = 12) -> list[Verdict]:
    """Try every law, in the order of `LAWS`. The same seed tries the same histories."""
    verdicts = []
    for law, holds in LAWS.items():
        try:
            holds(processor, seed, histories)
        except Broken as broken:
            verdicts.append(Verdict(processor.name, law, False, str(broken)))
        except Exception as error:
            verdicts.append(Verdict(processor.name, law, False, f"{type(error).__name__}: {error}"))
        else:
            verdicts.append(Verdict(processor.name, law, True))
    return verdicts


def accept(processor: AnyProcessor, *, seed: int = 0, histories: int = 12) -> None:
    """Try every law.

    Raises:
        Broken: with one line for each law that was broken.
    """
    broken = [f"{verdict.law}: {verdict.what}" for verdict in check(processor, seed=seed, histories=histories)
              if not verdict.is_kept]  # fmt: skip
    if broken:
        raise Broken(f"processor {processor.name}: " + "; ".join(broken))


# --- folding a history, as the customer stage does


class Folded(NamedTuple):
    """What came of a history: the parts of the person, and the rows that ClickHouse would read of each table."""

    parts: dict[str, Part]
    rows: dict[str, list[dict[str, Any]]]


def run(processor: AnyProcessor, events: Iterable[Event], *, is_stored_each_time: bool = False) -> Folded:
    """Fold events through one processor: each part by itself, message ids that were seen dropped, rows gathered.

    They are received one second apart in the order given, whenever they happened.
    """
    fold = Fold([processor])
    parts: dict[str, Part] = {}
    rows: dict[tuple[object, ...], tuple[str, dict[str, Any]]] = {}
    for now_ms, event in zip(count(RECEIVED_MS, SECOND_MS), events):
        part = parts.setdefault(event.key, Part())
        seen = token(event.source, event.message_id)
        if has_seen(part.seen, seen):
            continue
        fold.check(event)
        done = fold.apply(part, event, Person(PERSON, event.key, part.applied), now_ms)
        part.seen = remember(part.seen, seen, now_ms)
        part.applied += 1
        for _, effect in done:
            if isinstance(effect, Row):
                table = fold.table_of[type(effect.values)]
                key = (table.name, event.key, *(getattr(effect.values, column) for column in table.key))
                rows.pop(key, None)
                if not effect.is_deleted:
                    rows[key] = (table.name, json.loads(encode_json(effect.values)) | {"key": event.key})
        if is_stored_each_time:
            parts[event.key] = decode_part(encode_state(part))
    by_table: dict[str, list[dict[str, Any]]] = {table.name: [] for table in processor.tables}
    for name, row in rows.values():
        by_table[name].append(row)
    for found in by_table.values():
        found.sort(key=lambda row: json.dumps(row, sort_keys=True))
    return Folded(parts, by_table)


def view(processor: AnyProcessor, parts: Mapping[str, Part]) -> Any:
    """What the processor shows of a person; None where it saw nothing."""
    return Fold([processor]).portrait(parts).get(processor.name)


def _states(processor: AnyProcessor, pieces: Sequence[Sequence[Event]]) -> list[Any]:
    """The state of each piece of a history, as if they had been seen apart."""
    fold = Fold([processor])
    states = []
    for piece in pieces:
        part = Part()
        for event in piece:
            fold.apply(part, event, Person(PERSON, event.key, 0), event.received_ms)
        states.append(fold.view({"": part}, processor.name) or processor.State())
    return states


def _same(one: object, other: object, about: str) -> None:
    if one != other:
        raise Broken(f"{about}: {_difference(one, other)}")


def _difference(one: object, other: object, path: str = "") -> str:
    """Where two values differ first, in one line."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}, key=str):
            if one.get(name) != other.get(name):
                return _difference(one.get(name), other.get(name), f"{path}.{name}" if path else str(name))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            if mine != theirs:
                return _difference(mine, theirs, f"{path}[{place}]")
    return f"{path or 'the whole'} is {shown(one) or 'nothing'}, and {shown(other) or 'nothing'}"


def canonical(state: msgspec.Struct) -> bytes:
    """The state as bytes, whatever the order in which its dicts were filled."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(encode_state(state)), order="sorted")


def _histories(processor: AnyProcessor, seed: int, histories: int) -> Iterator[tuple[Random, list[Event]]]:
    for number in range(histories):
        random = Random(f"{seed}/{number}")
        yield random, [event for event in history(processor, random) if _is_good(processor, event)]


def _is_good(processor: AnyProcessor, event: Event) -> bool:
    try:
        Fold([processor]).check(event)
    except Refused:
        return False
    return True


# --- the laws


def _its_cases_hold(processor: AnyProcessor, seed: int, histories: int) -> None:
    if not processor.cases:
        raise Broken("there are none: declare at least one, see docs/adding-a-processor.md")
    for case in processor.cases:
        name = str(case.get("case", "a case"))
        if "refuses" in case:
            _is_refused(processor, name, case)
            continue
        folded = run(processor, events_of(case["events"]))
        found = view(processor, folded.parts)
        _contains(f'case "{name}"', found, case.get("shows", {}), "")
        for table, rows in case.get("rows", {}).items():
            there = list(folded.rows.get(table, ()))
            if len(there) != len(rows):
                raise Broken(f'case "{name}": table {table} has {len(there)} rows, not {len(rows)}: {there}')
            for row in rows:
                there.remove(_like(f'case "{name}", table {table}', there, row))


def _like(name: str, there: list[dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row that has all that is expected of one; in a table rows have no order."""
    for found in there:
        try:
            _contains(name, found, row, "")
        except Broken:
            continue
        return found
    raise Broken(f"{name}: no row is like {row}; there are {there}")


def _is_refused(processor: AnyProcessor, name: str, case: Mapping[str, Any]) -> None:
    fold = Fold([processor])
    for number, body in enumerate(case["events"]):
        try:
            fold.check(event_of(body, number))
        except Refused as refused:
            if case["refuses"] not in refused.reason:
                raise Broken(f'case "{name}": refused because {refused.reason!r}, not {case["refuses"]!r}') from None
        else:
            raise Broken(f'case "{name}": event {number} is not refused')


def _contains(name: str, found: object, expected: object, path: str) -> None:
    """Whether what was found has all that is expected; of objects, fields that are not expected may be there too."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for field, value in expected.items():
            _contains(name, found.get(field), value, f"{path}.{field}" if path else field)
    elif isinstance(expected, list | tuple) and isinstance(found, list) and len(expected) == len(found):
        for place, value in enumerate(expected):
            _contains(name, found[place], value, f"{path}[{place}]")
    elif found != expected:
        raise Broken(f"{name}: {path or 'it'} is {found!r}, not {expected!r}")


def _twice_is_once(processor: AnyProcessor, seed: int, histories: int) -> None:
    for _, events in _histories(processor, seed, histories):
        once, twice = run(processor, events), run(processor, [event for event in events for _ in range(2)])
        _same(view(processor, once.parts), view(processor, twice.parts), "with every event twice")
        _same(once.rows, twice.rows, "rows, with every event twice")


def _order_does_not_matter(processor: AnyProcessor, seed: int, histories: int) -> None:
    for random, events in _histories(processor, seed, histories):
        ordered = run(processor, events)
        for _ in range(3):
            shuffled = random.sample(events, len(events))
            found = run(processor, shuffled)
            _same(view(processor, ordered.parts), view(processor, found.parts), "in another order")
            _same(ordered.rows, found.rows, "rows, in another order")


def _a_restart_changes_nothing(processor: AnyProcessor, seed: int, histories: int) -> None:
    for _, events in _histories(processor, seed, histories):
        steady, restarted = run(processor, events), run(processor, events, is_stored_each_time=True)
        for key in steady.parts:
            if encode_state(steady.parts[key]) != encode_state(restarted.parts[key]):
                raise Broken("the state is another when it is stored and read again after each event")
        _same(steady.rows, restarted.rows, "rows, stored and read again after each event")


def _merging_is_folding_all(processor: AnyProcessor, seed: int, histories: int) -> None:
    for random, events in _histories(processor, seed, histories):
        pieces: list[list[Event]] = [[], [], []]
        for event in events:
            random.choice(pieces).append(event)
        whole = processor.show(_states(processor, [events])[0])
        for merged in _merged_in_every_order(processor, pieces):
            _same(whole, processor.show(merged), "three pieces of a history, merged")
    # What is full may have forgotten something, so it need not be the whole; but still the same in every order.
    flood = [event for event in hostile_flood(processor, MERGED_FLOOD) if _is_good(processor, event)]
    _merged_in_every_order(processor, [flood[place::3] for place in range(3)])


def _merged_in_every_order(processor: AnyProcessor, pieces: Sequence[Sequence[Event]]) -> list[Any]:
    states = _states(processor, pieces)
    before = [encode_state(state) for state in states]
    merged = []
    for one, two, three in permutations(states):
        merged.append(processor.merge(processor.merge(one, two), three))
        merged.append(processor.merge(one, processor.merge(two, three)))
    if len({canonical(state) for state in merged}) > 1:
        raise Broken("merging in another order gives another state")
    if before != [encode_state(state) for state in states]:
        raise Broken("merge changes its arguments")
    return merged


def _what_is_shown_is_json(processor: AnyProcessor, seed: int, histories: int) -> None:
    states = [processor.State()]
    for _, events in _histories(processor, seed, histories):
        states += _states(processor, [events])
    for state in states:
        before = encode_state(state)
        found = processor.show(state)
        if json.loads(json.dumps(found, allow_nan=False)) != found:
            raise Broken("show gives something that is not plain JSON")
        if encode_state(state) != before:
            raise Broken("show changes the state")


def _it_is_pure(processor: AnyProcessor, seed: int, histories: int) -> None:
    """No clock, no dice, no file, no socket: every call into C is looked at while it works."""
    lists = [events for _, events in _histories(processor, seed, histories)]
    caught: list[str] = []

    def watch(frame: FrameType, kind: str, called: Any) -> None:
        if kind == "c_call" and _is_impure(called):
            caught.append(f"{getattr(called, '__qualname__', called)} in {Path(frame.f_code.co_filename).name}, "
                          f"line {frame.f_lineno}")  # fmt: skip

    for events in lists:
        fold, part = Fold([processor]), Part()
        for is_watched in (False, True):  # the first round imports and fills caches
            previous, collects = sys.getprofile(), gc.isenabled()
            gc.disable()  # others, hypothesis for one, look at the clock when the garbage collector comes by
            sys.setprofile(watch if is_watched else previous)
            try:
                for event in events:
                    fold.check(event)
                    fold.apply(part, event, Person(PERSON, event.key, 0), event.received_ms)
                state = fold.view({"": part}, processor.name)
                if state is not None:
                    processor.show(processor.merge(state, state))
            finally:
                sys.setprofile(previous)
                if collects:
                    gc.enable()
    if caught:
        raise Broken(f"it asks what its arguments do not say: {caught[0]}")


_CLOCKS = frozenset({"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime",
                     "gmtime", "process_time", "sleep"})  # fmt: skip
_FILES = frozenset({"urandom", "getrandom", "open", "read", "write", "stat", "listdir", "scandir"})


def _is_impure(called: Any) -> bool:
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    module = getattr(called, "__module__", None) or getattr(owner, "__name__", "")
    if module == "time":
        return name in _CLOCKS
    if owner in (datetime_module.datetime, datetime_module.date):
        return name in ("now", "utcnow", "today")
    if module in ("posix", "nt"):
        return name in _FILES
    if module in ("io", "_io"):
        return name in ("open", "open_code")
    return {module, type(owner).__module__} & {"random", "_random", "_socket"} != set()


def _hash_seeds_do_not_matter(processor: AnyProcessor, seed: int, histories: int) -> None:
    digests = {_digest_under(processor, seed, hash_seed) for hash_seed in ("1", "2")}
    if len(digests) > 1:
        raise Broken("the state depends on PYTHONHASHSEED: sort what comes out of a set before it is kept or shown")


def _digest_under(processor: AnyProcessor, seed: int, hash_seed: str) -> str:
    """The digest of its states in another Python, with this hash seed."""
    module = sys.modules[type(processor).__module__]
    arguments = [str(module.__file__), type(processor).__name__, processor.settings.model_dump_json(), str(seed)]
    code = "import sys; from processors.acceptance import print_digest; print_digest(*sys.argv[1:])"
    path = os.pathsep.join(entry for entry in ("", *sys.path) if entry or not sys.path)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,  # noqa: S603
                          env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path})  # fmt: skip
    if done.returncode:
        raise Broken(f"cannot be run in another process: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def print_digest(file: str, name: str, settings: str, seed: str) -> None:
    """What `_digest_under` runs: the digest of states, views and rows of some histories."""
    kind = next(one for one in processors_of(import_file(Path(file))) if one.__name__ == name)
    processor = kind(kind.Settings.model_validate_json(settings))
    digest = blake2b(digest_size=16)
    for _, events in _histories(processor, int(seed), 4):
        folded = run(processor, events)
        digest.update(b"".join(encode_state(folded.parts[key]) for key in sorted(folded.parts)))
        digest.update(json.dumps([view(processor, folded.parts), folded.rows]).encode())
    print(digest.hexdigest())


def _the_state_is_bounded(processor: AnyProcessor, seed: int, histories: int) -> None:
    fold, part = Fold([processor]), Part()
    for event in hostile_flood(processor, FLOOD):
        try:
            fold.check(event)
        except Refused:
            continue
        fold.apply(part, event, Person(PERSON, event.key, 0), event.received_ms)
    size = len(encode_state(part))
    if size > LARGEST_STATE_BYTES:
        raise Broken(f"{FLOOD} hostile events make {size:,} bytes of state, more than {LARGEST_STATE_BYTES:,}")
    state = fold.view({"": part}, processor.name)
    if state is not None:
        json.dumps(processor.show(state))


LAWS: dict[str, Callable[[AnyProcessor, int, int], None]] = {
    "its cases hold": _its_cases_hold,
    "an event that comes twice counts once": _twice_is_once,
    "the order of arrival does not matter": _order_does_not_matter,
    "a restart after any event changes nothing": _a_restart_changes_nothing,
    "merging the pieces of a history is folding it whole, in every order": _merging_is_folding_all,
    "what it shows is plain JSON, and showing changes nothing": _what_is_shown_is_json,
    "it asks nothing but its arguments": _it_is_pure,
    "hash seeds do not matter": _hash_seeds_do_not_matter,
    "its state is bounded": _the_state_is_bounded,
}
