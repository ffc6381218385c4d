"""`tidewire`, but what waits for minutes when messages are sent waits for seconds: for a sender that is killed often.
TIDEWIRE_TEST_MINUTE_MS says how long the minutes of journeys take.

    python -m tests.faults.hurried up --data DIR
"""

from __future__ import annotations

import os

from schemas import conditions
from sinks.messages.guarded_http import GuardedHttp
from streams import dispatch, messages
from streams.cli import main
from streams.dispatch import Dispatcher
from streams.messages import MessageStage

LEASE_MS = 3_000
CALL_S = 2.0  # the longest call of a channel
POST_S = 1.0  # of those that post
MINUTE = "TIDEWIRE_TEST_MINUTE_MS"  # a variable of the environment


def hurry_minutes() -> None:
    """What is told in minutes takes so many milliseconds each, where the environment says how many: a journey then
    waits for seconds, and its day is the day that it was."""
    if MINUTE in os.environ:
        conditions._UNITS_MS["minute"] = int(os.environ[MINUTE])


def hurry() -> None:
    messages.OFFER_AGAIN_MS = messages.FIRST_PAUSE_MS = 500
    dispatch.LONGEST_REST_S = 4.0
    stage, dispatcher = MessageStage.__init__.__defaults__, Dispatcher.__init__.__kwdefaults__
    assert stage is not None and stage[1] == messages.LEASE_MS == dispatcher["lease_ms"]
    MessageStage.__init__.__defaults__ = (stage[0], LEASE_MS)
    Dispatcher.__init__.__kwdefaults__ = {**dispatcher, "lease_ms": LEASE_MS, "call_s": CALL_S}
    posts = GuardedHttp.__init__.__kwdefaults__
    assert "timeout_s" in posts
    GuardedHttp.__init__.__kwdefaults__ = {**posts, "timeout_s": POST_S}


if __name__ == "__main__":
    hurry()
    hurry_minutes()
    main()
