"""Why somebody got something of a journey, or did not: the ledger in plain words, in the language of who asks.

Whatever stands in the ledger of a journey has a sentence, and where nothing does, the rules of the journey are held
against what she did. So there is always an answer, and it says what the cause was, when something was due and when it
was done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from processors.answers import at_path
from processors.rules import matching
from processors.values import zone_named
from schemas.conditions import Did
from schemas.conditions import Event as Asked
from schemas.coupons import HISTORY_MS
from schemas.event import Event
from schemas.journeys import Enter, JourneyFile, Status
from schemas.sentences import sentence_of
from schemas.times import EPOCH, to_ms
from web.dashboard.language import Language
from web.dashboard.queries import why as queries
from web.dashboard.told import Line, Row, Teller, plain

if TYPE_CHECKING:
    from web.dashboard.queries.person import Person

ORDERED_BY = "journey "  # of messages, before the name of the journey
MESSAGE = re.compile(r"[0-9a-f]{32}")
KINDS = ("journey", "template", "message")  # that a name may be said to be: `template:welcome`


class Rules(NamedTuple):
    """A journey as it is now.

    Attributes:
        said: its newest version; None: it was taken out, or cannot be read.
        since: when its first version was written.
    """

    name: str
    said: JourneyFile | None
    status: Status = "live"
    since: datetime = EPOCH


class Answer(NamedTuple):
    """Why, in one sentence, and all that led to it.

    Attributes:
        kind: journey, template or message: what was asked about; empty: there is nothing of that name.
        lines: the oldest first.
        also: what else has the same name, to be asked about as `KIND:NAME`.
    """

    person: str
    kind: str
    name: str
    says: str
    lines: Sequence[Line] = ()
    also: Sequence[str] = ()


class Why:
    """Answers about one person.

    Args:
        person: whose keys are known.
        traits: of hers, for journeys that are entered on a day.
        segments: that she is in now.
        zone: of the workspace.
    """

    def __init__(self, person: Person, workspace: str, language: Language, zone: str, *,
                 traits: Mapping[str, Any], segments: Iterable[str]) -> None:  # fmt: skip
        self._person, self._workspace, self._zone = person, workspace, zone
        self._language, self.text = language, language.text
        self._traits, self._segments = traits, frozenset(segments)

    # --- journeys

    async def of_journey(self, rules: Rules) -> Answer:
        """Why she got, or did not get, what a journey gives."""
        person, name = self._person, rules.name
        runs = await queries.runs(person, name)
        messages = {row["id"]: row for row in await queries.messages(person, by=ORDERED_BY + name)}
        found = await queries.lines(person, name)
        lines = list(Teller(self._language, messages, rules.said).lines(found))
        if runs:
            says = self._of_run(runs[0], lines)
        elif any(line.kind == "entered" for line in lines):  # the row of a way comes a moment after the line
            says = next(line.says for line in reversed(lines) if line.kind == "entered")
        elif lines:
            last = lines[-1]
            why = Teller(self._language, {}, rules.said).why_not(last.facts)
            says = self.text("told.journey.not_entered", journey=name, at=self._at(last.at), why=why)
        else:
            says = self.text("told.journey.never", journey=name, why=await self._why_never(rules))
        return Answer(person.key, "journey", name, says, lines)

    def _of_run(self, run: Row, lines: Sequence[Line]) -> str:
        told = {"journey": run["journey"], "entered": self._at(run["entered_at"])}
        if run["is_control"]:
            return self.text("told.journey.held_out", **told)
        if run["left_at"] is not None or run["state"] in ("after", "ended"):
            facts = {"why": run["left_by"], "step": run["step"], "exit": run["left_by"]}
            own = [line for line in lines if line.kind == "left" and line.run == run["run"]]
            why = own[-1].says if own else Teller(self._language, {}).sentence("left", run["journey"], facts)
            return self.text("told.journey.through", **told, left=self._at(run["left_at"]), why=why)
        if run["state"] == "held":
            return self.text("told.journey.paused", **told, step=run["step"])
        if run["due_at"] is not None:
            return self.text("told.journey.inside_until", **told, step=run["step"], due=self._at(run["due_at"]))
        return self.text("told.journey.inside", **told, step=run["step"])

    async def _why_never(self, rules: Rules) -> str:
        """Why nothing of the ledger speaks of her."""
        if rules.said is None:
            return self.text("told.never.gone")
        if rules.status != "live":
            return self.text(f"told.never.{rules.status}")
        enter, since = rules.said.enter, rules.since
        match enter.kind:
            case "event":
                return await self._no_event(enter, since)
            case "joined" | "left":
                return await self._no_change(enter, since)
            case "date":
                return self._no_date(enter, since)
            case _:
                segment = enter.schedule.segment if enter.schedule is not None else str(enter.broadcast)
                told: dict[str, object] = {"segment": segment}
                if enter.schedule is not None:
                    told["cron"] = enter.schedule.cron
                return self.text(f"told.never.{enter.kind}{'_later' if segment in self._segments else ''}", **told)

    async def _no_event(self, enter: Enter, since: datetime) -> str:
        asked = enter.event
        assert asked is not None
        rows = await queries.events(self._person, asked.did, since)
        if not rows:
            return self.text("told.never.event", event=asked.did, since=self._at(since))
        matches = matching(asked, zone_named(self._zone))
        fits = [row for row in rows if matches(_event_of(row, self._workspace))]
        if not fits:
            return self.text("told.never.event_unfit", event=asked.did, count=len(rows), since=self._at(since),
                             asked=self._asked(asked))  # fmt: skip
        late = to_ms(fits[0]["received_at"]) - to_ms(fits[0]["timestamp"]) > HISTORY_MS
        return self.text(f"told.never.event_{'late' if late else 'pending'}", event=asked.did,
                         at=self._at(fits[0]["timestamp"]))  # fmt: skip

    def _asked(self, asked: Asked) -> str:
        return sentence_of(Did.model_validate({"did": asked.did, "where": asked.where}), self._language.code)

    async def _no_change(self, enter: Enter, since: datetime) -> str:
        segment, kind = str(enter.joined or enter.left), enter.kind
        known = [row["at"] for row in await queries.changes(self._person, segment) if row["kind"] == kind]
        told = {"segment": segment, "since": self._at(since)}
        if known and known[0] >= since:
            return self.text(f"told.never.{kind}_pending", segment=segment, at=self._at(known[0]))
        if known and kind == "joined" and segment in self._segments:
            return self.text("told.never.joined_before", **told, at=self._at(known[0]))
        return self.text(f"told.never.{kind}", **told)

    def _no_date(self, enter: Enter, since: datetime) -> str:
        assert enter.date is not None
        trait = enter.date.trait
        value = at_path(self._traits, trait.split("."))
        if value in (None, ""):
            return self.text("told.never.date", trait=trait)
        return self.text("told.never.date_later", trait=trait, value=str(value)[:100], since=self._at(since))

    # --- templates and messages

    async def of_template(self, name: str) -> Answer:
        """Why she was, or was not, sent a template."""
        rows = {row["id"]: row for row in await queries.messages(self._person, template=name)}
        teller = Teller(self._language, rows)
        lines = list(teller.lines(await queries.lines_naming(self._person, template=name)))
        of_journeys = {str(line.facts.get("message", "")) for line in lines}
        lines += [teller.ordered(row) for id_, row in rows.items() if id_ not in of_journeys]
        lines.sort(key=lambda line: line.at)
        return Answer(self._person.key, "template", name, self._of_template(name, teller, rows, lines), lines)

    def _of_template(self, name: str, teller: Teller, rows: Mapping[str, Row], lines: Sequence[Line]) -> str:
        if not lines:
            return self.text("told.message.none", template=name)
        last = lines[-1]
        if last.kind == "refused":
            return self.text("told.message.answer_refused", template=name, at=self._at(last.at),
                             why=teller.why_refused(last.facts))  # fmt: skip
        if last.kind == "delayed":
            until = self._at(last.due) if last.due is not None else str(last.facts.get("until", ""))
            return self.text("told.message.answer_delayed", template=name, until=until)
        id_ = str(last.facts.get("message", ""))
        return self.text("told.message.answer", template=name, message=id_, fate=teller.fate(rows.get(id_)))

    async def of_message(self, id_: str, row: Row | None) -> Answer | None:
        """Why she got, or did not get, a message; None: there is none of this id.

        Args:
            row: what became of it; None: there is no row of it, as its order has just been written, or it was deleted.
        """
        wanted = await queries.lines_naming(self._person, message=id_)
        if row is None:
            ends = await queries.ends(self._person, id_)
            if not wanted and not ends:
                return None
            template = ends[0]["about"] if ends else plain(wanted[0]["facts"]).get("template", "")
            row = _ended(id_, template, wanted[0] if wanted else ends[0], ends[-1] if ends else None)
        elif row["key"] not in self._person.keys and row["person"] != self._person.key:
            says = self.text("told.message.others", message=id_, person=row["person"])
            return Answer(self._person.key, "message", id_, says)
        teller = Teller(self._language, {id_: row})
        lines = list(teller.lines(wanted))
        if lines:  # of a journey: what led to it
            proposed, journey = lines[-1], wanted[0]["about"]
            others = {each["id"]: each for each in await queries.messages(self._person, by=ORDERED_BY + journey)}
            whole = Teller(self._language, {**others, id_: row}).lines(await queries.lines(self._person, journey))
            before = [line for line in whole if line.run == proposed.run]
            ours = [number for number, line in enumerate(before, 1) if line.facts.get("message") == id_]
            lines = before[: ours[-1]] if ours else lines
        says = self.text("told.message.answer", template=row["template"], message=id_, fate=teller.fate(row))
        return Answer(self._person.key, "message", id_, says, lines or [teller.ordered(row)])

    # --- words

    def _at(self, moment: datetime | None) -> str:
        return self._language.at(moment, seconds=True)


def _ended(id_: str, template: str, ordered: Row, ended: Row | None) -> Row:
    """What the ledger alone knows of a message, as a row of it."""
    facts = plain(ended["facts"]) if ended is not None else {}
    state = ended["kind"].removeprefix("message_") if ended is not None else "waiting"
    by = ORDERED_BY + ordered["about"] if ended is not ordered else ""
    return {"id": id_, "template": template, "state": state, "why": facts.get("why", ""), "address": "", "via": "",
            "ordered_by": by, "ordered_at": ordered["at"], "changed_at": (ended or ordered)["at"],
            "due_at": None}  # fmt: skip


def _event_of(row: Row, workspace: str) -> Event:
    """A row of the table of events as the event that it was, as far as conditions ask for it."""

    def raw(value: Any) -> msgspec.Raw:
        return msgspec.Raw(value.encode() if isinstance(value, str) and value else msgspec.json.encode(value or {}))

    return Event(
        message_id=row["message_id"], type=row["type"], workspace=workspace, source=row["source"],
        timestamp=row["timestamp"], received_at=row["received_at"], user_id=row["user_id"],
        anonymous_id=row["anonymous_id"], event=row["event"] if row["type"] == "track" else "", name=row["name"],
        raw_properties=raw(row["properties"]), raw_context=raw(row["context"]), raw_traits=raw(row["traits"]),
    )  # fmt: skip
