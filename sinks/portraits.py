"""Portraits as columns of tables `people` and `identities`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from schemas.rows import Identity
from sinks.tables import stored_ms

_EMPTY = Raw(b"{}")


class _Profile(msgspec.Struct):
    """What feeds columns, of what processor `profile` shows."""

    user_id: str = ""
    name: str = ""
    email: str = ""
    phone: str = ""
    company: str = ""
    locale: str = ""
    timezone: str = ""
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    events: int = 0
    traits: Raw = _EMPTY


class _Visits(msgspec.Struct):
    visits: int = 0


class _Orders(msgspec.Struct):
    orders: int = 0
    revenue: dict[str, Decimal] = {}
    first_at: datetime | None = None
    last_at: datetime | None = None


class _Sections(msgspec.Struct):
    profile: _Profile = msgspec.field(default_factory=_Profile)
    visits: _Visits = msgspec.field(default_factory=_Visits)
    orders: _Orders = msgspec.field(default_factory=_Orders)


class ReadPortrait(msgspec.Struct):
    """A `schemas.rows.Portrait` as this page needs it: its sections stay text."""

    key: str
    workspace: str
    revision: int
    at: datetime
    merged_into: str = ""
    identities: list[Identity] = []
    sections: Raw = _EMPTY


decode_portrait = msgspec.json.Decoder(ReadPortrait).decode
_decode_sections = msgspec.json.Decoder(_Sections).decode


def people_columns(portraits: Sequence[ReadPortrait]) -> dict[str, list[Any]]:
    """The portraits by column, as `Analytics.insert` takes them.

    Raises:
        msgspec.ValidationError: a processor shows something of another type than the column.
    """
    sections = [_decode_sections(portrait.sections) for portrait in portraits]
    profiles = [each.profile for each in sections]
    orders = [each.orders for each in sections]
    return {
        "workspace": [portrait.workspace for portrait in portraits],
        "key": [portrait.key for portrait in portraits],
        **{
            name: [getattr(profile, name) for profile in profiles]
            for name in ("user_id", "name", "email", "phone", "company", "locale", "timezone", "events")
        },
        "first_seen": [_ms(profile.first_seen) for profile in profiles],
        "last_seen": [_ms(profile.last_seen) for profile in profiles],
        "visits": [each.visits.visits for each in sections],
        "orders": [each.orders for each in orders],
        "revenue": [each.revenue for each in orders],
        "first_order_at": [_ms(each.first_at) for each in orders],
        "last_order_at": [_ms(each.last_at) for each in orders],
        "traits": [str(profile.traits, "utf-8") for profile in profiles],
        "identities": [[identity.key for identity in portrait.identities] for portrait in portraits],
        "sections": [str(portrait.sections, "utf-8") for portrait in portraits],
        "updated_at": [stored_ms(portrait.at) for portrait in portraits],
        "merged_into": [portrait.merged_into for portrait in portraits],
        "revision": [portrait.revision for portrait in portraits],
    }


class Linked(NamedTuple):
    """An identity, and which of the portraits says it."""

    workspace: str
    identity: Identity
    said_by: int


def newest_identities(portraits: Sequence[ReadPortrait]) -> list[Linked]:
    """Of each key what the portraits say of it, the newest."""
    newest: dict[tuple[str, str], Linked] = {}
    for said_by, portrait in enumerate(portraits):
        for identity in portrait.identities:
            before = newest.get((portrait.workspace, identity.key))
            if before is None or before.identity.moves <= identity.moves:
                newest[portrait.workspace, identity.key] = Linked(portrait.workspace, identity, said_by)
    return list(newest.values())


def identity_columns(linked: Sequence[Linked]) -> dict[str, list[Any]]:
    """Whose each key is, by column."""
    return {
        "workspace": [each.workspace for each in linked],
        "key": [each.identity.key for each in linked],
        "person": [each.identity.person for each in linked],
        "moves": [each.identity.moves for each in linked],
        "evidence": [each.identity.evidence for each in linked],
        "linked_at": [_ms(each.identity.linked_at) for each in linked],
    }


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else stored_ms(moment)


NAMES = tuple(people_columns([]))
