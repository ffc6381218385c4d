"""The channels as the settings want them, and the templates as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from config.channels import Channels, ChannelSettings
from schemas.errors import ConfigError
from schemas.rows import TableRow, encode_json
from schemas.templates import Channel as ChannelName
from sinks.messages.channel import Channel
from sinks.messages.outbox import OutboxChannel
from sinks.messages.rendering import Template
from sinks.messages.tables import KEPT, KeptRow
from streams.dispatch import TemplateOf
from streams.log import Log, Outgoing
from streams.templates import Templates, look_surely


def open_channels(channels: Channels, log_: Log) -> Mapping[ChannelName, tuple[ChannelSettings, Channel]]:
    """Each channel with how it works."""

    async def keep(person: str, kept: KeptRow) -> None:
        row = TableRow(table=KEPT.name, workspace=person.partition("/")[0], key=person, version=1,
                       values=msgspec.Raw(encode_json(kept)))  # fmt: skip
        await log_.append("rows", [Outgoing(person.encode(), encode_json(row))])

    return {"email": (channels.email, OutboxChannel(keep)), "sms": (channels.sms, OutboxChannel(keep))}


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
