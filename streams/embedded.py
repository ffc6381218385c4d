"""The embedded log: a durable, Kafka-shaped log in one SQLite file, in this process.

One thread writes. Appends that arrive while it commits are gathered and committed together next, so the cost of the
disk is shared by all who wait for it. A record is one row whose integer primary key is

    topic (12 bits) | partition (10 bits) | offset (41 bits)

so a partition is one range of the table's B-tree, appended at its end and read in order.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import structlog

from schemas.errors import TidewireError, Unreachable
from streams.log import TP, LogBusy, LogUnavailable, Outgoing, Placed, Record, Subscription, TopicState, partition_of

log = structlog.get_logger(__name__)

LARGEST_RECORD_BYTES = 16 * 1024 * 1024
MOST_WAITING_BYTES = 64 * 1024 * 1024  # of appends not yet committed; beyond it the log says it is busy
COMMIT_BYTES = 256 * 1024  # of one topic go into one commit: what it takes longer, everybody waits for
KEEP_HOUSE_EVERY_S = 60.0
CLEAN_AFTER_RECORDS = 50_000  # a compacted partition is cleaned when so many records, and half of it, are new
CHUNK = 5_000  # rows deleted in one transaction, so that appends wait little
TAIL_BYTES = 64 * 1024 * 1024  # of the newest records of all topics, kept for those who read just behind the end
_RECORD_BYTES = 250  # of a record in memory beside its key and value

_PARTITION_BITS, _OFFSET_BITS = 10, 41
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1

_SCHEMA = """
create table if not exists topics(
    number integer primary key, name text not null unique, id text not null, partitions int not null,
    retention_ms int, created_ms int not null);
create table if not exists partitions(
    topic int not null, partition int not null, first int not null, next int not null, cleaned int not null,
    primary key(topic, partition)) without rowid;
create table if not exists records(
    place integer primary key, timestamp_ms int not null, key blob, value blob, headers blob);
create table if not exists offsets(
    consumer_group text not null, topic text not null, partition int not null, next int not null,
    primary key(consumer_group, topic, partition)) without rowid;
create table if not exists notes(
    consumer_group text not null, topic text not null, partition int not null, note text not null,
    primary key(consumer_group, topic, partition)) without rowid;
"""

_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode

Result = TypeVar("Result")


class LogInUse(Unreachable):
    """Another process holds the log."""


class _Topic:
    """What is held in memory of a topic."""

    __slots__ = ("first", "id", "is_read", "name", "next", "number", "partitions", "retention_ms", "tails", "turn")

    def __init__(self, number: int, name: str, id: str, partitions: int, retention_ms: int | None) -> None:
        self.number, self.name, self.id = number, name, id
        self.partitions, self.retention_ms = partitions, retention_ms
        self.first = [0] * partitions
        self.next = [0] * partitions
        self.turn = 0  # which partition a record without a key goes to
        self.is_read = False
        self.tails = [_Tail() for _ in range(partitions)]

    def place(self, partition: int, offset: int) -> int:
        return (self.number << _PARTITION_BITS | partition) << _OFFSET_BITS | offset


class _Tail:
    """The newest records of a partition, without a gap, up to its end."""

    __slots__ = ("records", "size")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.size = 0

    def add(self, records: list[Record]) -> int:
        """Returns by how many bytes it grew."""
        before = self.size
        if self.records and self.records[-1].offset + 1 != records[0].offset:
            self.records, self.size = [], 0
        self.records += records
        self.size += sum(map(_bytes_of, records))
        return self.size - before

    def halve(self) -> int:
        """Let go of the older half; returns how many bytes that frees."""
        middle = (len(self.records) + 1) // 2
        freed = sum(map(_bytes_of, self.records[:middle]))
        del self.records[:middle]
        self.size -= freed
        return freed

    def read(self, offset: int, most: int) -> list[Record]:
        """Records from `offset` on; empty where it reaches further back."""
        if not self.records:
            return []
        start = offset - self.records[0].offset
        return self.records[start : start + most] if start >= 0 else []


def _bytes_of(record: Record) -> int:
    return _RECORD_BYTES + len(record.key or b"") + len(record.value or b"")


class _Append:
    """Records of one caller that wait for the same commit."""

    __slots__ = ("by_partition", "done", "size", "topic")

    def __init__(self, topic: _Topic) -> None:
        self.topic = topic
        self.by_partition: dict[int, list[Outgoing]] = {}
        self.size = 0
        self.done: asyncio.Future[list[Placed]] = asyncio.get_running_loop().create_future()

    def add(self, partition: int, record: Outgoing, length: int) -> None:
        of_partition = self.by_partition.get(partition)
        if of_partition is None:
            self.by_partition[partition] = [record]
        else:
            of_partition.append(record)
        self.size += length


class EmbeddedLog:
    """`streams.log.Log` in one SQLite file; one process owns it.

    With `fsync` an answered append survives the loss of power, without it only the death of the process.
    """

    def __init__(self, path: str | Path, *, fsync: bool = True) -> None:
        self.path = Path(path)
        self.fsync = fsync
        self._topics: dict[str, _Topic] = {}
        self._waiting: list[_Append] = []
        self._waiting_bytes = 0
        self._tail_bytes = 0
        self._commits: dict[tuple[str, str, int], tuple[int, str]] = {}  # offset and note
        self._committed: dict[tuple[str, str, int], int] = {}
        self._notes: dict[tuple[str, str, int], str] = {}  # of commits that have one
        self._commit_waiters: list[asyncio.Future[None]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._housekeeper: asyncio.Task[None] | None = None
        self._growth: set[asyncio.Future[None]] = set()
        self._members: dict[str, list[EmbeddedSubscription]] = defaultdict(list)
        self._is_open = False
        self._lock: IO[str] | None = None

    # --- life

    async def start(self) -> None:
        """Open the file, made where it is absent.

        Raises:
            LogInUse: another process, whose id is named, holds it.
            TidewireError: the folder cannot be written, or the file is no log.
        """
        if self._is_open:
            return
        self._take_lock()
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
        self._reader_thread = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        try:
            self._writer = await self._in_writer(self._connect)
            self._reader = await self._in_reader(self._connect)
            await self._in_writer(self._load)
        except sqlite3.Error as error:
            self._release_lock()
            what = f"{self.path} cannot be opened as a log: {error}."
            raise TidewireError(f"{what} Move it away, or name another folder.") from error
        self._is_open = True
        self._housekeeper = asyncio.create_task(self._keep_house())

    async def stop(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.gather(self._housekeeper, return_exceptions=True)
        while self._flusher is not None:
            await asyncio.wait([self._flusher])
        self._wake()
        await self._in_reader(self._reader.close)
        await self._in_writer(self._writer.close)
        self._reader_thread.shutdown()
        self._writer_thread.shutdown()
        self._release_lock()

    def _take_lock(self) -> None:
        path = self.path.with_name(self.path.name + ".lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = path.open("a+")
        except OSError as error:
            what = f"{self.path.parent} cannot be written: {error.strerror}."
            raise TidewireError(f"{what} Name another folder with --data.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            self._lock.close()
            what = f"the log {self.path} is open in process {owner}."
            raise LogInUse(f"{what} Ask that process, stop it, or name another folder with --data.") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=64)
        db.execute("pragma page_size = 8192")
        db.execute("pragma journal_mode = wal")
        db.execute(f"pragma synchronous = {'full' if self.fsync else 'normal'}")
        db.execute("pragma wal_autocheckpoint = 1000")  # pages, 8 MB: appends wait while they move into the file
        db.execute("pragma busy_timeout = 10000")
        return db

    def _load(self) -> None:
        db = self._writer
        db.executescript(_SCHEMA)
        for row in db.execute("select number, name, id, partitions, retention_ms from topics"):
            self._topics[row[1]] = _Topic(*row)
        by_number = {topic.number: topic for topic in self._topics.values()}
        for number, partition, first, after in db.execute("select topic, partition, first, next from partitions"):
            by_number[number].first[partition] = first
            by_number[number].next[partition] = after
        for group, topic, partition, after in db.execute("select * from offsets"):
            self._committed[group, topic, partition] = after
        for group, topic, partition, note in db.execute("select * from notes"):
            self._notes[group, topic, partition] = note

    def _in_writer(self, work: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._writer_thread, work, *args)

    def _in_reader(self, work: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._reader_thread, work, *args)

    # --- topics

    def _topic(self, name: str) -> _Topic:
        try:
            return self._topics[name]
        except KeyError:
            mend = "Make the topics with `tidewire topics create`."
            raise TidewireError(f"the log has no topic {name!r}. {mend}") from None

    def partitions(self, topic: str) -> int:
        return self._topic(topic).partitions

    async def topics(self) -> dict[str, TopicState]:
        return {
            name: TopicState(name, topic.id, topic.partitions, topic.retention_ms, topic.retention_ms is None)
            for name, topic in self._topics.items()
        }

    async def create_topic(self, name: str, partitions: int, retention_ms: int | None, replication: int = 1) -> None:
        if name in self._topics:
            return
        if not 1 <= partitions < 1 << _PARTITION_BITS:
            what = f"topic {name!r} cannot have {partitions} partitions"
            raise TidewireError(f"{what}; the embedded log takes 1 to {(1 << _PARTITION_BITS) - 1}.")
        self._topics[name] = await self._in_writer(self._create_topic, name, partitions, retention_ms)

    def _create_topic(self, name: str, partitions: int, retention_ms: int | None) -> _Topic:
        db, identity = self._writer, uuid.uuid4().hex
        db.execute("begin immediate")
        with db:
            number = db.execute(
                "insert into topics(name, id, partitions, retention_ms, created_ms) values(?,?,?,?,?)",
                (name, identity, partitions, retention_ms, time.time_ns() // 1_000_000),
            ).lastrowid
            db.executemany("insert into partitions values(?,?,0,0,0)", [(number, p) for p in range(partitions)])
        assert number is not None
        return _Topic(number, name, identity, partitions, retention_ms)

    # --- append

    async def append(self, topic: str, records: Sequence[Outgoing]) -> list[Placed]:
        if not self._is_open:
            raise LogUnavailable(f"the log {self.path} is closed")
        if not records:
            return []
        known = self._topic(topic)
        appends = [_Append(known)]
        for record in records:
            partition = record.partition
            if partition is None:
                if record.key is None:
                    partition = known.turn = (known.turn + 1) % known.partitions
                else:
                    partition = partition_of(record.key, known.partitions)
            elif not 0 <= partition < known.partitions:
                raise TidewireError(f"topic {topic!r} has no partition {partition}; it has {known.partitions}")
            length = len(record.value or b"") + len(record.key or b"")
            if length > LARGEST_RECORD_BYTES:
                raise TidewireError(f"a record of {length} bytes is too large; at most {LARGEST_RECORD_BYTES}")
            if appends[-1].size > COMMIT_BYTES:
                appends.append(_Append(known))
            appends[-1].add(partition, record, length)
        size = sum(append.size for append in appends)
        if self._waiting_bytes and self._waiting_bytes + size > MOST_WAITING_BYTES:
            raise LogBusy("the log has too much to write")
        self._waiting += appends
        self._waiting_bytes += size
        self._flush_soon()
        try:
            if len(appends) == 1:
                return await appends[0].done
            places = await asyncio.gather(*(append.done for append in appends))
        finally:
            del appends  # else an error, by its traceback, would hold itself and them until garbage is looked for
        return [place for placed in places for place in placed]

    def _next_appends(self) -> list[_Append]:
        """What the next commit takes: a little of every topic, so that events need not wait for thousands of states."""
        taken, left, sizes = [], [], dict.fromkeys(self._topics, 0)
        for append in self._waiting:
            if sizes[append.topic.name] > COMMIT_BYTES:
                left.append(append)
            else:
                taken.append(append)
                sizes[append.topic.name] += append.size
        self._waiting = left
        self._waiting_bytes -= sum(sizes.values())
        return taken

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        """Commit what waits, again and again until nothing does."""
        try:
            while self._waiting or self._commits:
                appends = self._next_appends()
                commits, self._commits = self._commits, {}
                waiters, self._commit_waiters = self._commit_waiters, []
                try:
                    placed, now_ms = await self._in_writer(self._write, appends, commits)
                except sqlite3.Error as error:
                    log.error("log_write_failed", path=str(self.path), error=str(error))
                    unanswered: list[asyncio.Future[Any]] = [*(append.done for append in appends), *waiters]
                    for waiting in unanswered:
                        if not waiting.done():
                            waiting.set_exception(LogUnavailable(f"the log {self.path} cannot be written: {error}"))
                    continue
                for of, (after, note) in commits.items():
                    self._committed[of] = after
                    self._notes[of] = note
                for append, places in zip(appends, placed, strict=True):
                    for place in places:
                        append.topic.next[place.partition] = max(
                            append.topic.next[place.partition], place.first + place.count
                        )
                        if append.topic.is_read:
                            self._keep(append.topic, place, append.by_partition[place.partition], now_ms)
                    if not append.done.done():
                        append.done.set_result(places)
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
                if appends:
                    self._wake()
        finally:
            self._flusher = None

    def _keep(self, topic: _Topic, place: Placed, records: list[Outgoing], now_ms: int) -> None:
        """Keep what was just committed for its readers."""
        name, partition, first, _ = topic.name, *place
        self._tail_bytes += topic.tails[partition].add([
            Record(name, partition, offset, now_ms, key, value, headers)
            for offset, (key, value, _, headers) in enumerate(records, first)
        ])  # fmt: skip
        while self._tail_bytes > TAIL_BYTES:
            tails = (tail for each in self._topics.values() for tail in each.tails)
            self._tail_bytes -= max(tails, key=lambda tail: tail.size).halve()

    def _write(
        self, appends: list[_Append], commits: dict[tuple[str, str, int], tuple[int, str]]
    ) -> tuple[list[list[Placed]], int]:
        now_ms = time.time_ns() // 1_000_000
        values: list[Any] = []  # of the columns of all rows, one after another
        ends: dict[tuple[int, int], int] = {}
        placed: list[list[Placed]] = []
        for append in appends:
            topic, places = append.topic, []
            for partition, records in append.by_partition.items():
                first = ends.get((topic.number, partition), topic.next[partition])
                for place, record in enumerate(records, topic.place(partition, first)):
                    headers = _encode_headers(record.headers) if record.headers else None
                    values += (place, now_ms, record.key, record.value, headers)
                ends[topic.number, partition] = first + len(records)
                places.append(Placed(partition, first, len(records)))
            placed.append(places)
        db = self._writer
        db.execute("begin immediate")
        with db:  # commits, or rolls back what raised
            _insert(db, "insert into records", 5, values)
            moved = [value for of, after in ends.items() for value in (*of, 0, after, 0)]
            then = "on conflict(topic, partition) do update set next = excluded.next"
            _insert(db, "insert into partitions", 5, moved, then)
            offsets = [value for of, (after, _) in commits.items() for value in (*of, after)]
            _insert(db, "insert or replace into offsets", 4, offsets)
            noted = [value for of, (_, note) in commits.items() if note or self._notes.get(of) for value in (*of, note)]
            _insert(db, "insert or replace into notes", 4, noted)
        return placed, now_ms

    def _wake(self) -> None:
        waiting, self._growth = self._growth, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def grown(self, timeout_s: float) -> None:
        """Return when anything was appended, or after `timeout_s` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._growth.add(future)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            self._growth.discard(future)

    # --- read

    def end(self, tp: TP) -> int:
        """The offset after the last record of a partition."""
        return self._topic(tp.topic).next[tp.partition]

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        known = self._topic(topic)
        return {p: (known.first[p], known.next[p]) for p in range(known.partitions)}

    async def read(self, tp: TP, offset: int, most: int) -> list[Record]:
        known = self._topic(tp.topic)
        known.is_read = True
        if offset >= known.next[tp.partition]:
            return []
        if kept := known.tails[tp.partition].read(offset, most):
            return kept
        return await self._in_reader(self._read, known, tp.partition, max(offset, known.first[tp.partition]), most)

    def _read(self, topic: _Topic, partition: int, offset: int, most: int) -> list[Record]:
        name = topic.name
        rows = self._reader.execute(
            "select place, timestamp_ms, key, value, headers from records where place >= ? and place < ? "
            "order by place limit ?",
            (topic.place(partition, offset), topic.place(partition, topic.next[partition]), most),
        )
        return [
            Record(name, partition, place & _OFFSET_MASK, at, key, value, _decode_headers(headers) if headers else ())
            for place, at, key, value, headers in rows
        ]

    # --- groups

    def position(self, group: str, tp: TP) -> int:
        """Where a group goes on: its committed offset, else the beginning."""
        return self._committed.get((group, *tp), self._topic(tp.topic).first[tp.partition])

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        return {
            partition: self._committed[group, topic, partition]
            for partition in range(self._topic(topic).partitions)
            if (group, topic, partition) in self._committed
        }

    async def notes(self, group: str, topic: str) -> dict[int, str]:
        found = {p: self._notes.get((group, topic, p), "") for p in range(self._topic(topic).partitions)}
        return {partition: note for partition, note in found.items() if note}

    async def commit(self, group: str, offsets: Mapping[TP, int], notes: Mapping[TP, str] | None = None) -> None:
        """Store where a group goes on, with the next commit of the log."""
        if not offsets:
            return
        if not self._is_open:
            raise LogUnavailable(f"the log {self.path} is closed")
        for tp, after in offsets.items():
            self._commits[group, tp.topic, tp.partition] = after, (notes or {}).get(tp, "")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commit_waiters.append(done)
        self._flush_soon()
        await done

    async def go_on_from(self, group: str, offsets: Mapping[TP, int]) -> None:
        if self._members.get(group):
            raise LogBusy(f"group {group!r} has a member: stop it first")
        await self.commit(group, offsets)

    async def subscribe(self, group: str, topics: Iterable[str]) -> Subscription:
        member = EmbeddedSubscription(self, group, [self._topic(name) for name in topics])
        self._members[group].append(member)
        self._share_out(group)
        return member

    def leave(self, member: EmbeddedSubscription) -> None:
        members = self._members[member.group]
        if member in members:
            members.remove(member)
            self._share_out(member.group)

    def _share_out(self, group: str) -> None:
        """Give each partition of the group's topics to one of its members, in turn."""
        members = self._members[group]
        shares: list[set[TP]] = [set() for _ in members]
        for name in {topic.name for member in members for topic in member.topics}:
            takers = [i for i, member in enumerate(members) if any(topic.name == name for topic in member.topics)]
            for partition in range(self._topics[name].partitions):
                shares[takers[partition % len(takers)]].add(TP(name, partition))
        for member, share in zip(members, shares, strict=True):
            member.assign(share)

    # --- backup

    async def copy_to(self, file: Path, groups: Mapping[str, Mapping[TP, int]]) -> None:
        """Write the whole log as it is at one moment into one new file. Appends go on meanwhile.

        In the copy the groups named go on from the offsets given, and from the beginning where none is.

        Raises:
            TidewireError: the file cannot be written, or the log is damaged.
        """
        await asyncio.to_thread(self._copy_to, file, groups)

    def _copy_to(self, file: Path, groups: Mapping[str, Mapping[TP, int]]) -> None:
        try:
            with closing(sqlite3.connect(self.path)) as ours, closing(sqlite3.connect(file)) as copy:
                ours.backup(copy)  # in one step: in several, each append between two would begin it anew
                with copy:
                    for group, offsets in groups.items():
                        copy.execute("delete from offsets where consumer_group = ?", (group,))
                        copy.execute("delete from notes where consumer_group = ?", (group,))
                        rows = [(group, *tp, after) for tp, after in offsets.items()]
                        copy.executemany("insert into offsets values(?,?,?,?)", rows)
                copy.execute("pragma journal_mode = delete")  # a single file; `start` makes it a WAL again
                (found,) = copy.execute("pragma quick_check(1)").fetchone()
        except sqlite3.Error as error:
            raise TidewireError(f"the log {self.path} cannot be copied to {file}: {error}.") from error
        if found != "ok":
            raise TidewireError(f"the log {self.path} is damaged: {found}. An older backup may still be whole.")

    # --- retention and compaction

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(KEEP_HOUSE_EVERY_S)
            try:
                await self.keep_house()
            except sqlite3.Error as error:  # tried again at the next turn; appends report their own errors
                log.error("log_housekeeping_failed", path=str(self.path), error=str(error))

    async def keep_house(self, now_ms: int | None = None) -> int:
        """Drop what is past its retention and, in compacted topics, all but the newest record of each key.

        Returns how many records went. Appends go on meanwhile.
        """
        now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        dropped = 0
        for topic in list(self._topics.values()):
            for partition in range(topic.partitions):
                if topic.retention_ms is None:
                    dropped += await self._compact(topic, partition)
                else:
                    dropped += await self._expire(topic, partition, now_ms - topic.retention_ms)
        return dropped

    async def _expire(self, topic: _Topic, partition: int, before_ms: int) -> int:
        dropped = 0
        while True:
            first, gone = await self._in_writer(self._expire_chunk, topic, partition, before_ms)
            topic.first[partition] = first
            dropped += gone
            if gone < CHUNK:
                return dropped
            await asyncio.sleep(0)

    def _expire_chunk(self, topic: _Topic, partition: int, before_ms: int) -> tuple[int, int]:
        db, first, after = self._writer, topic.first[partition], topic.next[partition]
        old: list[int] = []
        for place, at in db.execute(
            "select place, timestamp_ms from records where place >= ? and place < ? order by place limit ?",
            (topic.place(partition, first), topic.place(partition, after), CHUNK),
        ):
            if at >= before_ms:
                break
            old.append(place)
        if not old:
            return first, 0
        first = (old[-1] & _OFFSET_MASK) + 1
        db.execute("begin immediate")
        with db:
            db.execute("delete from records where place >= ? and place <= ?", (old[0], old[-1]))
            db.execute(
                "update partitions set first = ? where topic = ? and partition = ?", (first, topic.number, partition)
            )
        return first, len(old)

    async def _compact(self, topic: _Topic, partition: int) -> int:
        end = topic.next[partition]
        old = await self._in_reader(self._superseded, topic, partition, end)
        for i in range(0, len(old), CHUNK):
            await self._in_writer(self._delete, old[i : i + CHUNK])
        if old:
            await self._in_writer(self._mark_cleaned, topic, partition, end)
        return len(old)

    def _superseded(self, topic: _Topic, partition: int, end: int) -> list[int]:
        """Places of records that a newer one of the same key replaces; none while too few are new."""
        db = self._reader
        low, high = topic.place(partition, 0), topic.place(partition, end)
        (cleaned,) = db.execute(
            "select cleaned from partitions where topic = ? and partition = ?", (topic.number, partition)
        ).fetchone()
        if end - cleaned < CLEAN_AFTER_RECORDS:
            return []
        (kept,) = db.execute(
            "select count(*) from records where place >= ? and place < ?", (low, topic.place(partition, cleaned))
        ).fetchone()
        if end - cleaned < kept:
            return []
        newest: dict[bytes | None, int] = {}
        old: list[int] = []
        keys = "select place, key from records where place >= ? and place < ? order by place"
        for place, key in db.execute(keys, (low, high)):
            before = newest.get(key)
            if before is not None:
                old.append(before)
            newest[key] = place
        return sorted(old)

    def _delete(self, places: list[int]) -> None:
        db = self._writer
        db.execute("begin immediate")
        with db:
            db.executemany("delete from records where place = ?", [(place,) for place in places])

    def _mark_cleaned(self, topic: _Topic, partition: int, end: int) -> None:
        self._writer.execute(
            "update partitions set cleaned = ? where topic = ? and partition = ?", (end, topic.number, partition)
        )


def _insert(db: sqlite3.Connection, what: str, width: int, values: list[Any], then: str = "") -> None:
    """Insert rows, many with each statement: between two statements another thread may take the interpreter for
    milliseconds, as it does between the rows of `executemany`. Few sizes, so that SQLite keeps them prepared."""
    at = 0
    for count in (256, 64, 16, 4, 1):
        size = count * width
        while len(values) - at >= size:
            db.execute(_statement(what, width, count, then), values[at : at + size])
            at += size


@cache
def _statement(what: str, width: int, count: int, then: str) -> str:
    row = f"({','.join('?' * width)})"
    return f"{what} values {','.join([row] * count)} {then}"


class EmbeddedSubscription:
    """A member of a group of the embedded log."""

    def __init__(self, log_: EmbeddedLog, group: str, topics: list[_Topic]) -> None:
        self._log = log_
        self.group = group
        self.topics = topics
        self._positions: dict[TP, int] = {}
        self._is_closed = False
        self.assignments = 0

    def assign(self, share: set[TP]) -> None:
        self.assignments += 1
        kept = {tp: at for tp, at in self._positions.items() if tp in share}
        self._positions = kept | {tp: self._log.position(self.group, tp) for tp in share if tp not in kept}

    @property
    def assigned(self) -> Set[TP]:
        return self._positions.keys()

    async def poll(self, most: int, timeout_s: float) -> dict[TP, list[Record]]:
        found = await self._poll(most)
        if not found and timeout_s > 0 and not self._is_closed:
            await self._log.grown(timeout_s)
            found = await self._poll(most)
        return found

    async def _poll(self, most: int) -> dict[TP, list[Record]]:
        found: dict[TP, list[Record]] = {}
        ready = [tp for tp, at in self._positions.items() if at < self._log.end(tp)]
        for i, tp in enumerate(ready):
            share = max(1, most // (len(ready) - i))
            records = await self._log.read(tp, self._positions.get(tp, 0), share)
            if records and tp in self._positions:
                found[tp] = records
                self._positions[tp] = records[-1].offset + 1
                most -= len(records)
            if most <= 0:
                break
        # The next poll starts with those that had to wait.
        for tp in found:
            self._positions[tp] = self._positions.pop(tp)
        return found

    async def commit(self, offsets: Mapping[TP, int], notes: Mapping[TP, str] | None = None) -> bool:
        held = {tp: after for tp, after in offsets.items() if tp in self._positions}
        await self._log.commit(self.group, held, notes)
        return len(held) == len(offsets)

    async def rewind(self) -> None:
        self._positions = {tp: self._log.position(self.group, tp) for tp in self._positions}

    async def close(self) -> None:
        self._is_closed = True
        self._log.leave(self)
