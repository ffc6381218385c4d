"""The log on Apache Kafka: aiokafka for records, kafka-python's admin client for topics.

Reading outside of groups asks Kafka directly, one request after another and nothing in advance: a browser page costs
what it shows, and recovery asks for whole megabytes. All waiting has an end: `LogUnavailable` after `timeout_s`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    GroupIdNotFound,
    IllegalStateError,
    KafkaError,
    NoError,
    OffsetOutOfRangeError,
    StaleMetadata,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError, UnknownMemberIdError
from kafka.errors import KafkaError as AdminError
from kafka.structs import OffsetAndMetadata

from schemas.errors import TidewireError, Unreachable
from streams import kafka_records
from streams.kafka_address import parse_address
from streams.kafka_append import BATCH_BYTES, OVERHEAD_BYTES, Appender, Load
from streams.kafka_connection import mend
from streams.log import TP, LogBusy, LogUnavailable, Outgoing, Placed, Record, Subscription, TopicState, partition_of

log = structlog.get_logger(__name__)
mend()

LARGEST_RECORD_BYTES = 16 * 1024 * 1024  # as in the embedded log
TIMEOUT_S = 10.0
RETRY_S = 0.1
LARGEST_FETCH_BYTES = 8 * 1024 * 1024
LARGEST_READ_BYTES = 64 * 1024 * 1024  # after which a read returns fewer records than it was asked for
SMALLEST_FETCH_BYTES = 64 * 1024
USUAL_RECORD_BYTES = 1024  # to ask for about as much as is wanted
SESSION_TIMEOUT_MS = 6_000  # so long the partitions of a sink that died stand still; brokers allow no less by default
REBALANCE_TIMEOUT_MS = 30_000
LONGEST_SILENCE_MS = 600_000  # between two polls, before a member counts as stuck
MOST_RESTS = 16  # partitions of which we keep what was fetched and not asked for yet
_EARLIEST, _LATEST = -2, -1
_NO_LEADER = (None, -1)

Result = TypeVar("Result")


class KafkaLog:
    """`streams.log.Log` on Apache Kafka.

    Args:
        url: see `streams.kafka_address`.
        password: of the user that the URL names.
        timeout_s: how long a caller waits for Kafka.
    """

    def __init__(self, url: str, *, password: str = "", timeout_s: float = TIMEOUT_S) -> None:
        self.address = parse_address(url, password)
        self.timeout_s = timeout_s
        self._options: dict[str, Any] = {
            **self.address.client,
            "bootstrap_servers": self.address.brokers,
            "client_id": f"tidewire-{socket.gethostname()}",
            "request_timeout_ms": int(timeout_s * 1000),
        }
        self._client: Any = None
        self._appender = Appender(self._make_producer, timeout_s)
        self._partitions: dict[str, int] = {}
        self._turns: dict[str, int] = defaultdict(int)
        self._rests: dict[TP, _Rest] = {}

    @property
    def client_options(self) -> dict[str, Any]:
        """How aiokafka's clients reach this cluster; the worker's consumer is made with them."""
        return dict(self._options)

    def _make_producer(self) -> Any:
        return AIOKafkaProducer(
            **self._options, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES,
            max_request_size=LARGEST_RECORD_BYTES * 2,
        )  # fmt: skip

    # --- life

    async def start(self) -> None:
        """Connect.

        Raises:
            Unreachable: no broker answered, or none let us in.
        """
        if self._client is not None:
            return
        kafka_records.install()
        client = AIOKafkaClient(**self._options)
        self._appender = Appender(self._make_producer, self.timeout_s)
        try:
            async with asyncio.timeout(self.timeout_s):
                with _untold():
                    await client.bootstrap()
            self._client = client
            await self._look_up_topics()
            await self._appender.start()
        except (KafkaError, OSError, TimeoutError) as error:
            self._client = None
            await client.close()
            raise self._not_reached(error) from error

    def _not_reached(self, error: BaseException) -> Unreachable:
        refused = " or refused the password" if "sasl_plain_username" in self.address.client else ""
        return Unreachable(
            f"no Kafka broker answered at {self.address}{refused} ({str(error) or type(error).__name__}). "
            "Start it, or set another `log`."
        )

    async def stop(self) -> None:
        if self._client is None:
            return
        await self._appender.stop()
        client, self._client = self._client, None
        await client.close()

    # --- topics

    def partitions(self, topic: str) -> int:
        try:
            return self._partitions[topic]
        except KeyError:
            raise _no_topic(topic) from None

    async def _count(self, topic: str) -> int:
        """How many partitions, of a topic made a moment ago, too."""
        if topic not in self._partitions:
            await self._patiently(partial(self._look_up_topics))
        return self.partitions(topic)

    async def _look_up_topics(self) -> None:
        found = await self._open_client().fetch_all_metadata()
        # What was known stays: who is asked now may not have heard of it yet.
        self._partitions |= {name: len(found.partitions_for_topic(name)) for name in found.topics()}

    def _open_client(self) -> Any:
        if self._client is None:
            raise LogUnavailable("the log is closed")
        return self._client

    async def topics(self) -> dict[str, TopicState]:
        return await self._as_admin(self._describe_topics)

    @staticmethod
    def _describe_topics(admin: KafkaAdminClient) -> dict[str, TopicState]:
        described = [topic for topic in admin.describe_topics() if not topic["is_internal"]]
        if not described:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in described]
        configs = admin.describe_configs(asked, config_filter="all")["topic"]
        found = {}
        for topic in described:
            name, config = topic["name"], {key: entry["value"] for key, entry in configs[topic["name"]].items()}
            if "cleanup.policy" not in config:
                raise TidewireError(f"Kafka does not tell how topic {name!r} is kept. Grant this user DescribeConfigs.")
            policies = config["cleanup.policy"].split(",")
            kept_ms, kept_bytes = int(config["retention.ms"]), int(config["retention.bytes"])
            found[name] = TopicState(
                name, str(topic["topic_id"]), len(topic["partitions"]),
                kept_ms if "delete" in policies and kept_ms >= 0 else None, "compact" in policies,
                kept_bytes if "delete" in policies and kept_bytes >= 0 else None,
                min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
                int(config["min.insync.replicas"]), config["unclean.leader.election.enable"] == "true",
                int(config["max.message.bytes"]),
            )  # fmt: skip
        return found

    async def create_topic(self, name: str, partitions: int, retention_ms: int | None, replication: int = 1) -> None:
        configs = {
            # As the embedded log has it: the time when a record came into the log, whatever its producer's clock says.
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(LARGEST_RECORD_BYTES + BATCH_BYTES),
            "min.insync.replicas": "2" if replication >= 3 else "1",
            "unclean.leader.election.enable": "false",
        }
        if retention_ms is None:
            # The newest segment is never compacted, and recovery reads all: small segments, and often.
            configs |= {"cleanup.policy": "compact", "segment.bytes": str(128 * 1024 * 1024),
                        "min.cleanable.dirty.ratio": "0.3"}  # fmt: skip
        else:
            configs |= {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
        wanted = {name: {"num_partitions": partitions, "replication_factor": replication, "configs": configs}}

        def create(admin: KafkaAdminClient) -> None:
            try:
                admin.create_topics(wanted, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                pass
            except InvalidReplicationFactorError:
                raise TidewireError(
                    f"Kafka has too few brokers for {replication} copies of topic {name!r}. Set `replication` lower."
                ) from None

        async def see() -> None:
            await self._look_up_topics()
            if name not in self._partitions:  # the broker that was asked has not heard of it yet
                raise UnknownTopicOrPartitionError(name)

        await self._as_admin(create)
        await self._patiently(see)

    async def _as_admin(self, work: Callable[[KafkaAdminClient], Result]) -> Result:
        def in_thread() -> Result:
            admin = KafkaAdminClient(**self._options, bootstrap_timeout_ms=int(self.timeout_s * 1000))
            try:
                return work(admin)
            finally:
                admin.close()

        self._open_client()
        try:
            return await asyncio.to_thread(in_thread)
        except AdminError as error:
            raise LogUnavailable(f"Kafka did not do what was asked: {_short(error)}") from error

    # --- append

    async def append(self, topic: str, records: Sequence[Outgoing]) -> list[Placed]:
        if not records:
            return []
        count = self._partitions.get(topic) or await self._count(topic)
        by_partition: dict[int, list[Outgoing]] = {}
        sizes: dict[int, int] = {}
        for record in records:
            key, value, partition, headers = record
            if partition is None:
                if key is None:
                    partition = self._turns[topic] = (self._turns[topic] + 1) % count
                else:
                    partition = partition_of(key, count)
            elif not 0 <= partition < count:
                raise TidewireError(f"topic {topic!r} has no partition {partition}; it has {count}")
            size = (len(value) if value is not None else 0) + (len(key) if key is not None else 0)
            if size > LARGEST_RECORD_BYTES:
                raise TidewireError(f"a record of {size} bytes is too large; at most {LARGEST_RECORD_BYTES}")
            if headers:
                size += sum(len(name) + len(content) for name, content in headers)
            of_partition = by_partition.get(partition)
            if of_partition is None:
                by_partition[partition] = [record]
                sizes[partition] = size + OVERHEAD_BYTES
            else:
                of_partition.append(record)
                sizes[partition] += size + OVERHEAD_BYTES
        loads = {partition: Load(these, sizes[partition]) for partition, these in by_partition.items()}
        return await self._appender.append(topic, loads)

    # --- read

    async def read(self, tp: TP, offset: int, most: int) -> list[Record]:
        """As `Log.read`; records of aborted transactions are left out."""
        if not 0 <= tp.partition < await self._count(tp.topic):
            raise TidewireError(f"topic {tp.topic!r} has no partition {tp.partition}")
        records: list[Record] = []
        size = 0
        rest = self._rests.pop(tp, None)
        if rest is None or rest.next_offset != offset:
            rest = await self._fetch(tp, offset, most)
        # Kafka answers with what one of its files holds, and that may all be gone: compacted, aborted, or markers.
        while rest is not None:
            records += rest.take(most - len(records))
            size += rest.size
            if not rest.is_empty:
                self._keep(tp, rest)
                break
            if len(records) >= most or size > LARGEST_READ_BYTES:
                break
            rest = await self._fetch(tp, rest.next_offset, most - len(records))
        return records

    def _keep(self, tp: TP, rest: _Rest) -> None:
        """Keep what was fetched and not asked for yet; of a few partitions, for who reads on at once."""
        if len(self._rests) >= MOST_RESTS:
            del self._rests[next(iter(self._rests))]
        self._rests[tp] = rest

    async def _fetch(self, tp: TP, offset: int, most: int) -> _Rest | None:
        """What stands from `offset` on, or from where the log begins; None at the end."""
        size = min(LARGEST_FETCH_BYTES, max(SMALLEST_FETCH_BYTES, most * USUAL_RECORD_BYTES))
        try:
            return await self._patiently(partial(self._ask_for_records, tp, offset, size))
        except OffsetOutOfRangeError:
            first, after = (await self._bounds(tp.topic, [tp.partition]))[tp.partition]
            if offset >= first or first >= after:
                return None
            return await self._fetch(tp, first, most)

    async def _ask_for_records(self, tp: TP, offset: int, size: int) -> _Rest | None:
        request = FetchRequest(0, 0, size, READ_COMMITTED, [(tp.topic, [(tp.partition, offset, size)])])
        answer = await self._ask(await self._leader(tp), request)
        _, code, _, *facts = answer.topics[0][1][0]
        _raise_for(code, tp)
        after, aborted, content = facts[0], facts[2], facts[-1]
        if offset >= after:
            return None
        return _Rest(tp, offset, content, aborted)

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return await self._bounds(topic, range(await self._count(topic)))

    async def _bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        tps = [TP(topic, partition) for partition in partitions]
        first, after = await asyncio.gather(
            *(self._patiently(partial(self._ask_for_offsets, tps, which)) for which in (_EARLIEST, _LATEST))
        )
        return {partition: (first[partition], after[partition]) for partition in sorted(first)}

    async def _ask_for_offsets(self, tps: list[TP], which: int) -> dict[int, int]:
        by_leader: dict[int, list[TP]] = defaultdict(list)
        for tp in tps:
            by_leader[await self._leader(tp)].append(tp)
        found = {}
        for leader, led in by_leader.items():
            asked = [(led[0].topic, [(tp.partition, which) for tp in led])]
            answer = await self._ask(leader, OffsetRequest(-1, READ_COMMITTED, asked))
            for topic, partitions in answer.topics:
                for partition, code, _, offset, *_ in partitions:
                    _raise_for(code, TP(topic, partition))
                    found[partition] = offset
        return found

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        count = await self._count(topic)
        found = await self._patiently(partial(self._ask_for_committed, group, topic, count))
        return {partition: offset for partition, (offset, _) in found.items()}

    async def notes(self, group: str, topic: str) -> dict[int, str]:
        count = await self._count(topic)
        found = await self._patiently(partial(self._ask_for_committed, group, topic, count))
        return {partition: note for partition, (_, note) in found.items() if note}

    async def _ask_for_committed(self, group: str, topic: str, count: int) -> dict[int, tuple[int, str]]:
        coordinator = await self._open_client().coordinator_lookup(CoordinationType.GROUP, group)
        request = OffsetFetchRequest(group, [(topic, list(range(count)))])
        answer = await self._ask(coordinator, request, group=ConnectionGroup.COORDINATION)
        found = {}
        for _, partitions in answer.topics:
            for partition, offset, note, code in partitions:
                if for_code(code) is GroupIdNotFound:
                    return {}
                _raise_for(code, TP(topic, partition))
                if offset >= 0:
                    found[partition] = offset, note or ""
        return dict(sorted(found.items()))

    async def go_on_from(self, group: str, offsets: Mapping[TP, int]) -> None:
        wanted = {TopicPartition(*tp): OffsetAndMetadata(after, "", -1) for tp, after in offsets.items()}

        def alter(admin: KafkaAdminClient) -> None:
            for tp, error in admin.alter_group_offsets(group, wanted).items():
                if error is UnknownMemberIdError:  # what Kafka says of a group that has members
                    raise LogBusy(f"group {group!r} has a member: stop it first")
                _raise_for(error.errno, TP(*tp))

        await self._as_admin(alter)

    # --- asking Kafka

    async def _leader(self, tp: TP) -> int:
        client = self._open_client()
        leader = client.cluster.leader_for_partition(tp)
        if leader in _NO_LEADER:
            await client.add_topic(tp.topic)
            leader = client.cluster.leader_for_partition(tp)
            if leader in _NO_LEADER:
                raise StaleMetadata(f"no leader of {tp.topic}-{tp.partition} is known")
        return int(leader)

    async def _ask(self, node: int, request: Any, **options: Any) -> Any:
        return await self._open_client().send(node, request, **options)

    async def _patiently(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Ask again while Kafka looks for a leader or is away; LogUnavailable when it stays so."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                    return await ask()
            except OffsetOutOfRangeError:
                raise
            except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
                raise TidewireError(f"Kafka does not let this user do that: {_short(error)}") from error
            except (KafkaError, TimeoutError) as error:
                if not getattr(error, "retriable", False) or time.monotonic() + RETRY_S > deadline:
                    raise LogUnavailable(f"Kafka did not answer: {_short(error)}") from error
                if self._client is not None:
                    self._client.force_metadata_update()
                await asyncio.sleep(RETRY_S)

    # --- groups

    async def subscribe(self, group: str, topics: Iterable[str]) -> Subscription:
        names = list(topics)
        for name in names:
            await self._count(name)
        consumer = AIOKafkaConsumer(
            **self._options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 3,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=LONGEST_SILENCE_MS,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        member = KafkaSubscription(consumer, group, self.timeout_s)
        consumer.subscribe(names, listener=member)
        try:
            async with asyncio.timeout(REBALANCE_TIMEOUT_MS / 1000 + self.timeout_s):
                await consumer.start()
        except (KafkaError, TimeoutError) as error:
            await member.close()
            raise LogUnavailable(f"group {group!r} cannot be joined: {_short(error)}") from error
        return member


class _Rest:
    """Records that Kafka sent and nobody has taken yet. Next comes the one at `next_offset`, or after it."""

    def __init__(self, tp: TP, offset: int, content: bytes, aborted: Any) -> None:
        self._records = kafka_records.Records(
            TopicPartition(*tp), MemoryRecords(content), aborted, offset, None, None, True, READ_COMMITTED
        )
        self.size = len(content)
        self.is_empty = False

    @property
    def next_offset(self) -> int:
        return int(self._records.next_fetch_offset)

    def take(self, most: int) -> list[Record]:
        taken = list(islice(self._records, most))
        self.is_empty = len(taken) < most
        return taken


class KafkaSubscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of a group on Kafka."""

    def __init__(self, consumer: Any, group: str, timeout_s: float) -> None:
        self._consumer, self._group, self._timeout_s = consumer, group, timeout_s
        # Of each partition we hold: the offset after what we were given of it since we got it.
        self._after: dict[TP, int] = {}
        self.assignments = 0

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        # Another may have got them and gone on; a commit of ours would put it back.
        for tp in revoked:
            self._after.pop(TP(*tp), None)

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self.assignments += 1
        log.info("partitions_assigned", group=self._group, partitions=sorted(f"{tp[0]}-{tp[1]}" for tp in assigned))

    @property
    def assigned(self) -> set[TP]:
        return {TP(*tp) for tp in self._consumer.assignment()}

    async def poll(self, most: int, timeout_s: float) -> dict[TP, list[Record]]:
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=most)
        except KafkaError as error:
            raise LogUnavailable(f"group {self._group!r} cannot read: {_short(error)}") from error
        taken = {}
        for tp_, records in found.items():
            tp = TP(*tp_)
            self._after[tp] = records[-1].offset + 1
            taken[tp] = records
        return taken

    async def commit(self, offsets: Mapping[TP, int], notes: Mapping[TP, str] | None = None) -> bool:
        """As `Subscription.commit`; what a rebalance took from us is left out."""
        held = {tp: after for tp, after in offsets.items() if after <= self._after.get(tp, -1)}
        if len(held) < len(offsets):
            lost = sorted(f"{tp.topic}-{tp.partition}" for tp in offsets.keys() - held.keys())
            log.warning("commit_left_out", group=self._group, partitions=lost)
        if not held:
            return not offsets
        try:
            async with asyncio.timeout(self._timeout_s):
                said = notes or {}
                await self._consumer.commit({TopicPartition(*tp): (at, said.get(tp, "")) for tp, at in held.items()})
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("commit_refused", group=self._group, error=_short(error))
            return False
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"group {self._group!r} cannot commit: {_short(error)}") from error
        return len(held) == len(offsets)

    async def rewind(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                for tp in self._consumer.assignment():
                    after = await self._consumer.committed(tp)
                    if after is None:
                        await self._consumer.seek_to_beginning(tp)
                    else:
                        self._consumer.seek(tp, after)
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"group {self._group!r} cannot go back: {_short(error)}") from error

    async def close(self) -> None:
        """Leave the group, so that the others get our partitions at once."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._consumer.stop()
        except (KafkaError, TimeoutError) as error:
            log.warning("group_left_without_word", group=self._group, error=_short(error))


@contextmanager
def _untold() -> Iterator[None]:
    """Without what aiokafka says of each address that does not answer: we say it once, of all."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _no_topic(topic: str) -> TidewireError:
    return TidewireError(f"the log has no topic {topic!r}. Make the topics with `tidewire topics create`.")


def _raise_for(code: int, tp: TP) -> None:
    error = for_code(code)
    if error is not NoError:
        raise error(f"{tp.topic}-{tp.partition}")


def _short(error: BaseException) -> str:
    """An error of a Kafka client on one line; kafka-python puts whole requests into its messages."""
    text = str(error) or type(error).__name__
    if " failed with response " in text:
        text = type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"
