"""Calls as nearly all clients write them: one typed decoding, one encoding.

`schemas/intake.py` understands everything that can be understood, step by step. What a well-behaved client sends needs
none of its mending, and here the types alone prove that: texts of a length that is allowed, objects that nest little,
integers of 64 bits. Whatever does not fit them, or is odd in any way, is left to intake.py, which mends it or says what
is wrong. So nothing is decided here: of each call come the very bytes that intake.py would write, or nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from schemas.client_time import LATEST_PLAUSIBLE
from schemas.event import LARGEST_EVENT_BYTES, LONGEST_MESSAGE_ID, LONGEST_NAME
from schemas.keys import BLOCKED_IDS, LONGEST_ID
from schemas.safe_json import MOST_KEYS
from schemas.times import EPOCH

if TYPE_CHECKING:
    from schemas.intake import Arrival

    _Ours: TypeAlias = Any
    _Time: TypeAlias = Any
    _Value: TypeAlias = Any
else:
    _Ours = Annotated[str, Meta(min_length=1, max_length=0)]  # no value fits: only we say it
    _Time = str | UnsetType  # and then a datetime, of ours
    _Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    _Value = None | bool | _Integer | float | str
    for _ in range(6):  # levels of objects and lists: more than most events have, far less than DEEPEST_NESTING
        _Value = None | bool | _Integer | float | str | list[_Value] | dict[str, _Value]

_Object = dict[str, _Value]
_Id = Annotated[str, Meta(max_length=LONGEST_ID)]
_Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
_FEW_KEYS_BYTES = MOST_KEYS * len('"":0,')  # so short an event has no more keys than that


class _Call(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A call as it comes, then the event it means: names and order are those of `schemas.event.Event`."""

    message_id: Annotated[str, Meta(min_length=1, max_length=LONGEST_MESSAGE_ID)]
    type: str = ""
    workspace: _Ours = ""
    source: _Ours = ""
    timestamp: _Time = UNSET
    received_at: _Ours = ""
    original_timestamp: _Time = UNSET
    sent_at: _Time = UNSET
    user_id: _Id | None = ""
    anonymous_id: _Id | None = ""
    event: _Name = ""
    name: _Name = ""
    category: _Name = ""
    context: _Object | None = None
    properties: _Object | None = None
    traits: _Object | None = None
    integrations: _Object | None = None
    extra: _Ours = ""
    flags: _Ours = ""
    attempt: _Ours = ""
    write_key: str = ""
    # Keys that the specification does not name and common SDKs send; any other goes the long way.
    metadata: _Value | UnsetType = msgspec.field(default=UNSET, name="_metadata")
    channel: _Value | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Call).decode
_encode = msgspec.json.Encoder().encode


def plain_call(data: bytes, kind: str, arrival: Arrival) -> tuple[bytes, bytes] | None:
    """The person key of one call, and its event as it stands in topic `events`; None: intake.py is to read it.

    `kind` is the type that the path names; empty in a batch.
    """
    size = len(data)
    if size > LARGEST_EVENT_BYTES or arrival.flags or (b"\\" in data and b"\\u0000" in data):
        return None
    if size > _FEW_KEYS_BYTES and data.count(b":") > MOST_KEYS:
        return None
    try:
        call = _decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None

    if kind:
        call.type = kind
    else:
        kind = call.type
    properties = call.properties
    if kind == "track":
        if not call.event:
            return None
    elif kind == "page" or kind == "screen":
        if properties and not (call.name and call.category) and ("name" in properties or "category" in properties):
            return None
    elif kind != "identify":
        return None

    user_id, anonymous_id = call.user_id, call.anonymous_id
    if anonymous_id:
        if anonymous_id.strip().lower() in BLOCKED_IDS:
            return None
    else:
        call.anonymous_id = ""
    if user_id:
        if user_id.strip().lower() in BLOCKED_IDS:
            return None
        key = f"{arrival.workspace}/u:{user_id}"
    elif anonymous_id:
        call.user_id = ""
        key = f"{arrival.workspace}/a:{anonymous_id}"
    else:
        return None

    if not _tell_times(call, arrival):
        return None
    context = call.context
    if arrival.context:
        call.context = context = {**arrival.context, **context} if context else dict(arrival.context)
    if not context:
        call.context = None
    elif "direct" in context or (kind == "identify" and not call.traits and "traits" in context):
        return None
    if arrival.integrations:
        call.integrations = {**arrival.integrations, **(call.integrations or {})}
    elif not call.integrations:
        call.integrations = None
    if not properties:
        call.properties = None
    if not call.traits:
        call.traits = None

    if call.metadata is not UNSET:
        if call.channel is not UNSET:  # which of them came first is not known here
            return None
        call.extra = {"_metadata": call.metadata}
        call.metadata = UNSET
    elif call.channel is not UNSET:
        call.extra = {"channel": call.channel}
        call.channel = UNSET
    call.write_key = ""
    call.workspace = arrival.workspace
    call.source = arrival.source
    return key.encode(), _encode(call)


def _tell_times(call: _Call, arrival: Arrival) -> bool:
    """Put times in the place of their texts; False where one is not plain."""
    received = call.received_at = arrival.received_at
    sent_at = arrival.sent_at
    if call.sent_at is not UNSET:
        sent_at = _moment(call.sent_at)
        if sent_at is None:
            return False
    if sent_at is not None:
        call.sent_at = sent_at
    text = call.timestamp
    if text is UNSET:
        text = call.original_timestamp
        if text is UNSET:
            call.timestamp = received
            return True
    elif call.original_timestamp is not UNSET and call.original_timestamp != text:
        return False
    client = _moment(text)
    if client is None:
        return False
    call.original_timestamp = client
    timestamp = client if sent_at is None else received - (sent_at - client)
    call.timestamp = timestamp
    return EPOCH < timestamp <= received


def _moment(text: str) -> datetime | None:
    """A plausible time in UTC, written as ISO 8601 says; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is UTC and text[4:5] == "-" and EPOCH < moment < LATEST_PLAUSIBLE:
        return moment
    return None
