"""A connection that was reset is a broken connection, under uvloop too."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from streams import kafka  # noqa: F401 - importing it mends the connections


async def _send_after_a_reset() -> None:
    """A request between the moment in which the transport is closed and the one in which the reader notices."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection: Any = AIOKafkaConnection("127.0.0.1", listener.getsockname()[1])
        connection._versions = {ApiVersionRequest.API_KEY: (0, 0)}
        connection._reader, connection._writer = await asyncio.open_connection(*listener.getsockname())
        connection._read_task = asyncio.create_task(asyncio.sleep(0))
        writer = connection._writer
        writer.transport.abort()
        await asyncio.sleep(0.05)
        try:
            await connection.send(ApiVersionRequest())
        finally:
            writer.close()
        assert connection._writer is None, "it was not closed"


def test_a_request_on_a_connection_that_was_reset_is_a_connection_error() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(KafkaConnectionError):
        runner.run(_send_after_a_reset())
