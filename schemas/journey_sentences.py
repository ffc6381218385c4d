"""A journey in words, in English and Chinese: who enters, what each step does, and when somebody leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.journeys import (
    Again,
    AnyStep,
    At,
    BranchStep,
    CallStep,
    Dated,
    Enter,
    ExitStep,
    Goal,
    GoStep,
    Happening,
    Joined,
    JourneyFile,
    Left,
    SendStep,
    SplitStep,
    TaskStep,
    TicketStep,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from schemas.sentences import duration_said, event_said, quoted, sentence_of, value_said

LONGEST_VALUE = 80  # characters of a value that a step sets


class Words(NamedTuple):
    """What a language says. Braces are filled in."""

    comma: str
    either: str
    stop: str
    # entry
    by_event: str
    by_joined: str
    by_left: str
    by_date: str
    by_schedule: str
    by_broadcast: str
    whose: str
    never: str
    always: str
    after: str
    once_per: str
    # happenings
    does: str
    joins: str
    leaves: str
    matching: str
    about: str
    # goals and exits
    goal: str
    goal_leaves: str
    exits: str
    # moments
    lunar: str
    yearly: str
    days_before: str
    on_the_day: str
    weekdays: str
    at: str
    of_her: str
    days: dict[str, str]
    # steps
    send: str
    wait: str
    wait_at: str
    wait_date: str
    wait_until: str
    branch: str
    split: str
    learns: str
    set: str
    unset: str
    tag: str
    untag: str
    call: str
    ticket: str
    task: str
    exit: str
    exit_because: str
    go: str
    go_once: str
    go_times: str


_ENGLISH = Words(
    comma=", ", either=", or ", stop=". ",
    by_event="Begins with {}", by_joined="Begins when she joins segment {}",
    by_left="Begins when she leaves segment {}", by_date="Begins {}",
    by_schedule="Begins by the schedule {}, for who is in segment {} then",
    by_broadcast="Begins when somebody says so, for who is in segment {} then", whose="Of her it must be true: {}",
    never="Nobody enters twice", always="Who has come to its end may enter again",
    after="Who entered may enter again {} later", once_per="For each {} somebody enters once",
    does="she does {}", joins="she joins segment {}", leaves="she leaves segment {}",
    matching=", of the same {}", about=", about the message of {}",
    goal="The goal is that {} within {}", goal_leaves="who reaches it leaves", exits="She leaves when {}",
    lunar=" by the Chinese calendar", yearly=" every year", days_before="{n} days before the day that {trait} says",
    on_the_day="on the day that {trait} says", weekdays=" on {}", at=" at {}", of_her=", by her own clock",
    days={"mon": "Monday", "tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday",
          "sat": "Saturday", "sun": "Sunday"},
    send="Send {}", wait="Wait {}", wait_at="Wait until {clock}{days}{whose}", wait_date="Wait until {}",
    wait_until="Wait until {happening}, at most {length}", branch="Decide by what is true of her",
    split="Draw lots: {}", learns="the shares follow what reaches the goal",
    set="Set {name} to {value}", unset="Forget {name}",
    tag="Add the tag {}", untag="Take the tag {} off", call="Call {}", ticket="Open a ticket: {}",
    task="Give somebody a task: {}", exit="She leaves", exit_because="She leaves: {}", go="Go to {}",
    go_once="Go to {step}, at most once", go_times="Go to {step}, at most {n} times",
)  # fmt: skip

_CHINESE = Words(
    comma="、", either="，或者", stop="。",
    by_event="由{}开始", by_joined="加入分群{}时开始", by_left="离开分群{}时开始",
    by_date="{}开始", by_schedule="按计划 {} 开始，对象为届时属于分群{}的人",
    by_broadcast="由人工发起，对象为届时属于分群{}的人", whose="此人须满足：{}",
    never="每人只进入一次", always="走完之后可以再次进入",
    after="进入 {} 后可以再次进入", once_per="每个{}进入一次",
    does="发生{}", joins="加入分群{}", leaves="离开分群{}",
    matching="（{}相同）", about="（针对步骤{}所发的消息）",
    goal="目标：在 {1}内{0}", goal_leaves="达成者随即离开", exits="遇到以下情况即离开：{}",
    lunar="（农历）", yearly="每年", days_before="{trait}所指日期的前 {n} 天", on_the_day="{trait}所指的日期",
    weekdays="（{}）", at=" {}", of_her="，以本人时区为准",
    days={"mon": "周一", "tue": "周二", "wed": "周三", "thu": "周四", "fri": "周五", "sat": "周六", "sun": "周日"},
    send="发送{}", wait="等待 {}", wait_at="等到 {clock}{days}{whose}", wait_date="等到{}",
    wait_until="等到{happening}，最多 {length}", branch="按此人的情况分流", split="抽签：{}",
    learns="比例随目标达成情况调整", set="把{name}设为{value}", unset="清除{name}",
    tag="加上标签{}", untag="去掉标签{}", call="调用{}", ticket="创建工单：{}",
    task="创建任务：{}", exit="离开旅程", exit_because="离开旅程：{}", go="转到{}",
    go_once="转到{step}，最多 1 次", go_times="转到{step}，最多 {n} 次",
)  # fmt: skip

LANGUAGES = {"en": _ENGLISH, "zh": _CHINESE}


def title_of_journey(name: str, said: JourneyFile | None, language: str = "en") -> str:
    """Its name for people: in their language, else in English, else in any; else its name."""
    titles = said.title if said is not None else {}
    return titles.get(language) or titles.get("en") or next(filter(None, titles.values()), name)


def entry_sentences(said: JourneyFile, language: str = "en") -> list[str]:
    """Who enters, and who may enter once more."""
    words = LANGUAGES[language]
    whose = [words.whose.format(sentence_of(said.when, language))] if said.when is not None else []
    return [_enter(said.enter, language), *whose, _again(said.again, language)]


def goal_sentence(goal: Goal, language: str = "en") -> str:
    """What the journey is for.

    >>> from schemas.conditions import Duration
    >>> goal_sentence(Goal(did="Order Completed", matching="cart_id", within="7 days"))
    'The goal is that she does “Order Completed”, of the same “cart_id” within 7 days; who reaches it leaves'
    """
    words = LANGUAGES[language]
    told = words.goal.format(happening_said(goal, language), duration_said(goal.within, language))
    return told + (("; " if language == "en" else "；") + words.goal_leaves if goal.leaves else "")


def exits_sentence(exits: tuple[Happening, ...], language: str = "en") -> str:
    """What makes her leave; empty: nothing but the end."""
    words = LANGUAGES[language]
    told = words.either.join(happening_said(each, language) for each in exits)
    return words.exits.format(told) if exits else ""


def happening_said(happening: Happening, language: str = "en") -> str:
    """What happens to somebody, with her as the subject."""
    words = LANGUAGES[language]
    if isinstance(happening, Joined):
        return words.joins.format(quoted(happening.joined, language))
    if isinstance(happening, Left):
        return words.leaves.format(quoted(happening.left, language))
    told = words.does.format(event_said(happening, language))
    if happening.matching is not None:
        told += words.matching.format(quoted(happening.matching, language))
    if happening.message is not None:
        told += words.about.format(quoted(happening.message, language))
    return told


def step_sentence(step: AnyStep, language: str = "en") -> str:
    """What a step does.

    >>> from schemas.journeys import WaitStep
    >>> step_sentence(WaitStep(step="pause", wait="1 hour")), step_sentence(WaitStep(step="pause", wait="1 hour"), "zh")
    ('Wait 1 hour', '等待 1 小时')
    """
    words = LANGUAGES[language]
    match step:
        case SendStep():
            return words.send.format(quoted(step.send, language))
        case WaitStep():
            return _wait(step, language)
        case WaitUntilStep():
            return words.wait_until.format(happening=happening_said(step.wait_until, language),
                                           length=duration_said(step.at_most, language))  # fmt: skip
        case BranchStep():
            return words.branch
        case SplitStep():
            told = words.split.format(words.comma.join(f"{arm.then} {share(step, arm.then)}" for arm in step.split))
            return told + (words.stop.rstrip() + (" " if language == "en" else "") + _capital(words.learns)
                           if step.learns else "")  # fmt: skip
        case UpdateStep():
            return _update(step, language)
        case CallStep():
            return words.call.format(quoted(step.call, language))
        case TicketStep():
            return words.ticket.format(quoted(step.ticket.subject, language))
        case TaskStep():
            return words.task.format(quoted(step.task.subject, language))
        case ExitStep():
            return words.exit_because.format(step.exit) if step.exit else words.exit
        case GoStep():
            told = quoted(step.go, language)
            if step.times is None:
                return words.go.format(told)
            return (words.go_once if step.times == 1 else words.go_times).format(step=told, n=step.times)


def share(step: SplitStep, to: str) -> str:
    """How many of a hundred go that way, as they begin."""
    whole = sum(arm.weight for arm in step.split)
    return f"{100 * sum(arm.weight for arm in step.split if arm.then == to) / whole:.3g}%"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _enter(enter: Enter, language: str) -> str:
    words = LANGUAGES[language]
    if enter.event is not None:
        return words.by_event.format(event_said(enter.event, language))
    if enter.date is not None:
        return words.by_date.format(_dated(enter.date, language))
    if enter.schedule is not None:
        return words.by_schedule.format(quoted(enter.schedule.cron, language), quoted(enter.schedule.segment, language))
    for told, segment in ((words.by_joined, enter.joined), (words.by_left, enter.left),
                          (words.by_broadcast, enter.broadcast)):  # fmt: skip
        if segment is not None:
            return told.format(quoted(segment, language))
    raise TypeError(f"{enter!r} is no entry")


def _again(again: Any, language: str) -> str:
    words = LANGUAGES[language]
    if not isinstance(again, Again):
        return words.never if again == "never" else words.always
    if again.after is not None:
        return words.after.format(duration_said(again.after, language))
    return words.once_per.format(quoted(again.once_per or "", language))


def _dated(date: Dated | At, language: str) -> str:
    """A day that a trait says."""
    words = LANGUAGES[language]
    trait = quoted(str(date.trait if isinstance(date, Dated) else date.date), language)
    day = (words.days_before if date.days_before else words.on_the_day).format(trait=trait, n=date.days_before)
    lunar = words.lunar if date.calendar == "lunar" else ""
    yearly = words.yearly if date.yearly else ""
    clock = words.at.format(date.at or "09:00")
    return f"{yearly}{day}{lunar}{clock}" if language == "zh" else f"{day}{lunar}{yearly}{clock}"


def _wait(step: WaitStep, language: str) -> str:
    words, wait = LANGUAGES[language], step.wait
    if not isinstance(wait, At):
        return words.wait.format(duration_said(wait, language))
    whose = words.of_her if wait.zone == "person" else ""
    if wait.date is not None:
        told = _dated(wait, language)
        return words.wait_date.format(told.removeprefix("on ")) + whose
    days = words.weekdays.format(words.comma.join(words.days[day] for day in wait.days)) if wait.days else ""
    return words.wait_at.format(clock=wait.at, days=days, whose=whose)


def _update(step: UpdateStep, language: str) -> str:
    words, change = LANGUAGES[language], step.update
    told = []
    for name, value in change.traits.items():
        shown = value_said(value[:LONGEST_VALUE] if isinstance(value, str) else value, language)
        phrase = words.unset if value is None else words.set
        told.append(phrase.format(name=quoted(name, language), value=shown))
    told += [words.tag.format(quoted(tag, language)) for tag in change.add_tags]
    told += [words.untag.format(quoted(tag, language)) for tag in change.remove_tags]
    joint = "; " if language == "en" else "；"
    return joint.join([*told[:1], *(each[:1].lower() + each[1:] for each in told[1:])])
