"""docs/schemas/segment.json says of a segment file what config/segments.py says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from random import Random
from typing import Any

import jsonschema_rs
import pytest
import yaml

from config.segments import parse_segment
from docs.schemas.generate import FILE, content
from schemas.errors import ConfigError
from sinks.parity.worlds import a_world
from tests.segments.test_docs import EXAMPLES, WRONG

SCHEMA = jsonschema_rs.validator_for(json.loads(FILE.read_text(encoding="utf-8")))


def as_editors_see(yaml_text: str) -> Any:
    """Editors read YAML 1.2, where a day is a text."""
    return json.loads(json.dumps(yaml.safe_load(yaml_text), default=date.isoformat))


def test_the_schema_is_what_the_models_say() -> None:
    assert FILE.read_text(encoding="utf-8") == content(), "run: python -m docs.schemas.generate"


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
def test_every_example_of_the_page_fits(text: str) -> None:
    SCHEMA.validate(as_editors_see(text))


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_the_page_shows_as_wrong_does_not(text: str, said: str) -> None:
    assert SCHEMA.is_valid(as_editors_see(text)) is ("there is no segment" in said)  # which no schema can know


REFUSED = [
    "about: Nobody.",
    "when: {}",
    "when: {did: A}\nwehn: 1",
    "when: {did: A, trait: b, is: c}",
    "when: {did: A, atleast: 2}",
    "when: {did: A, at_least: 0}",
    "when: {did: A, at_least: 2, exactly: 3}",
    "when: {did: A, at_least: 1001}",
    "when: {did: A, at_least: 1.5}",
    "when: {did: A, within: 90}",
    "when: {did: A, within: 90 dayz}",
    "when: {did: A, within: 3 days, since: 2026-01-01}",
    "when: {did: A, longer_ago: 3 days}",
    "when: {did: A, which: last}",
    "when: {did: A, since: soon}",
    "when: {did: A, total: {of: price}}",
    "when: {did: A, where: {price: {within: 3 days}}}",
    "when: {did: A, where: {price: {at_least: 3, at_most: 5}}}",
    "when: {did: A, where: {price: [1, 2]}}",
    "when: {did: A, where: {a..b: 1}}",
    "when: {did: A, where: [{price: 1}]}",
    "when: {all: []}",
    "when: {all: {did: A}}",
    "when: {not: [{did: A}]}",
    "when: {sequence: [{did: A}]}",
    "when: {sequence: [{did: A, within: 2 hours}, {did: B}]}",
    "when: {sequence: [{did: A}, {did: B, within: 2 calendar days}]}",
    "when: {sequence: [{did: A}, {did: B}], within: 2 days, since: 2026-01-01}",
    "when: {trait: plan}",
    "when: {trait: plan, is: pro, is_not: free}",
    "when: {trait: plan, equals: pro}",
    "when: {trait: plan, contains: 5}",
    "when: {trait: a..b, is: 1}",
    "when: {attribute: orders, at_least: 1}",
    "when: {segment: Loyal}",
    "title: Loyal\nwhen: {did: A}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_code_refuses_the_schema_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_segment("example", text)
    assert not SCHEMA.is_valid(as_editors_see(text))


@pytest.mark.parametrize(("text", "why"), [
    ("when: {trait: age, between: [5, 1]}", "the smaller number first"),
    (f"when: {'{not: ' * 12}{{did: A}}{'}' * 12}", "at most 12"),
    ("when: {did: A, within: 4000 days}", "at most 3,660 days"),
])  # fmt: skip
def test_what_only_the_code_can_say(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_segment("example", text)
    assert SCHEMA.is_valid(as_editors_see(text))


def conditions(worlds: int) -> Iterator[Any]:
    rng = Random(1)
    for number in range(worlds):
        yield from a_world(rng, f"w{number}", people=0).segments.values()


def test_whatever_the_code_takes_the_schema_takes() -> None:
    for when in conditions(100):
        SCHEMA.validate({"when": when})


def test_a_key_that_is_not_known_is_refused_wherever_it_stands() -> None:
    def with_one_more(node: Any) -> Iterator[Any]:
        """The value, once for each map in it, with a key in that one that is not known."""
        if isinstance(node, dict):
            if "property" not in node or len(node) > 1:
                yield {**node, "nonesuch": {}}
            for key, inner in node.items():
                yield from ({**node, key: changed} for changed in with_one_more(inner))
        elif isinstance(node, list):
            for place, inner in enumerate(node):
                yield from ([*node[:place], changed, *node[place + 1 :]] for changed in with_one_more(inner))

    for when in conditions(5):
        for wrong in with_one_more(when):
            assert not SCHEMA.is_valid({"when": wrong}), wrong
