"""The Faust app of a stage: group membership, rebalancing and commits; the work itself is the worker's."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import faust
import structlog
from faust.types import TP as FaustTP

from config.settings import Settings
from schemas.errors import TidewireError, Unreachable
from streams.embedded import EmbeddedLog
from streams.log import TP, Log
from streams.metrics import StageMetrics
from streams.transport import Batch, BatchSchema, register
from streams.worker import Owns, Stage, Then, Worker, do_nothing

log = structlog.get_logger(__name__)

SESSION_TIMEOUT_S = 10.0  # so long the partitions of a worker that died stand still
STUCK_S = 120.0  # records wait, and nothing moves: the process ends, and another takes over
WATCH_EVERY_S = 1.0
EXIT_FAILED = 1  # as the command line says
EXIT_BUG = 70  # EX_SOFTWARE

Fatal = Callable[[str, BaseException | None], None]


def end_process(what: str, error: BaseException | None) -> None:
    """End at once, acknowledging nothing. What was not checkpointed comes again."""
    try:
        if isinstance(error, TidewireError) and not isinstance(error, Unreachable):  # for a person to mend
            print(f"tidewire: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            os._exit(EXIT_FAILED)
        log.critical("worker_ends", why=what, error=repr(error) if error else None, exc_info=error)
        logging.shutdown()
    finally:
        os._exit(EXIT_BUG)


def _client_options(log_: Log) -> dict[str, Any]:
    """How aiokafka's clients reach the cluster."""
    from streams.kafka import KafkaLog  # it stands on much that takes long to import, and one machine needs none of it

    return log_.client_options if isinstance(log_, KafkaLog) else {}


class StageApp:
    """A stage as a member of its group. Start it in the event loop it is to run in."""

    def __init__(
        self, log_: Log, stage: Stage[Any], settings: Settings, metrics: StageMetrics, fatal: Fatal = end_process, *,
        checkpoint_ms: int | None = None, then: Then = do_nothing, owns: Owns = do_nothing,
    ) -> None:  # fmt: skip
        """`checkpoint_ms`: another interval than that of the settings; `then`, `owns`: see `Worker`."""
        register()
        logging.getLogger("faust").setLevel(logging.WARNING)
        logging.getLogger("faust.app.base").setLevel(logging.ERROR)  # it misses a sensor of the first rebalance
        logging.getLogger("mode").setLevel(logging.WARNING)
        logging.getLogger("mode.timers").setLevel(logging.ERROR)  # it warns of every commit that took long
        self._log = log_
        self._line = stage.line
        self._fatal = fatal
        is_embedded = isinstance(log_, EmbeddedLog)
        (settings.data / "faust").mkdir(parents=True, exist_ok=True)
        self.faust = faust.App(
            stage.line.group,
            broker="embedded://" if is_embedded else "kafka://",
            store="memory://",
            datadir=str(settings.data / "faust"),
            processing_guarantee="at_least_once",  # and effects that are the same however often they happen
            topic_partitions=log_.partitions(stage.line.topic),
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            stream_wait_empty=False,
            stream_buffer_maxsize=16,  # batches
            stream_recovery_delay=0.0,
            broker_commit_interval=0.25,
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=3.0,
            broker_rebalance_timeout=30.0,
            broker_request_timeout=30.0,
            consumer_auto_offset_reset="earliest",
            loop=asyncio.get_running_loop(),
        )
        self.faust.ground = log_
        self.faust.kafka_options = {} if is_embedded else _client_options(log_)
        self.worker: Worker[Any] = Worker(
            log_, stage, folder=settings.data / stage.line.changelog, reading=self, metrics=metrics,
            checkpoint_records=settings.checkpoint_records, then=then, owns=owns,
            checkpoint_ms=settings.checkpoint_ms if checkpoint_ms is None else checkpoint_ms,
            hot_states=settings.hot_customers,
            lease_s=None if is_embedded else SESSION_TIMEOUT_S * 0.8,
        )  # fmt: skip
        topic = self.faust.topic(stage.line.topic, schema=BatchSchema())
        self.faust.agent(topic, name=stage.line.changelog)(self._agent)
        self.faust.on_partitions_assigned.connect(self._assigned, weak=False)
        self.faust.on_partitions_revoked.connect(self._revoked, weak=False)
        self._owning: asyncio.Task[None] | None = None  # while state is restored
        self._watchdog: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.worker.start(lambda error: self._fatal("the worker failed", error))
        await self.faust.start()
        self._watchdog = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Checkpoint, commit, leave the group."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.gather(self._watchdog, return_exceptions=True)
        self.faust.consumer.stop_flow()
        await self._end_owning()
        await self.worker.stop()
        await self._commit()
        await self.faust.stop()

    async def _commit(self) -> None:
        """Commit what is marked. Where a commit is under way, Faust only waits for that one, which may know less."""
        if not await self.faust.consumer.commit():
            await self.faust.consumer.commit()

    # --- what the worker tells

    def mark(self, partition: int, offset: int) -> None:
        self.faust.consumer.mark(TP(self._line.topic, partition), offset)

    def pause(self, partition: int) -> None:
        self.faust.consumer.pause_partitions({FaustTP(self._line.topic, partition)})

    def resume(self, partition: int) -> None:
        self.faust.consumer.resume_partitions({FaustTP(self._line.topic, partition)})

    # --- what Faust tells

    async def _agent(self, stream: Any) -> None:
        # Nothing may raise out of here: Faust would take what raised for done.
        try:
            async for batch in stream:
                assert isinstance(batch, Batch)
                if self._owning is not None:
                    await asyncio.wait([self._owning])
                await self.worker.process(batch.partition, batch.records)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fatal(f"the stage of {self._line.topic} failed", error)

    async def _assigned(self, sender: Any, assigned: set[Any], **kwargs: Any) -> None:
        # Not waited for here: until this returns the group hears no heartbeat of ours, and a restore that takes longer
        # than a session would cost us the partitions, again and again.
        partitions = sorted(tp.partition for tp in assigned if tp.topic == self._line.topic)
        await self._end_owning()
        self._owning = asyncio.create_task(self._own(partitions, self.faust.consumer_generation_id))

    async def _own(self, partitions: list[int], generation: int) -> None:
        try:
            await self.worker.own(partitions, generation)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fatal("the state could not be restored", error)

    async def _end_owning(self) -> None:
        """Leave off restoring: the partitions go. What is on disk by now is a beginning for the next time."""
        if self._owning is not None:
            self._owning.cancel()
            await asyncio.wait([self._owning])
            self._owning = None

    async def _revoked(self, sender: Any, revoked: set[Any], **kwargs: Any) -> None:
        partitions = [tp.partition for tp in revoked if tp.topic == self._line.topic]
        if not partitions:
            return
        await self._end_owning()
        try:
            await self.worker.release(partitions)
            await self._commit()
        except Exception as error:
            self._fatal("the partitions could not be released", error)

    async def _watch(self) -> None:
        """Faust's services can crash, or fall silent, and the process lives on; then it must end and start anew."""
        seen: tuple[int, ...] = ()
        since = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self.faust.crashed:
                self._fatal("Faust crashed", self.faust.crash_reason)
            now = asyncio.get_running_loop().time()
            progress = self.worker.progress()
            if progress != seen or not self.worker.behind:
                seen, since = progress, now
            elif now - since > STUCK_S:
                self._fatal(f"{self.worker.behind} records wait, and nothing moved for {STUCK_S:.0f} s", None)
