"""Visits against a plain count, and the corners: late events, horizons, touches, servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from processors.acceptance import run, view
from processors.context import facts_of
from processors.histories import BEGIN_MS, events_of
from processors.touch import touch_of
from processors.visits import Visits, VisitsSettings
from schemas.event import Event
from schemas.times import DAY_MS, HOUR_MS, MINUTE_MS, to_iso
from tests.processors.generators import histories, pages, tracks

VISITS = Visits()
MONTH = Visits(VisitsSettings(keep_days=30))


def page(at_ms: int, **more: Any) -> dict[str, Any]:
    return {"at": to_iso(at_ms), "type": "page", **more}


def shown(*bodies: dict[str, Any], visits: Visits = VISITS) -> dict[str, Any]:
    return dict(view(visits, run(visits, events_of(bodies)).parts))


@given(events=histories(pages, most=25))
@settings(max_examples=200, deadline=None)
def test_visits_are_the_runs_of_events_without_thirty_minutes_of_silence(events: list[Event]) -> None:
    times: dict[str, list[int]] = {}
    for event in events:
        times.setdefault(event.key, []).append(event.at_ms)
    runs = {key: _runs(at) for key, at in times.items()}

    rows = run(VISITS, events).rows["visits"]

    found = {key: [row["seconds"] for row in sorted(rows, key=lambda row: row["started_at"]) if row["key"] == key]
             for key in times}  # fmt: skip
    assert found == {key: [(run[-1] - run[0]) // 1000 for run in of_key] for key, of_key in runs.items()}
    assert view(VISITS, run(VISITS, events).parts)["visits"] == len(_runs([event.at_ms for event in events]))


def _runs(times: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for at_ms in sorted(times):
        if runs and at_ms - runs[-1][-1] <= 30 * MINUTE_MS:
            runs[-1].append(at_ms)
        else:
            runs.append([at_ms])
    return runs


def test_a_late_event_that_starts_a_visit_earlier_moves_its_row() -> None:
    folded = run(VISITS, events_of([page(BEGIN_MS + 10 * MINUTE_MS), page(BEGIN_MS)]))

    assert [(row["started_at"], row["events"]) for row in folded.rows["visits"]] == [("2024-03-01T00:00:00Z", 2)]


def test_visits_older_than_are_kept_stay_in_the_totals() -> None:
    bodies = [page(BEGIN_MS + day * DAY_MS) for day in range(100)]

    found = shown(*bodies, visits=MONTH)

    assert (found["visits"], found["late"], len(found["recent"])) == (100, 0, 20)
    assert found["sources"] == [{"source": "(direct)", "medium": "", "campaign": "", "visits": 100}]
    assert found["first_at"] == to_iso(BEGIN_MS)


def test_an_event_later_than_visits_are_kept_is_counted_and_makes_no_visit() -> None:
    found = shown(page(BEGIN_MS + 31 * DAY_MS), page(BEGIN_MS), page(BEGIN_MS + 2 * DAY_MS), visits=MONTH)

    assert (found["visits"], found["late"], found["events"], found["pages"]) == (2, 1, 3, 3)
    assert found["first_at"] == to_iso(BEGIN_MS)


def test_a_month_of_visits_in_any_order_is_the_same_though_only_a_month_is_kept() -> None:
    bodies = [page(BEGIN_MS + day * DAY_MS) for day in range(30)]

    assert shown(*reversed(bodies), visits=MONTH) == shown(*bodies, visits=MONTH)


def test_more_visits_than_are_kept_are_counted_all_the_same() -> None:
    visits = Visits(VisitsSettings(keep_visits=20))
    bodies = [page(BEGIN_MS + hour * HOUR_MS) for hour in range(50)]

    found = shown(*bodies, page(BEGIN_MS + 20 * MINUTE_MS), visits=visits)

    assert (found["visits"], found["late"], found["events"]) == (50, 1, 51)


@pytest.mark.parametrize(("context", "source", "medium", "campaign"), [
    ({}, "(direct)", "", ""),
    ({"page": {"url": "https://shop.test/a", "referrer": "https://shop.test/b"}}, "(direct)", "", ""),
    ({"page": {"url": "https://shop.test/a", "referrer": "https://www.google.co.uk/"}}, "google.co.uk", "organic", ""),
    ({"page": {"url": "https://shop.test/a", "referrer": "https://m.facebook.com/x"}}, "m.facebook.com", "social", ""),
    ({"page": {"url": "https://shop.test/a", "referrer": "https://blog.example/"}}, "blog.example", "referral", ""),
    ({"page": {"url": "https://shop.test/?utm_source=News&utm_medium=Email&utm_campaign=May"}}, "news", "email", "May"),
    ({"page": {"url": "https://shop.test/?gclid=abc"}}, "google", "cpc", ""),
    ({"campaign": {"source": "App", "name": "x"}, "page": {"url": "https://shop.test/?utm_source=no"}}, "app", "", "x"),
    ({"page": {"url": "https://[broken", "referrer": "::"}}, "(direct)", "", ""),
    ({"page": "not a page", "campaign": 5}, "(direct)", "", ""),
])  # fmt: skip
def test_the_touch_of_an_event(context: dict[str, Any], source: str, medium: str, campaign: str) -> None:
    (event,) = events_of([page(BEGIN_MS, context=context)])

    touch = touch_of(event, facts_of(event))

    assert (touch.source, touch.medium, touch.campaign) == (source, medium, campaign)


def test_a_page_call_without_context_says_itself_where_it_is() -> None:
    (event,) = events_of([page(BEGIN_MS, properties={"url": "https://shop.test/a?b=c#d", "referrer": "https://bing.com"})])

    touch = touch_of(event, facts_of(event))

    assert (touch.source, touch.landing) == ("bing.com", "shop.test/a")


def test_addresses_are_kept_without_what_may_be_personal() -> None:
    (row,) = run(VISITS, events_of([page(BEGIN_MS, context={"page": {
        "url": "https://ann:secret@shop.test/reset?token=1#x", "referrer": "https://mail.test/?q=ann"}})])).rows["visits"]

    assert (row["landing"], row["referrer"]) == ("shop.test/reset", "mail.test/")


@given(events=histories(pages, tracks))
@settings(max_examples=60, deadline=None)
def test_every_event_of_presence_is_counted_in_one_visit(events: list[Event]) -> None:
    folded = run(VISITS, events)
    found = view(VISITS, folded.parts)

    assert sum(row["events"] for row in folded.rows["visits"]) == found["events"]




def test_who_reads_a_mail_or_leaves_a_topic_does_not_visit_the_shop() -> None:
    browser = {"context": {"userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"}}
    reading = [{"at": to_iso(BEGIN_MS), "event": event, "source": "tidewire", **browser}
               for event in ("Message Opened", "Message Clicked", "Message Read", "Unsubscribed")]  # fmt: skip

    assert run(VISITS, events_of(reading)).rows.get("visits", []) == []
    assert len(run(VISITS, events_of([{**reading[0], "source": "web"}])).rows["visits"]) == 1
