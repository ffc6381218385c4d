"""Settings: who wins, where a value came from, and what a mistake says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.settings import explain_settings, load_settings
from schemas.errors import ConfigError


def folder(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "tidewire.yaml").write_text(text)
    return {"config": str(tmp_path)}


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path):
    given = folder(tmp_path, "port: 1\npartitions: 2\nhost: file\n")

    settings = load_settings({**given, "port": 3}, {"TIDEWIRE_PORT": "2", "TIDEWIRE_PARTITIONS": "7"})

    assert (settings.port, settings.partitions, settings.host) == (3, 7, "file")


def test_each_value_names_its_place(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("hush\n")
    given = folder(tmp_path, "\n# comment\nfsync: false\n")

    settings, places = explain_settings(
        {**given, "data": None}, {"TIDEWIRE_PORT": "9", "TIDEWIRE_ANALYTICS_PASSWORD_FILE": str(secret)}
    )

    assert settings.analytics_password == "hush"
    assert places == {
        "config": "--config",
        "port": "TIDEWIRE_PORT",
        "analytics_password": "TIDEWIRE_ANALYTICS_PASSWORD_FILE",
        "fsync": f'{tmp_path}/tidewire.yaml, line 3, "fsync"',
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port: 8088\nport: [\n", r"tidewire\.yaml, line 3, column 1: this is not YAML"),
        ("- port\n", r"tidewire\.yaml, line 1: must hold settings as `name: value`"),
        ("host: a\nprot: 1\n", r'tidewire\.yaml, line 2, "prot": .*Settings are: data, '),
        ("\n\nport: high\n", r'tidewire\.yaml, line 3, "port": .*valid integer.*got high'),
        ("port: 1\nhost: a\nport: 2\n", r'tidewire\.yaml, line 3, "port": is set twice'),
        ("config: elsewhere\n", r'tidewire\.yaml, line 1, "config": is where this file was found'),
        ("log: 'embedded:'\n", r'tidewire\.yaml, line 1, "log": names no file; write embedded:PATH; got embedded:\.'),
        ("port: 99999\n", r'tidewire\.yaml, line 1, "port": .*65535.*got 99999'),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        load_settings(folder(tmp_path, text), {})

    assert re.search(says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_nobody_would_read_is_refused(tmp_path):
    (tmp_path / "write_key.yaml").write_text("keys: []\n")

    with pytest.raises(ConfigError, match=r'write_key\.yaml: is not read\. Did you mean "write_keys\.yaml"\?'):
        load_settings({"config": str(tmp_path)}, {})
    with pytest.raises(ConfigError, match=r"--config: .*nowhere is no folder"):
        load_settings({"config": str(tmp_path / "nowhere")}, {})
    with pytest.raises(ConfigError, match=r'TIDEWIRE_PROT: is no setting\. Did you mean "port"\? Settings are: data, '):
        load_settings(None, {"TIDEWIRE_PROT": "1"})
    with pytest.raises(ConfigError, match=r"TIDEWIRE_PORT_FILE: TIDEWIRE_PORT is set, too"):
        load_settings(None, {"TIDEWIRE_PORT": "1", "TIDEWIRE_PORT_FILE": "port"})


def test_variables_that_others_set_are_left_alone():
    by_kubernetes = {
        "TIDEWIRE_SERVICE_HOST": "host", "TIDEWIRE_SERVICE_PORT_HTTP": "80", "TIDEWIRE_PORT_80_TCP_ADDR": "10.0.0.1",
        "TIDEWIRE_SINK_PORT": "tcp://10.0.0.1:80",
    }  # fmt: skip

    settings = load_settings(None, {**by_kubernetes, "TIDEWIRE_DEBUG": "1", "TIDEWIRE_TEST_KAFKA": "127.0.0.1:9"})

    assert settings == load_settings(None, {})


def test_a_secret_that_is_no_text_is_not_shown(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_settings(folder(tmp_path, "analytics_password: 271828\n"), {})

    assert "valid string" in str(caught.value)
    assert "271828" not in str(caught.value)


def test_a_bad_variable_is_named():
    with pytest.raises(ConfigError, match=r"TIDEWIRE_PORT: .*got http"):
        load_settings(None, {"TIDEWIRE_PORT": "http"})


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"TIDEWIRE_LOG_PASSWORD_FILE: .*binary is not UTF-8 text"):
        load_settings(None, {"TIDEWIRE_LOG_PASSWORD_FILE": str(binary)})
    with pytest.raises(ConfigError, match=r"TIDEWIRE_ANALYTICS_PASSWORD_FILE: cannot read /nowhere: No such file"):
        load_settings(None, {"TIDEWIRE_ANALYTICS_PASSWORD_FILE": "/nowhere"})
