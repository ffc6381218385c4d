"""`send`, `simulate` and the replay of the demo, to a collector that runs: all arrives, and twice changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from streams.cdnow import Purchase, calls
from streams.client import Sender
from tests.cli.command import tidewire
from tests.collector.running import KEY, Running


@pytest.fixture
def collector(tmp_path):
    running = Running(tmp_path / "collector").start()
    yield running
    running.stop()


def write(folder: Path, *lines: object) -> Path:
    file = folder / "events.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_a_file_arrives_whole_and_bad_lines_are_named(tmp_path, collector):
    file = write(
        tmp_path,
        {"type": "track", "event": "Signed Up", "userId": "u1", "properties": {"plan": "pro"}},
        "no json",
        {"batch": [{"type": "page", "anonymousId": "a1"}, {"type": "page", "anonymousId": "a2"}]},
    )

    done = tidewire("send", file, "--url", collector.url, "--write-key", KEY, "--json", cwd=tmp_path)

    assert done.code == 1
    assert f"{file}, line 2: a line must be one JSON object" in done.err
    report = done.json
    assert (report["sent"], report["bad"]) == (3, 1)
    assert sorted(event.label for event in collector.events()) == ["Page", "Page", "Signed Up"]


def test_standard_input_is_read_and_old_times_stay(tmp_path, collector):
    line = json.dumps(
        {"type": "page", "userId": "u1", "timestamp": "2019-05-05T05:05:05Z", "sentAt": "2019-05-05T05:05:06Z"}
    )

    done = tidewire("send", "-", "--url", collector.url, "--write-key", KEY, stdin=line, cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("1 events sent")
    (event,) = collector.events()
    assert event.timestamp.isoformat() == "2019-05-05T05:05:05+00:00"


def test_a_file_sent_again_has_the_same_message_ids(tmp_path, collector):
    file = write(tmp_path, *({"type": "page", "userId": f"u{n % 3}"} for n in range(10)))

    for _ in range(2):
        assert tidewire("send", file, "--url", collector.url, "--write-key", KEY, cwd=tmp_path).code == 0

    ids = Counter(event.message_id for event in collector.events())
    assert len(ids) == 10
    assert set(ids.values()) == {2}


@pytest.mark.parametrize(("key", "code", "says"), [("wrong-key", 1, "does not know the write key")])
def test_a_wrong_write_key_is_one_line(tmp_path, collector, key, code, says):
    file = write(tmp_path, {"type": "page", "userId": "u1"})

    done = tidewire("send", file, "--url", collector.url, "--write-key", key, cwd=tmp_path)

    assert done.code == code
    assert says in done.err
    assert done.err.count("\n") == 1


def test_a_busy_collector_gets_everything_in_the_end(tmp_path, collector):
    collector.lose_answers = 2
    file = write(tmp_path, *({"type": "page", "userId": f"u{n}"} for n in range(50)))

    done = tidewire("send", file, "--url", collector.url, "--write-key", KEY, "--json", cwd=tmp_path)

    assert done.code == 0
    assert done.json["repeated"] == 2
    assert len({event.message_id for event in collector.events()}) == 50


def test_every_simulated_call_is_accepted(tmp_path, collector):
    options = ("--people", "40", "--days", "30", "--end", "2026-11-01", "--disorder", "0.1", "--duplicates", "0.1")
    tidewire("simulate", *options, "--out", "all.jsonl", cwd=tmp_path)

    done = tidewire("simulate", *options, "--url", collector.url, "--write-key", KEY, "--json", cwd=tmp_path)

    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert done.code == 0
    assert done.json["sent"] == len(lines)
    assert collector.rejected() == []
    events = collector.events()
    assert Counter(event.message_id for event in events) == Counter(line["messageId"] for line in lines)
    assert all(event.flags == () for event in events)


def test_a_rate_is_kept(tmp_path, collector):
    done = tidewire("simulate", "--people", "3", "--days", "5", "--end", "2026-11-01", "--rate", "20", "--json",
                    "--url", collector.url, "--write-key", KEY, cwd=tmp_path)  # fmt: skip

    assert done.code == 0
    assert done.json["sent"] > 10
    assert done.json["seconds"] >= 0.9 * (done.json["sent"] - 1) / 20


async def test_every_call_of_the_demo_is_accepted_with_its_time_to_the_day(collector):
    history = [
        Purchase(n, f"{n % 7:05d}" if n % 7 else "00099", date(1997, 1, 1 + n % 28), 1, "11.77") for n in range(1, 200)
    ]

    for _ in range(2):
        async with Sender(collector.url, KEY, batch=20) as sender:
            for call in calls(history):
                await sender.send(call.person, call.body)

    events = collector.events()
    assert collector.rejected() == []
    assert {event.timestamp.strftime("%H:%M:%S.%f") for event in events} == {"12:00:00.000000"}
    assert all(event.flags == () for event in events)
    assert set(Counter(event.message_id for event in events).values()) == {2}
    for person in {event.user_id for event in events}:
        first = list(dict.fromkeys(event.message_id for event in events if event.user_id == person))
        times = {event.message_id: event.timestamp for event in events}
        assert [times[each] for each in first] == sorted(times[each] for each in first)
