"""Templates on the pages: the list, one as a person would read it, the editor, versions, and what takes one out."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from config.templates import FOLDER, read_templates
from tests.dashboard.conftest import World
from tests.dashboard.payloads import PAYLOADS
from tests.dashboard.test_pages import AUTHORIZED, eventually, sql, text_of
from tests.dashboard.world import KEY
from web.dashboard.guard import CONTENT_SECURITY_POLICY

Worlds = Callable[[str], World]
CHINESE = {"accept-language": "zh-CN"}
OURS = {"sec-fetch-site": "same-origin"}
TEXT = """\
title: {en: Made here}
channel: email
kind: transactional
content:
  en:
    subject: Hello {{ profile.name | default('you') }}
    text: Your coupon is {{ given.coupon | default('none') }}.
    html: <html><body><p>Hello {{ profile.name | default('you') }}</p></body></html>
"""
OTHER = TEXT.replace("Your coupon", "Our coupon")


def post(world: World, path: str, **form: object) -> httpx.Response:
    return world.http.post(path, data={name: str(value) for name, value in form.items()}, headers=OURS)


def typed(world: World, do: str, text: str, **form: str) -> httpx.Response:
    """What the page asks while somebody types."""
    headers = {**OURS, "hx-request": "true"}
    return world.http.post(f"/templates/new?do={do}", data={"yaml": text, **form}, headers=headers)


def made(world: World, text: str = TEXT) -> str:
    """A new template, by its name."""
    name = f"made_{time.time_ns()}"
    answer = post(world, "/templates/new", name=name, yaml=text, upon=0, do="save")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/templates/{name}"), answer.text
    return name


def somebody(world: World) -> dict[str, str]:
    """Who has ordered, and can be found by her address."""
    return sql(world.http, "SELECT person, email, name, user_id FROM person_list WHERE orders > 0 AND name != '' "
                           "AND email != '' AND startsWith(locale, 'en') ORDER BY person LIMIT 1")[0]  # fmt: skip


def test_the_list_names_every_template(world: Worlds) -> None:
    told = text_of(world("little").http.get("/templates"))

    for name, template in read_templates(Path("config"), "UTC").items():
        assert f"{template.title['en']} {name} {template.about}" in told
    assert "Come back come_back" in told
    assert re.search(r"Marketing offers en Version 1 (just now|\d+ minutes? ago) · config", told)


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
                                  "/templates/nothing/mail", "/templates/nothing/edit", "/templates/nothing/remove",
                                  "/templates/welcome/versions/9", "/templates/welcome/versions/x",
                                  "/templates/new/mail/none"])  # fmt: skip
def test_what_is_not_there_is_not_found(world: Worlds, path: str) -> None:
    assert world("little").http.get(path).status_code == 404


# --- the editor


def test_what_is_typed_is_checked_and_says_what_it_asks_for(world: Worlds) -> None:
    told = text_of(typed(world("little"), "check", TEXT.replace("\n", "\r\n")))

    assert told == "E-mail · Transactional · en It asks for given.coupon , profile.name"


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [(("channel: email", "channel: fax"), 2, '"channel": Input should be'),
     (("{{ given.coupon | default('none') }}", "{{ given.coupon | uper }}"), 7, 'there is no filter "uper"'),
     (("profile.name | default('you') }}</p>", "profil.name }}</p>"), 8, 'Did you mean "profile"?'),
     (("content:", "content: ["), 6, "cannot be read as YAML"), ((TEXT, ""), 1, "holds no template")],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(world: Worlds, change: tuple[str, str], line: int, told: str) -> None:
    answer = typed(world("little"), "check", TEXT.replace(*change))

    assert f'data-line="{line}"' in answer.text
    assert told in text_of(answer)
    assert typed(world("little"), "live", TEXT.replace(*change)).status_code == 204  # the last that was right stays


def test_what_is_wrong_is_said_in_chinese_too(world: Worlds) -> None:
    headers = {**OURS, **CHINESE}
    for text in ("", TEXT.replace("kind:", "knd:"), TEXT.replace("email", "fax"), TEXT.replace("profile", "profil")):
        answer = world("little").http.post("/templates/new?do=check", data={"yaml": text}, headers=headers)

        (note,) = re.findall(r'<div class="note note-danger".*?</p>', answer.text, re.DOTALL)
        assert len(re.findall("[\u4e00-\u9fff]", note)) > 8, note


def test_a_draft_is_shown_as_a_person_would_read_it(world: Worlds) -> None:
    little = world("little")

    answer = typed(little, "live", TEXT, person="ann-1", given='{"coupon": "<b>A1</b>"}')

    told = text_of(answer)
    assert "Subject Hello Ann" in told and "Your coupon is <b>A1</b>." in told
    (frame,) = re.findall(r'<iframe class="mail" sandbox title="The mail" src="([^"]+)">', answer.text)
    mail = little.http.get(frame)
    assert "<p>Hello Ann</p>" in mail.text and mail.headers["content-security-policy"].endswith("; sandbox")
    assert little.http.get("/templates").text.count("Made here") == little.http.get("/templates").text.count("made_")


@pytest.mark.parametrize(
    ("form", "told"),
    [({"person": "nobody"}, "There is nobody by the key 'nobody'."), ({"person": ""}, "Name a person above"),
     ({"person": "ann-1", "given": "[1]"}, "must be a JSON object"), ({"person": "ann-1", "given": "{"}, "JSON object"),
     ({"person": "ann-1", "given": "[" * 9_000}, "JSON object"),
     ({"person": "ann-1", "given": '{"coupon": [1]}'}, "She would not be sent it.")],
)  # fmt: skip
def test_who_cannot_be_shown_a_draft_is_told_why(world: Worlds, form: dict[str, str], told: str) -> None:
    assert told in text_of(typed(world("little"), "preview", TEXT, **form))


def test_drafts_that_are_kept_are_few(world: Worlds) -> None:
    little, frames = world("little"), []
    for number in range(17):
        text = TEXT.replace("<p>Hello", f"<p>{number} Hello")
        frames += re.findall(r'src="(/templates/new/mail/\w+)"', typed(little, "live", text, person="ann-1").text)

    answers = [little.http.get(frame).status_code for frame in (frames[0], frames[-1])]

    assert (len(set(frames)), answers) == (17, [404, 200])


def test_without_scripts_the_whole_page_comes_with_the_preview_and_what_was_typed(world: Worlds) -> None:
    answer = post(world("little"), "/templates/welcome/edit", yaml=OTHER, upon=1, do="preview", person="ann-1")

    told = text_of(answer)
    assert "Edit: Welcome" in told and "Our coupon is none." in told
    assert "Our coupon is {{ given.coupon" in html.unescape(answer.text)


def test_an_edit_is_a_new_version_that_can_be_compared_and_taken_back(world: Worlds) -> None:
    little = world("little")
    name = made(little)
    edit = html.unescape(little.http.get(f"/templates/{name}/edit").text)
    assert TEXT in edit and 'name="upon" value="1"' in edit

    assert post(little, f"/templates/{name}/edit", yaml=OTHER, upon=1).status_code == 303
    changed = text_of(little.http.get(f"/templates/{name}/versions/2"))
    first = little.http.get(f"/templates/{name}/versions/1")
    back = text_of(little.http.get(f"/templates/{name}/versions/1", params={"against": 2}))
    assert "− text: Your coupon is" in changed and "+ text: Our coupon is" in changed
    assert "As it began" in first.text and "− text: Our coupon is" in back
    assert post(little, f"/templates/{name}/restore", version=1, upon=2).status_code == 303

    page = text_of(little.http.get(f"/templates/{name}"))
    assert "Version 3" in page and "dashboard · from a page the newest" in page and "Your coupon is" in page
    listed = little.http.get(f"/api/templates/{name}/versions", headers=AUTHORIZED).json()["versions"]
    assert [each["version"] for each in listed] == [3, 2, 1]


def test_who_was_too_slow_overwrites_nothing_and_may_save_after_all(world: Worlds) -> None:
    little = world("little")
    name, mine = made(little), TEXT.replace("Your coupon", "My coupon")
    post(little, f"/templates/{name}/edit", yaml=OTHER, upon=1)

    late = post(little, f"/templates/{name}/edit", yaml=mine, upon=1)
    taken = post(little, "/templates/new", name=name, yaml=mine, upon=0)
    old = post(little, f"/templates/{name}/restore", version=1, upon=1)

    assert (late.status_code, taken.status_code, old.status_code) == (409, 409, 409)
    assert "dashboard wrote version 2 meanwhile, and this began from 1." in late.text
    assert "there is a template of this name already" in taken.text
    assert all("My coupon" in answer.text for answer in (late, taken)) and "has version 2 meanwhile" in old.text
    (upon,) = re.findall(r'form="editor" name="upon" value="(\d+)"', late.text)
    # The form holds the old number too; the button that was pressed comes after it, and counts.
    body = f"upon=1&yaml={quote(mine)}&upon={upon}"
    headers = {**OURS, "content-type": "application/x-www-form-urlencoded"}
    assert little.http.post(f"/templates/{name}/edit", content=body, headers=headers).status_code == 303
    assert "My coupon" in little.http.get(f"/templates/{name}").text


@pytest.mark.parametrize("name", ["", "Big", "../x", "new", "apply", "x" * 64, "ä"])
def test_a_name_that_cannot_be_is_refused_and_what_was_typed_stays(world: Worlds, name: str) -> None:
    answer = post(world("little"), "/templates/new", name=name, yaml=OTHER, upon=0, do="save")

    assert answer.status_code == 422
    assert "cannot be the name of a template" in answer.text and "Our coupon" in answer.text


def test_a_template_is_removed_and_comes_back(world: Worlds) -> None:
    little = world("little")
    name = made(little)
    assert "Nothing can be sent by it any more" in text_of(little.http.get(f"/templates/{name}/remove"))

    assert post(little, f"/templates/{name}/remove").headers["location"] == "/templates"

    gone = text_of(little.http.get(f"/templates/{name}"))
    assert "This template was removed on" in gone and name in text_of(little.http.get("/templates"))
    assert little.http.get(f"/templates/{name}/edit").status_code == 404
    assert post(little, f"/templates/{name}/remove").status_code == 404
    assert post(little, f"/templates/{name}/restore", version=2, upon=0).status_code == 404
    assert post(little, f"/templates/{name}/restore", version=1, upon=0).status_code == 303
    assert "Made here" in little.http.get(f"/templates/{name}").text


def test_a_message_is_filled_in_from_what_was_saved_last_and_keeps_its_version(world: Worlds) -> None:
    little = world("little")
    name = made(little)
    post(little, f"/templates/{name}/edit", yaml=OTHER, upon=1)

    ordered = post(little, f"/templates/{name}/send", person="ann-1")

    (id_,) = re.findall(r"/messages/(\w+)", ordered.headers["location"])
    query = f"SELECT template_version, state FROM messages_list WHERE id = '{id_}'"
    eventually(lambda: [row["state"] for row in sql(little.http, query)] == ["sent"])
    assert sql(little.http, query)[0]["template_version"] == "2"
    page = little.http.get(f"/messages/{id_}")
    assert f'href="/templates/{name}/versions/2"' in page.text and "Our coupon is none." in text_of(page)


def test_nothing_that_somebody_writes_into_a_template_becomes_a_tag_of_the_page(world: Worlds) -> None:
    little = world("little")
    title = json.dumps({"en": " ".join(PAYLOADS[:30])})
    text = f"title: {title}\nabout: {json.dumps(PAYLOADS[0])}\n" + TEXT.partition("\n")[2]
    name = made(little, text)
    post(little, f"/templates/{name}/edit", yaml=text + f"# {PAYLOADS[1]!r}\n", upon=1)
    paths = ("", "/edit", "/remove", "/versions/1", "/versions/2")

    pages = [little.http.get("/templates").text, *(little.http.get(f"/templates/{name}{path}").text for path in paths),
             typed(little, "preview", text, person=PAYLOADS[0], given=PAYLOADS[0]).text,
             typed(little, "check", PAYLOADS[0]).text]  # fmt: skip

    strangers = re.compile(r"<(?:script(?! src=\"/static/)|img|iframe(?! class=\"mail\" sandbox)|object|embed|base)\b")
    assert [found for page in pages for found in strangers.findall(page)] == []
    assert all(html.escape(PAYLOADS[0][:8], quote=False) in page for page in pages[1:3])


@pytest.mark.parametrize("path", ["new", "welcome/edit", "welcome/restore", "welcome/remove"])
def test_other_sites_cannot_post(world: Worlds, path: str) -> None:
    for headers in ({}, {"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        answer = world("little").http.post(f"/templates/{path}", data={"do": "save"}, headers=headers)
        assert answer.status_code == 403


def test_a_form_of_nonsense_is_no_error(world: Worlds) -> None:
    headers = {**OURS, "content-type": "application/x-www-form-urlencoded"}
    for do in ("live", "save"):
        for body in (b"", b"\xff\xfe=%00", b"yaml=%00&name=%00&person=%00", b"yaml=" + b"[" * 5_000):
            answer = world("little").http.post(f"/templates/new?do={do}", content=body, headers=headers)
            assert answer.status_code in (200, 204, 422)


# --- the API


def test_programs_save_read_and_try_templates(world: Worlds) -> None:
    http = world("little").http
    name = f"by_program_{time.time_ns()}"

    def call(path: str, **body: object) -> httpx.Response:
        return http.post(f"/api/templates/{name}{path}", json=body, headers=AUTHORIZED)

    assert call("", yaml=TEXT, by="shop", upon=0).json()["version"] == 1
    assert call("", yaml=OTHER, by="shop", upon=1).json()["version"] == 2
    late, wrong = call("", yaml=TEXT, upon=1), call("", yaml="channel: fax")
    assert (late.status_code, wrong.status_code, call("").status_code) == (409, 422, 400)
    assert "has version 2 meanwhile, not 1" in late.json()["error"] and f"{name}.yaml:1" in wrong.json()["error"]
    old = http.get(f"/api/templates/{name}", params={"version": 1}, headers=AUTHORIZED).json()
    assert (old["yaml"], old["by"], old["source"]) == (TEXT, "shop", "page")
    read = call("/preview", to="ann-1", given={"coupon": "A1"}, version=1).json()
    assert (read["subject"], read["text"], read["version"]) == ("Hello Ann", "Your coupon is A1.", 1)
    assert call("/preview", to="nobody").status_code == 422
    row = next(row for row in http.get("/api/templates", headers=AUTHORIZED).json()["templates"]
               if row["template"] == name)  # fmt: skip
    assert (row["version"], row["channel"], row["languages"], row["wrong"]) == (2, "email", ["en"], "")
    assert call("/remove", by="shop").json() == {"removed": name}
    assert http.get(f"/api/templates/{name}", headers=AUTHORIZED).status_code == 404
    assert http.get("/api/templates").status_code == 403


def test_nothing_went_wrong_behind_the_pages_of_templates(world: Worlds) -> None:
    assert world("plenty").errors() == ""
    assert "Traceback" not in world("little").errors()
