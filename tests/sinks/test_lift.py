"""Lift: whole experiments looked at every day, and the corners of few people; splits that learn against exact sums."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.lift import DAYS, PLANTED, SAME, look_daily
from sinks.lift import FLOOR, Group, lift, propensities, value_lift

EXPERIMENTS = 1_000


@pytest.mark.parametrize("name", ["10 % held out", "50 % held out"])
def test_of_a_thousand_journeys_that_change_nothing_one_in_twenty_at_most_ever_looks_as_if_it_did(name: str) -> None:
    seen = look_daily(SAME[name], EXPERIMENTS)

    assert 0 < seen.more + seen.less <= 0.05
    assert seen.wrong <= 0.05


def test_nor_do_those_that_look_at_value() -> None:
    seen = look_daily(SAME["10 % held out"], 400, of_value=True)

    assert seen.more + seen.less <= 0.05


@pytest.mark.parametrize("name", PLANTED)
def test_three_points_more_are_found_in_sixty_days_and_the_interval_holds_the_truth_at_every_look(name: str) -> None:
    assert PLANTED[name].daily * DAYS <= 30_000

    seen = look_daily(PLANTED[name], EXPERIMENTS)

    assert seen.ended >= 0.9
    assert seen.less == 0
    assert seen.wrong <= 0.05


def test_an_ordinary_interval_would_not_have_been_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.lift._widening", lambda people: 1.96)

    seen = look_daily(SAME["50 % held out"], 200)

    assert seen.more + seen.less > 0.15


@pytest.mark.parametrize(
    ("treated", "control"),
    [
        (Group(0, 0), Group(0, 0)),
        (Group(10_000, 900), Group(0, 0)),
        (Group(10_000, 5_000), Group(99, 0)),  # few people
        (Group(9_000, 150), Group(1_000, 0)),  # 15 goals were to be expected
        (Group(9_000, 8_990), Group(1_000, 1_000)),  # hardly any without
    ],
)
def test_of_too_few_nothing_is_said(treated: Group, control: Group) -> None:
    found = lift(treated, control)

    assert not found.is_enough
    assert (found.low, found.high, found.verdict) == (-1.0, 1.0, "not_known")
    assert value_lift(treated, control).verdict == "not_known"
    assert value_lift(treated, control).high == math.inf


def test_a_lift_says_both_shares_their_difference_and_a_verdict() -> None:
    found = lift(Group(9_000, 1_170), Group(1_000, 80))

    assert (found.treated, found.control, found.verdict, found.is_enough) == (0.13, 0.08, "more", True)
    assert found.difference == pytest.approx(0.05)
    assert found.relative == pytest.approx(0.625)
    assert 0 < found.low < found.difference < found.high


def test_where_none_of_those_held_out_reach_the_goal_there_is_no_relative_lift() -> None:
    found = lift(Group(9_000, 400), Group(1_000, 0))

    assert found.relative is None
    assert found.verdict == "more"


counts = st.integers(0, 50_000).flatmap(lambda people: st.tuples(st.just(people), st.integers(0, people)))


@given(one=counts, other=counts)
@settings(max_examples=200, deadline=None)
def test_groups_that_change_places_turn_the_lift_round_and_the_interval_holds_the_difference(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    found, turned = lift(Group(*one), Group(*other)), lift(Group(*other), Group(*one))

    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert {"more": "less", "less": "more", "not_known": "not_known"}[found.verdict] == turned.verdict
    assert -1 <= found.low <= found.difference <= found.high <= 1


def test_value_counts_by_person_and_who_spent_nothing_counts_with_nothing() -> None:
    treated, control = Group(10_000, 1_500, 150_000.0, 16_500_000.0), Group(10_000, 1_000, 100_000.0, 11_000_000.0)

    found = value_lift(treated, control)

    assert (found.treated, found.control, found.verdict) == (15.0, 10.0, "more")
    assert found.relative == pytest.approx(0.5)
    assert 0 < found.low < 5 < found.high < 10


# --- splits that learn


def exactly(one: tuple[int, int], other: tuple[int, int]) -> float:
    """How probable it is that the first is better, as a sum (E. Miller, Formulas for Bayesian A/B Testing)."""
    (people_1, goals_1), (people_2, goals_2) = one, other
    a, b, c, d = 1 + goals_1, 1 + people_1 - goals_1, 1 + goals_2, 1 + people_2 - goals_2

    def beta(x: int, y: int) -> Fraction:
        return Fraction(math.factorial(x - 1) * math.factorial(y - 1), math.factorial(x + y - 1))

    return float(sum(beta(c + i, b + d) / ((b + i) * beta(1 + i, b) * beta(c, d)) for i in range(a)))


few = st.integers(0, 60).flatmap(lambda people: st.tuples(st.just(people), st.integers(0, people)))


def test_the_sum_of_fractions_is_right_itself() -> None:
    rng = random.Random(7)
    drawn = sum(rng.betavariate(4, 8) > rng.betavariate(3, 9) for _ in range(20_000)) / 20_000

    assert exactly((10, 3), (10, 2)) == pytest.approx(drawn, abs=0.015)


@given(one=few, other=few)
@settings(max_examples=60, deadline=None)
def test_two_arms_share_people_by_how_probably_each_is_the_better(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = propensities([one, other])

    better = exactly(other, one)
    assert second == pytest.approx(FLOOR + (1 - 2 * FLOOR) * better, abs=0.0005)
    assert first + second == pytest.approx(1)


many = st.integers(0, 2_000_000).flatmap(lambda people: st.tuples(st.just(people), st.integers(0, people)))


@given(arms=st.lists(many, min_size=1, max_size=10), rng=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_shares_sum_to_one_keep_the_floor_and_do_not_depend_on_the_order(
    arms: list[tuple[int, int]], rng: random.Random
) -> None:
    shares = propensities(arms)
    order = rng.sample(range(len(arms)), len(arms))
    shuffled = propensities([arms[at] for at in order])

    assert sum(round(share * 10_000) for share in shares) == 10_000
    assert all(share >= FLOOR - 1e-9 for share in shares)
    assert shuffled == pytest.approx([shares[at] for at in order], abs=0.00011)


def test_arms_that_are_alike_are_treated_alike_and_the_best_of_many_is_found() -> None:
    assert propensities([(500, 50)] * 4) == [0.25] * 4
    assert propensities([(0, 0)] * 3) == pytest.approx([1 / 3] * 3, abs=0.0001)
    assert propensities([(5_000, 500), (5_000, 700), (5_000, 510)]) == [0.01, 0.98, 0.01]
    assert propensities([(1_000_000, 100_000), (4, 0)])[1] > 0.4  # of four nothing is known yet
