"""What a journey changes: those it treats beside those held out, with an interval that may be looked at every day.

An ordinary 95 % interval holds for one look. Who looks every day and stops when it leaves zero is wrong far more often
than one time in twenty. These intervals are a confidence sequence: with 95 % all of them hold, at whatever days one
looks and whenever one stops. docs/lift.md says it for those who read the page.

Source: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, *Time-uniform central limit theory and
asymptotic confidence sequences*, Annals of Statistics 52 (2024): the mixture over normal alternatives of H. Robbins
(1970), with variances that are estimated. Splits that learn: W. R. Thompson (1933).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

ALPHA = 0.05  # so often at most an interval is wrong at any look
FEWEST_PEOPLE = 100  # in each group, before anything is said
FEWEST_GOALS = 20  # to be expected in the smaller group, and as many without: rarer ones are not normal yet
FEWEST_OF_VALUE = 30  # instead, where it is asked what they are worth: few large orders make most of the sum
TUNED_FOR = 500
"""The people for whom the interval is narrowest: n·m / (n + m) of groups of n and m, as 1,000 and 1,000, or 5,556 of
whom a tenth is held out. It is fixed: one that follows the data would not be safe. With a tenth or a hundred times as
many people the interval is wider than one that is tuned for them, by a quarter at most."""
FLOOR = 0.01  # of each arm of a split that learns
_SHARES = 10_000  # what shares are whole parts of
_POINTS = 240  # at which the distribution of each arm is computed

Verdict = Literal["more", "less", "not_known"]


class Group(NamedTuple):
    """Those who entered and were treated, or were held out.

    Attributes:
        people: how many.
        goals: how many of them reached the goal.
        value: what their goals are worth together; squares: the sum of the squares of what each person's are worth.
    """

    people: int
    goals: int
    value: float = 0.0
    squares: float = 0.0


class Lift(NamedTuple):
    """What differs between the groups: of shares of people, or of value per person.

    Attributes:
        treated, control: of each group; 0 where there is nobody.
        difference: treated less control; 0.03 are three points.
        relative: the difference as a share of control; None where that is 0.
        low, high: the interval of the difference. While there are too few people all that is possible: -1 and 1 of
            shares, infinite of value.
        verdict: `more` or `less` where the whole interval is above or below 0.
        is_enough: there are enough people and goals to say anything; without, the verdict is `not_known`.
    """

    treated: float
    control: float
    difference: float
    relative: float | None
    low: float
    high: float
    verdict: Verdict
    is_enough: bool


def lift(treated: Group, control: Group) -> Lift:
    """How much more often the treated reach the goal.

    Both groups are to be counted alike. Of those whose time for the goal is over one sees what the journey changes
    in the end. Of everybody one sees what it changed so far, which is less and known sooner; that is as safe, but for
    goals that more than half reach. Never count those whose time is over together with those who were quick.

    >>> found = lift(Group(9_000, 1_170), Group(1_000, 80))
    >>> found.verdict, round(found.difference, 3), round(found.low, 3), round(found.high, 3)
    ('more', 0.05, 0.021, 0.079)
    """
    # One goal and one miss more: a group without any goal yet is not known to have none.
    variances = [_binomial(group.people, group.goals) for group in (treated, control)]
    rates = [group.goals / group.people if group.people else 0.0 for group in (treated, control)]
    return _lift(treated, control, rates, variances, FEWEST_GOALS, bound=1.0)


def value_lift(treated: Group, control: Group) -> Lift:
    """How much more the goals of a treated person are worth; who reached none counts with 0.

    Holds where no single person makes up much of the sum: of values of which a few are a thousand times the others it
    needs far more people than of shares.
    """
    means = [group.value / group.people if group.people else 0.0 for group in (treated, control)]
    # A group that by chance has no large order yet has a low mean and a low variance, and would look certain of it.
    whole = _variance(
        treated.people + control.people, treated.value + control.value, treated.squares + control.squares
    )
    variances = [max(whole, _variance(group.people, group.value, group.squares)) for group in (treated, control)]
    return _lift(treated, control, means, variances, FEWEST_OF_VALUE, bound=math.inf)


def _variance(people: int, value: float, squares: float) -> float:
    return max(squares - value * value / people, 0.0) / (people - 1) if people > 1 else 0.0


def _binomial(people: int, goals: int) -> float:
    rate = (goals + 1) / (people + 2)
    return rate * (1 - rate)


def _lift(
    treated: Group, control: Group, means: Sequence[float], variances: Sequence[float], fewest: int, *, bound: float
) -> Lift:
    difference = means[0] - means[1]
    relative = difference / means[1] if means[1] else None
    low, high, is_enough = -bound, bound, _is_enough(treated, control, fewest)
    if is_enough:
        error = math.sqrt(variances[0] / treated.people + variances[1] / control.people)
        reach = error * _widening(treated.people * control.people / (treated.people + control.people))
        low, high = max(low, difference - reach), min(high, difference + reach)
    verdict: Verdict = "not_known"
    if is_enough and (low > 0 or high < 0):
        verdict = "more" if low > 0 else "less"
    return Lift(means[0], means[1], difference, relative, low, high, verdict, is_enough)


def _is_enough(treated: Group, control: Group, fewest: int) -> bool:
    """Said of both groups together, as what one of them has by chance must not decide when one begins to look."""
    fewer, people = min(treated.people, control.people), treated.people + control.people
    goals = treated.goals + control.goals
    return fewer >= FEWEST_PEOPLE and fewer * min(goals, people - goals) >= fewest * people


_LOG = -2 * math.log(ALPHA)
_NARROWEST = _LOG + math.log(_LOG) + 1  # where the function below is least against the square root of its argument


def _widening(people: float) -> float:
    """Standard errors to each side; 1.96 would do for one look. At least 3, and growing as √log(people).

    >>> [round(_widening(people), 2) for people in (50, 500, 5_000, 50_000)]
    [3.76, 3.04, 3.26, 3.58]
    """
    told = _NARROWEST * people / TUNED_FOR
    return math.sqrt(2 * (1 + 1 / told) * (0.5 * math.log1p(told) - math.log(ALPHA)))


# --- splits that learn


def propensities(arms: Sequence[tuple[int, int]]) -> list[float]:
    """The share of people that each arm of a split gets: how probable it is that it is the best (Thompson sampling).

    Each arm is given as its people and those of them who reached the goal; before any, all are alike. No arm falls
    below 1 %, so that one that was unlucky is found out. In hundredths of a percent, which sum to 1; the same counts
    give the same shares, whoever computes them.

    >>> propensities([(0, 0), (0, 0)]), propensities([(1_000, 100), (1_000, 130)])
    ([0.5, 0.5], [0.0275, 0.9725])
    """
    best = _best([(1 + goals, 1 + people - goals) for people, goals in arms])
    exact = [_SHARES * (FLOOR + (1 - len(arms) * FLOOR) * each) for each in best]
    shares = [int(each + 1e-6) for each in exact]
    by_rest = sorted(range(len(arms)), key=lambda arm: (shares[arm] - exact[arm], arm))
    for arm in by_rest[: _SHARES - sum(shares)]:
        shares[arm] += 1
    return [share / _SHARES for share in shares]


def _best(betas: Sequence[tuple[int, int]]) -> list[float]:
    """How probable it is that each of these beta distributions has the largest value, by numerical integration."""
    grid = sorted({point for a, b in betas for point in _around(a, b)})
    below = [_cumulated(a, b, grid) for a, b in betas]
    found = []
    for arm, mine in enumerate(below):
        others = list(map(math.prod, zip(*(each for other, each in enumerate(below) if other != arm), strict=True)))
        steps = zip(pairwise(mine), pairwise(others or [1.0] * len(grid)), strict=True)
        found.append(sum((high - low) * (before + after) / 2 for (low, high), (before, after) in steps))
    return [each / sum(found) for each in found]


def _around(a: int, b: int) -> list[float]:
    """Points at which a beta distribution is to be known: 12 standard deviations to each side of its mean."""
    mean = a / (a + b)
    deviation = math.sqrt(mean * (1 - mean) / (a + b + 1))
    low, high = max(0.0, mean - 12 * deviation), min(1.0, mean + 12 * deviation)
    return [low + (high - low) * step / _POINTS for step in range(_POINTS + 1)]


def _cumulated(a: int, b: int, grid: Sequence[float]) -> list[float]:
    """Its distribution function at these points."""
    mode = (a - 1) / (a + b - 2) if a + b > 2 else 0.5
    highest = _log_density(a, b, mode)
    density = [math.exp(_log_density(a, b, point) - highest) for point in grid]
    sums, total = [0.0], 0.0
    for (left, right), (one, other) in zip(pairwise(grid), pairwise(density), strict=True):
        total += (right - left) * (one + other) / 2
        sums.append(total)
    return [each / total for each in sums]


def _log_density(a: int, b: int, point: float) -> float:
    if (point <= 0.0 and a > 1) or (point >= 1.0 and b > 1):
        return -math.inf
    return (a - 1) * (math.log(point) if a > 1 else 0.0) + (b - 1) * (math.log1p(-point) if b > 1 else 0.0)
