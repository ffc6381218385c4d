"""Sending refused events again, as they are or mended. Used by the pages and by `tidewire rejected redrive`.

An event is sent again only when everything that may refuse it now takes it: the collector's intake (for what the
collector refused), the rules of an event, and the check of every processor. Else nothing changes and the refusal is
raised. What is sent has one `attempt` more than what was refused, so in ClickHouse it takes the place of the first,
and the customer stage takes it although it refused its message id. Only what ClickHouse alone refused keeps its
attempt: the stage has applied it, and must know it again.

A dead letter stays as it is. That it was sent again is a line of the ledger (topic `decisions`): processor `redrive`,
kind `redriven`, about the letter's id, with the place of the new record as its cause. The event is appended before
the line: after a crash between the two the letter still counts as open, and sending it once more changes nothing,
because the customer stage remembers the message id.

**Several at once keep the order of each person.** They go in the order in which they came: by time, those of a
partition as they stood there, those of one request as they stood in it. When one of a person would be refused again,
the later ones of the same person are held back: mend the first, then send the rest.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from schemas.errors import Refused
from schemas.event import Event, decode_event, encode_event
from schemas.intake import Arrival, read_event
from schemas.rejected import Rejected
from schemas.rows import LedgerLine, encode_json
from streams.log import Log, Outgoing, partition_of

PROCESSOR = "redrive"
KIND = "redriven"
TOPIC = "events"
SENT_AT_ONCE = 500  # letters of one append

Check = Callable[[Event], None]
"""Asks every processor, as `processors.fold.Fold.check` does; raises Refused."""


def is_redrivable(letter: Rejected) -> bool:
    """Whether the letter holds an event. Rows and portraits that ClickHouse refused are made anew by a replay."""
    return letter.topic in ("", TOPIC)


def body_of(letter: Rejected) -> str:
    """The refused event as JSON to be mended, indented; what is not JSON as it came."""
    text = letter.record.decode("utf-8", "replace")
    try:
        body = msgspec.json.decode(letter.record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text
    try:
        return msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return text


def mended_event(letter: Rejected, record: bytes | None, check: Check, workspace: str) -> Event:
    """The event that is to be sent again. `record` is the mended body; None: as it is.

    `workspace` is whose it becomes where the letter does not say.

    Raises:
        Refused: it would be refused again, with the reason.
    """
    if not is_redrivable(letter):
        raise Refused(f"a record of topic {letter.topic} cannot be sent again",
                      mend="Replay the events it was made from instead.")  # fmt: skip
    raw = letter.record if record is None else record
    if letter.topic == TOPIC:
        event = decode_event(raw)
    else:
        owner = letter.workspace or workspace
        arrival = Arrival(workspace=owner, source=letter.source or PROCESSOR, received_at=letter.at, is_public=True)
        event = read_event(raw, "", arrival)
        if "message_id_made" in event.flags:
            # Else each press of the button would be another event.
            event = msgspec.structs.replace(event, message_id=f"redriven-{letter.id}"[:100])
    if letter.workspace and event.workspace != letter.workspace:
        raise Refused("an event stays in its workspace", field="workspace", value=event.workspace,
                      mend=f"Leave it {letter.workspace!r}.")  # fmt: skip
    is_applied = letter.by == "clickhouse"
    event = msgspec.structs.replace(event, attempt=attempt_of(letter) + (not is_applied))
    check(event)
    return event


def already_sent(letter_id: str) -> Refused:
    """The refusal of a letter that was sent again before: as the same attempt it would be taken for a duplicate."""
    return Refused("this record was sent again already", field="id", value=letter_id,
                   mend="If it was refused once more, there is a new letter for it.")  # fmt: skip


def attempt_of(letter: Rejected) -> int:
    """How often the refused event had been sent again before; 0 where it does not say."""
    try:
        body = msgspec.json.decode(letter.record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    attempt = body.get("attempt", 0) if isinstance(body, dict) and letter.topic == TOPIC else 0
    return attempt if isinstance(attempt, int) and 0 <= attempt < 1_000 else 0


class Redriven(NamedTuple):
    """What became of letters that were sent again together.

    Attributes:
        held: how many were held back, as an earlier one of the same person would be refused again.
        why: the reason of the first that would be refused again.
    """

    sent: int
    refused: int
    held: int
    why: str


def in_order(letters: Iterable[Rejected]) -> list[Rejected]:
    """The letters as their events came: by time, and of one partition as they stood in it."""
    ordered = sorted(letters, key=lambda letter: (letter.at, letter.topic, letter.partition, letter.offset, letter.id))
    of_partition: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, letter in enumerate(ordered):
        if letter.topic:
            of_partition[letter.topic, letter.partition].append(place)
    for places in of_partition.values():  # clocks of several collectors differ; the log decides what came first
        inside = sorted((ordered[place] for place in places), key=lambda letter: letter.offset)
        for place, letter in zip(places, inside, strict=True):
            ordered[place] = letter
    return ordered


async def redrive_all(log: Log, letters: Iterable[Rejected], check: Check, workspace: str, now: datetime) -> Redriven:
    """Send many letters again, as they are, and write each into the ledger; of each person in the order they came.

    Raises:
        LogBusy: the log cannot take it now. What was sent until then is sent; the others are open still.
    """
    refused = held = sent = 0
    why = ""
    blocked: set[str] = set()  # persons with a letter that would be refused again
    ready: list[tuple[Rejected, Event]] = []
    for letter in in_order(letters):
        if letter.key and letter.key in blocked:
            held += 1
            continue
        try:
            ready.append((letter, mended_event(letter, None, check, workspace)))
        except Refused as again:
            refused, why = refused + 1, why or str(again)
            if is_redrivable(letter):  # rows are no events: nothing of hers has to wait for them
                blocked.add(letter.key)
        if len(ready) == SENT_AT_ONCE:
            sent += await _send(log, ready, now)
            ready = []
            await asyncio.sleep(0)
    sent += await _send(log, ready, now)
    return Redriven(sent, refused, held, why)


async def _send(log: Log, ready: list[tuple[Rejected, Event]], now: datetime) -> int:
    """Append the events, those of a person in order, then the lines of the ledger."""
    events = [Outgoing(event.key.encode(), encode_event(event)) for _, event in ready]
    free = {place.partition: place.first for place in await log.append(TOPIC, events)}
    lines = []
    for letter, event in ready:
        partition = partition_of(event.key.encode(), log.partitions(TOPIC))
        lines.append(_line(letter, event, f"{TOPIC}-{partition}@{free[partition]}", now, is_changed=False))
        free[partition] += 1
    await log.append("decisions", lines)
    return len(ready)


def _line(letter: Rejected, event: Event, cause: str, now: datetime, *, is_changed: bool) -> Outgoing:
    line = LedgerLine(
        id=blake2b(f"{letter.id}\0{cause}".encode(), digest_size=16).hexdigest(),
        workspace=event.workspace,
        person=event.key,
        at=now,
        processor=PROCESSOR,
        kind=KIND,
        about=letter.id,
        cause=cause,
        facts={"reason": letter.reason, "message_id": event.message_id, "attempt": event.attempt,
               "changed": is_changed},
    )  # fmt: skip
    return Outgoing(event.key.encode(), encode_json(line))


async def redrive(log: Log, letter: Rejected, record: bytes | None, check: Check, workspace: str,
                  now: datetime) -> Event:  # fmt: skip
    """Send a refused event again and write it into the ledger; returns when both are stored.

    Raises:
        Refused: it would be refused again; nothing was changed.
        LogBusy: the log cannot take it now; try again.
    """
    event = mended_event(letter, record, check, workspace)
    placed = (await log.append(TOPIC, [Outgoing(event.key.encode(), encode_event(event))]))[0]
    cause = f"{TOPIC}-{placed.partition}@{placed.first}"
    await log.append("decisions", [_line(letter, event, cause, now, is_changed=record is not None)])
    return event
