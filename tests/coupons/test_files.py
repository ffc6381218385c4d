"""Campaigns as files: what is wrong is said with its line, and the mend."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.coupons import read_campaigns
from schemas.conditions import InSegment
from schemas.errors import ConfigError

GOOD = """\
title: {en: Spring, zh: 春季}
codes: {generated: {prefix: SPRING}}
worth: {amount: 9.99, currency: EUR}
expires: 30 days after given
budget: {codes: 100, amount: 500}
give_when: {did: Order Completed, where: {total: {at_least: 100}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "coupons").mkdir()
    return tmp_path


def write(folder: Path, text: str = GOOD, name: str = "spring") -> None:
    (folder / "coupons" / f"{name}.yaml").write_text(text)


def test_a_file_says_what_a_campaign_is(folder: Path) -> None:
    write(folder)

    campaign = read_campaigns(folder, "UTC")["spring"].campaign

    assert (campaign.worth, campaign.unit, campaign.most_codes, campaign.most_worth) == (99_900, "EUR", 100, 5_000_000)
    assert (campaign.series, campaign.expires_after_ms, campaign.ends_ms) == ("SPRING/10", 30 * 86_400_000, 0)
    assert read_campaigns(folder / "nowhere", "UTC") == {}


def test_the_files_that_come_with_tidewire_are_right_and_give_by_themselves_what_a_journey_tells_of() -> None:
    for name, each in read_campaigns(Path("config"), "UTC").items():
        assert each.campaign.title["en"] and each.campaign.title["zh"] and each.campaign.about, name
        assert each.campaign.most_codes, name
        assert each.when == (InSegment(segment="at_risk") if name == "win_back" else None), name


def test_a_last_day_ends_at_midnight_of_the_time_zone(folder: Path) -> None:
    write(folder, GOOD.replace("30 days after given", "2027-03-31"))

    campaign = read_campaigns(folder, "Asia/Shanghai")["spring"].campaign

    assert datetime.fromtimestamp(campaign.ends_ms / 1000, UTC) == datetime(2027, 3, 31, 16, tzinfo=UTC)


def test_a_pool_has_its_codes_in_order_however_they_are_written(folder: Path) -> None:
    write(folder, GOOD.replace("generated: {prefix: SPRING}", "file: codes.txt"))
    (folder / "coupons" / "codes.txt").write_text("a-1\n\n B-2 \r\nC3")

    read = read_campaigns(folder, "UTC")["spring"]

    assert list(read.pool) == ["A-1", "B-2", "C3"] and read.campaign.pool and not read.campaign.prefix


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("currency: EUR", "curency: EUR", 'spring.yaml:3: "worth.curency": no such key here; got EUR.'),
        ("amount: 9.99, currency: EUR", "amount: 9.99", "spring.yaml:3: \"worth\": amount needs a currency"),
        ("amount: 9.99, currency: EUR", "percent: 101", 'spring.yaml:3: "worth.percent": '),
        ("amount: 9.99, currency: EUR", "percent: 10", "spring.yaml:1: budget.amount needs a worth in money"),
        ("30 days after given", "soon", 'spring.yaml:4: "expires": write how long, such as 30 days after given'),
        ("30 days after given", "2 calendar days after given", "write minutes, hours, days or weeks after given"),
        ("prefix: SPRING", "prefix: spring", 'spring.yaml:2: "codes.generated.prefix": '),
        ("prefix: SPRING", "prefix: S, length: 7", 'spring.yaml:2: "codes.generated.length": '),
        ("{prefix: SPRING}", "{prefix: S, length: 8}", ""),
        ("codes: 100", "codes: 27513", ""),
        ("{prefix: SPRING}", "{prefix: S}, file: x", 'spring.yaml:2: "codes": say generated or file, one of them'),
        ("generated: {prefix: SPRING}", "file: ../x", 'spring.yaml:2: "codes.file": '),
        ("at_least: 100}}", "at_lest: 100}}", 'spring.yaml:6: "give_when.where.0.at_lest": no such key here'),
        (", where: {total: {at_least: 100}}", ", at_least: 3", "for counts, sums and times write a segment"),
        ("did: Order Completed, where: {total: {at_least: 100}}", "trait: plan, is: pro", "give_when is one event"),
        ("title: {en: Spring, zh: 春季}", "tilte: x", "no such key here; got x. It may hold title, about, codes, "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(folder: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    write(folder, GOOD.replace(old, new))

    if not said:
        assert read_campaigns(folder, "UTC")
        return
    with pytest.raises(ConfigError) as caught:
        read_campaigns(folder, "UTC")

    assert said in str(caught.value)


def test_more_codes_than_can_be_kept_from_guessers_need_a_greater_length(folder: Path) -> None:
    write(folder, GOOD.replace("prefix: SPRING", "prefix: S, length: 8").replace("codes: 100", "codes: 27513"))

    with pytest.raises(ConfigError, match="of length 8 there are at most 27,512 codes"):
        read_campaigns(folder, "UTC")


@pytest.mark.parametrize(
    ("codes", "said"),
    [("A1\nB2\na1\n", "codes.txt:3: A1 stands in line 1, too."), ("A1\nno code\n", "codes.txt:2: no code is no code."),
     ("\n", "codes.txt: holds no code."), (None, "codes.txt: cannot be read")],
)  # fmt: skip
def test_a_pool_that_is_wrong_is_said_with_its_line(folder: Path, codes: str | None, said: str) -> None:
    write(folder, GOOD.replace("generated: {prefix: SPRING}", "file: codes.txt"))
    if codes is not None:
        (folder / "coupons" / "codes.txt").write_text(codes)

    with pytest.raises(ConfigError) as caught:
        read_campaigns(folder, "UTC")

    assert said in str(caught.value)


def test_two_campaigns_share_no_code_and_names_are_those_of_segments(folder: Path) -> None:
    for name in ("one", "two"):
        write(folder, GOOD.replace("generated: {prefix: SPRING}", f"file: {name}.txt"), name)
        (folder / "coupons" / f"{name}.txt").write_text(f"{name}\nBOTH\n")
    with pytest.raises(ConfigError, match='code BOTH is one of campaign "one", too'):
        read_campaigns(folder, "UTC")

    (folder / "coupons" / "two.txt").write_text("TWO\n")
    write(folder, name="No Name")
    with pytest.raises(ConfigError, match='"No Name" cannot be the name of a campaign'):
        read_campaigns(folder, "UTC")


def test_a_file_that_would_not_be_read_is_said(folder: Path) -> None:
    (folder / "coupons" / "spring.yml").write_text(GOOD)

    with pytest.raises(ConfigError, match=r"spring\.yml: is not read\. Let its name end with \.yaml\."):
        read_campaigns(folder, "UTC")
