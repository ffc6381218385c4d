"""Journeys: what happens to whom and when. docs/journeys.md says what each word means.

    enter:  {event: {did: Product Added}}
    again:  {once_per: cart_id}
    goal:   {did: Order Completed, matching: cart_id, within: 7 days}
    steps:
      - {step: pause, wait: 1 hour}
      - {step: remind, send: basket}

What people write is checked by pydantic (`JourneyFile`), what partitions are told of it is `Led`, and where somebody
stands in one is a `Run` in the state of the part that it began with, so that it moves with that part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    Tag,
    model_validator,
)

from schemas.conditions import Condition, Duration, Event, Path, SegmentName, Text, Value, Window, duration_of
from schemas.templates import Channel, Class
from schemas.times import HOUR_MS

MOST_STEPS = 100  # of a journey
MOST_FACTS = 20  # values of the event that began it that a run keeps
LONGEST_FACT = 2_000  # bytes of one of them, as JSON
STEP = r"^[a-z][a-z0-9_]{0,62}$"
CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
END = "end"  # where a step may lead beside other steps
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


def _exact(value: Any) -> Duration:
    duration = duration_of(value)
    if duration.is_calendar:
        raise ValueError("write minutes, hours, days or weeks")
    return duration


Span = Annotated[Window, BeforeValidator(_exact)]
Percent = Annotated[float, Field(ge=0, le=100, strict=True)]
StepName = Annotated[str, Field(pattern=STEP)]
Clock = Annotated[str, Field(pattern=CLOCK)]
Calendar = Literal["solar", "lunar"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

# --- events, as journeys ask for them


class Met(Event):
    """An event that happens to somebody who is inside."""

    matching: Path | None = Field(None, description="Its value here is that of the event that she entered by.")
    message: StepName | None = Field(None, description="It is about the message that this step of the journey sent.")


class Joined(_Said):
    joined: SegmentName = Field(description="She joins this segment.")


class Left(_Said):
    left: SegmentName = Field(description="She leaves this segment.")


def _happening(value: Any) -> str | None:
    return _only_key(value, ("did", "joined", "left"))


def _only_key(value: Any, kinds: Iterable[str]) -> str | None:
    """Which of these a node is known by; None: none of them, or several."""
    if isinstance(value, BaseModel):
        return next((kind for kind in kinds if kind in type(value).model_fields), None)
    found = [kind for kind in kinds if isinstance(value, Mapping) and kind in value]
    return found[0] if len(found) == 1 else None


Happening = Annotated[
    Annotated[Met, Tag("did")] | Annotated[Joined, Tag("joined")] | Annotated[Left, Tag("left")],
    Discriminator(
        _happening, custom_error_type="happening",
        custom_error_message="what happens has exactly one of the keys did, joined, left",
    ),
]  # fmt: skip


class Goal(Met):
    """What the journey is for. It counts within a time of entry, also of those held out, and after the last step."""

    within: Span = Field(description="So long after she entered.")
    value: Path | None = Field(None, description="A number of that event: what it is worth.")
    leaves: StrictBool = Field(True, description="Who reaches it leaves at once.")


# --- entry


class Dated(_Said):
    """A day of each year, or a day, that a trait says."""

    trait: Path = Field(description="Of whom the day is, such as `birthday`: `1990-02-29`, or `02-29`.")
    calendar: Calendar = Field("solar", description="`lunar`: of the Chinese calendar.")
    yearly: StrictBool = Field(True, description="On that day of every year; false: on that day alone, as a renewal.")
    days_before: Annotated[StrictInt, Field(ge=0, le=365)] = 0
    at: Clock = Field("09:00", description="When, in the time zone of the workspace.")


class Schedule(_Said):
    cron: Annotated[str, Field(max_length=100)] = Field(description="Five fields: minute, hour, day, month, weekday.")
    segment: SegmentName = Field(description="Who is in it then enters.")


class Enter(_Said):
    """How people enter: exactly one of these."""

    event: Event | None = None
    joined: SegmentName | None = Field(None, description="Whoever joins this segment.")
    left: SegmentName | None = Field(None, description="Whoever leaves this segment.")
    date: Dated | None = None
    schedule: Schedule | None = None
    broadcast: SegmentName | None = Field(None, description="Who is in it when somebody says so.")

    @model_validator(mode="after")
    def _is_one(self) -> Enter:
        said = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(said) != 1:
            raise ValueError(f"say exactly one of {', '.join(type(self).model_fields)}; "
                             f"got {' and '.join(said) or 'none'}")  # fmt: skip
        return self

    @property
    def kind(self) -> str:
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


class Again(_Said):
    """When somebody may enter once more: exactly one of these."""

    after: Span | None = Field(None, description="So long after she last entered.")
    once_per: Path | None = Field(None, description="For each value of a property once, such as `order_id`.")

    @model_validator(mode="after")
    def _is_one(self) -> Again:
        if (self.after is None) == (self.once_per is None):
            raise ValueError("say after or once_per")
        return self


# --- steps


class _Step(_Said):
    step: StepName = Field(description="Its name, of which a journey has one.")
    then: StepName | None = Field(None, description="The step that follows, or `end`; else the next one.")


class SendStep(_Step):
    """Propose a message. The arbiter decides whether and when she gets it."""

    send: StepName = Field(description="Name of a template.")
    given: dict[Annotated[str, Field(pattern=STEP)], Value] = Field(
        default_factory=dict, max_length=20, description="Values for the template, as `given.NAME`.")  # fmt: skip
    from_event: dict[Annotated[str, Field(pattern=STEP)], Path] = Field(
        default_factory=dict, max_length=20,
        description="Values for the template that the event had by which she entered, as `given.NAME`.",
    )  # fmt: skip
    expires: Span = Field(Duration(1, "day"), description="It is not begun to be sent after so long.")
    refused: StepName | None = Field(None, description="The step that follows where she does not get it.")


class At(_Said):
    """A moment that is waited for: the next time of day, or a day that a trait says."""

    at: Clock | None = Field(None, description="A time of day; of a date 09:00 unless said.")
    days: Annotated[tuple[Day, ...], Field(max_length=7)] = Field((), description="On these weekdays alone.")
    date: Path | None = Field(None, description="The day that this trait says.")
    calendar: Calendar = "solar"
    yearly: StrictBool = False
    days_before: Annotated[StrictInt, Field(ge=0, le=365)] = 0
    zone: Literal["person", "workspace"] = Field("person", description="Whose clock it is.")

    @model_validator(mode="after")
    def _is_one(self) -> At:
        if self.at is None and self.date is None:
            raise ValueError("say at, or date")
        if self.date is not None and self.days:
            raise ValueError("a date has its own weekday: leave out days")
        if self.date is None and (self.days_before or self.yearly or self.calendar != "solar"):
            raise ValueError("days_before, yearly and calendar belong to a date")
        return self


def _is_map(value: Any) -> str:
    return "map" if isinstance(value, Mapping | BaseModel) else "word"


OneOrMap = Discriminator(_is_map)  # so that one is told what is wrong with the one that was meant


class WaitStep(_Step):
    """Go on after so long, or at a moment. A date that is past, or that she has not, is not waited for."""

    wait: Annotated[Annotated[Span, Tag("word")] | Annotated[At, Tag("map")], OneOrMap]


class WaitUntilStep(_Step):
    """Go on when something happens, or after so long."""

    wait_until: Happening
    at_most: Span = Field(description="How long it is waited for.")
    otherwise: StepName | None = Field(None, description="The step that follows where it did not happen.")


class Case(_Said):
    when: Condition
    then: StepName


class BranchStep(_Step):
    """The first of the conditions that is true decides the step that follows."""

    branch: tuple[Case, ...] = Field(min_length=1, max_length=20)


class Arm(_Said):
    then: StepName
    weight: Annotated[float, Field(gt=0, le=1_000, strict=True)] = 1


class SplitStep(_Step):
    """By lot. The same person always draws the same."""

    split: tuple[Arm, ...] = Field(min_length=2, max_length=10)
    learns: StrictBool = Field(False, description="Weights follow what reaches the goal (Thompson sampling).")


class Change(_Said):
    traits: dict[Path, Value | None] = Field(default_factory=dict, max_length=20)
    add_tags: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    remove_tags: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class UpdateStep(_Step):
    """Change what is known of her: traits, and the trait `tags`."""

    update: Change


class CallStep(_Step):
    """Tell another program: a template of channel `call`."""

    call: StepName
    from_event: dict[Annotated[str, Field(pattern=STEP)], Path] = Field(default_factory=dict, max_length=20)
    given: dict[Annotated[str, Field(pattern=STEP)], Value] = Field(default_factory=dict, max_length=20)


class Work(_Said):
    """What somebody is to do."""

    subject: Annotated[Text, Field(max_length=200)]
    about: Annotated[str, Field(max_length=1_000)] = ""
    priority: Literal["low", "normal", "high", "urgent"] = "normal"


class TicketStep(_Step):
    """Open a ticket: event `Ticket Created` of hers."""

    ticket: Work


class TaskStep(_Step):
    """Give somebody something to do: event `Task Created` of hers."""

    task: Work


class ExitStep(_Step):
    exit: Annotated[str, Field(max_length=200)] = Field("", description="Why, for the ledger.")


class GoStep(_Step):
    """Go to a step. One that was before this one is gone to so often at most; then the next step follows."""

    go: StepName
    times: Annotated[StrictInt, Field(ge=1, le=100)] | None = None


STEPS: dict[str, type[_Step]] = {
    "send": SendStep, "wait": WaitStep, "wait_until": WaitUntilStep, "branch": BranchStep, "split": SplitStep,
    "update": UpdateStep, "call": CallStep, "ticket": TicketStep, "task": TaskStep, "exit": ExitStep, "go": GoStep,
}  # fmt: skip


def _step(value: Any) -> str | None:
    return _only_key(value, STEPS)


AnyStep = (
    SendStep | WaitStep | WaitUntilStep | BranchStep | SplitStep | UpdateStep | CallStep | TicketStep | TaskStep
    | ExitStep | GoStep
)  # fmt: skip
Step = Annotated[
    Annotated[SendStep, Tag("send")]
    | Annotated[WaitStep, Tag("wait")]
    | Annotated[WaitUntilStep, Tag("wait_until")]
    | Annotated[BranchStep, Tag("branch")]
    | Annotated[SplitStep, Tag("split")]
    | Annotated[UpdateStep, Tag("update")]
    | Annotated[CallStep, Tag("call")]
    | Annotated[TicketStep, Tag("ticket")]
    | Annotated[TaskStep, Tag("task")]
    | Annotated[ExitStep, Tag("exit")]
    | Annotated[GoStep, Tag("go")],
    Discriminator(
        _step, custom_error_type="step",
        custom_error_message=f"a step has a name, as step, and exactly one of the keys {', '.join(STEPS)}",
    ),
]  # fmt: skip


def kind_of(step: AnyStep) -> str:
    """The word that a step is known by, such as `send`."""
    return next(kind for kind, model in STEPS.items() if type(step) is model)


class JourneyFile(_Said):
    """One journey."""

    title: Annotated[dict[str, str], Field(max_length=10)] = Field(
        default_factory=dict, description="Its name for people, by language: `{en: Welcome, zh: 欢迎}`."
    )
    about: str = Field("", max_length=1_000, description="What it is for.")
    enter: Enter
    when: Condition | None = Field(None, description="Of whom this must be true when they enter.")
    again: Annotated[
        Annotated[Literal["never", "always"], Tag("word")] | Annotated[Again, Tag("map")], OneOrMap
    ] = Field("never", description="Whether somebody may enter once more.")
    holdout: Percent = Field(10, description="So many of a hundred get nothing, so that one sees what it changes.")
    priority: Annotated[StrictInt, Field(ge=0, le=100)] = Field(50, description="Whose message goes first.")
    goal: Goal | None = None
    exits: Annotated[tuple[Happening, ...], Field(max_length=20)] = Field((), description="What makes her leave.")
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MOST_STEPS)


# --- limits of all journeys: config/limits.yaml


class QuietHours(_Said):
    """From a time of day to another, in her own time zone, no marketing message is sent; it waits until they end."""

    from_: Clock = Field(alias="from")
    to: Clock


class Cap(_Said):
    """So many marketing messages at most, of all journeys, in the last so long."""

    at_most: Annotated[StrictInt, Field(ge=1, le=1_000)]
    within: Span
    channel: Channel | None = None
    topic: Annotated[str, Field(max_length=100)] = ""


class Limits(_Said):
    """What holds for the messages of all journeys. File: config/limits.yaml"""

    quiet_hours: QuietHours | None = None
    caps: Annotated[tuple[Cap, ...], Field(max_length=20)] = ()
    holdout: Percent = Field(0, description="So many of a hundred get no journey at all.")


# --- in topic `journeys`

Status = Literal["live", "paused", "draining", "stopped"]
"""`paused`: nobody enters, and who is inside stands still; `draining`: nobody enters; `stopped`: and all leave."""


class SavedJourney(msgspec.Struct, tag="journey", kw_only=True, omit_defaults=True, frozen=True):
    """A version of a journey, as it stands in topic `journeys`. JSON. The first fields are those of `SavedTemplate`."""

    name: str
    version: int
    id: str
    text: str = ""
    by: str = ""
    at_ms: int = 0
    source: Literal["file", "page"] = "file"
    from_file: str = ""
    is_gone: bool = False


class Steering(msgspec.Struct, tag="steering", kw_only=True, omit_defaults=True, frozen=True):
    """What marketers want of a journey, whatever its version. Key `NAME/steering` of topic `journeys`.

    Attributes:
        status: see `Status`.
        migrate_to: who is inside by an older version moves to this one, where it has a step of the name she is at.
        by, at_ms: who said so, and when.
    """

    name: str
    status: Status = "live"
    migrate_to: int = 0
    by: str = ""
    at_ms: int = 0


class Broadcast(msgspec.Struct, tag="broadcast", kw_only=True, frozen=True):
    """Whoever is in the segment of a journey is to enter it now. Key `NAME/broadcast/ID`; gone once all were asked.

    Attributes:
        id: of the same, nobody is asked twice.
        by, at_ms: who said so, and when.
    """

    name: str
    id: str
    by: str
    at_ms: int

    @property
    def sweep(self) -> str:
        """As what people are asked, in the ledger and in the log."""
        return f"{self.name}@broadcast-{self.id}"


OfJourneys = SavedJourney | Steering | Broadcast
"""What stands in topic `journeys`."""


# --- what partitions are told


class Mail(msgspec.Struct, frozen=True):
    """What an order must say of a template."""

    channel: Channel
    kind: Class
    topic: str = ""


class LedJourney(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A version of a journey, for the stage.

    Attributes:
        said: the YAML, as plain values; it was checked before.
        is_newest: people enter by this version.
        status, migrate_to: as `Steering`.
        weights: of splits that learn, by the name of the step: the share of each arm.
    """

    name: str
    version: int
    said: Any
    is_newest: bool = True
    status: Status = "live"
    migrate_to: int = 0
    weights: dict[str, list[float]] = {}


class Led(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that the customer stage is told of journeys. JSON.

    Attributes:
        journeys: the newest version of each, and older ones by which somebody is inside.
        mails: of the templates that they send, by name.
        limits: `Limits`, as plain values.
        workspace: whose they are.
    """

    journeys: list[LedJourney] = []
    mails: dict[str, Mail] = {}
    limits: Any = {}
    workspace: str = "default"


# --- what is remembered of a person


RunState = Literal["waits", "quiet", "slowed", "held", "control", "after"]
"""`waits` at its step. `quiet`: its step comes when quiet hours end; `slowed`: a moment later, since too much happened
at once; `held`: when its journey goes on, which is paused. `control`: held out, only the goal is looked for; `after`:
its steps are done, and so."""


class Run(msgspec.Struct, array_like=True):
    """Somebody's way through a journey.

    Attributes:
        step: the name of the step that she is at; empty where there is none.
        due_ms: when to look at it again; 0: never.
        entered_ms: when it began.
        key: value of `once_per`; empty where there is none.
        goal_ms: when the goal was reached; 0: it was not.
        facts: values of the event that began it, by path.
        went: how often each step that goes back was taken, by its name.
        sent: ids of messages, by the step that sent them.
        since_ms: when she came to the step.
        ordered: how many messages it had sent; makes their ids differ.
        by: what made her enter, see `Enter`.
        left_ms, left_by: when its steps ended for her, and why; 0: they did not.
        value: what the event of the goal was worth.
    """

    journey: str
    version: int
    state: RunState = "waits"
    step: str = ""
    due_ms: int = 0
    entered_ms: int = 0
    key: str = ""
    goal_ms: int = 0
    facts: dict[str, Any] = {}
    went: dict[str, int] = {}
    sent: dict[str, str] = {}
    since_ms: int = 0
    ordered: int = 0
    by: str = ""
    left_ms: int = 0
    left_by: str = ""
    value: int | float = 0  # one byte where there is none


class Entered(msgspec.Struct, array_like=True):
    """What is remembered of somebody's entries into one journey.

    Attributes:
        last_ms: of the last; times: how often in all.
        keys: newest values of `once_per`, and ids of sweeps, each once, the newest last.
        of_hour: how many were in the clock hour of the last.
    """

    last_ms: int = 0
    times: int = 0
    keys: list[str] = []
    of_hour: int = 0

    def in_hour(self, at_ms: int) -> int:
        """How many were in the clock hour of a moment after all of them, or of the last."""
        return self.of_hour if at_ms // HOUR_MS == self.last_ms // HOUR_MS else 0


class Ordered(msgspec.Struct, array_like=True, frozen=True):
    """A marketing message that a journey was allowed to send."""

    at_ms: int
    id: str
    channel: str
    topic: str


encode_led = msgspec.json.Encoder(order="sorted").encode
decode_led = msgspec.json.Decoder(Led).decode
encode_of_journeys = msgspec.json.Encoder(order="sorted").encode
decode_of_journeys = msgspec.json.Decoder(OfJourneys).decode
