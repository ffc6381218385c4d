"""The profile: traits and their history, contacts, consent across parts, devices, bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from processors.acceptance import run, view
from processors.base import Person
from processors.consent import MOST_SPEAKERS
from processors.fold import Fold
from processors.histories import BEGIN_MS, event_of, events_of
from processors.profile import MOST_DEVICES, MOST_LABELS, Profile, email_of, phone_of, zone_of
from processors.traits import LARGEST_VALUE, MOST_TRAITS, MOST_VALUES
from schemas.errors import Refused
from schemas.event import Event
from schemas.times import DAY_MS, to_iso
from tests.processors.generators import histories, identifies

PROFILE = Profile()


def at(day: int) -> str:
    return to_iso(BEGIN_MS + day * DAY_MS)


def identify(day: int = 0, /, **traits: object) -> dict[str, Any]:
    return {"at": at(day), "type": "identify", "traits": traits}


def shown(*bodies: dict[str, Any]) -> dict[str, Any]:
    return dict(view(PROFILE, run(PROFILE, events_of(bodies)).parts))


@given(events=histories(identifies, most=20))
@settings(max_examples=200, deadline=None)
def test_traits_are_the_last_word_of_the_sorted_history(events: list[Event]) -> None:
    last: dict[str, Any] = {}
    for event in events:
        last |= {name: (event.at_ms, value) for name, value in event.traits.items()}

    found = view(PROFILE, run(PROFILE, events).parts)

    assert found["traits"] == {name: value for name, (_, value) in last.items() if value is not None}


def test_a_trait_says_since_when_it_stands_and_what_it_was_before() -> None:
    found = shown(identify(0, plan="free"), identify(2, plan="free"), identify(5, plan="pro"), identify(9, plan="pro"))

    assert found["trait_history"]["plan"] == {"since": at(5), "before": [{"value": "free", "until": at(2)}]}


def test_a_trait_that_returns_to_a_value_stands_since_the_other_was_last_said() -> None:
    found = shown(identify(0, plan="pro"), identify(3, plan="free"), identify(5, plan="pro"))

    assert found["trait_history"]["plan"] == {"since": at(3), "before": [{"value": "free", "until": at(3)}]}


def test_a_removed_trait_is_gone_and_its_history_says_so() -> None:
    found = shown(identify(0, plan="pro"), identify(3, plan=None))

    assert found["traits"] == {}
    assert found["trait_history"]["plan"]["before"] == [{"value": "pro", "until": at(0)}]


def test_only_the_newest_values_of_a_trait_are_kept() -> None:
    found = shown(*(identify(day, seen=day) for day in range(20)))

    assert [old["value"] for old in found["trait_history"]["seen"]["before"]] == [18, 17, 16, 15]
    assert len(found["trait_history"]["seen"]["before"]) == MOST_VALUES - 1
    assert found["trait_history"]["seen"]["since"] == at(19)


def test_ids_among_traits_are_not_traits() -> None:
    assert shown(identify(id="u-1", anonymousId="a-1", plan="pro"))["traits"] == {"plan": "pro"}


def test_traits_beyond_the_bounds_are_counted_and_known_names_stay() -> None:
    found = shown(identify(**{f"trait-{number}": number for number in range(300)}), identify(email="a@b.example"),
                  identify(huge="x" * LARGEST_VALUE, **{"n" * 101: 1}))  # fmt: skip

    assert len(found["traits"]) == MOST_TRAITS and "email" in found["traits"]
    assert (found["traits_not_kept"], found["traits_too_many"]) == (300 - MOST_TRAITS + 1 + 2, True)


def test_a_group_call_says_nothing_of_the_person() -> None:
    found = shown(identify(name="Ann"), {"at": at(1), "type": "group", "groupId": "g-1", "traits": {"name": "Acme"}},
                  {"at": at(2), "type": "group", "groupId": "g-1", "context": {"traits": {"name": "Ann"}}})  # fmt: skip

    assert (found["name"], found["company"], found["company_id"]) == ("Ann", "Acme", "g-1")


def test_the_company_may_be_a_trait() -> None:
    assert shown(identify(company={"name": "Acme", "id": 1}))["company"] == "Acme"
    assert shown(identify(company="Acme"))["company"] == "Acme"


def test_the_name_may_be_in_two_traits() -> None:
    assert shown(identify(firstName="Ann", lastName=" Example"))["name"] == "Ann Example"


@pytest.mark.parametrize(("text", "email"), [
    ("ann@example.com", "ann@example.com"), (" ANN@Example.Com ", "ann@example.com"), ("ann+x@mail.example.co.uk",) * 2,
    ("ann", None), ("ann@", None), ("@example.com", None), ("ann@example", None), ("a b@example.com", None),
    ("ann@example.com\nBcc: x@y.example", None), (5, None), ("a" * 65 + "@example.com", None),
])  # fmt: skip
def test_an_email_address_is_made_comparable_or_left_out(text: object, email: str | None) -> None:
    assert email_of(text) == email


@pytest.mark.parametrize(("text", "phone"), [
    ("+43 1 234-567", "+431234567"), ("0043 1 234567", "+431234567"), (13800138000, "13800138000"), ("12", None),
    ("+43 1 234 ext 5", None), (True, None), ("1" * 400, None),
])  # fmt: skip
def test_a_phone_number_is_made_comparable_or_left_out(text: object, phone: str | None) -> None:
    assert phone_of(text) == phone


@pytest.mark.parametrize(("text", "zone"), [
    ("Europe/Vienna", "Europe/Vienna"), ("America/Argentina/Ushuaia",) * 2, ("UTC", "UTC"), ("Etc/GMT+5", "Etc/GMT+5"),
    ("GMT+8", "GMT+08:00"), ("UTC-03:30", "GMT-03:30"), ("+0530", "GMT+05:30"), ("GMT+25", ""), ("Vienna", ""),
    ("<b>/x", ""), ("../etc/passwd", ""), ("", ""),
])  # fmt: skip
def test_a_time_zone_is_a_name_or_an_offset(text: str, zone: str) -> None:
    assert zone_of(text) == zone


def test_contacts_say_by_which_source_they_came_and_null_takes_them_back() -> None:
    told = identify(0, email="a@example.com", phone="+431234567")

    assert shown(told)["contacts"]["email"] == {"value": "a@example.com", "at": at(0), "source": "website"}
    assert shown(told, identify(1, email=None))["email"] == ""
    assert shown(told, identify(1, email="no address"))["email"] == "a@example.com"


# --- consent


def consent(day: int, event: str, who: dict[str, str] | None = None, /, **properties: object) -> dict[str, Any]:
    return {"at": at(day), "event": event, "properties": properties, **(who or {})}


PHONE = {"userId": "", "anonymousId": "phone"}


def granted(*bodies: dict[str, Any]) -> dict[tuple[str, str], bool]:
    return {(one["topic"], one["channel"]): one["granted"] for one in shown(*bodies)["consent"]}


def test_within_one_part_the_newest_word_counts() -> None:
    yes, no = consent(1, "Subscribed", topic="news"), consent(2, "Unsubscribed", topic="news")

    assert granted(no, yes) == {("news", "*"): False}
    assert granted(no, yes, consent(3, "Subscribed", topic="news")) == {("news", "*"): True}


def test_between_merged_parts_withdrawn_wins_even_over_a_later_yes() -> None:
    assert granted(consent(1, "Unsubscribed", PHONE, topic="news"), consent(2, "Subscribed", topic="news")) == {
        ("news", "*"): False}  # fmt: skip


def test_a_yes_of_an_event_with_both_ids_speaks_for_both() -> None:
    both = {"userId": "ann", "anonymousId": "phone"}

    assert granted(consent(1, "Unsubscribed", PHONE, topic="news"), consent(2, "Subscribed", both, topic="news")) == {
        ("news", "*"): True}  # fmt: skip


def test_a_withdrawal_of_everything_covers_every_topic_and_channel_before_it() -> None:
    found = granted(consent(1, "Subscribed", topic="news", channel="email"), consent(2, "Unsubscribed"),
                    consent(3, "Subscribed", topic="offers"))  # fmt: skip

    assert found == {("*", "*"): False, ("news", "email"): False, ("offers", "*"): True}


def test_consent_is_read_from_traits_and_from_segments_own_event() -> None:
    assert granted(identify(consent={"news": True, "offers": {"email": True, "sms": False}})) == {
        ("news", "*"): True, ("offers", "email"): True, ("offers", "sms"): False}  # fmt: skip
    assert granted({"at": at(0), "event": "Segment Consent Preference Updated",
                    "context": {"consent": {"categoryPreferences": {"Advertising": False}}}}) == {
        ("Advertising", "*"): False}  # fmt: skip
    assert granted(consent(0, "Consent Changed", topic="news", channel="sms", granted=True)) == {("news", "sms"): True}
    assert granted(identify(unsubscribed=True)) == {("*", "*"): False}
    assert granted(identify(unsubscribed="yes", consent={"news": "perhaps"})) == {}


def test_a_withdrawal_is_never_forgotten_however_many_speak() -> None:
    bodies = [consent(1, "Unsubscribed", {"userId": "ann", "anonymousId": f"device-{number}"}, topic=f"t-{number}")
              for number in range(3 * MOST_SPEAKERS)]  # fmt: skip
    again = [consent(2, "Subscribed", topic=f"t-{number}") for number in range(3 * MOST_SPEAKERS)]

    found = granted(*bodies[:40], *again[:40])

    assert sum(not yes for yes in found.values()) == 40  # on each device it still stands as withdrawn


# --- what happens with every event


def test_labels_beyond_the_most_are_counted_together_and_known_ones_stay() -> None:
    bodies = [{"at": at(0), "event": f"Odd {number}"} for number in range(MOST_LABELS + 50)]

    found = shown(*bodies, {"at": at(0), "event": "Order Completed"})

    assert len(found["event_counts"]) == MOST_LABELS and found["event_counts"]["Order Completed"] == 1
    assert (found["other_events"], found["events"]) == (51, MOST_LABELS + 51)


def test_devices_are_named_and_those_seen_last_are_kept() -> None:
    agents = {"Mozilla/5.0 (Windows NT 10.0; Win64) Chrome/1 Safari/5": ("computer", "Chrome on Windows"),
              "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Safari/6": ("phone", "Safari on iPhone"),
              "Mozilla/5.0 (Linux; Android 14) Chrome/1 Mobile MicroMessenger/8": ("phone", "WeChat on Android"),
              "Mozilla/5.0 (Linux; Android 14; Tab) Chrome/1 Safari/5": ("tablet", "Chrome on Android"),
              "Googlebot/2.1 (+http://www.google.com/bot.html)": ("bot", "Googlebot"),
              "curl/8.0": ("other", "curl")}  # fmt: skip
    bodies = [{"at": at(day), "type": "page", "context": {"userAgent": agent}} for day, agent in enumerate(agents)]

    found = shown(*bodies)["devices"]

    assert [(one["kind"], one["name"]) for one in reversed(found)] == list(agents.values())
    phones = [{"at": at(day), "type": "screen", "context": {"device": {"id": f"d-{day}", "model": "iPhone15,2"}}}
              for day in range(MOST_DEVICES + 5)]  # fmt: skip
    many = shown(*phones)["devices"]
    assert [one["id"] for one in many] == [f"d-{day}" for day in range(MOST_DEVICES + 4, 4, -1)]
    assert many[0]["first_seen"] is None  # first times are not known any more


def test_the_first_campaign_is_that_of_the_earliest_event_that_has_one() -> None:
    def page(day: int, **campaign: str) -> dict[str, Any]:
        return {"at": at(day), "type": "page", "context": {"campaign": campaign}}

    found = shown(page(5, source="late"), page(2, source="News", medium="Email", name="May"), page(1))

    assert found["first_touch"] == {"at": at(2), "source": "news", "medium": "email", "campaign": "May", "term": "",
                                    "content": ""}  # fmt: skip


def test_traits_are_decoded_only_when_an_event_needs_them() -> None:
    fold = Fold([PROFILE])
    parts = run(PROFILE, events_of([identify(plan="pro")]), is_stored_each_time=True).parts
    part = parts["shop/u:ann"]

    run_before = fold.portrait(parts)
    fold.apply(part, event_of({"at": at(1), "event": "Product Viewed"}), Person("shop/u:ann", "shop/u:ann", 1), 0)

    assert isinstance(part.sections["profile:1"].told, msgspec.Raw)  # type: ignore[attr-defined]
    assert run_before["profile"]["traits"] == {"plan": "pro"}




@pytest.mark.parametrize("context", [
    {"locale": 5}, {"page": []}, {"campaign": {"source": 1}}, {"device": "phone"}, {"timezone": None}, {"library": 0},
    {"userAgent": {"brand": "x"}},
])  # fmt: skip
def test_a_context_of_the_wrong_shape_counts_as_absent(context: dict[str, Any]) -> None:
    found = shown({"at": at(0), "type": "page", "context": {"locale": "de", **context}})

    assert found["events"] == 1
    assert found["locale"] == ("" if context.get("locale") == 5 else "de")


def test_traits_that_cannot_be_read_are_refused() -> None:
    event = event_of(identify())
    event.raw_traits = msgspec.Raw(b'{"n": 1e999}')

    with pytest.raises(Refused):
        Fold([PROFILE]).check(event)


# --- what is said of messages


def of_messages(day: int, event: str, source: str = "tidewire", /, **properties: object) -> dict[str, Any]:
    return {"at": at(day), "event": event, "properties": properties, "source": source}


def test_what_was_sent_to_her_and_what_a_machine_read_is_no_sign_of_life() -> None:
    told = [of_messages(0, "Message Clicked"), of_messages(1, "Message Opened"), of_messages(2, "Message Sent"),
            of_messages(3, "Message Opened", machine="proxy"),
            of_messages(4, "Message Clicked", machine="trap")]  # fmt: skip

    found = shown(*told)

    assert (found["last_seen"], found["event_counts"]) == (at(1), {"Message Clicked": 1, "Message Opened": 1})
    assert shown(*told, of_messages(3, "Message Read"))["last_seen"] == at(3)
    of_the_shop = of_messages(5, "Message Opened", "web", machine="proxy")
    assert shown(*told, of_the_shop)["last_seen"] == at(5)  # what others call their events is theirs
