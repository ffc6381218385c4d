"""SMS: numbers and parts, approved texts, and how Twilio, Aliyun and Tencent Cloud are asked and understood."""

from __future__ import annotations

import doctest
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest
import yaml
from pydantic import ValidationError

from config.channels import Channels
from schemas.errors import ConfigError
from schemas.templates import LONGEST_SMS, ApprovedText, TemplateFile
from sinks.messages import guarded_http
from sinks.messages import sms as sms_module
from sinks.messages.channel import Accepted, Channel, Declined, Later, Message, Outcome, Unknown
from sinks.messages.guarded_http import GuardedHttp
from sinks.messages.rendering import Approved, Rendered, Template, WrongPart, compile_template
from sinks.messages.signing import acs3, tc3
from sinks.messages.sms import segments_of, wrong_number
from sinks.messages.sms_approved import AliyunChannel, AliyunSettings, TencentChannel, TencentSettings
from sinks.messages.sms_twilio import TwilioChannel, TwilioSettings
from sinks.messages.templating import CannotFill
from tests.messages.receiver import ID, Receiver, Says, message, receiver, speaker
from tests.messages.test_docs import SCHEMA

NOW_S = 1_800_000_000
ACCOUNT = "AC" + "0" * 32
SECRET = "a-secret"
PAGE = Path("docs/sms.md").read_text(encoding="utf-8")


def sms(to: str = "+8613800138000", text: str = "Hello Ada", sign: str = "潮线") -> Message:
    approved = Approved("SMS_1", sign, {"name": "Ada & 王", "order": "A 1"})
    return message(to, content=Rendered("zh", "", "", text, "", approved))


def twilio(there: Receiver, **settings: Any) -> Channel:
    said = TwilioSettings(url=there.url, allow=there.allow, **{"account": ACCOUNT, "sender": "Shop", **settings})
    return TwilioChannel(said, SECRET, http=GuardedHttp(there.allow, timeout_s=0.2), clock=lambda: NOW_S)


def aliyun(there: Receiver) -> Channel:
    said = AliyunSettings(url=there.url, allow=there.allow, key_id="LTAI0123456789", sign="我们")
    return AliyunChannel(said, SECRET, http=GuardedHttp(there.allow, timeout_s=0.2), clock=lambda: NOW_S)


def tencent(there: Receiver) -> Channel:
    said = TencentSettings(url=there.url, allow=there.allow, key_id="AKID0123456789", app="1400006666", sign="我们")
    return TencentChannel(said, SECRET, http=GuardedHttp(there.allow, timeout_s=0.2), clock=lambda: NOW_S)


async def say(channel: Channel, told: Message) -> Outcome:
    try:
        return await channel.send(told)
    finally:
        await channel.close()


# --- numbers and parts


@pytest.mark.parametrize(
    ("text", "segments"),
    [("", 1), ("a" * 160, 1), ("a" * 161, 2), ("a" * 306, 2), ("a" * 307, 3), ("€" * 80, 1), ("€" * 81, 2),
     ("a" * 152 + "€" + "a" * 152, 3), ("您" * 70, 1), ("您" * 71, 2), ("您" * 134, 2), ("a" * 159 + "ê", 3),
     ("👍" * 35, 1), ("👍" * 66, 2), ("👍" * 67, 3)],
)  # fmt: skip
def test_how_many_messages_a_text_is(text: str, segments: int) -> None:
    assert segments_of(text) == segments


@pytest.mark.parametrize(
    "to", ["", "13800138000", "+0138001380", "+86 138 0013 8000", "+861380013800012345", "+86138001380\n", "+٨٦١٣٨٠٠١"]
)
async def test_what_is_no_number_reaches_nobody(to: str) -> None:
    async with receiver(Says()) as there:
        for channel in (twilio(there), aliyun(there), tencent(there)):
            said = await say(channel, sms(to))
            assert isinstance(said, Declined) and said.is_address and "E.164" in said.why

    assert there.requests == [] and wrong_number("+8613800138000") is None


# --- approved texts


def template(approved: Any, text: str = "T", channel: str = "sms") -> Template:
    content = {"zh": {"subject": "S" if channel == "email" else "", "text": text, "approved": approved}}
    said = {"channel": channel, "kind": "transactional", "content": content}
    return compile_template("test", TemplateFile.model_validate(said), "UTC")


def test_the_parameters_of_an_approved_text_are_filled_in() -> None:
    two = template({"id": "SMS_1", "parameters": {"b": " {{ profile.name }}\n", "a": "{{ given.n | number }}"}}, "Hi")

    filled = two.render({"profile": {"name": "Ada & Bob"}}, {"n": 1234})

    assert filled.approved == Approved("SMS_1", "", {"b": "Ada & Bob", "a": "1,234"}) and filled.text == "Hi"
    assert list(filled.approved.parameters) == ["b", "a"]
    assert {path for path, *_ in two.asked} == {("content", "zh", "approved", "parameters", each) for each in "ab"}
    assert template(None).render({}).approved is None
    assert template({"id": "A"}).version != template({"id": "B"}).version != template(None).version


def test_what_is_missing_in_a_parameter_is_not_sent_and_what_is_long_is_not() -> None:
    one = template({"id": "1", "parameters": {"name": "{{ given.name }}"}})

    with pytest.raises(CannotFill, match=r"content\.zh\.approved\.parameters\.name: line 1: given\.name is missing"):
        one.render({})
    with pytest.raises(CannotFill, match="1,601 characters, an SMS at most 1,600"):
        one.render({}, {"name": "a" * (LONGEST_SMS + 1)})


def test_an_approved_text_that_cannot_be_is_refused() -> None:
    with pytest.raises(WrongPart, match="calls something") as wrong:
        template({"id": "1", "parameters": {"name": "{{ a() }}"}})
    assert wrong.value.path == ("content", "zh", "approved", "parameters", "name")
    for approved in ({"id": "a b"}, {"id": ""}, {"id": "1", "parameters": {"a.b": "c"}}, {"id": "1", "more": 1},
                     {"id": "1", "parameters": {"a": ""}}, {"id": "1", "parameters": {str(n): "a" for n in range(21)}}):
        with pytest.raises(ValidationError):
            template(approved)
    with pytest.raises(ValidationError, match="a mail has no approved text"):
        template({"id": "1"}, channel="email")


async def test_a_template_without_one_is_not_sent_where_one_must_be() -> None:
    async with receiver(Says()) as there:
        for channel in (aliyun(there), tencent(there)):
            said = await say(channel, message("+8613800138000"))
            assert isinstance(said, Declined) and not said.is_address
            assert '"hello" names no approved text in language en; write content.en.approved' in said.why

    assert there.requests == []


# --- Twilio


async def test_twilio_is_asked_with_a_form() -> None:
    answer = Says(201, json.dumps({"sid": "SM1", "status": "queued", "error_code": None}))
    service = "MG" + "1" * 32
    async with receiver(answer) as there:
        assert await say(twilio(there), sms(text="Hi & 您\n")) == Accepted("SM1")
        more = twilio(there, sender=service, api_key="SK" + "2" * 32, status_callback="https://shop.example/sms")
        await say(more, sms())

    first, second = there.requests
    assert first.path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    assert first.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert b64decode(first.headers["Authorization"].removeprefix("Basic ")).decode() == f"{ACCOUNT}:{SECRET}"
    assert parse_qs(first.body.decode()) == {"To": ["+8613800138000"], "From": ["Shop"], "Body": ["Hi & 您"]}
    assert b64decode(second.headers["Authorization"].removeprefix("Basic ")).decode() == f"SK{'2' * 32}:{SECRET}"
    assert parse_qs(second.body.decode()) == {
        "To": ["+8613800138000"], "MessagingServiceSid": [service], "Body": ["Hello Ada"],
        "StatusCallback": ["https://shop.example/sms"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, 21211, Declined("Twilio, error 21211: no", is_address=True)),
        (400, 21610, Declined("Twilio, error 21610: no", is_address=True)),
        (400, 21606, Declined("Twilio, error 21606: no")),
        (400, 30003, Later("Twilio, error 30003: no")),
        (400, 30002, Later("Twilio, error 30002: no", is_down=True)),
        (401, 20003, Later("Twilio, error 20003: no", is_down=True)),
        (404, 20404, Later("Twilio, error 20404: no", is_down=True)),
        (429, 20429, Later("Twilio, error 20429: no", 2.0)),
        (429, 0, Later('Twilio answered 429: {"code": 0, "message": "no"}', 2.0)),
        (500, 20500, Later("Twilio, error 20500: no", 2.0)),
        (503, 20503, Later("Twilio, error 20503: no", 2.0, is_down=True)),
        (504, 0, Unknown('Twilio answered 504: {"code": 0, "message": "no"}')),
    ],
)
async def test_what_twilio_says(status: int, code: int, expected: Outcome) -> None:
    answer = Says(status, json.dumps({"code": code, "message": "no"}), {"Retry-After": "2"})
    async with receiver(answer) as there:
        assert await say(twilio(there), sms()) == expected


async def test_a_text_of_too_many_parts_is_not_paid_for() -> None:
    async with receiver(Says(201)) as there:
        assert await say(twilio(there, most_segments=2), sms(text="您" * 134)) == Accepted()
        said = await say(twilio(there, most_segments=2), sms(text="您" * 135))

    assert said == Declined("it makes 3 messages in one; at most 2") and len(there.requests) == 1


async def test_what_no_provider_answered_is_unknown() -> None:
    for channel_of in (twilio, aliyun, tencent):
        for hangs in (False, True):
            async with speaker(hangs=hangs) as there:
                assert isinstance(await say(channel_of(there), sms()), Unknown)
        said = await say(channel_of(there), sms())
        assert isinstance(said, Later) and said.is_down and "could not be connected" in said.why


# --- signatures


def test_aliyun_is_signed_as_its_page_does() -> None:
    query = "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"

    headers = acs3("YourAccessKeyId", "YourAccessKeySecret", host="ecs.cn-shanghai.aliyuncs.com", action="RunInstances",
                   version="2014-05-26", query=query, at_s=1698315752,
                   nonce="3156853299f313e23d1673dc12e1703d")  # fmt: skip

    assert headers["x-acs-date"] == "2023-10-26T10:22:32Z"
    assert headers["Authorization"] == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
        "x-acs-signature-nonce;x-acs-version,Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


def test_tencent_is_signed_as_its_page_does() -> None:
    body = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'

    headers = tc3("AKID" + "*" * 32, "*" * 32, service="cvm", host="cvm.tencentcloudapi.com", body=body,
                  action="DescribeInstances", version="2017-03-12", region="ap-guangzhou", at_s=1551113065)  # fmt: skip

    assert headers["Authorization"] == (
        f"TC3-HMAC-SHA256 Credential=AKID{'*' * 32}/2019-02-25/cvm/tc3_request, SignedHeaders=content-type;host;"
        "x-tc-action, Signature=10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"
    )


# --- Aliyun


async def test_aliyun_is_asked_for_an_approved_text() -> None:
    async with receiver(Says(200, '{"Code":"OK","Message":"OK","BizId":"9006","RequestId":"r"}')) as there:
        assert await say(aliyun(there), sms()) == Accepted("9006")
        await say(aliyun(there), sms(sign=""))

    request, unsigned = there.requests
    asked = dict(parse_qsl(request.query, strict_parsing=True))
    assert json.loads(asked.pop("TemplateParam")) == {"name": "Ada & 王", "order": "A 1"}
    assert asked == {"PhoneNumbers": "8613800138000", "SignName": "潮线", "TemplateCode": "SMS_1", "OutId": ID}
    assert dict(parse_qsl(unsigned.query))["SignName"] == "我们"
    assert (request.method, request.path, request.body) == ("POST", "/", b"")
    assert "Content-Type" not in request.headers  # it would have to be signed
    again = acs3("LTAI0123456789", SECRET, host=request.headers["Host"], action="SendSms", version="2017-05-25",
                 query=request.query, at_s=NOW_S, nonce=request.headers["x-acs-signature-nonce"])  # fmt: skip
    assert {name: request.headers[name] for name in again} == again
    assert request.headers["x-acs-signature-nonce"] != unsigned.headers["x-acs-signature-nonce"]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, "isv.MOBILE_NUMBER_ILLEGAL", Declined("Aliyun, isv.MOBILE_NUMBER_ILLEGAL: no", is_address=True)),
        (200, "isv.BUSINESS_LIMIT_CONTROL", Later("Aliyun, isv.BUSINESS_LIMIT_CONTROL: no")),
        (200, "isv.AMOUNT_NOT_ENOUGH", Later("Aliyun, isv.AMOUNT_NOT_ENOUGH: no", is_down=True)),
        (200, "isv.SMS_TEMPLATE_ILLEGAL", Declined("Aliyun, isv.SMS_TEMPLATE_ILLEGAL: no")),
        (404, "InvalidAccessKeyId.NotFound", Later("Aliyun, InvalidAccessKeyId.NotFound: no", is_down=True)),
        (400, "SignatureDoesNotMatch", Later("Aliyun, SignatureDoesNotMatch: no", is_down=True)),
        (400, "Throttling.User", Later("Aliyun, Throttling.User: no", is_down=True)),
    ],
)
async def test_what_aliyun_says(status: int, code: str, expected: Outcome) -> None:
    async with receiver(Says(status, json.dumps({"Code": code, "Message": "no", "RequestId": "r"}))) as there:
        assert await say(aliyun(there), sms()) == expected


# --- Tencent Cloud


def tencent_says(code: str, message: str = "no", serial: str = "") -> Says:
    status = {"SerialNo": serial, "PhoneNumber": "+8613800138000", "Fee": 1, "Code": code, "Message": message}
    return Says(200, json.dumps({"Response": {"SendStatusSet": [status], "RequestId": "r"}}))


async def test_tencent_is_asked_for_an_approved_text() -> None:
    async with receiver(tencent_says("Ok", "send success", "5000:1")) as there:
        assert await say(tencent(there), sms()) == Accepted("5000:1")

    (request,) = there.requests
    assert json.loads(request.body) == {
        "PhoneNumberSet": ["+8613800138000"], "SmsSdkAppId": "1400006666", "SignName": "潮线", "TemplateId": "SMS_1",
        "TemplateParamSet": ["Ada & 王", "A 1"], "SessionContext": ID,
    }  # fmt: skip
    again = tc3("AKID0123456789", SECRET, service="sms", host=request.headers["Host"], action="SendSms", at_s=NOW_S,
                version="2021-01-11", region="ap-guangzhou", body=request.body)  # fmt: skip
    assert (request.method, request.path) == ("POST", "/")
    assert {name: request.headers[name] for name in again} == again


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InvalidParameterValue.IncorrectPhoneNumber", Declined("", is_address=True)),
        ("FailedOperation.PhoneNumberInBlacklist", Declined("", is_address=True)),
        ("FailedOperation.TemplateIncorrectOrUnapproved", Declined("")),
        ("LimitExceeded.PhoneNumberDailyLimit", Later("")),
        ("LimitExceeded.AppDailyLimit", Later("", is_down=True)),
        ("FailedOperation.InsufficientBalanceInSmsPackage", Later("", is_down=True)),
        ("UnauthorizedOperation.IndividualUserMarketingSmsPermissionDeny", Declined("")),
        ("InternalError.Timeout", Unknown("")),
        ("InternalError.UnknownError", Later("")),
    ],
)
async def test_what_tencent_says(code: str, expected: Outcome) -> None:
    async with receiver(tencent_says(code)) as there:
        assert await say(tencent(there), sms()) == expected._replace(why=f"Tencent, {code}: no")


async def test_what_tencent_says_of_a_request_as_a_whole() -> None:
    error = {"Response": {"Error": {"Code": "AuthFailure.SignatureFailure", "Message": "no"}, "RequestId": "r"}}
    async with receiver(Says(200, json.dumps(error))) as there:
        assert await say(tencent(there), sms()) == Later("Tencent, AuthFailure.SignatureFailure: no", is_down=True)


async def test_an_answer_that_cannot_be_read_says_what_its_status_says() -> None:
    for channel_of in (aliyun, tencent):
        async with receiver(Says(200, "<html>"), Says(504), Says(502), Says(302)) as there:
            said = [await say(channel_of(there), sms()) for _ in range(4)]

        assert [type(each) for each in said] == [Unknown, Unknown, Later, Declined]


# --- settings, and the page


def test_settings_are_checked_at_the_start() -> None:
    for sender in ("", "+0123", "Too long a name", "a\n"):
        with pytest.raises(ValidationError, match="sender"):
            TwilioSettings(account=ACCOUNT, sender=sender)
    with pytest.raises(ValidationError, match="account"):
        TwilioSettings(account="AC1", sender="Shop")
    key = {"key_id": "K" * 20}
    for wanting in (lambda: TwilioChannel(TwilioSettings(account=ACCOUNT, sender="Shop"), ""),
                    lambda: AliyunChannel(AliyunSettings(**key), ""),
                    lambda: TencentChannel(TencentSettings(**key, app="1"), "")):
        with pytest.raises(ConfigError, match=r"is empty\. Take the"):
            wanting()


def test_the_page_says_what_the_code_does() -> None:
    channels, said = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    shipped = compile_template("shipped", TemplateFile.model_validate(said), "UTC")
    filled = shipped.render({}, {"order": "A1", "day": "周五"})
    begins = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    models = (TwilioSettings, AliyunSettings, TencentSettings, ApprovedText)
    parsed = doctest.DocTestParser().get_doctest(PAGE, {}, "sms.md", "docs/sms.md", 0)

    assert Channels.model_validate(channels).sms.twilio == TwilioSettings(**channels["sms"]["twilio"])
    assert filled.approved == Approved("SMS_123456789", "潮线", {"order": "A1", "day": "周五"})
    SCHEMA.validate(said)
    mail = {"subject": "S", **said["content"]["zh"]}
    assert not SCHEMA.is_valid({**said, "channel": "email", "content": {"zh": mail}})
    assert begins == {name for model in models for name in model.model_fields}
    assert all(f"`{model.model_fields['url'].default}`" in PAGE for model in models[:3])
    assert parsed.examples and doctest.DocTestRunner().run(parsed).failed == 0
    assert doctest.testmod(sms_module).failed == doctest.testmod(guarded_http).failed == 0
