"""Journeys on the pages: what is shown of people who went through one, versions, the editor, and how one is steered."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.dashboard.conftest import ROOT, World
from tests.dashboard.journeys import BASKET, CONTROL, TREATED
from tests.dashboard.test_pages import eventually, sql, text_of
from tests.dashboard.world import KEY

Worlds = Callable[[str], World]
CHINESE = {"accept-language": "zh-CN"}
DRAFT = """\
enter: {event: {did: Cart Shared}}
holdout: 0
goal: {did: Order Completed, within: 7 days}
steps:
  - {step: pause, wait: 1 hour}
  - {step: hello, send: welcome}
"""


@pytest.fixture
def plenty(world: Worlds) -> World:
    return world("plenty")


def post(world: World, path: str, data: dict[str, Any], **headers: str) -> httpx.Response:
    origin = {"origin": world.url, "sec-fetch-site": "same-origin", **headers}
    return world.http.post(path, data=data, headers=origin)


def state(world: World, name: str) -> str:
    page = world.http.get("/journeys").text
    row = page[page.index(f'href="/journeys/{name}"') :]
    found = re.search(r'<span class="badge[^"]*">(.*?)</span>', row)
    assert found is not None
    return found.group(1)


def test_the_list_says_how_journeys_stand(plenty: World) -> None:
    told, chinese = (text_of(plenty.http.get("/journeys", headers=headers)) for headers in ({}, CHINESE))

    assert f"basket Calls a basket to mind that was left. Live 48 {TREATED} + {CONTROL} held out" in told
    assert "30.5% 10.8% of those held out +7.8 to +31.6 points" in told
    assert "News for regulars news Begins when somebody says so, for who is in segment “buyers” then Paused" in told
    assert "被遗忘的购物篮" in chinese and "运行中" in chinese and "没有目标" in chinese


def test_nothing_to_show_says_how_to_begin(world: Worlds) -> None:
    page = world("empty").http.get("/journeys")

    assert "No journeys yet" in page.text and "config/journeys/basket.yaml" in page.text


def test_a_journey_is_drawn_with_who_went_where(plenty: World) -> None:
    page = plenty.http.get("/journeys/basket").text
    graph = unescape(page[page.index('<svg class="graph"') : page.index("</foreignObject>\n</svg>")])
    asked = "SELECT uniqExact(id) AS n FROM decisions WHERE kind = {kind:String} AND about = 'basket' " \
            "AND facts.version::Int64 = 2 AND facts.step::String = {step:String}"  # fmt: skip
    counted = {kind: sql(plenty.http, asked.replace("{kind:String}", f"'{kind}'").replace("{step:String}", f"'{step}'"))
               for kind, step in (("refused", "remind"), ("timed_out", "read_it"))}  # fmt: skip

    assert graph.count("<foreignObject") == 12 and graph.count("graph-way-back") == 1
    assert f'{counted["refused"][0]["n"]}</tspan><tspan dx="4">refused</tspan>' in graph
    assert f'{counted["timed_out"][0]["n"]}</tspan><tspan dx="4">in vain</tspan>' in graph
    assert "4 here" in graph and "whose “plan” is “club”" in graph


def test_the_steps_say_the_same_in_a_table(plenty: World) -> None:
    told = text_of(plenty.http.get("/journeys/basket"))

    assert "Wait pause Wait 1 hour" in told and "reached the goal to who" in told
    assert "case 1 to club" in told and "did “Order Completed” at least 2 times in the last 9 days" in told
    assert "standing still" in told and "1 hour 409 4 25 6%" in told


def test_a_journey_says_what_it_changes_by_how_much_and_how_sure_that_is(plenty: World) -> None:
    told, chinese = (text_of(plenty.http.get("/journeys/basket", headers=headers)) for headers in ({}, CHINESE))

    assert "It helps: of those who went through it 30.5% reached the goal, of those held out 10.8%. " \
           "The difference is +7.8 to +31.6 points." in told  # fmt: skip
    assert "Went through it 420 128 30.5%" in told and "Were held out 130 14 10.8%" in told
    assert "有帮助：走过旅程的人有 30.5% 达成目标" in chinese
    assert "The journey has no goal" in text_of(plenty.http.get("/journeys/news"))


def test_what_was_not_sent_says_why(plenty: World) -> None:
    told = text_of(plenty.http.get("/journeys/basket"))

    assert re.search(r"come_back got as many messages as a cap allows \d+ come_back has not consented \d+", told)
    assert "at entry may not enter again 9" in told


def test_messages_say_what_became_of_them_and_how_many_were_read_by_people(plenty: World) -> None:
    told = text_of(plenty.http.get("/journeys/basket"))

    assert re.search(r"come_back E-mail \d+ \d+ 2 \d+% 1 \d+% \d+ \d+ 0", told)
    assert "550 no such user" in told and "Nothing reaches this address." in told


def test_people_of_older_versions_have_a_graph_of_their_own(plenty: World) -> None:
    page = plenty.http.get("/journeys/basket")
    older = plenty.http.get("/journeys/basket", params={"version": "1"})

    assert '<option value="1">Version 1</option>' in page.text
    assert re.search(r"How people go Version 1", text_of(older)) and "Begins with" in text_of(older)
    assert '<option value="2" selected' in plenty.http.get("/journeys/basket?version=77").text


def test_versions_are_held_against_each_other(plenty: World) -> None:
    page = plenty.http.get("/journeys/basket/versions/2")

    assert '<span class="diff-removed">− ' in page.text and "at_most: 1 day</span>" in page.text
    assert '<span class="diff-added">+     at_most: 2 days</span>' in page.text
    assert plenty.http.get("/journeys/basket/versions/9").status_code == 404


def test_her_page_shows_her_journeys_and_why(plenty: World) -> None:
    row = sql(plenty.http, "SELECT person FROM journey_runs_list WHERE run = '0000000000000000'")[0]
    path = f"/people/{quote(row['person'], safe='')}"
    page, chinese = (plenty.http.get(path, headers=headers) for headers in ({}, CHINESE))
    link = re.search(r'href="([^"]*/why\?about=journey[^"]*)"', page.text)
    assert link is not None

    why, in_chinese = (plenty.http.get(unescape(link.group(1)), headers=headers) for headers in ({}, CHINESE))

    assert "Abandoned basket waiting Why : Abandoned basket" in text_of(page) and "at pause" in text_of(page)
    assert "被遗忘的购物篮" in chinese.text
    assert "She is in basket since" in text_of(why) and "Step pause: she waits" in text_of(why)
    assert re.search("[\u4e00-\u9fff]", in_chinese.text.split("<h1>")[1].split("</h1>")[0])
    assert plenty.http.get(f"{path}/why", params={"about": "nothing-of-this-name"}).status_code == 404
    assert plenty.http.get(f"{path}/why").status_code == 404  # of an id that ends so nothing is known


def test_the_cases_of_a_journey_are_run_on_the_page(plenty: World) -> None:
    none = plenty.http.get("/journeys/basket/tests")
    shipped = (ROOT / "config" / "journeys" / "welcome.yaml").read_text()
    post(plenty, "/journeys/new", {"name": "welcome", "yaml": shipped, "upon": "0", "do": "save"})
    before = plenty.http.get("/journeys/welcome/tests")

    told = text_of(post(plenty, "/journeys/welcome/tests", {}))
    other = shipped.replace("welcome_help", "welcome")
    post(plenty, "/journeys/welcome/edit", {"yaml": other, "upon": "1", "do": "save"})
    changed = post(plenty, "/journeys/welcome/tests", {})

    assert "No cases yet" in none.text and "config/journeys/basket.cases.yaml" in none.text
    assert plenty.http.get("/journeys/nowhere/tests").status_code == 404
    assert "The cases were not run yet." in before.text
    assert re.search(r"\d+ cases, all as expected", told)
    assert '<span class="diff-removed">' in changed.text and "send: welcome_help" in changed.text
    post(plenty, "/journeys/welcome/remove", {})


# --- the editor


def test_the_editor_says_what_a_text_means_and_draws_it(plenty: World) -> None:
    draft = {"name": "drawn", "yaml": DRAFT, "upon": "0"}
    verdict = post(plenty, "/journeys/new?do=check", draft)
    preview = post(plenty, "/journeys/new?do=live", draft, **{"hx-request": "true"})
    wrong = post(plenty, "/journeys/new?do=check", {**draft, "yaml": DRAFT.replace("hello, send", "pause, send")})

    assert "2 steps" in verdict.text and "Begins with “Cart Shared”" in verdict.text
    assert preview.text.count("<foreignObject") == 3 and "0 here" not in preview.text
    assert 'data-line="6"' in wrong.text and "there are two steps" in unescape(wrong.text)
    assert post(plenty, "/journeys/new?do=live", {**draft, "yaml": "enter: ["}).status_code == 204


def test_the_editor_knows_what_is_not_there(plenty: World) -> None:
    draft = {"name": "x", "yaml": DRAFT.replace("welcome", "welcom"), "upon": "0"}
    wrong = post(plenty, "/journeys/new?do=check", draft)

    assert "there is no template" in unescape(wrong.text) and "Did you mean" in wrong.text


def test_whoever_saves_second_is_told_so_and_loses_nothing(plenty: World) -> None:
    mine = BASKET.replace("1 hour", "3 hours")

    page = post(plenty, "/journeys/basket/edit", {"yaml": mine, "upon": "1", "do": "save"})

    assert page.status_code == 409 and "3 hours" in page.text
    assert "Nothing was saved: the test wrote version 2 meanwhile" in unescape(page.text)
    assert post(plenty, "/journeys/new", {"name": "basket", "yaml": mine, "upon": "0"}).status_code == 409


def test_only_a_page_of_ours_changes_anything(plenty: World) -> None:
    for path in ("/journeys/basket/steer", "/journeys/basket/remove", "/journeys/new", "/journeys/basket/restore",
                 "/journeys/basket/tests"):  # fmt: skip
        for headers in ({}, {"origin": "https://evil.example"}):
            assert plenty.http.post(path, data={"do": "stop"}, headers=headers).status_code == 403
    assert state(plenty, "basket") == "Live"


# --- steering, and somebody who enters


def test_a_journey_is_asked_about_and_then_steered(plenty: World) -> None:
    page = plenty.http.get("/journeys/news").text
    asked = plenty.http.get("/journeys/news/steer?do=resume")
    done = post(plenty, "/journeys/news/steer", {"do": "resume"})

    assert 'href="/journeys/news/steer?do=resume"' in page and "Resume News for regulars?" in asked.text
    assert done.status_code == 303 and "It is done." in plenty.http.get(done.headers["location"]).text
    eventually(lambda: state(plenty, "news") == "Live")
    asked = plenty.http.get("/journeys/news/steer?do=broadcast")
    assert "Begin News for regulars now?" in asked.text and re.search(r"\d+ people are in the segment now", asked.text)
    post(plenty, "/journeys/news/steer", {"do": "pause"})
    eventually(lambda: state(plenty, "news") == "Paused")
    assert plenty.http.get("/journeys/news/steer?do=pause").status_code == 404
    assert post(plenty, "/journeys/news/steer", {"do": "nonsense"}).status_code == 404


def test_what_is_written_on_the_page_leads_whoever_comes_then(plenty: World) -> None:
    saved = post(plenty, "/journeys/new", {"name": "shared", "yaml": DRAFT, "upon": "0", "do": "save"})
    assert saved.headers["location"] == "/journeys/shared"
    eventually(lambda: state(plenty, "shared") == "Live")

    plenty.http.post("/v1/track", json={"userId": "sharer", "event": "Cart Shared"}, auth=(KEY, ""))

    eventually(lambda: "1 here" in plenty.http.get("/journeys/shared").text)
    page = text_of(plenty.http.get("/journeys/shared"))
    assert "There are too few people to say anything" in page and "sharer" in page
    removed = post(plenty, "/journeys/shared/remove", {})
    assert removed.headers["location"] == "/journeys"
    query = "SELECT left_by FROM journey_runs FINAL WHERE journey = 'shared'"
    eventually(lambda: sql(plenty.http, query)[0]["left_by"])
    assert "This journey was removed" in text_of(plenty.http.get("/journeys/shared"))
    again = post(plenty, "/journeys/shared/restore", {"version": "1", "upon": "0"})
    assert again.headers["location"] == "/journeys/shared"
    post(plenty, "/journeys/shared/remove", {})


# --- tried before anybody lives through it


def test_a_dry_run_says_what_a_journey_would_have_done(plenty: World) -> None:
    blank = plenty.http.get("/journeys/basket/dry-run")
    today = re.search(r'name="to" value="([0-9-]+)"', blank.text)
    assert today is not None

    page = post(plenty, "/journeys/basket/dry-run", {"from": "2020-01-01", "to": today.group(1)})
    wrong = post(plenty, "/journeys/basket/dry-run", {"from": "soon", "to": today.group(1)})

    told = text_of(page)
    assert re.search(r"Would have entered [1-9][0-9]* \d+ held out of these", told)
    assert "pause Wait 1 hour" in told and page.text.count('href="/people/default') == 10
    assert wrong.status_code == 422 and "soon" in wrong.text
    chinese = post(plenty, "/journeys/nowhere/dry-run", {"from": "2026-01-01", "to": "2026-01-02"}, **CHINESE)
    assert chinese.status_code == 404
