"""Cases of journeys: what people may write, what is run, and what is told where something differs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from config.journey_cases import files_of_cases, parse_cases, read_cases
from config.journeys import read_journeys
from docs.schemas.generate import CASES, cases_content
from schemas.errors import ConfigError
from schemas.journey_cases import KINDS, CaseFile, Line, moment_of
from schemas.journeys import JourneyFile
from streams.cases import Ran, clock, got_text, line_text, run_cases
from streams.rehearsal import Rehearsal, rehearsal_of
from tests.cli.command import ROOT, tidewire
from tests.journeys.test_schema import as_editors_see

CART = """
enter: {event: {did: Product Added}}
when: {not: {trait: plan, is: staff}}
again: {once_per: cart_id}
goal: {did: Order Completed, matching: cart_id, within: 7 days}
exits: [{left: loyal}]
steps:
  - {step: pause, wait: 1 hour}
  - {step: remind, send: basket, refused: work}
  - {step: look, wait_until: {did: Message Clicked, message: remind}, at_most: 1 day, otherwise: work}
  - {step: who, branch: [{when: {segment: loyal}, then: pick}], then: end}
  - {step: pick, split: [{then: gift}, {then: work, weight: 9}]}
  - {step: gift, update: {traits: {gift: true}}, then: end}
  - {step: work, ticket: {subject: Call her}}
"""
NEWS = "enter: {schedule: {cron: 0 9 * * MON, segment: loyal}}\nagain: always\nsteps: [{step: news, send: basket}]\n"
SALE = "enter: {broadcast: loyal}\nsteps: [{step: tell, send: basket}]\n"
LIMITS = "quiet_hours: {from: '20:00', to: '08:00'}\ncaps: [{at_most: 1, within: 1 day}]\nholdout: 50\n"
BASKET = "channel: email\nkind: marketing\ntopic: baskets\ncontent: {en: {subject: It waits, text: Still there.}}\n"
ADDED = "events: [{at: +0 minutes, event: Product Added, properties: {cart_id: c1}}]"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    for file, text in {
        "journeys/cart.yaml": CART, "journeys/news.yaml": NEWS, "journeys/sale.yaml": SALE, "limits.yaml": LIMITS,
        "templates/basket.yaml": BASKET, "segments/loyal.yaml": "when: {did: Order Completed, at_least: 9}\n",
    }.items():  # fmt: skip
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    return folder


@pytest.fixture(scope="module")
def rehearsal(config: Path) -> Rehearsal:
    return rehearsal_of(config, "default", "UTC")


def run(rehearsal: Rehearsal, text: str, journey: str = "cart", more: str = "") -> Ran:
    """One case, whose keys are given as YAML."""
    whole = f"{more}cases:\n  - case: it\n" + "".join(f"    {line}\n" for line in text.strip().splitlines())
    said = JourneyFile.model_validate(rehearsal.journeys[journey].said)
    (ran,) = run_cases(parse_cases(journey, whole, said), rehearsal)
    return ran


def got(ran: Ran) -> list[str]:
    return [got_text(row.got, ran.start_ms) for row in ran.rows if row.got is not None]


# --- what happens


def test_a_case_that_expects_what_happens_passes(rehearsal: Rehearsal) -> None:
    ran = run(rehearsal, f"""
{ADDED}
expect:
  - {{at: +0 minutes, entered: event, held_out: false}}
  - {{step: pause, waits: +1 hour}}
  - {{at: +1 hour, step: remind, send: basket}}
  - {{at: +1 day 1 hour, step: look, timed_out: true}}
  - {{at: 2026-01-06 10:00, step: work, opened: ticket}}
  - {{left: done}}
""")

    assert ran.passed, got(ran)


@pytest.mark.parametrize(("change", "lines"), [
    ("held_out: true", ["{at: +0 minutes, entered: event, held_out: true}"]),
    ("person: {traits: {plan: staff}}", ["{at: +0 minutes, not_entered: condition}"]),
    ("person: {traits: {email: null}}", ["{at: +1 hour, step: remind, refused: no_address}"]),
    ("person: {traits: {consent: {baskets: false}}}", ["{at: +1 hour, step: remind, refused: no_consent}"]),
    ("start: 2026-01-05 19:30", ["{at: +1 hour, step: remind, delayed: +12 hours 30 minutes}",
                                 "{at: +12 hours 30 minutes, step: remind, send: basket}"]),
    ("with: [sale]\nmore: [{at: +1 minute, broadcast: true}]", []),
    ("more: [{at: +2 minutes, status: paused}]", ["{at: +1 hour, step: remind, held: remind}"]),
    ("more: [{at: +2 minutes, status: paused}, {at: +2 hours, status: live}]",
     ["{at: +2 hours, step: remind, resumed: remind}", "{at: +2 hours, step: remind, send: basket}"]),
    ("more: [{at: +2 minutes, status: stopped}]", ["{at: +2 minutes, step: pause, left: stopped}"]),
    ("person: {segments: [loyal]}\nmore: [{at: +2 minutes, left: loyal}]",
     ["{at: +2 minutes, step: pause, left: exit}"]),
    ("more: [{at: +9 minutes, event: Order Completed, properties: {order_id: o1, cart_id: c1, total: 3}}]",
     ["{at: +9 minutes, goal: Order Completed}", "{at: +9 minutes, step: pause, left: goal}"]),
    ("more: [{at: +9 minutes, event: Product Added, properties: {cart_id: c1}}]",
     ["{at: +9 minutes, not_entered: again}"]),
    ("more: [{at: +2 hours, event: Message Clicked, of: remind}]",
     ["{at: +2 hours, step: look, happened: Message Clicked}", "{at: +2 hours, step: who, branched: end}"]),
    ("draws: {pick: gift}\nmore: [{at: +1 minute, joined: loyal}, {at: +2 hours, event: Message Clicked, of: remind}]",
     ["{at: +2 hours, step: pick, split: gift}", "{at: +2 hours, step: gift, updated: gift}"]),
    ("draws: {pick: work}\nperson: {segments: [loyal]}\nmore: [{at: +2 hours, event: Message Clicked, of: remind}]",
     ["{at: +2 hours, step: work, opened: ticket}"]),
])  # fmt: skip
def test_a_case_may_say_what_happens_to_her(change: str, lines: list[str], rehearsal: Rehearsal) -> None:
    said = yaml.safe_load(change)
    events = [*yaml.safe_load(ADDED)["events"], *said.pop("more", [])]

    ran = run(rehearsal, yaml.safe_dump({**said, "events": events, "expect": [], "exactly": True}))

    assert set(lines) <= set(got(ran)), got(ran)


def test_a_message_that_fails_does_not_count_against_caps(rehearsal: Rehearsal) -> None:
    two = """
events:
  - {at: +0 minutes, event: Product Added, properties: {cart_id: c1}}
  - {at: +30 minutes, event: Product Added, properties: {cart_id: c2}}
until: +2 hours
expect: []
"""

    assert "{at: +1 hour 30 minutes, step: remind, refused: cap}" in got(run(rehearsal, two))
    assert "{at: +1 hour 30 minutes, step: remind, send: basket}" in got(run(rehearsal, "fails: [remind]" + two))


def test_journeys_beside_it_share_its_caps(rehearsal: Rehearsal) -> None:
    text = f"person: {{segments: [loyal]}}\n{ADDED}\nuntil: +1 hour\nexpect: []\nstart: 2026-01-05 08:30"

    assert "{at: +1 hour, step: remind, send: basket}" in got(run(rehearsal, text))
    assert "{at: +1 hour, step: remind, refused: cap}" in got(run(rehearsal, f"with: [news]\n{text}"))


def test_who_enters_by_a_schedule_or_a_broadcast_is_asked_at_its_moment(rehearsal: Rehearsal) -> None:
    weekly = run(rehearsal, """
person: {segments: [loyal]}
start: 2026-03-23 00:00
expect:
  - {at: 2026-03-23 09:00, send: basket}
  - {at: 2026-03-30 09:00, send: basket}
""", "news", "zone: Europe/Berlin\n")  # fmt: skip
    sale = run(rehearsal, """
person: {segments: [loyal]}
events: [{at: +3 hours, broadcast: true}, {at: +4 hours, broadcast: true}]
expect: [{at: +3 hours, entered: broadcast}, {step: tell, send: basket}, {left: done}, {not_entered: again}]
""", "sale")

    assert got(weekly) == [
        "{at: +9 hours, entered: schedule}", "{at: +9 hours, step: news, send: basket}",
        "{at: +9 hours, step: news, left: done}", "{at: +7 days 8 hours, entered: schedule}",  # clocks were put forward
        "{at: +7 days 8 hours, step: news, send: basket}", "{at: +7 days 8 hours, step: news, left: done}",
    ]  # fmt: skip
    assert sale.passed, got(sale)


def test_nobody_is_held_out_by_lot_and_visitors_without_a_name_are_themselves(rehearsal: Rehearsal) -> None:
    for number in range(20):
        ran = run(rehearsal, f"person: {{id: p{number}}}\n{ADDED}\nexpect: [{{entered: event, held_out: false}}]\n"
                             "until: +0 minutes")  # fmt: skip
        assert ran.passed
    ran = run(rehearsal, """
events: [{at: +0 minutes, event: Product Added, anonymousId: x, properties: {cart_id: c1}}]
until: +1 hour
expect: [{entered: event}, {step: remind, refused: no_address}, {left: done}]
""")
    assert ran.passed, got(ran)


def test_a_year_of_somebody_takes_well_under_a_second(rehearsal: Rehearsal) -> None:
    events = "".join(f"\n  - {{at: +{7 * week} days, event: Product Added, properties: {{cart_id: c{week}}}}}"
                     for week in range(52))  # fmt: skip
    began_s = time.process_time()

    ran = run(rehearsal, f"events:{events}\nuntil: +365 days\nexpect: []\nexactly: true")

    assert sum("send: basket" in line for line in got(ran)) == 52
    assert time.process_time() - began_s < 1.0


# --- what is compared


def test_what_may_not_be_left_out_and_what_did_not_happen_is_told(rehearsal: Rehearsal) -> None:
    ran = run(rehearsal, f"""
{ADDED}
expect:
  - {{at: +0 minutes, entered: event}}
  - {{at: +2 hours, step: remind, send: basket}}
  - {{goal: true}}
until: +1 hour
""")

    assert not ran.passed
    assert [(row.expected is None, row.got is None) for row in ran.rows] == [
        (False, False), (False, True), (False, True), (True, False)]  # fmt: skip
    assert got(ran)[-1] == "{at: +1 hour, step: remind, send: basket}"


def test_steps_may_be_left_out_but_not_where_all_is_to_be_said(rehearsal: Rehearsal) -> None:
    text = f"{ADDED}\nuntil: +5 minutes\nexpect: [{{entered: event}}]"

    assert run(rehearsal, text).passed
    assert not run(rehearsal, f"{text}\nexactly: true").passed


def test_the_order_counts(rehearsal: Rehearsal) -> None:
    text = f"{ADDED}\nuntil: +1 hour\nexpect: [{{step: remind, send: basket}}, {{entered: event}}]"

    assert not run(rehearsal, text).passed


def shipped() -> list[str]:
    return list(files_of_cases(ROOT / "config"))


@pytest.mark.parametrize("name", shipped())
def test_what_happened_written_as_cases_passes_to_the_letter(name: str) -> None:
    """What is shown of what happened can be written into a file, and is then what is expected."""
    rehearsal = rehearsal_of(ROOT / "config", "default", "UTC")
    said = JourneyFile.model_validate(rehearsal.journeys[name].said)
    cases = read_cases(files_of_cases(ROOT / "config")[name], said)
    for case, plain in zip(cases.said, cases.file.values["cases"], strict=True):
        named = [line.at for line in case.expect if line.at is not None]
        ends = {"until": str(named[-1])} if said.enter.date is not None and named else {}

        def lived(expect: list[object], more: dict[str, str] = ends, plain: dict[str, object] = plain) -> Ran:
            whole = {"zone": cases.said.zone, "cases": [{**more, **plain, "exactly": True, "expect": expect}]}
            (ran,) = run_cases(parse_cases(name, yaml.safe_dump(whole), said), rehearsal)
            return ran

        lines = [yaml.safe_load(line) for line in got(lived([]))]

        assert lived(lines).passed and len(lines) >= len(case.expect), case.case


# --- what is written


@pytest.mark.parametrize(("text", "what"), [
    ("", "holds no cases"),
    ("cases: []", '"cases": there are too few'),
    ("cases:\n  - {case: a, expect: [], evnts: []}", 'x.cases.yaml:2: case "a", "evnts": no such key here. Did you '
     'mean "events"?'),
    ("cases:\n  - {case: a}", 'case "a", "expect": is missing'),
    ("cases:\n  - {case: a, expect: [{step: remind}]}", 'case "a", "expect.1": say exactly one of entered'),
    ("cases:\n  - case: a\n    expect:\n      - {entered: event}\n      - {sent: x}", 'x.cases.yaml:5: case "a", '
     '"expect.2.sent": no such key here. Did you mean "send"?'),
    ("cases:\n  - {case: a, expect: [{step: remnd, send: x}]}", '"remnd" is not a step of this journey. Did you mean '
     '"remind"?'),
    ("cases:\n  - {case: a, expect: [], events: [{at: 1 hour, event: x}]}", '"events.1.at": write how long after the '
     "start, such as +1 day 2 hours, or a time, such as 2026-03-01 10:00; got 1 hour"),
    ("cases:\n  - {case: a, expect: [], events: [{at: +1 hour, event: x, joined: y}]}", "say exactly one of event"),
    ("cases:\n  - {case: a, expect: [], events: [{at: 2020-01-01, event: x}]}", "2020-01-01 00:00:00 is before the "
     "case begins, at 2026-01-05 09:00:00. Let `start` be earlier."),
    ("cases:\n  - {case: a, expect: [], fails: [pause]}", '"pause" is not a step of this journey that sends. There are '
     "remind."),
    ("cases:\n  - {case: a, expect: [], draws: {pick: remind}}", '"remind" is not an arm of "pick". There are gift, '
     "work."),
    ("cases:\n  - {case: a, expect: [], start: +1 hour}", "start is a time, such as 2026-03-01 10:00"),
    ("zone: Mars\ncases:\n  - {case: a, expect: []}", '"zone": name a time zone'),
    ("cases:\n  - {case: a, expect: [{goal: true, held_out: true}]}", "held_out goes with entered"),
])  # fmt: skip
def test_what_cannot_be_meant_is_told_with_line_and_mend(text: str, what: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_cases("x", text, JourneyFile.model_validate(yaml.safe_load(CART)))

    assert what in str(error.value)


@pytest.mark.parametrize(("case", "what"), [
    ("events: [{at: +1 minute, joined: loyl}]", 'there is no segment "loyl"'),
    ("with: [sail]", 'there is no journey "sail"'),
    ("events: [{at: +1 minute, event: Message Clicked, of: remind}]", 'step "remind" had sent no message by then'),
])  # fmt: skip
def test_what_is_not_there_is_told_when_it_is_run(case: str, what: str, rehearsal: Rehearsal) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        run(rehearsal, f"{case}\nexpect: []")

    assert error.value.place.startswith("cart.cases.yaml:")


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_can_be_written_as_it_is_shown(kind: str) -> None:
    line = Line.model_validate({"at": "+1 hour", "step": "a", kind: True})

    assert yaml.safe_load(line_text(line)) == {"at": "+1 hour", "step": "a", kind: True}


def test_times_are_read_as_they_are_shown() -> None:
    assert moment_of("+1 week 2 seconds").after_ms == 604_802_000
    assert clock(1_767_603_600_000, CaseFile(zone="Europe/Berlin", cases=[{"case": "a", "expect": []}]).tz) == \
        "Mon 2026-01-05 10:00"  # fmt: skip
    for wrong in ("+", "+1", "+1 month", "+1 day and 2 hours", "tomorrow", 7, None, "+99999 weeks"):
        with pytest.raises(ValueError, match="write how long after the start"):
            moment_of(wrong)


def test_cases_of_no_journey_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "journeys").mkdir()
    (tmp_path / "journeys" / "cart.yaml").write_text(CART)
    (tmp_path / "journeys" / "crat.cases.yaml").write_text("cases: []")

    with pytest.raises(ConfigError, match=r'there is no journey "crat"\. Did you mean "cart.cases.yaml"\?'):
        files_of_cases(tmp_path)


# --- the schema


SCHEMA = jsonschema_rs.validator_for(json.loads(CASES.read_text(encoding="utf-8")))


def test_the_schema_is_what_the_models_say_and_takes_what_is_shipped() -> None:
    assert CASES.read_text(encoding="utf-8") == cases_content(), "run: python -m docs.schemas.generate"
    for file in files_of_cases(ROOT / "config").values():
        SCHEMA.validate(as_editors_see(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", [
    "cases: []", "cases: [{case: a}]", "cases: [{case: a, expect: [{step: b}]}]",
    "cases: [{case: a, expect: [{entered: event, left: done}]}]", "cases: [{case: a, expect: [], evnts: []}]",
    "cases: [{case: a, expect: [], events: [{event: b}]}]", "cases: [{case: a, expect: [], events: [{at: +1 day}]}]",
    "cases: [{case: a, expect: [{waits: 5}]}]", "cases: [{case: a, expect: [], draws: {B: c}}]",
])  # fmt: skip
def test_what_the_code_refuses_the_schema_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_cases("x", text, JourneyFile.model_validate(yaml.safe_load(CART)))
    assert not SCHEMA.is_valid(as_editors_see(text))


# --- the command


def test_the_command_shows_what_differs_and_ends_with_one(config: Path) -> None:
    cases = config / "journeys" / "cart.cases.yaml"
    cases.write_text(f"cases:\n  - case: it waits\n    {ADDED}\n    until: +5 minutes\n"
                     "    expect: [{entered: event}]\n")  # fmt: skip

    passed = tidewire("journeys", "test", "cart", "--config", config)
    cases.write_text(cases.read_text().replace("{entered: event}", "{at: +0 minutes, not_entered: again}"))
    failed, as_json = (tidewire("journeys", "test", "--config", config, *more) for more in ((), ("--json",)))
    cases.unlink()

    assert (passed.code, passed.out) == (0, "passed  cart: it waits\n")
    assert passed.err.startswith("1 case, 0 differ (")
    assert (failed.code, failed.out.splitlines()[0]) == (1, "DIFFERS cart: it waits")
    assert failed.out.splitlines()[1:] == [
        f"        {cases}:2, from Mon 2026-01-05 09:00; - expected, + got",
        "      - {at: +0 minutes, not_entered: again}",
        "      + {at: +0 minutes, entered: event}  # Mon 2026-01-05 09:00",
    ]
    assert as_json.code == 1
    assert [line["mark"] for line in as_json.json["lines"]] == ["-", "+"] and as_json.json["passed"] is False


def test_a_journey_without_cases_is_told(config: Path) -> None:
    done = tidewire("journeys", "test", "--config", config)

    assert done.code == 2
    assert "holds no cases: no file that ends with .cases.yaml" in done.err


def test_journeys_of_the_folder_are_read_as_up_does(config: Path) -> None:
    assert read_journeys(config, "UTC").keys() == {"cart", "news", "sale"}
