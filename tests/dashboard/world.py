"""A whole Tidewire for the pages to stand on: log, collector, customer stage, ClickHouse sink and dashboard, all real.

chDB lives once in a process, so each world is a process of its own:

    python -m tests.dashboard.world SCENE FOLDER

It fills itself with the events of the scene (a folder used before keeps what it has), waits until they are all in
ClickHouse, prints its address as one line of JSON, and serves until it is told to stop.
Scenes: bare (without a sink), empty, awaiting (the same, to be filled), little, plenty, hostile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from config.coupons import read_campaigns
from config.settings import Settings
from config.write_keys import WriteKey, WriteKeys, hash_of
from processors.coupon import CouponProcessor
from processors.fold import Fold
from processors.journeys import Journeys
from processors.orders import Orders
from processors.profile import Profile
from processors.segments import Segments
from processors.visits import Visits
from schemas.errors import Refused
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from schemas.times import to_ms
from sinks.analytics import Analytics
from sinks.clickhouse import ClickHouseSink
from sinks.coupons import TABLES as COUPON_TABLES
from sinks.messages.tables import TABLES
from streams.app import StageApp
from streams.campaigns import take_over
from streams.definitions import Coordinator
from streams.embedded import EmbeddedLog
from streams.giving import give
from streams.leads import Leads
from streams.log import Outgoing
from streams.metrics import StageMetrics
from streams.ordering import order
from streams.proof import Proof, store
from streams.roles import start_coupons, start_sender
from streams.schedules import Schedules
from streams.stage import CustomerStage
from streams.topics import create_topics
from tests.dashboard import journeys, payloads
from web.collector.app import CollectorFirst
from web.collector.ingest import Collector, dead_letter
from web.collector.server import guarded_server
from web.dashboard import dashboard
from web.dashboard.site import Site

KEY = "trial-key"
TOKEN = "token-of-the-test"
NOW = datetime.now(UTC).replace(microsecond=0)

Call = tuple[datetime, str, dict[str, Any]]  # when, by which write key, the body
SHOP = "https://shop.example"
CATALOGUE = (
    ("tea-01", "Sencha, 100 g", "Tea", 14.5), ("tea-02", "Earl Grey, 250 g", "Tea", 12.9),
    ("pot-01", "Cast iron pot", "Pots", 59.0), ("cup-04", "Celadon cup", "Cups", 18.0),
    ("cup-05", "Glass cup, double wall", "Cups", 11.0), ("tin-02", "Tea tin", "Tins", 7.5),
    ("whi-01", "Bamboo whisk", "Tools", 16.2), ("bok-03", "The Book of Tea", "Books", 9.99),
)  # fmt: skip
CAMPAIGNS: tuple[dict[str, str], ...] = (
    {"name": "spring-harvest", "source": "newsletter", "medium": "email"},
    {"name": "brand", "source": "google", "medium": "cpc"},
    {"name": "matcha-week", "source": "instagram", "medium": "social"},
)
REFERRERS = ("https://www.google.com/", "https://www.baidu.com/s", "https://www.reddit.com/r/tea/", "", "",
             "https://teablog.example/best-pots")  # fmt: skip
NAMES = ("Ada Lindqvist", "Bruno Haas", "陈雨桐", "Dalia Noor", "Emre Kaya", "Freja Holm", "Gita Rao", "李明",
         "Hugo Marin", "Ines Duarte", "Jonas Weber", "Kiri Tane", "Lena Fischer", "王芳", "Nia Okafor",
         "Oskar Berg")  # fmt: skip


def plenty() -> Iterator[Call]:
    """Four months of a tea shop: visitors on several devices, some known, some buying, in three currencies."""
    dice = Random(7)
    for number in range(420):
        born = NOW - timedelta(days=dice.random() ** 1.4 * 118, minutes=dice.randrange(600))
        anonymous = f"anon-{number:04d}"
        visits = 1 + int(dice.expovariate(1 / 2.2))
        is_known = dice.random() < 0.55
        for visit in range(visits):
            start = born + timedelta(days=dice.random() * 30 * min(visit, 3), hours=dice.random() * 5 * visit)
            if start > NOW - timedelta(minutes=4):
                break
            yield from _visit(dice, number, anonymous, start, visit, is_known)


def _visit(dice: Random, number: int, anonymous: str, start: datetime, visit: int, is_known: bool) -> Iterator[Call]:
    at = start
    who: dict[str, Any] = {"anonymousId": anonymous if visit < 3 else f"{anonymous}-phone"}
    context: dict[str, Any] = {
        "library": {"name": "analytics.js", "version": "2.11.1"}, "timezone": "Europe/Vienna",
        "locale": dice.choice(("en-GB", "de-AT", "zh-CN", "fr-FR")), "userAgent": dice.choice(AGENTS),
    }  # fmt: skip
    if dice.random() < 0.35:
        context["campaign"] = dice.choice(CAMPAIGNS)
    page = {"path": "/", "url": f"{SHOP}/", "title": "Leaf & Kettle", "referrer": dice.choice(REFERRERS)}
    context["page"] = page
    yield at, "web", {"type": "page", "name": "Home", "properties": page, "context": context, **who}
    if is_known and (visit > 0 or dice.random() < 0.5):
        who["userId"] = f"u-{number:04d}"
        name = f"{NAMES[number % len(NAMES)]}" + (f" {number}" if number >= len(NAMES) else "")
        at += timedelta(seconds=20)
        yield at, "web", {"type": "identify", "context": context, **who, "traits": {
            "name": name, "email": f"customer{number}@mail.example", "plan": "free" if visit < 2 else "club",
            "city": dice.choice(("Wien", "上海", "Lyon", "Leeds", "Graz")), "newsletter": dice.random() < 0.7,
            **({"birthday": "1988-04-12", "phone": f"+43 660 {number:07d}"} if number % 3 == 0 else {})}}  # fmt: skip
    basket = dice.sample(CATALOGUE, dice.randrange(1, 4))
    currency = ("EUR", "EUR", "GBP", "CNY")[number % 4]
    for product_id, name, category, price in basket:
        at += timedelta(seconds=dice.randrange(10, 180))
        yield at, "web", {"type": "track", "event": "Product Viewed", "context": context, **who, "properties": {
            "product_id": product_id, "name": name, "category": category, "price": price, "currency": currency}}
        if dice.random() < 0.5:
            at += timedelta(seconds=9)
            yield at, "web", {"type": "track", "event": "Product Added", "context": context, **who, "properties": {
                "product_id": product_id, "name": name, "price": price, "quantity": 1}}
    if who.get("userId") and dice.random() < 0.5:
        at += timedelta(seconds=90)
        total = round(sum(price for *_, price in basket), 2)
        order = f"o-{number:04d}-{visit}"
        yield at, "shop backend", {"type": "track", "event": "Order Completed", "userId": who["userId"], "properties": {
            "order_id": order, "total": total, "revenue": total, "currency": currency,
            "products": [{"product_id": p, "name": n, "category": c, "price": price, "quantity": 1}
                         for p, n, c, price in basket]},
            "context": {"library": {"name": "analytics-python"}}}  # fmt: skip
        if dice.random() < 0.06 and at + timedelta(days=2) < NOW:
            yield at + timedelta(days=2), "shop backend", {"type": "track", "event": "Order Refunded",
                "userId": who["userId"], "properties": {"order_id": order, "total": total, "currency": currency},
                "context": {"library": {"name": "analytics-python"}}}  # fmt: skip


AGENTS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.4 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36",
)


def refused_calls() -> Iterator[Call]:
    """What real clients get wrong."""
    for number in range(46):
        at = NOW - timedelta(hours=number * 5, minutes=3)
        yield at, "web", {"type": "track", "userId": f"u-{number:04d}", "properties": {"step": number}}
        if number % 3 == 0:
            yield at, "app", {"type": "track", "event": "Signed Up", "messageId": f"noid-{number}"}
        if number % 5 == 0:
            yield at, "shop backend", {"type": "group", "userId": f"u-{number:04d}"}
        if number % 7 == 0:
            yield at, "shop backend", {"type": "trak", "event": "Order Completed", "userId": "u-1"}


def little() -> Iterator[Call]:
    at = NOW - timedelta(minutes=30)
    yield at, "web", {"type": "page", "anonymousId": "first-visitor", "properties": {"path": "/", "url": f"{SHOP}/"}}
    yield at + timedelta(minutes=2), "web", {"type": "identify", "anonymousId": "first-visitor", "userId": "ann-1",
                                             "traits": {"name": "Ann", "email": "ann@mail.example"}}  # fmt: skip
    yield at + timedelta(minutes=3), "web", {"type": "track", "userId": "ann-1", "event": "Signed Up", "properties": {}}


def of(scene: str) -> Iterable[Call]:
    calls: list[Call] = []
    if scene == "plenty":
        calls = [*plenty(), *refused_calls()]
    elif scene == "little":
        calls = list(little())
    elif scene == "hostile":
        calls = list(payloads.calls(NOW))
    return sorted(calls, key=lambda call: call[0])


SEGMENTS = {
    "buyers": """\
title: {en: Regular buyers, zh: 常客}
about: Ordered at least twice in a year.
when: {did: Order Completed, at_least: 2, within: 365 days}
""",
    "lookers": """\
title: {en: Lookers who do not buy, zh: 只看不买}
about: Looked at tea or pots lately, and ordered nothing.
when:
  all:
    - {did: Product Viewed, where: {category: {one_of: [Tea, Pots]}}, within: 60 days}
    - not: {did: Order Completed, within: 60 days}
    - any:
        - {trait: plan, is: club}
        - {context: locale, starts_with: zh}
        - not: {segment: buyers}
""",
    "club": "when: {trait: plan, is: club}\n",
    "spenders": """\
title: {en: Big spenders, zh: 高消费}
when: {did: Order Completed, total: {of: total, at_least: 60}, within: 120 days}
""",
    "carts": """\
title: {en: Carts that became orders, zh: 加购后下单}
when:
  sequence:
    - did: Product Added
    - {did: Order Completed, within: 2 hours}
""",
}


def segments_of(scene: str) -> Iterator[dict[str, str]]:
    """The definitions of a scene, those of each moment by name."""
    if scene == "plenty":
        yield {**SEGMENTS, "buyers": SEGMENTS["buyers"].replace("at_least: 2", "at_least: 3")}
        yield SEGMENTS
    elif scene == "hostile":
        for text in payloads.PAYLOADS:
            quoted = json.dumps(text)
            test = f"{{trait: name, is: {quoted}}}"
            did = f"{{did: {quoted}, where: [{{property: a, contains: {quoted}}}]}}"
            yield {"hostile": f"title: {{en: {quoted}}}\nabout: {quoted}\nwhen: {{any: [{test}, {did}]}}\n"}
        everybody = "when: {not: {did: Nothing}}"
        yield {f"hostile_{number}": f"title: {{en: {json.dumps(text)}, zh: {json.dumps(text)}}}\n{everybody}\n"
               for number, text in enumerate(payloads.PAYLOADS[:8])}
    elif scene == "little":
        yield {"signed_up": "title: {en: Signed up, zh: 已注册}\nwhen: {did: Signed Up}\n"}


def records_of(calls: Iterable[Call]) -> dict[str, list[Outgoing]]:
    """The calls as the collector would have written them when they happened."""
    records: dict[str, list[Outgoing]] = {"events": [], "rejected": []}
    for number, (at, source, body) in enumerate(calls):
        raw = msgspec.json.encode({"messageId": f"m-{number}", "timestamp": at.isoformat(), **body})
        arrival = Arrival(workspace="default", source=source, received_at=at)
        try:
            event = read_event(raw, "", arrival)
            records["events"].append(Outgoing(event.key.encode(), encode_event(event)))
        except Refused as refused:
            records["rejected"].append(dead_letter(refused, raw, arrival))
    return records


async def define(site: Site, scene: str) -> None:
    """Write the segments of the scene, wait until they are live, and compare them."""
    for texts in segments_of(scene):
        for name, text in texts.items():
            await site.segments.save(name, text, by="the test")
    while (known := await site.segments.known()).pending(site.segments.zone):  # noqa: ASYNC110 (as below)
        await asyncio.sleep(0.2)
    for name in known.wanted:
        await site.segments.verify(name)
    if scene == "hostile":  # a comparison that found differences, so that they are on the page
        keys = tuple(row["person"] for row in await site.analytics.query("SELECT person FROM person_list LIMIT 8"))
        at_ms = to_ms(datetime.now(UTC))
        await store(site.analytics, site.workspace, Proof("hostile_0", 1, 60, 60, keys[:4], keys[4:], at_ms, 0.1))


async def send_messages(site: Site, scene: str) -> None:
    """Of some people each is sent what she needs no consent for, and what she does; wait until all of it is known."""
    query = "SELECT person FROM person_list WHERE email != '' ORDER BY person LIMIT 12"
    people = [row["person"] for row in await site.analytics.query(query)] if scene in ("plenty", "hostile") else []
    for person in people:
        for name in ("welcome", "come_back"):
            await order(site.log, site.templates.read(name), name=name, to=person,
                        given={"offer": "ten"}, by="the test", now_ms=to_ms(datetime.now(UTC)))  # fmt: skip
    query = "SELECT count() AS n FROM messages_list WHERE state IN ('sent', 'withheld', 'failed')"
    while people and (await site.analytics.query(query))[0]["n"] < 2 * len(people):  # noqa: ASYNC110 (as below)
        await asyncio.sleep(0.1)


CAMPAIGNS_OF = {
    "spring": """\
title: {en: Spring, zh: 春季}
about: Ten euros for who orders for a hundred.
codes: {generated: {prefix: SPRING}}
worth: {amount: 10, currency: EUR}
expires: 30 days after given
budget: {codes: 100, amount: 120}
give_when: {did: Order Completed, where: {total: {at_least: 100}}}
""",
    "thanks": """\
codes: {file: thanks.txt}
worth: {percent: 15}
expires: 2099-12-31
""",
}


async def give_coupons(site: Site, scene: str, folder: Path) -> None:
    """Some people are given a coupon, and one uses hers; wait until all of it is known."""
    if scene not in ("plenty", "hostile"):
        return
    config = folder / "config"
    (config / "coupons").mkdir(parents=True)
    for name, text in CAMPAIGNS_OF.items():
        said = json.dumps(payloads.PAYLOADS[0]) if scene == "hostile" else "Spring"
        (config / "coupons" / f"{name}.yaml").write_text(text.replace("en: Spring", f"en: {said}"))
    (config / "coupons" / "thanks.txt").write_text("THANKS-1\nTHANKS-2\nTHANKS-3\n")
    await take_over(site.log, site.analytics, read_campaigns(config, "UTC"), site.workspace)
    query = "SELECT person FROM person_list WHERE name != '' ORDER BY person LIMIT 4"
    people = [row["person"] for row in await site.analytics.query(query)]
    for person in people:
        for name in CAMPAIGNS_OF:
            await give(site.log, name, person, by=payloads.PAYLOADS[0] if scene == "hostile" else "the test")
    query = "SELECT sum(given + refused) AS n FROM coupon_campaigns_list"
    while (await site.analytics.query(query))[0]["n"] < 2 * len(people):  # noqa: ASYNC110 (as below)
        await asyncio.sleep(0.1)
    event = {"type": "track", "event": "Coupon Redeemed", "messageId": "redeemed",
             "userId": people[0].partition(":")[2], "properties": {"code": "thanks-1", "order_id": "o-1"}}  # fmt: skip
    for record in records_of([(datetime.now(UTC), "shop backend", event)])["events"]:
        await site.log.append("events", [record])
    while (await site.analytics.query("SELECT sum(used + misused) AS n FROM coupon_campaigns_list"))[0]["n"] < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def serve(scene: str, folder: Path) -> None:
    settings = Settings(data=folder, write_keys=KEY, partitions=2, sink_wait_ms=100, checkpoint_ms=50)
    registry = CollectorRegistry()
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    await create_topics(log, settings)
    is_new = not any(end for _, end in (await log.bounds("events")).values())
    for topic, records in records_of(of(scene) if is_new else ()).items():
        for start in range(0, len(records), 2_000):
            await log.append(topic, records[start : start + 2_000])
    fold = Fold([Profile(), Visits(), Orders(), CouponProcessor(), Segments(), Journeys()])
    analytics = Analytics(settings.analytics_url)
    await analytics.start()
    sink = ClickHouseSink(log, analytics, (*fold.tables, *TABLES, *COUPON_TABLES), settings)
    sinking = asyncio.create_task(sink.run() if scene != "bare" else asyncio.sleep(0))
    customers = CustomerStage(fold, partitions=log.partitions("events"), most_links=100)
    stage = StageApp(log, customers, settings, StageMetrics(registry))
    await stage.start()
    stack = AsyncExitStack()
    await start_sender(settings, log, registry, stack)
    await start_coupons(settings, log, registry, stack)

    pages = dashboard(log, analytics, settings, TOKEN, check=fold.check, progress=lambda: coordinator.progress)
    keys = WriteKeys([WriteKey(name="trial", sha256=hash_of(KEY), kind="any")])
    app = CollectorFirst(Collector(log, keys, settings, registry, lag=lambda: 0), pages)
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    port = listener.getsockname()[1]
    server = guarded_server(app, "127.0.0.1", port, loop="asyncio", lifespan="off")
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 (uvicorn offers nothing to wait for)
        await asyncio.sleep(0.01)
    site = pages.state.site
    leads = Leads(log, analytics, site.journeys, site.templates, workspace=settings.workspace)
    coordinator = Coordinator(
        log, analytics, zone=settings.timezone, rfm_minutes=settings.rfm_minutes, leads=leads
    )
    schedules = Schedules(log, coordinator, site.journeys, settings.timezone)
    calm = 0
    while calm < 5 and not sinking.done():
        calm = calm + 1 if (await site.freshness()).is_current else 0
        await asyncio.sleep(0.1)
    works = (coordinator.run(), schedules.run()) if scene != "bare" else ()
    coordinating = [asyncio.create_task(work) for work in works]
    await site.templates.apply_files(by="config", now_ms=to_ms(datetime.now(UTC)))
    await define(site, scene if is_new else "")
    await send_messages(site, scene if is_new else "")
    await give_coupons(site, scene if is_new else "", folder)
    await journeys.make(site, scene if is_new else "", NOW)
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    await serving
    for task in coordinating:
        task.cancel()
    await asyncio.gather(*coordinating, return_exceptions=True)
    await stack.aclose()
    await stage.stop()
    await sink.stop()
    await sinking
    await analytics.close()
    await log.stop()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
                        logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # fmt: skip
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
