"""What the engine knows of every state it keeps, whatever a stage adds. MessagePack, as arrays.

A stage's state extends `Keyed`: the fields here stand first, so they can be read without the rest (`Head`).
"""

from __future__ import annotations

import msgspec


class Keyed(msgspec.Struct, array_like=True):
    """The state of one key. Fields are only ever added at the end, with a default.

    Attributes:
        next_due_ms: of its earliest timer, in ms since 1970; 0 where there is none.
        epoch: the highest epoch of an owner that wrote it; see `streams.states`.
        offset: of the last record of its partition that was applied to it: the fence.
        revision: grows by one with every record applied.
    """

    next_due_ms: int = 0
    epoch: int = 0
    offset: int = -1
    revision: int = 0


class Head(Keyed, array_like=True):
    """The first fields of any state, for those who only compare or look for timers."""

    @property
    def fence(self) -> tuple[int, int, int]:
        """Of two states of a key the one with the higher fence is the newer, whichever was written later."""
        return self.epoch, self.offset, self.revision


encode_state = msgspec.msgpack.Encoder().encode
decode_head = msgspec.msgpack.Decoder(Head).decode
