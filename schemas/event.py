"""The event: one Segment call as it stands in topic `events`.

JSON with Segment's own names. `context`, `properties`, `traits`, `integrations` and the unknown keys of the body
stay raw bytes until somebody asks for them: decoding only the envelope is several times cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Raw

from schemas.errors import Refused
from schemas.keys import LONGEST_ID, WORKSPACE_PATTERN, anonymous_key, is_blocked, user_key
from schemas.times import to_ms

EventType = Literal["identify", "track", "page", "screen", "group", "alias"]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)

LARGEST_EVENT_BYTES = 32 * 1024  # of one event as sent; Segment's limit
LARGEST_BATCH_BYTES = 500 * 1024  # of one request body, inflated; Segment's limit
MOST_EVENTS_IN_BATCH = 2_500  # Segment's limit
LONGEST_MESSAGE_ID = 100  # characters; Segment's limit
LONGEST_NAME = 200  # characters of an event, page or screen name
PUBLIC_ALIAS = "alias_of_public_key"  # a flag, see `schemas.intake.FLAGS`

Value = TypeVar("Value")

_EMPTY = Raw(b"{}")
_decode_any = msgspec.json.Decoder().decode


class _once(Generic[Value]):
    """A property worked out when first asked for. `functools.cached_property` takes a lock in Python 3.11."""

    def __init__(self, work: Callable[[Any], Value]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, event: Any, owner: type) -> Value:
        value = event.__dict__[self._name] = self._work(event)
        return value


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel", dict=True):
    """One accepted event.

    Attributes:
        message_id: the client's id of this event; one seen before (24 hours, same source and person) is dropped.
        workspace: whose data this is.
        source: name of the write key it came by (`kafka` when a producer wrote the topic itself and named none).
        timestamp: when it happened, in UTC, corrected for the client's clock:
            received_at - (sent_at - original_timestamp). Never after received_at.
        received_at: when the collector took it.
        original_timestamp: the client's own reading of its clock, where it sent one that can be read.
        sent_at: the client's clock when the request left, where it sent one that can be read.
        flags: what was odd and was mended, such as `timestamp_unreadable`; see docs/collecting.md.
        extra: the keys of the body that Segment's specification does not name, as sent.
        attempt: how often this event was re-driven from `rejected`; the highest wins in ClickHouse.
    """

    message_id: str
    type: EventType
    workspace: str
    source: str
    timestamp: datetime
    received_at: datetime
    original_timestamp: datetime | None = None
    sent_at: datetime | None = None
    user_id: str = ""
    anonymous_id: str = ""
    group_id: str = ""
    previous_id: str = ""
    event: str = ""
    name: str = ""
    category: str = ""
    raw_context: Raw = msgspec.field(default=_EMPTY, name="context")
    raw_properties: Raw = msgspec.field(default=_EMPTY, name="properties")
    raw_traits: Raw = msgspec.field(default=_EMPTY, name="traits")
    raw_integrations: Raw = msgspec.field(default=_EMPTY, name="integrations")
    raw_extra: Raw = msgspec.field(default=_EMPTY, name="extra")
    flags: tuple[str, ...] = ()
    attempt: int = 0

    @_once
    def key(self) -> str:
        """The person key: the user where one is named, else the anonymous visitor."""
        if self.user_id:
            return user_key(self.workspace, self.user_id)
        return anonymous_key(self.workspace, self.anonymous_id)

    @_once
    def at_ms(self) -> int:
        """`timestamp` in milliseconds since 1970."""
        return to_ms(self.timestamp)

    @_once
    def received_ms(self) -> int:
        """`received_at` in milliseconds since 1970."""
        return to_ms(self.received_at)

    @_once
    def label(self) -> str:
        """What processors select by and people read: the event name of a track, else the type in title case.

        `Order Completed`, `Page`, `Screen`, `Identify`, `Group`, `Alias`.
        """
        return self.event if self.type == "track" else self.type.capitalize()

    @_once
    def context(self) -> Mapping[str, Any]:
        return _mapping(self.raw_context)

    @_once
    def properties(self) -> Mapping[str, Any]:
        return _mapping(self.raw_properties)

    @_once
    def traits(self) -> Mapping[str, Any]:
        """Traits of an identify or group call, or those any other call carries in `context.traits`."""
        traits = _mapping(self.raw_traits)
        if not traits:
            nested = self.context.get("traits")
            if isinstance(nested, dict):
                return nested
        return traits


def _mapping(raw: Raw) -> Mapping[str, Any]:
    value = _decode_any(raw)
    return value if isinstance(value, dict) else {}


_decoder = msgspec.json.Decoder(Event)
encode_event = msgspec.json.Encoder().encode


def decode_event(value: bytes | None) -> Event:
    """Read one record of topic `events`.

    Raises:
        Refused: not an event of this schema, or one that breaks a rule of `check_event`.
    """
    if not value:
        raise Refused("the record has no value", mend="Send an event; topic `events` takes no tombstones.")
    try:
        event = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise Refused("the record is not an event of schema `events`", value=str(error)) from error
    check_event(event)
    return event


def check_event(event: Event) -> None:
    """The rules every event obeys, whoever wrote it.

    Raises:
        Refused: with the field, the value and the mend.
    """
    if not _is_workspace(event.workspace):
        raise Refused("workspace is not a workspace name", field="workspace", value=event.workspace,
                      mend="Use lower case letters, digits, - and _, at most 63.")  # fmt: skip
    if not 0 < len(event.message_id) <= LONGEST_MESSAGE_ID:
        raise Refused(f"messageId must have 1 to {LONGEST_MESSAGE_ID} characters",
                      field="messageId", value=event.message_id)  # fmt: skip
    if event.user_id:
        _check_id("userId", event.user_id)
    if event.anonymous_id:
        _check_id("anonymousId", event.anonymous_id)
    elif not event.user_id:
        raise Refused("userId or anonymousId is required", mend="Send at least one of them.")
    if event.group_id:
        _check_id("groupId", event.group_id)
    if event.previous_id:
        _check_id("previousId", event.previous_id)
    if event.type == "track" and not event.event:
        raise Refused("a track call needs the name of the event", field="event", mend='Send "event".')
    if event.type == "group" and not event.group_id:
        raise Refused("a group call needs groupId", field="groupId", mend='Send "groupId".')
    if event.type == "alias" and not (event.previous_id and event.user_id):
        raise Refused("an alias call needs previousId and userId", field="previousId", value=event.previous_id,
                      mend="Send both.")  # fmt: skip
    if len(event.event) > LONGEST_NAME or len(event.name) > LONGEST_NAME or len(event.category) > LONGEST_NAME:
        names = {"event": event.event, "name": event.name, "category": event.category}
        field, value = next((field, value) for field, value in names.items() if len(value) > LONGEST_NAME)
        raise Refused(f"{field} must have at most {LONGEST_NAME} characters", field=field, value=value,
                      mend="Put what varies into properties.")  # fmt: skip
    if event.timestamp.tzinfo is None:
        raise _zoneless("timestamp", event.timestamp)
    if event.received_at.tzinfo is None:
        raise _zoneless("receivedAt", event.received_at)


@lru_cache(maxsize=1024)
def _is_workspace(name: str) -> bool:
    return WORKSPACE_PATTERN.match(name) is not None


def _check_id(field: str, value: str) -> None:
    if len(value) > LONGEST_ID:
        raise Refused(f"{field} must have at most {LONGEST_ID} characters", field=field, value=value)
    if is_blocked(value):
        raise Refused(f"{field} is a placeholder, not an id", field=field, value=value,
                      mend="Leave the field out where the person is not known.")  # fmt: skip


def _zoneless(field: str, value: datetime) -> Refused:
    return Refused(f"{field} has no time zone", field=field, value=value.isoformat(), mend="End it with Z.")
