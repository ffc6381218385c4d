"""One record of the log at one person's journeys: she enters, goes from step to step, leaves; and the ledger says so.

She goes on as far as she can. What is proposed on the way is decided by the arbiter, the highest priority first, and so
on until all of her journeys wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from processors.answers import View
from processors.journeys import (
    JOURNEYS,
    MOST_ENTERED,
    MOST_KEYS,
    MOST_ORDERED,
    MOST_RUNS,
    MOST_TAGS,
    Inside,
    JourneyRow,
)
from processors.moments import dated, next_clock
from processors.profile import PROFILE, consent_of
from schemas.customer import Customer
from schemas.effects import Decision, Row
from schemas.event import Event
from schemas.journeys import (
    Again,
    AnyStep,
    At,
    BranchStep,
    CallStep,
    Entered,
    ExitStep,
    GoStep,
    Joined,
    Left,
    Met,
    Ordered,
    Run,
    RunState,
    SendStep,
    SplitStep,
    TaskStep,
    TicketStep,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from schemas.keys import split_key
from schemas.messages import ADDRESSES, SOURCE, Order, encode_of_message
from schemas.templates import Channel, Class
from schemas.times import DAY_MS, SECOND_MS, from_ms, to_iso
from streams.arbiter import Allowed, Delayed, Known, Refused
from streams.lines import MESSAGES
from streams.outbox import Outbox, effect_id
from streams.plans import Plan, Way

if TYPE_CHECKING:
    from streams.leading import Leading

TIMER = f"{JOURNEYS}:"  # how the timers of runs begin
MOST_STEPS_AT_ONCE = 200  # of one person on one record; then she goes on a second later
SLOWED_MS = SECOND_MS
MOST_KEPT = 4 * MOST_RUNS  # runs of one person, with those of which only the goal is still looked for
MOST_ENTRIES_AN_HOUR = 20  # of one person into one journey: one that makes her enter itself does not run away
CALL_EXPIRES_MS = 7 * DAY_MS
DATE_AT = "09:00"
LONGEST_KEY = 64  # characters of a value of `once_per` that is kept as it is
LOOKED_AT = ("timezone", *ADDRESSES.values())  # of her profile
ACTIVE = ("waits", "quiet", "slowed", "held")
_CONTEXT = msgspec.Raw(b'{"library":{"name":"tidewire"}}')

Facts = Mapping[str, str | int | float | bool | None]


class _Proposal:
    """A message that a step wants sent."""

    __slots__ = ("step", "way")

    def __init__(self, way: Way, step: SendStep) -> None:
        self.way, self.step = way, step

    @property
    def order(self) -> tuple[int, str, str]:
        assert self.way.plan is not None
        return -self.way.plan.said.priority, self.way.run.journey, self.way.id


class Turn:
    """What one record does to one person's journeys."""

    def __init__(self, leading: Leading, key: str, customer: Customer, now_ms: int, out: Outbox) -> None:
        self._leading, self._key, self._customer, self._now_ms, self._out = leading, key, customer, now_ms, out
        self._plans = leading.plans
        self._proposals: list[_Proposal] = []
        self._winners: dict[str, str] = {}
        self._changed: dict[str, Way] = {}
        self._left = MOST_STEPS_AT_ONCE
        self._view: View | None = None
        self._profile: dict[str, Any] | None = None

    @property
    def home(self) -> str:
        """The part that a run begins in which no event of a part began."""
        return self._key if self._key in self._customer.parts else min(self._customer.parts)

    def ways(self) -> list[Way]:
        return self._leading.ways(self._customer)

    def close(self) -> bool:
        """Decide what was proposed, until nothing is; write down what changed. Returns whether anything did."""
        while self._proposals:
            proposals, self._proposals = sorted(self._proposals, key=lambda each: each.order), []
            for each in proposals:
                run = each.way.run
                if run.state == "slowed" and run.step == each.step.step:  # nothing made her leave meanwhile
                    self._decide(each.way, each.step)
        for way in self._changed.values():
            self._write(way)
        return bool(self._changed)

    # --- entering

    def enter(
        self, plan: Plan, part_key: str, by: str, cause: Facts, *, key: str | None = None, once: str = "",
        event: Event | None = None,
    ) -> None:  # fmt: skip
        """Have her enter a journey, or write down why not.

        Args:
            key: value of `once_per`.
            once: id of the sweep that asks: a second time it changes nothing, and is not told.
            event: that makes her enter.
        """
        known = self._leading.entered(self._customer, plan.name)
        if once and known is not None and _short(once) in known.keys:
            return
        if why := self._why_not(plan, known, key):
            self._decision("not_entered", plan.name, {"version": plan.version, "why": why, "by": by, **cause})
            return
        part = self._customer.parts[part_key]
        state: Inside = self._leading.fold.open(part, JOURNEYS)
        id_ = effect_id("run", plan.name, self._out.origin, part_key, by, once)[:16]
        control = self._control(plan)
        run = Run(plan.name, plan.version, entered_ms=self._now_ms, since_ms=self._now_ms, key=key or "", by=by,
                  facts=plan.facts_of(event) if event is not None else {})  # fmt: skip
        state.runs[id_] = run
        way = Way(part_key, part, state, id_, run, plan)
        self._remember(state, plan.name, [_short(each) for each in (key, once) if each])
        facts: dict[str, Any] = {"by": by, "control": bool(control), **({"held_out_by": control} if control else {}),
                                 **({"key": key} if key else {}), **cause}  # fmt: skip
        self._tell(way, "entered", facts)
        if control:
            run.state = "control"
            self._after(way)
        else:
            self._go(way, plan.first)

    def _why_not(self, plan: Plan, known: Entered | None, key: str | None) -> str:
        """Why she may not enter; empty where she may."""
        if plan.led.status != "live":
            return plan.led.status
        ways = self.ways()
        again, inside = plan.said.again, [way for way in ways if way.run.state in (*ACTIVE, "control")]
        if isinstance(again, Again) and again.once_per is not None:
            if key is None:
                return "no_key"
            if known is not None and _short(key) in known.keys:
                return "again"
        elif any(way.run.journey == plan.name for way in inside):
            return "inside"
        elif known is not None and (again == "never" or (isinstance(again, Again) and again.after is not None
                                                          and known.last_ms + again.after.ms > self._now_ms)):
            return "again"
        if known is not None and known.in_hour(self._now_ms) >= MOST_ENTRIES_AN_HOUR:
            return "too_often"
        if len(inside) >= MOST_RUNS or len(ways) >= MOST_KEPT:
            return "too_many"
        if plan.when is not None and plan.when(self._seen()) <= 0:
            return "condition"
        return ""

    def _control(self, plan: Plan) -> str:
        """Whether she is held out: of this journey, or of all; empty where she is not."""
        if _share("holdout", self._key) * 100 < self._plans.holdout:
            return "all"
        return "journey" if _share("holdout", plan.name, self._key) * 100 < plan.said.holdout else ""

    def _remember(self, state: Inside, journey: str, keys: Sequence[str]) -> None:
        """Keep in mind that she entered."""
        entered = state.entered.pop(journey, None) or Entered()
        entered.of_hour = entered.in_hour(self._now_ms) + 1
        entered.last_ms, entered.times = self._now_ms, entered.times + 1
        entered.keys = [*entered.keys, *keys][-MOST_KEYS:]
        state.entered[journey] = entered
        while len(state.entered) > MOST_ENTERED:
            del state.entered[next(iter(state.entered))]

    # --- what happens to who is inside

    def met(self, way: Way, event: Event) -> None:
        """An event that her journey may ask for."""
        plan, run = way.plan, way.run
        assert plan is not None
        goal = plan.goal
        if goal is not None and not run.goal_ms and self._now_ms <= run.entered_ms + goal.within.ms \
                and plan.happens(goal, event, run):  # fmt: skip
            self._reach(way, event)
            if way.id not in way.state.runs or run.state not in ACTIVE:
                return
        if run.state not in ACTIVE:
            return
        for exit_ in plan.said.exits:
            if isinstance(exit_, Met) and plan.happens(exit_, event, run):
                self.leave(way, "exit", {"exit": event.label, "message_id": event.message_id})
                return
        step = plan.steps.get(run.step)
        if run.state == "waits" and isinstance(step, WaitUntilStep) and isinstance(step.wait_until, Met) \
                and plan.happens(step.wait_until, event, run):  # fmt: skip
            self._happened(way, step, event.label)

    def segment(self, way: Way, name: str, is_in: bool) -> None:
        """She joined or left a segment that her journey may ask for."""
        plan, run = way.plan, way.run
        assert plan is not None
        if way.id not in way.state.runs or run.state not in ACTIVE:
            return
        what = f"{'joined' if is_in else 'left'} {name}"
        if any(_is_change(exit_, name, is_in) for exit_ in plan.said.exits):
            self.leave(way, "exit", {"exit": what})
            return
        step = plan.steps.get(run.step)
        if run.state == "waits" and isinstance(step, WaitUntilStep) and _is_change(step.wait_until, name, is_in):
            self._happened(way, step, what)

    def due(self, way: Way) -> None:
        """Her time has come."""
        plan, run = way.plan, way.run
        due_ms, run.due_ms = run.due_ms, 0
        if plan is None:
            self.leave(way, "gone", {}, is_over=True)
        elif run.state in ("control", "after"):
            self._end(way)
        elif run.state == "waits":
            step = plan.steps.get(run.step)
            is_late = isinstance(step, WaitUntilStep)
            self._tell(way, "timed_out" if is_late else "woke", {"step": run.step, "due": to_iso(due_ms)})
            if step is None:
                self.leave(way, "gone", {})
            else:
                self._go(way, plan.target(step, step.otherwise if isinstance(step, WaitUntilStep) else None))
        else:
            self._go(way, run.step)

    def steer(self, way: Way) -> None:
        """Journeys were paused, stopped, changed: what follows for her."""
        plan, run = way.plan, way.run
        if plan is None:
            self.leave(way, "gone", {}, is_over=True)
            return
        newest = self._plans.newest[plan.name]
        if newest.led.status == "stopped" and run.state in (*ACTIVE, "control"):
            self.leave(way, "stopped", {}, is_over=run.state == "control")
            return
        if newest.led.migrate_to == newest.version > run.version:
            self._move(way, newest)
        if run.state == "held" and newest.led.status not in ("paused", "stopped"):
            self._tell(way, "resumed", {"step": run.step})
            self._go(way, run.step)

    def _move(self, way: Way, newest: Plan) -> None:
        """Go on by a newer version, where it has a step of the name that she is at, and of its kind."""
        run, plan = way.run, way.plan
        if run.state in ACTIVE:
            step = newest.steps.get(run.step)
            if plan is None or step is None or type(step) is not type(plan.steps.get(run.step)):
                return
        before, run.version, way.plan = run.version, newest.version, newest
        self._tell(way, "moved", {"from": before, "to": newest.version, "step": run.step})

    def _happened(self, way: Way, step: WaitUntilStep, what: str) -> None:
        self._tell(way, "happened", {"step": step.step, "what": what})
        assert way.plan is not None
        self._go(way, way.plan.target(step))

    def _reach(self, way: Way, event: Event) -> None:
        """She did what the journey is for."""
        plan, run = way.plan, way.run
        assert plan is not None and plan.goal is not None
        run.goal_ms = self._now_ms
        value = event.properties.get(plan.goal.value) if plan.goal.value is not None else None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
            run.value = float(value)
        control = run.state == "control"
        facts: dict[str, Any] = {"event": event.label, "message_id": event.message_id, "control": control}
        self._tell(way, "goal", facts | ({"value": run.value} if run.value else {}))
        if run.state in ("control", "after"):
            self._end(way)
        elif plan.goal.leaves:
            self.leave(way, "goal", {})

    # --- steps

    def _go(self, way: Way, name: str) -> None:
        """Go to a step, and on from there until something has to be waited for."""
        plan, run = way.plan, way.run
        assert plan is not None
        while True:
            if not name:
                self.leave(way, "done", {})
                return
            if run.step != name:
                run.step, run.since_ms = name, self._now_ms
            status = self._plans.newest[plan.name].led.status
            if status == "paused":
                self._tell(way, "held", {"step": name})
                self._wait(way, "held", 0)
                return
            if self._left <= 0:
                self._tell(way, "slowed", {"step": name})
                self._wait(way, "slowed", self._now_ms + SLOWED_MS)
                return
            self._left -= 1
            step = plan.steps.get(name)
            if step is None:  # of a version that she was moved from
                self.leave(way, "gone", {})
                return
            next_ = self._take(way, plan, step)
            if next_ is None:
                return
            name = next_

    def _take(self, way: Way, plan: Plan, step: AnyStep) -> str | None:
        """Take a step. Returns the name of the one that follows, empty: none; None: something is waited for."""
        match step:
            case SendStep():
                self._proposals.append(_Proposal(way, step))
                way.run.state = "slowed"  # until it is decided
                return None
            case WaitStep():
                return self._wait_step(way, plan, step)
            case WaitUntilStep():
                return self._wait_until(way, plan, step)
            case BranchStep():
                return self._branch(way, plan, step)
            case SplitStep():
                return self._split(way, plan, step)
            case UpdateStep():
                self._update(way, step)
            case CallStep():
                self._call(way, step)
            case TicketStep():
                self._open(way, step.step, "Ticket Created", "ticket", msgspec.to_builtins(step.ticket.model_dump()))
            case TaskStep():
                self._open(way, step.step, "Task Created", "task", msgspec.to_builtins(step.task.model_dump()))
            case ExitStep():
                self.leave(way, "exit", {"exit": step.exit or step.step})
                return None
            case GoStep():
                return self._jump(way, plan, step)
        return plan.target(step)

    def _wait_step(self, way: Way, plan: Plan, step: WaitStep) -> str | None:
        due_ms = self._moment(step.wait) if isinstance(step.wait, At) else self._now_ms + step.wait.ms
        if due_ms is None or due_ms <= self._now_ms:
            facts: dict[str, Any] = {"step": step.step, "due": to_iso(due_ms) if due_ms is not None else None}
            self._tell(way, "woke", facts)
            return plan.target(step)
        self._tell(way, "waits", {"step": step.step, "due": to_iso(due_ms)})
        self._wait(way, "waits", due_ms)
        return None

    def _moment(self, at: At) -> int | None:
        """The moment that a step waits for; None: there is none."""
        zone = self._zone(at)
        if at.date is None:
            assert at.at is not None
            return next_clock(self._now_ms, at.at, at.days, zone)
        value = self._leading.trait(self._customer, at.date)
        if not isinstance(value, str):
            return None
        return dated(value, calendar=at.calendar, yearly=at.yearly, days_before=at.days_before, at=at.at or DATE_AT,
                     zone=zone, after_ms=self._now_ms)  # fmt: skip

    def _zone(self, at: At) -> str:
        return self._plans.arbiter.zone_of(self._shown()) if at.zone == "person" else self._plans.zone.name

    def _wait_until(self, way: Way, plan: Plan, step: WaitUntilStep) -> str | None:
        asked = step.wait_until
        if isinstance(asked, Joined | Left):
            name = asked.joined if isinstance(asked, Joined) else asked.left
            if (name in self._customer.segments) is isinstance(asked, Joined):
                facts = {"step": step.step, "what": f"{'joined' if isinstance(asked, Joined) else 'left'} {name}"}
                self._tell(way, "happened", facts)
                return plan.target(step)
        due_ms = self._now_ms + step.at_most.ms
        self._tell(way, "waits", {"step": step.step, "due": to_iso(due_ms)})
        self._wait(way, "waits", due_ms)
        return None

    def _branch(self, way: Way, plan: Plan, step: BranchStep) -> str:
        view = self._seen()
        for number, (case, answer) in enumerate(zip(step.branch, plan.branches[step.step], strict=True), 1):
            if answer(view) > 0:
                return self._branched(way, plan, step, case.then, number)
        return self._branched(way, plan, step, None, 0)

    def _branched(self, way: Way, plan: Plan, step: BranchStep, to: str | None, number: int) -> str:
        target = plan.target(step, to)
        self._tell(way, "branched", {"step": step.step, "to": target or "end", "number": number})
        return target

    def _split(self, way: Way, plan: Plan, step: SplitStep) -> str:
        weights = plan.led.weights.get(step.step) or [arm.weight for arm in step.split]
        if len(weights) != len(step.split):
            weights = [arm.weight for arm in step.split]
        whole, drawn = sum(weights), _share("split", plan.name, step.step, self._key)
        at, chosen = 0.0, len(weights) - 1
        for number, weight in enumerate(weights):
            at += weight / whole
            if drawn < at:
                chosen = number
                break
        target = plan.target(step, step.split[chosen].then)
        self._tell(way, "split", {"step": step.step, "to": target or "end", "arm": chosen + 1,
                                  "share": round(weights[chosen] / whole, 6)})  # fmt: skip
        return target

    def _jump(self, way: Way, plan: Plan, step: GoStep) -> str:
        if plan.is_back(step):
            times = way.run.went.get(step.step, 0)
            if times >= (step.times or 1):
                return plan.target(step)
            way.run.went = {**way.run.went, step.step: times + 1}
        return plan.target(step, step.go)

    def _update(self, way: Way, step: UpdateStep) -> None:
        traits: dict[str, Any] = {}
        for path, value in step.update.traits.items():
            within = traits
            *outer, last = path.split(".")
            for each in outer:
                within = within.setdefault(each, {})
            within[last] = value
        if step.update.add_tags or step.update.remove_tags:
            known = self._leading.trait(self._customer, "tags")
            tags = [tag for tag in known if isinstance(tag, str)] if isinstance(known, list) else []
            tags += [tag for tag in step.update.add_tags if tag not in tags]
            traits["tags"] = [tag for tag in tags if tag not in step.update.remove_tags][-MOST_TAGS:]
        self._tell(way, "updated", {"step": step.step, "what": ", ".join(sorted(traits))})
        self._event(way, "identify", "", step.step, traits=traits)

    def _open(self, way: Way, step: str, event: str, what: str, said: Mapping[str, Any]) -> None:
        """Open a ticket, or give somebody something to do."""
        id_ = effect_id(way.id, step, way.run.ordered, self._now_ms)
        self._tell(way, "opened", {"step": step, "what": what, "subject": said["subject"], "id": id_})
        properties = {f"{what}_id": id_, "journey": way.run.journey, "step": step, **said}
        self._event(way, "track", event, step, properties=properties)

    def _event(
        self, way: Way, type_: Any, name: str, step: str, *, traits: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """An event of hers that the journey makes, of the part that the run stands in."""
        workspace, kind, id_ = split_key(way.part_key)
        at = from_ms(self._now_ms)
        encode = msgspec.json.encode
        self._out.event(Event(
            message_id=effect_id(way.id, step, type_, self._out.origin, self._left), type=type_, event=name,
            workspace=workspace, source=SOURCE, timestamp=at, received_at=at, user_id=id_ if kind == "u" else "",
            anonymous_id=id_ if kind == "a" else "", raw_context=_CONTEXT, raw_traits=msgspec.Raw(encode(traits or {})),
            raw_properties=msgspec.Raw(encode(properties or {})),
        ))  # fmt: skip

    # --- messages

    def _decide(self, way: Way, step: SendStep) -> None:
        """Have the arbiter decide about a message, and go on."""
        plan, run, now_ms = way.plan, way.run, self._now_ms
        assert plan is not None
        facts = {"step": step.step, "template": step.send}
        mail = self._plans.mails.get(step.send)
        if mail is None:
            self._refuse(way, step, {**facts, "why": "template"})
            return
        facts["channel"] = mail.channel
        until_ms = run.since_ms + step.expires.ms
        known = Known(self._key, self._shown(), self._consent(), self._leading.ordered(self._customer), self._winners)
        verdict = self._plans.arbiter.decide(mail, known, now_ms, until_ms)
        match verdict:
            case Allowed():
                self._order(way, step, mail.channel, mail.kind, mail.topic, until_ms, counts=verdict.counts)
                self._go(way, plan.target(step))
            case Refused():
                self._refuse(way, step, {**facts, "why": verdict.why, **verdict.facts})
            case Delayed():
                self._tell(way, "delayed", {**facts, "until": to_iso(verdict.until_ms)})
                self._wait(way, "quiet", verdict.until_ms)

    def _refuse(self, way: Way, step: SendStep, facts: Facts) -> None:
        assert way.plan is not None
        self._tell(way, "refused", facts)
        self._go(way, way.plan.target(step, step.refused))

    def _order(
        self, way: Way, step: SendStep, channel: Channel, kind: Class, topic: str, until_ms: int, *, counts: bool
    ) -> None:
        run = way.run
        id_ = self._next_id(way)
        run.sent = {**run.sent, step.step: id_}
        if counts:
            kept = self._plans.arbiter.counting(way.state.ordered, self._now_ms)
            way.state.ordered = [*kept, Ordered(self._now_ms, id_, channel, topic)][-MOST_ORDERED:]
            self._winners[id_] = run.journey
        self._tell(way, "proposed", {"step": step.step, "template": step.send, "channel": channel, "message": id_})
        self._say(way, id_, step.send, channel, kind, topic, self._given(way, step), max(until_ms, self._now_ms + 1))

    def _call(self, way: Way, step: CallStep) -> None:
        """Tell another program."""
        mail = self._plans.mails.get(step.call)
        if mail is None:
            self._tell(way, "refused", {"step": step.step, "template": step.call, "why": "template"})
            return
        id_ = self._next_id(way)
        self._tell(way, "called", {"step": step.step, "template": step.call, "message": id_})
        self._say(way, id_, step.call, mail.channel, mail.kind, mail.topic, self._given(way, step),
                  self._now_ms + CALL_EXPIRES_MS)  # fmt: skip

    def _next_id(self, way: Way) -> str:
        way.run.ordered += 1
        return effect_id("journey", way.run.journey, way.id, way.run.ordered)

    def _say(
        self, way: Way, id_: str, template: str, channel: Channel, kind: Class, topic: str, given: Mapping[str, Any],
        expires_ms: int,
    ) -> None:  # fmt: skip
        order = Order(
            to=self._key, id=id_, template=template, channel=channel, kind=kind, topic=topic, given=dict(given),
            by=f"journey {way.run.journey}", at_ms=self._now_ms, expires_ms=expires_ms,
        )  # fmt: skip
        self._out.say(MESSAGES.topic, self._key, encode_of_message(order))

    def _given(self, way: Way, step: SendStep | CallStep) -> dict[str, Any]:
        """What the template is given beside what is known of her."""
        from_event = {name: way.run.facts[path] for name, path in step.from_event.items() if path in way.run.facts}
        return {**from_event, **step.given}

    # --- what becomes of a run

    def leave(self, way: Way, why: str, facts: Facts, *, is_over: bool = False) -> None:
        """Her steps end here. Until the time of the goal is over, it is still looked for, unless `is_over`."""
        run = way.run
        self._tell(way, "left", {"why": why, "step": run.step, **facts})
        run.left_ms, run.left_by = self._now_ms, why
        if is_over:
            self._end(way)
        else:
            if run.state != "control":
                run.state = "after"
            self._after(way)

    def _after(self, way: Way) -> None:
        """Nothing more happens to her; the goal counts until its time is over."""
        run, goal = way.run, way.plan.goal if way.plan is not None else None
        if goal is None or run.goal_ms or run.entered_ms + goal.within.ms <= self._now_ms:
            self._end(way)
        else:
            self._wait(way, "control" if run.state == "control" else "after", run.entered_ms + goal.within.ms)

    def _end(self, way: Way) -> None:
        way.run.due_ms = 0
        way.state.runs.pop(way.id, None)
        way.part.timers.pop(TIMER + way.id, None)
        self._changed[way.id] = way

    def _wait(self, way: Way, state: RunState, due_ms: int) -> None:
        """Nothing more until a moment; 0: until somebody says so."""
        way.run.state, way.run.due_ms = state, due_ms
        if due_ms:
            way.part.timers[TIMER + way.id] = due_ms
        else:
            way.part.timers.pop(TIMER + way.id, None)
        self._changed[way.id] = way

    def _write(self, way: Way) -> None:
        run, is_over = way.run, way.id not in way.state.runs
        way.part.applied += 1  # the versions of its rows must grow
        self._out.row(way.part_key, way.part.applied, Row(JourneyRow(
            run=way.id, journey=run.journey, definition=run.version, is_control=run.state == "control",
            state="ended" if is_over else run.state, step=run.step, entered_at=from_ms(run.entered_ms),
            entered_by=run.by, entry_key=run.key, due_at=from_ms(run.due_ms) if run.due_ms else None,
            left_at=from_ms(run.left_ms) if run.left_ms else None, left_by=run.left_by,
            goal_at=from_ms(run.goal_ms) if run.goal_ms else None, goal_value=run.value, sent=run.ordered,
        )))  # fmt: skip

    # --- what is looked at

    def _seen(self) -> View:
        if self._view is None:
            self._view = self._leading.judging.view(self._customer, self._now_ms)
        return self._view

    def _shown(self) -> dict[str, Any]:
        if self._profile is None:
            values = self._leading.fold.attributes(self._customer.parts, PROFILE, LOOKED_AT)
            self._profile = dict(zip(LOOKED_AT, values, strict=True))
        return self._profile

    def _consent(self) -> Any:
        return consent_of(self._leading.fold.states(self._customer.parts, PROFILE))

    # --- the ledger

    def _tell(self, way: Way, kind: str, facts: Facts) -> None:
        """A line of the ledger about a run; its row follows."""
        self._changed[way.id] = way
        self._decision(kind, way.run.journey, {"run": way.id, "version": way.run.version, **facts})

    def _decision(self, kind: str, journey: str, facts: Facts) -> None:
        self._out.decide(self._key, JOURNEYS, Decision(kind, journey, facts))


def _is_change(asked: object, name: str, is_in: bool) -> bool:
    """Whether it is asked for that she joined, or left, a segment."""
    if is_in:
        return isinstance(asked, Joined) and asked.joined == name
    return isinstance(asked, Left) and asked.left == name


def _share(*of: str) -> float:
    """From 0 to 1, the same for the same."""
    return int(effect_id(*of)[:13], 16) / 16**13


def _short(key: str) -> str:
    """Of what is only ever compared, no more than is needed: it is anybody's text."""
    return key if len(key) <= LONGEST_KEY else effect_id(key)
