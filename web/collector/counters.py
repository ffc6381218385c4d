"""What the collector counts. Labels are names of sources and fixed texts of ours, never what a client wrote."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from streams.metrics import (
    ACCEPTED,
    APPEND,
    APPEND_SECONDS,
    RECEIVED,
    REJECTED,
    REQUEST_SECONDS,
    REQUESTS,
    counter_family,
    histogram_family,
)

_UP_TO_S = APPEND_SECONDS


class Counters:
    """`received = accepted + rejected` holds for every source at any moment: each is counted with its answer 200.

    Events of a request that was not answered 200 are in none of them: the client sends them again.

    Plain numbers, read when somebody asks for the metrics: the client library's own counters take a lock each time,
    which cost a request more than reading its headers.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests: defaultdict[str, int] = defaultdict(int)
        self._accepted: defaultdict[str, int] = defaultdict(int)
        self._rejected: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._append_s = 0.0
        self._appends = [0] * (len(_UP_TO_S) + 1)
        self._request_s = 0.0
        self._answers = [0] * (len(_UP_TO_S) + 1)
        registry.register(self)

    def stored(self, source: str, accepted: int, reasons: Collection[str], append_s: float) -> None:
        """The events of a request are stored: so many in `events`, and one in `rejected` for each reason."""
        self._accepted[source] += accepted
        for reason in reasons:
            self._rejected[source, reason] += 1
        self._append_s += append_s
        self._appends[bisect_left(_UP_TO_S, append_s)] += 1

    def answered(self, status: str, seconds: float) -> None:
        """A request was answered, so long after it came."""
        self.requests[status] += 1
        self._request_s += seconds
        self._answers[bisect_left(_UP_TO_S, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        received, accepted, rejected, requests = map(counter_family, (RECEIVED, ACCEPTED, REJECTED, REQUESTS))
        in_all = dict(self._accepted)
        for source, count in self._accepted.items():
            accepted.add_metric([source], count)
        for (source, reason), count in self._rejected.items():
            rejected.add_metric([source, reason], count)
            in_all[source] = in_all.get(source, 0) + count
        for source, count in in_all.items():
            received.add_metric([source], count)
        for status, count in self.requests.items():
            requests.add_metric([status], count)
        yield from (received, accepted, rejected, requests)
        yield histogram_family(APPEND, self._appends, self._append_s)
        yield histogram_family(REQUEST_SECONDS, self._answers, self._request_s)
