"""Dead letters: records of topic `rejected`, each whole, with the cause, so that it can be mended and sent again."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from schemas.errors import Refused

RejectedBy = Literal["collector", "stage", "clickhouse"]


class Rejected(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One refused input. JSON.

    Attributes:
        id: the same for the same record refused for the same cause, so a replay refuses it once.
        at: when it was refused, UTC (for a record of a topic: the time the record was received).
        by: who refused it; `processor` says which processor, where one did.
        reason, field, value, mend: see `schemas.errors.Refused`.
        record: the input as it came: a request's event (JSON) or a record's value; base64 in JSON.
        topic, partition, offset: where it stood; topic is empty for what the collector refused before the log, and
            offset then says which event of its request it was, from 1 on.
        workspace, source: by whose write key it came, where that is known.
        message_id, key: of the event, where they could be read.
    """

    id: str
    at: datetime
    by: RejectedBy
    reason: str
    field: str = ""
    value: str = ""
    mend: str = ""
    processor: str = ""
    record: bytes = b""
    record_key: bytes = b""
    topic: str = ""
    partition: int = -1
    offset: int = -1
    workspace: str = ""
    source: str = ""
    message_id: str = ""
    key: str = ""

    @staticmethod
    def of(refused: Refused, **known: object) -> Rejected:
        """The dead letter of a refusal; `known` are the other fields."""
        return Rejected(
            reason=refused.reason, field=refused.field, value=refused.value, mend=refused.mend, **known  # type: ignore[arg-type]
        )  # fmt: skip


encode_rejected = msgspec.json.Encoder().encode
decode_rejected = msgspec.json.Decoder(Rejected).decode
