"""docker-compose.yml and deploy/ name only what exists. No engine runs them here, so what can be checked is checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from typer.testing import CliRunner

from config.settings import PREFIX, Settings, load_settings
from streams.cli.app import app
from streams.kafka_address import parse_address
from streams.metrics import METRICS

ROOT = Path(__file__).parents[1]
OURS = "tidewire"  # the image
IN_THE_FILE_ENV = {"CLICKHOUSE_PASSWORD": "p1", "GRAFANA_PASSWORD": "p2"}  # what the operator writes into .env


def filled_in(text: str) -> str:
    """Compose's variables replaced: ${NAME:-default} and ${NAME:?message}."""
    return re.sub(
        r"\$\{(\w+):([-?])([^}]*)\}",
        lambda found: IN_THE_FILE_ENV.get(found[1], found[3]) if found[2] == "-" else IN_THE_FILE_ENV[found[1]],
        text,
    )


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(filled_in((ROOT / "docker-compose.yml").read_text()))


def services_of_ours(compose: Any) -> dict[str, Any]:
    return {name: service for name, service in compose["services"].items() if service["image"] == OURS}


def settings_of(service: Any) -> Settings:
    in_image = dict(re.findall(r"(TIDEWIRE_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    environment = in_image | {
        name: "" if value is None else str(value) for name, value in service["environment"].items()
    }
    return load_settings(environ=environment | {"TIDEWIRE_CONFIG": str(ROOT / "config")})


def on_the_machine(compose: Any) -> list[Any]:
    """Services that run in the network of the machine itself."""
    return [service for service in compose["services"].values() if service.get("network_mode") == "host"]


def listens_at(service: Any) -> tuple[str, str]:
    """The address and the port at which a service of the machine's network listens."""
    if service["image"] == OURS:
        settings = settings_of(service)
        return settings.host, str(settings.port)
    if "grafana" in service["image"]:
        return service["environment"]["GF_SERVER_HTTP_ADDR"], service["environment"]["GF_SERVER_HTTP_PORT"]
    (address,) = [word for word in service["command"] if word.startswith("--web.listen-address=")]
    host, _, port = address.partition("=")[2].rpartition(":")
    return host, port


def test_prometheus_asks_everybody_who_reports(compose: Any) -> None:
    asked = {}
    for job in yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]:
        for group in job["static_configs"]:
            (target,) = group["targets"]
            asked[group["labels"]["instance"]] = job["job_name"], target

    reporting = {}
    for name, service in services_of_ours(compose).items():
        role = service["command"][0]
        if role != "topics":
            at_home = service.get("network_mode") == "host"
            address = ":".join(listens_at(service)) if at_home else service["ports"][0].rpartition(":")[0]
            reporting[name] = role, address

    assert asked == reporting


def test_every_command_is_one_of_ours(compose: Any) -> None:
    commands = [service["command"] for service in services_of_ours(compose).values()]

    assert len(commands) >= 6
    for arguments in commands:
        asked = CliRunner().invoke(app, [*arguments, "--help"])  # reads the command and its options, and runs nothing
        words = " ".join(word for word in arguments if not word.startswith("-"))
        assert asked.exit_code == 0, asked.output
        assert re.match(rf"\s*Usage: \S+ {words} ", asked.output), asked.output


def test_every_variable_is_a_setting_with_a_value_it_takes(compose: Any) -> None:
    for name, service in services_of_ours(compose).items():
        for variable in service["environment"]:
            setting = variable.removeprefix(PREFIX).removesuffix("_FILE").lower()
            assert setting in Settings.model_fields, f"{name}: {variable}"
        settings = settings_of(service)
        assert parse_address(settings.log_url).brokers


def test_nothing_listens_beyond_this_machine(compose: Any) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert {listens_at(service)[0] for service in on_the_machine(compose)} == {"127.0.0.1"}


def test_no_two_services_publish_the_same_port(compose: Any) -> None:
    published = [port.split(":")[1] for service in compose["services"].values() for port in service.get("ports", [])]
    published += [listens_at(service)[1] for service in on_the_machine(compose)]

    assert len(published) == len(set(published))


def test_every_service_says_whether_it_is_well(compose: Any) -> None:
    of_the_image = "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()

    for name, service in compose["services"].items():
        assert "healthcheck" in service or (service["image"] == OURS and of_the_image), name


def test_every_image_of_others_has_a_version(compose: Any) -> None:
    images = [service["image"] for service in compose["services"].values() if service["image"] != OURS]

    assert [image for image in images if not re.search(r":v?\d", image)] == []


def test_what_services_refer_to_is_there(compose: Any) -> None:
    used = set()
    for name, service in compose["services"].items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in compose["services"], name
            if condition["condition"] == "service_completed_successfully":
                assert compose["services"][needed]["restart"] == "no"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
            else:
                used.add(source)
    assert used == set(compose["volumes"])


def test_two_workers_have_two_volumes(compose: Any) -> None:
    workers = [service for service in services_of_ours(compose).values() if service["command"] == ["worker"]]

    assert len(workers) == 2
    assert len({volume for worker in workers for volume in worker["volumes"]}) == 2


def test_no_password_stands_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    assert re.findall(r"(?i)^\s*\w*PASSWORD\w*:(?! \$\{\w+:\?).*$", text, re.MULTILINE) == []


def test_every_file_the_image_is_made_of_reaches_its_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for word in line.split()
    }

    assert {word.split("/")[0] for word in copied} <= allowed
    assert all(list(ROOT.glob(word)) for word in copied)


# --- metrics

OF_PROMETHEUS = {"up": ("job", "instance")}  # what it says itself, and puts on every series
LABELS_OF = OF_PROMETHEUS | {series: metric.labels for metric in METRICS for series in metric.series}


class Asked:
    """What a PromQL expression asks for.

    Attributes:
        series: the names of the series it reads.
        labels: those it groups or selects by, each with the series it applies to.
    """

    def __init__(self, expression: str) -> None:
        # Grafana replaces its variables before Prometheus sees them.
        self.series: set[str] = set()
        self.labels: set[tuple[str, str]] = set()
        self._read(promql_parser.parse(re.sub(r"\$__\w+", "5m", expression)))

    def _read(self, node: Any) -> set[str]:
        """Take note of what a node asks for; the series below it."""
        match node:
            case promql_parser.VectorSelector():
                self.series.add(node.name)
                self.labels |= {(matcher.name, node.name) for matcher in node.matchers.matchers}
                return {node.name}
            case promql_parser.MatrixSelector():
                return self._read(node.vector_selector)
            case promql_parser.Call():
                return set().union(*(self._read(argument) for argument in node.args))
            case promql_parser.AggregateExpr():
                below = self._read(node.expr)
                if node.modifier is not None:
                    self.labels |= {(label, name) for label in node.modifier.labels for name in below}
                return below
            case promql_parser.BinaryExpr():
                return self._read(node.lhs) | self._read(node.rhs)
            case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
                return self._read(node.expr)
            case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
                return set()
            case _:
                raise AssertionError(f"this test does not know {node!r}")

    def unknown(self) -> set[str]:
        """Series that are not declared, and labels that their series have not."""
        names = {name for name in self.series if name not in LABELS_OF}
        wrong = {f"{label} of {name}" for label, name in self.labels - {(each, name) for name in LABELS_OF
                                                                       for each in ("job", "instance")}
                 if name in LABELS_OF and label not in LABELS_OF[name]
                 and not (label == "le" and name.endswith("_bucket"))}  # fmt: skip
        return names | wrong


def rules() -> list[dict[str, Any]]:
    alerts = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
    assert alerts.keys() == {"groups"}
    return [rule for group in alerts["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board = json.loads((ROOT / "deploy/grafana/dashboards/tidewire.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_what_is_asked_for_is_read_out_of_an_expression() -> None:
    asked = Asked('sum by (source, le) (rate(a_total{status=~"5.."}[$__rate_interval])) > 0.1 * (b or -c) and d == 1')

    assert asked.series == {"a_total", "b", "c", "d"}
    assert asked.labels == {("source", "a_total"), ("le", "a_total"), ("status", "a_total")}
    assert Asked("sum by (sauce) (rate(tidewire_collector_accepted_events_total[5m]))").unknown() == {
        "sauce of tidewire_collector_accepted_events_total"
    }
    assert Asked("tidewire_nonesuch + up").unknown() == {"tidewire_nonesuch"}


def test_every_rule_asks_for_what_is_reported_and_says_what_to_do() -> None:
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert Asked(rule["expr"]).unknown() == set(), rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0m")), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "mend", "runbook_url"}
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_what_a_summary_names_is_left_by_its_expression() -> None:
    """`sum by (table)` leaves nothing but `table`; an expression without such keeps every label of its series."""
    for rule in rules():
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        outermost = re.search(r"\b(?:sum|max|min)(?: by \(([^)]*)\))? ?\(", rule["expr"])
        if outermost is None:
            left = {"job", "instance"}.union(*(LABELS_OF.get(name, ()) for name in Asked(rule["expr"]).series))
        else:
            left = set(re.split(r",\s*", outermost[1] or "")) - {""}
        assert named <= left, rule["alert"]


def test_what_must_wake_somebody_has_a_rule() -> None:
    names = {rule["alert"] for rule in rules()}

    assert names >= {
        "TidewireDown", "TidewireRestarts", "MemoryIsShort", "DiskIsFull", "EventsAreNotTaken",
        "CollectorRefusesRequests", "ManyEventsAreRejected", "ProcessorFails", "PartitionStopped",
        "CustomerStageIsBehind", "CommitsAreStuck", "CheckpointIsSlow", "TimersAreLate", "SinkWaits", "SinkIsBehind",
        "TooManyParts", "ClickHouseRefusesRows", "ChannelIsDown", "MessagesAreUnknown",
    }  # fmt: skip


def test_every_panel_asks_for_what_is_reported() -> None:
    for panel in panels():
        assert panel["description"]
        for target in panel["targets"]:
            asked = Asked(target["expr"])
            assert asked.series, panel["title"]
            assert asked.unknown() == set(), panel["title"]
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            left = {label for label, _ in asked.labels} | {"job", "instance"}
            assert named <= left, panel["title"]


def test_the_board_shows_every_metric_of_ours() -> None:
    """All but those that others explain: labels alone, and the collector's sum of two it shows."""
    shown = set().union(*(Asked(target["expr"]).series for panel in panels() for target in panel["targets"]))
    left_out = {"tidewire_info", "tidewire_collector_received_events", "tidewire_disk_size_bytes",
                "tidewire_clickhouse_rows"}  # fmt: skip

    missing = {metric.name for metric in METRICS if metric.name.startswith("tidewire") and not shown & {*metric.series}}
    assert missing == left_out


def test_grafana_finds_its_board_and_its_source(compose: Any) -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    folder = yaml.safe_load((provisioning / "dashboards/tidewire.yml").read_text())["providers"][0]["options"]["path"]
    board = json.loads((ROOT / "deploy/grafana/dashboards/tidewire.json").read_text())

    mounted = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])

    assert source["url"] == "http://" + ":".join(listens_at(compose["services"]["prometheus"]))
    assert {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel} == {source["uid"]}
    assert mounted["./deploy/grafana/dashboards"] == folder
