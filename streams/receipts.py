"""Receipts: what became of a message, as events of the person it was for; and what servers report of it later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from schemas.event import Event, encode_event
from schemas.keys import split_key
from schemas.messages import SOURCE
from schemas.templates import Channel
from schemas.times import to_ms
from sinks.messages.reports import Report
from streams.lines import EVENTS
from streams.log import Log, Outgoing
from streams.outbox import effect_id
from streams.suppressions import Reason, Suppression, suppress

BY = "report"
BOUNCED, COMPLAINED, DELIVERED = "Message Bounced", "Message Complained", "Message Delivered"
_CONTEXT = msgspec.Raw(b'{"library":{"name":"tidewire"}}')


def receipt(name: str, person: str, message_id: str, said: Mapping[str, Any], at: datetime) -> Event:
    """An event of hers that tells what became of a message; what is empty of `said` is left out."""
    workspace, kind, id_ = split_key(person)
    return Event(
        message_id=message_id, type="track", event=name, workspace=workspace, source=SOURCE, timestamp=at,
        received_at=at, user_id=id_ if kind == "u" else "", anonymous_id=id_ if kind == "a" else "",
        raw_context=_CONTEXT,
        raw_properties=msgspec.Raw(msgspec.json.encode({name: value for name, value in said.items() if value})),
    )  # fmt: skip


async def take_report(log_: Log, report: Report, row: Mapping[str, Any], at: datetime) -> str:
    """What a report says of a message becomes an event of whoever it was for, and its address comes on the suppression
    list where nothing can reach it, or where it was called unwanted. The same report again is the same event.

    Args:
        row: of table `messages`. The address is that of the message: a report may name whichever it likes.

    Returns:
        What was done, as one word: `bounced`, `complained`, `delivered`, or `nothing`.

    Raises:
        LogBusy: the log takes nothing just now; the report is to be given again.
    """
    names = {"bounced": (BOUNCED,), "complained": (COMPLAINED, "Unsubscribed"), "delivered": (DELIVERED,)}
    events = names.get(report.kind, ())
    if not events:
        return "nothing"
    channel: Channel = row["channel"]
    if row["address"] and (report.is_address or report.kind == "complained"):
        reason: Reason = "complained" if report.kind == "complained" else "bounced"
        address = Suppression(split_key(row["person"])[0], channel, row["address"], reason, report.why, row["id"])
        await suppress(log_, [address], by=BY, now_ms=to_ms(at))
    said = {"message_id": row["id"], "template": row["template"], "channel": channel, "topic": row["topic"],
            "kind": row["kind"], "reason": report.why, "status": report.status}  # fmt: skip
    for name in events:
        if name != "Unsubscribed" or row["topic"]:  # what needed no consent has none to withdraw
            event = receipt(name, row["person"], effect_id(row["id"], name, BY), said, at)
            await log_.append(EVENTS, [Outgoing(event.key.encode(), encode_event(event))])
    return report.kind
