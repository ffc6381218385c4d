"""What people are worth, in fifths, and where they are in their life as customers."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from config.segments import read_segments
from processors.rfm import GROUPS, rfm_of, scores_of
from schemas.errors import ConfigError
from schemas.segments import Cuts
from schemas.times import DAY_MS, to_iso
from tests.cli.command import ROOT
from tests.cli.running import Up
from tests.segments.test_commands import an_order, members, proofs, send, until

NOW_MS = 1_770_000_000_000
ELEVEN = {"champions", "loyal", "potential_loyalist", "new", "promising", "needs_attention", "about_to_sleep",
          "at_risk", "cannot_lose", "hibernating", "lost"}  # fmt: skip


def test_every_score_has_one_of_the_eleven_groups():
    assert {group for row in GROUPS.values() for group in row} == ELEVEN
    for recency in range(1, 6):
        for frequency in range(1, 6):
            for monetary in range(1, 6):
                shown = rfm_of([recency, frequency, monetary])
                assert shown["group"] in ELEVEN
                assert shown["value"] in {-(-(frequency + monetary) // 2)}


def test_scores_are_fifths():
    """Of a hundred people with different values, twenty have each score; equal values have equal scores."""
    rng = Random(3)
    values = rng.sample(range(1_000, 100_000), 100)
    fifths = sorted(values)[19:99:20]  # the largest of each fifth but the last
    cuts = Cuts(workspace="w", currency="EUR", customers=100, at_ms=0,
                last_ms=tuple(NOW_MS - DAY_MS * 100 + value * 1_000 for value in fifths),
                orders=tuple(map(float, fifths)), revenue=tuple(map(float, fifths)))  # fmt: skip

    found = [scores_of({"orders": value, "revenue": {"EUR": f"{value}.00", "USD": "1"},
                        "last_at": to_iso(NOW_MS - DAY_MS * 100 + value * 1_000)}, cuts)
             for value in values]  # fmt: skip

    for place in range(3):
        assert Counter(scores[place] for scores in found) == dict.fromkeys(range(1, 6), 20)
    assert all(len(set(scores)) == 1 for scores in found)


def test_who_never_bought_has_no_scores():
    cuts = Cuts(workspace="w", currency="EUR", customers=5, at_ms=0, last_ms=(1, 2, 3, 4), orders=(1, 1, 1, 1),
                revenue=(1, 1, 1, 1))  # fmt: skip

    assert scores_of({}, cuts) == []
    assert scores_of({"orders": 0, "last_at": None, "revenue": {}}, cuts) == []
    assert rfm_of([]) == {}


def test_money_of_another_currency_does_not_count():
    cuts = Cuts(workspace="w", currency="EUR", customers=5, at_ms=0, last_ms=(1, 2, 3, 4), orders=(1, 2, 3, 4),
                revenue=(10, 20, 30, 40))  # fmt: skip

    assert scores_of({"orders": 3, "last_at": to_iso(9), "revenue": {"USD": "99.00"}}, cuts) == [5, 3, 1]


def test_the_lifecycle_gives_everybody_one_stage(tmp_path: Path):
    """The stages as shipped, over people who did this and that; and by naive code over the same orders."""
    shutil.copytree(ROOT / "config" / "segments", tmp_path / "config" / "segments")
    shutil.copy(ROOT / "config" / "lifecycle.yaml", tmp_path / "config")
    rng = Random(5)
    days = {f"u{number}": sorted(rng.uniform(1, 600) for _ in range(rng.randrange(6))) for number in range(80)}
    events = [an_order(user, day, number) for user, ago in days.items() for number, day in enumerate(ago)]
    events += [{"type": "track", "event": "Seen", "userId": user, "messageId": f"{user}-seen"} for user in days]
    events += [{"type": "group", "groupId": "acme", "userId": f"u{number}", "messageId": f"g{number}"}
               for number in range(12)]  # fmt: skip
    (tmp_path / "config" / "segments" / "teams.yaml").write_text("when: {attribute: company.people, at_least: 12}\n")
    up = Up(tmp_path)
    try:
        until(lambda: all(row["is_live"] for row in up.ask("segments", "list", "--json").rows), 120)
        send(up, events)
        found = proofs(up)
        assert {name: proof[2] for name, proof in found.items()} == dict.fromkeys(found, 0)
        for stage, of in _stages(days).items():
            assert members(up, f"stage_{stage}") == of, stage
        colleagues = [f"u{number}" for number in range(12)]
        until(lambda: members(up, "teams") == set(colleagues))
        company = {"company": "acme", "people": 12, "orders": sum(len(days[user]) for user in colleagues)}
        until(lambda: up.ask("sql", "SELECT company, people, orders FROM companies FINAL", "--json").rows == [company])
        # Scores come when the fifths have been looked up, for everybody.
        customers = sum(map(bool, days.values()))
        until(lambda: up.count("SELECT count() FROM person_list WHERE JSONHas(sections, 'rfm')") == customers, 90)
        groups = [row["g"] for row in up.ask("sql", "SELECT JSONExtractString(sections, 'rfm', 'group') AS g FROM "
                                             "person_list WHERE g != ''", "--json").rows]  # fmt: skip
        assert set(groups) <= ELEVEN
        found = proofs(up)
        assert {name: proof[2] for name, proof in found.items()} == dict.fromkeys(found, 0)
        assert found["loyal"][0] == groups.count("champions") + groups.count("loyal") > 0
        assert found["hibernating"][0] == groups.count("hibernating") + groups.count("lost") > 0
    finally:
        up.stop()


def _stages(days: dict[str, list[float]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {stage: set() for stage in
                                  ("lost", "lapsing", "loyal", "repeat", "customer", "lead", "visitor")}  # fmt: skip
    for user, ago in days.items():
        if not ago:
            found["visitor"].add(user)
        elif ago[0] >= 365:
            found["lost"].add(user)
        elif ago[0] >= 120:
            found["lapsing"].add(user)
        elif sum(day < 365 for day in ago) >= 4:
            found["loyal"].add(user)
        else:
            found["repeat" if len(ago) >= 2 else "customer"].add(user)
    return found


@pytest.mark.parametrize(
    ("lifecycle", "said"),
    [
        ("stages: []\n", "holds no stages"),
        ("stages:\n  - {stage: a, when: {did: A}}\n  - {stage: a, when: {did: B}}\n", "yaml:3: there are two"),
        ("stages:\n  - {stage: a, when: {did: A, atleast: 2}}\n", 'lifecycle.yaml:2: "stages.0.when.atleast"'),
        ("stages:\n  - {stage: a}\n", 'lifecycle.yaml:2: "when" is missing'),
        ("stages:\n  - {stage: A, when: {did: A}}\n", "lower case"),
    ],
)  # fmt: skip
def test_a_wrong_lifecycle_is_said_with_its_line(tmp_path: Path, lifecycle: str, said: str):
    (tmp_path / "lifecycle.yaml").write_text(lifecycle)

    with pytest.raises(ConfigError, match=said):
        read_segments(tmp_path)


def test_an_attribute_that_nobody_knows_is_refused(tmp_path: Path):
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "rich.yaml").write_text("when: {attribute: orders.revenu.EUR, at_least: 100}\n")

    with pytest.raises(ConfigError, match=r'rich.yaml: "orders.revenu.EUR".*Did you mean "orders.revenue"\?'):
        read_segments(tmp_path)
