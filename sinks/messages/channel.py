"""What a channel is: it is given one message, and says what became of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from schemas.templates import Class
from sinks.messages.rendering import Rendered


class Message(NamedTuple):
    """A message as it leaves.

    Attributes:
        id: the same whenever it is tried again; 32 hexadecimal digits.
        person: the person key it is for; it begins with the workspace.
        to: her address on the channel, such as `ada@example.com` or `+8613800138000`.
        template: name of its template.
        kind, topic: as of the template.
        unsubscribe: address (https) at which one POST takes her off the topic; empty where there is none.
    """

    id: str
    person: str
    to: str
    template: str
    kind: Class
    topic: str
    content: Rendered
    unsubscribe: str = ""


class Accepted(NamedTuple):
    """The other side has it, and answers for it from here on. `reference` is its name there."""

    reference: str = ""


class Later(NamedTuple):
    """The other side has not got it, and may take it another time.

    Attributes:
        why: one line for a person: what the other side said.
        after_s: how long it asked to be left alone.
        is_down: whether it takes nothing from anybody just now, and not only not this message.
    """

    why: str
    after_s: float | None = None
    is_down: bool = False


class Declined(NamedTuple):
    """The other side will never take it. `is_address`: nothing at all can reach this address."""

    why: str
    is_address: bool = False


class Unknown(NamedTuple):
    """The other side may have it, or not: it fell silent when it had been handed over."""

    why: str


Outcome = Accepted | Later | Declined | Unknown


class Channel(Protocol):
    """One way for messages to leave. Any number of `send` may be under way together."""

    async def send(self, message: Message) -> Outcome:
        """Hand a message over. Raises nothing but what is a mistake of ours; what fails is an outcome. Cancelled, it
        lets go of what it holds."""

    async def close(self) -> None: ...
