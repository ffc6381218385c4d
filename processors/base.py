"""The processor interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec
from pydantic import BaseModel

from schemas.effects import Effect
from schemas.errors import Refused
from schemas.event import Event

S = TypeVar("S", bound=msgspec.Struct)

EVERY_EVENT = "*"


class NoSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of a processor that has none."""


class Table(NamedTuple):
    """A ClickHouse table of a processor, made from a struct.

    Attributes:
        name: of the table.
        row: the struct; its fields are the columns. Text, int, float, bool, Decimal (as Decimal(18, 4)), datetime,
            lists and `dict[str, text or number]` have their ClickHouse types; `typing.Annotated[str,
            "LowCardinality(String)"]` names another.
        key: columns that tell two rows of one person key apart.
        about: one sentence for the documentation.
        since: column with the time from which on a row grows old; empty: rows stay for ever.
        days: a row older than that is deleted; 0: how long rows stay is not changed.
    """

    name: str
    row: type[msgspec.Struct]
    key: tuple[str, ...]
    about: str
    since: str = ""
    days: int = 0


class Person(NamedTuple):
    """Who an event is about, as far as the processor may look.

    Attributes:
        key: the person key that she is known by today.
        part: the person key whose history this event belongs to; differs from `key` after a merge.
        applied: how many events of this part came before.
    """

    key: str
    part: str
    applied: int


class Processor(Generic[S]):
    """One processor. A subclass in `processors/` is found by itself.

    The state is folded per person key and viewed per person: `merge` makes one state of two that saw different
    events. The laws, which the acceptance suite holds every processor to:

    - `apply` and `on_timer` depend on their arguments alone; `apply` changes `state` in place.
    - merge(fold(some events), fold(the other events)) shows the same as fold(all of them), in either order.
    - Where order matters, it is the events' own times (then their message ids), not their arrival. A processor that
      forgets says by `exact_for_ms` how late is too late, and counts what came later.
    - The state is bounded, whatever is sent.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # of the state; raise it with an `upgrade` when old states cannot be read as new
    about: ClassVar[str]  # one sentence
    wants: ClassVar[frozenset[str]] = frozenset({EVERY_EVENT})
    """Event labels (`Order Completed`, `Page`, `Identify`, see `Event.label`), or EVERY_EVENT."""
    after: ClassVar[tuple[str, ...]] = ()
    """Names of processors that must see each event before this one."""
    exact_for_ms: int | None = None
    """How far an event may come behind the newest one before it and still count in full; None: however far."""

    State: ClassVar[type[msgspec.Struct]]
    Settings: ClassVar[type[BaseModel]] = NoSettings
    tables: ClassVar[tuple[Table, ...]] = ()
    limits: ClassVar[Mapping[str, str]] = {}
    """What is bounded, and what happens beyond it; for the documentation."""
    cases: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Examples for the acceptance suite: `{"case": …, "events": […], "shows": {…}}`; see docs/adding-a-processor.md."""

    def __init__(self, settings: BaseModel | None = None) -> None:
        self.settings: Any = settings if settings is not None else self.Settings()

    def check(self, event: Event) -> None:
        """Refuse an event that can never be used, before anything changes. Sees every event it wants.

        Raises:
            Refused: the whole event goes to `rejected`, and no processor applies it.
        """

    def apply(self, state: S, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        """Fold one event into the state, in place, and say what follows. `now_ms` is when it was received."""
        raise NotImplementedError

    def on_timer(self, state: S, timer: str, person: Person, now_ms: int) -> Iterable[Effect]:
        """A timer of this processor is due."""
        return ()

    def merge(self, one: S, other: S) -> S:
        """One state of two that saw different events of one person. Both arguments stay as they are."""
        raise NotImplementedError

    def show(self, state: S) -> dict[str, Any]:
        """What people and ClickHouse see of the state: plain JSON values; stands in the portrait under `name`."""
        return {}

    def attribute(self, name: str, states: Sequence[S]) -> Any:
        """What `show` says under a name of several states together; None: nothing.

        Segments ask for one value at a time, at many events: a processor may say it for less.
        """
        return self.show(reduce(self.merge, states)).get(name)

    @classmethod
    def upgrade(cls, version: int, old: Any) -> msgspec.Struct:
        """The state made from one of an earlier version, decoded to plain lists and dicts.

        Raises:
            Refused: there is no way from that version.
        """
        raise Refused(f"processor {cls.name} cannot read a state of version {version}; it is at {cls.version}",
                      mend="Give it an `upgrade`, or replay from the beginning.")  # fmt: skip
