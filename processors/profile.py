"""Who a person is: what she said of herself, how she can be reached, what she allowed, what she does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, reduce
from typing import Any, cast

import msgspec

from processors.base import Person, Processor
from processors.bounded import Recent, Said, admit, cut
from processors.consent import LABELS, MOST_SPEAKERS, Consent, speakers_of, words_of
from processors.context import LONGEST, Campaign, Facts, campaign_of, facts_of
from processors.devices import device_of
from processors.touch import address_of
from processors.traits import LARGEST_OLD_VALUE, LARGEST_VALUE, MOST_TRAITS, MOST_VALUES, Traits
from schemas.effects import Effect
from schemas.event import Event
from schemas.messages import is_no_deed
from schemas.times import to_iso

MOST_LABELS = 200  # of a part; Segment's own names first, the others by lot; the rest is counted together
MOST_DEVICES = 10  # of a part, those seen last
LONGEST_ZONE = 50
MOST_GROUPS = 50  # of a part, by lot
GROUP_FIELDS = ("name", "industry", "employees", "plan", "website")
# Event names of Segment's specifications for e-commerce, e-mail, lifecycle and B2B, and the other calls.
KNOWN_LABELS = frozenset({
    "Identify", "Page", "Screen", "Group", "Alias", "Products Searched", "Product List Viewed", "Product List Filtered",
    "Promotion Viewed", "Promotion Clicked", "Product Clicked", "Product Viewed", "Product Added", "Product Removed",
    "Cart Viewed", "Checkout Started", "Checkout Step Viewed", "Checkout Step Completed", "Payment Info Entered",
    "Order Completed", "Order Updated", "Order Refunded", "Order Cancelled", "Coupon Entered", "Coupon Applied",
    "Coupon Denied", "Coupon Removed", "Product Added to Wishlist", "Product Removed from Wishlist", "Product Shared",
    "Cart Shared", "Product Reviewed", "Email Delivered", "Email Opened", "Email Link Clicked", "Email Bounced",
    "Email Marked as Spam", "Unsubscribed", "Subscribed", "Consent Changed", "Application Installed",
    "Application Opened", "Signed Up", "Signed In", "Signed Out", "Account Created", "Trial Started", "Trial Ended",
})  # fmt: skip

_EMAIL = re.compile(r"[^@\s\"(),:;<>\[\]\\]{1,64}@[^@\s\"(),:;<>\[\]\\]{1,180}\.[^@\s\"(),:;<>\[\]\\.]{2,63}\Z")
_PHONE_NOISE = re.compile(r"[\s().\-/\u00a0]+")
_PHONE = re.compile(r"\+?[0-9]{5,15}\Z")
_ZONE = re.compile(r"[A-Za-z]+(?:/[A-Za-z0-9_+\-]+){1,2}\Z|UTC\Z|GMT\Z")
_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])([0-9]{1,2})(?::?([0-9]{2}))?\Z")


class Count(msgspec.Struct, array_like=True, gc=False):
    times: int
    last_ms: int


class Contact(msgspec.Struct, array_like=True, gc=False):
    """The newest word on how to reach her. `value` is empty where it was taken back."""

    at_ms: int
    message_id: str
    value: str
    source: str  # name of the write key it came by

    @property
    def age(self) -> tuple[int, str, str, str]:
        return self.at_ms, self.message_id, self.value, self.source


class FirstTouch(msgspec.Struct, array_like=True, gc=False):
    """The campaign of the earliest event that carries one."""

    at_ms: int
    message_id: str
    source: str
    medium: str
    campaign: str
    term: str
    content: str

    @property
    def age(self) -> tuple[int, str, str]:
        return self.at_ms, self.message_id, self.campaign


class Told(msgspec.Struct, array_like=True, gc=False):
    """What changes seldom: what identify, group and consent events told."""

    traits: Traits = msgspec.field(default_factory=Traits)
    contacts: dict[str, Contact] = {}
    consent: Consent = msgspec.field(default_factory=Consent)
    company: Said = msgspec.field(default_factory=Said)  # the newest group
    groups: dict[str, dict[str, Said]] = {}


PROFILE = "profile"
_NO_TRAITS = (b"{}", b"null", b"")
_NOTHING_TOLD = msgspec.Raw(msgspec.msgpack.encode(Told()))
_decode_told = msgspec.msgpack.Decoder(Told).decode


class ProfileState(msgspec.Struct, array_like=True, gc=False):
    """What changes with every event, and `told`, which stays encoded until an event needs it."""

    events: int = 0
    first_ms: int = 0
    last_ms: int = 0
    labels: dict[str, Count] = {}
    user: Said = msgspec.field(default_factory=Said)
    locale: Said = msgspec.field(default_factory=Said)
    timezone: Said = msgspec.field(default_factory=Said)
    devices: Recent = msgspec.field(default_factory=Recent)
    first_touch: FirstTouch | None = None
    told: msgspec.Raw = _NOTHING_TOLD


class Profile(Processor[ProfileState]):
    """Last write wins by event time, for every field by itself; so late events change only what nothing newer said.

    Traits are what identify calls say. What other calls carry in `context.traits` is a copy that a client kept, which
    may be older than it looks; it is not taken. Each trait has its history: earlier values, and until when each was
    said. `since` is the time from which on nothing else was said.

    Consent is given by topic and channel, `*` standing for every one. Under one person key the newest word counts. Of
    merged persons, withdrawn under one key is withdrawn, whenever it was. An event that carries a user id and an
    anonymous id speaks for both keys: who withdrew before she logged in allows it again by an event with both ids.
    """

    name = PROFILE
    version = 1
    about = "Traits with history, contacts, devices, locale, consent, company, first and last seen, counts by event."
    State = ProfileState
    limits = {  # noqa: RUF012
        f"{MOST_TRAITS} traits": "names that Segment reserves stay first, of the others a fixed lot decides, the same "
        "whatever came first; what is not kept is counted in `traits_not_kept`, and `traits_too_many` says so",
        f"{LARGEST_VALUE} bytes a trait": "a larger value is not kept, and counted in `traits_not_kept`",
        f"{MOST_VALUES} values a trait": "of earlier values the newest; a value above "
        f"{LARGEST_OLD_VALUE} characters is not kept once it is an earlier one",
        f"{MOST_LABELS} event names": "names of Segment's specifications stay first; the rest is in `other_events`",
        f"{MOST_DEVICES} devices": "those seen last; then `first_seen` is not known any more and is null",
        f"{MOST_GROUPS} groups": "a fixed lot decides; the company of the newest group call is always known",
        f"{MOST_SPEAKERS} person keys that spoke of consent": "of further ones only what they ever withdrew is kept, "
        "and stays withdrawn",
    }
    cases = (
        {
            "case": "the newest word on a trait counts, however late an older one comes; null removes",
            "events": [
                {"at": "2024-03-02", "type": "identify", "traits": {"plan": "pro", "city": "Wien"}},
                {"at": "2024-03-01", "type": "identify", "traits": {"plan": "free", "city": "Graz"}},
                {"at": "2024-03-03", "type": "identify", "traits": {"city": None}},
            ],
            "shows": {
                "traits": {"plan": "pro"},
                "trait_history": {"plan": {"since": "2024-03-02T00:00:00.000Z",
                                           "before": [{"value": "free", "until": "2024-03-01T00:00:00.000Z"}]}},
                "events": 3, "event_counts": {"Identify": 3}, "first_seen": "2024-03-01T00:00:00.000Z",
            },
        },
        {
            "case": "contacts are made comparable",
            "events": [{"at": "2024-03-01", "type": "identify",
                        "traits": {"email": " Ann@Example.COM", "phone": "0043 (1) 234-567", "name": "Ann"}}],
            "shows": {"email": "ann@example.com", "phone": "+431234567", "name": "Ann"},
        },
        {
            "case": "consent of merged parts only narrows, until the same device allows it again",
            "events": [
                {"at": "2024-03-01", "event": "Unsubscribed", "userId": "", "anonymousId": "phone",
                 "properties": {"topic": "offers", "channel": "email"}},
                {"at": "2024-03-02", "event": "Subscribed", "properties": {"topic": "offers", "channel": "email"}},
                {"at": "2024-03-02", "event": "Unsubscribed", "userId": "", "anonymousId": "laptop",
                 "properties": {"topic": "news"}},
                {"at": "2024-03-03", "event": "Subscribed", "anonymousId": "laptop", "properties": {"topic": "news"}},
            ],
            "shows": {"consent": [{"topic": "news", "channel": "*", "granted": True},
                                  {"topic": "offers", "channel": "email", "granted": False}]},
        },
        {
            "case": "the newest group call names the company",
            "events": [{"at": "2024-03-02", "type": "group", "groupId": "g-2", "traits": {"name": "Acme"}},
                       {"at": "2024-03-01", "type": "group", "groupId": "g-1", "traits": {"name": "Old Ltd"}}],
            "shows": {"company": "Acme", "company_id": "g-2"},
        },
    )  # fmt: skip

    def check(self, event: Event) -> None:
        """Traits that cannot be read at all are refused before anything changes."""
        if event.type in ("identify", "group"):
            _ = event.traits
        elif event.event in LABELS:
            _ = event.properties, event.context

    def apply(self, state: ProfileState, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        if is_no_deed(event):  # what was said to her is no sign of life, nor is what a machine did
            if event.type == "identify":  # a journey changed her traits
                self._identify(state, event, person)
            return ()
        at_ms, message_id = event.at_ms, event.message_id
        if not state.events:
            state.first_ms = state.last_ms = at_ms
        elif at_ms > state.last_ms:
            state.last_ms = at_ms
        elif at_ms < state.first_ms:
            state.first_ms = at_ms
        state.events += 1
        label = event.label
        count = state.labels.get(label)
        if count is not None:
            count.times += 1
            if at_ms > count.last_ms:
                count.last_ms = at_ms
        elif admit(state.labels, label, MOST_LABELS, KNOWN_LABELS):
            state.labels[label] = Count(1, at_ms)
        if event.user_id:
            state.user.hear(at_ms, message_id, event.user_id)
        facts = facts_of(event)
        if facts.locale:
            state.locale.hear(at_ms, message_id, facts.locale[:LONGEST])
        if facts.timezone:
            zone = zone_of(facts.timezone)
            if zone:
                state.timezone.hear(at_ms, message_id, zone)
        device = device_of(facts)
        if device:
            state.devices.see(device, at_ms, MOST_DEVICES)
        if state.first_touch is None or at_ms <= state.first_touch.at_ms:
            self._touch(state, event, facts)
        if event.event in LABELS:
            self._hear_consent(state, event, person)
        elif event.type == "identify":
            self._identify(state, event, person)
        elif event.type == "group":
            self._group(state, event)
        return ()

    def _touch(self, state: ProfileState, event: Event, facts: Facts) -> None:
        campaign = campaign_of(facts, address_of(event, facts)[0])
        if campaign is not None:
            found = _first_touch(event, campaign)
            if state.first_touch is None or found.age < state.first_touch.age:
                state.first_touch = found

    def _hear_consent(self, state: ProfileState, event: Event, person: Person) -> None:
        for word in words_of(event):
            consent = _told(state).consent
            for speaker in speakers_of(event, person.part):
                consent.hear(speaker, word.topic, word.is_granted, event.at_ms, event.message_id)

    def _identify(self, state: ProfileState, event: Event, person: Person) -> None:
        traits = event.traits
        if not traits:
            return
        told = _told(state)
        told.traits.hear(traits, event.at_ms, event.message_id)
        for channel, read in _CONTACTS.items():
            if channel in traits:
                value = "" if traits[channel] in (None, "") else read(traits[channel])
                if value is not None:
                    said = Contact(event.at_ms, event.message_id, value, event.source)
                    known = told.contacts.get(channel)
                    if known is None or said.age > known.age:
                        told.contacts[channel] = said
        zone = traits.get("timezone")
        if isinstance(zone, str) and zone_of(zone):
            state.timezone.hear(event.at_ms, event.message_id, zone_of(zone))
        self._hear_consent(state, event, person)

    def _group(self, state: ProfileState, event: Event) -> None:
        told = _told(state)
        told.company.hear(event.at_ms, event.message_id, event.group_id)
        group = told.groups.get(event.group_id)
        if group is None:
            if not admit(told.groups, event.group_id, MOST_GROUPS):
                return
            group = told.groups[event.group_id] = {}
        traits = event.traits if bytes(event.raw_traits) not in _NO_TRAITS else {}  # context.traits are the person's
        for field in GROUP_FIELDS:
            value = traits.get(field)
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                group.setdefault(field, Said()).hear(event.at_ms, event.message_id, str(value)[:LONGEST])

    def merge(self, one: ProfileState, other: ProfileState) -> ProfileState:
        if not one.events or not other.events:
            return one if one.events else other
        labels = {label: Count(count.times, count.last_ms) for label, count in one.labels.items()}
        for label, count in other.labels.items():
            mine = labels.get(label)
            labels[label] = count if mine is None else Count(
                mine.times + count.times, max(mine.last_ms, count.last_ms)
            )  # fmt: skip
        touches = [touch for touch in (one.first_touch, other.first_touch) if touch is not None]
        return ProfileState(
            events=one.events + other.events,
            first_ms=min(one.first_ms, other.first_ms),
            last_ms=max(one.last_ms, other.last_ms),
            labels={label: labels[label] for label in cut(labels, MOST_LABELS, KNOWN_LABELS)},
            user=one.user.or_newer(other.user),
            locale=one.locale.or_newer(other.locale),
            timezone=one.timezone.or_newer(other.timezone),
            devices=one.devices.merged(other.devices, MOST_DEVICES),
            first_touch=min(touches, key=lambda touch: touch.age, default=None),
            told=cast(msgspec.Raw, _merge_told(_read_told(one), _read_told(other))),
        )

    def attribute(self, name: str, states: Sequence[ProfileState]) -> Any:
        seen = [state for state in states if state.events] or states[:1]
        match name:
            case "events":
                return sum(state.events for state in seen)
            case "first_seen":
                return to_iso(min(state.first_ms for state in seen))
            case "last_seen":
                return to_iso(max(state.last_ms for state in seen))
            case "timezone":
                return reduce(Said.or_newer, (state.timezone for state in seen)).text
            case "email" | "phone":
                contacts = (_read_told(state).contacts.get(name) for state in seen)
                newest = max(filter(None, contacts), key=lambda said: said.age, default=None)
                return newest.value if newest is not None else ""
            case "traits":
                traits: Traits = reduce(Traits.merged, [_read_told(state).traits for state in seen])
                return dict(traits)
        return super().attribute(name, states)

    def show(self, state: ProfileState) -> dict[str, Any]:
        told = _read_told(state)
        traits = dict(told.traits)
        labels = sorted(state.labels.items(), key=lambda item: (-item[1].times, item[0]))
        counted = sum(count.times for _, count in labels)
        return {
            "user_id": state.user.text,
            "email": _value(told.contacts, "email"),
            "phone": _value(told.contacts, "phone"),
            "name": _name(traits),
            "locale": state.locale.text,
            "timezone": state.timezone.text,
            **_company(told, traits),
            "first_seen": to_iso(state.first_ms),
            "last_seen": to_iso(state.last_ms),
            "events": state.events,
            "event_counts": {label: count.times for label, count in labels},
            "other_events": state.events - counted,
            "event_last_seen": {label: to_iso(count.last_ms) for label, count in labels},
            "traits": traits,
            "trait_history": told.traits.history(),
            "traits_not_kept": told.traits.unkept,
            "traits_too_many": told.traits.is_cut,
            "contacts": {channel: {"value": contact.value, "at": to_iso(contact.at_ms), "source": contact.source}
                         for channel, contact in sorted(told.contacts.items()) if contact.value},
            "consent": told.consent.shown(),
            "consent_too_many": told.consent.is_cut,
            "devices": [_device(name, span.first_ms, span.last_ms, state.devices.is_full)
                        for name, span in state.devices.newest_first()],
            "first_touch": _shown_touch(state.first_touch),
        }  # fmt: skip


def consent_of(states: Sequence[ProfileState]) -> Consent:
    """Who allowed what, over all states of a person."""
    return reduce(Consent.merged, (_read_told(state).consent for state in states), Consent())


def _told(state: ProfileState) -> Told:
    """What was told, to be changed in place."""
    told: Any = state.told
    if told.__class__ is not Told:
        told = _decode_told(told)
        state.told = told
    return cast(Told, told)


def _read_told(state: ProfileState) -> Told:
    """What was told, to be read only: `state` stays as it is."""
    told: Any = state.told
    return told if told.__class__ is Told else _decode_told(told)


def _merge_told(one: Told, other: Told) -> Told:
    contacts = dict(one.contacts)
    for channel, contact in other.contacts.items():
        mine = contacts.get(channel)
        contacts[channel] = contact if mine is None else max(mine, contact, key=lambda said: said.age)
    groups = {group: dict(fields) for group, fields in one.groups.items()}
    for group, fields in other.groups.items():
        mine_of = groups.setdefault(group, {})
        for field, said in fields.items():
            mine_of[field] = said.or_newer(mine_of[field]) if field in mine_of else said
    return Told(
        traits=one.traits.merged(other.traits), contacts=contacts, consent=one.consent.merged(other.consent),
        company=one.company.or_newer(other.company),
        groups={group: groups[group] for group in cut(groups, MOST_GROUPS)},
    )  # fmt: skip


def _first_touch(event: Event, campaign: Campaign) -> FirstTouch:
    return FirstTouch(
        event.at_ms, event.message_id, campaign.source.lower()[:LONGEST], campaign.medium.lower()[:LONGEST],
        campaign.name[:LONGEST], campaign.term[:LONGEST], campaign.content[:LONGEST],
    )  # fmt: skip


def email_of(value: object) -> str | None:
    """The address in lower case; None where it is none.

    >>> email_of(" Ann@Example.com "), email_of("ann at example")
    ('ann@example.com', None)
    """
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    return text if _EMAIL.match(text) else None


def phone_of(value: object) -> str | None:
    """The number without spaces and signs, `00` as `+`; None where it is none. No country is guessed.

    >>> phone_of("0043 (1) 234-567"), phone_of("138 0013 8000"), phone_of("call me")
    ('+431234567', '13800138000', None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = _PHONE_NOISE.sub("", str(value)[:60])
    if text.startswith("00"):
        text = "+" + text[2:]
    return text if _PHONE.match(text) else None


_CONTACTS: Mapping[str, Any] = {"email": email_of, "phone": phone_of}


@lru_cache(maxsize=4096)
def zone_of(text: str) -> str:
    """The time zone as IANA name or as `GMT+hh:mm`; empty where it is neither.

    >>> zone_of("Europe/Vienna"), zone_of("UTC+8"), zone_of("+05:30"), zone_of("Vienna")
    ('Europe/Vienna', 'GMT+08:00', 'GMT+05:30', '')
    """
    if len(text) > LONGEST_ZONE:
        return ""
    offset = _OFFSET.match(text)
    if offset is not None:
        hours, minutes = int(offset[2]), int(offset[3] or 0)
        return f"GMT{offset[1]}{hours:02}:{minutes:02}" if hours <= 14 and minutes < 60 else ""
    return text if _ZONE.match(text) else ""


def _value(contacts: Mapping[str, Contact], channel: str) -> str:
    return contacts[channel].value if channel in contacts else ""


def _name(traits: Mapping[str, Any]) -> str:
    """Her name as she would be greeted: the trait `name`, else first and last name."""
    name = traits.get("name")
    if isinstance(name, str) and name.strip():
        return name.strip()[:LONGEST]
    names = (traits.get("firstName", traits.get("first_name")), traits.get("lastName", traits.get("last_name")))
    return " ".join(part.strip() for part in names if isinstance(part, str) and part.strip())[:LONGEST]


def _company(told: Told, traits: Mapping[str, Any]) -> dict[str, Any]:
    """The company of the newest group call, else the trait `company`."""
    group_id = told.company.text
    if not group_id:
        company = traits.get("company")
        name = company.get("name") if isinstance(company, dict) else company
        return {"company": name[:LONGEST] if isinstance(name, str) else "", "company_id": "", "company_fields": {},
                "groups": []}  # fmt: skip
    fields = {field: said.text for field, said in sorted(told.groups.get(group_id, {}).items())}
    groups = [{"id": group, "name": told.groups[group].get("name", Said()).text} for group in sorted(told.groups)]
    return {"company": fields.get("name", group_id), "company_id": group_id, "company_fields": fields,
            "groups": groups}  # fmt: skip


def _device(device: str, first_ms: int, last_ms: int, is_full: bool) -> dict[str, Any]:
    kind, name, identifier = device.split("\t")
    return {"kind": kind, "name": name, "id": identifier, "first_seen": None if is_full else to_iso(first_ms),
            "last_seen": to_iso(last_ms)}  # fmt: skip


def _shown_touch(touch: FirstTouch | None) -> dict[str, Any] | None:
    if touch is None:
        return None
    return {"at": to_iso(touch.at_ms), "source": touch.source, "medium": touch.medium, "campaign": touch.campaign,
            "term": touch.term, "content": touch.content}  # fmt: skip
