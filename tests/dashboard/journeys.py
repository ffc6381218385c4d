"""Journeys for the pages to show, and rows as people who went through them leave: of their ways, and in the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from config.journeys import read_limits
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from schemas.messages import SOURCE
from schemas.times import to_ms
from sinks.analytics import Analytics
from streams.definitions import take_over_limits
from streams.log import Outgoing
from tests.dashboard import payloads
from web.dashboard.pages.journeys import states_of
from web.dashboard.site import Site

BASKET = """\
title: {en: Abandoned basket, zh: 被遗忘的购物篮}
about: Calls a basket to mind that was left.
enter: {event: {did: Product Added, where: {price: {at_least: 5}}}}
again: {once_per: product_id}
goal: {did: Order Completed, within: 7 days, value: total}
exits: [{did: Unsubscribed}, {left: lookers}]
steps:
  - {step: pause, wait: 1 hour}
  - step: who
    branch:
      - {when: {trait: plan, is: club}, then: club}
      - {when: {all: [{did: Order Completed, at_least: 2, within: 9 days}, {not: {trait: city, is: Wien}}]}, then: coin}
  - {step: remind, send: come_back, given: {offer: ten}, refused: call_her}
  - step: read_it
    wait_until: {did: Message Clicked, message: remind}
    at_most: 2 days
    otherwise: once_more
    then: end
  - {step: once_more, go: remind, times: 1}
  - {step: give_up, exit: No answer}
  - {step: club, send: welcome, then: end}
  - {step: coin, split: [{then: mark}, {then: evening, weight: 3}]}
  - {step: mark, update: {traits: {warm: true}, add_tags: [cart]}}
  - {step: evening, wait: {at: "18:00", days: [mon, fri]}}
  - {step: call_her, task: {subject: Call her}}
"""
NEWS = """\
title: {en: News for regulars, zh: 常客新闻}
enter: {broadcast: buyers}
again: always
holdout: 0
steps:
  - {step: tell, send: welcome}
"""
NAMES = ("basket", "news")
CONTROL, TREATED = 130, 420
SENT = 40  # messages that it is known of what became of them


def hostile(text: str) -> str:
    """A journey in which a text stands wherever one may."""
    said = json.dumps(text)
    return f"""\
title: {{en: {said}, zh: {said}}}
about: {said}
enter: {{event: {{did: {said}, where: [{{property: a, contains: {said}}}]}}}}
goal: {{did: {said}, within: 7 days}}
steps:
  - {{step: who, branch: [{{when: {{trait: name, is: {said}}}, then: leave}}]}}
  - {{step: mark, update: {{traits: {{a: {said}}}, add_tags: [{said}]}}}}
  - {{step: until, wait_until: {{did: {said}}}, at_most: 1 day}}
  - {{step: ask, task: {{subject: {said}, about: {said}}}}}
  - {{step: leave, exit: {said}}}
"""


async def make(site: Site, scene: str, now: datetime) -> None:
    """Write the journeys of a scene, and the rows that people left."""
    if scene not in ("plenty", "hostile"):
        return
    await take_over_limits(site.log, read_limits(site.settings.config), by="the test", now_ms=to_ms(now))
    text = payloads.PAYLOADS[0]
    first = {"basket": BASKET.replace("2 days", "1 day"), "news": NEWS} if scene == "plenty" else {}
    last = {"basket": BASKET} if scene == "plenty" else {"basket": hostile(text)}
    for texts in (first, last):
        for name, said in texts.items():
            await site.journeys.save(name, said, by="the test" if scene == "plenty" else text, now_ms=to_ms(now))
    if scene == "plenty":
        await site.journeys.steer("news", "paused", by="the test", now_ms=to_ms(now))
    while "waiting" in {state.name for state in (await states_of(site)).values()}:  # noqa: ASYNC110 (as in world.py)
        await asyncio.sleep(0.1)
    query = "SELECT person FROM person_list ORDER BY length(identities) DESC, events DESC, person LIMIT 6"
    people = [row["person"] for row in await site.analytics.query(query)]
    ways = [*_ways(people, now)] if scene == "plenty" else [*_hostile_ways(people, text, now)]
    await _store(site.analytics, site.workspace, ways)
    if scene == "plenty":
        await _read(site, people[0], now)


async def _read(site: Site, key: str, now: datetime) -> None:
    """Of the messages that were sent one is opened and clicked, one opened, and one fetched by a program."""
    query = "SELECT id FROM messages_list WHERE ordered_by = 'journey basket' AND template = 'come_back' " \
            "AND state = 'sent' ORDER BY id LIMIT 3"  # fmt: skip
    first, second, third = [row["id"] for row in await site.analytics.query(query)]
    said = ((first, "Message Opened", {}), (first, "Message Clicked", {}), (second, "Message Opened", {}),
            (third, "Message Opened", {"machine": "proxy"}))  # fmt: skip
    arrival = Arrival(workspace=site.workspace, source=SOURCE, received_at=now)
    for number, (id_, event, more) in enumerate(said):
        body = {"type": "track", "event": event, "userId": key.partition(":")[2], "messageId": f"read-{number}",
                "properties": {"message_id": id_, **more}}  # fmt: skip
        read = read_event(json.dumps(body).encode(), "", arrival)
        await site.log.append("events", [Outgoing(read.key.encode(), encode_event(read))])
    while not (await site.freshness()).is_current:  # noqa: ASYNC110 (as in world.py)
        await asyncio.sleep(0.1)


def _message(workspace: str, number: int, key: str, at: datetime, facts: dict[str, Any]) -> dict[str, Any]:
    """What became of one that it sent."""
    state, why = (("sent", ""), ("sent", ""), ("failed", "550 no such user"), ("withheld", "bounced"))[number % 4]
    return {"workspace": workspace, "key": key, "id": facts["message"], "template": facts["template"],
            "template_version": "1", "channel": facts["channel"], "via": "outbox", "kind": "marketing", "topic": "",
            "state": state, "why": why, "attempts": 1, "address": "a@mail.example", "reference": "",
            "ordered_by": "journey basket", "ordered_at": at, "changed_at": at, "due_at": None, "version": 1,
            "is_deleted": 0}  # fmt: skip


Told = tuple[str, datetime, dict[str, Any]]
Way = tuple[dict[str, Any], list[Told]]  # a row, and lines of the ledger


def _ways(people: list[str], now: datetime) -> Iterator[Way]:
    dice = Random(11)
    for number in range(CONTROL + TREATED):
        key = people[number] if number < len(people) else f"default/u:basket-{number:04d}"
        entered = now - timedelta(minutes=90 + dice.randrange(29 * 1440) if number > 3 else 30)
        is_control = number >= TREATED
        goal = entered + timedelta(hours=20) if dice.random() < (0.12 if is_control else 0.31) else None
        yield _way(dice, number, key, entered, goal, is_control)


def _way(dice: Random, number: int, key: str, entered: datetime, goal: datetime | None, is_control: bool) -> Way:
    row = {"run": f"{number:016x}", "key": key, "is_control": is_control, "state": "control" if is_control else "waits",
           "step": "", "entered_at": entered, "entry_key": f"cart-{number}", "due_at": None, "left_at": None,
           "left_by": "", "goal_at": goal, "goal_value": 20.0 + number % 60 if goal else 0.0, "sent": 0}  # fmt: skip
    told: list[Told] = [("entered", entered, {"by": "event", "control": is_control, "key": f"cart-{number}"})]
    at = entered

    def tell(kind: str, step: str, **facts: Any) -> None:
        nonlocal at
        at += timedelta(minutes=7)
        row["step"] = step
        told.append((kind, at, {"step": step, **facts}))

    def leave(why: str, **facts: Any) -> Way:
        tell("left", row["step"], why=why, **facts)
        row.update(state="ended" if goal else "after", left_at=at, left_by=why, due_at=None)
        return row, told

    if is_control:
        return row, told
    tell("waits", "pause", due="2026-01-01T00:00:00Z")
    if number <= 3:
        row["due_at"] = entered + timedelta(hours=1)
        return row, told
    if dice.random() < 0.06:
        return leave("goal")
    tell("woke", "pause")
    case = dice.choice((0, 0, 0, 1, 2))
    tell("branched", "who", number=case, to=("remind", "club", "coin")[case])
    if case == 1:
        row["sent"] += 1
        tell("proposed", "club", template="welcome", channel="email", message=f"{number:032x}")
        return leave("done")
    if case == 2:
        arm = dice.choice((1, 2, 2, 2))
        tell("split", "coin", arm=arm, to=("mark", "evening")[arm - 1], share=(0.25, 0.75)[arm - 1])
        if arm == 1:
            tell("updated", "mark", what="warm")
        if dice.random() < 0.2:
            row.update(step="evening", due_at=entered + timedelta(days=2))
            return row, told
        tell("woke", "evening")
    else:
        for again in range(2):
            if dice.random() < 0.1:
                tell("refused", "remind", template="come_back", why=dice.choice(("cap", "no_consent")))
                break
            row["sent"] += 1
            tell("proposed", "remind", template="come_back", channel="email", message=f"{again + 1}{number:031x}")
            if dice.random() < 0.1:
                row.update(step="read_it", state=dice.choice(("waits", "held")), due_at=entered + timedelta(days=2))
                return row, told
            if dice.random() < 0.4:
                tell("happened", "read_it", what="Message Clicked")
                return leave("done")
            tell("timed_out", "read_it")
        else:
            row["step"] = "give_up"
            return leave("exit", exit="No answer")
    tell("opened", "call_her", what="task", subject="Call her")
    return leave("done")


def _hostile_ways(people: list[str], text: str, now: datetime) -> Iterator[Way]:
    for number, key in enumerate(people):
        row = {"run": f"{number:016x}", "key": key, "is_control": False, "state": "waits", "step": "until",
               "entered_at": now, "entry_key": text, "due_at": now, "left_at": None, "left_by": "", "goal_at": None,
               "goal_value": 0.0, "sent": 0}  # fmt: skip
        yield row, [("entered", now, {"by": "event", "control": False, "key": text}),
                    ("refused", now, {"step": "until", "template": text, "why": text}),
                    ("left", now, {"step": "until", "why": text, "exit": text})]  # fmt: skip


async def _store(analytics: Analytics, workspace: str, ways: list[Way]) -> None:
    rows = [{**row, "workspace": workspace, "journey": "basket", "definition": 1 + (number % 40 != 7),
             "entered_by": "event", "version": 1, "is_deleted": 0} for number, (row, _) in enumerate(ways)]  # fmt: skip
    lines = [
        {"workspace": workspace, "id": f"journey-{row['run']}-{number}", "recorded_for": row["key"], "at": at,
         "processor": "journeys", "kind": kind, "about": "basket", "cause": "events-0@7",
         "facts": {"run": row["run"], "version": row["definition"], **facts}}
        for row, (_, told) in zip(rows, ways, strict=True) for number, (kind, at, facts) in enumerate(told)
    ]  # fmt: skip
    lines += [{**lines[0], "id": f"out-{number}", "kind": "not_entered", "facts": {"version": 2, "why": "again"}}
              for number in range(9)]  # fmt: skip
    messages = [_message(workspace, number, row["key"], at, facts) for number, (row, told) in enumerate(ways)
                for kind, at, facts in told if kind == "proposed"]  # fmt: skip
    for table, of in (("journey_runs", rows), ("decisions", lines), ("messages", messages[:SENT])):
        if of:
            await analytics.insert(table, {name: [row[name] for row in of] for name in of[0]})
