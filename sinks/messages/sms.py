"""What every SMS has: a number it goes to, and the parts that operators carry it in."""

from __future__ import annotations

import re

from sinks.messages.channel import Declined

# GSM 7-bit: what is in neither alphabet makes the whole message UCS-2.
# Source: 3GPP TS 23.038, sections 6.2.1 and 6.2.1.1; the sizes of parts: 3GPP TS 23.040, section 9.2.3.24.1.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")  # two places each
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}\Z")


def segments_of(text: str) -> int:
    """How many messages an SMS is, and is paid as.

    160 characters of GSM 7-bit are one; of a longer text each part has 153, for the parts name each other. Where one
    character is in another script, or an emoji, it is 70 and 67. What takes two places is not parted.

    >>> segments_of("a" * 160), segments_of("a" * 161), segments_of("€" * 81), segments_of("您好" * 35)
    (1, 2, 2, 1)
    """
    if all(each in _BASIC or each in _EXTENDED for each in text):
        places, one, each_of_many = [1 + (each in _EXTENDED) for each in text], 160, 153
    else:
        places, one, each_of_many = [1 + (each > "\uffff") for each in text], 70, 67
    if sum(places) <= one:
        return 1
    segments, left = 1, each_of_many
    for size in places:
        if size > left:
            segments, left = segments + 1, each_of_many
        left -= size
    return segments


def wrong_number(to: str) -> Declined | None:
    """Why nothing reaches a number, if it is none: E.164 wants `+`, the country, and 15 digits at most."""
    if _NUMBER.match(to):
        return None
    return Declined(f"{to!r} is no phone number of the form +8613800138000 (E.164)", is_address=True)
