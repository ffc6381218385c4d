"""Segment's API over a real server: paths, write keys, bodies, answers."""

from __future__ import annotations

import gzip
import json
import uuid
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from schemas.event import Event
from streams.log import LogBusy, LogUnavailable
from tests.collector.running import KEY, PUBLIC_KEY, SERVER_KEY, SLOW_KEY, Running
from web.collector.ingest import PATHS

pytestmark = pytest.mark.together


def message_id() -> str:
    return str(uuid.uuid4())


def body(**fields: Any) -> bytes:
    return json.dumps({"userId": "u1", "event": "Bought", "groupId": "g1", "previousId": "p1", **fields}).encode()


def stored(collector: Running, *message_ids: str) -> list[Event]:
    found = {event.message_id: event for event in collector.events()}
    return [found[each] for each in message_ids]


# ---- paths


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", [path for path, kind in PATHS.items() if kind.call and not kind.is_pixel])
def test_each_path_takes_its_call(collector: Running, path: str, slash: str):
    sent = message_id()

    answer = collector.post(path + slash, body(messageId=sent))

    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert stored(collector, sent)[0].type == PATHS[path].call


@pytest.mark.parametrize("path", [path for path, kind in PATHS.items() if not kind.call])
def test_each_batch_path_takes_a_batch(collector: Running, path: str):
    first, second = message_id(), message_id()
    batch = {"batch": [json.loads(body(messageId=each, type="track")) for each in (first, second)], "sentAt": None}

    answer = collector.post(path, json.dumps(batch).encode())

    assert answer.status_code == 200
    assert [event.type for event in stored(collector, first, second)] == ["track", "track"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/track", 405, "POST, OPTIONS"), ("PUT", "/v1/batch", 405, "POST, OPTIONS"),
        ("POST", "/pixel/v1/page", 405, "GET, OPTIONS"), ("POST", "/v1/projects/x/settings", 405, "GET, OPTIONS"),
        ("POST", "/v1/nothing", 404, None), ("POST", "/v1/", 404, None), ("POST", "/v1/track/x", 404, None),
        ("POST", "/v2/track", 404, None),
    ],
)  # fmt: skip
def test_other_paths_and_methods_are_told_so(
    collector: Running, method: str, path: str, status: int, allow: str | None
):
    answer = collector.request(method, path)

    assert (answer.status_code, answer.headers.get("allow")) == (status, allow)


def test_the_browser_sdk_finds_its_settings(collector: Running):
    answer = collector.get(f"/v1/projects/{KEY}/settings", headers={"Origin": "https://shop.example"})

    assert answer.json()["integrations"]["Segment.io"]["apiKey"] == KEY
    assert answer.json()["integrations"]["Segment.io"]["apiHost"] == f"127.0.0.1:{collector.port}/v1"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert collector.get("/v1/projects/unknown/settings").status_code == 404


# ---- pixels


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_segments_pixel_has_the_event_in_data(collector: Running, encode: Callable[[bytes], bytes]):
    sent = message_id()
    data = encode(body(messageId=sent, writeKey=KEY, event="Geöffnet?>~")).decode().rstrip("=")

    answer = collector.get("/v1/pixel/track", params={"data": data}, headers={"User-Agent": "Mail/1"})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
    assert answer.content.startswith(b"GIF89a")
    event = stored(collector, sent)[0]
    assert (event.event, event.context["userAgent"]) == ("Geöffnet?>~", "Mail/1")


def test_rudderstacks_pixel_has_a_parameter_for_each_key(collector: Running):
    sent = message_id()
    query = {
        "writeKey": KEY, "messageId": sent, "anonymousId": "a1", "event": "Opened", "context.page.title": "Hi",
        "properties": '{"n": 1}', "context.page.title.too": "x", "a.b.c.d.e.f.g.h.i.j": "deep",
    }  # fmt: skip

    answer = collector.get("/pixel/v1/track", params=query, headers={"Referer": "https://shop.example/a"})

    event = stored(collector, sent)[0]
    assert answer.status_code == 200
    assert event.context["page"] == {"title": "Hi", "url": "https://shop.example/a"}
    assert (event.properties, event.anonymous_id) == ({"n": 1}, "a1")


@pytest.mark.parametrize("data", ["%%%", "e30", "W10", "bnVsbA", "eyJ3cml0ZUtleSI6IDF9", "=", "é", "WwB" * 2_000])
def test_a_pixel_that_says_nothing_is_refused(collector: Running, data: str):
    before = len(collector.rejected())

    with_key = collector.get("/v1/pixel/track", params={"data": data, "writeKey": KEY})
    without = collector.get("/v1/pixel/track", params={"data": data})

    assert (with_key.status_code, without.status_code) == (200, 401)
    assert len(collector.rejected()) == before + 1


# ---- write keys


def test_the_write_key_may_stand_in_header_body_or_query(collector: Running):
    sent = [message_id() for _ in range(6)]
    basic = b64encode(KEY.encode()).decode()  # without the colon, as old SDKs send it

    answers = [
        collector.post(content=body(messageId=sent[0])),
        collector.post(content=body(messageId=sent[1]), key=None, headers={"Authorization": f"Basic {basic}"}),
        collector.post(content=body(messageId=sent[2], writeKey=KEY), key=None),
        collector.post(content=body(messageId=sent[3]), key=None, params={"writeKey": KEY}),
        collector.post(
            content=body(messageId=sent[4], writeKey=KEY), key=None, headers={"Authorization": "Bearer token"}
        ),
        collector.post(
            "/beacon/v1/batch", json.dumps({"batch": [json.loads(body(messageId=sent[5], type="page"))]}).encode(),
            key=None, params={"writeKey": KEY},
        ),
    ]  # fmt: skip

    assert [answer.status_code for answer in answers] == [200] * 6
    assert {event.source for event in stored(collector, *sent)} == {"tests"}


def test_the_write_key_of_a_batch_may_stand_in_its_body(collector: Running):
    sent = message_id()
    batch = {"batch": [json.loads(body(messageId=sent, type="track"))], "writeKey": KEY}

    assert collector.post("/v1/batch", json.dumps(batch).encode(), key=None).status_code == 200
    assert stored(collector, sent)[0].source == "tests"


@pytest.mark.parametrize("key", [None, "", "wrong", f" {KEY}", "x" * 5_000, "schlüssel"])
def test_without_a_known_write_key_nothing_is_stored(collector: Running, key: str | None):
    sent = message_id()

    answer = collector.post(content=body(messageId=sent, writeKey=key), key=key)

    assert (answer.status_code, answer.json()["success"]) == (401, False)
    assert sent not in {event.message_id for event in collector.events()}


def test_a_key_in_the_header_goes_before_others(collector: Running):
    assert collector.post(content=body(writeKey="wrong"), params={"writeKey": "wrong"}).status_code == 200
    assert collector.post(content=body(writeKey=KEY), key="wrong", params={"writeKey": KEY}).status_code == 401


@pytest.mark.parametrize(
    ("key", "origin", "status"),
    [
        (PUBLIC_KEY, "https://shop.example", 200), (PUBLIC_KEY, None, 200), (PUBLIC_KEY, "https://evil.example", 403),
        (PUBLIC_KEY, "null", 403), (SERVER_KEY, None, 200), (SERVER_KEY, "https://shop.example", 403),
        (KEY, "https://any.example", 200),
    ],
)  # fmt: skip
def test_pages_of_other_origins_may_not_use_a_key(collector: Running, key: str, origin: str | None, status: int):
    headers = {"Origin": origin} if origin else {}

    answer = collector.post(content=body(), key=key, headers=headers)

    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*")


@pytest.mark.parametrize("path", ["/v1/alias", "/v1/batch"])
@pytest.mark.parametrize(
    ("key", "flags"), [(PUBLIC_KEY, ("alias_of_public_key",)), (SERVER_KEY, ()), (KEY, ())],
)  # fmt: skip
def test_an_alias_that_anybody_could_send_says_so(collector: Running, path: str, key: str, flags: tuple[str, ...]):
    sent = {"type": "alias", "userId": "u1", "previousId": "p1", "messageId": message_id()}

    collector.post(path, content=json.dumps({"batch": [sent]} if path == "/v1/batch" else sent), key=key)

    (event,) = stored(collector, sent["messageId"])
    assert event.flags == flags


# ---- bodies


def test_gzip_is_known_by_its_bytes_whatever_the_headers_say(collector: Running):
    plain, packed = message_id(), message_id()

    as_form = collector.post(
        content=gzip.compress(body(messageId=packed)), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    not_packed = collector.post(content=body(messageId=plain), headers={"Content-Encoding": "gzip"})

    assert (as_form.status_code, not_packed.status_code) == (200, 200)
    assert len(stored(collector, plain, packed)) == 2


def test_a_gzip_file_of_several_members_is_read(collector: Running):
    sent = message_id()
    whole = body(messageId=sent)

    assert collector.post(content=gzip.compress(whole[:20]) + gzip.compress(whole[20:])).status_code == 200
    assert len(stored(collector, sent)) == 1


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/json; charset=utf-7", "multipart/form-data; boundary=x",
     "application/x-www-form-urlencoded", "image/gif"],
)  # fmt: skip
def test_the_content_type_is_not_looked_at(collector: Running, content_type: str | None):
    sent = message_id()
    headers = {"Content-Type": content_type} if content_type else {}

    assert collector.post(content=body(messageId=sent), headers=headers).status_code == 200
    assert len(stored(collector, sent)) == 1


def test_a_chunked_body_and_a_byte_order_mark_are_read(collector: Running):
    sent = message_id()
    whole = b"\xef\xbb\xbf" + body(messageId=sent)

    answer = collector.post(content=(whole[n : n + 7] for n in range(0, len(whole), 7)))  # type: ignore[arg-type]

    assert answer.status_code == 200
    assert len(stored(collector, sent)) == 1


# ---- each event alone


def test_one_bad_event_of_a_batch_costs_only_itself(start_collector: Callable[..., Running]):
    collector = start_collector()
    good = [message_id() for _ in range(3)]
    items: list[Any] = [
        json.loads(body(messageId=good[0], type="track")),
        json.loads(body(messageId="no-name", type="track", event="")),
        json.loads(body(messageId=good[1], type="page")), 17, None, [], "text", {},
        json.loads(body(messageId="deep", type="track", properties={"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]})),
        json.loads(body(messageId="large", type="track", properties={"a": "x" * 33_000})),
        json.loads(body(messageId=good[2], type="track")),
    ]  # fmt: skip

    answer = collector.post("/v1/batch", json.dumps({"batch": items}).encode())

    assert answer.status_code == 200
    assert len(stored(collector, *good)) == 3
    rejected = collector.rejected()
    assert len(rejected) == len(items) - 3
    by_id = {letter.message_id: letter for letter in rejected}
    assert by_id["no-name"].reason == "a track call needs the name of the event"
    assert (by_id["no-name"].key, by_id["no-name"].source) == ("default/u:u1", "tests")
    assert json.loads(by_id["no-name"].record)["messageId"] == "no-name"
    assert by_id["large"].reason == "an event has at most 32768 bytes"


def test_invalid_utf8_in_one_event_of_a_batch_costs_only_itself(collector: Running):
    good = message_id()
    items = [body(messageId=good, type="track"), b'{"type":"track","event":"\xff\xfe","userId":"u1"}']

    answer = collector.post("/v1/batch", b'{"batch":[' + b",".join(items) + b"]}")

    assert answer.status_code == 200
    assert len(stored(collector, good)) == 1
    assert items[1] in {letter.record for letter in collector.rejected()}


def test_a_refused_event_alone_is_answered_200_and_kept(collector: Running):
    sent = message_id()

    answer = collector.post("/v1/group", body(messageId=sent, groupId=None))

    assert answer.status_code == 200
    letter = next(letter for letter in collector.rejected() if letter.message_id == sent)
    assert (letter.by, letter.field, letter.workspace) == ("collector", "groupId", "default")


def test_the_same_event_refused_twice_has_the_same_id(collector: Running):
    known = message_id()
    sent = body(messageId=known, event="")

    collector.post(content=sent)
    collector.post(content=sent)

    letters = [letter for letter in collector.rejected() if letter.message_id == known]
    assert len(letters) == 2
    assert letters[0].id == letters[1].id


def test_received_is_accepted_and_rejected(start_collector: Callable[..., Running]):
    collector = start_collector()
    good, bad = json.loads(body(type="track")), {"type": "track"}

    collector.post(content=body())
    collector.post(content=body(event=""))
    collector.post("/v1/batch", json.dumps({"batch": [good, bad, bad, good, good]}).encode())
    collector.post("/v1/batch", b"{")
    collector.post(content=body(), key="wrong")
    collector.log.faults.append(LogBusy("full"))
    collector.post(content=body())

    count = collector.counted
    assert count("received_events_total", source="tests") == 7
    assert count("accepted_events_total", source="tests") == 4 == len(collector.events())
    assert count("rejected_events_total", source="tests") == 3 == len(collector.rejected())
    assert {status: count("requests_total", status=status) for status in ("200", "400", "401", "503")} == {
        "200": 3, "400": 1, "401": 1, "503": 1,
    }  # fmt: skip


# ---- times


def test_sent_at_of_the_header_counts_where_the_body_has_none(collector: Running):
    sent = message_id()

    collector.post(
        content=body(messageId=sent, originalTimestamp="2020-01-01T00:00:00Z"),
        headers={"SentAt": "2020-01-01T00:00:10Z"},
    )

    event = stored(collector, sent)[0]
    assert (event.received_at - event.timestamp).total_seconds() == 10


# ---- come again


@pytest.mark.parametrize("fault", [LogBusy("the log is full", 3), LogUnavailable("the disk is gone", 3)])
@pytest.mark.parametrize("events", [1, 2])
def test_while_the_log_takes_nothing_the_client_is_asked_to_come_again(
    start_collector: Callable[..., Running], fault: Exception, events: int
):
    collector = start_collector()
    collector.log.faults += [fault] * events
    items = [json.loads(body(messageId=f"m{n}", type="track", event="A" * (n % 2))) for n in range(events)]
    request = json.dumps({"batch": items}).encode()

    busy, later = collector.post("/v1/batch", request), collector.post("/v1/batch", request)

    assert (busy.status_code, busy.headers["retry-after"]) == (503, "3")
    assert "Retry-After" in busy.headers["access-control-expose-headers"]
    assert later.status_code == 200
    assert len(collector.events()) + len(collector.rejected()) == events


def test_a_fault_of_the_log_that_nobody_foresaw_is_no_traceback(start_collector: Callable[..., Running]):
    collector = start_collector()
    collector.log.faults.append(ZeroDivisionError("a bug"))

    answer = collector.post(content=body())

    assert (answer.status_code, answer.json()["message"]) == (503, "The log cannot take the events.")


def test_a_long_lag_answers_503_and_a_short_one_200(start_collector: Callable[..., Running]):
    collector = start_collector()
    collector.lag = collector.settings.most_lag

    behind = collector.post(content=body())
    collector.lag -= 1
    caught_up = collector.post(content=body())

    assert (behind.status_code, int(behind.headers["retry-after"]) >= 1) == (503, True)
    assert caught_up.status_code == 200
    assert len(collector.events()) == 1


def test_a_key_that_sends_too_fast_is_told_when_to_come_again(start_collector: Callable[..., Running]):
    seconds = [0.0]
    collector = start_collector(monotonic_s=lambda: seconds[0])
    batch = json.dumps({"batch": [json.loads(body(type="track"))] * 4}).encode()

    answers = [collector.post("/v1/batch", batch, key=SLOW_KEY) for _ in range(2)]
    seconds[0] = 1.9
    early = collector.post("/v1/batch", batch, key=SLOW_KEY)
    seconds[0] = 2.0
    in_time = collector.post("/v1/batch", batch, key=SLOW_KEY)

    assert [answer.status_code for answer in (*answers, early, in_time)] == [200, 429, 429, 200]
    assert (answers[1].headers["retry-after"], early.headers["retry-after"]) == ("2", "1")
    assert collector.post(content=body()).status_code == 200  # other keys are not held up
    assert len(collector.events()) == 9


def test_a_batch_larger_than_the_burst_passes_a_full_bucket_and_is_paid_back(start_collector: Callable[..., Running]):
    seconds = [0.0]
    collector = start_collector(monotonic_s=lambda: seconds[0])
    batch = json.dumps({"batch": [json.loads(body(type="track"))] * 20}).encode()

    first, second = (collector.post("/v1/batch", batch, key=SLOW_KEY) for _ in range(2))

    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["retry-after"] == "8"  # until the debt of 16 is paid; known before the body is read


# ---- browsers


@pytest.mark.parametrize("path", ["/v1/track", "/v1/b", "/v1/projects/x/settings", "/beacon/v1/batch"])
def test_a_preflight_allows_what_sdks_send_and_is_kept(collector: Running, path: str):
    answer = collector.request(
        "OPTIONS", path, headers={"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    )

    allowed = {header.strip() for header in answer.headers["access-control-allow-headers"].split(",")}
    assert answer.status_code == 204
    assert allowed >= {"authorization", "content-type", "anonymousid", "sentat", "x-retry-count"}
    assert answer.headers["access-control-allow-origin"] == "*"
    assert int(answer.headers["access-control-max-age"]) >= 7_200


# ---- beside ingest


def test_health_is_told(start_collector: Callable[..., Running]):
    collector = start_collector()

    well = collector.get("/readyz")
    collector.lag = collector.settings.most_lag
    behind = collector.get("/readyz")

    assert collector.get("/healthz").text == "ok\n"
    assert (well.status_code, well.json()) == (200, {"ready": True, "log": "ok", "lag": 0})
    assert (behind.status_code, behind.json()["ready"]) == (503, False)


def test_the_snippet_is_served_packed_and_cached(collector: Running):
    answer = collector.get("/tidewire.js")
    again = collector.get("/tidewire.js", headers={"If-None-Match": answer.headers["etag"]})

    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (answer.headers["access-control-allow-origin"], answer.headers["content-encoding"]) == ("*", "gzip")
    assert "max-age" in answer.headers["cache-control"]
    assert (again.status_code, again.content) == (304, b"")


def test_metrics_carry_no_text_of_clients(collector: Running):
    collector.post(content=body(event="SECRET-NAME", userId="SECRET-USER", type="SECRET-TYPE"))
    collector.post(content=body(event="", userId="SECRET-USER"))
    collector.post("/v1/batch", b'{"batch":[{"type":"SECRET"}]}')

    text = collector.get("/metrics").text

    assert 'rejected_events_total{reason="type is not one of Segment\'s calls",source="tests"}' in text
    assert "SECRET" not in text


# ---- many at once


def test_requests_at_once_are_all_stored_once(collector: Running):
    sent = [message_id() for _ in range(200)]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda each: collector.post(content=body(messageId=each)), sent))

    assert {answer.status_code for answer in answers} == {200}
    found = [event.message_id for event in collector.events()]
    assert [found.count(each) for each in sent] == [1] * 200
