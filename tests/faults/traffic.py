"""Clients that send a made-up shop's events over HTTP, again and again until they are taken, and keep a ledger of it.

Each client has people of its own and sends one request at a time, so the events of a person come in order. The same
seed tells the same stories; how they are cut into requests depends on the clock.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.faults.machine import WRITE_KEY

TIMEOUT_S = 30.0  # of one try
PAUSE_S = 0.1  # after a try that failed; it doubles
LONGEST_PAUSE_S = 1.0
DRAIN_S = 120.0  # for what was sent to be taken, once no more is told
STORY_DAYS = 30.0  # a story begins so long ago

Json = dict[str, Any]
Story = Callable[[random.Random, int], Iterator[Json]]
"""What client number so-and-so tells: events without an end, each a Segment call with `messageId` and `timestamp`."""


class Request(NamedTuple):
    """One request that was answered in the end: when it was first tried and when it was taken (monotonic), and how."""

    began_s: float
    ended_s: float
    events: int
    tries: int


class Sent(MutableMapping[str, Json]):
    """Events by message id, packed: a long run sends millions."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}

    def __getitem__(self, message_id: str) -> Json:
        return json.loads(self._packed[message_id])  # type: ignore[no-any-return]

    def __setitem__(self, message_id: str, event: Json) -> None:
        self._packed[message_id] = json.dumps(event).encode()

    def __delitem__(self, message_id: str) -> None:
        del self._packed[message_id]

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def hand_over(self, message_id: str, other: Sent, event: Json) -> None:
        """The event stands in `other` from now on, whether it stood here or not."""
        packed = self._packed.pop(message_id, None)
        other._packed[message_id] = packed if packed is not None else json.dumps(event).encode()


class Ledger:
    """What clients sent, and what they were told. Threads share it.

    Attributes:
        taken: by message id, the events that were answered with 2xx: nothing of them may be lost.
        open: by message id, those that were sent and never answered: they may be there or not.
        requests: those that were taken, in the order in which that happened.
        answers: how many tries ended how: `200`, `503`, `ConnectionRefusedError`, …
        refused: requests that were refused for good, with the answer: the harness or the product is wrong.
    """

    def __init__(self) -> None:
        self.taken = Sent()
        self.open = Sent()
        self.requests: list[Request] = []
        self.answers: Counter[str] = Counter()
        self.refused: list[str] = []
        self.lock = threading.Lock()

    def sending(self, events: Sequence[Json]) -> None:
        with self.lock:
            for event in events:
                if event["messageId"] not in self.taken:
                    self.open[event["messageId"]] = event

    def tried(self, ending: str) -> None:
        with self.lock:
            self.answers[ending] += 1

    def took(self, events: Sequence[Json], request: Request) -> None:
        with self.lock:
            self.requests.append(request)
            for event in events:
                self.open.hand_over(event["messageId"], self.taken, event)

    @property
    def most_tries(self) -> int:
        return max((request.tries for request in self.requests), default=0)

    def longest_silence_s(self, since_s: float, until_s: float) -> float:
        """The longest time between two requests that were taken, within these moments (monotonic)."""
        moments = sorted(each.ended_s for each in self.requests if since_s <= each.ended_s <= until_s)
        moments = [since_s, *moments, until_s]
        return max(after - before for before, after in pairwise(moments))


class Traffic:
    """Clients at work, as a context manager."""

    def __init__(
        self, ledger: Ledger, urls: Sequence[str], *, seed: int, clients: Sequence[int], rate: float | None,
        batch: int, duplicates: float, mistakes: float, story: Story,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self._stopping = threading.Event()
        self._clients = [
            _Client(number, ledger, urls, seed, None if rate is None else batch * len(clients) / rate, batch,
                    duplicates, mistakes, story, self._stopping)
            for number in clients
        ]  # fmt: skip

    def __enter__(self) -> Traffic:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(0.0 if error is not None else DRAIN_S)

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Tell no more; wait until what was sent is taken, so long at most. What is not then stays `ledger.open`."""
        self._stopping.set()
        until = time.monotonic() + drain_s
        for client in self._clients:
            client.give_up_at = until
        for client in self._clients:
            client.join()

    def wait_for(self, events: int, timeout_s: float = 120.0) -> None:
        """Return when so many more events were taken.

        Raises:
            TimeoutError: they were not.
        """
        enough = len(self.ledger.taken) + events
        until = time.monotonic() + timeout_s
        while len(self.ledger.taken) < enough:
            if time.monotonic() > until:
                raise TimeoutError(f"{enough - len(self.ledger.taken)} of {events} events were not taken in "
                                   f"{timeout_s:.0f} s; tries ended so: {dict(self.ledger.answers)}")  # fmt: skip
            time.sleep(0.02)


class _Client(threading.Thread):
    def __init__(
        self, number: int, ledger: Ledger, urls: Sequence[str], seed: int, every_s: float | None, batch: int,
        duplicates: float, mistakes: float, story: Story, stopping: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(name=f"client-{number}", daemon=True)
        self._rng = random.Random(f"client {seed} {number}")
        self._ledger = ledger
        self._urls = [urls[(number + i) % len(urls)] for i in range(len(urls))]
        self._every_s, self._batch = every_s, batch
        self._told = spoiled(story(self._rng, number), self._rng, number, duplicates, mistakes)
        self._stopping = stopping
        self._at = 0  # the collector it talks to
        self._connection: http.client.HTTPConnection | None = None
        self.give_up_at = float("inf")

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            self._send([next(self._told) for _ in range(self._batch)])
            if self._every_s is not None:
                due = max(due + self._every_s, time.monotonic() - 1.0)  # after an outage not all of it at once
                self._stopping.wait(max(0.0, due - time.monotonic()))
        if self._connection is not None:
            self._connection.close()

    def _send(self, events: list[Json]) -> None:
        body = json.dumps({"batch": events}).encode()
        self._ledger.sending(events)
        began, tries, pause_s = time.monotonic(), 0, PAUSE_S
        while time.monotonic() < self.give_up_at:
            tries += 1
            status, said = self._try(body)
            self._ledger.tried(said if status is None else str(status))
            if status is not None and 200 <= status < 300:
                self._ledger.took(events, Request(began, time.monotonic(), len(events), tries))
                return
            if status is not None and 400 <= status < 500 and status != 429:
                self._ledger.refused.append(f"{status}: {said[:300]}")
                return
            self._at += 1  # the next collector, if there are several
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if tries % len(self._urls) == 0:
                time.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _try(self, body: bytes) -> tuple[int | None, str]:
        """Status and body of the answer; without an answer, the name of the error."""
        try:
            if self._connection is None:
                address = urlsplit(self._urls[self._at % len(self._urls)])
                self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
            self._connection.request("POST", "/v1/batch", body, HEADERS)
            answer = self._connection.getresponse()
            text = answer.read().decode(errors="replace")
            return answer.status, text
        except (OSError, http.client.HTTPException) as error:
            return None, type(error).__name__


HEADERS = {
    "Authorization": "Basic " + base64.b64encode(f"{WRITE_KEY}:".encode()).decode(),
    "Content-Type": "application/json",
}


def spoiled(
    story: Iterator[Json], rng: random.Random, number: int, duplicates: float, mistakes: float
) -> Iterator[Json]:
    """The story with some of it told twice, and some of it wrong."""
    before: list[Json] = []
    wrong = 0
    for event in story:
        yield event
        before.append(event)
        if len(before) > 300:
            del before[:100]
        if rng.random() < duplicates:
            yield rng.choice(before)
        if rng.random() < mistakes:
            wrong += 1
            bad = {"messageId": f"wrong-{number}-{wrong}", "type": "track", "timestamp": event["timestamp"],
                   "userId": f"wrong-{number}"}  # fmt: skip
            if rng.random() < 0.5:
                yield bad  # no event: the collector refuses it
            else:
                yield {**bad, "event": "Order Completed", "properties": {"order_id": str(wrong), "total": -1}}


# --- the story


class _Visitor:
    """Somebody in the shop. `user` is empty until she signs up."""

    def __init__(self, anonymous: str) -> None:
        self.anonymous = anonymous
        self.user = ""
        self.orders: list[str] = []


def shop_story(rng: random.Random, number: int) -> Iterator[Json]:
    """Visits, sign-ups, orders, refunds, cancellations; second devices, devices that are shared, and new user ids."""
    clock = datetime.now(UTC) - timedelta(days=STORY_DAYS)
    clock = clock.replace(microsecond=0)
    visitors: list[_Visitor] = []
    count, people = 0, 0
    while True:
        clock += timedelta(seconds=rng.expovariate(1 / 60))
        if clock > datetime.now(UTC) - timedelta(hours=1):
            clock = clock.replace(microsecond=0) - timedelta(days=STORY_DAYS - 1)
        if not visitors or rng.random() < 0.08:
            people += 1
            visitors.append(_Visitor(f"a{number}-{people}"))
            if len(visitors) > 200:
                visitors.pop(0)
        visitor = visitors[min(int(rng.expovariate(0.05)), len(visitors) - 1)]
        for call in _act(rng, visitor, visitors, number):
            count += 1
            late = timedelta(seconds=rng.randrange(10_000)) if rng.random() < 0.03 else timedelta()
            clock += timedelta(milliseconds=rng.randrange(1, 2_000))
            yield {
                "messageId": f"m{number}-{count}", "timestamp": _iso(clock - late),
                "context": {"library": {"name": "analytics.js"}, "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
                            "page": {"url": f"https://shop.test/{rng.randrange(50)}"}},
                **call,
            }  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _act(rng: random.Random, visitor: _Visitor, visitors: list[_Visitor], number: int) -> Iterator[Json]:
    ids = {"userId": visitor.user} if visitor.user else {"anonymousId": visitor.anonymous}
    dice = rng.random()
    if dice < 0.45:
        campaign = {"utm_source": rng.choice(["news", "ads"])} if rng.random() < 0.2 else {}
        query = "&".join(f"{name}={value}" for name, value in campaign.items())
        yield {"type": "page", "name": "Product", **ids,
               "properties": {"url": f"https://shop.test/p/{rng.randrange(40)}?{query}"}}  # fmt: skip
    elif dice < 0.65:
        yield {"type": "track", "event": "Product Viewed", **ids, "properties": {"product_id": f"p{rng.randrange(40)}"}}
    elif dice < 0.75:
        yield from _identify(rng, visitor, visitors, number)
    elif dice < 0.77 and visitor.user:
        before, visitor.user = visitor.user, f"n{number}-{visitor.anonymous}-{rng.randrange(1000)}"
        yield {"type": "alias", "previousId": before, "userId": visitor.user}
    elif dice < 0.95:
        yield _order(rng, visitor, ids, number)
    elif visitor.orders:
        order_id = rng.choice(visitor.orders)
        if rng.random() < 0.7:
            yield {"type": "track", "event": "Order Refunded", **ids,
                   "properties": {"order_id": order_id, "refund_id": f"r-{order_id}-{rng.randrange(3)}",
                                  "total": rng.randrange(1, 500) / 100, "currency": "EUR"}}  # fmt: skip
        else:
            yield {"type": "track", "event": "Order Cancelled", **ids, "properties": {"order_id": order_id}}


def _identify(rng: random.Random, visitor: _Visitor, visitors: list[_Visitor], number: int) -> Iterator[Json]:
    """She signs up or logs in; now and then on another device of hers, or on one that somebody else used before."""
    if not visitor.user:
        visitor.user = f"u{number}-{visitor.anonymous}"
    anonymous = visitor.anonymous
    if rng.random() < 0.1:
        anonymous = f"{visitor.anonymous}-phone"
        yield {"type": "page", "anonymousId": anonymous, "properties": {"url": "https://shop.test/login"}}
    elif rng.random() < 0.03:
        anonymous = rng.choice(visitors).anonymous
    yield {"type": "identify", "userId": visitor.user, "anonymousId": anonymous,
           "traits": {"email": f"{visitor.user}@shop.test", "firstName": "Ada", "plan": rng.choice("abc")}}  # fmt: skip


def _order(rng: random.Random, visitor: _Visitor, ids: Json, number: int) -> Json:
    order_id = f"o{number}-{visitor.anonymous}-{len(visitor.orders) + 1}"
    visitor.orders.append(order_id)
    products = [{"product_id": f"p{rng.randrange(40)}", "price": rng.randrange(100, 5_000) / 100,
                 "quantity": rng.randrange(1, 4)} for _ in range(rng.randrange(1, 4))]  # fmt: skip
    return {"type": "track", "event": "Order Completed", **ids,
            "properties": {"order_id": order_id, "total": rng.randrange(500, 20_000) / 100, "currency": "EUR",
                           "products": products}}  # fmt: skip
