"""Which keys are one person: claims, merges, and their undoing. Pure: a record and a message in, messages out.

A key is *claimed* by the user key it was seen together with. The claim with the earliest evidence wins, whatever comes
first, so the outcome does not depend on the order of arrival. A claimed key sends its parts to the holder (`Absorb`)
and from then on passes everything on. A key can be merged into one that is itself merged: parts then travel on, and
remember the way they came (`via`), so that a merge can be undone at any link of the chain.

Everything may arrive twice. A claim is compared, a part carries how often it moved, a redirect is set or is not: the
second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from schemas.customer import Claim, Customer, Link, Part, Via, decode_parts, encode_state
from schemas.effects import Decision
from schemas.event import Event
from schemas.internal import Absorb, Forward, Merge, Refuse, Release, Unmerge
from schemas.keys import anonymous_key, user_key
from schemas.rows import Identity
from schemas.times import from_ms
from streams.outbox import Outbox

PROCESSOR = "identity"  # the name that decisions of this page carry

EARLIER = "another person has the earlier claim"
UNMERGED = "unmerged"

MergeParts = Callable[[Part, Part], Part]


def claimed_keys(event: Event) -> Iterable[str]:
    """The keys that an event says belong to its user."""
    if not event.user_id:
        return ()
    keys = []
    if event.anonymous_id:
        keys.append(anonymous_key(event.workspace, event.anonymous_id))
    if event.type == "alias":
        keys.append(user_key(event.workspace, event.previous_id))
        keys.append(anonymous_key(event.workspace, event.previous_id))
    return [key for key in keys if key != event.key]


def claim_keys(key: str, customer: Customer, event: Event, most_links: int, out: Outbox) -> None:
    """Claim the keys an event names, where they are not claimed already on earlier evidence."""
    links = customer.links
    for other in claimed_keys(event):
        claim = Claim(event.at_ms, key, event.message_id)
        link = links.get(other)
        if link is None:
            if len(links) > most_links:
                continue
            if len(links) == most_links:  # said once; what comes after is left alone in silence
                links[other] = Link(claim, "refused")
                out.decide(key, PROCESSOR, Decision("merge_refused", other, {"why": f"{most_links} ids are the most"}))
                continue
        elif link.state == "unmerged" or link.claim <= claim:
            continue
        links[other] = Link(claim, "claimed")
        out.send(Merge(to=other, origin=out.origin, at_ms=out.at_ms, claim=claim))


def on_merge(key: str, customer: Customer, message: Merge, out: Outbox) -> None:
    """Somebody claims this key."""
    claim, before = message.claim, customer.claim
    if claim.holder == key:
        return
    if claim.holder in customer.undone:
        refuse(claim.holder, key, UNMERGED, out)
    elif before is not None and claim.holder == before.holder:
        customer.claim = min(before, claim)
    elif before is not None and before < claim:
        refuse(claim.holder, key, EARLIER, out)
        facts = {"why": EARLIER, "evidence": claim.message_id}
        out.decide(claim.holder, PROCESSOR, Decision("merge_refused", key, facts))
    else:
        customer.claim = claim
        customer.turn += 1
        if customer.redirect:
            release(customer.redirect, key, customer.turn, claim.holder, out)
            refuse(customer.redirect, key, EARLIER, out)
        else:
            customer.parts.setdefault(key, Part())
            hand_over(key, customer, claim.holder, out)
        customer.redirect = claim.holder
        out.decide(claim.holder, PROCESSOR, Decision("merged", key, {"evidence": claim.message_id}))


def hand_over(key: str, customer: Customer, to: str, out: Outbox) -> None:
    """Send all parts to the record they belong to from now on."""
    parts, customer.parts = customer.parts, {}
    for part in parts.values():
        part.via = [Via(key, customer.turn), *part.via]
        part.moves += 1
    out.send(Absorb(to=to, origin=out.origin, at_ms=out.at_ms, parts=encode_state(parts)))


def on_absorb(key: str, customer: Customer, message: Absorb, merge_parts: MergeParts) -> None:
    """Parts arrive at the record that holds them from now on."""
    for part_key, part in decode_parts(message.parts).items():
        if part.via and part.via[0].key == key:
            part.via = part.via[1:]  # at home again
        here = customer.parts.get(part_key)
        if here is not None and here.moves == 0:
            # Events came before the history they belong to: two halves of it.
            whole = merge_parts(here, part)
            whole.via, whole.moves = part.via, part.moves
            customer.parts[part_key] = whole
        elif here is None or here.moves < part.moves:
            customer.parts[part_key] = part


def refuse(holder: str, key: str, reason: str, out: Outbox) -> None:
    out.send(Refuse(to=holder, origin=out.origin, at_ms=out.at_ms, key=key, reason=reason))


def on_refuse(customer: Customer, message: Refuse) -> None:
    link = customer.links.get(message.key)
    if link is not None:
        link.state = "unmerged" if message.reason == UNMERGED else "refused"


def release(holder: str, key: str, turn: int, heir: str, out: Outbox) -> None:
    out.send(Release(to=holder, origin=out.origin, at_ms=out.at_ms, key=key, turn=turn, heir=heir))


def on_release(customer: Customer, message: Release, out: Outbox) -> None:
    """Give back the parts that came through a key."""
    parts = {}
    for part_key, part in list(customer.parts.items()):
        for i, via in enumerate(part.via):
            if via.key == message.key and via.turn < message.turn:
                del customer.parts[part_key]
                part.via = [Via(message.key, message.turn), *part.via[i + 1 :]]
                part.moves += 1
                parts[part_key] = part
                break
    if parts:
        out.send(Absorb(to=message.heir, origin=out.origin, at_ms=out.at_ms, parts=encode_state(parts)))


def on_unmerge(key: str, customer: Customer, message: Unmerge, out: Outbox) -> None:
    """A person undoes a merge: the key stands for itself again, and that holder never gets it back."""
    holder = customer.redirect
    if not holder:
        out.decide(key, PROCESSOR, Decision("unmerge_refused", key, {"why": "it is not merged", "by": message.by}))
        return
    customer.redirect, customer.claim = "", None
    customer.turn += 1
    customer.undone.append(holder)
    release(holder, key, customer.turn, key, out)
    refuse(holder, key, UNMERGED, out)
    out.decide(key, PROCESSOR, Decision("unmerged", key, {"from": holder, "by": message.by}))


def pass_on(key: str, customer: Customer, message: Absorb | Forward | Release, out: Outbox) -> bool:
    """Hand a message on to the record this one was merged into. False: it is to be handled here.

    Contradictory aliases can make a circle. A message that comes by again has gone round it, and the least key of the
    circle then stands for all: it drops its redirect, and keeps the claim, so that the outcome stays.
    """
    if not customer.redirect:
        return False
    if key in message.path:
        circle = message.path[message.path.index(key) :]
        if key == min(circle):
            customer.redirect = ""
            return False
    message.to, message.path = customer.redirect, [*message.path, key]
    if isinstance(message, Absorb):
        parts = decode_parts(message.parts)
        for part in parts.values():
            part.via = [Via(key, customer.turn), *part.via]
        message.parts = encode_state(parts)
    out.send(message)
    return True


def identities_of(key: str, customer: Customer) -> list[Identity]:
    """Every key whose history this person holds, with the evidence where this record knows it."""
    found = []
    for part_key, part in customer.parts.items():
        link = customer.links.get(part_key)
        found.append(Identity(
            key=part_key, person=key, moves=part.moves,
            evidence=link.claim.message_id if link else "",
            linked_at=from_ms(link.claim.at_ms) if link else None,
        ))  # fmt: skip
    return found
