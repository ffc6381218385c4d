"""The interval of lift, looked at every day: how often it is wrong, and how often it finds what is there.

Whole experiments are simulated: people enter each day, are held out by lot, and reach the goal up to six days later.
No measure of speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.measure import Figure, Options, Report
from sinks.lift import Group, Lift, lift, value_lift

if TYPE_CHECKING:
    import numpy as np

EXPERIMENTS, QUICK_EXPERIMENTS = 1_000, 50
DAYS = 60
LATEST_GOAL_DAYS = 6  # after entry; each day from the first is as probable
SEED = 20240201


class World(NamedTuple):
    """What is simulated.

    Attributes:
        holdout: share of people held out.
        daily: people who enter each day.
        control, treated: shares that reach the goal.
    """

    holdout: float
    daily: int
    control: float
    treated: float


SAME = {  # nothing changes: a large journey, a small one, and one whose goal is rare
    "10 % held out": World(0.1, 500, 0.10, 0.10),
    "50 % held out": World(0.5, 500, 0.10, 0.10),
    "10 % held out, 40 a day": World(0.1, 40, 0.10, 0.10),
    "5 % held out, goal of 3 %": World(0.05, 500, 0.03, 0.03),
}
PLANTED = {  # three points more; so many people are enough
    "10 % held out": World(0.1, 500, 0.10, 0.13),
    "50 % held out": World(0.5, 200, 0.10, 0.13),
}


class Looked(NamedTuple):
    """Shares of experiments.

    Attributes:
        more, less: in which a look said so, at any day.
        wrong: in which the true difference was outside the interval at any day, of what was reached until then.
        ended: in which the last look said `more`.
    """

    more: float
    less: float
    wrong: float
    ended: float


def look_daily(world: World, experiments: int, *, of_value: bool = False, seed: int = SEED) -> Looked:
    """Simulate, and look at the end of each day."""
    import numpy as np

    rng = np.random.default_rng(seed)
    more = less = wrong = ended = 0
    for _ in range(experiments):
        held = rng.binomial(world.daily, world.holdout, DAYS)
        treated = _course(rng, world.daily - held, world.treated, of_value)
        control = _course(rng, held, world.control, of_value)
        found = [_look(one, other, of_value) for one, other in zip(treated, control, strict=True)]
        verdicts = {each.verdict for each in found}
        more += "more" in verdicts
        less += "less" in verdicts
        ended += found[-1].verdict == "more"
        wrong += any(not each.low <= true <= each.high for each, true in zip(found, _truth(world), strict=True))
    return Looked(more / experiments, less / experiments, wrong / experiments, ended / experiments)


def _look(treated: Group, control: Group, of_value: bool) -> Lift:
    return value_lift(treated, control) if of_value else lift(treated, control)


def _course(rng: np.random.Generator, entered: np.ndarray[Any, Any], rate: float, of_value: bool) -> list[Group]:
    """Everybody of a group, at the end of each day. A goal is worth 40 in the median, and one in forty above 200."""
    import numpy as np

    will = rng.binomial(entered, rate)
    spread = rng.multinomial(will, [1 / (LATEST_GOAL_DAYS + 1)] * (LATEST_GOAL_DAYS + 1))
    reached = np.zeros(DAYS, dtype=int)
    for late in range(LATEST_GOAL_DAYS + 1):
        reached[late:] += spread[: DAYS - late, late]
    entered, ends = np.cumsum(entered), np.cumsum(reached)
    if not of_value:
        return [Group(*each) for each in zip(entered.tolist(), ends.tolist(), strict=True)]
    worth = rng.lognormal(np.log(40), 0.8, ends[-1])
    value, squares = (np.concatenate(([0.0], np.cumsum(each)))[ends] for each in (worth, worth**2))
    columns = (each.tolist() for each in (entered, ends, value, squares))
    return [Group(*each) for each in zip(*columns, strict=True)]


def _truth(world: World) -> list[float]:
    """The difference as it is at the end of each day, when some who entered have not reached the goal yet."""
    ripe = [sum(min(day - entry, LATEST_GOAL_DAYS) + 1 for entry in range(day + 1)) / (LATEST_GOAL_DAYS + 1)
            for day in range(DAYS)]  # fmt: skip
    return [(world.treated - world.control) * each / (day + 1) for day, each in enumerate(ripe)]


def measure(options: Options) -> Report:
    experiments = QUICK_EXPERIMENTS if options.is_quick else EXPERIMENTS
    figures = []
    for name, world in SAME.items():
        options.say(f"  nothing changes, {name}")
        seen = look_daily(world, experiments)
        figures.append(Figure(f"false alarms, {name}", "%", [100 * (seen.more + seen.less)], at_most=5))
    options.say("  nothing changes, value")
    seen = look_daily(SAME["10 % held out"], experiments, of_value=True)
    figures.append(Figure("false alarms of value, 10 % held out", "%", [100 * (seen.more + seen.less)], at_most=5))
    for name, world in PLANTED.items():
        options.say(f"  three points more, {name}")
        seen = look_daily(world, experiments)
        people = f"{DAYS * world.daily:,} people"
        figures.append(Figure(f"three points found, {name}, {people}", "%", [100 * seen.ended], at_least=90))
        figures.append(Figure(f"truth outside at any look, {name}", "%", [100 * seen.wrong], at_most=5))
    said = {"experiments": experiments, "looks": DAYS, "goal": "10 %, planted 13 %"}
    return Report(input=said, figures=figures)
