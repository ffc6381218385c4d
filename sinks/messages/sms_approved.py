"""SMS by Aliyun and by Tencent Cloud: an approved text is named, and its parameters are sent. See docs/sms.md.

Neither knows a message again that is sent twice, so what got no answer is unknown.

Source: Aliyun Dysmsapi 2017-05-25, SendSms; Tencent Cloud SMS 2021-01-11, SendSms; the error codes of both.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.errors import ConfigError
from sinks.messages.answers import of_silence, of_status
from sinks.messages.channel import Accepted, Declined, Later, Message, Outcome, Unknown
from sinks.messages.guarded_http import Answer, GuardedHttp, HttpSettings, NoAnswer, parse_url, plain
from sinks.messages.rendering import Approved
from sinks.messages.signing import acs3, tc3
from sinks.messages.sms import wrong_number

Meaning = Literal["later", "down", "address", "declined", "unknown"]

# By the whole code, or by what stands before its first dot. What is not named is declined: the template, the signature
# of the brand, or what is in the parameters.
ALIYUN: Mapping[str, Meaning] = {
    "isv.MOBILE_NUMBER_ILLEGAL": "address",
    "isv.BUSINESS_LIMIT_CONTROL": "later",  # too many to this number
    "isp.SYSTEM_ERROR": "later",
    "isv.DAY_LIMIT_CONTROL": "down", "isv.MONTH_LIMIT_CONTROL": "down",  # of the whole account
    "isv.AMOUNT_NOT_ENOUGH": "down", "isv.OUT_OF_SERVICE": "down", "isv.ACCOUNT_NOT_EXISTS": "down",
    "isv.ACCOUNT_ABNORMAL": "down", "isv.PRODUCT_UN_SUBSCRIPT": "down", "isv.PRODUCT_UNSUBSCRIBE": "down",
    "isv.DENY_IP_RANGE": "down", "isp.RAM_PERMISSION_DENY": "down", "Forbidden": "down", "NoPermission": "down",
    "InvalidAccessKeyId": "down", "SignatureDoesNotMatch": "down", "IncompleteSignature": "down",
    "InvalidTimeStamp": "down", "SignatureNonceUsed": "later", "Throttling": "down", "ServiceUnavailable": "down",
    "InternalError": "later",
}  # fmt: skip
TENCENT: Mapping[str, Meaning] = {
    "InvalidParameterValue.IncorrectPhoneNumber": "address",
    "FailedOperation.PhoneNumberInBlacklist": "address", "FailedOperation.PhoneNumberOnBlacklist": "address",
    "LimitExceeded": "later",  # to this number
    "LimitExceeded.AppDailyLimit": "down", "LimitExceeded.DailyLimit": "down", "RequestLimitExceeded": "down",
    "FailedOperation.MarketingSendTimeConstraint": "later",  # from 8 to 22 h only
    "FailedOperation.InsufficientBalanceInSmsPackage": "down",
    "InternalError": "later", "InternalError.SendAndRecvFail": "unknown", "InternalError.Timeout": "unknown",
    "InternalError.SigVerificationFail": "down", "InternalError.SigFieldMissing": "down",
    "InternalError.RequestTimeException": "down", "InvalidParameterValue.SdkAppIdNotExist": "down",
    "AuthFailure": "down", "UnauthorizedOperation": "down", "IpInBlacklist": "down", "IpNotInWhitelist": "down",
    "UnauthorizedOperation.IndividualUserMarketingSmsPermissionDeny": "declined",
}  # fmt: skip


class AliyunSettings(HttpSettings):
    """How SMS leave by Aliyun."""

    key_id: str = Field(pattern=r"^[A-Za-z0-9]{10,128}$", description="AccessKey ID.")
    sign: str = Field("", max_length=100, description="Signature of texts that name none of their own.")
    url: str = Field("https://dysmsapi.aliyuncs.com", description="Where Aliyun is.")


class TencentSettings(HttpSettings):
    """How SMS leave by Tencent Cloud."""

    key_id: str = Field(pattern=r"^[A-Za-z0-9]{10,128}$", description="SecretId.")
    app: str = Field(pattern=r"^[0-9]{1,20}$", description="SdkAppId of the SMS application.")
    region: str = Field("ap-guangzhou", pattern=r"^[a-z0-9-]{1,40}$", description="Region of the application.")
    sign: str = Field("", max_length=100, description="Signature of texts that name none of their own.")
    url: str = Field("https://sms.tencentcloudapi.com", description="Where Tencent Cloud is.")


class _Said(NamedTuple):
    """What a provider said: its code, its words, and its name for the message where it took it (`is_taken`)."""

    code: str
    text: str
    reference: str = ""
    is_taken: bool = False


class AliyunChannel:
    """Sends each message by Aliyun. Raises ConfigError where there is no secret."""

    def __init__(self, settings: AliyunSettings, secret: str, *, http: GuardedHttp | None = None,
                 clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._settings, self._secret = settings, _there(secret, "Aliyun", "AccessKey secret")
        self._host = _host_of(settings.url)
        self._http = http or GuardedHttp(settings.allow)
        self._clock = clock

    async def send(self, message: Message) -> Outcome:
        approved = _approved(message, self._settings.sign)
        if not isinstance(approved, Approved):
            return approved
        values = {
            "OutId": message.id, "PhoneNumbers": message.to.removeprefix("+"), "SignName": approved.sign,
            "TemplateCode": approved.id, "TemplateParam": msgspec.json.encode(approved.parameters).decode(),
        }  # fmt: skip
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(values.items()))
        headers = acs3(self._settings.key_id, self._secret, host=self._host, action="SendSms", version="2017-05-25",
                       query=query, at_s=int(self._clock()), nonce=secrets.token_hex(16))  # fmt: skip
        try:
            answer = await self._http.post(self._settings.url, b"", headers, query=query)
        except NoAnswer as silence:
            return of_silence(silence)
        return _outcome("Aliyun", _aliyun_said(answer), ALIYUN, answer, self._clock())

    async def close(self) -> None:
        await self._http.close()


class TencentChannel:
    """Sends each message by Tencent Cloud. Raises ConfigError where there is no secret."""

    def __init__(self, settings: TencentSettings, secret: str, *, http: GuardedHttp | None = None,
                 clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._settings, self._secret = settings, _there(secret, "Tencent", "SecretKey")
        self._host = _host_of(settings.url)
        self._http = http or GuardedHttp(settings.allow)
        self._clock = clock

    async def send(self, message: Message) -> Outcome:
        approved = _approved(message, self._settings.sign)
        if not isinstance(approved, Approved):
            return approved
        body = msgspec.json.encode({
            "PhoneNumberSet": [message.to], "SmsSdkAppId": self._settings.app, "SignName": approved.sign,
            "TemplateId": approved.id, "TemplateParamSet": list(approved.parameters.values()),
            "SessionContext": message.id,
        })  # fmt: skip
        headers = tc3(self._settings.key_id, self._secret, service="sms", host=self._host, action="SendSms",
                      version="2021-01-11", region=self._settings.region, body=body,
                      at_s=int(self._clock()))  # fmt: skip
        try:
            answer = await self._http.post(self._settings.url, body, headers)
        except NoAnswer as silence:
            return of_silence(silence)
        return _outcome("Tencent", _tencent_said(answer), TENCENT, answer, self._clock())

    async def close(self) -> None:
        await self._http.close()


def _there(secret: str, provider: str, name: str) -> str:
    if not secret:
        raise ConfigError(f"secret of {provider}", "is empty.", f"Take the {name} from its console.")
    return secret


def _host_of(url: str) -> str:
    """The host as aiohttp names it in its header, for that is signed."""
    return parse_url(url).host_port_subcomponent or ""


def _approved(message: Message, sign: str) -> Approved | Declined:
    """What is to be sent, with the signature it goes under; or why it cannot be."""
    if wrong := wrong_number(message.to):
        return wrong
    approved, language = message.content.approved, message.content.language
    if approved is None:
        return Declined(f'template "{message.template}" names no approved text in language {language}; '
                        f"write content.{language}.approved, see docs/sms.md")  # fmt: skip
    return approved._replace(sign=approved.sign or sign)


class _Aliyun(msgspec.Struct, rename="pascal"):
    code: str
    message: str = ""
    biz_id: str = ""


def _aliyun_said(answer: Answer) -> _Said | None:
    try:
        said = msgspec.json.decode(answer.body, type=_Aliyun)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return _Said(said.code, said.message, said.biz_id, is_taken=said.code == "OK")


class _Status(msgspec.Struct, rename="pascal"):
    code: str
    message: str = ""
    serial_no: str = ""


class _Response(msgspec.Struct, rename="pascal"):
    error: _Status | None = None
    send_status_set: list[_Status] = []


class _Tencent(msgspec.Struct, rename="pascal"):
    response: _Response


def _tencent_said(answer: Answer) -> _Said | None:
    try:
        response = msgspec.json.decode(answer.body, type=_Tencent).response
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    for status in (response.error, *response.send_status_set):
        if status is not None:
            return _Said(status.code, status.message, status.serial_no, is_taken=status.code == "Ok")
    return None


def _outcome(
    provider: str, said: _Said | None, meanings: Mapping[str, Meaning], answer: Answer, now_s: float
) -> Outcome:
    if said is None:
        meant = of_status(answer, now_s)
        # 504: what stands before the provider did not wait for its answer.
        is_unknown = 200 <= answer.status < 300 or answer.status == 504
        why = f"{provider} {meant.why}"
        return Unknown(why) if is_unknown else meant._replace(why=why)
    if said.is_taken:
        return Accepted(plain(said.reference))
    why = f"{provider}, {plain(said.code)}: {plain(said.text)}"
    meaning = meanings.get(said.code) or meanings.get(said.code.partition(".")[0])
    match meaning:
        case "later" | "down":
            return Later(why, is_down=meaning == "down")
        case "unknown":
            return Unknown(why)
        case _:
            return Declined(why, is_address=meaning == "address")
