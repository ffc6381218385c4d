"""The inbox from the order to the mark that a message was read, with a real `up`: the example of docs/inbox.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.cli.running import Up
from tests.conftest import BROWSERS
from tests.dashboard.conftest import ARGUMENTS
from web.collector.app import SNIPPET

pytestmark = pytest.mark.together

PAGE = Path("docs/inbox.md").read_text(encoding="utf-8")
CHANNELS, TEMPLATE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
JAVASCRIPT = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)[0]
MARKETING = TEMPLATE.replace("transactional", "marketing\ntopic: offers")
ADA = "u-17"
KEY = "trial-key"
PUBLIC = "https://go.shop.test"
FINAL = ("sent", "failed", "withheld", "unknown")


def inbox_token(secret: str, workspace: str, user_id: str, life_s: int = 3_600) -> str:
    """As the example of the page makes it."""
    names: dict[str, Any] = {}
    exec(PYTHON, names)
    return str(names["inbox_token"](secret, workspace, user_id, life_s))


class Shop(Up):
    """An `up` with an inbox, and the backend of a shop that has its secret."""

    def __init__(self, folder: Path) -> None:
        self.http = httpx.Client(timeout=20, trust_env=False)
        (folder / "config" / "templates").mkdir(parents=True)
        (folder / "config" / "channels.yaml").write_text(CHANNELS)
        for name, text in (("parcel", TEMPLATE), ("offer", MARKETING)):
            (folder / "config" / "templates" / f"{name}.yaml").write_text(text)
        super().__init__(folder, TIDEWIRE_WRITE_KEYS=KEY, TIDEWIRE_PUBLIC_URL=PUBLIC)
        calls: list[dict[str, Any]] = [
            {"type": "identify", "userId": ADA, "traits": {"name": "<b>Ada</b>"}},
            {"type": "identify", "userId": "bob", "traits": {"name": "Bob"}},
            {"type": "page", "anonymousId": "visitor", "properties": {"path": "/"}},
        ]
        self.tell(*calls)
        self.until(lambda: len(self.rows("SELECT person FROM person_list")) == len(calls))
        (line,) = (folder / "data" / "inbox_keys").read_text().splitlines()
        self.workspace, _, self.secret = line.split()

    def tell(self, *calls: dict[str, Any]) -> None:
        answer = self.http.post(f"{self.url}/v1/batch", json={"batch": calls}, auth=(KEY, ""))
        assert answer.status_code == 200

    def api(self, path: str, **body: Any) -> Any:
        """What the API says, which is what commands ask: a process each would take longer than all the rest."""
        answer = self.http.request("POST" if body else "GET", f"{self.url}/api/{path}", json=body or None,
                               headers=bearer(str(self._said("token"))))  # fmt: skip
        return answer.json() if answer.status_code == 200 else {}

    def rows(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.api("sql", query=query)["rows"]
        return rows

    def until(self, reached: Callable[[], bool]) -> None:
        by = time.monotonic() + 30
        while not reached():
            assert time.monotonic() < by, (self.folder / "up.log").read_text()[-2000:]
            time.sleep(0.1)

    def send(self, who: str, template: str = "parcel", order: str = "A-1") -> tuple[str, str]:
        """Its state, with why, and its id."""
        id_ = self.api("messages", template=template, to=who, given={"order": order})["message"]
        self.until(lambda: self.api(f"messages/{id_}").get("state") in FINAL)
        row = self.api(f"messages/{id_}")
        return ": ".join(filter(None, (row["state"], row["why"]))), id_

    def token(self, user_id: str) -> str:
        return inbox_token(self.secret, self.workspace, user_id)

    def get(self, user_id: str, **query: Any) -> Any:
        answer = self.http.get(f"{self.url}/inbox", params=query, headers=bearer(self.token(user_id)))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def read(self, user_id: str, **body: Any) -> Any:
        answer = self.http.post(f"{self.url}/inbox/read", json=body, headers=bearer(self.token(user_id)))
        assert answer.status_code == 200, answer.text
        return answer.json()["read"]

    def ids(self, user_id: str, **query: Any) -> list[str]:
        return [each["id"] for each in self.get(user_id, **query)["messages"]]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("inbox"))
    yield shop
    shop.http.close()
    shop.stop()


def test_a_message_comes_into_her_inbox_and_is_read_once(shop: Shop) -> None:
    state, id_ = shop.send(ADA)
    shop.until(lambda: shop.ids(ADA) == [id_])
    told = shop.get(ADA)

    assert state == "sent" and (told["unread"], told["next"]) == (1, "")
    (message,) = told["messages"]
    assert (message["title"], message["text"], message["link"], message["read"]) == (
        "Parcel A-1 is on its way", "Hello <b>Ada</b>, it comes tomorrow.", "https://shop.example/orders/A-1",
        False)  # fmt: skip
    assert "<b>&lt;b&gt;Ada&lt;/b&gt;</b>" in message["html"]
    assert '<a href="https://shop.example/help">' in message["html"]
    assert PUBLIC not in message["html"]  # nothing in it is tracked
    page = shop.http.get(f"{shop.url}/messages/{id_}").text
    assert "It is in her inbox" in page and "Not yet" in page and "https://shop.example/orders/A-1" in page

    assert shop.read("bob", ids=[id_]) == shop.read("bob", all=True) == []  # it is none of his
    assert shop.read(ADA, ids=[id_, "0" * 32]) == [id_]
    shop.read(ADA, all=True)  # once more, whether the mark is known yet or not
    shop.until(lambda: shop.get(ADA)["unread"] == 0)
    rows = shop.rows("SELECT person, event, toString(properties.template) AS template FROM event_log "
                     f"WHERE toString(properties.message_id) = '{id_}' AND event = 'Message Read'")  # fmt: skip

    assert rows == [{"person": f"default/u:{ADA}", "event": "Message Read", "template": "parcel"}]
    assert shop.get(ADA)["messages"] == [{**message, "read": True}] and shop.ids(ADA, unread=1) == []
    assert shop.ids("bob") == [] and shop.read(ADA, ids=[id_]) == []
    assert "Not yet" not in shop.http.get(f"{shop.url}/messages/{id_}").text


def test_pages_follow_each_other_and_unread_ones_stand_alone(shop: Shop) -> None:
    sent = [shop.send("bob", order=f"B-{number}")[1] for number in range(3)]
    shop.until(lambda: len(shop.ids("bob")) == 3)

    first = shop.get("bob", limit=2)
    second = shop.get("bob", limit=2, cursor=first["next"])
    shop.read("bob", ids=[sent[1]])
    shop.until(lambda: shop.get("bob")["unread"] == 2)

    assert [each["id"] for each in first["messages"]] == [sent[2], sent[1]]
    assert [each["id"] for each in second["messages"]] == [sent[0]] and second["next"] == ""
    assert shop.ids("bob", unread=1) == [sent[2], sent[0]]


def test_who_was_merged_has_the_messages_of_all_her_ids(shop: Shop) -> None:
    before = shop.send("visitor")[1]
    shop.tell({"type": "identify", "userId": "eve", "anonymousId": "visitor", "traits": {"name": "Eve"}})
    shop.until(lambda: shop.ids("eve") == [before])

    assert shop.read("eve", all=True) == [before]
    shop.until(lambda: shop.get("eve")["unread"] == 0)


def test_what_was_kept_ends_by_itself(shop: Shop) -> None:
    made = shop.rows("SELECT name, extract(engine_full, 'toIntervalDay\\\\((\\\\d+)\\\\)') AS days FROM system.tables "
                     "WHERE name IN ('inbox', 'inbox_reads', 'outbox', 'messages') ORDER BY name")  # fmt: skip

    assert {row["name"]: row["days"] for row in made} == {
        "inbox": "90", "inbox_reads": "90", "outbox": "400", "messages": ""}  # fmt: skip


def test_marketing_comes_into_the_inbox_of_who_wants_it_there(shop: Shop) -> None:
    assert shop.send("bob", "offer")[0] == "withheld: no_consent"

    shop.tell({"type": "identify", "userId": "bob", "traits": {"consent": {"offers": {"inbox": True}}}})

    assert shop.send("bob", "offer")[0] == "sent"


@pytest.mark.node
def test_node_and_the_command_make_the_same_tokens(shop: Shop) -> None:
    script = f'{JAVASCRIPT}\nconsole.log(inboxToken("{shop.secret}", "{shop.workspace}", "李雷/?>"))'
    of_node = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True, timeout=30).stdout
    of_command = shop.ask("inbox", "token", "李雷/?>").out

    made = [each.strip().split(".") for each in (of_node, of_command, shop.token("李雷/?>"))]

    assert len({each[1] for each in made}) == len({each[0] for each in made}) == 1
    for each in made:
        answer = shop.http.get(f"{shop.url}/inbox", headers=bearer(".".join(each)))
        assert (answer.status_code, answer.json()["unread"]) == (200, 0)


@pytest.mark.browser
def test_a_page_of_another_origin_asks_by_the_snippet(shop: Shop) -> None:
    for order in ("B-1", "B-2"):
        assert shop.send("bob", order=order)[0] == "sent"
    shop.until(lambda: shop.get("bob")["unread"] >= 2)
    path = next(path for name in BROWSERS if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page(bypass_csp=True)  # that of our pages; a shop has its own
        page.goto(f"{shop.url.replace('127.0.0.1', 'localhost')}/healthz")
        page.add_script_tag(content=SNIPPET.read_text(encoding="utf-8"))
        page.evaluate("host => tidewire.load('', {host})", shop.url)
        told = page.evaluate("token => tidewire.inbox({token, limit: 1})", shop.token("bob"))
        read = page.evaluate("() => tidewire.inbox.read('all')")["read"]
        wrong = page.evaluate("() => tidewire.inbox({token: 'x'}).catch((error) => error.message)")
        browser.close()

    assert len(told["messages"]) == 1 and told["next"]
    assert read and shop.get("bob")["unread"] in (0, len(read))  # the mark shows in a moment
    assert wrong.startswith("This token is not known here.")
