"""What is no event is refused, whatever it is; nothing else is ever raised for it."""

import pytest

from schemas.errors import Refused
from schemas.event import decode_event

BODY = ('{"messageId":"m","type":"track","workspace":"w","source":"s","timestamp":"2026-01-01T00:00:00Z",'
        '"receivedAt":"2026-01-01T00:00:00Z","userId":"u","event":"E","properties":%s}')  # fmt: skip


DEEP_LIST, DEEP_OBJECT = "[" * 3_000 + "]" * 3_000, '{"a":' * 2_000 + "1" + "}" * 2_000


@pytest.mark.parametrize("properties", [DEEP_LIST, DEEP_OBJECT, '{"a": "\\ud800"}', "{"])
def test_a_record_that_cannot_be_read_is_refused(properties: str) -> None:
    with pytest.raises(Refused, match="is not an event of schema"):
        decode_event((BODY % properties).encode())
