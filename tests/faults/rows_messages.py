"""Rows 20 to 22: mail servers and receivers of posts that do everything wrong, and a sender that dies in the middle."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any

import httpx

from bench.measure import percentile
from tests.faults.cluster import wait_for
from tests.faults.mailing import KINDS, WAYS, MailServer, Receiver, Says, Shop, Silent
from tests.faults.rows import Outcome, Scene, row
from tests.messages.smtp_server import DROP, HANG, SLOWLY

PEOPLE = 10
AT_ONCE = 8  # posts of a channel that are under way together
ORDERS_PER_S = 40.0
ENDED_WITHIN_S = 60.0
MOST_SLOWER = 2.0  # of p99 of a good receiver beside a bad one
BAD_MAIL: dict[str, dict[str, bytes]] = {
    "421 to everybody": {"greeting": b"421 4.3.2 not now\r\n"},
    "450 to each": {"RCPT": b"450 4.2.1 come again\r\n"},
    "a banner that never ends": {"greeting": SLOWLY},
    "takes a mail and drops the line": {"end": DROP},
    "takes a mail and is silent": {"end": HANG},
}
BAD_POSTS: dict[str, Says | Silent] = {
    "500": Says(500, b"broken"),
    "silence": Silent(),
    "10 MB": Says(200, b"x" * 10_000_000),
    "a way inwards": Says(302, b"", {"Location": "http://169.254.169.254/latest/meta-data/"}),
}


def mails_to(server: MailServer) -> dict[str, Any]:
    """Channels of which e-mail leaves through this server."""
    return {"email": {"via": "smtp", "rate": 1000, "at_once": 1, "smtp": {
        "host": "127.0.0.1", "port": server.port, "security": "none", "from": "Shop <news@shop.example>",
        "connect_timeout_s": 1, "answer_timeout_s": 1, "end_timeout_s": 1}}}  # fmt: skip


def posts_to(**receivers: Receiver) -> dict[str, Any]:
    """Channels by name, and whom their messages are posted to."""
    return {way: {"via": "webhook", "rate": 1000, "at_once": AT_ONCE, "webhook": receiver.settings()}
            for way, receiver in receivers.items()}  # fmt: skip


@contextmanager
def open_shop(scene: Scene, channels: dict[str, Any]) -> Iterator[Shop]:
    with closing(Shop(scene.folder, channels, PEOPLE)) as shop:
        yield shop


@row("20", "mail server down, 421, 450, slow, silent", limit_s=60, ground="none", alone=True)
def mail_server_does_everything_wrong(scene: Scene) -> Outcome:
    """The mail server is gone, then has no time, refuses for now, greets without end, takes a mail and drops the line,
    takes one and falls silent. When it is well again everything is sent, or unknown: marketing that was handed over
    without an answer, and that was never sent twice. Mails of one kind reached each person as they were ordered."""
    server, numbers, kinds, asked = MailServer(), count(), dict[str, str](), list[tuple[str, int, str]]()
    try:
        with open_shop(scene, mails_to(server)) as shop:

            def order(messages: int) -> None:
                for _ in range(messages):
                    number = next(numbers)
                    kind = KINDS[number // PEOPLE % 2]
                    id_ = shop.order(number, kind)
                    kinds[id_] = kind
                    asked.append((id_, number % PEOPLE, kind))

            order(2 * PEOPLE)
            for _ in range(scene.size(1, 4)):
                server.close()
                order(2 * PEOPLE)
                time.sleep(2)
                server.open()
                for says in BAD_MAIL.values():
                    server.say(**says)
                    order(2 * PEOPLE)
                    time.sleep(scene.rng.uniform(2, 4))
                server.say()
            began = time.monotonic()
            states = shop.wait_until_ended(kinds, ENDED_WITHIN_S)
            recovery_s = time.monotonic() - began
    finally:
        server.stop()
    wrong = _out_of_order(asked, list(dict.fromkeys(server.taken)), states)
    return _judge(kinds, states, Counter(server.taken), server.unanswered, recovery_s, wrong)


def _out_of_order(asked: Sequence[tuple[str, int, str]], arrived: Sequence[str], states: dict[str, str]) -> str:
    """Whose mails of one kind came in another order than they were ordered in."""
    place = {id_: number for number, id_ in enumerate(arrived)}
    last: dict[tuple[int, str], int] = {}
    for id_, person, kind in asked:
        if states[id_] == "sent" and id_ in place:
            if place[id_] < last.get((person, kind), -1):
                return f"{kind} to p{person} came in another order"
            last[person, kind] = place[id_]
    return ""


@row("21", "sender kill -9 between 250 and SENT", limit_s=60, ground="none", alone=True)
def sender_killed_in_the_middle(scene: Scene) -> Outcome:
    """Again and again the sender is killed when the mail server has taken a mail: half of the times before the server
    says so, else within some milliseconds after. Marketing is never sent twice, and a kill leaves at most one message
    unknown; what is transactional is sent at least once, and at most once more for each kill. `sent` means taken."""
    kills, server, kinds = scene.size(8, 40), MailServer(), dict[str, str]()
    try:
        with open_shop(scene, mails_to(server)) as shop:
            for turn in range(kills):
                died = threading.Event()
                after_s = None if turn % 2 else scene.rng.uniform(0, 0.02)
                server.when_it_has_the_next(partial(_kill, shop, died, after_s))
                numbers = range(4 * turn, 4 * turn + 4)  # some of them wait when it dies
                for number in numbers:
                    with suppress(httpx.TransportError):
                        kinds[shop.order(number, KINDS[number % 2])] = KINDS[number % 2]
                if not died.wait(ENDED_WITHIN_S):
                    return Outcome(0, 0, 0, f"no mail came after {turn} kills: {shop.process.told()[-500:]}")
                shop.process.wait()
                shop.start()
                for number in numbers:
                    kinds[shop.order(number, KINDS[number % 2])] = KINDS[number % 2]
            scene.fault_over()
            began = time.monotonic()
            states = shop.wait_until_ended(kinds, ENDED_WITHIN_S)
            recovery_s = time.monotonic() - began
    finally:
        server.stop()
    return _judge(kinds, states, Counter(server.taken), kills, recovery_s)


def _kill(shop: Shop, died: threading.Event, after_s: float | None) -> None:
    def kill() -> None:
        with suppress(ProcessLookupError):
            shop.process.signal(signal.SIGKILL)
        died.set()

    if after_s is None:
        kill()
    else:
        threading.Timer(after_s, kill).start()


@row("22", "posts answered with 500, silence, 10 MB, a way inwards", limit_s=60, ground="none", alone=True)
def a_dead_receiver_beside_a_good_one(scene: Scene) -> Outcome:
    """E-mails are posted to one receiver and SMS to another. First both are well; then that of the e-mails does one
    thing wrong after the other. The 99th percentile of the SMS, from their order to their post, stays below twice what
    it was. In the end every message has left: those that were sent away inwards have failed, and nobody went there."""
    mails, texts, kinds = Receiver(), Receiver(), dict[str, str]()
    numbers, seconds = count(), scene.size(8, 30)
    try:
        with open_shop(scene, posts_to(email=mails, sms=texts)) as shop:
            _paced(shop, texts, numbers, 2, kinds)  # warm
            alone = _paced(shop, texts, numbers, seconds, kinds)
            beside = {}
            for name, says in BAD_POSTS.items():
                mails.says = partial(_answer, says)
                beside[name] = _paced(shop, texts, numbers, seconds, kinds)
            mails.says = Says
            began = time.monotonic()
            states = shop.wait_until_ended(kinds, ENDED_WITHIN_S)
            recovery_s = time.monotonic() - began
    finally:
        mails.stop()
        texts.stop()
    taken = {each.id for each in [*mails.taken, *texts.taken]}
    lost = sum(1 for id_, state in states.items() if state == "sent" and id_ not in taken)
    slower = [f"p99 of the good receiver was {p99 * 1000:.0f} ms beside {name}, {alone * 1000:.0f} ms alone"
              for name, p99 in beside.items() if p99 > MOST_SLOWER * alone]  # fmt: skip
    failed = sum(state == "failed" for state in states.values())
    wrong = [*slower, *([] if failed else ["none was sent away inwards"])]
    if others := {state for state in states.values() if state not in ("sent", "failed")}:
        wrong.append(f"some are {', '.join(sorted(others))}")
    return Outcome(lost, len(texts.taken) - len({each.id for each in texts.taken}), recovery_s, "; ".join(wrong))


def _answer(says: Says | Silent) -> Says | Silent:
    return says


def _paced(shop: Shop, texts: Receiver, numbers: Iterator[int], seconds: float, kinds: dict[str, str]) -> float:
    """Order messages, at most so many a second, in turn an SMS and an e-mail. The 99th percentile of the seconds from
    the order of an SMS to its post."""
    asked, began = dict[str, float](), time.monotonic()
    for turn in range(round(seconds * ORDERS_PER_S)):
        time.sleep(max(0.0, began + turn / ORDERS_PER_S - time.monotonic()))
        way, at = WAYS[turn % 2], time.monotonic()
        id_ = shop.order(next(numbers), "transactional", way)
        kinds[id_] = "transactional"
        if way == "sms":
            asked[id_] = at
    wait_for(lambda: asked.keys() <= {each.id for each in texts.taken}, ENDED_WITHIN_S, "some SMS were not posted")
    return percentile(sorted(each.at - asked[each.id] for each in texts.taken if each.id in asked), 0.99)


@row("22", "a receiver fails half of the time, the sender is killed", limit_s=60, ground="none", alone=True)
def posts_and_kills(scene: Scene) -> Outcome:
    """The receiver answers 500 to some posts, and to others not at all, while the sender is killed again and again.
    Every message is sent, or is one of marketing that was under way when the sender died: those are unknown. What was
    sent came, each message under an id of its own, by which a receiver takes what comes again once."""
    dice, kinds, kills = random.Random(scene.seed), dict[str, str](), scene.size(4, 20)

    def says() -> Says | Silent:
        return dice.choices([Says(), Says(500, b"broken"), Silent()], [5, 4, 1])[0]

    receiver = Receiver(says)
    try:
        with open_shop(scene, posts_to(email=receiver)) as shop:
            for turn in range(kills):
                numbers = range(10 * turn, 10 * turn + 10)
                for number in numbers:
                    kinds[shop.order(number, KINDS[number % 2])] = KINDS[number % 2]
                time.sleep(scene.rng.uniform(0, 1.5))
                shop.process.kill()
                shop.start()
            receiver.says = Says
            scene.fault_over()
            began = time.monotonic()
            states = shop.wait_until_ended(kinds, ENDED_WITHIN_S)
            recovery_s = time.monotonic() - began
    finally:
        receiver.stop()
    came = {each.id for each in receiver.taken}
    read = {(each.id, each.body["to"], each.body["text"]) for each in receiver.taken}
    unknown = {id_ for id_, state in states.items() if state == "unknown"}
    wrong = [f"{len(unknown)} are unknown after {kills} kills"] if len(unknown) > AT_ONCE * kills else []
    wrong += ["a transactional one is unknown"] if any(kinds[id_] != "marketing" for id_ in unknown) else []
    wrong += [f"some are {', '.join(sorted(others))}"] if (others := set(states.values()) - {"sent", "unknown"}) else []
    wrong += ["under one id came two messages"] if len(read) != len(came) else []
    return Outcome(len(kinds.keys() - unknown - came), len(came - kinds.keys()), recovery_s, "; ".join(wrong))


def _judge(
    kinds: dict[str, str], states: dict[str, str], taken: Counter[str], most: int, recovery_s: float, also: str = ""
) -> Outcome:
    """`most`: messages that may be unknown, and transactional ones that may have come again."""
    marketing = {id_ for id_, kind in kinds.items() if kind == "marketing"}
    unknown = {id_ for id_, state in states.items() if state == "unknown"}
    twice = sum(taken[id_] - 1 for id_ in marketing if taken[id_] > 1)
    again = sum(taken[id_] - 1 for id_ in kinds.keys() - marketing if taken[id_] > 1)
    lost = sum(1 for id_, state in states.items() if state == "sent" and not taken[id_])
    wrong = [also] if also else []
    if unknown - marketing:
        wrong.append(f"{len(unknown - marketing)} transactional messages are unknown")
    if len(unknown) > most:
        wrong.append(f"{len(unknown)} are unknown, at most {most} may be")
    if again > most:
        wrong.append(f"{again} transactional messages came again, at most {most} may")
    if others := {state for state in states.values() if state not in ("sent", "unknown")}:
        wrong.append(f"some are {', '.join(sorted(others))}")
    if not unknown and not again:
        wrong.append("nothing hit the moment")
    return Outcome(lost, twice, recovery_s, "; ".join(wrong))
