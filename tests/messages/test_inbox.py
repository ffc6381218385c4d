"""The inbox answers who has a token, with her own messages and nothing else, and says what is wrong."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config.inbox_keys import load_inbox_keys, read_inbox_keys
from config.settings import Settings
from processors.base import Table
from schemas.errors import ConfigError, TidewireError
from schemas.event import decode_event
from schemas.keys import LONGEST_ID, is_blocked
from schemas.messages import READ
from schemas.templates import LONGEST_INBOX
from schemas.times import to_ms
from sinks.analytics import Analytics, ClickHouseAway
from sinks.messages.person_tokens import LONGEST_LIFE_S, LONGEST_TOKEN, PersonTokens, WrongToken
from sinks.messages.tables import INBOX, INBOX_READS, TABLES, InboxReadRow, InboxRow
from sinks.messages.templating import CannotFill
from sinks.migrate import migrate
from sinks.tables import columns_from
from streams.cli.app import app
from streams.embedded import EmbeddedLog
from streams.log import TP, LogBusy
from streams.roles import Running, _analytics_of_inboxes
from streams.topics import create_topics
from tests.collector.running import Faulty
from tests.messages.test_files import read_text
from tests.messages.test_inbox_whole_way import CHANNELS, PAGE, TEMPLATE, inbox_token
from tests.messages.test_links import key_file
from tests.sinks.conftest import chdb  # noqa: F401 - a fixture
from web.dashboard.queries.people import cursor
from web.inbox.app import AT_ONCE, LARGEST_BODY_BYTES, MOST_IDS, MOST_MARKED, MOST_MESSAGES, PER_S, USUAL, inbox_app
from web.links.limits import Limits

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ONE, OTHER, OLD = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
NOWHERE = Analytics("clickhouse://tidewire@127.0.0.1:9/tidewire")  # for what is answered without asking it
KEYS = {"shop": [ONE, OLD], "other": [OTHER]}
FILE = f"shop 2026-11-21 {ONE.hex()}\nother 2026-11-21 {OTHER.hex()}\n# the one before\nshop 2025-10-02 {OLD.hex()}\n"


def tokens(at: datetime = NOW) -> PersonTokens:
    return PersonTokens(KEYS, at.timestamp)


# --- tokens


@given(user_id=st.text(min_size=1, max_size=LONGEST_ID).filter(lambda text: not is_blocked(text)))
@settings(max_examples=30, deadline=None)
def test_a_token_names_the_person_that_it_was_made_for(user_id: str) -> None:
    ours, theirs = tokens().sign("shop", user_id, 60), inbox_token(ONE.hex(), "shop", user_id, 60)

    assert tokens().read(ours) == f"shop/u:{user_id}"
    assert PersonTokens(KEYS).read(theirs) == f"shop/u:{user_id}" and len(ours) <= LONGEST_TOKEN


def test_a_token_with_one_other_sign_opens_nothing() -> None:
    good = tokens().sign("shop", "ada", 3_600)

    for place, sign in enumerate(good):
        for other in {"A", "B", "0", "1", ".", "=", "é", chr(ord(sign) ^ 1)} - {sign}:
            with pytest.raises(WrongToken):
                tokens().read(good[:place] + other + good[place + 1 :])
    for wrong in ("", good[:-1], good + "A", good + "=", f"{good}\n", good * 60, "a" * 10_240, "shop.." + good):
        with pytest.raises(WrongToken, match="not known here"):
            tokens().read(wrong)


def test_a_token_is_of_one_person_one_workspace_and_its_time() -> None:
    ada, bob = tokens().sign("shop", "ada", 60), tokens().sign("shop", "bob", 60)
    hers, his = ada.split("."), bob.split(".")
    of_other = PersonTokens({"shop": [OTHER]}, NOW.timestamp).sign("shop", "ada", 60)
    by_old = PersonTokens({"shop": [OLD]}, NOW.timestamp).sign("shop", "ada", 60)

    assert tokens().read(by_old) == "shop/u:ada"  # a key that is changed is still read
    for wrong in (".".join([*his[:2], *hers[2:]]), "other" + ada.removeprefix("shop"), of_other,
                  tokens().sign("other", "ada", 60).replace("other", "nobody")):  # fmt: skip
        with pytest.raises(WrongToken, match="not known here"):
            tokens().read(wrong)
    with pytest.raises(WrongToken, match=r"has ended.*a new one"):
        tokens(NOW + timedelta(seconds=60)).read(ada)
    in_ms = inbox_token(ONE.hex(), "shop", "ada", 10**12)
    with pytest.raises(WrongToken, match=r"more than 30 days.*not in milliseconds"):
        tokens().read(in_ms)


@pytest.mark.parametrize("user_id", ["undefined", "0", "x" * (LONGEST_ID + 1)])
def test_a_token_of_nobody_opens_nothing(user_id: str) -> None:
    with pytest.raises(WrongToken, match=r"stands for nobody|not known"):
        PersonTokens(KEYS).read(inbox_token(ONE.hex(), "shop", user_id))


def test_what_a_backend_signs_that_is_no_id_is_refused() -> None:
    for user in ("A", "_w"):  # no Base64, no UTF-8
        said = f"shop.{user}.{int(NOW.timestamp()) + 60}"
        with pytest.raises(WrongToken, match="not known here"):
            tokens().read(tokens()._signers["shop"].sign(said).decode())


# --- keys


def test_keys_are_those_of_their_workspace_the_newest_first(tmp_path: Path) -> None:
    keys = read_inbox_keys(key_file(tmp_path, FILE))

    assert {workspace: [key.secret for key in own] for workspace, own in keys.items()} == KEYS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"holds no key.*echo .shop \$\(date"),
        (f"2026-11-21 {ONE.hex()}\n", r"line 1: has 2 words; a key has three"),
        (f"Shop 2026-11-21 {ONE.hex()}\n", "line 1: its first word is no workspace"),
        (f"shop one {ONE.hex()[1:]}\n", "has 63 characters"),
        (f"shop {ONE.hex()} one\n", "the name is as long as a secret"),
        (f"shop one {ONE.hex()}\nshop two {ONE.hex()}\n", "line 2: .* stands above, too"),
        (f"shop one {ONE.hex()}\nother one {ONE.hex()}\n", "line 2: its secret stands above, for another workspace"),
        ("".join(f"shop k{number} {number:064x}\n" for number in range(11)), "holds 11 keys of shop; at most 10"),
    ],
)
def test_what_is_no_key_of_an_inbox_is_refused_and_never_shown(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        read_inbox_keys(key_file(tmp_path, text))

    assert ONE.hex()[:16] not in str(error.value)


def test_keys_are_made_beside_the_embedded_log_once_there_is_an_inbox(tmp_path: Path) -> None:
    given_ = {"data": tmp_path / "data", "config": tmp_path, "workspace": "shop"}

    assert load_inbox_keys(Settings(**given_)) == {} and list(tmp_path.iterdir()) == []
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    assert load_inbox_keys(Settings(**given_, log="kafka://kafka:9092")) == {}
    keys = load_inbox_keys(Settings(**given_))

    file = tmp_path / "data" / "inbox_keys"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and list(keys) == ["shop"]
    assert load_inbox_keys(Settings(**given_, inbox_keys=str(file), log="kafka://kafka:9092")) == keys
    with pytest.raises(ConfigError, match=r"inbox_keys: .*nowhere is not there\. Make it by .*shop"):
        load_inbox_keys(Settings(**given_, inbox_keys=str(tmp_path / "nowhere")))


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    def ask(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["inbox", "token", "ada", "--data", str(tmp_path), "--config", str(tmp_path),
                                          *arguments])  # fmt: skip
        assert isinstance(result.exception, TidewireError)
        return str(result.exception)

    assert "no key of an inbox: write `inbox: {via: inbox}`" in ask()
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    assert "'soon' is no time; write 90s" in ask("--for", "soon")
    assert 'no key of workspace "more"; those with one: default' in ask("--workspace", "more")
    assert "more than 30 days" in ask("--for", "31d")


# --- what is asked


class Gate:
    """An inbox over chDB, whose clock stands still unless it is moved."""

    def __init__(self, folder: Path, analytics: Analytics | None, log: Any = None, **options: Any) -> None:
        self.now = NOW
        self.registry = CollectorRegistry()
        given_ = Settings(data=folder, inbox_keys=str(key_file(folder, FILE)))
        self.log = log
        site = inbox_app(log, given_, self.registry, analytics, clock=lambda: self.now, **options)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://gate")

    def token(self, user_id: str = "ada", workspace: str = "shop") -> str:
        return PersonTokens(KEYS, self.now.timestamp).sign(workspace, user_id, 60)

    async def ask(self, path: str = "/inbox", who: str = "ada", method: str = "GET", workspace: str = "shop",
                  **options: Any) -> httpx.Response:  # fmt: skip
        headers = {"authorization": f"Bearer {self.token(who, workspace)}", **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)

    async def ids(self, who: str = "ada", workspace: str = "shop", **query: Any) -> list[str]:
        answer = await self.ask(who=who, workspace=workspace, params=query)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["messages"]]

    async def read(self, who: str = "ada", workspace: str = "shop", **body: Any) -> httpx.Response:
        return await self.ask("/inbox/read", who, "POST", workspace, content=json.dumps(body))

    async def values(self, topic: str) -> list[bytes]:
        found: list[bytes] = []
        for partition, (first, end) in (await self.log.bounds(topic)).items():
            found += [each.value for each in await self.log.read(TP(topic, partition), first, 100)] if end else []
        return found


async def put(analytics: Analytics, table: Table, key: str, *rows: InboxRow | InboxReadRow) -> None:
    ours = {"workspace": [key.partition("/")[0]] * len(rows), "key": [key] * len(rows), "version": [1] * len(rows)}
    await analytics.insert(table.name, ours | columns_from(rows))


def row(id_: str, days_ago: float = 0) -> InboxRow:
    return InboxRow(id=id_, kept_at=NOW - timedelta(days=days_ago), template="parcel", topic="offers", language="en",
                    subject=id_, text="", html="", link="")  # fmt: skip


@pytest.fixture
async def gate(tmp_path: Path, chdb: Analytics) -> AsyncIterator[Gate]:  # noqa: F811
    """Ada, who was a visitor and u-old before, has five messages and one that is too old; Bob has one."""
    await migrate(chdb, TABLES)
    await put(chdb, INBOX, "shop/u:ada", row("a1", 1), row("a2", 1), row("a3", 2), row("gone", 90.001))
    await put(chdb, INBOX, "shop/a:visitor", row("v1", 3))
    await put(chdb, INBOX, "shop/u:u-old", row("o1", 89.999))
    await put(chdb, INBOX, "shop/u:bob", row("b1"))
    await put(chdb, INBOX, "other/u:ada", row("x1"))
    await put(chdb, INBOX_READS, "shop/a:visitor", InboxReadRow("v1", NOW))
    keys = ["shop/a:visitor", "shop/u:u-old", "shop/u:ada"]
    await chdb.insert("identities", {"workspace": ["shop"] * 3, "key": keys, "person": ["shop/u:ada"] * 3,
                                     "moves": [1] * 3})  # fmt: skip
    of_old = {"workspace": ["shop", "shop"], "key": ["shop/u:ada", "shop/u:u-old"], "identities": [keys, []],
              "merged_into": ["", "shop/u:ada"], "revision": [2, 2], "updated_at": [to_ms(NOW)] * 2}  # fmt: skip
    await chdb.insert("people", of_old)
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=tmp_path, partitions=1))
    yield Gate(tmp_path, chdb, Faulty(log))
    await log.stop()


async def test_everybody_reads_her_own_messages_and_no_others(gate: Gate) -> None:
    hers = ["a2", "a1", "a3", "v1", "o1"]

    assert await gate.ids() == await gate.ids("u-old") == hers  # whichever of her ids the token names
    assert (await gate.ids("bob"), await gate.ids("ada", "other"), await gate.ids("nobody")) == (["b1"], ["x1"], [])
    assert await gate.ids(unread=1) == [id_ for id_ in hers if id_ != "v1"]
    gate.now += timedelta(days=1)
    assert await gate.ids() == hers[:-1]


async def test_pages_lose_and_repeat_nothing_and_a_cursor_shows_nobody_else(gate: Gate) -> None:
    seen, following = [], ""
    while len(seen) < 10:
        told = (await gate.ask(params={"limit": 2, "cursor": following})).json()
        assert told["unread"] == 4
        seen += [each["id"] for each in told["messages"]]
        following = told["next"]
        if not following:
            break

    assert seen == ["a2", "a1", "a3", "v1", "o1"]
    assert await gate.ids(cursor=cursor(to_ms(NOW) + 1, "zz"), limit=100) == seen  # made up, and still only hers
    for each in ("x", "é", "%00", cursor(-1, ""), cursor(2**63, "a"), cursor("a", "b"), cursor(1, "a" * 101), "W10",
                 "A" * 9_999):  # fmt: skip
        answer = await gate.ask(params={"cursor": each})
        assert (answer.status_code, "`cursor` is none" in answer.text) == (400, True), each
    assert await gate.ids(cursor=cursor(5, "' OR 1 = 1 --")) == []
    for limit in ("0", "101", "-1", "1.5", "٣", "a"):
        assert (await gate.ask(params={"limit": limit})).status_code == 400


async def test_marks_are_of_her_own_messages_and_one_event_each(gate: Gate) -> None:
    nobodys = await gate.read(ids=["b1", "x1", "gone", "' OR 1 = 1", "v1"])
    his = await gate.read("bob", ids=["a1", "a3"])
    marked = await gate.read("u-old", ids=["a1", "o1", "b1"])
    again = await gate.read(ids=["a1"])  # before ClickHouse knows of it

    assert nobodys.json() == his.json() == {"read": []}
    assert (marked.json(), again.json()) == ({"read": ["a1", "o1"]}, {"read": ["a1"]})
    events = [decode_event(value) for value in await gate.values("events")]
    assert {(event.event, event.source, event.key, event.timestamp) for event in events} == {
        (READ, "tidewire", f"shop/u:{who}", NOW) for who in ("u-old", "ada")}  # fmt: skip
    assert len(events) == 3 and len({event.message_id for event in events}) == 2
    assert events[0].properties == {"message_id": "a1", "template": "parcel", "topic": "offers", "channel": "inbox"}
    rows = [json.loads(value) for value in await gate.values("rows")]
    assert {(each["table"], each["key"], each["values"]["id"]) for each in rows} == {
        ("inbox_reads", "shop/u:ada", "a1"), ("inbox_reads", "shop/u:u-old", "o1")}  # fmt: skip

    gate.log.faults.append(LogBusy("full", 7))
    refused = await gate.read("bob", all=True)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
    assert (await gate.read("bob", all=True)).json() == {"read": ["b1"]}


async def test_a_body_that_is_none_is_refused_with_the_mend(tmp_path: Path) -> None:
    gate = Gate(tmp_path, NOWHERE)
    for body in ("", "[]", "{}", '{"ids": ["a"], "all": true}', '{"ids": [1]}', '{"ids": ["%s"]}' % ("a" * 65),
                 '{"all": "yes"}', '{"ids": ["a"], "person": "bob"}', "[" * 5_000, '{"ids": ["\udcff"]}',
                 json.dumps({"ids": ["a"] * (MOST_IDS + 1)}), " " * LARGEST_BODY_BYTES + "{}"):  # fmt: skip
        answer = await gate.ask("/inbox/read", method="POST", content=body.encode("utf-8", "surrogateescape"))
        assert (answer.status_code, 'The body is {"ids"' in answer.json()["message"]) == (400, True), body[:50]


async def test_who_asks_too_often_is_told_when_to_come_and_others_are_not(tmp_path: Path) -> None:
    gate = Gate(tmp_path, NOWHERE, limits=Limits(0.001, 3))
    for wrong in ({"limit": "0"}, {"unread": "2"}, {"cursor": "x"}):
        assert (await gate.ask(params=wrong)).status_code == 400

    refused = await gate.ask()

    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert (await gate.ask(who="bob", params={"limit": "0"})).status_code == 400


async def test_without_a_token_of_ours_nothing_is_said_and_no_token_is_logged(tmp_path: Path) -> None:
    nowhere = Analytics(str(NOWHERE.place))
    gate = Gate(tmp_path, nowhere)
    good = gate.token()

    with capture_logs() as lines:
        for value in ("", "Bearer", "Bearer ", f"Basic {good}", good, f"Bearer {good[:-1]}", "Bearer " + "a" * 10_240,
                      "Bearer \u00e9"):  # fmt: skip
            answer = await gate.client.get("/inbox", headers={"authorization": value.encode("latin-1")})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="inbox"'), value
            assert "docs/inbox.md" in answer.json()["message"] and answer.headers["cache-control"] == "no-store"
        away = await gate.ask()
    await nowhere.close()

    assert (away.status_code, away.headers["retry-after"]) == (503, "5")
    assert "Retry-After" in away.headers["access-control-expose-headers"]
    assert [line["event"] for line in lines] == ["inbox_not_read"] and good not in str(lines)
    assert gate.registry.get_sample_value("tidewire_inbox_requests_total", {"asked": "list", "status": "401"}) == 8


async def test_pages_of_every_origin_may_ask_and_other_ways_lead_nowhere(tmp_path: Path) -> None:
    gate = Gate(tmp_path, None)
    preflight = await gate.client.options("/inbox/read", headers={"origin": "https://shop.example"})
    said = [(await gate.client.request(method, path)).status_code for method, path in (
        ("POST", "/inbox"), ("GET", "/inbox/read"), ("GET", "/inbox/"), ("GET", "/inbox/other"),
        ("HEAD", "/inbox"))]  # fmt: skip

    assert preflight.status_code == 204 and preflight.headers["access-control-allow-origin"] == "*"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert said == [405, 405, 404, 404, 405]
    nowhere = await gate.ask()  # a process without ClickHouse
    assert nowhere.status_code == 404 and "There is no inbox here" in nowhere.text


async def test_a_collector_asks_a_server_and_leaves_chdb_to_the_process_of_the_sink(tmp_path: Path) -> None:
    server = str(NOWHERE.place)

    async with AsyncExitStack() as stack:
        alone = Running(Settings(data=tmp_path, analytics=server, analytics_password="a"), EmbeddedLog(tmp_path), "")
        found = _analytics_of_inboxes(alone, stack)
        assert found is not None and str(found.place) == server
        assert _analytics_of_inboxes(Running(Settings(data=tmp_path), EmbeddedLog(tmp_path), ""), stack) is None
        alone._analytics = found
        assert _analytics_of_inboxes(alone, stack) is found
    with pytest.raises(ClickHouseAway, match="is closed"):
        await found.query("SELECT 1")


# --- what is written, and the page


def test_a_link_leads_to_an_address_and_what_is_too_long_is_not_sent(tmp_path: Path) -> None:
    text = TEMPLATE.replace('"https://shop.example/orders/{{ given.order | urlencode }}"', '"{{ given.link }}"')
    template = read_text(text, tmp_path)

    assert template.render({}, {"order": "1", "link": "https://shop.example/?a=1"}).link == "https://shop.example/?a=1"
    for link in ("javascript:alert(1)", " JavaScript:alert(1)", "data:text/html,x", "//evil.example", "https://a\u202eb",
                 "https://" + "a" * 2_000):  # fmt: skip
        with pytest.raises(CannotFill, match="link"):
            template.render({}, {"order": "1", "link": link})
    with pytest.raises(CannotFill, match=f"in the inbox at most {LONGEST_INBOX:,}"):
        read_text(text.replace("it comes tomorrow", "{{ given.long }}"), tmp_path).render(
            {}, {"order": "1", "link": "https://a", "long": "a" * LONGEST_INBOX})  # fmt: skip
    with pytest.raises(ConfigError, match=r'content\.en\.link.*javascript:'):
        read_text(text.replace("{{ given.link }}", "javascript:{{ given.link }}"), tmp_path)


def test_the_page_says_what_the_code_does() -> None:
    page = " ".join(PAGE.split())
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    fields = Settings.model_fields

    assert set(json.loads(example)) == {"messages", "unread", "next"}
    for limit in (f"`limit` ({USUAL}; at most {MOST_MESSAGES})", f"`{{\"ids\": [\"…\"]}}`, at most {MOST_IDS}",
                  f"newest {MOST_MARKED:,}", f"`{READ}`", f"{PER_S} requests a second of one person, {AT_ONCE} at once",
                  f"at most {LONGEST_INBOX:,} characters together", f"at most {LONGEST_LIFE_S // 86_400} days from now",
                  f"for {fields['inbox_days'].default} days, setting `inbox_days`",
                  f"after {fields['outbox_days'].default} days, setting `outbox_days`"):  # fmt: skip
        assert limit in page, limit
