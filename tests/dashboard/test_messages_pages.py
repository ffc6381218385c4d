"""Messages on the pages and over the API: ordered, shown, decided about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.dashboard.conftest import World
from tests.dashboard.test_pages import AUTHORIZED, eventually, rows_of, sql, text_of
from tests.dashboard.world import KEY
from web.dashboard.guard import CONTENT_SECURITY_POLICY

Worlds = Callable[[str], World]
CHINESE = {"accept-language": "zh-CN"}


@pytest.fixture
def plenty(world: Worlds) -> World:
    return world("plenty")


def somebody(world: World) -> dict[str, str]:
    """Who has an address and speaks English."""
    return sql(world.http, "SELECT person, email, name FROM person_list WHERE name != '' AND email != '' "
                           "AND startsWith(locale, 'en') ORDER BY person LIMIT 1")[0]  # fmt: skip


def send(world: World, **body: Any) -> Any:
    return world.http.post("/api/messages", json={"template": "welcome", **body}, headers=AUTHORIZED)


def message(world: World, id_: str) -> Any:
    return world.http.get(f"/api/messages/{id_}", headers=AUTHORIZED)


def ends(world: World, id_: str) -> dict[str, Any]:
    """What became of a message, once it is known."""
    final = ("sent", "failed", "withheld", "unknown")
    eventually(lambda: (found := message(world, id_)).status_code == 200 and found.json()["state"] in final)
    found: dict[str, Any] = message(world, id_).json()
    return found


def test_a_message_is_ordered_sent_and_shown(plenty: World) -> None:
    ada = somebody(plenty)

    ordered = send(plenty, to=ada["email"]).json()
    row = ends(plenty, ordered["message"])

    assert (row["state"], row["person"], row["address"], row["via"]) == ("sent", ada["person"], ada["email"], "outbox")
    assert row["content"]["subject"] == f"Welcome, {ada['name']}" and ada["email"] in row["content"]["text"]
    page = plenty.http.get(f"/messages/{row['id']}")
    told = text_of(page)
    assert f"Welcome, {ada['name']} Sent {row['id']}" in told and "It stayed here, in the outbox." in told
    assert f'<iframe class="mail" sandbox title="The mail" src="/messages/{row["id"]}/mail">' in page.text
    assert row["content"]["html"] in plenty.http.get(f"/messages/{row['id']}/mail").text
    listed = text_of(plenty.http.get("/messages"))
    assert f"{ada['person'].partition('/')[2]} {ada['email']} welcome E-mail Sent" in listed


def test_what_became_of_it_is_an_event_and_a_line_of_the_ledger(plenty: World) -> None:
    ada = somebody(plenty)
    id_ = send(plenty, to=ada["person"]).json()["message"]
    ends(plenty, id_)

    events = f"SELECT person, event, source FROM event_log WHERE toString(properties.message_id) = '{id_}'"
    eventually(lambda: sql(plenty.http, events))
    decided = f"SELECT kind, about FROM decision_log WHERE facts.message = '{id_}'"
    eventually(lambda: sql(plenty.http, decided))

    assert sql(plenty.http, events) == [{"person": ada["person"], "event": "Message Sent", "source": "tidewire"}]
    assert sql(plenty.http, decided) == [{"kind": "message_sent", "about": "welcome"}]


def test_her_page_shows_what_was_sent_to_her(plenty: World) -> None:
    ada = somebody(plenty)
    for number in range(6):
        row = ends(plenty, send(plenty, to=ada["person"], once=f"page {number}").json()["message"])

    page = plenty.http.get(f"/people/{ada['person']}")

    assert "welcome Sent E-mail" in text_of(page) and f'href="/messages/{row["id"]}"' in page.text
    assert page.text.count('href="/messages/') == 5 and "Every message to this person" in text_of(page)


def test_what_is_said_to_somebody_is_no_deed_of_hers(plenty: World) -> None:
    quiet = sql(
        plenty.http,
        "SELECT person FROM person_list WHERE email != '' AND startsWith(locale, 'en') "
        "AND person NOT IN (SELECT person FROM event_log WHERE timestamp >= today()) LIMIT 1",
    )[0]

    def counted(name: str) -> list[str]:
        return [row[name] for row in rows_of(plenty.http.get(f"/overview/{name}.csv?range=today"))]

    before = counted("people")
    id_ = send(plenty, to=quiet["person"]).json()["message"]
    ends(plenty, id_)
    eventually(lambda: sql(plenty.http, f"SELECT 1 FROM event_log WHERE toString(properties.message_id) = '{id_}'"))

    assert sum(map(int, counted("people"))) == sum(map(int, before))
    assert sum(map(int, counted("events"))) > 0
    by_key = rows_of(plenty.http.get("/overview/sources.csv?range=today&by=write_key"))
    assert "tidewire" not in {row["name"] for row in by_key}


def test_ordered_twice_once_is_sent_once(plenty: World) -> None:
    ada = somebody(plenty)

    first, again = (send(plenty, to=ada["person"], once="order 17").json()["message"] for _ in range(2))
    other = send(plenty, to=ada["person"], once="order 18").json()["message"]
    ends(plenty, first), ends(plenty, other)

    assert first == again != other
    counted = f"SELECT count() AS n FROM messages FINAL WHERE id = '{first}'"
    assert sql(plenty.http, counted) == [{"n": 1}]


def test_without_consent_marketing_is_withheld_and_with_it_sent(world: Worlds) -> None:
    little = world("little")
    call = {"userId": "eve", "traits": {"email": "eve@example.com"}}
    assert little.http.post("/v1/identify", json=call, auth=(KEY, "")).status_code == 200
    eventually(lambda: sql(little.http, "SELECT 1 FROM person_list WHERE email = 'eve@example.com'"))

    before = ends(little, send(little, template="come_back", to="eve", given={"offer": "ten"}).json()["message"])
    call["traits"] |= {"consent": {"offers": True}}  # type: ignore[operator]
    assert little.http.post("/v1/identify", json=call, auth=(KEY, "")).status_code == 200
    after = ends(little, send(little, template="come_back", to="eve", given={"offer": "ten"}).json()["message"])
    gone = {"userId": "eve", "event": "Unsubscribed", "properties": {"topic": "offers"}}
    assert little.http.post("/v1/track", json=gone, auth=(KEY, "")).status_code == 200
    at_last = ends(little, send(little, template="come_back", to="eve", given={"offer": "ten"}).json()["message"])

    assert [row["state"] for row in (before, after, at_last)] == ["withheld", "sent", "withheld"]
    assert before["why"] == at_last["why"] == "no_consent"
    assert "She has not consented to this topic" in text_of(little.http.get(f"/messages/{before['id']}"))
    assert "此人未同意" in text_of(little.http.get(f"/messages/{before['id']}", headers=CHINESE))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"to": "nobody-at-all"}, 404, "There is nobody by the key"),
        ({"template": "nope"}, 404, 'There is no template "nope"'),
        ({"to": 7}, 422, "`to` must be a text"),
        ({"given": [1]}, 422, "`given` must be a JSON object"),
        ({"given": {"x": "y" * 20_000}}, 422, "What it brings along has"),
    ],
)
def test_what_cannot_be_ordered_is_refused_with_the_mend(
    plenty: World, body: dict[str, Any], status: int, says: str
) -> None:  # fmt: skip
    answer = send(plenty, **{"to": somebody(plenty)["person"], **body})

    assert answer.status_code == status and says in answer.json()["error"]


def test_the_button_of_a_template_sends_it(plenty: World) -> None:
    ada = somebody(plenty)
    page = plenty.http.get("/templates/come_back", params={"person": ada["person"], "given.offer": "ten"}).text
    assert 'action="/templates/come_back/send"' in page and 'name="given.offer" value="ten"' in page

    form = {"person": ada["person"], "given.offer": "ten"}
    answer = plenty.http.post("/templates/come_back/send", data=form, headers={"origin": plenty.url})
    at_once = plenty.http.get(answer.headers["location"])
    id_ = answer.headers["location"].partition("?")[0].removeprefix("/messages/")

    assert answer.status_code == 303 and at_once.status_code == 200
    assert ends(plenty, id_)["ordered_by"] == "page"
    refused = plenty.http.post("/templates/come_back/send", data={"person": "nobody-at-all"},
                               headers={"origin": plenty.url}, follow_redirects=True)  # fmt: skip
    assert "There is nobody by the key" in text_of(refused)
    strange = plenty.http.post("/templates/come_back/send", data=form, headers={"origin": "https://evil.example"})
    assert strange.status_code == 403


def test_the_list_can_be_asked_for_some(plenty: World) -> None:
    def states(**query: str) -> set[str]:
        found = plenty.http.get("/api/messages", params=query, headers=AUTHORIZED).json()["messages"]
        return {row["state"] for row in found}

    withheld = plenty.http.get("/messages", params={"state": "withheld", "template": "come_back"})

    assert states(state="withheld") == {"withheld"} and states(template="come_back") >= {"withheld", "sent"}
    assert re.search(r'state=withheld[^>]*aria-current="true"', withheld.text)
    assert "welcome" not in re.sub(r"(?s).*<tbody>", "", withheld.text)
    odd = plenty.http.get("/api/messages", params={"state": "eaten"}, headers=AUTHORIZED)
    assert odd.status_code == 422 and "There is no state 'eaten'" in odd.json()["error"]


def test_pages_can_be_turned(plenty: World) -> None:
    ada = somebody(plenty)
    sent = [send(plenty, to=ada["person"], once=f"many {number}").json()["message"] for number in range(60)]
    for id_ in sent:
        ends(plenty, id_)

    seen, path = [], "/messages"
    for _ in range(10):
        page = plenty.http.get(path).text
        seen += re.findall(r'<td class="num-left"><a href="/messages/(\w+)"', page)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        if following is None:
            break
        path = following[1].replace("&amp;", "&")

    assert set(sent) <= set(seen)
    assert len(seen) == len(set(seen)) == sql(plenty.http, "SELECT count() AS n FROM messages_list")[0]["n"]


def test_what_is_sent_cannot_be_settled(plenty: World) -> None:
    id_ = ends(plenty, send(plenty, to=somebody(plenty)["person"]).json()["message"])["id"]

    answer = plenty.http.post(f"/api/messages/{id_}/settle", json={"as": "again"}, headers=AUTHORIZED)
    page = plenty.http.post(f"/messages/{id_}", data={"as": "again"}, headers={"origin": plenty.url})

    assert answer.status_code == 422 and "A message that is sent can be settled no more" in answer.json()["error"]
    assert page.status_code == 400


def test_what_is_not_there_is_missing(plenty: World) -> None:
    assert plenty.http.get("/messages/nope").status_code == 404
    assert plenty.http.get("/messages/nope/mail").status_code == 404
    assert message(plenty, "nope").status_code == 404
    just_now = plenty.http.get("/messages/nope?ordered=1")
    assert just_now.headers["refresh"] == "1" and "The message is ordered" in text_of(just_now)


def test_a_mail_alone_runs_nothing(plenty: World) -> None:
    id_ = ends(plenty, send(plenty, to=somebody(plenty)["person"]).json()["message"])["id"]

    policy = plenty.http.get(f"/messages/{id_}/mail").headers["content-security-policy"]

    assert "sandbox" in policy and "default-src 'none'" in policy and policy != CONTENT_SECURITY_POLICY


def test_an_empty_world_says_how_to_begin(world: Worlds) -> None:
    told = text_of(world("empty").http.get("/messages"))

    assert "There are no messages yet" in told and "tidewire message send welcome" in told


# --- the suppression list


def listed(world: World, **query: str) -> list[dict[str, Any]]:
    answer = world.http.get("/api/suppressions", params=query, headers=AUTHORIZED).json()
    rows: list[dict[str, Any]] = answer["suppressions"]
    return rows


def post(world: World, path: str, **form: str) -> str:
    """What the page says after a form."""
    answer = world.http.post(path, data=form, headers={"origin": str(world.http.base_url).rstrip("/")})
    assert answer.status_code == 303, answer.text
    return text_of(world.http.get(answer.headers["location"]))


def test_an_address_is_put_on_the_list_and_taken_off(plenty: World) -> None:
    ada = somebody(plenty)

    told = post(plenty, "/suppressions", channel="email", addresses=f"{ada['email'].upper()}\nnobody@example.com",
                why="<b>she rang</b>")  # fmt: skip
    eventually(lambda: listed(plenty, part="nobody@example.com") and listed(plenty, part=ada["email"]))
    page = plenty.http.get("/suppressions", params={"part": ada["email"]})
    withheld = ends(plenty, send(plenty, to=ada["person"]).json()["message"])

    assert "They are on the list." in told
    assert "<b>she rang" not in page.text and f"{ada['email']} E-mail Put here by hand <b>she rang</b>" in text_of(page)
    assert "nobody@example.com" not in text_of(page)
    assert (withheld["state"], withheld["why"]) == ("withheld", "blocked")
    shown = text_of(plenty.http.get(f"/messages/{withheld['id']}"))
    assert "The address is on the suppression list." in shown

    told = post(plenty, "/suppressions/release", channel="email", address=ada["email"])
    eventually(lambda: not listed(plenty, part=ada["email"]))
    sent = ends(plenty, send(plenty, to=ada["person"]).json()["message"])

    assert f"{ada['email']} is off the list." in told and sent["state"] == "sent"


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"channel": "email", "addresses": " "}, "Name the addresses, one a line."),
        ({"channel": "fax", "addresses": "a@example.com"}, "There is no channel 'fax'; there are: email, sms."),
        ({"channel": "email", "addresses": "a" * 400}, "is no address."),
    ],
)
def test_what_cannot_be_put_on_the_list_is_said(plenty: World, form: dict[str, str], says: str) -> None:
    assert says in post(plenty, "/suppressions", **form)


def test_the_list_has_pages_and_parts(plenty: World) -> None:
    body = {"channel": "sms", "addresses": [f"+49151{n:06}" for n in range(60)], "why": "old list", "by": "import"}
    assert plenty.http.post("/api/suppressions", json=body, headers=AUTHORIZED).json() == {"added": 60}
    eventually(lambda: len(listed(plenty, channel="sms", most="100")) == 60)

    first = plenty.http.get("/suppressions", params={"channel": "sms"}).text
    rest = plenty.http.get(re.search(r'href="(/suppressions\?[^"]*before[^"]*)"', first)[1].replace("&amp;", "&")).text

    numbers = [re.findall(r'<th scope="row">(\+49151\d+)', page) for page in (first, rest)]
    assert [len(each) for each in numbers] == [50, 10] and len({*numbers[0], *numbers[1]}) == 60
    assert {(row["said_by"], row["why"]) for row in listed(plenty, channel="sms")} == {("import", "old list")}


@pytest.mark.parametrize("body", [{"addresses": "a@b.c"}, {"addresses": [1]}, {"addresses": ["a@b.c"], "why": 1}, {}])
def test_a_call_that_is_wrong_is_refused(plenty: World, body: dict[str, Any]) -> None:
    answer = plenty.http.post("/api/suppressions", json={"channel": "email", **body}, headers=AUTHORIZED)

    assert answer.status_code == 422 and re.search("must be|Name the", answer.json()["error"])
