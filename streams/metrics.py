"""Every metric of every role, in one list: its name, what kind it is, its unit, its labels, and a sentence.

docs/metrics.md is made from it: `python -m streams.metrics`. What measures takes its metric from here, so none can be
measured that is not declared; and a test lets every role report, so none is declared that nobody measures.

**No label ever holds a word of a user or an event.** `LABELS` says of each whose words it holds: ours, or the
operator's, who names write keys, tables and processors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from schemas.errors import Refused

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Unit: TypeAlias = Literal["seconds", "bytes", "records", "events", "rows", "people", "partitions", "requests", "files",
                          "parts", "inserts", "tries", "offset", "messages", "1"]  # fmt: skip
Role: TypeAlias = Literal["every", "collector", "worker", "sink", "sender", "dashboard"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
APPEND_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
TIMED_ONE_OF = 64  # of so many batches the customer stage times the processors in one: cheap, and enough to compare
LINKS = ("click", "open", "unsubscribe", "preferences", "unknown")
PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"


class Metric(NamedTuple):
    """One metric. Prometheus shows a counter as `name_total`, a histogram as `name_bucket`, `…_sum` and `…_count`."""

    role: Role
    name: str
    kind: Kind
    unit: Unit
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names by which queries ask for it."""
        if self.kind == "counter":
            return (f"{self.name}_total",)
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


Made = TypeVar("Made")

LABELS: Mapping[str, str] = {
    "asked": "what was asked of an inbox: `list`, `read` or `unknown`",
    "channel": "a channel: `email`, `sms`, `inbox` or `call`",
    "group": "a consumer group of ours: `tidewire-customers` (the customer stage), `tidewire-messages` (the stage of "
             "messages), `tidewire-coupons` (the stage of coupons) or `tidewire-clickhouse` (the sink)",
    "link": "what a link of a message is for: `click`, `open`, `unsubscribe`, `preferences` or `unknown`",
    "outcome": "a word of the stage for what became of a record",
    "partition": "the number of a partition of topic `events`",
    "processor": "the name of a processor",
    "reason": "why an event was refused: of the collector the fixed text of the refusal, of the stage one of `REASONS`",
    "result": "what a channel said: `accepted`, `later`, `declined` or `unknown`",
    "roles": "the roles of the process, such as `collector,dashboard,sink,worker`",
    "segment": "the name of a segment, as a file or a marketer names it",
    "source": "the name of a write key, as config/write_keys.yaml says",
    "status": "the HTTP status of an answer",
    "table": "a table of ClickHouse",
    "version": "the version of Tidewire",
    "why": "why an opening or a click is lost: `log` (it took none) or `limit` (its address asked too often)",
    "generation": "a generation of Python's garbage collector",
    "implementation": "which Python",
    "major": "its version",
    "minor": "its version",
    "patchlevel": "its version",
}

# --- every role

PROCESS = (
    Metric("every", "process_cpu_seconds", "counter", "seconds", "Processor time used, of user and system."),
    Metric("every", "process_resident_memory_bytes", "gauge", "bytes", "Memory in use."),
    Metric("every", "process_virtual_memory_bytes", "gauge", "bytes", "Memory asked for; most of it is not in use."),
    Metric("every", "process_start_time_seconds", "gauge", "seconds", "When the process started, since 1970."),
    Metric("every", "process_open_fds", "gauge", "files", "Open files and connections."),
    Metric("every", "process_max_fds", "gauge", "files", "How many it may have open."),
    Metric("every", "python_info", "gauge", "1", "Always 1; the labels say which Python runs.",
           ("implementation", "major", "minor", "patchlevel", "version")),
    Metric("every", "python_gc_collections", "counter", "1", "Runs of the garbage collector.", ("generation",)),
    Metric("every", "python_gc_objects_collected", "counter", "1", "Objects it collected.", ("generation",)),
    Metric("every", "python_gc_objects_uncollectable", "counter", "1", "Objects it could not collect.",
           ("generation",)),
)  # fmt: skip
INFO = Metric("every", "tidewire_info", "gauge", "1", "Always 1; the labels say what runs.", ("roles", "version"))
MEMORY_LIMIT = Metric("every", "tidewire_memory_limit_bytes", "gauge", "bytes",
                      "Memory the process may use: the limit of its container, else that of the machine.")  # fmt: skip
DISK_FREE = Metric("every", "tidewire_disk_free_bytes", "gauge", "bytes", "Free on the disk of the data folder.")
DISK_SIZE = Metric("every", "tidewire_disk_size_bytes", "gauge", "bytes", "Size of the disk of the data folder.")
GROUP_BEHIND = Metric("every", "tidewire_group_behind_records", "gauge", "records",
                      "Records in the log that the group has not committed, whoever reads them.",
                      ("group",))  # fmt: skip
GROUP_COMMITTED = Metric("every", "tidewire_group_committed_offset", "gauge", "offset",
                         "Sum of the offsets the group has committed; while records wait it must grow.",
                         ("group",))  # fmt: skip

# --- collector

REQUESTS = Metric("collector", "tidewire_collector_requests", "counter", "requests",
                  "Requests to the ingest paths, by status of the answer.", ("status",))  # fmt: skip
REQUEST_SECONDS = Metric("collector", "tidewire_collector_request_seconds", "histogram", "seconds",
                         "From the headers of a request to its answer, that of the log's acknowledgement among it.",
                         buckets=APPEND_SECONDS)  # fmt: skip
RECEIVED = Metric("collector", "tidewire_collector_received_events", "counter", "events",
                  "Events of requests that were answered 200.", ("source",))  # fmt: skip
ACCEPTED = Metric("collector", "tidewire_collector_accepted_events", "counter", "events",
                  "Events that entered topic `events`.", ("source",))  # fmt: skip
REJECTED = Metric("collector", "tidewire_collector_rejected_events", "counter", "events",
                  "Events that entered topic `rejected`, by reason.", ("source", "reason"))  # fmt: skip
APPEND = Metric("collector", "tidewire_collector_append_seconds", "histogram", "seconds",
                "Time until the log acknowledged the events of a request.", buckets=APPEND_SECONDS)  # fmt: skip

LINK_REQUESTS = Metric("collector", "tidewire_links_requests", "counter", "requests",
                       "Requests to the links of messages, by what the link is for and the status of the answer.",
                       ("link", "status"))  # fmt: skip
LINK_LOST = Metric("collector", "tidewire_links_lost_events", "counter", "events",
                   "Openings and clicks that were answered and not stored: the log took none, or one address asked too "
                   "often.", ("why",))  # fmt: skip
INBOX_REQUESTS = Metric("collector", "tidewire_inbox_requests", "counter", "requests",
                        "Requests of people to their inbox, by what was asked and the status of the answer.",
                        ("asked", "status"))  # fmt: skip

# --- worker

STAGE_RECORDS = Metric("worker", "tidewire_stage_records", "counter", "records",
                       "Records of topic `events` handled, by what became of them.", ("outcome",))  # fmt: skip
STAGE_REJECTED = Metric("worker", "tidewire_stage_rejected", "counter", "records",
                        "Records that became dead letters, by which processor refused them and why.",
                        ("processor", "reason"))  # fmt: skip
STAGE_BATCH = Metric("worker", "tidewire_stage_batch_records", "histogram", "records", "Records of one batch.",
                     buckets=(1, 10, 50, 100, 500, 1_000, 5_000))  # fmt: skip
PROCESSOR_SECONDS = Metric("worker", "tidewire_processor_seconds", "counter", "seconds",
                           "Time spent in a processor, estimated from a few of its events.",
                           ("processor",))  # fmt: skip
PROCESSOR_EVENTS = Metric("worker", "tidewire_processor_events", "counter", "events",
                          "Events a processor was given, estimated in the same way.", ("processor",))  # fmt: skip
CHECKPOINT = Metric("worker", "tidewire_checkpoint_seconds", "histogram", "seconds",
                    "From the start of a checkpoint until its offsets may be committed.",
                    buckets=SECONDS)  # fmt: skip
CHECKPOINT_CUSTOMERS = Metric("worker", "tidewire_checkpoint_customers", "counter", "people",
                              "Customer records written by checkpoints.")  # fmt: skip
STAGE_ROWS = Metric("worker", "tidewire_stage_rows", "counter", "rows", "Rows and portraits sent to the sinks.")
STAGE_BEHIND_RECORDS = Metric("worker", "tidewire_stage_behind_records", "gauge", "records",
                              "Records of an owned partition not yet checkpointed.", ("partition",))  # fmt: skip
STAGE_BEHIND_SECONDS = Metric("worker", "tidewire_stage_behind_seconds", "gauge", "seconds",
                              "Age of the oldest record of an owned partition not yet checkpointed, as far as it is "
                              "known; 0 while none waits.", ("partition",))  # fmt: skip
OWNED = Metric("worker", "tidewire_stage_owned_partitions", "gauge", "partitions", "Partitions this worker owns.")
STOPPED = Metric("worker", "tidewire_stage_stopped_partitions", "gauge", "partitions",
                 "Owned partitions that stopped rather than become dead letters.")  # fmt: skip
HOT = Metric("worker", "tidewire_stage_hot_customers", "gauge", "people", "Customer records in memory.",
             ("partition",))  # fmt: skip
STORE_RECORDS = Metric("worker", "tidewire_stage_store_records", "gauge", "records",
                       "Customer records and timers on disk, as RocksDB estimates.", ("partition",))  # fmt: skip
STORE_BYTES = Metric("worker", "tidewire_stage_store_bytes", "gauge", "bytes",
                     "Size of the customer records on disk, with what is not flushed yet.", ("partition",))  # fmt: skip
RESTORED = Metric("worker", "tidewire_stage_restored_records", "counter", "records",
                  "Changelog records read to restore state.")  # fmt: skip
RESTORE = Metric("worker", "tidewire_stage_restore_seconds", "histogram", "seconds", "Restoring one partition.",
                 buckets=SECONDS)  # fmt: skip
TIMERS_LATE = Metric("worker", "tidewire_timers_late_seconds", "histogram", "seconds",
                     "How late timers were sent to be fired.", buckets=(0.5, 1, 2, 5, 10, 60, 600))  # fmt: skip



def of_coupons(metric: Metric) -> Metric | None:
    """What the customer stage measures, of the stage of coupons, where it is worth a look."""
    if metric is STAGE_RECORDS:
        return metric._replace(name="tidewire_coupons_records", about="Records of topic `coupon_requests` handled, by "
                               "what became of them: `given`, `refused`, `used`, `misused` and others.")  # fmt: skip
    if metric not in (STAGE_REJECTED, STAGE_BEHIND_SECONDS):
        return None
    return metric._replace(name=metric.name.replace("tidewire_", "tidewire_coupons_", 1),
                           about=f"As {metric.name}, of the stage of coupons.")  # fmt: skip


# --- sink

SINK_ROWS = Metric("sink", "tidewire_sink_rows", "counter", "rows",
                   "Rows that ClickHouse stored, repeated ones among them.", ("table",))  # fmt: skip
SINK_INSERTS = Metric("sink", "tidewire_sink_inserts", "counter", "inserts", "Inserts that returned.", ("table",))
SINK_REFUSED = Metric("sink", "tidewire_sink_refused_rows", "counter", "rows", "Rows that went to topic `rejected`.",
                      ("table",))  # fmt: skip
SINK_SKIPPED = Metric("sink", "tidewire_sink_skipped_records", "counter", "records",
                      "Records of topic `events` that are no events; the customer stage rejects them.")  # fmt: skip
SINK_RETRIES = Metric("sink", "tidewire_sink_retries", "counter", "tries", "Tries that failed and were repeated.")
SINK_UP = Metric("sink", "tidewire_sink_up", "gauge", "1",
                 "1 while what it needs answers, 0 while it waits for it.")  # fmt: skip
SINK_INSERT = Metric("sink", "tidewire_sink_insert_seconds", "histogram", "seconds",
                     "One insert, from call to answer.", ("table",))  # fmt: skip
SINK_BATCH = Metric("sink", "tidewire_sink_batch_records", "histogram", "records", "Records of one batch.",
                    buckets=(1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000))  # fmt: skip
SINK_BEHIND_SECONDS = Metric("sink", "tidewire_sink_behind_seconds", "gauge", "seconds",
                             "Age of the oldest record in hand; 0 while there is none.")  # fmt: skip
PARTS = Metric("sink", "tidewire_clickhouse_parts", "gauge", "parts",
               "Most parts that one partition of a table has; ClickHouse slows inserts down at 1,000 and refuses "
               "them at 3,000.", ("table",))  # fmt: skip
TABLE_ROWS = Metric("sink", "tidewire_clickhouse_rows", "gauge", "rows",
                    "Rows of a table, with repeated ones that are not merged yet.", ("table",))  # fmt: skip
TABLE_BYTES = Metric("sink", "tidewire_clickhouse_bytes", "gauge", "bytes", "Size of a table on disk.",
                     ("table",))  # fmt: skip
CLICKHOUSE_DISK_FREE = Metric("sink", "tidewire_clickhouse_disk_free_bytes", "gauge", "bytes",
                              "Free on the fullest disk of ClickHouse.")  # fmt: skip

SEGMENT_MEMBERS = Metric("dashboard", "tidewire_segment_members", "gauge", "people",
                         "People in a segment when it was last compared.", ("segment",))  # fmt: skip
SEGMENT_DIFFERENCES = Metric("dashboard", "tidewire_segment_differences", "gauge", "people",
                             "People who are in a segment live but not by the events at rest, or the other way round.",
                             ("segment",))  # fmt: skip
SEGMENT_COMPARED = Metric("dashboard", "tidewire_segment_compared_time_seconds", "gauge", "seconds",
                          "When a segment was last compared, since 1970.", ("segment",))  # fmt: skip

# --- sender


def of_messages(metric: Metric) -> Metric | None:
    """What the customer stage measures, of the stage of messages, where it is worth a look."""
    if metric not in (STAGE_RECORDS, STAGE_REJECTED, STAGE_BEHIND_SECONDS, CHECKPOINT, OWNED, TIMERS_LATE):
        return None
    return metric._replace(role="sender", name=metric.name.replace("tidewire_", "tidewire_messages_", 1),
                           about=f"As {metric.name}, of the stage of messages.")  # fmt: skip


SENDER_ATTEMPTS = Metric("sender", "tidewire_sender_attempts", "counter", "messages",
                         "Messages handed over to a channel, by what it said: accepted, later, declined or unknown.",
                         ("channel", "result"))  # fmt: skip
SENDER_SECONDS = Metric("sender", "tidewire_sender_attempt_seconds", "histogram", "seconds",
                        "One attempt, from the call of the channel to its answer.", ("channel",), SECONDS)  # fmt: skip
SENDER_WAITING = Metric("sender", "tidewire_sender_waiting_messages", "gauge", "messages",
                        "Messages in memory that wait for a turn of their channel.", ("channel",))  # fmt: skip
SENDER_UNDER_WAY = Metric("sender", "tidewire_sender_under_way_messages", "gauge", "messages",
                          "Messages of a channel that are under way.", ("channel",))  # fmt: skip
SENDER_RESTING = Metric("sender", "tidewire_sender_channel_rests", "gauge", "1",
                        "1 while a channel takes nothing from anybody and is left alone.", ("channel",))  # fmt: skip

OF_COLLECTOR = (REQUESTS, REQUEST_SECONDS, RECEIVED, ACCEPTED, REJECTED, APPEND)
OF_LINKS = (LINK_REQUESTS, LINK_LOST)
OF_INBOX = (INBOX_REQUESTS,)
OF_WORKER = (STAGE_RECORDS, STAGE_REJECTED, STAGE_BATCH, PROCESSOR_SECONDS, PROCESSOR_EVENTS, CHECKPOINT,
             CHECKPOINT_CUSTOMERS, STAGE_ROWS, STAGE_BEHIND_RECORDS, STAGE_BEHIND_SECONDS, OWNED, STOPPED, HOT,
             STORE_RECORDS, STORE_BYTES, RESTORED, RESTORE, TIMERS_LATE)  # fmt: skip
OF_COUPONS = tuple(named for metric in OF_WORKER if (named := of_coupons(metric)) is not None)
OF_SINK = (SINK_ROWS, SINK_INSERTS, SINK_REFUSED, SINK_SKIPPED, SINK_RETRIES, SINK_UP, SINK_INSERT, SINK_BATCH,
           SINK_BEHIND_SECONDS, PARTS, TABLE_ROWS, TABLE_BYTES, CLICKHOUSE_DISK_FREE)  # fmt: skip
OF_SENDER = (SENDER_ATTEMPTS, SENDER_SECONDS, SENDER_WAITING, SENDER_UNDER_WAY, SENDER_RESTING,
             *(named for metric in OF_WORKER if (named := of_messages(metric)) is not None))  # fmt: skip
OF_DASHBOARD = (SEGMENT_MEMBERS, SEGMENT_DIFFERENCES, SEGMENT_COMPARED)
OF_EVERY = (INFO, MEMORY_LIMIT, DISK_FREE, DISK_SIZE, GROUP_BEHIND, GROUP_COMMITTED, *PROCESS)
METRICS: tuple[Metric, ...] = (*OF_COLLECTOR, *OF_LINKS, *OF_INBOX, *OF_WORKER, *OF_COUPONS, *OF_SINK, *OF_SENDER,
                               *OF_DASHBOARD, *OF_EVERY)  # fmt: skip


# --- reasons

RECORD, FAILED, OTHER = "record", "processor failed", "other"
_FIELDS = ("messageId", "type", "event", "name", "userId", "anonymousId", "previousId", "groupId", "timestamp",
           "originalTimestamp", "sentAt", "receivedAt", "properties", "context", "traits", "integrations",
           "workspace")  # fmt: skip
REASONS: tuple[str, ...] = (RECORD, FAILED, *_FIELDS, OTHER)


def reason_class(refused: Refused) -> str:
    """Which of `REASONS`: the field of the event that is wrong, or that the record is of no use as a whole.

    The text of a refusal is for people: a processor may write into it what the event said.

    >>> reason_class(Refused("the total of Ann is no amount", field="properties.total"))
    'properties'
    """
    if refused.processor and refused.reason == f"processor {refused.processor} failed":
        return FAILED
    field = refused.field.partition(".")[0]
    return RECORD if not field else field if field in _FIELDS else OTHER


# --- made of it


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    assert metric.kind == "counter", metric.name
    return Counter(metric.name, metric.about, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    assert metric.kind == "gauge", metric.name
    return Gauge(metric.name, metric.about, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    assert metric.kind == "histogram", metric.name
    buckets = metric.buckets or Histogram.DEFAULT_BUCKETS
    return Histogram(metric.name, metric.about, metric.labels, registry=registry, buckets=buckets)


def counter_family(metric: Metric) -> CounterMetricFamily:
    """For those who count by themselves and report when they are asked."""
    assert metric.kind == "counter", metric.name
    return CounterMetricFamily(metric.name, metric.about, labels=metric.labels)


def gauge_family(metric: Metric) -> GaugeMetricFamily:
    assert metric.kind == "gauge", metric.name
    return GaugeMetricFamily(metric.name, metric.about, labels=metric.labels)


def histogram_family(metric: Metric, counts: Iterable[int], sum_value: float) -> HistogramMetricFamily:
    """`counts`: how many fell below each of the metric's buckets and above the one before; then how many above all."""
    assert metric.kind == "histogram", metric.name
    buckets, below = [], 0
    for up_to, count in zip((*metric.buckets, "+Inf"), counts, strict=True):
        below += count
        buckets.append((str(up_to), below))
    return HistogramMetricFamily(metric.name, metric.about, buckets=buckets, sum_value=sum_value)


class StageMetrics:
    """What a stage counts and times.

    Args:
        processors: of each it is said from the beginning that it failed never: an alarm sees no first failure else.
        of: what the metrics of the customer stage are called of this one; None: nobody asks for it.
    """

    def __init__(
        self, registry: CollectorRegistry, processors: Iterable[str] = (),
        of: Callable[[Metric], Metric | None] = lambda metric: metric,
    ) -> None:  # fmt: skip
        unasked = CollectorRegistry()

        def made(make: Callable[[Metric, CollectorRegistry], Made], metric: Metric) -> Made:
            named = of(metric)
            return make(metric, unasked) if named is None else make(named, registry)

        self.records = made(counter, STAGE_RECORDS)
        self.rejected = made(counter, STAGE_REJECTED)
        for processor in processors:
            self.rejected.labels(processor, FAILED)
        self.batch_records = made(histogram, STAGE_BATCH)
        self.processor_seconds = made(counter, PROCESSOR_SECONDS)
        self.processor_events = made(counter, PROCESSOR_EVENTS)
        self.checkpoint_seconds = made(histogram, CHECKPOINT)
        self.checkpoint_customers = made(counter, CHECKPOINT_CUSTOMERS)
        self.rows = made(counter, STAGE_ROWS)
        self.behind_records = made(gauge, STAGE_BEHIND_RECORDS)
        self.behind_seconds = made(gauge, STAGE_BEHIND_SECONDS)
        self.owned_partitions = made(gauge, OWNED)
        self.stopped_partitions = made(gauge, STOPPED)
        self.hot_customers = made(gauge, HOT)
        self.store_records = made(gauge, STORE_RECORDS)
        self.store_bytes = made(gauge, STORE_BYTES)
        self.restored = made(counter, RESTORED)
        self.restore_seconds = made(histogram, RESTORE)
        self.timers_late_seconds = made(histogram, TIMERS_LATE)

    def forget(self, partition: int) -> None:
        """The partition is another's now: what is said of it here would be out of date."""
        for each in (self.behind_records, self.behind_seconds, self.hot_customers, self.store_records,
                     self.store_bytes):  # fmt: skip
            each.remove_by_labels({"partition": str(partition)})


class DispatchMetrics:
    """What is counted and timed where messages leave."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = counter(SENDER_ATTEMPTS, registry)
        self.seconds = histogram(SENDER_SECONDS, registry)
        self.waiting = gauge(SENDER_WAITING, registry)
        self.under_way = gauge(SENDER_UNDER_WAY, registry)
        self.resting = gauge(SENDER_RESTING, registry)


class LinkMetrics:
    """What is counted where people follow the links of messages."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = counter(LINK_REQUESTS, registry)
        for link in LINKS:
            self.requests.labels(link, "404")
        self.lost = counter(LINK_LOST, registry)
        for why in ("log", "limit"):  # an alarm sees no first one else
            self.lost.labels(why)


class InboxMetrics:
    """What is counted where people ask for their inbox."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = counter(INBOX_REQUESTS, registry)
        for asked in ("list", "read"):
            self.requests.labels(asked, "503")  # an alarm sees no first one else


class SinkMetrics:
    """What the sink counts and times.

    Args:
        tables: of each it is said from the beginning that no row was refused: an alarm sees no first one else.
    """

    def __init__(self, registry: CollectorRegistry, tables: Iterable[str] = ()) -> None:
        self.rows = counter(SINK_ROWS, registry)
        self.inserts = counter(SINK_INSERTS, registry)
        self.refused = counter(SINK_REFUSED, registry)
        for table in tables:
            self.refused.labels(table)
        self.skipped = counter(SINK_SKIPPED, registry)
        self.retries = counter(SINK_RETRIES, registry)
        self.is_up = gauge(SINK_UP, registry)
        self.insert_seconds = histogram(SINK_INSERT, registry)
        self.batch_records = histogram(SINK_BATCH, registry)
        self.behind_seconds = gauge(SINK_BEHIND_SECONDS, registry)
        self.parts = gauge(PARTS, registry)
        self.table_rows = gauge(TABLE_ROWS, registry)
        self.table_bytes = gauge(TABLE_BYTES, registry)
        self.disk_free = gauge(CLICKHOUSE_DISK_FREE, registry)
        self.is_up.set(1)


class SegmentMetrics:
    """What came of comparing segments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.members = gauge(SEGMENT_MEMBERS, registry)
        self.differences = gauge(SEGMENT_DIFFERENCES, registry)
        self.compared_at = gauge(SEGMENT_COMPARED, registry)
        self._said: set[str] = set()

    def say(self, name: str, *, members: int, differences: int, compared_at_s: float) -> None:
        self.members.labels(name).set(members)
        self.differences.labels(name).set(differences)
        self.compared_at.labels(name).set(compared_at_s)
        self._said.add(name)

    def keep(self, names: Collection[str]) -> None:
        """Segments that are gone are compared no more: what is said of them would be out of date, and wake somebody."""
        for name in [name for name in self._said if name not in names]:
            for each in (self.members, self.differences, self.compared_at):
                each.remove(name)
            self._said.discard(name)


class ProcessMetrics:
    """What every process says of itself."""

    def __init__(self, registry: CollectorRegistry, *, roles: Iterable[str], data: Path) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of when it began: nobody asks
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        gauge(INFO, registry).labels(",".join(sorted(roles)), metadata.version("tidewire")).set(1)
        gauge(MEMORY_LIMIT, registry).set(memory_limit())
        gauge(DISK_FREE, registry).set_function(lambda: disk_of(data)[0])
        gauge(DISK_SIZE, registry).set_function(lambda: disk_of(data)[1])
        self.behind = gauge(GROUP_BEHIND, registry)
        self.committed = gauge(GROUP_COMMITTED, registry)


def disk_of(folder: Path) -> tuple[int, int]:
    """Free and whole size of the disk that the folder is on, or will be on when it is made."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return usage.free, usage.total


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may use: the limit of its container, where there is one below the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((cgroup / name).read_text()))
        except (OSError, ValueError):  # none, or `max`
            continue
    return machine


# --- the page

_HEAD = """# Metrics

Made from `streams/metrics.py` by `python -m streams.metrics`.

Every process answers `/metrics` for Prometheus. A counter is shown as `name_total`, a histogram as `name_bucket`,
`name_sum` and `name_count`. No label holds a word of a user or an event. Alerts are in `deploy/alerts.yml`, a board in
`deploy/grafana/`; [operating](operating.md) says what each alert means.
"""
_ROLES: Mapping[Role, str] = {
    "collector": "Collector", "worker": "Worker", "sink": "Sink", "dashboard": "Dashboard", "every": "Every process",
}  # fmt: skip


def page() -> str:
    """The page, in Markdown."""
    return "".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    for role, title in _ROLES.items():
        yield f"\n## {title}\n\n| metric | kind | unit | labels | what |\n|---|---|---|---|---|\n"
        for metric in METRICS:
            if metric.role == role:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                unit = "" if metric.unit == "1" else metric.unit
                yield f"| `{metric.name}` | {metric.kind} | {unit} | {labels} | {metric.about} |\n"
    yield "\n## Labels\n\n| label | what it holds |\n|---|---|\n"
    for label, what in LABELS.items():
        yield f"| `{label}` | {what} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
