"""What is wrong in the file of a segment is said with its line and its mend."""

from __future__ import annotations

import pytest

from config.segments import parse_segment
from schemas.errors import ConfigError


@pytest.mark.parametrize(("text", "said"), [
    ("when:\n  did: A\n  since: 2026-02-30\n", 'seen.yaml:3: cannot be read as YAML: day is out of range for month.'),
    ("when:\n  all:\n    - did: A\n      witin: 2 days\n",
     'seen.yaml:4: "when.all.0.witin": no such key here; got 2 days. Did you mean "within"?'),
    ("when: {trait: plan, eqals: pro}\n", 'seen.yaml:1: "when.eqals": no such key here; got pro.'),
    ("title: {}\nwhen: {did: A}\nwho: me\n",
     'seen.yaml:3: "who": no such key here; got me. It may hold title, about, when.'),
    ("about: x\nwen: {did: A}\n", 'seen.yaml:1: "when" is missing. Did you mean it by "wen"?'),
    ("when:\n  did: A\n  did: B\n", 'seen.yaml:3: "did" is set twice. Take one of the two out.'),
    ("when: &a {did: A}\nabout: *a\n", "seen.yaml:2: uses the alias *a. Write the value out."),
    ("", "seen.yaml:1: holds no segment. Write `when:`, and below it a condition."),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_segment("seen", text)

    assert str(refused.value) == said


@pytest.mark.parametrize("text", [
    "when: " + "[" * 5_000, "when: " + "{not: " * 5_000, "\0", "when: !!python/name:os.x",
])  # fmt: skip
def test_what_is_no_yaml_at_all_is_refused_too(text: str) -> None:
    with pytest.raises(ConfigError, match=r"seen\.yaml"):
        parse_segment("seen", text)


def test_a_time_of_day_is_a_text_and_so_is_a_key_that_looks_like_a_truth() -> None:
    """YAML 1.1 reads the first as 1290, the second as `true`; who writes YAML in an editor means neither."""
    when = parse_segment("late", "when: {did: Shop Opened, where: {at: 21:30, on: monday}}").when

    assert [(each.property, each.asked[1]) for each in when.where] == [("at", "21:30"), ("on", "monday")]
