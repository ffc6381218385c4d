"""A real browser loads a page with /tidewire.js, and its calls arrive."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, sync_playwright

from schemas.event import Event
from tests.collector.node_sdks import node_modules
from tests.collector.running import KEY, Running
from tests.conftest import BROWSERS
from tests.faults.proxy import Pass, Proxy, Reset
from web.collector.answers import answer, come_again

pytestmark = pytest.mark.together

UMD_OF_SEGMENT = Path("@segment/analytics-next/dist/umd")  # below node_modules
SNIPPET = Path(__file__).parents[2] / "web" / "static" / "tidewire.js"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage"]  # fmt: skip


def test_the_snippet_is_below_4_kb_packed():
    assert len(gzip.compress(SNIPPET.read_bytes(), 9)) < 4_000


def shop_html(collector_url: str, *calls: str, key: str = KEY) -> bytes:
    return f"""<!doctype html><title>Shop</title>
        <script>window.tidewire = window.tidewire || []; tidewire.push(["load", "{key}"], {", ".join(calls)})</script>
        <script async src="{collector_url}/tidewire.js"></script>""".encode()


class Shop:
    """A site on another origin than its collector, on the same server: browsers guard loopback from other sites."""

    def __init__(self, start_collector: Callable[..., Running], visitor: BrowserContext) -> None:
        self.html = b""
        self.collector = start_collector(wrap=self._wrap)
        self.port = self.collector.port  # where browsers find it
        self.visitor = visitor
        self.page = visitor.new_page()

    def show(self, path: str, *calls: str, key: str = KEY) -> None:
        self.html = shop_html(f"http://127.0.0.1:{self.port}", *calls, key=key)
        self.page.goto(f"{self.origin}/shop{path}")

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def _wrap(self, app: Any) -> Any:
        async def site(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"].startswith("/shop/umd/"):
                script = (node_modules() / UMD_OF_SEGMENT / Path(scope["path"]).name).read_bytes()
                await answer(200, script, content_type=(b"content-type", b"text/javascript")).send(send)
            elif scope["path"].startswith("/shop"):
                await answer(200, self.html, content_type=(b"content-type", b"text/html")).send(send)
            else:
                await app(scope, receive, send)

        return site

    def arrived(self, count: int, within_s: float = 15.0) -> list[Event]:
        """The events of the collector, once there are so many; in the order they happened, to the millisecond."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            events = self.collector.events()
            if len({event.message_id for event in events}) >= count:
                return sorted(events, key=lambda event: event.original_timestamp or event.received_at)
            time.sleep(0.05)
        raise AssertionError(f"{len(self.collector.events())} of {count} events arrived in {within_s} s")

    def rest_in_browser(self, count: int) -> bool:
        """Whether so many events rest in the browser, at the latest after a few seconds."""
        self.page.wait_for_function(
            "count => Object.keys(localStorage).filter(key => key.startsWith('tidewire.event.')).length === count",
            arg=count, timeout=5_000,
        )  # fmt: skip
        return True


@pytest.fixture
def shop(start_collector: Callable[..., Running], visitor: BrowserContext) -> Shop:
    return Shop(start_collector, visitor)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(path for name in BROWSERS if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser: Any) -> Iterator[BrowserContext]:
    """A browser that nobody has used before."""
    context = browser.new_context(locale="de-DE", timezone_id="Europe/Berlin", viewport={"width": 800, "height": 600})
    yield context
    context.close()


@pytest.mark.browser
def test_page_identify_and_track_arrive_as_one_visitor(shop: Shop):
    shop.show("/shoes?utm_source=letter&utm_campaign=spring", '["page"]')
    shop.arrived(1)

    shop.page.evaluate("""() => {
        tidewire.identify("u-17", {plan: "pro", name: "李雷"});
        tidewire.track("Order Completed", {total: 19.9});
    }""")

    viewed, identified, ordered = shop.arrived(3)
    assert [event.type for event in (viewed, identified, ordered)] == ["page", "identify", "track"]
    assert len({event.anonymous_id for event in (viewed, identified, ordered)}) == 1
    assert len(viewed.anonymous_id) == 36
    assert [event.user_id for event in (viewed, identified, ordered)] == ["", "u-17", "u-17"]
    assert viewed.properties["url"] == f"{shop.origin}/shop/shoes?utm_source=letter&utm_campaign=spring"
    assert viewed.context["campaign"] == {"source": "letter", "name": "spring"}
    assert viewed.context["page"]["path"] == "/shop/shoes"
    assert (viewed.context["locale"], viewed.context["timezone"]) == ("de-DE", "Europe/Berlin")
    assert "Chrom" in viewed.context["userAgent"]
    assert viewed.context["screen"]["width"] > 0
    assert dict(identified.traits) == {"plan": "pro", "name": "李雷"}
    assert (ordered.event, ordered.properties) == ("Order Completed", {"total": 19.9})
    assert all(event.flags == () for event in (viewed, identified, ordered))


@pytest.mark.browser
def test_the_visitor_is_known_on_the_next_page_and_forgotten_by_reset(shop: Shop):
    shop.show("/a", '["identify", "u-17"]')
    shop.arrived(1)
    shop.show("/b", '["page", "Shop", "Second"]', '["reset"]', '["track", "Left"]')

    events = {event.type: event for event in shop.arrived(3)}  # the last two may have been made in one millisecond
    first, second, after = events["identify"], events["page"], events["track"]
    assert (second.anonymous_id, second.user_id) == (first.anonymous_id, "u-17")
    assert (second.category, second.name) == ("Shop", "Second")
    assert after.user_id == ""
    assert after.anonymous_id != first.anonymous_id


@pytest.mark.browser
def test_all_six_calls_are_understood(shop: Shop):
    calls = ['["page", {"a": 1}]', '["identify", {"plan": "free"}]', '["identify", 17]', '["track", "Seen"]',
             '["group", "acme", {"size": 3}]', '["alias", "u-18"]', '["no such call"]']  # fmt: skip

    shop.show("/", *calls)

    events = {event.type: event for event in shop.arrived(6)}
    assert shop.collector.rejected() == []
    assert events["page"].properties["a"] == 1
    assert (events["group"].group_id, dict(events["group"].traits)) == ("acme", {"size": 3})
    assert (events["alias"].previous_id, events["alias"].user_id) == ("17", "u-18")


@pytest.mark.browser
def test_what_waits_when_the_page_is_left_goes_by_beacon(shop: Shop):
    shop.show("/a", '["page"]')
    shop.arrived(1)

    shop.page.evaluate("tidewire.track('Link Clicked', {n: 1})")
    shop.page.goto("about:blank")

    # What was under way when the page was left may come twice, under one message id.
    arrived = {event.message_id: event for event in shop.arrived(2)}
    assert sorted((event.type, event.event) for event in arrived.values()) == [("page", ""), ("track", "Link Clicked")]


@pytest.mark.browser
def test_what_went_by_beacon_is_sent_again_by_the_next_page_under_the_same_message_id(shop: Shop):
    shop.show("/a", '["page"]')
    shop.arrived(1)
    shop.page.evaluate("tidewire.track('Link Clicked')")
    shop.page.goto("about:blank")
    shop.arrived(2)

    shop.show("/b", '["page"]')

    events = shop.arrived(3)
    assert len({event.message_id for event in events if event.event == "Link Clicked"}) == 1
    assert shop.rest_in_browser(0)


@pytest.mark.browser
def test_events_wait_in_the_browser_while_it_is_offline_even_over_pages(shop: Shop):
    with Proxy(shop.collector.port) as net:
        shop.port = net.port
        shop.show("/a", '["page"]')
        shop.arrived(1)

        net.be(Reset())  # for the browser forgets that it is offline when it leaves a page
        shop.visitor.set_offline(True)
        shop.page.evaluate("tidewire.track('Read On The Train')")
        shop.page.wait_for_timeout(500)
        shop.page.goto("about:blank")
        assert len(shop.collector.events()) == 1
        net.be(Pass())
        shop.visitor.set_offline(False)
        shop.show("/b", '["page"]')

        assert sorted(event.event for event in shop.arrived(3)) == ["", "", "Read On The Train"]
        assert shop.rest_in_browser(0)


@pytest.mark.browser
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_and_nothing_is_lost(shop: Shop, status: int):
    shop.collector.answer_first.append(come_again(status, "busy", 2))

    shop.show("/a", '["page"]', '["track", "Bought"]')

    assert len(shop.arrived(2)) == 2
    first, second = shop.collector.asked_at_s
    assert 1.9 < second - first < 6


@pytest.mark.browser
def test_a_refused_key_is_said_once_and_does_not_pile_up(shop: Shop):
    said: list[str] = []
    shop.page.on("console", lambda message: said.append(message.text))

    shop.show("/a", '["page"]', key="wrong")
    shop.page.wait_for_timeout(1_000)

    assert len([line for line in said if line.startswith("tidewire: 401")]) == 1
    assert shop.rest_in_browser(0)


@pytest.mark.browser
def test_a_page_without_storage_still_sends_and_a_cookie_knows_the_visitor(shop: Shop):
    shop.page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('forbidden') }})")

    shop.show("/a", '["page"]', '["track", "Bought"]')
    shop.arrived(2)
    shop.show("/b", '["page"]')

    assert len({event.anonymous_id for event in shop.arrived(3)}) == 1


@pytest.mark.browser
def test_properties_that_are_no_json_do_not_stop_the_page(shop: Shop):
    shop.show("/a", '["page"]')
    shop.arrived(1)

    shop.page.evaluate("() => { const o = {}; o.o = o; tidewire.track('Circle', o); tidewire.track('After') }")

    assert [event.event for event in shop.arrived(2)] == ["", "After"]


@pytest.mark.browser
@pytest.mark.node
def test_segments_own_browser_sdk_needs_only_another_address(shop: Shop):
    shop.html = f"""<!doctype html><title>Shop</title><script src="/shop/umd/index.js"></script><script>
        const analytics = AnalyticsNext.AnalyticsBrowser.load({{writeKey: "{KEY}", cdnURL: "{shop.collector.url}"}});
        analytics.page("Home");
        analytics.identify("u-17", {{plan: "pro"}});
        analytics.track("Bought", {{total: 19.9}});
        </script>""".encode()

    shop.page.goto(f"{shop.origin}/shop/")

    events = {event.type: event for event in shop.arrived(3)}
    assert len({event.anonymous_id for event in events.values()}) == 1
    assert (events["page"].name, events["identify"].user_id) == ("Home", "u-17")
    assert (events["track"].event, events["track"].properties["total"]) == ("Bought", 19.9)
    assert dict(events["identify"].traits) == {"plan": "pro"}
    assert {flag for event in events.values() for flag in event.flags} == set()
