"""axe finds nothing to complain of on any page, none is wider than its screen, and none asks another site for anything:
in light and dark, in both languages, on a screen and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import quote

import pytest
from playwright.sync_api import Route, ViewportSize

from tests.dashboard.conftest import Visitor, World
from tests.dashboard.world import TOKEN
from tests.npm import node_modules

pytestmark = [pytest.mark.browser, pytest.mark.node, pytest.mark.slow]

Worlds = Callable[[str], World]
AXE = "4.14.1"  # MPL-2.0, for these tests alone
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OF_COLOUR = ["color-contrast", "link-in-text-block"]  # what a scheme can break; all else is the same
SCREEN: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 780}
OPEN_ALL = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
STATUS = "performance.getEntriesByType('navigation')[0].responseStatus"
Look = tuple[Literal["light", "dark"], ViewportSize]


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, installed once and kept."""
    source = node_modules(f"axe-core-{AXE}", [f"axe-core@{AXE}"]) / "axe-core" / "axe.min.js"
    return source.read_text()


def pages_of(world: World) -> list[str]:
    """One of each kind of page."""
    authorized = {"authorization": f"Bearer {TOKEN}"}
    query = "SELECT person, identities FROM person_list ORDER BY length(identities) DESC, events DESC, person LIMIT 1"
    rows = world.http.post("/api/sql", headers=authorized, json={"query": query}).json()["rows"]
    letters = world.http.get("/api/rejected?state=all&limit=1", headers=authorized).json()["letters"]
    pages = ["/", "/?range=all&metric=revenue", "/live", "/people", "/people?q=nobody-at-all", "/rejected", "/nowhere"]
    for row in rows:
        person = quote(row["person"], safe="")
        other = next((key for key in row["identities"] if key != row["person"]), "default/a:x")
        pages += [f"/people/{person}", f"/unmerge?key={quote(other)}&person={person}"]
        pages += [f"/segments/{name}/why?person={quote(key)}" for name, key in _members(world, authorized)]
    names = {name for name, _ in _members(world, authorized)}
    pages += ["/segments", "/segments?q=none-at-all", "/segments/new"]
    pages += [f"/segments/{name}{rest}" for name in names for rest in ("", "?q=none-at-all", "/edit", "/remove")]
    pages += ["/templates", "/templates/welcome", "/templates/new", "/templates/welcome/edit",
              "/templates/welcome/remove", "/templates/welcome/versions/1"]  # fmt: skip
    pages += [f"/templates/come_back?person={quote(row['person'], safe='')}" for row in rows]
    query = "SELECT person, journey FROM journey_runs_list ORDER BY run LIMIT 1"
    runs = world.http.post("/api/sql", headers=authorized, json={"query": query}).json()["rows"]
    pages += ["/journeys", "/journeys/new"]
    for row in runs:
        name = row["journey"]
        below = ("", "/edit", "/versions/1", "/tests", "/steer?do=stop", "/remove")
        pages += [f"/journeys/{name}{rest}" for rest in below]
        pages += [f"/people/{quote(row['person'], safe='')}/why?about={name}"]
    query = "SELECT any(id) AS id FROM messages_list GROUP BY state ORDER BY state"
    messages = world.http.post("/api/sql", headers=authorized, json={"query": query}).json()["rows"]
    pages += ["/messages", "/suppressions", "/messages?state=unknown", "/messages/just-now?ordered=1"]
    pages += [f"/messages/{row['id']}" for row in messages]
    coupons = world.http.get("/api/coupons", headers=authorized).json().get("campaigns", [])
    pages += ["/coupons", *(f"/coupons/{row['campaign']}" for row in coupons), "/coupons/spring?state=expired"]
    return pages + [f"/rejected/{letter['id']}" for letter in letters]


def _members(world: World, authorized: dict[str, str]) -> list[tuple[str, str]]:
    """Two segments, each with one of its people."""
    query = "SELECT segment, min(key) AS key FROM memberships FINAL GROUP BY segment ORDER BY segment DESC LIMIT 2"
    rows = world.http.post("/api/sql", headers=authorized, json={"query": query}).json()["rows"]
    return [(row["segment"], row["key"]) for row in rows]


def faults(visitor: Visitor, looks: Sequence[Look]) -> list[str]:
    """Of the page that is open, in each look: by axe, in dark what a scheme can break alone; and its width, in the last
    with everything open that can be opened."""
    found, too_wide = [], []
    for scheme, size in looks:
        kind, rules = ("tag", RULES) if scheme == "light" else ("rule", OF_COLOUR)
        visitor.page.emulate_media(color_scheme=scheme)
        visitor.page.set_viewport_size(size)
        place = f"{scheme}, {size['width']} wide"
        found += [{**each, "id": f"{each['id']} in {place}"} for each in _violations(visitor, kind, rules)]
        if (scheme, size) == looks[-1]:
            visitor.page.evaluate(OPEN_ALL)
        width = visitor.page.evaluate("document.documentElement.scrollWidth")
        too_wide += [f"{width} wide in {place}"] if width > size["width"] else []
    return too_wide + [
        f"{fault['id']}: {node['html'][:160]} ({(node['failureSummary'] or '').splitlines()[-1].strip()[:160]})"
        for fault in found for node in fault["nodes"]
    ]  # fmt: skip


def _violations(visitor: Visitor, kind: str, rules: list[str]) -> list[dict[str, Any]]:
    report: dict[str, Any] = visitor.page.evaluate(
        "([type, values]) => axe.run(document, {runOnly: {type, values}, resultTypes: ['violations']})", [kind, rules]
    )
    violations: list[dict[str, Any]] = report["violations"]
    return violations


def _stay(route: Route) -> None:
    """The page as it is, but that it does not load itself again each second, in the middle of what is done with it."""
    answer = route.fetch()
    assert answer.headers["refresh"] == "1"
    route.fulfill(response=answer, headers={name: said for name, said in answer.headers.items() if name != "refresh"})


# Plenty of data in every look; the others, whose templates and colours are the same, in that which says most.
CASES: list[tuple[str, str, list[Look]]] = [
    ("plenty", "en", [("light", SCREEN), ("dark", SCREEN), ("light", PHONE)]),
    ("plenty", "zh-CN", [("light", SCREEN), ("light", PHONE)]), ("empty", "en", [("dark", SCREEN), ("light", PHONE)]),
    ("empty", "zh-CN", [("light", PHONE)]), ("hostile", "en", [("light", PHONE)]),
]  # fmt: skip


@pytest.mark.parametrize(("scene", "language", "looks"), CASES, ids=[f"{scene}-{lang}" for scene, lang, _ in CASES])
def test_every_page_passes_axe_fits_its_screen_and_asks_nobody_else(
    world: Worlds, visit: Callable[..., Visitor], axe: str, scene: str, language: str, looks: list[Look]
) -> None:
    visitor = visit(world(scene), locale=language, reduced_motion="reduce")  # colours go over at once
    visitor.context.add_init_script(axe)
    visitor.context.route("**/*?ordered=1", _stay)
    found: dict[str, list[str]] = {}

    for path in pages_of(world(scene)):
        visitor.page.emulate_media(color_scheme="light")
        visitor.faults.clear()  # what axe itself brought about on the page before
        visitor.open(path)
        strange = visitor.complaints() if visitor.page.evaluate(STATUS) == 200 else []  # a browser complains of a 404
        visitor.page.evaluate(
            "document.querySelectorAll('.data, .line, .history').forEach((each, i) => { each.open = i < 12; })"
        )
        found |= {path: report} if (report := [*strange, *faults(visitor, looks)]) else {}

    assert found == {}
