"""docs/journey-cases.md says what the code does: its example is run, its tables name every word."""

from __future__ import annotations

import re

import pytest

from config.journey_cases import parse_cases
from schemas.coupons import HISTORY_MS
from schemas.journey_cases import KINDS, MUST, START, Case, CaseEvent
from schemas.journeys import JourneyFile, Mail
from schemas.times import DAY_MS
from streams.cases import LONGEST_MS, run_cases
from streams.rehearsal import Rehearsal
from tests.cli.command import ROOT

PAGE = (ROOT / "docs" / "journey-cases.md").read_text(encoding="utf-8")
JOURNEY, CASES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
MAIL = Mail("email", "marketing", "baskets")


@pytest.fixture
def rehearsal() -> Rehearsal:
    mails = {"cart_reminder": MAIL, "cart_last_call": MAIL}
    return Rehearsal(ROOT / "config", "default", "UTC", {}, {}, mails).with_draft("basket", JOURNEY)


def test_its_cases_pass(rehearsal: Rehearsal) -> None:
    said = parse_cases("basket", CASES, JourneyFile.model_validate(rehearsal.journeys["basket"].said))

    ran = list(run_cases(said, rehearsal))

    assert [each.case.case for each in ran if not each.passed] == []
    assert len(ran) == 3 and "these are three" in PAGE


def test_it_names_every_word_and_no_other() -> None:
    expected = PAGE.partition("### What is expected")[2].partition("## Dry run")[0]
    rows = [line.split("|")[1] for line in expected.splitlines() if line.startswith("|")]
    bold = {word for row in rows for word in re.findall(r"\*\*`(\w+)`\*\*", row)}

    assert bold == MUST
    assert {word for row in rows for word in re.findall(r"`(\w+)`", row)} == KINDS.keys()
    ids = {"groupId", "previousId", "messageId", "name"}  # as the API says them
    for name in {*(each.alias or name for name, each in Case.model_fields.items()), *CaseEvent.model_fields}:
        assert name in ids or re.search(rf"`{name}\b|\b{name}:", PAGE), name


def test_its_numbers_are_true() -> None:
    assert f"{LONGEST_MS // DAY_MS} days passed" in PAGE
    assert f"more than {HISTORY_MS // DAY_MS} days after it happened" in PAGE
    assert f"a Monday, {START:%Y-%m-%d %H:%M}" in PAGE and f"{START:%A}" == "Monday"
