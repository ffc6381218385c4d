"""Journeys: what they cost an event, what somebody who waits takes, the time to a message, many who are due at once.

`cost`: the customer stage with the real processors, ten segments and 0, 1, 10 and 50 journeys as a shop has them
(`bench/shop_journeys.py`), over the shop's traffic as it happened, as `segments` has it. One event in twenty means
something to them, however many there are. CPU time of an event, and with the timers beside.
`waiting`: a worker with 100,000 people who wait for a month, beside one with the same people and no journey: bytes of
what is remembered of each, on disk and in memory, and the CPU time of a worker that has nothing to do, started anew.
`live`: a `tidewire up` with twelve journeys (`bench/waking.py`). From the moment an event is due over HTTP until the
message that it lets a journey propose stands in the log, at half of the capacity measured just before; then 10,000
people who are due in the same second, each of whom is sent a message, beside live events of others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from bench import shop, waking
from bench.child import run
from bench.measure import Figure, Options, Report, interleaved, rounded

COUNTS = (0, 1, 10, 50)
QUICK_COUNTS = (1, 10)
EVENTS, QUICK_EVENTS = 20_000, 2_000
MOST_GROWTH = 1.2  # of the cost of an event with ten times the journeys
PEOPLE, QUICK_PEOPLE = 100_000, 300
IDLE_S, QUICK_IDLE_S = 10.0, 0.5
MOST_BYTES = 200  # of a timer that waits
QUICK_LIVE = waking.Size(flood=1_000, seconds=2.0, people=100, rate=500.0, lead_s=12.0, after_s=2.0)
LIVE = waking.Size(flood=30_000, seconds=20.0, people=10_000, rate=500.0, lead_s=45.0, after_s=20.0)
MOST_RUNS = 2  # of `waiting` and `live`
MOST_DONE_S = 10.0
MOST_OTHERS_MS = 200.0
AT_MOST_MS = {"p99": 100.0, "p99.9": 500.0}
SHARES = ("p50", "p99", "p99.9")


def measure(options: Options) -> Report:
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    size: dict[str, Any] = {}
    for name, cell in (("cost", _cost), ("waiting", _waiting), ("live", _live)):
        if options.wants(name):
            options.say(f" {name}")
            figures += cell(options, found, size)
    return Report(input=size, figures=figures, found=found)


def _cost(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    events, counts = (QUICK_EVENTS, QUICK_COUNTS) if options.is_quick else (EVENTS, COUNTS)
    contest: dict[str, Callable[[], dict[str, Any]]] = {
        str(count): partial(run, "bench.contestants.led", {"events": events, "journeys": count}) for count in counts
    }
    for _ in shop.calls(events):  # made before the clock runs
        pass
    samples = interleaved(contest, options.runs, lambda sample: sample["events"] / sample["events_s"], options)
    figures, cost = [], {}
    for name, done in samples.items():
        event_us = [sample["events_s"] / sample["events"] * 1e6 for sample in done]
        whole_us = [(sample["events_s"] + sample["timers_s"]) / sample["events"] * 1e6 for sample in done]
        cost[int(name)] = median(event_us)
        figures += [Figure(f"{name} journeys", "µs/event", event_us),
                    Figure(f"{name} journeys with timers", "µs/event", whole_us)]  # fmt: skip
    for few, many in pairwise(counts):
        limit = MOST_GROWTH if many == 10 * few else None
        figures.append(Figure(f"{few} to {many} journeys", "× cost", [cost[many] / cost[few]], at_most=limit))
    size |= {"events": events, "people": samples["1"][0]["people"]}
    found["cost_us"] = {str(count): rounded(each) for count, each in cost.items()}
    found["led"] = {name: {what: done[0][what] for what in ("entered", "inside", "orders", "timers")}
                    for name, done in samples.items()}  # fmt: skip
    return figures


def _waiting(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    people, seconds = (QUICK_PEOPLE, QUICK_IDLE_S) if options.is_quick else (PEOPLE, IDLE_S)
    runs = [{is_led: _wait(people, is_led, seconds) for is_led in (False, True)}
            for _ in range(min(options.runs, MOST_RUNS))]  # fmt: skip

    def more(what: str) -> list[float]:
        """So much more for each who waits."""
        return [(run[True][what] - run[False][what]) / people for run in runs]

    def more_bytes(what: str) -> list[float]:
        return [each * 2**20 for each in more(what)]

    index = [run[True]["timer_bytes"] / run[True]["timers"] for run in runs]
    whole = [state + entry for state, entry in zip(more("state_bytes"), index, strict=True)]
    size |= {"waiting": people}
    found["waiting"] = [{"led": run[True], "not_led": run[False]} for run in runs]
    return [
        Figure("a wait, in the state", "bytes", more("state_bytes")),
        Figure("a wait, in the index of timers", "bytes", index),
        Figure("a wait, in all", "bytes", whole, at_most=MOST_BYTES),
        Figure("a wait, in the files", "bytes", more("file_bytes")),
        Figure("a wait, in the memory of a worker", "bytes", more_bytes("rss_mb"), at_most=MOST_BYTES),
        Figure("the same when all have just entered", "bytes", more_bytes("entered_mb")),
        *(Figure(f"idle worker, {f'{people:,} wait' if is_led else 'nobody waits'}", "ms of CPU a second",
                 [run[is_led]["idle_cpu"] * 1000 for run in runs]) for is_led in (False, True)),
    ]  # fmt: skip


def _wait(people: int, is_led: bool, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        job = {"is_led": is_led, "folder": folder}
        entered = run("bench.contestants.waiting", {**job, "people": people, "seconds": 0})
        anew = run("bench.contestants.waiting", {**job, "people": 0, "seconds": seconds})
    if anew["timers"] != people * is_led:
        raise RuntimeError(f"of {people} people {anew['timers']} wait")
    return anew | {"entered_mb": entered["rss_mb"]}


def _live(options: Options, found: dict[str, Any], size: dict[str, Any]) -> list[Figure]:
    asked = QUICK_LIVE if options.is_quick else LIVE
    runs = []
    for _ in range(min(options.runs, MOST_RUNS)):
        runs.append(each := waking.live(asked))
        options.say(f"  half of {each['capacity']:,.0f} events/s: proposed p99 {each['proposed']['p99']:,.0f} ms; all "
                    f"done after {each['done_s']:.1f} s, others p99 {each['during']['p99']:,.0f} ms")  # fmt: skip
    size |= {"flood": asked.flood, "seconds": asked.seconds, "due": asked.people, "others_events_per_s": asked.rate}
    found["live"] = runs
    after = [each["after"]["p99"] for each in runs if each["after"]]  # none where live events ended before
    return [
        Figure("capacity with 12 journeys", "events/s", [each["capacity"] for each in runs]),
        *(Figure(f"event to message at half, {share}", "ms", [each["proposed"][share] for each in runs],
                 at_most=AT_MOST_MS.get(share)) for share in SHARES),
        *(Figure(f"event to state at half, {share}", "ms", [each["state"][share] for each in runs])
          for share in SHARES),
        Figure(f"{asked.people:,} due, the last decided", "s", [each["decided_s"] for each in runs]),
        Figure(f"{asked.people:,} due, all in ClickHouse", "s", [each["done_s"] for each in runs],
               at_most=MOST_DONE_S),
        Figure("others before, to state p99", "ms", [each["before"]["p99"] for each in runs]),
        Figure(f"others while {asked.people:,} are due, to state p50", "ms", [each["during"]["p50"] for each in runs]),
        Figure(f"others while {asked.people:,} are due, to state p99", "ms", [each["during"]["p99"] for each in runs],
               at_most=MOST_OTHERS_MS),
        *([Figure("others after, while messages leave, to state p99", "ms", after)] if after else []),
    ]  # fmt: skip
