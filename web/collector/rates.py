"""How fast a write key may send: a token bucket, counted in events."""

from __future__ import annotations

from math import ceil


class TokenBucket:
    """Refills at `rate` events a second up to `burst`.

    A batch larger than the burst passes when the bucket is full, and is paid back before anything else passes: else
    it would be refused for ever.
    """

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, events: int, now_s: float) -> int:
        """Take the events' tokens and return 0, or take none and return the whole seconds until it is worth asking.

        >>> bucket = TokenBucket(rate=10, burst=20, now_s=0)
        >>> bucket.take(20, 0), bucket.take(5, 0), bucket.take(5, 0.5)
        (0, 1, 0)
        """
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        missing = min(events, self._burst) - self._tokens
        if missing <= 0:
            self._tokens -= events
            return 0
        return ceil(missing / self._rate)
