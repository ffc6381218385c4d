"""The pure core of the customer stage: events folded through the processors over the parts of a person.

No log, no clock, no store: what comes out depends on what goes in. `streams/stage.py` drives it; the acceptance
suite and the tests drive it too, so they test the very thing that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import msgspec

from processors.base import EVERY_EVENT, Person, Processor, Table
from schemas.customer import Part
from schemas.effects import CancelTimer, Decision, Effect, Row, Timer
from schemas.errors import Refused, TidewireError
from schemas.event import Event

Apply = Callable[[msgspec.Struct, Event, Person, int], Iterable[Effect]]
Done = list[tuple[Processor[Any], Row | Decision]]
Spent = dict[str, tuple[int, float]]


class ProcessorFailed(Exception):
    """A bug in a processor: it raised. The state it worked on may be half changed.

    Attributes:
        processor: its name.
    """

    def __init__(self, processor: str, error: Exception) -> None:
        self.processor = processor
        super().__init__(f"{type(error).__name__}: {error}")


class _Slot:
    """One processor as the fold sees it: what is asked for at every event is looked up once."""

    __slots__ = ("apply", "decode", "processor", "section", "state", "timers")

    def __init__(self, processor: Processor[Any]) -> None:
        self.processor = processor
        self.section = f"{processor.name}:{processor.version}"
        self.timers = f"{processor.name}:"
        self.state = processor.State
        self.decode = msgspec.msgpack.Decoder(processor.State).decode
        self.apply: Apply = processor.apply


class Fold:
    """Processors in their order, ready to fold.

    The state of a processor stands in `part.sections` under `name:version`: encoded (`Raw`) as it was read, and as
    the live struct from the moment somebody asks. The encoder of a record takes either.

    Attributes:
        processors: in the order in which each event goes through them.
        tables: of all processors.
        table_of: the table of a row, by the type of its values.
    """

    def __init__(self, processors: Sequence[Processor[Any]]) -> None:
        self.processors = tuple(processors)
        self.tables: tuple[Table, ...] = tuple(table for processor in self.processors for table in processor.tables)
        self.table_of: dict[type[msgspec.Struct], Table] = {table.row: table for table in self.tables}
        self._slots = tuple(_Slot(processor) for processor in self.processors)
        self._by_name = {slot.processor.name: slot for slot in self._slots}
        labels = {label for processor in self.processors for label in processor.wants} - {EVERY_EVENT}
        self._others = self._wanting(EVERY_EVENT)
        self._wanted = {label: self._wanting(label) for label in labels}
        self._checked_others = _checking(self._others)
        self._checked = {label: _checking(slots) for label, slots in self._wanted.items()}

    def _wanting(self, label: str) -> tuple[_Slot, ...]:
        return tuple(slot for slot in self._slots if not slot.processor.wants.isdisjoint((label, EVERY_EVENT)))

    def check(self, event: Event) -> None:
        """Ask every processor that wants the event whether it can be used. Changes nothing.

        Raises:
            Refused: the first refusal; its `processor` says whose.
            ProcessorFailed: a processor raised anything else.
        """
        for processor in self._checked.get(event.label, self._checked_others):
            try:
                processor.check(event)
            except Refused as refused:
                refused.processor = processor.name
                raise
            except msgspec.MsgspecError as error:  # such as the number 1e999, in a body that nobody had read before
                unreadable = Refused("context, properties or traits hold a value that cannot be read",
                                     value=str(error), mend="Send numbers that fit 64 bits.")  # fmt: skip
                unreadable.processor = processor.name
                raise unreadable from error
            except Exception as error:
                raise ProcessorFailed(processor.name, error) from error

    def apply(self, part: Part, event: Event, person: Person, now_ms: int) -> Done:
        """Fold one checked event into `part`, in place: its sections and timers, nothing else.

        Returns what is to be written, in order: rows and decisions, with the processor they come from. Timers are
        set and cancelled in `part.timers`, not returned.

        Raises:
            ProcessorFailed: whatever a processor raises is a bug in it; sections of `part` may then be half changed,
                and the caller goes back to the part as it was.
        """
        sections = cast("dict[str, Any]", part.sections)
        done: Done = []
        for slot in self._wanted.get(event.label, self._others):
            state = sections.get(slot.section)
            if state.__class__ is not slot.state:
                state = self._open(sections, slot)
            try:
                effects = slot.apply(state, event, person, now_ms)
                if effects:
                    _settle(slot, effects, part, done)
            except Exception as error:
                raise ProcessorFailed(slot.processor.name, error) from error
        return done

    @contextmanager
    def timed(self, clock_s: Callable[[], float], spent: Spent) -> Iterator[None]:
        """While it is open, what every `apply` of a processor takes is added to `spent`: how often, and seconds.

        Nothing is paid for it at any other time.
        """
        for slot in self._slots:
            slot.apply = _timed(slot.processor, clock_s, spent)
        try:
            yield
        finally:
            for slot in self._slots:
                slot.apply = slot.processor.apply

    def on_timers(self, part: Part, now_ms: int, person: Person) -> Done:
        """Fire the timers of `part` that are due, the earliest first. A timer set meanwhile waits for the next call.

        A timer of a processor that is not there any more is dropped.

        Raises:
            ProcessorFailed: as `apply`.
        """
        due = sorted((due_ms, name) for name, due_ms in part.timers.items() if due_ms <= now_ms)
        done: Done = []
        for due_ms, name in due:
            if part.timers.get(name) != due_ms:  # moved or cancelled by one that fired just before
                continue
            del part.timers[name]
            processor, _, timer = name.partition(":")
            slot = self._by_name.get(processor)
            if slot is not None:
                state = self._open(cast("dict[str, Any]", part.sections), slot)
                try:
                    _settle(slot, slot.processor.on_timer(state, timer, person, now_ms), part, done)
                except Exception as error:
                    raise ProcessorFailed(processor, error) from error
        return done

    def view(self, parts: Mapping[str, Part], name: str) -> msgspec.Struct | None:
        """The state of processor `name` over all parts of a person; None where it has none. Not to be changed."""
        slot = self._by_name[name]
        merged: msgspec.Struct | None = None
        for state in self.states(parts, name):
            merged = state if merged is None else slot.processor.merge(merged, state)
        return merged

    def shown(self, parts: Mapping[str, Part], name: str) -> dict[str, Any]:
        """What processor `name` shows of a person; nothing where it is not there, knows nothing of her, or raised in
        `merge` or `show`: that costs its own section, and is told when her portrait is made."""
        shown: dict[str, dict[str, Any]] = {}
        slot = self._by_name.get(name)
        if slot is not None:
            with suppress(ProcessorFailed):
                self._show(slot, parts, shown)
        return shown.get(name, {})

    def attributes(self, parts: Mapping[str, Part], name: str, fields: Sequence[str]) -> list[Any]:
        """Some values of what processor `name` shows of a person; None where it shows none, or raised: see `shown`."""
        slot = self._by_name.get(name)
        states = self.states(parts, name) if slot is not None else ()
        if slot is None or not states:
            return [None] * len(fields)
        attribute = slot.processor.attribute
        try:
            return [attribute(field, states) for field in fields]
        except Exception:  # then one by one: a fault costs only the value that has it
            return [_attribute(slot, field, states) for field in fields]

    def states(self, parts: Mapping[str, Part], name: str) -> list[Any]:
        """The live states of processor `name` in all parts that have one, in the order in which they are merged."""
        slot = self._by_name[name]
        found = []
        for key in sorted(parts) if len(parts) > 1 else parts:
            sections = cast("dict[str, Any]", parts[key].sections)
            state = sections.get(slot.section)
            if state.__class__ is slot.state:
                found.append(state)
            elif state is not None or _has_older(sections, slot):
                found.append(self._open(sections, slot))
        return found

    def open(self, part: Part, name: str) -> Any:
        """The live state of processor `name` in a part, to be changed."""
        return self._open(cast("dict[str, Any]", part.sections), self._by_name[name])

    def wants(self, name: str, label: str) -> bool:
        """Whether processor `name` wants events of this label; one that is not there wants none."""
        slot = self._by_name.get(name)
        return slot is not None and slot in self._wanted.get(label, self._others)

    def wanting(self, label: str) -> tuple[str, ...]:
        """Names of the processors that want events of this label."""
        return tuple(slot.processor.name for slot in self._wanted.get(label, self._others))

    def portrait(self, parts: Mapping[str, Part]) -> dict[str, Any]:
        """What every processor shows of a person, by its name.

        Raises:
            ProcessorFailed: a processor raised in `merge` or `show`.
        """
        shown: dict[str, Any] = {}
        for slot in self._slots:
            self._show(slot, parts, shown)
        return shown

    def portrait_without_failures(self, parts: Mapping[str, Part]) -> tuple[dict[str, Any], list[ProcessorFailed]]:
        """As `portrait`; a processor that raises is left out, and told."""
        shown: dict[str, Any] = {}
        failures: list[ProcessorFailed] = []
        for slot in self._slots:
            try:
                self._show(slot, parts, shown)
            except ProcessorFailed as failed:
                failures.append(failed)
        return shown, failures

    def _show(self, slot: _Slot, parts: Mapping[str, Part], shown: dict[str, Any]) -> None:
        try:
            state = self.view(parts, slot.processor.name)
            if state is not None:
                shown[slot.processor.name] = slot.processor.show(state)
        except Exception as error:
            if isinstance(error, TidewireError) and not isinstance(error, Refused):
                raise  # state of a newer program: nothing here may go on
            raise ProcessorFailed(slot.processor.name, error) from error

    def _open(self, sections: dict[str, Any], slot: _Slot) -> Any:
        """The live state of a processor, decoded, upgraded or made anew where it was not yet."""
        state = self._peek(sections, slot)
        if state is None:
            state = slot.state()
        elif slot.section not in sections:
            _drop_older(sections, slot)
        sections[slot.section] = state
        return state

    def _peek(self, sections: dict[str, Any], slot: _Slot) -> Any:
        state = sections.get(slot.section)
        if state.__class__ is slot.state:
            return state
        if state is not None:
            return slot.decode(state)
        return _upgraded(sections, slot) if sections else None


def _timed(processor: Processor[Any], clock_s: Callable[[], float], spent: Spent) -> Apply:
    def apply(state: msgspec.Struct, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        began_s = clock_s()
        effects = tuple(processor.apply(state, event, person, now_ms))  # a generator works only now
        times, seconds = spent.get(processor.name, (0, 0.0))
        spent[processor.name] = times + 1, seconds + clock_s() - began_s
        return effects

    return apply


def _checking(slots: tuple[_Slot, ...]) -> tuple[Processor[Any], ...]:
    """Those whose processor checks at all."""
    return tuple(slot.processor for slot in slots if type(slot.processor).check is not Processor.check)


def _settle(slot: _Slot, effects: Iterable[Effect], part: Part, done: Done) -> None:
    """Keep timers in the part, and the rest for the wiring."""
    for effect in effects:
        if isinstance(effect, Row | Decision):
            done.append((slot.processor, effect))
        elif isinstance(effect, Timer):
            part.timers[slot.timers + effect.name] = effect.due_ms
        elif isinstance(effect, CancelTimer):
            part.timers.pop(slot.timers + effect.name, None)
        else:
            raise TypeError(f"processor {slot.processor.name} returned {effect!r}, which is not an effect")


def _versions(sections: Mapping[str, Any], slot: _Slot) -> list[int]:
    """The other versions of a processor's state that stand in `sections`, the newest first."""
    found = (section.removeprefix(slot.timers) for section in sections if section.startswith(slot.timers))
    return sorted((int(version) for version in found if int(version) != slot.processor.version), reverse=True)


def _attribute(slot: _Slot, field: str, states: Sequence[Any]) -> Any:
    try:
        return slot.processor.attribute(field, states)
    except Exception as error:
        if isinstance(error, TidewireError) and not isinstance(error, Refused):
            raise
        return None


def _has_older(sections: Mapping[str, Any], slot: _Slot) -> bool:
    return bool(_versions(sections, slot))


def _drop_older(sections: dict[str, Any], slot: _Slot) -> None:
    for version in _versions(sections, slot):
        del sections[f"{slot.timers}{version}"]


def _upgraded(sections: Mapping[str, Any], slot: _Slot) -> msgspec.Struct | None:
    for version in _versions(sections, slot):
        if version > slot.processor.version:
            raise TidewireError(
                f"a customer record holds state of processor {slot.processor.name} in version {version}, this program "
                f"knows version {slot.processor.version}: start the newer program again, or replay from the beginning."
            )
        old = sections[f"{slot.timers}{version}"]
        plain = msgspec.msgpack.decode(old if isinstance(old, msgspec.Raw) else msgspec.msgpack.encode(old))
        return slot.processor.upgrade(version, plain)
    return None
