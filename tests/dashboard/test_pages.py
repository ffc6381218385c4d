"""What the pages say, asked over HTTP of a Tidewire that is full, nearly empty, or empty."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest

from tests.dashboard.conftest import World
from tests.dashboard.world import KEY, TOKEN

Worlds = Callable[[str], World]
PATHS = ("/", "/live", "/people", "/rejected")
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


def sql(http: httpx.Client, query: str) -> list[dict[str, Any]]:
    answer = http.post("/api/sql", json={"query": query}, headers=AUTHORIZED)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return rows


def text_of(page: httpx.Response) -> str:
    """What a reader sees of a page, on one line."""
    assert page.status_code == 200, page.text[:500]
    bare = re.sub(r"<(script|svg|style)\b.*?</\1>", " ", page.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def rows_of(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


def eventually(found: Callable[[], Any], within_s: float = 15) -> Any:
    until = time.monotonic() + within_s
    while True:
        result = found()
        if result or time.monotonic() > until:
            assert result, "it did not come about in time"
            return result
        time.sleep(0.1)


# --- overview


@pytest.mark.parametrize("scene", ["empty", "little", "plenty", "hostile"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_every_page_is_there_however_much_there_is(world: Worlds, scene: str, path: str, language: str) -> None:
    answer = world(scene).http.get(path, headers={"accept-language": language})

    assert answer.status_code == 200
    assert answer.headers["content-language"] == {"en": "en", "zh-CN": "zh-Hans"}[language]
    assert f'<html lang="{answer.headers["content-language"]}"' in answer.text


@pytest.mark.parametrize("scene", ["empty", "little", "plenty"])
def test_numbers_of_all_time_are_those_of_clickhouse(world: Worlds, scene: str) -> None:
    http = world(scene).http
    totals = sql(http, """
        SELECT count() AS events, uniqExact(person) AS people FROM event_log
    """)[0]  # fmt: skip
    page = text_of(http.get("/?range=all&metric=events"))

    if scene == "empty":
        assert "no events yet" in page
        return
    assert f"Events {totals['events']:,}" in page
    assert f"Active people {totals['people']:,}" in page
    for name in ("people", "events"):
        series = rows_of(http.get(f"/overview/{name}.csv?range=all"))
        assert all(row["before"] == "" for row in series)
    assert sum(int(row["events"]) for row in series) == totals["events"]
    assert sum(int(row["times"]) for row in rows_of(http.get("/overview/top_events.csv?range=all"))) == totals["events"]


def test_orders_and_revenue_are_those_of_the_order_table_less_refunds(world: Worlds) -> None:
    http = world("plenty").http
    by_currency = sql(http, """
        SELECT currency, count() AS orders, sum(revenue - refunded) AS revenue FROM orders_list
        WHERE status NOT IN ('cancelled', 'not completed') GROUP BY currency ORDER BY currency
    """)  # fmt: skip

    assert [row["currency"] for row in by_currency] == ["CNY", "EUR", "GBP"]
    for row in by_currency:
        series = rows_of(http.get(f"/overview/revenue.csv?range=all&currency={row['currency']}"))
        assert round(sum(float(point["revenue"]) for point in series), 2) == float(row["revenue"])
    orders = rows_of(http.get("/overview/orders.csv?range=all"))
    assert sum(int(point["orders"]) for point in orders) == sum(row["orders"] for row in by_currency)


@pytest.mark.parametrize("name", ["24h", "7d", "30d", "12m"])
def test_a_range_and_the_one_before_it_hold_the_events_of_their_time(world: Worlds, name: str) -> None:
    http = world("plenty").http

    series = rows_of(http.get(f"/overview/events.csv?range={name}"))
    hours = {"24h": 24, "7d": 7 * 24, "30d": 30 * 24, "12m": 365 * 24}[name]
    first = series[0]["start"]
    start = f"greatest(parseDateTime64BestEffort('{first}', 3, 'UTC'), toDateTime64('1970-01-01', 3, 'UTC'))"
    counted = sql(http, f"SELECT countIf(timestamp >= {start}) AS now, countIf(timestamp < {start} "
                        f"AND timestamp >= {start} - INTERVAL {hours} HOUR) AS before FROM event_log")[0]  # fmt: skip
    if name != "12m":  # weeks begin before the month does, and what lies before the range is not counted
        assert sum(int(row["events"]) for row in series) == counted["now"]
    # The stretch before ends as far into it as now is into this one, so it is at most all of it.
    assert 0 < sum(int(row["before"]) for row in series) <= counted["before"] or name == "12m"


def test_without_a_range_the_shortest_that_is_not_empty_is_shown(world: Worlds) -> None:
    page = world("plenty").http.get("/").text

    assert re.search(r'aria-current="true">24 hours<', page)


def test_days_may_be_chosen_and_begin_in_the_visitors_zone(world: Worlds) -> None:
    http = world("plenty").http
    day = sql(http, "SELECT toString(toDate(max(timestamp), 'Asia/Shanghai') - 7) AS day FROM event_log")[0]["day"]
    there = sql(http, f"SELECT count() AS n FROM event_log WHERE toDate(timestamp, 'Asia/Shanghai') = '{day}'")[0]["n"]

    series = rows_of(http.get(f"/overview/events.csv?from={day}&to={day}", headers={"cookie": "zone=Asia/Shanghai"}))

    assert len(series) == 24
    assert sum(int(row["events"]) for row in series) == there


@pytest.mark.parametrize(
    "query",
    ["range=never", "from=2024-13-45", "from=0001-01-01&to=9999-12-31", "metric=x", "by=x", "currency=%00",
     "to=1999-01-01", "from=2000-02-30&to=x", "range=%F0%9F%A6%86"],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_no_error(world: Worlds, query: str) -> None:
    assert world("plenty").http.get(f"/?{query}").status_code == 200


def test_every_chart_has_its_table_and_its_csv(world: Worlds) -> None:
    http = world("plenty").http
    page = http.get("/?range=all").text

    links = [html.unescape(link) for link in re.findall(r'href="(/overview/[^"]+\.csv[^"]*)"', page)]
    assert [re.findall(r"/overview/(\w+)\.csv", link)[0] for link in links] == [
        "people", "top_events", "sources", "new_people", "products",
    ]  # fmt: skip
    assert all(rows_of(http.get(link)) for link in links)
    assert page.count("<table") == len(links)


@pytest.mark.parametrize("by", ["channel", "source", "campaign", "write_key"])
def test_sources_are_grouped_as_asked(world: Worlds, by: str) -> None:
    http = world("plenty").http

    rows = rows_of(http.get(f"/overview/sources.csv?range=all&by={by}"))

    if by == "write_key":
        assert {row["name"] for row in rows} - {"trial"} == {"web", "shop backend"}  # by which other tests send
    else:
        visits = sql(http, "SELECT count() AS n FROM visits_list")[0]["n"]
        assert sum(int(row["times"]) for row in rows) == visits
    if by == "channel":
        assert {"direct", "organic", "paid", "social", "email", "referral"} == {row["name"] for row in rows}


def test_texts_from_outside_cannot_become_formulas_in_a_spreadsheet(world: Worlds) -> None:
    http = world("hostile").http

    names = [row["name"] for row in rows_of(http.get("/overview/top_events.csv?range=all"))]
    people = rows_of(http.get("/people.csv"))

    assert any(name.startswith("'=HYPERLINK") for name in names)
    cells = [cell for row in people for cell in row.values()]
    assert [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r"))] == []


def test_how_current_the_numbers_are_is_said(world: Worlds) -> None:
    assert "Everything received is in ClickHouse" in text_of(world("plenty").http.get("/freshness"))
    status = world("plenty").http.get("/api/status", headers=AUTHORIZED).json()
    assert status["is_current"] is True
    assert status["clickhouse_behind"] == {"records": 0, "seconds": 0.0}


def test_an_empty_page_shows_a_call_that_works(world: Worlds) -> None:
    page = world("empty").http.get("/live")

    assert f"curl -u {KEY}: {world('empty').url}/v1/track" in html.unescape(page.text)


@pytest.mark.parametrize("path", ["/", "/people", "/rejected", "/people/default%2Fu%3Aa"])
def test_before_there_are_tables_a_page_says_what_makes_them(world: Worlds, path: str) -> None:
    answer = world("bare").http.get(path)

    assert answer.status_code == 503
    assert "the sink makes them when it starts" in answer.text
    assert answer.headers["retry-after"]


# --- people


def people(http: httpx.Client, **query: str) -> list[str]:
    page = http.get("/people", params=query)
    assert page.status_code == 200
    return [unquote(key) for key in re.findall(r'class="who" href="/people/([^"]+)"', page.text)]


@pytest.mark.parametrize(
    "search",
    ["Ada Lindqvist", "customer16@mail.example", "CUSTOMER16@", "u-0016", "default/u:u-0016", "anon-0016", "陈雨桐"],
)
def test_people_are_found_by_what_is_known_of_them(world: Worlds, search: str) -> None:
    http = world("plenty").http
    found = people(http, q=search)

    assert found
    for key in found:
        row = sql(http, f"SELECT * FROM person_list WHERE person = '{key}'")[0]
        assert search.casefold() in json.dumps(row, ensure_ascii=False).casefold()


def test_people_are_found_by_the_value_of_a_trait(world: Worlds) -> None:
    http = world("plenty").http
    count = sql(http, "SELECT count() AS n FROM person_list WHERE traits.plan::String = 'club'")[0]["n"]

    page = text_of(http.get("/people?q=plan%3DCLUB"))

    assert count > 1
    assert f"{count} people" in page


@pytest.mark.parametrize("search", ["%", "_", "'", "\\", '"', "{x:String}", "\0", "a" * 5_000, "=", "=x", "x=", "🦆"])
def test_a_search_is_only_ever_text(world: Worlds, search: str) -> None:
    assert world("plenty").http.get("/people", params={"q": search}).status_code == 200


@pytest.mark.parametrize("sort", ["last_seen", "first_seen", "name", "events", "visits", "orders", "revenue"])
@pytest.mark.parametrize("is_reversed", ["", "1"])
def test_pages_of_the_list_show_everybody_once_and_in_order(world: Worlds, sort: str, is_reversed: str) -> None:
    http = world("plenty").http
    seen: list[str] = []
    address = f"/people?sort={sort}&reversed={is_reversed}"

    while address:
        page = http.get(address).text
        seen += re.findall(r'class="who" href="/people/([^"]+)"', page)
        following = re.search(r'href="(/people\?[^"]+)" rel="next"', page)
        address = html.unescape(following[1]) if following else ""

    assert len(seen) == len(set(seen)) == sql(http, "SELECT count() AS n FROM person_list")[0]["n"]
    if sort in ("events", "visits", "orders"):
        keys = {row["person"]: row[sort] for row in sql(http, f"SELECT person, {sort} FROM person_list")}
        numbers = [keys[unquote(key)] for key in seen]
        assert numbers == sorted(numbers, reverse=not is_reversed)


def test_identified_and_anonymous_people_can_be_told_apart(world: Worlds) -> None:
    http = world("plenty").http

    assert all("/u:" in key for key in people(http, kind="identified"))
    assert all("/a:" in key for key in people(http, kind="anonymous"))


def test_columns_can_be_chosen_traits_among_them(world: Worlds) -> None:
    page = world("plenty").http.get("/people?column=company&column=trait:city&column=nonsense&kind=identified").text

    headings = [re.sub(r"<[^>]+>|\s", "", cell) for cell in re.findall(r'<th scope="col".*?</th>', page)]
    assert headings == ["Name", "Company", "city"]
    assert "Wien" in page


def test_the_whole_list_can_be_taken_away_as_csv(world: Worlds) -> None:
    http = world("plenty").http

    rows = rows_of(http.get("/people.csv?kind=identified"))

    assert len(rows) == sql(http, "SELECT count() AS n FROM person_list WHERE user_id != ''")[0]["n"]
    assert {"revenue_CNY", "revenue_EUR", "revenue_GBP"} < set(rows[0])


# --- person


def best_customer(http: httpx.Client) -> dict[str, Any]:
    return sql(http, "SELECT * FROM person_list WHERE length(identities) > 2 ORDER BY orders DESC, person LIMIT 1")[0]


def test_a_person_is_shown_with_all_that_is_known(world: Worlds) -> None:
    http = world("plenty").http
    someone = best_customer(http)

    page = text_of(http.get(f"/people/{quote(someone['person'], safe='')}"))

    for told in (someone["name"], someone["email"], f"Events {someone['events']}", f"Orders {someone['orders']}",
                 "plan club", "linked by Identify"):  # fmt: skip
        assert told in page, told
    for key in someone["identities"]:
        assert key.partition("/")[2][2:] in page
    assert "changed" in page  # the plan did


def test_the_timeline_goes_back_to_the_first_event_and_names_all_keys(world: Worlds) -> None:
    http = world("plenty").http
    someone = best_customer(http)
    address = f"/people/{quote(someone['person'], safe='')}"
    seen: list[str] = []

    while address:
        page = html.unescape(http.get(address).text)
        seen += re.findall(r'"messageId": "([^"]+)"', page)
        following = re.search(r'<li class="timeline-more".*?href="([^"]+)"', page)
        address = following[1] if following else ""

    stored = sql(http, f"SELECT message_id FROM event_log WHERE person = '{someone['person']}'")
    assert sorted(seen) == sorted(row["message_id"] for row in stored)
    assert len(seen) == someone["events"]


def test_the_timeline_shows_one_kind_of_event_when_asked(world: Worlds) -> None:
    http = world("plenty").http
    someone = best_customer(http)

    page = http.get(f"/people/{quote(someone['person'], safe='')}?event=Order+Completed").text

    assert set(re.findall(r'class="line-name">([^<]+)<', page)) == {"Order Completed"}


def test_a_merged_key_leads_to_the_person_it_belongs_to(world: Worlds) -> None:
    http = world("little").http

    answer = http.get("/people/default%2Fa%3Afirst-visitor")

    assert answer.status_code == 303
    assert unquote(answer.headers["location"]).startswith("/people/default/u:ann-1?was=default/a:first-visitor")


@pytest.mark.parametrize("key", ["default/u:nobody", "nonsense", "x" * 3_000, "default/u:", "../../etc/passwd", "%00"])
def test_whoever_is_not_there_is_not_found(world: Worlds, key: str) -> None:
    answer = world("little").http.get(f"/people/{quote(key, safe='')}")

    assert answer.status_code == 404
    assert "Not found" in answer.text


def test_a_merge_can_be_undone(world: Worlds) -> None:
    http = world("plenty").http
    someone = sql(http, "SELECT * FROM person_list WHERE length(identities) = 2 ORDER BY person LIMIT 1")[0]
    key = next(key for key in someone["identities"] if key != someone["person"])
    asked = http.get("/unmerge", params={"key": key, "person": someone["person"]})
    assert "Undo this merge?" in asked.text

    form = {"key": key, "person": someone["person"]}
    answer = http.post("/unmerge", data=form, headers={"origin": world("plenty").url})

    assert answer.status_code == 303
    eventually(lambda: sql(http, f"SELECT person FROM identity_list WHERE key = '{key}'") == [{"person": key}])
    eventually(lambda: http.get(f"/people/{quote(key, safe='')}").status_code == 200)
    kept = sql(http, f"SELECT identities FROM person_list WHERE person = '{someone['person']}'")[0]["identities"]
    assert key not in kept


@pytest.mark.parametrize("form", [{}, {"key": "default/u:a"}, {"key": "default/u:a", "person": "default/u:a"},
                                  {"key": "x", "person": "y"}, {"key": "one/u:a", "person": "two/u:b"}])  # fmt: skip
def test_an_order_to_undo_what_cannot_be_is_refused(world: Worlds, form: dict[str, str]) -> None:
    http, url = world("little").http, world("little").url

    assert http.post("/unmerge", data=form, headers={"origin": url}).status_code == 400


# --- rejected


def letters(http: httpx.Client, **query: str) -> list[dict[str, Any]]:
    answer = http.get("/api/rejected", params={"limit": "1000", **query}, headers=AUTHORIZED)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["letters"]
    return found


def test_reasons_are_counted_and_each_letter_is_shown_whole(world: Worlds) -> None:
    http = world("plenty").http
    page = text_of(http.get("/rejected"))
    letter = next(row for row in letters(http, state="all") if row["reason"] == "type is not one of Segment's calls")

    shown = text_of(http.get(f"/rejected/{letter['id']}"))

    assert "type is not one of Segment's calls" in page
    mend = "Send one of identify, track, page, screen, group, alias."
    for told in ("trak", mend, "shop backend", '"userId": "u-1"'):
        assert told in shown


def test_why_something_was_refused_is_said_in_the_readers_language(world: Worlds) -> None:
    page = text_of(world("plenty").http.get("/rejected", headers={"accept-language": "zh"}))

    for reason in ("a track call needs the name of the event", "userId or anonymousId is required",
                   "a group call needs groupId", "type is not one of Segment's calls"):  # fmt: skip
        assert reason not in page
    assert "track 调用需要事件名称" in page


def test_a_mended_record_is_sent_again_and_counts(world: Worlds) -> None:
    http, url = world("plenty").http, world("plenty").url
    letter = next(row for row in letters(http) if row["reason"] == "type is not one of Segment's calls")
    record = http.get(f"/api/rejected/{letter['id']}", headers=AUTHORIZED).json()["body"].replace("trak", "track")

    form = {"record": record.replace("\n", "\r\n")}  # as browsers send it
    answer = http.post(f"/rejected/{letter['id']}", data=form, headers={"origin": url})

    assert answer.status_code == 303
    event = eventually(
        lambda: sql(http, f"SELECT event, attempt FROM event_log WHERE message_id = '{letter['message_id']}'")
    )
    assert event == [{"event": "Order Completed", "attempt": 1}]
    eventually(lambda: letter["id"] in [row["id"] for row in letters(http, state="mended")])
    assert "<textarea" not in http.get(f"/rejected/{letter['id']}").text
    again = http.post("/api/rejected/redrive", json={"id": letter["id"]}, headers=AUTHORIZED)
    assert (again.status_code, "sent again already" in again.text) == (422, True)


def test_a_record_that_is_still_wrong_is_kept_with_what_was_typed(world: Worlds) -> None:
    http, url = world("plenty").http, world("plenty").url
    letter = next(row for row in letters(http) if row["reason"] == "a track call needs the name of the event")

    answer = http.post(f"/rejected/{letter['id']}", data={"record": '{"type": "identify", "typed": "this"'},
                       headers={"origin": url})  # fmt: skip

    assert answer.status_code == 422
    assert "Still refused, nothing was changed" in answer.text
    assert '"typed": "this"' in html.unescape(answer.text)
    assert letter["id"] in [row["id"] for row in letters(http)]


def test_all_of_a_reason_can_be_sent_and_those_refused_again_stay(world: Worlds) -> None:
    http, url = world("plenty").http, world("plenty").url
    reason = "userId or anonymousId is required"
    before = letters(http, reason=reason)

    answer = http.post("/rejected/redrive", data={"reason": reason}, headers={"origin": url})

    told = text_of(http.get(answer.headers["location"]))
    assert f"{len(before)} records would be refused again and stay here." in told
    assert len(letters(http, reason=reason)) == len(before)


@pytest.mark.parametrize("path", ["/rejected/none", "/rejected/" + "x" * 500, "/nowhere", "/static/none.css",
                                  "/static/../app.py", "/static/%2e%2e/app.py", "/overview/none.csv"])  # fmt: skip
def test_what_is_not_there_is_not_found(world: Worlds, path: str) -> None:
    assert world("plenty").http.get(path).status_code == 404


# --- preferences


def test_language_colours_and_zone_are_kept_and_lead_back(world: Worlds) -> None:
    http, url = world("little").http, world("little").url
    form = {"language": "zh", "scheme": "dark", "zone": "Asia/Shanghai", "back": "/people?q=a"}
    answer = http.post("/preferences", headers={"origin": url}, data=form)
    cookies = {cookie.split("=")[0]: cookie for cookie in answer.headers.get_list("set-cookie")}

    page = http.get("/people", headers={"cookie": "language=zh; scheme=dark; zone=Asia/Shanghai"}).text

    assert (answer.status_code, answer.headers["location"]) == (303, "/people?q=a")
    assert all("HttpOnly" in cookie and "SameSite=strict" in cookie for cookie in cookies.values())
    assert '<html lang="zh-Hans" data-theme="dark">' in page
    assert "Asia/Shanghai" in page
    http.cookies.clear()


@pytest.mark.parametrize(
    "form",
    [{"back": "https://evil.example"}, {"back": "//evil.example"}, {"language": "xx", "scheme": "pink", "zone": ".."}],
)
def test_preferences_that_make_no_sense_are_harmless(world: Worlds, form: dict[str, str]) -> None:
    http = world("little").http

    answer = http.post("/preferences", data=form, headers={"origin": world("little").url})

    assert answer.headers["location"] == "/"
    assert [cookie for cookie in answer.headers.get_list("set-cookie") if not cookie.startswith("zone=UTC")] == []
    http.cookies.clear()


# --- the API


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/status"), ("GET", "/api/person?key=x"), ("POST", "/api/sql"), ("GET", "/api/rejected"),
     ("POST", "/api/rejected/redrive")],
)  # fmt: skip
def test_the_api_asks_for_the_token(world: Worlds, method: str, path: str) -> None:
    http, url = world("little").http, world("little").url

    for headers in ({}, {"authorization": "Bearer wrong"}, {"origin": url}):
        assert http.request(method, path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b'{"query": "SELECT 1 AS one"}', 200, ""),
        (b'{"query": "DROP TABLE events"}', 422, "does more than read"),
        (b'{"query": "SELECT * FROM file(\'/etc/passwd\')"}', 422, ""),
        (b'{"query": "SELECT no_such_column FROM event_log"}', 422, "no_such_column"),
        (b'{"query": 7}', 400, "SELECT"),
        (b"{}", 400, "SELECT"),
        (b"[]", 400, "object"),
        (b"\xff", 400, "JSON"),
    ],
)
def test_sql_only_reads(world: Worlds, body: bytes, status: int, told: str) -> None:
    answer = world("little").http.post("/api/sql", content=body, headers=AUTHORIZED)

    assert answer.status_code == status
    assert answer.json().get("rows") == [{"one": 1}] if status == 200 else told in answer.json()["error"]


@pytest.mark.parametrize("key", ["ann-1", "default/u:ann-1", "first-visitor", "default/a:first-visitor"])
def test_a_person_is_told_as_json_by_any_of_her_ids(world: Worlds, key: str) -> None:
    found = world("little").http.get("/api/person", params={"key": key}, headers=AUTHORIZED).json()

    assert found["person"] == "default/u:ann-1"
    assert found["portrait"]["email"] == "ann@mail.example"
    assert {identity["key"] for identity in found["identities"]} == {"default/u:ann-1", "default/a:first-visitor"}
    assert [event["event"] for event in found["events"]] and len(found["timeline"]) == 3


@pytest.mark.parametrize("body", [{}, {"id": "none"}, {"reason": ""}, {"all": "yes"}])
def test_an_order_to_redrive_nothing_is_refused(world: Worlds, body: dict[str, Any]) -> None:
    answer = world("little").http.post("/api/rejected/redrive", json=body, headers=AUTHORIZED)

    assert answer.status_code in (400, 404)
    assert answer.json()["error"]


@pytest.mark.parametrize("scene", ["empty", "little", "plenty", "hostile"])
def test_nothing_went_wrong_behind_the_pages(world: Worlds, scene: str) -> None:
    for path in (*PATHS, "/?range=all", "/people?sort=revenue", "/rejected?state=all"):
        world(scene).http.get(path)

    assert "Traceback" not in world(scene).errors()
