"""Coupons on the pages and over the API: campaigns, codes, who has which; and what her page and a preview show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.dashboard.conftest import World
from tests.dashboard.test_pages import AUTHORIZED, eventually, sql, text_of

Worlds = Callable[[str], World]
CHINESE = {"accept-language": "zh-CN"}


@pytest.fixture
def plenty(world: Worlds) -> World:
    return world("plenty")


def campaign(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = world.http.get(f"/api/coupons/{name}", headers=AUTHORIZED).json()
    return found


def somebody(world: World, after: int) -> str:
    """Who was given nothing yet."""
    query = f"SELECT person FROM person_list WHERE email != '' ORDER BY person LIMIT 1 OFFSET {after}"
    return str(sql(world.http, query)[0]["person"])


def give(world: World, name: str, **body: Any) -> Any:
    return world.http.post(f"/api/coupons/{name}/give", json=body, headers=AUTHORIZED)


def of(world: World, name: str, asked: dict[str, str]) -> dict[str, Any]:
    query = {"person": asked["person"], "request": asked["request"]}
    found: dict[str, Any] = world.http.get(f"/api/coupons/{name}/of", params=query, headers=AUTHORIZED).json()
    return found


def test_the_list_shows_what_was_given_and_what_is_left(plenty: World) -> None:
    page, chinese = plenty.http.get("/coupons"), plenty.http.get("/coupons", headers=CHINESE)

    assert '<a href="/coupons/spring">Spring</a>' in page.text and '<a href="/coupons/thanks">thanks</a>' in page.text
    assert "15 % 3 1 1 0 0 – 1 Jan 2100, 00:00" in text_of(page)  # thanks: given, used, refused, misused, left
    assert "thanks Nothing left" in text_of(page) and "Spring Running €10.00" in text_of(page)
    assert "30 days after it was given" in text_of(page) and "发放后 30 天" in text_of(chinese)
    assert '<a href="/coupons/spring">春季</a>' in chinese.text


def test_a_campaign_shows_who_has_which_code(plenty: World) -> None:
    page, used = (plenty.http.get(f"/coupons/thanks{query}") for query in ("", "?state=used"))
    told = text_of(page)

    assert "THANKS-1 Used o-1" in told and "THANKS-3 Open" in told and "a pool of 3" in told
    assert "THANKS-1" in used.text and "THANKS-3" not in used.text
    assert plenty.http.get("/coupons/nowhere").status_code == 404
    of_spring = text_of(plenty.http.get("/coupons/spring"))
    assert "generated, SPRING-…" in of_spring and "€120.00" in of_spring
    assert "where “total” is at least 100" in of_spring


def test_a_code_is_found_however_it_is_typed(plenty: World) -> None:
    row = plenty.http.get("/api/coupons/codes/thanks-1", headers=AUTHORIZED).json()
    missing = plenty.http.get("/api/coupons/codes/THANKS-9", headers=AUTHORIZED)

    assert (row["code"], row["campaign"], row["state"], row["order_id"]) == ("THANKS-1", "thanks", "used", "o-1")
    assert missing.status_code == 404 and "Nobody was given the code 'THANKS-9'" in missing.json()["error"]
    assert plenty.http.get("/api/coupons").status_code == 403


def test_a_coupon_is_given_once_and_shown_to_her_page_and_to_a_preview(plenty: World) -> None:
    ada = somebody(plenty, 10)
    first, again = (give(plenty, "spring", to=ada, by="ann").json() for _ in range(2))

    eventually(lambda: of(plenty, "spring", first)["state"] == "given")
    row = of(plenty, "spring", again)

    assert first["person"] == again["person"] == ada
    assert (row["is"], row["cause"], row["worth"], row["unit"]) == ("open", "ann", 10, "EUR")
    assert row["code"].startswith("SPRING-") and row["code"] in plenty.http.get(f"/people/{ada}").text
    draft = ("channel: sms\nkind: transactional\ncontent: {en: {text: 'Your code: {{ coupon.spring.code }}, "
             "{{ coupon.spring.worth | money(\"EUR\") }}, until {{ coupon.spring.expires | date }}'}}\n")  # fmt: skip
    saved = plenty.http.post("/api/templates/code", json={"yaml": draft, "by": "ann"}, headers=AUTHORIZED)
    assert saved.status_code == 200, saved.text
    eventually(lambda: f"Your code: {row['code']}, €10.00, until" in _preview(plenty, ada))
    assert "coupon.spring.code" in _preview(plenty, somebody(plenty, 30))  # who has none is sent nothing, and why


def _preview(world: World, person: str) -> str:
    return text_of(world.http.get("/templates/code", params={"person": person}))


def test_what_is_refused_says_why(plenty: World) -> None:
    asked = give(plenty, "thanks", to=somebody(plenty, 12)).json()

    eventually(lambda: of(plenty, "thanks", asked)["state"] == "refused")

    assert of(plenty, "thanks", asked)["why"] == "empty"
    assert give(plenty, "nowhere", to="x").json()["error"].startswith("There is no campaign 'nowhere'.")
    assert give(plenty, "thanks", to="nobody-at-all").status_code == 404
    assert give(plenty, "thanks", to=7).status_code == 422


def test_the_button_of_a_campaign_gives_one(plenty: World) -> None:
    ada, path = somebody(plenty, 14), "/coupons/spring/give"
    origin = {"origin": plenty.url, "sec-fetch-site": "same-origin"}
    before = campaign(plenty, "spring")["given"]

    done = plenty.http.post(path, data={"person": ada}, headers=origin)
    wrong = plenty.http.post(path, data={"person": "nobody-at-all"}, headers=origin)

    assert done.status_code == 303 and "It is asked for." in text_of(plenty.http.get(done.headers["location"]))
    assert "There is nobody by the key" in text_of(plenty.http.get(wrong.headers["location"]))
    eventually(lambda: campaign(plenty, "spring")["given"] == before + 1)
