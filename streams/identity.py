"""Which keys are one person: claims, merges, and their undoing. Pure: a record and a message in, messages out.

A key is *claimed* by the user key it was seen together with. The claim with the earliest evidence wins, whatever comes
first, so the outcome does not depend on the order of arrival. A claimed key sends its parts to the holder (`Absorb`)
and from then on passes everything on. A key can be merged into one that is itself merged: parts then travel on, and
remember the way they came (`via`), so that a merge can be undone at any link of the chain.

Messages between two records arrive in order and are handled once, but those of different senders overtake each other.
So an event is applied to a part that came the same way as it did, and one that overtook its part is held until it is
there: every part sees its events in the order of the log, wherever it is.
"""

from __future__ import annotations

from schemas.customer import Claim, Customer, Debt, Link, Part, Via, decode_parts
from schemas.effects import Decision
from schemas.event import PUBLIC_ALIAS, Event
from schemas.internal import Absorb, Merge, Refuse, Release, Unmerge, Vouch
from schemas.keyed import encode_state
from schemas.keys import anonymous_key, is_user, user_key
from schemas.rows import Identity
from schemas.times import from_ms
from streams.outbox import Outbox

PROCESSOR = "identity"  # the name that decisions of this page carry

EARLIER = "another person has the earlier claim"
UNMERGED = "unmerged"
ABSORB_BYTES = 1024 * 1024  # of parts in one message


def linked_keys(event: Event) -> list[str]:
    """The keys that an event says belong to the same person as its user.

    Two users are joined on the word of a program that keeps a secret alone: who reads what is for one of them, such as
    the inbox, reads what is for the other from then on.
    """
    if not event.user_id or not (event.anonymous_id or event.type == "alias"):
        return []
    keys = []
    if event.anonymous_id:
        keys.append(anonymous_key(event.workspace, event.anonymous_id))
    if event.type == "alias":
        if PUBLIC_ALIAS not in event.flags:
            keys.append(user_key(event.workspace, event.previous_id))
        keys.append(anonymous_key(event.workspace, event.previous_id))
    return [key for key in keys if key != event.key]


def claim_keys(key: str, customer: Customer, event: Event, most_links: int, out: Outbox) -> None:
    """Claim the keys an event names, or have them claim this one.

    A user claims anonymous ids. Of two users the one with the lesser key claims the other, so that aliases which
    contradict each other make no circle.
    """
    for other in linked_keys(event):
        if is_user(other) and other < key:
            claim = Claim(event.at_ms, other, event.message_id)
            out.send(Vouch(to=other, origin=out.origin, at_ms=out.at_ms, key=key, claim=claim))
        else:
            claim_key(key, customer, other, Claim(event.at_ms, key, event.message_id), most_links, out)


def claim_key(key: str, customer: Customer, other: str, claim: Claim, most_links: int, out: Outbox) -> None:
    """Claim a key, where it is not claimed already on earlier evidence."""
    links = customer.links
    link = links.get(other)
    if link is None:
        if len(links) > most_links:
            return
        if len(links) == most_links:  # said once; what comes after is left alone in silence
            links[other] = Link(claim, "refused")
            out.decide(key, PROCESSOR, Decision("merge_refused", other, {"why": f"{most_links} ids are the most"}))
            return
    elif link.state == "unmerged" or link.claim <= claim:
        return
    links[other] = Link(claim, "claimed")
    out.send(Merge(to=other, origin=out.origin, at_ms=out.at_ms, claim=claim))


def on_merge(key: str, customer: Customer, message: Merge, out: Outbox) -> None:
    """Somebody claims this key."""
    claim, before = message.claim, customer.claim
    if claim.holder == key:
        return
    if claim.holder in customer.undone:
        refuse(key, claim, UNMERGED, out)
    elif before is not None and claim.holder == before.holder:
        customer.claim = min(before, claim)
    elif before is not None and before < claim:
        refuse(key, claim, EARLIER, out)
        facts = {"why": EARLIER, "evidence": claim.message_id}
        out.decide(claim.holder, PROCESSOR, Decision("merge_refused", key, facts))
    else:
        if customer.turn == 0:
            customer.parts.setdefault(key, Part())  # from its first turn on, the part of a key is in one place
        customer.claim = claim
        customer.turn += 1
        if before is not None and customer.redirect:
            release(customer.redirect, key, customer.turn, claim.holder, out)
            refuse(key, before, EARLIER, out)
        else:
            hand_over(key, customer, claim.holder, out)
        customer.redirect = claim.holder
        out.decide(claim.holder, PROCESSOR, Decision("merged", key, {"evidence": claim.message_id}))


def hand_over(key: str, customer: Customer, to: str, out: Outbox) -> None:
    """Send all parts to the record they belong to from now on."""
    parts, customer.parts = customer.parts, {}
    step = Via(key, customer.turn)
    for part_key, part in parts.items():
        customer.passed[part_key] = part.via
        part.via = [step, *part.via]
        part.moves += 1
    send_parts(to, parts, out)


def send_parts(to: str, parts: dict[str, Part], out: Outbox) -> None:
    """Send parts, in as many messages as they need: many large ones may not fit one record of the log."""
    load: dict[str, Part] = {}
    size = 0
    for part_key, part in parts.items():
        load[part_key] = part
        size += len(encode_state(part)) if len(parts) > 1 else 0
        if size > ABSORB_BYTES:
            out.send(Absorb(to=to, origin=out.origin, at_ms=out.at_ms, parts=encode_state(load)))
            load, size = {}, 0
    if load:
        out.send(Absorb(to=to, origin=out.origin, at_ms=out.at_ms, parts=encode_state(load)))


def on_absorb(key: str, customer: Customer, message: Absorb) -> None:
    """Parts arrive, to stay or on their way."""
    for part_key, part in decode_parts(message.parts).items():
        part.via = since_here(key, part.via)
        customer.parts[part_key] = part


def since_here(key: str, way: list[Via]) -> list[Via]:
    """The way, the last step first, less what led here before: what comes home starts anew."""
    for i in range(len(way) - 1, -1, -1):
        if way[i].key == key:
            return way[i + 1 :]
    return way


def refuse(key: str, claim: Claim, reason: str, out: Outbox) -> None:
    out.send(Refuse(to=claim.holder, origin=out.origin, at_ms=out.at_ms, key=key, claim=claim, reason=reason))


def on_refuse(customer: Customer, message: Refuse) -> None:
    link = customer.links.get(message.key)
    if link is None:
        return
    if message.reason == UNMERGED:
        link.state = "unmerged"
    elif link.claim >= message.claim:  # else it has claimed on better evidence since
        link.state = "refused"


def release(holder: str, key: str, turn: int, heir: str, out: Outbox) -> None:
    out.send(Release(to=holder, origin=out.origin, at_ms=out.at_ms, key=key, turn=turn, heir=heir,
                     path=[Via(key, turn - 1)]))  # fmt: skip


def on_release(key: str, customer: Customer, message: Release, out: Outbox) -> None:
    """Parts that came the same way are asked back; those that are still on their way here are owed too."""
    customer.debts.append(Debt(message.path[::-1], message.key, message.turn, message.heir))
    pay_debts(customer, out)
    if customer.redirect:  # some of the parts may have been handed on from here
        message.to, message.path = customer.redirect, [*message.path, Via(key, customer.turn)]
        out.send(message)


def pay_debts(customer: Customer, out: Outbox) -> None:
    """Send the parts that are owed to their heirs."""
    owed: dict[str, dict[str, Part]] = {}
    for part_key, part in list(customer.parts.items()):
        debts = [debt for debt in customer.debts if part.via[: len(debt.way)] == debt.way]
        if debts:
            debt = max(debts, key=lambda debt: len(debt.way))  # who is nearer to the part asked for less
            del customer.parts[part_key]
            part.via = [Via(debt.key, debt.turn), *part.via[len(debt.way) :]]
            part.moves += 1
            owed.setdefault(debt.heir, {})[part_key] = part
    for heir, parts in owed.items():
        send_parts(heir, parts, out)


def on_unmerge(key: str, customer: Customer, message: Unmerge, out: Outbox) -> None:
    """A person undoes a merge: the key stands for itself again, and that holder never gets it back."""
    holder, claim = customer.redirect, customer.claim
    if not holder or claim is None:
        facts = {"why": "it is not merged", "by": message.asked_by}
        out.decide(key, PROCESSOR, Decision("unmerge_refused", key, facts))
        return
    customer.redirect, customer.claim = "", None
    customer.turn += 1
    customer.passed = {}  # the parts come back here, so their events wait for them here
    customer.undone.append(holder)
    release(holder, key, customer.turn, key, out)
    refuse(key, claim, UNMERGED, out)
    out.decide(key, PROCESSOR, Decision("unmerged", key, {"from": holder, "by": message.asked_by}))


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
