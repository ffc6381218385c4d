"""The roles of Tidewire, any set of them in one process: collector, worker, sink, sender, dashboard.

`tidewire up` runs all five. Every process answers `/healthz`, `/readyz` and `/metrics` at its address.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import platform
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from config.settings import Settings
from schemas.errors import ConfigError, TidewireError, Unreachable, shown
from schemas.event import Event
from streams.access import RUN_FILE, RunFile
from streams.folder import owned
from streams.grounds import open_log
from streams.lag import STAGE_GROUP, has_caught_up, measure_groups
from streams.log import Log, LogBusy
from streams.metrics import ProcessMetrics
from streams.topics import check_topics, create_topics

if TYPE_CHECKING:
    from sinks.analytics import Analytics
    from streams.definitions import Coordinator, Progress

log = structlog.get_logger(__name__)

LAG_EVERY_S = 1.0
SENDER_CHECKPOINT_MS = 5  # a message leaves once its attempt is durable
STARTED_LOOK_S = 0.01

Ready = Callable[["Running"], Awaitable[None]]


class Running:
    """What runs in this process.

    Attributes:
        url: its address; port 0 of the settings is here the port it got.
        analytics: only where sink or dashboard run here.
        failure: what ended it, where it did not end as asked.
        check: asks the processors whether they can use an event, as `Fold.check`.
    """

    def __init__(self, settings: Settings, log_: Log, url: str) -> None:
        self.settings = settings
        self.log = log_
        self.url = url
        self.failure: BaseException | None = None
        self.check: Callable[[Event], None] | None = None
        self.coordinator: Coordinator | None = None
        self._analytics: Analytics | None = None
        self._stopping = asyncio.Event()

    @property
    def analytics(self) -> Analytics:
        if self._analytics is None:
            raise TidewireError("neither sink nor dashboard run in this process, so it has no ClickHouse")
        return self._analytics

    async def caught_up(self) -> bool:
        """Whether customer stage and sink, wherever they run, have nothing left to do."""
        return await has_caught_up(self.log)

    def stop(self) -> None:
        """Make `run` end: requests under way are answered, what is done is checkpointed."""
        self._stopping.set()

    def progress(self) -> Progress:
        """How far segments are that are being prepared."""
        from streams.definitions import Progress

        return self.coordinator.progress if self.coordinator is not None else Progress()

    def watch(self, task: asyncio.Task[None]) -> None:
        """Stop everything when this task ends with an error."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self.failure = self.failure or task.exception()
                self.stop()

        task.add_done_callback(ended)

    async def stopped(self) -> None:
        await self._stopping.wait()


_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of glibc's malloc.h
LARGE_BYTES = 256 * 1024  # a piece of so many gets pages of its own, which are given back with it
GIVE_BACK_EVERY_S = 30.0


def share_memory() -> None:
    """Let threads share two heaps, without what is large. glibc gives each thread its own, so that a process with many
    grows for hours. To be called before there are any."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_ARENA_MAX, 2)
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)  # without this it grows with the first large piece that is freed


def give_back_memory() -> None:
    """Give back the pages of the heaps that nobody uses. glibc does so at a heap's end alone, and keeps for ever what
    one large batch once took before something small that stayed."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


async def _keep_small() -> None:
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        await asyncio.to_thread(give_back_memory)


async def run(settings: Settings, roles: frozenset[str], *, ready: Ready | None = None) -> None:
    """Run the roles until SIGTERM, SIGINT or `Running.stop`. `ready` is called once everything answers.

    Raises:
        TidewireError: something cannot start, with what and the mend.
    """
    from web.collector.server import spare_the_collector

    share_memory()
    set_up_logging(settings.log_level)
    async with AsyncExitStack() as stack:
        if roles & {"worker", "sender"} and not settings.is_embedded:  # the embedded log says it of itself
            stack.enter_context(owned(settings.data))
        log_ = open_log(settings)
        listener = stack.enter_context(_listen(settings, roles))
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        await log_.start()
        stack.push_async_callback(log_.stop)
        if settings.is_embedded:
            await create_topics(log_, settings)
        await check_topics(log_, settings)
        running = Running(settings, log_, url)
        _stop_on_signals(running, stack)
        registry = CollectorRegistry()
        process = ProcessMetrics(registry, roles=roles, data=settings.data)
        token = secrets.token_urlsafe(24)
        if roles & {"worker", "sink", "sender", "dashboard"}:
            await _start_behind(running, roles, registry, stack)
        lag = _LagWatch(log_, process)
        stack.push_async_callback(lag.stop)
        await lag.start()
        app = _site(running, roles, registry, lag, token, stack)
        if "dashboard" in roles:
            _write_run_file(settings.data, RunFile(pid=os.getpid(), url=url, token=token), stack)
        await _serve(app, listener, stack, running)
        spare_the_collector()
        keeping_small = asyncio.create_task(_keep_small(), name="memory")
        stack.push_async_callback(_ended, keeping_small)
        if ready is not None:
            await ready(running)
        await running.stopped()
    if running.failure is not None:
        raise running.failure


async def _start_behind(
    running: Running, roles: frozenset[str], registry: CollectorRegistry, stack: AsyncExitStack
) -> None:
    """What needs no address: ClickHouse, the sink, the worker. They stop after the server, the worker first."""
    from config.coupons import read_campaigns
    from processors.fold import Fold
    from processors.registry import load_processors
    from sinks.coupons import TABLES as COUPON_TABLES
    from sinks.messages.tables import tables_kept

    settings, log_ = running.settings, running.log
    fold = Fold(load_processors(settings.config))
    running.check = fold.check
    if "worker" in roles:
        from streams.versions import refuse_newer_states

        await refuse_newer_states(log_, fold)
    of_messages = tables_kept(outbox_days=settings.outbox_days, inbox_days=settings.inbox_days)
    tables = (*fold.tables, *of_messages, *COUPON_TABLES)
    if roles & {"sink", "dashboard"}:
        from sinks.analytics import Analytics
        from sinks.migrate import migrate

        analytics = Analytics(settings.analytics_url, settings.analytics_password)
        await analytics.start()
        stack.push_async_callback(analytics.close)
        await migrate(analytics, tables)
        running._analytics = analytics
    if "sink" in roles:
        from sinks.clickhouse import ClickHouseSink

        sink = ClickHouseSink(log_, running.analytics, tables, settings, registry)
        running.watch(asyncio.create_task(sink.run(), name="sink"))
        stack.push_async_callback(sink.stop)
    campaigns = read_campaigns(settings.config, settings.timezone) if roles & {"worker", "dashboard"} else {}
    if "dashboard" in roles:
        from streams.campaigns import take_over

        await take_over(log_, running.analytics, campaigns, settings.workspace)
        await _start_segments(running, registry, stack)
    if "worker" in roles:
        from processors.values import zone_named
        from streams.app import StageApp
        from streams.giving import Giving
        from streams.metrics import StageMetrics
        from streams.stage import CustomerStage

        await start_coupons(settings, log_, registry, stack)
        stage = CustomerStage(fold, partitions=log_.partitions("events"), most_links=settings.most_links,
                              giving=Giving(campaigns.values(), settings.workspace,
                                            zone_named(settings.timezone)))  # fmt: skip
        customers = StageApp(log_, stage, settings, StageMetrics(registry, [each.name for each in fold.processors]))
        await customers.start()
        stack.push_async_callback(customers.stop)
    if "sender" in roles:
        await start_sender(settings, log_, registry, stack)


async def start_coupons(settings: Settings, log_: Log, registry: CollectorRegistry, stack: AsyncExitStack) -> None:
    """The stage of coupons."""
    from streams.app import StageApp
    from streams.coupons import OUTCOMES, CouponStage
    from streams.metrics import RECORD, StageMetrics, of_coupons

    metrics = StageMetrics(registry, of=of_coupons)
    metrics.rejected.labels("", RECORD)
    for outcome in OUTCOMES:  # an alarm sees no first one else
        metrics.records.labels(outcome)
    coupons = StageApp(log_, CouponStage(), settings, metrics)
    await coupons.start()
    stack.push_async_callback(coupons.stop)


async def start_sender(settings: Settings, log_: Log, registry: CollectorRegistry, stack: AsyncExitStack) -> None:
    """The stage of messages, and what hands them over to their channels."""
    from config.channels import read_channels
    from streams.app import StageApp, end_process
    from streams.channels import links_of, open_channels, templates_of
    from streams.dispatch import Dispatcher
    from streams.messages import MessageStage
    from streams.metrics import RECORD, DispatchMetrics, StageMetrics, of_messages
    from streams.suppressions import Suppressions
    from streams.templates import Templates

    suppressions = Suppressions(log_)
    await suppressions.catch_up()
    channels = open_channels(read_channels(settings.config), log_, settings)
    templates = templates_of(Templates(log_, settings))
    dispatcher = Dispatcher(log_, channels, templates, suppressions, DispatchMetrics(registry),
                            links=links_of(settings))
    stage = MessageStage(lambda: dispatcher.room)
    metrics = StageMetrics(registry, of=of_messages)
    metrics.rejected.labels("", RECORD)
    mailboxes = StageApp(log_, stage, settings, metrics, checkpoint_ms=SENDER_CHECKPOINT_MS,
                         then=dispatcher.then, owns=dispatcher.owns)  # fmt: skip
    dispatcher.start(lambda error: end_process("messages could not be handed over", error))
    stack.push_async_callback(dispatcher.stop)
    await mailboxes.start()
    stack.push_async_callback(mailboxes.stop)


async def _start_segments(running: Running, registry: CollectorRegistry, stack: AsyncExitStack) -> None:
    """What takes over new definitions and makes them live, asks people into journeys when it is time, and holds live
    members of segments against the events at rest."""
    from config.journeys import read_limits
    from config.segments import read_segments
    from streams.definitions import Coordinator, segment_names, take_over, take_over_limits
    from streams.journeys import Journeys
    from streams.leads import Leads
    from streams.metrics import SegmentMetrics
    from streams.proof import Checker, Prover
    from streams.schedules import Schedules
    from streams.templates import Templates

    settings, log_ = running.settings, running.log
    by, now_ms = str(settings.config), time.time_ns() // 1_000_000
    templates = Templates(log_, settings)
    journeys = Journeys(log_, settings, templates, lambda: segment_names(log_))
    await templates.apply_files(by=by, now_ms=now_ms)
    await take_over(log_, read_segments(settings.config), by=by, now_ms=now_ms)
    await take_over_limits(log_, read_limits(settings.config), by=by, now_ms=now_ms)
    await journeys.apply_files(by=by, now_ms=now_ms)
    leads = Leads(log_, running.analytics, journeys, templates, workspace=settings.workspace)
    coordinator = running.coordinator = Coordinator(
        log_, running.analytics, zone=settings.timezone, rfm_minutes=settings.rfm_minutes, leads=leads
    )
    schedules = Schedules(log_, coordinator, journeys, settings.timezone)
    prover = Prover(log_, running.analytics, workspace=settings.workspace, zone=settings.timezone)
    checker = Checker(prover, SegmentMetrics(registry))
    works = (("segments", coordinator.run()), ("schedules", schedules.run()), ("proofs", checker.run()))
    for name, work in works:
        task = asyncio.create_task(work, name=name)
        running.watch(task)
        stack.push_async_callback(_ended, task)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _site(
    running: Running, roles: frozenset[str], registry: CollectorRegistry, lag: Callable[[], int], token: str,
    stack: AsyncExitStack,
) -> Any:  # fmt: skip
    from starlette.applications import Starlette

    from web.collector.app import CollectorFirst, collector_routes
    from web.collector.ingest import Collector

    settings, log_ = running.settings, running.log
    routes = collector_routes(log_, settings, registry, lag)
    site: Any = Starlette(routes=routes)
    if "dashboard" in roles:
        from web.dashboard.app import dashboard

        pages = dashboard(log_, running.analytics, settings, token, check=running.check, progress=running.progress)
        pages.router.routes[:0] = routes
        site = pages
    if "collector" in roles:
        from config.write_keys import load_write_keys
        from web.inbox.app import inbox_app
        from web.links.app import links_app

        keys = load_write_keys(settings.config, settings.write_keys, settings.workspace)
        collector = Collector(log_, keys, settings, registry, lag=lag)
        inbox = inbox_app(log_, settings, registry, _analytics_of_inboxes(running, stack))
        site = CollectorFirst(collector, site, links_app(log_, settings, registry), inbox)
    return site


def _analytics_of_inboxes(running: Running, stack: AsyncExitStack) -> Analytics | None:
    """The ClickHouse of this process, else a server, which is asked once somebody opens her inbox."""
    from sinks.analytics import Analytics

    if running._analytics is not None:
        return running._analytics
    analytics = Analytics(running.settings.analytics_url, running.settings.analytics_password)
    if analytics.place.path is not None:  # chDB belongs to the process of the sink
        return None
    stack.push_async_callback(analytics.close)
    return analytics


# --- the server


def _listen(settings: Settings, roles: frozenset[str]) -> socket.socket:
    """A listening socket, taken before anything else starts: a port that is taken is said at once.

    Workers and sinks, of which several run on one machine, take a free port where the usual one is taken and none was
    asked for.
    """
    try:
        return _bound(settings.host, settings.port)
    except OSError as error:
        if not roles & {"collector", "dashboard"} and "port" not in settings.model_fields_set:
            return _bound(settings.host, 0)
        if isinstance(error, socket.gaierror):
            raise ConfigError("host", f"{shown(settings.host)} is no address: {error.strerror}.",
                              "Name one of this machine, such as 127.0.0.1 or 0.0.0.0.") from None  # fmt: skip
        what = f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}."
        raise Unreachable(f"{what} Name another with --port; 0 takes a free one.") from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(app: Any, listener: socket.socket, stack: AsyncExitStack, running: Running) -> None:
    from web.collector.server import guarded_server

    host, port = listener.getsockname()[:2]
    server = guarded_server(app, host, port, loop="none", lifespan="off")
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # handled here, for all roles
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    running.watch(serving)

    async def stop() -> None:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)

    stack.push_async_callback(stop)
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets a flag and no event
        await asyncio.sleep(STARTED_LOOK_S)


def _stop_on_signals(running: Running, stack: AsyncExitStack) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError, RuntimeError):  # not in the main thread, as in some tests
            loop.add_signal_handler(number, running.stop)
            stack.callback(loop.remove_signal_handler, number)


def _write_run_file(data: Path, run_file: RunFile, stack: AsyncExitStack) -> None:
    """Tell commands of the same user where this process answers; gone when it stops."""
    file = data / RUN_FILE
    whole = file.with_name(f"{file.name}.{run_file.pid}")
    try:
        data.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(msgspec.json.encode(run_file))
        whole.replace(file)
    except OSError as error:
        what = f"the data folder {data} cannot be written: {error.strerror}."
        raise TidewireError(f"{what} Name another with --data.") from None
    stack.callback(file.unlink, missing_ok=True)


# --- what all processes have


class _LagWatch:
    """How many records the customer stage is behind, as of the last second: cheap enough to ask with every request."""

    def __init__(self, log_: Log, metrics: ProcessMetrics) -> None:
        self._log = log_
        self._metrics = metrics
        self._behind = 0
        self._task: asyncio.Task[None] | None = None

    def __call__(self) -> int:
        return self._behind

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                for group, progress in (await measure_groups(self._log)).items():
                    self._metrics.behind.labels(group).set(progress.behind)
                    self._metrics.committed.labels(group).set(progress.committed)
                    if group == STAGE_GROUP:
                        self._behind = progress.behind
            except LogBusy as error:  # appends will say so too
                log.warning("lag_not_known", error=str(error))
            await asyncio.sleep(LAG_EVERY_S)


class _Told:
    """Where log lines go. Who read them may have gone; the work goes on without them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def set_up_logging(level: str) -> None:
    """Log lines are events with facts: for people on a terminal, as JSON elsewhere. On standard error."""
    least = getattr(logging, level.upper())
    is_terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Told(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of tries that are repeated
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # it warns where a busy machine keeps it waiting
    handler = logging.StreamHandler(_Told(sys.stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(least, logging.WARNING), handlers=[handler], force=True)
