"""Three real SDKs deliver to a real collector, over faults too, by their own retries."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest
from segment.analytics import Client

from schemas.event import Event
from tests.collector.node_sdks import SDKS, node_modules
from tests.collector.running import KEY, Running
from web.collector.answers import Answer, come_again, refusal

pytestmark = pytest.mark.together

COUNT = 120  # track calls; beside them one of each other call

Deliver = Callable[[str], None]


def by_segment_python(url: str) -> None:
    failures: list[object] = []
    client = Client(KEY, host=url, upload_interval=0.05, on_error=lambda error, items: failures.append(error))
    client.identify("u-1", {"plan": "pro", "name": "李雷"})
    client.page("u-1", "Shop", "Home", {"url": "https://shop.example/"})
    client.screen("u-1", None, "Start")
    client.group("u-1", "acme", {"size": 3})
    client.alias("a-1", "u-1")
    for number in range(COUNT):
        client.track(anonymous_id="a-1", event="Item Seen", properties={"number": number})
    client.flush()
    client.shutdown()
    assert failures == []


def by_node(script: str) -> Deliver:
    def deliver(url: str) -> None:
        environment = {**os.environ, "URL": url, "KEY": KEY, "COUNT": str(COUNT), "NODE_PATH": str(node_modules())}
        ended = subprocess.run(
            ["node", SDKS / script], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")

    return deliver


SENDERS = [
    pytest.param(by_segment_python, id="segment-analytics-python"),
    pytest.param(by_node("segment.cjs"), id="@segment/analytics-node", marks=pytest.mark.node),
    pytest.param(by_node("rudderstack.cjs"), id="@rudderstack/rudder-sdk-node", marks=pytest.mark.node),
]


def once(events: list[Event]) -> list[Event]:
    """The events by messageId; copies of one must say the same."""
    found: dict[str, Event] = {}
    for event in events:
        first = found.setdefault(event.message_id, event)
        assert (first.type, first.key, first.properties) == (event.type, event.key, event.properties)
    return list(found.values())


def check_all_arrived(collector: Running) -> None:
    events = once(collector.events())
    assert collector.rejected() == []
    assert Counter(event.type for event in events) == {
        "track": COUNT, "identify": 1, "page": 1, "screen": 1, "group": 1, "alias": 1,
    }  # fmt: skip
    assert sorted(event.properties["number"] for event in events if event.type == "track") == list(range(COUNT))


@pytest.mark.parametrize("deliver", SENDERS)
def test_every_call_arrives_whole(start_collector: Callable[..., Running], deliver: Deliver):
    collector = start_collector()

    deliver(collector.url)

    check_all_arrived(collector)
    events = {event.type: event for event in collector.events()}
    assert len(collector.events()) == COUNT + 5  # without faults nothing is sent twice
    assert dict(events["identify"].traits) == {"plan": "pro", "name": "李雷"}
    assert (events["page"].name, events["page"].category) == ("Home", "Shop")
    assert events["screen"].name == "Start"
    assert (events["group"].group_id, dict(events["group"].traits)) == ("acme", {"size": 3})
    assert (events["alias"].previous_id, events["alias"].user_id) == ("a-1", "u-1")
    assert events["track"].key == "default/a:a-1"
    assert all(event.original_timestamp is not None for event in events.values())
    assert {flag for event in events.values() for flag in event.flags} == set()


@pytest.mark.parametrize("deliver", SENDERS)
@pytest.mark.parametrize(
    "fault",
    [come_again(503, "busy", 1), come_again(429, "too fast", 1), refusal(502, "bad gateway")],
    ids=["503", "429", "502"],
)
def test_what_was_refused_for_now_arrives_by_the_sdks_own_retries(
    start_collector: Callable[..., Running], deliver: Deliver, fault: Answer
):
    collector = start_collector()
    collector.answer_first += [fault, fault]

    deliver(collector.url)

    assert collector.answer_first == []
    check_all_arrived(collector)


@pytest.mark.parametrize("deliver", SENDERS)
def test_an_answer_that_got_lost_leaves_copies_with_the_same_message_id(
    start_collector: Callable[..., Running], deliver: Deliver
):
    collector = start_collector()
    collector.lose_answers = 2

    deliver(collector.url)

    assert len(collector.events()) > COUNT + 5
    check_all_arrived(collector)
