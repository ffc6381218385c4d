"""The pages in a real browser: by mouse, by keyboard, on a phone, without scripts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from tests.dashboard.conftest import Visitor, World
from tests.dashboard.world import KEY

pytestmark = pytest.mark.browser

Worlds = Callable[[str], World]
Visit = Callable[..., Visitor]


def send(world: World, *bodies: dict[str, object]) -> None:
    answer = world.http.post("/v1/batch", json={"batch": list(bodies)}, auth=(KEY, ""))
    assert answer.status_code == 200


# --- live


def test_an_event_appears_on_the_live_page_as_it_arrives(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/live")
    name = f"Arrived {time.time()}"

    properties = {"total": 12, "currency": "EUR"}
    send(world("little"), {"type": "track", "event": name, "userId": "u-9", "properties": properties})

    line = visitor.page.locator(".lines > li", has_text=name)
    expect(line).to_contain_text("12 EUR")
    line.locator("summary").click()
    expect(line.locator("pre")).to_contain_text('"userId": "u-9"')
    assert visitor.complaints() == []


def test_a_refused_event_appears_with_why_and_leads_to_its_mending(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/live?kind=rejected")

    send(world("little"), {"type": "track", "userId": "u-9", "messageId": f"refused-{time.time()}"})

    line = visitor.page.locator(".lines > li").first
    expect(line).to_contain_text("event: a track call needs the name of the event")
    line.locator("summary").click()
    href = line.get_by_role("link", name="Why, and mend").get_attribute("href")
    assert href is not None and re.fullmatch(r"/rejected/[0-9a-f]+", href)


def test_while_paused_the_page_stands_still_and_nothing_is_lost(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/live")
    first, second = (f"Paused {number} {time.time()}" for number in (1, 2))
    send(world("little"), {"type": "track", "event": first, "userId": "u-9"})
    expect(visitor.page.locator(".lines > li", has_text=first)).to_be_visible()

    visitor.page.get_by_role("button", name="Pause").press("Enter")
    send(world("little"), {"type": "track", "event": second, "userId": "u-9"})

    go_on = visitor.page.get_by_role("button", name="Go on · 1 waiting")
    expect(go_on).to_have_attribute("aria-pressed", "true")
    expect(visitor.page.locator(".lines > li", has_text=second)).to_have_count(0)
    go_on.press("Enter")
    expect(visitor.page.locator(".lines > li", has_text=second)).to_be_visible()


def test_the_live_page_shows_what_is_asked_for(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/live")
    mark = str(time.time())

    visitor.page.get_by_role("searchbox", name="Event").fill(f"wanted {mark}")
    expect(visitor.page.locator("#feed")).to_contain_text("Nothing that matches has passed yet")
    send(world("little"), {"type": "track", "event": f"Other {mark}", "userId": "u"},
         {"type": "track", "event": f"Wanted {mark}", "userId": "u"})  # fmt: skip

    expect(visitor.page.locator(".lines > li")).to_have_count(1)
    expect(visitor.page.locator(".lines > li")).to_contain_text(f"Wanted {mark}")
    assert "event=wanted" in visitor.page.url


def test_what_passes_too_fast_is_counted(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/live")
    expect(visitor.page.locator("#pulse")).to_contain_text("passed too fast to show")

    send(world("little"), *({"type": "track", "event": "Flood", "userId": f"u-{number}"} for number in range(900)))

    visitor.page.wait_for_function(
        "() => Number(document.querySelectorAll('.pulse-value')[3].textContent.replace(/,/g, '')) >= 800"
    )
    visitor.page.wait_for_function(
        "() => Number(document.querySelectorAll('.pulse-value')[1].textContent.replace(/,/g, '')) >= 900"
    )
    assert visitor.page.locator(".lines > li").count() <= 200


def test_screen_readers_are_told_in_sentences_and_not_line_by_line(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/live")
    send(world("little"), {"type": "page", "userId": "u-9"})

    told = visitor.page.locator("[aria-live=polite][sse-swap=announce]")
    expect(told).to_have_text(re.compile(r"\d+ events and \d+ refusals in the last ten seconds"), timeout=25_000)
    assert visitor.page.locator(".lines[aria-live], .lines [aria-live]").count() == 0


def test_an_empty_overview_fills_by_itself_when_the_first_event_comes(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("awaiting"))
    visitor.open("/")
    expect(visitor.page.locator("main")).to_contain_text("no events yet")

    send(world("awaiting"), {"type": "track", "event": "Signed Up", "userId": "ann-1"})

    expect(visitor.page.locator("#tiles")).to_contain_text("Active people", timeout=20_000)


# --- looking and finding


def test_the_chart_is_drawn_from_its_table_and_says_what_is_under_the_pointer(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/?range=30d&metric=events")
    plot = visitor.page.locator(".plot canvas")
    expect(plot).to_be_visible()

    box = visitor.page.locator(".plot .u-over").bounding_box()
    assert box is not None
    visitor.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 40)

    last = visitor.page.locator("#activity-table tbody tr").last
    tip = visitor.page.locator(".plot-tip")
    expect(tip).to_contain_text(last.locator("th").inner_text() or "")
    expect(tip).to_contain_text(last.locator("td").first.text_content() or "")
    assert visitor.complaints() == []


def test_dragging_over_the_chart_chooses_those_days(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/?range=30d")
    box = visitor.page.locator(".plot .u-over").bounding_box()
    assert box is not None

    visitor.page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 50)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 50, steps=8)
    visitor.page.mouse.up()

    visitor.page.wait_for_url(re.compile(r"from=\d{4}-\d\d-\d\d&to=\d{4}-\d\d-\d\d|to=.*from="))
    expect(visitor.page.locator(".days > summary")).to_have_attribute("aria-current", "true")


def test_typing_finds_people_and_the_address_can_be_shared(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/people")

    visitor.page.get_by_label("Search").fill("lindqvist")

    expect(visitor.page.locator(".people-table tbody tr").first).to_contain_text("Ada Lindqvist")
    expect(visitor.page).to_have_url(re.compile("q=lindqvist"))
    visitor.page.reload()
    expect(visitor.page.get_by_label("Search")).to_have_value("lindqvist")


def test_the_timeline_goes_on_where_it_ended(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/people?sort=events&kind=identified")
    visitor.page.locator(".who").first.click()
    expect(visitor.page.locator(".timeline details")).not_to_have_count(0)
    before = visitor.page.locator(".timeline details").count()

    visitor.page.get_by_role("link", name="Earlier").click()

    expect(visitor.page.locator(".timeline details")).not_to_have_count(before)
    places = visitor.page.locator(".timeline > li").evaluate_all("(all) => all.map((each) => each.textContent)")
    assert len(places) > before


def test_a_refused_record_is_mended_and_sent_by_hand(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    send(world("little"), {"type": "track", "userId": "u-77", "messageId": f"by-hand-{time.time()}"})
    visitor.page.wait_for_timeout(1_500)
    visitor.open("/rejected")
    visitor.page.locator("td a").first.click()
    editor = visitor.page.get_by_label("Mend it here (JSON)")

    visitor.page.get_by_role("button", name="Send again").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("Still refused, nothing was changed")
    editor.fill(editor.input_value().replace('"userId"', '"event": "Mended By Hand", "userId"'))
    visitor.page.get_by_role("button", name="Send again").click()

    expect(visitor.page.get_by_role("status").first).to_contain_text("The event was sent again")
    assert [fault for fault in visitor.complaints() if "422" not in fault] == []


# --- segments


def test_a_segment_is_written_checked_tried_and_saved_and_is_live_by_itself(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    page, name = visitor.page, f"by_hand_{time.time_ns()}"
    visitor.open("/segments")
    page.get_by_role("link", name="New segment").click()
    editor = page.get_by_label("Definition (YAML)")

    editor.fill("title: {en: By hand}\nwhen:\n  all:\n    - {did: Signed Up}\n    - {did: Page, atleast: 2}\n")
    expect(page.locator("#verdict")).to_contain_text('Line 5: "when.all.1.atleast": no such key here')
    expect(page.locator(".gutter .is-wrong")).to_have_text("5")
    expect(editor).to_have_attribute("aria-invalid", "true")
    editor.fill("title: {en: By hand}\nwhen: {did: Signed Up}\n")
    expect(page.locator("#verdict")).to_have_text("Who is meant: did “Signed Up”")
    expect(page.locator(".gutter .is-wrong")).to_have_count(0)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("1 person would be in it now")
    expect(page.locator("#preview a.who")).to_contain_text("Ann")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Save").click()

    expect(page).to_have_url(re.compile(f"/segments/{name}$"))
    expect(page.locator("h1")).to_have_text("By hand")
    expect(page.locator("#progress")).to_have_count(0, timeout=60_000)
    expect(page.locator("#members .who")).to_contain_text("Ann")
    assert visitor.complaints() == []


def test_enter_keeps_the_indentation_and_can_be_undone(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    visitor.open("/segments/new")
    editor = visitor.page.get_by_label("Definition (YAML)")
    editor.fill("when:\n  all:\n    - {did: A}")

    editor.press("End")
    editor.press("Enter")

    expect(editor).to_have_value("when:\n  all:\n    - {did: A}\n    ")
    expect(visitor.page.locator(".gutter li")).to_have_count(4)
    editor.press("Control+z")
    expect(editor).to_have_value("when:\n  all:\n    - {did: A}")


def test_why_somebody_is_in_a_segment_opens_below_her(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/segments/lookers")

    visitor.page.locator(".why-link").first.press("Enter")

    told = visitor.page.locator("#why-1")
    expect(told).to_contain_text("is in Lookers who do not buy.")
    expect(told.locator(".mark-yes").first).to_be_visible()
    assert told.locator(".reason-part").count() > 5
    assert visitor.complaints() == []


def test_typing_finds_members_and_segments(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/segments")
    visitor.page.get_by_label("Search").fill("spenders")
    expect(visitor.page.locator(".segment-name")).to_have_count(1)
    visitor.page.locator(".segment-name").click()
    name = visitor.page.locator("#members .who-name").last.inner_text()

    visitor.page.get_by_label("Search among them").fill(name)

    expect(visitor.page.locator("#members .who-name").first).to_contain_text(name)
    expect(visitor.page.locator("#members tbody tr:not(.why-row)")).not_to_have_count(25)
    expect(visitor.page).to_have_url(re.compile("q="))


def test_what_is_typed_before_the_scripts_have_come_is_looked_for(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    slow: list[Route] = []
    visitor.page.route("**/htmx.min.js*", lambda route: slow.append(route))
    visitor.page.goto(f"{visitor.url}/segments", wait_until="commit")

    visitor.page.get_by_label("Search").fill("spenders")
    expect(visitor.page.locator(".segment-name")).not_to_have_count(1)
    slow[0].continue_()

    expect(visitor.page.locator(".segment-name")).to_have_count(1)
    expect(visitor.page).to_have_url(re.compile("q=spenders"))


@pytest.mark.parametrize(
    ("path", "typed", "said"),
    [
        ("/segments/new", "when: {did: A, atleast: 2}", '"when.atleast": no such key here'),
        ("/templates/new", "chanel: email", '"channel": is missing'),
        ("/journeys/new", "enter: {broadcast: nobodys}", '"steps" is missing'),
    ],
)
def test_what_is_written_before_the_scripts_have_come_is_checked(
    path: str, typed: str, said: str, world: Worlds, visit: Visit
) -> None:
    visitor = visit(world("little"))
    slow: list[Route] = []
    visitor.page.route("**/htmx.min.js*", lambda route: slow.append(route))
    visitor.page.goto(visitor.url + path, wait_until="commit")

    visitor.page.get_by_label("(YAML)").fill(typed)
    expect(visitor.page.locator("#verdict")).not_to_contain_text(said)
    slow[0].continue_()

    expect(visitor.page.locator("#verdict")).to_contain_text(said)


def test_a_segment_is_edited_without_scripts_too(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"), java_script_enabled=False)
    visitor.page.goto(f"{visitor.url}/segments/club/edit")
    visitor.page.get_by_label("Definition (YAML)").fill("when: {trait: plan, iz: club}\n")

    visitor.page.get_by_role("button", name="Save").click()

    expect(visitor.page.locator("#verdict")).to_contain_text('Line 1: "when.iz"')
    visitor.page.get_by_label("Definition (YAML)").fill("when: {trait: plan, is: free}\n")
    visitor.page.get_by_role("button", name="Preview").click()
    expect(visitor.page.locator("#preview")).to_contain_text("people would be in it now")


# --- templates


def test_a_template_is_written_checked_shown_and_saved(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    page, name = visitor.page, f"by_hand_{time.time_ns()}"
    visitor.open("/templates")
    page.get_by_role("link", name="New template").click()
    editor = page.get_by_label("Template (YAML)")
    page.get_by_label("Whose message").fill("ann-1")
    expect(page.locator("#preview")).to_contain_text("Welcome, Ann")

    editor.fill(editor.input_value().replace("profile.name", "profil.name", 1))
    expect(page.locator("#verdict")).to_contain_text('Line 7: "content.en.subject" asks for "profil.name"')
    expect(page.locator(".gutter .is-wrong")).to_have_text("7")
    expect(page.locator("#preview")).to_contain_text("Welcome, Ann")  # the last that could be read
    editor.fill("channel: email\nkind: transactional\ncontent:\n  en:\n    subject: Seen {{ given.at }}\n"
                "    text: Come\n    html: <p>Dear {{ profile.name }}</p>\n")  # fmt: skip
    expect(page.locator("#preview")).to_contain_text("given.at is missing")
    page.get_by_label("Comes with the order (JSON)").fill('{"at": "noon"}')
    expect(page.locator("#preview")).to_contain_text("Seen noon")
    expect(page.frame_locator("iframe.mail").locator("p")).to_have_text("Dear Ann")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Save").click()

    expect(page).to_have_url(re.compile(f"/templates/{name}$"))
    expect(page.locator("#history")).to_contain_text("Version 1")
    assert visitor.complaints() == []


def test_a_journey_is_written_checked_drawn_saved_and_paused(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"))
    page, name = visitor.page, f"by_hand_{time.time_ns()}"
    visitor.open("/journeys")
    page.get_by_role("link", name="New journey").click()
    editor = page.get_by_label("Journey (YAML)")
    expect(page.locator(".graph-node")).to_have_count(3)

    editor.fill(editor.input_value() + "  - {step: sent, wait_until: {did: Seen, message: remnd}, at_most: 1 day}\n")
    expect(page.locator("#verdict")).to_contain_text("remnd")
    expect(page.locator(".gutter .is-wrong")).to_have_text("9")
    expect(page.locator(".graph-node")).to_have_count(3)  # the last that could be drawn
    editor.fill(editor.input_value().replace("remnd", "remind"))
    expect(page.locator(".graph-node")).to_have_count(4)
    expect(page.locator("#verdict")).to_contain_text("3 steps")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile(f"/journeys/{name}$"))

    page.get_by_role("link", name="Pause").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Pause Abandoned cart?")
    page.get_by_role("button", name="Yes, pause it").click()
    expect(page.get_by_role("link", name="Resume")).to_be_visible()
    assert visitor.complaints() == []


def test_a_journey_is_edited_without_scripts_too(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"), java_script_enabled=False)
    page = visitor.page
    page.goto(f"{visitor.url}/journeys/news/edit")
    text = page.get_by_label("Journey (YAML)").input_value()
    page.get_by_label("Journey (YAML)").fill(text.replace("send: welcome", "sent: welcome"))

    page.get_by_role("button", name="Save").click()

    expect(page.locator("#verdict")).to_contain_text("a step has a name, as step, and exactly one of the keys")
    page.get_by_label("Journey (YAML)").fill(text.replace("step: tell", "step: say"))
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".graph-node strong")).to_have_text(["Entry", "say"])


def test_a_template_is_edited_without_scripts_too(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"), java_script_enabled=False)
    page = visitor.page
    page.goto(f"{visitor.url}/templates/welcome/edit")
    text = page.get_by_label("Template (YAML)").input_value()
    page.get_by_label("Template (YAML)").fill(text.replace("channel: email", "channel: fax"))

    page.get_by_role("button", name="Save").click()

    expect(page.locator("#verdict")).to_contain_text('"channel"')
    page.get_by_label("Template (YAML)").fill(text + "# seen\n")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("What she reads")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#history")).to_contain_text("Version 2")


# --- everybody


def test_language_and_colours_are_switched_in_the_header_and_stay(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"), locale="en-GB", color_scheme="light")
    visitor.open("/people?q=a")
    assert visitor.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(245, 247, 247)"

    visitor.page.get_by_role("button", name="中文").click()
    expect(visitor.page.locator("h1")).to_have_text("用户")
    assert "q=a" in visitor.page.url
    for expected in ("浅色", "深色"):
        visitor.page.locator("button[name=scheme]").click()
        expect(visitor.page.locator("button[name=scheme]")).to_contain_text(expected)

    assert visitor.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(12, 18, 19)"
    visitor.open("/")
    expect(visitor.page.locator("h1")).to_have_text("概览")


def test_the_visitors_own_time_zone_is_offered(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("little"), timezone_id="Asia/Shanghai")
    visitor.open("/")

    visitor.page.get_by_role("button", name="Use Asia/Shanghai").click()

    expect(visitor.page.locator(".foot")).to_contain_text("Times are in Asia/Shanghai.")


def test_everything_can_be_reached_and_used_by_keyboard(world: Worlds, visit: Visit) -> None:
    visitor = visit(world("plenty"))
    visitor.open("/?range=30d")
    page = visitor.page
    focused = "(() => { const a = document.activeElement; return a.textContent.trim().replace(/\\s+/g, ' ') })()"

    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        reached.append(page.evaluate(focused))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        shadow = page.evaluate("getComputedStyle(document.activeElement).boxShadow")
        assert outline != "none" or shadow != "none", reached[-1]

    for name in ("24 hours", "All time", "Dates", "Table", "CSV"):
        assert any(each.startswith(name) for each in reached), (name, reached)
    assert any(each.startswith("Revenue") for each in reached)
    page.locator(".days > summary").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("From")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("From")).to_be_hidden()
    assert page.evaluate(focused).startswith("Dates")


@pytest.mark.parametrize("path", ["/", "/live", "/people", "/rejected", "/segments", "/segments/buyers"])
def test_pages_say_all_they_know_without_scripts_too(world: Worlds, visit: Visit, path: str) -> None:
    visitor = visit(world("plenty"), java_script_enabled=False)
    visitor.page.goto(f"{visitor.url}{path}")

    expect(visitor.page.locator("h1")).to_be_visible()
    assert visitor.page.locator("table, .lines > li").count() > 0
