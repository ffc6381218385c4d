"""aiokafka's connections, where they expect an `OSError` of a connection that was reset and uvloop raises another.

Writing to a transport that was closed a moment ago raises RuntimeError under uvloop. aiokafka would take that for a bug
of its own: a fetcher or a sender ends by it, and whoever asked gets an error that no retry catches.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


def _send_or_be_broken(self: Any, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def mend() -> None:
    """Make every connection of this process say that it is broken when it is. Can be called again."""
    AIOKafkaConnection.send = _send_or_be_broken
