"""A condition as a sentence, in English and Chinese: what a marketer reads beside the YAML, and checks it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from schemas.conditions import (
    All,
    Any_,
    Attribute,
    Context,
    Did,
    Duration,
    Event,
    InSegment,
    Not,
    Op,
    Step,
    Test,
    Total,
    Trait,
)
from schemas.conditions import Sequence as Steps

SHOWN_VALUES = 5  # of one_of


class Words(NamedTuple):
    """What a language says. Braces are filled in."""

    both: str
    either: str
    no: str
    comma: str
    quoted: str
    did: str
    did_not: str
    where: str
    first: str
    last: str
    total: str
    at_least_in_total: str
    less_in_total: str
    at_least_times: str
    at_most_times: str
    exactly_times: str
    within: str
    longer_ago: str
    since: str
    then: str
    soon: str
    without: str
    trait: str
    attribute: str
    context: str
    segment: str
    not_segment: str
    more: str
    true: str
    false: str
    units: dict[str, tuple[str, ...]]
    tests: dict[Op, tuple[str, str]]


_ENGLISH = Words(
    both=" and ", either=" or ", no="not ({})", comma=", ", quoted="“{}”",
    did="did {event}{times}{when}", did_not="did not do {event}{when}", where=" where {}",
    first="whose first {event} was {when}", last="whose last {event} was {when}",
    total="whose {event} come to {total} of {of}{when}", at_least_in_total="at least {}", less_in_total="less than {}",
    at_least_times=" at least {} times", at_most_times=" at most {} times", exactly_times=" exactly {} times",
    within=" in the last {}", longer_ago=" longer than {} ago", since=" since {}",
    then=", then {event}{soon}{without}", soon=" within {}", without=" without {} in between",
    trait="whose {name} {test}", attribute="whose {name} {test}", context="whose newest {name} {test}",
    segment="is in segment {}", not_segment="is not in segment {}",
    more="{} more", true="yes", false="no",
    units={"minute": ("{} minute", "{} minutes"), "hour": ("{} hour", "{} hours"), "day": ("{} day", "{} days"),
           "week": ("{} week", "{} weeks"), "calendar day": ("{} calendar day", "{} calendar days")},
    tests={
        Op.IS: ("is {}", "is not {}"), Op.ONE_OF: ("is one of {}", "is none of {}"),
        Op.CONTAINS: ("contains {}", "does not contain {}"),
        Op.STARTS_WITH: ("begins with {}", "does not begin with {}"),
        Op.ENDS_WITH: ("ends with {}", "does not end with {}"), Op.EXISTS: ("is known", "is not known"),
        Op.AT_LEAST: ("is at least {}", "is not at least {}"), Op.AT_MOST: ("is at most {}", "is not at most {}"),
        Op.MORE_THAN: ("is more than {}", "is not more than {}"),
        Op.LESS_THAN: ("is less than {}", "is not less than {}"),
        Op.BETWEEN: ("is from {} to {}", "is not from {} to {}"), Op.BEFORE: ("is before {}", "is not before {}"),
        Op.SINCE: ("is {} or later", "is not {} or later"), Op.WITHIN: ("is in the last {}", "is not in the last {}"),
        Op.LONGER_AGO: ("is longer than {} ago", "is not longer than {} ago"),
    },
)  # fmt: skip

_CHINESE = Words(
    both="，并且", either="，或者", no="并非（{}）", comma="、", quoted="“{}”",
    did="{when}做过{event}{times}", did_not="{when}没有做过{event}", where="（{}）",
    first="首次{event}{when}", last="最近一次{event}{when}",
    total="{when}{event}的{of}合计{total}", at_least_in_total="不少于 {}", less_in_total="少于 {}",
    at_least_times="至少 {} 次", at_most_times="至多 {} 次", exactly_times="恰好 {} 次",
    within="在最近 {} 内", longer_ago="在 {} 以前", since="自 {} 起",
    then="，然后{soon}{without}{event}", soon="在 {} 内", without="其间没有{}，",
    trait="{name}{test}", attribute="{name}{test}", context="最新的{name}{test}",
    segment="属于分群 {}", not_segment="不属于分群 {}",
    more="另外 {} 个", true="是", false="否",
    units={"minute": 2 * ("{} 分钟",), "hour": 2 * ("{} 小时",), "day": 2 * ("{} 天",), "week": 2 * ("{} 周",),
           "calendar day": 2 * ("{} 个自然日",)},
    tests={
        Op.IS: ("是{}", "不是{}"), Op.ONE_OF: ("是{}之一", "不是{}中的任何一个"),
        Op.CONTAINS: ("包含{}", "不包含{}"), Op.STARTS_WITH: ("以{}开头", "不以{}开头"),
        Op.ENDS_WITH: ("以{}结尾", "不以{}结尾"), Op.EXISTS: ("已知", "未知"),
        Op.AT_LEAST: ("不小于 {}", "小于 {}"), Op.AT_MOST: ("不大于 {}", "大于 {}"),
        Op.MORE_THAN: ("大于 {}", "不大于 {}"), Op.LESS_THAN: ("小于 {}", "不小于 {}"),
        Op.BETWEEN: ("在 {} 到 {} 之间", "不在 {} 到 {} 之间"), Op.BEFORE: ("早于 {}", "不早于 {}"),
        Op.SINCE: ("在 {} 当天或以后", "早于 {}"), Op.WITHIN: ("在最近 {} 内", "不在最近 {} 内"),
        Op.LONGER_AGO: ("在 {} 以前", "不在 {} 以前"),
    },
)  # fmt: skip

LANGUAGES = {"en": _ENGLISH, "zh": _CHINESE}


def sentence_of(condition: Any, language: str = "en") -> str:
    """What the condition says of a person, without a subject.

    >>> from schemas.conditions import read_condition
    >>> sentence_of(read_condition({"not": {"did": "Email Opened", "within": "30 days"}}))
    'did not do “Email Opened” in the last 30 days'
    """
    return _Speaker(LANGUAGES[language]).of(condition)


def event_said(event: Event, language: str = "en") -> str:
    """An event and the tests on it.

    >>> event_said(Event(did="Order Completed", where={"total": {"at_least": 20}}))
    '“Order Completed” where “total” is at least 20'
    """
    return _Speaker(LANGUAGES[language]).event(event)


def duration_said(duration: Duration, language: str = "en") -> str:
    """So long: 3 days."""
    return _Speaker(LANGUAGES[language]).duration(duration)


def quoted(text: str, language: str = "en") -> str:
    """A name that somebody gave, between quotation marks."""
    return LANGUAGES[language].quoted.format(text)


def value_said(value: Any, language: str = "en") -> str:
    """A value that something is, or is to be: a text between quotation marks, yes or no."""
    return _Speaker(LANGUAGES[language]).value(value)


class _Speaker:
    """Speaks one language."""

    def __init__(self, words: Words) -> None:
        self.words = words

    def of(self, node: Any, *, is_inner: bool = False) -> str:
        """`is_inner`: beside others, so that one of several parts needs brackets."""
        words = self.words
        match node:
            case All():
                return self._several(node.all, words.both, is_inner)
            case Any_():
                return self._several(node.any, words.either, is_inner)
            case Not():
                return self._not(node.not_)
            case Did():
                return self._did(node)
            case Steps():
                return self._steps(node)
            case Trait():
                return words.trait.format(name=self._quoted(node.trait), test=self._test(node))
            case Attribute():
                return words.attribute.format(name=self._quoted(node.attribute), test=self._test(node))
            case Context():
                return words.context.format(name=self._quoted(node.context), test=self._test(node))
            case InSegment():
                return words.segment.format(self._quoted(node.segment))
        raise TypeError(f"{node!r} is no condition")

    def _several(self, nodes: Sequence[Any], joint: str, is_inner: bool) -> str:
        said = joint.join(self.of(node, is_inner=len(nodes) > 1) for node in nodes)
        return f"({said})" if is_inner and len(nodes) > 1 else said

    def _not(self, node: Any) -> str:
        words = self.words
        match node:
            case Did() if not node.is_counted:
                return words.did_not.format(event=self.event(node), when=self._when(node))
            case InSegment():
                return words.not_segment.format(self._quoted(node.segment))
            case Trait() | Attribute() | Context():
                name = self._quoted(getattr(node, node.kind))
                return str(getattr(words, node.kind)).format(name=name, test=self._test(node, is_turned=True))
        return words.no.format(self.of(node))

    # --- events

    def event(self, event: Event) -> str:
        said = self._quoted(event.did)
        if event.where:
            tests = (f"{self._quoted(where.property)} {self._test(where)}" for where in event.where)
            said += self.words.where.format(self.words.both.join(tests))
        return said

    def _when(self, leaf: Any) -> str:
        words = self.words
        if leaf.within is not None:
            return words.within.format(self.duration(leaf.within))
        if getattr(leaf, "longer_ago", None) is not None:
            return words.longer_ago.format(self.duration(leaf.longer_ago))
        return words.since.format(leaf.since.isoformat()) if leaf.since is not None else ""

    def _did(self, node: Did) -> str:
        words, event, when = self.words, self.event(node), self._when(node)
        if node.which is not None:
            return (words.first if node.which == "first" else words.last).format(event=event, when=when.strip())
        if node.total is not None:
            of = self._quoted(node.total.of)
            return words.total.format(event=event, of=of, total=self._total(node.total), when=when)
        times = ""
        for said, phrase in ((node.at_least, words.at_least_times), (node.at_most, words.at_most_times),
                             (node.exactly, words.exactly_times)):  # fmt: skip
            if said is not None and not (said == 1 and phrase == words.at_least_times):
                times = phrase.format(said)
        return words.did.format(event=event, times=times, when=when)

    def _total(self, total: Total) -> str:
        if total.at_least is not None:
            return self.words.at_least_in_total.format(total.at_least)
        return self.words.less_in_total.format(total.less_than)

    def _steps(self, node: Steps) -> str:
        said = self.words.did.format(event=self.event(node.sequence[0]), times="", when=self._when(node))
        return said + "".join(self._step(step) for step in node.sequence[1:])

    def _step(self, step: Step) -> str:
        words = self.words
        soon = words.soon.format(self.duration(step.within)) if step.within is not None else ""
        without = words.without.format(self.event(step.without)) if step.without is not None else ""
        return words.then.format(event=self.event(step), soon=soon, without=without)

    # --- tests

    def _test(self, test: Test, *, is_turned: bool = False) -> str:
        op, value, turns = test.asked
        phrase = self.words.tests[op][is_turned is not turns]
        match value:
            case None:
                return phrase
            case (low, high) if op is Op.BETWEEN:
                return phrase.format(low, high)
            case Duration():
                return phrase.format(self.duration(value))
            case tuple():
                shown = [self.value(each) for each in value[:SHOWN_VALUES]]
                if len(value) > SHOWN_VALUES:
                    shown.append(self.words.more.format(len(value) - SHOWN_VALUES))
                return phrase.format(self.words.comma.join(shown))
        return phrase.format(self.value(value))

    def value(self, value: Any) -> str:
        if isinstance(value, bool):
            return self.words.true if value else self.words.false
        return self._quoted(value) if isinstance(value, str) else str(value)

    def _quoted(self, text: str) -> str:
        return self.words.quoted.format(text)

    def duration(self, duration: Duration) -> str:
        return self.words.units[duration.unit][duration.count != 1].format(duration.count)
