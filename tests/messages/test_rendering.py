"""A whole message for one person: its language, its subject, its HTML."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.templates import LONGEST_SMS, TemplateFile
from sinks.messages.rendering import LONGEST_SUBJECT, Template, compile_template
from sinks.messages.templating import CannotFill

ADA: dict[str, Any] = {"profile": {"name": "Ada & Bob", "locale": "en-GB"}}
STYLES = "<style>p { color: red } @media print { p { color: blue } }</style>"
HTML = f"<html><head>{STYLES}</head><body class='a'><p>Hi</p></body></html>"


def template(**content: str) -> Template:
    return of_languages({"en": {"subject": "S", "text": "T", **content}})


def of_languages(content: dict[str, dict[str, str]]) -> Template:
    said = TemplateFile.model_validate({"channel": "email", "kind": "transactional", "content": content})
    return compile_template("test", said, "UTC")


def test_only_html_escapes() -> None:
    name = "{{ profile.name }}"

    message = template(subject=name, text=name, html=f"<p>{name}</p>").render(ADA)

    assert message.subject == message.text == "Ada & Bob"
    assert "<p>Ada &amp; Bob</p>" in message.html


def test_what_comes_with_the_order_is_given() -> None:
    assert template(text="{{ given.coupon }}").render(ADA, {"coupon": "A1"}).text == "A1"

    with pytest.raises(CannotFill, match=r"content\.en\.text: line 1: given\.coupon is missing"):
        template(text="{{ given.coupon }}").render(ADA)


def test_a_message_has_addresses_of_its_own_and_a_preview_has_examples() -> None:
    leave = template(text="{% if message.unsubscribe %}{{ message.unsubscribe }}{% endif %}|{{ message.preferences }}")
    own = {"unsubscribe": "https://go.test/u", "preferences": "https://go.test/p"}

    assert leave.render(ADA, message=own).text == "https://go.test/u|https://go.test/p"
    assert leave.render(ADA, message={**own, "unsubscribe": ""}).text == "|https://go.test/p"
    assert leave.render(ADA).text == "https://shop.example/unsubscribe|https://shop.example/preferences"
    with pytest.raises(CannotFill, match=r"message\.preferences is missing"):
        leave.render(ADA, message={})


@pytest.mark.parametrize(
    ("locale", "read"),
    [("zh-CN", "zh"), ("zh_TW", "zh_TW"), ("zh-tw", "zh_TW"), ("zh", "zh"), ("EN-us", "en"), ("fr", "en"), ("", "en"),
     (None, "en"), (5, "en"), ("z", "en")],
)  # fmt: skip
def test_everybody_reads_her_own_language_where_there_is_one(locale: object, read: str) -> None:
    several = of_languages({name: {"subject": name, "text": name} for name in ("en", "zh", "zh_TW")})

    message = several.render({"profile": {"locale": locale}})

    assert (message.language, message.text) == (read, read)


def test_of_whom_nothing_is_known_reads_the_first_language() -> None:
    assert template().render({}).language == "en"


@pytest.mark.parametrize(
    "name",
    ["A\r\nBcc: x@example.com", "A\nB", "A\rB", "A\x00B", "A\x0bB", "A\x85B", "A\u2028B",
     "A =?UTF-8?Q?=0A?=Bcc: x@example.com", "=?utf-8?b?QQ==?="],
)  # fmt: skip
def test_a_subject_is_one_header_and_nothing_else(name: str) -> None:
    with pytest.raises(CannotFill, match="the subject holds"):
        template(subject="Hi {{ profile.name }}!").render({"profile": {"name": name}})


def test_a_subject_may_stand_in_lines_of_its_own_and_be_in_any_script() -> None:
    message = template(subject="\n  {{ profile.name }}，您好 🎁\n").render({"profile": {"name": "王"}})
    assert message.subject == "王，您好 🎁"

    with pytest.raises(CannotFill, match="at most 500"):
        template(subject="{{ profile.name }}").render({"profile": {"name": "A" * (LONGEST_SUBJECT + 1)}})


def test_styles_are_written_into_tags_and_those_of_media_stay() -> None:
    html = template(html=HTML).render(ADA).html

    assert '<p style="color: red;">Hi</p>' in html
    assert "@media print" in html


@pytest.mark.parametrize("html", [HTML, "<p>Hi</p>"])
def test_a_preheader_is_there_and_not_seen(html: str) -> None:
    message = template(preheader="For {{ profile.name }}\nonly", html=html).render(ADA)

    hidden = message.html.index("For Ada &amp; Bob only</div>")
    assert "display:none" in message.html.replace(" ", "")[:hidden]
    assert hidden < message.html.index("Hi</p>")


def test_no_style_is_fetched() -> None:
    with pytest.raises(Exception, match="<link>"):
        template(html="<link rel='stylesheet' href='http://127.0.0.1:9/a.css'><p>Hi</p>")


def test_an_sms_is_as_long_as_one_may_be() -> None:
    said = {"channel": "sms", "kind": "transactional", "content": {"en": {"text": "{{ given.text }}"}}}
    sms = compile_template("test", TemplateFile.model_validate(said), "UTC")
    assert sms.render({}, {"text": "a" * LONGEST_SMS}).text == "a" * LONGEST_SMS

    with pytest.raises(CannotFill, match="an SMS at most 1,600"):
        sms.render({}, {"text": "a" * (LONGEST_SMS + 1)})
