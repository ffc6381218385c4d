"""The keyed states of one owned partition: decoded where they are hot, encoded on disk, all of them in the changelog.

A state is *hot* while it is in memory, *dirty* from its first change until the next checkpoint takes it, and *in
flight* from then until changelog and disk have it. Only states that are neither dirty nor in flight leave memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nsmallest
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import msgspec
import structlog

from schemas.errors import TidewireError
from schemas.keyed import Head, Keyed, decode_head, encode_state
from streams.dead_letters import GoOn, Stopped, decode_go_on, decode_stopped, encode_note
from streams.lines import Line
from streams.log import TP, Log, Outgoing, Placed, Record
from streams.store import StateStore, TimerMove

log = structlog.get_logger(__name__)

RESTORE_CHUNK = 5_000  # records
# Keys in the changelog that are no keys of states, which never begin with a zero byte:
TOPIC_ID = b"\0events"  # the id of the topic that its stage reads
STOPPED = b"\0stopped"  # `streams.dead_letters.Stopped`
GO_ON = b"\0go_on"  # `streams.dead_letters.GoOn`

S = TypeVar("S", bound=Keyed)
_new = tuple.__new__


class Encoded(NamedTuple):
    """States as a checkpoint took them: for the changelog and the disk, and how the timer index changes."""

    states: list[Outgoing]
    timers: list[TimerMove]


class _Hot(dict[str, S]):
    """The hot states. One that is not hot is loaded when it is asked for."""

    def __init__(self, load: Callable[[str], S]) -> None:
        self._load = load

    def __missing__(self, key: str) -> S:
        return self._load(key)

    def peek(self, key: str) -> S | None:
        """A state, if it is hot."""
        return dict.get(self, key)

    def lose(self) -> None:
        """Load no more: whose it was is free at once, and not only when somebody looks for garbage."""
        del self._load


class PartitionStates(Generic[S]):
    """The states of one partition, in memory and on disk. See `streams.worker.States`.

    Args:
        state: the type of the states.
        next_due_ms: when the earliest timer of a state is due; 0 where it has none.
        most_hot: how many stay in memory when nothing else holds them there.
    """

    def __init__(
        self, line: Line, partition: int, store: StateStore, log_: Log, *, state: type[S],
        next_due_ms: Callable[[S], int], most_hot: int,
    ) -> None:  # fmt: skip
        self.partition = partition
        self._line = line
        self.epoch = 0
        self._store = store
        self._log = log_
        self._new = state
        self._decode: Callable[[bytes], S] = msgspec.msgpack.Decoder(state).decode
        self._next_due_ms = next_due_ms
        self._most_hot = most_hot
        self._hot = _Hot(self._load)
        self._due: dict[str, int] = {}  # of hot states: the due time under which the disk knows them
        self._dirty: dict[str, S] = {}
        self._in_flight: dict[str, S] = {}
        self._shown: set[str] = set()
        self._changelog_next = 0
        self._stopped: Stopped | None = None
        self._go_on: GoOn | None = None
        # What the stage asks for most, without a step between.
        self.get: Callable[[str], S] = self._hot.__getitem__
        self.touch: Callable[[str, S], None] = self._dirty.__setitem__

    # --- what the stage asks for

    def show(self, key: str) -> None:
        self._shown.add(key)

    def fetch(self, keys: Iterable[str]) -> None:
        """Bring states into memory together: one look-up on disk costs half of several."""
        hot = self._hot
        missing = [key for key in keys if key not in hot]
        if missing:
            for key, value in zip(missing, self._store.get([key.encode() for key in missing]), strict=True):
                self._admit(key, value)

    def keys_after(self, after: str, most: int) -> list[str]:
        """The next keys there are, in order: on disk, and in memory alone."""
        stored = [key.decode() for key in islice(self._store.keys(after.encode()), most)]
        return sorted({*stored, *nsmallest(most, (key for key in self._hot if key > after))})[:most]

    def _load(self, key: str) -> S:
        return self._admit(key, self._store.get([key.encode()])[0])

    def _admit(self, key: str, value: bytes | None) -> S:
        state = self._new() if value is None else self._decode(value)
        self._hot[key] = state
        if state.next_due_ms:
            self._due[key] = state.next_due_ms
        return state

    # --- checkpoint

    @property
    def has_changes(self) -> bool:
        return bool(self._dirty)

    def take_changes(self) -> tuple[dict[str, S], list[tuple[str, S]]]:
        """The dirty states, clean from now on and in flight, and those whose portrait changed."""
        changed = self._in_flight = dict(self._dirty)
        self._dirty.clear()
        shown = [(key, changed[key]) for key in self._shown if key in changed]
        self._shown.clear()
        return changed, shown

    def encode(
        self, changed: Iterable[tuple[str, S]], into: Encoded, largest: int, shrink: Callable[[str, S], None]
    ) -> None:
        """Encode states that were taken; `shrink` is called with those of more than `largest` bytes.

        Nothing may change them meanwhile.
        """
        epoch, partition, due_before, next_due_ms = self.epoch, self.partition, self._due, self._next_due_ms
        put = into.states.append
        for key, state in changed:
            if state.epoch < epoch:
                state.epoch = epoch
            state.next_due_ms = due_ms = next_due_ms(state)
            value = encode_state(state)
            if len(value) > largest:
                shrink(key, state)
                state.next_due_ms = due_ms = next_due_ms(state)
                value = encode_state(state)
            name = key.encode()
            put(_new(Outgoing, (name, value, partition, ())))
            if due_ms or due_before:
                before_ms = due_before.get(key, 0)
                if before_ms != due_ms:
                    into.timers.append(TimerMove(name, before_ms, due_ms))
                    if due_ms:
                        due_before[key] = due_ms
                    else:
                        del due_before[key]

    async def changelog_has(self, placed: Iterable[Placed]) -> None:
        """The changelog acknowledged the records. Foreign ones in between are a former owner's, who came late: what it
        wrote over is written again with the next checkpoint."""
        for place in sorted(placed, key=lambda place: place.first):
            if place.first > self._changelog_next:
                await self._repair(self._changelog_next, place.first)
            self._changelog_next = place.first + place.count

    async def _repair(self, first: int, end: int) -> None:
        at = first
        while at < end:
            records = await self._log.read(TP(self._line.changelog, self.partition), at, RESTORE_CHUNK)
            for record in records:
                if record.offset >= end or self._is_note(record):
                    continue
                if record.key and record.key[0]:
                    key = record.key.decode()
                    self.touch(key, self.get(key))
                    log.warning("changelog_written_by_former_owner", partition=self.partition, key=key)
            at = records[-1].offset + 1 if records else end

    # --- a partition that stopped

    @property
    def stopped(self) -> Stopped | None:
        """Why the partition stands still, where it does: of its notes the later in the changelog holds."""
        return self._stopped

    @property
    def free_until(self) -> int:
        """The records before it may become dead letters without end."""
        return self._go_on.offset if self._go_on is not None and self._go_on.let_through else 0

    def stop(self, stopped: Stopped) -> Outgoing:
        """The partition stops; the note is to go to the changelog with the next checkpoint."""
        self._stopped = stopped
        self._keep_notes()
        return Outgoing(STOPPED, encode_note(stopped), self.partition)

    def go_on_notes(self) -> list[Outgoing]:
        return [Outgoing(GO_ON, encode_note(self._go_on), self.partition)] if self._go_on is not None else []

    async def look_for_notes(self) -> None:
        """Read what others wrote into the changelog. Not while a checkpoint writes there."""
        end = (await self._log.bounds(self._line.changelog))[self.partition][1]
        if end > self._changelog_next:
            await self._repair(self._changelog_next, end)
            self._changelog_next = end

    def _is_note(self, record: Record) -> bool:
        """Take a note out of the changelog; False: the record is a state."""
        if record.key == STOPPED:
            self._stopped = decode_stopped(record.value or b"")
        elif record.key == GO_ON:
            self._stopped, self._go_on = None, decode_go_on(record.value or b"")
        else:
            return False
        self._keep_notes()
        return True

    def _keep_notes(self) -> None:
        notes = (b"" if note is None else encode_note(note) for note in (self._stopped, self._go_on))
        self._store.set_notes(*notes)

    def store(self, encoded: Encoded) -> None:
        """Write to disk what the changelog has. Blocks; may run in another thread."""
        self._store.write(encoded.states, encoded.timers, self._changelog_next, self.epoch)

    def landed(self) -> None:
        """The checkpoint is durable: its states may leave memory, the ones longest in it first."""
        self._in_flight = {}
        hot, dirty, due = self._hot, self._dirty, self._due
        over = len(hot) - self._most_hot
        if over > 0:
            for key in list(islice((key for key in hot if key not in dirty), over)):
                del hot[key]
                if due:
                    due.pop(key, None)

    def forget(self) -> None:
        """Drop every change since the last checkpoint that landed."""
        self._hot.clear()
        self._due.clear()
        self._dirty.clear()
        self._shown.clear()
        self._in_flight = {}

    def due(self, now_ms: int, most: int, after: tuple[int, str] | None = None) -> list[tuple[int, str]]:
        """Timers on disk that are due, in order of time; those that come after one."""
        last = None if after is None else (after[0], after[1].encode())
        return [(due_ms, key.decode()) for due_ms, key in self._store.due(now_ms, most, last)]

    def is_due(self, key: str, due_ms: int) -> bool:
        """Whether a timer on disk stands there still, as far as is known without reading: no event, no tick has moved
        it since."""
        state = self._hot.peek(key)
        return state is None or self._next_due_ms(state) == due_ms

    def is_due_still(self, key: str, due_ms: int) -> bool:
        """Whether a state in memory has a timer there."""
        state = self._hot.peek(key)
        return state is not None and self._next_due_ms(state) == due_ms

    @property
    def hot_count(self) -> int:
        return len(self._hot)

    @property
    def size(self) -> tuple[int, int]:
        """States on disk and their bytes, as far as the store knows."""
        return self._store.size()

    def close(self) -> None:
        """Close the store, and let go of the states. Nothing else may be asked of it any more."""
        self._store.close()
        self.forget()
        self._hot.lose()

    # --- recovery

    async def restore(self, generation: int) -> int:
        """Bring the store up to date with the changelog, and become its owner in `generation` of the group.

        Returns how many records were read. Of two records of a key the one with the higher fence stays: an owner that
        had lost the partition may have written late.

        Raises:
            TidewireError: the topic was made anew, so that the offsets in the records mean nothing.
        """
        topics = await self._log.topics()
        changelog_id, topic_id = topics[self._line.changelog].id, topics[self._line.topic].id
        known_changelog, known_topic = self._store.identity()
        first, end = (await self._log.bounds(self._line.changelog))[self.partition]
        if known_changelog not in ("", changelog_id) or self._store.changelog_next > end:
            log.warning("state_belongs_to_another_log", partition=self.partition, folder=str(self._store.folder))
            self._store.wipe()
            known_topic = ""
        stopped, go_on = self._store.notes()
        self._stopped = decode_stopped(stopped) if stopped else None
        self._go_on = decode_go_on(go_on) if go_on else None
        at, newest, count = max(self._store.changelog_next, first), self._store.epoch, 0
        tp = TP(self._line.changelog, self.partition)
        while at < end:
            records = await self._log.read(tp, at, RESTORE_CHUNK)
            if not records:
                break
            values: dict[bytes, bytes | None] = {}
            heads: dict[bytes, Head] = {}
            for record in records:
                key, value = record.key or b"", record.value
                if key == TOPIC_ID:
                    known_topic = (value or b"").decode()
                    continue
                if self._is_note(record):
                    continue
                if value is not None:
                    head = decode_head(value)
                    if head.epoch < newest and self._is_older(key, head, heads):
                        continue
                    newest = max(newest, head.epoch)
                    heads[key] = head
                values[key] = value
            at = records[-1].offset + 1
            count += len(records)
            timers = [TimerMove(key, 0, heads[key].next_due_ms) for key, value in values.items()
                      if value is not None and heads[key].next_due_ms]  # fmt: skip
            self._store.write([Outgoing(key, value) for key, value in values.items()], timers, at, newest)
        if known_topic not in ("", topic_id):
            raise TidewireError(
                f"topic `{self._line.topic}` was deleted and made anew, but the records of `{self._line.changelog}` "
                f"still count its old offsets. Delete topic `{self._line.changelog}` too (its history is gone), or "
                "bring the old one back."
            )
        self.epoch = generation if generation > newest else newest + 1
        self._changelog_next = max(at, end)
        if not known_topic:
            note = Outgoing(TOPIC_ID, topic_id.encode(), self.partition)
            placed = await self._log.append(self._line.changelog, [note])
            self._changelog_next = placed[0].first + 1
        self._store.set_identity(changelog_id, topic_id)
        return count

    def _is_older(self, key: bytes, head: Head, heads: dict[bytes, Head]) -> bool:
        other = heads.get(key)
        if other is None:
            stored = self._store.get([key])[0]
            if stored is None:
                return False
            other = decode_head(stored)
        return head.fence < other.fence
