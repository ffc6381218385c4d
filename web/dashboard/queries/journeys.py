"""Journeys as ClickHouse knows them: who is inside, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sinks.lift import Group

if TYPE_CHECKING:
    from sinks.analytics import Analytics

# Somebody who entered twice counts once where groups are held against each other: what she does is no news twice.
_SIZES = """
SELECT journey, is_control, count() AS people, countIf(goals > 0) AS reached, sum(value) AS worth,
    sum(value * value) AS squares, sum(runs) AS entered, sum(inside) AS inside_now, sum(ordered) AS messages
FROM (
    SELECT journey, person, is_control, count() AS runs, countIf(goal_at IS NOT NULL) AS goals,
        sum(goal_value) AS value, countIf(state IN ('waits', 'quiet', 'slowed', 'held')) AS inside,
        sum(sent) AS ordered
    FROM journey_runs_list
    WHERE workspace = {workspace:String} AND ({name:String} = '' OR journey = {name:String})
    GROUP BY journey, person, is_control
)
GROUP BY journey, is_control
"""


class Standing(NamedTuple):
    """How a journey stands.

    Attributes:
        entered, held_out: how often somebody entered, or was held out.
        inside: how many are at a step now.
        sent: messages that it was allowed to send.
        treated, control: the people who went through it, and those held out; each counts once.
    """

    entered: int = 0
    held_out: int = 0
    inside: int = 0
    sent: int = 0
    treated: Group = Group(0, 0)
    control: Group = Group(0, 0)


async def standings(analytics: Analytics, workspace: str, name: str = "") -> dict[str, Standing]:
    """How journeys stand, by name; those that nobody ever entered are not among them."""
    found: dict[str, Standing] = {}
    for row in await analytics.query(_SIZES, {"workspace": workspace, "name": name}):
        so_far = found.get(row["journey"], Standing())
        group = Group(row["people"], row["reached"], row["worth"], row["squares"])
        if row["is_control"]:
            so_far = so_far._replace(held_out=row["entered"], control=group)
        else:
            so_far = so_far._replace(entered=row["entered"], treated=group)
        found[row["journey"]] = so_far._replace(inside=so_far.inside + row["inside_now"],
                                                sent=so_far.sent + row["messages"])  # fmt: skip
    return found
