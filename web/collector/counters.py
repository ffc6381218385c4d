"""What the collector counts. Labels are names of sources and fixed texts of ours, never what a client wrote."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

_APPEND_UP_TO_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


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
        self._appends = [0] * (len(_APPEND_UP_TO_S) + 1)
        registry.register(self)

    def stored(self, source: str, accepted: int, reasons: Collection[str], append_s: float) -> None:
        """The events of a request are stored: so many in `events`, and one in `rejected` for each reason."""
        self._accepted[source] += accepted
        for reason in reasons:
            self._rejected[source, reason] += 1
        self._append_s += append_s
        self._appends[bisect_left(_APPEND_UP_TO_S, append_s)] += 1

    def collect(self) -> Iterator[Metric]:
        """For the registry."""

        def counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"tidewire_collector_{name}", about, labels=labels)

        received = counter("received_events", "Events of requests that were answered 200.", "source")
        accepted = counter("accepted_events", "Events that entered topic `events`.", "source")
        rejected = counter("rejected_events", "Events that entered topic `rejected`, by reason.", "source", "reason")
        requests = counter("requests", "Requests to the ingest paths, by status of the answer.", "status")
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
        buckets, below = [], 0
        for up_to_s, count in zip((*_APPEND_UP_TO_S, "+Inf"), self._appends, strict=True):
            below += count
            buckets.append((str(up_to_s), below))
        append_s = HistogramMetricFamily(
            "tidewire_collector_append_seconds",
            "Time until the log acknowledged the events of a request.",
            buckets=buckets,
            sum_value=self._append_s,
        )
        yield from (received, accepted, rejected, requests, append_s)
