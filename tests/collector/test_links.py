"""Links of messages over real HTTP: where they lead, what becomes an event, and what nobody gets by them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from playwright.sync_api import Page, sync_playwright
from structlog.testing import capture_logs

from config.link_keys import load_link_keys
from config.settings import Settings
from processors.consent import words_of
from schemas.event import Event
from schemas.messages import MACHINES
from sinks.messages.links import CLICK, LIFE_S, OPEN, PREFERENCES, UNSUBSCRIBE, Click, Kind, Mailed, Tokens
from sinks.messages.tracking import Links
from streams.log import LogBusy
from streams.templates import Templates
from tests.collector.running import Running
from tests.dashboard.conftest import ARGUMENTS
from tests.dashboard.test_axe import AXE, RULES
from tests.npm import node_modules
from web.links.app import links_app
from web.links.limits import Limits
from web.links.pages import FOLDER

pytestmark = pytest.mark.together

PUBLIC = "https://go.shop.test"
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
TEMPLATE = "channel: {}\nkind: marketing\ntopic: {}\ncontent: {{en: {{text: Hi{}}}}}\n"


class Gate:
    """A collector with links, whose clock stands still unless it is moved."""

    def __init__(self, folder: Path, *, patience_s: float = 20.0, **limits: float) -> None:
        self.now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
        self.settings = Settings(data=folder / "data", public_url=PUBLIC)
        self.tokens = Tokens([key.secret for key in load_link_keys(self.settings)], lambda: self.now.timestamp())
        self.links = Links(PUBLIC, self.tokens)
        self.running = Running(
            folder / "data",
            links=lambda running: links_app(running.log, self.settings, running.registry, patience_s=patience_s,
                                            clock=lambda: self.now, limits=Limits(**limits)),
        ).start()  # fmt: skip
        for name, channel, topic, more in (("a", "email", "offers", ", subject: Hi"), ("b", "sms", "offers", ""),
                                           ("c", "email", "<b>news</b>", ", subject: Hi")):  # fmt: skip
            text = TEMPLATE.format(channel, f'"{topic}"', more)
            saved = Templates(self.running.log, self.settings).save(name, text, by="test", now_ms=1)
            asyncio.run_coroutine_threadsafe(saved, self.running._loop).result(20)

    def path(self, kind: Kind[Mailed], message: str = "m1", **said: str) -> str:
        return kind.path(self.tokens.sign(kind, mailed(message, **said)))

    def click(self, message: str = "m1", number: int = 1, url: str = "https://shop.test/a?b=1") -> str:
        said = Click(message, "shop/u:ada", "welcome", "offers", "email", number, url)
        return CLICK.path(self.tokens.sign(CLICK, said))

    def get(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        options["headers"] = BROWSER | options.get("headers", {})
        return self.running.request(method, path, **options)

    def post(self, path: str, data: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        return self.running.request("POST", path, data=data, **options)

    def of(self, message: str) -> list[Event]:
        return [event for event in self.running.events() if event.properties.get("message_id") == message]

    def counted(self, name: str, **labels: str) -> float:
        return self.running.registry.get_sample_value(f"tidewire_links_{name}_total", labels) or 0.0


def mailed(message: str = "m1", **said: str) -> Mailed:
    fields = {"person": "shop/u:ada", "template": "welcome", "topic": "offers", "channel": "email", **said}
    return Mailed(message, **fields)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One for all tests; they tell their events apart by message."""
    gate = Gate(tmp_path_factory.mktemp("gate"))
    yield gate
    gate.running.stop()


@pytest.fixture
def own_gate(tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    gates: list[Gate] = []

    def start(**options: float) -> Gate:
        gates.append(Gate(tmp_path, **options))
        return gates[-1]

    yield start
    for each in gates:
        each.running.stop()


def consent(event: Event) -> dict[str, bool]:
    """What the profile reads out of an event, by topic and channel."""
    return {word.topic.replace("\t", "/"): word.is_granted for word in words_of(event)}


def assert_is_private(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "noindex" in answer.headers["x-robots-tag"]
    assert "set-cookie" not in answer.headers
    assert not re.search(r"<script|https?://", answer.text)


# --- clicks and openings


def test_a_click_leads_to_its_target_and_is_an_event_of_hers(gate: Gate) -> None:
    answer = gate.get(gate.click("click"), headers={"x-forwarded-for": "192.0.2.7"})

    assert (answer.status_code, answer.headers["location"]) == (302, "https://shop.test/a?b=1")
    assert_is_private(answer)
    (event,) = gate.of("click")
    assert (event.type, event.event, event.source, event.key) == ("track", "Message Clicked", "tidewire", "shop/u:ada")
    assert event.properties == {"message_id": "click", "template": "welcome", "topic": "offers", "channel": "email",
                                "link": 1, "url": "https://shop.test/a?b=1"}  # fmt: skip
    assert event.context == {"library": {"name": "tidewire"}, "userAgent": BROWSER["user-agent"], "ip": "192.0.2.7"}
    assert event.received_at == event.timestamp == gate.now


def test_a_click_that_is_sent_again_counts_once_a_minute(gate: Gate) -> None:
    for _ in range(3):
        assert gate.get(gate.click("again")).status_code == 302
    gate.now += timedelta(minutes=1)
    gate.get(gate.click("again"))

    assert len({event.message_id for event in gate.of("again")}) == len(gate.of("again")) == 2


def test_the_picture_is_the_smallest_there_is_and_says_that_she_opened_it(gate: Gate) -> None:
    path = OPEN.path(gate.tokens.sign(OPEN, mailed("open", person="shop/a:visitor"))) + ".gif"

    answer = gate.get(path)

    assert (answer.status_code, answer.headers["content-type"], len(answer.content)) == (200, "image/gif", 43)
    assert answer.content[:6] == b"GIF89a" and answer.headers["cache-control"] == "no-store"
    (event,) = gate.of("open")
    assert (event.event, event.key) == ("Message Opened", "shop/a:visitor")
    assert "machine" not in event.properties


def test_what_a_mail_holds_works(gate: Gate) -> None:
    html = gate.links.tracked('<body><a href="https://shop.test/x">x</a></body>', mailed("mail"), has_trap=True)

    paths = [address.removeprefix(PUBLIC) for address in re.findall(rf'"({PUBLIC}[^"]+)"', html)]

    assert [gate.get(path).status_code for path in paths] == [302, 404, 200]
    assert [(event.event, event.properties.get("machine")) for event in sorted(gate.of("mail"), key=lambda each: (
        each.event, each.properties.get("link") != 1))] == [
        ("Message Clicked", None), ("Message Clicked", "trap"), ("Message Opened", None)]  # fmt: skip


# --- machines


@pytest.mark.parametrize(
    ("mark", "method", "headers"),
    [
        ("head", "HEAD", {}),
        ("prefetch", "GET", {"sec-purpose": "prefetch;prerender"}),
        ("prefetch", "GET", {"purpose": "prefetch"}),
        ("proxy", "GET", {"user-agent": "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 "
                                        "(via ggpht.com GoogleImageProxy)"}),
        ("proxy", "GET", {"user-agent": "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"}),
        ("proxy", "GET", {"user-agent": "Mozilla/5.0"}),
        ("agent", "GET", {"user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}),
        ("agent", "GET", {"user-agent": ""}),
        ("agent", "GET", {"user-agent": "python-requests/2.32"}),
        (None, "GET", {"user-agent": "Mozilla/5.0 (Linux; Android 15; CUBOT NOTE 60) AppleWebKit/537.36"}),
        (None, "GET", {"user-agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
                                     "(KHTML, like Gecko) Mobile/15E148"}),
    ],
)  # fmt: skip
def test_what_no_person_did_is_marked_and_kept(
    gate: Gate, mark: str | None, method: str, headers: dict[str, str], request: pytest.FixtureRequest
) -> None:
    message = request.node.name
    picture = OPEN.path(gate.tokens.sign(OPEN, mailed(message))) + ".gif"

    assert gate.get(picture, method, headers=headers).status_code == 200
    assert gate.get(gate.click(message), method, headers=headers).status_code == 302

    assert {event.properties.get("machine") for event in gate.of(message)} == {mark}
    assert len(gate.of(message)) == 2
    assert mark is None or mark in MACHINES


def test_a_machine_that_looks_first_does_not_hide_her_click(gate: Gate) -> None:
    gate.get(gate.click("first"), "HEAD")
    gate.get(gate.click("first"))

    assert {event.properties.get("machine") for event in gate.of("first")} == {"head", None}


def marks(gate: Gate, message: str, address: str | None = None) -> list[str | None]:
    found = [event for event in gate.of(message) if address in (None, event.context["ip"])]
    return [event.properties.get("machine") for event in sorted(found, key=lambda each: each.properties["link"])]


def test_who_follows_the_hidden_link_is_a_machine_for_that_message_from_then_on(gate: Gate) -> None:
    at = {"x-forwarded-for": "192.0.2.1"}
    gate.get(gate.click("trapped", 0, ""), headers=at)
    gate.get(gate.click("trapped", 1), headers=at)
    gate.get(gate.click("trapped", 2), headers={"x-forwarded-for": "192.0.2.2"})
    gate.get(gate.click("other", 1), headers=at)

    assert marks(gate, "trapped", "192.0.2.1") == ["trap", "trap"]
    assert marks(gate, "trapped", "192.0.2.2") == marks(gate, "other") == [None]


def test_who_follows_several_links_within_a_second_is_a_machine(gate: Gate) -> None:
    for number in (1, 2, 3):
        gate.get(gate.click("swift", number))
    for _ in range(2):
        gate.get(gate.click("twice", 1))

    assert marks(gate, "swift") == [None, "swift", "swift"]
    assert marks(gate, "twice") == [None]


# --- the way out


def test_looking_at_the_way_out_changes_nothing(gate: Gate) -> None:
    path = gate.path(UNSUBSCRIBE, "looked")

    pages = [gate.get(path), gate.get(path, "HEAD"), gate.get(gate.path(PREFERENCES, "looked"))]

    assert [page.status_code for page in pages] == [200, 200, 200]
    assert "“offers” by e-mail" in pages[0].text and pages[0].text.count("<button") == 1
    for page in pages:
        assert_is_private(page)
    assert gate.of("looked") == []


@pytest.mark.parametrize("way", ["form", "multipart"])
def test_one_request_takes_her_off_and_a_second_is_the_same(gate: Gate, way: str) -> None:
    path = gate.path(UNSUBSCRIBE, f"left by {way}")
    body: dict[str, Any] = {"data": ONE_CLICK} if way == "form" else {
        "files": {"List-Unsubscribe": (None, "One-Click")}}  # fmt: skip

    answers = [gate.running.request("POST", path, **body) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({re.sub(r"/l/p/[^\"]+", "", answer.text) for answer in answers}) == 1
    assert "You get no more of these messages" in answers[0].text
    assert_is_private(answers[0])
    events = gate.of(f"left by {way}")
    assert [(event.event, event.source, event.key) for event in events] == [
        ("Unsubscribed", "tidewire", "shop/u:ada")] * 2  # fmt: skip
    assert [consent(event) for event in events] == [{"offers/email": False}] * 2


def test_who_comes_back_and_leaves_again_within_a_minute_has_left(gate: Gate) -> None:
    leave, choose = gate.path(UNSUBSCRIBE, "back"), gate.path(PREFERENCES, "back")

    gate.post(leave, ONE_CLICK)
    gate.post(choose, {"email/offers": "yes"})
    gate.post(leave, ONE_CLICK)

    assert len({event.message_id for event in gate.of("back")}) == 3  # none is taken for one sent again
    assert [consent(event)["offers/email"] for event in gate.of("back")] == [False, True, False]


def test_the_way_out_leads_on_to_the_preferences(gate: Gate) -> None:
    page = gate.get(gate.path(UNSUBSCRIBE, "on")).text

    (path,) = re.findall(r'href="(/l/p/[^"]+)"', page)

    assert gate.get(path).status_code == 200


@pytest.mark.parametrize("body", [b"", b"List-Unsubscribe=Yes", b"x=1&" * 300, b"\xff" * 20_000, b"\x1f\x8bno gzip"])
def test_a_request_without_the_words_takes_nobody_off(gate: Gate, body: bytes) -> None:
    answer = gate.running.request("POST", gate.path(UNSUBSCRIBE, "odd"), content=body)

    assert answer.status_code == 400
    assert_is_private(answer)
    assert gate.of("odd") == []


def test_a_body_of_parts_within_parts_is_no_trouble(gate: Gate) -> None:
    nested = b"--a\r\nContent-Type: multipart/x;boundary=a\r\n\r\n" * 330

    answer = gate.running.request("POST", gate.path(UNSUBSCRIBE, "nested"), content=nested,
                                  headers={"content-type": "multipart/form-data;boundary=a"})  # fmt: skip

    assert answer.status_code == 400


# --- preferences


def test_the_preferences_offer_every_topic_and_choose_none(gate: Gate) -> None:
    page = gate.get(gate.path(PREFERENCES, topic="own")).text

    assert re.findall(r'name="([^"]+)" value="yes"', page) == [
        "email/own", "email/&lt;b&gt;news&lt;/b&gt;", "email/offers", "sms/offers"]  # fmt: skip
    assert "checked" not in page and "<b>news" not in page
    assert "“offers”, by SMS" in page


def test_what_she_chooses_is_what_the_profile_reads(gate: Gate) -> None:
    form = {"email/offers": "yes", "sms/offers": "no", "email/unheard-of": "yes", "email/<b>news</b>": "perhaps"}

    answer = gate.post(gate.path(PREFERENCES, "chosen"), form)

    assert answer.status_code == 200
    assert "“offers”, by e-mail: you want it" in answer.text
    assert "“offers”, by SMS: you do not want it" in answer.text
    (event,) = gate.of("chosen")
    assert event.event == "Consent Changed"
    assert consent(event) == {"offers/email": True, "offers/sms": False}


def test_who_chooses_nothing_changes_nothing(gate: Gate) -> None:
    answer = gate.post(gate.path(PREFERENCES, "none"), {"more": "yes"})

    assert answer.status_code == 200 and "Nothing was changed" in answer.text
    assert gate.of("none") == []


def test_one_button_stops_everything(gate: Gate) -> None:
    answer = gate.post(gate.path(PREFERENCES, "all"), {"stop": "everything", "email/offers": "yes"})

    assert "Everything is stopped" in answer.text
    (event,) = gate.of("all")
    assert consent(event) == {"*/*": False}


def test_the_pages_speak_chinese_too(gate: Gate) -> None:
    chinese = {"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}

    page = gate.get(gate.path(UNSUBSCRIBE), headers=chinese)

    assert '<html lang="zh-Hans">' in page.text and "不再接收这类消息" in page.text and "电子邮件" in page.text
    assert (page.headers["content-language"], page.headers["vary"]) == ("zh-Hans", "Accept-Language")


def test_both_languages_have_every_text_and_none_too_many() -> None:
    english, chinese = (yaml.safe_load((FOLDER / "catalogue" / f"{code}.yaml").read_text()) for code in ("en", "zh"))
    used = {name for file in (FOLDER / "templates").iterdir() for name in re.findall(r"\bt\.(\w+)", file.read_text())}
    troubles = {f"{what}_{part}" for what in ("unknown", "expired", "later", "many", "odd")
                for part in ("title", "about")}  # fmt: skip

    assert set(english) == set(chinese) == used | troubles | {"email", "sms"}
    gap = re.compile(r"\{\w+\}")
    assert {name: sorted(gap.findall(text)) for name, text in english.items()} == {
        name: sorted(gap.findall(text)) for name, text in chinese.items()}  # fmt: skip


# --- what is no link of ours


def test_hostile_links_get_a_kind_page_and_leave_nothing_behind(gate: Gate) -> None:
    good = gate.path(UNSUBSCRIBE, "hostile")
    token = good.removeprefix("/l/u/")
    foreign = Tokens([bytes(32)]).sign(UNSUBSCRIBE, mailed("hostile"))
    hostile = [f"/l/p/{token}", f"/l/c/{token}", f"/l/o/{token}.gif", f"/l/u/{foreign}", good[:-1], good + "A",
               good + "/", f"/l/u/{token[:20]}x{token[21:]}", f"/l/u/{'A' * 10_000}", "/l/u/%00", "/l/u/数据",
               "/l/u/%ff%fe", "/l/u/..%2f..%2fetc", "/l/u/", "/l/", "/l/x/y", "/l/c/https://evil.test",
               f"/l/c/{token}?url=https://evil.test", "/l/u/%0d%0aset-cookie:a=b"]  # fmt: skip

    with capture_logs() as logged:
        answers = [gate.get(path) for path in hostile] + [gate.post(path, ONE_CLICK) for path in hostile]

    assert {answer.status_code for answer in answers} <= {404, 405}
    assert len({answer.text for answer in answers if answer.status_code == 404}) == 1
    for answer in answers:
        assert_is_private(answer)
        assert "location" not in answer.headers
    assert gate.of("hostile") == []
    assert token not in str(logged)


def test_a_link_that_is_too_old_says_so_and_changes_nothing(gate: Gate) -> None:
    path = gate.path(UNSUBSCRIBE, "old")
    gate.now += timedelta(seconds=LIFE_S + 1)

    answers = [gate.get(path), gate.post(path, ONE_CLICK)]
    gate.now -= timedelta(seconds=LIFE_S + 1)

    assert [answer.status_code for answer in answers] == [410, 410]
    assert "This link is too old" in answers[0].text
    assert gate.of("old") == []


def test_without_keys_there_are_no_links_and_the_collector_works(tmp_path: Path) -> None:
    running = Running(tmp_path).start()
    try:
        assert running.get("/l/u/x").status_code == 404
        assert running.post(content=b'{"event": "Bought", "userId": "u1"}').status_code == 200
        assert running.get("/healthz").text == "ok\n"
    finally:
        running.stop()


# --- when the log is away


def test_who_leaves_while_the_log_is_down_is_told_to_come_again(gate: Gate) -> None:
    path = gate.path(UNSUBSCRIBE, "down")
    gate.running.log.faults = [LogBusy("away", 7), OSError("broken")]

    with capture_logs() as logged:
        answers = [gate.post(path, ONE_CLICK), gate.post(path, ONE_CLICK)]

    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(503, "7"), (503, "5")]
    assert_is_private(answers[0])
    assert gate.of("down") == []
    assert len(logged) == 2 and path.removeprefix("/l/u/") not in str(logged)
    assert gate.post(path, ONE_CLICK).status_code == 200


def test_a_log_that_is_down_or_hangs_breaks_no_link(own_gate: Callable[..., Gate]) -> None:
    gate = own_gate(patience_s=0.05)
    gate.running.log.faults = [LogBusy("away"), OSError("broken")]
    answers = [gate.get(gate.click("lost")), gate.get(gate.click("lost"))]
    lost = gate.counted("lost_events", why="log")
    gate.running.log.is_held = True
    answers.append(gate.get(gate.click("late")))
    late = gate.of("late")
    gate.running.log.is_held = False

    assert [answer.status_code for answer in answers] == [302, 302, 302]
    assert (lost, gate.of("lost"), late) == (2, [], [])
    deadline = time.monotonic() + 5
    while not gate.of("late"):  # it was waited for, only not by her
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_asks_too_often_is_sent_on_and_not_counted(own_gate: Callable[..., Gate]) -> None:
    gate = own_gate(per_s=0.001, at_once=2)

    clicks = [gate.get(gate.click("many", number)).status_code for number in range(1, 5)]
    left = gate.post(gate.path(UNSUBSCRIBE, "many"), ONE_CLICK)
    elsewhere = gate.post(gate.path(UNSUBSCRIBE, "many"), ONE_CLICK, headers={"x-forwarded-for": "192.0.2.9"})

    assert clicks == [302] * 4
    assert (left.status_code, elsewhere.status_code) == (429, 200)
    assert int(left.headers["retry-after"]) > 0
    assert_is_private(left)
    assert [event.event for event in gate.of("many")].count("Message Clicked") == 2
    assert gate.counted("lost_events", why="limit") == 2
    assert gate.counted("requests", link="unsubscribe", status="429") == 1


# --- for everybody


@pytest.mark.browser
@pytest.mark.node
@pytest.mark.slow
def test_axe_finds_nothing_to_complain_of_and_buttons_work_without_scripts(gate: Gate, chromium: str) -> None:
    """Every page, in light and dark, in both languages; by the way of somebody who leaves and chooses."""
    axe = (node_modules(f"axe-core-{AXE}", [f"axe-core@{AXE}"]) / "axe-core" / "axe.min.js").read_text()
    found: dict[str, Any] = {}

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        for scheme, language in (("light", "en-GB"), ("dark", "zh-CN")):
            page = browser.new_page(color_scheme=scheme, locale=language, viewport={"width": 360, "height": 780})
            faults: list[str] = []
            page.on("console", lambda message, faults=faults: faults.append(message.text))

            def look(page: Page = page, faults: list[str] = faults) -> None:
                assert page.evaluate("document.documentElement.scrollWidth") <= 360
                assert faults == []  # the policy lets the styles through
                report = page.evaluate(
                    f"{axe}; axe.run(document, {{runOnly: {{type: 'tag', values: {RULES}}}}})"
                )
                found.update({page.title(): report["violations"]} if report["violations"] else {})

            def follow(selector: str, page: Page = page) -> None:
                with page.expect_navigation(wait_until="load"):  # a click comes back before the next page is there
                    page.click(selector)

            page.goto(gate.running.url + gate.path(UNSUBSCRIBE, f"axe {scheme}"))
            look()
            follow("button")
            look()
            follow("a")
            look()
            page.click("input[value=no] >> nth=0")
            follow("button >> nth=0")
            look()
            follow("a")
            follow("button.plain")
            look()
            with page.expect_console_message():  # of a page with status 404 the browser says so itself, sooner or later
                page.goto(gate.running.url + "/l/u/none", wait_until="load")
            faults.clear()
            look()
        browser.close()

    assert found == {}
    assert [list(consent(event).values()) for event in gate.of("axe dark")] == [[False]] * 3
