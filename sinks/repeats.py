"""How what is inserted again is stored once: the sink writes down what it is about to insert, and names it.

Before a batch is inserted, the group commits where it begins, with a note where it ends. After a crash, whoever gets
the partitions finds the notes, makes the same batch of the same records, and gives its inserts the same tokens;
ClickHouse drops an insert whose token it knows.

A token is trusted within one life of ClickHouse only. Its log of tokens is written before the rows are, so one that was
killed in between would drop the repetition of rows it never stored: measured, in 3 of 220 kills. So every token holds
the id of the process that answers, and after ClickHouse died the rows are inserted once more, under another token: then
they may stand in the table twice until they are merged, and are read once all the same, as views read with FINAL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import structlog

from streams.log import TP, Log, Record

log = structlog.get_logger(__name__)

READ_AT_ONCE = 10_000


class Plan(NamedTuple):
    """Which records a batch is made of.

    Attributes:
        name: the same for the same records, and for no others: of a topic that was made anew neither.
        ranges: of each partition the first offset, and the one after the last.
        is_stored: all of it; then some of its partitions may be missing in `ranges`, as they were committed already.
    """

    name: str
    ranges: dict[TP, tuple[int, int]]
    is_stored: bool = False

    @property
    def starts(self) -> dict[TP, int]:
        return {tp: first for tp, (first, _) in self.ranges.items()}

    @property
    def ends(self) -> dict[TP, int]:
        return {tp: after for tp, (_, after) in self.ranges.items()}

    @property
    def notes(self) -> dict[TP, str]:
        """What to commit beside `starts`."""
        end = f"{len(self.ranges)}{_STORED * self.is_stored}"
        return {tp: f"{self.name} {first} {after} {end}" for tp, (first, after) in self.ranges.items()}


_STORED = " stored"


def plan_of(records: Iterable[Record]) -> Plan:
    by_partition: dict[TP, list[Record]] = {}
    topic, partition, of_both = "", -1, list[Record]()
    for record in records:  # those of one partition mostly follow one another
        if record.partition != partition or record.topic != topic:
            topic, partition = record.topic, record.partition
            of_both = by_partition.setdefault(TP(topic, partition), [])
        of_both.append(record)
    ranges = {tp: (of[0].offset, of[-1].offset + 1) for tp, of in by_partition.items()}
    place = [(*tp, *ranges[tp], len(of), of[0].timestamp_ms, of[-1].timestamp_ms)
             for tp, of in sorted(by_partition.items())]  # fmt: skip
    return Plan(blake2b(repr(place).encode(), digest_size=12).hexdigest(), ranges)


async def open_plans(log_: Log, group: str, topics: Iterable[str]) -> list[Plan]:
    """The plans that were written down and not committed to the end, as far as is known."""
    ranges: dict[str, dict[TP, tuple[int, int]]] = defaultdict(dict)
    wanted: dict[str, int] = {}
    stored: set[str] = set()
    for topic in topics:
        for partition, note in (await log_.notes(group, topic)).items():
            name, *numbers = note.removesuffix(_STORED).split(" ")
            try:
                first, after, wanted[name] = map(int, numbers)
            except ValueError:
                log.warning("note_not_read", group=group, partition=f"{topic}-{partition}", note=note)
                continue
            ranges[name][TP(topic, partition)] = first, after
            if note.endswith(_STORED):
                stored.add(name)
    # Where a rebalance divided a plan, and some of it was committed before others looked, nobody can make it again.
    return [Plan(name, of, name in stored) for name, of in ranges.items() if name in stored or len(of) == wanted[name]]


async def has_been_seen(log_: Log, group: str, plan: Plan, partitions: Iterable[TP]) -> bool:
    """Whether whoever owns these partitions of the plan has said that it is stored, or gone on behind it."""
    unseen = plan._replace(is_stored=False).notes
    for tp in partitions:
        if (await log_.notes(group, tp.topic)).get(tp.partition) == unseen[tp]:
            return False
    return True


async def records_of(log_: Log, plan: Plan) -> Sequence[Record]:
    """The records of a plan; empty where they are no longer what they were."""
    records: list[Record] = []
    for tp, (first, after) in plan.ranges.items():
        at = first
        while at < after:
            found = [each for each in await log_.read(tp, at, min(READ_AT_ONCE, after - at)) if each.offset < after]
            if not found:
                break
            records += found
            at = found[-1].offset + 1
    return records if records and plan_of(records).name == plan.name else []
