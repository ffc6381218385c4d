"""What answers over HTTP mean, for all channels that post."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from sinks.messages.channel import Declined, Later, Unknown
from sinks.messages.guarded_http import Answer, NoAnswer, plain

LONGEST_PAUSE_S = 3_600.0  # that the other side is granted
_SECONDS = re.compile(r"[0-9]{1,9}\Z")


def of_silence(silence: NoAnswer, *, is_idempotent: bool = False) -> Later | Unknown:
    """What it means that there was no answer.

    Args:
        is_idempotent: a message that is sent again is taken once, as its id is the same.
    """
    if not silence.was_sent:
        return Later(str(silence), is_down=True)
    # Who breaks off may do so for what this one message holds: then it counts as a try, and others go on.
    return Later(str(silence), is_down=silence.is_timeout) if is_idempotent else Unknown(str(silence))


def of_status(answer: Answer, now_s: float) -> Later | Declined:
    """What a status other than 2xx means that says nothing else. `now_s`: since 1970."""
    said = plain(answer.body.decode("utf-8", "replace"))
    why = f"answered {answer.status}" + (f": {said}" if said else "")
    if answer.status in (408, 425, 429) or answer.status >= 500:
        return Later(why, asked_pause_s(answer, now_s), is_down=answer.status == 503)
    if 300 <= answer.status < 400:
        place = plain(answer.headers.get("Location", "")) or "nowhere"
        return Declined(f"answered {answer.status}, which leads to {place}; redirects are not followed: write the last "
                        "address into the settings")  # fmt: skip
    return Declined(why)


def asked_pause_s(answer: Answer, now_s: float) -> float | None:
    """How long it asks to be left alone: `Retry-After`, in seconds or as a date; an hour at most.

    Source: RFC 9110, section 10.2.3.
    """
    said = answer.headers.get("Retry-After", "").strip()
    if _SECONDS.match(said):
        return min(float(said), LONGEST_PAUSE_S)
    try:
        date = parsedate_to_datetime(said)
        at_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(at_s - now_s, 0.0), LONGEST_PAUSE_S)
