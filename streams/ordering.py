"""Ordering messages: what commands and pages do, and journeys will."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from schemas.errors import ConfigError, TidewireError
from schemas.keys import split_key
from schemas.messages import Order, Settle, SettleAs, encode_of_message
from schemas.templates import Class
from schemas.times import DAY_MS
from sinks.messages.rendering import Template
from streams.lines import MESSAGES
from streams.log import Log, Outgoing
from streams.outbox import effect_id

EXPIRES_MS: Mapping[Class, int] = {"marketing": DAY_MS, "transactional": 3 * DAY_MS}
LARGEST_GIVEN_BYTES = 16 * 1024


async def order(
    log_: Log, template: Template | ConfigError | None, *, name: str, to: str, given: Mapping[str, Any], by: str,
    now_ms: int, once: str = "",
) -> Order:  # fmt: skip
    """Order a message; it stands in the log when this returns.

    Args:
        template: of that name; what is wrong with it; None: there is none.
        to: the person key.
        once: two orders of one template to one person with the same text here are one.

    Raises:
        TidewireError: it cannot be ordered; with the mend.
    """
    if template is None:
        raise TidewireError(f'There is no template "{name}". `tidewire templates list` shows them.')
    if isinstance(template, ConfigError):
        raise template
    id_ = effect_id("order", to, name, once) if once else uuid4().hex
    wanted = Order(
        to=to, id=id_, template=name, channel=template.channel, kind=template.kind, topic=template.topic,
        given=dict(given), by=by, at_ms=now_ms, expires_ms=now_ms + EXPIRES_MS[template.kind],
    )  # fmt: skip
    value = encode_of_message(wanted)
    if len(value) > LARGEST_GIVEN_BYTES:
        raise TidewireError(f"What it brings along has {len(value):,} bytes; at most {LARGEST_GIVEN_BYTES:,}.")
    split_key(to)
    await log_.append(MESSAGES.topic, [Outgoing(to.encode(), value)])
    return wanted


async def settle(log_: Log, to: str, id_: str, as_: SettleAs, by: str) -> None:
    """Decide what becomes of a message that nobody knows the end of, or stop one that waits."""
    said = Settle(to=to, id=id_, as_=as_, by=by)
    await log_.append(MESSAGES.topic, [Outgoing(to.encode(), encode_of_message(said))])
