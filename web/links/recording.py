"""What people do with links becomes events of theirs, by the same checks as those that the collector takes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import structlog

from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from schemas.keys import split_key
from schemas.messages import SOURCE
from sinks.messages.links import Mailed
from streams.lines import EVENTS
from streams.log import Log, LogBusy, Outgoing
from streams.metrics import LinkMetrics
from streams.outbox import effect_id
from web.collector.ingest import LAG_RETRY_S, now

PATIENCE_S = 1.0  # that a reader waits for the log, at most, before she is sent on
MOST_AT_WORK = 1_000  # events that the log has not answered; beyond, openings and clicks are lost
MOST_KNOWN = 20_000  # openings and clicks of the last minutes that are not stored a second time

log = structlog.get_logger(__name__)


class Reader(NamedTuple):
    """Who asks: what is written into `context` of her events."""

    ip: str
    user_agent: str


class NotTaken(Exception):
    """The log has not taken what she said; she is to say it again after `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"again in {retry_after_s} s")


class Recorder:
    """Writes the events.

    Args:
        patience_s: how long an opening or a click is waited for.
        clock: the time of day, in UTC.
    """

    def __init__(self, log_: Log, metrics: LinkMetrics, *, patience_s: float = PATIENCE_S,
                 clock: Callable[[], datetime] = now) -> None:  # fmt: skip
        self._log = log_
        self._metrics = metrics
        self._patience_s = patience_s
        self._clock = clock
        self._known: OrderedDict[str, None] = OrderedDict()
        self._at_work: set[asyncio.Task[None]] = set()

    async def count(self, name: str, mailed: Mailed, reader: Reader, properties: Mapping[str, Any]) -> None:
        """She opened or clicked. Never raises, and never takes long: what the log does not take is counted as lost.

        What is the same within a minute by the clock has the same messageId, so that a request sent again counts once.
        """
        minute = int(self._clock().timestamp()) // 60
        message_id = effect_id(mailed.message, mailed.person, name, *properties.values(), minute)
        if message_id in self._known:
            return
        if len(self._at_work) >= MOST_AT_WORK:
            self._metrics.lost.labels("log").inc()
            return
        task = asyncio.create_task(self._append(name, mailed, reader, properties, message_id))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        await asyncio.wait({task}, timeout=self._patience_s)

    async def say(self, name: str, mailed: Mailed, reader: Reader, properties: Mapping[str, Any]) -> None:
        """She said what she wants to get. Returns when the log has it durably.

        Each time is a word of its own: who leaves a topic, comes back and leaves it again has left it.

        Raises:
            NotTaken
        """
        try:
            await self._log.append(EVENTS, [event_of(name, mailed, reader, properties, uuid4().hex, self._clock())])
        except LogBusy as busy:
            log.warning("consent_not_stored", error=str(busy))
            raise NotTaken(busy.retry_after_s) from None
        except Exception:
            log.exception("consent_not_stored")
            raise NotTaken(LAG_RETRY_S) from None

    async def _append(self, name: str, mailed: Mailed, reader: Reader, properties: Mapping[str, Any],
                      message_id: str) -> None:  # fmt: skip
        try:
            await self._log.append(EVENTS, [event_of(name, mailed, reader, properties, message_id, self._clock())])
        except LogBusy as busy:
            log.warning("reading_not_stored", error=str(busy))
            self._metrics.lost.labels("log").inc()
        except Exception:
            log.exception("reading_not_stored")
            self._metrics.lost.labels("log").inc()
        else:
            self._known[message_id] = None
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)


def event_of(name: str, mailed: Mailed, reader: Reader, properties: Mapping[str, Any], message_id: str,
             at: datetime) -> Outgoing:  # fmt: skip
    """What somebody did with a message, as an event of hers at that time; what is empty is left out."""
    workspace, kind, id_ = split_key(mailed.person)
    said = {"message_id": mailed.message, "template": mailed.template, "topic": mailed.topic,
            "channel": mailed.channel, **properties}  # fmt: skip
    context = {"library": {"name": SOURCE}, "userAgent": reader.user_agent, "ip": reader.ip}
    call = {
        "messageId": message_id, "event": name, "userId" if kind == "u" else "anonymousId": id_,
        "properties": {name: value for name, value in said.items() if value not in ("", None)},
        "context": {name: value for name, value in context.items() if value},
    }  # fmt: skip
    event = read_event(msgspec.json.encode(call), "track", Arrival(workspace, SOURCE, at))
    return Outgoing(event.key.encode(), encode_event(event))


