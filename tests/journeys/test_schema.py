"""docs/schemas/journey.json and limits.json say of files what config/journeys.py says."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from config.journeys import parse_journey, read_limits
from config.yaml_file import parse_yaml
from docs.schemas.generate import JOURNEY, LIMITS, journey_content, limits_content
from schemas.errors import ConfigError
from tests.journeys.test_files import EVERYTHING

SCHEMA = jsonschema_rs.validator_for(json.loads(JOURNEY.read_text(encoding="utf-8")))
OF_LIMITS = jsonschema_rs.validator_for(json.loads(LIMITS.read_text(encoding="utf-8")))
ENTER = "enter: {event: {did: A}}\n"
STEPS = "steps: [{step: a, exit: b}]\n"


def as_editors_see(text: str) -> Any:
    """Editors read YAML 1.2, where a day is a text."""
    return json.loads(json.dumps(parse_yaml(text, "it").values, default=date.isoformat))


def test_the_schemas_are_what_the_models_say() -> None:
    assert JOURNEY.read_text(encoding="utf-8") == journey_content(), "run: python -m docs.schemas.generate"
    assert LIMITS.read_text(encoding="utf-8") == limits_content(), "run: python -m docs.schemas.generate"


TAKEN = [
    EVERYTHING,
    ENTER + "steps: [{step: a, wait: {at: 09:00, days_before: 0, yearly: false, calendar: solar}}]",
    ENTER + "steps: [{step: a, wait: {date: renews_on, days_before: 7, zone: workspace}}]",
    ENTER + "again: {after: 30 days}\nholdout: 0\n" + STEPS,
    "enter: {date: {trait: birthday, calendar: lunar, at: 08:00}}\nagain: always\n" + STEPS,
    "enter: {schedule: {cron: 0 9 * * 1, segment: loyal}}\nwhen: {did: A, within: 3 calendar days}\n" + STEPS,
    ENTER + "goal: {did: A, where: {price: {at_least: 5}}, within: 7 days, leaves: false}\n" + STEPS,
    ENTER + "steps: [{step: a, wait_until: {left: loyal}, at_most: 2 weeks}, {step: b, exit: ''}]",
    ENTER + "goal: {did: A, within: 1 day}\n"
            "steps: [{step: a, split: [{then: b}, {then: end, weight: 0.5}], learns: true}, {step: b, exit: x}]",
]


@pytest.mark.parametrize("text", TAKEN)
def test_what_the_code_takes_the_schema_takes(text: str, tmp_path: Path) -> None:
    parse_journey("example", text, tmp_path, "UTC")
    SCHEMA.validate(as_editors_see(text))


@pytest.mark.parametrize("text", [
    STEPS, ENTER, ENTER + "steps: []", ENTER + "stpes: 1\n" + STEPS, "enter: {}\n" + STEPS,
    "enter: {event: {did: A}, joined: loyal}\n" + STEPS, "enter: {event: {did: A, within: 3 days}}\n" + STEPS,
    ENTER + "again: once\n" + STEPS, ENTER + "again: {}\n" + STEPS,
    ENTER + "again: {after: 3 days, once_per: id}\n" + STEPS, ENTER + "again: {after: 3 calendar days}\n" + STEPS,
    ENTER + "holdout: 101\n" + STEPS, ENTER + "holdout: '10'\n" + STEPS, ENTER + "priority: 1.5\n" + STEPS,
    ENTER + "goal: {did: A}\n" + STEPS, ENTER + "goal: {did: A, within: 7 days, leaves: 'yes'}\n" + STEPS,
    ENTER + "exits: [{did: A, joined: b}]\n" + STEPS, ENTER + "exits: [{segment: a}]\n" + STEPS,
    ENTER + "when: {did: A, at_least: 0}\n" + STEPS,
    ENTER + "steps: [{step: a}]", ENTER + "steps: [{send: a}]", ENTER + "steps: [{step: a, send: b, wait: 1 day}]",
    ENTER + "steps: [{step: A, send: b}]", ENTER + "steps: [{step: a, send: B}]",
    ENTER + "steps: [{step: a, send: b, given: {B: 1}}]", ENTER + "steps: [{step: a, send: b, given: {b: [1]}}]",
    ENTER + "steps: [{step: a, wait: 3 calendar days}]", ENTER + "steps: [{step: a, wait: {at: '9:00'}}]",
    ENTER + "steps: [{step: a, wait: {days: [mon]}}]", ENTER + "steps: [{step: a, wait: {date: d, days: [mon]}}]",
    ENTER + "steps: [{step: a, wait: {at: 09:00, days_before: 2}}]",
    ENTER + "steps: [{step: a, wait_until: {did: A}}]", ENTER + "steps: [{step: a, branch: []}]",
    ENTER + "steps: [{step: a, branch: [{when: {did: A}}]}]", ENTER + "steps: [{step: a, split: [{then: end}]}]",
    ENTER + "steps: [{step: a, split: [{then: end, weight: 0}, {then: end}]}]",
    ENTER + "steps: [{step: a, update: {traits: {b: [1]}}}]", ENTER + "steps: [{step: a, ticket: {about: x}}]",
    ENTER + "steps: [{step: a, exit: x, then: end}]", ENTER + "steps: [{step: a, go: a, times: 0}]",
])  # fmt: skip
def test_what_the_code_refuses_the_schema_refuses(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        parse_journey("example", text, tmp_path, "UTC")
    assert not SCHEMA.is_valid(as_editors_see(text))


@pytest.mark.parametrize(("text", "is_taken"), [
    ("quiet_hours: {from: 21:00, to: 08:00}\ncaps: [{at_most: 2, within: 1 day, channel: email, topic: offers}]", True),
    ("holdout: 5", True), ("quiet_hours: {from: 21:00}", False), ("caps: [{at_most: 2}]", False),
    ("caps: [{at_most: 0, within: 1 day}]", False), ("caps: [{at_most: 2, within: 1 calendar day}]", False),
    ("caps: [{at_most: 2, within: 1 day, channel: pigeon}]", False), ("cap: []", False), ("holdout: -1", False),
])  # fmt: skip
def test_the_schema_of_limits_says_the_same_as_the_code(text: str, is_taken: bool, tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(text, encoding="utf-8")
    try:
        read_limits(tmp_path)
    except ConfigError:
        assert not is_taken
    else:
        assert is_taken
    assert OF_LIMITS.is_valid(as_editors_see(text)) is is_taken
