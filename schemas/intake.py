"""From what an SDK sent to the event that enters the log.

SDKs, proxies and hand-written clients send much that the specification does not foresee. What can be understood is
taken, and a flag on the event says what was mended; what cannot is refused with the place and the mend. Nothing passes
that a later reader would break on: what leaves here was decoded whole and written anew, so each key of an object
stands once, every string is Unicode without NUL, and every number fits 64 bits. docs/collecting.md lists each case.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw

from schemas.client_time import read_sent_at, read_time
from schemas.errors import Refused
from schemas.event import (
    EVENT_TYPES,
    LARGEST_BATCH_BYTES,
    LONGEST_MESSAGE_ID,
    LONGEST_NAME,
    MOST_EVENTS_IN_BATCH,
    PUBLIC_ALIAS,
    Event,
    check_event,
)
from schemas.keys import BLOCKED_IDS, LONGEST_ID
from schemas.safe_json import NOT_JSON, Unreadable, decode_guarded
from schemas.times import EPOCH

FLAGS: Mapping[str, str] = {
    "message_id_made": "The event had no messageId and was given one: sent again, it counts again.",
    "user_id_placeholder": "userId was a placeholder such as `undefined` and was left out.",
    "anonymous_id_placeholder": "anonymousId was a placeholder and was left out.",
    "group_id_placeholder": "groupId was a placeholder and was left out.",
    "previous_id_placeholder": "previousId was a placeholder and was left out.",
    "timestamp_unreadable": "The client's time could not be read; it stands in `extra`, and another time was used.",
    "timestamp_implausible": "The client's time lies before 1970 or after 2199; it stands in `extra`, not used.",
    "timestamp_in_future": "The corrected time lay after the arrival; the time of arrival was used.",
    "timestamp_without_zone": "The client's time named no zone; it was read as UTC.",
    "timestamp_as_number": "The client's time was a number and was read as seconds or milliseconds since 1970.",
    "sent_at_unreadable": "sentAt could not be read or is not plausible; the client's clock was taken as right.",
    "text_mended": "A string held NUL or half of a surrogate pair; U+FFFD stands in its place.",
    "integer_as_text": "An integer did not fit 64 bits and was kept as text.",
    PUBLIC_ALIAS: "An `alias` call that anybody could have sent: it joins an anonymous visitor, but never two users.",
}


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """What is known of an event besides itself: by whom and when it came, and what its batch says of all its events.

    Attributes:
        sent_at: `sentAt` of the batch, or of the request's header; an event's own goes before it.
        ip: address of the sender; used only where `context.direct` asks for it.
        context, integrations: of the batch; an event's own keys go before them.
        flags: what is odd about the batch, and so about each of its events.
        is_public: it came by a write key that everybody can read, or by one that is not known any more.
    """

    workspace: str
    source: str
    received_at: datetime
    sent_at: datetime | None = None
    ip: str = ""
    context: Mapping[str, Any] | None = None
    integrations: Mapping[str, Any] | None = None
    flags: tuple[str, ...] = ()
    is_public: bool = False


class Batch(msgspec.Struct, rename="camel"):
    """The body of a batch: its events as raw JSON, so that each is judged alone."""

    batch: list[Raw]
    context: Raw = Raw(b"")
    integrations: Raw = Raw(b"")
    sent_at: Any = None
    write_key: Any = None


class _WriteKey(msgspec.Struct, rename="camel"):
    write_key: Any = None


_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_write_key = msgspec.json.Decoder(_WriteKey).decode
_encode = msgspec.json.Encoder().encode
_EMPTY: Raw = {field.name: field.default for field in msgspec.structs.fields(Event)}["raw_context"]


def read_batch(body: bytes) -> Batch:
    """Take a batch apart.

    Raises:
        Unreadable: not JSON, not an object with a list `batch`, too large, or too many events.
    """
    if len(body) > LARGEST_BATCH_BYTES:
        raise Unreadable(f"a batch has at most {LARGEST_BATCH_BYTES} bytes", value=len(body),
                         mend="Send smaller batches.")  # fmt: skip
    try:
        batch = _decode_batch(body)
    except msgspec.ValidationError as error:
        raise Unreadable("a batch is an object with a list named batch", value=str(error)) from None
    except NOT_JSON as error:
        raise Unreadable("the body is not JSON", value=str(error)) from None
    except RecursionError:
        raise Unreadable("the body is nested too deeply") from None
    if len(batch.batch) > MOST_EVENTS_IN_BATCH:
        raise Unreadable(f"a batch has at most {MOST_EVENTS_IN_BATCH} events", value=len(batch.batch),
                         mend="Send smaller batches.")  # fmt: skip
    return batch


def read_write_key(body: bytes) -> str:
    """The write key inside a body that is one event; empty where there is none.

    Raises:
        Unreadable: not a JSON object.
    """
    try:
        return text_or_empty(_decode_write_key(body).write_key)
    except msgspec.ValidationError:
        raise Unreadable("an event is a JSON object") from None
    except NOT_JSON as error:
        raise Unreadable("the body is not JSON", value=str(error)) from None
    except RecursionError:
        raise Unreadable("the body is nested too deeply") from None


def arrival_of_batch(batch: Batch, arrival: Arrival) -> Arrival:
    """The arrival of each event of a batch: that of the request, and what the batch says of all.

    Raises:
        Unreadable: context or integrations of the batch are not objects, or break the limits of an event.
    """
    flags: list[str] = []
    try:
        context = _object_of_batch(batch.context, "context", flags)
        integrations = _object_of_batch(batch.integrations, "integrations", flags)
    except Refused as refused:
        raise Unreadable(refused.reason, field=f"batch.{refused.field}".rstrip("."), value=refused.value) from None
    sent_at = read_sent_at(batch.sent_at, flags) or arrival.sent_at
    return msgspec.structs.replace(
        arrival, context=context, integrations=integrations, sent_at=sent_at, flags=(*arrival.flags, *flags)
    )


def _object_of_batch(raw: Raw, field: str, flags: list[str]) -> dict[str, Any] | None:
    return _object(decode_guarded(raw, flags), field) if bytes(raw) else None


def read_event(raw: bytes | Raw, call: str, arrival: Arrival) -> Event:
    """The event that one call means.

    `call` is the type the path names; empty in a batch, where each event names its own.

    Raises:
        Unreadable: `raw` is not a JSON object, or is larger than an event may be.
        Refused: it is one, but breaks a rule.
    """
    flags = list(arrival.flags)
    document = decode_guarded(raw, flags)
    if type(document) is not dict:
        raise Unreadable("an event is a JSON object", value=document)
    take = document.pop
    kind = take("type", None)
    if call:
        kind = call
    elif kind not in EVENT_TYPES:
        raise Refused("type is not one of Segment's calls", field="type", value=kind,
                      mend=f"Send one of {', '.join(EVENT_TYPES)}.")  # fmt: skip
    take("writeKey", None)

    message_id = _text(take("messageId", None), "messageId")
    if not message_id:
        message_id = str(uuid4())
        flags.append("message_id_made")
    user_id, anonymous_id = _person_ids(take("userId", None), take("anonymousId", None), flags)
    group_id = _id(take("groupId", None), "groupId", kind == "group", flags)
    previous_id = _id(take("previousId", None), "previousId", kind == "alias", flags)
    if kind == "alias" and arrival.is_public:
        flags.append(PUBLIC_ALIAS)

    context = _object(take("context", None), "context")
    properties = _object(take("properties", None), "properties")
    traits = _object(take("traits", None), "traits")
    integrations = _object(take("integrations", None), "integrations")
    if arrival.context:
        context = {**arrival.context, **context}
    if arrival.integrations:
        integrations = {**arrival.integrations, **integrations}
    if not traits and kind in ("identify", "group") and type(context.get("traits")) is dict:
        traits = context["traits"]
    if arrival.ip and context.get("direct") is True and "ip" not in context:
        context["ip"] = arrival.ip

    event_name = _text(take("event", None), "event")
    name = _text(take("name", None), "name")
    category = _text(take("category", None), "category")
    if kind in ("page", "screen"):  # some SDKs name a page among its properties only
        name = name or _text_only(properties.get("name"))
        category = category or _text_only(properties.get("category"))

    timestamp, original, sent_at = _times(document, arrival, flags)
    event = Event(
        message_id=message_id,
        type=kind,
        workspace=arrival.workspace,
        source=arrival.source,
        timestamp=timestamp,
        received_at=arrival.received_at,
        original_timestamp=original,
        sent_at=sent_at,
        user_id=user_id,
        anonymous_id=anonymous_id,
        group_id=group_id,
        previous_id=previous_id,
        event=event_name,
        name=name,
        category=category,
        raw_context=Raw(_encode(context)) if context else _EMPTY,
        raw_properties=Raw(_encode(properties)) if properties else _EMPTY,
        raw_traits=Raw(_encode(traits)) if traits else _EMPTY,
        raw_integrations=Raw(_encode(integrations)) if integrations else _EMPTY,
        raw_extra=Raw(_encode(document)) if document else _EMPTY,
        flags=tuple(flags) if len(flags) < 2 else tuple(dict.fromkeys(flags)),
    )
    is_plain = (
        (user_id or anonymous_id)
        and not group_id
        and not previous_id
        and len(message_id) <= LONGEST_MESSAGE_ID
        and len(user_id) <= LONGEST_ID
        and len(anonymous_id) <= LONGEST_ID
        and len(event_name) <= LONGEST_NAME
        and len(name) <= LONGEST_NAME
        and len(category) <= LONGEST_NAME
        and (event_name if kind == "track" else kind not in ("group", "alias"))
    )
    if not is_plain:  # most events are, and `check_event` is slower; it says what is wrong, where something is
        check_event(event)
    return event


# ---- ids and names ---------------------------------------------------------------------------------------------------


def text_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""


_text_only = text_or_empty


def _text(value: object, field: str) -> str:
    """A text field; null is absent, a number becomes text."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    raise Refused(f"{field} must be text or a number", field=field, value=value)


def _person_ids(user: object, anonymous: object, flags: list[str]) -> tuple[str, str]:
    """userId and anonymousId; a placeholder is left out where the other id is left."""
    user_id = user if type(user) is str else _text(user, "userId")
    anonymous_id = anonymous if type(anonymous) is str else _text(anonymous, "anonymousId")
    blocked_user = user_id != "" and user_id.strip().lower() in BLOCKED_IDS
    blocked_anonymous = anonymous_id != "" and anonymous_id.strip().lower() in BLOCKED_IDS
    if not blocked_user and not blocked_anonymous:
        return user_id, anonymous_id
    if blocked_user and (blocked_anonymous or not anonymous_id):
        raise _placeholder("userId", user_id)
    if blocked_anonymous and not user_id:
        raise _placeholder("anonymousId", anonymous_id)
    if blocked_user:
        flags.append("user_id_placeholder")
        return "", anonymous_id
    flags.append("anonymous_id_placeholder")
    return user_id, ""


def _id(value: object, field: str, is_needed: bool, flags: list[str]) -> str:
    """groupId or previousId; a placeholder is left out where the call can do without."""
    if value is None or value == "":
        return ""
    text = _text(value, field)
    if text.strip().lower() in BLOCKED_IDS:
        if is_needed:
            raise _placeholder(field, text)
        flags.append(f"{field[:-2]}_id_placeholder")
        return ""
    return text


def _placeholder(field: str, value: str) -> Refused:
    return Refused(f"{field} is a placeholder, not an id", field=field, value=value,
                   mend="Leave the field out where the person is not known.")  # fmt: skip


def _object(value: object, field: str) -> dict[str, Any]:
    """An object field; null is absent, and so is the empty list that PHP writes for an empty object."""
    if type(value) is dict:
        return value
    if value is None or value == []:
        return {}
    raise Refused(f"{field} must be an object", field=field, value=value)


# ---- times -----------------------------------------------------------------------------------------------------------


def _times(
    document: dict[str, Any], arrival: Arrival, flags: list[str]
) -> tuple[datetime, datetime | None, datetime | None]:
    """The corrected time, the client's own, and when it was sent.

    The client's time is `timestamp`, else `originalTimestamp`: RudderStack puts the moment of sending into the latter
    when old events are imported. What is not used of the two stays in the document, and so reaches `extra`.
    """
    received = arrival.received_at
    own_sent_at = document.pop("sentAt", None)
    sent_at = arrival.sent_at
    if own_sent_at is not None:
        sent_at = read_sent_at(own_sent_at, flags) or sent_at
    client = None
    if "timestamp" in document:
        client = _client_time(document, "timestamp", flags)
    if "originalTimestamp" in document and client is None:
        client = _client_time(document, "originalTimestamp", flags)
    if client is None:
        return received, None, sent_at
    timestamp = client if sent_at is None else received - (sent_at - client)
    if timestamp > received:
        flags.append("timestamp_in_future")
        timestamp = received
    elif timestamp <= EPOCH:
        flags.append("timestamp_implausible")
        timestamp = received
    return timestamp, client, sent_at


def _client_time(document: dict[str, Any], field: str, flags: list[str]) -> datetime | None:
    """Take a time out of the document; one that cannot be used stays there."""
    value = document[field]
    if value is None or value == "":
        del document[field]
        return None
    moment = read_time(value, flags)
    if moment is not None:
        del document[field]
        if document.get("originalTimestamp") == value:
            del document["originalTimestamp"]
    return moment
