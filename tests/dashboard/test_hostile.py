"""Sixty payloads stand in every field of events; a browser looks at every page there is, and nothing of them runs."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable

import pytest

from tests.dashboard.conftest import Visitor, World
from tests.dashboard.payloads import PAYLOADS
from tests.dashboard.test_axe import OPEN_ALL, PHONE
from tests.dashboard.test_pages import sql
from tests.dashboard.world import KEY
from web.dashboard.export import safe_cell

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Worlds = Callable[[str], World]
STARTS = ("/", "/?range=all", "/live", "/people", "/rejected", "/rejected?state=all", "/segments", "/segments/new",
          "/segments/hostile", "/segments/hostile/edit", "/segments/hostile_0", "/segments/hostile_0/remove",
          "/templates", "/templates/welcome", "/templates/welcome/edit", "/messages", "/suppressions",
          "/coupons", "/coupons/spring", "/journeys", "/journeys/basket", "/journeys/basket/edit",
          "/journeys/basket/versions/1", "/journeys/basket/tests", "/journeys/basket/remove")
FOLLOWED = re.compile(r"/(?:\?[^&]*|live\?.*|people(?:\?|/).*|rejected(?:\?[^&]*|/.*)|unmerge\?.*|"
                      r"segments(?:\?.*|/\w+|/hostile/why\?.*)?|journeys/\w+|templates/\w+\?.*|messages/\w+)")
FEW = 6  # of the pages of one person or one letter, which lead to the same kinds of pages, one in so many is followed


def links_of(world: World) -> list[str]:
    """Every page that the pages lead to by links, as a crawler finds them: all people, all that was refused."""
    found: dict[str, None] = dict.fromkeys(STARTS)
    for path in found.copy():
        found.update(_links(world, path))
    for path in [path for path in found if path.startswith(("/people?", "/rejected?", "/templates"))]:
        found.update(_links(world, path))
    for path in [path for path in found if path.startswith(("/people/", "/rejected/"))][::FEW]:
        found.update(_links(world, path))
    return list(found)


def _links(world: World, path: str) -> dict[str, None]:
    answer = world.http.get(path, follow_redirects=True)
    assert answer.status_code == 200, path
    hrefs = re.findall(r'(?:href|hx-get)="([^"]*)"', answer.text)
    links = (html.unescape(href) for href in hrefs)
    return dict.fromkeys(link for link in links if FOLLOWED.fullmatch(link) and not re.search(r"sort=|\.csv", link))


def test_there_are_sixty_payloads_and_all_of_them_are_in_the_data(world: Worlds) -> None:
    answer = world("hostile").http.get("/people.csv")
    names = {row["name"] for row in csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""))}

    assert len(set(PAYLOADS)) == 60
    assert {safe_cell(text.strip()) for text in PAYLOADS} <= names  # names are kept without blanks around them


# Elements that only a payload could have made, outside of the chart, whose library sizes its canvas by style.
STRANGERS = """() => [...document.querySelectorAll(
    'img, iframe:not(.mail[sandbox=""]:is([src^="/templates/"], [src^="/messages/"])), object, embed, marquee, '
    + 'video, audio, math, template, base, link[href*="evil"], style, '
    + 'script:not([src^="/static/"]), [onerror], [onload], [onfocus], [style]')
].filter((each) => !each.closest('.plot')).map((each) => each.outerHTML.slice(0, 200))"""
ADDRESSES = "[...document.querySelectorAll('a')].map((each) => each.href)"


def test_nothing_from_an_event_runs_or_becomes_an_element_on_any_page(
    world: Worlds, visit: Callable[..., Visitor]
) -> None:
    """Nor is any wider than a phone."""
    hostile = world("hostile")
    visitor = visit(hostile, viewport=PHONE, locale="zh-CN", has_touch=True)
    links = links_of(hostile)

    for path in links:
        visitor.open(path)
        visitor.page.evaluate(OPEN_ALL)
        assert visitor.complaints() == [], path
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        assert visitor.page.evaluate(STRANGERS) == [], path
        followed = visitor.page.evaluate(ADDRESSES)
        assert [each for each in followed if not each.startswith(("http://", "https://"))] == [], path

    assert any(path.startswith("/templates/welcome?person=") for path in links)
    people = sum(path.startswith("/people/") for path in links)
    assert people >= 60 and sum(path.startswith("/rejected/") for path in links) >= 45
    assert any(path.startswith("/segments/hostile/why?") for path in links)
    assert visitor.page.context.cookies() == []


def test_whatever_somebody_calls_herself_her_mail_has_the_tags_of_the_template(world: Worlds) -> None:
    http = world("hostile").http
    rows = sql(http, "SELECT person, name FROM person_list WHERE name != '' AND orders = 0")
    seen = []

    for row in rows:
        mail = http.get("/templates/come_back/mail", params={"person": row["person"], "given.offer": row["name"]})
        assert mail.headers["content-security-policy"].endswith("; sandbox")
        if mail.status_code == 200:
            seen.append(re.findall(r"<[a-z!/][a-z0-9]*", mail.text))
        else:
            assert "the subject holds" in mail.text  # such as a line break

    assert len(seen) >= 50
    assert [tags for tags in seen if tags != seen[0]] == []


def test_nothing_that_arrives_while_somebody_looks_runs(world: Worlds, visit: Callable[..., Visitor]) -> None:
    visitor = visit(world("hostile"))
    visitor.open("/live")
    batch = [{"type": "track", "event": text[:190], "userId": f"late {text}", "properties": {text: text, "name": text}}
             for text in PAYLOADS] + [{"type": text, "userId": text} for text in PAYLOADS]  # fmt: skip

    answer = world("hostile").http.post("/v1/batch", json={"batch": batch}, auth=(KEY, ""))

    assert answer.status_code == 200
    visitor.page.wait_for_function("() => document.querySelectorAll('.lines > li').length > 35")
    visitor.page.evaluate("document.querySelectorAll('.lines details').forEach((each) => { each.open = true; })")
    assert visitor.complaints() == []
