"""Where a live page has read to, as text that travels in an address or an event id."""

from __future__ import annotations

import re

from streams.log import TP

Positions = dict[TP, int]
"""By partition, the offset of the next record to look at."""

LONGEST = 20_000  # characters that are looked at


def pack(positions: Positions) -> str:
    """Positions as short text, for an address or an event id: `events-0:17,rejected-0:2`."""
    return ",".join(f"{topic}-{partition}:{offset}" for (topic, partition), offset in sorted(positions.items()))


def unpack(text: str) -> Positions:
    """Positions that `pack` wrote; what is not of that form is left out."""
    found = re.findall(r"(events|rejected)-(\d{1,6}):(\d{1,18})", text[:LONGEST])
    return {TP(topic, int(partition)): int(offset) for topic, partition, offset in found}
