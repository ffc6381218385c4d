"""Events as columns of table `events`.

Almost all events go the short way: one typed decode of what is asked often. What does not have the usual types there
goes the long way, value by value, so that no odd value costs more than itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from schemas.event import Event
from schemas.keys import anonymous_key, user_key
from schemas.times import DAY_MS, to_ms
from sinks.tables import FIRST_MS, LAST_MS

_ATTEMPT_BITS = 45  # of the version, below the attempt: the time of arrival, until the year 3084
_LAST_ARRIVAL = (1 << _ATTEMPT_BITS) - 1
MOST_ATTEMPTS = (1 << (64 - _ATTEMPT_BITS)) - 1
_LAST_DAY = 2**16 - 1  # that a Date can hold: in 2149
_MONEY = Decimal("0.0001")
_MOST_MONEY = Decimal(10) ** 14

Typed = TypeVar("Typed", bound=msgspec.Struct)


class _Campaign(msgspec.Struct, gc=False):
    source: str | None = None
    medium: str | None = None
    name: str | None = None
    term: str | None = None
    content: str | None = None


class _Page(msgspec.Struct, gc=False):
    referrer: str | None = None
    url: str | None = None
    path: str | None = None
    title: str | None = None


class _Url(msgspec.Struct, gc=False):
    url: str | None = None


class _Name(msgspec.Struct, gc=False):
    name: str | None = None


class _Type(msgspec.Struct, gc=False):
    type: str | None = None


class _Context(msgspec.Struct, rename="camel", gc=False):
    campaign: _Campaign | None = None
    page: _Page | None = None
    referrer: _Url | None = None
    library: _Name | None = None
    device: _Type | None = None
    ip: str | None = None
    user_agent: str | None = None
    locale: str | None = None
    timezone: str | None = None
    session_id: str | int | None = None
    traits: Raw | UnsetType = UNSET


class _Properties(msgspec.Struct, gc=False):
    revenue: Decimal | None = None
    total: Decimal | None = None
    currency: str | None = None
    order_id: str | int | None = None
    other_order_id: str | int | None = msgspec.field(default=None, name="orderId")
    transaction_id: str | int | None = None
    referrer: str | None = None
    url: str | None = None
    path: str | None = None
    title: str | None = None


_decode_context = msgspec.json.Decoder(_Context).decode
_decode_properties = msgspec.json.Decoder(_Properties).decode
_decode_any = msgspec.json.Decoder().decode
_NO_CONTEXT, _NO_PROPERTIES = _Context(), _Properties()
NO_CAMPAIGN, NO_PAGE = _Campaign(), _Page()


def version_of(attempt: int, received_ms: int) -> int:
    """Of rows with the same key the highest is read: the last attempt, and of that the first arrival."""
    arrival = min(max(received_ms, 1), _LAST_ARRIVAL)
    return min(attempt, MOST_ATTEMPTS) << _ATTEMPT_BITS | _LAST_ARRIVAL - arrival


def tombstone_version_of(attempt: int) -> int:
    """Higher than that of any arrival of the same attempt, lower than that of the next attempt."""
    return min(attempt, MOST_ATTEMPTS) << _ATTEMPT_BITS | _LAST_ARRIVAL


def key_day_of(original_ms: int | None, received_ms: int) -> int:
    """Days since 1970 of the client's own clock: the same when an event is sent again, unlike its corrected time.

    0 where there is no such time, or one before 1970 or more than a day after the event was received.
    """
    if original_ms is None or not 0 <= original_ms <= received_ms + DAY_MS:
        return 0
    day = original_ms // DAY_MS
    return day if day <= _LAST_DAY else 0


def event_columns(events: Sequence[Event]) -> dict[str, list[Any]]:
    """The events by column, as `Analytics.insert` takes them.

    Raises:
        UnicodeDecodeError: an event holds text that is not UTF-8.
    """
    contexts = [context_of(event.raw_context) for event in events]
    properties = [properties_of(event.raw_properties) for event in events]
    campaigns = [context.campaign or NO_CAMPAIGN for context in contexts]
    pages = [context.page or NO_PAGE for context in contexts]
    both = list(zip(properties, pages, strict=True))
    columns, received = _key_columns(events)
    columns |= {
        "type": [event.type for event in events],
        "event": [event.event if event.type == "track" else event.type.capitalize() for event in events],
        "name": [event.name for event in events],
        "category": [event.category for event in events],
        "user_id": [event.user_id for event in events],
        "anonymous_id": [event.anonymous_id for event in events],
        "group_id": [event.group_id for event in events],
        "previous_id": [event.previous_id for event in events],
        "sent_at": _stored([_ms_or_none(event.sent_at) for event in events]),
        "session_id": [text_of(context.session_id) for context in contexts],
        "utm_source": [campaign.source or "" for campaign in campaigns],
        "utm_medium": [campaign.medium or "" for campaign in campaigns],
        "utm_campaign": [campaign.name or "" for campaign in campaigns],
        "utm_term": [campaign.term or "" for campaign in campaigns],
        "utm_content": [campaign.content or "" for campaign in campaigns],
        "referrer": [
            of.referrer or page.referrer or (context.referrer.url if context.referrer else None) or ""
            for (of, page), context in zip(both, contexts, strict=True)
        ],
        "url": [of.url or page.url or "" for of, page in both],
        "path": [of.path or page.path or "" for of, page in both],
        "title": [of.title or page.title or "" for of, page in both],
        "ip": [context.ip or "" for context in contexts],
        "user_agent": [context.user_agent or "" for context in contexts],
        "locale": [context.locale or "" for context in contexts],
        "timezone": [context.timezone or "" for context in contexts],
        "library": [(context.library and context.library.name) or "" for context in contexts],
        "device_type": [(context.device and context.device.type) or "" for context in contexts],
        "revenue": [of.total if of.revenue is None else of.revenue for of in properties],
        "currency": [of.currency.upper() if of.currency else "" for of in properties],
        "order_id": [order_id_of(of) for of in properties],
        "flags": [event.flags for event in events],
        "attempt": [min(event.attempt, MOST_ATTEMPTS) for event in events],
        "properties": [object_of(event.raw_properties) for event in events],
        "context": [str(event.raw_context, "utf-8") for event in events],
        "traits": [_traits(event, context) for event, context in zip(events, contexts, strict=True)],
        "integrations": [str(event.raw_integrations, "utf-8") for event in events],
        "extra": [str(event.raw_extra, "utf-8") for event in events],
        "version": [version_of(event.attempt, ms) for event, ms in zip(events, received, strict=True)],
        "is_deleted": [0] * len(events),
    }
    return columns


def row_of(event: Event) -> tuple[Any, ...]:
    """The values of one event, in the order of `NAMES`.

    Raises:
        UnicodeDecodeError: it holds text that is not UTF-8.
    """
    return tuple(values[0] for values in event_columns([event]).values())


def tombstone_columns(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Rows that take back the rows of these events, by column."""
    columns, _ = _key_columns(events)
    columns["version"] = [tombstone_version_of(event.attempt) for event in events]
    columns["is_deleted"] = [1] * len(events)
    return columns


def _key_columns(events: Sequence[Event]) -> tuple[dict[str, list[Any]], list[int]]:
    """What a row is known and found by; and when each event was received, in ms."""
    received = [to_ms(event.received_at) for event in events]
    original = [_ms_or_none(event.original_timestamp) for event in events]
    return {
        "workspace": [event.workspace for event in events],
        "key_day": [key_day_of(of, at) for of, at in zip(original, received, strict=True)],
        "message_id": [event.message_id for event in events],
        "source": [event.source for event in events],
        "key": [
            user_key(each.workspace, each.user_id) if each.user_id else anonymous_key(each.workspace, each.anonymous_id)
            for each in events
        ],
        "timestamp": _stored([to_ms(event.timestamp) for event in events]),
        "received_at": _stored(received),
        "original_timestamp": _stored(original),
    }, received


def _ms_or_none(moment: datetime | None) -> int | None:
    return None if moment is None or moment.tzinfo is None else to_ms(moment)


def _stored(times: Sequence[int | None]) -> list[int | None]:
    """The times as the column can hold them: the nearest it can."""
    return [ms if ms is None or FIRST_MS <= ms <= LAST_MS else min(max(ms, FIRST_MS), LAST_MS) for ms in times]


def order_id_of(properties: _Properties) -> str:
    return text_of(properties.order_id) or text_of(properties.other_order_id) or text_of(properties.transaction_id)


def object_of(raw: Raw) -> str:
    """The JSON text of an object. Anything else stands under `value`, for a column of JSON holds objects only."""
    text = str(raw, "utf-8")
    if text[:1] == "{" or text.lstrip()[:1] == "{":
        return text
    return '{"value":' + text + "}"


def _traits(event: Event, context: _Context) -> str:
    traits = event.raw_traits
    if len(memoryview(traits)) <= 2 and context.traits is not UNSET:
        traits = context.traits
    return str(traits, "utf-8")


# --- the short way, and the long one


def context_of(raw: Raw) -> _Context:
    if len(memoryview(raw)) <= 2:
        return _NO_CONTEXT
    try:
        return _decode_context(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = _mapping(raw)
    context = _Context(
        campaign=_struct(_Campaign, given.get("campaign")), page=_struct(_Page, given.get("page")),
        referrer=_struct(_Url, given.get("referrer")), library=_struct(_Name, given.get("library")),
        device=_struct(_Type, given.get("device")), ip=text_of(given.get("ip")),
        user_agent=text_of(given.get("userAgent")), locale=text_of(given.get("locale")),
        timezone=text_of(given.get("timezone")), session_id=text_of(given.get("sessionId")),
    )  # fmt: skip
    if isinstance(given.get("traits"), dict):
        context.traits = Raw(msgspec.json.encode(given["traits"]))
    return context


def properties_of(raw: Raw) -> _Properties:
    if len(memoryview(raw)) <= 2:
        return _NO_PROPERTIES
    try:
        found = _decode_properties(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = _mapping(raw)
        found = _struct(_Properties, given)
        found.revenue, found.total = _number(given.get("revenue")), _number(given.get("total"))
        found.other_order_id = text_of(given.get("orderId"))
    if found.revenue is not None:
        found.revenue = _money(found.revenue)
    if found.total is not None:
        found.total = _money(found.total)
    return found


def _mapping(raw: Raw) -> Mapping[str, Any]:
    try:
        value = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # ClickHouse will say what is wrong with it
    return value if isinstance(value, dict) else {}


def _struct(kind: type[Typed], given: Any) -> Typed:
    """The struct with the text of the fields there are."""
    values = given if isinstance(given, dict) else {}
    return kind(**{name: text_of(values.get(name)) for name in kind.__struct_fields__})


def text_of(value: Any) -> str:
    """A single value as text; nothing for what is none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _number(value: Any) -> Decimal | None:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _money(value: Decimal) -> Decimal | None:
    """The amount with 4 places, where the column can hold it."""
    return value.quantize(_MONEY) if value.is_finite() and abs(value) < _MOST_MONEY else None



NAMES = tuple(event_columns([]))
