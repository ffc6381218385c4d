"""Segments on the pages: the list, one with its proof and history, the editor, why, and what changes them."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest

from config.segments import parse_segment
from schemas.conditions import canonical, read_condition
from schemas.segments import Said
from sinks.parity.worlds import a_world
from streams.definitions import said_of
from tests.dashboard.conftest import World
from tests.dashboard.payloads import PAYLOADS
from tests.dashboard.test_pages import eventually, rows_of, sql, text_of
from tests.dashboard.world import SEGMENTS
from web.dashboard.language import LANGUAGES, catalogue
from web.dashboard.pages.segments import REASONS, reason_of
from web.dashboard.written import changed, title_of, yaml_of

Worlds = Callable[[str], World]
OURS = {"sec-fetch-site": "same-origin"}
ORDERED = "when: {did: Order Completed}\n"


def post(world: World, path: str, **form: object) -> httpx.Response:
    return world.http.post(path, data={name: str(value) for name, value in form.items()}, headers=OURS)


def made(world: World, text: str = "when: {did: Signed Up}\n") -> str:
    """A new segment that is live, by its name."""
    name = f"made_{time.time_ns()}"
    answer = post(world, "/segments/new", name=name, yaml=text, upon=0, do="save")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/segments/{name}"), answer.text
    return live(world, name)


def live(world: World, name: str) -> str:
    eventually(lambda: "hx-refresh" in world.http.get(f"/segments/{name}/progress").headers, 60)
    return name


def members(world: World, name: str) -> set[str]:
    rows = sql(world.http, f"SELECT key FROM memberships FINAL WHERE segment = '{name}'")
    return {row["key"] for row in rows}


# --- the list


def test_the_list_says_of_each_segment_how_it_stands(world: Worlds) -> None:
    page = text_of(world("plenty").http.get("/segments"))

    assert "Regular buyers buyers did “Order Completed” at least 2 times in the last 365 days" in page
    size = len(members(world("plenty"), "buyers"))
    assert size > 10
    assert re.search(rf"in the last 365 days {size} \+{size} 0 proven compared", page)


def test_the_list_speaks_the_language_of_the_page(world: Worlds) -> None:
    page = text_of(world("plenty").http.get("/segments", headers={"accept-language": "zh"}))

    assert "常客 buyers 在最近 365 天 内做过“Order Completed”至少 2 次" in page


@pytest.mark.parametrize(
    ("search", "found"),
    [("REGULAR", ["buyers"]), ("只看", ["lookers"]), ("club", ["club", "lookers"]), ("no such thing", [])],
)
def test_segments_are_found_by_name_title_and_condition(world: Worlds, search: str, found: list[str]) -> None:
    page = world("plenty").http.get("/segments", params={"q": search}).text

    assert sorted(re.findall(r'class="segment-name" href="/segments/(\w+)"', page)) == found


def test_where_there_is_no_segment_the_page_tells_how_to_begin(world: Worlds) -> None:
    page = text_of(world("empty").http.get("/segments"))

    assert "No segments yet" in page
    assert "config/segments/regulars.yaml" in page
    assert "tidewire segments apply" in page


# --- one


def test_a_segment_is_shown_with_its_sentence_size_causes_and_proof(world: Worlds) -> None:
    page = text_of(world("plenty").http.get("/segments/buyers"))
    size = len(members(world("plenty"), "buyers"))

    for told in ("Regular buyers", "Ordered at least twice in a year.", f"People now {size}", f"In it live {size}",
                 f"In it by SQL {size}", "Differences 0", "A new version the segment was made or changed",
                 "Asked for by Lookers who do not buy"):  # fmt: skip
        assert told in page, told


def test_its_overlap_with_others_is_counted(world: Worlds) -> None:
    both = len(members(world("plenty"), "buyers") & members(world("plenty"), "club"))
    size = len(members(world("plenty"), "buyers"))

    page = text_of(world("plenty").http.get("/segments/buyers"))

    assert both
    assert f"club {both} people in both {100 * both / size:.0f}%" in page


def listed(page: str) -> list[str]:
    part = page[page.index('id="members"') :]
    return [unquote(key) for key in re.findall(r'class="who" href="/people/([^"]+)"', part)]


def test_its_members_are_all_listed_page_by_page(world: Worlds) -> None:
    seen: list[str] = []
    address = "/segments/buyers"

    while address:
        page = world("plenty").http.get(address).text
        seen += listed(page)
        following = re.search(r'href="(/segments/[^"]+)#members" rel="next"', page)
        address = html.unescape(following[1]) if following else ""

    assert len(seen) == len(set(seen)) > 25
    assert set(seen) == members(world("plenty"), "buyers")


def test_members_are_found_by_name_mail_and_key(world: Worlds) -> None:
    http = world("plenty").http
    key = min(members(world("plenty"), "buyers"))
    row = sql(http, f"SELECT person, name, email FROM person_list WHERE person = '{key}'")[0]

    for search in (row["name"], row["email"].upper(), key):
        assert key in listed(http.get("/segments/buyers", params={"q": search}).text), search
    assert listed(http.get("/segments/buyers", params={"q": "nobody at all"}).text) == []
    assert world("plenty").http.get("/segments/buyers?after=nonsense&q=%00").status_code == 200


def test_its_members_can_be_taken_away_as_csv(world: Worlds) -> None:
    rows = rows_of(world("plenty").http.get("/segments/buyers.csv"))

    assert {row["person"] for row in rows} == members(world("plenty"), "buyers")
    assert {"name", "email", "since", "why", "revenue_EUR"} < set(rows[0])
    assert len(rows) == len(members(world("plenty"), "buyers"))


def test_no_cell_of_the_csv_is_a_formula(world: Worlds) -> None:
    rows = rows_of(world("hostile").http.get("/segments/hostile_0.csv"))

    cells = [cell for row in rows for cell in row.values()]
    assert len(rows) >= len(PAYLOADS)
    assert [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r"))] == []


def test_why_tells_each_part_with_its_facts(world: Worlds) -> None:
    http = world("plenty").http
    key = min(members(world("plenty"), "lookers"))

    page = text_of(http.get("/segments/lookers/why", params={"person": key}))

    for told in ("is in Lookers who do not buy.", "All of these", "Not so", "At least one of these",
                 "did “Product Viewed” where “category” is one of “Tea”, “Pots” in the last 60 days",
                 "if nothing happens"):  # fmt: skip
        assert told in page, told
    assert re.search(r"\d counted: \d", page)
    inside = http.get("/segments/lookers/why", params={"person": key}, headers={"hx-request": "true"}).text
    assert "<html" not in inside
    said = text_of(http.get("/segments/club/why", params={"person": key}, headers={"accept-language": "zh"}))
    assert "“plan”是“club”" in said


def test_why_not_is_told_too(world: Worlds) -> None:
    key = min(members(world("plenty"), "club") - members(world("plenty"), "spenders"))

    page = text_of(world("plenty").http.get("/segments/spenders/why", params={"person": key}))

    assert "is not in Big spenders." in page
    assert "in total" in page


@pytest.mark.parametrize(
    "path",
    ["nope", "nope/edit", "nope/remove", "nope.csv", "nope/why?person=x", "buyers/why?person=nobody", "buyers/why",
     "%00", "a%2Fb", "x" * 3_000],
)  # fmt: skip
def test_what_is_not_there_is_not_found(world: Worlds, path: str) -> None:
    assert world("plenty").http.get(f"/segments/{path}").status_code == 404


def test_a_person_names_the_segments_she_is_in(world: Worlds) -> None:
    key = min(members(world("plenty"), "buyers") & members(world("plenty"), "club"))

    page = world("plenty").http.get(f"/people/{quote(key, safe='')}").text

    for name in ("buyers", "club"):
        assert f'href="/segments/{name}"' in page
        assert f'href="/segments/{name}/why?person={quote(key, safe="")}"' in page
    assert "Joined the segment" in page


def test_comparing_now_is_written_down(world: Worlds) -> None:
    def proofs() -> int:
        return int(sql(world("plenty").http, "SELECT count() AS n FROM segment_proofs WHERE segment = 'club'")[0]["n"])

    before = proofs()

    answer = post(world("plenty"), "/segments/club/verify")

    assert (answer.status_code, answer.headers["location"]) == (303, "/segments/club#proof")
    assert proofs() == before + 1


# --- the editor


def checked(world: World, path: str, text: str, do: str = "check", **form: object) -> str:
    answer = world.http.post(f"{path}?do={do}", data={"yaml": text, **form}, headers={**OURS, "hx-request": "true"})
    assert "<html" not in answer.text
    return text_of(answer)


def test_what_is_typed_is_said_back_as_a_sentence(world: Worlds) -> None:
    said = checked(world("plenty"), "/segments/new", "when:\r\n  did: Order Completed\r\n  within: 7 days\r\n")

    assert said == "Who is meant: did “Order Completed” in the last 7 days"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("title: {en: A}\nwhen:\n  all:\n    - {did: A}\n    - {did: B, atleast: 2}\n", 5, '"when.all.1.atleast"'),
        ("when: {did: A\nabout: x\n", 2, "cannot be read as YAML"),
        ("title: {en: A}\nwhn: {did: A}\n", 1, 'Did you mean it by "whn"?'),
        ("when: {did: A, within: 3 moons}\n", 1, "3 moons"),
        ("", 1, "holds no segment"),
        ("a: &a [1]\nwhen: *a\n", 2, "alias"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(world: Worlds, text: str, line: int, told: str) -> None:
    answer = world("plenty").http.post("/segments/new?do=check", data={"yaml": text}, headers=OURS)

    assert f'data-line="{line}"' in answer.text
    assert told in text_of(answer)


def test_a_segment_that_is_not_there_cannot_be_asked_for(world: Worlds) -> None:
    said = checked(world("plenty"), "/segments/new", "when: {segment: bayers}\n")

    assert 'there is no segment "bayers"' in said
    assert 'Did you mean "buyers"?' in said


def test_a_preview_says_how_many_and_shows_some_of_them(world: Worlds) -> None:
    said = checked(world("plenty"), "/segments/new", SEGMENTS["buyers"], "preview")
    size = len(members(world("plenty"), "buyers"))

    assert f"{size} people would be in it now" in said
    assert said.count("@mail.example") == 20
    # Without scripts the button is one of the form, and the whole page comes.
    page = text_of(post(world("plenty"), "/segments/buyers/edit", yaml=ORDERED, upon=2, do="preview"))
    assert "people would be in it now" in page
    assert "when: {did: Order Completed}" in page


def test_a_new_segment_is_prepared_and_then_live(world: Worlds) -> None:
    name = made(world("little"), "title: {en: Brand new}\nwhen: {did: Signed Up}\n")

    page = text_of(world("little").http.get(f"/segments/{name}"))

    assert "Brand new" in page
    assert "People now 1" in page
    assert "dashboard · from a page" in page


def test_an_edit_keeps_what_was_and_can_be_taken_back(world: Worlds) -> None:
    name = made(world("little"))
    http = world("little").http
    assert "when: {did: Signed Up}" in html.unescape(http.get(f"/segments/{name}/edit").text)

    post(world("little"), f"/segments/{name}/edit", yaml="when: {did: Nothing}\n", upon=1, do="save")
    changed_page = text_of(http.get(f"/segments/{live(world('little'), name)}"))
    assert "− when: {did: Signed Up} + when: {did: Nothing}" in changed_page
    answer = post(world("little"), f"/segments/{name}/restore", version=1, upon=2)

    assert answer.status_code == 303
    page = text_of(http.get(f"/segments/{live(world('little'), name)}"))
    assert "Version 3" in page and "People now 1" in page


def test_who_was_too_slow_overwrites_nothing(world: Worlds) -> None:
    name = made(world("little"))
    post(world("little"), f"/segments/{name}/edit", yaml="when: {did: Nothing}\n", upon=1, do="save")

    late = post(world("little"), f"/segments/{name}/edit", yaml="when: {did: My Words}\n", upon=1, do="save")
    old = post(world("little"), f"/segments/{name}/restore", version=1, upon=1)
    taken = post(world("little"), "/segments/new", name=name, yaml="when: {did: My Words}\n", upon=0, do="save")

    assert (late.status_code, old.status_code, taken.status_code) == (409, 409, 409)
    assert "dashboard wrote version 2 meanwhile, and this began from 1." in late.text
    assert "My Words" in late.text and "My Words" in taken.text
    assert "there is a segment of this name already" in taken.text
    assert "Version 2" in text_of(world("little").http.get(f"/segments/{live(world('little'), name)}"))


@pytest.mark.parametrize("name", ["", "Big", "a b", "../x", "new", "x" * 64, "ä"])
def test_a_name_that_cannot_be_is_refused_and_what_was_typed_stays(world: Worlds, name: str) -> None:
    answer = post(world("little"), "/segments/new", name=name, yaml="when: {did: My Words}\n", upon=0, do="save")

    assert answer.status_code == 422
    assert "cannot be the name of a segment" in answer.text
    assert "My Words" in answer.text


def test_a_segment_that_others_ask_for_is_not_removed(world: Worlds) -> None:
    asked = text_of(world("plenty").http.get("/segments/buyers/remove"))
    answer = post(world("plenty"), "/segments/buyers/remove")

    assert "other segments ask for it" in asked and "Lookers who do not buy" in asked
    assert answer.status_code == 409
    assert "other segments ask for it" in answer.text
    assert world("plenty").http.get("/segments/buyers/edit").status_code == 200


def test_a_segment_is_removed_and_comes_back(world: Worlds) -> None:
    name = made(world("little"))
    assert "1 person leaves it." in text_of(world("little").http.get(f"/segments/{name}/remove"))

    answer = post(world("little"), f"/segments/{name}/remove")

    assert (answer.status_code, answer.headers["location"]) == (303, "/segments")
    eventually(lambda: not members(world("little"), name), 60)
    page = text_of(world("little").http.get(f"/segments/{name}"))
    assert "This segment was removed on" in page
    assert world("little").http.get(f"/segments/{name}/edit").status_code == 404
    assert post(world("little"), f"/segments/{name}/restore", version=1, upon=0).status_code == 303
    eventually(lambda: members(world("little"), name), 60)


@pytest.mark.parametrize("path", ["new", "buyers/edit", "buyers/verify", "buyers/restore", "buyers/remove"])
def test_other_sites_cannot_post(world: Worlds, path: str) -> None:
    http = world("plenty").http

    for headers in ({}, {"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert http.post(f"/segments/{path}", data={"do": "save"}, headers=headers).status_code == 403


@pytest.mark.parametrize("form", [{}, {"version": "9"}, {"version": "x"}, {"version": "-1"}])
def test_a_version_that_never_was_is_not_written_again(world: Worlds, form: dict[str, str]) -> None:
    assert post(world("plenty"), "/segments/buyers/restore", **form).status_code == 404


def test_nothing_went_wrong_behind_the_pages_of_segments(world: Worlds) -> None:
    for scene in ("little", "plenty", "hostile", "empty"):
        assert "Traceback" not in world(scene).errors()


@pytest.mark.parametrize("path", ["/segments/new?do=preview", "/segments/new?do=check", "/segments/new?do=save"])
def test_a_form_of_nonsense_is_no_error(world: Worlds, path: str) -> None:
    for body in (b"", b"\xff\xfe=%00", b"yaml=%00&name=%00", b"yaml=" + b"[" * 5_000, b"yaml=" + b"a: " * 2_000):
        headers = {**OURS, "content-type": "application/x-www-form-urlencoded"}
        assert world("plenty").http.post(path, content=body, headers=headers).status_code in (200, 422)


# --- YAML of what was said


def a_said(when: Any, **more: Any) -> Said:
    return Said(name="tried", version=1, when=when, **more)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_for_the_editor_reads_as_what_was_said(seed: int) -> None:
    for name, when in a_world(Random(seed), "default").segments.items():
        said = a_said(when, title={"en": f"It's {name}: #1", "zh": "分群"}, about="one\ntwo: {three}")

        read = parse_segment("tried", yaml_of(said))

        assert canonical(read.when) == canonical(read_condition(when))
        assert (read.title, read.about) == (said.title, said.about)


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_segment_is_written_as_a_person_would(name: str) -> None:
    definition = parse_segment(name, SEGMENTS[name])

    said = said_of(definition, 1, by="", source="page", now_ms=0, from_file="")

    assert parse_segment(name, yaml_of(said)) == definition
    assert yaml_of(said).count("\n") <= 14


def test_a_change_is_told_line_by_line() -> None:
    one, two = a_said({"did": "A"}), a_said({"did": "B"}, about="New.")

    assert [(line.kind, line.text) for line in changed(one, two) if line.kind != "gap"] == [
        ("removed", "when: {did: A}"), ("added", "about: New."), ("added", "when: {did: B}")]  # fmt: skip
    assert [line.kind for line in changed(None, one)] == ["added"]
    assert changed(one, one) == []


@pytest.mark.parametrize(
    ("title", "language", "shown"),
    [({"en": "A", "zh": "甲"}, "zh", "甲"), ({"en": "A"}, "zh", "A"), ({"de": "Ä"}, "en", "Ä"), ({}, "en", "tried")],
)
def test_a_title_is_in_the_language_of_the_page_where_there_is_one(
    title: dict[str, str], language: str, shown: str
) -> None:
    assert title_of(a_said({"did": "A"}, title=title), language) == shown


@pytest.mark.parametrize(
    ("why", "reason"),
    [("event", "event"), ("time", "time"), ("definition", "definition"), ("backfill", "definition"),
     ("company", "company"), ("merge", "identity"), ("absorb", "identity"), ("release", "identity"),
     ("unmerge", "identity")],
)  # fmt: skip
def test_a_cause_of_the_ledger_has_a_name_on_the_pages(why: str, reason: str) -> None:
    assert reason_of(why) == reason
    for language in LANGUAGES:
        texts = catalogue(language)
        assert all(texts[f"{kind}.{each}"] for kind in ("cause", "cause_text") for each in REASONS)
