"""docs/templates.md and docs/schemas/template.json say what the code does."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import yaml

from config.channels import Channels, ChannelSettings
from config.templates import MOST_TEMPLATES, RESERVED, read_templates
from config.yaml_file import LARGEST_BYTES
from docs.schemas.generate import TEMPLATE, template_content
from schemas.errors import ConfigError
from schemas.messages import WHY_WITHHELD, State
from schemas.templates import LONGEST_SMS, PARTS
from schemas.times import DAY_MS
from sinks.messages.templating import (
    _ADDRESSES,
    _SCHEMES,
    FILTERS,
    LARGEST,
    LONGEST_SOURCE,
    LOOP,
    MOST_ROUNDS,
    MOST_WORK,
    TESTS,
)
from streams.messages import FIRST_PAUSE_MS, LEASE_MS, LONGEST_PAUSE_MS, REMEMBER_S
from streams.ordering import EXPIRES_MS
from streams.templates import LARGEST_TOGETHER_BYTES
from streams.texts import MOST_VERSIONS
from tests.messages.test_files import GOOD, read_text

CONFIG = Path("config")
PAGE = Path("docs/templates.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
CALL = textwrap.dedent(PAGE.partition("## Calls")[2].partition("text` is JSON:\n\n")[2].partition("\n\n**Every")[0])
INBOX = re.findall(r"```yaml\n(.*?)```", Path("docs/inbox.md").read_text(encoding="utf-8"), re.DOTALL)[1]
SCHEMA = jsonschema_rs.validator_for(json.loads(TEMPLATE.read_text(encoding="utf-8")))


def test_the_example_of_the_page_can_be_filled_in(tmp_path: Path) -> None:
    template = read_text(EXAMPLE, tmp_path)
    ada = {"profile": {"name": "Ada"}, "orders": {"products": [{}, {}]}}

    message = template.render(ada, {"coupon": "A&1"})

    assert (message.subject, message.preheader) == ("Ada, your basket is waiting", "2 things that you like")
    assert message.text == "Hello Ada,\n\nyour coupon is A&1.\n"
    assert '<a href="https://shop.test/basket?code=A%261">Take A&amp;1</a>' in message.html
    assert '<p style="font-size: 16px;">Hello Ada</p>' in message.html
    assert "coupon" not in template.render({}).text


def test_the_page_names_every_filter_test_and_limit() -> None:
    told = set(re.findall(r"`([a-z]+)(?:\([^`]*\))?(?::[^`]*)?`", PAGE))
    assert set(FILTERS) <= told
    assert {f"is {test}" for test in TESTS} <= set(re.findall(r"`(is [a-z]+)`", PAGE))
    assert all(f"`.{name}`" in PAGE or f"`loop.{name}`" in PAGE for name in LOOP if not re.search(r"0|rev", name))
    assert all(f"`{part}`" in PAGE for part in PARTS)
    for limit in (f"{LONGEST_SOURCE:,} characters", f"{MOST_WORK // 1_000_000} million steps", f"{LARGEST // 1024} kB",
                  f"at most {MOST_ROUNDS} entries", f"{LONGEST_SMS:,} characters"):  # fmt: skip
        assert limit in " ".join(PAGE.split())
    together = f"{LARGEST_BYTES // 1024} kB each and {LARGEST_TOGETHER_BYTES // 1024**2} MB together"
    bounds = f"at most {MOST_TEMPLATES:,} templates, {together}; of each the newest {MOST_VERSIONS} versions are kept"
    assert bounds in " ".join(PAGE.split()) and all(f"`{name}`" in PAGE for name in RESERVED)
    assert all(f"`{scheme}`" in PAGE for scheme in _SCHEMES)
    assert {"href", "src"} <= _ADDRESSES


def test_the_schema_is_what_the_models_say() -> None:
    assert TEMPLATE.read_text(encoding="utf-8") == template_content(), "run: python -m docs.schemas.generate"


def test_the_schema_takes_what_tidewire_takes() -> None:
    files = [file.read_text(encoding="utf-8") for file in sorted((CONFIG / "templates").glob("*.yaml"))]
    assert len(files) == len(read_templates(CONFIG, "UTC")) > 2

    for text in [*files, EXAMPLE, INBOX, CALL, GOOD]:
        SCHEMA.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "change",
    [
        {"channel": "fax"}, {"kind": "spam"}, {"topic": ""}, {"kind": "transactional"}, {"content": {}}, {"more": 1},
        {"content": {"english": {"subject": "a", "text": "a"}}}, {"content": {"en": {"text": "a"}}},
        {"content": {"en": {"subject": "a"}}}, {"content": {"en": {"subject": "a", "text": ""}}}, {"channel": "sms"},
        {"content": {"en": {"subject": "a", "text": "a", "preheader": "a"}}}, {"title": "a"}, {"title": {"en": 1}},
        {"content": {"en": {"subject": "a", "text": "a", "link": "https://a"}}},
        {"channel": "call", "content": {"en": {"text": "1"}}},
        *({"channel": "call", "kind": "transactional", "topic": "", "content": {"en": {"text": "1", part: said}}}
          for part, said in {"subject": "a", "html": "a", "preheader": "a", "link": "https://a",
                             "approved": {"id": "a"}}.items()),
        {"channel": "inbox", "content": {"en": {"text": "a"}}},
        {"channel": "inbox", "content": {"en": {"subject": "a", "text": "a", "html": "a", "preheader": "a"}}},
        {"channel": "inbox", "content": {"en": {"subject": "a", "text": "a", "approved": {"id": "a"}}}},
    ],
)  # fmt: skip
def test_both_refuse_the_same(change: dict[str, Any], tmp_path: Path) -> None:
    said = {**yaml.safe_load(GOOD), **change}

    assert not SCHEMA.is_valid(said)
    with pytest.raises(ConfigError):
        read_text(json.dumps(said), tmp_path)


def test_the_page_of_messages_says_what_the_code_does() -> None:
    page = Path("docs/messages.md").read_text(encoding="utf-8")
    without_file, example = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)

    assert yaml.safe_load(without_file) == Channels().model_dump(exclude_none=True)
    assert Channels.model_validate(yaml.safe_load(example)).email.via == "smtp"
    begins = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
    states = begins.findall(page.partition("## What becomes")[2].partition("Each state")[0])
    assert set(states) == set(get_args(State)) and len(states) == len(set(states))
    keys = begins.findall(page.partition("| key |")[2].partition("| `via` | of |")[0])
    assert set(ChannelSettings.model_fields) == set(keys)
    assert all(f"`{why}`" in page for why in WHY_WITHHELD)
    assert (REMEMBER_S, LEASE_MS, FIRST_PAUSE_MS, LONGEST_PAUSE_MS) == (400 * 86_400, 180_000, 30_000, 3_600_000)
    assert EXPIRES_MS == {"marketing": DAY_MS, "transactional": 3 * DAY_MS}
