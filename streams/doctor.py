"""`tidewire doctor`: look at everything that a start needs, and say of each how it is and how to mend it."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from config.settings import Settings
from schemas.errors import TidewireError
from streams.access import KEY_FILE, Api, RunFile, find_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streams.log import Log

State = Literal["ok", "warn", "fail"]

LEAST_FREE_BYTES = 512 * 1024**2  # below it ClickHouse's merges and the log's commits fail
FEW_FREE_BYTES = 5 * 1024**3
MOST_SKEW_S = 2.0  # between this machine's clock and ClickHouse's
LONG_LAG_S = 60.0
OLDEST_YEAR = 2025  # a clock before it was never set
PACKAGES = ("faust-streaming", "mode-streaming", "aiokafka", "msgspec", "clickhouse-connect", "chdb", "rocksdict",
            "starlette", "uvicorn")  # fmt: skip


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    state: State
    what: str
    mend: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which one would mend them. Nothing is made or changed."""
    findings = [*_python(), *_packages(), _clock(), _zones(), _write_keys(settings), *_folder(settings)]
    try:
        running = find_running(settings.data)
    except TidewireError as error:
        return [*findings, Finding("process", "fail", str(error))]
    findings.append(_process(running))
    if running is not None:
        return [*findings, *_of_running(running)]
    findings.append(_port(settings))
    findings += await _log(settings)
    findings += await _analytics(settings)
    return findings


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", version)  # an older one does not come so far
    yield Finding("java", "ok", "not needed: only the tests that start a Kafka of their own use it")


def _packages() -> Iterator[Finding]:
    """Versions, and whether they are those that Tidewire was made with."""
    wanted = _pinned()
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "is not installed", "Install Tidewire anew: pip install tidewire")
            continue
        if name in wanted and version != wanted[name]:
            yield Finding(
                name, "fail", f"{version}, but it must be {wanted[name]}", f"pip install {name}=={wanted[name]}"
            )
        else:
            yield Finding(name, "ok", version)


def _pinned() -> dict[str, str]:
    """The packages of which one version alone will do: parts of them are overridden."""
    try:
        requirements = metadata.requires("tidewire") or ()
    except metadata.PackageNotFoundError:
        return {}
    pairs = (requirement.partition("==") for requirement in requirements if ";" not in requirement)
    return {name.strip(): version.strip() for name, equal, version in pairs if equal}


def _clock() -> Finding:
    now = datetime.now(UTC)
    if now.year < OLDEST_YEAR:
        return Finding(
            "clock", "fail", f"it says {now:%Y-%m-%d}", "Set the clock, best by NTP: every event gets its time."
        )
    return Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _zones() -> Finding:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo("Asia/Shanghai")
    except (ZoneInfoNotFoundError, OSError):
        return Finding("time zones", "fail", "their data is missing", "pip install tzdata")
    return Finding("time zones", "ok", "known")


def _write_keys(settings: Settings) -> Finding:
    from config.write_keys import load_write_keys

    try:
        keys = load_write_keys(settings.config, settings.write_keys, settings.workspace)
    except TidewireError as error:
        return Finding("write keys", "fail", str(error))
    if (settings.data / KEY_FILE).exists():
        return Finding("write keys", "ok", f"{len(keys)} and the data folder's own, in {settings.data / KEY_FILE}")
    if not len(keys):
        return Finding("write keys", "warn", "there are none; `tidewire up` makes one for its data folder",
                       "Make one with `tidewire keys new NAME`, or set TIDEWIRE_WRITE_KEYS.")  # fmt: skip
    return Finding("write keys", "ok", f"{len(keys)} in {settings.config} and TIDEWIRE_WRITE_KEYS")


def _folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data.absolute()
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Finding(
            "data folder", "fail", f"{there} cannot be written: {error.strerror}", "Name another with --data."
        )
        return
    yield Finding("data folder", "ok", str(folder) if there == folder else f"{folder}, made at the first start")
    free = shutil.disk_usage(there).free
    what = f"{free / 1024**3:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        yield Finding("disk", "fail", what, "Make room: below 0.5 GB the log and ClickHouse stop.")
    elif free < FEW_FREE_BYTES:
        yield Finding("disk", "warn", what, "Make room, or name a folder on another disk with --data.")
    else:
        yield Finding("disk", "ok", what)


def _process(running: RunFile | None) -> Finding:
    if running is None:
        return Finding("process", "ok", "no Tidewire runs in the data folder")
    return Finding("process", "ok", f"process {running.pid} runs in the data folder, at {running.url}")


def _of_running(running: RunFile) -> Iterator[Finding]:
    """What the process that owns the folder says of its log and its ClickHouse."""
    api = Api(running.url, running.token)
    try:
        version = api.post(
            "/api/sql", {"query": "SELECT version() AS version, toUnixTimestamp64Milli(now64(3)) AS now"}
        )
        yield Finding("analytics", "ok", f"ClickHouse {version['rows'][0]['version']}")
        yield _skew(int(version["rows"][0]["now"]))
        status = api.get("/api/status")
    except TidewireError as error:
        yield Finding("analytics", "fail", str(error))
        return
    if status.get("trouble"):
        yield Finding("log", "fail", str(status["trouble"]))
    else:
        yield Finding("log", "ok", f"{status['events']:,} events are in ClickHouse")
        for name, side in (("processors", "stage_behind"), ("clickhouse", "clickhouse_behind")):
            yield _lag(f"lag of {name}", int(status[side]["records"]), float(status[side]["seconds"]))


def _lag(name: str, records: int, seconds: float) -> Finding:
    if records and seconds > LONG_LAG_S:
        return Finding(name, "warn", f"{records:,} records, the oldest for {seconds:,.0f} s",
                       "Start more workers or sinks, or look into their log for what holds them.")  # fmt: skip
    return Finding(name, "ok", f"{records:,} records")


def _skew(theirs_ms: int) -> Finding:
    skew = theirs_ms / 1000 - time.time()
    if abs(skew) > MOST_SKEW_S:
        return Finding("clocks", "warn", f"ClickHouse's clock is {skew:+.1f} s from this one", "Set both by NTP.")
    return Finding("clocks", "ok", "ClickHouse's clock agrees with this one")


def _port(settings: Settings) -> Finding:
    if settings.port == 0:
        return Finding("port", "ok", "a free one is taken")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding("port", "fail", f"{settings.host}:{settings.port} cannot be had: {error.strerror}",
                           "Name another with --port, or stop the program that holds it.")  # fmt: skip
    return Finding("port", "ok", f"{settings.host}:{settings.port} is free")


async def _log(settings: Settings) -> list[Finding]:
    if settings.is_embedded and not _embedded_file(settings).exists():
        return [Finding("log", "ok", f"{settings.log_url}, made at the first start")]
    try:
        async with _open_log(settings) as log:
            return [Finding("log", "ok", settings.log_url), *await _topics(log), *await _lags(log)]
    except TidewireError as error:
        return [Finding("log", "fail", str(error))]


def _embedded_file(settings: Settings) -> Path:
    return Path(settings.log_url.removeprefix("embedded:").removeprefix("//"))


@asynccontextmanager
async def _open_log(settings: Settings) -> AsyncIterator[Log]:
    from streams.grounds import open_log

    log = open_log(settings)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def _topics(log: Log) -> list[Finding]:
    from streams.topics import find_faults

    faults = find_faults(await log.topics())
    if not faults:
        return [Finding("topics", "ok", "all are there, as they should be")]
    return [Finding("topics", "fail", fault) for fault in faults.values()]


async def _lags(log: Log) -> list[Finding]:
    from streams.lag import measure_lag

    lag = await measure_lag(log)
    return [Finding("lag of processors", "ok", f"{lag.stage:,} records wait for the next start"),
            Finding("lag of clickhouse", "ok", f"{lag.sink:,} records wait for the next start")]  # fmt: skip


async def _analytics(settings: Settings) -> list[Finding]:
    url = settings.analytics_url
    if url.startswith("chdb:") and not Path(url.removeprefix("chdb:").removeprefix("//")).exists():  # noqa: ASYNC240
        return [Finding("analytics", "ok", f"{url}, made at the first start")]
    from sinks.analytics import Analytics

    try:
        analytics = Analytics(url, settings.analytics_password)
    except TidewireError as error:
        return [Finding("analytics", "fail", str(error))]
    try:
        rows = await analytics.query("SELECT version() AS version, toUnixTimestamp64Milli(now64(3)) AS now")
        return [Finding("analytics", "ok", f"{url}, ClickHouse {rows[0]['version']}"), _skew(int(rows[0]["now"]))]
    except TidewireError as error:
        return [Finding("analytics", "fail", str(error))]
    finally:
        await analytics.close()
