"""Moments against a plain walk through the minutes, where clocks are turned above all; days of both calendars; cron."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.lunar import LunarDay, day_of, lunar_of
from processors.moments import check_cron, dated, day_at, is_day, local_zone_of, next_clock, next_of_cron, quiet_until
from schemas.journeys import DAYS
from schemas.times import DAY_MS, MINUTE_MS, from_ms, to_ms

TURNS = {  # zones, and days about which their clocks are turned: put forward, then back
    "Europe/Vienna": ("2024-03-31", "2024-10-27"),
    "America/New_York": ("2024-03-10", "2024-11-03"),
    "Asia/Shanghai": ("1990-04-15", "1990-09-16"),
    "Australia/Lord_Howe": ("2024-10-06", "2024-04-07"),  # by half an hour
    "Africa/Cairo": ("2024-04-26", "2024-11-01"),  # at midnight
    "America/St_Johns": ("2009-03-08", "2009-11-01"),  # at 00:01
    "GMT+05:30": ("2024-02-29",),
}
CLOCKS = st.builds(
    lambda hour, minute: f"{hour:02}:{minute:02}",
    st.sampled_from([0, 1, 2, 3, 9, 22, 23]), st.sampled_from([0, 1, 15, 30, 59]),
)  # fmt: skip
WEEKDAYS = st.lists(st.sampled_from(DAYS), max_size=3, unique=True).map(tuple)


def ms(text: str, zone: str = "UTC") -> int:
    at = datetime.fromisoformat(text)
    return to_ms(at if at.tzinfo else at.replace(tzinfo=zone_in(zone)))


def zone_in(name: str) -> Any:
    return datetime.fromisoformat(f"2024-01-01T00:00{name[3:]}").tzinfo if name.startswith("GMT+") else ZoneInfo(name)


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, int]:
    """A zone, and a moment near to where its clocks are turned; sometimes the very one, or a millisecond beside."""
    zone = draw(st.sampled_from(sorted(TURNS)))
    day = ms(f"{draw(st.sampled_from(TURNS[zone]))}T00:00:00Z")
    minutes = draw(st.integers(-24 * 60, 36 * 60) | st.integers(-48, 72).map(lambda halves: 30 * halves))
    return zone, day + minutes * MINUTE_MS + draw(st.sampled_from([0, 0, 0, 1, -1, 31_000]))


def minutes_from(start_ms: int, minutes: int, zone: str) -> Iterator[tuple[int, datetime]]:
    """Each full minute from then on, and what the clocks there show."""
    first = -(-start_ms // MINUTE_MS) * MINUTE_MS
    there = zone_in(zone)
    for at_ms in range(first, first + minutes * MINUTE_MS, MINUTE_MS):
        yield at_ms, datetime.fromtimestamp(at_ms // 1000, there).replace(tzinfo=None)


def walked(now_ms: int, at: str, on: tuple[str, ...], zone: str) -> int | None:
    """`next_clock`, by a walk from the day before: each day's moment is when clocks first reach or pass the time."""
    hour, minute = map(int, at.split(":"))
    shown = minutes_from(now_ms - 2 * DAY_MS, 12 * 24 * 60, zone)
    passed: set[date] = set()
    before = next(shown)[1]
    for at_ms, local in shown:
        for day in {before.date(), local.date()}:
            wanted = datetime(day.year, day.month, day.day, hour, minute)
            if before < wanted <= local and day not in passed:
                passed.add(day)
                if at_ms >= now_ms and (not on or DAYS[day.weekday()] in on):
                    return at_ms
        before = local
    return None


@given(moment=moments(), at=CLOCKS, on=WEEKDAYS)
@settings(max_examples=80, deadline=None)
@example(("Europe/Vienna", ms("2024-03-31T01:00:00Z")), "02:30", ())
@example(("Europe/Vienna", ms("2024-10-27T01:10:00Z")), "02:30", ())
@example(("Africa/Cairo", ms("2024-04-25T22:00:00Z")), "00:00", ("fri",))
@example(("America/St_Johns", ms("2009-11-01T02:31:00Z")), "23:30", ("sat",))
def test_the_next_time_of_day_is_the_one_that_a_walk_through_the_minutes_finds(
    moment: tuple[str, int], at: str, on: tuple[str, ...]
) -> None:
    zone, now_ms = moment

    assert next_clock(now_ms, at, on, zone) == walked(now_ms, at, on, zone)


@given(moment=moments(), begin=CLOCKS, end=CLOCKS)
@settings(max_examples=80, deadline=None)
@example(("Europe/Vienna", ms("2024-10-27T00:29:00Z")), "22:00", "02:30")
@example(("Africa/Cairo", ms("2024-10-31T20:45:00Z")), "23:30", "07:00")
def test_quiet_hours_are_those_that_clocks_show_and_end_at_the_first_minute_that_is_not(
    moment: tuple[str, int], begin: str, end: str
) -> None:
    zone, now_ms = moment

    def is_quiet(local: datetime) -> bool:
        shown = f"{local:%H:%M}"
        return begin <= shown < end if begin <= end else shown >= begin or shown < end

    until_ms = quiet_until(now_ms, begin, end, zone)

    if not is_quiet(datetime.fromtimestamp(now_ms // 1000, zone_in(zone))):
        assert until_ms == 0
    else:
        walk = minutes_from(now_ms + 1, 2 * 24 * 60, zone)
        assert until_ms == next(at_ms for at_ms, local in walk if not is_quiet(local))


def test_this_very_moment_is_the_next_one_and_a_millisecond_later_is_not() -> None:
    nine = ms("2026-05-04T09:00:00", "Europe/Vienna")

    assert next_clock(nine, "09:00", (), "Europe/Vienna") == nine
    assert next_clock(nine + 1, "09:00", (), "Europe/Vienna") == nine + DAY_MS
    assert next_clock(nine + 1, "09:00", ("mon",), "Europe/Vienna") == nine + 7 * DAY_MS


@pytest.mark.parametrize(
    ("mine", "counts"),
    [("Asia/Shanghai", "Asia/Shanghai"), ("GMT+08:00", "GMT+08:00"), ("GMT-03:30", "GMT-03:30"), ("", "Europe/Vienna"),
     ("America", "Europe/Vienna"), ("Not/There", "Europe/Vienna"), ("../../etc/passwd", "Europe/Vienna"),
     ("GMT+99:00", "Europe/Vienna"), ("a\0b", "Europe/Vienna")],
)  # fmt: skip
def test_her_own_zone_counts_where_it_can_be_read(mine: str, counts: str) -> None:
    assert local_zone_of(mine, "Europe/Vienna") == counts


def test_a_zone_that_only_says_its_offset_has_clocks_too() -> None:
    assert next_clock(ms("2026-05-04T00:00:00Z"), "09:00", (), "GMT+08:00") == ms("2026-05-04T01:00:00Z")
    assert day_at(ms("2026-05-04T23:00:00Z"), "GMT+08:00") == date(2026, 5, 5)


def test_a_time_of_day_costs_microseconds() -> None:
    times = range(ms("2026-05-04T00:00:00Z"), ms("2026-05-05T00:00:00Z"), 20 * 1000)
    [next_clock(at_ms, "09:00", ("mon", "fri"), "Europe/Vienna") for at_ms in times[:100]]

    best = min(_spent(lambda: [next_clock(at_ms, "09:00", ("mon", "fri"), "Europe/Vienna") for at_ms in times])
               for _ in range(3)) / len(times)  # fmt: skip

    assert best < 20e-6  # about 2 on a machine that does nothing else


def _spent(act: Any) -> float:
    begun = time.process_time()
    act()
    return time.process_time() - begun


# --- the Chinese calendar


@pytest.mark.parametrize(
    ("day", "lunar"),
    [
        ("2023-09-29", LunarDay(2023, 8, 15)), ("2024-09-17", LunarDay(2024, 8, 15)),
        ("2025-10-06", LunarDay(2025, 8, 15)), ("2024-02-10", LunarDay(2024, 1, 1)),
        ("2025-01-29", LunarDay(2025, 1, 1)), ("2026-02-17", LunarDay(2026, 1, 1)),
        ("2024-02-09", LunarDay(2023, 12, 30)), ("2023-03-22", LunarDay(2023, 2, 1, is_leap=True)),
        ("2025-07-25", LunarDay(2025, 6, 1, is_leap=True)), ("1987-07-26", LunarDay(1987, 6, 1, is_leap=True)),
        # New moons within minutes of midnight at Beijing, and the year that others have wrong.
        ("2027-02-06", LunarDay(2027, 1, 1)), ("2030-02-03", LunarDay(2030, 1, 1)),
        ("2033-12-22", LunarDay(2033, 11, 1, is_leap=True)),
    ],
)  # fmt: skip
def test_days_that_almanacs_print(day: str, lunar: LunarDay) -> None:
    assert lunar_of(date.fromisoformat(day)) == lunar
    assert day_of(*lunar) == date.fromisoformat(day)


@given(day=st.dates(date(1950, 1, 1), date(2060, 12, 31)))
@settings(max_examples=200, deadline=None)
def test_each_day_is_one_of_the_chinese_calendar_and_the_next_follows_it(day: date) -> None:
    lunar, following = lunar_of(day), lunar_of(day + timedelta(days=1))

    assert day_of(*lunar) == day
    assert following.day == lunar.day + 1 or (following.day == 1 and lunar.day in (29, 30))
    assert following > lunar or following.is_leap or lunar.is_leap or following.year == lunar.year + 1


def test_a_day_that_a_year_does_not_have_is_the_nearest_that_it_has() -> None:
    assert day_of(2025, 6, 10, is_leap=True) == day_of(2025, 6, 10) + timedelta(days=30)
    assert day_of(2026, 6, 10, is_leap=True) == day_of(2026, 6, 10)
    assert day_of(2023, 12, 30) == date(2024, 2, 9)
    assert day_of(2024, 12, 30) == day_of(2024, 12, 29) == date(2025, 1, 28)


# --- days that traits say


def next_day(value: Any, after: str, **more: Any) -> str | None:
    said = {"calendar": "solar", "yearly": True, "days_before": 0, "at": "09:00", "zone": "Europe/Vienna"} | more
    found = dated(value, after_ms=ms(after, said["zone"]), **said)
    return None if found is None else datetime.fromtimestamp(found / 1000, zone_in(said["zone"])).isoformat()[:16]


@pytest.mark.parametrize(
    ("value", "more", "due"),
    [
        ("1990-05-20", {}, "2026-05-20T09:00"),
        ("05-20", {}, "2026-05-20T09:00"),
        ("--05-20", {}, "2026-05-20T09:00"),
        ("1604-05-20", {}, "2026-05-20T09:00"),
        ("1990-05-20T23:30:00", {}, "2026-05-20T09:00"),
        ("1990-05-20T00:00:00.000Z", {"zone": "America/New_York"}, "2026-05-20T09:00"),  # midnight: as it is written
        ("1990-05-19T22:00:00.000Z", {}, "2026-05-20T09:00"),  # midnight in Vienna, as a browser there writes it
        ("1990-02-28T16:00:00.000Z", {"zone": "Asia/Shanghai"}, "2027-03-01T09:00"),
        ("1990-04-30", {}, "2027-04-30T09:00"),
        ("1990-05-01", {}, "2026-05-01T09:00"),  # today, later
        ("1990-05-01", {"at": "07:59"}, "2027-05-01T07:59"),  # today, past
        ("1990-05-01", {"at": "08:00"}, "2026-05-01T08:00"),  # this very moment
        ("2000-02-29", {}, "2027-02-28T09:00"),
        ("1990-02-29", {}, "2027-02-28T09:00"),
        ("02-29", {"days_before": 365}, "2027-03-01T09:00"),  # before 2028-02-29
        ("1990-01-10", {"days_before": 20}, "2026-12-21T09:00"),
        ("2026-05-20", {"yearly": False}, "2026-05-20T09:00"),
        ("2026-05-20", {"yearly": False, "days_before": 19, "at": "08:00"}, "2026-05-01T08:00"),
        ("2026-05-20", {"yearly": False, "days_before": 20}, None),
        ("1990-05-20", {"yearly": False}, None),
        ("05-20", {"yearly": False}, None),
        # 1990-10-03 was the 15th of the eighth month.
        ("1990-10-03", {"calendar": "lunar"}, "2026-09-25T09:00"),
        ("08-15", {"calendar": "lunar"}, "2026-09-25T09:00"),
        ("L08-15", {}, "2026-09-25T09:00"),
        ("L1990-08-15", {"calendar": "lunar"}, "2026-09-25T09:00"),
        ("L2026-08-15", {"yearly": False}, "2026-09-25T09:00"),
        ("12-30", {"calendar": "lunar"}, "2027-02-05T09:00"),  # that month has 29 days
        ("12-30", {"calendar": "lunar", "days_before": 365}, "2027-01-25T09:00"),  # before 2028-01-25
        ("2025-08-03", {"calendar": "lunar"}, "2026-07-23T09:00"),  # the 10th of the leap month after the sixth
        ("2026-05-20", {"calendar": "lunar", "yearly": False}, "2026-05-20T09:00"),
    ],
)  # fmt: skip
def test_the_next_day_that_a_trait_says(value: str, more: dict[str, Any], due: str | None) -> None:
    assert next_day(value, "2026-05-01T08:00", **more) == due


@pytest.mark.parametrize(
    "value",
    ["", "soon", "1990-02-30", "04-31", "13-01", "00-10", "1990-5-1", "L08-31", "L13-01", "L", "L1600-08-15", 19900520,
     None, True, ["1990-05-20"], {"day": 1}, "1990-05-20 " * 9, "９９-01"],
)  # fmt: skip
@pytest.mark.parametrize("calendar", ["solar", "lunar"])
@pytest.mark.parametrize("yearly", [True, False])
def test_what_says_no_day_is_never_due(value: Any, calendar: Any, yearly: bool) -> None:
    assert next_day(value, "2026-05-01T08:00", calendar=calendar, yearly=yearly) is None
    assert not is_day(value, date(2026, 5, 20), calendar=calendar, yearly=yearly)


@given(
    value=st.dates(date(1930, 1, 1), date(2029, 12, 31)).map(date.isoformat)
    | st.sampled_from(["02-29", "L12-30", "L06-01", "2000-02-29", "12-31", "01-01"]),
    calendar=st.sampled_from(["solar", "lunar"]), yearly=st.booleans(), days_before=st.sampled_from([0, 1, 30, 365]),
    start=st.dates(date(2023, 1, 1), date(2028, 12, 31)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_sweep_on_each_day_finds_the_days_on_which_it_is_due(
    value: str, calendar: Any, yearly: bool, days_before: int, start: date
) -> None:
    said: dict[str, Any] = {"calendar": calendar, "yearly": yearly, "days_before": days_before}
    days = [start + timedelta(days=number) for number in range(400)]
    swept = [day for day in days if is_day(value, day, **said)]

    due, after_ms = [], to_ms(datetime(start.year, start.month, start.day, tzinfo=UTC))
    while (at_ms := dated(value, **said, at="00:00", zone="UTC", after_ms=after_ms)) is not None:
        if from_ms(at_ms).date() > days[-1]:
            break
        due.append(from_ms(at_ms).date())
        after_ms = at_ms + 1

    assert swept == due
    assert len(swept) <= (3 if yearly else 1)


# --- cron


def due(cron: str, zone: str, after: str, times: int) -> list[str]:
    def each() -> Any:
        at_ms = ms(after)
        while True:
            at_ms = next_of_cron(cron, zone, at_ms)
            yield datetime.fromtimestamp(at_ms / 1000, zone_in(zone)).isoformat()

    return list(islice(each(), times))


@pytest.mark.parametrize(
    ("cron", "zone", "after", "times"),
    [
        ("0 9 * * MON", "Europe/Vienna", "2024-03-25T08:00:00Z",
         ["2024-04-01T09:00:00+02:00", "2024-04-08T09:00:00+02:00"]),
        # At a given time: once a day, after the hour that is left out, and at the first of two.
        ("30 2 * * *", "Europe/Vienna", "2024-03-30T02:00:00Z",
         ["2024-03-31T03:00:00+02:00", "2024-04-01T02:30:00+02:00"]),
        ("30 2 * * *", "Europe/Vienna", "2024-10-26T23:00:00Z",
         ["2024-10-27T02:30:00+02:00", "2024-10-28T02:30:00+01:00"]),
        ("30 2 * * *", "Europe/Vienna", "2024-10-27T01:10:00Z", ["2024-10-28T02:30:00+01:00"]),  # in the second of two
        # Each hour: as clocks show them.
        ("30 * * * *", "Europe/Vienna", "2024-03-31T00:00:00Z",
         ["2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00"]),
        ("30 * * * *", "Europe/Vienna", "2024-10-27T00:00:00Z",
         ["2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00", "2024-10-27T03:30:00+01:00"]),
        ("*/15 * * * *", "Australia/Lord_Howe", "2024-10-05T15:10:00Z",
         ["2024-10-06T01:45:00+10:30", "2024-10-06T02:30:00+11:00"]),
        ("0 0 29 2 *", "GMT+08:00", "2024-03-01T00:00:00Z", ["2028-02-29T00:00:00+08:00"]),
        ("0 18 L * *", "Asia/Shanghai", "2026-02-01T00:00:00Z",
         ["2026-02-28T18:00:00+08:00", "2026-03-31T18:00:00+08:00"]),
    ],
)  # fmt: skip
def test_moments_that_cron_lines_mean(cron: str, zone: str, after: str, times: list[str]) -> None:
    assert due(cron, zone, after, len(times)) == times


@given(
    moment=moments().filter(lambda moment: moment[0] not in ("Australia/Lord_Howe", "America/St_Johns")),
    cron=st.sampled_from(["0 * * * *", "*/7 1,2 * * *", "15 0,2 * * *", "30 23 * * 5"]),
)
@settings(max_examples=60, deadline=None)
def test_the_next_moment_of_a_cron_line_is_later_and_none_lies_between(moment: tuple[str, int], cron: str) -> None:
    zone, now_ms = moment

    first = next_of_cron(cron, zone, now_ms)

    assert first > now_ms
    between = range(now_ms, first, max(1, (first - now_ms) // 20))
    assert {next_of_cron(cron, zone, at_ms) for at_ms in between} == {first}


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 9 * *", "'0 9 * *' has 4 fields: write five, minute, hour, day, month and weekday, such as 0 9 * * MON"),
        ("0 0 9 * * *", "'0 0 9 * * *' has 6 fields: write five, minute, hour, day, month and weekday, "
                        "such as 0 9 * * MON"),
        ("@daily", "'@daily' has 1 fields: write five, minute, hour, day, month and weekday, such as 0 9 * * MON"),
        ("61 9 * * *", "'61 9 * * *': minute is '61'; write 0 to 59, or several as 1,3 or 1-5 or */2"),
        ("0 24 * * *", "'0 24 * * *': hour is '24'; write 0 to 23, or several as 1,3 or 1-5 or */2"),
        ("0 9 * MAI *", "'0 9 * MAI *': month is 'MAI'; write 1 to 12, or JAN to DEC, or several as 1,3 or 1-5 or */2"),
        ("0 9 * * 8", "'0 9 * * 8': weekday is '8'; write 0 to 7, where both are Sunday, or SUN to SAT, or several as "
                      "1,3 or 1-5 or */2"),
        ("0 9 31 4,6 *", "'0 9 31 4,6 *': day is '31'; write 1 to 31, as far as these months go, or L for the last, "
                         "or several as 1,3 or 1-5 or */2"),
    ],
)  # fmt: skip
def test_a_cron_line_that_cannot_be_read_is_told_with_its_field(cron: str, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_cron(cron)
    with pytest.raises(ValueError):
        next_of_cron(cron, "UTC", 0)

    assert str(refused.value) == says


@given(cron=st.lists(st.text("0123456789*/,-#L MONWed²", max_size=5), min_size=5, max_size=5).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_cron_line_or_refused_with_words(cron: str) -> None:
    try:
        check_cron(cron)
    except ValueError as error:
        assert repr(cron) in str(error)
    else:
        assert next_of_cron(cron, "Europe/Vienna", 365 * DAY_MS) > 365 * DAY_MS
