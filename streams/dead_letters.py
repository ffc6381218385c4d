"""When a partition stops, rather than empty itself into dead letters.

Only what is wrong on our side of the collector counts: records that cannot be read, which only a program with access
to the log can write, and processors that fail. An event that a processor refuses for what it says is its sender's
mistake; if those counted, anybody who knows a browser's write key could stop a shop.
"""

from __future__ import annotations

from collections import deque

import msgspec

MOST_IN_A_ROW = 100
MOST_OF = 1_000  # of so many records one after another, not more than a tenth
_MOST = MOST_OF // 10


class DeadLetterLimit:
    """Counts the dead letters of one partition. Offsets come in order."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_MOST + 1)
        self._free_until = 0
        self.why = ""
        """Why the partition must stop; empty while it need not."""

    def count(self, offset: int) -> None:
        """The record at `offset` became a dead letter, and not by what its sender said."""
        if offset < self._free_until or self.why:
            return
        recent = self._recent
        recent.append(offset)
        if len(recent) >= MOST_IN_A_ROW and offset - recent[-MOST_IN_A_ROW] < MOST_IN_A_ROW:
            self.why = f"{MOST_IN_A_ROW} records in a row became dead letters"
        elif len(recent) > _MOST and offset - recent[0] < MOST_OF:
            self.why = f"more than {_MOST} of {MOST_OF} records became dead letters"

    def back_to(self, offset: int) -> None:
        """The records from `offset` on are handled once more."""
        while self._recent and self._recent[-1] >= offset:
            self._recent.pop()
        self.why = ""

    def go_on(self, free_until: int) -> None:
        """Count anew; the records before `free_until` do not count."""
        self._recent.clear()
        self._free_until = max(free_until, self._free_until)
        self.why = ""


class Stopped(msgspec.Struct, frozen=True):
    """A partition stands still: no record from `offset` on is handled until a person says `GoOn`."""

    offset: int
    why: str
    at: str = ""


class GoOn(msgspec.Struct, frozen=True):
    """A person lets a stopped partition go on.

    With `let_through`, the records before `offset`, the end of the partition when she said so, may all become dead
    letters.
    """

    offset: int
    let_through: bool = False
    by: str = ""
    at: str = ""


encode_note = msgspec.json.Encoder().encode
decode_stopped = msgspec.json.Decoder(Stopped).decode
decode_go_on = msgspec.json.Decoder(GoOn).decode
