"""The channels as the settings want them, and the templates as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from config.channels import INBOX, CallSettings, Channels, ChannelSettings, EmailSettings, SmsSettings
from config.link_keys import load_link_keys
from config.settings import Settings
from processors.base import Table
from schemas.errors import ConfigError
from schemas.rows import encode_json, row_once
from schemas.templates import Channel as ChannelName
from sinks.messages.channel import Channel
from sinks.messages.keeping import Row, inbox, outbox
from sinks.messages.links import Tokens
from sinks.messages.rendering import Template
from sinks.messages.sms_approved import AliyunChannel, TencentChannel
from sinks.messages.sms_twilio import TwilioChannel
from sinks.messages.smtp import SmtpChannel
from sinks.messages.tracking import Links
from sinks.messages.webhook import WebhookChannel, body_of_call
from streams.dispatch import TemplateOf
from streams.log import Log, Outgoing
from streams.templates import Templates
from streams.texts import look_surely


def open_channels(
    channels: Channels, log_: Log, settings: Settings
) -> Mapping[ChannelName, tuple[ChannelSettings, Channel]]:
    """Each channel with how it works.

    Args:
        settings: they hold the secrets.

    Raises:
        ConfigError: a secret is missing, or is none; with the setting.
    """

    async def keep(table: Table, person: str, kept: Row) -> None:
        await log_.append("rows", [Outgoing(person.encode(), encode_json(row_once(table.name, person, kept)))])

    email, sms = channels.email, channels.sms
    return {
        "email": (email, _email(email, settings) or outbox(keep)),
        "sms": (sms, _sms(sms, settings) or outbox(keep)),
        "inbox": (channels.inbox, inbox(keep) if channels.inbox.via == INBOX else outbox(keep)),
        "call": (channels.call, _call(channels.call, settings) or outbox(keep)),
    }


def _email(email: EmailSettings, settings: Settings) -> Channel | None:
    """What mails leave through; None: they stay here."""
    if email.via == "smtp" and email.smtp is not None:
        return SmtpChannel(email.smtp, settings.smtp_password)
    if email.via == "webhook" and email.webhook is not None:
        return WebhookChannel(email.webhook, settings.webhook_secrets.split())
    return None


def _sms(sms: SmsSettings, settings: Settings) -> Channel | None:
    """What SMS leave through; None: they stay here."""
    if sms.via == "twilio" and sms.twilio is not None:
        return TwilioChannel(sms.twilio, settings.sms_secret)
    if sms.via == "aliyun" and sms.aliyun is not None:
        return AliyunChannel(sms.aliyun, settings.sms_secret)
    if sms.via == "tencent" and sms.tencent is not None:
        return TencentChannel(sms.tencent, settings.sms_secret)
    if sms.via == "webhook" and sms.webhook is not None:
        return WebhookChannel(sms.webhook, settings.webhook_secrets.split())
    return None


def _call(call: CallSettings, settings: Settings) -> Channel | None:
    """What tells other programs; None: it stays here."""
    if call.via == "webhook" and call.webhook is not None:
        return WebhookChannel(call.webhook, settings.webhook_secrets.split(), body_of=body_of_call)
    return None


def links_of(settings: Settings) -> Links | None:
    """What makes the links of messages; None where nobody can reach the collector from outside.

    Raises:
        ConfigError: there is no key to sign them with.
    """
    if not settings.public_url:
        return None
    return Links(settings.public_url, Tokens([key.secret for key in load_link_keys(settings)]))


def templates_of(templates: Templates) -> TemplateOf:
    """Templates as they were saved last, at the moment they are asked for. To be called in the loop, what it returns
    from other threads."""
    loop = asyncio.get_running_loop()

    def template_of(name: str) -> Template | str:
        # While the log is away nothing is sent anyway; and whoever wrote a mistake out of a template wants it gone.
        asyncio.run_coroutine_threadsafe(look_surely(templates), loop).result()
        found = templates.read(name)
        if found is None:
            return f'there is no template "{name}" any more'
        return f'template "{name}" is wrong: {found}' if isinstance(found, ConfigError) else found

    return template_of
