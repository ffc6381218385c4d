"""The journeys that come with Tidewire do what their cases say, by the templates, segments and coupons beside them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from config.coupons import read_campaigns
from config.journey_cases import files_of_cases, read_cases
from config.journeys import read_journeys, read_limits, read_texts, templates_of
from config.templates import read_templates
from docs.schemas.generate import JOURNEY
from schemas.journeys import kind_of
from streams.cases import run_cases
from streams.rehearsal import Rehearsal, rehearsal_of
from streams.simulate import Plan, Shop
from tests.journeys.test_schema import as_editors_see
from tests.simulate.test_simulate import END

CONFIG = Path("config")
JOURNEYS = read_journeys(CONFIG, "UTC")
SCHEMA = jsonschema_rs.validator_for(json.loads(JOURNEY.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    return rehearsal_of(CONFIG, "default", "UTC")


@pytest.mark.parametrize("name", JOURNEYS)
def test_their_cases_pass_under_virtual_time(name: str, rehearsal: Rehearsal) -> None:
    cases = read_cases(files_of_cases(CONFIG)[name], JOURNEYS[name].said)

    ran = list(run_cases(cases, rehearsal))

    assert len(ran) >= 2
    assert [each.case.case for each in ran if not each.passed] == []


def test_every_step_of_every_one_is_taken_in_some_case(rehearsal: Rehearsal) -> None:
    for name, journey in JOURNEYS.items():
        cases = read_cases(files_of_cases(CONFIG)[name], journey.said)
        drawn = {to for case in cases.said for to in case.draws.values()}
        named = {line.step for case in cases.said for line in case.expect} | drawn

        assert {step.step for step in journey.said.steps if kind_of(step) not in ("wait", "split")} <= named, name


def test_they_fit_the_schema_and_are_named_in_both_languages() -> None:
    for name, text in read_texts(CONFIG).items():
        SCHEMA.validate(as_editors_see(text))
        assert JOURNEYS[name].said.title.keys() == {"en", "zh"} and JOURNEYS[name].said.about, name


def test_what_they_send_asks_for_consent_and_is_said_in_both_languages() -> None:
    templates, used = read_templates(CONFIG, "UTC"), set()
    for name, journey in JOURNEYS.items():
        for _, template in templates_of(journey.said):
            used.add(template)
            assert templates[template].kind == "marketing", (name, template)
            assert templates[template].parts.keys() == {"en", "zh"}, template
            given = {asked for _, asked, _ in templates[template].asked if asked.startswith("given.")}
            for step in journey.said.steps:
                if getattr(step, "send", "") == template:
                    assert given <= {f"given.{each}" for each in (*step.given, *step.from_event)}, (name, template)
    coupons = {asked.split(".")[1] for name in used for _, asked, _ in templates[name].asked
               if asked.startswith("coupon.")}  # fmt: skip
    assert coupons <= set(read_campaigns(CONFIG, "UTC"))


def test_nights_are_quiet_and_two_a_day_are_enough() -> None:
    limits = read_limits(CONFIG)

    assert limits.quiet_hours is not None
    assert (limits.quiet_hours.from_, limits.quiet_hours.to) == ("21:00", "08:00")
    assert [(cap.at_most, str(cap.within)) for cap in limits.caps] == [(2, "1 day"), (5, "7 days")]


def test_the_made_up_shop_says_all_that_they_ask_for() -> None:
    calls = [json.loads(call.body) for call in Shop(Plan(people=150, days=45, seed=3, end=END)).calls()]
    told: dict[str, set[str]] = {}
    for call in calls:
        told.setdefault(call.get("event", call["type"]), set()).update(call.get("properties", {}))
    traits = {trait for call in calls for trait in call.get("traits", {})}

    for name, journey in JOURNEYS.items():
        enter = journey.said.enter
        if enter.event is not None:
            assert enter.event.did in told, name
            again = journey.said.again
            assert isinstance(again, str) or again.once_per in told[enter.event.did], name
        if enter.date is not None:
            assert enter.date.trait in traits, name
        goal = journey.said.goal
        assert goal is not None and goal.did in told, name
        assert {goal.value, goal.matching} - {None} <= told[goal.did], name
