"""Templates on the pages: the list, and one as a person would read it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from config.templates import FOLDER, read_templates
from tests.dashboard.conftest import World
from tests.dashboard.test_pages import AUTHORIZED, eventually, sql, text_of
from tests.dashboard.world import KEY
from web.dashboard.guard import CONTENT_SECURITY_POLICY

Worlds = Callable[[str], World]
CHINESE = {"accept-language": "zh-CN"}


def somebody(world: World) -> dict[str, str]:
    """Who has ordered, and can be found by her address."""
    return sql(world.http, "SELECT person, email, name, user_id FROM person_list WHERE orders > 0 AND name != '' "
                           "AND email != '' AND startsWith(locale, 'en') ORDER BY person LIMIT 1")[0]  # fmt: skip


def test_the_list_names_every_template(world: Worlds) -> None:
    told = text_of(world("little").http.get("/templates"))

    for name, template in read_templates(Path("config"), "UTC").items():
        assert f"{template.title['en']} {name} {template.about}" in told
    assert "Come back come_back" in told and "Marketing offers en" in told


def test_the_list_speaks_the_language_of_the_page(world: Worlds) -> None:
    told = text_of(world("little").http.get("/templates", headers=CHINESE))

    assert "好久不见 come_back" in told and "营销 offers" in told


@pytest.mark.parametrize("by", ["person", "email", "user_id"])
def test_a_template_is_shown_as_a_person_would_read_it(world: Worlds, by: str) -> None:
    plenty = world("plenty")
    ada = somebody(plenty)

    page = plenty.http.get("/templates/come_back", params={"person": ada[by], "given.offer": "Ten <b> off"})

    told = text_of(page)
    assert f"Subject We miss you, {ada['name']} Preheader Ten <b> off" in told
    assert f"Hello {ada['name']}," in told and "Ten <b> off" in told
    assert 'name="given.offer" value="Ten &lt;b&gt; off"' in page.text
    (frame,) = re.findall(r'<iframe class="mail" sandbox title="The mail" src="([^"]+)">', page.text)
    mail = plenty.http.get(html.unescape(frame))
    assert mail.status_code == 200 and "Ten &lt;b&gt; off" in mail.text and html.escape(ada["name"]) in mail.text


def test_commands_and_pages_find_people_by_their_address_too(world: Worlds) -> None:
    plenty = world("plenty")
    ada = somebody(plenty)

    found = plenty.http.get("/api/person", params={"key": ada["email"].upper()}, headers=AUTHORIZED).json()
    why = plenty.http.get("/api/segments/buyers/why", params={"person": ada["email"]}, headers=AUTHORIZED).json()

    assert found["person"] == why["person"] == ada["person"]


def test_an_address_of_several_people_names_them(world: Worlds) -> None:
    little = world("little")
    for user in ("twin-a", "twin-b"):
        call = {"userId": user, "traits": {"email": "twins@example.com"}}
        assert little.http.post("/v1/identify", json=call, auth=(KEY, "")).status_code == 200
    query = "SELECT count() AS n FROM person_list WHERE email = 'twins@example.com'"
    eventually(lambda: sql(little.http, query)[0]["n"] == 2)

    answer = little.http.get("/api/person", params={"key": "twins@example.com"}, headers=AUTHORIZED)
    told = text_of(little.http.get("/templates/welcome", params={"person": "twins@example.com"}))

    said = ("twins@example.com is the address of several people: default/u:twin-a, default/u:twin-b. "
            "Name one by her key.")  # fmt: skip
    assert (answer.status_code, answer.json()["error"]) == (409, said)
    assert f"She would not be sent it. {said}" in told


def test_a_mail_stands_alone_and_may_do_nothing(world: Worlds) -> None:
    plenty = world("plenty")

    mail = plenty.http.get("/templates/welcome/mail", params={"person": somebody(plenty)["person"]})

    policy = mail.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.endswith("; sandbox") and "script-src" not in policy
    assert mail.headers["x-frame-options"] == "SAMEORIGIN" and mail.headers["x-content-type-options"] == "nosniff"
    page = plenty.http.get("/templates")
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert page.headers["x-frame-options"] == "DENY"


def test_who_lacks_what_a_message_needs_would_not_be_sent_it(world: Worlds) -> None:
    plenty = world("plenty")

    told = text_of(plenty.http.get("/templates/order_shipped", params={"person": somebody(plenty)["person"]}))

    assert "She would not be sent it. content.en.text: line 1: given.order_id is missing." in told


def test_who_is_nobody_is_said_to_be_nobody(world: Worlds) -> None:
    little = world("little")

    told = text_of(little.http.get("/templates/welcome", params={"person": "nobody"}))
    mail = little.http.get("/templates/welcome/mail", params={"person": "nobody@example.com"})

    assert "There is nobody by the key 'nobody'." in told
    assert mail.status_code == 404 and "nobody@example.com" in mail.text


def test_who_was_here_last_is_offered(world: Worlds) -> None:
    page = world("plenty").http.get("/templates/welcome")

    assert len(re.findall(r'href="/templates/welcome\?person=default%2Fu%3A', page.text)) == 5


def test_the_file_is_shown(world: Worlds) -> None:
    page = world("empty").http.get("/templates/welcome")

    source = (Path("config") / FOLDER / "welcome.yaml").read_text(encoding="utf-8")
    assert html.escape(source.strip(), quote=False) in page.text.replace("&#34;", '"').replace("&#39;", "'")


@pytest.mark.parametrize("path", ["/templates/nothing", "/templates/..%2f..%2fwrite_keys", f"/templates/{quote('a b')}",
                                  "/templates/nothing/mail"])  # fmt: skip
def test_what_is_not_there_is_not_found(world: Worlds, path: str) -> None:
    assert world("little").http.get(path).status_code == 404


def test_nothing_went_wrong_behind_the_pages_of_templates(world: Worlds) -> None:
    assert world("plenty").errors() == ""
