"""Hands messages over to their channels, a few at a time.

    Offer    (stage of messages)   a message waits for a turn of its channel
    Prepare  (here, to `events`)   may it be sent now, and with what is it filled in?
    Attempt  (stage of messages)   it may; the mailbox that says so is durable
    Outcome  (here, to `messages`) what the channel said

Nothing here needs to survive: what is lost with the process is offered again, or its lease runs out.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, get_args

import msgspec
import structlog

from config.channels import INBOX, LONGEST_CALL_S, OUTBOX, ChannelSettings
from processors.coupon import still_good
from schemas.errors import Unreachable
from schemas.internal import HEADERS, Prepare, encode_internal
from schemas.keys import split_key
from schemas.messages import Order, Outcome, Result, address_of, encode_of_message
from schemas.templates import Channel as ChannelName
from sinks.messages.channel import Accepted, Channel, Declined, Later, Message, Unknown
from sinks.messages.channel import Outcome as Said
from sinks.messages.links import Mailed
from sinks.messages.rendering import Template
from sinks.messages.templating import CannotFill
from sinks.messages.tracking import Links
from streams.lines import EVENTS, MESSAGES
from streams.log import Log, Outgoing, partition_of
from streams.messages import LEASE_MS, Attempt, Ended, Offer
from streams.metrics import DispatchMetrics
from streams.sender import append_surely
from streams.suppressions import Suppression, Suppressions

log = structlog.get_logger(__name__)

MOST_WAITING = 1_000  # offers of a channel that wait here; the others wait on disk
ASKED_S = 60.0  # so long an offer keeps its slot: the customer stage may be behind
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0  # of a channel that takes nothing from anybody
LEAVE_S = 20.0  # that calls under way are waited for when the process is to end

TemplateOf = Callable[[str], Template | str]
_decode_sections = msgspec.json.Decoder(dict[str, Any]).decode


class Filled(NamedTuple):
    """A message, and the version of the template that it was filled in from."""

    message: Message
    version: str


class Suppressed(NamedTuple):
    """Nothing is sent to her address, for this reason."""

    reason: str


class Slot(NamedTuple):
    """Of a message under way: whose it is, and until when it is held unless given back."""

    to: str
    until: float


class Lane:
    """One channel: who waits, and how many may go."""

    def __init__(self, name: ChannelName, channel: Channel, settings: ChannelSettings) -> None:
        self.name, self.channel, self.settings = name, channel, settings
        self.waiting: deque[Offer] = deque()
        self.under_way: dict[str, Slot] = {}  # by message id
        self.rests_until = 0.0
        self._failures = 0
        self._tokens, self._filled_at = 1.0, time.monotonic()
        self._ids: set[str] = set()

    @property
    def room(self) -> int:
        return MOST_WAITING - len(self.waiting)

    @property
    def is_resting(self) -> bool:
        return time.monotonic() < self.rests_until

    def rests(self) -> float:
        return float(self.is_resting)

    def add(self, offer: Offer) -> None:
        """An offer that there is no room for comes again later."""
        if offer.order.id not in self._ids and offer.order.id not in self.under_way and self.room > 0:
            self.waiting.append(offer)
            self._ids.add(offer.order.id)

    def take(self) -> list[Offer]:
        """Those whose turn it is."""
        now = time.monotonic()
        for id_ in [id_ for id_, slot in self.under_way.items() if slot.until <= now]:
            del self.under_way[id_]
        rate = self.settings.rate
        self._tokens = min(self._tokens + (now - self._filled_at) * rate, max(rate, 1.0))
        self._filled_at = now
        if self.is_resting:
            return []
        slots = (1 if self._failures else self.settings.at_once) - len(self.under_way)
        taken = [self.waiting.popleft() for _ in range(max(0, min(slots, len(self.waiting), int(self._tokens))))]
        self._tokens -= len(taken)
        for offer in taken:
            self._ids.discard(offer.order.id)
            self.under_way[offer.order.id] = Slot(offer.order.to, now + ASKED_S)
        return taken

    def begins(self, order: Order) -> None:
        """Its call begins: it keeps its slot until `ended`, also if another process had asked for its turn."""
        self.under_way[order.id] = Slot(order.to, math.inf)

    def ended(self, order: Order) -> None:
        self.under_way.pop(order.id, None)

    def keep(self, is_here: Callable[[str], bool]) -> None:
        """Those whose mailboxes are elsewhere now are offered, and called, there; only calls that began here go on."""
        kept = [offer for offer in self.waiting if is_here(offer.order.to)]
        self.waiting.clear()
        self.waiting.extend(kept)
        self._ids = {offer.order.id for offer in kept}
        for id_, slot in list(self.under_way.items()):
            if slot.until < math.inf and not is_here(slot.to):
                del self.under_way[id_]

    def heard(self, said: Said) -> float:
        """What the channel said. Returns for how long it rests now: twice as long with every failure, but for the first
        that takes something."""
        if not (isinstance(said, Later) and said.is_down):
            self._failures = 0
            self.rests_until = 0.0
            return 0.0
        if not self.is_resting:  # those that were under way together fail together
            self._failures += 1
        rest_s: float = max(min(FIRST_REST_S * 2 ** (self._failures - 1), LONGEST_REST_S), said.after_s or 0.0)
        self.rests_until = time.monotonic() + rest_s
        log.warning("channel_is_down", channel=self.name, why=said.why, rests_s=round(rest_s, 1))
        return rest_s


class Dispatcher:
    """Hands over what the stage of messages wants handed over.

    Args:
        channels: how each works, and what its messages leave through.
        template_of: a template by its name, or what is wrong with it.
        suppressions: the addresses to which nothing is sent.
        links: makes the links of messages; None: nobody can reach the collector from outside.
    """

    def __init__(
        self, log_: Log, channels: Mapping[ChannelName, tuple[ChannelSettings, Channel]], template_of: TemplateOf,
        suppressions: Suppressions, metrics: DispatchMetrics, *, links: Links | None = None, lease_ms: int = LEASE_MS,
        call_s: float = LONGEST_CALL_S,
    ) -> None:  # fmt: skip
        self._log = log_
        self._lanes = {name: Lane(name, channel, settings) for name, (settings, channel) in channels.items()}
        self._template_of = template_of
        self._suppressions = suppressions
        self._links = links
        self._metrics = metrics
        self._patience_s = lease_ms / 1000 - call_s  # an attempt that begins later could outlast its lease
        self._call_s = call_s
        self._turn = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: asyncio.Task[None] | None = None
        self._on_failure: Callable[[BaseException], None] = _raise
        for name, lane in self._lanes.items():
            metrics.waiting.labels(name).set_function(partial(_count, lane.waiting))
            metrics.under_way.labels(name).set_function(partial(_count, lane.under_way))
            metrics.resting.labels(name).set_function(lane.rests)
            metrics.seconds.labels(name)
            for result in get_args(Result):  # an alarm sees no first one else
                metrics.attempts.labels(name, result)

    @property
    def room(self) -> int:
        """How many more offers are welcome: where one channel stands still, the others go on."""
        return max((lane.room for lane in self._lanes.values()), default=0)

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Begin. `on_failure` is told of a mistake of ours."""
        self._on_failure = on_failure
        self._turns = asyncio.create_task(self._take_turns(), name="dispatch")
        self._turns.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)

    async def stop(self) -> None:
        """Begin nothing more, and wait for the calls under way; those that take too long are left to their lease."""
        if self._turns is not None:
            self._turns.cancel()
            await asyncio.gather(self._turns, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes.values():
            await lane.channel.close()

    def then(self, wanted: Sequence[Any]) -> None:
        """What the stage of messages wants, now that it is durable."""
        for each in wanted:
            lane = self._lanes[each.order.channel]
            match each:
                case Offer():
                    lane.add(each)
                case Ended():
                    lane.ended(each.order)
                case Attempt():
                    lane.begins(each.order)
                    task = asyncio.create_task(self._attempt(lane, each, time.monotonic()))
                    self._tasks.add(task)
                    task.add_done_callback(self._ended)
        self._turn.set()

    def owns(self, partitions: Collection[int]) -> None:
        """Of topic `messages`, this process has these partitions now and no others."""
        count = self._log.partitions(MESSAGES.topic)
        for lane in self._lanes.values():
            lane.keep(lambda key: partition_of(key.encode(), count) in partitions)
        self._turn.set()

    # --- turns

    async def _take_turns(self) -> None:
        while True:
            taken = [offer for lane in self._lanes.values() for offer in lane.take()]
            if taken:
                await append_surely(self._log, EVENTS, [_prepare(offer) for offer in taken])
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._turn.wait()
            self._turn.clear()

    def _pause_s(self) -> float:
        """Until somebody's turn may come without anything happening."""
        waits = [max(lane.rests_until - time.monotonic(), 1.0 / lane.settings.rate, 0.005)
                 for lane in self._lanes.values() if lane.waiting]  # fmt: skip
        return min((*waits, 1.0))

    # --- attempts

    async def _attempt(self, lane: Lane, attempt: Attempt, since: float) -> None:
        order, via = attempt.order, lane.settings.via
        filled: Filled | Declined | Later | Suppressed
        try:
            await self._suppressions.catch_up()  # what was put on the list before now counts
        except Unreachable as error:
            filled = Later(f"the suppression list could not be read: {error}")
        else:
            filled = await asyncio.to_thread(self._filled, attempt)
        if isinstance(filled, Filled):
            said = await self._tried(lane, attempt, filled.message, since)
            outcome = _outcome(attempt, said, filled, via, rest_s=lane.heard(said))
        else:
            outcome = _outcome(attempt, filled, None, via)
        await append_surely(self._log, MESSAGES.topic, [Outgoing(order.to.encode(), encode_of_message(outcome))])
        self._metrics.attempts.labels(lane.name, outcome.result).inc()
        lane.ended(order)
        self._turn.set()

    async def _tried(self, lane: Lane, attempt: Attempt, message: Message, since: float) -> Said:
        began = time.monotonic()
        if began - since > self._patience_s:  # the process stood still
            return Later("its time had passed before it could be handed over")
        said = await self._handed_over(lane, message)
        self._metrics.seconds.labels(lane.name).observe(time.monotonic() - began)
        if isinstance(said, Declined) and said.is_address:
            bounced = Suppression(split_key(attempt.person)[0], lane.name, message.to, "bounced", said.why, message.id)
            await self._suppressions.add(bounced, by=lane.settings.via)
        return said

    async def _handed_over(self, lane: Lane, message: Message) -> Said:
        try:
            async with asyncio.timeout(self._call_s):
                return await lane.channel.send(message)
        except TimeoutError:
            return Unknown(f"no answer within {self._call_s:.0f} s")
        except Exception as error:  # a mistake of ours, in the middle of a call
            log.exception("channel_failed", channel=lane.name, message=message.id)
            return Unknown(f"the channel failed: {error!r}")

    def _filled(self, attempt: Attempt) -> Filled | Declined | Suppressed:
        """The message as she is to read it, or why she is not sent it."""
        order = attempt.order
        template = self._template_of(order.template)
        if isinstance(template, str):
            return Declined(template)
        if template.channel != order.channel or template.topic != order.topic:
            return Declined(f'template "{order.template}" was changed since: its channel or topic is another')
        sections = still_good(_decode_sections(attempt.sections), time.time_ns() // 1_000_000)
        address = address_of(order.channel, attempt.person, sections.get("profile"))
        if reason := self._suppressions.reason(split_key(attempt.person)[0], order.channel, address, order.kind):
            return Suppressed(reason)
        via, links = self._lanes[order.channel].settings.via, self._links
        if links is None and via != OUTBOX and order.channel == "email" and order.kind == "marketing":
            return Declined("there is no way for her to unsubscribe: set `public_url`, see docs/links.md")
        mailed = Mailed(order.id, attempt.person, order.template, order.topic, order.channel)
        own = {} if links is None else {
            "unsubscribe": links.unsubscribe_url(mailed), "preferences": links.preferences_url(mailed)
        }  # fmt: skip
        try:
            content = template.render(sections, order.given, own)
        except CannotFill as cannot:
            return Declined(str(cannot))
        except Exception as error:  # a mistake of ours: it must not keep the others from leaving
            log.exception("template_failed", template=order.template, message=order.id)
            return Declined(f"it could not be filled in, a fault in Tidewire itself: {error!r}")
        # What stays here is opened by who looks at it, and of her inbox her app says what she read.
        if self._links is not None and content.html and via not in (OUTBOX, INBOX):
            content = content._replace(html=self._links.tracked(content.html, mailed))
        message = Message(order.id, attempt.person, address, order.template, order.kind, order.topic, content,
                          own.get("unsubscribe", ""))  # fmt: skip
        return Filled(message, template.version)


def _raise(error: BaseException) -> None:
    raise error


def _count(of: Sized) -> float:
    return len(of)


def _prepare(offer: Offer) -> Outgoing:
    order = offer.order
    prepare = Prepare(to=order.to, origin="", at_ms=0, mailbox=order.to, id=order.id, attempt=offer.attempt,
                      channel=order.channel, topic=order.topic)  # fmt: skip
    return Outgoing(order.to.encode(), encode_internal(prepare), None, HEADERS)


def _outcome(
    attempt: Attempt, said: Said | Suppressed, filled: Filled | None, via: str, rest_s: float = 0.0
) -> Outcome:
    outcome = Outcome(to=attempt.order.to, id=attempt.order.id, attempt=attempt.attempt, result="accepted", via=via)
    if filled is not None:
        outcome.address, outcome.version = filled.message.to, filled.version
    match said:
        case Accepted():
            outcome.reference = said.reference
        case Later():
            outcome.result, outcome.why = "later", said.why
            outcome.after_ms, outcome.counts = int(max(said.after_s or 0.0, rest_s) * 1000), not said.is_down
        case Declined():
            outcome.result, outcome.why, outcome.is_address = "declined", said.why, said.is_address
        case Unknown():
            outcome.result, outcome.why = "unknown", said.why
        case Suppressed():
            outcome.result, outcome.why = "withheld", said.reason
    return outcome
