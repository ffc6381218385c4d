"""What is true in the shop because it was planted, so that what is learned from its events can be checked.

Each truth is a constant that the shop obeys. A person's own hidden facts (when she really stopped coming, whether she
is in the holdout) are told by `Shop.facts`, never by an event.
"""

from __future__ import annotations

from typing import NamedTuple


class Truth(NamedTuple):
    """One planted regularity: its name, what is so, and what a good analysis finds."""

    name: str
    what: str
    to_find: str


# Bought together: whoever puts the first into the cart adds the second with this likelihood.
TOGETHER: dict[str, tuple[str, float]] = {
    "kettle": ("filters", 0.60),
    "teapot": ("tray", 0.45),
    "knife": ("stone", 0.40),
}

# A ticket is rated 1 or 2 with BAD_RATING where the answer was slow, else hardly ever; after a bad rating she stops
# coming at once with LEAVES_AFTER_BAD_RATING.
SLOW_ANSWER = 0.35
BAD_RATING = 0.85
BAD_RATING_ANYWAY = 0.05
LEAVES_AFTER_BAD_RATING = 0.80

# One person in ten gets no mail at all, by lot. All else is drawn alike, so the difference is the mail's effect.
HOLDOUT = 0.10

# From the third order on a member visits this much more often.
GOLD_AFTER_ORDERS = 3
GOLD_PACE = 1.6

# How long people keep coming, in days: exponential, so recency and frequency tell who has gone (as Pareto/NBD assumes).
MEAN_LIFETIME_DAYS = 110.0

# Local hours in which each kind of person comes.
HOURS: dict[str, tuple[int, ...]] = {
    "evening": (19, 20, 20, 21, 21, 22),
    "lunch": (11, 12, 12, 13),
    "any": (8, 10, 13, 16, 18, 20, 21),
    "office": (9, 10, 11, 14, 15, 16),
}

TRUTHS = (
    Truth("bought_together", "kettle → filters 60 %, teapot → tray 45 %, knife → whetstone 40 %; other pairs by chance",
          "three rules with a lift far above 1, and no others"),
    Truth("bad_ticket", "a ticket answered slowly is rated 1 or 2, and then four of five people never come back",
          "a low rating is the strongest sign that somebody leaves"),
    Truth("campaigns", "spring_letter multiplies a visit's likelihood of an order by 2.5, big_banner by 0.2",
          "big_banner brings most visits and the fewest orders a visit; spring_letter the opposite"),
    Truth("hours", "each person comes at her own local hours: evening, lunch, office (work days only) or any",
          "the best hour to write to somebody is read off her own history, in her own time zone"),
    Truth("holdout", "one person in ten, by lot, gets no mail; newsletters bring visits and orders to the others",
          "orders a head are higher among those who get mail; the difference is the mail's effect"),
    Truth("gold", "from the third order on a member visits 1.6 times as often",
          "the gap between visits falls after the third order"),
    Truth("lifetime", "people stop coming after an exponential time with a mean of 110 days, whatever their pace",
          "P(alive) from recency and frequency is calibrated against the hidden day"),
)  # fmt: skip
