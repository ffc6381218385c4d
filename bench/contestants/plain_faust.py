"""Faust as its documentation shows it: an agent, a table with a changelog, one event at a time."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

import faust

from bench.contestants.contest import Meter, job
from bench.contestants.counter import count, decode_counted, decode_seen, encode_counted, make_new


def main() -> None:
    given, meter = job(), Meter()
    app = faust.App(
        given.group, broker=f"kafka://{given.kafka}", store="memory://", datadir=given.folder,
        topic_partitions=given.partitions, topic_replication_factor=1, consumer_auto_offset_reset="earliest",
        broker_commit_interval=given.interval_s, stream_wait_empty=False, web_enabled=False,
    )  # fmt: skip
    logging.getLogger("faust.app.base").setLevel(logging.CRITICAL)  # it misses a sensor of the first rebalance
    topic = app.topic(given.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    table = app.Table("counted", key_type=bytes, value_type=bytes, partitions=given.partitions)
    done = 0

    async def handle(stream: Any) -> None:
        nonlocal done
        async for key, value in stream.items():
            if done == given.events:  # there are more, which are left alone
                await asyncio.Event().wait()
            meter.begin()
            stored = table.get(key)
            counted = make_new(given.state_bytes) if stored is None else decode_counted(stored)
            count(counted, decode_seen(value))
            table[key] = encode_counted(counted)
            done += 1
            if done == given.events:
                app.loop.create_task(finish())

    async def finish() -> None:
        await asyncio.sleep(0)  # so that the last event is acknowledged
        await app.producer.flush()
        await app.consumer.commit()
        meter.done(done)
        await app.stop()
        os._exit(0)  # the worker around the app would wait for a signal

    rebalanced = app.tables.on_rebalance

    async def begin_to_restore(*args: Any, **kwargs: Any) -> None:
        meter.begin()
        await rebalanced(*args, **kwargs)

    async def restored() -> None:
        meter.done(0, start_s=time.time() - given.began)
        os._exit(0)

    if given.work == "restore":
        app.tables.on_rebalance = begin_to_restore
        table.on_recover(restored)
    app.agent(topic)(handle)
    sys.argv = ["plain_faust", "worker", "--loglevel", "ERROR", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
