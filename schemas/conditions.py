"""Conditions: who is meant, as a small tree. docs/segments.md says what each form means, to the edge.

Written in YAML, read aloud as a sentence (`schemas.sentences`), compiled to Python (`processors.judging`) and to SQL
(`sinks.conditions`).

A node is known by the one key that names it: `all`, `any`, `not`, `did`, `sequence`, `trait`, `attribute`, `context`,
`segment`. Everything else in it says more. Nodes are values: equal where they say the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS

MOST_NODES = 200  # of one condition
DEEPEST = 12
MOST_VALUES = 1_000  # of one_of and none_of
MOST_TIMES = 1_000  # that an event can be asked for: so many are remembered
LONGEST_TEXT = 500
LONGEST_NAME = 200
LONGEST_WINDOW_DAYS = 3_660  # ten years; a memory is bounded by its events, not by their age
LARGEST_NUMBER = 1e15  # beyond it neighbouring whole numbers are no longer told apart

# --- durations


@dataclass(frozen=True)
class Duration:
    """How long ago. Of `minutes`, `hours` and `days`, which have 24 hours, or of days of the calendar."""

    count: int
    unit: str

    @property
    def is_calendar(self) -> bool:
        """Counted in days of the calendar, of the workspace's time zone; today is the first of them."""
        return self.unit == "calendar day"

    @property
    def ms(self) -> int:
        """In milliseconds. Of calendar days roughly: they have 23 to 25 hours."""
        return self.count * _UNITS_MS[self.unit]

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' * (self.count != 1)}"


_UNITS_MS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "calendar day": DAY_MS}
_DURATION = re.compile(r"\s*([0-9]{1,6})\s+(minute|hour|day|week|calendar day)s?\s*\Z")


def duration_of(value: Any) -> Duration:
    """Read a duration, such as `90 days`.

    >>> duration_of("90 days"), duration_of("1 calendar day").is_calendar
    (Duration(count=90, unit='day'), True)

    Raises:
        ValueError: it is none, or longer than ten years.
    """
    if isinstance(value, Duration):
        return value
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a number and minutes, hours, days, weeks or calendar days, such as 90 days")
    duration = Duration(int(match.group(1)), match.group(2))
    if not 0 < duration.ms <= LONGEST_WINDOW_DAYS * DAY_MS:
        raise ValueError(f"write at least 1 minute and at most {LONGEST_WINDOW_DAYS:,} days")
    return duration


Window = Annotated[Duration, BeforeValidator(duration_of), PlainSerializer(str)]


def _day(value: Any) -> date:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError("write a day, such as 2026-01-31")  # noqa: TRY004 - pydantic takes no TypeError
    return value


Day = Annotated[date, BeforeValidator(_day)]


# --- values


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("write a number")  # noqa: TRY004 - pydantic takes no TypeError
    if not abs(value) <= LARGEST_NUMBER:  # nor is NaN
        raise ValueError("write a number of at most 15 digits")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("write a text; in quotes, where it looks like a number or a date")  # noqa: TRY004
    if not 0 < len(value) <= LONGEST_TEXT:
        raise ValueError(f"write a text of 1 to {LONGEST_TEXT} characters")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("the text holds a zero character, or half of one")
    return value


def _value(value: Any) -> bool | int | float | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return _text(value) if value else value
    raise ValueError("write a text, a number, true or false; a date in quotes")


def _matching(pattern: str, mend: str) -> BeforeValidator:
    matches = re.compile(pattern).fullmatch

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not matches(value) or len(value) > LONGEST_NAME:
            raise ValueError(mend)
        return value

    return BeforeValidator(check)


_VALUE_SCHEMA = {"type": ["string", "number", "boolean"]}
Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
Value = Annotated[bool | int | float | str, PlainValidator(_value), WithJsonSchema(_VALUE_SCHEMA)]
Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=MOST_VALUES)]
Name = Annotated[Text, Field(max_length=LONGEST_NAME)]
_SEGMENT = r"[a-z][a-z0-9_]{0,62}"
SegmentName = Annotated[
    str, _matching(_SEGMENT, "a segment is named with lower case letters, digits and _, at most 63"),
    WithJsonSchema({"type": "string", "pattern": f"^{_SEGMENT}$"}),
]  # fmt: skip
_PATH = r"[^.\x00-\x1f`\\]+(\.[^.\x00-\x1f`\\]+){0,5}"
Path = Annotated[
    str, _matching(_PATH, "write a name, or names with dots between them, such as products.category; at most 6"),
    WithJsonSchema({"type": "string", "pattern": f"^{_PATH}$"}),
]  # fmt: skip
ATTRIBUTE = r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+){1,3}"


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def _said(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]


class Op(StrEnum):
    """What a value is asked. `NEGATIONS` are no operations of their own: `is_not x` is `not: is x`."""

    IS = "is"
    ONE_OF = "one_of"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    EXISTS = "exists"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    MORE_THAN = "more_than"
    LESS_THAN = "less_than"
    BETWEEN = "between"
    BEFORE = "before"
    SINCE = "since"
    WITHIN = "within"
    LONGER_AGO = "longer_ago"


class Test(_Said):
    """What one value is asked: exactly one of these."""

    is_: Value | None = Field(None, alias="is", description="The very same text, number or truth.")
    is_not: Value | None = Field(None, description="Not `is`; so true where there is no value.")
    one_of: Values | None = Field(None, description="Any of these.")
    none_of: Values | None = Field(None, description="Not `one_of`; so true where there is no value.")
    contains: Text | None = Field(None, description="Text that holds this, in whatever case.")
    lacks: Text | None = Field(None, description="Not `contains`; so true where there is no value.")
    starts_with: Text | None = Field(None, description="Text that begins so, in whatever case.")
    ends_with: Text | None = Field(None, description="Text that ends so, in whatever case.")
    exists: StrictBool | None = Field(None, description="There is a value; or, false, none.")
    at_least: Number | None = Field(None, description="A number of at least this.")
    at_most: Number | None = None
    more_than: Number | None = None
    less_than: Number | None = None
    between: tuple[Number, Number] | None = Field(None, description="A number from the first to the second.")
    before: Day | None = Field(None, description="A time before this day.")
    since: Day | None = Field(None, description="A time on this day or later.")
    within: Window | None = Field(None, description="A time in the last so long, not in the future.")
    longer_ago: Window | None = Field(None, description="A time longer ago than this.")

    NEGATIONS: ClassVar[Mapping[str, Op]] = {"is_not": Op.IS, "none_of": Op.ONE_OF, "lacks": Op.CONTAINS}

    @model_validator(mode="after")
    def _is_one(self) -> Test:
        said = self._said(*Test.model_fields)
        if len(said) != 1:
            names = ", ".join(field.alias or name for name, field in Test.model_fields.items())
            found = f"got {' and '.join(said)}" if said else "got none"
            raise ValueError(f"say exactly one of {names}; {found}")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError("between: write the smaller number first")
        return self

    @property
    def asked(self) -> tuple[Op, Any, bool]:
        """The operation, what it compares with, and whether the answer is turned round."""
        (name,) = self._said(*Test.model_fields)
        value = getattr(self, name)
        if name in self.NEGATIONS:
            return self.NEGATIONS[name], value, True
        if name == "exists":
            return Op.EXISTS, None, not value
        return Op(name.rstrip("_")), value, False

    @property
    def takes_time(self) -> bool:
        """Whether its answer changes by itself."""
        return self.within is not None or self.longer_ago is not None


class Where(Test):
    """A test on one property of an event. Of a list, any element may pass."""

    property: Path = Field(description="Its path, such as `products.category`; or `name`, `category` of a page.")

    @model_validator(mode="after")
    def _is_still(self) -> Where:
        if self.takes_time:
            raise ValueError("properties are compared with a fixed time: write before or since")
        return self


def _wheres(value: Any) -> Any:
    """`{category: Skin care}` for `[{property: category, is: Skin care}]`."""
    if isinstance(value, Mapping) and "property" not in value:
        return [{"property": name, **(test if isinstance(test, Mapping) else {"is": test})}
                for name, test in value.items()]  # fmt: skip
    return [value] if isinstance(value, Mapping) else value


Wheres = Annotated[tuple[Where, ...], BeforeValidator(_wheres), Field(max_length=20)]


class Event(_Said):
    """Which events: of a name, and all of the tests passed."""

    did: Name = Field(description="The name of a track event, or Page, Screen, Identify, Group, Alias.")
    where: Wheres = ()


class Total(_Said):
    """What the numbers of a property come to, over the events counted. Other values count as 0."""

    of: Path
    at_least: Number | None = None
    less_than: Number | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Total:
        if (self.at_least is None) == (self.less_than is None):
            raise ValueError("say at_least or less_than")
        return self


Times = Annotated[StrictInt, Field(ge=0, le=MOST_TIMES)]


class Did(Event):
    """She did it: so many times, or for so much in total, in a window of time. Without more: at least once, ever."""

    kind: ClassVar[str] = "did"

    at_least: Times | None = None
    at_most: Times | None = None
    exactly: Times | None = None
    total: Total | None = None
    which: Literal["first", "last"] | None = Field(None, description="Only her first, or her last, is looked at.")
    within: Window | None = Field(None, description="In the last so long.")
    longer_ago: Window | None = Field(None, description="With `which`: longer ago than this.")
    since: Day | None = Field(None, description="On this day or later.")

    @model_validator(mode="after")
    def _fits(self) -> Did:
        counts = self._said("at_least", "at_most", "exactly", "total", "which")
        if len(counts) > 1:
            raise ValueError(f"say one of {' and '.join(counts)}")
        if self.at_least == 0:
            raise ValueError("at_least: 0 is true of everybody; write at least 1")
        windows = self._said("within", "longer_ago", "since")
        if len(windows) > 1:
            raise ValueError(f"say one of {' and '.join(windows)}")
        if self.longer_ago is not None and self.which is None:
            raise ValueError("longer_ago is about one event: say which: first or which: last")
        if self.which is not None and not windows:
            raise ValueError("say when: within, longer_ago or since")
        return self


    @property
    def is_counted(self) -> bool:
        """Whether it asks for more than that she did it at all."""
        return bool(self._said("at_least", "at_most", "exactly", "total", "which"))


class Step(Event):
    """A later step of a sequence."""

    within: Window | None = Field(None, description="So long after the step before it, at most.")
    without: Event | None = Field(None, description="With none of these between the step before it and this one.")

    @model_validator(mode="after")
    def _is_exact(self) -> Step:
        if self.within is not None and self.within.is_calendar:
            raise ValueError("within: between two steps write minutes, hours, days or weeks")
        return self


class Sequence(_Said):
    """She did one thing, then another: for each event of a step, the newest of the step before it counts."""

    kind: ClassVar[str] = "sequence"

    sequence: tuple[Step, ...] = Field(min_length=2, max_length=4)
    within: Window | None = Field(None, description="The last step in the last so long.")
    since: Day | None = Field(None, description="The last step on this day or later.")

    @model_validator(mode="after")
    def _fits(self) -> Sequence:
        if self.sequence[0].within is not None or self.sequence[0].without is not None:
            raise ValueError("the first step has no step before it: within and without belong to the later ones")
        if self.within is not None and self.since is not None:
            raise ValueError("say within or since")
        return self


class Trait(Test):
    """What she said of herself, by identify calls: the newest word."""

    kind: ClassVar[str] = "trait"
    trait: Path


class Attribute(Test):
    """What a processor knows of her, such as `orders.orders`, `orders.revenue.EUR`, `visits.last_at` or `rfm.group`."""

    kind: ClassVar[str] = "attribute"
    attribute: Annotated[str, _matching(ATTRIBUTE, "name a processor and what it knows, such as orders.orders")]


class Context(Test):
    """What the newest event says that says it at all, such as `locale`, `device.type` or `campaign.source`."""

    kind: ClassVar[str] = "context"
    context: Path


class InSegment(_Said):
    """She is in another segment."""

    kind: ClassVar[str] = "segment"
    segment: SegmentName


class All(_Said):
    kind: ClassVar[str] = "all"
    all: tuple[Condition, ...] = Field(min_length=1, max_length=MOST_NODES)


class Any_(_Said):
    kind: ClassVar[str] = "any"
    any: tuple[Condition, ...] = Field(min_length=1, max_length=MOST_NODES)


class Not(_Said):
    kind: ClassVar[str] = "not"
    not_: Condition = Field(alias="not")


Leaf = Did | Sequence | Trait | Attribute | Context | InSegment
_KINDS: tuple[type[Any], ...] = (All, Any_, Not, Did, Sequence, Trait, Attribute, Context, InSegment)
KINDS = tuple(node.kind for node in _KINDS)


def _kind_of(value: Any) -> str | None:
    """The key that names a node."""
    if isinstance(value, _Said):
        return getattr(type(value), "kind", None)
    if not isinstance(value, Mapping):
        return None
    found = [kind for kind in KINDS if kind in value]
    return found[0] if len(found) == 1 else None


Condition = Annotated[
    Annotated[All, Tag("all")]
    | Annotated[Any_, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[Did, Tag("did")]
    | Annotated[Sequence, Tag("sequence")]
    | Annotated[Trait, Tag("trait")]
    | Annotated[Attribute, Tag("attribute")]
    | Annotated[Context, Tag("context")]
    | Annotated[InSegment, Tag("segment")],
    Discriminator(
        _kind_of, custom_error_type="condition",
        custom_error_message=f"a condition has exactly one of the keys {', '.join(KINDS)}",
    ),
]  # fmt: skip

for _node in (All, Any_, Not):
    _node.model_rebuild()


def leaves_of(node: Any) -> Iterator[Leaf]:
    """The leaves, in the order in which they are written."""
    if isinstance(node, All | Any_ | Not):
        for child in children_of(node):
            yield from leaves_of(child)
    else:
        yield node


def children_of(node: Any) -> tuple[Any, ...]:
    match node:
        case All():
            return node.all
        case Any_():
            return node.any
        case Not():
            return (node.not_,)
    return ()


# --- reading


class Problem(NamedTuple):
    """What is wrong with a condition.

    Attributes:
        path: the way to it: keys and places in lists, as they stand in the YAML.
        what: what is wrong, and what would be right.
        value: what stands there.
    """

    path: tuple[str | int, ...]
    what: str
    value: Any


class WrongCondition(ValueError):
    """A condition that cannot be used; `problems` says why, in the order in which they stand."""

    def __init__(self, problems: Many[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, each.path))}: {each.what}" for each in self.problems))


_adapter: TypeAdapter[Any] = TypeAdapter(Condition)


def read_condition(value: Any) -> Any:
    """Read a condition of plain maps, lists and values, as YAML or JSON give them.

    >>> read_condition({"did": "Order Completed", "within": "90 days"}).did
    'Order Completed'

    Raises:
        WrongCondition: what is wrong with it, and where.
    """
    if _depth(value) > 4 * DEEPEST:  # each node is a map, and a list or two
        raise WrongCondition([Problem((), f"the condition is nested too deeply; at most {DEEPEST} levels", None)])
    try:
        condition = _adapter.validate_python(value)
    except ValidationError as error:
        raise WrongCondition(problems_of(error)) from None
    nodes, levels = _size(condition)
    if nodes > MOST_NODES:
        raise WrongCondition([Problem((), f"the condition has {nodes} parts; at most {MOST_NODES}", None)])
    if levels > DEEPEST:
        raise WrongCondition([Problem((), f"the condition has {levels} levels; at most {DEEPEST}", None)])
    return condition


def _depth(value: Any) -> int:
    """How deep maps and lists are nested, as far as it matters. Without calling itself: the value is anybody's."""
    depth, level = 0, [value]
    while level and depth <= 4 * DEEPEST:
        depth += 1
        level = [inner for each in level for inner in _inside(each)]
    return depth


def _inside(value: Any) -> Many[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list | tuple) else ()


def problems_of(
    error: ValidationError, path_of: Callable[[tuple[str | int, ...]], tuple[str | int, ...]] | None = None
) -> list[Problem]:
    """What pydantic found, with the path as it stands in the YAML, each place once and said in our words.

    Args:
        path_of: makes the path in the YAML of pydantic's; that of a condition (`path_in_condition`) unless given.
    """
    found: dict[tuple[str | int, ...], Problem] = {}
    for each in error.errors():
        path = (path_of or path_in_condition)(each["loc"])
        what = each["msg"].removeprefix("Value error, ").replace("is_ ", "is ")
        found.setdefault(path, Problem(path, _OUR_WORDS.get(each["type"], what), each["input"]))
    return [problem for path, problem in found.items() if not any(_is_inside(other, path) for other in found)]


def path_in_condition(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The way to a part of a condition as it stands in the YAML, of the way that pydantic tells."""
    return tuple(step for place, step in enumerate(path) if not _is_tag(path, place))


def _is_inside(path: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    return len(path) > len(other) and path[: len(other)] == other


_OUR_WORDS = {
    "extra_forbidden": "no such key here",
    "missing": "is missing",
    "too_short": "there are too few",
    "too_long": "there are too many",
}


def _is_tag(path: Many[str | int], place: int) -> bool:
    """Whether a step is not a key of the YAML but the name that pydantic gives to the kind of node there."""
    step = path[place]
    return step in KINDS and (place == 0 or path[place - 1] != step) and _follows_node(path, place)


def _follows_node(path: Many[str | int], place: int) -> bool:
    """A node stands at the root, under `not`, and in the lists of `all` and `any`; then its kind is named first."""
    before = path[place - 1] if place else ""
    return place == 0 or before == "not" or isinstance(before, int)


def _size(node: Any) -> tuple[int, int]:
    """How many nodes, and how many levels of them."""
    sizes = [_size(child) for child in children_of(node)]
    return 1 + sum(nodes for nodes, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)


# --- the same for what says the same


def canonical(node: Any) -> bytes:
    """The node as JSON, the same for nodes that are equal."""
    plain = node.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def leaf_id(leaf: Leaf) -> str:
    """What the memory of a leaf is known by: an edit that leaves the leaf as it is keeps its memory."""
    return blake2b(canonical(leaf), digest_size=6).hexdigest()
