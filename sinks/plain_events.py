"""Events as nearly all are, from their bytes straight to a row of table `events`.

The types of one struct prove what `schemas.event.check_event` asks and what the columns can hold. Whatever does not fit
them goes the way of sinks/events.py, which handles every event there can be; so nothing is decided here: of each record
comes the very row that `row_of` makes of its event, or none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw

from schemas.event import LONGEST_MESSAGE_ID, LONGEST_NAME
from schemas.keys import BLOCKED_IDS, LONGEST_ID, WORKSPACE_PATTERN
from schemas.times import DAY_MS, EPOCH, to_ms
from sinks.events import (
    MOST_ATTEMPTS,
    NO_CAMPAIGN,
    NO_PAGE,
    context_of,
    order_id_of,
    properties_of,
    text_of,
    version_of,
)

_LATEST = datetime(2149, 1, 1, tzinfo=UTC)  # the columns can hold it, and no clock says more
_EMPTY = Raw(b"{}")
_Id = Annotated[str, Meta(max_length=LONGEST_ID)]
_Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
_Time = Annotated[datetime, Meta(tz=True)]


class _Event(msgspec.Struct, rename="camel", gc=False):
    """A record of topic `events` that breaks no rule; groups and aliases have rules of their own."""

    message_id: Annotated[str, Meta(min_length=1, max_length=LONGEST_MESSAGE_ID)]
    type: Literal["identify", "track", "page", "screen"]
    workspace: str
    source: str
    timestamp: _Time
    received_at: _Time
    original_timestamp: _Time | None = None
    sent_at: _Time | None = None
    user_id: _Id = ""
    anonymous_id: _Id = ""
    group_id: Literal[""] = ""
    previous_id: Literal[""] = ""
    event: _Name = ""
    name: _Name = ""
    category: _Name = ""
    context: Raw = _EMPTY
    properties: Raw = _EMPTY
    traits: Raw = _EMPTY
    integrations: Raw = _EMPTY
    extra: Raw = _EMPTY
    flags: tuple[str, ...] = ()
    attempt: Annotated[int, Meta(ge=0, le=MOST_ATTEMPTS)] = 0


_decode = msgspec.json.Decoder(_Event).decode
_LABELS = {"identify": "Identify", "page": "Page", "screen": "Screen"}


@lru_cache(maxsize=10_000)
def _is_workspace(name: str) -> bool:
    return WORKSPACE_PATTERN.match(name) is not None


def plain_row(value: bytes) -> tuple[Any, ...] | None:
    """The row, its values in the order of `sinks.events.NAMES`; None: `row_of` is to make it, if it is an event."""
    try:
        event = _decode(value)
        workspace, user_id, anonymous_id, kind = event.workspace, event.user_id, event.anonymous_id, event.type
        if anonymous_id and anonymous_id.strip().lower() in BLOCKED_IDS:
            return None
        if user_id:
            if user_id.strip().lower() in BLOCKED_IDS:
                return None
            key = f"{workspace}/u:{user_id}"
        elif anonymous_id:
            key = f"{workspace}/a:{anonymous_id}"
        else:
            return None
        label = event.event if kind == "track" else _LABELS[kind]
        if not label or not _is_workspace(workspace):
            return None

        at, received, original, sent = event.timestamp, event.received_at, event.original_timestamp, event.sent_at
        if not (EPOCH < at < _LATEST and EPOCH < received < _LATEST):
            return None
        at_ms, received_ms, original_ms, sent_ms, day = to_ms(at), to_ms(received), None, None, 0
        if original is not None:
            if original == at:  # as where nothing had to be corrected
                original_ms = at_ms
            elif EPOCH < original < _LATEST:
                original_ms = to_ms(original)
            else:
                return None
            if original_ms <= received_ms + DAY_MS:
                day = original_ms // DAY_MS
        if sent is not None:
            if not EPOCH < sent < _LATEST:
                return None
            sent_ms = to_ms(sent)

        context, properties, raw_traits = context_of(event.context), properties_of(event.properties), event.traits
        if context.traits is not UNSET and len(memoryview(raw_traits)) <= 2:
            raw_traits = context.traits
        properties_text = str(event.properties, "utf-8")
        if properties_text[0] != "{":
            return None
        campaign, page = context.campaign or NO_CAMPAIGN, context.page or NO_PAGE
        referrer, library, device, session_id = context.referrer, context.library, context.device, context.session_id
        order_id, currency = properties.order_id, properties.currency
        return (
            workspace, day, event.message_id, event.source, key, at_ms, received_ms, original_ms,
            kind, label, event.name, event.category, user_id, anonymous_id, "", "", sent_ms,
            "" if session_id is None else text_of(session_id),
            campaign.source or "", campaign.medium or "", campaign.name or "", campaign.term or "",
            campaign.content or "",
            properties.referrer or page.referrer or (referrer and referrer.url) or "",
            properties.url or page.url or "", properties.path or page.path or "", properties.title or page.title or "",
            context.ip or "", context.user_agent or "", context.locale or "", context.timezone or "",
            (library and library.name) or "", (device and device.type) or "",
            properties.total if properties.revenue is None else properties.revenue,
            currency.upper() if currency else "",
            order_id if order_id and type(order_id) is str else order_id_of(properties),
            event.flags, event.attempt, properties_text, str(event.context, "utf-8"),
            "{}" if raw_traits is _EMPTY else str(raw_traits, "utf-8"),
            "{}" if event.integrations is _EMPTY else str(event.integrations, "utf-8"),
            "{}" if event.extra is _EMPTY else str(event.extra, "utf-8"),
            version_of(event.attempt, received_ms), 0,
        )  # fmt: skip
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return None
