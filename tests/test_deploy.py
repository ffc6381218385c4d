"""docker-compose.yml and deploy/ name only what exists. No engine runs them here, so what can be checked is checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from config.settings import PREFIX, Settings, load_settings
from sinks.clickhouse import SinkMetrics
from streams.cli.app import app
from streams.kafka_address import parse_address
from streams.metrics import StageMetrics
from web.collector.counters import Counters

ROOT = Path(__file__).parents[1]
OURS = "tidewire"  # the image
IN_THE_FILE_ENV = {"CLICKHOUSE_PASSWORD": "p1", "GRAFANA_PASSWORD": "p2"}  # what the operator writes into .env
METRICS = (StageMetrics, Counters, SinkMetrics)  # every class that declares some


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
    environment = in_image | {name: str(value) for name, value in service["environment"].items()}
    return load_settings(environ=environment | {"TIDEWIRE_CONFIG": "/nowhere"})


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
    for service in compose["services"].values():
        if service.get("network_mode") == "host":
            assert settings_of(service).host == "127.0.0.1"


def test_no_two_services_publish_the_same_port(compose: Any) -> None:
    published = [port.split(":")[1] for service in compose["services"].values() for port in service.get("ports", [])]
    on_the_machine = [service for service in compose["services"].values() if service.get("network_mode") == "host"]
    published += [str(settings_of(service).port) for service in on_the_machine]

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


@pytest.fixture(scope="module")
def metric_names() -> set[str]:
    """The name of every series that our processes offer."""
    registry = CollectorRegistry()
    for declare in METRICS:
        declare(registry)
    names = set()
    for metric in registry.collect():
        names |= {sample.name for sample in metric.samples} | {metric.name}
        if metric.type == "counter":
            names.add(f"{metric.name}_total")
        if metric.type == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def named_in(expression: str) -> set[str]:
    return set(re.findall(r"\btidewire_\w+", expression))


def test_every_metric_of_the_alerts_exists(metric_names: set[str]) -> None:
    alerts = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())

    rules = [rule for group in alerts["groups"] for rule in group["rules"]]

    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert named_in(rule["expr"]) <= metric_names, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "mend"}


def test_every_metric_of_the_board_exists(metric_names: set[str]) -> None:
    board = json.loads((ROOT / "deploy/grafana/dashboards/tidewire.json").read_text())

    panels = [panel for panel in board["panels"] if panel["type"] != "row"]

    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["description"]
        for target in panel["targets"]:
            named = named_in(target["expr"])
            assert named, panel["title"]
            assert named <= metric_names, panel["title"]


def test_prometheus_asks_services_at_the_port_they_listen_on(compose: Any) -> None:
    asked = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())

    targets = [target for job in asked["scrape_configs"] for of in job["static_configs"] for target in of["targets"]]

    for target in targets:
        name, port = target.split(":")
        settings = settings_of(compose["services"][name])
        assert (settings.host, str(settings.port)) == ("0.0.0.0", port)
    roles = {compose["services"][target.split(":")[0]]["command"][0] for target in targets}
    assert roles == {"collector", "worker", "sink"}


def test_grafana_finds_its_board_and_its_source(compose: Any) -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    folder = yaml.safe_load((provisioning / "dashboards/tidewire.yml").read_text())["providers"][0]["options"]["path"]
    board = json.loads((ROOT / "deploy/grafana/dashboards/tidewire.json").read_text())

    mounted = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])

    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel} == {source["uid"]}
    assert mounted["./deploy/grafana/dashboards"] == folder
