"""A partition that stopped, as an operator meets it: the alarm's number, the command, the page, and going on."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from streams.dead_letters import MOST_IN_A_ROW
from streams.embedded import EmbeddedLog
from streams.log import Outgoing, partition_of
from streams.topics import create_topics
from tests.cli.command import is_one_line
from tests.cli.running import Up
from web.collector.ingest import now

PARTITIONS = 4
JUNK = MOST_IN_A_ROW * 2 + 50  # it stops twice, and the third time it gets through
STOPPED = partition_of(b"default/u:ann", PARTITIONS)


async def fill(folder: Path) -> None:
    """A log in which a program of somebody's wrote junk before Ann's event."""
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    await create_topics(log, Settings(data=folder, partitions=PARTITIONS))
    await log.append("events", [Outgoing(b"x", b"\xffjunk", STOPPED)] * JUNK)
    for user in ("ann", "bob"):
        raw = b'{"type": "track", "event": "Signed Up", "userId": "%s", "messageId": "%s"}' % ((user.encode(),) * 2)
        event = read_event(raw, "", Arrival("default", "web", now()))
        await log.append("events", [Outgoing(event.key.encode(), encode_event(event))])
    await log.stop()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    asyncio.run(fill(tmp_path / "data"))
    running = Up(tmp_path)
    yield running
    running.stop()


def eventually(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def page(up: Up, path: str, form: dict[str, str] | None = None) -> str:
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(f"{up.url}{path}", data, {"Origin": up.url})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def stopped_at(up: Up) -> list[tuple[int, int]]:
    return [(row["partition"], row["offset"]) for row in up.ask("partitions", "list", "--json").rows]


def test_a_stopped_partition_is_seen_and_let_go_on_by_command_and_by_page(up: Up) -> None:
    eventually(lambda: stopped_at(up) == [(STOPPED, MOST_IN_A_ROW)], "it did not stop")
    listed = up.ask("partitions", "list")
    metrics = page(up, "/metrics")
    shown = page(up, "/rejected")
    nobody = up.ask("partitions", "go-on", "99")

    went_on = up.ask("partitions", "go-on", str(STOPPED))
    eventually(lambda: stopped_at(up) == [(STOPPED, 2 * MOST_IN_A_ROW)], "it did not go on, and stop again")
    answer = page(up, "/partitions/go-on", {"partition": str(STOPPED), "let_through": "1"})
    eventually(lambda: stopped_at(up) == [], "it did not go on")

    assert listed.code == 1
    assert "100 records in a row became dead letters" in listed.out
    assert "tidewire_stage_stopped_partitions 1.0" in metrics
    assert re.search(rf'tidewire_stage_behind_records{{partition="{STOPPED}"}} {JUNK + 1 - MOST_IN_A_ROW}', metrics)
    assert f"Partition {STOPPED}:" in shown
    assert f"{JUNK + 1 - MOST_IN_A_ROW} records wait." in shown
    assert is_one_line(nobody.err)
    assert "there is no partition 99" in nobody.err
    assert went_on.code == 0
    assert f"Partition {STOPPED} goes on within seconds." in answer
    assert up.ask("partitions", "list").code == 0
    eventually(lambda: up.count("SELECT count() AS n FROM event_log") == 2, "Ann's event was not handled")
    assert up.count("SELECT uniqExact(id) AS n FROM rejected_list") == JUNK
    assert up.ask("person", "ann", "--json").json["portrait"]["events"] == 1
