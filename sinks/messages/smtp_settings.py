"""How mails leave by SMTP: the key `smtp` of a channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from schemas.errors import Refused
from sinks.messages.address import Sender, check_address, read_sender

CHECK_S = 5.0  # that a connection which was kept may take to show that it is still there
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class SmtpSettings(BaseModel):
    """The server that takes our mails, and who they are from.

    There is no field for the password: it is a secret, comes from the environment or from a file of its own, and is
    handed to `SmtpChannel` beside these settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    host: str = Field(description="Server that takes the mails, such as `smtp.example.com`: a name or an address.")
    port: int = Field(587, ge=1, le=65535, description="Its port: 587 for `starttls`, 465 for `tls`.")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`starttls`: encrypted before anything is said, or nothing is sent. `tls`: from the "
                                "first byte. `none`: only to this machine, and without a user.",
    )  # fmt: skip
    user: str = Field("", max_length=255, description="Who logs in. Its password: the setting `smtp_password`.")
    from_: str = Field(alias="from", description="Who mails are from: `Shop <news@shop.example>`.")
    reply_to: str = Field("", description="Where answers go, if elsewhere: an address.")
    bounces_to: str = Field("", description="Where mails come back to that cannot be delivered; default: `from`.")
    helo: str = Field("", description="Name by which we greet the server; default: the domain of `from`.")
    connect_timeout_s: float = Field(20, gt=0, le=60, description="To connect, encrypt and log in, all in all.")
    answer_timeout_s: float = Field(
        30, gt=0, le=60, description="From naming sender and recipient until all of the mail is handed over."
    )
    end_timeout_s: float = Field(
        60, gt=0, le=600, description="For the answer to a mail. When it is over, nobody knows whether it arrived."
    )
    idle_s: float = Field(30, gt=0, le=600, description="So long a connection that nothing goes through is kept.")
    messages_per_connection: int = Field(100, ge=1, le=10_000, description="A connection is left after so many mails.")

    @field_validator("host", "helo")
    @classmethod
    def _is_host(cls, value: str, info: ValidationInfo) -> str:
        is_host = _is_address(value) if info.field_name == "host" else value == ""
        if not is_host and (len(value) > 253 or not all(_LABEL.fullmatch(label) for label in value.split("."))):
            raise PydanticCustomError("host", "it is no name of a machine; write it as smtp.example.com")
        return value

    @field_validator("from_")
    @classmethod
    def _is_sender(cls, value: str) -> str:
        _said(partial(read_sender, value))
        return value

    @field_validator("reply_to", "bounces_to")
    @classmethod
    def _is_mailbox(cls, value: str) -> str:
        found = _said(partial(check_address, value)) if value else ""
        if not found.isascii():
            raise PydanticCustomError("address", 'it is not ASCII before "@", and few servers take that')
        return found

    @model_validator(mode="after")
    def _is_safe(self) -> SmtpSettings:
        if self.security == "none" and self.user:
            raise PydanticCustomError(
                "security", "without encryption the password would be for all to read; use starttls or tls"
            )
        if self.security == "none" and not self.is_loopback:
            raise PydanticCustomError(
                "security", "without encryption mails go to this machine only, such as 127.0.0.1; use starttls or tls"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.host).is_loopback if _is_address(self.host) else self.host.lower() == "localhost"

    @property
    def sender(self) -> Sender:
        return read_sender(self.from_)

    @property
    def longest_call_s(self) -> float:
        """After so long a message has its outcome, whatever the server does. Who waits less takes a mail for unknown
        that has not left."""
        return CHECK_S + self.connect_timeout_s + self.answer_timeout_s + self.end_timeout_s


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _said(check: Callable[[], Any]) -> Any:
    """What a check returns; what it refuses said as pydantic wants it, without the value, which stands beside it."""
    try:
        return check()
    except Refused as refused:
        what = f"{refused.reason}. {refused.mend}" if refused.mend else refused.reason
        raise PydanticCustomError("address", "{what}", {"what": what}) from None
