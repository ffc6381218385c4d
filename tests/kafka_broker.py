"""A real Apache Kafka on this machine, from jars that Maven copies: for the tests, and for trying the Kafka ground.

    python -m tests.kafka_broker --brokers 1 --port 9092 [--data DIR]

Needs Java 17 and, the first time, Maven. Brokers listen on loopback only, each is broker and controller (KRaft).
"""

from __future__ import annotations

import argparse
import atexit
import base64
import ctypes
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

HERE = Path(__file__).parent
POM = HERE / "kafka" / "pom.xml"
CACHE = HERE.parent / ".cache" / "kafka"
OLDEST_JAVA = 17
LISTENERS_PORTS = (12_000, 32_000)  # Linux gives clients those from 32768 on
STARTS_WITHIN_S = 60.0
QUICK = ("-XX:TieredStopAtLevel=1",)
STOPS_WITHIN_S = 20.0


def missing() -> str:
    """What this machine lacks to start Kafka, as words for a person; empty where it lacks nothing."""
    java = _java_version()
    if java < OLDEST_JAVA:
        return f"Java {OLDEST_JAVA}" + (f" (found {java})" if java else "")
    if not _jars().exists() and shutil.which("mvn") is None:
        return "Maven"
    return ""


def _java_version() -> int:
    java = shutil.which("java")
    if java is None:
        return 0
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found.group(1)) if found else 0


def _jars() -> Path:
    """The folder for the jars of the versions in pom.xml."""
    found = re.search(r"<artifactId>(kafka_[\d.]+)</artifactId>\s*<version>([\d.]+)</version>", POM.read_text())
    assert found is not None
    return CACHE / "-".join(found.groups())


def jars() -> Path:
    """The folder with the jars, copied there by Maven the first time."""
    return _made_once(_jars(), lambda partial: subprocess.run(
        ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime",
         f"-DoutputDirectory={partial}"],
        check=True, stdout=sys.stderr,
    ))  # fmt: skip


def classes() -> Path:
    """An archive of the classes that a broker has loaded when it is up: with it the next ones are up in half the time.
    Java leaves it aside where it is of another Java or of other jars."""

    def dump(partial: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            broker = Kafka(data=Path(folder), java=(*QUICK, f"-XX:ArchiveClassesAtExit={partial}"))
            broker.start()
            broker.stop()

    return _made_once(jars().with_name(jars().name + ".jsa"), dump)


def _made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """A file or folder of the cache, made the first time: whole, or not at all."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        if not target.exists():
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.unlink(missing_ok=True)
            make(partial)
            partial.rename(target)
    return target


def free_ports(count: int) -> list[int]:
    """Ports of loopback for servers of this process and of those it starts: nobody else is given one of them until it
    ends, also while its server is down.

    Each is held by a socket that does not listen: Linux lets a server listen there that sets `SO_REUSEADDR`, as ours
    and Kafka do, and gives the port to no client and to nobody who asks for one here.
    """
    ports = []
    while len(ports) < count:
        holder = socket.socket()
        try:
            # Without the option while it asks: with it, what others hold here would look free.
            holder.bind(("127.0.0.1", random.SystemRandom().randrange(*LISTENERS_PORTS)))
        except OSError:  # somebody has it
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        atexit.register(holder.close)
        ports.append(holder.getsockname()[1])
    return ports


class Door(NamedTuple):
    """A further way into a broker. Who comes in by it is told to go on by `advertised`, where a proxy may stand: so it
    meets the broker through the proxy only. Without a proxy nobody answers there."""

    port: int
    advertised: int


class Broker:
    """One process of Kafka. It keeps its ports and its data over `kill` and `start`.

    Args:
        host: where it listens; brokers in network namespaces of their own have addresses of their own.
        run_in: words before its command, such as ("ip", "netns", "exec", NAME).
        java: its options of Java.
    """

    def __init__(
        self, number: int, port: int, controller_port: int, folder: Path, settings: Mapping[str, str],
        doors: Sequence[Door] = (), *, host: str = "127.0.0.1", run_in: Sequence[str] = (), java: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.number, self.port, self.controller_port, self.folder = number, port, controller_port, folder
        self.doors = tuple(doors)
        self.host = host
        self.run_in = tuple(run_in)
        self.settings = dict(settings)
        self._java = tuple(java)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def data(self) -> Path:
        """The folder of its log."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker was not started"
        return self._process.pid

    def format(self, cluster_id: str, voters: str) -> None:
        """Write its settings and, in a new folder, make its storage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ways = {"PLAINTEXT": Door(self.port, self.port), **{f"DOOR{i}": door for i, door in enumerate(self.doors)}}
        listens = {name: door.port for name, door in ways.items()} | {"CONTROLLER": self.controller_port}
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": voters,
            "listeners": self._listeners(listens),
            "advertised.listeners": self._listeners({name: door.advertised for name, door in ways.items()}),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listens),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed is let in again when its old session has ended: 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.cleaner.backoff.ms": "500",  # so that tests of compaction need not wait 15 s
            **self.settings,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        if not (self.data / "meta.properties").exists():
            done = subprocess.run(
                [*self._command("kafka.tools.StorageTool", *QUICK), "format", f"--cluster-id={cluster_id}", "-c",
                 str(self._properties)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"Kafka cannot make its storage: {done.stdout}{done.stderr}")

    def _listeners(self, ports: Mapping[str, int]) -> str:
        return ",".join(f"{name}://{self.host}:{port}" for name, port in ports.items())

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self.run_in, *self._command("kafka.Kafka", *self._java), str(self._properties)],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _command(self, program: str, *options: str) -> list[str]:
        is_dumping = any("ArchiveClassesAtExit" in each for each in self._java)
        archive = [] if is_dumping else [f"-XX:SharedArchiveFile={classes()}"]
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", *archive, *options, "-cp", f"{jars()}/*", program]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it in good order; by force when that takes too long."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None, "the broker was not started"
        self._process.kill()
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def last_words(self) -> str:
        return "\n".join((self.folder / "broker.log").read_text(errors="replace").splitlines()[-20:])


class Kafka:
    """A cluster of one or more brokers, as a context manager.

    >>> with Kafka(brokers=1) as kafka:  # doctest: +SKIP
    ...     print(kafka.url)
    kafka://127.0.0.1:41237

    Args:
        port: of the first broker, the others follow; 0 takes free ones.
        data: folder to keep; without one, a temporary folder that goes with the cluster.
        settings: further broker settings, such as {"log.retention.check.interval.ms": "1000"}.
        doors: how many further ways into each broker, for proxies; see `Door`.
        hosts, run_in, java: of each broker, see `Broker`. Without `java` it compiles little, which starts it sooner:
            `java=()` is for long runs, and for measuring.
    """

    def __init__(
        self, brokers: int = 1, port: int = 0, data: Path | None = None, settings: Mapping[str, str] | None = None,
        doors: int = 0, *, hosts: Sequence[str] = (), run_in: Sequence[Sequence[str]] = (),
        java: Sequence[str] = QUICK,
    ) -> None:  # fmt: skip
        self._is_temporary = data is None
        self.folder = data if data is not None else Path(tempfile.mkdtemp(prefix="tidewire-kafka-"))
        free = free_ports((2 + 2 * doors) * brokers)
        ports = [port + i for i in range(brokers)] if port else free[brokers : 2 * brokers]
        further = iter(free[2 * brokers :])
        ways = [Door(*pair) for pair in zip(further, further, strict=True)]
        copies = str(min(3, brokers))
        in_sync = str(max(1, min(3, brokers) - 1))
        for_cluster = {
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            **(settings or {}),
        }
        self.brokers = [
            Broker(i + 1, ports[i], free[i], self.folder / f"broker-{i + 1}", for_cluster,
                   ways[i * doors : (i + 1) * doors], host=hosts[i] if hosts else "127.0.0.1",
                   run_in=run_in[i] if run_in else (), java=java)
            for i in range(brokers)
        ]  # fmt: skip

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    def url_by(self, door: int) -> str:
        """The address of the proxies before this door of every broker."""
        return "kafka://" + ",".join(f"{broker.host}:{broker.doors[door].advertised}" for broker in self.brokers)

    def start(self) -> None:
        """Start the brokers and wait until each is in the cluster.

        Raises:
            RuntimeError: one ended, or did not come up in time; with its last words.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = self.folder / "cluster-id"
        if not identity.exists():
            identity.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
        voters = ",".join(f"{each.number}@{each.host}:{each.controller_port}" for each in self.brokers)
        for broker in self.brokers:
            broker.format(identity.read_text(), voters)
            broker.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                if len(self._seen()) == len(self.brokers):
                    return
            except (KafkaError, OSError):  # not there yet
                time.sleep(0.1)
            for broker in self.brokers:
                if not broker.is_running:
                    raise RuntimeError(f"broker {broker.number} ended while starting:\n{broker.last_words()}")
            if time.monotonic() > deadline:
                words = "\n".join(broker.last_words() for broker in self.brokers)
                raise RuntimeError(f"Kafka was not ready within {STARTS_WITHIN_S:.0f} s:\n{words}")

    def _seen(self) -> Sequence[object]:
        for broker in self.brokers:  # cheaper than a client that tries again by itself, and quiet
            socket.create_connection((broker.host, broker.port), timeout=1).close()
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=5000, request_timeout_ms=5000)
        try:
            alive: list[object] = [node for node in admin.describe_cluster()["brokers"] if not node["is_fenced"]]
            return alive
        finally:
            admin.close()

    def stop(self) -> None:
        # All are asked first: a controller that is left alone waits in vain for the others.
        for broker in self.brokers:
            if broker.is_running:
                broker.resume()
                os.kill(broker.pid, signal.SIGTERM)
        for broker in self.brokers:
            broker.stop()
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Kafka:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _die_with_parent() -> None:
    """Runs in the new process, before Java: end when the process that started it ends, however it ends. Linux only."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kafka_broker", description="Start Apache Kafka for a trial.")
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 2, 3, 5))
    parser.add_argument("--port", type=int, default=9092, help="of the first broker; the others follow")
    parser.add_argument("--data", type=Path, help="folder to keep; default: a temporary one")
    given = parser.parse_args(arguments)
    lacking = missing()
    if lacking:
        print(f"Kafka needs {lacking} on this machine.", file=sys.stderr)
        return 1
    kafka = Kafka(given.brokers, given.port, given.data, java=())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it stops its brokers then, too
    try:
        with kafka:
            print(f"Kafka is ready: TIDEWIRE_LOG={kafka.url}  (Ctrl-C stops it)", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
