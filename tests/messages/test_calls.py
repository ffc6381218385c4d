"""Calls: what other programs are told of somebody is JSON, whatever she calls herself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from config.channels import CallSettings, Channels, read_channels
from config.settings import Settings
from schemas.errors import ConfigError
from schemas.messages import ADDRESSES, Order, address_of
from schemas.templates import TemplateFile
from sinks.messages.keeping import KeepingChannel
from sinks.messages.rendering import Template, WrongPart, compile_template
from sinks.messages.templating import CannotFill
from sinks.messages.webhook import WebhookChannel, WebhookSettings
from streams.channels import open_channels
from streams.dispatch import Dispatcher
from streams.messages import Attempt
from streams.metrics import DispatchMetrics
from streams.suppressions import Suppressions
from tests.messages.receiver import Receiver, Says, receiver
from tests.messages.test_dispatch import ADA, T0, FakeLog
from tests.messages.test_docs import CALL
from tests.messages.test_files import read_text
from tests.messages.test_webhook import SECRET

ID = "5b1f0c9d7e3a4c6f8d2b0a9e7c5f3d1b"
HOSTILE = st.text('"\\\\{}[]:,<>\'/ \n\x00\u2028ab王😀', max_size=30) | st.sampled_from(
    ['", "is_admin": true, "x": "', '"}, {"a": "', "\\", "</script>", "{{ profile }}", ",1,", "null", "1e999"]
)  # fmt: skip
VALUES = st.recursive(
    HOSTILE | st.none() | st.booleans() | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3), max_leaves=6,
)  # fmt: skip


def call(text: str) -> Template:
    said = {"channel": "call", "kind": "transactional", "content": {"en": {"text": text}}}
    return compile_template("told", TemplateFile.model_validate(said), "UTC")


FORMS = call("""
{
  "a": {{ given.a | json }},
  "all": [{% for each in given.some %}{{ each | json }}{% if not loop.last %}, {% endif %}{% endfor %}],
  {% if given.b %}
  "b": {"\\"quoted\\\\": {{ given.b | json }}}
  {% else %}
  "c": 1
  {% endif %},
  {{ given.key | default("-") | json }}: 2
}""")


@given(VALUES, VALUES, st.lists(VALUES, max_size=3), HOSTILE)
def test_whatever_somebody_says_stays_one_value(a: Any, b: Any, some: list[Any], key: str) -> None:
    read = json.loads(FORMS.render({}, {"a": a, "b": b, "some": some, "key": f"key {key}"}).text)

    told = {"b": {'"quoted\\': b}} if b else {"c": 1}
    assert read == {"a": a, "all": some, **told, f"key {key}": 2}


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('{"a": {{ profile.name }}}', 1, "not written as JSON"),
        ('{"a": "{{ profile.name }}"}', 1, "within quotes"),
        ('["{{ profile.name | json }}"]', 1, "within quotes"),
        ('{"a": {{ profile.name | json | upper }}}', 1, "not written as JSON"),
        ('{"a":\n  {{ profile.name | json if profile.name else 1 }}}', 2, "not written as JSON"),
        ('{"a": {% if given.a %}"{% endif %}{{ given.b | json }}}', 1, "on some of its ways only"),
        ('[{% for x in given.a %}"{% endfor %}]', 1, "on some of its ways only"),
        ('{"a\\{# #}": {{ given.b | json }}, "c": 1}', 1, "behind a backslash"),
        ('{"a": {{ given.b | json }}, "c}', 1, "ends within quotes"),
        ('{"a": {{ given.b | json }}', 1, "it is no JSON"),
        ("Ring her", 1, "it is no JSON"),
    ],
)
def test_what_could_become_more_than_a_value_is_refused_when_it_is_saved(text: str, line: int, told: str) -> None:
    with pytest.raises(WrongPart) as wrong:
        call(text)

    assert (wrong.value.path, wrong.value.line) == (("content", "en", "text"), line)
    assert told in wrong.value.what


def test_what_is_no_json_once_it_is_filled_in_is_not_sent() -> None:
    with pytest.raises(CannotFill, match=r"content\.en: it is no JSON: "):
        call('{"a": 1{% if given.b %}, "b"{% endif %}}').render({}, {"b": 1})


def test_the_example_of_the_page_tells_what_is_known(tmp_path: Path) -> None:
    template = read_text(CALL, tmp_path)

    told = json.loads(template.render({"profile": {"user_id": "u-17"}}, {"cart": {"id": "c-9"}}).text)

    assert told == {"what": "ring her", "user": "u-17", "orders": 0, "cart": {"id": "c-9"}}
    assert (template.channel, template.kind, template.topic) == ("call", "transactional", "")


def test_no_address_can_be_missing_and_no_list_holds_it_back() -> None:
    assert address_of("call", "shop/u:u-17", None) == "u-17" and "call" not in ADDRESSES


def test_it_stays_in_the_outbox_until_a_receiver_is_named(tmp_path: Path) -> None:
    log, settings = FakeLog(), Settings(webhook_secrets=SECRET)
    _, kept = open_channels(Channels(), log, settings)["call"]  # type: ignore[arg-type]
    (tmp_path / "channels.yaml").write_text("call:\n  via: webhook\n  webhook: {url: https://crm.shop.example/hook}\n")
    said, told = open_channels(read_channels(tmp_path), log, settings)["call"]  # type: ignore[arg-type]

    assert isinstance(kept, KeepingChannel) and isinstance(told, WebhookChannel) and said.via == "webhook"
    for wrong, what in (("{via: webhook}", "needs a part `webhook:`"), ("{via: smtp}", "outbox"),
                        ("{via: webhook, webhook: {url: http://10.0.0.1/}}", "url")):  # fmt: skip
        (tmp_path / "channels.yaml").write_text(f"call: {wrong}\n")
        with pytest.raises(ConfigError, match=what):
            read_channels(tmp_path)


async def told_twice(there: Receiver, tmp_path: Path) -> None:
    """One call, tried again by a stage that has not heard the answer."""
    log = FakeLog()
    settings = CallSettings(via="webhook", webhook=WebhookSettings(url=there.url, allow=there.allow), rate=10_000)
    channel = open_channels(Channels(call=settings), log, Settings(webhook_secrets=SECRET))["call"]  # type: ignore[arg-type]
    read = read_text(CALL, tmp_path)
    dispatcher = Dispatcher(
        log,
        {"call": channel},
        lambda name: read,
        Suppressions(log),  # type: ignore[arg-type]
        DispatchMetrics(CollectorRegistry()),
    )
    dispatcher.start(lambda error: pytest.fail(repr(error)))
    order = Order(to=ADA, id=ID, template="ring_her", channel="call", kind="transactional", at_ms=T0,
                  expires_ms=T0 + 60_000, given={"cart": '", "user": "root'})  # fmt: skip
    try:
        for attempt in (1, 2):
            dispatcher.then([Attempt(order, attempt, ADA, msgspec.Raw(b'{"profile": {"user_id": "ada"}}'), T0)])
            await log.until(lambda: len(log.outcomes()) == attempt)  # noqa: B023
    finally:
        await dispatcher.stop()
    assert [(outcome.result, outcome.via) for outcome in log.outcomes()] == [("later", "webhook"),
                                                                            ("accepted", "webhook")]  # fmt: skip
    assert log.outcomes()[1].reference == "r-1"


async def test_a_program_is_told_signed_under_one_id_however_often(tmp_path: Path) -> None:
    async with receiver(Says(500), Says(200, '{"id": "r-1"}')) as there:
        await told_twice(there, tmp_path)

    assert [request.headers["webhook-id"] for request in there.requests] == [ID, ID]
    assert all(request.headers["webhook-signature"].startswith("v1,") for request in there.requests)
    assert json.loads(there.requests[0].body) == {
        "type": "call", "id": ID, "person": ADA, "template": "ring_her", "language": "en",
        "data": {"what": "ring her", "user": "ada", "orders": 0, "cart": '", "user": "root'},
    }  # fmt: skip
    assert there.requests[0].body == there.requests[1].body
