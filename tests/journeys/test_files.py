"""What is wrong in the file of a journey is said with its line, its step and its mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.journey_graph import ways_of
from config.journeys import (
    MOST_JOURNEYS,
    JourneyRead,
    check_journeys_together,
    facts_of,
    parse_journey,
    read_journeys,
    read_limits,
    read_texts,
)
from schemas.errors import ConfigError
from schemas.journeys import MOST_FACTS, JourneyFile, Mail

BEGIN = "enter: {event: {did: Product Added}}\n"


def parsed(text: str, folder: Path) -> JourneyRead:
    return parse_journey("basket", text, folder, "UTC")


def refusal(text: str, folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        parsed(text, folder)
    return str(refused.value).removeprefix("basket.yaml")


EVERYTHING = """
title: {en: Basket, zh: 购物车}
enter: {event: {did: Product Added, where: {price: {at_least: 5}}}}
when: {not: {did: Order Completed, since: 2026-01-31}}
again: {once_per: cart_id}
holdout: 5
goal: {did: Order Completed, matching: cart_id, within: 7 days, value: total}
exits:
  - {joined: stage_lapsed}
  - {did: Cart Emptied, matching: cart_id}
steps:
  - {step: pause, wait: 1 hour}
  - {step: morning, wait: {at: 09:30, days: [mon, fri]}}
  - {step: evening, wait: {at: 21:30}}
  - {step: birthday, wait: {date: birthday, yearly: true, days_before: 2}}
  - {step: remind, send: basket, from_event: {cart: cart_id}, given: {on: true}, refused: work}
  - {step: bought, wait_until: {did: Email Link Clicked, message: remind}, at_most: 2 days, otherwise: lot}
  - {step: which, branch: [{when: {segment: loyal}, then: work}]}
  - {step: lot, split: [{then: tell}, {then: work, weight: 3}]}
  - {step: tell, call: crm, from_event: {cart: cart_id}}
  - {step: mark, update: {traits: {reminded: true, plan: null}, add_tags: [reminded]}}
  - {step: again, go: remind, times: 2}
  - {step: work, task: {subject: Call her}}
  - {step: care, ticket: {subject: She was not reached, priority: high}}
  - {step: out, exit: enough}
"""


def test_a_journey_is_read_as_it_was_written(tmp_path: Path) -> None:
    journey = parsed(EVERYTHING, tmp_path)

    plain = json.loads(json.dumps(journey.plain, allow_nan=False))
    assert plain == journey.plain
    assert JourneyFile.model_validate(plain) == journey.said
    assert journey.said.steps[1].wait.at == "09:30" and journey.said.steps[2].wait.at == "21:30"
    assert journey.said.steps[1].wait.days == ("mon", "fri")
    assert list(journey.said.steps[4].given) == ["on"], "YAML 1.1 reads the key `on` as true"
    assert journey.said.steps[9].update.traits == {"reminded": True, "plan": None}
    assert facts_of(journey.said) == {"cart_id": ("again", "once_per")}


def test_steps_follow_each_other_unless_they_say_otherwise(tmp_path: Path) -> None:
    ways = {(way.step, way.to, way.times) for way in ways_of(parsed(EVERYTHING, tmp_path).said)}

    assert ways == {
        ("pause", "morning", 0), ("morning", "evening", 0), ("evening", "birthday", 0), ("birthday", "remind", 0),
        ("remind", "bought", 0), ("remind", "work", 0), ("bought", "which", 0), ("bought", "lot", 0),
        ("which", "work", 0), ("which", "lot", 0), ("lot", "tell", 0), ("lot", "work", 0), ("tell", "mark", 0),
        ("mark", "again", 0), ("again", "remind", 2), ("again", "work", 0), ("work", "care", 0), ("care", "out", 0),
        ("out", "end", 0),
    }  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [
    ("", ":1: holds no journey. Write `enter:` and `steps:`."),
    ("steps: []\n", ':1: "enter" is missing.'),
    ("entre: 1\n" + BEGIN + "steps: [{step: a, exit: b}]",
     ':1: "entre": no such key here; got 1. Did you mean "enter"?'),
    ("enter: {event: {did: A}, joined: x}\nsteps: [{step: a, send: b}]",
     ':1: "enter": say exactly one of event, joined, left, date, schedule, broadcast; got event and joined.'),
    (BEGIN + "steps:\n  - {step: a, wait: 3 dayz}",
     ':3: step "a", "wait": write a number and minutes, hours, days, weeks or calendar days, such as 90 days; '
     'got 3 dayz.'),
    (BEGIN + "steps:\n  - step: a\n    wait:\n      att: 09:00",
     ':5: step "a", "wait.att": no such key here; got 09:00. Did you mean "at"?'),
    (BEGIN + "steps: [{step: a, wait: {at: 9:00}}]",
     ':2: step "a", "wait.at": write a time of day, such as 09:00; got 9:00.'),
    (BEGIN + "again: once\nsteps: [{step: a, exit: b}]", ':2: "again" should be \'never\' or \'always\'; got once.'),
    (BEGIN + "again: {once: cart_id}\nsteps: [{step: a, exit: b}]",
     ':2: "again.once": no such key here; got cart_id. Did you mean "once_per"?'),
    (BEGIN + "when: {all: [{did: A, witin: 2 days}]}\nsteps: [{step: a, exit: b}]",
     ':2: "when.all.0.witin": no such key here; got 2 days. Did you mean "within"?'),
    (BEGIN + "exits: [{join: loyal}]\nsteps: [{step: a, exit: b}]",
     ':2: "exits.0": what happens has exactly one of the keys did, joined, left. Did you mean "joined"?'),
    (BEGIN + "exits:\n  - {did: A, messages: remind}\nsteps: [{step: a, exit: b}]",
     ':3: "exits.0.messages": no such key here; got remind. Did you mean "message"?'),
    (BEGIN + "steps:\n- {step: a, sned: b}",
     ':3: step "a": a step has a name, as step, and exactly one of the keys send, wait, wait_until, branch, split, '
     'update, call, ticket, task, exit, go. Did you mean "send"?'),
    (BEGIN + "steps: [{step: a, exit: b}, {send: b}]", ':2: step 2, "step" is missing.'),
    (BEGIN + "steps: [{step: A, exit: b}]",
     ':2: step "A", "step": write lower case letters, digits and _, at most 63, a letter first; got A.'),
    (BEGIN + "steps: [{step: a, wait_until: {did: B, matchin: c}, at_most: 1 day}]",
     ':2: step "a", "wait_until.matchin": no such key here; got c. Did you mean "matching"?'),
    (BEGIN + "steps:\n- step: a\n  branch:\n  - when: {not: {did: B, wihtin: 1 day}}\n    then: end",
     ':5: step "a", "branch.0.when.not.wihtin": no such key here; got 1 day. Did you mean "within"?'),
    (BEGIN + "steps: [{step: a, branch: [{when: {attribute: ordrs.orders, at_least: 1}, then: end}]}]",
     ':2: step "a", "branch.0.when": "ordrs.orders": there is no processor "ordrs". Did you mean "orders"?'),
    (BEGIN + "steps: [{step: a, split: [{then: end, wieght: 2}, {then: end}]}]",
     ':2: step "a", "split.0.wieght": no such key here; got 2. Did you mean "weight"?'),
    (BEGIN + "holdout: .nan\nsteps: [{step: a, exit: b}]",
     ':2: "holdout" should be less than or equal to 100; got nan.'),
    (BEGIN + "steps: {a: 1}", ':2: "steps" should be a list.'),
    # the graph
    (BEGIN + "steps:\n  - {step: wait_3d, wait: 3 days, then: send_ofer}\n  - {step: send_offer, send: offer}",
     ':3: step "wait_3d", "then" is "send_ofer", which is not a step of this journey. '
     'Steps are: wait_3d, send_offer; end ends it. Did you mean "send_offer"?'),
    (BEGIN + "steps: [{step: a, exit: x}, {step: a, exit: x}]",
     ':2: step "a", "step": there are two steps "a". Rename one of them.'),
    (BEGIN + "steps: [{step: end, exit: x}]",
     ':2: step "end", "step": no step is called "end": it is where a journey ends.'),
    (BEGIN + "steps: [{step: a, exit: x, then: end}]",
     ':2: step "a", "then": nothing follows an exit by then. Take it out.'),
    (BEGIN + "steps:\n  - {step: a, send: x}\n  - {step: b, wait: 1 day}\n  - {step: c, go: a}",
     ':5: step "c", "go" goes round in a circle: a → b → c → a. '
     'Go back by a step that says how often, such as {step: once_more, go: a, times: 3}.'),
    (BEGIN + "steps:\n  - {step: a, wait_until: {did: B}, at_most: 1 day, otherwise: a}",
     ':3: step "a", "otherwise" goes round in a circle: a → a. '
     'Go back by a step that says how often, such as {step: once_more, go: a, times: 3}.'),
    (BEGIN + "steps:\n  - {step: a, send: x, then: end}\n  - {step: b, send: y}",
     ':4: step "b" is never reached. Let a step lead to it, or take it out.'),
    # a go ahead is not counted, so nothing would bound this circle
    (BEGIN + "steps:\n- {step: a, send: x}\n- {step: b, go: d}\n- {step: c, exit: x}\n- {step: d, send: y, then: a}",
     ':6: step "d", "then" goes round in a circle: a → b → d → a. '
     'Go back by a step that says how often, such as {step: once_more, go: a, times: 3}.'),
    (BEGIN + "steps: [{step: a, go: b, times: 2}, {step: b, exit: x}]",
     ':2: step "a", "times" is for a go that leads back, and says how often. Take it out.'),
    (BEGIN + "steps: [{step: a, go: b, then: b}, {step: b, exit: x}]",
     ':2: step "a", "then" is for a go that leads back, and says how often. Take it out.'),
    (BEGIN + "steps: [{step: a, split: [{then: end}, {then: end}], learns: true}]",
     ':2: step "a", "learns" is of what reaches the goal, and there is none. Write goal, or take it out.'),
    # what belongs to an event
    ("enter: {joined: loyal}\nagain: {once_per: cart_id}\nsteps: [{step: a, exit: b}]",
     ':2: "again.once_per": there is no event that she entered by; enter is joined. '
     'Enter by an event, or take it out.'),
    ("enter: {broadcast: loyal}\nsteps:\n- {step: a, send: x, from_event: {cart: cart_id}}",
     ':3: step "a", "from_event.cart": there is no event that she entered by; enter is broadcast. '
     'Enter by an event, or take it out.'),
    (BEGIN + "steps: [{step: a, send: x, from_event: {cart: id}, given: {cart: 1}}]",
     ':2: step "a", "from_event.cart" is said by given, too. Take one of them out.'),
    (BEGIN + "goal: {did: A, within: 3 days, message: remnd}\nsteps: [{step: remind, send: x}]",
     ':2: "goal.message" is "remnd", which is not a step of this journey that sends. Did you mean "remind"?'),
    ("enter:\n  schedule: {cron: 0 9 * *, segment: loyal}\nsteps: [{step: a, exit: b}]",
     ':2: "enter.schedule.cron" cannot be read: \'0 9 * *\' has 4 fields: write five, minute, hour, day, month and '
     'weekday, such as 0 9 * * MON.'),
    ("enter: {schedule: {cron: 0 9 31 2 *, segment: loyal}}\nsteps: [{step: a, exit: b}]",
     ':1: "enter.schedule.cron" cannot be read: \'0 9 31 2 *\': day is \'31\'; write 1 to 31, as far as these months '
     'go, or L for the last, or several as 1,3 or 1-5 or */2.'),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path) == said


def test_conditions_and_facts_have_a_measure(tmp_path: Path) -> None:
    deep = f"when: {'{not: ' * 12}{{did: A}}{'}' * 12}\nsteps: [{{step: a, exit: b}}]"
    facts = ", ".join(f"a{number}: p{number}" for number in range(MOST_FACTS + 1))
    bomb = "when: " + "{not: " * 5_000

    assert refusal(BEGIN + deep, tmp_path).startswith(':2: "when": the condition has 13 levels; at most 12.')
    assert f"at most {MOST_FACTS}" in refusal(
        BEGIN + f"steps: [{{step: a, send: x, from_event: {{{facts[: facts.rindex(',')]}}}}},"
                "{step: b, send: x, from_event: {z: z}}]", tmp_path)  # fmt: skip
    assert "nested too deeply" in refusal(bomb, tmp_path)


@pytest.mark.parametrize("name", ["new", "apply", "Basket", "9lives", "a.b", ""])
def test_what_cannot_be_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a journey"):
        parse_journey(name, BEGIN + "steps: [{step: a, exit: b}]", tmp_path, "UTC")


# --- together

MAILS = {"basket": Mail("email", "marketing", "offers"), "hook": Mail("call", "transactional")}  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "said"), [
    (BEGIN + "steps: [{step: a, send: baskett}]",
     'basket.yaml:2: step "a", "send": there is no template "baskett". Did you mean "basket"?'),
    (BEGIN + "steps: [{step: a, send: hook}]",
     'basket.yaml:2: step "a", "send": template "hook" is of channel call, which only call takes. '
     'Write call: hook, or name another.'),
    (BEGIN + "steps: [{step: a, call: basket}]",
     'basket.yaml:2: step "a", "call": template "basket" is of channel email, which only send takes. '
     'Write send: basket, or name another.'),
    ("enter: {joined: loyl}\nsteps: [{step: a, exit: b}]",
     'basket.yaml:1: "enter.joined": there is no segment "loyl". Did you mean "loyal"?'),
    ("enter: {schedule: {cron: 0 9 * * mon, segment: x}}\nsteps: [{step: a, exit: b}]",
     'basket.yaml:1: "enter.schedule.segment": there is no segment "x". '
     'Write it first, in config/segments/x.yaml or on the page.'),
    (BEGIN + "exits: [{left: y}]\nsteps: [{step: a, exit: b}]",
     'basket.yaml:2: "exits.0.left": there is no segment "y". '
     'Write it first, in config/segments/y.yaml or on the page.'),
    (BEGIN + "steps:\n- step: a\n  branch:\n  - {when: {not: {segment: loyall}}, then: end}",
     'basket.yaml:5: step "a", "branch.0.when": there is no segment "loyall". Did you mean "loyal"?'),
])  # fmt: skip
def test_what_a_journey_asks_for_must_be_there(text: str, said: str, tmp_path: Path) -> None:
    journey = parsed(text, tmp_path)

    with pytest.raises(ConfigError) as refused:
        check_journeys_together({"basket": journey}, {"loyal"}, MAILS)

    assert str(refused.value) == said


def test_what_is_there_is_taken(tmp_path: Path) -> None:
    journey = parsed(EVERYTHING.replace("call: crm", "call: hook"), tmp_path)

    check_journeys_together({"basket": journey}, {"loyal", "stage_lapsed"}, MAILS)


# --- the folder


def test_cases_are_no_journeys_and_lines_are_those_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "journeys"
    folder.mkdir()
    (folder / "basket.yaml").write_text(EVERYTHING, encoding="utf-8")
    (folder / "basket.cases.yaml").write_text("- case: nothing\n", encoding="utf-8")

    assert list(read_texts(tmp_path)) == ["basket"]
    assert list(read_journeys(tmp_path, "UTC")) == ["basket"]
    (folder / "basket.yaml").write_text("steps: []", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"journeys/basket\.yaml:1: \"enter\" is missing"):
        read_journeys(tmp_path, "UTC")


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "journeys"
    folder.mkdir()
    for number in range(MOST_JOURNEYS + 1):
        (folder / f"j{number}.yaml").touch()

    with pytest.raises(ConfigError, match=f"at most {MOST_JOURNEYS}"):
        read_texts(tmp_path)
    (folder / "basket.yml").touch()
    with pytest.raises(ConfigError, match=r"basket\.yml: is not read"):
        read_texts(tmp_path)


def test_limits_are_read_and_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read_limits(tmp_path).caps == () and read_limits(tmp_path).quiet_hours is None
    file = tmp_path / "limits.yaml"
    file.write_text("quiet_hours: {from: 21:00, to: 08:00}\ncaps: [{at_most: 2, within: 1 day}]\n", encoding="utf-8")

    limits = read_limits(tmp_path)

    assert limits.quiet_hours is not None
    assert (limits.quiet_hours.from_, limits.quiet_hours.to) == ("21:00", "08:00")
    assert limits.caps[0].within.ms == 86_400_000 and limits.holdout == 0


@pytest.mark.parametrize(("text", "said"), [
    ("quiet_hours: {from: 21:00, until: 08:00}\n",
     ':1: "quiet_hours.to" is missing.'),
    ("caps:\n  - {at_most: 0, within: 1 day}\n", ':2: "caps.0.at_most" should be greater than or equal to 1; got 0.'),
    ("quiet_hours: {from: 21:00, to: 21:00}\n",
     ':1: "quiet_hours": from and to are the same time of day. Leave quiet_hours out, if there are none.'),
    ("cap: []\n", ':1: "cap": no such key here. Did you mean "caps"?'),
    ("- 1\n", ":1: holds no limits. Write `quiet_hours:` or `caps:`."),
])  # fmt: skip
def test_wrong_limits_are_said_with_their_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as refused:
        read_limits(tmp_path)

    assert str(refused.value) == f"{tmp_path / 'limits.yaml'}{said}"
