"""Who allowed what: consent by topic and channel.

Within one part of a person the newest word counts, by event time. Between the parts of a merged person consent only
narrows: withdrawn in one is withdrawn for her. That the two agree with each other and with every order of events:
what was said is kept apart by *speaker*, the person key it was said under, and narrowed only when it is shown.

An event that carries both a user id and an anonymous id speaks for both keys. So a visitor who withdrew before she
logged in, and allows it again while logged in on the same device, has allowed it; on another device she has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from processors.bounded import cut
from schemas.event import Event
from schemas.keys import anonymous_key, user_key

ANY = "*"  # of topics or channels: every one
MOST_SPEAKERS = 20
MOST_TOPICS = 50  # pairs of topic and channel, of one speaker
LONGEST_TOPIC = 100
LABELS = frozenset({"Consent Changed", "Segment Consent Preference Updated", "Subscribed", "Unsubscribed"})


class Given(msgspec.Struct, array_like=True, gc=False):
    """The newest word on one topic and channel. `was_withdrawn`: whether any word, however old, was no."""

    at_ms: int
    message_id: str
    is_granted: bool
    was_withdrawn: bool


class Consent(msgspec.Struct, array_like=True, gc=False):
    """What every speaker said, by `topic<tab>channel`.

    Attributes:
        of_others: topics withdrawn at any time by speakers beyond the most that are kept: they stay withdrawn.
        is_cut: a speaker named more topics than are kept.
    """

    speakers: dict[str, dict[str, Given]] = {}
    of_others: dict[str, bool] = {}
    is_cut: bool = False

    def hear(self, speaker: str, topic: str, is_granted: bool, at_ms: int, message_id: str) -> None:
        said = self.speakers.get(speaker)
        if said is None:
            said = self.speakers[speaker] = {}
        given = said.get(topic)
        if given is None:
            said[topic] = Given(at_ms, message_id, is_granted, not is_granted)
        else:
            said[topic] = _newer(given, Given(at_ms, message_id, is_granted, not is_granted))
        self._cut()

    def merged(self, other: Consent) -> Consent:
        both = Consent({speaker: dict(said) for speaker, said in self.speakers.items()},
                       {**self.of_others, **other.of_others}, self.is_cut or other.is_cut)  # fmt: skip
        for speaker, said in other.speakers.items():
            mine = both.speakers.setdefault(speaker, {})
            for topic, given in said.items():
                known = mine.get(topic)
                mine[topic] = given if known is None else _newer(known, given)
        both._cut()
        return both

    def _cut(self) -> None:
        if len(self.speakers) > MOST_SPEAKERS:
            kept = set(cut(self.speakers, MOST_SPEAKERS))
            for speaker in [speaker for speaker in self.speakers if speaker not in kept]:
                said = self.speakers.pop(speaker)
                self.of_others.update((topic, True) for topic, given in said.items() if given.was_withdrawn)
        for said in self.speakers.values():
            if len(said) > MOST_TOPICS:
                self.is_cut = True
                kept = set(cut(said, MOST_TOPICS, (f"{ANY}\t{ANY}",)))
                for topic in [topic for topic in said if topic not in kept]:
                    del said[topic]
        if len(self.of_others) > MOST_TOPICS:
            self.is_cut = True
            self.of_others = dict.fromkeys(cut(self.of_others, MOST_TOPICS, (f"{ANY}\t{ANY}",)), True)

    def shown(self) -> list[dict[str, Any]]:
        """Every topic and channel that was ever spoken of, and whether she may be written to."""
        topics = {topic for said in self.speakers.values() for topic in said} | self.of_others.keys()
        return [{"topic": pair[0], "channel": pair[1], "granted": self.allows(*pair)}
                for pair in (topic.split("\t") for topic in sorted(topics))]  # fmt: skip

    def allows(self, topic: str, channel: str) -> bool:
        """Whether somebody granted it, and nobody took it back. What nobody spoke of is not granted."""
        matching = {f"{one}\t{other}" for one in (topic, ANY) for other in (channel, ANY)}
        if not matching.isdisjoint(self.of_others):
            return False
        newest = [max((said[topic] for topic in matching if topic in said), key=_age, default=None)
                  for said in self.speakers.values()]  # fmt: skip
        words = [given.is_granted for given in newest if given is not None]
        return bool(words) and all(words)


def _age(given: Given) -> tuple[int, str, bool]:
    return given.at_ms, given.message_id, not given.is_granted  # of two words in one event, no counts


def _newer(one: Given, other: Given) -> Given:
    newest = max(one, other, key=_age)
    return Given(newest.at_ms, newest.message_id, newest.is_granted, one.was_withdrawn or other.was_withdrawn)


class Word(NamedTuple):
    topic: str  # `topic<tab>channel`
    is_granted: bool


def words_of(event: Event) -> Iterator[Word]:
    """What an event says about consent: an identify by its traits, a track of `LABELS` by its properties.

    - `Subscribed`, `Unsubscribed` (Segment's e-mail spec) with `topic`, `list_name` or `list_id`, and `channel`;
    - `Consent Changed` with `topic`, `channel` and `granted`, or with `consent` as below;
    - `Segment Consent Preference Updated` with `context.consent.categoryPreferences`: `{"Advertising": false}`;
    - the trait `consent`: `{"newsletter": true, "offers": {"email": true, "sms": false}}`; the trait
      `unsubscribed`, where it is true: everything.
    """
    if event.type == "identify":
        traits = event.traits
        yield from _of_mapping(traits.get("consent"))
        if traits.get("unsubscribed") is True:
            yield Word(_pair(None, None), False)
    elif event.type == "track" and event.event in LABELS:
        properties = event.properties
        yield from _of_mapping(properties.get("consent"))
        consent = event.context.get("consent")
        if isinstance(consent, dict):
            yield from _of_mapping(consent.get("categoryPreferences"))
        topic = next((properties[name] for name in ("topic", "list_name", "list_id") if properties.get(name)), None)
        channel = properties.get("channel")
        if event.event in ("Subscribed", "Unsubscribed"):
            yield Word(_pair(topic, channel), event.event == "Subscribed")
        elif isinstance(properties.get("granted"), bool):
            yield Word(_pair(topic, channel), properties["granted"])


def speakers_of(event: Event, part: str) -> tuple[str, ...]:
    """The person keys an event speaks for: that of its part, and both of its ids where it carries both."""
    if event.user_id and event.anonymous_id:
        both = (user_key(event.workspace, event.user_id), anonymous_key(event.workspace, event.anonymous_id))
        return both if part in both else (part, *both)
    return (part,)


def _of_mapping(found: object) -> Iterator[Word]:
    if not isinstance(found, Mapping):
        return
    for topic, answer in found.items():
        if isinstance(answer, bool):
            yield Word(_pair(topic, None), answer)
        elif isinstance(answer, Mapping):
            for channel, one in answer.items():
                if isinstance(one, bool):
                    yield Word(_pair(topic, channel), one)


def _pair(topic: object, channel: object) -> str:
    return f"{_name(topic)}\t{_name(channel)}"


def _name(value: object) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return " ".join(str(value).split())[:LONGEST_TOPIC].strip() or ANY
    return ANY
