"""The channels by which messages leave: file `channels.yaml` of the config folder.

Without the file every channel is the outbox: messages stay here, and nothing leaves by accident. Secrets are settings:
they come from the environment, or from files of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from config.yaml_file import read_yaml
from schemas.conditions import problems_of
from schemas.errors import ConfigError, shown
from sinks.messages.sms_approved import AliyunSettings, TencentSettings
from sinks.messages.sms_twilio import TwilioSettings
from sinks.messages.smtp_settings import SmtpSettings
from sinks.messages.webhook import WebhookSettings

FILE_NAME = "channels.yaml"
OUTBOX, INBOX = "outbox", "inbox"  # through these nothing leaves, so they need no part of their own
LONGEST_CALL_S = 120.0  # a channel that has not answered by then is not waited for


class ChannelSettings(BaseModel):
    """How one channel works."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    via: str = Field(default="outbox", description="What they leave through. `outbox`: they stay here.")
    rate: float = Field(default=50, gt=0, le=10_000, description="Messages a second, of one process.")
    at_once: int = Field(
        default=8, ge=1, le=1_000,
        description="Messages under way together, of one process. So many can be left unknown by a crash.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_what_it_leaves_through(self) -> Self:
        if self.via not in (OUTBOX, INBOX) and getattr(self, self.via) is None:
            raise ValueError(f"`via: {self.via}` needs a part `{self.via}:` that says how; see docs/messages.md")
        return self


class EmailSettings(ChannelSettings):
    """How e-mails leave."""

    via: Literal["outbox", "smtp", "webhook"] = Field(
        default="outbox", description="What they leave through. `outbox`: they stay here."
    )
    smtp: SmtpSettings | None = None
    webhook: WebhookSettings | None = None

    @model_validator(mode="after")
    def _answers_in_time(self) -> Self:
        if self.smtp is not None and self.smtp.longest_call_s > LONGEST_CALL_S:
            raise ValueError(f"smtp: its times come to {self.smtp.longest_call_s:g} s for one mail; at most "
                             f"{LONGEST_CALL_S:g}")  # fmt: skip
        return self


class SmsSettings(ChannelSettings):
    """How SMS leave."""

    via: Literal["outbox", "twilio", "aliyun", "tencent", "webhook"] = Field(
        default="outbox", description="What they leave through. `outbox`: they stay here."
    )
    twilio: TwilioSettings | None = None
    aliyun: AliyunSettings | None = None
    tencent: TencentSettings | None = None
    webhook: WebhookSettings | None = None


class InboxSettings(ChannelSettings):
    """How messages come into people's inbox."""

    via: Literal["outbox", "inbox"] = Field(
        default="outbox", description="`inbox`: she can read them, see docs/inbox.md. `outbox`: only you can."
    )


class CallSettings(ChannelSettings):
    """How other programs are told."""

    via: Literal["outbox", "webhook"] = Field(
        default="outbox", description="`webhook`: they are told, see docs/webhooks.md. `outbox`: it stays here."
    )
    webhook: WebhookSettings | None = None


class Channels(BaseModel):
    """All of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: EmailSettings = EmailSettings()
    sms: SmsSettings = SmsSettings()
    inbox: InboxSettings = InboxSettings()
    call: CallSettings = CallSettings()


def read_channels(config: Path) -> Channels:
    """The channels of a config folder.

    Raises:
        ConfigError: with the file, the line, the value and the mend.
    """
    path = config / FILE_NAME
    if not path.exists():
        return Channels()
    file = read_yaml(path)
    try:
        return Channels.model_validate({} if file.values is None else file.values)
    except ValidationError as error:
        problem = problems_of(error)[0]
        name = ".".join(map(str, problem.path))
        is_whole = isinstance(problem.value, dict) and bool(problem.value)  # what a whole part lacks, it says itself
        got = f"; got {shown(problem.value)}" if name and problem.value is not None and not is_whole else ""
        mend = "" if is_whole else f"It may hold {', '.join(_fields(problem.path))}."
        raise ConfigError(file.place(problem.path), f'"{name}": {problem.what}{got}.' if name else f"{problem.what}.",
                          mend) from None  # fmt: skip


def _fields(path: tuple[str | int, ...]) -> list[str]:
    """What may stand where this is."""
    model: type[BaseModel] = Channels
    for step in path[:-1]:
        field = model.model_fields.get(str(step))
        kinds = getattr(field.annotation, "__args__", (field.annotation,)) if field is not None else ()
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
