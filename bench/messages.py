"""Messages per second through each channel, and how long one takes from its order until the other side has it.

An `up` sends marketing to 500 people, each mail filled in from a template with two parts and tracked links. The mail
server and the receiver of posts are on this machine, and take everything at once. The rate is of orders that stand in
the log when it starts, as those of a journey do, from the first message to the last; beside it stands how many orders
the HTTP API takes of 16 clients, while it sends them. The latency is that of 20 orders a second over HTTP.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from bench.measure import Figure, Options, Report, percentile, rounded
from schemas.messages import Order, encode_of_message
from streams.embedded import EmbeddedLog
from streams.lines import MESSAGES as MESSAGES_LINE
from streams.log import Outgoing
from streams.ordering import EXPIRES_MS
from tests.faults.machine import COMMAND
from tests.faults.mailing import Receiver, Shop
from tests.kafka_broker import free_ports

MESSAGES, QUICK_MESSAGES = 5_000, 200
ORDERED, QUICK_ORDERED = 800, 10
PACED, QUICK_PACED = 200, 10
PEOPLE, QUICK_PEOPLE = 500, 10
CLIENTS = 16
ORDERS_PER_S = 20.0
AT_ONCE = 32
CHANNELS = ("outbox", "smtp", "webhook")
LONGEST_S = 300.0
SHARES = {"p50": 0.5, "p99": 0.99}
ACCEPTED = 'tidewire_sender_attempts_total{channel="email",result="accepted"}'


class Sample(NamedTuple):
    """One run of one channel. `seconds`: of each message at a pace, sorted; without any where nobody outside has it."""

    per_s: float
    ordered_per_s: float
    seconds: list[float]


class Size(NamedTuple):
    """How many messages stand in the log, are ordered over HTTP, and are ordered at a pace; to how many people."""

    messages: int
    ordered: int
    paced: int
    people: int


class Mails:
    """A mail server that takes everything, and remembers when each message was there."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self.port = free_ports(1)[0]
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        head = envelope.content[: envelope.content.index(b"\r\n\r\n")]
        id_ = head.partition(b"X-Tidewire-Message: ")[2][:32].decode()
        self.taken.setdefault(id_, time.monotonic())
        return "250 2.0.0 Ok"

    def channel(self) -> dict[str, Any]:
        return {"via": "smtp", "smtp": {"host": "127.0.0.1", "port": self.port, "security": "none",
                                        "from": "Shop <news@shop.example>"}}  # fmt: skip

    def close(self) -> None:
        self._controller.stop()


class Posts:
    """The same for posts."""

    def __init__(self) -> None:
        self._receiver = Receiver()

    @property
    def taken(self) -> dict[str, float]:
        return {each.id: each.at for each in reversed(self._receiver.taken)}

    def channel(self) -> dict[str, Any]:
        return {"via": "webhook", "webhook": self._receiver.settings()}

    def close(self) -> None:
        self._receiver.stop()


class Kept:
    """Nobody: messages stay where they are."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def channel(self) -> dict[str, Any]:
        return {"via": "outbox"}

    def close(self) -> None:
        pass


SIDES: dict[str, Callable[[], Mails | Posts | Kept]] = {"outbox": Kept, "smtp": Mails, "webhook": Posts}


def measure(options: Options) -> Report:
    size = Size(QUICK_MESSAGES, QUICK_ORDERED, QUICK_PACED, QUICK_PEOPLE) if options.is_quick else Size(
        MESSAGES, ORDERED, PACED, PEOPLE)  # fmt: skip
    found: dict[str, list[Sample]] = {}
    figures = []
    for name in filter(options.wants, CHANNELS):
        found[name] = []
        for turn in range(options.runs):
            options.say(f" {name}, run {turn + 1}")
            found[name].append(_run(name, size))
            options.say(f"  {found[name][-1].per_s:,.0f} messages/s")
        figures.append(Figure(name, "messages/s", [run.per_s for run in found[name]]))
        figures.append(Figure(f"{name} ordered over HTTP", "orders/s", [run.ordered_per_s for run in found[name]]))
        figures += [Figure(f"{name} order to arrival {share}", "ms",
                           [rounded(percentile(run.seconds, of) * 1000) for run in found[name]])
                    for share, of in SHARES.items() if found[name][0].seconds]  # fmt: skip
    return Report(input={**size._asdict(), "clients": CLIENTS, "at_once": AT_ONCE}, figures=figures, found={})


def _run(name: str, size: Size) -> Sample:
    with tempfile.TemporaryDirectory() as folder, closing(SIDES[name]()) as side:
        channels = {"email": {"rate": 10_000, "at_once": AT_ONCE, **side.channel()}}
        with closing(Shop(Path(folder), channels, size.people, program=COMMAND)) as shop:
            asked = _paced(shop, range(size.paced))
            began = time.monotonic()
            asyncio.run(_order_all(shop, range(size.paced, size.paced + size.ordered)))
            ordered_per_s = size.ordered / (time.monotonic() - began)
            _until(shop, size.paced + size.ordered)
            shop.process.stop()
            asyncio.run(_write_orders(shop.process.data, size))
            shop.start()
            before, began = _until(shop, 1)
            _, ended = _until(shop, size.messages)
            taken, sent = side.taken, sum(size[:3])
            if taken and len(taken) != sent:
                raise RuntimeError(f"{sent} messages were accepted, {len(taken)} came")
            seconds = sorted(taken[id_] - at for id_, at in asked.items()) if taken else []
    return Sample(rounded((size.messages - before) / (ended - began)), rounded(ordered_per_s), seconds)


async def _write_orders(data: Path, size: Size) -> None:
    """Into the log of an `up` that does not run."""
    now_ms = time.time_ns() // 1_000_000
    orders = [Order(to=f"default/u:p{number % size.people}", id=uuid4().hex, template="marketing", channel="email",
                    kind="marketing", topic="offers", given={}, by="bench", at_ms=now_ms,
                    expires_ms=now_ms + EXPIRES_MS["marketing"]) for number in range(size.messages)]  # fmt: skip
    log = EmbeddedLog(data / "log.db", fsync=False)
    await log.start()
    try:
        await log.append(MESSAGES_LINE.topic, [Outgoing(each.to.encode(), encode_of_message(each)) for each in orders])
    finally:
        await log.stop()


async def _order_all(shop: Shop, numbers: range) -> None:
    waiting = iter(numbers)

    async def client(http: httpx.AsyncClient) -> None:
        for number in waiting:
            answer = await http.post("/api/messages", json=shop.order_body(number, "marketing"))
            answer.raise_for_status()

    async with httpx.AsyncClient(base_url=shop.process.url, headers=shop.headers(), timeout=60,
                                 trust_env=False) as http:  # fmt: skip
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))


def _paced(shop: Shop, numbers: range) -> dict[str, float]:
    """When each message was ordered, by its id."""
    asked, began = dict[str, float](), time.monotonic()
    for turn, number in enumerate(numbers):
        time.sleep(max(0.0, began + turn / ORDERS_PER_S - time.monotonic()))
        at = time.monotonic()
        asked[shop.order(number, "marketing")] = at
    return asked


def _until(shop: Shop, accepted: int) -> tuple[float, float]:
    """Wait until so many messages have left; how many then have, and the moment."""
    until = time.monotonic() + LONGEST_S
    while (found := shop.process.metric(ACCEPTED)) < accepted:
        if time.monotonic() > until:
            raise RuntimeError(f"{found:.0f} messages of {accepted} left within {LONGEST_S:.0f} s:\n"
                               f"{shop.process.told()}")  # fmt: skip
        time.sleep(0.05)
    return found, time.monotonic()
