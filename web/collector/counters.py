"""What the collector counts. Labels are names of sources and fixed texts of ours, never what a client wrote."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram


class Counters:
    """`received = accepted + rejected` holds for every source at any moment: each is counted with its answer 200.

    Events of a request that was not answered 200 are in none of them: the client sends them again.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"tidewire_collector_{name}", about, labels, registry=registry)

        received = counter("received_events", "Events of requests that were answered 200.", "source")
        accepted = counter("accepted_events", "Events that entered topic `events`.", "source")
        rejected = counter("rejected_events", "Events that entered topic `rejected`, by reason.", "source", "reason")
        requests = counter("requests", "Requests to the ingest paths, by status of the answer.", "status")
        self.append_s = Histogram(
            "tidewire_collector_append_seconds",
            "Time until the log acknowledged the events of a request.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5),
            registry=registry,
        )
        # A child of a labelled metric is looked up under a lock: once is enough.
        self.received = cache(received.labels)
        self.accepted = cache(accepted.labels)
        self.rejected = cache(rejected.labels)
        self.requests = cache(requests.labels)
