"""The keyed states of one partition on disk: RocksDB, with an index of the timers in order of time.

Written without RocksDB's own log: the changelog topic is the log. The offset in the changelog up to which the store is
complete is written last, so after a crash the store is whole as of some earlier moment, and the rest comes from the
changelog once more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import TidewireError, Unreachable
from schemas.keyed import decode_head
from streams.log import Outgoing

_RECORD, _TIMER, _META = b"c", b"t", b"m"
_NEXT = _META + b"changelog"  # the offset in the changelog to go on from
_EPOCH = _META + b"epoch"  # the highest epoch met in the changelog
_LOG = _META + b"log"  # id of the changelog topic the store belongs to
_EVENTS = _META + b"events"  # id of the topic `events` that the offsets in the states mean
_STOPPED = _META + b"stopped"
_GO_ON = _META + b"go_on"

READ_BYTES = 64 << 20  # of blocks kept in memory, of all stores
WRITTEN_BYTES = 64 << 20  # not yet in a file, of all stores
WRITE_CHUNK = 256  # states in one write: small enough for the processor's cache, and for memory that is used again


class TimerMove(NamedTuple):
    """The earliest timer of a key is due at another time; 0: it has none."""

    key: bytes
    before_ms: int
    due_ms: int


class StateStore:
    """One partition's states. Calls block for microseconds to milliseconds."""

    def __init__(self, folder: Path) -> None:
        """Open, or make.

        Raises:
            Unreachable: another process holds the folder.
            TidewireError: it cannot be read.
        """
        self.folder = folder
        self._open()

    def _open(self) -> None:
        from rocksdict import BlockBasedOptions, Options, Rdict, WriteOptions

        read, written = _memory()
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(16 << 20)
        options.set_max_write_buffer_number(3)
        options.set_write_buffer_manager(written)
        options.set_memtable_prefix_bloom_ratio(0.1)  # most keys asked for are not among the newest
        options.set_memtable_whole_key_filtering(True)
        options.set_keep_log_file_num(2)
        options.set_level_zero_file_num_compaction_trigger(8)  # with the default, 4, all is written twice as often
        options.set_max_bytes_for_level_base(512 << 20)
        blocks = BlockBasedOptions()
        blocks.set_bloom_filter(10, False)
        blocks.set_block_cache(read)
        options.set_block_based_table_factory(blocks)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(self.folder), options=options)
        except Exception as error:
            if "lock" in str(error).lower():
                what = f"{self.folder} is open in another process."
                raise Unreachable(f"{what} Give each worker its own --data.") from None
            raise TidewireError(
                f"{self.folder} cannot be opened: {error}. Remove the folder; it is made again from the changelog."
            ) from error
        self._options = WriteOptions()
        self._options.disable_wal = True

    def close(self) -> None:
        self._db.flush()
        self._db.close()

    def wipe(self) -> None:
        """Forget everything: the changelog is read from its beginning."""
        self._db.close()
        shutil.rmtree(self.folder)
        self._open()

    # --- what the store says of itself

    def size(self) -> tuple[int, int]:
        """How many entries, states and timers, and how many bytes, by RocksDB's own estimates: free of cost."""
        entries, *sizes = (self._db.property_int_value(f"rocksdb.{name}") or 0 for name in (
            "estimate-num-keys", "total-sst-files-size", "cur-size-all-mem-tables"))  # fmt: skip
        return entries, sum(sizes)

    @property
    def changelog_next(self) -> int:
        return int(self._db.get(_NEXT) or 0)

    @property
    def epoch(self) -> int:
        return int(self._db.get(_EPOCH) or 0)

    def identity(self) -> tuple[str, str]:
        """Ids of the changelog topic and of topic `events` that the store belongs to; empty where it is new."""
        return (self._db.get(_LOG) or b"").decode(), (self._db.get(_EVENTS) or b"").decode()

    def set_identity(self, changelog: str, events: str) -> None:
        self._db.put(_LOG, changelog.encode(), write_opt=self._options)
        self._db.put(_EVENTS, events.encode(), write_opt=self._options)

    def notes(self) -> tuple[bytes, bytes]:
        """The newest notes of the changelog, that the partition stopped and that it may go on; empty where none."""
        return self._db.get(_STOPPED) or b"", self._db.get(_GO_ON) or b""

    def set_notes(self, stopped: bytes, go_on: bytes) -> None:
        self._db.put(_STOPPED, stopped, write_opt=self._options)
        self._db.put(_GO_ON, go_on, write_opt=self._options)

    # --- states

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._db.get([_RECORD + key for key in keys])
        return found

    def write(
        self, states: Iterable[Outgoing], timers: Iterable[TimerMove], changelog_next: int, epoch: int
    ) -> None:
        """Store states and how their timers move. A state without a value is removed.

        After a crash some of it may be there and some not, but never `changelog_next` before the rest: what the log
        then says again is the same.
        """
        from rocksdict import WriteBatch

        waiting = iter(states)
        while True:
            batch = WriteBatch(raw_mode=True)
            put = batch.put
            for key, value, _, _ in islice(waiting, WRITE_CHUNK):
                if value is None:
                    batch.delete(_RECORD + key)  # type: ignore[operator]  # every state has a key
                else:
                    put(_RECORD + key, value)  # type: ignore[operator]
            if batch.is_empty():
                break
            self._db.write(batch, write_opt=self._options)
        batch = WriteBatch(raw_mode=True)
        for key, before_ms, due_ms in timers:
            if before_ms:
                batch.delete(_timer(before_ms, key))
            if due_ms:
                batch.put(_timer(due_ms, key), b"")
        batch.put(_NEXT, b"%d" % changelog_next)
        batch.put(_EPOCH, b"%d" % epoch)
        self._db.write(batch, write_opt=self._options)

    def due(self, now_ms: int, most: int, after: tuple[int, bytes] | None = None) -> list[tuple[int, bytes]]:
        """The earliest timers due at `now_ms`, with their keys, in order of time; those that come after one.

        Entries that their state does not know any more, as a recovery leaves them, are removed on the way.
        """
        entries: list[tuple[int, bytes]] = []
        first = _TIMER if after is None else _timer(*after) + b"\0"
        for entry in self._db.keys(from_key=first):
            due_ms = int.from_bytes(entry[1:9], "big")
            if entry[:1] != _TIMER or due_ms > now_ms or len(entries) == most:
                break
            entries.append((due_ms, entry[9:]))
        found = []
        for (due_ms, key), value in zip(entries, self.get([key for _, key in entries]) if entries else [], strict=True):
            if value is not None and decode_head(value).next_due_ms == due_ms:
                found.append((due_ms, key))
            else:
                self._db.delete(_timer(due_ms, key), write_opt=self._options)
        return found

    def keys(self, after: bytes = b"") -> Iterable[bytes]:
        """The keys that come after one, in order; without it, all."""
        for key in self._db.keys(from_key=_RECORD + after):
            if key[:1] != _RECORD:
                return
            if key[1:] != after:
                yield key[1:]


@cache
def _memory() -> tuple[Any, Any]:
    """What all stores of this process share, however many partitions it owns: for blocks read, and for what is written
    and not yet in a file."""
    from rocksdict import Cache, WriteBufferManager

    return Cache(READ_BYTES), WriteBufferManager(WRITTEN_BYTES, False)  # over it, files are written sooner


def _timer(due_ms: int, key: bytes) -> bytes:
    return _TIMER + due_ms.to_bytes(8, "big") + key
