"""Rows 26, 27 and 29: one user who does everything, more than can be done, and too little memory."""

from __future__ import annotations

import http.client
import json
import resource
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from config.write_keys import hash_of
from streams.log import TP, Log, partition_of
from tests.faults.cluster import Cluster, wait_for
from tests.faults.machine import WRITE_KEY, Process
from tests.faults.rows import Outcome, Scene, row
from tests.faults.stories import crowded, iso
from tests.faults.traffic import HEADERS, Json, Ledger, Request, shop_story
from tests.faults.watch import Memory, status_kb

MOST_RSS_MB = 512.0
FLAT = 1.10  # of the memory in the middle of an overload
FLAT_MB = 24.0
TIMES_TOO_MUCH = 10
TAKES_OVER_WITHIN_S = 30.0
DIES_WITHIN_S = 30.0
LITTLE_BYTES = 4 * 1024 * 1024


# --- 26


@row("26", "nine of ten events by one user", limit_s=30)
def hot_user(scene: Scene) -> Outcome:
    """Half of what the machine can do, first by many and then nine tenths of it by one user of each client. How long it
    takes until the event of somebody else has changed her state stays within twice what it was; and what the hot user
    did stands in the log in the order in which she did it."""
    cluster = scene.cluster
    waits: dict[bool, list[float]] = {False: [], True: []}
    with Prober(cluster) as prober:
        for is_hot in [False, True] * scene.size(1, 3):
            story = crowded(shop_story, 0.9) if is_hot else shop_story
            with scene.traffic(rate=1_500, clients=4, batch=25, story=story) as traffic:
                traffic.wait_for(1_500)
                prober.waits = waits[is_hot]
                traffic.wait_for(scene.size(15_000, 45_000))
                prober.waits = []
    scene.fault_over()
    recovery_s = scene.settle()
    calm, hot = (_p99(waits[is_hot]) for is_hot in (False, True))
    slower = f"others waited {hot:.2f} s beside a hot user and {calm:.2f} s without (p99)" if hot >= 2 * calm else ""
    return scene.outcome(recovery_s, slower, *_out_of_order(cluster, scene.ledger))


def _p99(waits: Sequence[float]) -> float:
    assert len(waits) >= 50, f"only {len(waits)} probes came through"
    return sorted(waits)[min(len(waits) - 1, int(len(waits) * 0.99))]


def _out_of_order(cluster: Cluster, ledger: Ledger) -> Iterator[str]:
    newest: dict[str, int] = defaultdict(lambda: -1)
    seen: set[str] = set()
    for record in cluster.read("events"):
        if record.headers:
            continue
        event = json.loads(record.value or b"{}")
        user = event.get("userId", "")
        if not user.startswith("hot") or event["messageId"] in seen:
            continue
        seen.add(event["messageId"])
        n = event["properties"]["n"]
        if n < newest[user]:
            yield f"event {n} of {user} stands behind her event {newest[user]}"
            return
        newest[user] = n
    if len(seen) < len(ledger.taken) // 4:
        yield f"the fault did not happen: {len(seen)} of {len(ledger.taken)} events are a hot user's"


class Prober:
    """People are heard of for the first time, some at once, as a context manager: how long until the state of each is
    in the changelog? Adds the seconds to `waits`."""

    def __init__(self, cluster: Cluster, at_once: int = 6) -> None:
        self._cluster = cluster
        self._url = urlsplit(cluster.urls[0])
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._probe, args=(n,), daemon=True) for n in range(at_once)]
        self.waits: list[float] = []

    def __enter__(self) -> Prober:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _probe(self, thread: int) -> None:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=30)
        number = 0
        while not self._stopping.wait(0.02):
            number += 1
            name = f"probe{thread}-{number}"
            waits, person = self.waits, f"default/u:{name}"
            tp = TP("customers", partition_of(person.encode(), self._cluster.partitions))
            at = self._cluster.ask_log(lambda log, tp=tp: _end(log, tp))  # type: ignore[misc]
            began = time.monotonic()
            event = {"type": "track", "event": "Probe", "userId": name, "messageId": name,
                     "timestamp": iso(datetime.now(UTC))}  # fmt: skip
            connection.request("POST", "/v1/batch", json.dumps({"batch": [event]}).encode(), HEADERS)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200 and self._has_come(tp, at, person.encode()):
                waits.append(time.monotonic() - began)
        connection.close()

    def _has_come(self, tp: TP, at: int, key: bytes) -> bool:
        while not self._stopping.is_set():
            records = self._cluster.ask_log(lambda log, at=at: log.read(tp, at, 5_000))  # type: ignore[misc]
            if any(record.key == key for record in records):
                return True
            at = records[-1].offset + 1 if records else at
            time.sleep(0.005)
        return False


async def _end(log: Log, tp: TP) -> int:
    return (await log.bounds(tp.topic))[tp.partition][1]


# --- 27


@row("27", "ten times what a write key may send", limit_s=60, long_only=True)
def flood(scene: Scene) -> Outcome:
    """Clients send as fast as they can by a write key that may send a tenth of it, and never send again what was not
    taken. They are told to come later; memory stays flat; what was taken arrives."""
    config = scene.folder / "config"
    config.mkdir()
    key = f"keys:\n  - name: web\n    sha256: {hash_of(WRITE_KEY)}\n    kind: public\n    events_per_s: 500\n"
    (config / "write_keys.yaml").write_text(key + "    burst: 500\n")
    cluster = scene.begin(settings={"TIDEWIRE_CONFIG": str(config), "TIDEWIRE_WRITE_KEYS": ""})
    return _flooded(scene, cluster, "429")


@row("27", "more than the processors can do", limit_s=60)
def flood_of_processors(scene: Scene) -> Outcome:
    """The same by a key without a limit: the collector takes events faster than the processors do them, until they are
    so far behind that it takes no more."""
    return _flooded(scene, scene.begin(workers=1, settings={"TIDEWIRE_MOST_LAG": "10000"}), "503")


def _flooded(scene: Scene, cluster: Cluster, refusal: str) -> Outcome:
    with Memory([*cluster.collectors, *cluster.workers]) as memory, Flood(scene, cluster.urls[0], clients=4) as flood:
        time.sleep(scene.size(15, 60))
    scene.fault_over()
    taken, refused = flood.answers["200"], flood.answers[refusal]
    wrong = [*_not_told_when(flood), *_too_much(memory)]
    if flood.answers.keys() - {"200", refusal}:
        wrong.append(f"requests ended with {dict(flood.answers)}")
    if not taken or not refused or (refusal == "429" and refused < taken * (TIMES_TOO_MUCH - 1)):
        wrong.append(f"the fault did not happen: {taken} requests were taken and {refused} were not")
    return scene.outcome(scene.settle(), *wrong)


def _not_told_when(flood: Flood) -> Iterator[str]:
    if flood.without_hint:
        yield f"{flood.without_hint} refusals do not say when to come again"


@row("27", "processors stand still", limit_s=60, long_only=True)
def processors_stopped(scene: Scene) -> Outcome:
    """Every worker stands still. The collector says 503 when as much waits as may wait, before anything grows; when the
    workers are back, clients that came again have lost nothing."""
    cluster = scene.begin(settings={"TIDEWIRE_MOST_LAG": "3000"})
    workers = list(cluster.workers)
    with scene.traffic(rate=800, clients=4) as traffic:
        traffic.wait_for(1_000)
        for worker in workers:
            worker.freeze()
        try:
            with Memory(cluster.collectors) as memory:
                wait_for(lambda: scene.ledger.answers["503"] > 0, 60, "it is not refused", cluster.told)
                time.sleep(scene.size(8, 30))
            hint = _hint_of(cluster.urls[0])
            behind = cluster.behind().stage
        finally:
            for worker in workers:
                worker.thaw()
        for worker in workers:
            wait_for(lambda worker=worker: not worker.is_running, 30, "it goes on with its lease lost", worker.told)  # type: ignore[misc]
            worker.start()
        scene.fault_over()
        for worker in workers:
            worker.ready()
    wrong = [*_too_much(memory), "" if hint else "the refusal does not say when to come again"]
    if behind > 3_000 + 2 * 800 + 4 * 10:  # what comes between two looks at how far behind they are
        wrong.append(f"{behind} records waited")
    return scene.outcome(scene.settle(), *wrong)


def _hint_of(url: str) -> str:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", "/v1/batch", b'{"batch":[]}', HEADERS)
        answer = connection.getresponse()
        answer.read()
        return answer.getheader("Retry-After", "") if answer.status == 503 else ""
    finally:
        connection.close()


class Flood:
    """Clients that send one request after another, whatever the answer, as a context manager; see `Ledger`.

    Attributes:
        answers: how many requests ended how.
        without_hint: how many refusals did not say when to come again.
    """

    def __init__(self, scene: Scene, url: str, clients: int, batch: int = 50) -> None:
        self._ledger = scene.ledger
        self._url = urlsplit(url)
        self._batch = batch
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(clients)]
        self.answers: Counter[str] = Counter()
        self.without_hint = 0

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=30)
        count = 0
        while not self._stopping.is_set():
            events = [self._event(number, count + i) for i in range(self._batch)]
            count += self._batch
            self._ledger.sending(events)
            began = time.monotonic()
            try:
                connection.request("POST", "/v1/batch", json.dumps({"batch": events}).encode(), HEADERS)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.answers[type(error).__name__] += 1
                connection.close()
                continue
            self.answers[str(answer.status)] += 1
            if answer.status == 200:
                self._ledger.took(events, Request(began, time.monotonic(), len(events), 1))
            elif not (answer.getheader("Retry-After") or "").isdecimal():
                self.without_hint += 1
        connection.close()

    def _event(self, client: int, n: int) -> Json:
        return {"type": "track", "event": "Product Viewed", "userId": f"f{client}-{n % 5_000}",
                "messageId": f"f{client}-{n}", "timestamp": iso(datetime.now(UTC)),
                "properties": {"product_id": f"p{n % 40}"}}  # fmt: skip


def _too_much(memory: Memory) -> Iterator[str]:
    """Who holds too much, or more and more: in the last third much more than in the one before."""
    for name, held in memory.held_bytes.items():
        third = len(held) // 3
        middle, end = max(held[third : 2 * third]) / 2**20, max(held[2 * third :]) / 2**20
        if end > MOST_RSS_MB:
            yield f"{name} holds {end:.0f} MB"
        if end > middle * FLAT + FLAT_MB:
            yield f"{name} grows: {middle:.0f} MB, then {end:.0f} MB"


# --- 29


@row("29", "memory kill of a worker", limit_s=15)
def out_of_memory(scene: Scene) -> Outcome:
    """A worker gets no more memory than it has, while there is more and more to do, and is started again with as much
    as it wants. In turn the limit is one of a control group, as in a container: the system kills it; and one of its
    address space: it is told that there is no more, and must end itself rather than go on half."""
    cluster = scene.cluster
    wrong = []
    with scene.traffic(rate=400, batch=20) as traffic:
        for turn in range(scene.size(2, 6)):
            traffic.wait_for(800)
            worker = cluster.workers[turn % 2]
            group = _control_group(scene.folder.name) if turn % 2 == 0 else None
            with Flood(scene, cluster.urls[0], clients=1):
                if group is None:
                    _limit_address_space(worker)
                else:
                    (group / "cgroup.procs").write_text(str(worker.pid))
                with suppress(TimeoutError):
                    wait_for(lambda worker=worker: not worker.is_running, DIES_WITHIN_S, "")  # type: ignore[misc]
            scene.fault_over()
            if group is not None and worker.exit_code != -signal.SIGKILL:
                wrong.append(f"the system did not kill {worker.data.name}: {worker.exit_code}, {worker.told()[-300:]}")
            if worker.is_running:  # it could do with what it had
                worker.kill()
            if group is not None:
                group.rmdir()
            worker.start()
            worker.ready()
    return scene.outcome(scene.settle(), *wrong)


CONTROL_GROUPS = Path("/sys/fs/cgroup")


def _control_group(name: str) -> Path | None:
    """A control group that has next to no memory to give; None where this machine lets us make none."""
    for parent, limit in ((CONTROL_GROUPS / "memory", "memory.limit_in_bytes"), (CONTROL_GROUPS, "memory.max")):
        group = parent / name
        with suppress(OSError):
            if not (parent / "cgroup.procs").exists():
                continue
            group.mkdir()
            try:
                (group / limit).write_text(str(LITTLE_BYTES))
                return group
            except OSError:
                group.rmdir()
    return None


def _limit_address_space(process: Process) -> None:
    now = status_kb(process.pid)["VmSize"] * 1024
    resource.prlimit(process.pid, resource.RLIMIT_AS, (now + LITTLE_BYTES, now + LITTLE_BYTES))
