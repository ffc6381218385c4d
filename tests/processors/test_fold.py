"""The pure core: dispatch, states that are opened late, timers, views, merged parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from processors.base import Person, Processor, Table
from processors.fold import Fold, ProcessorFailed, Spent
from schemas.customer import Part, decode_part
from schemas.effects import CancelTimer, Decision, Effect, Row, Timer
from schemas.errors import Refused, TidewireError
from schemas.event import Event, decode_event
from schemas.keyed import encode_state

ANN = Person(key="shop/u:ann", part="shop/u:ann", applied=0)


class Sum(msgspec.Struct, array_like=True):
    total: int = 0
    parts: list[str] = []


class SumRow(msgspec.Struct):
    total: int


class Summing(Processor[Sum]):
    """Sums `amount` of track events `Paid`; `Later` sets a timer that doubles the sum, `Never` takes it back."""

    name = "summing"
    version = 2
    about = "Sums."
    wants = frozenset({"Paid", "Later", "Never"})
    State = Sum
    tables = (Table("sums", SumRow, ("total",), "Sums."),)

    def check(self, event: Event) -> None:
        if event.event == "Paid" and not isinstance(event.properties.get("amount"), int):
            raise Refused("amount must be a whole number", field="properties.amount")

    def apply(self, state: Sum, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        if event.event == "Later":
            return (Timer("double", now_ms + 10),)
        if event.event == "Never":
            return (CancelTimer("double"),)
        state.total += event.properties["amount"]
        return (Row(SumRow(state.total)), Decision("summed", str(state.total)))

    def on_timer(self, state: Sum, timer: str, person: Person, now_ms: int) -> Iterable[Effect]:
        state.total *= 2
        yield Row(SumRow(state.total))
        yield Timer("double", now_ms)

    def merge(self, one: Sum, other: Sum) -> Sum:
        return Sum(one.total + other.total, sorted(one.parts + other.parts))

    def show(self, state: Sum) -> dict[str, Any]:
        return {"total": state.total}

    @classmethod
    def upgrade(cls, version: int, old: Any) -> Sum:
        return Sum(total=old["sum"])


class Everything(Processor[Sum]):
    name = "everything"
    about = "Counts every event."
    State = Sum

    def apply(self, state: Sum, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        state.total += 1
        return ()

    def merge(self, one: Sum, other: Sum) -> Sum:
        return Sum(one.total + other.total)

    def show(self, state: Sum) -> dict[str, Any]:
        return {"events": state.total}


def track(name: str, **properties: object) -> Event:
    return decode_event(msgspec.json.encode({
        "messageId": "m-1", "type": "track", "workspace": "shop", "source": "web", "userId": "ann", "event": name,
        "timestamp": "2024-03-01T10:00:00Z", "receivedAt": "2024-03-01T10:00:00Z", "properties": properties,
    }))  # fmt: skip


@pytest.fixture
def fold() -> Fold:
    return Fold([Everything(), Summing()])


def test_an_event_goes_to_those_who_want_it_and_to_those_who_want_all(fold: Fold) -> None:
    part = Part()

    fold.apply(part, track("Paid", amount=3), ANN, 0)
    fold.apply(part, track("Seen"), ANN, 0)

    assert fold.portrait({"shop/u:ann": part}) == {"everything": {"events": 2}, "summing": {"total": 3}}


def test_apply_returns_rows_and_decisions_with_their_processor_and_keeps_timers_in_the_part(fold: Fold) -> None:
    part = Part()

    done = fold.apply(part, track("Paid", amount=3), ANN, 0) + fold.apply(part, track("Later"), ANN, 5)

    summing = fold.processors[1]
    assert done == [(summing, Row(SumRow(3))), (summing, Decision("summed", "3"))]
    assert part.timers == {"summing:double": 15}
    assert fold.table_of[SumRow].name == "sums"


class Slow(Everything):
    name = "slow"

    def apply(self, state: Sum, event: Event, person: Person, now_ms: int) -> Iterable[Effect]:
        """A generator: it works only when somebody reads what it gives."""
        state.total += 1
        CLOCK.append(CLOCK[-1] + 5.0)
        yield Decision("slow", str(state.total))


CLOCK = [0.0]


def test_processors_are_timed_while_it_is_asked_for_and_do_the_same() -> None:
    fold, timed = Fold([Slow(), Summing()]), Fold([Slow(), Summing()])
    events = [track("Paid", amount=3), track("Seen"), track("Paid", amount=4)]
    spent: Spent = {}
    one, other = Part(), Part()

    plain = [fold.apply(one, event, ANN, 0) for event in events]
    with timed.timed(lambda: CLOCK[-1], spent):
        done = [timed.apply(other, event, ANN, 0) for event in events]
    timed.apply(other, events[0], ANN, 0)

    assert [[effect for _, effect in each] for each in done] == [[effect for _, effect in each] for each in plain]
    assert spent == {"slow": (3, 15.0), "summing": (2, 0.0)}


def test_a_processor_that_fails_while_it_is_timed_is_named_and_timed_no_more(fold: Fold) -> None:
    spent: Spent = {}

    with pytest.raises(ProcessorFailed) as failed, fold.timed(lambda: 0.0, spent):
        fold.apply(Part(), track("Paid"), ANN, 0)
    fold.apply(Part(), track("Paid", amount=1), ANN, 0)

    assert failed.value.processor == "summing"
    assert "summing" not in spent


def test_a_cancelled_timer_is_gone(fold: Fold) -> None:
    part = Part()
    fold.apply(part, track("Later"), ANN, 5)

    fold.apply(part, track("Never"), ANN, 6)

    assert part.timers == {}


def test_a_due_timer_fires_once_and_one_that_it_sets_waits_for_the_next_call(fold: Fold) -> None:
    part = Part()
    fold.apply(part, track("Paid", amount=3), ANN, 0)
    fold.apply(part, track("Later"), ANN, 5)

    early, due = fold.on_timers(part, 14, ANN), fold.on_timers(part, 15, ANN)

    assert early == []
    assert [effect for _, effect in due] == [Row(SumRow(6))]
    assert part.timers == {"summing:double": 15}


def test_the_timer_of_a_processor_that_is_gone_is_dropped(fold: Fold) -> None:
    part = Part(timers={"gone:wake": 1})

    assert fold.on_timers(part, 2, ANN) == []
    assert part.timers == {}


def test_a_refusal_names_its_processor(fold: Fold) -> None:
    with pytest.raises(Refused) as refused:
        fold.check(track("Paid", amount="much"))

    assert refused.value.processor == "summing"


def test_a_number_that_cannot_be_read_is_refused_before_anything_changes(fold: Fold) -> None:
    event = track("Paid", amount=1)
    event.raw_properties = msgspec.Raw(b'{"amount": 1e999}')

    with pytest.raises(Refused) as refused:
        fold.check(event)

    assert refused.value.processor == "summing"


def test_a_record_that_was_stored_and_read_again_goes_on_where_it_was(fold: Fold) -> None:
    part = Part()
    fold.apply(part, track("Paid", amount=3), ANN, 0)

    part = decode_part(encode_state(part))
    assert isinstance(part.sections["summing:2"], msgspec.Raw)
    fold.apply(part, track("Paid", amount=4), ANN, 0)

    assert fold.portrait({"shop/u:ann": part})["summing"] == {"total": 7}


def test_a_state_of_an_earlier_version_is_upgraded_when_it_is_asked_for(fold: Fold) -> None:
    part = decode_part(encode_state(Part(sections={"summing:1": {"sum": 40}})))  # type: ignore[dict-item]

    shown = fold.portrait({"shop/u:ann": part})
    fold.apply(part, track("Paid", amount=2), ANN, 0)

    assert shown == {"summing": {"total": 40}}
    assert list(part.sections) == ["summing:2", "everything:1"]
    assert fold.portrait({"shop/u:ann": part})["summing"] == {"total": 42}


def test_a_state_of_a_later_version_stops_the_program_instead_of_starting_anew(fold: Fold) -> None:
    part = decode_part(encode_state(Part(sections={"summing:3": {}})))  # type: ignore[dict-item]

    with pytest.raises(TidewireError, match=r"version 3.*knows version 2"):
        fold.apply(part, track("Paid", amount=2), ANN, 0)


def test_the_state_of_a_processor_that_is_gone_is_kept_as_it_is(fold: Fold) -> None:
    part = decode_part(encode_state(Part(sections={"gone:1": [1, 2]})))  # type: ignore[dict-item]

    fold.apply(part, track("Paid", amount=2), ANN, 0)

    assert bytes(part.sections["gone:1"]) == encode_state([1, 2])
    assert "gone" not in fold.portrait({"shop/u:ann": part})


def test_a_person_is_viewed_over_all_her_parts(fold: Fold) -> None:
    parts = {"shop/u:ann": Part(), "shop/a:1": Part(), "shop/a:2": Part()}
    fold.apply(parts["shop/u:ann"], track("Paid", amount=1), ANN, 0)
    fold.apply(parts["shop/a:2"], track("Paid", amount=2), ANN, 0)

    assert fold.portrait(parts) == {"everything": {"events": 2}, "summing": {"total": 3}}
    assert fold.portrait({"shop/u:ann": parts["shop/u:ann"]})["summing"] == {"total": 1}  # the parts stay apart


def test_what_is_not_an_effect_is_a_bug_of_the_processor() -> None:
    class Wrong(Everything):
        def apply(self, state: Sum, event: Event, person: Person, now_ms: int) -> Any:
            return ("row",)

    with pytest.raises(ProcessorFailed, match=r"everything returned 'row'"):
        Fold([Wrong()]).apply(Part(), track("Seen"), ANN, 0)


def test_a_processor_that_fails_to_show_costs_its_own_section_only(fold: Fold) -> None:
    class Shy(Everything):
        name = "shy"

        def show(self, state: Sum) -> dict[str, object]:
            raise ValueError("not today")

    both = Fold([*fold.processors, Shy()])
    part = Part()
    both.apply(part, track("Paid", amount=1), ANN, 0)

    shown, failures = both.portrait_without_failures({"shop/u:ann": part})

    assert shown == {"everything": {"events": 1}, "summing": {"total": 1}}
    assert [str(failed) for failed in failures] == ["ValueError: not today"]
    with pytest.raises(ProcessorFailed, match="not today"):
        both.portrait({"shop/u:ann": part})
