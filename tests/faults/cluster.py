"""What a fault is done to: Tidewire's roles as processes of their own, on either ground, with what they stand on.

On the Kafka ground that is a real Apache Kafka of one or three brokers, and ClickHouse's engine behind its HTTP
interface. On the embedded ground it is one `tidewire up`.

    cluster.role("worker", "worker-3")                         # one more; `cluster.workers` are those that run
    cluster.workers[0].kill()  .freeze()  .thaw()  .stop()     # see tests/faults/machine.py
    cluster.role("sink", settings={"TIDEWIRE_ANALYTICS": cluster.clickhouse.url_at(proxy.port)})
    cluster.role("worker", settings={"TIDEWIRE_LOG": cluster.kafka.url_by(0)})     # through the proxies before door 0
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from schemas.errors import TidewireError, Unreachable
from sinks.analytics import Analytics
from streams.access import Api, find_running
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.lag import Lag, measure_lag
from streams.log import TP, Log, Record
from tests.faults.machine import COMMAND, People, Process, free_port, people_of, tidewire
from tests.kafka_broker import Kafka
from tests.sinks.server import Bridge

PARTITIONS = 4
READ_AT_ONCE = 20_000
READ_WITHIN_S = 600.0
_UNLIMITED = dict.fromkeys(("max_result_rows", "max_result_bytes", "max_rows_to_read", "max_memory_usage"), 0)
OWNED_WITHIN_S = 60.0
STOPPED_WITHIN_S = STORED_WITHIN_S = 60.0
MOST_RESTARTS = 5

Result = TypeVar("Result")


class Cluster:
    """The processes of one run. `close` ends all of them.

    Attributes:
        folder: of all their data.
        kafka, clickhouse: what the roles stand on; None on the embedded ground.
        settings: of every role, as variables of the environment.
        roles: every process started here, the dead among them.
        program: what runs as a role where nothing else is named.
    """

    def __init__(
        self, folder: Path, kafka: Kafka | None, settings: Mapping[str, str], program: Sequence[str] = COMMAND
    ) -> None:  # fmt: skip
        self.folder = folder
        self.program = program
        self.kafka = kafka
        self.clickhouse: Bridge | None = None
        self.settings = {"TIDEWIRE_PARTITIONS": str(PARTITIONS), **settings}
        self.partitions = int(self.settings["TIDEWIRE_PARTITIONS"])
        self.roles: list[Process] = []
        self._loop = _Loop()
        self._log: KafkaLog | None = None
        self._stack = ExitStack()
        self._stack.callback(self._loop.close)
        try:
            if kafka is not None:
                self._stand_on(kafka)
        except BaseException:
            self.close()
            raise

    def _stand_on(self, kafka: Kafka) -> None:
        self._stack.enter_context(kafka)
        bridge = self.clickhouse = Bridge(self.folder / "clickhouse")
        bridge.start()
        self._stack.callback(bridge.kill)
        self.settings = {"TIDEWIRE_LOG": kafka.url, "TIDEWIRE_ANALYTICS": bridge.url,
                         "TIDEWIRE_REPLICATION": str(min(3, len(kafka.brokers))), **self.settings}  # fmt: skip
        tidewire("topics", "create", settings=self.settings)
        self._log = KafkaLog(kafka.url)
        self._loop.run(self._log.start())
        self._stack.callback(lambda: self._loop.run(self._stop_log()))

    async def _stop_log(self) -> None:
        assert self._log is not None
        with suppress(Exception):  # its brokers may be dead
            await self._log.stop()

    def close(self) -> None:
        """End every process that was started here, whatever it is doing."""
        for process in self.roles:
            if process.is_running:
                process.kill()
        self._stack.close()

    # --- roles

    @property
    def is_embedded(self) -> bool:
        return self.kafka is None

    def role(
        self, role: str, name: str = "", *, settings: Mapping[str, str] | None = None,
        program: Sequence[str] = (), is_awaited: bool = True,
    ) -> Process:  # fmt: skip
        """Start a process of a role (`collector`, `worker`, `sink`, `dashboard`, or `up` for all), with a data folder
        and a port of its own. `settings` go over those of the cluster. Returns when it answers, if it is awaited."""
        name = name or f"{role}-{sum(process.role == role for process in self.roles) + 1}"
        settings = {**self.settings, **(settings or {})}
        process = Process(role, data=self.folder / name, port=free_port(), settings=settings,
                          program=program or self.program)  # fmt: skip
        self.roles.append(process)
        process.start()
        if is_awaited:
            process.ready()
        return process

    def _running(self, *roles: str) -> list[Process]:
        return [process for process in self.roles if process.role in roles and process.is_running]

    @property
    def collectors(self) -> list[Process]:
        """What takes events now."""
        return self._running("collector", "up")

    @property
    def workers(self) -> list[Process]:
        return self._running("worker", "up")

    @property
    def sinks(self) -> list[Process]:
        return self._running("sink", "up")

    @property
    def up(self) -> Process:
        """The one process of the embedded ground."""
        return next(process for process in self.roles if process.role == "up")

    @property
    def urls(self) -> list[str]:
        """Where events can be sent, to collectors that are dead at the moment too: they come back there."""
        return [process.url for process in self.roles if process.role in ("collector", "up")]

    def wait_until_owned(self) -> None:
        """Return when the running workers own every partition between them."""
        wait_for(lambda: sum(_owned_by(worker) for worker in self.workers) == self.partitions,
                 OWNED_WITHIN_S, "the workers do not own every partition", self.told)  # fmt: skip

    def told(self) -> str:
        """The last words of every process."""
        return "\n".join(f"--- {process.data.name}\n{process.told()[-1_500:]}" for process in self.roles)

    # --- what is in it

    def behind(self) -> Lag:
        """What customer stage and sink have not done yet.

        Raises:
            Unreachable: it cannot be known just now.
        """
        if self._log is not None:
            return self._loop.run(measure_lag(self._log))
        running = find_running(self.up.data)
        if running is None:
            raise Unreachable("`tidewire up` is not running")
        try:
            status = Api(running.url, running.token).get("/api/status")
        except TidewireError as error:
            raise Unreachable(str(error)) from error
        if status["trouble"]:
            raise Unreachable(status["trouble"])
        return Lag(int(status["stage_behind"]["records"]), int(status["clickhouse_behind"]["records"]))

    def ask_log(self, ask: Callable[[Log], Awaitable[Result]]) -> Result:
        """Ask the log itself, past every proxy; on the embedded ground only while `up` does not run."""
        return self._loop.run(self._ask_log(ask))

    async def _ask_log(self, ask: Callable[[Log], Awaitable[Result]]) -> Result:
        if self._log is not None:
            return await ask(self._log)
        log = EmbeddedLog(self.up.data / "log.db", fsync=False)
        await log.start()
        try:
            return await ask(log)
        finally:
            await log.stop()

    def read(self, topic: str) -> list[Record]:
        """Everything that stands in a topic, partition by partition."""
        return self.ask_log(lambda log: _read_all(log, topic))

    def query(self, *statements: str) -> list[list[dict[str, Any]]]:
        """The rows of each statement, read from ClickHouse past every proxy; embedded only while `up` does not run."""
        with self.asking() as ask:
            return [ask(statement) for statement in statements]

    @contextmanager
    def asking(self) -> Iterator[Callable[..., list[dict[str, Any]]]]:
        """Ask one statement after the other, as `query` does; each with its parameters, if it has any."""
        if self.clickhouse is not None:
            url = self.clickhouse.url
            yield lambda statement, parameters=None: self._loop.run(_query(url, statement, parameters))
            return
        bridge = Bridge(self.up.data / "clickhouse", database="default")
        bridge.start()
        try:
            yield lambda statement, parameters=None: self._loop.run(_query(bridge.url, statement, parameters))
        finally:
            bridge.kill()

    # --- the end of a run

    def stop_workers(self) -> list[str]:
        """Stop what owns state, all at once, so that none takes over from another. Returns what went wrong."""
        stopping = self.workers
        for worker in stopping:
            worker.ask_to_stop()
        wrong = []
        for worker in stopping:
            code = worker.wait(STOPPED_WITHIN_S)
            if code != 0:
                wrong.append(f"{worker.data.name} stopped with {code}: {worker.told()[-500:]}")
        return wrong

    def store_the_rest(self) -> None:
        """What the workers left in the log on their way out goes to ClickHouse: they may have stopped in the middle of
        judging everybody, and then the one topic is stored and the other not."""
        for _ in range(MOST_RESTARTS):
            if not self.is_embedded:
                wait_for(lambda: self.behind().sink == 0, STORED_WITHIN_S, "the sink does not catch up", self.told)
                return
            if self.ask_log(measure_lag).is_none:
                return
            self.up.start()
            self.up.ready()
            wait_for(lambda: self.behind().is_none, STORED_WITHIN_S, "it does not catch up", self.told)
            self.up.stop()
        raise TimeoutError(f"something is left in the log whenever it stops: {self.ask_log(measure_lag)}")

    def live_people(self) -> People:
        """Everybody, as the workers left them in their stores; they have stopped."""
        return people_of(*(process.data for process in self.roles if process.role in ("worker", "up")))

    def rebuilt_people(self) -> People:
        """Everybody, as a worker that starts with nothing reads them from the changelog; the others have stopped."""
        if self.is_embedded:
            shutil.rmtree(self.up.data / "customers", ignore_errors=True)
            self.up.start()
            self.up.ready()
            fresh = self.up
        else:
            fresh = self.role("worker", f"fresh-{len(self.roles)}")
        self.wait_until_owned()
        code = fresh.stop()
        assert code == 0, f"a fresh worker stopped with {code}: {fresh.told()}"
        return people_of(fresh.data)


def wait_for(is_so: Callable[[], bool], within_s: float, otherwise: str, told: Callable[[], str] = str) -> float:
    """Wait for a condition; one that cannot be asked just now (OSError, TidewireError) is asked again. Returns how
    many seconds it took.

    Raises:
        TimeoutError: with `otherwise` and what `told` says.
    """
    began = time.monotonic()
    while True:
        with suppress(OSError, TidewireError):
            if is_so():
                return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"{otherwise}, after {within_s:.0f} s\n{told()}".rstrip())
        time.sleep(0.05)


def _owned_by(worker: Process) -> int:
    return int(worker.metric("tidewire_stage_owned_partitions"))


async def _read_all(log: Log, topic: str) -> list[Record]:
    records: list[Record] = []
    for partition, (first, end) in (await log.bounds(topic)).items():
        at = first
        while at < end:
            found = await log.read(TP(topic, partition), at, READ_AT_ONCE)
            if not found:
                break
            records += found
            at = found[-1].offset + 1
    return records


async def _query(url: str, statement: str, parameters: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    analytics = Analytics(url)
    with patch.dict("sinks.analytics._READ_SETTINGS", _UNLIMITED):  # the oracle reads all there is
        await analytics.start()
        try:
            return await analytics.query(statement, parameters, longest_s=READ_WITHIN_S)
        finally:
            await analytics.close()


class _Loop:
    """An event loop in a thread, for the clients of the harness itself: they live as long as the cluster."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="harness", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
