"""Quix Streams, stateful: its state in RocksDB with a changelog topic, committed as often as the others do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

    def handle(value: bytes, state: Any) -> None:
        nonlocal done
        meter.begin()
        work(value, state)
        done += 1
        if done == given.events:
            app.stop()  # what was done is committed before it ends

    work = _counting(given)
    frame = app.dataframe(app.topic(given.topic, key_deserializer="bytes", value_deserializer="bytes"))
    frame.update(handle, stateful=True)
    commit = app._processing_context.commit_checkpoint

    def commit_and_look(force: bool = False, revoking: bool = False) -> None:
        commit(force=force, revoking=revoking)
        if done == given.events and force and not revoking:
            meter.done(done)

    app._processing_context.commit_checkpoint = commit_and_look  # the only place that says: it is durable
    app.run()


def _counting(given: Job) -> Callable[[bytes, Any], None]:
    """Count into the same bytes as the others keep, with the cheapest access to its state that Quix has."""

    def work(value: bytes, state: Any) -> None:
        stored = state.get_bytes(KEY)
        counted = make_new(given.state_bytes) if stored is None else decode_counted(stored)
        count(counted, decode_seen(value))
        state.set_bytes(KEY, encode_counted(counted))

    return work


if __name__ == "__main__":
    main()
