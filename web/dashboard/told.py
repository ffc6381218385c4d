"""The ledger of journeys in plain words: each line as a sentence, in the language of who reads it.

Of each kind that `streams.leading` decides there is a sentence; one of a kind that is not known here is said as it
stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from schemas.journeys import JourneyFile
from web.dashboard.language import Language

_CHANGE = re.compile(r"(joined|left) ([a-z][a-z0-9_]*)")
Row = Mapping[str, Any]


class Line(NamedTuple):
    """One thing that happened, as a sentence.

    Attributes:
        at: when it was done; due: when it was, where it waited for a time, or will be.
        run: her way through the journey; cause: the record of the log, `topic-partition@offset`.
    """

    at: datetime
    kind: str
    says: str
    due: datetime | None
    run: str
    cause: str
    facts: Mapping[str, Any]


class Teller:
    """Says lines of the ledger in one language.

    Args:
        messages: by id, that lines speak of.
        said: the journey, where one knows it.
    """

    def __init__(self, language: Language, messages: Mapping[str, Row], said: JourneyFile | None = None) -> None:
        self._language, self._messages, self._said = language, messages, said
        self.text = language.text
        self._waiting: dict[str, str] = {}  # by run: the step at which something is waited for

    def lines(self, rows: Iterable[Row]) -> Iterator[Line]:
        """The oldest first."""
        for row in sorted(rows, key=_order):
            facts = plain(row["facts"])
            says = self.sentence(row["kind"], row["about"], facts, row["at"])
            due = _moment(facts.get("due") or facts.get("until"))
            yield Line(row["at"], row["kind"], says, due, str(facts.get("run", "")), row["cause"], facts)

    def ordered(self, row: Row) -> Line:
        """A message that no journey ordered."""
        says = self.text("told.message.ordered", template=row["template"], message=row["id"], fate=self.fate(row),
                         at=self._at(row["ordered_at"]), by=row["ordered_by"] or "–")  # fmt: skip
        return Line(row["ordered_at"], "ordered", says, row["due_at"], "", "", {"message": row["id"]})

    def sentence(self, kind: str, about: str, facts: Mapping[str, Any], at: datetime | None = None) -> str:
        """A line as a sentence; of a kind that is not known yet it is said as it stands."""
        run, step = str(facts.get("run", "")), str(facts.get("step", "")) or "–"
        told: dict[str, object] = {"step": step, "at": self._at(at)}
        if kind == "waits":
            self._waiting[run] = step
        match kind:
            case "entered":
                return self._entered(about, facts)
            case "not_entered":
                return self.text("told.not_entered", journey=about, by=self._by(facts), key=self._key(facts),
                                 why=self.why_not(facts))  # fmt: skip
            case "waits":
                return self.text("told.waits", step=step, due=self._time(facts.get("due")))
            case "woke" | "timed_out":
                return self._woke(kind, run, facts, told)
            case "happened":
                return self.text("told.happened", **told, what=self._what(facts.get("what")))
            case "branched":
                number, to = facts.get("number"), self._to(facts)
                if not number or str(number) == "0":
                    return self.text("told.branched_otherwise", step=step, to=to)
                return self.text("told.branched", step=step, number=number, to=to)
            case "split":
                return self.text("told.split", step=step, to=self._to(facts), share=self._percent(facts.get("share")))
            case "updated":
                return self.text("told.updated", step=step, what=facts.get("what", "–"))
            case "opened":
                what = facts.get("what")
                return self.text(f"told.opened.{what if what in ('ticket', 'task') else 'task'}", step=step,
                                 subject=facts.get("subject", "–"))  # fmt: skip
            case "called" | "proposed":
                return self._message(kind, step, facts)
            case "refused":
                return self.text("told.refused", step=step, template=facts.get("template", "–"),
                                 why=self.why_refused(facts))  # fmt: skip
            case "delayed":
                return self.text("told.delayed", step=step, template=facts.get("template", "–"),
                                 until=self._time(facts.get("until")))  # fmt: skip
            case "goal":
                return self._goal(facts)
            case "left" if self._language.has(f"told.left.{facts.get('why')}"):
                why = str(facts["why"])
                more = {} if why == "done" else {"step": step}
                if why == "exit":
                    more["exit"] = self._what(facts.get("exit"), plain=True)
                return self.text(f"told.left.{why}", **more)
            case "held" | "resumed" | "slowed":
                return self.text(f"told.still.{kind}", step=step)
            case "moved":
                return self.text("told.moved", step=step, from_version=facts.get("from", "–"),
                                 to_version=facts.get("to", "–"))  # fmt: skip
        shown = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "run") or "–"
        return self.text("told.other", kind=kind, about=about, facts=shown)

    # --- parts of sentences

    def why_not(self, facts: Mapping[str, Any]) -> str:
        """Why somebody did not enter."""
        why = str(facts.get("why", "")) or "–"
        return self.text(f"told.not_entered_why.{why}") if self._language.has(f"told.not_entered_why.{why}") else why

    def why_refused(self, facts: Mapping[str, Any]) -> str:
        """Why a message was not sent that a journey proposed."""
        why = str(facts.get("why", "")) or "–"
        told: dict[str, object] = {}
        match why:
            case "no_consent":
                told = {"topic": facts.get("topic") or self.text("told.topic"), "channel": self._channel(facts)}
            case "no_address":
                told = {"channel": self._channel(facts)}
            case "cap" | "arbitration":
                told = {"cap": facts.get("cap", "–")} | ({"winner": facts.get("winner", "–")} if why != "cap" else {})
        if self._language.has(f"told.refused_why.{why}"):
            return self.text(f"told.refused_why.{why}", **told)
        return self._withheld(why)

    def fate(self, row: Row | None) -> str:
        """What became of a message."""
        if row is None:
            return self.text("told.fate.ordered")
        state, at, why = row["state"], self._at(row["changed_at"]), row["why"]
        match state:
            case "sent":
                return self.text("told.fate.sent", at=at, address=row["address"] or "–", via=row["via"] or "–")
            case "failed" | "withheld":
                return self.text(f"told.fate.{state}", at=at, why=self._withheld(why or "–"))
            case "sending" | "unknown":
                return self.text(f"told.fate.{state}", at=at)
        if why:
            return self.text("told.fate.waiting_why", due=self._at(row["due_at"]), why=why)
        return self.text("told.fate.waiting")

    def _withheld(self, why: str) -> str:
        known = self.text(f"message_why.{why}") if self._language.has(f"message_why.{why}") else why
        return known.rstrip(".。")

    def _entered(self, journey: str, facts: Mapping[str, Any]) -> str:
        told: dict[str, object] = {"journey": journey, "version": facts.get("version", "–"), "by": self._by(facts),
                                   "key": self._key(facts)}  # fmt: skip
        if facts.get("control") not in (True, "true", 1):
            return self.text("told.entered", **told)
        if facts.get("held_out_by") == "all":
            return self.text("told.held_out_of_all", **told, share=self.text("told.some"))
        share = f"{self._said.holdout:g}" if self._said is not None else self.text("told.some")
        return self.text("told.held_out", **told, share=share)

    def _by(self, facts: Mapping[str, Any]) -> str:
        by = str(facts.get("by", "")) or "–"
        match by:
            case "event":
                return self.text("told.by.event", event=facts.get("event") or facts.get("cause_event") or "–")
            case "joined" | "left":
                return self.text(f"told.by.{by}", segment=facts.get("segment", "–"))
            case "date" | "schedule" | "broadcast":
                return self.text(f"told.by.{by}")
        return self.text("told.by.other", by=by)

    def _key(self, facts: Mapping[str, Any]) -> str:
        key = facts.get("key")
        return self.text("told.for_key", key=key) if key not in (None, "") else ""

    def _woke(self, kind: str, run: str, facts: Mapping[str, Any], told: dict[str, object]) -> str:
        due, step = facts.get("due"), str(told["step"])
        waited = self._waiting.pop(run, None) == step
        if kind == "timed_out":
            return self.text("told.timed_out", **told, due=self._time(due))
        if not due:
            return self.text("told.woke_without", step=step)
        if not waited:
            return self.text("told.woke_at_once", step=step, due=self._time(due))
        return self.text("told.woke", **told, due=self._time(due))

    def _message(self, kind: str, step: str, facts: Mapping[str, Any]) -> str:
        id_ = str(facts.get("message", ""))
        told = {"step": step, "template": facts.get("template", "–"), "message": id_,
                "fate": self.fate(self._messages.get(id_))}  # fmt: skip
        return self.text("told.called", **told) if kind == "called" else \
            self.text("told.proposed", **told, channel=self._channel(facts))  # fmt: skip

    def _goal(self, facts: Mapping[str, Any]) -> str:
        value = facts.get("value")
        worth = self.text("told.goal_value", value=f"{value:g}" if isinstance(value, float) else value) if value else ""
        is_held_out = facts.get("control") in (True, "true", 1)
        told = {"what": self._what(facts.get("event")), "value": worth}
        return self.text("told.goal_held_out", **told) if is_held_out else self.text("told.goal", **told)

    def _what(self, what: Any, *, plain: bool = False) -> str:
        """What happened: somebody joined or left a segment, or did something; `plain`: or what a step says."""
        change = _CHANGE.fullmatch(str(what))
        if change is not None:
            return self.text(f"told.what.{change[1]}", segment=change[2])
        return str(what or "–") if plain else self.text("told.what.event", event=what or "–")

    def _to(self, facts: Mapping[str, Any]) -> str:
        to = str(facts.get("to", "end"))
        return self.text("told.end") if to in ("end", "") else to

    def _channel(self, facts: Mapping[str, Any]) -> str:
        channel = facts.get("channel", "")
        known = f"channel.{channel}"
        return self.text(known) if self._language.has(known) else self.text("told.channel")

    @staticmethod
    def _percent(share: Any) -> str:
        return f"{float(share) * 100:.3g}" if isinstance(share, int | float) else "–"

    def _time(self, value: Any) -> str:
        moment = _moment(value)
        return self._at(moment) if moment is not None else str(value or "–")

    def _at(self, moment: datetime | None) -> str:
        return self._language.at(moment, seconds=True)


def _order(row: Row) -> tuple[datetime, str, int, str]:
    """As it was decided: what one record caused sorts by its ids."""
    place, _, offset = str(row["cause"]).partition("@")
    return row["at"], place, int(offset) if offset.isdecimal() else 0, row["id"]


def plain(facts: Any) -> dict[str, Any]:
    """Facts as they were decided. ClickHouse may give them as text."""
    if isinstance(facts, str):
        facts = msgspec.json.decode(facts or "{}")
    return {name: value for name, value in facts.items() if value is not None} if isinstance(facts, Mapping) else {}


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if not isinstance(value, str) or not value[:4].isdigit():
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
