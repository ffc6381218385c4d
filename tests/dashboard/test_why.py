"""Why somebody got a message, or did not: the ledger in plain words, held against lines of every kind."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.journeys import parse_journey
from config.settings import Settings
from processors.journeys import JourneyRow, Journeys
from processors.segments import Segments
from schemas.journeys import JourneyFile
from schemas.times import to_ms
from sinks.analytics import Analytics
from sinks.messages.tables import TABLES, MessageRow
from sinks.migrate import migrate
from streams.embedded import EmbeddedLog
from streams.journeys import Journeys as Store
from streams.topics import create_topics
from tests.journeys.shop import Shop
from tests.sinks.conftest import chdb  # noqa: F401 - a fixture
from web.dashboard import dashboard
from web.dashboard.language import LANGUAGES, Language
from web.dashboard.queries.person import Person
from web.dashboard.told import Teller
from web.dashboard.why import Rules, Why

ADA, DEVICE, BOB = "default/u:ada", "default/a:device", "default/u:bob"
T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
RUN = "0123456789abcdef"
ID = "5b1f0c9d7e3a4c6f8d2b0a9e7c5f3d1b"
TOKEN = "t0ken"
WELCOME = """\
enter: {event: {did: Signed Up, where: {plan: gold}}}
holdout: 10
steps:
  - {step: wait_a_day, wait: 1 day}
  - {step: hello, send: welcome}
"""
CHAIN = """\
enter: {event: {did: Signed Up}}
steps:
  - {step: mark, update: {traits: {plan: gold}}}
  - {step: which, branch: [{when: {trait: email, exists: true}, then: hello}]}
  - {step: never, exit: has no address}
  - {step: hello, send: hello}
  - {step: pause, wait: 1 day}
  - {step: draw, split: [{then: short}, {then: short}]}
  - {step: short, send: text}
  - {step: ring, ticket: {subject: Ring her}}
"""
# What the stage writes, and the sentence in English.
SENTENCES: list[tuple[str, dict[str, Any], str]] = [
    ("entered", {"by": "event", "event": "Signed Up", "control": False, "version": 2},
     "She entered welcome (version 2) by event Signed Up."),
    ("entered", {"by": "event", "cause_event": "Product Added", "control": False, "key": "c-1", "version": 1},
     "She entered welcome (version 1) by event Product Added, for c-1."),
    ("entered", {"by": "joined", "segment": "buyers", "control": False, "version": 1},
     "She entered welcome (version 1) as she joined segment buyers."),
    ("entered", {"by": "date", "sweep": "welcome@2026-03-02T08:00:00Z", "control": True, "version": 1},
     "She was held out of welcome (version 1), which she would have entered as the day of hers had come: 10 of a "
     "hundred get nothing, so that one sees what it changes."),
    ("entered", {"by": "broadcast", "control": True, "held_out_by": "all", "version": 1},
     "She was held out of welcome (version 1), which she would have entered by a broadcast: some of a hundred are held "
     "out of all journeys."),
    ("not_entered", {"why": "inside", "by": "event", "event": "Signed Up", "version": 1},
     "She did not enter welcome by event Signed Up: she was inside already."),
    *[("not_entered", {"why": why, "by": "schedule", "version": 1}, said) for why, said in (
        ("again", "nobody enters again so soon"), ("condition", "its condition was not true of her"),
        ("paused", "it was paused"), ("draining", "it took nobody in"), ("stopped", "it was stopped"),
        ("too_many", "as many journeys as one person can be in"), ("too_often", "looked like a loop"),
        ("no_key", "did not say for what"))],
    ("waits", {"step": "pause", "due": "2026-03-03T08:00:00.000Z"},
     "Step pause: she waits, until 3 Mar 2026, 08:00:00 at most."),
    ("happened", {"step": "pause", "what": "Order Completed"},
     "Step pause: what she waited for happened at 2 Mar 2026, 08:00:00: event Order Completed."),
    ("happened", {"step": "pause", "what": "joined buyers"}, "08:00:00: she joined segment buyers."),
    ("timed_out", {"step": "pause", "due": "2026-03-02T07:59:59.000Z"},
     "Step pause: what she waited for did not happen until 2 Mar 2026, 07:59:59; that was acted on at 2 Mar 2026, "
     "08:00:00."),
    ("branched", {"step": "which", "to": "hello", "number": 2},
     "Step which: condition 2 was the first that was true of her, so she went on to hello."),
    ("branched", {"step": "which", "to": "end", "number": 0},
     "Step which: none of its conditions was true of her, so she went on to the end."),
    ("split", {"step": "draw", "to": "hello", "share": 0.25, "arm": 1},
     "Step draw: by lot she went on to hello, as 25 of a hundred do."),
    ("updated", {"step": "mark", "what": "tags, plan"}, "Step mark: tags, plan of hers was changed."),
    ("called", {"step": "tell", "template": "told_crm", "message": ID},
     f"Step tell: another program was to be told told_crm, as message {ID}; it is ordered, and its turn has not come."),
    ("opened", {"step": "ask", "what": "ticket", "subject": "Ring her"}, "Step ask: a ticket was opened: Ring her."),
    ("opened", {"step": "ask", "what": "task", "subject": "Ring her"},
     "Step ask: somebody was given something to do: Ring her."),
    ("proposed", {"step": "hello", "template": "welcome", "channel": "email", "message": ID},
     f"Step hello: welcome was proposed for E-mail and allowed, as message {ID}; it is ordered"),
    ("refused", {"step": "hello", "template": "welcome", "why": "no_consent", "channel": "sms", "topic": "offers"},
     "Step hello: welcome was refused: she has not consented to offers on SMS."),
    ("refused", {"step": "hello", "template": "welcome", "why": "no_address", "channel": "email"},
     "refused: she has no address on E-mail."),
    ("refused", {"step": "hello", "template": "welcome", "why": "cap", "cap": "2 in 1 day", "got": 2},
     "refused: she had got as many as she may get, 2 in 1 day."),
    ("refused", {"step": "hello", "template": "welcome", "why": "arbitration", "cap": "2 in 1 day", "winner": "cart"},
     "refused: she had got as many as she may get, 2 in 1 day; cart came first."),
    ("refused", {"step": "hello", "template": "welcome", "why": "template"}, "refused: there is no such template."),
    ("refused", {"step": "hello", "template": "welcome", "why": "expired"}, "refused: quiet hours of hers ended only"),
    ("refused", {"step": "hello", "template": "welcome", "why": "bounced"}, "refused: Nothing reaches this address."),
    ("delayed", {"step": "hello", "template": "welcome", "until": "2026-03-02T09:00:00.000Z"},
     "Step hello: welcome waits for the end of her quiet hours, until 2 Mar 2026, 09:00:00."),
    ("goal", {"event": "Order Completed", "value": 12.5}, "She reached the goal: event Order Completed, worth 12.5."),
    ("goal", {"event": "Order Completed", "control": True}, "She reached the goal, held out as she was: event Order"),
    ("left", {"why": "done", "step": "hello"}, "She came to the end."),
    ("left", {"why": "goal", "step": "pause"}, "She left at step pause, since she had reached the goal."),
    ("left", {"why": "exit", "step": "pause", "exit": "left buyers"}, "at step pause: she left segment buyers."),
    ("left", {"why": "exit", "step": "out", "exit": "no longer wanted"}, "at step out: no longer wanted."),
    ("left", {"why": "stopped", "step": "pause"}, "the journey was stopped."),
    ("left", {"why": "merged", "step": "pause"}, "somebody who was inside already"),
    ("left", {"why": "gone", "step": "pause"}, "is there no more."),
    ("left", {"why": "too_many", "step": "pause"}, "more journeys than one person can be in."),
    ("held", {"step": "pause"}, "Step pause: the journey is paused, and she stands still."),
    ("resumed", {"step": "pause"}, "Step pause: the journey went on, and she with it."),
    ("moved", {"from": 1, "to": 2, "step": "pause"}, "She was moved from version 1 to version 2, at step pause."),
    ("slowed", {"step": "pause"}, "Step pause: so many steps at once look like a loop"),
    ("left", {"why": "eaten", "step": "pause"}, "The ledger says “left” of welcome: why eaten, step pause."),
    ("danced", {"step": "pause"}, "The ledger says “danced” of welcome: step pause."),
]  # fmt: skip


def said(text: str = WELCOME) -> JourneyFile:
    return parse_journey("welcome", text, Path("config"), "UTC").said


@pytest.mark.parametrize(("kind", "facts", "sentence"), SENTENCES)
def test_each_kind_of_line_has_its_sentence(kind: str, facts: dict[str, Any], sentence: str) -> None:
    row = {"at": T0, "id": "1", "kind": kind, "about": "welcome", "cause": "events-0@17", "facts": facts}

    (line,) = Teller(Language("en"), {}, said()).lines([row])
    (zh,) = Teller(Language("zh"), {}, said()).lines([row])

    assert sentence in line.says
    assert re.search("[\u4e00-\u9fff]", zh.says) and zh.says != line.says
    assert (line.kind, line.cause, line.at) == (kind, "events-0@17", T0)


def test_a_wait_says_when_it_was_due_and_when_it_was_done() -> None:
    def row(minutes: int, kind: str, due: str | None, step: str = "pause") -> dict[str, Any]:
        facts = {"run": RUN, "version": 1, "step": step, "due": due}
        return {"at": T0 + timedelta(minutes=minutes), "id": f"{minutes}", "kind": kind, "about": "welcome",
                "cause": "", "facts": facts}  # fmt: skip

    rows = [row(0, "waits", "2026-03-02T09:00:00Z"), row(61, "woke", "2026-03-02T09:00:00Z"),
            row(62, "woke", "2026-01-01T09:00:00Z", "renewal"), row(63, "woke", None, "birthday")]  # fmt: skip

    lines = list(Teller(Language("en"), {}).lines(reversed(rows)))

    assert [line.says for line in lines] == [
        "Step pause: she waits, until 2 Mar 2026, 09:00:00 at most.",
        "Step pause: what was due at 2 Mar 2026, 09:00:00 was done at 2 Mar 2026, 09:01:00.",
        "Step renewal: its moment, 1 Jan 2026, 09:00:00, was past, so nothing was waited for.",
        "Step birthday: there is no such day of hers, so nothing was waited for.",
    ]
    assert lines[0].due == T0 + timedelta(hours=1) and lines[-1].due is None


def test_lines_of_one_record_stand_in_the_order_in_which_they_were_decided() -> None:
    stage = Shop(welcome=CHAIN)
    stage.customer("ann")
    stage.did("ann", "Signed Up")
    stage.wait("25h")
    rows = [{"at": line.at, "id": line.id, "kind": line.kind, "about": line.about, "cause": line.cause,
             "facts": line.facts} for line in stage.decisions.values() if line.processor == "journeys"]  # fmt: skip

    lines = list(Teller(Language("en"), {}, said(CHAIN)).lines(sorted(rows, key=lambda row: str(row["id"])[5:])))

    assert [(line.kind, line.facts.get("step")) for line in lines] == [
        ("entered", None), ("updated", "mark"), ("branched", "which"), ("proposed", "hello"), ("waits", "pause"),
        ("woke", "pause"), ("split", "draw"), ("refused", "short"), ("opened", "ring"), ("left", "ring"),
    ]  # fmt: skip
    assert lines[3].says.startswith("Step hello: hello was proposed for E-mail and allowed, as message ")
    assert "what was due at" in lines[5].says and "told" not in " ".join(line.says for line in lines)
    assert lines[7].says == "Step short: text was refused: she has no address on SMS."
    assert all(re.fullmatch(r"events-\d+@\d+", line.cause) for line in lines)


FACTS = st.dictionaries(
    st.sampled_from(("run", "step", "due", "what", "to", "number", "share", "template", "message", "why", "cap", "by",
                     "winner", "until", "event", "value", "exit", "from", "control", "key", "channel", "topic")),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
)  # fmt: skip


@given(st.sampled_from(sorted({kind for kind, _, _ in SENTENCES})), FACTS, st.sampled_from(sorted(LANGUAGES)))
def test_whatever_a_line_holds_it_is_said(kind: str, facts: dict[str, Any], code: str) -> None:
    row = {"at": T0, "id": "1", "kind": kind, "about": "welcome", "cause": "", "facts": facts}

    (line,) = Teller(Language(code), {}).lines([row])

    assert len(line.says) > 5


# --- over ClickHouse


async def tell(analytics: Analytics, *lines: tuple[float, str, Mapping[str, Any]], about: str = "welcome",
               processor: str = "journeys", key: str = ADA) -> None:  # fmt: skip
    """Lines of the ledger, each so many hours after T0."""
    await analytics.insert("decisions", {
        "workspace": ["default"] * len(lines),
        "id": [f"{number:04x}-{about}-{key}-{at}" for number, (at, _, _) in enumerate(lines)],
        "recorded_for": [key] * len(lines), "at": [to_ms(T0 + timedelta(hours=at)) for at, _, _ in lines],
        "processor": [processor] * len(lines), "kind": [kind for _, kind, _ in lines], "about": [about] * len(lines),
        "cause": ["events-1@17"] * len(lines),
        "facts": [json.dumps({"run": RUN, "version": 2, **facts}) for _, _, facts in lines],
    })  # fmt: skip


async def put(analytics: Analytics, table: str, row: msgspec.Struct, key: str = ADA) -> None:
    values = {name: to_ms(value) if isinstance(value, datetime) else value for name, value in
              ((name, getattr(row, name)) for name in row.__struct_fields__)}  # fmt: skip
    await analytics.insert(table, {name: [value] for name, value in
                                   {"workspace": "default", "key": key, "version": 1, **values}.items()})  # fmt: skip


def a_run(**changes: Any) -> JourneyRow:
    run = JourneyRow(run=RUN, journey="welcome", definition=2, is_control=False, state="waits", step="wait_a_day",
                     entered_at=T0, entered_by="event", entry_key="", due_at=T0 + timedelta(days=1), left_at=None,
                     left_by="", goal_at=None, goal_value=0.0, sent=0)  # fmt: skip
    return msgspec.structs.replace(run, **changes)


def a_message(**changes: Any) -> MessageRow:
    row = MessageRow(id=ID, template="hello", template_version="3", channel="email", via="smtp", kind="marketing",
                     topic="offers", state="sent", why="", attempts=1, address="ada@example.com", reference="",
                     ordered_by="journey welcome", ordered_at=T0 + timedelta(hours=24),
                     changed_at=T0 + timedelta(hours=25), due_at=None)  # fmt: skip
    return msgspec.structs.replace(row, **changes)


@pytest.fixture
async def known(chdb: Analytics) -> Analytics:  # noqa: F811
    """chDB with the tables, and two people: one of them with a device."""
    await migrate(chdb, [*Journeys.tables, *Segments.tables, *TABLES])
    for key, person in ((ADA, ADA), (DEVICE, ADA), (BOB, BOB)):
        await chdb.command(
            "INSERT INTO identities (workspace, key, person, moves, evidence, linked_at) VALUES "
            "('default', {key:String}, {person:String}, 1, '', now64(3))", {"key": key, "person": person})  # fmt: skip
    return chdb


async def asking(analytics: Analytics, code: str = "en", traits: Mapping[str, Any] | None = None,
                 *segments: str) -> Why:  # fmt: skip
    person = Person(analytics, "default", ADA)
    await person.identities()
    return Why(person, "default", Language(code), "UTC", traits=traits or {}, segments=segments)


async def test_a_way_is_told_from_entry_to_what_became_of_its_message(known: Analytics) -> None:
    hello = {"step": "hello", "template": "hello", "channel": "email", "message": ID}
    await tell(known, (0, "entered", {"by": "event", "event": "Signed Up", "control": False}),
               (0, "waits", {"step": "wait_a_day", "due": "2026-03-03T08:00:00.000Z"}), key=DEVICE)  # fmt: skip
    await tell(known, (24, "woke", {"step": "wait_a_day", "due": "2026-03-03T08:00:00.000Z"}),
               (24, "proposed", hello), (24, "left", {"why": "done", "step": "hello"}))  # fmt: skip
    await put(known, "journey_runs", a_run(state="ended", step="hello", left_by="done", due_at=None,
                                           left_at=T0 + timedelta(hours=24), sent=1), DEVICE)  # fmt: skip
    await put(known, "messages", a_message())
    why = await asking(known)

    of_journey = await why.of_journey(Rules("welcome", said()))
    of_message = await why.of_message(ID, (await known.query("SELECT * FROM messages_list"))[0])
    of_template = await why.of_template("hello")

    sent = "it was sent at 3 Mar 2026, 09:00:00, to ada@example.com by smtp"
    assert of_journey.says == ("She entered welcome at 2 Mar 2026, 08:00:00 and left it at 3 Mar 2026, 08:00:00: She "
                               "came to the end.")  # fmt: skip
    assert [line.says for line in of_journey.lines] == [
        "She entered welcome (version 2) by event Signed Up.",
        "Step wait_a_day: she waits, until 3 Mar 2026, 08:00:00 at most.",
        "Step wait_a_day: what was due at 3 Mar 2026, 08:00:00 was done at 3 Mar 2026, 08:00:00.",
        f"Step hello: hello was proposed for E-mail and allowed, as message {ID}; {sent}.",
        "She came to the end.",
    ]
    assert {line.cause for line in of_journey.lines} == {"events-1@17"}
    assert of_message is not None and of_message.says == f"hello, message {ID}: {sent}."
    assert [line.kind for line in of_message.lines] == ["entered", "waits", "woke", "proposed"]
    assert of_template.says == of_message.says and [line.kind for line in of_template.lines] == ["proposed"]


PLACES = [
    (a_run(), "She is in welcome since 2 Mar 2026, 08:00:00, at step wait_a_day, until 3 Mar 2026, 08:00:00 at most."),
    (a_run(due_at=None), "She is in welcome since 2 Mar 2026, 08:00:00, at step wait_a_day."),
    (a_run(state="held", due_at=None), "stands still at step wait_a_day: it is paused."),
    (a_run(state="control", is_control=True), "She gets nothing of welcome: she was held out when she came to it"),
    (a_run(state="after", left_at=T0, left_by="goal"), "and left it at 2 Mar 2026, 08:00:00: She left at step "
                                                       "wait_a_day, since she had reached the goal."),
]  # fmt: skip


async def test_where_somebody_is_stands_first(known: Analytics) -> None:
    for run, told in PLACES:
        await known.command("TRUNCATE TABLE journey_runs")
        await put(known, "journey_runs", run)

        assert told in (await (await asking(known)).of_journey(Rules("welcome", said()))).says


FATES = [
    (a_message(state="withheld", why="bounced"), "withheld at 3 Mar 2026, 09:00:00: Nothing reaches this address."),
    (a_message(state="failed", why="it was too late: no answer"), "failed at 3 Mar 2026, 09:00:00: it was too"),
    (a_message(state="waiting"), "it waits for its turn."),
    (a_message(state="waiting", why="answered 500", due_at=T0), "again at 2 Mar 2026, 08:00:00: answered 500."),
    (a_message(state="sending"), "the answer is awaited."),
    (a_message(state="unknown"), "that is for somebody to settle."),
    (a_message(ordered_by="ann"), "it was sent at"),
]  # fmt: skip


async def test_a_message_says_what_became_of_it(known: Analytics) -> None:
    for row, told in FATES:
        await known.command("TRUNCATE TABLE messages")
        await put(known, "messages", row)
        (found,) = await known.query("SELECT * FROM messages_list")

        answer = await (await asking(known)).of_message(ID, found)

        assert answer is not None and told in answer.says
        assert [told.rstrip(".") in line.says for line in answer.lines] == [True]


async def test_of_a_message_without_a_row_the_ledger_tells(known: Analytics) -> None:
    why = await asking(known)
    assert await why.of_message(ID, None) is None

    await tell(known, (24, "proposed", {"step": "hello", "template": "hello", "channel": "email", "message": ID}))
    before = await why.of_message(ID, None)
    await tell(known, (25, "message_withheld", {"message": ID, "why": "no_consent"}), about="hello",
               processor="messages")  # fmt: skip
    after = await why.of_message(ID, None)

    assert before is not None and before.says == f"hello, message {ID}: it waits for its turn."
    assert after is not None and "withheld at 3 Mar 2026, 09:00:00: She has not consented" in after.says


async def test_whose_message_it_is_is_said(known: Analytics) -> None:
    await put(known, "messages", a_message(), BOB)
    (found,) = await known.query("SELECT * FROM messages_list")

    answer = await (await asking(known)).of_message(ID, found)

    assert answer is not None and answer.says == f"Message {ID} is not hers but was for {BOB}."


async def test_who_was_refused_a_message_is_told_the_last_reason(known: Analytics) -> None:
    await tell(known, (0, "delayed", {"step": "hello", "template": "hello", "until": "2026-03-02T09:00:00.000Z"}))
    why = await asking(known)
    delayed = await why.of_template("hello")
    await tell(known, (1, "refused", {"step": "hello", "template": "hello", "why": "cap", "cap": "2 in 1 day"}))

    assert delayed.says == "hello waits for the end of her quiet hours, until 2 Mar 2026, 09:00:00."
    assert (await why.of_template("hello")).says == (
        "She was not sent hello at 2 Mar 2026, 09:00:00: she had got as many as she may get, 2 in 1 day.")  # fmt: skip
    assert "nobody ordered it for her" in (await why.of_template("other")).says


# --- who never entered


async def happens(analytics: Analytics, event: str, plan: str, *, hours: float, late_days: float = 0) -> None:
    at = T0 + timedelta(hours=hours)
    await analytics.insert("events", {
        "workspace": ["default"], "key": [DEVICE], "message_id": [f"{event}-{hours}"], "type": ["track"],
        "event": [event], "timestamp": [to_ms(at - timedelta(days=late_days))], "received_at": [to_ms(at)],
        "source": ["web"], "anonymous_id": ["device"], "properties": [json.dumps({"plan": plan})],
    })  # fmt: skip


ENTERS = WELCOME.partition("\n")[0]


def entered_by(enter: str) -> JourneyFile:
    return said(WELCOME.replace(ENTERS, f"enter: {enter}"))


async def never(analytics: Analytics, file: JourneyFile | None, *segments: str, status: Any = "live",
                traits: Mapping[str, Any] | None = None) -> str:  # fmt: skip
    why = await asking(analytics, "en", traits, *segments)
    answer = await why.of_journey(Rules("welcome", file, status, T0))
    zh = await (await asking(analytics, "zh", traits, *segments)).of_journey(Rules("welcome", file, status, T0))
    assert answer.lines == [] and answer.says.startswith("She never entered welcome: ")
    assert zh.says.startswith("从未进入旅程 welcome：")
    return answer.says.removeprefix("She never entered welcome: ")


async def test_who_did_nothing_that_a_journey_begins_with_is_told_so(known: Analytics) -> None:
    await happens(known, "Signed Up", "gold", hours=-1)
    assert await never(known, said()) == (
        "it is entered by event Signed Up, and she has none since it is live (2 Mar 2026, 08:00:00).")  # fmt: skip

    await happens(known, "Signed Up", "free", hours=1)
    assert "of 1 of hers since 2 Mar 2026, 08:00:00 none is as it asks for: did “Signed Up” where" in \
        await never(known, said())  # fmt: skip

    await happens(known, "Signed Up", "gold", hours=2)
    assert "hers of 2 Mar 2026, 10:00:00 fits what it asks now" in await never(known, said())

    await happens(known, "Signed Up", "gold", hours=3, late_days=500)
    assert "came in so late" in await never(known, said())


WAYS_IN = [
    ("{joined: buyers}", 0, "", False, "she has not joined it since it is live"),
    ("{joined: buyers}", -1, "joined", True, "she had joined it at 2 Mar 2026, 07:00:00, before it was live"),
    ("{joined: buyers}", 1, "joined", True, "she joined it at 2 Mar 2026, 09:00:00, before people were led"),
    ("{left: buyers}", -1, "left", False, "she has not left it since it is live"),
    ("{left: buyers}", 1, "left", False, "she left it at 2 Mar 2026, 09:00:00"),
    ('{schedule: {cron: "0 9 * * 1", segment: buyers}}', 0, "", False, "buyers at 0 9 * * 1, and she is not"),
    ('{schedule: {cron: "0 9 * * 1", segment: buyers}}', 0, "", True, "that time has not come since"),
    ("{broadcast: buyers}", 0, "", False, "when a broadcast is sent, and she is not"),
    ("{broadcast: buyers}", 0, "", True, "none was sent since"),
    ("{date: {trait: birthday}}", 0, "", False, "that her trait birthday says (1990-02-29), and that has not come"),
    ("{date: {trait: renewal.on}}", 0, "", False, "that her trait renewal.on says, and she has none"),
]  # fmt: skip


async def test_each_way_to_enter_says_what_it_lacks(known: Analytics) -> None:
    for enter, hours, kind, in_now, told in WAYS_IN:
        await known.command("TRUNCATE TABLE decisions")
        if kind:
            await tell(known, (hours, kind, {}), about="buyers", processor="segments", key=DEVICE)
        segments = ["buyers"] if in_now else []

        assert told in await never(known, entered_by(enter), *segments, traits={"birthday": "1990-02-29"})


async def test_a_journey_that_takes_nobody_in_says_so(known: Analytics) -> None:
    assert "it was taken out" in await never(known, None)
    for status, told in (("paused", "it is paused"), ("draining", "takes nobody in"), ("stopped", "it is stopped")):
        assert told in await never(known, said(), status=status)


async def test_who_was_turned_away_is_told_why(known: Analytics) -> None:
    await tell(known, (0, "not_entered", {"why": "condition", "by": "event", "event": "Signed Up"}),
               (1, "not_entered", {"why": "too_many", "by": "event", "event": "Signed Up"}))  # fmt: skip

    answer = await (await asking(known)).of_journey(Rules("welcome", said()))

    assert answer.says == ("She never entered welcome. The last time, at 2 Mar 2026, 09:00:00, it was so: she was in "
                           "as many journeys as one person can be in at a time.")  # fmt: skip
    assert len(answer.lines) == 2


# --- as programs ask


@asynccontextmanager
async def api(analytics: Analytics, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data=folder, partitions=1)
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    await create_topics(log, settings)
    app = dashboard(log, analytics, settings, TOKEN)
    site = app.state.site
    await site.templates.save("welcome", "channel: sms\nkind: transactional\ncontent: {en: {text: Hi}}\n", by="ann",
                              now_ms=to_ms(T0))  # fmt: skip
    store: Store = site.journeys
    text = WELCOME.replace("{did: Signed Up, where: {plan: gold}}", "{did: Signed Up}")
    await store.save("welcome", text, by="ann", now_ms=to_ms(T0))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 40_000))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1",
                                     headers={"authorization": f"Bearer {TOKEN}"}) as http:  # fmt: skip
            yield http
    finally:
        await log.stop()


async def test_programs_are_told_by_name_and_id(known: Analytics, tmp_path: Path) -> None:
    await happens(known, "Signed Up", "gold", hours=-1)
    await put(known, "messages", a_message(template="welcome"))
    await tell(known, (0, "entered", {"by": "event", "event": "Signed Up", "control": False}), about="old_one")
    await put(known, "journey_runs", a_run(journey="old_one", run="f" * 16))

    async with api(known, tmp_path) as http:
        async def ask(about: str, person: str = "ada", **more: str) -> Any:
            return (await http.get("/api/why", params={"person": person, "about": about, **more})).json()

        journey, template, message = await ask("welcome"), await ask("template:welcome"), await ask(ID)
        old, none, nobody = await ask("old_one"), await ask("winback"), await ask("welcome", "eve")
        device, chinese = await ask("journey:welcome", DEVICE), await ask("welcome", language="zh")

    assert (journey["kind"], journey["person"], journey["also"]) == ("journey", ADA, ["template:welcome"])
    assert journey["says"] == ("She never entered welcome: it is entered by event Signed Up, and she has none since it "
                               "is live (2 Mar 2026, 08:00:00).")  # fmt: skip
    assert (template["kind"], message["kind"]) == ("template", "message") and "it was sent at" in message["says"]
    assert message["lines"][0]["says"].startswith("welcome was ordered for her at 3 Mar 2026, 08:00:00 by journey")
    assert old["lines"][0] | {"facts": {}} == {
        "at": "2026-03-02T08:00:00Z", "when": "2 Mar 2026, 08:00:00", "kind": "entered", "due": None, "run": RUN,
        "cause": "events-1@17", "facts": {}, "says": "She entered old_one (version 2) by event Signed Up.",
    }  # fmt: skip
    assert none == {"error": "There is no journey, no template and no message called winback."}
    assert "There is nobody by the key 'eve'" in nobody["error"]
    assert device == {**journey, "also": []} and "旅程" in chinese["says"]
