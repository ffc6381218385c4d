"""The log, as the rest of Tidewire sees it: the same on both grounds.

`EmbeddedLog` (streams/embedded.py) keeps it in one SQLite file, `KafkaLog` (streams/kafka.py) is Apache Kafka.
One suite, tests/test_log.py, holds both to what this page says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from struct import unpack_from
from typing import NamedTuple, Protocol

from schemas.errors import Unreachable


class TP(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record as it stands in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Outgoing(NamedTuple):
    """One record to append. Without a partition the key decides; without a key the partitions take turns."""

    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Placed(NamedTuple):
    """Where records that were appended together to one partition stand: `first`, then one after another."""

    partition: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody asks a place for


class TopicState(NamedTuple):
    """A topic as it exists. `id` is another when it was deleted and made anew.

    Attributes:
        retention_ms, most_bytes: age and size beyond which records are dropped; None: never. A compacted topic may have
            them, too.
        copies, in_sync: of each partition, and how many of them must have a record before it is acknowledged.
        is_unclean: a copy that lags may come to lead, and what it had not is lost.
        largest_bytes: what a batch of records may have; None: no limit of the topic's own.
    """

    name: str
    id: str
    partitions: int
    retention_ms: int | None
    is_compacted: bool
    most_bytes: int | None = None
    copies: int = 1
    in_sync: int = 1
    is_unclean: bool = False
    largest_bytes: int | None = None


class LogBusy(Unreachable):
    """The log cannot take more now. The same records may be offered again after `retry_after_s` seconds."""

    def __init__(self, what: str, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(what)


class LogUnavailable(LogBusy):
    """The log did not answer or could not write; whether the records were stored is not known."""


class Subscription(Protocol):
    """A member of a consumer group. Each record reaches one member; after a crash, those not committed come again."""

    @property
    def assignments(self) -> int:
        """How often this member was given partitions: while it stays the same, no other member had them meanwhile."""

    @property
    def assigned(self) -> Set[TP]:
        """The partitions it has now."""

    async def poll(self, most: int, timeout_s: float) -> dict[TP, list[Record]]:
        """At most `most` records in all, by partition and in order; empty when none came within `timeout_s`."""

    async def commit(self, offsets: Mapping[TP, int], notes: Mapping[TP, str] | None = None) -> bool:
        """The group goes on from these offsets: of each partition, that of the last record done plus one.

        A note stands beside its offset, for `Log.notes`, until the next commit of that partition; it is short. False:
        some partitions were taken from this member; what is left out of the commit comes again to their new owner.
        """

    async def rewind(self) -> None:
        """Read again from what is committed."""

    async def close(self) -> None: ...


class Log(Protocol):
    """A durable, partitioned, ordered log of records."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Flush and close. Appends under way are acknowledged or raise."""

    async def append(self, topic: str, records: Sequence[Outgoing]) -> list[Placed]:
        """Store the records and wait until they are stored durably. Those of one partition keep their order.

        Raises:
            LogBusy: nothing was stored.
            LogUnavailable: it is not known whether anything was stored.
        """

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""

    async def read(self, tp: TP, offset: int, most: int) -> list[Record]:
        """Records from `offset` on, for browsing and recovery; empty at the end. Outside of any group."""

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """For each partition its first offset and the one after its last."""

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """For each partition where the group goes on; those it never committed are absent."""

    async def go_on_from(self, group: str, offsets: Mapping[TP, int]) -> None:
        """Make a group go on from these offsets, back or forth; its other partitions stay where they are.

        Raises:
            LogBusy: the group has a member, who would commit over it.
        """

    async def notes(self, group: str, topic: str) -> dict[int, str]:
        """For each partition the note of its last commit; those that had none are absent."""

    async def subscribe(self, group: str, topics: Iterable[str]) -> Subscription:
        """Join a group; a group without a committed offset starts at the beginning."""

    async def topics(self) -> dict[str, TopicState]: ...

    async def create_topic(self, name: str, partitions: int, retention_ms: int | None, replication: int) -> None:
        """Make a topic; compacted where there is no retention. One that exists is left as it is."""


_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=16_384)
def murmur2(data: bytes) -> int:
    """Kafka's default hash of a key: 31 bits.

    Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive.

    >>> murmur2(b"21"), murmur2(b"foobar")
    (1173551340, 1357151166)
    """
    length = len(data)
    h = 0x9747B28C ^ length
    words = length >> 2
    for k in unpack_from(f"<{words}I", data):
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ (((k ^ (k >> 24)) * _M) & _MASK)
    tail = data[words << 2 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner says."""
    return murmur2(key) % partitions
