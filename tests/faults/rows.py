"""The rows of the fault matrix: what each is, and what it is given.

    @row("3", "worker kill -9", limit_s=20, ground="kafka", brokers=1)
    def workers_killed(scene: Scene) -> Outcome:
        with scene.traffic(rate=400):
            for _ in range(scene.size(3, 10)):
                time.sleep(scene.rng.uniform(3, 10))
                worker = scene.rng.choice(scene.cluster.workers)
                worker.kill()
                worker.start()
            scene.fault_over()
        return scene.outcome(scene.settle())

A row does its fault, for real, while clients send; waits until everything is through; and compares what there is with
what there must be. Rows stand in modules `rows_*.py` beside this one and are found there.
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from schemas.errors import TidewireError
from streams.lag import Lag
from tests.faults.cluster import Cluster
from tests.faults.hurried import MINUTE
from tests.faults.machine import COMMAND
from tests.faults.oracle import Verdict, judge
from tests.faults.traffic import Ledger, Story, Traffic, shop_story
from tests.faults.without import program, settings_for
from tests.kafka_broker import QUICK, Kafka

Ground = Literal["kafka", "embedded", "none"]
LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """Of one run of one row.

    Attributes:
        lost: events that were answered with 2xx and are missing: in the log, in ClickHouse, or in what is known of
            people.
        doubled: what is counted twice, anywhere.
        recovery_s: from the end of the fault to the first moment when nothing was left to do.
        wrong: any other promise that was broken, in words.
    """

    lost: int
    doubled: int
    recovery_s: float
    wrong: str = ""


@dataclass(frozen=True)
class Row:
    """One row of the matrix.

    Attributes:
        number: as the matrix has it.
        limit_s: longest recovery.
        brokers: of its Kafka; 0 where it needs none.
        is_short: it is one of the few that every `make test` runs.
        is_long_only: it runs with LONG=1 alone.
        is_alone: what it measures needs the machine for itself.
    """

    number: str
    name: str
    run: Callable[[Scene], Outcome]
    limit_s: float
    ground: Ground
    brokers: int
    is_short: bool = False
    is_long_only: bool = False
    is_alone: bool = False

    def faults_of(self, outcome: Outcome) -> list[str]:
        """What of an outcome is not as it must be; empty where the row passed."""
        wrong = [outcome.wrong] if outcome.wrong else []
        if outcome.lost:
            wrong.append(f"{outcome.lost} lost")
        if outcome.doubled:
            wrong.append(f"{outcome.doubled} doubled")
        if not outcome.recovery_s <= self.limit_s:
            wrong.append(f"recovery took {outcome.recovery_s:.1f} s, the limit is {self.limit_s:g} s")
        return wrong


ROWS: list[Row] = []


def row(
    number: str, name: str, *, limit_s: float, ground: Ground = "kafka", brokers: int | None = None,
    short: bool = False, long_only: bool = False, alone: bool = False,
) -> Callable[[Callable[[Scene], Outcome]], Callable[[Scene], Outcome]]:  # fmt: skip
    """Register a row. `brokers` is 1 on the Kafka ground where it is not named. The same number may stand on several
    rows: variants of it."""

    def register(run: Callable[[Scene], Outcome]) -> Callable[[Scene], Outcome]:
        count = brokers if brokers is not None else int(ground == "kafka")
        ROWS.append(Row(number, name, run, limit_s, ground, count, short, long_only, alone))
        return run

    return register


def all_rows() -> list[Row]:
    """Every row, in the order of their numbers."""
    for file in sorted(Path(__file__).parent.glob("rows_*.py")):
        importlib.import_module(f"tests.faults.{file.stem}")
    return sorted(ROWS, key=lambda each: (int("".join(filter(str.isdigit, each.number)) or 0), each.number, each.name))


@dataclass
class Scene:
    """What one run of a row is given.

    Attributes:
        folder: for everything it writes; gone afterwards.
        rng: its dice; the same seed throws the same.
        is_long: sizes are those of LONG=1.
        without: a guard that is taken away, see `tests.faults.without`; none but for tests of the rows themselves.
        ledger: what clients sent, and what they were told.
    """

    row: Row
    folder: Path
    seed: int
    is_long: bool = False
    without: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    rng: random.Random = field(init=False)
    _cluster: Cluster | None = field(init=False, default=None)
    _fault_over_at: float | None = field(init=False, default=None)
    _clients: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.row.number} {self.seed}")

    def size(self, short: int, long: int) -> int:
        """How often, how many: the one or the other."""
        return long if self.is_long else short

    # --- the machine

    @property
    def cluster(self) -> Cluster:
        """The processes; begun with one collector, two workers and one sink if `begin` was not called before."""
        return self._cluster if self._cluster is not None else self.begin()

    def begin(
        self, *, collectors: int = 1, workers: int = 2, sinks: int = 1, settings: Mapping[str, str] | None = None,
        broker_settings: Mapping[str, str] | None = None, doors: int = 0, moments: bool = False,
        hosts: Sequence[str] = (), run_in: Sequence[Sequence[str]] = (), minute_ms: int = 0, dashboards: int = 0,
    ) -> Cluster:  # fmt: skip
        """Start what the row's ground needs and, on Kafka, so many of each role; on the embedded ground, `up`.

        Args:
            settings: of all roles, such as {"TIDEWIRE_CHECKPOINT_MS": "1000"}.
            broker_settings, doors, hosts, run_in: see `tests.kafka_broker.Kafka`.
            moments: processes look at their start into `moment_file` when they are to die.
            minute_ms: how long the minutes of journeys take; 0: as long as others.
        """
        assert self._cluster is None, "the cluster has begun already"
        kafka = None
        if self.row.ground == "kafka":
            kafka = Kafka(self.row.brokers, data=self.folder / "kafka", settings=broker_settings, doors=doors,
                          hosts=hosts, run_in=run_in, java=() if self.is_long else QUICK)  # fmt: skip
        settings = {**settings_for(self.moment_file), **(settings or {})} if moments else settings or {}
        settings = {MINUTE: str(minute_ms), **settings} if minute_ms else settings
        runs = program(self.without or "nothing") if moments or minute_ms or self.without else COMMAND
        cluster = self._cluster = Cluster(self.folder, kafka, settings, runs)
        counts = {"up": 1}
        if kafka is not None:
            counts = {"sink": sinks, "collector": collectors, "worker": workers, "dashboard": dashboards}
        started = [cluster.role(role, is_awaited=False) for role, count in counts.items() for _ in range(count)]
        for process in started:
            process.ready()
        if cluster.workers:
            cluster.wait_until_owned()
        return cluster

    @property
    def moment_file(self) -> Path:
        """Where `tests.faults.without.Moment.write` tells the next process that starts; see `begin`."""
        return self.folder / "moment"

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()

    # --- clients

    def traffic(
        self, rate: float | None = 300, *, clients: int = 2, batch: int = 10, duplicates: float = 0.02,
        mistakes: float = 0.005, story: Story = shop_story, urls: Iterable[str] | None = None,
    ) -> Traffic:  # fmt: skip
        """Clients that send while the `with` lasts; leaving it waits until everything sent was answered.

        Args:
            rate: events a second of all clients together; None sends as fast as they are taken.
            batch: events of one request.
            duplicates: share of events that are sent once more later, with the same message id.
            mistakes: share of events that cannot be used: some for the collector to refuse, some for the processors.
            story: what each client sends; see `tests.faults.traffic`.
            urls: of collectors; those of the cluster where none are given.
        """
        first, self._clients = self._clients, self._clients + clients
        return Traffic(
            self.ledger, list(urls) if urls is not None else self.cluster.urls, seed=self.seed,
            clients=range(first, first + clients), rate=rate, batch=batch, duplicates=duplicates, mistakes=mistakes,
            story=story,
        )  # fmt: skip

    # --- the end

    def fault_over(self) -> None:
        """The fault ends now: recovery is measured from here. Called again, from there."""
        self._fault_over_at = time.monotonic()

    def settle(self, timeout_s: float = 120.0) -> float:
        """Wait until customer stage and sink have nothing left. Returns the seconds since the fault was over, or since
        this was called.

        Raises:
            TimeoutError: there is still something left after `timeout_s`.
        """
        began = time.monotonic()
        since = began if self._fault_over_at is None else self._fault_over_at
        last: Lag | TidewireError = Lag(0, 0)
        while time.monotonic() - began < timeout_s:
            try:
                last = self.cluster.behind()
                if last.is_none:
                    return time.monotonic() - since
            except TidewireError as error:
                last = error
            time.sleep(LOOK_EVERY_S)
        raise TimeoutError(f"not settled after {timeout_s:.0f} s: {last}\n{self.cluster.told()}")

    def verify(self, **known: Any) -> Verdict:
        """Stop the workers, and compare the ledger, the log, ClickHouse, and what is known of people, live and rebuilt,
        with what the oracle makes of the log. `known` are options of `tests.faults.oracle.judge`."""
        return judge(self.cluster, self.ledger, **known)

    def outcome(self, recovery_s: float, *wrong: str, **known: Any) -> Outcome:
        """`verify`, as the outcome of the row; `wrong` are further promises that were broken, empty ones left out."""
        verdict = self.verify(**known)
        broken = [each for each in (*wrong, verdict.wrong) if each]
        return Outcome(verdict.lost, verdict.doubled, recovery_s, "; ".join(broken))
