"""Cases of journeys, as people write them: what happens to somebody, and what a journey is to do then.

    cases:
      - case: a basket that is left is called to mind after an hour
        events:
          - {at: +0 minutes, event: Product Added, properties: {cart_id: c-1}}
        expect:
          - {at: +0 minutes, entered: event}
          - {at: +1 hour, step: remind, send: basket}
          - {left: done}

Times are counted from the case's `start`, or written out; docs/journey-cases.md says what each word means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from schemas.conditions import SegmentName, Text, Value
from schemas.journeys import StepName
from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, to_ms

START = datetime(2026, 1, 5, 9)  # a Monday
WHO = "ann"
_UNITS = {"second": SECOND_MS, "minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS}
_LATER = re.compile(r"\+\s*((?:[0-9]{1,9} (?:second|minute|hour|day|week)s?\s*)+)\Z")
_EACH = re.compile(r"([0-9]+) ([a-z]+?)s?\b")
LONGEST_MS = 3_660 * DAY_MS


@dataclass(frozen=True)
class Moment:
    """A time of a case: so long after its start, or a time of its zone.

    Attributes:
        text: as it is written.
    """

    text: str
    after_ms: int = 0
    at: datetime | None = None

    def ms(self, start_ms: int, zone: tzinfo) -> int:
        """In milliseconds since 1970."""
        if self.at is None:
            return start_ms + self.after_ms
        return to_ms(self.at if self.at.tzinfo is not None else self.at.replace(tzinfo=zone))

    def __str__(self) -> str:
        return self.text


def moment_of(value: Any) -> Moment:
    """Read a time of a case.

    >>> moment_of("+1 day 2 hours").after_ms
    93600000
    >>> moment_of("2026-03-01 10:00").at
    datetime.datetime(2026, 3, 1, 10, 0)

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, Moment):
        return value
    if isinstance(value, date):  # a datetime is one, too
        at = value if isinstance(value, datetime) else datetime.combine(value, time())
        return Moment(at.isoformat(" "), at=at)
    if isinstance(value, str):
        later = _LATER.match(value.strip())
        if later is not None:
            after_ms = sum(int(count) * _UNITS[unit] for count, unit in _EACH.findall(later.group(1)))
            if after_ms <= LONGEST_MS:
                return Moment(value.strip(), after_ms)
        elif not value.lstrip().startswith("+"):
            try:
                return Moment(value, at=datetime.fromisoformat(value))
            except ValueError:
                pass
    raise ValueError("write how long after the start, such as +1 day 2 hours, or a time, such as 2026-03-01 10:00")


When = Annotated[
    Moment, BeforeValidator(moment_of), PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["+1 hour", "+1 day 2 hours", "2026-03-01 10:00"]}),
]  # fmt: skip


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True,
                              arbitrary_types_allowed=True)  # fmt: skip


class Person(_Said):
    """Whom it happens to. She has addresses and consented to everything, unless her traits say otherwise."""

    id: Annotated[Text, Field(max_length=100)] = WHO
    traits: dict[str, Any] = Field(
        default_factory=dict, max_length=100,
        description="Beside the addresses; `email: null` takes hers away, `consent: {offers: false}` her consent.",
    )  # fmt: skip
    segments: Annotated[tuple[SegmentName, ...], Field(max_length=50)] = Field(
        (), description="She is in these from the start, whatever they ask for, until an event says otherwise."
    )


DOES = ("event", "type", "joined", "left", "broadcast", "status")


class CaseEvent(_Said):
    """Something that happens: a call as the API takes it, or exactly one of `joined`, `left`, `broadcast`, `status`."""

    at: When
    event: Annotated[Text, Field(max_length=200)] | None = Field(None, description="A track call of this name.")
    type: Literal["identify", "page", "screen", "group", "alias"] | None = None
    of: StepName | None = Field(None, description="It tells of the message that this step of the journey sent.")
    userId: str | None = None
    anonymousId: str | None = None
    previousId: str | None = None
    groupId: str | None = None
    messageId: str | None = None
    name: str | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    joined: SegmentName | None = Field(None, description="She joins this segment, whatever it asks for.")
    left: SegmentName | None = Field(None, description="She leaves this segment, whatever it asks for.")
    broadcast: Literal[True] | None = Field(None, description="The journey's broadcast is sent.")
    status: Literal["live", "paused", "draining", "stopped"] | None = Field(
        None, description="Somebody sets the journey so.")  # fmt: skip

    @model_validator(mode="after")
    def _is_one(self) -> CaseEvent:
        said = [name for name in DOES if getattr(self, name) is not None]
        if len(said) != 1:
            raise ValueError(f"say exactly one of {', '.join(DOES)}; got {' and '.join(said) or 'none'}")
        return self


KINDS: dict[str, str] = {
    "entered": "by", "not_entered": "why", "send": "template", "refused": "why", "delayed": "until", "left": "why",
    "goal": "event", "waits": "due", "woke": "due", "happened": "what", "timed_out": "due", "branched": "to",
    "split": "to", "updated": "what", "called": "template", "opened": "what", "moved": "to", "held": "step",
    "resumed": "step", "slowed": "step",
}  # fmt: skip
"""What a line may say, and which of the facts in the ledger its value is."""
MUST = frozenset({"entered", "not_entered", "send", "refused", "delayed", "goal", "left"})
"""What may not be left out."""
TIMES = frozenset({"delayed", "waits", "woke", "timed_out"})
"""Of these the value is a time."""

Said = Annotated[Value, Field(description="The fact, such as the template; `true`: whatever it is.")]


class Line(_Said):
    """One line of what is expected. It says exactly one of the words below `step`; `true` stands for any value."""

    at: When | None = Field(None, description="When; left out: whenever it is.")
    step: StepName | None = None
    entered: Said | None = Field(None, description="By what: event, joined, left, date, schedule or broadcast.")
    held_out: bool | None = Field(None, description="With `entered`: whether she is one of those held out.")
    not_entered: Said | None = Field(None, description="Why: inside, again, condition, paused, draining, …")
    send: Said | None = Field(None, description="The template of a message that leaves.")
    refused: Said | None = Field(None, description="Why a message does not: no_consent, no_address, cap, …")
    delayed: When | Literal[True] | None = Field(None, description="Until when a message waits.")
    left: Said | None = Field(None, description="Why: done, goal, exit, stopped, …")
    goal: Said | None = Field(None, description="The event that reached it.")
    waits: When | Literal[True] | None = Field(None, description="Until when she waits.")
    woke: When | Literal[True] | None = None
    happened: Said | None = Field(None, description="What a wait_until had waited for.")
    timed_out: When | Literal[True] | None = None
    branched: Said | None = Field(None, description="The step that follows; likewise split.")
    split: Said | None = None
    updated: Said | None = None
    called: Said | None = Field(None, description="The template of a call.")
    opened: Said | None = Field(None, description="ticket or task.")
    moved: Said | None = None
    held: Said | None = None
    resumed: Said | None = None
    slowed: Said | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Line:
        said = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(said) != 1:
            raise ValueError(f"say exactly one of {', '.join(KINDS)}; got {' and '.join(said) or 'none'}")
        if self.held_out is not None and said != ["entered"]:
            raise ValueError("held_out goes with entered")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def value(self) -> Any:
        return getattr(self, self.kind)


class Case(_Said):
    """What happens to somebody, and what the journey is to do."""

    case: Annotated[Text, Field(max_length=300)] = Field(description="What it shows, as a sentence.")
    start: When = Field(Moment(START.isoformat(" "), at=START), description="When it begins; the journey is live then.")
    person: Person = Field(default_factory=lambda: Person.model_validate({}))
    with_: Annotated[tuple[StepName, ...], Field(max_length=50)] = Field(
        (), alias="with", description="Journeys that are live beside it.")  # fmt: skip
    held_out: bool = Field(False, description="She is held out. Nobody is by lot.")
    draws: dict[StepName, StepName] = Field(
        default_factory=dict, max_length=20, description="What she draws: the step that a split leads to, by its name."
    )
    fails: Annotated[tuple[StepName, ...], Field(max_length=20)] = Field(
        (), description="Steps whose messages fail; all others are sent.")  # fmt: skip
    events: Annotated[tuple[CaseEvent, ...], Field(max_length=1_000)] = ()
    until: When | None = Field(None, description="Nothing is looked at after that; left out: until all is over.")
    expect: Annotated[tuple[Line, ...], Field(max_length=1_000)] = Field(
        description=f"In order. {', '.join(sorted(MUST))} may not be left out, all others may."
    )
    exactly: bool = Field(False, description="Nothing may be left out.")

    @model_validator(mode="after")
    def _begins(self) -> Case:
        if self.start.at is None:
            raise ValueError("start is a time, such as 2026-03-01 10:00")
        return self


def _zone(value: Any) -> Any:
    if value not in available_timezones():
        raise ValueError("name a time zone of the tz database, such as Europe/Berlin or Asia/Shanghai")
    return value


class CaseFile(_Said):
    """The cases of a journey. File: config/journeys/NAME.cases.yaml"""

    zone: Annotated[str, BeforeValidator(_zone)] = Field(
        "UTC", description="The time zone of the workspace, and of times that are written out.")  # fmt: skip
    cases: Annotated[tuple[Case, ...], Field(min_length=1, max_length=500)]

    def __iter__(self) -> Iterator[Case]:  # type: ignore[override]
        return iter(self.cases)

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.zone)
