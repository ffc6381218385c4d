"""Partitions that stopped rather than empty themselves into dead letters: a person lets them go on.

The order travels through the changelog, so whichever worker owns the partition, now or later, finds it there.
"""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.errors import TidewireError
from schemas.times import to_iso, to_ms
from streams.dead_letters import GoOn, encode_note
from streams.lines import CUSTOMERS
from streams.log import Log, Outgoing
from streams.states import GO_ON


async def let_go_on(log_: Log, partition: int, *, by: str, let_through: bool = False) -> GoOn:
    """Let a stopped partition go on within a second or two. One that runs is not disturbed.

    Args:
        by: who says so.
        let_through: what stands in the partition now may all become dead letters.

    Raises:
        TidewireError: there is no such partition.
        LogBusy: the log does not take it now.
    """
    bounds = await log_.bounds("events")
    if partition not in bounds:
        raise TidewireError(f"there is no partition {partition}: topic `events` has 0 to {len(bounds) - 1}.")
    go_on = GoOn(bounds[partition][1], let_through, by, to_iso(to_ms(datetime.now(UTC))))
    await log_.append(CUSTOMERS.changelog, [Outgoing(GO_ON, encode_note(go_on), partition)])
    return go_on
