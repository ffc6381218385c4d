"""How often one address may ask for links."""

from __future__ import annotations

from collections import OrderedDict

from web.collector.rates import TokenBucket

PER_S, AT_ONCE = 200, 2_000  # of one address: the picture proxies of large providers come with many people at once
MOST_ADDRESSES = 10_000  # that are remembered; those seen last


class Limits:
    """A token bucket for each address."""

    def __init__(self, per_s: float = PER_S, at_once: float = AT_ONCE) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str, now_s: float) -> int:
        """0 where it may ask now; else the seconds until it may."""
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(self._per_s, self._at_once, now_s)
            if len(self._buckets) > MOST_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return bucket.take(1, now_s)
