"""Definitions of segments on their way: from a file or a page into topic `definitions`, and from there to everybody.

A new version does not count at once, for nobody remembers yet what it asks for. Meanwhile the old one stays in force:

    1. every partition is told to remember what the new one asks for (`Define`, not live)
    2. the stage has done that, and ClickHouse holds everything that came before
    3. what ClickHouse knows of the past goes to every person (`Backfill`), beside live events
    4. topic `definitions` says that it is live
    5. every partition is told to judge by it (`Define`, live), and to judge everybody once (`Sweep`)
    6. when everybody was, topic `definitions` says that it is settled

After a crash the first three, or the last two, happen again: definitions are replaced as a whole, what is remembered
twice counts once, and who is judged twice is where she was.

What partitions are told of journeys (`streams.leads`) goes the same way: what their conditions ask for is remembered
and looked up first, and a note under `led` takes the place of the fourth step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import msgspec
import structlog

from config.journeys import segments_of
from config.segments import check_together
from processors.memories import Memories, Memory
from processors.selectors import Selector, selector_of
from processors.values import zone_named
from schemas.conditions import canonical, leaves_of, read_condition
from schemas.errors import TidewireError
from schemas.internal import HEADERS, Backfill, Define, Sweep, encode_internal
from schemas.journeys import JourneyFile, Led, Limits
from schemas.keyed import encode_state
from schemas.rejected import decode_rejected
from schemas.segments import (
    Cuts,
    Definition,
    Definitions,
    Fired,
    Said,
    SavedLimits,
    Told,
    decode_said,
    encode_definitions,
    encode_said,
)
from schemas.times import MINUTE_MS
from streams.lag import STAGE_GROUP, until_handled, until_past, until_stored
from streams.leads import Leads, asks_everybody, conditions_told
from streams.lines import EVENTS
from streams.log import TP, Log, Outgoing
from streams.rfm import look_up
from streams.segments import RULES_KEY

if TYPE_CHECKING:
    from sinks.analytics import Analytics

log = structlog.get_logger(__name__)

Each = TypeVar("Each")

TOPIC = "definitions"
LIVE = "live"
LED = "led"
LIMITS = "limits"
LOOK_EVERY_S = 0.5
AGAIN_AFTER_S = 5.0
LOOK_UP_EVERY_S = 30.0
_SWEPT = """
SELECT uniqExact(id) AS partitions FROM decisions
WHERE workspace = {by:String} AND recorded_for = {by:String} AND kind = 'swept' AND about = {sweep:String}
"""
READ_AT_ONCE = 1_000
BACKFILLED_AT_ONCE = 250  # people of one append; two of them may be under way, so that live events wait behind no more
SELECTORS_AT_ONCE = 20  # of one query
MOST_ROUNDS = 10  # of reading again those whose events are refused all the time
LONGEST_READ_S = 600.0
MOST_BEHIND = 5_000  # records: while the stage is further behind, live events go first


class Known:
    """What topic `definitions` says.

    Attributes:
        wanted: the newest version of each segment, by name.
        live: the version that people are judged by.
        versions: every version there was, by name and number.
        cuts: of RFM, by workspace.
        told: what partitions were last told of journeys; None: nothing ever.
        limits: what holds for the messages of all journeys, as plain values.
        fired: when people were last asked into journeys that a clock lets them enter, by journey.
    """

    def __init__(self, log_: Log) -> None:
        self._log = log_
        self._next: dict[int, int] = {}
        self.wanted: dict[str, Said] = {}
        self.live: dict[str, Said] = {}
        self.versions: dict[str, dict[int, Said]] = {}
        self.cuts: dict[str, Cuts] = {}
        self.told: Told | None = None
        self.limits: Any = {}
        self.fired: dict[str, Fired] = {}

    async def look(self) -> None:
        """Read on."""
        for partition, (first, end) in (await self._log.bounds(TOPIC)).items():
            at = max(first, self._next.get(partition, first))
            while at < end:
                records = await self._log.read(TP(TOPIC, partition), at, READ_AT_ONCE)
                for record in records:
                    self._take((record.key or b"").decode(), record.value)
                at = records[-1].offset + 1 if records else end
            self._next[partition] = at

    def _take(self, key: str, value: bytes | None) -> None:
        if value is None:
            return
        said = decode_said(value)
        if isinstance(said, Cuts):
            self.cuts[said.workspace] = said
        elif isinstance(said, Told):
            self.told = said
        elif isinstance(said, SavedLimits):
            self.limits = said.limits
        elif isinstance(said, Fired):
            self.fired[said.journey] = said
        elif key == f"{said.name}/{LIVE}":
            self.live[said.name] = said
        else:
            self.versions.setdefault(said.name, {})[said.version] = said
            self.wanted[said.name] = max(self.versions[said.name].values(), key=lambda each: each.version)

    def new(self, zone: str) -> dict[str, Said]:
        """The versions that are not live yet, or where days begin in another time zone than when they became so."""
        # Two who write at the same moment write the same number: the time tells which of them is live.
        live = {name: (said.version, said.at_ms, said.zone) for name, said in self.live.items()}
        return {name: said for name, said in self.wanted.items() if live.get(name) != (said.version, said.at_ms, zone)}

    def pending(self, zone: str) -> dict[str, Said]:
        """Those, and the ones that not everybody was judged by yet."""
        return self.new(zone) | {name: said for name, said in self.live.items() if not said.is_settled}

    @property
    def definitions(self) -> dict[str, Definition]:
        """What each segment is to be, those that are gone left out."""
        return {name: definition_of(said) for name, said in self.wanted.items() if not said.is_gone}


def definition_of(said: Said, *, is_live: bool = True) -> Definition:
    return Definition(said.name, read_condition(said.when), said.version, is_live, dict(said.title), said.about)


def said_of(definition: Definition, version: int, *, by: str, source: str, now_ms: int, from_file: str) -> Said:
    when = msgspec.json.decode(canonical(definition.when))
    return Said(name=definition.name, version=version, when=when, title=dict(definition.title), about=definition.about,
                by=by, at_ms=now_ms, source=source, from_file=from_file)  # fmt: skip


def digest_of(definition: Definition) -> str:
    """The same for definitions that say the same."""
    said = said_of(definition, 0, by="", source="", now_ms=0, from_file="")
    return blake2b(encode_said(said), digest_size=8).hexdigest()


async def save(log_: Log, definition: Definition, *, by: str, now_ms: int, upon: int | None = None) -> Said:
    """Write a new version from a page or a command; the same as before is no new version.

    Args:
        upon: the version that was changed, 0 for none; None: whichever is the newest.

    Raises:
        ConfigError: together with the others it cannot be.
        TidewireError: somebody else wrote a version meanwhile.
    """
    known = Known(log_)
    await known.look()
    check_together({**known.definitions, definition.name: definition}, "segments")
    before = known.wanted.get(definition.name)
    newest = before.version if before is not None and not before.is_gone else 0
    if upon is not None and upon != newest:
        raise TidewireError(f'Segment "{definition.name}" has version {newest} meanwhile, not {upon}. '
                            "Look at it, and change that one.")  # fmt: skip
    if before is not None and not before.is_gone and digest_of(definition_of(before)) == digest_of(definition):
        return before
    version = before.version + 1 if before is not None else 1
    from_file = before.from_file if before is not None else ""
    said = said_of(definition, version, by=by, source="page", now_ms=now_ms, from_file=from_file)
    await _write(log_, [said])
    return said


async def remove(log_: Log, name: str, *, by: str, now_ms: int) -> None:
    """Take a segment out: everybody leaves it.

    Raises:
        TidewireError: there is none, or another, or a journey, asks for it.
    """
    known = Known(log_)
    await known.look()
    definitions = known.definitions
    if definitions.pop(name, None) is None:
        raise TidewireError(f'There is no segment "{name}".')
    check_together(definitions, "segments")
    for journey in known.told.led.journeys if known.told is not None else ():
        asked = {segment for _, segment in segments_of(JourneyFile.model_validate(journey.said))}
        if journey.is_newest and name in asked:
            raise TidewireError(f'Journey "{journey.name}" asks for segment "{name}". '
                                "Let it do without first, or take it out.")  # fmt: skip
    await _write(log_, [_gone(known.wanted[name], by, now_ms)])


async def take_over(log_: Log, files: Mapping[str, Definition], *, by: str, now_ms: int) -> list[Said]:
    """Make new versions of what changed in the files since they were last taken over. Returns them.

    What was changed on the page stays until its file changes; what the page made stays without a file.
    """
    known = Known(log_)
    await known.look()
    changed = []
    for name, definition in files.items():
        before, digest = known.wanted.get(name), digest_of(definition)
        if before is None or before.from_file != digest or (before.is_gone and before.source == "file"):
            version = before.version + 1 if before is not None else 1
            changed.append(said_of(definition, version, by=by, source="file", now_ms=now_ms, from_file=digest))
    for name, said in known.wanted.items():
        if name not in files and said.from_file and not said.is_gone:
            changed.append(_gone(said, by, now_ms))
    gone = {said.name for said in changed if said.is_gone}
    staying = {name: definition for name, definition in known.definitions.items() if name not in gone}
    check_together({**staying, **files}, "segments")
    await _write(log_, changed)
    return changed


async def segment_names(log_: Log) -> set[str]:
    """Which segments there are to be."""
    known = Known(log_)
    await known.look()
    return set(known.definitions)


async def take_over_limits(log_: Log, limits: Limits, *, by: str, now_ms: int) -> None:
    """Write down what holds for the messages of all journeys, where it is something else than before."""
    known = Known(log_)
    await known.look()
    plain = limits.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if plain != known.limits:
        saved = SavedLimits(limits=plain, by=by, at_ms=now_ms)
        await log_.append(TOPIC, [Outgoing(LIMITS.encode(), encode_said(saved))])


def _gone(said: Said, by: str, now_ms: int) -> Said:
    return msgspec.structs.replace(
        said, version=said.version + 1, by=by, at_ms=now_ms, is_gone=True, from_file="", is_live=False
    )


async def _write(log_: Log, saids: Sequence[Said], *, is_live: bool = False) -> None:
    if saids:
        await log_.append(TOPIC, [
            Outgoing(f"{said.name}/{LIVE if is_live else said.version}".encode(), encode_said(said)) for said in saids
        ])  # fmt: skip


# --- making them live


@dataclass
class Progress:
    """How far new versions of segments and journeys are, for the page: what is done now, and of how many people."""

    names: tuple[str, ...] = ()
    step: str = ""
    done: int = 0
    of: int = 0
    errors: list[str] = field(default_factory=list)
    journeys: tuple[str, ...] = ()


class Coordinator:
    """Makes the newest versions live, all that wait together.

    Args:
        leads: says what partitions are to be told of journeys; None: nothing.

    Attributes:
        in_force: what they were told, once all of them were.
    """

    def __init__(
        self, log_: Log, analytics: Analytics, *, zone: str, rfm_minutes: int, leads: Leads | None = None
    ) -> None:
        self._log = log_
        self._analytics = analytics
        self._zone = zone
        self._rfm_every_ms = rfm_minutes * MINUTE_MS
        self._leads = leads
        self.known = Known(log_)
        self.progress = Progress()
        self.in_force = Led()
        self._coming: list[Said] = []

    async def run(self) -> None:
        look_up_at_s = 0.0
        while True:
            try:
                await self.go_on()
                if time.monotonic() >= look_up_at_s:
                    look_up_at_s = time.monotonic() + LOOK_UP_EVERY_S
                    await self.look_up_cuts()
                    if self._leads is not None:
                        await self._leads.look_up(self.known.told, time.time_ns() // 1_000_000)
                await asyncio.sleep(LOOK_EVERY_S)
            except TidewireError as error:
                log.warning("segments_wait", error=str(error), segments=sorted(self.known.pending(self._zone)))
                self.progress.errors = [str(error)]
                await asyncio.sleep(AGAIN_AFTER_S)

    async def go_on(self) -> None:
        """Look for what is new, and bring it into force."""
        known = self.known
        await known.look()
        await self._steer()
        led = await self._leads.news(known.told, known.limits, self._zone) if self._leads is not None else None
        if led is not None or known.pending(self._zone) or (known.told is not None and not known.told.is_settled):
            await self.make_live(led)
        elif known.told is not None:
            self.in_force = known.told.led

    async def make_live(self, led: Led | None = None) -> None:
        """Bring what is pending into force, and what people are led by from now on; None: as before."""
        pending, new, told = self.known.pending(self._zone), self.known.new(self._zone), self.known.told
        before = told.led.journeys if told is not None else []
        changed = {each.name for each in led.journeys if each not in before} if led is not None else set()
        self.progress = Progress(tuple(sorted(pending)), "remembering", journeys=tuple(sorted(changed)))
        live = [said for said in self.known.live.values() if not said.is_gone]
        remembered = conditions_told(told.led, told.zone) if told is not None else []
        coming = [said for said in new.values() if not said.is_gone]
        if led is not None:
            coming += conditions_told(led, self._zone)
        lacking = _lacking([*live, *remembered], coming, self._zone)
        self._coming = coming if lacking else []
        if lacking:
            await self._while_steering(self._prepare(await self._define(), lacking))
        # From here on there is no way back: a process that dies begins at this point again.
        await self._note(new.values(), is_settled=False)
        if led is not None and self._leads is not None:
            await self._note_led(self._leads.steered(led, self.known.limits), self._zone)  # reading the past takes long
        self._coming = []
        await (self._judge_everybody() if pending else self._define())
        await self._note([self.known.live[name] for name in pending], is_settled=True)
        await self._settle_led()
        self.progress = Progress()
        if pending:
            log.info("segments_live", segments={name: said.version for name, said in pending.items()})

    async def _steer(self) -> None:
        """Tell at once that a journey is paused, stopped or gone: that waits for nothing that is being prepared."""
        told = self.known.told
        if self._leads is None or told is None:
            return
        await self._leads.look()
        led = self._leads.steered(told.led, self.known.limits)
        if led != told.led:
            await self._note_led(led, told.zone)
            await self._define()
            await self._settle_led()

    async def _while_steering(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what takes long."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_EVERY_S))[0]:
                await self.known.look()
                await self._steer()
            await task
        finally:
            task.cancel()

    async def _note_led(self, led: Led, zone: str) -> None:
        """Write down by what people are led from here on."""
        told = self.known.told
        asks = told is not None and (asks_everybody(told.led, led) or (told.asks_everybody and not told.is_settled))
        await self._note_told(Told(led=led, zone=zone, at_ms=time.time_ns() // 1_000_000, asks_everybody=asks))

    async def _settle_led(self) -> None:
        """What follows once all partitions were told by what people are led."""
        told = self.known.told
        if told is not None and not told.is_settled:
            if told.asks_everybody:  # nobody waits for the end of it: it stands in the log
                await self._tell(Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=uuid4().hex))
            await self._note_told(msgspec.structs.replace(told, is_settled=True))
            log.info("journeys_live", journeys={each.name: f"{each.version} {each.status}"
                                                for each in told.led.journeys if each.is_newest})  # fmt: skip

    async def _note_told(self, told: Told) -> None:
        await self._log.append(TOPIC, [Outgoing(LED.encode(), encode_said(told))])
        await self.known.look()

    async def _note(self, saids: Iterable[Said], *, is_settled: bool) -> None:
        """Write down that people are judged by these."""
        await _write(self._log, [
            msgspec.structs.replace(said, is_live=True, zone=self._zone, is_settled=is_settled) for said in saids
        ], is_live=True)  # fmt: skip
        await self.known.look()

    async def look_up_cuts(self) -> None:
        """Find where the fifths of RFM meet now, where that is out of date, and score everybody anew."""
        now_ms = time.time_ns() // 1_000_000
        new = await look_up(self._analytics, self.known.cuts, now_ms=now_ms, every_ms=self._rfm_every_ms)
        is_changed = any(not cuts.says_the_same(self.known.cuts.get(name)) for name, cuts in new.items())
        self.known.cuts |= new
        if is_changed:
            self.progress = Progress()
            await self._judge_everybody()
            await self._log.append(TOPIC, [
                Outgoing(f"{workspace}/rfm".encode(), encode_said(cuts)) for workspace, cuts in new.items()
            ])  # fmt: skip
            self.progress = Progress()
            log.info("rfm", workspaces={workspace: cuts.customers for workspace, cuts in new.items()})

    async def _judge_everybody(self) -> None:
        """From here on people are judged by what is live, and everybody is once."""
        self.progress.step = "judging"
        sweep = uuid4().hex
        await self._define()
        await self._tell(Sweep(to=RULES_KEY, origin="", at_ms=0, sweep=sweep))
        await self._while_steering(self._until_swept(sweep))

    async def _define(self) -> dict[int, int]:
        """Tell every partition what is live, and to remember what will be. Returns where it was told."""
        told = self.known.told
        led = told.led if told is not None else Led()
        live = [definition_of(said) for said in self.known.live.values() if not said.is_gone]
        others = {said.name: said for said in conditions_told(led, self._zone)}
        others |= {said.name: said for said in self._coming}
        soon = [definition_of(said, is_live=False) for said in others.values()]
        said = [Said(name=each.name, version=each.version, when=msgspec.json.decode(canonical(each.when)),
                     title=each.title, is_live=each.is_live) for each in [*live, *soon]]  # fmt: skip
        cuts = [self.known.cuts[workspace] for workspace in sorted(self.known.cuts)]
        all_of_it = Definitions(zone=self._zone, definitions=said, cuts=cuts, journeys=led)
        encoded = msgspec.Raw(encode_definitions(all_of_it))
        placed = await self._tell(Define(to=RULES_KEY, origin="", at_ms=0, definitions=encoded))
        self.in_force = led
        return placed

    async def _tell(self, message: Define | Sweep) -> dict[int, int]:
        """Tell every partition. Returns where it was told."""
        value = encode_internal(message)
        placed = await self._log.append(EVENTS, [
            Outgoing(RULES_KEY.encode(), value, partition, HEADERS) for partition in range(self._log.partitions(EVENTS))
        ])  # fmt: skip
        return {place.partition: place.first for place in placed}

    async def _until_swept(self, sweep: str) -> None:
        """Wait until everybody was judged, and ClickHouse knows it."""
        partitions = self._log.partitions(EVENTS)
        while True:
            (swept,) = await self._analytics.query(_SWEPT, {"by": RULES_KEY, "sweep": sweep})
            self.progress.done, self.progress.of = swept["partitions"], partitions
            if swept["partitions"] >= partitions:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        ends = {partition: end - 1 for partition, (_, end) in (await self._log.bounds(EVENTS)).items()}
        await until_past(self._log, ends)  # who is in them stands in another table, which may be stored later

    async def _prepare(self, told: Mapping[int, int], lacking: Sequence[Selector]) -> None:
        """Have remembered what was told there, and what was before."""
        await until_past(self._log, told)
        await self._backfill(lacking)

    async def _backfill(self, selectors: Sequence[Selector]) -> None:
        """Send everybody what ClickHouse knows of her."""
        self.progress.step = "reading the past"
        before: dict[int, int] = {}
        last: dict[int, int] = {}
        for some in _batched(selectors, SELECTORS_AT_ONCE):
            async for people in self._past(some):
                await until_handled(self._log, before)
                await self._until_calm()
                messages = []
                for key, memories in people.items():
                    backfill = Backfill(to=key, origin="", at_ms=0, part=key, memories=encode_state(Memories(memories)))
                    messages.append(Outgoing(key.encode(), encode_internal(backfill), None, HEADERS))
                placed = await self._log.append(EVENTS, messages)
                before, last = last, {place.partition: place.first + place.count - 1 for place in placed}
                self.progress.done += len(people)

    async def _past(self, selectors: Sequence[Selector]) -> AsyncIterator[dict[str, dict[str, Memory]]]:
        """What ClickHouse knows of everybody, few people at a time."""
        from sinks.memories import memories_of, read_memories

        zone, ends = zone_named(self._zone), await self._refusals()
        async for people in read_memories(self._analytics, selectors, zone):
            # ClickHouse has an event before it hears that the stage refused it: whose that was are read again.
            for _ in range(MOST_ROUNDS):
                keys = await self._refused_since(ends) & people.keys()
                ends = await self._refusals()
                if not keys:
                    break
                again = await memories_of(self._analytics, selectors, zone, sorted(keys), longest_s=LONGEST_READ_S)
                people.update((key, again.get(key, {})) for key in keys)
            else:
                log.warning("refusals_without_end", people=len(keys))
            known = [(key, memories) for key, memories in people.items() if memories]
            for some in _batched(known, BACKFILLED_AT_ONCE):
                yield dict(some)

    async def _refusals(self) -> dict[int, int]:
        """Where topic `rejected` ends, once ClickHouse holds all of it."""
        ends = {partition: end for partition, (_, end) in (await self._log.bounds("rejected")).items()}
        await until_stored(self._log, "rejected", {partition: end - 1 for partition, end in ends.items() if end})
        return ends

    async def _refused_since(self, ends: Mapping[int, int]) -> set[str]:
        """The keys of events that were refused since topic `rejected` ended there, of all events there are by now."""
        bounds = await self._log.bounds(EVENTS)
        await until_handled(self._log, {partition: end - 1 for partition, (_, end) in bounds.items() if end})
        keys = set()
        for partition, (first, end) in (await self._log.bounds("rejected")).items():
            at = max(first, ends.get(partition, first))
            while at < end:
                records = await self._log.read(TP("rejected", partition), at, READ_AT_ONCE)
                keys |= {decode_rejected(record.value).key for record in records if record.value}
                at = records[-1].offset + 1 if records else end
        return keys

    async def _until_calm(self) -> None:
        """Wait while the stage is behind: what happens now comes before what happened long ago."""
        while True:
            committed, bounds = await self._log.committed(STAGE_GROUP, EVENTS), await self._log.bounds(EVENTS)
            done = {partition: max(first, committed.get(partition, first)) for partition, (first, _) in bounds.items()}
            if sum(end - done[partition] for partition, (_, end) in bounds.items()) < MOST_BEHIND:
                return
            await asyncio.sleep(LOOK_EVERY_S / 5)


def _batched(all_of_them: Sequence[Each], size: int) -> Iterator[Sequence[Each]]:
    for first in range(0, len(all_of_them), size):
        yield all_of_them[first : first + size]


def _lacking(live: Iterable[Said], new: Iterable[Said], zone: str) -> list[Selector]:
    """What the new ones ask for and nobody remembers yet."""
    known = {selector.id for said in live for selector in _selectors(said, said.zone or zone)}
    wanted = {selector.id: selector for said in new for selector in _selectors(said, zone)}
    return [selector for id, selector in wanted.items() if id not in known]


def _selectors(said: Said, zone: str) -> Iterator[Selector]:
    for leaf in leaves_of(read_condition(said.when)):
        selector = selector_of(leaf, zone)
        if selector is not None:
            yield selector
