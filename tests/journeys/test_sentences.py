"""Journeys in words, in both languages."""

from __future__ import annotations

import re

import pytest

from config.yaml_file import parse_yaml
from schemas.journey_sentences import (
    LANGUAGES,
    entry_sentences,
    exits_sentence,
    goal_sentence,
    step_sentence,
    title_of_journey,
)
from schemas.journeys import STEPS, JourneyFile, kind_of

EVERY = """\
title: {en: All of them, zh: 全部}
enter: {event: {did: Product Added, where: {price: {at_least: 5}}}}
when: {trait: plan, is: club}
again: {once_per: cart_id}
goal: {did: Order Completed, matching: cart_id, within: 7 days}
exits: [{did: Unsubscribed}, {left: lookers}]
steps:
  - {step: pause, wait: 1 hour}
  - {step: evening, wait: {at: "18:00", days: [mon, fri]}}
  - {step: renewal, wait: {date: renews_on, days_before: 3, at: "10:00", zone: workspace}}
  - {step: remind, send: basket}
  - {step: read_it, wait_until: {did: Message Clicked, message: remind}, at_most: 2 days}
  - {step: member, wait_until: {joined: buyers}, at_most: 1 week}
  - {step: who, branch: [{when: {trait: plan, is: club}, then: coin}]}
  - {step: coin, split: [{then: mark}, {then: crm, weight: 3}], learns: true}
  - {step: mark, update: {traits: {warm: true, city: Wien, old: null}, add_tags: [cart], remove_tags: [new]}}
  - {step: crm, call: tell_crm}
  - {step: ask, ticket: {subject: Look at it}}
  - {step: ring, task: {subject: Call her}}
  - {step: once_more, go: remind, times: 2}
  - {step: ahead, go: last}
  - {step: last, exit: No answer}
"""
SAID = JourneyFile.model_validate(parse_yaml(EVERY, "every.yaml").values)


def test_each_kind_of_step_has_a_sentence() -> None:
    assert {kind_of(step) for step in SAID.steps} == set(STEPS)
    assert {step.step: step_sentence(step) for step in SAID.steps} == {
        "pause": "Wait 1 hour",
        "evening": "Wait until 18:00 on Monday, Friday, by her own clock",
        "renewal": "Wait until 3 days before the day that “renews_on” says at 10:00",
        "remind": "Send “basket”",
        "read_it": "Wait until she does “Message Clicked”, about the message of “remind”, at most 2 days",
        "member": "Wait until she joins segment “buyers”, at most 1 week",
        "who": "Decide by what is true of her",
        "coin": "Draw lots: mark 25%, crm 75%. The shares follow what reaches the goal",
        "mark": "Set “warm” to yes; set “city” to “Wien”; forget “old”; add the tag “cart”; take the tag “new” off",
        "crm": "Call “tell_crm”",
        "ask": "Open a ticket: “Look at it”",
        "ring": "Give somebody a task: “Call her”",
        "once_more": "Go to “remind”, at most 2 times",
        "ahead": "Go to “last”",
        "last": "She leaves: No answer",
    }


def test_the_same_is_said_in_chinese() -> None:
    told = [step_sentence(step, "zh") for step in SAID.steps]

    assert told[:5] == [
        "等待 1 小时",
        "等到 18:00（周一、周五），以本人时区为准",
        "等到“renews_on”所指日期的前 3 天 10:00",
        "发送“basket”",
        "等到发生“Message Clicked”（针对步骤“remind”所发的消息），最多 2 天",
    ]
    assert all(re.search("[\u4e00-\u9fff]", sentence) for sentence in told)
    assert goal_sentence(SAID.goal, "zh") == "目标：在 7 天内发生“Order Completed”（“cart_id”相同）；达成者随即离开"


def test_who_enters_and_when_she_leaves() -> None:
    assert entry_sentences(SAID) == [
        "Begins with “Product Added” where “price” is at least 5",
        "Of her it must be true: whose “plan” is “club”",
        "For each “cart_id” somebody enters once",
    ]
    assert exits_sentence(SAID.exits) == "She leaves when she does “Unsubscribed”, or she leaves segment “lookers”"
    assert exits_sentence(()) == ""
    assert [title_of_journey("all", SAID, code) for code in ("zh", "fr")] == ["全部", "All of them"]
    assert title_of_journey("all", None) == "all"


@pytest.mark.parametrize(("enter", "says"), [
    ("{joined: at_risk}", "Begins when she joins segment “at_risk”"),
    ("{left: buyers}", "Begins when she leaves segment “buyers”"),
    ("{date: {trait: birthday, calendar: lunar}}",
     "Begins on the day that “birthday” says by the Chinese calendar every year at 09:00"),
    ("{schedule: {cron: 0 9 * * mon, segment: buyers}}",
     "Begins by the schedule “0 9 * * mon”, for who is in segment “buyers” then"),
    ("{broadcast: buyers}", "Begins when somebody says so, for who is in segment “buyers” then"),
])  # fmt: skip
def test_each_entry_has_a_sentence(enter: str, says: str) -> None:
    said = JourneyFile.model_validate(parse_yaml(f"enter: {enter}\nsteps: [{{step: a, exit: b}}]\n", "x").values)

    assert entry_sentences(said)[0] == says
    assert re.search("[\u4e00-\u9fff]", entry_sentences(said, "zh")[0])


def test_no_language_lacks_a_word() -> None:
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]

    assert [name for name, word in chinese._asdict().items() if not word] == []
    assert {name for name, word in english._asdict().items() if word == getattr(chinese, name)} == set()
