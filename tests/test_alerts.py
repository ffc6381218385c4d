"""The alarms of deploy/alerts.yml, evaluated by Prometheus itself: each fires when it should, says what it should, and
is quiet on a good day."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "alerts.yml"
W1 = 'job="worker",instance="worker-1"'
S1 = 'job="sink",instance="sink"'
C1 = 'job="collector",instance="collector"'
D1 = 'job="dashboard",instance="dashboard"'
OF_W1 = {"job": "worker", "instance": "worker-1"}
OF_S1 = {"job": "sink", "instance": "sink"}


@dataclass(frozen=True)
class Case:
    """What an alarm does.

    Attributes:
        bad: series, a sample a minute, after half an hour of which it fires…
        summary: …and says this.
        good: series like those of a good day.
        labels: of the alarm, beside its severity.
    """

    alert: str
    bad: dict[str, str]
    summary: str
    good: dict[str, str]
    labels: dict[str, str]


def quantile(name: str, labels: str, seconds: str, others: str = "0.1") -> dict[str, str]:
    """A histogram of which all that is counted falls between two buckets."""
    comma = "," if labels else ""
    return {
        f'{name}_bucket{{{labels}{comma}le="{others}"}}': "0x40",
        f'{name}_bucket{{{labels}{comma}le="{seconds}"}}': "0+60x40",
        f'{name}_bucket{{{labels}{comma}le="+Inf"}}': "0+60x40",
    }


CASES = [
    Case("TidewireDown", {f"up{{{W1}}}": "0x40"}, "worker worker-1 does not answer.", {f"up{{{W1}}}": "1x40"},
         OF_W1),
    Case("TidewireRestarts", {f"process_start_time_seconds{{{W1}}}": "100+60x40"},
         "worker worker-1 started 15 times in a quarter of an hour.",
         {f"process_start_time_seconds{{{W1}}}": "100x20 1300x20"}, OF_W1),
    Case("MemoryIsShort", {f"process_resident_memory_bytes{{{W1}}}": "95x40",
                           f"tidewire_memory_limit_bytes{{{W1}}}": "100x40"},
         "worker worker-1 uses more than nine tenths of its memory.",
         {f"process_resident_memory_bytes{{{W1}}}": "80x40", f"tidewire_memory_limit_bytes{{{W1}}}": "100x40"}, OF_W1),
    Case("FilesRunOut", {f"process_open_fds{{{W1}}}": "900x40", f"process_max_fds{{{W1}}}": "1024x40"},
         "worker worker-1 has 900 files and connections open.",
         {f"process_open_fds{{{W1}}}": "90x40", f"process_max_fds{{{W1}}}": "1024x40"}, OF_W1),
    Case("DiskIsFull", {f"tidewire_disk_free_bytes{{{W1}}}": "1073741824x40",
                        f"tidewire_disk_size_bytes{{{W1}}}": "100e9x40"},
         "worker worker-1 has 1GiB left on its disk.",
         {f"tidewire_disk_free_bytes{{{W1}}}": "50e9x40", f"tidewire_disk_size_bytes{{{W1}}}": "100e9x40"}, OF_W1),
    Case("EventsAreNotTaken", {f'tidewire_collector_requests_total{{{C1},status="200"}}': "0+60x40",
                               f'tidewire_collector_requests_total{{{C1},status="503"}}': "0+6x40"},
         "More than 5 % of requests are answered with 5xx; clients send them again later.",
         {f'tidewire_collector_requests_total{{{C1},status="200"}}': "0+600x40",
          f'tidewire_collector_requests_total{{{C1},status="503"}}': "0+6x40"}, {}),
    Case("CollectorRefusesRequests", {f'tidewire_collector_requests_total{{{C1},status="200"}}': "0+60x40",
                                      f'tidewire_collector_requests_total{{{C1},status="401"}}': "0+60x40"},
         "More than a tenth of the requests is refused: a wrong write key, too many at once, or not readable.",
         {f'tidewire_collector_requests_total{{{C1},status="200"}}': "0+60x40",
          f'tidewire_collector_requests_total{{{C1},status="401"}}': "0+1x40"}, {}),
    Case("CollectorIsSlow", quantile("tidewire_collector_request_seconds", C1, "2.5"),
         "One request in a hundred takes more than a second.",
         quantile("tidewire_collector_request_seconds", C1, "0.5"), {}),
    Case("ManyEventsAreRejected", {f'tidewire_collector_rejected_events_total{{{C1},reason="type"}}': "0+20x40",
                                   f'tidewire_collector_received_events_total{{{C1},source="shop"}}': "0+100x40"},
         "More than a tenth of the events is rejected.",
         {f'tidewire_collector_rejected_events_total{{{C1},reason="type"}}': "0+1x40",
          f'tidewire_collector_received_events_total{{{C1},source="shop"}}': "0+100x40"}, {}),
    Case("ProcessorFails", {f'tidewire_stage_rejected_total{{{W1},reason="processor failed",processor="orders"}}':
                            "0x25 1x15"},
         "Processor orders fails; the events are in topic rejected.",
         {f'tidewire_stage_rejected_total{{{W1},reason="processor failed",processor="orders"}}': "0x40",
          f'tidewire_stage_rejected_total{{{W1},reason="type",processor=""}}': "0+1x40"}, {"processor": "orders"}),
    Case("PartitionStopped", {f"tidewire_stage_stopped_partitions{{{W1}}}": "2x40"},
         "2 partitions of worker-1 stand still rather than become dead letters.",
         {f"tidewire_stage_stopped_partitions{{{W1}}}": "0x40"}, OF_W1),
    Case("CustomerStageIsBehind", {f'tidewire_stage_behind_seconds{{{W1},partition="3"}}': "90x40"},
         "The people of partition 3 are 1m 30s behind their events.",
         {f'tidewire_stage_behind_seconds{{{W1},partition="3"}}': "2x40"}, {"partition": "3"}),
    Case("CommitsAreStuck", {f'tidewire_group_behind_records{{{W1},group="sink"}}': "50x40",
                             f'tidewire_group_committed_offset{{{W1},group="sink"}}': "1000x40"},
         "Records wait for sink, and it has committed nothing for minutes.",
         {f'tidewire_group_behind_records{{{W1},group="sink"}}': "50x40",
          f'tidewire_group_committed_offset{{{W1},group="sink"}}': "1000+10x40"}, {"group": "sink"}),
    Case("CheckpointIsSlow", quantile("tidewire_checkpoint_seconds", W1, "10"),
         "One checkpoint in a hundred of worker-1 takes more than 5 s.",
         quantile("tidewire_checkpoint_seconds", W1, "1"), {"instance": "worker-1"}),
    Case("TimersAreLate", quantile("tidewire_timers_late_seconds", W1, "300", "60"),
         "One timer in a hundred is more than a minute late.",
         quantile("tidewire_timers_late_seconds", W1, "2"), {}),
    Case("SinkWaits", {f"tidewire_sink_up{{{S1}}}": "0x40"},
         "sink waits for ClickHouse or the log. Pages show the state of before; nothing is lost.",
         {f"tidewire_sink_up{{{S1}}}": "1x40"}, OF_S1),
    Case("SinkIsBehind", {f"tidewire_sink_behind_seconds{{{S1}}}": "360x40"},
         "ClickHouse is 6m 0s behind the log.", {f"tidewire_sink_behind_seconds{{{S1}}}": "1x40"}, {}),
    Case("InsertsAreSlow", quantile("tidewire_sink_insert_seconds", f'{S1},table="events"', "30"),
         "One insert in a hundred into events takes more than 10 s.",
         quantile("tidewire_sink_insert_seconds", f'{S1},table="events"', "1"), {"table": "events"}),
    Case("ClickHouseRefusesRows", {f'tidewire_sink_refused_rows_total{{{S1},table="events"}}': "0x25 1x15"},
         "ClickHouse refused rows of table events; they are in topic rejected.",
         {f'tidewire_sink_refused_rows_total{{{S1},table="events"}}': "0x40"}, {"table": "events"}),
    Case("ChannelIsDown", {'tidewire_sender_channel_rests{job="sender",channel="email"}': "1x40"},
         "Channel email takes nothing; its messages wait.",
         {'tidewire_sender_channel_rests{job="sender",channel="email"}': "1 0 1 1 0x36"}, {"channel": "email"}),
    Case("MessagesAreUnknown",
         {'tidewire_sender_attempts_total{job="sender",channel="email",result="unknown"}': "0x25 1x15"},
         "Of messages by channel email nobody knows whether they arrived.",
         {'tidewire_sender_attempts_total{job="sender",channel="email",result="accepted"}': "0+60x40"},
         {"channel": "email"}),
    Case("TooManyParts", {f'tidewire_clickhouse_parts{{{S1},table="events"}}': "400x40"},
         "A partition of table events has 400 parts; ClickHouse slows inserts down at 1,000.",
         {f'tidewire_clickhouse_parts{{{S1},table="events"}}': "40x40"}, {"table": "events"}),
    Case("ClickHouseDiskIsFull", {f"tidewire_clickhouse_disk_free_bytes{{{S1}}}": "1073741824x40"},
         "ClickHouse has 1GiB left on its disk.", {f"tidewire_clickhouse_disk_free_bytes{{{S1}}}": "50e9x40"}, {}),
    Case("SegmentDiffers", {f'tidewire_segment_differences{{{D1},segment="loyal"}}': "3x70"},
         "3 people are in segment loyal live but not by their events, or the other way round.",
         {f'tidewire_segment_differences{{{D1},segment="loyal"}}': "0x70"}, {"segment": "loyal"}),
    Case("SegmentsNotCompared", {f'tidewire_segment_compared_time_seconds{{{D1},segment="loyal"}}': "-21600x70"},
         "Segment loyal was last held against its events 7h 0m 0s ago.",
         {f'tidewire_segment_compared_time_seconds{{{D1},segment="loyal"}}': "0+60x70"}, {"segment": "loyal"}),
]  # fmt: skip


def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def promtool(*words: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alarm_is_tried() -> None:
    assert [case.alert for case in CASES] == [*rules()]


@pytest.mark.promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alarm_fires_and_says_why_and_is_quiet_on_a_good_day(case: Case, tmp_path: Path) -> None:
    rule = rules()[case.alert]
    at = "60m" if case.alert.startswith("Segment") else "35m"
    said = {**rule["annotations"], "summary": case.summary}
    for label, value in case.labels.items():
        said["mend"] = said["mend"].replace(f"{{{{ $labels.{label} }}}}", value)
    fired = {"exp_labels": {**case.labels, **rule["labels"]}, "exp_annotations": said}
    tests = [
        {"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in series.items()],
         "alert_rule_test": [{"eval_time": at, "alertname": case.alert, "exp_alerts": expected}]}
        for series, expected in ((case.bad, [fired]), (case.good, []))
    ]  # fmt: skip
    asked = tmp_path / "tests.yml"
    asked.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))

    promtool("test", "rules", asked)


@pytest.mark.promtool
def test_prometheus_reads_its_settings(tmp_path: Path) -> None:
    settings = (ROOT / "deploy" / "prometheus.yml").read_text().replace("/etc/prometheus/alerts.yml", str(RULES))
    asked = tmp_path / "prometheus.yml"
    asked.write_text(settings)

    promtool("check", "config", asked)
