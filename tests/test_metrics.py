"""Every metric that anything reports is declared, every declared one is reported, and no label tells of anybody."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import Refused
from streams import metrics
from streams.metrics import (
    LABELS,
    METRICS,
    OF_COLLECTOR,
    OF_COUPONS,
    OF_DASHBOARD,
    OF_EVERY,
    OF_INBOX,
    OF_LINKS,
    OF_SENDER,
    OF_SINK,
    OF_WORKER,
    REASONS,
    reason_class,
)
from tests.cli.running import Up
from web.collector.counters import Counters

pytestmark = pytest.mark.together

CANARY = "Zanzibar"  # a word that only events say
NOTE = "channel: email\nkind: transactional\ncontent: {en: {subject: Hello, text: Hello}}\n"


def has_stored_all(found: dict[str, Family]) -> bool:
    rejected = [each.value for each in found["tidewire_clickhouse_rows"].samples if each.labels["table"] == "rejected"]
    return sum(rejected) >= 4 and all(each.value == 0 for each in found["tidewire_group_behind_records"].samples)


def families_of(registry: CollectorRegistry) -> dict[str, Family]:
    return {family.name: family for family in registry.collect()}


# --- the list


def test_names_are_said_once_and_tell_their_unit() -> None:
    names = [metric.name for metric in METRICS]

    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"(tidewire|process|python)_[a-z_]+", metric.name)
        if metric.unit in ("seconds", "bytes"):
            assert metric.name.endswith(f"_{metric.unit}"), metric.name
        assert metric.about.endswith("."), metric.name
        assert (metric.kind == "histogram") >= bool(metric.buckets), metric.name


def test_every_label_says_whose_words_it_holds() -> None:
    assert {label for metric in METRICS for label in metric.labels} == set(LABELS)


def test_the_page_is_as_the_list_makes_it() -> None:
    assert metrics.PAGE.read_text() == metrics.page(), "run: python -m streams.metrics"


def of_sender(registry: CollectorRegistry) -> None:
    metrics.DispatchMetrics(registry)
    metrics.StageMetrics(registry, of=metrics.of_messages)


def of_coupons(registry: CollectorRegistry) -> None:
    metrics.StageMetrics(registry, of=metrics.of_coupons)


@pytest.mark.parametrize(
    ("declare", "declared"),
    [(metrics.StageMetrics, OF_WORKER), (metrics.SinkMetrics, OF_SINK), (Counters, OF_COLLECTOR),
     (metrics.SegmentMetrics, OF_DASHBOARD), (of_sender, OF_SENDER), (metrics.LinkMetrics, OF_LINKS),
     (metrics.InboxMetrics, OF_INBOX), (of_coupons, OF_COUPONS)],
)
def test_a_role_reports_what_is_declared_for_it_and_nothing_else(declare, declared) -> None:
    registry = CollectorRegistry()
    declare(registry)

    found = families_of(registry)

    assert {(name, family.type, family.documentation) for name, family in found.items()} == {
        (metric.name, metric.kind, metric.about) for metric in declared
    }


def test_what_an_alarm_must_see_begin_is_there_before_it_happens() -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    registry = CollectorRegistry()
    metrics.StageMetrics(registry, ["orders"])
    metrics.SinkMetrics(registry, ["events"])

    failed = {"processor": "orders", "reason": metrics.FAILED}
    assert registry.get_sample_value("tidewire_stage_rejected_total", failed) == 0
    assert registry.get_sample_value("tidewire_sink_refused_rows_total", {"table": "events"}) == 0


def test_every_process_says_what_it_needs(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics.ProcessMetrics(registry, roles=["worker", "sink"], data=tmp_path / "not" / "yet")

    found = families_of(registry)

    assert {(name, family.type) for name, family in found.items()} == {(each.name, each.kind) for each in OF_EVERY}
    assert found["tidewire_info"].samples[0].labels["roles"] == "sink,worker"
    assert 0 < found["tidewire_disk_free_bytes"].samples[0].value < found["tidewire_disk_size_bytes"].samples[0].value
    assert found["tidewire_memory_limit_bytes"].samples[0].value > 2**20


@pytest.mark.parametrize(("text", "limit"), [("1048576\n", 1_048_576), ("max\n", None), ("9" * 18, None)])
def test_the_memory_limit_is_that_of_the_container_if_lower(tmp_path: Path, text: str, limit: int | None) -> None:
    machine = metrics.memory_limit(tmp_path / "none")
    (tmp_path / "memory.max").write_text(text)

    assert metrics.memory_limit(tmp_path) == (limit or machine)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (Refused("x"), "record"),
        (Refused("x", field="properties.total"), "properties"),
        (Refused("x", field="userId"), "userId"),
        (Refused("x", field=f"{CANARY}.x"), "other"),
    ],
)
def test_a_reason_is_one_of_few(refused: Refused, reason: str) -> None:
    assert reason_class(refused) == reason
    assert reason in REASONS


def test_nothing_is_said_of_a_segment_that_is_gone() -> None:
    registry = CollectorRegistry()
    said = metrics.SegmentMetrics(registry)
    for name in ("buyers", "gone"):
        said.say(name, members=3, differences=1, compared_at_s=1_700_000_000)

    said.keep({"buyers": object()})

    assert {sample.labels["segment"] for family in registry.collect() for sample in family.samples} == {"buyers"}


# --- a whole Tidewire


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Family]]:
    """What `/metrics` of a Tidewire says that took, refused and stored something of every kind."""
    folder = tmp_path_factory.mktemp("metrics")
    who = {"userId": CANARY, "anonymousId": f"{CANARY}-a"}
    calls = [
        {"type": "track", "event": CANARY, **who, "properties": {CANARY: CANARY}, "messageId": f"{CANARY}1"},
        {"type": "track", "event": "Order Completed", **who, "messageId": f"{CANARY}2",
         "properties": {"order_id": CANARY, "total": CANARY}},
        {"type": "identify", **who, "traits": {"email": f"{CANARY}@example.com"}, "messageId": f"{CANARY}3"},
        {"type": CANARY, **who, "messageId": f"{CANARY}4"},
        {"type": "track", "event": CANARY, "userId": "null", "messageId": f"{CANARY}5"},
        {"type": "track", "event": "x", **who, "timestamp": CANARY, "messageId": f"{CANARY}6"},
        {"type": "track", "event": "x", "userId": {CANARY: 1}, "messageId": f"{CANARY}7"},
        {"type": "track", "event": "x", **who, "context": CANARY, "messageId": f"{CANARY}8"},
    ]  # fmt: skip
    (folder / "calls.jsonl").write_bytes(b"".join(msgspec.json.encode(call) + b"\n" for call in calls))
    up, began = Up(folder), time.monotonic()
    try:
        assert up.ask("send", "calls.jsonl").code == 0
        (folder / "config" / "segments").mkdir(parents=True)
        (folder / "config" / "segments" / "orders.yaml").write_text("when: {did: Order Completed}\n")
        assert up.ask("segments", "apply").code == 0
        (folder / "config" / "templates").mkdir()
        (folder / "config" / "templates" / "note.yaml").write_text(NOTE)
        assert up.ask("templates", "apply").code == 0
        while up.ask("message", "send", "note", "--to", CANARY).code:  # she is not known at once
            assert time.monotonic() < began + 60
        deadline = time.monotonic() + 120
        while True:  # until each has said its last; segments are compared half a minute after the start
            text = urllib.request.urlopen(f"{up.url}/metrics", timeout=10).read().decode()
            found = {family.name: family for family in text_string_to_metric_families(text)}
            silent = {name for name, each in found.items() if not each.samples}
            if not silent and has_stored_all(found):
                break
            assert time.monotonic() < deadline, silent
            time.sleep(0.2)
        yield found
    finally:
        up.stop()


def test_a_running_tidewire_reports_every_metric(scraped: dict[str, Family]) -> None:
    assert set(scraped) == {metric.name for metric in METRICS}
    for metric in METRICS:
        assert {tuple(sorted(sample.labels.keys() - {"le"})) for sample in scraped[metric.name].samples} == {
            tuple(sorted(metric.labels))
        }, metric.name


def test_no_label_holds_a_word_of_an_event(scraped: dict[str, Family]) -> None:
    values = {value for family in scraped.values() for sample in family.samples for value in sample.labels.values()}

    assert len(values) > 30
    assert [value for value in values if CANARY.lower() in value.lower()] == []


def test_what_was_refused_is_counted_by_who_refused_it_and_why(scraped: dict[str, Family]) -> None:
    stage = {tuple(sample.labels.values()) for sample in scraped["tidewire_stage_rejected"].samples}
    collector = {sample.labels["reason"] for sample in scraped["tidewire_collector_rejected_events"].samples}

    assert ("orders", "properties") in stage
    assert "type is not one of Segment's calls" in collector


def test_alarms_see_a_first_failure_of_every_processor_and_table(scraped: dict[str, Family]) -> None:
    failed = {sample.labels["processor"] for sample in scraped["tidewire_stage_rejected"].samples
              if sample.labels["reason"] == metrics.FAILED}  # fmt: skip
    refused = {sample.labels["table"] for sample in scraped["tidewire_sink_refused_rows"].samples}

    assert failed == {"coupon", "journeys", "profile", "segments", "visits", "orders"}
    assert refused > {"events", "identities", "people", "decisions", "rejected", "memberships", "companies"}
