"""Quix Streams, stateful: its state in RocksDB with a changelog topic, committed as often as the others do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from quixstreams import Application

from bench.contestants.contest import Job, Meter, job
from bench.contestants.counter import count, decode_counted, decode_seen, encode_counted, make_new

KEY = "state"


def main() -> None:
    given, meter = job(), Meter()
    app = Application(
        given.kafka, consumer_group=given.group, state_dir=given.folder, auto_offset_reset="earliest",
        commit_interval=given.interval_s, use_changelog_topics=True, loglevel="WARNING",
    )  # fmt: skip
    done = 0

    def handle(value: bytes, state: Any) -> list[bytes]:
        nonlocal done
        meter.begin()
        rows = work(value, state)
        done += 1
        if done == given.events:
            app.stop()  # what was done is committed before it ends
        return rows

    is_counting = given.work in ("count", "restore")
    work = _counting(given) if is_counting else _folding(given)
    frame = app.dataframe(app.topic(given.topic, key_deserializer="bytes", value_deserializer="bytes"))
    if is_counting:
        frame.update(handle, stateful=True)
    else:
        rows = app.topic(f"{given.group}-rows", key_serializer="bytes", value_serializer="bytes")
        frame.apply(handle, stateful=True, expand=True).to_topic(rows)
    commit = app._processing_context.commit_checkpoint

    def commit_and_look(force: bool = False, revoking: bool = False) -> None:
        commit(force=force, revoking=revoking)
        if done == given.events and force and not revoking:
            meter.done(done)

    app._processing_context.commit_checkpoint = commit_and_look  # the only place that says: it is durable
    if given.work == "restore":
        _watch_recovery(app, given, meter)
    app.run()


def _watch_recovery(app: Application, given: Job, meter: Meter) -> None:
    """End when the state is back."""
    recover = app._state_manager.do_recovery

    def recover_and_look() -> None:
        meter.begin()
        recover()
        meter.done(0, start_s=time.time() - given.began)
        app.stop()

    app._state_manager.do_recovery = recover_and_look


def _counting(given: Job) -> Callable[[bytes, Any], list[bytes]]:
    """Count into the same bytes as the others keep, with the cheapest access to its state that Quix has."""

    def work(value: bytes, state: Any) -> list[bytes]:
        stored = state.get_bytes(KEY)
        counted = make_new(given.state_bytes) if stored is None else decode_counted(stored)
        count(counted, decode_seen(value))
        state.set_bytes(KEY, encode_counted(counted))
        return []

    return work


def _folding(given: Job) -> Callable[[bytes, Any], list[bytes]]:
    """Fold through the processors; the rows they write go to a topic.

    Identities, duplicates and portraits are left out: nobody is merged, nothing is looked up but the state of the key.
    """
    from bench.contestants.folding import fold_of
    from processors.base import Person
    from schemas.customer import Part, decode_part
    from schemas.effects import Row
    from schemas.event import decode_event
    from schemas.keyed import encode_state
    from schemas.rows import TableRow, encode_json

    fold = fold_of(given.work)

    def work(value: bytes, state: Any) -> list[bytes]:
        event = decode_event(value)
        key = event.key
        stored = state.get_bytes(KEY)
        part = Part() if stored is None else decode_part(stored)
        fold.check(event)
        done = fold.apply(part, event, Person(key, key, part.applied), event.received_ms)
        part.applied += 1
        state.set_bytes(KEY, encode_state(part))
        return [
            encode_json(TableRow(
                table=fold.table_of[type(effect.values)].name, workspace=event.workspace, key=key, version=part.applied,
                is_deleted=effect.is_deleted, values=msgspec.Raw(encode_json(effect.values)),
            ))
            for _, effect in done if isinstance(effect, Row)
        ]  # fmt: skip

    return work


if __name__ == "__main__":
    main()
