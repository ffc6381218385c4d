"""Templates as files: what is wrong is said with its line, and the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.templates import MOST_TEMPLATES, parse_template, read_templates, read_texts
from schemas.errors import ConfigError
from sinks.messages.rendering import Template
from sinks.messages.templating import CannotFill
from streams.cli.app import app

CONFIG = Path("config")
GOOD = """\
channel: email
kind: marketing
topic: offers
content:
  en:
    subject: Hi {{ profile.name | default("you") }}
    text: |
      Hello,

      {{ given.offer }}
"""


def read_text(text: str, folder: Path, name: str = "tried") -> Template:
    return parse_template(name, text, folder, "UTC")


def test_the_files_that_come_with_tidewire_are_right_and_fill_in_for_who_is_barely_known() -> None:
    barely = {"profile": {"email": "a@example.com", "name": "", "locale": ""}, "orders": {}, "visits": {}}
    hers = {"win_back": {"code": "BACK-7KXQ2M9TRC", "worth": 15, "unit": "%", "expires": "2026-03-01T00:00:00.000Z"}}

    for name, template in read_templates(CONFIG, "UTC").items():
        of_coupon = any(asked.startswith("coupon.") for _, asked, _ in template.asked)
        message = template.render(barely | ({"coupon": hers} if of_coupon else {}), {"order_id": "1"})
        if of_coupon:
            with pytest.raises(CannotFill, match=r"coupon\.win_back\.\w+ is missing"):
                template.render(barely, {"order_id": "1"})
        assert message.text.strip(), name
        assert template.title["en"] and template.title["zh"] and template.about, name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("      {{ given.offer }}", "      {{ given.offer | uper }}"),
         'tried.yaml:10: "content.en.text": there is no filter "uper".'),
        (('{{ profile.name | default("you") }}', "{{ profil.name }}"),
         'tried.yaml:6: "content.en.subject" asks for "profil.name", and there is no processor "profil". '
         'Did you mean "profile"?'),
        (("{{ given.offer }}", "{{ profile.nam }}"), 'tried.yaml:10: "content.en.text" asks for "profile.nam", and '
         'processor "profile" shows nothing of that name. Did you mean "profile.name"?'),
        (("channel: email", "channel: fax"), """tried.yaml:1: "channel": """),
        (("kind: marketing", "kind: spam"), """tried.yaml:2: "kind": """),
        (("topic: offers\n", ""), "a marketing message needs a topic: what people consent to"),
        (("kind: marketing", "kind: transactional"), "a transactional message asks for no consent, so it has no topic"),
        (("    subject:", "    subjct:"), """tried.yaml:6: "content.en.subjct": """),
        (("  en:", "  english:"), "content"),
        (("    text: |", "    html: |"), '"content.en.text": is missing'),
        (('Hi {{ profile.name | default("you") }}', "''"), "a mail needs a subject (content.en)"),
        (("channel: email", "channel: sms"), "an SMS has no subject, preheader or html (content.en)"),
        (("    text: |", "    preheader: a\n    text: |"), "a preheader needs html (content.en)"),
        ((GOOD, "[]"), "holds no template. Write `channel:`, `kind:` and `content:`."),
        (("content:", "more: 1\ncontent:"), 'tried.yaml:4: "more": no such key here; got 1. It may hold title, about'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(change: tuple[str, str], told: str, tmp_path: Path) -> None:
    read_text(GOOD, tmp_path, "good")
    assert GOOD.count(change[0]) == 1

    with pytest.raises(ConfigError) as wrong:
        read_text(GOOD.replace(*change), tmp_path)

    assert told in str(wrong.value)


@pytest.mark.parametrize("name", ["Tried", "a b", "", "a" * 64])
def test_a_name_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a template"):
        read_text(GOOD, tmp_path, name)


def test_addresses_of_pages_are_no_names(tmp_path: Path) -> None:
    for name in ("new", "apply"):
        with pytest.raises(ConfigError, match="It is the address of a page"):
            read_text(GOOD, tmp_path, name)


def test_files_are_few_and_end_as_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "templates").mkdir()
    for name in ("one", "two"):
        (tmp_path / "templates" / f"{name}.yaml").write_text(GOOD)
    assert read_texts(tmp_path) == {"one": GOOD, "two": GOOD}

    monkeypatch.setattr("config.templates.MOST_TEMPLATES", 1)

    assert MOST_TEMPLATES > 1
    with pytest.raises(ConfigError, match="holds 2 templates; at most 1"):
        read_texts(tmp_path)


def test_the_commands_list_and_check(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "offer.yaml").write_text(GOOD)
    run = CliRunner().invoke

    listed = run(app, ["templates", "list", "--json", "--config", str(tmp_path), "--data", str(tmp_path / "none")])
    checked = run(app, ["templates", "check", "--config", str(tmp_path)])

    assert json.loads(listed.stdout) == {"template": "offer", "channel": "email", "kind": "marketing",
                                         "topic": "offers", "languages": ["en"]}  # fmt: skip
    assert checked.stdout == "offer: asks for given.offer, profile.name\n"
    (tmp_path / "templates" / "other.yml").write_text(GOOD)
    refused = run(app, ["templates", "check", "--config", str(tmp_path)])
    assert refused.exit_code != 0 and "Let its name end with .yaml." in str(refused.exception)


def test_a_file_that_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "good.yaml").write_text(GOOD)
    (folder / "bad.yaml").write_text(GOOD.replace("offers\n", "[]\n"))

    with pytest.raises(ConfigError, match=r'templates/bad\.yaml:3: "topic"'):
        read_templates(tmp_path, "UTC")
