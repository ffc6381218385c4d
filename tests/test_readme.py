"""What the README shows works: its examples are run against a Tidewire of their own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.cli.app import app
from tests.faults.machine import WRITE_KEY, Process, free_port, tidewire

README = Path("README.md").read_text()
HERE = "http://127.0.0.1:8088"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README.partition("## Let things happen")[0], re.DOTALL)
    return str(found)


def line_with(text: str) -> str:
    (found,) = [line.strip() for line in README.splitlines() if text in line and line.startswith("    ")]
    return found.split("  #")[0].strip()


@pytest.mark.slow
def test_the_examples_lead_to_a_person_who_is_known(tmp_path: Path):
    (tmp_path / "config" / "segments").mkdir(parents=True)
    of_config = {"TIDEWIRE_CONFIG": str(tmp_path / "config")}
    up = Process("up", data=tmp_path / "shop", port=free_port(), settings=of_config)
    up.start()
    up.ready()
    try:
        example = block("python").replace(HERE, up.url).replace("WRITE_KEY", WRITE_KEY)
        subprocess.run([sys.executable, "-W", "ignore", "-c", example], check=True, timeout=60)
        curl = line_with("curl -u").replace(HERE, up.url).replace("WRITE_KEY", WRITE_KEY)
        assert shutil.which("curl")
        done = subprocess.run([*shlex.split(curl), "-s"], capture_output=True, text=True, check=True, timeout=30)
        assert json.loads(done.stdout) == {"success": True}

        person = shlex.split(line_with("tidewire person"))[2]
        until = time.monotonic() + 30
        while True:
            try:
                shown = tidewire("person", person, "--json", "--data", str(up.data))
                if '"19.9' in shown:
                    break
            except AssertionError:  # not yet known
                pass
            assert time.monotonic() < until, up.told()
            time.sleep(0.3)
        sql = shlex.split(line_with("tidewire sql"))[2]
        while True:
            rows = [json.loads(row) for row in tidewire("sql", sql, "--json", "--data", str(up.data)).splitlines()]
            if len(rows) == 3:
                break
            assert time.monotonic() < until, rows  # her page knows what came before ClickHouse does
            time.sleep(0.3)
        assert {row["event"] for row in rows} == {"Identify", "Order Completed", "Signed Up"}

        (name,) = re.findall(r"`config/segments/(\w+)\.yaml`", README)
        (tmp_path / "config" / "segments" / f"{name}.yaml").write_text(block("yaml"))
        lines = re.findall(r"^    tidewire (segments [^#\n]+)", README, re.M)
        told = {line.split()[1]: line.split() for line in lines}
        assert list(told) == ["check", "apply", "list", "why", "verify"]
        tidewire(*told["apply"], "--data", str(up.data))
        tidewire(*told["verify"], "--data", str(up.data))  # waits until it is live
        for command in told.values():  # each ends with exit code 0: of `why`, she is in it; of `verify`, nobody differs
            data = () if command[1] == "check" else ("--data", str(up.data))
            said = tidewire(*command, *data, settings=of_config)
            assert name in said or command[1] == "apply", said
        (proof,) = tidewire("segments", "verify", "--json", "--data", str(up.data)).splitlines()
        assert json.loads(proof)["members"] == json.loads(proof)["sql_members"] == 1
    finally:
        assert up.stop() == 0, up.told()


def test_every_command_it_names_exists():
    import typer.main

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    named = set(re.findall(r"(?:^| |`|/)tidewire ([a-z]+)", README))
    assert named <= set(commands), named - set(commands)
    assert len(named) > 8


def test_every_page_it_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or Path(target).exists(), target
