"""The suppression list: addresses to which nothing is sent, whoever they belong to.

Topic `suppressions` keeps the newest word about every address, as a row of table `suppressions`: senders read on in it
before each message, and ClickHouse stores it. What somebody herself wants is consent, which is of a person and stands
in her profile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec
import structlog

from schemas.errors import TidewireError
from schemas.rows import TableRow, decode_table_row, encode_json
from schemas.templates import Channel, Class
from schemas.times import from_ms
from sinks.messages.tables import SUPPRESSIONS, SuppressionRow
from streams.log import TP, Log, Outgoing
from streams.sender import append_surely

log = structlog.get_logger(__name__)

TOPIC = "suppressions"
Reason = Literal["bounced", "complained", "blocked"]
"""`bounced`: nothing reaches it. `complained`: whoever reads there called a mail unwanted; what is no marketing, as a
receipt, is sent there still. `blocked`: somebody put it there."""
REASONS: Sequence[Reason] = ("bounced", "complained", "blocked")
MARKETING_ONLY: frozenset[Reason] = frozenset({"complained"})
READ_AT_ONCE = 2_000
APPENDED_AT_ONCE = 1_000
LONGEST_ADDRESS = 320
LONGEST_WHY = 300


class Suppression(NamedTuple):
    """An address to which nothing is sent; `why` in one line, `message`: of which one it came."""

    workspace: str
    channel: Channel
    address: str
    reason: Reason
    why: str = ""
    message: str = ""


def address_key(address: str) -> str:
    """The address as the list knows it: `Ada@Example.com ` and `ada@example.com` are one.

    >>> address_key(" Ada@Example.com")
    'ada@example.com'
    """
    return address.strip().lower()


async def suppress(log_: Log, suppressions: Iterable[Suppression], *, by: str, now_ms: int) -> None:
    """Put addresses on the list; durable when this returns.

    Raises:
        TidewireError: one is no address; none of them is on the list then.
        LogBusy: the log takes nothing just now.
    """
    outgoing = [_outgoing(each, by, now_ms) for each in suppressions]
    for first in range(0, len(outgoing), APPENDED_AT_ONCE):
        await log_.append(TOPIC, outgoing[first : first + APPENDED_AT_ONCE])


async def release(log_: Log, workspace: str, channel: Channel, address: str, *, by: str, now_ms: int) -> None:
    """Take an address off the list; raises like `suppress`."""
    gone = Suppression(workspace, channel, address, "blocked")
    await log_.append(TOPIC, [_outgoing(gone, by, now_ms, is_deleted=True)])


def _outgoing(each: Suppression, by: str, now_ms: int, *, is_deleted: bool = False) -> Outgoing:
    address = address_key(each.address)
    if not address or len(address) > LONGEST_ADDRESS or not address.isprintable() or " " in address:
        raise TidewireError(f"{each.address!r:.80} is no address.")
    row = SuppressionRow(channel=each.channel, address=address, reason=each.reason, why=each.why[:LONGEST_WHY],
                         message=each.message, said_by=by, since=from_ms(now_ms))  # fmt: skip
    value = TableRow(table=SUPPRESSIONS.name, workspace=each.workspace, key="", version=now_ms, is_deleted=is_deleted,
                     values=msgspec.Raw(encode_json(row)))  # fmt: skip
    return Outgoing(f"{each.workspace}/{each.channel}/{address}".encode(), encode_json(value))


class Suppressions:
    """The list as this process knows it: some 100 bytes an address."""

    def __init__(self, log_: Log) -> None:
        self._log = log_
        self._reasons: dict[bytes, Reason] = {}
        self._next: dict[int, int] = {}
        self._begun = self._done = 0  # looks: the number of the last that was begun, and of the last that succeeded
        self._looking = asyncio.Lock()

    async def catch_up(self) -> None:
        """Return when all is known here that was on the list when this was called; the first time reads all of it.
        Those who ask together share a look.

        Raises:
            Unreachable: the log is away.
        """
        before = self._begun
        async with self._looking:
            if self._done <= before:  # none that began since has succeeded
                self._begun += 1
                await self._look()
                self._done = self._begun

    def reason(self, workspace: str, channel: Channel, address: str, kind: Class) -> Reason | None:
        """Why a message of this kind is not sent to this address; None: it may be."""
        reason = self._reasons.get(_digest(workspace, channel, address_key(address)))
        return None if reason in MARKETING_ONLY and kind != "marketing" else reason

    async def add(self, suppression: Suppression, *, by: str) -> None:
        """Put an address on the list, for this process at once; waits while the log is away."""
        await append_surely(self._log, TOPIC, [_outgoing(suppression, by, time.time_ns() // 1_000_000)])
        workspace, channel, address, reason, *_ = suppression
        self._reasons[_digest(workspace, channel, address_key(address))] = reason

    async def _look(self) -> None:
        for partition, (first, end) in (await self._log.bounds(TOPIC)).items():
            at = max(first, self._next.get(partition, 0))
            while at < end:
                records = await self._log.read(TP(TOPIC, partition), at, READ_AT_ONCE)
                for record in records:
                    if record.value:
                        self._take(record.value)
                at = records[-1].offset + 1 if records else end
                self._next[partition] = at

    def _take(self, value: bytes) -> None:
        try:
            row = decode_table_row(value)
            said = msgspec.convert(row.values, SuppressionRow)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            log.error("suppression_unreadable", error=str(error))  # the sink makes a dead letter of it
            return
        known = _digest(row.workspace, said.channel, said.address)
        if row.is_deleted:
            self._reasons.pop(known, None)
        else:
            # A word that a newer program knows is taken for one that stops everything.
            self._reasons[known] = next((each for each in REASONS if each == said.reason), "blocked")


def _digest(workspace: str, channel: str, address: str) -> bytes:
    return blake2b(f"{workspace}/{channel}/{address}".encode(), digest_size=8).digest()
