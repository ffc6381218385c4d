"""The metrics of the customer stage, in one list, each with its sentence.

No name and no label ever holds a word of a user or an event.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StageMetrics:
    """What the customer stage counts and times."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "tidewire_stage_records", "Records of topic `events` handled, by what became of them.", ["outcome"],
            registry=registry)  # fmt: skip
        self.batch_records = Histogram(
            "tidewire_stage_batch_records", "Records of one batch.", registry=registry,
            buckets=(1, 10, 50, 100, 500, 1_000, 5_000))  # fmt: skip
        self.checkpoint_seconds = Histogram(
            "tidewire_checkpoint_seconds", "From the start of a checkpoint until its offsets may be committed.",
            registry=registry, buckets=SECONDS)  # fmt: skip
        self.checkpoint_customers = Counter(
            "tidewire_checkpoint_customers", "Customer records written by checkpoints.", registry=registry)
        self.rows = Counter("tidewire_stage_rows", "Rows and portraits sent to the sinks.", registry=registry)
        self.behind_records = Gauge(
            "tidewire_stage_behind_records", "Records of owned partitions not yet checkpointed.", registry=registry)
        self.behind_seconds = Gauge(
            "tidewire_stage_behind_seconds",
            "While records wait: how long ago the last record handled was written; else 0.", registry=registry)
        self.owned_partitions = Gauge("tidewire_stage_owned_partitions", "Partitions this worker owns.",
                                      registry=registry)  # fmt: skip
        self.stopped_partitions = Gauge(
            "tidewire_stage_stopped_partitions", "Owned partitions that stopped rather than become dead letters.",
            registry=registry)  # fmt: skip
        self.hot_customers = Gauge("tidewire_stage_hot_customers", "Customer records in memory.", registry=registry)
        self.restored = Counter("tidewire_stage_restored_records", "Changelog records read to restore state.",
                                registry=registry)  # fmt: skip
        self.restore_seconds = Histogram("tidewire_stage_restore_seconds", "Restoring one partition.",
                                         registry=registry, buckets=SECONDS)  # fmt: skip
        self.timers_late_seconds = Histogram(
            "tidewire_timers_late_seconds", "How late timers were sent to be fired.", registry=registry,
            buckets=(0.5, 1, 2, 5, 10, 60, 600))  # fmt: skip
