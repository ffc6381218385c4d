"""Row 32: every mistake in the configuration refuses to start, in one line that names the value and the mend.

Each mistake is made for real, and a process is started on it: the command a person would have typed, with a config
folder, variables, topics and a broker as they would have been. What must come is an exit code that is not 0, nothing on
standard output, and one line on standard error that says what the table says.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from structlog.testing import capture_logs

from config.write_keys import hash_of
from schemas.customer import Customer, Part
from schemas.keyed import encode_state
from schemas.times import DAY_MS
from sinks.analytics import Analytics
from sinks.migrate import migrate
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from streams.log import Log, Outgoing
from tests.faults.machine import COMMAND, Process, free_port, tidewire
from tests.faults.rows import Outcome, Scene, row
from tests.kafka_broker import Kafka
from tests.sinks.server import Bridge

REFUSES_WITHIN_S = 30.0  # nobody answers at an address: that is found out after 10 s
GIVE_UP_S = 60.0
AT_ONCE = 2
NOBODY = "127.0.0.1:1"
PARTITIONS = 4  # of the topics that a mistake finds

Before = Callable[[Path], AbstractContextManager[object]]


class Mistake(NamedTuple):
    """One mistake.

    Attributes:
        what: the mistake, in words.
        says: regular expression for the line.
        command: of `tidewire`.
        settings: variables of the environment. `{folder}` is the mistake's folder, with `data` and `config`.
        files: of the config folder, by name.
        before: what is there, or runs, while the process is started.
    """

    what: str
    says: str
    command: Sequence[str] = ("up",)
    settings: Mapping[str, str] = {}
    files: Mapping[str, str] = {}
    before: Before = lambda folder: nullcontext()


# --- the row


@row("32", "mistakes in the configuration", limit_s=REFUSES_WITHIN_S, ground="none", short=True)
def mistakes_of_one_machine(scene: Scene) -> Outcome:
    """Settings, config files, addresses, folders, ports, and topics of the embedded log."""
    return _outcome(scene.folder, MISTAKES)


@row("32", "mistakes with Kafka and ClickHouse", limit_s=REFUSES_WITHIN_S, long_only=True)
def mistakes_with_kafka(scene: Scene) -> Outcome:
    """Topics that are missing or would lose what they hold, more copies than brokers, a folder that is another's."""
    with Kafka(data=scene.folder / "kafka") as kafka:
        clickhouse = Bridge(scene.folder / "clickhouse")
        clickhouse.start()
        try:
            settings = {"TIDEWIRE_LOG": kafka.url, "TIDEWIRE_ANALYTICS": clickhouse.url}
            mistakes = chain(_mistakes_with(kafka), _mistakes_with_clickhouse(clickhouse))
            return _outcome(scene.folder, mistakes, settings, at_once=1)
        finally:
            clickhouse.kill()


def _outcome(
    folder: Path, mistakes: Iterable[Mistake], settings: Mapping[str, str] | None = None, at_once: int = AT_ONCE
) -> Outcome:
    """Make every mistake. Recovery is the longest time until one was refused."""

    def make(numbered: tuple[int, Mistake]) -> tuple[float, str]:
        number, mistake = numbered
        return refusal_of(mistake, folder / f"mistake-{number}", settings or {})

    if at_once == 1:  # the next is prepared when the one before is done
        found = [make(each) for each in enumerate(mistakes)]
    else:
        with ThreadPoolExecutor(at_once) as threads:
            found = list(threads.map(make, enumerate(mistakes)))
    return Outcome(0, 0, max(seconds for seconds, _ in found), "; ".join(wrong for _, wrong in found if wrong))


def refusal_of(mistake: Mistake, folder: Path, settings: Mapping[str, str]) -> tuple[float, str]:
    """Start a process on a mistake. Returns how long it took to end, and what is wrong with how it did."""
    config = folder / "config"
    for name, text in mistake.files.items():
        (config / name).parent.mkdir(parents=True, exist_ok=True)
        (config / name).write_text(text)
    config.mkdir(parents=True, exist_ok=True)
    own = {name: text.replace("{folder}", str(folder)) for name, text in mistake.settings.items()}
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TIDEWIRE_")}
    usual = {"TIDEWIRE_DATA": str(folder / "data"), "TIDEWIRE_CONFIG": str(config), "TIDEWIRE_PORT": "0",
             "TIDEWIRE_LOG_LEVEL": "warning"}  # fmt: skip
    with mistake.before(folder):
        began = time.monotonic()
        try:
            done = subprocess.run([*COMMAND, *mistake.command], env={**clean, **usual, **settings, **own},
                                  capture_output=True, text=True, timeout=GIVE_UP_S, check=False)  # fmt: skip
        except subprocess.TimeoutExpired as running:
            said = (running.stderr or b"").decode(errors="replace")[-300:]
            return GIVE_UP_S, f"{mistake.what}: it goes on, and said {said!r}"
        seconds = time.monotonic() - began
    return seconds, _wrong_with(mistake, done)


def _wrong_with(mistake: Mistake, done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if not re.match(r"\w+ is up: http", line)]
    if done.returncode not in (1, 2, 3):
        return f"{mistake.what}: exit code {done.returncode}, and {done.stderr[-300:]!r}"
    if done.stdout or len(lines) != 1 or not lines[0].startswith("tidewire: ") or "fault in Tidewire" in lines[0]:
        return f"{mistake.what}: not one line of ours: {done.stdout[-300:]!r} {done.stderr[-600:]!r}"
    if not re.search(mistake.says, lines[0]):
        return f"{mistake.what}: {lines[0]!r} does not say {mistake.says!r}"
    return ""


# --- what is there before


@contextmanager
def _a_file(folder: Path, name: str, content: bytes) -> Iterator[None]:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    yield


@contextmanager
def _running(folder: Path, role: str, settings: Mapping[str, str], data: Path | None = None) -> Iterator[None]:
    """A process that runs in the data folder already."""
    process = Process(role, data=data or folder / "data", port=free_port(), settings=settings)
    process.start()
    try:
        process.ready()
        yield
    finally:
        process.kill()


TAKEN_PORT = free_port()


@contextmanager
def _port_taken() -> Iterator[None]:
    with closing(socket.socket()) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", TAKEN_PORT))
        holder.listen()
        yield


@contextmanager
def _embedded(folder: Path, **topics: tuple[int, int | None]) -> Iterator[None]:
    """An embedded log that has these topics: partitions, and how long they are kept."""
    (folder / "data").mkdir()
    asyncio.run(_make_topics(EmbeddedLog(folder / "data" / "log.db", fsync=False), topics))
    yield


@contextmanager
def _newer_state(folder: Path) -> Iterator[None]:
    """A person's state as a program wrote it that is newer than this one."""
    sections = {"orders:99": msgspec.Raw(msgspec.msgpack.encode([]))}
    state = encode_state(Customer(parts={"default/u:ann": Part(sections=sections)}))

    async def write() -> None:
        await _create(log, {"customers": (PARTITIONS, None)})
        await log.append("customers", [Outgoing(b"default/u:ann", state)])

    (folder / "data").mkdir()
    log = EmbeddedLog(folder / "data" / "log.db", fsync=False)
    asyncio.run(_with_log(log, write))
    yield


async def _make_topics(log: Log, topics: Mapping[str, tuple[int, int | None]]) -> None:
    await _with_log(log, lambda: _create(log, topics))


async def _create(log: Log, topics: Mapping[str, tuple[int, int | None]]) -> None:
    for name, (partitions, retention_ms) in topics.items():
        await log.create_topic(name, partitions, retention_ms, 1)


async def _with_log(log: Log, work: Callable[[], Awaitable[None]]) -> None:
    await log.start()
    try:
        await work()
    finally:
        await log.stop()


# --- mistakes of one machine


def _file(name: str, content: bytes) -> Before:
    return lambda folder: _a_file(folder, name, content)


def _key(name: str, plain: str, more: str = "") -> str:
    return f"  - name: {name}\n    sha256: {hash_of(plain)}\n    kind: server\n{more}"


_KAFKA = "kafka://127.0.0.1:9092"

MISTAKES = (
    # settings: variables
    Mistake("a variable misspelt", r'TIDEWIRE_PROT: is no setting\. Did you mean "port"\?',
            settings={"TIDEWIRE_PROT": "80"}),
    Mistake("a variable of another program", r"TIDEWIRE_KAFKA_URL: is no setting\..*Settings are: data,",
            settings={"TIDEWIRE_KAFKA_URL": _KAFKA}),
    Mistake("text for a number", r"TIDEWIRE_PORT: .*integer.*got http", settings={"TIDEWIRE_PORT": "http"}),
    Mistake("a number out of range", r"TIDEWIRE_PORT: .*65535; got 99999", settings={"TIDEWIRE_PORT": "99999"}),
    Mistake("no partitions", r"TIDEWIRE_PARTITIONS: .*greater than or equal to 1; got 0",
            settings={"TIDEWIRE_PARTITIONS": "0"}),
    Mistake("a checkpoint never", r"TIDEWIRE_CHECKPOINT_MS: .*got 0", settings={"TIDEWIRE_CHECKPOINT_MS": "0"}),
    Mistake("neither yes nor no", r"TIDEWIRE_FSYNC: .*boolean.*got perhaps", settings={"TIDEWIRE_FSYNC": "perhaps"}),
    Mistake("a log level there is not", r"TIDEWIRE_LOG_LEVEL: .*got loud", settings={"TIDEWIRE_LOG_LEVEL": "loud"}),
    Mistake("a workspace that is no name", r"TIDEWIRE_WORKSPACE: use lower case.*got My Shop",
            settings={"TIDEWIRE_WORKSPACE": "My Shop"}),
    Mistake("a value and a file of it", r"TIDEWIRE_LOG_PASSWORD_FILE: TIDEWIRE_LOG_PASSWORD is set, too",
            settings={"TIDEWIRE_LOG_PASSWORD": "x", "TIDEWIRE_LOG_PASSWORD_FILE": "/nowhere"}),
    Mistake("a secret that is not there", r"TIDEWIRE_LOG_PASSWORD_FILE: cannot read /nowhere: No such file",
            settings={"TIDEWIRE_LOG_PASSWORD_FILE": "/nowhere"}),
    Mistake("a secret that is no text", r"TIDEWIRE_LOG_PASSWORD_FILE: .*secret is not UTF-8",
            settings={"TIDEWIRE_LOG_PASSWORD_FILE": "{folder}/secret"}, before=_file("secret", b"\xff\xfe")),
    Mistake("an option out of range", r"--port: .*got 70000", command=("up", "--port", "70000")),
    # settings: tidewire.yaml
    Mistake("an unknown setting", r'tidewire\.yaml, line 2, "prot": is no setting\. Did you mean "port"\?',
            files={"tidewire.yaml": "host: 127.0.0.1\nprot: 1\n"}),
    Mistake("a setting of another type", r'tidewire\.yaml, line 1, "most_lag": .*integer.*got a lot',
            files={"tidewire.yaml": "most_lag: a lot\n"}),
    Mistake("a setting twice", r'tidewire\.yaml, line 3, "sink_batch": is set twice',
            files={"tidewire.yaml": "sink_batch: 1\nfsync: true\nsink_batch: 2\n"}),
    Mistake("no YAML", r"tidewire\.yaml, line 2, column 1: this is not YAML",
            files={"tidewire.yaml": "fsync: [\n"}),
    Mistake("a list of settings", r"tidewire\.yaml, line 1: must hold settings as `name: value`",
            files={"tidewire.yaml": "- fsync\n"}),
    Mistake("a password as a number", r'tidewire\.yaml, line 1, "analytics_password": .*string; got what is not shown',
            files={"tidewire.yaml": "analytics_password: 12345\n"}),
    Mistake("a config folder that is not there", r"TIDEWIRE_CONFIG: /nowhere is no folder",
            settings={"TIDEWIRE_CONFIG": "/nowhere"}),
    Mistake("a config file misnamed", r'tidewire\.yml: is not read\. Did you mean "tidewire\.yaml"\?',
            files={"tidewire.yml": "fsync: true\n"}),
    # write keys
    Mistake("an unknown field of a write key", r"write_keys\.yaml, line 5: .*colour.*Fields are: name,",
            files={"write_keys.yaml": "keys:\n" + _key("web", "web-key", "    colour: red\n")}),
    Mistake("a kind of write key there is not", r"write_keys\.yaml, line 4: .*kind.*got private",
            files={"write_keys.yaml": "keys:\n" + _key("web", "web-key").replace("server", "private")}),
    Mistake("a write key twice in the file", r"write_keys\.yaml, line 1: .*stands twice",
            files={"write_keys.yaml": "keys:\n" + _key("web", "web-key") + _key("app", "web-key")}),
    Mistake("a write key twice in the setting", r"TIDEWIRE_WRITE_KEYS: the key with SHA-256 .* stands twice\. Take",
            settings={"TIDEWIRE_WRITE_KEYS": "trial-key,trial-key"}),
    Mistake("a write key in the setting and in the file", r"TIDEWIRE_WRITE_KEYS: .*stands twice here and in .*yaml",
            settings={"TIDEWIRE_WRITE_KEYS": "trial-key"},
            files={"write_keys.yaml": "keys:\n" + _key("web", "trial-key")}),
    Mistake("a write key too short",
            r"TIDEWIRE_WRITE_KEYS: a write key has 4 to 200", settings={"TIDEWIRE_WRITE_KEYS": "abc"}),
    # processors
    Mistake("settings of a processor there is not",
            r'ordres\.yaml: there is no processor named "ordres"\. Did you mean "orders"',
            files={"processors/ordres.yaml": "x: 1\n"}),
    Mistake("states of a newer processor", r"holds states of processor orders in version 99, this program knows",
            before=_newer_state),
    Mistake("an unknown setting of a processor", r'visits\.yaml:1: "gap": .*Settings are: ',
            files={"processors/visits.yaml": "gap: 1\n"}),
    # addresses
    Mistake("a log of another kind", r"log: redis://x names no log\. Write embedded:PATH or kafka://",
            settings={"TIDEWIRE_LOG": "redis://x"}),
    Mistake("an embedded log without a file", r"TIDEWIRE_LOG: names no file; write embedded:PATH",
            settings={"TIDEWIRE_LOG": "embedded:"}),
    Mistake("a broker without a port", r"log: host:kafka is not an address of a broker\. Write kafka://HOST:PORT",
            settings={"TIDEWIRE_LOG": "kafka://host:kafka"}),
    Mistake("an unknown option of Kafka", r"log: Kafka option secure is not known\. Options are: security",
            settings={"TIDEWIRE_LOG": f"{_KAFKA}?secure=1"}),
    Mistake("a password in the address of Kafka", r"log: the URL holds a password\. Take it out",
            settings={"TIDEWIRE_LOG": "kafka://me:secret@127.0.0.1:9092"}),
    Mistake("a user of Kafka without a password", r"log: no password for user me\. Set TIDEWIRE_LOG_PASSWORD",
            settings={"TIDEWIRE_LOG": "kafka://me@127.0.0.1:9092"}),
    Mistake("a password in plain text over the net", r"sasl_plaintext would send the password to kafka\.example:9092",
            settings={"TIDEWIRE_LOG": "kafka://me@kafka.example:9092?security=sasl_plaintext",
                      "TIDEWIRE_LOG_PASSWORD": "secret"}),
    Mistake("certificates that are not there", r"log: the certificates cannot be read: .*No such file",
            settings={"TIDEWIRE_LOG": f"{_KAFKA}?security=ssl&ca=/nowhere"}),
    Mistake("a broker that does not answer", rf"no Kafka broker answered at {NOBODY}.*Start it, or set another",
            ("collector",), {"TIDEWIRE_LOG": f"kafka://{NOBODY}"}),
    Mistake("the same, for a worker",
            rf"no Kafka broker answered at {NOBODY}", ("worker",), {"TIDEWIRE_LOG": f"kafka://{NOBODY}"}),
    Mistake("the same, when topics are made", rf"no Kafka broker answered at {NOBODY}", ("topics", "create"),
            {"TIDEWIRE_LOG": f"kafka://{NOBODY}"}),
    Mistake("a ClickHouse of another kind", r"analytics: 'postgres://x' is no address of ClickHouse\. It is written",
            settings={"TIDEWIRE_ANALYTICS": "postgres://x"}),
    Mistake("a password in the address of ClickHouse",
            r"analytics: the address holds a password\..*`analytics_password`",
            settings={"TIDEWIRE_ANALYTICS": "clickhouse://me:secret@127.0.0.1/db"}),
    Mistake("a ClickHouse that does not answer", rf"clickhouse://me@{NOBODY}/db does not answer: Connection refused",
            settings={"TIDEWIRE_ANALYTICS": f"clickhouse://me@{NOBODY}/db"}),
    # folders, ports, processes
    Mistake("a file for a data folder",
            r"data cannot be written: .*Name another with --data", before=_file("data", b"")),
    Mistake("a data folder that cannot be made", r"/proc/tidewire cannot be written: .*Name another with --data",
            settings={"TIDEWIRE_DATA": "/proc/tidewire"}),
    Mistake("a worker's data folder that cannot be made",
            r"/proc/tidewire cannot be written: .*Name another with --data",
            ("worker",), {"TIDEWIRE_DATA": "/proc/tidewire", "TIDEWIRE_LOG": f"kafka://{NOBODY}"}),
    Mistake("a log that is none",
            r"log\.db cannot be opened as a log: .*Move it away", before=_file("data/log.db", b"x" * 9_999)),
    Mistake("a folder in which another process runs", r"log\.db is open in process \d+\. Ask that process, stop it",
            before=lambda folder: _running(folder, "up", {})),
    Mistake("a port that is taken",
            rf"cannot listen on 127\.0\.0\.1 port {TAKEN_PORT}: Address already in use\. Name another",
            settings={"TIDEWIRE_PORT": str(TAKEN_PORT)}, before=lambda folder: _port_taken()),
    Mistake("a host that is none", r"host: nowhere\.invalid is no address: .*Name one of this machine",
            settings={"TIDEWIRE_HOST": "nowhere.invalid"}),
    # topics of the embedded log
    Mistake("customers with other partitions", r"'customers' has 2 partitions, but 'events' has 4 and both must",
            before=lambda folder: _embedded(folder, events=(4, 365 * DAY_MS), customers=(2, None))),
    Mistake("customers that are forgotten", r"'customers' is not compacted, so it would forget people\. Set cleanup",
            before=lambda folder: _embedded(folder, customers=(4, DAY_MS))),
    Mistake("events kept too short", r"'events' keeps records for 7 days, less than 365 days\. Set retention\.ms",
            before=lambda folder: _embedded(folder, events=(4, 7 * DAY_MS))),
    Mistake("other partitions than there are", r"partitions: it is 8, but topic 'events' has 4.*Set it to 4",
            settings={"TIDEWIRE_PARTITIONS": "8"}, before=lambda folder: _embedded(folder, events=(4, 365 * DAY_MS))),
)  # fmt: skip


# --- mistakes with Kafka and ClickHouse


def _mistakes_with(kafka: Kafka) -> Iterator[Mistake]:
    """Each is asked for when the one before is done: what it needs is made in between."""
    settings = {"TIDEWIRE_LOG": kafka.url, "TIDEWIRE_PARTITIONS": str(PARTITIONS)}
    for role in ("collector", "worker"):
        yield Mistake(f"no topics for a {role}", r"'events' does not exist\. Make it with `tidewire topics", (role,))
    yield Mistake("more copies than brokers", r"too few brokers for 3 copies of topic 'events'\. Set `repl",
                  ("topics", "create"), {"TIDEWIRE_REPLICATION": "3"})  # fmt: skip

    asyncio.run(_make_topics(KafkaLog(kafka.url), {"events": (PARTITIONS, 365 * DAY_MS), "customers": (2, None)}))
    for command in (("topics", "create"), ("worker",)):
        yield Mistake(f"customers with other partitions: {' '.join(command)}",
                      r"'customers' has 2 partitions, but 'events' has 4 and both must have", command)  # fmt: skip
    with _admin(kafka) as admin:
        admin.delete_topics(["customers"])
    _wait_until_made(settings)
    yield Mistake("other partitions than there are", r"partitions: it is 8, but topic 'events' has 4.*Set it to 4",
                  ("worker",), {"TIDEWIRE_PARTITIONS": "8"})  # fmt: skip

    for topic, wrong, right, says in TOPIC_MISTAKES:
        _alter(kafka, topic, wrong)
        yield Mistake(f"{topic} with {wrong}", says, ("worker",))
        _alter(kafka, topic, right)

    yield Mistake("a folder that is another worker's", r"is that of process \d+ already\. Give each worker",
                  ("worker",), before=lambda folder: _running(folder, "worker", settings))  # fmt: skip

    with _running_once(kafka, settings) as data:
        with _admin(kafka) as admin:
            admin.delete_topics(["events"])
        _wait_until_made(settings)
        yield Mistake("events made anew", r"`events` was deleted and made anew.*Delete topic `customers` too",
                      ("worker",), {"TIDEWIRE_DATA": str(data)})  # fmt: skip


TOPIC_MISTAKES: tuple[tuple[str, dict[str, str], dict[str, str], str], ...] = (
    ("customers", {"cleanup.policy": "delete"}, {"cleanup.policy": "compact"},
     r"'customers' is not compacted, so it would forget people\. Set cleanup\.policy=compact"),
    ("customers", {"cleanup.policy": "compact,delete"}, {"cleanup.policy": "compact"},
     r"'customers' is compacted, but drops old records too.*Set cleanup\.policy=compact alone"),
    ("events", {"retention.ms": str(7 * DAY_MS)}, {"retention.ms": str(365 * DAY_MS)},
     r"'events' keeps records for 7 days, less than 365 days\. Set retention\.ms=31536000000"),
    ("events", {"retention.bytes": "1000000"}, {"retention.bytes": "-1"},
     r"'events' drops its oldest records beyond 1000000 bytes.*Set retention\.bytes=-1"),
    ("events", {"cleanup.policy": "compact"}, {"cleanup.policy": "delete"},
     r"'events' is compacted, so it would keep only the newest record of a person"),
    ("customers", {"min.insync.replicas": "2"}, {"min.insync.replicas": "1"},
     r"'customers' wants 2 copies in sync and has 1, so nothing can be written"),
    ("customers", {"unclean.leader.election.enable": "true"}, {"unclean.leader.election.enable": "false"},
     r"'customers' lets a broker lead that lags"),
    ("rejected", {"max.message.bytes": "1048588"}, {"max.message.bytes": "18000000"},
     r"'rejected' takes 1048588 bytes at once.*Set max\.message\.bytes="),
)  # fmt: skip


def _mistakes_with_clickhouse(clickhouse: Bridge) -> Iterator[Mistake]:
    clickhouse.make_trouble(fail=20, fail_code=516, fail_start="")
    yield Mistake("a wrong password of ClickHouse", r"made by the bridge", ("sink",))
    clickhouse.make_trouble(fail=0)
    for what, spoil, says, mend in CLICKHOUSE_MISTAKES:
        asyncio.run(_by_hand(clickhouse, spoil, migrates=True))
        yield Mistake(what, says, ("sink",))
        asyncio.run(_by_hand(clickhouse, mend, migrates=False))


CLICKHOUSE_MISTAKES: tuple[tuple[str, tuple[str, ...], str, tuple[str, ...]], ...] = (
    ("a table that forgets what was inserted",
     ("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 0",),
     r"table events of .* does not remember what was inserted .*Run there: ALTER TABLE events MODIFY SETTING",
     ("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 1000",)),
    ("a table that keeps every row it is given",
     ("RENAME TABLE decisions TO kept", "CREATE TABLE decisions AS kept ENGINE = MergeTree ORDER BY tuple()"),
     r"table decisions of .* is a MergeTree, so what is inserted again counts twice\. It must be a ReplacingMergeTree",
     ("DROP TABLE decisions", "RENAME TABLE kept TO decisions")),
    ("tables of a newer program",
     ("INSERT INTO migrations (name, checksum) VALUES ('9999_newer', 'x')",),
     r"has migration 9999_newer, which this Tidewire does not know\. Use the newer Tidewire",
     ("DELETE FROM migrations WHERE name = '9999_newer'",)),
    ("a migration that was changed",
     ("INSERT INTO migrations (name, checksum) VALUES ('0001_events', 'other')",),
     r"migration 0001_events was changed after it was applied.*Put the file back",
     ()),
)  # fmt: skip
"""What somebody does to ClickHouse by hand: in words, as statements, what must be said, and how it is undone."""


async def _by_hand(clickhouse: Bridge, statements: Sequence[str], *, migrates: bool) -> None:
    analytics = Analytics(clickhouse.url)
    await analytics.start()
    try:
        if migrates:
            with capture_logs():  # they are not for the table that is printed
                await migrate(analytics)
        for statement in statements:
            await analytics.command(statement)
    finally:
        await analytics.close()


@contextmanager
def _admin(kafka: Kafka) -> Iterator[KafkaAdminClient]:
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        yield admin


def _alter(kafka: Kafka, topic: str, configs: Mapping[str, str]) -> None:
    with _admin(kafka) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(configs))])


def _wait_until_made(settings: Mapping[str, str]) -> None:
    """Make the topics that are missing; one that was deleted a moment ago may still be on its way out."""
    until = time.monotonic() + 30
    while True:
        try:
            tidewire("topics", "create", settings=settings)
            return
        except AssertionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@contextmanager
def _running_once(kafka: Kafka, settings: Mapping[str, str]) -> Iterator[Path]:
    """The data folder of a worker that owned every partition for a moment, and has stopped."""
    data = kafka.folder.parent / "worker-once"
    worker = Process("worker", data=data, port=free_port(), settings=settings)
    worker.start()
    try:
        worker.ready()
        until = time.monotonic() + 60
        while worker.metric("tidewire_stage_owned_partitions") < PARTITIONS:
            assert time.monotonic() < until, worker.told()
            time.sleep(0.1)
        assert worker.stop() == 0, worker.told()
        yield data
    finally:
        if worker.is_running:
            worker.kill()
