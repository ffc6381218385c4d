"""Proof: who is in a segment live, held against who ought to be by ClickHouse's events at rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from processors.values import zone_named
from schemas.errors import TidewireError
from schemas.segments import Definition
from sinks.conditions import compared_sql, people_sql
from streams.definitions import Known, definition_of
from streams.lag import until_past
from streams.lines import EVENTS
from streams.log import Log
from streams.metrics import SegmentMetrics

if TYPE_CHECKING:
    from sinks.analytics import Analytics

log = structlog.get_logger(__name__)

LOOKS = 4  # at who differs; between two all that had come is done and stored, timers that are due fire within a second
LONGEST_WAIT_S = 60.0  # between two looks
TIMERS_WITHIN_S = 1.5
SHOWN_DIFFERENCES = 100
LONGEST_QUERY_S = 300.0
REST = 19  # for each second of comparing so many of rest, so that it takes a twentieth of a core
SHORTEST_REST_S = 1.0
AGAIN_AFTER_S = 30.0


@dataclass(frozen=True)
class Proof:
    """What came of comparing one segment.

    Attributes:
        members: how many are in it live; sql_members: how many by SQL.
        missing, surplus: keys of those who are in it by SQL alone, and live alone, at every look.
        at_ms: when it was compared, and seconds: how long that took.
    """

    name: str
    version: int
    members: int
    sql_members: int
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    at_ms: int
    seconds: float

    @property
    def differences(self) -> int:
        return len(self.missing) + len(self.surplus)


class Prover:
    """Compares segments, those that are in force."""

    def __init__(self, log_: Log, analytics: Analytics, *, workspace: str, zone: str) -> None:
        self._log = log_
        self._analytics = analytics
        self._workspace = workspace
        self._zone = zone
        self.known = Known(log_)

    async def look(self) -> dict[str, Definition]:
        """The segments that can be compared: a new version cannot until everybody was judged by it."""
        await self.known.look()
        waiting = self.known.pending(self._zone)
        live = {name: definition_of(said) for name, said in self.known.live.items() if not said.is_gone}
        return {} if waiting else live

    async def prove(self, definitions: Mapping[str, Definition], name: str) -> Proof:
        """Compare one segment. Who differs is looked at again when all that was under way has arrived: it is a
        difference if it stays one. What came of it is written down, in table `segment_proofs`.

        Raises:
            ClickHouseError: it cannot be asked.
        """
        began, zone, condition = time.monotonic(), zone_named(self._zone), definitions[name].when
        missing: set[str] = set()
        surplus: set[str] = set()
        for look in range(LOOKS):
            if look:
                await self._settled()
            now_ms = time.time_ns() // 1_000_000
            people = people_sql(condition, definitions, workspace=self._workspace, now_ms=now_ms, zone=zone)
            query = compared_sql(people, workspace=self._workspace, name=name)
            (found,) = await self._analytics.query(*query, longest_s=LONGEST_QUERY_S)
            missing = set(found["missing"]) if not look else missing & set(found["missing"])
            surplus = set(found["surplus"]) if not look else surplus & set(found["surplus"])
            if not missing and not surplus:
                break
        proof = Proof(name, definitions[name].version, found["members"], found["sql_members"], tuple(sorted(missing)),
                      tuple(sorted(surplus)), now_ms, time.monotonic() - began)  # fmt: skip
        await store(self._analytics, self._workspace, proof)
        return proof

    async def _settled(self) -> None:
        """Wait until what is under way has arrived. Where the pipeline is behind for long, go on: who differs then
        differs at every look, and the pages say that it is behind."""
        await asyncio.sleep(TIMERS_WITHIN_S)
        ends = {partition: end - 1 for partition, (_, end) in (await self._log.bounds(EVENTS)).items()}
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await until_past(self._log, ends)
        except TimeoutError:
            log.warning("proof_of_what_is_behind", waited_s=LONGEST_WAIT_S)


async def store(analytics: Analytics, workspace: str, proof: Proof) -> None:
    """Write a proof into table `segment_proofs`."""
    await analytics.insert("segment_proofs", {
        "workspace": [workspace], "segment": [proof.name], "version": [proof.version],
        "at": [proof.at_ms], "members": [proof.members], "sql_members": [proof.sql_members],
        "differences": [proof.differences], "missing": [list(proof.missing[:SHOWN_DIFFERENCES])],
        "surplus": [list(proof.surplus[:SHOWN_DIFFERENCES])], "seconds": [proof.seconds],
    })  # fmt: skip


class Checker:
    """Compares one segment after the other, for as long as it runs."""

    def __init__(self, prover: Prover, metrics: SegmentMetrics) -> None:
        self._prover = prover
        self._metrics = metrics

    async def run(self) -> None:
        while True:
            try:
                names = await self._prover.look()
                self._metrics.keep(self._prover.known.definitions)
                for name in names:
                    definitions = await self._prover.look()
                    if name in definitions:
                        await self._compare(definitions, name)
            except TidewireError as error:
                log.warning("segments_not_compared", error=str(error))
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _compare(self, definitions: Mapping[str, Definition], name: str) -> None:
        try:
            proof = await self._prover.prove(definitions, name)
        except TidewireError as error:  # the others can be compared all the same
            log.warning("segment_not_compared", segment=name, error=str(error))
            return
        self._metrics.say(proof.name, members=proof.members, differences=proof.differences,
                          compared_at_s=proof.at_ms / 1000)  # fmt: skip
        if proof.differences:
            log.warning("segment_differs", segment=proof.name, missing=proof.missing[:5], surplus=proof.surplus[:5])
        await asyncio.sleep(max(SHORTEST_REST_S, REST * proof.seconds))
