"""The arbiter: the one place that decides whether a message that a journey proposes is sent to somebody, now or later.

Of marketing messages it asks, in this order: an address, consent, quiet hours in her own time zone, and how many she
got of all journeys. A message that must arrive (`transactional`) needs an address alone. What is proposed on one record
of the log is decided by priority. The suppression list is looked at by the sender at each attempt, as it changes
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from processors.consent import Consent
from processors.moments import local_zone_of, quiet_until
from schemas.journeys import Cap, Limits, Mail, Ordered
from schemas.messages import address_of


class Allowed(NamedTuple):
    """She gets it now. `counts`: against how many she may get."""

    counts: bool


class Refused(NamedTuple):
    """She does not get it: why, and the facts."""

    why: str
    facts: Mapping[str, str | int]


class Delayed(NamedTuple):
    """It is decided again at `until_ms`, when quiet hours end."""

    until_ms: int


Verdict = Allowed | Refused | Delayed


class Known(NamedTuple):
    """What the arbiter looks at of a person.

    Attributes:
        key: her person key.
        profile: what the profile shows of her: her addresses and her time zone.
        consent: who allowed what.
        ordered: the marketing messages that she got of journeys.
        winners: of those that were decided on the same record, by id: whose they are, the newest last.
    """

    key: str
    profile: Mapping[str, Any]
    consent: Consent
    ordered: Sequence[Ordered]
    winners: dict[str, str]


class Arbiter:
    """Decides by the limits of all journeys.

    Args:
        zone: of the workspace, for who has none of her own.
    """

    def __init__(self, limits: Limits, zone: str) -> None:
        self.limits = limits
        self._zone = zone
        self.remembers_ms = max((cap.within.ms for cap in limits.caps), default=0)
        """How long a message counts."""

    def zone_of(self, profile: Mapping[str, Any]) -> str:
        """In which time zone somebody lives, as far as is known."""
        return local_zone_of(str(profile.get("timezone") or ""), self._zone)

    def decide(self, mail: Mail, known: Known, now_ms: int, until_ms: int) -> Verdict:
        """Whether a message is sent to somebody.

        Args:
            until_ms: it is not begun to be sent after that.
        """
        if not address_of(mail.channel, known.key, known.profile):
            return Refused("no_address", {"channel": mail.channel})
        if mail.kind == "transactional":
            return Allowed(counts=False)
        if not known.consent.allows(mail.topic, mail.channel):
            return Refused("no_consent", {"channel": mail.channel, "topic": mail.topic})
        if ends_ms := self._quiet_until(known.profile, now_ms):
            return Delayed(ends_ms) if ends_ms <= until_ms else Refused("expired", {"channel": mail.channel})
        for cap in self.limits.caps:
            if _is_about(cap, mail.channel, mail.topic):
                got = [each for each in known.ordered
                       if each.at_ms > now_ms - cap.within.ms and _is_about(cap, each.channel, each.topic)]  # fmt: skip
                if len(got) >= cap.at_most:
                    return _over(cap, got, known.winners)
        return Allowed(counts=True)

    def _quiet_until(self, profile: Mapping[str, Any], now_ms: int) -> int:
        quiet = self.limits.quiet_hours
        return quiet_until(now_ms, quiet.from_, quiet.to, self.zone_of(profile)) if quiet is not None else 0

    def counting(self, ordered: Iterable[Ordered], now_ms: int) -> list[Ordered]:
        """Those messages that still count for some cap."""
        return [each for each in ordered if each.at_ms > now_ms - self.remembers_ms]


def _is_about(cap: Cap, channel: str, topic: str) -> bool:
    return cap.channel in (None, channel) and cap.topic in ("", topic)


def _over(cap: Cap, got: Sequence[Ordered], winners: dict[str, str]) -> Refused:
    limits = ", ".join(each for each in (cap.channel or "", cap.topic) if each)
    said = f"{cap.at_most} in {cap.within}" + (f" ({limits})" if limits else "")
    facts: dict[str, str | int] = {"cap": said, "got": len(got)}
    counting = {each.id for each in got}
    winner = next((journey for id_, journey in reversed(winners.items()) if id_ in counting), "")
    if winner:
        return Refused("arbitration", {**facts, "winner": winner})
    return Refused("cap", facts)
