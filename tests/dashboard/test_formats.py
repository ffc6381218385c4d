"""What the pages make of numbers, times, ranges and cells, without a server."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import encode_event
from schemas.intake import Arrival, read_event
from streams.log import Record
from web.dashboard.charts import columns, share, sparkline
from web.dashboard.export import csv_response, safe_cell
from web.dashboard.language import Language, choose
from web.dashboard.live_positions import pack, unpack
from web.dashboard.pages.live import Wanted, line_of
from web.dashboard.queries.people import cursor, read_cursor
from web.dashboard.ranges import RANGES, between, floor_to, span_of, steps_of, whole
from web.dashboard.site import local_path, web_url

AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=2)
EN, ZH = Language("en"), Language("zh")
ZONES = ("UTC", "Asia/Shanghai", "America/St_Johns", "Europe/Vienna", "Australia/Lord_Howe", "Pacific/Apia")
CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC))


# --- cells of a CSV


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\0=1", " =1", '"=1', ";=1", ",=1", "'=1", "\u00a0=1",
     "\ufeff=1"],
)
def test_text_that_a_spreadsheet_would_run_stands_behind_an_apostrophe(text: str) -> None:
    assert safe_cell(text).startswith("'")


@given(st.text())
def test_no_text_becomes_a_formula_and_none_is_lost(text: str) -> None:
    cell = safe_cell(text)

    assert cell.removeprefix("'").endswith(text.replace("\0", "").removeprefix("'"))
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("value", [-3, -2.5, Decimal("-10.20")])
def test_our_own_negative_numbers_stay_numbers(value: object) -> None:
    assert safe_cell(value) == str(value)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5))
def test_a_csv_reads_back_cell_by_cell(rows: list[list[str]]) -> None:
    answer = csv_response("people", ("a", "b"), [dict(zip(("a", "b"), row, strict=True)) for row in rows])

    text = bytes(answer.body).decode("utf-8-sig")
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read == [["a", "b"], *[[safe_cell(cell) for cell in row] for row in rows]]
    assert answer.headers["content-disposition"] == 'attachment; filename="people.csv"'
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"


# --- languages


@pytest.mark.parametrize(
    ("accept", "cookie", "language"),
    [("", "", "en"), ("zh-TW,zh;q=0.8", "", "zh"), ("fr-FR,zh;q=0.5,en;q=0.4", "", "zh"), ("zh;q=0", "", "en"),
     ("en;q=x,zh", "", "zh"), ("en", "zh", "zh"), ("zh", "xx", "zh"), (";;;,,,", "", "en"),
     ("zh" + ",x" * 5000, "", "zh")],
)  # fmt: skip
def test_the_language_is_the_one_chosen_else_the_browsers_else_english(accept: str, cookie: str, language: str) -> None:
    assert choose(accept, cookie) == language


def test_each_language_writes_numbers_its_own_way() -> None:
    assert [EN.compact(n) for n in (0, 9_999, 69_659, 2_500_315, -15_000)] == ["0", "9,999", "69.7K", "2.50M", "-15.0K"]
    assert [ZH.compact(n) for n in (9_999, 69_659, 2_500_315, 123_456_789)] == ["9,999", "6.97万", "250万", "1.23亿"]
    assert EN.money(Decimal("2500315.63"), "USD") == "$2,500,315.63"
    assert ZH.money(Decimal("2500315.63"), "USD") == "US$2,500,315.63"
    assert [language.money(Decimal("-3.5"), "CNY") for language in (EN, ZH)] == ["−CN¥3.50", "−¥3.50"]
    assert EN.money(1234, "JPY") == "¥1,234"
    assert EN.money(5, "") == "5.00"
    assert EN.money(5, "XAU") == "XAU 5.00"


def test_each_language_writes_times_its_own_way_and_in_the_zone_asked_for() -> None:
    moment = datetime(1998, 3, 12, 22, 5, 9, tzinfo=UTC)

    assert EN.at(moment) == "12 Mar 1998, 22:05"
    assert ZH.at(moment, seconds=True) == "1998年3月12日 22:05:09"
    assert Language("zh", "Asia/Shanghai").at(moment) == "1998年3月13日 06:05"
    assert [EN.ago(moment, moment + timedelta(seconds=s)) for s in (0, 60, 7_300, 90_000)] == [
        "just now", "1 minute ago", "2 hours ago", "1 day ago",
    ]  # fmt: skip
    assert EN.ago(moment, moment + timedelta(days=40)) == "12 Mar 1998"


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.124, "+12%"), (-0.034, "−3.4%"), (0.0, "0%"), (None, "–"), (24.0, "+25×")]
)
def test_changes_are_said_shortly(ratio: float | None, said: str) -> None:
    assert EN.change(ratio) == said


# --- ranges


@given(MOMENTS, st.sampled_from(ZONES), st.sampled_from(RANGES[:4]))
def test_a_range_ends_now_and_its_steps_cover_it_without_gaps(now: datetime, zone: str, name: str) -> None:
    span = span_of(name, now, zone)  # type: ignore[arg-type]

    steps = steps_of(span, span.start, span.end)
    assert span.start <= now < span.end
    assert span.before is not None and span.before_end is not None
    assert span.before < span.before_end <= span.start
    assert steps[0] <= span.start
    assert steps == sorted(set(steps))
    assert len(steps) <= 60
    widest = {"hour": 1, "6 hours": 8, "day": 26, "week": 8 * 24, "month": 32 * 24}[span.step]
    assert all(later - earlier <= timedelta(hours=widest) for earlier, later in pairwise(steps))
    assert now - steps[-1] <= timedelta(hours=widest)


@given(MOMENTS, st.sampled_from(ZONES))
def test_days_begin_at_midnight_of_the_zone(now: datetime, zone: str) -> None:
    span = span_of("30d", now, zone)

    starts = [step.astimezone(ZoneInfo(zone)) for step in steps_of(span, span.start, span.end)]
    # Where a clock change skips midnight, the day begins at the first moment it has.
    assert all(start.hour in (0, 1) and start.minute in (0, 30) for start in starts)
    assert len({start.date() for start in starts}) == len(starts)


@given(MOMENTS, st.sampled_from(("hour", "6 hours", "day", "week", "month")), st.sampled_from(ZONES))
def test_a_moment_lies_in_its_own_step(moment: datetime, step: str, zone: str) -> None:
    start = floor_to(moment, step, zone)  # type: ignore[arg-type]

    assert start <= moment
    assert floor_to(start, step, zone) == start  # type: ignore[arg-type]


def test_chosen_days_are_whole_and_compare_with_as_many_before() -> None:
    span = between(date(1997, 1, 31), date(1997, 1, 1), "Asia/Shanghai")

    assert span.start == datetime(1996, 12, 31, 16, tzinfo=UTC)
    assert span.end == datetime(1997, 1, 31, 16, tzinfo=UTC)
    assert (span.before, span.before_end) == (datetime(1996, 11, 30, 16, tzinfo=UTC), span.start)


def test_all_time_has_nothing_before_it() -> None:
    span = whole(datetime(1997, 1, 1, tzinfo=UTC), datetime(1998, 6, 30, tzinfo=UTC), "UTC")

    assert (span.before, span.before_end, span.step) == (None, None, "week")


# --- lines of the live page


def a_record(topic: str, value: bytes) -> Record:
    return Record(topic, 0, 7, 1_700_000_000_000, b"key", value)


def test_the_live_page_shows_what_is_of_its_workspace_and_fits_the_filter() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    body = b'{"type": "track", "event": "Order Completed", "userId": "u", "properties": {"total": 5}}'
    line = line_of(a_record("events", encode_event(read_event(body, "", Arrival("shop", "web", at)))))

    asked = [{}, {"event": "order"}, {"source": "WEB"}, {"kind": "events"}, {"event": "x"}, {"source": "we"},
             {"kind": "rejected"}, {"kind": "nonsense"}]  # fmt: skip
    assert [Wanted.of(query, "shop").takes(line) for query in asked] == [True] * 4 + [False] * 3 + [True]
    assert not Wanted.of({}, "other").takes(line)
    assert (line.label, line.says, line.key) == ("Order Completed", "5", "shop/u:u")


@given(st.sampled_from(("events", "rejected")), st.one_of(st.binary(), st.just(b'{"id": 3}'), st.just(b"[]")))
def test_a_record_that_nobody_can_read_is_a_line_that_says_so(topic: str, value: bytes) -> None:
    line = line_of(a_record(topic, value))

    assert (line.label, line.kind) == ("?", topic)
    assert line.says


# --- addresses, places, drawings


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "", "people", "/\t/x",
     "/a\r\nSet-Cookie: x=1"],
)  # fmt: skip
def test_nobody_is_sent_to_another_site(target: str) -> None:
    assert local_path(target) == "/"


@pytest.mark.parametrize("address", ["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "//evil.example", "ftp://x/",
                                     "http://", "https://[x", 7, None, "https://" + "x" * 3000])  # fmt: skip
def test_only_addresses_of_the_web_become_links(address: object) -> None:
    assert web_url(address) == ""


@given(st.one_of(st.integers(-(2**62), 2**62), st.text()), st.text())
def test_a_page_of_a_list_is_found_again_by_its_cursor(value: int | str, person: str) -> None:
    assert read_cursor(cursor(value, person)) == (value, person)


@given(st.text())
def test_any_other_cursor_is_none(text: str) -> None:
    found = read_cursor(text)

    assert found is None or read_cursor(cursor(*found)) == found


@given(st.dictionaries(st.tuples(st.sampled_from(("events", "rejected")), st.integers(0, 511)), st.integers(0, 2**53)))
def test_positions_of_a_live_page_read_back(positions: dict[tuple[str, int], int]) -> None:
    assert {tuple(tp): offset for tp, offset in unpack(pack(positions)).items()} == positions  # type: ignore[arg-type]


@given(st.lists(st.one_of(st.none(), st.integers(-(10**12), 10**12), AMOUNTS), max_size=80))
def test_drawings_hold_numbers_and_our_own_words_only(values: list[int | Decimal | None]) -> None:
    drawn = f"{sparkline(values)}{columns(values)}{share(values[0] if values else None, sum(v or 0 for v in values))}"

    assert "nan" not in drawn and "inf" not in drawn
    assert "style=" not in drawn and "<script" not in drawn
